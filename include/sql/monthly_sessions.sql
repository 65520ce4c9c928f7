-- The audit sessions submitted on each form of a chunk in a month.
--
-- grain   a form that was created before the month's end and not archived before its start, or that has
--         submissions in it
-- window  submitted_at in [period_start, period_end)
-- units   counts; seconds, 1 decimal; a duration is valid where the session ended, not before its start and at most
--         24 hours after it
{% extends "_chunked.sql" %}
{% block chunk_query %}
WITH
form AS NOT MATERIALIZED (
    {% include "source/form.sql" %}
),
session AS NOT MATERIALIZED (
    {% include "source/session.sql" %}
),
submission AS NOT MATERIALIZED (
    {% include "source/submission.sql" %}
),
submitted AS (
    SELECT
        session.form_id,
        session.auditor_id,
        session.ward_id,
        (session.submitted_at AT TIME ZONE %(timezone)s)::date AS day,
        CASE
            WHEN session.ended_at BETWEEN session.started_at AND session.started_at + interval '24 hours'
                THEN extract(EPOCH FROM session.ended_at - session.started_at)
        END AS seconds
    FROM session
    WHERE
        session.form_id = ANY(chunk.form_ids::bigint[])
        AND session.submitted_at >= %(period_start)s
        AND session.submitted_at < %(period_end)s
),
observed AS (
    SELECT form_id, count(*) AS observations
    FROM submission
    WHERE
        form_id = ANY(chunk.form_ids::bigint[])
        AND submitted_at >= %(period_start)s
        AND submitted_at < %(period_end)s
    GROUP BY form_id
),
activity AS (
    SELECT
        form_id,
        count(*) AS sessions,
        count(DISTINCT auditor_id) AS auditors,
        count(DISTINCT ward_id) AS wards,
        count(DISTINCT day) AS active_days,
        sum(seconds) AS total,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds::double precision) AS median,
        percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds::double precision) AS p90,
        count(*) - count(seconds) AS invalid_durations
    FROM submitted
    GROUP BY form_id
)
SELECT
    form.institution_id,
    form.institution_name,
    form.form_id,
    form.form_name,
    form.form_type,
    coalesce(activity.sessions, 0) AS sessions,
    coalesce(observed.observations, 0) AS observations,
    round(coalesce(observed.observations, 0)::numeric / activity.sessions, 2) AS observations_per_session,
    coalesce(activity.auditors, 0) AS auditors,
    coalesce(activity.wards, 0) AS wards,
    coalesce(activity.active_days, 0) AS active_days,
    round(coalesce(activity.total, 0), 1) AS "duration_seconds.total",
    round(activity.median::numeric, 1) AS "duration_seconds.median",
    round(activity.p90::numeric, 1) AS "duration_seconds.p90",
    coalesce(activity.invalid_durations, 0) AS invalid_durations
FROM form
LEFT JOIN activity ON activity.form_id = form.form_id
LEFT JOIN observed ON observed.form_id = form.form_id
WHERE
    form.form_id = ANY(chunk.form_ids::bigint[])
    AND (
        (
            form.created_at < %(period_end)s
            AND (form.archived_at IS NULL OR form.archived_at >= %(period_start)s)
        )
        OR observed.observations > 0
    )
{% endblock %}
