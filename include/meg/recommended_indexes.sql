-- The indexes on a MEG that keep chunks of forms cheap; bi_doctor says which are missing.
--
-- Run by the owner of the tables, statement by statement (psql does), in no transaction: CONCURRENTLY keeps nobody from
-- writing meanwhile. An index that leads with the same columns under another name is as good.
CREATE INDEX CONCURRENTLY IF NOT EXISTS megforms_auditsession_form_submitted ON megforms_auditsession (form_id, submitted_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS megforms_observation_session ON megforms_observation (session_id);
