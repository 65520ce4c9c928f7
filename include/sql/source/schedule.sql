-- Audit schedules that clients' users created for clients' forms and that were not deleted.
SELECT
    s.id AS schedule_id,
    s.form_id,
    s.created_by_id AS created_by,
    s.created_at
FROM audits_auditschedule AS s
JOIN megforms_auditform AS f ON f.id = s.form_id
JOIN megforms_institution AS i ON i.id = f.institution_id AND NOT i.is_demo
WHERE
    s.deleted_at IS NULL
    AND s.created_by_id IN (SELECT client_user.user_id FROM ({% include "source/user.sql" %}) AS client_user)
