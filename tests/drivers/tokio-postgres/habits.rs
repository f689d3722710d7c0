//! The habits of tokio-postgres, run by `tests/drivers/run` against the address in its environment.
//!
//! An example rather than a test, because it needs a server that somebody else started and prints one line for each
//! habit, as the suites of the other drivers do.

use std::env;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{join_all, poll_fn};
use futures_util::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::mpsc;
use tokio_postgres::config::{ChannelBinding, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, IsolationLevel, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What a habit ends with: `Ok`, a reason why it does not apply, or what went wrong.
type Outcome = Result<(), Ending>;

enum Ending {
    NotHere(String),
    Wrong(String),
}

impl From<tokio_postgres::Error> for Ending {
    fn from(error: tokio_postgres::Error) -> Ending {
        Ending::Wrong(match error.as_db_error() {
            Some(db) => format!("{}: {}", db.code().code(), db.message()),
            None => format!("{error:?}"),
        })
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Ending> {
    Err(Ending::Wrong(text.into()))
}

fn same<T: PartialEq + Debug>(found: T, wanted: T) -> Outcome {
    if found == wanted {
        Ok(())
    } else {
        wrong(format!("found {found:?}, wanted {wanted:?}").chars().take(400).collect::<String>())
    }
}

fn fails<T>(state: &SqlState, result: Result<T, tokio_postgres::Error>) -> Result<String, Ending> {
    match result {
        Ok(_) => wrong(format!("an error {} was expected", state.code())),
        Err(error) if error.code() == Some(state) => {
            Ok(error.as_db_error().map(|e| e.message().to_owned()).unwrap_or_default())
        }
        Err(error) => wrong(format!("{error:?} instead of {}", state.code())),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .host(variable("SUITE_HOST"))
        .port(variable("SUITE_PORT").parse().unwrap_or(5432))
        .user(variable("SUITE_USER"))
        .password(variable("SUITE_PASSWORD"))
        .dbname(variable("SUITE_DATABASE"))
        .ssl_mode(SslMode::Disable)
        .connect_timeout(Duration::from_secs(15));
    config
}

/// Connects and drives the connection in a task; what the server says by itself arrives on the receiver.
async fn open(config: &Config) -> Result<(Client, mpsc::UnboundedReceiver<AsyncMessage>), tokio_postgres::Error> {
    let (client, mut connection) = config.connect(NoTls).await?;
    let (said, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            // Nobody may be listening any more; the connection is driven all the same.
            let _ = said.send(message);
        }
    });
    Ok((client, heard))
}

async fn connect() -> Result<Client, tokio_postgres::Error> {
    Ok(open(&config()).await?.0)
}

async fn text(client: &Client, sql: &str) -> Result<String, tokio_postgres::Error> {
    client.query_one(sql, &[]).await.map(|row| row.get::<_, Option<String>>(0).unwrap_or_else(|| "<null>".to_owned()))
}

async fn prepared_twice() -> Outcome {
    let mut client = connect().await?;
    let statement = client.prepare("SELECT $1::int * 2").await?;
    for n in 0..100i32 {
        same(client.query_one(&statement, &[&n]).await?.get::<_, i32>(0), n * 2)?;
        let transaction = client.transaction().await?;
        same(transaction.query_one(&statement, &[&n]).await?.get::<_, i32>(0), n * 2)?;
        same(transaction.query_one("SELECT $1::int + 1", &[&n]).await?.get::<_, i32>(0), n + 1)?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn same_name_two_clients() -> Outcome {
    // Every client calls its first statement s0, its second s1.
    let (one, two) = (connect().await?, connect().await?);
    let (a, b) = (one.prepare("SELECT 'a'").await?, two.prepare("SELECT 'b'").await?);
    for _ in 0..50 {
        same(one.query_one(&a, &[]).await?.get::<_, &str>(0), "a")?;
        same(two.query_one(&b, &[]).await?.get::<_, &str>(0), "b")?;
    }
    Ok(())
}

async fn prepared_after_ddl() -> Outcome {
    let (client, other) = (connect().await?, connect().await?);
    other
        .batch_execute(
            "DROP TABLE IF EXISTS tokio_ddl; CREATE TABLE tokio_ddl (a int); INSERT INTO tokio_ddl VALUES (1)",
        )
        .await?;
    let statement = client.prepare("SELECT * FROM tokio_ddl").await?;
    for _ in 0..3 {
        same(client.query_one(&statement, &[]).await?.len(), 1)?;
    }
    other.batch_execute("ALTER TABLE tokio_ddl ADD COLUMN b text DEFAULT 'new'").await?;
    fails(&SqlState::FEATURE_NOT_SUPPORTED, client.query_one(&statement, &[]).await)?;
    drop(statement);
    let again = client.prepare("SELECT * FROM tokio_ddl").await?;
    for _ in 0..3 {
        same(client.query_one(&again, &[]).await?.len(), 2)?;
    }
    Ok(other.batch_execute("DROP TABLE tokio_ddl").await?)
}

async fn pipelined() -> Outcome {
    // Requests polled together go out without waiting for each other, each with its own Sync.
    let client = connect().await?;
    let statement = client.prepare("SELECT $1::int").await?;
    let numbers: Vec<i32> = (0..200).collect();
    let parameters: Vec<[&(dyn ToSql + Sync); 1]> = numbers.iter().map(|n| [n as &(dyn ToSql + Sync)]).collect();
    let answers = join_all(parameters.iter().map(|p| client.query_one(&statement, p))).await;
    for (n, answer) in numbers.iter().zip(answers) {
        same(answer?.get::<_, i32>(0), *n)?;
    }
    let (good, bad, after) = tokio::join!(
        client.query_one("SELECT 1", &[]),
        client.query_one("SELECT 1/0", &[]),
        client.query_one("SELECT 3", &[])
    );
    same(good?.get::<_, i32>(0), 1)?;
    fails(&SqlState::DIVISION_BY_ZERO, bad)?;
    same(after?.get::<_, i32>(0), 3)
}

async fn typed_and_enum() -> Outcome {
    // An unknown type makes the driver look it up with prepared statements of its own, in the middle of prepare.
    let client = connect().await?;
    client.batch_execute("DROP TYPE IF EXISTS tokio_mood; CREATE TYPE tokio_mood AS ENUM ('sad', 'happy')").await?;
    let statement = client.prepare("SELECT $1::text::tokio_mood").await?;
    same(statement.columns()[0].type_().name(), "tokio_mood")?;
    let row = client.query_typed("SELECT $1 + 1", &[(&41i32, Type::INT4)]).await?;
    same(row[0].get::<_, i32>(0), 42)?;
    Ok(client.batch_execute("DROP TYPE tokio_mood").await?)
}

async fn simple_queries() -> Outcome {
    let client = connect().await?;
    let answers = client.simple_query("BEGIN; SELECT 1; SELECT 2; COMMIT; SELECT 3").await?;
    let rows: Vec<String> = answers
        .iter()
        .filter_map(|m| if let SimpleQueryMessage::Row(row) = m { row.get(0).map(str::to_owned) } else { None })
        .collect();
    same(rows.join(" "), "1 2 3".to_owned())?;
    fails(&SqlState::SYNTAX_ERROR, client.batch_execute("SELEC 1").await)?;
    client.batch_execute("").await?;
    same(text(&client, "SELECT 'on'").await?, "on".to_owned())
}

async fn copy_in() -> Outcome {
    let client = connect().await?;
    client.batch_execute("DROP TABLE IF EXISTS tokio_copy; CREATE TABLE tokio_copy (n int)").await?;
    let sink = client.copy_in("COPY tokio_copy FROM STDIN").await?;
    pin_mut!(sink);
    for chunk in 0..200 {
        let rows: String = (0..100).map(|n| format!("{}\n", chunk * 100 + n)).collect();
        sink.send(Bytes::from(rows)).await?;
    }
    same(sink.finish().await?, 20_000)?;

    let sink = client.copy_in("COPY tokio_copy FROM STDIN").await?;
    pin_mut!(sink);
    // The refusal may already be here while we still send, or only when we end.
    let mut outcome = sink.send(Bytes::from("1\nbad\n")).await.map(|()| 0);
    if outcome.is_ok() {
        outcome = sink.finish().await;
    }
    fails(&SqlState::INVALID_TEXT_REPRESENTATION, outcome)?;

    {
        let sink = client.copy_in::<_, Bytes>("COPY tokio_copy FROM STDIN").await?;
        pin_mut!(sink);
        sink.send(Bytes::from("1\n")).await?;
        // Dropped before its end: CopyFail.
    }
    same(text(&client, "SELECT count(*)::text FROM tokio_copy").await?, "20000".to_owned())?;
    Ok(client.batch_execute("DROP TABLE tokio_copy").await?)
}

async fn copy_out() -> Outcome {
    let client = connect().await?;
    let stream = client.copy_out("COPY (SELECT repeat('x', 99) FROM generate_series(1, 20000)) TO STDOUT").await?;
    let size = stream.try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len()) }).await?;
    same(size, 2_000_000)?;
    {
        let stream = client.copy_out("COPY (SELECT g FROM generate_series(1, 200000) g) TO STDOUT").await?;
        pin_mut!(stream);
        same(stream.next().await.is_some(), true)?;
        // Dropped in the middle: the driver reads the rest away.
    }
    same(text(&client, "SELECT 'on'").await?, "on".to_owned())
}

async fn cancel() -> Outcome {
    let client = connect().await?;
    for _ in 0..3 {
        let token = client.cancel_token();
        let started = Instant::now();
        let (outcome, cancelled) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await
        });
        cancelled?;
        fails(&SqlState::QUERY_CANCELED, outcome)?;
        same(started.elapsed() < Duration::from_secs(10), true)?;
        same(text(&client, "SELECT 'on'").await?, "on".to_owned())?;
    }
    Ok(())
}

async fn error_then_rollback() -> Outcome {
    let mut client = connect().await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute("CREATE TABLE tokio_rollback (n int)").await?;
    fails(&SqlState::DIVISION_BY_ZERO, transaction.query("SELECT 1/0", &[]).await)?;
    fails(&SqlState::IN_FAILED_SQL_TRANSACTION, transaction.query("SELECT 1", &[]).await)?;
    // Dropping it without a word makes the driver send ROLLBACK.
    drop(transaction);
    same(text(&client, "SELECT to_regclass('tokio_rollback')::text").await?, "<null>".to_owned())
}

async fn savepoints() -> Outcome {
    let mut client = connect().await?;
    let mut transaction = client.transaction().await?;
    transaction
        .batch_execute(
            "CREATE TEMP TABLE tokio_save (n int PRIMARY KEY) ON COMMIT DROP; INSERT INTO tokio_save VALUES (1)",
        )
        .await?;
    let inner = transaction.savepoint("here").await?;
    fails(&SqlState::UNIQUE_VIOLATION, inner.execute("INSERT INTO tokio_save VALUES ($1)", &[&1i32]).await)?;
    inner.rollback().await?;
    transaction.execute("INSERT INTO tokio_save VALUES ($1)", &[&2i32]).await?;
    same(transaction.query_one("SELECT count(*) FROM tokio_save", &[]).await?.get::<_, i64>(0), 2)?;
    Ok(transaction.commit().await?)
}

async fn isolation() -> Outcome {
    let mut client = connect().await?;
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?;
    let first = transaction.query_one("SELECT now()::text || pg_backend_pid()", &[]).await?.get::<_, String>(0);
    for _ in 0..20 {
        same(
            transaction.query_one("SELECT now()::text || pg_backend_pid()", &[]).await?.get::<_, String>(0),
            first.clone(),
        )?;
    }
    fails(&SqlState::READ_ONLY_SQL_TRANSACTION, transaction.batch_execute("CREATE TABLE tokio_never (n int)").await)?;
    Ok(())
}

async fn large_values() -> Outcome {
    let client = connect().await?;
    let size = variable("SUITE_LARGE_BYTES").parse().unwrap_or(50 * 1024 * 1024);
    let bytes: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
    same(client.query_one("SELECT $1::bytea", &[&bytes]).await?.get::<_, Vec<u8>>(0) == bytes, true)?;
    let long = "0123456789abcdef".repeat(size / 16);
    same(client.query_one("SELECT $1::text", &[&long]).await?.get::<_, String>(0) == long, true)
}

async fn portal_row_limit() -> Outcome {
    let mut client = connect().await?;
    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT g FROM generate_series(1, 20000) g", &[]).await?;
    let (mut total, mut batches) = (0i64, 0);
    loop {
        let rows = transaction.query_portal(&portal, 100).await?;
        if rows.is_empty() {
            break;
        }
        batches += 1;
        total += rows.iter().map(|row| i64::from(row.get::<_, i32>(0))).sum::<i64>();
        if batches == 3 {
            same(transaction.query_one("SELECT 7", &[]).await?.get::<_, i32>(0), 7)?;
        }
    }
    same((total, batches), (20_000 * 20_001 / 2, 200))?;
    Ok(transaction.commit().await?)
}

async fn settings_survive() -> Outcome {
    let client = connect().await?;
    client.batch_execute("SET timezone = 'America/Caracas'; SET search_path = pg_catalog, public").await?;
    client.query("SELECT set_config('work_mem', '7MB', false)", &[]).await?;
    for _ in 0..40 {
        let found = text(
            &client,
            "SELECT current_setting('timezone') || current_setting('search_path') || current_setting('work_mem')",
        )
        .await?;
        same(found, "America/Caracaspg_catalog, public7MB".to_owned())?;
    }
    Ok(())
}

async fn startup_options() -> Outcome {
    let mut config = config();
    config.options("-c work_mem=12MB -c geqo=off").application_name("told at the start");
    let (client, _heard) = open(&config).await?;
    for _ in 0..20 {
        let found = text(
            &client,
            "SELECT current_setting('work_mem') || current_setting('geqo') || current_setting('application_name')",
        )
        .await?;
        same(found, "12MBofftold at the start".to_owned())?;
    }
    client.batch_execute("SET work_mem = '13MB'; RESET ALL").await?;
    same(text(&client, "SHOW work_mem").await?, "12MB".to_owned())
}

async fn listen_notify() -> Outcome {
    let (listener, mut heard) = open(&config()).await?;
    let speaker = connect().await?;
    listener.batch_execute("LISTEN tokio_channel").await?;
    for n in 0..5 {
        speaker.execute("SELECT pg_notify('tokio_channel', $1)", &[&n.to_string()]).await?;
    }
    let mut got = Vec::new();
    while got.len() < 5 {
        match tokio::time::timeout(Duration::from_secs(10), heard.recv()).await {
            Ok(Some(AsyncMessage::Notification(message))) => got.push(message.payload().to_owned()),
            Ok(Some(_)) => {}
            _ => return wrong(format!("only {got:?} arrived")),
        }
    }
    same(got.join(""), "01234".to_owned())?;
    Ok(listener.batch_execute("UNLISTEN *").await?)
}

async fn notices() -> Outcome {
    let (client, mut heard) = open(&config()).await?;
    client.batch_execute("DO $$ BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END $$").await?;
    for wanted in ["first", "second"] {
        match tokio::time::timeout(Duration::from_secs(10), heard.recv()).await {
            Ok(Some(AsyncMessage::Notice(notice))) => same(notice.message(), wanted)?,
            _ => return wrong(format!("the notice {wanted} did not arrive")),
        }
    }
    Ok(())
}

async fn temporary_table() -> Outcome {
    let client = connect().await?;
    client.batch_execute("CREATE TEMP TABLE tokio_temp (n int)").await?;
    for n in 0..30i32 {
        client.execute("INSERT INTO tokio_temp VALUES ($1)", &[&n]).await?;
    }
    same(text(&client, "SELECT count(*)::text FROM tokio_temp").await?, "30".to_owned())
}

async fn advisory_lock() -> Outcome {
    let (holder, other) = (connect().await?, connect().await?);
    holder.query("SELECT pg_advisory_lock(4747)", &[]).await?;
    for _ in 0..20 {
        same(text(&other, "SELECT pg_try_advisory_lock(4747)::text").await?, "false".to_owned())?;
    }
    same(text(&holder, "SELECT pg_advisory_unlock(4747)::text").await?, "true".to_owned())?;
    same(text(&other, "SELECT pg_try_advisory_lock(4747)::text").await?, "true".to_owned())
}

async fn sequence_values() -> Outcome {
    let client = connect().await?;
    client.batch_execute("DROP TABLE IF EXISTS tokio_serial; CREATE TABLE tokio_serial (id serial)").await?;
    for n in 1..=30 {
        client.execute("INSERT INTO tokio_serial DEFAULT VALUES", &[]).await?;
        same(
            text(&client, "SELECT (lastval() * 1000 + currval('tokio_serial_id_seq'))::text").await?,
            (n * 1001).to_string(),
        )?;
    }
    Ok(client.batch_execute("DROP TABLE tokio_serial").await?)
}

async fn two_phase_commit() -> Outcome {
    let client = connect().await?;
    client.batch_execute("DROP TABLE IF EXISTS tokio_2pc; CREATE TABLE tokio_2pc (n int)").await?;
    client.batch_execute("BEGIN; INSERT INTO tokio_2pc VALUES (1); PREPARE TRANSACTION 'tokio-one'").await?;
    same(text(&client, "SELECT count(*)::text FROM tokio_2pc").await?, "0".to_owned())?;
    client.batch_execute("COMMIT PREPARED 'tokio-one'").await?;
    same(text(&client, "SELECT count(*)::text FROM tokio_2pc").await?, "1".to_owned())?;
    Ok(client.batch_execute("DROP TABLE tokio_2pc").await?)
}

async fn target_session_attrs() -> Outcome {
    let mut config = config();
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    let (client, _heard) = open(&config).await?;
    same(text(&client, "SELECT 'on'").await?, "on".to_owned())
}

async fn tls_and_channel_binding() -> Outcome {
    let authority = variable("SUITE_CA");
    if authority.is_empty() {
        return Err(Ending::NotHere("no TLS at this target".to_owned()));
    }
    let certificate = CertificateDer::from_pem_file(&authority).or_else(|e| wrong(format!("{authority}: {e}")))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).or_else(|e| wrong(e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_else(|e| wrong(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    for binding in [ChannelBinding::Disable, ChannelBinding::Require] {
        let mut config = config();
        config.ssl_mode(SslMode::Require).channel_binding(binding);
        let (client, connection) = config.connect(MakeRustlsConnect::new(tls.clone())).await?;
        tokio::spawn(connection);
        for _ in 0..20 {
            same(text(&client, "SELECT 'on'").await?, "on".to_owned())?;
        }
        let long = "z".repeat(3_000_000);
        same(client.query_one("SELECT $1::text", &[&long]).await?.get::<_, String>(0) == long, true)?;
    }
    Ok(())
}

async fn refused_logins() -> Outcome {
    let mut told = Vec::new();
    for user in [variable("SUITE_USER"), "no_such_role".to_owned()] {
        let mut config = config();
        config.user(user.as_str()).password("wrong");
        told.push(fails(&SqlState::INVALID_PASSWORD, open(&config).await)?.replace(&format!("\"{user}\""), "…"));
    }
    same(told[0].as_str(), told[1].as_str())?;
    let mut config = config();
    config.dbname("no_such_database");
    fails(&SqlState::INVALID_CATALOG_NAME, open(&config).await)?;
    Ok(())
}

async fn unix_socket() -> Outcome {
    let directory = variable("SUITE_SOCKET_DIR");
    if directory.is_empty() {
        return Err(Ending::NotHere("no Unix socket at this target".to_owned()));
    }
    let mut config = Config::new();
    config
        .host_path(directory)
        .port(variable("SUITE_PORT").parse().unwrap_or(5432))
        .user(variable("SUITE_USER"))
        .password(variable("SUITE_PASSWORD"))
        .dbname(variable("SUITE_DATABASE"));
    let (client, _heard) = open(&config).await?;
    same(text(&client, "SELECT 'on'").await?, "on".to_owned())
}

async fn gone_in_a_transaction() -> Outcome {
    let client = connect().await?;
    client.batch_execute("DROP TABLE IF EXISTS tokio_gone; CREATE TABLE tokio_gone (n int)").await?;
    for _ in 0..5 {
        let leaver = connect().await?;
        leaver.batch_execute("BEGIN; INSERT INTO tokio_gone VALUES (1)").await?;
        drop(leaver);
        for _ in 0..5 {
            same(text(&client, "SELECT count(*)::text FROM tokio_gone").await?, "0".to_owned())?;
        }
    }
    Ok(client.batch_execute("DROP TABLE tokio_gone").await?)
}

type Start = fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Habit = (&'static str, Start);

macro_rules! habits {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), (|| Box::pin($name())) as Start)),*] };
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let all: &[Habit] = &habits![
        prepared_twice,
        same_name_two_clients,
        prepared_after_ddl,
        pipelined,
        typed_and_enum,
        simple_queries,
        copy_in,
        copy_out,
        cancel,
        error_then_rollback,
        savepoints,
        isolation,
        large_values,
        portal_row_limit,
        settings_survive,
        startup_options,
        listen_notify,
        notices,
        temporary_table,
        advisory_lock,
        sequence_values,
        two_phase_commit,
        target_session_attrs,
        tls_and_channel_binding,
        refused_logins,
        unix_socket,
        gone_in_a_transaction,
    ];
    let only = variable("SUITE_HABITS");
    let limit = Duration::from_secs(variable("SUITE_DEADLINE").parse().unwrap_or(60));
    let mut failed = false;
    for &(name, habit) in all {
        if !only.is_empty() && !only.split(' ').any(|wanted| wanted == name) {
            continue;
        }
        // In a task, so that a panic in the driver is one failed habit.
        let (verdict, detail) = match tokio::time::timeout(limit, tokio::spawn(habit())).await {
            Err(_) => ("FAIL", format!("no result within {limit:?}")),
            Ok(Err(panic)) => ("FAIL", panic.to_string()),
            Ok(Ok(Err(Ending::Wrong(what)))) => ("FAIL", what),
            Ok(Ok(Err(Ending::NotHere(why)))) => ("skip", why),
            Ok(Ok(Ok(()))) => ("ok", String::new()),
        };
        failed |= verdict == "FAIL";
        println!(
            "{}",
            format!("{verdict} tokio-postgres {name} {}", detail.split_whitespace().collect::<Vec<_>>().join(" "))
                .trim_end()
        );
    }
    std::process::exit(i32::from(failed));
}
