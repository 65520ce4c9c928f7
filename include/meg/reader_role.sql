-- Creates the role bi_reader, with which MEG BI may read these columns of a MEG database, and nothing else.
--
-- Run it in MEG's database as a superuser, or as its owner with CREATEROLE. It can be run again: it revokes every other
-- privilege that the role was granted on the tables of schema public. Then set a password, in psql:  \password bi_reader
-- The role can read no e-mail address, no password, and no content of a form, an issue or a document.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'bi_reader') THEN
        CREATE ROLE bi_reader LOGIN CONNECTION LIMIT 50;
    END IF;
END
$$;
ALTER ROLE bi_reader SET default_transaction_read_only = on;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM bi_reader;
REVOKE ALL ON SCHEMA public FROM bi_reader;
GRANT USAGE ON SCHEMA public TO bi_reader;

GRANT SELECT (id, name) ON megforms_institutiongroup TO bi_reader;
GRANT SELECT (
    id, group_id, name, slug, country, is_active, is_demo, handles_patient_data, created_at
) ON megforms_institution TO bi_reader;
GRANT SELECT (id, institution_id) ON megforms_department TO bi_reader;
GRANT SELECT (id, department_id, is_active, created_by_id, created_at) ON megforms_ward TO bi_reader;
GRANT SELECT (
    id, username, first_name, last_name, is_active, is_staff, last_login_at, date_joined_at, created_by_id
) ON auth_user TO bi_reader;
GRANT SELECT (id, user_id, institution_id, level, is_admin, mfa_enabled) ON megforms_auditor TO bi_reader;
GRANT SELECT (
    id, institution_id, name, form_type, is_published, collects_patient_data, review_cycle_days, created_at, archived_at
) ON megforms_auditform TO bi_reader;
GRANT SELECT (
    id, form_id, ward_id, auditor_id, platform, started_at, ended_at, submitted_at, deleted_at
) ON megforms_auditsession TO bi_reader;
GRANT SELECT (id, session_id, form_id, deleted_at) ON megforms_observation TO bi_reader;
GRANT SELECT (id, institution_id, form_id, created_by_id, created_at, deleted_at) ON issues_issue TO bi_reader;
GRANT SELECT (id, issue_id, edited_by_id, edited_at) ON issues_issuechange TO bi_reader;
GRANT SELECT (id, institution_id, created_by_id, created_at, deleted_at) ON documents_document TO bi_reader;
GRANT SELECT (id, form_id, created_by_id, created_at, deleted_at) ON audits_auditschedule TO bi_reader;
GRANT SELECT (id, observation_id, edited_by_id, edited_at) ON reviews_reviewedit TO bi_reader;
GRANT SELECT (
    institution_id, sso_enforced, mfa_required, password_min_length, breached_password_check, session_idle_minutes,
    ip_allowlist, data_retention_days
) ON client_management_securitysettings TO bi_reader;
