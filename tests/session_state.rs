//! What a session has set, prepared and left behind follows it through transaction pooling, though its server connection
//! changes hands after every transaction: each story has competitors, and one or two server connections for all.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use support::{Proxy, shared_cluster, wait_until};
use wire::{Batch, Login, Wire, trusting};

fn proxy(settings: &str) -> Proxy {
    let cluster = shared_cluster();
    Proxy::start(cluster, &trusting(cluster, settings))
}

/// One server connection, and two sessions that use it in turns.
fn two_on_one() -> (Proxy, Wire, Wire) {
    let proxy = proxy("pool_size = 1\npool_wait = \"5s\"");
    let (one, two) = (Login::to(proxy.port).connect(), Login::to(proxy.port).connect());
    (proxy, one, two)
}

/// Runs statements on the node itself.
fn direct(sql: &str) -> String {
    shared_cluster().primary().unwrap().sql(sql).unwrap()
}

/// What SHOW CLIENTS says pins the session with this application name… found by its id, which is its order of arrival.
fn pinned(proxy: &Proxy, at: usize) -> String {
    let mut console = Login::to(proxy.port).database("pgbaton").connect();
    let answer = console.query("SHOW CLIENTS").ok();
    let column = answer.columns.iter().position(|name| name == "pinned").unwrap();
    let database = answer.columns.iter().position(|name| name == "database").unwrap();
    let clients: Vec<_> = answer.rows.iter().filter(|row| row[database].as_deref() != Some("pgbaton")).collect();
    clients[at][column].clone().unwrap_or_default()
}

// --- settings ---

#[test]
fn settings_follow_their_client_and_nobody_else() {
    let (_proxy, mut one, mut two) = two_on_one();
    one.run("SET work_mem = '5MB'");
    two.run("SET work_mem = '6MB'");
    assert_eq!(one.value("SHOW work_mem"), "5MB");
    assert_eq!(two.value("SHOW work_mem"), "6MB");
    one.run("RESET work_mem");
    assert_eq!(one.value("SHOW work_mem"), "4MB");
    assert_eq!(two.value("SHOW work_mem"), "6MB");
    two.run("SET timezone TO 'Asia/Tokyo'; SET datestyle = 'German'");
    assert_eq!(two.parameters["TimeZone"], "Asia/Tokyo");
    assert_ne!(one.value("SHOW timezone"), "Asia/Tokyo");
    assert_ne!(one.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(two.value("SELECT '2024-12-31'::date"), "31.12.2024");
    two.run("RESET ALL");
    assert_eq!(two.value("SHOW work_mem"), "4MB");
    assert_eq!(two.value("SELECT '2024-12-31'::date"), "2024-12-31");
}

#[test]
fn what_a_transaction_undoes_is_undone_everywhere() {
    let (_proxy, mut one, mut two) = two_on_one();
    one.run("SET my.a = 'kept'");
    one.run("BEGIN; SET my.a = 'undone'; SAVEPOINT s; SET my.b = 'undone too'; ROLLBACK TO s; ROLLBACK");
    two.run("SELECT 1");
    assert_eq!(one.value("SHOW my.a"), "kept");
    one.run("BEGIN; SET my.a = 'new'; SAVEPOINT s; SET my.a = 'undone'; ROLLBACK TO s; COMMIT");
    two.run("SET my.a = 'of two'");
    assert_eq!(one.value("SHOW my.a"), "new");
    one.run("BEGIN; SET LOCAL my.a = 'local'; SELECT set_config('my.a', 'local too', true); COMMIT");
    assert_eq!(two.value("SHOW my.a"), "of two");
    assert_eq!(one.value("SHOW my.a"), "new");
    let answer = one.query("SET my.a = 'failed'; SELECT 1 / 0");
    assert_eq!(answer.code(), "22012");
    two.run("SELECT 1");
    assert_eq!(one.value("SHOW my.a"), "new");
    one.run("SELECT set_config('my.a', 'configured', false)");
    two.run("SELECT 1");
    assert_eq!(one.value("SHOW my.a"), "configured");
}

#[test]
fn startup_options_are_what_reset_and_discard_go_back_to() {
    let proxy = proxy("pool_size = 2\npool_wait = \"5s\"");
    let login = Login::to(proxy.port).with("options", "-c work_mem=7MB -c search_path=north");
    let (mut one, mut two) = (login.with("DateStyle", "German").connect(), Login::to(proxy.port).connect());
    for undo in ["RESET ALL", "DISCARD ALL", "RESET work_mem; RESET search_path; RESET datestyle"] {
        one.run("SET work_mem = '9MB'; SET search_path = south; SET datestyle = 'ISO'");
        assert_eq!(two.value("SHOW work_mem"), "4MB");
        for sql in undo.split("; ") {
            one.run(sql);
            two.run("SET work_mem = '5MB'; RESET work_mem");
        }
        assert_eq!(one.value("SHOW work_mem"), "7MB", "after {undo}");
        assert_eq!(one.value("SHOW search_path"), "north", "after {undo}");
        assert_eq!(one.value("SELECT '2024-12-31'::date"), "31.12.2024", "after {undo}");
    }
}

#[test]
fn application_name_is_the_clients_own_also_after_reset() {
    let proxy = proxy("pool_size = 1\npool_wait = \"5s\"");
    let mut one = Login::to(proxy.port).with("application_name", "one").connect();
    one.run("SELECT 1");
    let mut two = Login::to(proxy.port).with("application_name", "two").connect();
    assert_eq!(two.value("SHOW application_name"), "two");
    two.run("SET application_name = 'changed'");
    assert_eq!(two.parameters["application_name"], "changed");
    assert_eq!(one.value("SHOW application_name"), "one");
    assert_eq!(two.value("SHOW application_name"), "changed");
    for undo in ["RESET application_name", "RESET ALL", "DISCARD ALL", "SET application_name TO DEFAULT"] {
        two.run("SET application_name = 'changed'");
        two.run(undo);
        assert_eq!(two.value("SHOW application_name"), "two", "after {undo}");
        assert_eq!(two.parameters["application_name"], "two", "after {undo}");
        assert_eq!(one.value("SHOW application_name"), "one");
    }
    // In one transaction too nobody sees who opened the server connection.
    two.run("SET application_name = 'changed'");
    two.run("BEGIN; RESET ALL");
    assert_ne!(two.value("SHOW application_name"), "one");
    two.run("COMMIT");
}

/// A connection is started with the name of whoever was first, and RESET ALL goes back to that.
#[test]
fn nobody_gets_the_name_of_the_client_that_a_connection_was_opened_for() {
    let proxy = proxy("pool_size = 1");
    let mut first = Login::to(proxy.port).with("application_name", "first").connect();
    first.run("SELECT 1");
    let mut acting = Login::to(proxy.port).connect();
    acting.run("SET ROLE pg_monitor");
    let mut plain = Login::to(proxy.port).connect();
    for _ in 0..2 {
        assert_eq!(acting.value("SHOW application_name"), "");
        assert_eq!(plain.value("SHOW application_name"), "");
        assert_eq!(plain.parameters["application_name"], "");
    }
    assert_eq!(first.value("SHOW application_name"), "first");
}

#[test]
fn roles_and_authorization_follow_their_client() {
    direct("CREATE ROLE costume; GRANT costume TO demo");
    let (_proxy, mut one, mut two) = two_on_one();
    one.run("SET ROLE costume");
    assert_eq!(two.value("SELECT current_user"), "demo");
    assert_eq!(one.value("SELECT current_user"), "costume");
    one.run("RESET ROLE");
    one.run("SET SESSION AUTHORIZATION costume");
    assert_eq!(two.value("SELECT session_user"), "demo");
    assert_eq!(one.value("SELECT session_user"), "costume");
    one.run("DISCARD ALL");
    assert_eq!(one.value("SELECT session_user"), "demo");
}

// --- prepared statements ---

#[test]
fn statements_of_the_same_name_are_each_clients_own() {
    let (_proxy, mut one, mut two) = two_on_one();
    one.batch(Batch::new().parse("s", "SELECT 'one ' || $1").sync()).ok();
    two.batch(Batch::new().parse("s", "SELECT 'two ' || $1").sync()).ok();
    for round in ["a", "b"] {
        assert_eq!(one.batch(Batch::new().run("s", &[Some(round)]).sync()).value(), format!("one {round}"));
        assert_eq!(two.batch(Batch::new().run("s", &[Some(round)]).sync()).value(), format!("two {round}"));
    }
    one.batch(Batch::new().close(b'S', "s").sync()).ok();
    assert_eq!(one.batch(Batch::new().run("s", &[Some("x")]).sync()).code(), "26000");
    assert_eq!(two.batch(Batch::new().run("s", &[Some("c")]).sync()).value(), "two c");
    assert_eq!(two.batch(Batch::new().parse("s", "SELECT 1").sync()).code(), "42P05");
}

/// The names that statements have on servers are nobody's to use.
#[test]
fn names_on_the_server_are_out_of_reach() {
    let (_proxy, mut one, mut two) = two_on_one();
    one.batch(Batch::new().parse("s", "SELECT 'the secret of one'").sync()).ok();
    one.batch(Batch::new().run("s", &[]).sync()).ok();
    let name = direct("SELECT 1").replace('1', "pgbaton_1");
    assert_eq!(two.batch(Batch::new().run(&name, &[]).sync()).code(), "26000");
    assert_eq!(two.batch(Batch::new().describe(b'S', &name).sync()).code(), "26000");
    assert_eq!(two.query(&format!("EXECUTE {name}")).code(), "26000");
    assert_eq!(two.query(&format!("DEALLOCATE {name}")).code(), "26000");
    two.batch(Batch::new().close(b'S', &name).sync()).ok();
    two.run(&format!("PREPARE {name} AS SELECT 'of two'"));
    assert_eq!(two.value(&format!("EXECUTE {name}")), "of two");
    drop(two);
    assert_eq!(one.batch(Batch::new().run("s", &[]).sync()).value(), "the secret of one");
}

#[test]
fn what_a_failed_pipeline_skipped_did_not_happen() {
    let (_proxy, mut one, mut two) = two_on_one();
    // The server knows this text already, so that it need not be asked.
    two.batch(Batch::new().parse("t", "SELECT 'shared'").run("t", &[]).sync()).ok();
    let broken = Batch::new().bind("", "unknown", &[]);
    assert_eq!(one.batch(broken.clone().parse("s", "SELECT 'shared'").sync()).code(), "26000");
    assert_eq!(one.batch(Batch::new().run("s", &[]).sync()).code(), "26000", "its Parse was skipped");
    assert_eq!(one.batch(Batch::new().parse("s", "SELECT 'mine'").run("s", &[]).sync()).value(), "mine");
    assert_eq!(one.batch(broken.close(b'S', "s").sync()).code(), "26000");
    assert_eq!(one.batch(Batch::new().run("s", &[]).sync()).value(), "mine", "its Close was skipped");
}

#[test]
fn a_failed_transaction_prepares_nothing() {
    let (_proxy, mut one, mut two) = two_on_one();
    two.batch(Batch::new().parse("t", "SELECT 'shared'").run("t", &[]).sync()).ok();
    one.run("BEGIN");
    assert_eq!(one.query("SELECT 1 / 0").code(), "22012");
    assert_eq!(one.batch(Batch::new().parse("s", "SELECT 'shared'").sync()).code(), "25P02");
    one.run("ROLLBACK");
    assert_eq!(one.batch(Batch::new().parse("s", "SELECT 'shared'").run("s", &[]).sync()).value(), "shared");
}

#[test]
fn names_are_resolved_where_the_client_stands() {
    direct(
        "CREATE SCHEMA left_side; CREATE TABLE left_side.side AS SELECT 1 AS a;
         CREATE SCHEMA right_side; CREATE TABLE right_side.side AS SELECT 'x'::text AS a, 'y'::text AS b",
    );
    let (_proxy, mut one, mut two) = two_on_one();
    let sql = "SELECT * FROM side WHERE a = $1";
    let parse = || Batch::new().parse("s", sql).describe(b'S', "s");
    one.run("SET search_path = left_side");
    assert_eq!(one.batch(parse().run("s", &[Some("1")]).sync()).ok().table(), "1");
    two.run("SET search_path = right_side");
    assert_eq!(two.batch(parse().run("s", &[Some("x")]).sync()).ok().table(), "x|y");
    // The same in transactions, with settings that are not the session's (yet).
    for setting in ["SET LOCAL search_path = ", "SET search_path = ", "SELECT set_config('search_path', "] {
        let close = Batch::new().close(b'S', "s").sync();
        one.batch(close.clone());
        two.batch(close);
        let value = |name: &str| match setting.starts_with("SELECT") {
            true => format!("{setting}'{name}', true)"),
            false => format!("{setting}{name}"),
        };
        one.run("RESET search_path; BEGIN");
        one.run(&value("left_side"));
        assert_eq!(one.batch(parse().run("s", &[Some("1")]).sync()).ok().table(), "1", "{setting}");
        one.run("ROLLBACK");
        two.run("RESET search_path; BEGIN");
        two.run(&value("right_side"));
        assert_eq!(two.batch(parse().run("s", &[Some("x")]).sync()).ok().table(), "x|y", "{setting}");
        two.run("ROLLBACK");
    }
    direct("DROP SCHEMA left_side, right_side CASCADE");
}

/// Two roles whose `"$user"` schemas have a table of one name but not of one shape.
#[test]
fn ddl_elsewhere_does_not_make_one_roles_statement_look_like_anothers() {
    direct(
        "CREATE ROLE jim LOGIN PASSWORD 'jim'; CREATE SCHEMA jim AUTHORIZATION jim;
         CREATE TABLE jim.own AS SELECT 1 AS a; ALTER TABLE jim.own OWNER TO jim;
         CREATE ROLE joe LOGIN PASSWORD 'joe'; CREATE SCHEMA joe AUTHORIZATION joe;
         CREATE TABLE joe.own AS SELECT 'x'::text AS b; ALTER TABLE joe.own OWNER TO joe",
    );
    let cluster = shared_cluster();
    let proxy = Proxy::start(cluster, &support::ProxySettings { proxy: "pool_size = 2".into(), ..Default::default() });
    let mut jim = Login::to(proxy.port).user("jim", "jim").connect();
    let mut joe = Login::to(proxy.port).user("joe", "joe").connect();
    let parse = || Batch::new().parse("s", "SELECT * FROM own").describe(b'S', "s").run("s", &[]).sync();
    assert_eq!(jim.batch(parse()).ok().table(), "1");
    assert_eq!(joe.batch(parse()).ok().table(), "x");
    let mut other = Login::to(proxy.port).connect();
    other.run("CREATE TABLE unrelated (a int); DROP TABLE unrelated");
    // On a server connection that does not have the statement yet.
    let mut holder = Login::to(proxy.port).user("joe", "joe").connect();
    holder.run("BEGIN");
    assert_eq!(joe.batch(Batch::new().run("s", &[]).sync()).ok().table(), "x");
    holder.run("COMMIT");
    assert_eq!(jim.batch(Batch::new().run("s", &[]).sync()).ok().table(), "1");
}

#[test]
fn a_changed_result_is_refused_in_postgresqls_words_and_prepared_anew() {
    direct("CREATE TABLE changing (a int); INSERT INTO changing VALUES (1)");
    let (_proxy, mut one, mut two) = two_on_one();
    let parse = || Batch::new().parse("s", "SELECT * FROM changing").describe(b'S', "s");
    assert_eq!(one.batch(parse().run("s", &[]).sync()).ok().table(), "1");
    two.run("ALTER TABLE changing ADD b text DEFAULT 'new'");
    let answer = one.batch(Batch::new().run("s", &[]).sync());
    assert_eq!(
        (answer.code(), answer.errors[0].message.as_str()),
        ("0A000", "cached plan must not change result type")
    );
    one.batch(Batch::new().close(b'S', "s").sync()).ok();
    assert_eq!(one.batch(parse().run("s", &[]).sync()).ok().table(), "1|new");
    assert_eq!(two.batch(parse().run("s", &[]).sync()).ok().table(), "1|new");
    direct("DROP TABLE changing");
}

#[test]
fn sql_and_protocol_share_one_set_of_names() {
    let (_proxy, mut one, mut two) = two_on_one();
    one.run("PREPARE p AS SELECT 'sql'");
    two.run("PREPARE p AS SELECT 'of two'");
    assert_eq!(one.batch(Batch::new().run("p", &[]).sync()).value(), "sql");
    assert_eq!(two.value("EXECUTE p"), "of two");
    one.batch(Batch::new().parse("s", "SELECT 'protocol'").sync()).ok();
    two.run("SELECT 1");
    for _ in 0..2 {
        assert_eq!(one.value("EXECUTE s"), "protocol");
    }
    for _ in 0..2 {
        let answer = one.batch(Batch::new().parse("", "EXECUTE s").run("", &[]).sync());
        assert_eq!(answer.value(), "protocol");
    }
    one.run("DEALLOCATE s; DEALLOCATE p");
    assert_eq!(one.batch(Batch::new().run("s", &[]).sync()).code(), "26000");
    assert_eq!(one.query("EXECUTE p").code(), "26000");
    one.run("DISCARD ALL");
    assert_eq!(two.value("EXECUTE p"), "of two");
    two.run("DEALLOCATE ALL");
    one.run("SELECT 1");
    assert_eq!(two.query("EXECUTE p").code(), "26000");
}

#[test]
fn a_statement_prepared_behind_deallocate_all_in_one_write_stays() {
    let (_proxy, mut one, mut two) = two_on_one();
    two.batch(Batch::new().parse("t", "SELECT 'shared'").run("t", &[]).sync()).ok();
    for undo in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let batch = Batch::new().query(undo).parse("s", "SELECT 'shared'").run("s", &[]).sync();
        one.send(&batch.0).unwrap();
        one.until(b"Z").unwrap().ok();
        assert_eq!(one.until(b"Z").unwrap().value(), "shared", "behind {undo}");
        assert_eq!(one.batch(Batch::new().run("s", &[]).sync()).value(), "shared", "behind {undo}");
        assert_eq!(two.batch(Batch::new().run("t", &[]).sync()).value(), "shared", "of another, after {undo}");
    }
    let batch = Batch::new().query("DEALLOCATE s").parse("s", "SELECT 'again'").run("s", &[]).sync();
    one.send(&batch.0).unwrap();
    one.until(b"Z").unwrap().ok();
    assert_eq!(one.until(b"Z").unwrap().value(), "again");
}

// --- pins ---

#[test]
fn pins_come_and_go_with_what_they_are_for() {
    direct("CREATE FUNCTION locks() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(9); END'");
    let proxy = proxy("pool_size = 2\npool_wait = \"5s\"");
    let mut other = Login::to(proxy.port).connect();
    let mut one = Login::to(proxy.port).connect();
    for (what, pin, unpin) in [
        ("temporary object", "CREATE TEMP TABLE t (a int)", Some("DROP TABLE t")),
        ("temporary object", "SELECT 1 AS a INTO TEMP t", Some("DROP TABLE t")),
        ("temporary object", "CREATE TEMP VIEW v AS SELECT 1", Some("DROP VIEW v")),
        ("advisory lock", "SELECT pg_advisory_lock(5)", Some("SELECT pg_advisory_unlock(5)")),
        ("advisory lock", "SELECT pg_try_advisory_lock_shared(6, 7)", Some("SELECT pg_advisory_unlock_all()")),
        ("listen", "LISTEN here", Some("UNLISTEN here")),
        ("listen", "LISTEN here; LISTEN there", Some("UNLISTEN *")),
        ("cursor with hold", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", Some("CLOSE c")),
        ("cursor with hold", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", Some("CLOSE ALL")),
        ("opaque statement", "DO 'BEGIN END'", Some("DISCARD ALL")),
        (
            "opaque statement",
            "CREATE PROCEDURE p() LANGUAGE sql AS ''; CALL p(); DROP PROCEDURE p",
            Some("DISCARD ALL"),
        ),
        ("looks at its own server process", "SELECT pg_backend_pid()", Some("DISCARD ALL")),
        ("temporary object", "CREATE TEMP TABLE t (a int)", Some("DISCARD TEMP")),
    ] {
        assert_eq!(pinned(&proxy, 1), "", "before {pin}");
        one.run(pin);
        other.run("SELECT 1");
        let seen = pinned(&proxy, 1);
        assert!(seen.contains(what), "after {pin}: {seen:?}");
        if let Some(unpin) = unpin {
            one.run(unpin);
            // The server is asked what is left after the client has its answer.
            wait_until(Duration::from_secs(5), &format!("unpinned after {pin} and {unpin}"), || {
                pinned(&proxy, 1).is_empty()
            });
        }
    }
    // What is rolled back does not pin.
    one.run("BEGIN; CREATE TEMP TABLE t (a int); LISTEN here; DECLARE c CURSOR WITH HOLD FOR SELECT 1; ROLLBACK");
    assert_eq!(pinned(&proxy, 1), "", "after ROLLBACK");
    // Two things, one of them ended.
    one.run("LISTEN here");
    one.run("SELECT pg_advisory_lock(5)");
    one.run("UNLISTEN *");
    wait_until(Duration::from_secs(5), "only the lock is left", || pinned(&proxy, 1) == "advisory lock");
    one.run("SELECT pg_advisory_unlock_all()");
    // Found in the body of a function.
    one.run("SELECT locks()");
    assert_eq!(direct("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 9"), "1");
    assert!(pinned(&proxy, 1).contains("lock") || pinned(&proxy, 1).contains("opaque"), "{}", pinned(&proxy, 1));
    drop(one);
    wait_until(Duration::from_secs(10), "the lock is given back", || {
        direct("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"
    });
}

#[test]
fn notifications_arrive_while_others_use_the_pool_and_none_is_lost() {
    let proxy = proxy("pool_size = 2\npool_wait = \"5s\"");
    let (mut ears, mut mouth) = (Login::to(proxy.port).connect(), Login::to(proxy.port).connect());
    ears.run("LISTEN words");
    let shout = std::thread::spawn(move || {
        for number in 0..500 {
            mouth.run(&format!("NOTIFY words, '{number}'"));
        }
    });
    // Statements after which the proxy asks the server itself.
    while !shout.is_finished() {
        ears.run("LISTEN other");
        ears.run("UNLISTEN other");
    }
    shout.join().unwrap();
    ears.run("SELECT 1");
    let heard: Vec<_> = ears.notifications.iter().map(|note| note.payload.clone()).collect();
    let expected: Vec<_> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(heard.len(), 500, "notifications lost");
    assert_eq!(heard, expected);
    // One's own come too, with the process id one was told.
    ears.notifications.clear();
    ears.run("NOTIFY words, 'own'");
    ears.run("SELECT 1");
    assert_eq!(ears.notifications[0].pid, ears.pid);
}

#[test]
fn sequences_remember_for_their_own_session() {
    direct("CREATE SEQUENCE numbers; CREATE TABLE numbered (id serial, who text)");
    let proxy = proxy("pool_size = 2\npool_wait = \"5s\"");
    let (mut one, mut two) = (Login::to(proxy.port).connect(), Login::to(proxy.port).connect());
    one.run("BEGIN");
    let mine = one.value("SELECT nextval('numbers')");
    two.run("SELECT nextval('numbers')");
    assert_eq!(one.value("SELECT currval('numbers')"), mine);
    one.run("COMMIT");
    assert_eq!(two.query("SELECT currval('numbers')").ok().rows.len(), 1);
    for _ in 0..20 {
        let mine = one.value("INSERT INTO numbered (who) VALUES ('one') RETURNING id");
        two.run("INSERT INTO numbered (who) VALUES ('two')");
        assert_eq!(one.value("SELECT lastval()"), mine);
    }
}

#[test]
fn temporary_tables_and_cursors_are_there_for_their_session_only() {
    let proxy = proxy("pool_size = 2\npool_wait = \"5s\"");
    let (mut one, mut two) = (Login::to(proxy.port).connect(), Login::to(proxy.port).connect());
    one.run("CREATE TEMP TABLE mine AS SELECT 'one' AS whose");
    for _ in 0..5 {
        assert_eq!(two.query("SELECT * FROM mine").code(), "42P01");
        assert_eq!(one.value("SELECT whose FROM mine"), "one");
    }
    one.run("DECLARE c CURSOR WITH HOLD FOR SELECT whose FROM mine");
    assert_eq!(two.query("FETCH 1 FROM c").code(), "34000");
    assert_eq!(one.value("FETCH 1 FROM c"), "one");
    drop(one);
    let mut one = Login::to(proxy.port).connect();
    wait_until(Duration::from_secs(10), "the table is gone", || {
        direct("SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == "0"
    });
    one.run("CREATE TEMP TABLE mine AS SELECT 'again' AS whose");
}

// --- bounds ---

#[test]
fn waiting_for_a_connection_ends_with_a_reason() {
    let proxy = proxy("pool_size = 1\npool_wait = \"2s\"\nmax_waiting = 1");
    let mut holder = Login::to(proxy.port).connect();
    let mut waiting = Login::to(proxy.port).connect();
    let mut crowded = Login::to(proxy.port).connect();
    holder.run("BEGIN");
    waiting.send(&Batch::new().query("/* pgbaton: primary */ SELECT 1").0).unwrap();
    let mut console = Login::to(proxy.port).database("pgbaton").connect();
    wait_until(Duration::from_secs(10), "one waits", || {
        console
            .query("SHOW CLIENTS")
            .ok()
            .rows
            .iter()
            .any(|row| row.iter().any(|cell| cell.as_deref() == Some("waiting")))
    });
    // One who had waited would say how long.
    let refused = crowded.query("/* pgbaton: primary */ SELECT 1").errors.remove(0);
    assert_eq!((&*refused.code, &*refused.message), ("53300", "1 clients are waiting for a server connection already"));
    assert_eq!(waiting.until(b"Z").unwrap().code(), "53300");
    // A whole pipeline is refused once, and the session goes on.
    let pipeline = Batch::new().parse("s", "/* pgbaton: primary */ SELECT 1").run("s", &[]).run("s", &[]).sync();
    assert_eq!(waiting.batch(pipeline.clone()).code(), "53300");
    holder.run("COMMIT");
    assert_eq!(waiting.batch(pipeline).ok().table(), "1,1");
}

#[test]
fn the_client_above_max_clients_is_refused_and_the_console_is_not() {
    let proxy = proxy("max_clients = 3");
    let clients: Vec<Wire> = (0..3).map(|_| Login::to(proxy.port).connect()).collect();
    let refused = Login::to(proxy.port).attempt().unwrap().err().unwrap();
    assert_eq!(refused.code, "53300");
    Login::to(proxy.port).database("pgbaton").connect().query("SHOW CLIENTS").ok();
    drop(clients);
    wait_until(Duration::from_secs(10), "there is room again", || Login::to(proxy.port).attempt().unwrap().is_ok());
}
