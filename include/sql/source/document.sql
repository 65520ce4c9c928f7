-- Documents that clients' users created at clients' institutions and that were not deleted.
SELECT
    d.id AS document_id,
    d.created_by_id AS created_by,
    d.created_at
FROM documents_document AS d
JOIN megforms_institution AS i ON i.id = d.institution_id AND NOT i.is_demo
WHERE
    d.deleted_at IS NULL
    AND d.created_by_id IN (SELECT client_user.user_id FROM ({% include "source/user.sql" %}) AS client_user)
