# Advisory locks are taken on the node that runs the statement: on a replica they would keep out nobody.
CREATE TABLE l_data (id int);
INSERT INTO l_data SELECT generate_series(1, 5);
CREATE FUNCTION l_lock(k bigint) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT pg_try_advisory_lock(k)';
CREATE FUNCTION l_lock_pl(k bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_advisory_xact_lock(k); RETURN true; END$$;
CREATE VIEW l_view AS SELECT pg_try_advisory_lock(id) AS got FROM l_data WHERE false;

--- all functions | each | both
SELECT pg_advisory_lock({#}) --> primary
SELECT pg_advisory_lock({#}, 1) --> primary
SELECT pg_advisory_lock_shared({#}) --> primary
SELECT pg_advisory_lock_shared({#}, 1) --> primary
SELECT pg_advisory_xact_lock({#}) --> primary
SELECT pg_advisory_xact_lock({#}, 1) --> primary
SELECT pg_advisory_xact_lock_shared({#}) --> primary
SELECT pg_advisory_xact_lock_shared({#}, 1) --> primary
SELECT pg_try_advisory_lock({#}) --> primary
SELECT pg_try_advisory_lock({#}, 1) --> primary
SELECT pg_try_advisory_lock_shared({#}) --> primary
SELECT pg_try_advisory_lock_shared({#}, 1) --> primary
SELECT pg_try_advisory_xact_lock({#}) --> primary
SELECT pg_try_advisory_xact_lock({#}, 1) --> primary
SELECT pg_try_advisory_xact_lock_shared({#}) --> primary
SELECT pg_try_advisory_xact_lock_shared({#}, 1) --> primary
SELECT pg_advisory_unlock({#}) --> primary
SELECT pg_advisory_unlock({#}, 1) --> primary
SELECT pg_advisory_unlock_shared({#}) --> primary
SELECT pg_advisory_unlock_shared({#}, 1) --> primary
SELECT pg_advisory_unlock_all() --> primary
SELECT PG_CATALOG.pg_try_advisory_lock({#}) --> primary
SELECT "pg_try_advisory_lock"({#}) --> primary
SELECT l_lock({#}) --> primary
SELECT l_lock_pl({#}) --> primary
SELECT * FROM l_view --> primary
SELECT id FROM l_data WHERE id = 1 AND pg_try_advisory_lock({#}) --> primary
SELECT hashtext('x'), 'pg_advisory_lock(1)' --> replica

--- a session keeps its lock | both
SELECT pg_advisory_lock({#}) --> primary
SELECT 1 --> any
SELECT pg_advisory_unlock({#}) --> primary
SELECT pg_advisory_unlock({#}) --> primary

--- two sessions see each other's locks
SELECT pg_try_advisory_lock({#}) --> primary
@2 SELECT pg_try_advisory_lock({#}) --> primary
SELECT pg_advisory_unlock({#}) --> primary
@2 SELECT pg_try_advisory_lock({#}) --> primary
@2 SELECT pg_advisory_unlock_all() --> primary

--- a lock of a transaction
BEGIN --> any
SELECT pg_advisory_xact_lock({#}) --> primary
@2 SELECT pg_try_advisory_lock({#}) --> primary
COMMIT --> primary
@2 SELECT pg_try_advisory_lock({#}) --> primary

--- a lock in a read-only block is still a lock
BEGIN READ ONLY --> any
SELECT pg_try_advisory_xact_lock({#}) --> primary
COMMIT --> any

--- locks on tables | each | simple
LOCK TABLE l_data --> any error 25P01
LOCK l_data IN ACCESS SHARE MODE NOWAIT --> any error 25P01
BEGIN; LOCK TABLE l_data IN SHARE MODE; COMMIT --> primary

--- a lock on a table in a block
BEGIN --> any
LOCK TABLE l_data IN ROW EXCLUSIVE MODE --> primary
SELECT count(*) FROM l_data --> primary
LOCK TABLE nothing --> primary error 42P01
ROLLBACK --> primary
SELECT count(*) FROM l_data --> fresh
