-- Each form's use in each of eight quarters, with its status: new, retained, churned, ...
--
-- grain   a form in a quarter: created before the quarter's end and not archived before its start, or with
--         submissions in it; the eight quarters up to the run's, each with its own documents
-- window  all submissions before the end of each quarter; the first of quarter_starts is needed only as the quarter before
--         the second
-- units   counts
-- instant submissions, status, is_archived and which forms exist, each at the end of its quarter
-- reading names, form_type, and which rows are deleted
WITH
form AS NOT MATERIALIZED (
    {% include "source/form.sql" %}
),
submission AS NOT MATERIALIZED (
    {% include "source/submission.sql" %}
),
quarter AS (
    SELECT *
    FROM unnest(
        %(quarter_names)s::text[], %(quarter_starts)s::timestamptz[], %(quarter_ends)s::timestamptz[]
    ) WITH ORDINALITY AS quarters (period, period_start, period_end, number)
),
-- By quarter; number 0 holds everything before the first quarter.
activity AS (
    SELECT
        form_id,
        width_bucket(submitted_at, %(quarter_starts)s::timestamptz[]) AS number,
        count(*) AS submissions,
        min(submitted_at) AS first_submitted_at,
        max(submitted_at) AS last_submitted_at
    FROM submission
    WHERE submitted_at < %(period_end)s
    GROUP BY form_id, number
),
form_quarter AS (
    SELECT
        form.form_id,
        quarter.number,
        coalesce(sum(activity.submissions) FILTER (WHERE activity.number = quarter.number), 0)::bigint AS submissions,
        coalesce(
            sum(activity.submissions) FILTER (WHERE activity.number = quarter.number - 1), 0
        )::bigint AS previous_submissions,
        coalesce(bool_or(activity.number < quarter.number - 1), FALSE) AS earlier,
        min(activity.first_submitted_at) AS first_submitted_at,
        max(activity.last_submitted_at) AS last_submitted_at
    FROM form
    CROSS JOIN quarter
    LEFT JOIN activity ON activity.form_id = form.form_id AND activity.number <= quarter.number
    WHERE quarter.number > 1
    GROUP BY form.form_id, quarter.number
)
SELECT
    quarter.period,
    quarter.period_start,
    form.institution_id,
    form.institution_name,
    form.form_id,
    form.form_name,
    form.form_type,
    form_quarter.submissions,
    form_quarter.previous_submissions,
    form_quarter.first_submitted_at,
    form_quarter.last_submitted_at,
    coalesce(form.archived_at < quarter.period_end, FALSE) AS is_archived,
    CASE
        WHEN form_quarter.submissions > 0 AND form_quarter.previous_submissions > 0 THEN 'retained'
        WHEN form_quarter.submissions > 0 AND form_quarter.earlier THEN 'reactivated'
        WHEN form_quarter.submissions > 0 THEN 'new'
        WHEN form_quarter.previous_submissions > 0 THEN 'churned'
        WHEN form_quarter.earlier THEN 'dormant'
        ELSE 'never_used'
    END AS status
FROM form_quarter
JOIN form ON form.form_id = form_quarter.form_id
JOIN quarter ON quarter.number = form_quarter.number
WHERE
    (
        form.created_at < quarter.period_end
        AND (form.archived_at IS NULL OR form.archived_at >= quarter.period_start)
    )
    OR form_quarter.submissions > 0
