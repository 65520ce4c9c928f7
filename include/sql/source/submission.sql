-- Submissions: observations that were not deleted, on a client's form, in a session of session.sql, whose form and time
-- they count for. That form is a client's, so a form is looked up only for an observation on another.
SELECT
    o.id AS observation_id,
    session.*
FROM ({% include "source/session.sql" %}) AS session
JOIN megforms_observation AS o ON o.session_id = session.session_id
LEFT JOIN megforms_auditform AS of ON of.id = nullif(o.form_id, session.form_id)
LEFT JOIN megforms_institution AS oi ON oi.id = of.institution_id
WHERE
    o.deleted_at IS NULL
    AND oi.is_demo IS NOT TRUE
