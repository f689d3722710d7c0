-- What pgbaton keeps in the database it looks after. Each of these travels with the log to every standby, which is the
-- point: a node can be asked what it has seen.

-- One row for each epoch, written by the primary of that epoch before it takes writes. It tells two promotions to the same
-- timeline number apart, and a store that is older than the database from one that is not.
CREATE TABLE pgbaton.epoch (
    epoch bigint PRIMARY KEY,
    node text NOT NULL,
    coordinator text NOT NULL,
    timeline integer NOT NULL,
    cause text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION pgbaton.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'pgbaton.% only grows', TG_TABLE_NAME USING ERRCODE = 'restrict_violation',
        HINT = 'Failovers are decided by it.';
END
$$;

-- The owner has every right on its table, and could take back what it gave away; the trigger is for accidents.
CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON pgbaton.epoch
    FOR EACH STATEMENT EXECUTE FUNCTION pgbaton.refuse_change();
ALTER TABLE pgbaton.epoch ENABLE ALWAYS TRIGGER only_grows;
REVOKE UPDATE, DELETE, TRUNCATE ON pgbaton.epoch FROM PUBLIC, CURRENT_USER;

-- One row for each pgbaton, updated with every heartbeat; room in the page keeps updates away from the index.
CREATE TABLE pgbaton.heartbeat (
    coordinator text PRIMARY KEY,
    node text NOT NULL,
    epoch bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000);

-- What led to each epoch, as in the file beside the store.
CREATE TABLE pgbaton.history (
    epoch bigint PRIMARY KEY,
    entry jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

GRANT USAGE ON SCHEMA pgbaton TO pg_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA pgbaton TO pg_monitor;
