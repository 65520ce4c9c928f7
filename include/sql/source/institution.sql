-- Clients' institutions. Demo institutions are not clients.
SELECT
    i.id AS institution_id,
    i.name AS institution_name,
    i.slug,
    g.name AS group_name,
    i.country,
    i.is_active,
    i.handles_patient_data,
    i.created_at
FROM megforms_institution AS i
LEFT JOIN megforms_institutiongroup AS g ON g.id = i.group_id
WHERE NOT i.is_demo
