-- How well each client that handles patient data protects its accounts.
--
-- grain   an active institution that handles patient data and was created before the as-of instant
-- window  a last login before as_of - n days, or none, for what ends in _inactive_<n>d
-- units   counts of active users and of forms; password_min_length in characters; session_idle_minutes in minutes, 0
--         being never; data_retention_days in days; risk_score in points, the sum of the risks' weights
-- instant the windows of last logins, and which institutions, users and forms exist and are archived
-- reading the name, country and seven settings, last logins themselves, which users are active, are administrators or
--         have a second factor, which forms are published or ask for patient data, and which rows are deleted
WITH
institution AS NOT MATERIALIZED (
    {% include "source/institution.sql" %}
),
settings AS NOT MATERIALIZED (
    {% include "source/security_settings.sql" %}
),
client_user AS NOT MATERIALIZED (
    {% include "source/user.sql" %}
),
form AS NOT MATERIALIZED (
    {% include "source/form.sql" %}
),
forms AS (
    SELECT institution_id, count(*) AS forms_with_patient_data
    FROM form
    WHERE
        is_published
        AND collects_patient_data
        AND created_at < %(as_of)s
        AND (archived_at IS NULL OR archived_at >= %(as_of)s)
    GROUP BY institution_id
),
users AS (
    SELECT
        institution_id,
        count(*) AS users,
        count(*) FILTER (WHERE is_admin) AS admins,
        count(*) FILTER (
            WHERE is_admin AND coalesce(last_login_at < %(as_of)s - interval '90 days', TRUE)
        ) AS admins_inactive_90d,
        count(*) FILTER (
            WHERE coalesce(last_login_at < %(as_of)s - interval '180 days', TRUE)
        ) AS users_inactive_180d,
        count(*) FILTER (WHERE NOT mfa_enabled) AS users_without_mfa
    FROM client_user
    WHERE is_active AND joined_at < %(as_of)s
    GROUP BY institution_id
),
client_security AS (
    SELECT
        institution.institution_id,
        institution.institution_name AS name,
        institution.country,
        settings.sso_enforced,
        settings.mfa_required,
        settings.password_min_length,
        settings.breached_password_check,
        settings.session_idle_minutes,
        settings.ip_allowlist,
        settings.data_retention_days,
        coalesce(forms.forms_with_patient_data, 0) AS forms_with_patient_data,
        coalesce(users.users, 0) AS users,
        coalesce(users.admins, 0) AS admins,
        coalesce(users.admins_inactive_90d, 0) AS admins_inactive_90d,
        coalesce(users.users_inactive_180d, 0) AS users_inactive_180d,
        coalesce(users.users_without_mfa, 0) AS users_without_mfa
    FROM institution
    LEFT JOIN settings ON settings.institution_id = institution.institution_id
    LEFT JOIN forms ON forms.institution_id = institution.institution_id
    LEFT JOIN users ON users.institution_id = institution.institution_id
    WHERE
        institution.is_active
        AND institution.handles_patient_data
        AND institution.created_at < %(as_of)s
)
SELECT
    client_security.*,
    risk.risks,
    unknown.unknown,
    risk.risk_score,
    CASE WHEN risk.risk_score >= 6 THEN 'high' WHEN risk.risk_score >= 3 THEN 'medium' ELSE 'low' END AS risk_level
FROM client_security
-- A setting that is null is never a risk; where single sign-on is not known to be enforced, passwords count.
CROSS JOIN LATERAL (
    SELECT
        coalesce(array_agg(rule.code ORDER BY rule.code COLLATE "C"), '{}') AS risks,
        coalesce(sum(rule.weight), 0)::bigint AS risk_score
    FROM (
        VALUES
        ('mfa_not_required', 3, client_security.mfa_required IS FALSE AND client_security.sso_enforced IS NOT TRUE),
        ('short_passwords', 2, client_security.password_min_length < 8 AND client_security.sso_enforced IS NOT TRUE),
        ('no_breached_password_check', 1, client_security.breached_password_check IS FALSE),
        ('long_idle_timeout', 2, client_security.session_idle_minutes = 0 OR client_security.session_idle_minutes > 60),
        ('no_ip_allowlist', 1, cardinality(client_security.ip_allowlist) = 0),
        ('inactive_admins', 2, client_security.admins_inactive_90d > 0),
        ('dormant_users', 1, client_security.users_inactive_180d * 100 > client_security.users * 20)
    ) AS rule (code, weight, applies)
    WHERE rule.applies
) AS risk
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(setting.name ORDER BY setting.name COLLATE "C"), '{}') AS unknown
    FROM (
        VALUES
        ('sso_enforced', client_security.sso_enforced IS NULL),
        ('mfa_required', client_security.mfa_required IS NULL),
        ('password_min_length', client_security.password_min_length IS NULL),
        ('breached_password_check', client_security.breached_password_check IS NULL),
        ('session_idle_minutes', client_security.session_idle_minutes IS NULL),
        ('ip_allowlist', client_security.ip_allowlist IS NULL),
        ('data_retention_days', client_security.data_retention_days IS NULL)
    ) AS setting (name, is_unknown)
    WHERE setting.is_unknown
) AS unknown
