-- Creates the reference MEG: the tables and columns of MEG that MEG BI reads.
-- Load data next, then run indexes.sql: a large load is several times faster without keys and indexes.

CREATE TABLE megforms_institutiongroup (
    id bigint PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE megforms_institution (
    id bigint PRIMARY KEY,
    group_id bigint,
    name text NOT NULL,
    slug text NOT NULL UNIQUE,
    country text NOT NULL,
    is_active boolean NOT NULL,
    is_demo boolean NOT NULL,
    handles_patient_data boolean NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE megforms_department (
    id bigint PRIMARY KEY,
    institution_id bigint NOT NULL,
    name text NOT NULL
);

CREATE TABLE auth_user (
    id bigint PRIMARY KEY,
    username text NOT NULL UNIQUE,
    first_name text NOT NULL,
    last_name text NOT NULL,
    email text NOT NULL,
    is_active boolean NOT NULL,
    is_staff boolean NOT NULL,
    last_login_at timestamptz,
    date_joined_at timestamptz NOT NULL,
    created_by_id bigint
);

CREATE TABLE megforms_ward (
    id bigint PRIMARY KEY,
    department_id bigint NOT NULL,
    name text NOT NULL,
    is_active boolean NOT NULL,
    created_by_id bigint,
    created_at timestamptz NOT NULL
);

CREATE TABLE megforms_auditor (
    id bigint PRIMARY KEY,
    user_id bigint NOT NULL UNIQUE,
    institution_id bigint NOT NULL,
    level text NOT NULL CHECK (level IN ('institution', 'group', 'global')),
    is_admin boolean NOT NULL,
    mfa_enabled boolean NOT NULL
);

CREATE TABLE megforms_auditform (
    id bigint PRIMARY KEY,
    institution_id bigint NOT NULL,
    name text NOT NULL,
    form_type text NOT NULL,
    is_published boolean NOT NULL,
    collects_patient_data boolean NOT NULL,
    review_cycle_days integer,
    created_at timestamptz NOT NULL,
    archived_at timestamptz
);

CREATE TABLE megforms_auditsession (
    id bigint PRIMARY KEY,
    form_id bigint NOT NULL,
    ward_id bigint,
    auditor_id bigint,
    platform text NOT NULL CHECK (platform IN ('web', 'ios', 'android', 'public')),
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    submitted_at timestamptz,
    deleted_at timestamptz
);

CREATE TABLE megforms_observation (
    id bigint PRIMARY KEY,
    session_id bigint NOT NULL,
    form_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);

CREATE TABLE issues_issue (
    id bigint PRIMARY KEY,
    institution_id bigint NOT NULL,
    form_id bigint,
    created_by_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    closed_at timestamptz,
    deleted_at timestamptz
);

CREATE TABLE issues_issuechange (
    id bigint PRIMARY KEY,
    issue_id bigint NOT NULL,
    edited_by_id bigint NOT NULL,
    edited_at timestamptz NOT NULL
);

CREATE TABLE documents_document (
    id bigint PRIMARY KEY,
    institution_id bigint NOT NULL,
    name text NOT NULL,
    created_by_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);

CREATE TABLE audits_auditschedule (
    id bigint PRIMARY KEY,
    form_id bigint NOT NULL,
    created_by_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);

CREATE TABLE reviews_reviewedit (
    id bigint PRIMARY KEY,
    observation_id bigint NOT NULL,
    edited_by_id bigint NOT NULL,
    edited_at timestamptz NOT NULL
);

CREATE TABLE client_management_securitysettings (
    institution_id bigint PRIMARY KEY,
    sso_enforced boolean,
    mfa_required boolean,
    password_min_length integer,
    breached_password_check boolean,
    session_idle_minutes integer,
    ip_allowlist text[],
    data_retention_days integer
);

COMMENT ON COLUMN client_management_securitysettings.session_idle_minutes IS '0: a session never ends by itself';
