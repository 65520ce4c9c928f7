-- Departments of clients' institutions.
SELECT
    d.id AS department_id,
    d.institution_id
FROM megforms_department AS d
JOIN megforms_institution AS i ON i.id = d.institution_id AND NOT i.is_demo
