# What an application may say about where it wants its statements. A wish for a replica is never an order.
CREATE TABLE st_data (id int PRIMARY KEY, v text);
INSERT INTO st_data SELECT n, 'st' || n FROM generate_series(1, 10) n;
CREATE FUNCTION st_write(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO st_data VALUES ((random() * 1e9)::int + 1000, t); RETURN t; END$$;

--- hints | each | all
/* pgbaton: primary */ SELECT v FROM st_data WHERE id = 1 --> primary
/* pgbaton: replica */ SELECT v FROM st_data WHERE id = 1 --> replica
/* pgbaton: replica */ SELECT st_write('hinted') --> primary
/* pgbaton: replica */ UPDATE st_data SET v = v WHERE id = 2 --> primary
/* pgbaton: replica */ SELECT id FROM st_data WHERE id = 1 FOR UPDATE --> primary
/* pgbaton: replica */ SELECT pg_is_in_recovery() --> primary
/* pgbaton: primary */ UPDATE st_data SET v = v WHERE id = 2 --> primary
/*pgbaton:primary*/ SELECT v FROM st_data WHERE id = 1 --> primary
  /* pgbaton: primary */
SELECT v FROM st_data WHERE id = 3 --> primary
/* pgbaton: nonsense */ SELECT v FROM st_data WHERE id = 1 --> any
/* some tracing */ SELECT v FROM st_data WHERE id = 1 --> replica
SELECT v /* pgbaton: primary */ FROM st_data WHERE id = 1 --> any
SELECT '/* pgbaton: primary */' --> replica

--- a hint is for one statement | both
/* pgbaton: primary */ SELECT v FROM st_data WHERE id = 1 --> primary
SELECT v FROM st_data WHERE id = 1 --> replica settled
/* pgbaton: primary */ SELECT v FROM st_data WHERE id = 1 --> primary

--- a hint in a message of several | simple
/* pgbaton: primary */ SELECT v FROM st_data WHERE id = 1; SELECT 2 --> primary
/* pgbaton: replica */ SELECT v FROM st_data WHERE id = 1; SELECT st_write('second') --> primary

--- a hint at the beginning of a block
/* pgbaton: primary */ BEGIN READ ONLY --> any
SELECT v FROM st_data WHERE id = 1 --> any
COMMIT --> any
/* pgbaton: replica */ BEGIN --> any
UPDATE st_data SET v = v WHERE id = 3 --> primary
COMMIT --> primary

--- target primary | both
SET pgbaton.target = 'primary' --> any
SELECT v FROM st_data WHERE id = 1 --> primary
SHOW pgbaton.target --> any
BEGIN READ ONLY --> any
SELECT v FROM st_data WHERE id = 1 --> primary
COMMIT --> any
SET pgbaton.target = 'auto' --> any
SELECT v FROM st_data WHERE id = 1 --> replica settled
SET pgbaton.target TO "primary" --> any
SELECT v FROM st_data WHERE id = 1 --> primary
RESET pgbaton.target --> any own
SELECT v FROM st_data WHERE id = 1 --> replica settled

--- target replica | both
SET pgbaton.target = 'replica' --> any
SELECT v FROM st_data WHERE id = 1 --> replica
SELECT st_write('wished') --> primary
UPDATE st_data SET v = v WHERE id = 4 --> primary
SELECT pg_is_in_recovery() --> primary
SELECT id FROM st_data WHERE id = 1 FOR UPDATE --> primary
SET pgbaton.target TO DEFAULT --> any own
SELECT v FROM st_data WHERE id = 1 --> fresh

--- a target from the start | login options=-c pgbaton.target=primary | both
SELECT v FROM st_data WHERE id = 1 --> primary
SET pgbaton.target = 'auto' --> any
SELECT v FROM st_data WHERE id = 1 --> replica settled
RESET pgbaton.target --> any
SELECT v FROM st_data WHERE id = 1 --> primary

--- a target for a transaction
BEGIN READ ONLY --> any
SET LOCAL pgbaton.target = 'primary' --> any
SELECT v FROM st_data WHERE id = 1 --> any
COMMIT --> any
SELECT v FROM st_data WHERE id = 2 --> replica settled

--- a target undone by its transaction
BEGIN --> any
SET pgbaton.target = 'primary' --> any
ROLLBACK --> any
SELECT v FROM st_data WHERE id = 2 --> replica

--- DISCARD ALL forgets the target | simple
SET pgbaton.target = 'primary' --> any
DISCARD ALL --> any
SELECT v FROM st_data WHERE id = 2 --> replica

--- consistency | both
SET pgbaton.consistency = 'eventual' --> any
SELECT v FROM st_data WHERE id = 1 --> replica
SET pgbaton.consistency = 'session' --> any
UPDATE st_data SET v = 'seen ' || {#} WHERE id = 5 --> primary
SELECT v FROM st_data WHERE id = 5 --> fresh
SET pgbaton.consistency = 'strong' --> any
UPDATE st_data SET v = 'strong ' || {#} WHERE id = 5 --> primary
SELECT v FROM st_data WHERE id = 5 --> fresh
@2 SET pgbaton.consistency = 'strong' --> any
UPDATE st_data SET v = 'of the other ' || {#} WHERE id = 5 --> primary
@2 SELECT v FROM st_data WHERE id = 5 --> fresh
SET pgbaton.consistency = 'bounded' --> any
SELECT v FROM st_data WHERE id = 1 --> replica settled
SHOW pgbaton.consistency --> any

--- what pgbaton says of itself | each | simple
SHOW pgbaton.node --> any own
SHOW pgbaton.lsn --> any own
SHOW pgbaton.epoch --> any own
SHOW pgbaton.route --> any own
