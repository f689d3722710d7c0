//! The schema `pgbaton` on real servers, made by a control user that has what `migrations/roles.sql` gives it and no more.
//!
//! Each story has a database of its own, as the schema is in the control database.

mod support;

use std::process::{Command, Output};

use pgbaton::demo::{CONTROL_USER, Cluster, Node};
use pgbaton::migrate::{MigrateError, ROLES, apply};
use tokio_postgres::{Client, NoTls};

use support::{DEADLINE, ProxySettings, Psql, shared_cluster, wait_until};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A new database in which the script has been run.
fn database(cluster: &Cluster, name: &str) {
    let primary = cluster.primary().unwrap();
    primary.sql_in("postgres", &format!("CREATE DATABASE {name}")).unwrap();
    primary.script(name, &format!("\\set control_user {CONTROL_USER}\n{ROLES}")).unwrap();
}

async fn client(node: &Node, database: &str, user: &str, password: &str) -> Client {
    let mut config = tokio_postgres::Config::new();
    config.host(node.host()).port(node.port()).dbname(database).user(user).password(password);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn control(cluster: &Cluster, database: &str) -> Client {
    client(cluster.primary().unwrap(), database, CONTROL_USER, cluster.control_password()).await
}

fn as_control(cluster: &Cluster, node: &Node, database: &str) -> Psql {
    Psql::tcp(node.port()).user(CONTROL_USER, Some(cluster.control_password())).database(database)
}

#[test]
fn the_schema_is_made_once_and_then_is_up_to_date() {
    let cluster = shared_cluster();
    database(cluster, "once");
    runtime().block_on(async {
        let mut client = control(cluster, "once").await;
        assert_eq!(apply(&mut client).await.unwrap(), ["0001_pgbaton"]);
        assert_eq!(apply(&mut client).await.unwrap(), Vec::<String>::new());
        let insert = "INSERT INTO pgbaton.epoch (epoch, node, coordinator, timeline, cause) VALUES (1, 'n1', 'here', 1, 'start')";
        client.execute(insert, &[]).await.unwrap();
        let again = format!("{insert} ON CONFLICT DO NOTHING");
        assert_eq!(client.execute(&again, &[]).await.unwrap(), 0);
        let beat = "INSERT INTO pgbaton.heartbeat (coordinator, node, epoch) VALUES ('here', 'n1', 1)
                    ON CONFLICT (coordinator) DO UPDATE SET node = excluded.node, epoch = excluded.epoch, at = now()";
        for _ in 0..2 {
            client.execute(beat, &[]).await.unwrap();
        }
        client.execute("INSERT INTO pgbaton.history (epoch, entry) VALUES (1, '{}')", &[]).await.unwrap();
    });
    // The standby has it too.
    cluster.wait_for_replicas().unwrap();
    let replica = cluster.node("n2").unwrap();
    assert_eq!(as_control(cluster, replica, "once").ok(&["SELECT max(epoch) FROM pgbaton.epoch"]), "1");
}

#[test]
fn epochs_can_only_be_added() {
    let cluster = shared_cluster();
    database(cluster, "epochs");
    let primary = cluster.primary().unwrap();
    runtime().block_on(async { apply(&mut control(cluster, "epochs").await).await.unwrap() });
    let psql = as_control(cluster, primary, "epochs");
    psql.ok(&["INSERT INTO pgbaton.epoch (epoch, node, coordinator, timeline, cause) VALUES (7, 'n1', 'here', 1, '')"]);
    for change in ["UPDATE pgbaton.epoch SET epoch = 8", "DELETE FROM pgbaton.epoch", "TRUNCATE pgbaton.epoch"] {
        let said = psql.refused(&[change]);
        assert!(said.contains("permission denied for table epoch"), "{said}");
        // A superuser has every right, and triggers can be asked to look away.
        let said = primary.sql_in("epochs", &format!("SET session_replication_role = replica; {change}"));
        let said = said.unwrap_err().to_string();
        assert!(said.contains("pgbaton.epoch only grows"), "{said}");
    }
    assert_eq!(psql.ok(&["SELECT epoch FROM pgbaton.epoch"]), "7");
}

#[test]
fn two_that_migrate_at_once_do_it_once() {
    let cluster = shared_cluster();
    for round in 0..5 {
        let name = format!("both{round}");
        database(cluster, &name);
        let mut applied = runtime().block_on(async {
            let mut clients = Vec::new();
            for _ in 0..4 {
                clients.push(control(cluster, &name).await);
            }
            let all = clients.iter_mut().map(apply);
            futures_util::future::join_all(all).await.into_iter().map(|one| one.unwrap().len()).collect::<Vec<_>>()
        });
        applied.sort();
        assert_eq!(applied, [0, 0, 0, 1], "round {round}");
    }
}

#[test]
fn a_user_without_the_right_is_told_the_script() {
    let cluster = shared_cluster();
    let primary = cluster.primary().unwrap();
    primary.sql_in("postgres", "CREATE DATABASE poor").unwrap();
    primary.sql_in("postgres", "CREATE ROLE poor LOGIN PASSWORD 'poor'").unwrap();
    runtime().block_on(async {
        let mut poor = client(primary, "poor", "poor", "poor").await;
        let error = apply(&mut poor).await.unwrap_err();
        assert!(matches!(error, MigrateError::Forbidden { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            "the control user \"poor\" lacks a right (permission denied for database poor); run migrations/roles.sql as \
             superuser in database \"poor\", or there: CREATE SCHEMA IF NOT EXISTS pgbaton AUTHORIZATION \"poor\"; ALTER SCHEMA \
             pgbaton OWNER TO \"poor\""
        );
        // What it says helps.
        let statement = error.to_string().split_once("or there: ").unwrap().1.to_owned();
        primary.sql_in("poor", &statement).unwrap();
        assert_eq!(apply(&mut poor).await.unwrap(), ["0001_pgbaton"]);
    });
    // Somebody else's schema can be seen, which is not enough.
    runtime().block_on(async {
        let mut control = control(cluster, "poor").await;
        let error = apply(&mut control).await.unwrap_err();
        assert!(matches!(error, MigrateError::Locked { .. }), "{error}");
        let message = error.to_string();
        let statements = message.split_once("\"poor\": ").unwrap().1;
        assert!(statements.starts_with("GRANT USAGE ON SCHEMA pgbaton TO \"pgbaton\"; "), "{message}");
        primary.sql_in("poor", statements).unwrap();
        assert_eq!(apply(&mut control).await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_standby_and_a_newer_schema_are_refused() {
    let cluster = shared_cluster();
    database(cluster, "later");
    cluster.wait_for_replicas().unwrap();
    runtime().block_on(async {
        let replica = cluster.node("n2").unwrap();
        let mut standby = client(replica, "later", CONTROL_USER, cluster.control_password()).await;
        assert!(matches!(apply(&mut standby).await, Err(MigrateError::Standby)));
        let mut control = control(cluster, "later").await;
        apply(&mut control).await.unwrap();
        control.execute("INSERT INTO pgbaton.schema_version VALUES (99, 'to come')", &[]).await.unwrap();
        let error = apply(&mut control).await.unwrap_err().to_string();
        assert_eq!(error, "the schema pgbaton is of version 99, and this pgbaton knows no later one than 1");
    });
}

#[test]
fn what_fails_leaves_nothing_behind() {
    let cluster = shared_cluster();
    database(cluster, "half");
    let psql = as_control(cluster, cluster.primary().unwrap(), "half");
    // In the way of the last table of the migration.
    psql.ok(&["CREATE VIEW pgbaton.history AS SELECT 1"]);
    runtime().block_on(async {
        let mut control = control(cluster, "half").await;
        let error = apply(&mut control).await.unwrap_err().to_string();
        assert_eq!(error, "cannot apply 0001_pgbaton: relation \"history\" already exists");
        let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgbaton'::regnamespace AND relkind = 'r'";
        assert_eq!(control.query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 0);
        control.execute("DROP VIEW pgbaton.history", &[]).await.unwrap();
        assert_eq!(apply(&mut control).await.unwrap(), ["0001_pgbaton"]);
    });
}

fn run_migrate(settings: &ProxySettings, cluster: &Cluster) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = settings.write(cluster, directory.path(), "\"127.0.0.1:0\"");
    Command::new(env!("CARGO_BIN_EXE_pgbaton")).args(["migrate", "-c"]).arg(file).output().unwrap()
}

#[test]
fn the_command_says_what_it_did_and_ends_with_1_when_it_cannot() {
    let cluster = shared_cluster();
    database(cluster, "command");
    let settings = ProxySettings { cluster: "control_database = \"command\"".into(), ..Default::default() };
    for expected in ["applied 0001_pgbaton on n1\n", "up to date on n1\n"] {
        let output = run_migrate(&settings, cluster);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0));
    }
    let without = ProxySettings { left_out: vec!["n1"], ..settings.clone() };
    let output = run_migrate(&without, cluster);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "pgbaton: there is no primary: n2 is a standby\n");
    assert_eq!(output.status.code(), Some(1));
    let output = Command::new(env!("CARGO_BIN_EXE_pgbaton")).args(["migrate", "--wrong"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_script_gives_what_a_failover_needs_and_no_more() {
    let cluster = support::cluster(1);
    let [primary, standby] = cluster.nodes() else { panic!("two nodes") };
    // It was run when the cluster was made; again changes nothing.
    let rights = "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = 'pgbaton'";
    let before = primary.sql_in("postgres", rights).unwrap();
    assert_eq!(before, "f|f|f|t|f");
    primary.script("postgres", &format!("\\set control_user {CONTROL_USER}\n{ROLES}")).unwrap();
    assert_eq!(primary.sql_in("postgres", rights).unwrap(), before);
    let psql = as_control(&cluster, primary, "postgres");
    let can_set = [
        "primary_conninfo",
        "primary_slot_name",
        "synchronous_standby_names",
        "default_transaction_read_only",
        "recovery_min_apply_delay",
    ];
    for name in can_set {
        psql.ok(&[&format!("ALTER SYSTEM SET {name} TO DEFAULT"), &format!("ALTER SYSTEM RESET {name}")]);
    }
    psql.ok(&[
        "SELECT pg_reload_conf()",
        "SELECT pg_create_physical_replication_slot('spare', true)",
        "SELECT pg_replication_slot_advance('spare', pg_current_wal_lsn())",
        "SELECT pg_drop_replication_slot('spare')",
        "CHECKPOINT",
        "SELECT rolname, rolpassword, rolvaliduntil, rolcanlogin FROM pg_authid",
        "SELECT setting FROM pg_settings WHERE name = 'primary_conninfo'",
        "SELECT query FROM pg_stat_activity",
    ]);
    // Somebody's session can be ended, a superuser's cannot.
    primary.sql_in("postgres", "CREATE ROLE app LOGIN PASSWORD 'app'").unwrap();
    let mut command = Psql::tcp(primary.port()).user("app", Some("app")).database("postgres").command();
    let mut app = command.args(["-c", "SELECT pg_sleep(60)"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'";
    wait_until(DEADLINE, "the session was there to be ended", || psql.ok(&[end]) == "1");
    support::wait_for_end(&mut app, DEADLINE);
    // The other way round: what it may not.
    for (statement, reason) in [
        ("ALTER SYSTEM SET shared_preload_libraries = 'x'", "permission denied"),
        ("ALTER SYSTEM SET archive_command = 'x'", "permission denied"),
        ("CREATE ROLE other", "permission denied"),
        ("SELECT oid FROM pg_authid", "permission denied"),
        ("SELECT pg_read_file('PG_VERSION')", "permission denied"),
        ("COPY pg_class TO PROGRAM 'true'", "must be superuser"),
        ("CREATE SCHEMA other", "permission denied"),
    ] {
        let said = psql.refused(&[statement]);
        assert!(said.contains(reason), "{statement}: {said}");
    }
    let psql = as_control(&cluster, standby, "postgres");
    psql.ok(&["SELECT conninfo FROM pg_stat_wal_receiver", "SELECT pg_last_wal_replay_lsn()"]);
    psql.ok(&["ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()", "SELECT pg_wal_replay_resume()"]);
    psql.ok(&["SELECT pg_create_physical_replication_slot('spare')", "SELECT pg_promote(false)"]);
    wait_until(DEADLINE, "it is a primary", || psql.run(&["SELECT pg_is_in_recovery()"]).stdout == "f");
    psql.ok(&["CHECKPOINT"]);
}
