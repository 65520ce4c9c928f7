-- Submissions: observations on a client's form that were not deleted, in a session of session.sql. Each counts for its
-- session's form and time. A form is looked up only where an observation is on another form than its session.
SELECT
    o.id AS observation_id,
    o.session_id,
    session.form_id,
    session.ward_id,
    session.auditor_id,
    session.platform,
    session.submitted_at
FROM ({% include "source/session.sql" %}) AS session
JOIN megforms_observation AS o ON o.session_id = session.session_id
LEFT JOIN megforms_auditform AS other_form ON other_form.id = nullif(o.form_id, session.form_id)
LEFT JOIN megforms_institution AS other_institution ON other_institution.id = other_form.institution_id
WHERE
    o.deleted_at IS NULL
    AND (o.form_id = session.form_id OR NOT other_institution.is_demo)
