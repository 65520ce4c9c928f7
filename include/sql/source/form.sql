-- Forms of clients' institutions.
SELECT
    f.id AS form_id,
    f.name AS form_name,
    f.form_type,
    f.is_published,
    f.collects_patient_data,
    f.review_cycle_days,
    f.created_at,
    f.archived_at,
    i.id AS institution_id,
    i.name AS institution_name
FROM megforms_auditform AS f
JOIN megforms_institution AS i ON i.id = f.institution_id AND NOT i.is_demo
