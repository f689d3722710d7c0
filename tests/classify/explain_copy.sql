# EXPLAIN does not run what it explains, EXPLAIN ANALYZE does. COPY is a read, a write or a program.
CREATE TABLE e_data (id int PRIMARY KEY, v text);
INSERT INTO e_data SELECT n, 'e' || n FROM generate_series(1, 10) n;
CREATE FUNCTION e_write(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO e_data VALUES ((random() * 1e9)::int + 1000, t); RETURN t; END$$;
CREATE FUNCTION e_write_stable(t text) RETURNS text LANGUAGE sql STABLE AS 'SELECT e_write(t)';
CREATE VIEW e_view AS SELECT e_write(v) FROM e_data WHERE id < 3;
CREATE TABLE e_in (id int, v text);

--- EXPLAIN of reads | each | both
EXPLAIN SELECT v FROM e_data WHERE id = 3 --> replica
EXPLAIN (COSTS OFF) SELECT count(*) FROM e_data --> replica
EXPLAIN (FORMAT JSON, VERBOSE) SELECT v FROM e_data WHERE id = 3 --> replica
EXPLAIN VERBOSE VALUES (1), (2) --> replica
EXPLAIN ANALYZE SELECT v FROM e_data WHERE id = 3 --> replica unlike
EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF, COSTS OFF) SELECT 1 --> replica
EXPLAIN (ANALYZE false) SELECT 1 --> replica
EXPLAIN (ANALYZE, BUFFERS) TABLE e_data --> replica unlike

--- EXPLAIN of writes | each | both
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) INSERT INTO e_data VALUES (100 + {#}, 'explained') --> primary
EXPLAIN ANALYZE UPDATE e_data SET v = v WHERE id = 1 --> primary unlike
EXPLAIN (ANALYZE) DELETE FROM e_data WHERE id = -1 --> primary unlike
EXPLAIN (ANALYZE on, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT e_write('x') --> primary
EXPLAIN (COSTS OFF, ANALYZE, TIMING OFF, SUMMARY OFF) SELECT e_write_stable('x') --> primary
EXPLAIN ANALYZE SELECT * FROM e_view --> primary unlike
EXPLAIN ANALYZE SELECT id FROM e_data WHERE id = 1 FOR UPDATE --> primary unlike
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) WITH d AS (DELETE FROM e_data WHERE id = -1 RETURNING 1) SELECT * FROM d --> primary
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) CREATE TABLE e_made_{#} AS SELECT 1 --> primary
# It plans only, and planning may run functions that say they are STABLE.
EXPLAIN (COSTS OFF) INSERT INTO e_data VALUES (1, 'x') --> any
EXPLAIN (COSTS OFF) DELETE FROM e_data --> any
EXPLAIN (COSTS OFF) SELECT e_write('x') --> any
EXPLAIN (COSTS OFF) SELECT 1 FROM e_data WHERE e_write_stable('x') = v --> primary
EXPLAIN SELECT nothing --> any error 42703
EXPLAIN (NONSENSE) SELECT 1 --> any error 42601

--- COPY out | each | both
COPY e_in TO STDOUT --> replica
COPY (SELECT id, v FROM e_data WHERE id < 4 ORDER BY id) TO STDOUT --> replica
COPY (SELECT 1, 'a') TO STDOUT WITH (FORMAT csv, HEADER) --> replica
COPY (VALUES (1, NULL)) TO STDOUT (NULL 'none') --> replica
COPY (SELECT v FROM e_data WHERE id = 3) TO STDOUT (FORMAT binary) --> replica
COPY (TABLE e_in) TO STDOUT CSV --> replica
COPY (SELECT 1 / 0) TO STDOUT --> replica error 22012
COPY e_in (v) TO STDOUT DELIMITER ',' --> replica

--- COPY out that writes or reaches outside | each | both
COPY (INSERT INTO e_data VALUES (200000 + {#}, 'copied') RETURNING v) TO STDOUT --> primary
COPY (UPDATE e_data SET v = v WHERE id = 2 RETURNING id) TO STDOUT --> primary
COPY (DELETE FROM e_data WHERE id = -1 RETURNING id) TO STDOUT --> primary
COPY (WITH d AS (DELETE FROM e_data WHERE id = -1 RETURNING id) SELECT * FROM d) TO STDOUT --> primary
COPY (SELECT e_write('copy')) TO STDOUT --> primary
COPY (SELECT e_write_stable('copy')) TO STDOUT --> primary
COPY (SELECT * FROM e_view) TO STDOUT --> primary
COPY (SELECT id FROM e_data WHERE id = 1 FOR UPDATE) TO STDOUT --> primary
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null' --> primary
COPY e_data TO PROGRAM 'cat > /dev/null' --> primary
COPY (SELECT 1) TO '/nonexistent/file' --> primary error 58P01
COPY e_in TO '/nonexistent/file' --> primary error 58P01
COPY nothing TO STDOUT --> any error 42P01
COPY e_view TO STDOUT --> any error 42809

--- COPY in | both
COPY e_in FROM STDIN --> primary | data 1\tone\n2\ttwo\n
SELECT count(*) FROM e_in WHERE v IN ('one', 'two') --> fresh
COPY e_in (id, v) FROM STDIN (FORMAT csv) --> primary | data 3,three\n
COPY e_in FROM STDIN --> primary error 22P02 | data x\tbad\n
SELECT count(*) FROM e_in WHERE id < 10 --> fresh
TRUNCATE e_in --> primary

--- COPY in, other ways | each | both
COPY e_in FROM STDIN WHERE id > 5 --> primary | data 1\tone\n7\tseven\n
COPY e_in FROM PROGRAM 'printf "1\\tprogram\\n"' --> primary
COPY e_in FROM '/nonexistent/file' --> primary error 58P01
COPY e_view FROM STDIN --> any error 42809
TRUNCATE e_in --> primary

--- COPY out in a read-only block | both
BEGIN READ ONLY --> any
COPY (SELECT v FROM e_data WHERE id = 3) TO STDOUT --> replica
COPY e_in TO STDOUT --> replica
COMMIT --> any

--- COPY in within a block | both
BEGIN --> any
COPY e_in FROM STDIN --> primary | data 50\tblock\n
SELECT v FROM e_in --> primary
ROLLBACK --> primary
SELECT count(*) FROM e_in WHERE id = 50 --> fresh

--- COPY and more in one message | each | simple
COPY (SELECT 1) TO STDOUT; COPY (SELECT 2) TO STDOUT; SELECT 3 --> replica
SELECT 1; COPY (SELECT e_write('second')) TO STDOUT --> primary
SELECT 1; COPY e_in FROM STDIN; SELECT count(*) > 0 FROM e_in --> primary | data 8\teight\n
