-- When a region began to use MEG: the creation of its first institution.
--
-- grain   one row; null without institutions
WITH
institution AS NOT MATERIALIZED (
    {% include "source/institution.sql" %}
)
SELECT min(institution.created_at) AS region_start
FROM institution
