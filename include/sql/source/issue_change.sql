-- Edits of the issues of issue.sql.
SELECT
    c.id AS issue_change_id,
    c.edited_by_id AS edited_by,
    c.edited_at
FROM issues_issuechange AS c
WHERE c.issue_id IN (SELECT issue.issue_id FROM ({% include "source/issue.sql" %}) AS issue)
