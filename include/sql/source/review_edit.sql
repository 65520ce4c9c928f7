-- Edits in the review screen of observations that count: of observation.sql, in a session of session.sql.
SELECT
    r.id AS review_edit_id,
    r.edited_by_id AS edited_by,
    r.edited_at
FROM reviews_reviewedit AS r
JOIN ({% include "source/observation.sql" %}) AS observation ON observation.observation_id = r.observation_id
JOIN ({% include "source/session.sql" %}) AS session ON session.session_id = observation.session_id
