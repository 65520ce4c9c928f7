-- Wards of clients' institutions, also those that staff created.
SELECT
    w.id AS ward_id,
    d.institution_id,
    w.is_active,
    w.created_by_id AS created_by,
    w.created_at
FROM megforms_ward AS w
JOIN megforms_department AS d ON d.id = w.department_id
JOIN megforms_institution AS i ON i.id = d.institution_id AND NOT i.is_demo
