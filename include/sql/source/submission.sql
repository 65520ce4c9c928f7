-- Submissions: observations that were not deleted, on a client's form, in a session of session.sql, whose form and time
-- they count for. That form is a client's, so a form is looked up only for an observation on another.
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
LEFT JOIN megforms_auditform AS another ON another.id = nullif(o.form_id, session.form_id)
LEFT JOIN megforms_institution AS ai ON ai.id = another.institution_id
WHERE
    o.deleted_at IS NULL
    AND (o.form_id = session.form_id OR NOT ai.is_demo)
