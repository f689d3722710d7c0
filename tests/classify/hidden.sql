# Writes that no word of the statement shows: behind views, rules, operators, casts, aggregates, domains, columns, policies.
CREATE TABLE h_log (t text);
CREATE FUNCTION h_touch(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO h_log VALUES (t); RETURN t; END$$;
CREATE TABLE h_data (id int, t text);
INSERT INTO h_data SELECT n, 'h' || n FROM generate_series(1, 10) n;
CREATE VIEW h_view AS SELECT id, h_touch(t) AS t FROM h_data;
CREATE VIEW h_view_on_view AS SELECT id FROM h_view WHERE t <> '';
CREATE VIEW h_view_deep AS SELECT count(*) AS c FROM (SELECT * FROM h_view_on_view) q;
CREATE VIEW h_view_filter AS SELECT id FROM h_data WHERE h_touch(t) IS NOT NULL;
CREATE VIEW h_view_clean AS SELECT id, upper(t) AS t FROM h_data;
CREATE MATERIALIZED VIEW h_mat AS SELECT id, h_touch(t) AS t FROM h_data;
CREATE FUNCTION h_of_view() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT c FROM h_view_deep';
CREATE VIEW h_view_of_function AS SELECT h_of_view() AS c;
CREATE VIEW h_view_locks AS SELECT id FROM h_data FOR UPDATE;
CREATE SEQUENCE h_seq;
CREATE VIEW h_view_seq AS SELECT nextval('h_seq') AS n;
CREATE TABLE h_ruled (id int, t text);
CREATE RULE h_rule AS ON INSERT TO h_ruled DO INSTEAD SELECT 1 AS ruled;
CREATE RULE h_rule_update AS ON UPDATE TO h_ruled DO ALSO INSERT INTO h_log VALUES ('ruled');
# Before views had a syntax of their own, they were rules.
CREATE VIEW h_notify AS SELECT 1 AS a;
CREATE RULE h_rule_notify AS ON INSERT TO h_notify DO INSTEAD NOTIFY h_channel;
CREATE FUNCTION h_compare(a int, b int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO h_log VALUES ('op'); RETURN a = b; END$$;
CREATE OPERATOR @#@ (leftarg = int, rightarg = int, function = h_compare);
CREATE OPERATOR @## (rightarg = text, function = h_touch);
CREATE SCHEMA h_ops;
CREATE OPERATOR h_ops.@#& (leftarg = int, rightarg = int, function = h_compare);
CREATE TYPE h_type AS (x int);
CREATE FUNCTION h_to_type(t text) RETURNS h_type LANGUAGE plpgsql AS $$BEGIN INSERT INTO h_log VALUES ('cast'); RETURN ROW(length(t))::h_type; END$$;
CREATE CAST (text AS h_type) WITH FUNCTION h_to_type(text);
CREATE TYPE h_implicit AS (x int);
CREATE FUNCTION h_to_text(v h_implicit) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO h_log VALUES ('implicit'); RETURN 'implicit'; END$$;
CREATE CAST (h_implicit AS text) WITH FUNCTION h_to_text(h_implicit) AS IMPLICIT;
CREATE TABLE h_cast (id int, v h_implicit);
INSERT INTO h_cast VALUES (1, ROW(1));
CREATE FUNCTION h_step(s int, v int) RETURNS int LANGUAGE plpgsql AS $$BEGIN INSERT INTO h_log VALUES ('agg'); RETURN s + v; END$$;
CREATE AGGREGATE h_sum (int) (sfunc = h_step, stype = int, initcond = '0');
CREATE FUNCTION h_final(s int) RETURNS int LANGUAGE plpgsql AS $$BEGIN INSERT INTO h_log VALUES ('final'); RETURN s; END$$;
CREATE AGGREGATE h_sum_final (int) (sfunc = int4pl, stype = int, initcond = '0', finalfunc = h_final);
CREATE FUNCTION h_check(v int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO h_log VALUES ('check'); RETURN v > 0; END$$;
CREATE DOMAIN h_domain AS int CHECK (h_check(VALUE));
CREATE DOMAIN h_domain_on_domain AS h_domain;
CREATE DOMAIN h_clean_domain AS int CHECK (VALUE > 0);
CREATE FUNCTION h_field(r h_data) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO h_log VALUES ('field'); RETURN 'field'; END$$;
CREATE FUNCTION h_clean_field(r h_data) RETURNS text LANGUAGE sql STABLE AS 'SELECT r.t';
CREATE TABLE h_policed (id int, t text);
INSERT INTO h_policed VALUES (1, 'a'), (2, 'b');
CREATE FUNCTION h_may_see(t text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN INSERT INTO h_log VALUES ('policy'); RETURN t = 'a'; END$$;
CREATE POLICY h_policy ON h_policed USING (h_may_see(t));
ALTER TABLE h_policed ENABLE ROW LEVEL SECURITY;
CREATE TABLE h_policed_clean (id int, owner text);
INSERT INTO h_policed_clean VALUES (1, 'plain'), (2, 'demo');
CREATE POLICY h_policy_clean ON h_policed_clean USING (owner = current_user);
ALTER TABLE h_policed_clean ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON h_policed, h_policed_clean, h_data TO plain;
CREATE TABLE h_default (id int, t text DEFAULT h_touch('default'));
CREATE FUNCTION h_in_range(a int) RETURNS SETOF h_view LANGUAGE sql STABLE AS 'SELECT * FROM h_view WHERE id = a';
CREATE TYPE h_ranged AS RANGE (subtype = int);
CREATE TABLE h_parent (id int);
CREATE TABLE h_partitioned (id int, t text) PARTITION BY LIST (id);
CREATE TABLE h_partition PARTITION OF h_partitioned FOR VALUES IN (1);

--- views | each | all
SELECT * FROM h_view ORDER BY id LIMIT 2 --> primary
SELECT id FROM h_view ORDER BY id LIMIT 2 --> primary
SELECT count(*) FROM h_view_on_view --> primary
SELECT c FROM h_view_deep --> primary
SELECT public.h_view_deep.c FROM public.h_view_deep --> primary
SELECT id FROM h_view_filter ORDER BY id LIMIT 1 --> primary
SELECT h_of_view() --> primary
SELECT c FROM h_view_of_function --> primary
TABLE h_view_on_view --> primary
SELECT 1 WHERE EXISTS (SELECT FROM h_view) --> primary
WITH a AS (SELECT * FROM h_view) SELECT count(*) FROM a --> primary
SELECT d.id FROM h_data d JOIN h_view_on_view USING (id) ORDER BY 1 LIMIT 1 --> primary
SELECT id FROM h_view_locks ORDER BY id LIMIT 1 --> primary
SELECT n > 0 FROM h_view_seq --> primary
SELECT * FROM h_in_range(1) --> primary
SELECT * FROM h_view_clean ORDER BY id LIMIT 2 --> replica
SELECT t FROM h_mat ORDER BY id LIMIT 2 --> replica
WITH h_view AS (SELECT 1 AS id) SELECT * FROM h_view --> any

--- rules | each | both
INSERT INTO h_ruled VALUES (1, 'x') --> primary
UPDATE h_ruled SET t = 'y' --> primary
INSERT INTO h_notify VALUES (1) --> primary
SELECT * FROM h_ruled --> replica
REFRESH MATERIALIZED VIEW h_mat --> primary

--- operators | each | both
SELECT 1 @#@ 1 --> primary
SELECT id FROM h_data WHERE id @#@ 3 --> primary
SELECT 1 OPERATOR(public.@#@) 2 --> primary
SELECT @## 'x'::text --> primary
SELECT 1 @#@ ANY (ARRAY[1, 2]) --> primary
SELECT id FROM h_data WHERE id @#@ ALL (SELECT 3) AND id < 2 --> primary
SELECT 1 OPERATOR(h_ops.@#&) 2 --> primary
SELECT 1 @#& 2 --> any error 42883
SELECT a.id FROM h_data a JOIN h_data b ON a.id @#@ b.id AND a.id < 2 ORDER BY 1 LIMIT 1 --> primary

--- an operator in the search_path
SET search_path = h_ops, public --> any
SELECT 1 @#& 1 --> primary

--- casts and types | each | both
SELECT 'abc'::text::h_type --> primary
SELECT CAST('abc'::text AS h_type) --> primary
SELECT (t::h_type).x FROM h_data WHERE id = 1 --> primary
SELECT (t::public.h_type).x FROM h_data WHERE id = 1 --> primary
SELECT upper(v) FROM h_cast --> primary
SELECT length(v) FROM h_cast --> primary
SELECT v::text FROM h_cast --> primary
INSERT INTO h_log SELECT v FROM h_cast --> primary
SELECT 5::h_domain --> primary
SELECT CAST(id AS h_domain) FROM h_data WHERE id = 1 --> primary
SELECT 5::h_domain_on_domain --> primary
SELECT ARRAY[1, 2]::h_domain[] --> primary
SELECT '{1,2}'::h_domain[] --> primary
SELECT h_domain '5' --> primary
SELECT '-5'::h_domain --> primary error 23514
SELECT 5::h_clean_domain --> replica
SELECT * FROM json_to_record('{"a": 5}') AS r(a h_domain) --> primary
SELECT * FROM json_populate_record(NULL::h_type, '{"x": 5}') --> any
SELECT '[1,3)'::h_ranged --> replica
SELECT XMLSERIALIZE(CONTENT '<a/>'::xml AS text) --> replica

--- aggregates | each | both
SELECT h_sum(id) FROM h_data --> primary
SELECT h_sum(id) OVER (ORDER BY id) FROM h_data --> primary
SELECT h_sum_final(id) FROM h_data --> primary
SELECT h_sum(DISTINCT id) FILTER (WHERE id < 3) FROM h_data --> primary

--- fields that are functions | each | both
SELECT (d).h_field FROM h_data d WHERE id = 1 --> primary
SELECT d.h_field FROM h_data d WHERE id = 1 --> primary
SELECT h_data.h_field FROM h_data WHERE id = 1 --> primary
SELECT id FROM h_data d WHERE d.h_field = 'field' ORDER BY id LIMIT 1 --> primary
SELECT h_field(d) FROM h_data d WHERE id = 1 --> primary
SELECT (SELECT d FROM h_data d WHERE id = 1).h_field --> primary
SELECT ((SELECT d FROM h_data d WHERE id = 1)).h_field --> primary
SELECT (d.*).h_field FROM h_data d WHERE id = 1 --> primary
SELECT d.h_clean_field FROM h_data d WHERE id = 1 --> replica
SELECT (d).t FROM h_data d WHERE id = 1 --> replica
SELECT (h_touch('x')).length --> primary
SELECT id(d) FROM h_data d WHERE id = 1 --> any
SELECT text(d.id) FROM h_data d WHERE id = 1 --> any

--- row security of a plain user | each | both | user plain
SELECT id FROM h_policed ORDER BY id --> primary
SELECT count(*) FROM h_policed WHERE id = 2 --> primary
SELECT id FROM h_policed_clean ORDER BY id --> replica
SELECT id, t FROM h_data WHERE id = 1 --> replica
SELECT * FROM h_log --> any error 42501
DELETE FROM h_data --> primary error 42501

--- row security does not bind a superuser | each | both
SELECT id FROM h_policed ORDER BY id --> any
SELECT id FROM h_policed_clean ORDER BY id --> replica

--- row security under another role | simple
SET ROLE plain --> any
SELECT id FROM h_policed_clean ORDER BY id --> replica
SELECT id FROM h_policed ORDER BY id --> primary
RESET ROLE --> any
SELECT id FROM h_policed_clean ORDER BY id --> fresh

--- defaults and partitions | each | both
INSERT INTO h_default (id) VALUES (1) RETURNING t --> primary
SELECT * FROM h_partitioned --> replica
INSERT INTO h_partitioned VALUES (1, 'x') --> primary
SELECT t FROM h_default LIMIT 0 --> replica
