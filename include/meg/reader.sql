-- What MEG BI may do on a MEG, given to the role bi_reader: read, and nothing else.
-- Run in MEG's database by its owner, once the role exists: CREATE ROLE bi_reader LOGIN PASSWORD '...';
GRANT USAGE ON SCHEMA public TO bi_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO bi_reader;
REVOKE SELECT ON auth_user FROM bi_reader;
GRANT SELECT (
    id, username, first_name, last_name, is_active, is_staff, last_login_at, date_joined_at, created_by_id
) ON auth_user TO bi_reader;
ALTER ROLE bi_reader SET default_transaction_read_only = on;
