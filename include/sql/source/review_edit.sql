-- Edits in the review screen, of the observations of submission.sql.
SELECT
    r.id AS review_edit_id,
    r.edited_by_id AS edited_by,
    r.edited_at
FROM reviews_reviewedit AS r
JOIN ({% include "source/submission.sql" %}) AS submission ON submission.observation_id = r.observation_id
