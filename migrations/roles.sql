-- What pgbaton's control user may do: least privilege, for clusters where it must not be superuser.
-- docs/operations.md says what each right is for, and what does not work without it.
--
-- Run it as superuser, on the primary, in the database that cluster.control_database names; as often as you like:
--
--     psql -X -d postgres -v control_user=pgbaton -f roles.sql
--     psql -X -d postgres -c '\password pgbaton'
--
-- control_password may be given too, for scripts: it is then seen by whoever can see the process list and the log.

\set ON_ERROR_STOP on
\if :{?control_user}
\else
    \set control_user pgbaton
\endif

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = pg_catalog;

SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'control_user') AS control_is_missing,
       NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pgbaton_admin') AS admin_is_missing,
       current_setting('server_version_num')::int >= 150000 AS grants_parameters \gset

\if :control_is_missing
    CREATE ROLE :"control_user" LOGIN;
\endif
\if :admin_is_missing
    -- Its members may act in the console.
    CREATE ROLE pgbaton_admin NOLOGIN;
\endif
\if :{?control_password}
    ALTER ROLE :"control_user" PASSWORD :'control_password';
\endif

-- Replication slots are made and dropped by roles with this attribute; it cannot be granted in another way.
ALTER ROLE :"control_user" LOGIN REPLICATION;
GRANT pg_monitor, pg_signal_backend TO :"control_user";
GRANT SELECT (rolname, rolpassword, rolvaliduntil, rolcanlogin) ON pg_authid TO :"control_user";
GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO :"control_user";
GRANT EXECUTE ON FUNCTION pg_reload_conf() TO :"control_user";
GRANT EXECUTE ON FUNCTION pg_wal_replay_resume() TO :"control_user";
-- For the agents: pg_rewind, and comparing logs. Files of the data directory only, which REPLICATION lets it copy as a whole anyway.
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text),
    pg_read_binary_file(text, bigint, bigint, boolean) TO :"control_user";

-- For pgbaton doctor: whether nodes let each other in, and mistakes in configuration files.
GRANT SELECT ON pg_hba_file_rules, pg_file_settings TO :"control_user";
GRANT EXECUTE ON FUNCTION pg_hba_file_rules(), pg_show_all_file_settings() TO :"control_user";

\if :grants_parameters
    GRANT pg_checkpoint TO :"control_user";
    GRANT ALTER SYSTEM ON PARAMETER primary_conninfo, primary_slot_name, synchronous_standby_names,
        default_transaction_read_only, recovery_min_apply_delay TO :"control_user";
\else
    \warn 'PostgreSQL before 15 lets only superusers change these settings and run CHECKPOINT; for failover:'
    \warn '    ALTER ROLE' :"control_user" 'SUPERUSER;'
\endif

CREATE SCHEMA IF NOT EXISTS pgbaton AUTHORIZATION :"control_user";
ALTER SCHEMA pgbaton OWNER TO :"control_user";
COMMIT;
