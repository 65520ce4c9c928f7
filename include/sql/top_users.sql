-- The ten most active users for each of eight actions.
--
-- grain   an action and a rank, 1 to 10; ties go to the latest action, then to the lowest user id
-- window  [as_of - 365 days, as_of)
-- units   counts of actions; share_pct in percent of the region's total for the action, 2 decimals
-- instant the window: which actions count
-- reading user_name, institution_name, is_active, and which rows are deleted
WITH
client_user AS NOT MATERIALIZED (
    {% include "source/user.sql" %}
),
user_action AS (
    SELECT 'document_creators' AS action, src.created_by AS user_id, src.created_at AS at
    FROM ({% include "source/document.sql" %}) AS src
    UNION ALL
    SELECT 'audit_schedule_creators', src.created_by, src.created_at
    FROM ({% include "source/schedule.sql" %}) AS src
    UNION ALL
    SELECT 'issue_creators', src.created_by, src.created_at
    FROM ({% include "source/issue.sql" %}) AS src
    UNION ALL
    SELECT 'issue_editors', src.edited_by, src.edited_at
    FROM ({% include "source/issue_change.sql" %}) AS src
    UNION ALL
    SELECT 'review_screen_editors', src.edited_by, src.edited_at
    FROM ({% include "source/review_edit.sql" %}) AS src
    UNION ALL
    SELECT 'audit_submitters', submitter.user_id, src.submitted_at
    FROM ({% include "source/session.sql" %}) AS src
    JOIN client_user AS submitter ON submitter.auditor_id = src.auditor_id
    UNION ALL
    SELECT 'user_creators', src.created_by, src.joined_at
    FROM client_user AS src
    UNION ALL
    SELECT 'ward_creators', src.created_by, src.created_at
    FROM ({% include "source/ward.sql" %}) AS src
),
counted AS (
    SELECT
        user_action.action,
        user_action.user_id,
        count(*) AS count,
        max(user_action.at) AS last_at
    FROM user_action
    JOIN client_user ON client_user.user_id = user_action.user_id
    WHERE user_action.at >= %(as_of)s - interval '365 days' AND user_action.at < %(as_of)s
    GROUP BY user_action.action, user_action.user_id
),
ranked AS (
    SELECT
        counted.*,
        row_number() OVER (
            PARTITION BY action ORDER BY count DESC, last_at DESC, user_id
        ) AS rank,
        sum(count) OVER (PARTITION BY action) AS total
    FROM counted
)
SELECT
    ranked.action,
    ranked.rank,
    ranked.user_id,
    client_user.user_name,
    client_user.institution_id,
    client_user.institution_name,
    client_user.is_active,
    ranked.count,
    round(100 * ranked.count / ranked.total, 2) AS share_pct,
    ranked.last_at
FROM ranked
JOIN client_user ON client_user.user_id = ranked.user_id
WHERE ranked.rank <= 10
