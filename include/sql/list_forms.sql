-- The forms that a period may have documents about, to be split into chunks.
--
-- grain   a form that was created before the period's end and not archived before its start, or that has
--         sessions in it
-- window  [period_start, period_end)
-- order   by id, so that planning again gives the same chunks
WITH
form AS NOT MATERIALIZED (
    {% include "source/form.sql" %}
),
session AS NOT MATERIALIZED (
    {% include "source/session.sql" %}
)
SELECT form.form_id
FROM form
WHERE
    (
        form.created_at < %(period_end)s
        AND (form.archived_at IS NULL OR form.archived_at >= %(period_start)s)
    )
    OR EXISTS (
        SELECT 1
        FROM session
        WHERE
            session.form_id = form.form_id
            AND session.submitted_at >= %(period_start)s
            AND session.submitted_at < %(period_end)s
    )
ORDER BY form.form_id
