# Several statements in one message, and several messages under one Sync: together they go where the strongest has to.
CREATE TABLE m_data (id int PRIMARY KEY, v text);
INSERT INTO m_data SELECT n, 'm' || n FROM generate_series(1, 10) n;
CREATE SEQUENCE m_seq;
CREATE FUNCTION m_write(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO m_data VALUES (nextval('m_seq') + 100000, t); RETURN t; END$$;

--- one message | each | simple
SELECT 1; SELECT 2 --> replica
SELECT v FROM m_data WHERE id = 1; SELECT v FROM m_data WHERE id = 2; --> replica
SELECT 1;; SELECT 2;;; --> replica
;;SELECT 3 --> replica
SELECT 1; SELECT 1 / 0; SELECT 2 --> replica error 22012
SELECT v FROM m_data WHERE id = 1; UPDATE m_data SET v = 'changed' WHERE id = 1; SELECT v FROM m_data WHERE id = 1 --> primary
UPDATE m_data SET v = 'm1' WHERE id = 1; SELECT v FROM m_data WHERE id = 1 --> primary
SELECT 1; SELECT m_write('second') --> primary
SELECT 1; SELECT nextval('m_seq') > 0 --> primary
SELECT 1; INSERT INTO m_data VALUES (1, 'double'); SELECT 2 --> primary error 23505
INSERT INTO m_data VALUES (500 + {#}, 'undone'); SELECT 1 / 0 --> primary error 22012
SELECT count(*) FROM m_data WHERE v = 'undone' --> replica
SELECT 1; CREATE TABLE m_made_{#} (a int); SELECT * FROM m_made_{#} --> primary
CREATE TEMP TABLE m_temp (a int); INSERT INTO m_temp VALUES (1); SELECT * FROM m_temp --> primary
SELECT 'a;b' AS ";", $$;$$ /* ; */ -- ;
; SELECT 2 --> replica
SELECT 1; SELEC 2 --> any error 42601
SELECT 1; DO $$BEGIN PERFORM 1; END$$ --> primary
SELECT pg_advisory_xact_lock(1); SELECT 1 --> primary
SELECT 1; SELECT v FROM m_data WHERE id = 1 FOR UPDATE --> primary
SELECT 1; VACUUM m_data --> primary error 25001
SET my.m = 'x'; SELECT current_setting('my.m') --> any
SET timezone = 'Asia/Tokyo'; SELECT '2024-01-01 00:00+00'::timestamptz --> any
SELECT 1; SET my.m = 'x'; SELECT 2 --> any
SET LOCAL my.m = 'local'; SELECT current_setting('my.m') --> any
SELECT set_config('my.m', 'one', true); SELECT current_setting('my.m') --> any
BEGIN; SELECT 1; COMMIT --> any
BEGIN; UPDATE m_data SET v = 'kept' WHERE id = 2; COMMIT --> primary
BEGIN; UPDATE m_data SET v = 'undone' WHERE id = 2; ROLLBACK; SELECT v FROM m_data WHERE id = 2 --> primary
BEGIN READ ONLY; SELECT v FROM m_data WHERE id = 3; SELECT count(*) FROM m_data WHERE id < 11; COMMIT --> replica
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT v FROM m_data WHERE id = 3; ROLLBACK --> replica
BEGIN READ ONLY; SELECT 1; COMMIT; SELECT m_write('after') --> primary
BEGIN TRANSACTION READ ONLY; SELECT pg_is_in_recovery(); END --> primary
SELECT 1; BEGIN; SELECT 2; COMMIT --> any
SELECT 1; COMMIT; SELECT 2 --> any
SELECT 1; ROLLBACK --> any
PREPARE m AS SELECT 5; EXECUTE m; DEALLOCATE m --> any
PREPARE m AS INSERT INTO m_data VALUES (900 + {#}, 'p') RETURNING v; EXECUTE m; DEALLOCATE m --> primary
LISTEN m_channel; SELECT 1 --> primary
SELECT 1; NOTIFY m_channel --> primary
DECLARE c CURSOR FOR SELECT id FROM m_data ORDER BY id; FETCH 2 FROM c --> any
CREATE FUNCTION m_made_{#}() RETURNS int LANGUAGE sql AS 'SELECT 1; SELECT 2'; SELECT m_made_{#}() --> primary

--- a block opened in one message and closed in another
BEGIN; SELECT v FROM m_data WHERE id = 3 --> any
SELECT v FROM m_data WHERE id = 4 --> primary
UPDATE m_data SET v = v WHERE id = 4; COMMIT --> primary
SELECT v FROM m_data WHERE id = 4 --> fresh

--- a read-only block opened in one message and closed in another
BEGIN READ ONLY; SELECT v FROM m_data WHERE id = 3 --> replica
SELECT v FROM m_data WHERE id = 5 --> replica
COMMIT; SELECT v FROM m_data WHERE id = 6 --> any

--- a read-only block closed and a write in one message
BEGIN READ ONLY; SELECT v FROM m_data WHERE id = 3 --> any
COMMIT; UPDATE m_data SET v = v WHERE id = 3 --> primary
SELECT v FROM m_data WHERE id = 3 --> fresh

--- a block that fails in one message
BEGIN; UPDATE m_data SET v = 'x' WHERE id = 5; SELECT 1 / 0; COMMIT --> primary error 22012
SELECT 1 --> any error 25P02
ROLLBACK --> any
SELECT v FROM m_data WHERE id = 5 --> fresh

--- a pipeline of reads | extended
SELECT v FROM m_data WHERE id = 3 --> replica queued
SELECT v FROM m_data WHERE id = 4 --> replica queued
SELECT count(*) FROM m_data WHERE id < $1 --> replica | with 5

--- a pipeline: read, then write | extended
SELECT v FROM m_data WHERE id = 3 --> any queued
UPDATE m_data SET v = 'piped' WHERE id = 3 RETURNING v --> primary queued
SELECT v FROM m_data WHERE id = 3 --> primary
SELECT v FROM m_data WHERE id = 3 --> fresh

--- a pipeline: write, then read | extended
INSERT INTO m_data VALUES (2000 + {#}, 'piped') --> primary queued
SELECT v FROM m_data WHERE id = 2000 + {#} --> primary
SELECT v FROM m_data WHERE id = 2000 + {#} --> fresh

--- a pipeline with an error first | extended
SELECT 1 / 0 --> replica queued
SELECT v FROM m_data WHERE id = 3 --> nowhere queued
SELECT 2 --> nowhere error 22012
SELECT v FROM m_data WHERE id = 4 --> replica

--- a pipeline with an error after a write | extended
INSERT INTO m_data VALUES (3000 + {#}, 'undone') --> primary queued
SELECT 1 / 0 --> primary queued
SELECT m_write('never') --> nowhere error 22012
SELECT count(*) FROM m_data WHERE id = 3000 + {#} --> fresh

--- a pipeline with a volatile function at the end | extended
SELECT v FROM m_data WHERE id = 4 --> any queued
SELECT m_write('last') --> primary

--- a pipeline whose second text does not parse | extended
SELECT v FROM m_data WHERE id = 4 --> any queued
SELEC 1 --> any error 42601
SELECT 3 --> replica settled

--- a block in one pipeline | extended
BEGIN --> any queued
UPDATE m_data SET v = 'block' WHERE id = 6 --> primary queued
SELECT v FROM m_data WHERE id = 6 --> primary queued
COMMIT --> primary
SELECT v FROM m_data WHERE id = 6 --> fresh

--- a read-only block in one pipeline | extended
BEGIN READ ONLY --> any queued
SELECT v FROM m_data WHERE id = 7 --> replica queued
SELECT v FROM m_data WHERE id = 8 --> replica queued
COMMIT --> any

--- a block over several pipelines | extended
BEGIN --> any queued
SELECT v FROM m_data WHERE id = 7 --> primary
UPDATE m_data SET v = v WHERE id = 7 --> primary queued
SELECT v FROM m_data WHERE id = 7 --> primary
COMMIT --> primary

--- a setting in a pipeline | extended
SET timezone = 'Asia/Tokyo' --> any queued
SELECT '2024-01-01 00:00+00'::timestamptz --> any queued
SHOW timezone --> any
SELECT '2024-01-01 00:00+00'::timestamptz --> replica settled

--- a pipeline within a read-only block that fails | extended
BEGIN READ ONLY --> any
SELECT v FROM m_data WHERE id = 7 --> replica queued
UPDATE m_data SET v = 'no' --> any queued
SELECT 1 --> nowhere error 25006
ROLLBACK --> any
