-- Observations that were not deleted, on a client's form. The form and the time that they count for are their session's:
-- join the sessions of session.sql.
SELECT
    o.id AS observation_id,
    o.session_id
FROM megforms_observation AS o
JOIN megforms_auditform AS f ON f.id = o.form_id
JOIN megforms_institution AS i ON i.id = f.institution_id AND NOT i.is_demo
WHERE o.deleted_at IS NULL
