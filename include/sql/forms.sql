-- Each form, with its settings and its use.
--
-- grain   a form that was created before the as-of instant
-- window  [as_of - n days, as_of) for what ends in _<n>d; all before as_of otherwise
-- units   counts; review_cycle_days in days
-- instant the windows, last_submitted_at, is_archived, and which forms and schedules exist
-- reading names, form_type, flags but is_archived, review_cycle_days, archived_at, and which rows are deleted
WITH
form AS NOT MATERIALIZED (
    {% include "source/form.sql" %}
),
schedule AS NOT MATERIALIZED (
    {% include "source/schedule.sql" %}
),
session AS NOT MATERIALIZED (
    {% include "source/session.sql" %}
),
submission AS NOT MATERIALIZED (
    {% include "source/submission.sql" %}
),
schedules AS (
    SELECT form_id, count(*) AS schedules
    FROM schedule
    WHERE created_at < %(as_of)s
    GROUP BY form_id
),
sessions AS (
    SELECT form_id, count(DISTINCT auditor_id) AS users_90d
    FROM session
    WHERE submitted_at >= %(as_of)s - interval '90 days' AND submitted_at < %(as_of)s
    GROUP BY form_id
),
submissions AS (
    SELECT
        form_id,
        count(*) FILTER (WHERE submitted_at >= %(as_of)s - interval '90 days') AS submissions_90d,
        count(*) FILTER (WHERE submitted_at >= %(as_of)s - interval '365 days') AS submissions_365d,
        max(submitted_at) AS last_submitted_at
    FROM submission
    WHERE submitted_at < %(as_of)s
    GROUP BY form_id
)
SELECT
    form.form_id,
    form.form_name AS name,
    form.form_type,
    form.institution_id,
    form.institution_name,
    form.is_published,
    coalesce(form.archived_at < %(as_of)s, FALSE) AS is_archived,
    form.collects_patient_data,
    form.review_cycle_days,
    form.created_at,
    form.archived_at,
    coalesce(schedules.schedules, 0) AS schedules,
    coalesce(submissions.submissions_90d, 0) AS submissions_90d,
    coalesce(submissions.submissions_365d, 0) AS submissions_365d,
    coalesce(sessions.users_90d, 0) AS users_90d,
    submissions.last_submitted_at
FROM form
LEFT JOIN schedules ON schedules.form_id = form.form_id
LEFT JOIN sessions ON sessions.form_id = form.form_id
LEFT JOIN submissions ON submissions.form_id = form.form_id
WHERE form.created_at < %(as_of)s
