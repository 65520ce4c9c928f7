-- A job's query about the forms of a chunk, run for one chunk after the other.
--
-- PostgreSQL plans it once and keeps what does not depend on the chunk, such as a hash of all users: planning and
-- preparing it for each ten forms takes longer than reading them. OFFSET 0 keeps it from making one query of it all.
SELECT of_chunk.*
FROM unnest(%(chunks)s::text[]) AS chunk (form_ids)
CROSS JOIN LATERAL (
{% block of_chunk %}{% endblock %}
OFFSET 0
) AS of_chunk
