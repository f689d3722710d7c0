# The meaning of a name changes between two statements: a verdict remembered from before must not outlive it.
CREATE TABLE d_log (t text);
CREATE TABLE d_data (id int PRIMARY KEY, v text);
INSERT INTO d_data SELECT n, 'd' || n FROM generate_series(1, 10) n;
CREATE FUNCTION d_write(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO d_log VALUES (t); RETURN t; END$$;

--- a new table is used at once | both
CREATE TABLE d_new_{#} (a int) --> primary
SELECT * FROM d_new_{#} --> fresh
INSERT INTO d_new_{#} VALUES (1) --> primary
SELECT a FROM d_new_{#} --> fresh
ALTER TABLE d_new_{#} ADD b int DEFAULT 5 --> primary
SELECT a, b FROM d_new_{#} --> fresh
ALTER TABLE d_new_{#} RENAME TO d_renamed_{#} --> primary
SELECT b FROM d_renamed_{#} --> fresh
SELECT b FROM d_new_{#} --> any error 42P01
DROP TABLE d_renamed_{#} --> primary
SELECT b FROM d_renamed_{#} --> any error 42P01

--- a new function is used at once | both
CREATE FUNCTION d_f_{#}() RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO d_log VALUES ('new'); RETURN 'new'; END$$ --> primary
SELECT d_f_{#}() --> primary
DROP FUNCTION d_f_{#}() --> primary
SELECT d_f_{#}() --> any error 42883

--- STABLE becomes VOLATILE | both
CREATE FUNCTION d_g_{#}() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'stable'$$ --> primary
SELECT d_g_{#}() --> fresh
SELECT d_g_{#}() --> replica settled
CREATE OR REPLACE FUNCTION d_g_{#}() RETURNS text LANGUAGE plpgsql VOLATILE AS $$BEGIN INSERT INTO d_log VALUES ('g'); RETURN 'volatile'; END$$ --> primary
SELECT d_g_{#}() --> primary
SELECT d_g_{#}() --> primary settled

--- the body changes and the word STABLE stays | both
CREATE FUNCTION d_h_{#}() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN 'reads'; END$$ --> primary
SELECT d_h_{#}() --> replica settled
CREATE OR REPLACE FUNCTION d_h_{#}() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN d_write('h'); END$$ --> primary
SELECT d_h_{#}() --> primary settled

--- ALTER FUNCTION alone | both
CREATE FUNCTION d_i_{#}() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'i'$$ --> primary
SELECT d_i_{#}() --> replica settled
ALTER FUNCTION d_i_{#}() VOLATILE --> primary
SELECT d_i_{#}() --> primary settled

--- a function that a view and a function use | both
CREATE FUNCTION d_j_{#}() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'j'$$ --> primary
CREATE VIEW d_jv_{#} AS SELECT d_j_{#}() AS j --> primary
CREATE FUNCTION d_jf_{#}() RETURNS text LANGUAGE sql STABLE AS 'SELECT j FROM d_jv_{#}' --> primary
SELECT j FROM d_jv_{#} --> replica settled
SELECT d_jf_{#}() --> replica settled
CREATE OR REPLACE FUNCTION d_j_{#}() RETURNS text LANGUAGE plpgsql VOLATILE AS $$BEGIN INSERT INTO d_log VALUES ('j'); RETURN 'volatile'; END$$ --> primary
SELECT j FROM d_jv_{#} --> primary settled
SELECT d_jf_{#}() --> primary settled

--- another session changes the function | both
CREATE FUNCTION d_k_{#}() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'k'$$ --> primary
SELECT d_k_{#}() --> replica settled
@2 CREATE OR REPLACE FUNCTION d_k_{#}() RETURNS text LANGUAGE plpgsql VOLATILE AS $$BEGIN INSERT INTO d_log VALUES ('k'); RETURN 'volatile'; END$$ --> primary
SELECT d_k_{#}() --> primary settled

--- changed while a prepared statement calls it
CREATE FUNCTION d_l_{#}() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'l'$$ --> primary
PREPARE l AS SELECT d_l_{#}() --> any
EXECUTE l --> replica settled
CREATE OR REPLACE FUNCTION d_l_{#}() RETURNS text LANGUAGE plpgsql VOLATILE AS $$BEGIN INSERT INTO d_log VALUES ('l'); RETURN 'volatile'; END$$ --> primary
EXECUTE l --> primary settled
@2 CREATE OR REPLACE FUNCTION d_l_{#}() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN 'stable again'; END$$ --> primary
EXECUTE l --> replica settled

--- a table becomes a view that writes
CREATE TABLE d_m_{#} AS SELECT 'table' AS v --> primary
SELECT v FROM d_m_{#} --> replica settled
BEGIN; DROP TABLE d_m_{#}; CREATE VIEW d_m_{#} AS SELECT d_write('view') AS v; COMMIT --> primary
SELECT v FROM d_m_{#} --> primary settled

--- a table becomes unlogged
CREATE TABLE d_n_{#} AS SELECT 1 AS v --> primary
SELECT v FROM d_n_{#} --> replica settled
ALTER TABLE d_n_{#} SET UNLOGGED --> primary
SELECT v FROM d_n_{#} --> primary settled
ALTER TABLE d_n_{#} SET LOGGED --> primary
SELECT v FROM d_n_{#} --> replica settled

--- a policy comes
CREATE TABLE d_o_{#} AS SELECT 1 AS v --> primary
GRANT SELECT ON d_o_{#} TO plain --> primary
SET ROLE plain --> any
SELECT v FROM d_o_{#} --> replica settled
RESET ROLE --> any
CREATE POLICY d_policy ON d_o_{#} USING (d_write('policy') <> '') --> primary
ALTER TABLE d_o_{#} ENABLE ROW LEVEL SECURITY --> primary
GRANT INSERT ON d_log TO plain --> primary
SET ROLE plain --> any
SELECT v FROM d_o_{#} --> primary settled

--- an overload comes that fits better | both
CREATE FUNCTION d_p_{#}(a bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'bigint'$$ --> primary
SELECT d_p_{#}(1) --> replica settled
CREATE FUNCTION d_p_{#}(a int) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN d_write('int'); END$$ --> primary
SELECT d_p_{#}(1) --> primary settled

--- an operator and a cast come | both
CREATE TYPE d_q_{#} AS (a int) --> primary
SELECT ROW(1)::d_q_{#} --> replica settled
CREATE FUNCTION d_qt_{#}(v d_q_{#}) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN d_write('cast'); END$$ --> primary
CREATE CAST (d_q_{#} AS text) WITH FUNCTION d_qt_{#}(d_q_{#}) AS IMPLICIT --> primary
SELECT upper(ROW(1)::d_q_{#}) --> primary settled
DROP TYPE d_q_{#} CASCADE --> primary

--- a domain gets a constraint | both
CREATE DOMAIN d_r_{#} AS text --> primary
SELECT 'x'::d_r_{#} --> replica settled
ALTER DOMAIN d_r_{#} ADD CHECK (d_write(VALUE) <> '') --> primary
SELECT 'x'::d_r_{#} --> primary settled
DROP DOMAIN d_r_{#} --> primary

--- DDL that is undone
CREATE FUNCTION d_s_{#}() RETURNS text LANGUAGE sql STABLE AS $$SELECT 's'$$ --> primary
BEGIN --> any
CREATE OR REPLACE FUNCTION d_s_{#}() RETURNS text LANGUAGE plpgsql VOLATILE AS $$BEGIN RETURN d_write('s'); END$$ --> primary
SELECT d_s_{#}() --> primary
ROLLBACK --> primary
SELECT d_s_{#}() --> replica settled

--- DDL by a function | both
DO $$BEGIN CREATE FUNCTION d_t_{#}() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN d_write(''t''); END'; END$$ --> primary
SELECT d_t_{#}() --> primary settled
DROP FUNCTION d_t_{#}() --> primary
CREATE FUNCTION d_t_{#}() RETURNS text LANGUAGE sql STABLE AS $$SELECT 't'$$ --> primary
-- DO pins its session
SELECT d_t_{#}() --> any settled
DO $$BEGIN CREATE OR REPLACE FUNCTION d_t_{#}() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN d_write(''t''); END'; END$$ --> primary
SELECT d_t_{#}() --> primary settled

--- a schema moves into the path
CREATE SCHEMA d_u_{#} --> primary
CREATE TABLE d_u_{#}.d_data AS SELECT 1 AS id, 'in the schema' AS v --> primary
SELECT v FROM d_data WHERE id = 1 --> replica settled
SET search_path = d_u_{#}, public --> any
SELECT v FROM d_data WHERE id = 1 --> replica settled
DROP SCHEMA d_u_{#} CASCADE --> primary
SELECT v FROM d_data WHERE id = 1 --> replica settled

--- a cached plan does not outlive a changed type | named
SELECT v FROM d_data WHERE id = $1 --> any | with 1
