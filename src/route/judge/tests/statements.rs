//! Statements that are more than a query: writes, blocks, settings, cursors, and several in one text.

use super::{all_are, because, verdict};
use crate::route::judge::Class;

#[test]
fn writes_and_what_only_a_primary_does() {
    all_are(
        Class::Write,
        &[
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t DEFAULT VALUES RETURNING *",
            "INSERT INTO t SELECT 1 ON CONFLICT DO NOTHING",
            "UPDATE t SET a = 1",
            "UPDATE t SET (a, b) = (SELECT 1, 2)",
            "DELETE FROM t WHERE a = 1",
            "DELETE FROM t WHERE CURRENT OF c",
            "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT 1",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            "SELECT * FROM (WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x) AS y",
            "SELECT * INTO n FROM t",
            "SELECT 1 INTO TEMP n",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t FOR NO KEY UPDATE",
            "SELECT * FROM t FOR SHARE OF t NOWAIT",
            "SELECT * FROM t FOR KEY SHARE SKIP LOCKED",
            "SELECT * FROM (SELECT * FROM t FOR UPDATE) AS x",
            "WITH x AS (SELECT * FROM t FOR SHARE) SELECT * FROM x",
            "SELECT (SELECT a FROM t FOR UPDATE)",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM t FOR UPDATE)",
            "(SELECT * FROM t FOR UPDATE) UNION ALL SELECT * FROM t",
            "SELECT 1; INSERT INTO t VALUES (1)",
            "CALL p()",
            "DO $$ BEGIN END $$",
            "LOCK TABLE t",
            "TRUNCATE t",
            "VACUUM",
            "ANALYZE t",
            "CLUSTER",
            "REINDEX TABLE t",
            "CHECKPOINT",
            "REFRESH MATERIALIZED VIEW m",
            "SET CONSTRAINTS ALL DEFERRED",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "GRANT SELECT ON t TO x",
            "REVOKE a FROM b",
            "COMMENT ON TABLE t IS 'x'",
            "CREATE TABLE n (a int)",
            "CREATE TEMP TABLE n (a int)",
            "CREATE TABLE n AS SELECT 1",
            "CREATE INDEX ON t (a)",
            "CREATE VIEW v AS SELECT 1",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1",
            "CREATE TYPE c AS ENUM ('a')",
            "CREATE ROLE r",
            "CREATE EXTENSION x",
            "CREATE DATABASE d",
            "ALTER TABLE t ADD COLUMN a int",
            "ALTER TABLE t RENAME TO n",
            "ALTER DATABASE d SET search_path = x",
            "DROP TABLE t",
            "DROP FUNCTION f(int)",
            "COPY t FROM STDIN",
            "COPY t TO '/tmp/x'",
            "COPY t TO PROGRAM 'cat'",
            "COPY (SELECT 1) TO '/tmp/x'",
            "COPY (INSERT INTO t VALUES (1) RETURNING *) TO STDOUT",
            "COPY (SELECT * FROM t FOR UPDATE) TO STDOUT",
            "EXPLAIN INSERT INTO t VALUES (1)",
            "EXPLAIN ANALYZE DELETE FROM t",
            "EXPLAIN (ANALYZE, BUFFERS) WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "EXPLAIN CREATE TABLE n AS SELECT 1",
            "EXPLAIN REFRESH MATERIALIZED VIEW m",
            "EXPLAIN DECLARE c CURSOR FOR SELECT 1",
            "EXPLAIN SELECT * FROM t FOR UPDATE",
            "DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE",
            "PREPARE TRANSACTION 'x'",
            "COMMIT PREPARED 'x'",
            "ROLLBACK PREPARED 'x'",
            "COMMIT AND CHAIN",
            "ROLLBACK AND CHAIN",
            "SET TRANSACTION SNAPSHOT '1'",
            "SET transaction_read_only = maybe",
            "SET transaction_isolation TO DEFAULT",
        ],
    );
    because(&[
        ("SELECT * FROM t FOR NO KEY UPDATE", Class::Write, "FOR NO KEY UPDATE"),
        ("WITH x AS (DELETE FROM t) SELECT 1", Class::Write, "WITH … DELETE"),
        ("SELECT 1 INTO n", Class::Write, "SELECT INTO"),
        ("SELECT log_it(1); DELETE FROM t", Class::Write, "DELETE"),
    ]);
}

#[test]
fn explain_and_copy_are_as_what_they_explain_or_copy() {
    all_are(
        Class::Read,
        &[
            "EXPLAIN SELECT * FROM t",
            "EXPLAIN ANALYZE SELECT * FROM t",
            "EXPLAIN (FORMAT json, ANALYZE off, COSTS false, SETTINGS) VALUES (1)",
            "EXPLAIN (ANALYZE, VERBOSE, BUFFERS, WAL, TIMING, SUMMARY, GENERIC_PLAN) TABLE t",
            "COPY t TO STDOUT",
            "COPY public.t (a, b) TO STDOUT (FORMAT binary)",
            "COPY (SELECT * FROM t) TO STDOUT WITH CSV HEADER",
            "COPY (VALUES (1)) TO STDOUT",
        ],
    );
    all_are(Class::Execute, &["EXPLAIN EXECUTE p", "EXPLAIN ANALYZE EXECUTE p(1, 'x')"]);
}

#[test]
fn settings_that_may_differ_between_nodes() {
    all_are(
        Class::Read,
        &[
            "SHOW server_version",
            "SHOW TIME ZONE",
            "SHOW timezone",
            "SHOW \"TimeZone\"",
            "SHOW DateStyle",
            "SHOW client_encoding",
            "SHOW standard_conforming_strings",
            "SELECT current_setting('server_version_num')",
            "SELECT pg_catalog.current_setting('TimeZone', true)",
        ],
    );
    all_are(
        Class::Differs,
        &[
            "SHOW ALL",
            "SHOW work_mem",
            "SHOW transaction_read_only",
            "SHOW TRANSACTION ISOLATION LEVEL",
            "SHOW SESSION AUTHORIZATION",
            "SHOW search_path",
            "SELECT current_setting('in_hot_standby')",
            "SELECT current_setting('work_mem', true)",
            "SELECT current_setting($1)",
            "SELECT current_setting('time' || 'zone')",
            "SELECT current_setting(lower('TimeZone'))",
            "SELECT current_setting('timezone'), current_setting('work_mem')",
        ],
    );
    because(&[("SHOW work_mem", Class::Differs, "the setting work_mem may differ between nodes")]);
    for (text, depends) in [
        ("SELECT current_setting('TimeZone')", true),
        ("SELECT (SELECT current_setting('TimeZone', true))", true),
        ("PREPARE p AS SELECT current_setting('TimeZone')", true),
        ("DECLARE c CURSOR FOR SELECT current_setting('TimeZone')", true),
        ("SELECT 1; SELECT current_setting('TimeZone')", true),
        ("SET transaction_read_only = 'on'", true),
        ("SELECT lower('TimeZone')", false),
        ("SET TRANSACTION READ ONLY", false),
    ] {
        assert_eq!(verdict(text).depends_on_constants, depends, "{text}");
    }
}

#[test]
fn blocks_and_what_is_said_of_them() {
    all_are(
        Class::BeginReadOnly,
        &[
            "BEGIN READ ONLY",
            "START TRANSACTION READ ONLY",
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "BEGIN READ ONLY DEFERRABLE",
            "BEGIN READ WRITE, READ ONLY",
            "BEGIN READ ONLY; SELECT * FROM t; COMMIT",
            "BEGIN READ ONLY; SELECT * FROM t",
            "BEGIN READ ONLY; SELECT nextval('s'); ROLLBACK",
            "BEGIN READ ONLY; SAVEPOINT a; SELECT log_it(1); ROLLBACK TO a; RELEASE a; COMMIT",
            "BEGIN READ ONLY; SET LOCAL work_mem = '1MB'; SELECT 1; COMMIT",
            "BEGIN READ ONLY; DECLARE c CURSOR FOR SELECT 1; FETCH 1 FROM c; MOVE c; CLOSE c; COMMIT",
            "BEGIN READ ONLY; DECLARE c CURSOR FOR SELECT log_it(1)",
            "BEGIN READ ONLY; COMMIT; SELECT 1",
            "BEGIN READ ONLY; COMMIT; BEGIN READ ONLY; SELECT 1; COMMIT",
            "SELECT 1; BEGIN READ ONLY; COMMIT",
            "BEGIN; SET TRANSACTION READ ONLY",
            "BEGIN; SET TRANSACTION READ ONLY; SELECT log_it(1); COMMIT",
            "BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION READ ONLY; SELECT 1",
            "BEGIN; SET transaction_read_only = on; SELECT 1",
            "BEGIN READ ONLY; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1; COMMIT",
        ],
    );
    all_are(
        Class::Begin,
        &[
            "BEGIN",
            "BEGIN WORK",
            "START TRANSACTION",
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "BEGIN DEFERRABLE",
        ],
    );
    all_are(
        Class::BeginReadWrite,
        &[
            "BEGIN READ WRITE",
            "BEGIN READ ONLY, READ WRITE",
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
        ],
    );
    all_are(
        Class::SetReadOnly,
        &[
            "SET TRANSACTION READ ONLY",
            "SET LOCAL TRANSACTION READ ONLY",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "SET LOCAL transaction_read_only = on",
            "SET transaction_read_only TO 'true'",
            "SET TRANSACTION_READ_ONLY = 1",
            "SET TRANSACTION READ ONLY; SELECT 1",
        ],
    );
    all_are(
        Class::SetLocal,
        &[
            "SET LOCAL work_mem = '1MB'",
            "SET LOCAL search_path TO audit, public",
            "SET LOCAL ROLE r",
            "SET LOCAL TIME ZONE 'UTC'",
            "SET LOCAL transaction_timeout = 0",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET TRANSACTION NOT DEFERRABLE",
            "SET transaction_isolation = 'read committed'",
            "SET LOCAL work_mem = '1MB'; SELECT 1",
        ],
    );
    all_are(
        Class::Differs,
        &[
            "SET TRANSACTION READ WRITE",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
            "SET LOCAL transaction_read_only = off",
            "SET transaction_isolation = 'Serializable'",
            "BEGIN READ ONLY; SET TRANSACTION READ WRITE; SELECT 1",
            "BEGIN READ ONLY; SELECT pg_is_in_recovery(); COMMIT",
            "BEGIN READ ONLY; SELECT * FROM cache",
            // After SET LOCAL the path may be any, so audit's operator counts.
            "BEGIN READ ONLY; SET LOCAL search_path = audit; SELECT 1 + 1",
            "BEGIN READ ONLY; SELECT set_config('search_path', 'audit', true); SELECT 1 + 1",
        ],
    );
    all_are(
        Class::Transaction,
        &[
            "COMMIT",
            "END",
            "ROLLBACK",
            "ABORT",
            "COMMIT AND NO CHAIN",
            "SAVEPOINT a",
            "RELEASE a",
            "ROLLBACK TO SAVEPOINT a",
            "SAVEPOINT a; RELEASE a",
            "SELECT 1; COMMIT",
        ],
    );
}

#[test]
fn texts_of_several_statements_that_depend_on_each_other() {
    all_are(
        Class::Write,
        &[
            "BEGIN; SELECT 1; COMMIT",
            "BEGIN; INSERT INTO t VALUES (1); COMMIT",
            "BEGIN READ ONLY; COMMIT; INSERT INTO t VALUES (1)",
            "BEGIN READ ONLY; INSERT INTO t VALUES (1)",
            "BEGIN READ ONLY; COMMIT; SELECT log_it(1)",
            "BEGIN READ ONLY; ROLLBACK; BEGIN; SELECT 1",
            "BEGIN READ ONLY; BEGIN READ WRITE; SELECT log_it(1)",
            "BEGIN READ ONLY; COMMIT AND CHAIN; SELECT 1",
            "BEGIN READ ONLY; EXECUTE p",
            "BEGIN READ ONLY; SET work_mem = '1MB'",
            "BEGIN READ WRITE; SELECT 1",
            "BEGIN; SELECT 1; SET TRANSACTION READ ONLY",
            "BEGIN; BEGIN",
            "SELECT log_it(1); BEGIN READ ONLY",
            "SELECT log_it(1); COMMIT",
            "SET TRANSACTION READ ONLY; SELECT log_it(1)",
            "SET a.b = 'c'; SELECT log_it(1)",
            "EXECUTE p; SELECT 1",
        ],
    );
    all_are(Class::Volatile, &["SELECT 1; SELECT log_it(1); SELECT 2", "FETCH c; SELECT log_it(1)"]);
    all_are(Class::Cursor, &["FETCH c; SELECT 1; CLOSE c"]);
    all_are(
        Class::Session,
        &["SET a.b = 'c'; SELECT 1", "SET a.b = 1; SET a.c = 2", "PREPARE p AS SELECT 1; SHOW timezone"],
    );
    let several = verdict("SELECT log_it(1); SELECT * FROM cache; SELECT nothing()");
    let expected = [
        "reads public.cache: unlogged table",
        "function nothing(0 arguments) is not known",
        "calls public.log_it(1 argument): VOLATILE",
    ];
    assert_eq!(several.reasons, expected);
}

#[test]
fn what_changes_the_session_and_what_hangs_on_it() {
    all_are(
        Class::Session,
        &[
            "SET work_mem = '1MB'",
            "SET search_path TO DEFAULT",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET SESSION AUTHORIZATION x",
            "SET ROLE r",
            "SET NAMES 'utf8'",
            "SET TIME ZONE 'UTC'",
            "SET default_transaction_read_only = on",
            "SET transaction_timeout = 0",
            "RESET ALL",
            "RESET work_mem",
            "RESET transaction_isolation",
            "DISCARD ALL",
            "DEALLOCATE p",
            "DEALLOCATE ALL",
            "LISTEN c",
            "UNLISTEN *",
            "NOTIFY c, 'x'",
            "LOAD 'x'",
            "PREPARE p AS SELECT 1",
            "PREPARE p AS INSERT INTO t VALUES ($1)",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        ],
    );
    all_are(
        Class::Cursor,
        &[
            "DECLARE c CURSOR FOR SELECT * FROM t",
            "DECLARE c BINARY SCROLL CURSOR WITHOUT HOLD FOR SELECT * FROM t",
            "FETCH 10 FROM c",
            "MOVE FORWARD ALL IN c",
            "CLOSE c",
            "CLOSE ALL",
        ],
    );
    let inner = |text: &str| verdict(text).inner;
    assert_eq!(inner("PREPARE p AS SELECT 1"), Some(Class::Read));
    assert_eq!(inner("PREPARE p (int) AS SELECT log_it($1)"), Some(Class::Volatile));
    assert_eq!(inner("PREPARE p (unheard_of) AS SELECT $1"), Some(Class::Differs));
    assert_eq!(inner("PREPARE p AS DELETE FROM t"), Some(Class::Write));
    assert_eq!(inner("DECLARE c CURSOR FOR SELECT 1"), Some(Class::Read));
    assert_eq!(inner("DECLARE c CURSOR FOR SELECT * FROM cache"), Some(Class::Differs));
    assert_eq!(inner("SELECT 1"), None);
    assert_eq!(inner("PREPARE p AS SELECT 1; SELECT 1"), None);

    let executes = |text: &str| verdict(text).executes.as_deref().map(str::to_string);
    assert_eq!(executes("EXECUTE p"), Some("p".into()));
    assert_eq!(executes("EXECUTE \"P q\" (1, lower('x'))"), Some("P q".into()));
    assert_eq!(executes("EXECUTE p(nothing())"), Some("p".into()));
    assert_eq!(executes("EXECUTE p; EXECUTE q"), None);
    assert_eq!(executes("SELECT 1"), None);
}
