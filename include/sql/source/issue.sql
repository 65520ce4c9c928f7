-- Issues that clients' users raised at clients' institutions, about a client's form or no form, and that were not
-- deleted.
SELECT
    s.id AS issue_id,
    s.created_by_id AS created_by,
    s.created_at
FROM issues_issue AS s
JOIN megforms_institution AS i ON i.id = s.institution_id AND NOT i.is_demo
LEFT JOIN megforms_auditform AS f ON f.id = s.form_id
LEFT JOIN megforms_institution AS fi ON fi.id = f.institution_id
WHERE
    s.deleted_at IS NULL
    AND (s.form_id IS NULL OR NOT fi.is_demo)
    AND s.created_by_id IN (SELECT client_user.user_id FROM ({% include "source/user.sql" %}) AS client_user)
