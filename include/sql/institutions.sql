-- Each institution, with its size and its use of MEG.
--
-- grain   an institution that was created before the as-of instant
-- window  [as_of - n days, as_of) for what ends in _<n>d; all before as_of otherwise
-- units   counts
-- instant the windows, last_submitted_at, and which institutions, wards, users and forms exist and are archived
-- reading names, country, flags, departments, and which wards and users are active, forms published and rows deleted
WITH
institution AS NOT MATERIALIZED (
    {% include "source/institution.sql" %}
),
department AS NOT MATERIALIZED (
    {% include "source/department.sql" %}
),
ward AS NOT MATERIALIZED (
    {% include "source/ward.sql" %}
),
client_user AS NOT MATERIALIZED (
    {% include "source/user.sql" %}
),
form AS NOT MATERIALIZED (
    {% include "source/form.sql" %}
),
session AS NOT MATERIALIZED (
    {% include "source/session.sql" %}
),
submission AS NOT MATERIALIZED (
    {% include "source/submission.sql" %}
),
departments AS (
    SELECT institution_id, count(*) AS departments
    FROM department
    GROUP BY institution_id
),
wards AS (
    SELECT institution_id, count(*) AS wards
    FROM ward
    WHERE is_active AND created_at < %(as_of)s
    GROUP BY institution_id
),
users AS (
    SELECT institution_id, count(*) AS users
    FROM client_user
    WHERE is_active AND joined_at < %(as_of)s
    GROUP BY institution_id
),
forms AS (
    SELECT institution_id, count(*) AS forms_published
    FROM form
    WHERE
        is_published
        AND created_at < %(as_of)s
        AND (archived_at IS NULL OR archived_at >= %(as_of)s)
    GROUP BY institution_id
),
sessions AS (
    SELECT
        form.institution_id,
        count(DISTINCT session.auditor_id) FILTER (
            WHERE session.submitted_at >= %(as_of)s - interval '30 days'
        ) AS users_active_30d,
        count(DISTINCT session.auditor_id) AS users_active_90d
    FROM session
    JOIN form ON form.form_id = session.form_id
    WHERE session.submitted_at >= %(as_of)s - interval '90 days' AND session.submitted_at < %(as_of)s
    GROUP BY form.institution_id
),
submissions AS (
    SELECT
        form.institution_id,
        count(DISTINCT form.form_id) FILTER (
            WHERE submission.submitted_at >= %(as_of)s - interval '90 days'
        ) AS forms_used_90d,
        count(*) FILTER (WHERE submission.submitted_at >= %(as_of)s - interval '30 days') AS submissions_30d,
        count(*) FILTER (WHERE submission.submitted_at >= %(as_of)s - interval '90 days') AS submissions_90d,
        count(*) FILTER (WHERE submission.submitted_at >= %(as_of)s - interval '365 days') AS submissions_365d,
        max(submission.submitted_at) AS last_submitted_at
    FROM submission
    JOIN form ON form.form_id = submission.form_id
    WHERE submission.submitted_at < %(as_of)s
    GROUP BY form.institution_id
)
SELECT
    institution.institution_id,
    institution.institution_name AS name,
    institution.slug,
    institution.group_name AS "group",
    institution.country,
    institution.is_active,
    institution.handles_patient_data,
    institution.created_at,
    coalesce(departments.departments, 0) AS departments,
    coalesce(wards.wards, 0) AS wards,
    coalesce(users.users, 0) AS users,
    coalesce(sessions.users_active_30d, 0) AS users_active_30d,
    coalesce(sessions.users_active_90d, 0) AS users_active_90d,
    coalesce(forms.forms_published, 0) AS forms_published,
    coalesce(submissions.forms_used_90d, 0) AS forms_used_90d,
    coalesce(submissions.submissions_30d, 0) AS submissions_30d,
    coalesce(submissions.submissions_90d, 0) AS submissions_90d,
    coalesce(submissions.submissions_365d, 0) AS submissions_365d,
    submissions.last_submitted_at
FROM institution
LEFT JOIN departments ON departments.institution_id = institution.institution_id
LEFT JOIN wards ON wards.institution_id = institution.institution_id
LEFT JOIN users ON users.institution_id = institution.institution_id
LEFT JOIN forms ON forms.institution_id = institution.institution_id
LEFT JOIN sessions ON sessions.institution_id = institution.institution_id
LEFT JOIN submissions ON submissions.institution_id = institution.institution_id
WHERE institution.created_at < %(as_of)s
