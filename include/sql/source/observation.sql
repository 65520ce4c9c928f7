-- Observations that were not deleted. Their form and time are their session's: join the sessions of session.sql.
SELECT
    o.id AS observation_id,
    o.session_id
FROM megforms_observation AS o
WHERE o.deleted_at IS NULL
