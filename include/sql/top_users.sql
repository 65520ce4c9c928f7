-- The ten most active users, for each of eight actions.
--
-- grain   an action and a rank, 1 to 10; ties go to the latest action, then to the lowest user id
-- window  [as_of - 365 days, as_of)
-- units   counts of actions; share_pct in percent of the region's total for the action, 2 decimals
-- instant the window: which actions count
-- reading user_name, institution_name, is_active, and which rows are deleted
WITH
client AS NOT MATERIALIZED (
    {% include "source/user.sql" %}
),
act AS (
    SELECT 'document_creators' AS action, made.created_by AS user_id, made.created_at AS at
    FROM ({% include "source/document.sql" %}) AS made
    UNION ALL
    SELECT 'audit_schedule_creators', made.created_by, made.created_at
    FROM ({% include "source/schedule.sql" %}) AS made
    UNION ALL
    SELECT 'issue_creators', made.created_by, made.created_at
    FROM ({% include "source/issue.sql" %}) AS made
    UNION ALL
    SELECT 'issue_editors', made.edited_by, made.edited_at
    FROM ({% include "source/issue_change.sql" %}) AS made
    UNION ALL
    SELECT 'review_screen_editors', made.edited_by, made.edited_at
    FROM ({% include "source/review_edit.sql" %}) AS made
    UNION ALL
    SELECT 'audit_submitters', submitter.user_id, made.submitted_at
    FROM ({% include "source/session.sql" %}) AS made
    JOIN client AS submitter ON submitter.auditor_id = made.auditor_id
    UNION ALL
    SELECT 'user_creators', made.created_by, made.joined_at
    FROM client AS made
    UNION ALL
    SELECT 'ward_creators', made.created_by, made.created_at
    FROM ({% include "source/ward.sql" %}) AS made
),
counted AS (
    SELECT
        act.action,
        act.user_id,
        count(*) AS count,
        max(act.at) AS last_at
    FROM act
    JOIN client ON client.user_id = act.user_id
    WHERE act.at >= %(as_of)s - interval '365 days' AND act.at < %(as_of)s
    GROUP BY act.action, act.user_id
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
    client.user_name,
    client.institution_id,
    client.institution_name,
    client.is_active,
    ranked.count,
    round(100 * ranked.count / ranked.total, 2) AS share_pct,
    ranked.last_at
FROM ranked
JOIN client ON client.user_id = ranked.user_id
WHERE ranked.rank <= 10
