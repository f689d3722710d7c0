# Blocks: on the primary, unless declared READ ONLY; then as a whole on one replica.
CREATE TABLE t_data (id int PRIMARY KEY, v int);
INSERT INTO t_data SELECT n, n FROM generate_series(1, 10) n;
CREATE SEQUENCE t_seq;
CREATE FUNCTION t_volatile_reader(i int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$BEGIN RETURN (SELECT v FROM t_data WHERE id = i); END$$;
CREATE TABLE t_child (id int REFERENCES t_data DEFERRABLE INITIALLY DEFERRED);

--- a block that reads and writes | both
BEGIN --> any
SELECT v FROM t_data WHERE id = 1 --> primary
UPDATE t_data SET v = v + 1 WHERE id = 1 --> primary
SELECT v FROM t_data WHERE id = 1 --> primary
COMMIT --> primary
SELECT v FROM t_data WHERE id = 1 --> fresh

--- a block that only reads but does not say so | both
BEGIN --> any
SELECT v FROM t_data WHERE id = 2 --> primary
SELECT count(*) FROM t_data --> primary
COMMIT --> primary

--- rolled back | both
START TRANSACTION --> any
UPDATE t_data SET v = 99 WHERE id = 3 --> primary
ROLLBACK --> primary
SELECT v FROM t_data WHERE id = 3 --> fresh

--- other words | both
BEGIN WORK --> any
INSERT INTO t_data VALUES (1000 + {#}, 1) --> primary
END --> primary
BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE --> any
DELETE FROM t_data WHERE id = 1000 + {#} --> primary
ABORT --> primary
SELECT count(*) FROM t_data WHERE id = 1000 + {#} --> fresh

--- read only | both
BEGIN READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> replica
SELECT count(*) FROM t_data --> replica
COMMIT --> any

--- read only by other words | both
START TRANSACTION READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> replica
ROLLBACK --> any
BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY --> any
SELECT v FROM t_data WHERE id = 5 --> replica
END --> any
BEGIN READ ONLY, NOT DEFERRABLE --> any
TABLE t_data ORDER BY id LIMIT 1 --> replica
COMMIT AND NO CHAIN --> any
BEGIN ISOLATION LEVEL READ UNCOMMITTED, READ ONLY --> any
SELECT v FROM t_data WHERE id = 6 --> replica
COMMIT --> any

--- nothing in the block | both
BEGIN READ ONLY --> any
COMMIT --> any
BEGIN --> any
COMMIT --> any
BEGIN --> any
ROLLBACK --> any
COMMIT --> any
ROLLBACK --> any

--- repeatable read is one snapshot on one node | both
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY --> any
SELECT v FROM t_data WHERE id = 7 --> replica
@2 UPDATE t_data SET v = v + 100 WHERE id = 7 --> primary
SELECT v FROM t_data WHERE id = 7 --> replica settled
SELECT now() = transaction_timestamp() --> replica
COMMIT --> any
SELECT v > 100 FROM t_data WHERE id = 7 --> replica

--- repeatable read that may write | both
BEGIN ISOLATION LEVEL REPEATABLE READ --> any
SELECT v FROM t_data WHERE id = 8 --> primary
UPDATE t_data SET v = 80 WHERE id = 8 --> primary
COMMIT --> primary

--- serializable is not to be had on a standby | both
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY --> any
SELECT v FROM t_data WHERE id = 9 --> primary
COMMIT --> primary
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE --> any
SELECT v FROM t_data WHERE id = 9 --> primary
COMMIT --> primary
BEGIN ISOLATION LEVEL SERIALIZABLE --> any
SELECT v FROM t_data WHERE id = 9 --> primary
ROLLBACK --> primary

--- SET TRANSACTION as the first statement | both
BEGIN --> any
SET TRANSACTION READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> replica
UPDATE t_data SET v = 0 --> any error 25006
ROLLBACK --> any

--- SET TRANSACTION with an isolation level | both
BEGIN --> any
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> replica
COMMIT --> any

--- SET TRANSACTION too late
BEGIN --> any
SELECT v FROM t_data WHERE id = 4 --> primary
SET TRANSACTION ISOLATION LEVEL SERIALIZABLE --> primary error 25001
ROLLBACK --> primary

--- SET TRANSACTION SERIALIZABLE in a read-only block
BEGIN READ ONLY --> any
SET TRANSACTION ISOLATION LEVEL SERIALIZABLE --> any
SELECT v FROM t_data WHERE id = 4 --> primary
COMMIT --> any

--- a read-only block that changes its mind
BEGIN READ ONLY --> any
SET TRANSACTION READ WRITE --> any
UPDATE t_data SET v = v WHERE id = 4 --> primary
COMMIT --> primary

--- a read-only block that changes its mind after a read
BEGIN READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> any
SET TRANSACTION READ WRITE --> any error 25001
ROLLBACK --> any

--- a read-only block by a setting
BEGIN --> any
SET LOCAL transaction_read_only = on --> any
SELECT v FROM t_data WHERE id = 4 --> any
UPDATE t_data SET v = 0 --> any error 25006
ROLLBACK --> any

--- writes in a read-only block are refused as ever | both
BEGIN READ ONLY --> any
UPDATE t_data SET v = 0 --> any error 25006
SELECT 1 --> any error 25P02
ROLLBACK --> any
BEGIN READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> replica settled
INSERT INTO t_data VALUES (-1, 0) --> any error 25006
COMMIT --> any

--- what is refused in a read-only block | each | simple
BEGIN READ ONLY; CREATE TABLE t_no (a int); COMMIT --> any error 25006
BEGIN READ ONLY; SELECT nextval('t_seq'); COMMIT --> any error 25006
BEGIN READ ONLY; SELECT v FROM t_data WHERE id = 4 FOR UPDATE; COMMIT --> any error 25006
BEGIN READ ONLY; TRUNCATE t_data; COMMIT --> any error 25006
BEGIN READ ONLY; WITH a AS (DELETE FROM t_data RETURNING 1) SELECT * FROM a; COMMIT --> any error 25006
BEGIN READ ONLY; SELECT v FROM t_data WHERE id = 4; COMMIT --> replica
BEGIN; SELECT v FROM t_data WHERE id = 4; COMMIT --> any
BEGIN; UPDATE t_data SET v = v WHERE id = 4; COMMIT --> primary
BEGIN READ ONLY; SELECT v FROM t_data WHERE id = 4; COMMIT; UPDATE t_data SET v = v WHERE id = 4 --> primary

# A standby allows none of these, a primary allows them in a read-only block too.
--- what a primary allows in a read-only block
CREATE TEMP TABLE t_temp (a int) --> primary
BEGIN READ ONLY --> any
INSERT INTO t_temp VALUES (1) --> primary
SELECT * FROM t_temp --> primary
COMMIT --> primary

--- what a primary allows in a read-only block after a read
BEGIN READ ONLY --> any
LOCK TABLE t_data IN ACCESS SHARE MODE --> any
SELECT v FROM t_data WHERE id = 4 --> any
COMMIT --> any

--- a volatile function cannot write in a read-only block | both
BEGIN READ ONLY --> any
SELECT t_volatile_reader(4) --> replica
COMMIT --> any

--- an error in a read-only block
BEGIN READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> replica
SELECT 1 / 0 --> replica error 22012
SELECT v FROM t_data WHERE id = 4 --> any error 25P02
COMMIT --> any
SELECT v FROM t_data WHERE id = 4 --> replica

--- savepoints in a read-only block
BEGIN READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> replica
SAVEPOINT a --> replica
SELECT 1 / 0 --> replica error 22012
ROLLBACK TO SAVEPOINT a --> replica
SELECT v FROM t_data WHERE id = 5 --> replica
RELEASE a --> replica
COMMIT --> any

--- a savepoint first in a read-only block
BEGIN READ ONLY --> any
SAVEPOINT a --> any
SELECT v FROM t_data WHERE id = 4 --> any
ROLLBACK --> any

--- savepoints and autosave in a block that writes
BEGIN --> any
SAVEPOINT auto --> any
UPDATE t_data SET v = v + 1 WHERE id = 10 --> primary
RELEASE auto --> primary
SAVEPOINT auto --> primary
INSERT INTO t_data VALUES (10, 0) --> primary error 23505
ROLLBACK TO auto --> primary
SELECT v FROM t_data WHERE id = 10 --> primary
COMMIT --> primary

--- errors in a block | both
BEGIN --> any
SELECT 1 / 0 --> primary error 22012
SELECT 1 --> primary error 25P02
COMMIT --> primary
SELECT v FROM t_data WHERE id = 4 --> replica settled

--- a constraint that waits for the end
BEGIN --> any
INSERT INTO t_child VALUES (-77) --> primary
SELECT count(*) FROM t_child --> primary
COMMIT --> primary error 23503

--- chained | both
BEGIN READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> replica
COMMIT AND CHAIN --> any
SELECT v FROM t_data WHERE id = 5 --> any
UPDATE t_data SET v = 0 --> any error 25006
ROLLBACK --> any

--- chained writes | both
BEGIN --> any
UPDATE t_data SET v = v WHERE id = 4 --> primary
COMMIT AND CHAIN --> primary
SELECT v FROM t_data WHERE id = 4 --> primary
ROLLBACK --> primary

--- a session that is read-only by default | both
SET default_transaction_read_only = on --> any
SELECT v FROM t_data WHERE id = 4 --> replica
UPDATE t_data SET v = 0 --> any error 25006
SELECT t_volatile_reader(4) --> any
BEGIN --> any
SELECT v FROM t_data WHERE id = 4 --> any
COMMIT --> any
BEGIN READ WRITE --> any
UPDATE t_data SET v = v WHERE id = 4 --> primary
COMMIT --> primary
SET default_transaction_read_only = off --> any
UPDATE t_data SET v = v WHERE id = 4 --> primary

--- SESSION CHARACTERISTICS | both
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY --> any
SHOW transaction_read_only --> any
SELECT v FROM t_data WHERE id = 4 --> replica
INSERT INTO t_data VALUES (-2, 0) --> any error 25006
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE --> any
UPDATE t_data SET v = v WHERE id = 4 --> primary

--- read-only from the start | login options=-c default_transaction_read_only=on | both
SHOW default_transaction_read_only --> any
SELECT v FROM t_data WHERE id = 4 --> replica
DELETE FROM t_data --> any error 25006
BEGIN READ WRITE --> any
UPDATE t_data SET v = v WHERE id = 4 --> primary
ROLLBACK --> primary

--- isolation by default | both
SET default_transaction_isolation = 'serializable' --> any
SELECT v FROM t_data WHERE id = 4 --> any
BEGIN READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> primary
COMMIT --> any
SHOW transaction_isolation --> any
SET default_transaction_isolation = 'repeatable read' --> any
BEGIN READ ONLY --> any
SELECT v FROM t_data WHERE id = 4 --> replica settled
SHOW transaction_isolation --> any
COMMIT --> any

--- the time stands still in a block
BEGIN READ ONLY --> any
SELECT set_config('my.now', now()::text, true) IS NOT NULL --> any
SELECT current_setting('my.now') = now()::text --> any
COMMIT --> any

--- warnings at the edges | each | simple
COMMIT --> any
ROLLBACK --> any
SAVEPOINT a --> any error 25P01
ROLLBACK TO a --> any error 25P01
SET TRANSACTION READ ONLY --> any
BEGIN; BEGIN; COMMIT --> any

--- two-phase commit
BEGIN --> any
UPDATE t_data SET v = v + 1 WHERE id = 2 --> primary
PREPARE TRANSACTION 'g{#}' --> primary
SELECT gid FROM pg_prepared_xacts WHERE gid = 'g{#}' --> any
COMMIT PREPARED 'g{#}' --> primary
SELECT v FROM t_data WHERE id = 2 --> fresh
ROLLBACK PREPARED 'g{#}' --> primary error 42704

--- an exported snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY --> any
SET TRANSACTION SNAPSHOT '00000003-0000001B-1' --> any error 22023
ROLLBACK --> any
