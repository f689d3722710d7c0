# Tables that a standby does not have or cannot read, sequences, and large objects.
CREATE UNLOGGED TABLE r_unlogged (id int);
INSERT INTO r_unlogged VALUES (1);
CREATE VIEW r_unlogged_view AS SELECT * FROM r_unlogged;
CREATE FUNCTION r_unlogged_count() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM r_unlogged';
CREATE FUNCTION r_unlogged_pl() RETURNS bigint LANGUAGE plpgsql STABLE AS $$BEGIN RETURN (SELECT count(*) FROM r_unlogged); END$$;
CREATE TABLE r_data (id int, t text);
INSERT INTO r_data VALUES (1, 'durable');
CREATE SEQUENCE r_seq;
CREATE TABLE r_serial (id serial, g int GENERATED ALWAYS AS IDENTITY, t text);
CREATE FUNCTION r_next() RETURNS bigint LANGUAGE sql STABLE AS $$SELECT nextval('r_seq')$$;
CREATE TABLE r_parent (id int);
CREATE TABLE r_child (CHECK (id > 0)) INHERITS (r_parent);
CREATE UNLOGGED TABLE r_child_unlogged () INHERITS (r_parent);
CREATE TABLE r_durable_parent (id int);
CREATE TABLE r_durable_child () INHERITS (r_durable_parent);
# A wrapper without a handler: reading is refused, but only where the table is looked at.
CREATE FOREIGN DATA WRAPPER r_wrapper;
CREATE SERVER r_server FOREIGN DATA WRAPPER r_wrapper;
CREATE FOREIGN TABLE r_foreign (id int) SERVER r_server;
CREATE VIEW r_foreign_view AS SELECT id FROM r_foreign;
CREATE FUNCTION r_foreign_count() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM r_foreign';

--- foreign tables | each | both
SELECT * FROM r_foreign --> primary error 55000
SELECT id FROM r_foreign_view --> primary error 55000
SELECT r_foreign_count() --> primary error 55000
SELECT 1 FROM r_data LEFT JOIN r_foreign USING (id) --> primary error 55000
INSERT INTO r_foreign VALUES (1) --> primary error 55000
SELECT ftserver FROM pg_foreign_table WHERE ftrelid = 'r_foreign'::regclass AND false --> replica

--- unlogged tables | each | all
SELECT * FROM r_unlogged --> primary
SELECT * FROM r_unlogged_view --> primary
SELECT r_unlogged_count() --> primary
SELECT r_unlogged_pl() --> primary
SELECT count(*) FROM r_data d LEFT JOIN r_unlogged u USING (id) --> primary
SELECT 1 WHERE NOT EXISTS (SELECT FROM r_unlogged WHERE false) --> primary
# A scan of the parent reads the unlogged child too.
SELECT * FROM r_parent --> primary
SELECT * FROM r_durable_parent --> replica
INSERT INTO r_unlogged VALUES (2) --> primary
TRUNCATE r_unlogged --> primary

--- temporary tables | both
CREATE TEMP TABLE r_temp (id int, t text) --> primary
INSERT INTO r_temp VALUES (1, 'mine') --> primary
SELECT * FROM r_temp --> primary
SELECT * FROM pg_temp.r_temp --> primary
CREATE TEMP VIEW r_temp_view AS SELECT * FROM r_temp --> primary
SELECT * FROM r_temp_view --> primary
SELECT d.t FROM r_data d JOIN r_temp USING (id) --> primary
UPDATE r_temp SET t = 'changed' RETURNING t --> primary
DROP TABLE r_temp CASCADE --> primary
SELECT * FROM r_temp --> any error 42P01

--- a temporary table hides a durable one | both
SELECT t FROM r_data --> replica
CREATE TEMP TABLE r_data AS SELECT 1 AS id, 'temporary' AS t --> primary
SELECT t FROM r_data --> primary
SELECT t FROM public.r_data --> fresh
SELECT count(*) FROM r_data --> primary
DROP TABLE pg_temp.r_data --> primary
SELECT t FROM r_data --> fresh

--- a temporary table by other words | both
CREATE LOCAL TEMPORARY TABLE r_words (a int) ON COMMIT PRESERVE ROWS --> primary
SELECT * FROM r_words --> primary
SELECT 5 AS b INTO TEMP r_into --> primary
SELECT b FROM r_into --> primary
CREATE TABLE pg_temp.r_named (c int) --> primary
SELECT c FROM r_named --> primary
DISCARD TEMP --> primary
SELECT * FROM r_words --> any error 42P01

--- a temporary table made by a function | both
DO $$BEGIN CREATE TEMP TABLE r_by_do (a int); INSERT INTO r_by_do VALUES (7); END$$ --> primary
SELECT a FROM r_by_do --> primary

--- temporary within a transaction
BEGIN --> any
CREATE TEMP TABLE r_drop (a int) ON COMMIT DROP --> primary
INSERT INTO r_drop VALUES (1) --> primary
SELECT * FROM r_drop --> primary
COMMIT --> primary
SELECT * FROM r_drop --> any error 42P01

--- sequences | each | both
SELECT nextval('r_seq') > 0 --> primary
SELECT nextval('public.r_seq'::regclass) > 0 --> primary
SELECT setval('r_seq', 1000) --> primary
SELECT setval('r_seq', 1000, false) --> primary
SELECT currval('r_seq') --> primary error 55000
SELECT lastval() --> primary error 55000
SELECT r_next() > 0 --> primary
SELECT generate_series(1, 3), nextval('r_seq') > 0 --> primary
INSERT INTO r_serial (t) VALUES ('x') RETURNING id > 0 --> primary
SELECT last_value IS NOT NULL FROM r_seq --> any
SELECT pg_get_serial_sequence('r_serial', 'id') --> replica
SELECT pg_sequence_last_value('r_seq'::regclass) IS NOT NULL --> any
SELECT seqstart FROM pg_sequence WHERE seqrelid = 'r_seq'::regclass --> replica
SELECT sequencename FROM pg_sequences WHERE sequencename = 'r_seq' --> any

--- a sequence belongs to its session | both
SELECT setval('r_seq', 5000) --> primary
SELECT nextval('r_seq') --> primary
SELECT currval('r_seq') --> primary
SELECT lastval() --> primary
SELECT 1 --> any
SELECT currval('r_seq'), lastval() --> primary
INSERT INTO r_serial (t) VALUES ('y') --> primary
SELECT currval(pg_get_serial_sequence('r_serial', 'id')) = lastval() --> primary unlike

--- large objects | each | both
SELECT lo_create(0) > 0 --> primary
SELECT lo_from_bytea(0, '\x0102') > 0 --> primary
SELECT lo_unlink(lo_create(0)) --> primary
SELECT lo_creat(-1) > 0 --> primary
SELECT lo_get(4242424) --> any error 42704

--- a large object in one transaction
SELECT lo_create(770000 + {#}) --> primary
BEGIN --> any
SELECT lo_open(770000 + {#}, 393216) --> primary
SELECT lowrite(0, 'abc') --> primary
SELECT lo_lseek(0, 0, 0) --> primary
SELECT loread(0, 2) --> primary
COMMIT --> primary
SELECT lo_get(770000 + {#}) --> fresh
SELECT lo_unlink(770000 + {#}) --> primary
