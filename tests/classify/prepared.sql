# Prepared statements: what counts is what was prepared, also when it is executed much later.
CREATE TABLE p_data (id int PRIMARY KEY, v text);
INSERT INTO p_data SELECT n, 'p' || n FROM generate_series(1, 10) n;
CREATE SEQUENCE p_seq;
CREATE FUNCTION p_write(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO p_data VALUES (nextval('p_seq') + 100000, t); RETURN t; END$$;
CREATE SCHEMA p_other;
CREATE TABLE p_other.p_data AS SELECT 3 AS id, 'other'::text AS v;

--- SQL: a read | both
PREPARE r AS SELECT v FROM p_data WHERE id = 3 --> any
EXECUTE r --> replica
EXECUTE r --> replica
DEALLOCATE r --> any
EXECUTE r --> any error 26000

--- SQL: a read with parameters | both
PREPARE r (int) AS SELECT v FROM p_data WHERE id = $1 --> any
EXECUTE r (3) --> replica
EXECUTE r (2 + 2) --> replica
EXECUTE r (NULL) --> replica
EXECUTE r --> any error 42601
EXECUTE r (p_write('4')::int) --> primary
DEALLOCATE ALL --> any

--- SQL: a write | both
PREPARE w (text) AS INSERT INTO p_data VALUES (1000 + {#}, $1) RETURNING v --> any
EXECUTE w ('first') --> primary
EXECUTE w ('second') --> primary error 23505
SELECT v FROM p_data WHERE id = 1000 + {#} --> fresh
DEALLOCATE w --> any

--- SQL: writes of other kinds | both
PREPARE a AS SELECT p_write('by name') --> any
EXECUTE a --> primary
PREPARE b AS WITH x AS (UPDATE p_data SET v = v WHERE id = 1 RETURNING id) SELECT * FROM x --> any
EXECUTE b --> primary
PREPARE c AS SELECT id FROM p_data WHERE id = 1 FOR UPDATE --> any
EXECUTE c --> primary
PREPARE d AS SELECT nextval('p_seq') > 0 --> any
EXECUTE d --> primary
PREPARE e AS DELETE FROM p_data WHERE id = -1 --> any
EXECUTE e --> primary
EXPLAIN EXECUTE e --> any
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE e --> primary
CREATE TABLE p_made_{#} AS EXECUTE a --> primary
DEALLOCATE PREPARE ALL --> any

--- SQL: the same name for something else | both
PREPARE s AS SELECT v FROM p_data WHERE id = 3 --> any
EXECUTE s --> replica
DEALLOCATE s --> any
PREPARE s AS SELECT p_write('other meaning') --> any
EXECUTE s --> primary
PREPARE s AS SELECT 1 --> any error 42P05
EXECUTE s --> primary
DISCARD ALL --> any
EXECUTE s --> any error 26000

--- SQL: names in quotes | simple
PREPARE "R 1" AS SELECT 'upper' --> any
PREPARE "r 1" AS SELECT p_write('lower') --> any
EXECUTE "R 1" --> replica
EXECUTE "r 1" --> primary

--- SQL: prepared in a block that is undone
BEGIN --> any
PREPARE undone AS SELECT 5 --> any
EXECUTE undone --> any
ROLLBACK --> any
EXECUTE undone --> any
DEALLOCATE undone --> any

--- SQL: in a read-only block
PREPARE r AS SELECT v FROM p_data WHERE id = 3 --> any
PREPARE w AS UPDATE p_data SET v = v --> any
BEGIN READ ONLY --> any
EXECUTE r --> replica
EXECUTE w --> any error 25006
ROLLBACK --> any

--- SQL: what is prepared is seen
PREPARE seen (int, text) AS SELECT $1, $2 --> any
SELECT name, parameter_types, from_sql FROM pg_prepared_statements WHERE name = 'seen' --> any
DEALLOCATE seen --> any
SELECT count(*) FROM pg_prepared_statements WHERE name = 'seen' --> any

--- named: reads and writes in turns | named
SELECT v FROM p_data WHERE id = $1 --> replica | with 3
UPDATE p_data SET v = v WHERE id = $1 RETURNING v --> primary | with 3
SELECT v FROM p_data WHERE id = $1 --> fresh | with 3
SELECT p_write($1) --> primary | with x
SELECT v FROM p_data WHERE id = $1 --> fresh | with 4

--- named: reads only | named | each
SELECT v FROM p_data WHERE id = $1 --> replica | with 5
SELECT count(*) FROM p_data WHERE v LIKE $1 --> replica | with p_
SELECT $1::text || $2::text --> replica | with a, b
VALUES ($1::int) --> replica | with 1
SELECT v, $1::int / (id - 5) FROM p_data WHERE id = 5 --> replica error 22012 | with 1

--- named: within blocks | named
SELECT v FROM p_data WHERE id = $1 --> replica | with 5
BEGIN READ ONLY --> any
SELECT v FROM p_data WHERE id = $1 --> replica | with 6
