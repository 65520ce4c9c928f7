-- Generates demo data for the reference MEG. Run it between schema.sql and indexes.sql:
--
--     SELECT meg_demo(seed, forms, until, months, sessions_per_form_month, more_users, countries);
--
-- The same arguments give the same rows: each random number is a hash of the seed, a label and a key, so it depends
-- neither on the order of rows nor on the server. The data ends at `until`, and forms are used in the `months` before
-- it. `more_users` is how many a client of average size has beyond eight; the clients lie in the `countries` in turn.
-- Small: meg_demo(7, 150, '2026-11-01'). Large, about 5,000,000 observations: meg_demo(7, 2000, '2026-11-01', 24, 60).

-- A pseudo-random number in [0, 1) for a seed, a label and a key.
CREATE FUNCTION chance(seed bigint, label text, key text) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (hashtextextended(label || '/' || key, seed) & 9007199254740991) / 9007199254740992.0::double precision;

-- The choice at a fraction in [0, 1) of the array.
CREATE FUNCTION pick(fraction double precision, choices text []) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN choices[1 + floor(fraction * cardinality(choices))::integer];

-- The activity of an institution in month `m` (from 0) of `months`, by the trend of its use; 1 is average.
CREATE FUNCTION activity_level(trend text, m integer, months integer) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE trend
    WHEN 'growing' THEN 0.5 + 1.2 * m / months
    WHEN 'fading' THEN 1.5 - 1.4 * m / months
    WHEN 'left' THEN CASE WHEN m < months * 0.6 THEN 1.0 ELSE 0.0 END
    WHEN 'came back' THEN CASE WHEN m BETWEEN months * 0.4 AND months * 0.8 THEN 0.0 ELSE 1.0 END
    WHEN 'new' THEN CASE WHEN m < months * 0.75 THEN 0.0 ELSE 1.2 END
    WHEN 'not started' THEN 0.0
    -- Falls for half a year; nothing in the last two months, of which the last has not ended.
    WHEN 'leaving' THEN greatest(0.0, least(1.0, (months - 2 - m) / 6.0))
    ELSE 1.0
END;

-- The name of a country's institution `n` (from 0); different for each.
CREATE FUNCTION institution_name(country text, n integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT
        kinds[1 + n % cardinality(kinds)] || ', ' || towns[1 + n % cardinality(towns)]
        || CASE WHEN n < cardinality(towns) THEN '' ELSE ' ' || 1 + n / cardinality(towns) END
    FROM (VALUES
        (
            'IE',
            ARRAY['St. Mary''s Hospital', 'Our Lady of "Mercy" Hospice', 'Cnoc na Rí Nursing Home'],
            ARRAY['Galway', 'Cork', 'Sligo', 'Limerick', 'Tralee', 'Waterford', 'Kilkenny', 'Athlone']
        ),
        (
            'FR',
            ARRAY['Hôpital Saint-André', 'Clinique des Lilas', 'Hôpital Sainte-Anne'],
            ARRAY['Lyon', 'Nantes', 'Lille', 'Rennes', 'Dijon', 'Nîmes', 'Angers', 'Besançon']
        ),
        (
            'DE',
            ARRAY['Klinikum Sankt Jürgen', 'Klinik am See', 'Krankenhaus Maria Hilf'],
            ARRAY['Bremen', 'Lübeck', 'Köln', 'Jena', 'Ulm', 'Kiel', 'Mainz', 'Göttingen']
        ),
        (
            'PL',
            ARRAY['Szpital Żwirki i Wigury', 'Szpital św. Łukasza', 'Klinika pod Lipą'],
            ARRAY['Kraków', 'Gdańsk', 'Łódź', 'Toruń', 'Lublin', 'Poznań', 'Opole', 'Rzeszów']
        ),
        (
            'GB',
            ARRAY['Royal Infirmary', 'St. Thomas'' Hospital', 'Cottage Hospital', 'O''Connell & Daughters Clinic'],
            ARRAY[
                'Leeds', 'York', 'Bath', 'Cardiff', 'Dundee', 'Exeter', 'Hull', 'Norwich', 'Oxford', 'Preston', 'Truro',
                'Wigan', 'Stirling', 'Swansea', 'Belfast', 'Lincoln', 'Durham', 'Bolton', 'Luton', 'Derby'
            ]
        ),
        (
            'AU',
            ARRAY['Royal Free.', 'The $1 Million Wing', 'Kwekwe 🏥 Clinic'],
            ARRAY['Perth', 'Hobart', 'Darwin', 'Cairns', 'Geelong', 'Ballarat', 'Bendigo', 'Newcastle']
        )
    ) AS place (code, kinds, towns)
    WHERE code = country
);

CREATE FUNCTION meg_demo(
    seed bigint,
    forms integer,
    until date,
    months integer DEFAULT 24,
    sessions_per_form_month double precision DEFAULT 5,
    more_users double precision DEFAULT 0,
    countries text [] DEFAULT ARRAY['IE', 'GB', 'FR', 'DE', 'PL', 'AU']
) RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC'
AS $$
DECLARE
    institutions integer := greatest(4, forms / 6);
    begins timestamptz := until - make_interval(months => months);
    all_users integer;
BEGIN
    INSERT INTO megforms_institutiongroup
    SELECT g, (ARRAY['Saolta', 'St. Brigid''s Trust', 'Groupe Santé du Nord', 'Care & Co.', 'Southern $ Group'])[g]
    FROM generate_series(1, 5) AS g;

    CREATE TEMPORARY TABLE client ON COMMIT DROP AS
    SELECT
        sized.*,
        -- Eight, and `more_users` for a client of average size.
        8 * (1 + floor(more_users * sized.size / 8))::integer AS users,
        8 * coalesce(sum(1 + floor(more_users * sized.size / 8)) OVER earlier, 0)::integer AS users_before
    FROM (
        SELECT
            i AS institution_id,
            trend,
            CASE trend WHEN 'leaving' THEN 1.6 ELSE 0.25 + 3.6 * chance(seed, 'size', i::text) ^ 4 END AS size
        FROM generate_series(1, institutions) AS i
        CROSS JOIN LATERAL (
            SELECT (ARRAY[
                'steady', 'growing', 'steady', 'leaving', 'steady', 'fading', 'steady', 'new', 'steady', 'left', 'growing',
                'steady', 'came back', 'steady', 'not started', 'growing'
            ])[1 + (i - 1) % 16] AS trend
        ) AS usage
    ) AS sized
    WINDOW earlier AS (ORDER BY sized.institution_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);
    ANALYZE client;  -- otherwise PostgreSQL assumes a small table and scans it for each form
    SELECT sum(users) INTO all_users FROM client;

    INSERT INTO megforms_institution
    SELECT
        i,
        CASE WHEN chance(seed, 'grouped', i::text) < 0.6 THEN 1 + floor(5 * chance(seed, 'group', i::text))::integer END,
        institution_name(countries[1 + (i - 1) % cardinality(countries)], (i - 1) / cardinality(countries)),
        'institution-' || i,
        countries[1 + (i - 1) % cardinality(countries)],
        client.trend <> 'left' OR chance(seed, 'kept', i::text) < 0.3,
        i % 17 = 3,
        chance(seed, 'patients', i::text) < 0.7,
        CASE WHEN client.trend IN ('new', 'not started') THEN begins + make_interval(
            months => floor(months * 0.75)::integer, days => -floor(30 * chance(seed, 'born', i::text))::integer
        )
        ELSE begins - make_interval(days => floor(900 * chance(seed, 'born', i::text))::integer) END
    FROM generate_series(1, institutions) AS i
    JOIN client ON client.institution_id = i;

    INSERT INTO megforms_department
    SELECT 3 * (i - 1) + d, i, (ARRAY['Medicine', 'Surgery', 'Chirurgie / Bloc'])[d]
    FROM generate_series(1, institutions) AS i, generate_series(1, 3) AS d;

    -- The users of each institution, then MEG staff and a few users without an institution.
    INSERT INTO auth_user
    SELECT
        u,
        'user' || u,
        CASE WHEN u % 23 = 0 THEN '' ELSE pick(
            chance(seed, 'first', u::text), ARRAY['Aoife', 'Bríd', 'Seán', 'Zoë', 'Łukasz', 'Mary-Jane', 'José', 'Ngozi']
        ) END,
        CASE WHEN u % 23 = 0 THEN '' ELSE pick(
            chance(seed, 'last', u::text), ARRAY['O''Brien', 'Ní Dhónaill', 'Müller', 'Smith', 'Nguyễn', 'D''Arcy', 'Okafor']
        ) END,
        'user' || u || '@example.org',
        chance(seed, 'active', u::text) < 0.88,
        client.users_before IS NULL AND u % 2 = 0,
        CASE WHEN chance(seed, 'login', u::text) < 0.93 THEN
            until - make_interval(secs => 86400 * 400 * chance(seed, 'last login', u::text) ^ 3)
        END,
        begins + make_interval(secs => 86400 * 30 * months * chance(seed, 'joined', u::text) ^ 2),
        CASE WHEN u - 1 = client.users_before THEN all_users + 2 WHEN u % 5 <> 0 THEN client.users_before + 1 END
    FROM generate_series(1, all_users + 8) AS u
    LEFT JOIN client ON u > client.users_before AND u <= client.users_before + client.users;

    INSERT INTO megforms_auditor
    SELECT
        u.id,
        u.id,
        coalesce(client.institution_id, 1),
        CASE WHEN client.institution_id IS NULL THEN 'global' WHEN u.id % 8 = 2 THEN 'group' ELSE 'institution' END,
        u.id - coalesce(client.users_before, all_users) IN (1, 5),
        chance(seed, 'mfa', u.id::text) < 0.55
    FROM auth_user AS u
    LEFT JOIN client ON u.id > client.users_before AND u.id <= client.users_before + client.users
    WHERE u.id <= all_users + 4;

    INSERT INTO megforms_ward
    SELECT
        3 * (d - 1) + w,
        d,
        (ARRAY['Ward A', 'Ward 2.1', 'Östra flygeln'])[w],
        chance(seed, 'ward', d::text || '/' || w::text) < 0.9,
        CASE WHEN w = 1 THEN all_users + 2 WHEN w = 2 THEN client.users_before + 1 END,
        begins + make_interval(secs => 86400 * 30 * months * chance(seed, 'ward born', d::text || '/' || w::text) ^ 3)
    FROM generate_series(1, 3 * institutions) AS d
    JOIN client ON client.institution_id = 1 + (d - 1) / 3
    CROSS JOIN generate_series(1, 3) AS w;

    INSERT INTO megforms_auditform
    SELECT
        f,
        1 + (f - 1) % institutions,
        pick(chance(seed, 'form', f::text), ARRAY[
            'Hand Hygiene', 'Falls risk', 'Cannula care', 'Médicaments à risque', 'Patient "Experience"', 'Hygiene & Safety 🧼',
            'Nutrition / MUST', 'V.T.E. prophylaxis', 'Cost per $ audit', 'Sepsis Six'
        ]) || ' ' || f,
        pick(chance(seed, 'type', f::text), ARRAY['audit', 'audit', 'audit', 'survey', 'inspection', 'incident']),
        chance(seed, 'published', f::text) < 0.9,
        chance(seed, 'patient data', f::text) < 0.4,
        (ARRAY[30, 90, 180, 365, NULL])[1 + floor(5 * chance(seed, 'cycle', f::text))::integer],
        creation.at,
        CASE WHEN chance(seed, 'archived', f::text) < 0.12 THEN
            creation.at + make_interval(secs => 86400 * 30 * months * chance(seed, 'archived when', f::text))
        END
    FROM generate_series(1, forms) AS f
    JOIN megforms_institution AS institution ON institution.id = 1 + (f - 1) % institutions
    CROSS JOIN LATERAL (
        SELECT greatest(institution.created_at, begins + make_interval(
            secs => 86400 * 30 * (months * 1.3 * chance(seed, 'form born', f::text) ^ 2 - 0.3 * months)
        )) AS at
    ) AS creation;

    -- The sessions of each form and month, fewer in August and December.
    INSERT INTO megforms_auditsession
    SELECT
        row_number() OVER (ORDER BY audit.form_id, audit.m, audit.n),
        audit.form_id,
        CASE WHEN chance(seed, 'in ward', audit.key) < 0.93 THEN
            9 * (audit.institution_id - 1) + 1 + floor(9 * chance(seed, 'which ward', audit.key))::integer
        END,
        CASE
            WHEN audit.platform = 'public' THEN NULL
            WHEN chance(seed, 'by staff', audit.key) < 0.02 THEN
                all_users + 1 + floor(4 * chance(seed, 'which staff', audit.key))::integer
            ELSE audit.users_before + 1 + floor(audit.users * chance(seed, 'who', audit.key) ^ 2)::integer
        END,
        audit.platform,
        audit.started_at,
        CASE WHEN chance(seed, 'ended', audit.key) < 0.96 THEN
            audit.started_at + CASE
                WHEN chance(seed, 'odd', audit.key) < 0.01 THEN interval '25 hours'
                WHEN chance(seed, 'odd', audit.key) < 0.02 THEN interval '-3 minutes'
                WHEN chance(seed, 'odd', audit.key) < 0.03 THEN interval '0'
                ELSE make_interval(secs => 60 + 3000 * chance(seed, 'length', audit.key) ^ 2)
            END
        END,
        CASE WHEN chance(seed, 'draft', audit.key) < 0.94 AND submitted.at < until THEN submitted.at END,
        CASE WHEN chance(seed, 'deleted', audit.key) < 0.02 THEN submitted.at + interval '3 days' END
    FROM (
        SELECT
            form.id AS form_id,
            form.institution_id,
            client.users,
            client.users_before,
            month.m,
            repeat.n,
            form.id || '/' || month.m || '/' || repeat.n AS key,
            CASE
                WHEN form.form_type = 'survey' THEN 'public'
                ELSE pick(
                    chance(seed, 'platform', form.id::text || '/' || month.m::text || '/' || repeat.n::text),
                    ARRAY['web', 'web', 'web', 'ios', 'ios', 'android']
                )
            END AS platform,
            month.starts + make_interval(
                days => floor(28 * chance(seed, 'day', form.id::text || '/' || month.m::text || '/' || repeat.n::text))::integer,
                secs => 25200 + 43200 * chance(seed, 'hour', form.id::text || '/' || month.m::text || '/' || repeat.n::text)
            ) AS started_at
        FROM megforms_auditform AS form
        JOIN client ON client.institution_id = form.institution_id
        CROSS JOIN LATERAL (
            SELECT m, begins + make_interval(months => m) AS starts
            FROM generate_series(0, months - 1) AS m
        ) AS month
        CROSS JOIN LATERAL generate_series(
            1,
            floor(
                sessions_per_form_month * client.size * activity_level(client.trend, month.m, months)
                * CASE extract(month FROM month.starts) WHEN 8 THEN 0.6 WHEN 12 THEN 0.5 WHEN 11 THEN 1.3 ELSE 1 END
                * (0.6 + 0.8 * chance(seed, 'busy', form.id::text || '/' || month.m::text))
                + chance(seed, 'rounding', form.id::text || '/' || month.m::text)
            )::integer
        ) AS repeat (n)
        WHERE
            chance(seed, 'used', form.id::text) > 0.08
            AND month.starts + interval '1 month' > form.created_at
            AND (form.archived_at IS NULL OR month.starts < form.archived_at)
    ) AS audit
    CROSS JOIN LATERAL (
        -- A phone that was offline submits days later, sometimes in the next month.
        SELECT audit.started_at + interval '1 hour' + CASE
            WHEN audit.platform IN ('ios', 'android') AND chance(seed, 'late', audit.key) < 0.06
                THEN make_interval(secs => 86400 * 20 * chance(seed, 'how late', audit.key))
            ELSE '0'
        END AS at
    ) AS submitted
    WHERE audit.started_at < until;

    INSERT INTO megforms_observation
    SELECT
        row_number() OVER (ORDER BY session.id, o),
        session.id,
        session.form_id,
        session.started_at + make_interval(mins => o),
        CASE WHEN chance(seed, 'struck', session.id::text || '/' || o::text) < 0.01 THEN session.started_at + interval '1 day' END
    FROM megforms_auditsession AS session
    CROSS JOIN LATERAL generate_series(1, floor(9 * chance(seed, 'observed', session.id::text) ^ 1.2)::integer) AS o;

    INSERT INTO issues_issue
    SELECT
        row_number() OVER (ORDER BY session.id),
        form.institution_id,
        CASE WHEN session.id % 3 <> 0 THEN form.id END,
        session.auditor_id,
        session.started_at,
        CASE WHEN chance(seed, 'closed', session.id::text) < 0.6 THEN session.started_at + interval '9 days' END,
        CASE WHEN chance(seed, 'no issue', session.id::text) < 0.04 THEN session.started_at + interval '1 day' END
    FROM megforms_auditsession AS session
    JOIN megforms_auditform AS form ON form.id = session.form_id
    WHERE session.auditor_id IS NOT NULL AND chance(seed, 'issue', session.id::text) < 0.05;

    INSERT INTO issues_issuechange
    SELECT
        row_number() OVER (ORDER BY issue.id, c),
        issue.id,
        issue.created_by_id + CASE WHEN issue.created_by_id % 8 BETWEEN 1 AND 6 THEN c % 2 ELSE 0 END,
        issue.created_at + make_interval(hours => 5 * c)
    FROM issues_issue AS issue
    CROSS JOIN LATERAL generate_series(1, floor(4 * chance(seed, 'changes', issue.id::text))::integer) AS c;

    INSERT INTO documents_document
    SELECT
        row_number() OVER (ORDER BY u.id, d),
        auditor.institution_id,
        'Policy ' || d || ' – v' || u.id || '.pdf',
        u.id,
        begins + make_interval(secs => 86400 * 30 * months * chance(seed, 'document', u.id::text || '/' || d::text)),
        CASE WHEN chance(seed, 'shredded', u.id::text || '/' || d::text) < 0.05 THEN until::timestamptz END
    FROM auth_user AS u
    JOIN megforms_auditor AS auditor ON auditor.user_id = u.id
    CROSS JOIN LATERAL generate_series(1, floor(12 * chance(seed, 'documents', u.id::text) ^ 3)::integer) AS d;

    INSERT INTO audits_auditschedule
    SELECT
        form.id,
        form.id,
        client.users_before + 1 + form.id % 2,
        form.created_at + interval '2 days',
        CASE WHEN chance(seed, 'unscheduled', form.id::text) < 0.1 THEN form.created_at + interval '90 days' END
    FROM megforms_auditform AS form
    JOIN client ON client.institution_id = form.institution_id
    WHERE chance(seed, 'scheduled', form.id::text) < 0.5;

    INSERT INTO reviews_reviewedit
    SELECT
        row_number() OVER (ORDER BY observation.id),
        observation.id,
        session.auditor_id,
        observation.created_at + interval '2 days'
    FROM megforms_observation AS observation
    JOIN megforms_auditsession AS session ON session.id = observation.session_id
    WHERE session.auditor_id IS NOT NULL AND chance(seed, 'review', observation.id::text) < 0.03;

    -- One institution in nine has never opened the page and has no row.
    INSERT INTO client_management_securitysettings
    SELECT
        i,
        (ARRAY[TRUE, FALSE, FALSE, NULL])[1 + floor(4 * chance(seed, 'sso', i::text))::integer],
        (ARRAY[TRUE, FALSE, FALSE, NULL])[1 + floor(4 * chance(seed, 'mfa wanted', i::text))::integer],
        (ARRAY[6, 8, 10, 12, NULL])[1 + floor(5 * chance(seed, 'password', i::text))::integer],
        (ARRAY[TRUE, FALSE, NULL])[1 + floor(3 * chance(seed, 'breached', i::text))::integer],
        (ARRAY[0, 15, 60, 240, NULL])[1 + floor(5 * chance(seed, 'idle', i::text))::integer],
        CASE
            WHEN chance(seed, 'allowlist', i::text) < 0.5 THEN '{}'
            WHEN chance(seed, 'allowlist', i::text) < 0.8 THEN ARRAY['192.0.2.0/24', '198.51.100.' || i]
        END,
        (ARRAY[365, 2555, NULL])[1 + floor(3 * chance(seed, 'retention', i::text))::integer]
    FROM generate_series(1, institutions) AS i
    WHERE i % 9 <> 4;
END
$$;
