-- Submitted audit sessions: neither drafts nor deleted, on a client's form, in a client's ward or in none, by a client's
-- user or, through a public form, without a user. MEG staff (is_staff, or an auditor of level "global") are not clients'
-- users.
SELECT
    s.id AS session_id,
    s.form_id,
    s.ward_id,
    s.auditor_id,
    s.platform,
    s.started_at,
    s.ended_at,
    s.submitted_at
FROM megforms_auditsession AS s
JOIN megforms_auditform AS f ON f.id = s.form_id
JOIN megforms_institution AS fi ON fi.id = f.institution_id AND NOT fi.is_demo
LEFT JOIN megforms_auditor AS a ON a.id = s.auditor_id
LEFT JOIN auth_user AS u ON u.id = a.user_id
LEFT JOIN megforms_institution AS ai ON ai.id = a.institution_id
LEFT JOIN megforms_ward AS w ON w.id = s.ward_id
LEFT JOIN megforms_department AS d ON d.id = w.department_id
LEFT JOIN megforms_institution AS wi ON wi.id = d.institution_id
WHERE
    s.submitted_at IS NOT NULL
    AND s.deleted_at IS NULL
    AND (s.auditor_id IS NULL OR (NOT u.is_staff AND a.level <> 'global' AND NOT ai.is_demo))
    AND (s.ward_id IS NULL OR NOT wi.is_demo)
