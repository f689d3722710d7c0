# What says something else on a standby. Nobody who speaks to pgbaton speaks to a standby.
CREATE TABLE s_data (id int);
INSERT INTO s_data SELECT generate_series(1, 5);
CREATE FUNCTION s_recovery() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT pg_is_in_recovery()';
CREATE FUNCTION s_pid() RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN RETURN pg_backend_pid(); END$$;
CREATE VIEW s_recovery_view AS SELECT pg_is_in_recovery() AS standby;
CREATE VIEW s_activity AS SELECT count(*) AS n FROM pg_stat_activity;

--- which server is this | each | both
SELECT pg_is_in_recovery() --> primary
SELECT s_recovery() --> primary
SELECT standby FROM s_recovery_view --> primary
SELECT NOT pg_catalog.pg_is_in_recovery() AS "primary" --> primary
SELECT inet_server_port() > 0, inet_server_addr() IS NOT NULL --> primary unlike
SELECT inet_client_addr(), inet_client_port() > 0 --> any unlike
SELECT pg_backend_pid() > 0 --> primary
SELECT s_pid() > 0 --> primary
SELECT pg_postmaster_start_time() < now() --> primary
SELECT pg_conf_load_time() < now() --> primary
SHOW transaction_read_only --> primary
SHOW in_hot_standby --> primary
SHOW default_transaction_read_only --> any
SHOW data_directory --> primary
SHOW port --> primary
SHOW primary_conninfo --> primary
SHOW ALL --> primary unlike
SELECT current_setting('transaction_read_only') --> primary
SELECT current_setting('in_hot_standby') --> primary
SELECT current_setting('In_Hot_Standby', true) --> primary
SELECT current_setting('transaction_' || 'read_only') --> primary
SELECT current_setting('port')::int > 0 --> primary
SELECT current_setting(name) IS NOT NULL FROM pg_settings WHERE name = 'port' --> primary
SELECT setting FROM pg_settings WHERE name = 'transaction_read_only' --> primary
SELECT setting FROM pg_settings WHERE name = 'in_hot_standby' --> primary
SELECT pg_current_logfile() IS NULL --> any
SELECT pg_read_file('PG_VERSION') --> primary
SELECT pg_stat_file('PG_VERSION') IS NOT NULL --> primary
SELECT count(*) > 0 FROM pg_ls_dir('.') --> primary
SELECT count(*) > 0 FROM pg_ls_waldir() --> primary
SELECT system_identifier > 0 FROM pg_control_system() --> any
SELECT timeline_id FROM pg_control_checkpoint() --> primary
SELECT count(*) > 0 FROM pg_hba_file_rules --> primary
SELECT count(*) > 0 FROM pg_file_settings --> primary

--- write-ahead log | each | both
SELECT pg_current_wal_lsn() > '0/0' --> primary
SELECT pg_current_wal_insert_lsn() > '0/0' --> primary
SELECT pg_current_wal_flush_lsn() > '0/0' --> primary
SELECT pg_last_wal_replay_lsn() --> primary
SELECT pg_last_wal_receive_lsn() --> primary
SELECT pg_last_xact_replay_timestamp() --> primary
SELECT pg_is_wal_replay_paused() --> primary error 55000
SELECT pg_wal_replay_pause() --> primary error 55000
SELECT pg_wal_lsn_diff('0/10', '0/0') --> replica
SELECT pg_walfile_name(pg_current_wal_lsn()) IS NOT NULL --> primary
SELECT pg_walfile_name('0/1000000') --> primary
SELECT pg_switch_wal() IS NOT NULL --> primary
SELECT pg_create_restore_point('here') > '0/0' --> primary
SELECT pg_logical_emit_message(false, 'x', 'y') > '0/0' --> primary
SELECT pg_promote(false) --> primary error 55000
SELECT count(*) > 0 FROM pg_stat_replication --> primary
SELECT count(*) FROM pg_stat_wal_receiver --> primary
SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' --> primary
SELECT count(*) FROM pg_publication --> replica
SELECT count(*) FROM pg_subscription --> replica

--- transaction ids and snapshots | each | both
SELECT txid_current() > 0 --> primary
SELECT pg_current_xact_id() IS NOT NULL --> primary
SELECT txid_current_if_assigned() --> primary
SELECT pg_current_xact_id_if_assigned() --> primary
SELECT txid_current_snapshot() IS NOT NULL --> primary
SELECT pg_current_snapshot() IS NOT NULL --> primary
SELECT pg_snapshot_xmax(pg_current_snapshot()) IS NOT NULL --> primary
SELECT txid_visible_in_snapshot(3, txid_current_snapshot()) --> primary
SELECT txid_status(3) IS NULL --> any
SELECT pg_xact_status('3') IS NULL --> any
SELECT pg_export_snapshot() IS NOT NULL --> primary

--- the server's statistics and locks | each | both
SELECT count(*) > 0 FROM pg_stat_activity --> primary
SELECT n > 0 FROM s_activity --> primary
SELECT pid > 0 FROM pg_stat_activity WHERE pid = pg_backend_pid() --> primary
SELECT count(*) > 0 FROM pg_locks --> primary
SELECT count(*) > 0 FROM pg_stat_database --> primary
SELECT count(*) >= 0 FROM pg_stat_user_tables --> primary
SELECT count(*) >= 0 FROM pg_stat_all_indexes --> primary
SELECT count(*) >= 0 FROM pg_statio_user_tables --> primary
SELECT count(*) >= 0 FROM pg_stat_user_functions --> primary
SELECT count(*) > 0 FROM pg_stat_bgwriter --> primary
SELECT count(*) >= 0 FROM pg_stat_wal --> primary
SELECT count(*) >= 0 FROM pg_stat_archiver --> primary
SELECT count(*) >= 0 FROM pg_stat_progress_vacuum --> primary
SELECT count(*) >= 0 FROM pg_stat_ssl --> primary
SELECT pg_stat_get_numscans('s_data'::regclass) >= 0 --> primary
SELECT pg_stat_reset() --> primary
SELECT pg_stat_get_live_tuples('s_data'::regclass) >= 0 --> primary
SELECT count(*) FROM pg_prepared_xacts WHERE false --> any
SELECT count(*) FROM pg_cursors --> any
SELECT count(*) FROM pg_prepared_statements WHERE name = 'nobody' --> any
SELECT count(*) FROM pg_listening_channels() --> primary
SELECT pg_notification_queue_usage() --> primary
SELECT pg_blocking_pids(pg_backend_pid()) --> primary
SELECT pg_cancel_backend(0) --> primary
SELECT pg_terminate_backend(0) --> primary
SELECT pg_reload_conf() --> primary
SELECT pg_rotate_logfile() --> primary
SELECT pg_log_backend_memory_contexts(0) --> primary
SELECT count(*) > 0 FROM pg_backend_memory_contexts --> any
SELECT count(*) > 0 FROM pg_shmem_allocations --> any
SELECT count(*) > 0 FROM pg_stats WHERE tablename = 's_data' --> replica
SELECT reltuples >= 0 FROM pg_class WHERE relname = 's_data' --> replica
SELECT count(*) > 0 FROM pg_settings WHERE name = 'work_mem' --> any
# A pooled connection may have had temporary tables before.
SELECT pg_my_temp_schema() --> primary unlike
SELECT pg_is_other_temp_schema(0) --> any
SELECT pg_sleep(0) --> any
SELECT pg_database_size(current_database()) > 0 --> any
SELECT pg_tablespace_location(1663) --> any
SELECT pg_safe_snapshot_blocking_pids(0) --> primary
SELECT pg_trigger_depth() --> any
SELECT setseed(0.5) --> primary

--- a seed belongs to its session | both
SELECT setseed(0.25) --> primary
SELECT random() --> primary
SELECT random() --> primary

--- one notification and who hears it | both
LISTEN s_channel_{#} --> primary
NOTIFY s_channel_{#}, 'one' --> primary
SELECT pg_notify('s_channel_{#}', 'two') --> primary
UNLISTEN * --> primary
