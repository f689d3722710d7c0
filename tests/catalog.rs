//! A real PostgreSQL, definitions that hide session state in every place they can hide, and the names that must be
//! found because of them — and no others.

use pgbaton::catalog::{Facts, Overrides, Reader, read_suspects};
use pgbaton::sql::analysis::analyze;
use pgbaton::sql::{Dialect, Pin, Suspects};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

#[path = "support/server.rs"]
mod server;

use server::{Server, connect};

/// One line for each name, sorted.
fn lines(suspects: &Suspects) -> Vec<String> {
    let mut lines: Vec<_> = suspects
        .names
        .iter()
        .map(|(name, pins)| format!("{name} {pins:?}"))
        .chain(suspects.operators.iter().map(|(symbol, pins)| format!("operator {symbol} {pins:?}")))
        .collect();
    lines.sort();
    if !suspects.any_ddl.is_empty() {
        lines.push(format!("any ddl {:?}", suspects.any_ddl));
    }
    lines
}

/// What these definitions, made in an empty database, add.
async fn suspects_after(client: &Client, definitions: &str) -> Vec<String> {
    client.batch_execute(definitions).await.unwrap_or_else(|error| panic!("{error:?}\n{definitions}"));
    let lines = lines(&read_suspects(client).await.unwrap());
    client
        .batch_execute(
            "RESET ALL; DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS other CASCADE;
             DROP EVENT TRIGGER IF EXISTS watch; DROP CAST IF EXISTS (int4 AS date)",
        )
        .await
        .unwrap();
    lines
}

#[tokio::test]
async fn definitions_that_keep_nothing_make_no_suspects() {
    let server = Server::start();
    let client = server.client().await;
    let found = suspects_after(
        &client,
        r#"
        CREATE EXTENSION pg_trgm SCHEMA pg_catalog VERSION '1.6';
        DROP EXTENSION pg_trgm;
        CREATE TABLE parent (id serial PRIMARY KEY, at timestamptz DEFAULT now());
        CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE, note text CHECK (length(note) < 10));
        CREATE FUNCTION add(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a + b';
        CREATE FUNCTION add_standard(a int, b int) RETURNS int RETURN add(a, b);
        CREATE FUNCTION safe_path() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT 1';
        CREATE FUNCTION locks() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(1)';
        CREATE FUNCTION sets() RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            reset boolean; load int := 1;
        BEGIN
            SET LOCAL work_mem = '1MB';
            PERFORM set_config('my.x', 'y', true);
            reset := true;
            load = 2;
            UPDATE child SET note = CASE WHEN note IS NULL THEN 'a' ELSE 'b' END;
            CREATE TEMP TABLE scratch (a int) ON COMMIT DROP;
            INSERT INTO parent DEFAULT VALUES RETURNING id INTO load;
            IF load > 1 THEN
                GRANT EXECUTE ON FUNCTION add TO PUBLIC;
            END IF;
        EXCEPTION WHEN others THEN
            RAISE NOTICE 'set x = 1; %', load;
        END $$;
        CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := upper(NEW.note); RETURN NEW; END';
        CREATE TRIGGER t BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION trg();
        CREATE VIEW v AS SELECT add(id, 1) FROM parent;
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE AGGREGATE total(int) (sfunc = add, stype = int, initcond = '0');
        CREATE OPERATOR @+ (function = add, leftarg = int, rightarg = int);
        CREATE FUNCTION same_as_abs(int) RETURNS int LANGUAGE internal IMMUTABLE AS 'int4abs';
        "#,
    )
    .await;
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test]
async fn functions_are_judged_by_their_bodies() {
    let server = Server::start();
    let client = server.client().await;
    let found = suspects_after(
        &client,
        r#"
        CREATE FUNCTION f_set() RETURNS void LANGUAGE plpgsql AS 'BEGIN IF true THEN SET work_mem = ''1MB''; END IF; END';
        CREATE FUNCTION f_reset() RETURNS void LANGUAGE sql AS 'RESET work_mem';
        CREATE FUNCTION f_set_config() RETURNS text LANGUAGE sql AS $$SELECT set_config('a.b', 'c', false)$$;
        CREATE FUNCTION f_temp() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE IF NOT EXISTS x (a int); END';
        CREATE FUNCTION f_listen() RETURNS void LANGUAGE sql AS 'LISTEN x';
        CREATE FUNCTION f_lock() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(1)';
        CREATE FUNCTION f_standard() RETURNS bool RETURN pg_try_advisory_lock(1);
        CREATE FUNCTION f_atomic() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT set_config('a.b', 'c', false); END;
        CREATE FUNCTION f_hold() RETURNS void LANGUAGE sql AS 'DECLARE c CURSOR WITH HOLD FOR SELECT 1';
        CREATE FUNCTION f_dynamic() RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'SELECT 1'; END$$;
        CREATE FUNCTION f_dynamic_query() RETURNS SETOF int LANGUAGE plpgsql AS $$BEGIN RETURN QUERY EXECUTE 'SELECT 1'; END$$;
        CREATE FUNCTION f_load() RETURNS void LANGUAGE sql AS $$LOAD 'plpgsql'$$;
        CREATE FUNCTION f_default(p int DEFAULT pg_backend_pid()) RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION f_alias(float8) RETURNS void LANGUAGE internal AS 'setseed';
        CREATE FUNCTION f_named(bigint) RETURNS void LANGUAGE internal AS 'pg_advisory_lock_int8';
        CREATE FUNCTION "Caller"() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM "public".F_LOCK(); END$$;
        CREATE FUNCTION calls_caller() RETURNS void LANGUAGE sql AS 'SELECT "Caller"()';
        CREATE PROCEDURE p() LANGUAGE plpgsql AS $$BEGIN CALL q(); END$$;
        CREATE PROCEDURE q() LANGUAGE plpgsql AS $$BEGIN PERFORM f_load(); END$$;
        CREATE PROCEDURE harmless() LANGUAGE plpgsql AS $$BEGIN COMMIT; CALL harmless(); END$$;
        CREATE FUNCTION größe() RETURNS void LANGUAGE sql AS 'LISTEN x';
        CREATE FUNCTION innocent() RETURNS int LANGUAGE sql AS 'SELECT 1';
        "#,
    )
    .await;
    assert_eq!(
        found,
        [
            "\u{1} {Listen}",
            "Caller {AdvisoryLock}",
            "calls_caller {AdvisoryLock}",
            "f_alias {Process}",
            "f_atomic {Opaque}",
            "f_default {Introspection}",
            "f_dynamic {Opaque}",
            "f_dynamic_query {Opaque}",
            "f_hold {HoldCursor}",
            "f_listen {Listen}",
            "f_load {Process}",
            "f_lock {AdvisoryLock}",
            "f_named {AdvisoryLock}",
            "f_reset {Opaque}",
            "f_set {Opaque}",
            "f_set_config {Opaque}",
            "f_standard {AdvisoryLock}",
            "f_temp {Temporary}",
            "p {Process}",
            "q {Process}",
        ]
    );
}

/// The judgement of a message must have one entry for each CommandComplete the server sends.
#[tokio::test]
async fn statements_are_split_as_the_server_splits_them() {
    let server = Server::start();
    let client = server.client().await;
    for text in [
        "",
        ";; /* a;b /* c; */ d; */ -- e;\n;",
        "SELECT 1; SELECT ';'\n';', 1",
        "SELECT 'a;' -- x;\n '\n;b'; SELECT 1",
        "SELECT $$;$$, $a$;$$;$a$, $a_1$;$a$;$a_1$; SELECT 1",
        r"SELECT E'\';', 'a\'; SELECT 1",
        r"SET standard_conforming_strings = on; SELECT '\'; RESET ALL",
        r#"SELECT U&'\003b;', U&"\003b;" FROM (SELECT 1 AS ";;") x; SELECT 1"#,
        "SELECT B'01', X'1f', N'a;'; SELECT 1",
        "SELECT 1 AS \"a;\"\";\"; SELECT 2",
        "SELECT 1 AS a$b$; SELECT 2 AS b$b$",
        "SELECT 1+--;\n2; SELECT 2*/*;*/3; SELECT 1",
        "SELECT 3--1;\n; SELECT @/*;*/-1",
        "SELECT (ARRAY[1,2,3])[1:2]; SELECT 1",
        "CREATE TABLE split (a int); CREATE RULE r AS ON DELETE TO split DO ALSO (SELECT 1; SELECT 2); SELECT 1",
        "CREATE FUNCTION split_f(a int) RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE a WHEN 1 THEN 2 ELSE (CASE WHEN true THEN 3 END) END; END; SELECT 1",
        "CREATE PROCEDURE split_p() BEGIN ATOMIC END; SELECT 1",
        "CREATE OR REPLACE PROCEDURE split_p() LANGUAGE sql BEGIN ATOMIC; INSERT INTO split VALUES (1); SELECT 1 AS end, 2 AS \"case\"; END; BEGIN; SELECT 1; END",
        "CREATE FUNCTION split_g() RETURNS int RETURN CASE WHEN true THEN 1 END; SELECT 2",
        "BEGIN; SELECT 1; COMMIT; SELECT 2",
        "EXPLAIN SELECT 1; VALUES (1), (2); TABLE pg_class",
        "SELECT 1e5, 1.5, .5, 1., 1.e2; SELECT 1::int, 2",
        "SELECT 'ü;', \"ü\" FROM (SELECT 1 AS ü) x; SELECT 1",
    ] {
        let answer = client.simple_query(text).await.unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        let completed = answer
            .iter()
            .filter(|message| matches!(message, tokio_postgres::SimpleQueryMessage::CommandComplete(_)))
            .count();
        let analysis = analyze(text.as_bytes(), Dialect::default(), &Suspects::default());
        // The client shows EmptyQueryResponse as one completion too.
        assert_eq!(analysis.statements.len().max(1), completed, "{text}");
    }
}

/// Every way to call a function without naming it.
#[tokio::test]
async fn suspects_are_followed_through_what_uses_them() {
    let server = Server::start();
    let client = server.client().await;
    const LOCK: &str = "CREATE FUNCTION lock(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_advisory_lock($1); RETURN $1; END';";
    for (story, definitions, expected) in [
        ("a view on a view", "CREATE VIEW v AS SELECT lock(1) AS a; CREATE VIEW w AS SELECT a FROM v;", "lock v w"),
        (
            "a builtin in a view",
            "CREATE VIEW v AS SELECT pg_backend_pid(); CREATE MATERIALIZED VIEW m AS SELECT name FROM pg_cursors WITH NO DATA;",
            "lock m v",
        ),
        ("a view in another schema", "CREATE SCHEMA other; CREATE VIEW other.v AS SELECT lock(1);", "lock v"),
        (
            "a function that reads a view",
            "CREATE VIEW v AS SELECT lock(1) AS a; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT a FROM v';",
            "f lock v",
        ),
        ("a rule", "CREATE TABLE t (a int); CREATE RULE r AS ON DELETE TO t DO ALSO SELECT lock(1);", "lock t"),
        (
            "a trigger",
            "CREATE TABLE t (a int); CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN LISTEN x; RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION trg();",
            "lock t trg",
        ),
        (
            "a trigger that is off",
            "CREATE TABLE t (a int); CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN LISTEN x; RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION trg(); ALTER TABLE t DISABLE TRIGGER t;",
            "lock trg",
        ),
        (
            "a trigger's condition",
            "CREATE TABLE t (a int); CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW WHEN (lock(NEW.a) > 0) EXECUTE FUNCTION trg();",
            "lock t",
        ),
        ("a default", "CREATE TABLE t (a int DEFAULT lock(1)); CREATE TABLE u (a int);", "lock t"),
        ("a default by a builtin", "CREATE SEQUENCE s; CREATE TABLE t (a int DEFAULT currval('s'));", "lock t"),
        ("a generated column", "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (lock(a)) STORED);", "lock t"),
        ("a check constraint", "CREATE TABLE t (a int CHECK (lock(a) > 0));", "lock t"),
        ("an index", "CREATE TABLE t (a int); CREATE INDEX ON t (lock(a));", "lock t"),
        ("a policy", "CREATE TABLE t (a int); CREATE POLICY p ON t USING (lock(a) > 0);", "lock t"),
        (
            "a policy that reads a view",
            "CREATE VIEW v AS SELECT lock(1) AS a; CREATE TABLE t (a int); CREATE POLICY p ON t USING (a IN (SELECT v.a FROM v));",
            "lock t v",
        ),
        (
            "a domain",
            "CREATE DOMAIN d AS int CHECK (lock(VALUE) > 0); CREATE TABLE t (a d); CREATE TABLE u (a d[]); CREATE DOMAIN e AS d; CREATE FUNCTION f(a e) RETURNS int LANGUAGE sql AS 'SELECT 1';",
            "d e f lock t u",
        ),
        (
            "a domain in a composite type",
            "CREATE DOMAIN d AS int CHECK (lock(VALUE) > 0); CREATE TYPE c AS (x d); CREATE TABLE t (a c);",
            "c d lock t",
        ),
        (
            "an operator",
            "CREATE OPERATOR @+ (function = lock, rightarg = int); CREATE VIEW v AS SELECT @+ 1 AS a;",
            "lock operator @+ v",
        ),
        (
            "an operator used in a body",
            "CREATE OPERATOR @+ (function = lock, rightarg = int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT @+ 1';",
            "f lock operator @+",
        ),
        (
            "an operator for a builtin",
            "CREATE OPERATOR @! (function = pg_advisory_lock, rightarg = bigint);",
            "lock operator @!",
        ),
        (
            "an aggregate",
            "CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql AS 'SELECT lock($2)'; CREATE AGGREGATE total(int) (sfunc = step, stype = int);",
            "lock step total",
        ),
        (
            "a cast from a type of one's own",
            "CREATE TYPE c AS (x int); CREATE FUNCTION conv(c) RETURNS int LANGUAGE sql AS 'SELECT lock(1)'; CREATE CAST (c AS int) WITH FUNCTION conv(c); CREATE TABLE t (a c);",
            "c conv lock t",
        ),
        (
            "a foreign key that cascades",
            "CREATE TABLE p (a int PRIMARY KEY); CREATE TABLE c (a int REFERENCES p ON DELETE CASCADE CHECK (lock(a) > 0)); CREATE TABLE c2 (a int REFERENCES p);",
            "c lock p",
        ),
        (
            "a foreign key that does not",
            "CREATE TABLE p (a int PRIMARY KEY); CREATE TABLE c (a int REFERENCES p CHECK (lock(a) > 0));",
            "c lock",
        ),
        (
            "a partition",
            "CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); ALTER TABLE p1 ADD CHECK (lock(a) > 0);",
            "lock p p1",
        ),
        ("a partition key", "CREATE TABLE p (a int) PARTITION BY LIST (lock(a));", "lock p"),
        (
            "an operator class",
            "CREATE FUNCTION cmp(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT lock($1)'; CREATE OPERATOR CLASS oc FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 cmp(int, int); CREATE TABLE t (a int); CREATE INDEX ON t (a oc); CREATE TABLE u (a int);",
            "cmp lock t",
        ),
        (
            "an event trigger",
            "CREATE FUNCTION w() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN SET my.x = 1; END'; CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION w();",
            "lock w any ddl",
        ),
    ] {
        let found = suspects_after(&client, &format!("{LOCK}{definitions}")).await;
        let names: Vec<_> = found.iter().map(|line| line.split(" {").next().unwrap()).collect();
        assert_eq!(names.join(" "), expected, "{story}");
    }
}

#[tokio::test]
async fn a_cast_between_types_of_postgresql_makes_every_statement_suspect() {
    let server = Server::start();
    let client = server.client().await;
    let found = suspects_after(
        &client,
        "CREATE FUNCTION conv(int) RETURNS date LANGUAGE plpgsql AS 'BEGIN LISTEN x; RETURN now(); END';
         CREATE CAST (int AS date) WITH FUNCTION conv(int) AS IMPLICIT",
    )
    .await;
    assert!(found.contains(&"select {Listen}".into()) && found.contains(&"insert {Listen}".into()), "{found:?}");
}

/// Connects, counting how often.
fn counting(server: &Server, count: &Arc<AtomicUsize>) -> impl Fn() -> ConnectFuture + use<> {
    let (dir, count) = (server.dir().to_path_buf(), count.clone());
    move || {
        count.fetch_add(1, Ordering::SeqCst);
        let dir = dir.clone();
        Box::pin(async move { connect(&dir).await })
    }
}

type ConnectFuture = std::pin::Pin<Box<dyn Future<Output = Result<Client, tokio_postgres::Error>> + Send>>;

#[tokio::test]
async fn facts_follow_ddl_as_soon_as_they_are_marked() {
    let server = Server::start();
    let client = server.client().await;
    let facts = Arc::new(Facts::default());
    assert!(facts.is_dirty(), "nothing has been read yet");
    let count = Arc::new(AtomicUsize::new(0));
    let keeper = tokio::spawn(facts.clone().keep_fresh(counting(&server, &count), Duration::from_secs(3600)));
    assert!(facts.refreshed().await);
    assert!(!facts.is_dirty() && facts.suspects().is_empty());

    client.batch_execute("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'LISTEN x'").await.unwrap();
    facts.mark_dirty();
    assert!(facts.is_dirty());
    assert!(facts.refreshed().await);
    assert!(facts.suspects().names["f"].contains(Pin::Listen));

    let before = Arc::as_ptr(&facts.suspects());
    client.batch_execute("CREATE TABLE t (a int)").await.unwrap();
    facts.mark_dirty();
    assert!(facts.refreshed().await);
    assert_eq!(Arc::as_ptr(&facts.suspects()), before, "the same facts need no new judgement");

    let generation = facts.ddl_generation();
    facts.bump_ddl();
    assert_eq!(facts.ddl_generation(), generation + 1);
    assert_eq!(count.load(Ordering::SeqCst), 1, "marks that follow each other closely share a connection");
    keeper.abort();
}

#[tokio::test]
async fn nothing_is_read_twice_that_has_not_changed() {
    let server = Server::start();
    let client = server.client().await;
    let none = Overrides::default();
    let mut reader = Reader::default();
    assert!(reader.read(&client, &none).await.unwrap().is_some());
    assert!(reader.read(&client, &none).await.unwrap().is_none());
    client.batch_execute("CREATE TABLE filled AS SELECT 1 AS a FROM generate_series(1, 10000)").await.unwrap();
    assert!(reader.read(&client, &none).await.unwrap().is_some());
    client.batch_execute("VACUUM ANALYZE").await.unwrap();
    client.batch_execute("INSERT INTO filled VALUES (1)").await.unwrap();
    assert!(reader.read(&client, &none).await.unwrap().is_none(), "statistics are no definitions");
    for change in [
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION f VOLATILE",
        "CREATE OR REPLACE FUNCTION f(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 2'",
        "ALTER TABLE filled SET UNLOGGED",
        "CREATE VIEW v AS SELECT 1 AS a",
        "CREATE OR REPLACE VIEW v AS SELECT f(1) AS a",
        "CREATE POLICY p ON filled USING (a > 0)",
        "ALTER POLICY p ON filled USING (f(a) > 0)",
        "CREATE DOMAIN d AS int",
        "ALTER DOMAIN d ADD CHECK (f(VALUE) > 0)",
        "ALTER TABLE filled ADD COLUMN b d",
        "CREATE OPERATOR @+ (function = f, rightarg = int)",
        "DROP OPERATOR @+ (NONE, int)",
        "CREATE TABLE child (c int) INHERITS (filled)",
        "ALTER TABLE child NO INHERIT filled",
        "CREATE SCHEMA other; ALTER FUNCTION f SET SCHEMA other",
        "ALTER SCHEMA other RENAME TO others",
        "ALTER ROLE ALL SET search_path = everybody",
        "ALTER ROLE ALL RESET search_path",
        "CREATE FUNCTION conv(int) RETURNS date IMMUTABLE LANGUAGE sql AS 'SELECT now()::date'",
        "CREATE CAST (int AS date) WITH FUNCTION conv(int)",
        "DROP CAST (int AS date)",
    ] {
        client.batch_execute(change).await.unwrap();
        assert!(reader.read(&client, &none).await.unwrap().is_some(), "{change}");
        assert!(reader.read(&client, &none).await.unwrap().is_none(), "{change}");
    }
    let overrides = Overrides { safe: vec!["f".into()], ..none.clone() };
    assert!(reader.read(&client, &overrides).await.unwrap().is_some());
    assert!(reader.read(&client, &none).await.unwrap().is_some());
}

/// Waits until the query answers true.
async fn until(client: &Client, query: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !client.query_one(query, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "never true: {query}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_mark_that_comes_during_a_refresh_is_not_lost() {
    let server = Server::start();
    let (client, blocker) = (server.client().await, server.client().await);
    let facts = Arc::new(Facts::default());
    let count = Arc::new(AtomicUsize::new(0));
    // The first refresh has read the functions and hangs on the policies …
    blocker.batch_execute("BEGIN; LOCK TABLE pg_policy IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let keeper = tokio::spawn(facts.clone().keep_fresh(counting(&server, &count), Duration::from_secs(3600)));
    until(&client, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)").await;
    // … when a function is made.
    client.batch_execute("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'LISTEN x'").await.unwrap();
    facts.mark_dirty();
    blocker.batch_execute("COMMIT").await.unwrap();
    assert!(facts.refreshed().await);
    assert!(facts.suspects().names.contains_key("f"));
    keeper.abort();
}

#[tokio::test]
async fn what_was_known_is_kept_while_the_server_cannot_be_asked() {
    let server = Server::start();
    let client = server.client().await;
    client.batch_execute("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'LISTEN x'").await.unwrap();
    let facts = Arc::new(Facts::default());
    let tries = Arc::new(AtomicUsize::new(0));
    let connect = counting(&server, &tries);
    let flaky = {
        let tries = tries.clone();
        move || {
            let connecting = connect();
            let fails = (2..=3).contains(&tries.load(Ordering::SeqCst));
            async move { if fails { Err("refused".to_string()) } else { connecting.await.map_err(|e| e.to_string()) } }
        }
    };
    let keeper = tokio::spawn(facts.clone().keep_fresh(flaky, Duration::from_secs(3600)));
    assert!(facts.refreshed().await);
    client.batch_execute("CREATE FUNCTION g() RETURNS void LANGUAGE sql AS 'LISTEN x'").await.unwrap();
    let others = "pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}");
    client.batch_execute(&kill).await.unwrap();
    until(&client, &format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE {others})")).await;
    facts.mark_dirty();
    // Nobody is made to wait for a refresh that fails; what was known goes on to count.
    assert!(!facts.refreshed().await && !facts.is_dirty());
    assert!(facts.suspects().names.contains_key("f") && !facts.suspects().names.contains_key("g"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !facts.refreshed().await {
        assert!(tokio::time::Instant::now() < deadline, "the refresh did not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(facts.suspects().names.contains_key("g"));
    assert_eq!(tries.load(Ordering::SeqCst), 4);
    keeper.abort();
}
