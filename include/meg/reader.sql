-- What MEG BI may do on a MEG, given to the role bi_reader: read these tables, and nothing else.
-- Run in MEG's database by its owner, once the role exists: CREATE ROLE bi_reader LOGIN PASSWORD '...';
GRANT USAGE ON SCHEMA public TO bi_reader;
GRANT SELECT ON
    megforms_institutiongroup,
    megforms_institution,
    megforms_department,
    megforms_ward,
    megforms_auditor,
    megforms_auditform,
    megforms_auditsession,
    megforms_observation,
    issues_issue,
    issues_issuechange,
    documents_document,
    audits_auditschedule,
    reviews_reviewedit,
    client_management_securitysettings
TO bi_reader;
-- Neither e-mail addresses nor passwords.
GRANT SELECT (
    id, username, first_name, last_name, is_active, is_staff, last_login_at, date_joined_at, created_by_id
) ON auth_user TO bi_reader;
ALTER ROLE bi_reader SET default_transaction_read_only = on;
