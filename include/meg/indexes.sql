-- Creates the foreign keys and indexes of the reference MEG, after its data.

ALTER TABLE megforms_institution ADD FOREIGN KEY (group_id) REFERENCES megforms_institutiongroup;
ALTER TABLE megforms_department ADD FOREIGN KEY (institution_id) REFERENCES megforms_institution;
ALTER TABLE auth_user ADD FOREIGN KEY (created_by_id) REFERENCES auth_user;
ALTER TABLE megforms_ward
    ADD FOREIGN KEY (department_id) REFERENCES megforms_department,
    ADD FOREIGN KEY (created_by_id) REFERENCES auth_user;
ALTER TABLE megforms_auditor
    ADD FOREIGN KEY (user_id) REFERENCES auth_user,
    ADD FOREIGN KEY (institution_id) REFERENCES megforms_institution;
ALTER TABLE megforms_auditform ADD FOREIGN KEY (institution_id) REFERENCES megforms_institution;
ALTER TABLE megforms_auditsession
    ADD FOREIGN KEY (form_id) REFERENCES megforms_auditform,
    ADD FOREIGN KEY (ward_id) REFERENCES megforms_ward,
    ADD FOREIGN KEY (auditor_id) REFERENCES megforms_auditor;
ALTER TABLE megforms_observation
    ADD FOREIGN KEY (session_id) REFERENCES megforms_auditsession,
    ADD FOREIGN KEY (form_id) REFERENCES megforms_auditform;
ALTER TABLE issues_issue
    ADD FOREIGN KEY (institution_id) REFERENCES megforms_institution,
    ADD FOREIGN KEY (form_id) REFERENCES megforms_auditform,
    ADD FOREIGN KEY (created_by_id) REFERENCES auth_user;
ALTER TABLE issues_issuechange
    ADD FOREIGN KEY (issue_id) REFERENCES issues_issue,
    ADD FOREIGN KEY (edited_by_id) REFERENCES auth_user;
ALTER TABLE documents_document
    ADD FOREIGN KEY (institution_id) REFERENCES megforms_institution,
    ADD FOREIGN KEY (created_by_id) REFERENCES auth_user;
ALTER TABLE audits_auditschedule
    ADD FOREIGN KEY (form_id) REFERENCES megforms_auditform,
    ADD FOREIGN KEY (created_by_id) REFERENCES auth_user;
ALTER TABLE reviews_reviewedit
    ADD FOREIGN KEY (observation_id) REFERENCES megforms_observation,
    ADD FOREIGN KEY (edited_by_id) REFERENCES auth_user;
ALTER TABLE client_management_securitysettings ADD FOREIGN KEY (institution_id) REFERENCES megforms_institution;

-- Without this one, reading forms in chunks costs about eighty times a single pass over them all.
CREATE INDEX megforms_auditsession_form_submitted ON megforms_auditsession (form_id, submitted_at);
CREATE INDEX megforms_auditsession_auditor ON megforms_auditsession (auditor_id);
CREATE INDEX megforms_observation_session ON megforms_observation (session_id);
CREATE INDEX megforms_observation_form ON megforms_observation (form_id);
CREATE INDEX megforms_auditform_institution ON megforms_auditform (institution_id);
CREATE INDEX megforms_auditor_institution ON megforms_auditor (institution_id);
CREATE INDEX megforms_department_institution ON megforms_department (institution_id);
CREATE INDEX megforms_ward_department ON megforms_ward (department_id);
CREATE INDEX issues_issue_institution ON issues_issue (institution_id);
CREATE INDEX issues_issuechange_issue ON issues_issuechange (issue_id);
CREATE INDEX documents_document_institution ON documents_document (institution_id);
CREATE INDEX audits_auditschedule_form ON audits_auditschedule (form_id);
CREATE INDEX reviews_reviewedit_observation ON reviews_reviewedit (observation_id);
ANALYZE;
