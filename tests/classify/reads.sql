# Reads of every kind: a replica may run all of them, and gives the same.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, price numeric(10,2), kind varchar(10), made timestamptz, day date,
    tags text[], extra jsonb, how mood, span int4range, both_ pair, seen boolean, raw bytea, count positive,
    twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO item (id, name, price, kind, made, day, tags, extra, how, span, both_, seen, raw, count)
    SELECT n, 'item ' || n, n * 1.5, 'k' || n % 3, '2024-01-01 12:00+00'::timestamptz + n * interval '1 hour', '2024-01-01'::date + n,
    ARRAY['t' || n % 2, 'all'], jsonb_build_object('n', n, 'list', jsonb_build_array(n, n + 1)),
    (ARRAY['sad', 'ok', 'happy'])[n % 3 + 1]::mood, int4range(n, n + 10), ROW(n, 'b')::pair, n % 2 = 0, '\x00ff'::bytea, n
    FROM generate_series(1, 60) n;
CREATE TABLE part (id int, item int REFERENCES item, parent int, amount int);
INSERT INTO part SELECT n, n % 60 + 1, NULLIF(n / 2, 0), n % 7 FROM generate_series(1, 120) n;
CREATE VIEW cheap AS SELECT id, name, price FROM item WHERE price < 30;
CREATE VIEW cheaper AS SELECT * FROM cheap WHERE price < 10;
CREATE MATERIALIZED VIEW totals AS SELECT kind, sum(price) AS total FROM item GROUP BY kind;
CREATE TABLE log_ (at date, line text) PARTITION BY RANGE (at);
CREATE TABLE log_2024 PARTITION OF log_ FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO log_ SELECT '2024-01-01'::date + n, 'line ' || n FROM generate_series(1, 30) n;
CREATE FUNCTION add_one(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i + 1';
CREATE FUNCTION items_of(k text) RETURNS SETOF item LANGUAGE sql STABLE AS 'SELECT * FROM item WHERE kind = k';
CREATE FUNCTION price_of(i int) RETURNS numeric LANGUAGE plpgsql STABLE AS $$BEGIN RETURN (SELECT price FROM item WHERE id = i); END$$;
CREATE AGGREGATE product (int) (sfunc = int4mul, stype = int, initcond = '1');
CREATE FUNCTION close_to(a int, b int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT abs(a - b) < 3';
CREATE OPERATOR ~~~ (leftarg = int, rightarg = int, function = close_to);
CREATE COLLATION IF NOT EXISTS plain_c (locale = 'C');

--- one table | each | all
SELECT 1; --> replica
SELECT * FROM item ORDER BY id LIMIT 3 --> replica
select name from item where id = 7; --> replica
SELECT id, name FROM public.item WHERE price BETWEEN 10 AND 20 ORDER BY 1; --> replica
SELECT DISTINCT kind FROM item ORDER BY kind --> replica
SELECT DISTINCT ON (kind) kind, id FROM item ORDER BY kind, id DESC --> replica
SELECT count(*), min(price), max(price), avg(price) FROM item --> replica
SELECT kind, count(*) FROM item GROUP BY kind HAVING count(*) > 1 ORDER BY 1 --> replica
SELECT * FROM ONLY item WHERE id < 3 ORDER BY id --> replica
TABLE totals ORDER BY kind --> replica
TABLE log_ ORDER BY at LIMIT 2 --> replica
VALUES (1, 'a'), (2, 'b') --> replica
SELECT FROM item WHERE id = 1 --> replica
SELECT --> replica
SELECT id FROM item ORDER BY price DESC NULLS LAST OFFSET 5 ROWS FETCH FIRST 3 ROWS ONLY --> replica
SELECT id FROM item ORDER BY kind FETCH FIRST 1 ROW WITH TIES --> replica
SELECT item FROM item WHERE id = 1 --> replica
SELECT item.* FROM item WHERE id = 2 --> replica
SELECT (item).name FROM item WHERE id = 2 --> replica
SELECT (both_).a, (both_).b FROM item WHERE id = 3 --> replica
SELECT i.id AS "from", i.name "select" FROM item AS i (id, name) WHERE i.id = 4 --> replica
SELECT ctid, tableoid::regclass, xmin IS NOT NULL FROM item WHERE id = 1 --> replica
SELECT * FROM log_ WHERE at = '2024-01-05' --> replica
SELECT twice FROM item WHERE id = 21 --> replica

--- joins and sub-selects | each
SELECT i.id, p.amount FROM item i JOIN part p ON p.item = i.id WHERE i.id < 3 ORDER BY 1, 2 --> replica
SELECT i.id, p.id FROM item i LEFT JOIN part p ON p.item = i.id AND p.amount = 0 ORDER BY 1, 2 LIMIT 5 --> replica
SELECT count(*) FROM item FULL JOIN part USING (id) --> replica
SELECT count(*) FROM item CROSS JOIN part --> replica
SELECT count(*) FROM item NATURAL JOIN cheap --> replica
SELECT count(*) FROM item a, item b WHERE a.id = b.twice --> replica
SELECT id FROM item WHERE id IN (SELECT item FROM part WHERE amount > 5) ORDER BY id LIMIT 3 --> replica
SELECT id FROM item i WHERE EXISTS (SELECT FROM part p WHERE p.item = i.id AND p.amount = 3) ORDER BY id LIMIT 3 --> replica
SELECT id FROM item WHERE id NOT IN (SELECT 5 UNION SELECT 6) ORDER BY id LIMIT 6 --> replica
SELECT (SELECT max(amount) FROM part WHERE item = i.id) FROM item i WHERE id = 9 --> replica
SELECT i.id, l.amount FROM item i, LATERAL (SELECT amount FROM part WHERE item = i.id ORDER BY id LIMIT 1) l ORDER BY 1 LIMIT 3 --> replica
SELECT i.id, l.n FROM item i LEFT JOIN LATERAL generate_series(1, i.id) AS l(n) ON true WHERE i.id < 3 ORDER BY 1, 2 --> replica
SELECT * FROM (SELECT kind, sum(price) s FROM item GROUP BY 1) q WHERE s > 100 ORDER BY kind --> replica
SELECT ARRAY(SELECT id FROM item WHERE id < 5 ORDER BY id) --> replica
SELECT id FROM item WHERE id = ANY (ARRAY[1, 2]) AND price > ALL (SELECT 0) ORDER BY id --> replica
SELECT (id, name) = ROW(1, 'item 1') FROM item WHERE id = 1 --> replica
SELECT id FROM item WHERE (id, kind) IN ((1, 'k1'), (2, 'k9')) --> replica

--- common table expressions | each
WITH a AS (SELECT id FROM item WHERE id < 4) SELECT * FROM a ORDER BY id --> replica
WITH a AS MATERIALIZED (SELECT 1 AS n), b AS NOT MATERIALIZED (SELECT n + 1 AS n FROM a) SELECT * FROM a, b --> replica
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t --> replica
WITH RECURSIVE tree AS (SELECT id, parent, 0 AS depth FROM part WHERE parent IS NULL UNION ALL SELECT p.id, p.parent, depth + 1 FROM part p JOIN tree ON p.parent = tree.id) SELECT depth, count(*) FROM tree GROUP BY depth ORDER BY depth --> replica
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) SEARCH DEPTH FIRST BY n SET o CYCLE n SET c USING p SELECT n, c FROM t ORDER BY n --> replica
SELECT * FROM (WITH a AS (SELECT 3 AS n) SELECT n FROM a) q --> replica
WITH item AS (SELECT 'of the WITH' AS name) SELECT name FROM item --> replica

--- windows, groups, sets | each
SELECT id, row_number() OVER (ORDER BY price), rank() OVER w, lag(id) OVER w FROM item WINDOW w AS (PARTITION BY kind ORDER BY id) ORDER BY id LIMIT 4 --> replica
SELECT id, sum(price) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM item ORDER BY id LIMIT 3 --> replica
SELECT kind, seen, count(*) FROM item GROUP BY GROUPING SETS ((kind), (seen), ()) ORDER BY 1, 2, 3 --> replica
SELECT kind, seen, GROUPING(kind, seen), sum(price) FROM item GROUP BY ROLLUP (kind, seen) ORDER BY 1, 2, 3 --> replica
SELECT count(*) FROM (SELECT kind, seen FROM item GROUP BY CUBE (kind, seen)) q --> replica
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY price), mode() WITHIN GROUP (ORDER BY kind) FROM item --> replica
SELECT count(*) FILTER (WHERE seen), string_agg(name, ',' ORDER BY id) FILTER (WHERE id < 3), array_agg(DISTINCT kind) FROM item --> replica
SELECT id FROM cheaper UNION SELECT 1 UNION ALL SELECT 1 ORDER BY 1 --> replica
SELECT id FROM item INTERSECT SELECT id FROM cheap EXCEPT SELECT 2 ORDER BY 1 LIMIT 3 --> replica
(SELECT id FROM item ORDER BY id LIMIT 1) UNION ALL (SELECT id FROM item ORDER BY id DESC LIMIT 1) --> replica
SELECT count(*) > 0 FROM item TABLESAMPLE SYSTEM (100) REPEATABLE (3) --> replica
SELECT count(*) FROM item TABLESAMPLE BERNOULLI (100) --> replica

--- functions of PostgreSQL | each
SELECT upper(name), length(name), substring(name FROM 1 FOR 2), overlay(name PLACING 'x' FROM 1), position('i' IN name), trim(both 'i' from name) FROM item WHERE id = 1 --> replica
SELECT extra->'n', extra->>'n', extra #> '{list,0}', extra @> '{"n": 1}', extra ? 'n' FROM item WHERE id = 1 --> replica
SELECT jsonb_path_query(extra, '$.list[*]') FROM item WHERE id = 2 --> replica
SELECT * FROM jsonb_to_recordset('[{"a": 1}, {"a": 2}]') AS t(a int) --> replica
SELECT json_agg(row_to_json(i)) FROM (SELECT id, name FROM item WHERE id < 3 ORDER BY id) i --> replica
SELECT key, value FROM jsonb_each('{"a": 1, "b": null}') --> replica
SELECT jsonb_set(extra, '{n}', '9'), extra - 'n', extra || '{"x": 1}' FROM item WHERE id = 1 --> replica
SELECT unnest(tags), tags[1], tags[1:2], array_length(tags, 1), tags && ARRAY['all'], tags || 'more'::text FROM item WHERE id = 1 --> replica
SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b']) WITH ORDINALITY AS t(a, b, n) --> replica
SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(5, 6)) AS t(a, b) --> replica
SELECT span, lower(span), upper(span), span @> 5, span && int4range(3, 4) FROM item WHERE id = 5 --> replica
SELECT range_agg(span) FROM item WHERE id IN (1, 30) --> replica
SELECT to_tsvector('english', 'the quick foxes') @@ to_tsquery('english', 'fox'), ts_rank(to_tsvector('simple', 'a b'), 'a'::tsquery) --> replica
SELECT ts_headline('english', 'the quick fox', to_tsquery('english', 'fox')) --> replica
SELECT name FROM item WHERE name LIKE 'item 1_' AND name ILIKE 'ITEM%' AND name ~ '1\d' AND name SIMILAR TO 'item%' ORDER BY 1 LIMIT 3 --> replica
SELECT regexp_matches('foobar', 'o(.)', 'g'), regexp_replace('abc', 'b', 'x'), regexp_split_to_array('a,b', ',') --> replica
SELECT coalesce(NULL, 1), nullif(1, 1), greatest(1, 2), least(1, 2), CASE WHEN 1 = 1 THEN 'a' ELSE 'b' END --> replica
SELECT CASE how WHEN 'sad' THEN 1 WHEN 'ok' THEN 2 END, how::text, 'happy'::mood > how FROM item WHERE id = 3 --> replica
SELECT extract(year FROM day), date_trunc('month', made), day + 1, age(day, '2023-01-01'), to_char(made, 'YYYY-MM-DD') FROM item WHERE id = 1 --> replica
SELECT made AT TIME ZONE 'Europe/Vienna', timezone('UTC', made), make_date(2024, 2, 29), '1 day'::interval * 2 FROM item WHERE id = 1 --> replica
SELECT (DATE '2024-01-01', DATE '2024-02-01') OVERLAPS (DATE '2024-01-15', DATE '2024-03-01') --> replica
SELECT CAST('1' AS int), '2'::numeric(5,2), int '3', 'x'::varchar(3), '{1,2}'::int[], B'101', X'1F', 1::bit(4) --> replica
SELECT 5::positive, count + 1 FROM item WHERE id = 1 --> replica
SELECT encode(raw, 'hex'), decode('ff', 'hex'), md5('a'), sha256('a'), convert_from('a'::bytea, 'UTF8') FROM item WHERE id = 1 --> replica
SELECT format('%s-%I-%L', 1, 'A b', 'c'), quote_literal('x'), quote_ident('a b'), concat_ws(',', 1, NULL, 2) --> replica
SELECT xmlelement(name a, xmlattributes(1 AS b), 'c'), xmlforest(id, name) FROM item WHERE id = 1 --> replica
SELECT query_to_xml('SELECT 1 AS a', true, false, '') --> any
SELECT point(1, 2) <-> point(3, 4), box '((0,0),(1,1))' @> point '(0.5,0.5)', '10.0.0.1'::inet << '10.0.0.0/8' --> replica
SELECT pg_typeof(id), pg_typeof(both_), id IS DISTINCT FROM 2, name COLLATE "C" < 'z', name COLLATE plain_c FROM item WHERE id = 1 --> replica
SELECT generate_series(1, 3), generate_series('2024-01-01'::date, '2024-01-03', '1 day') --> replica
SELECT width_bucket(5, 0, 10, 5), round(2.567, 2), trunc(2.5), mod(7, 3), 7 % 3, 2 ^ 3, |/ 16, @ -5, 5 # 3, ~ 1, 1 << 3 --> replica
SELECT GREATEST('a' COLLATE "C", 'b'), 'a' || 'b' || 1 --> replica
SELECT num_nulls(1, NULL), gcd(8, 12), factorial(5), bit_count('\x0f'::bytea), string_to_array('a b', ' ') --> replica
SELECT current_date = now()::date, current_timestamp = now(), localtimestamp IS NOT NULL, transaction_timestamp() = now() --> replica
SELECT now(), current_date, current_time, localtime --> replica unlike
SELECT current_user, session_user, user, current_role, current_schema, current_catalog = current_database() --> replica
SELECT obj_description('item'::regclass), to_regclass('nothing'), 'item'::regclass::text, pg_get_viewdef('cheap'::regclass) --> replica
SELECT has_table_privilege('item', 'SELECT'), pg_table_is_visible('item'::regclass), pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'item_pkey' --> replica
SELECT version() LIKE 'PostgreSQL%' --> replica
SELECT pg_size_pretty(10240::bigint), pg_column_size(1), pg_relation_size('item') > 0 --> any
SELECT set_bit('\x00'::bytea, 1, 1), get_byte('\xff'::bytea, 0), setweight('a:1'::tsvector, 'A') --> replica
SELECT random() < 2, clock_timestamp() > '2000-01-01', gen_random_uuid() IS NOT NULL, timeofday() IS NOT NULL --> any

--- functions, operators and aggregates of the application | each
SELECT add_one(3), add_one(i => 4) --> replica
SELECT id FROM items_of('k1') ORDER BY id LIMIT 3 --> replica
SELECT price_of(4), public.price_of(5) --> replica
SELECT kind, product(id) FROM item WHERE id < 7 GROUP BY kind ORDER BY kind --> replica
SELECT product(id) OVER (ORDER BY id) FROM item WHERE id < 4 --> replica
SELECT id FROM item WHERE id ~~~ 10 ORDER BY id --> replica
SELECT id FROM item WHERE id OPERATOR(public.~~~) 20 ORDER BY id --> replica
SELECT * FROM cheap ORDER BY id LIMIT 3 --> replica
SELECT count(*) FROM cheaper c JOIN totals t ON true --> replica

--- reads that fail, fail the same | each
SELECT 1 / 0 --> replica error 22012
SELECT 1 / (id - 5) FROM item ORDER BY id --> replica error 22012
SELECT 'x'::int --> replica error 22P02
SELECT 0::positive --> replica error 23514
SELECT nothing FROM item --> any error 42703
SELECT * FROM item WHERE name = 1 --> any error 42883
SELECT (SELECT id FROM item) --> replica error 21000
SELECT price_of('a') --> any error 22P02
SELECT * FROM item LIMIT -1 --> replica error 2201W
SELECT ARRAY[1, 'x'] --> replica error 22P02
SELECT 'weird'::mood --> replica error 22P02

--- with parameters | each | extended | named
SELECT id, name FROM item WHERE id = $1 --> replica | with 7
SELECT $1::int + $2::int --> replica | with 1, 2
SELECT count(*) FROM item WHERE name LIKE $1 AND price < $2 --> replica | with item 1%, 20
SELECT coalesce($1::text, 'none') --> replica | with NULL
SELECT id FROM item WHERE id = ANY ($1) ORDER BY id --> replica | with {1}
SELECT id FROM items_of($1) ORDER BY id LIMIT $2 --> replica | with k1, 2
SELECT 10 / $1::int --> replica error 22012 | with 0
