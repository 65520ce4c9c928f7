-- Clients' users: those with an auditor at a client's institution, without MEG staff (is_staff, or an auditor of level
-- "global"). A user without an auditor belongs to no institution, and so to no client. No e-mail address is read: where a
-- username is one, the user is called by the id.
SELECT
    u.id AS user_id,
    a.id AS auditor_id,
    coalesce(
        nullif(
            btrim(
                CASE WHEN position('@' IN u.first_name) = 0 THEN u.first_name ELSE '' END
                || ' '
                || CASE WHEN position('@' IN u.last_name) = 0 THEN u.last_name ELSE '' END
            ),
            ''
        ),
        CASE WHEN position('@' IN u.username) = 0 THEN u.username ELSE 'user ' || u.id END
    ) AS user_name,
    u.is_active,
    a.is_admin,
    a.mfa_enabled,
    u.last_login_at,
    u.date_joined_at AS joined_at,
    u.created_by_id AS created_by,
    i.id AS institution_id,
    i.name AS institution_name
FROM auth_user AS u
JOIN megforms_auditor AS a ON a.user_id = u.id AND a.level <> 'global'
JOIN megforms_institution AS i ON i.id = a.institution_id AND NOT i.is_demo
WHERE NOT u.is_staff
