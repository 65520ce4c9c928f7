-- Runs a job's query (the block chunk_query) once for each chunk of forms.
--
-- PostgreSQL plans the query once and keeps what does not depend on the chunk, such as a hash of all users: planning and
-- preparing it for every ten forms takes longer than reading them. OFFSET 0 keeps PostgreSQL from merging the chunks
-- into one query.
SELECT chunk_query.*
FROM unnest(%(chunks)s::text[]) AS chunk (form_ids)
CROSS JOIN LATERAL (
{% block chunk_query %}{% endblock %}
OFFSET 0
) AS chunk_query
