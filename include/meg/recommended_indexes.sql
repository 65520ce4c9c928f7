-- Creates the indexes on MEG that make chunks of forms cheap to read; bi_doctor reports which are missing.
--
-- Run it as the owner of the tables with psql, outside a transaction: CONCURRENTLY does not block writes. An existing index
-- of another name that starts with the same columns is equivalent.
CREATE INDEX CONCURRENTLY IF NOT EXISTS megforms_auditsession_form_submitted ON megforms_auditsession (form_id, submitted_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS megforms_observation_session ON megforms_observation (session_id);
