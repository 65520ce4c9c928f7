-- The security settings of each institution that has opened that page; a setting that was never chosen is null.
SELECT
    s.institution_id,
    s.sso_enforced,
    s.mfa_required,
    s.password_min_length,
    s.breached_password_check,
    s.session_idle_minutes,
    s.ip_allowlist,
    s.data_retention_days
FROM client_management_securitysettings AS s
