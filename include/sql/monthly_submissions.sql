-- The submissions on each form of a chunk in a month.
--
-- grain   a form that was created before the month's end and not archived before its start, or that has
--         submissions in it
-- window  submitted_at in [period_start, period_end); the month before in [previous_start, period_start)
-- units   counts; change_pct in percent, 2 decimals
{% extends "_chunked.sql" %}
{% block chunk_query %}
WITH
form AS NOT MATERIALIZED (
    {% include "source/form.sql" %}
),
submission AS NOT MATERIALIZED (
    {% include "source/submission.sql" %}
),
submitted AS (
    SELECT
        form_id,
        auditor_id,
        ward_id,
        platform,
        submitted_at,
        submitted_at >= %(period_start)s AS in_period
    FROM submission
    WHERE
        form_id = ANY(chunk.form_ids::bigint[])
        AND submitted_at >= %(previous_start)s
        AND submitted_at < %(period_end)s
),
activity AS (
    SELECT
        form_id,
        count(*) FILTER (WHERE in_period) AS submissions,
        count(DISTINCT auditor_id) FILTER (WHERE in_period) AS submitters,
        count(DISTINCT ward_id) FILTER (WHERE in_period) AS wards,
        count(*) FILTER (WHERE in_period AND platform = 'web') AS web,
        count(*) FILTER (WHERE in_period AND platform = 'ios') AS ios,
        count(*) FILTER (WHERE in_period AND platform = 'android') AS android,
        count(*) FILTER (WHERE in_period AND platform = 'public') AS public,
        min(submitted_at) FILTER (WHERE in_period) AS first_submitted_at,
        max(submitted_at) FILTER (WHERE in_period) AS last_submitted_at,
        count(*) FILTER (WHERE NOT in_period) AS previous_submissions
    FROM submitted
    GROUP BY form_id
)
SELECT
    form.institution_id,
    form.institution_name,
    form.form_id,
    form.form_name,
    form.form_type,
    coalesce(activity.submissions, 0) AS submissions,
    coalesce(activity.submitters, 0) AS submitters,
    coalesce(activity.wards, 0) AS wards,
    coalesce(activity.web, 0) AS "submissions_by_platform.web",
    coalesce(activity.ios, 0) AS "submissions_by_platform.ios",
    coalesce(activity.android, 0) AS "submissions_by_platform.android",
    coalesce(activity.public, 0) AS "submissions_by_platform.public",
    activity.first_submitted_at,
    activity.last_submitted_at,
    coalesce(activity.previous_submissions, 0) AS previous_submissions,
    round(
        100.0 * (activity.submissions - activity.previous_submissions) / nullif(activity.previous_submissions, 0), 2
    ) AS change_pct
FROM form
LEFT JOIN activity ON activity.form_id = form.form_id
WHERE
    form.form_id = ANY(chunk.form_ids::bigint[])
    AND (
        (
            form.created_at < %(period_end)s
            AND (form.archived_at IS NULL OR form.archived_at >= %(period_start)s)
        )
        OR activity.submissions > 0
    )
{% endblock %}
