# A read under the session's settings gives the same wherever it runs. Where a SET itself runs does not matter.
CREATE SCHEMA set_a;
CREATE SCHEMA set_b;
CREATE TABLE set_a.t (v text);
CREATE TABLE set_b.t (v text);
INSERT INTO set_a.t VALUES ('of a');
INSERT INTO set_b.t VALUES ('of b');
CREATE TABLE set_data (id int, at timestamptz, f float8, b bytea, m text);
INSERT INTO set_data VALUES (1, '2024-06-01 12:00+00', 0.1, '\xdead', 'x'), (2, '2024-12-01 12:00+00', 1e-7, '\x', NULL);
CREATE ROLE set_role;
GRANT USAGE ON SCHEMA set_a TO set_role;
GRANT SELECT ON set_a.t TO set_role;
GRANT set_role TO plain;
ALTER ROLE plain NOINHERIT;
CREATE FUNCTION set_hidden(v text) RETURNS void LANGUAGE sql VOLATILE AS $$SELECT set_config('my.hidden', v, false)$$;

--- formats follow the session | both
SELECT at, f, b FROM set_data ORDER BY id --> replica
SET timezone = 'Asia/Tokyo' --> any
SELECT at FROM set_data ORDER BY id --> replica
SET DateStyle = 'German' --> any
SELECT at, at::date FROM set_data ORDER BY id --> replica
SET extra_float_digits = 0 --> any
SET bytea_output = 'escape' --> any
SET IntervalStyle = 'sql_standard' --> any
SELECT f, b, '1 day 2 hours'::interval FROM set_data ORDER BY id --> replica
RESET timezone --> any
SELECT at FROM set_data WHERE id = 1 --> replica
RESET ALL --> any
SELECT at, f, b, '1 day 2 hours'::interval FROM set_data ORDER BY id --> replica
SET TIME ZONE INTERVAL '-03:00' HOUR TO MINUTE --> any
SELECT at FROM set_data WHERE id = 1 --> replica
SET TIME ZONE LOCAL --> any
SELECT at FROM set_data WHERE id = 1 --> replica

--- the search_path follows the session | both
SET search_path TO set_a, public --> any
SELECT v FROM t --> replica
SET search_path TO set_b --> any
SELECT v FROM t --> replica
SELECT current_schema, current_schemas(false) --> replica
SET SCHEMA 'set_a' --> any
SELECT v FROM t --> replica
RESET search_path --> any
SELECT v FROM t --> any error 42P01

--- the search_path of one statement may be that of another | extended
SET search_path TO set_a --> any
SELECT v FROM t WHERE v <> '' --> replica
SET search_path TO set_b --> any
SELECT v FROM t WHERE v <> '' --> replica

--- startup options count | login options=-c search_path=set_b -c timezone=Asia/Tokyo | both
SELECT v FROM t --> replica
SELECT at FROM public.set_data WHERE id = 1 --> replica
SHOW timezone --> any
SET search_path = set_a --> any
SELECT v FROM t --> replica
RESET search_path --> any
SELECT v FROM t --> replica
DISCARD ALL --> any
SELECT v FROM t --> replica

--- startup parameters count | login DateStyle=German | both
SELECT at::date FROM set_data WHERE id = 1 --> replica
SET DateStyle = ISO --> any
SELECT at::date FROM set_data WHERE id = 1 --> replica
RESET DateStyle --> any
SELECT at::date FROM set_data WHERE id = 1 --> replica

--- settings of the application | both
SET my.tenant = 'forty-two' --> any
SELECT current_setting('my.tenant') --> replica
SELECT current_setting('my.tenant', true), current_setting('my.nothing', true) --> replica
SHOW my.tenant --> any
SELECT set_config('my.tenant', 'seven', false) --> any
SELECT current_setting('my.tenant') --> any
SELECT set_config('my.tenant', 'eight', true) --> any
SELECT current_setting('my.tenant') --> any
SELECT current_setting('my.never') --> any error 42704

--- settings that functions make | both
SELECT set_hidden('known') --> primary
SELECT current_setting('my.hidden') --> any

--- roles | both
SET ROLE set_role --> any
SELECT current_user, session_user --> replica
SELECT v FROM set_a.t --> replica
SELECT v FROM set_b.t --> any error 42501
RESET ROLE --> any
SELECT v FROM set_b.t --> replica settled
SET SESSION AUTHORIZATION plain --> any
SELECT current_user, session_user --> replica
SELECT v FROM set_b.t --> any error 42501
RESET SESSION AUTHORIZATION --> any
SELECT current_user, session_user --> replica settled

--- a plain user's role | user plain | both
SELECT v FROM set_a.t --> any error 42501
SET ROLE set_role --> any
SELECT v FROM set_a.t --> replica settled
SET ROLE NONE --> any
SELECT v FROM set_a.t --> any error 42501
SET ROLE demo --> any error 42501

--- planner and limits | both
SET enable_seqscan = off --> any
SET statement_timeout = '5s' --> any
SET work_mem = '1MB' --> any
SELECT count(*) FROM set_data --> replica
SELECT current_setting('work_mem'), current_setting('statement_timeout') --> any
SET transform_null_equals = on --> any
SELECT id FROM set_data WHERE m = NULL --> replica settled
SET work_mem = 'nonsense' --> any error 22023
SELECT current_setting('work_mem') --> any

--- a timeout bites wherever the statement runs
SET statement_timeout = '50ms' --> any
SELECT count(*) FROM generate_series(1, 100000000) --> replica error 57014
RESET statement_timeout --> any
SELECT count(*) FROM generate_series(1, 10) --> replica

--- local settings end with the transaction
BEGIN --> any
SET LOCAL timezone = 'Asia/Tokyo' --> any
SELECT at FROM set_data WHERE id = 1 --> any
COMMIT --> any
SELECT at FROM set_data WHERE id = 1 --> replica settled
BEGIN --> any
SET timezone = 'Asia/Tokyo' --> any
ROLLBACK --> any
SELECT at FROM set_data WHERE id = 1 --> replica settled
SET LOCAL timezone = 'Asia/Tokyo' --> any
SELECT at FROM set_data WHERE id = 1 --> replica settled

--- undone by a savepoint
BEGIN --> any
SET timezone = 'Asia/Tokyo' --> any
SAVEPOINT a --> any
SET timezone = 'UTC' --> any
ROLLBACK TO a --> any
COMMIT --> any
SELECT at FROM set_data WHERE id = 1 --> replica

--- reads of settings | each | both
SHOW search_path --> any
SHOW timezone --> any
SHOW server_version --> any
SHOW transaction_isolation --> any
SHOW SESSION AUTHORIZATION --> any
SELECT current_setting('TimeZone') --> replica
SELECT current_setting('search_path'), current_setting('server_version_num')::int > 0 --> any
SELECT current_setting('is_superuser') --> any
SELECT count(*) > 100 FROM pg_settings --> any

--- client_encoding | simple
SET client_encoding = 'LATIN1' --> any
SELECT m, length(m) FROM set_data ORDER BY id --> replica
SET NAMES 'UTF8' --> any
SELECT 'ü' --> replica

--- settings of the server | each
ALTER SYSTEM SET log_min_duration_statement = '1h' --> primary
ALTER SYSTEM RESET log_min_duration_statement --> primary
ALTER ROLE plain SET work_mem = '5MB' --> primary
ALTER ROLE plain RESET work_mem --> primary
SET nothing = 1 --> any error 42704
SET port = 1 --> any error 55P02
SELECT set_config('port', '1', false) --> any error 55P02
SELECT set_config('transaction_read_only', 'on', false) --> any
