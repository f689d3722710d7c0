//! Asking a server: the primary that is to be followed, and the node's own.

use std::error::Error;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{Client, NoTls, Row};

use super::program;
use super::timelines::{OPEN, Stretch, chain};
use crate::agent::{Failed, Place, Site};
use crate::cluster::agent::Code;
use crate::net::{Conninfo, NodeTls, NodeTlsMode, dial_tls};
use crate::types::{Lsn, NodeAddress, NodeId, Timeline};

/// Where functions are granted, see `migrations/roles.sql`.
const DATABASE: &str = "postgres";
const LIMIT: Duration = Duration::from_secs(15);
/// A checkpoint of a busy server takes its time.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);

const LOOK: &str = "
SELECT pg_is_in_recovery(), (pg_control_system()).system_identifier, current_setting('server_version_num')::int,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_flush_lsn()) END,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END";

const SIZE: &str = "SELECT sum(pg_database_size(oid))::bigint FROM pg_database";

const TABLESPACES: &str = "
SELECT coalesce(string_agg(location, ', ' ORDER BY location), '')
FROM (SELECT pg_tablespace_location(oid) AS location FROM pg_tablespace) AS tablespace WHERE location LIKE '/%'";

/// What `pg_rewind` calls.
const REWIND_RIGHTS: &str = "
SELECT coalesce(string_agg(name, ', '), '')
FROM unnest(ARRAY['pg_ls_dir(text,boolean,boolean)', 'pg_stat_file(text,boolean)', 'pg_read_binary_file(text)',
                  'pg_read_binary_file(text,bigint,bigint,boolean)']) AS name
WHERE NOT has_function_privilege(name, 'EXECUTE')";

const READ: &str = "SELECT pg_read_binary_file('pg_wal/' || $1::text, $2::bigint, $3::bigint, true)";

/// How long its newest checkpoint has been of its timeline: before PostgreSQL 16 `pg_rewind` goes by that.
const CHECKPOINTED: &str = "SELECT timeline_id FROM pg_control_checkpoint()";

const SLOT: &str = "
SELECT active_pid, coalesce(wal_status = 'lost', false), slot_type = 'physical'
FROM pg_replication_slots WHERE slot_name = $1::text::name";

/// Something new in the log, committed for itself alone: what is written before the standby connects proves less.
const BEACON: &str = "SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'pgbaton', 'rejoin')";

/// A connection for questions.
pub struct Asked {
    client: Client,
    task: JoinHandle<()>,
    name: String,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The primary as it said it is.
pub struct Source {
    pub asked: Asked,
    pub conninfo: Conninfo,
    pub timeline: Timeline,
    /// Its log, without an end.
    pub chain: Vec<Stretch>,
    /// The node's slot there; empty while there is none.
    pub slot: String,
}

/// Of a slot: lower-case letters, digits and `_`, up to 63 of them. pgbaton calls them the same (`node/slots.rs`).
fn slot_name(node: &NodeId) -> String {
    let fitting = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_') => c,
        _ => '_',
    };
    node.0.chars().map(fitting).take(63).collect()
}

impl Asked {
    pub async fn connect(site: &Site, host: &str, port: u16, name: String) -> Result<Asked, Failed> {
        let mut settings = tokio_postgres::Config::new();
        settings.user(&site.control_user).dbname(DATABASE).application_name("pgbaton-agent");
        settings.ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = &site.control_password {
            settings.password(password.reveal());
        }
        let address = NodeAddress { id: site.node.clone(), host: host.into(), port };
        let unreachable = |why: String| Failed::new(Code::Unreachable, format!("{name} ({host}:{port}): {why}"));
        let opening = async {
            let tls = NodeTls::new(NodeTlsMode::Prefer, None).map_err(|error| unreachable(error.to_string()))?;
            let stream = dial_tls(&address, &tls, LIMIT).await.map_err(|error| unreachable(error.to_string()))?;
            settings.connect_raw(stream, NoTls).await.map_err(|error| refusal(&name, &error))
        };
        let (client, connection) =
            timeout(LIMIT, opening).await.unwrap_or_else(|_| Err(unreachable("no answer in time".into())))?;
        let task = tokio::spawn(async move {
            // Its end is seen by whoever asks something next.
            let _ = connection.await;
        });
        Ok(Asked { client, task, name })
    }

    pub async fn own(site: &Site) -> Result<Asked, Failed> {
        Asked::connect(site, &site.socket_dir.to_string_lossy(), site.port, format!("node {}", site.node)).await
    }

    pub async fn row(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Failed> {
        match timeout(LIMIT, self.client.query_opt(sql, parameters)).await {
            Ok(answer) => answer.map_err(|error| refusal(&self.name, &error)),
            Err(_) => Err(Failed::new(Code::Unreachable, format!("{}: no answer in time", self.name))),
        }
    }

    async fn run(&self, sql: &str, limit: Duration) -> Result<(), Failed> {
        match timeout(limit, self.client.batch_execute(sql)).await {
            Ok(answer) => answer.map_err(|error| refusal(&self.name, &error)),
            Err(_) => Err(Failed::new(Code::Unreachable, format!("{}: no answer in time", self.name))),
        }
    }

    pub async fn get<T>(&self, sql: &str) -> Result<T, Failed>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        let row = self.row(sql, &[]).await?;
        self.column(row.as_ref(), 0)
    }

    pub fn column<T>(&self, row: Option<&Row>, at: usize) -> Result<T, Failed>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        let odd = || Failed::new(Code::Failed, format!("{}: an answer that makes no sense", self.name));
        row.ok_or_else(odd)?.try_get(at).map_err(|_| odd())
    }
}

impl Source {
    /// Asks the place whether it is what was ordered, and what its log is.
    pub async fn ask(site: &Site, place: &Place, known: Option<Conninfo>) -> Result<Source, Failed> {
        let name = format!("primary {}", place.node);
        let asked = Asked::connect(site, &place.host, place.port, name.clone()).await?;
        let row = asked.row(LOOK, &[]).await?;
        let row = row.as_ref();
        let system_identifier = asked.column::<i64>(row, 1)? as u64;
        if system_identifier != place.system_identifier {
            return Err(Failed::new(
                Code::OtherCluster,
                format!(
                    "{name} has the system identifier {system_identifier}, and {} was ordered: it is of another cluster",
                    place.system_identifier
                ),
            ));
        }
        if asked.column::<bool>(row, 0)? {
            return Err(Failed::new(Code::Impossible, format!("{name} is a standby itself, so nobody follows it")));
        }
        let major = asked.column::<i32>(row, 2)? / 10_000;
        if u32::try_from(major).ok() != Some(site.bin.version()) {
            return Err(Failed::new(
                Code::Impossible,
                format!("{name} runs PostgreSQL {major}, and the programs here are of {}", site.bin.version()),
            ));
        }
        let file = asked.column::<String>(row, 3)?;
        let timeline = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).map(Timeline);
        let timeline = timeline.ok_or_else(|| Failed::new(Code::Failed, format!("{name}: no timeline in {file:?}")))?;
        let mut source =
            Source { asked, conninfo: conninfo(site, place, known), timeline, chain: Vec::new(), slot: String::new() };
        let history = source.history(site).await?;
        source.chain =
            chain(timeline, &history, OPEN).map_err(|reason| Failed::new(Code::Failed, format!("{name}: {reason}")))?;
        Ok(source)
    }

    pub async fn reconnect(&mut self, site: &Site, place: &Place) -> Result<(), Failed> {
        self.asked = Asked::connect(site, &place.host, place.port, format!("primary {}", place.node)).await?;
        Ok(())
    }

    /// Its timeline's history. Over a replication connection, which is what the node is going to need anyway: whoever may
    /// not have one hears so before anything is touched.
    async fn history(&self, site: &Site) -> Result<String, Failed> {
        let mut conninfo = self.conninfo.clone();
        conninfo.set("replication", "true");
        let first = Timeline(1);
        let what = match self.timeline {
            timeline if timeline == first => "IDENTIFY_SYSTEM".to_owned(),
            Timeline(number) => format!("TIMELINE_HISTORY {number}"),
        };
        let mut command = program::command(site, "psql");
        command.args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-d"]);
        command.arg(program::without_secrets(&conninfo)).args(["-c", &what]);
        let text = program::output(command, "asking for the primary's timeline history").await?;
        if self.timeline == first {
            return Ok(String::new());
        }
        let found = text.split_once('|').map(|(_, content)| content.to_owned());
        found.ok_or_else(|| Failed::new(Code::Failed, "the primary's timeline history cannot be read"))
    }

    pub async fn flushed(&self) -> Result<Lsn, Failed> {
        self.asked.get::<PgLsn>("SELECT pg_current_wal_flush_lsn()").await.map(|lsn| Lsn(lsn.into()))
    }

    /// Writes something that a standby has to replay, and says where it ends.
    pub async fn beacon(&self) -> Result<Lsn, Failed> {
        if let Err(error) = self.asked.run(BEACON, LIMIT).await {
            tracing::debug!(%error, "nothing new could be written to the primary's log");
        }
        self.flushed().await
    }

    pub async fn size(&self) -> Result<u64, Failed> {
        self.asked.get::<Option<i64>>(SIZE).await.map(|bytes| bytes.unwrap_or(0).max(0) as u64)
    }

    /// Outside of its data directory; empty if there are none.
    pub async fn tablespaces(&self) -> Result<String, Failed> {
        self.asked.get(TABLESPACES).await
    }

    /// Why nobody can be rewound against it, as far as it knows.
    pub async fn refuses_rewind(&self) -> Result<Option<String>, Failed> {
        let missing: String = self.asked.get(REWIND_RIGHTS).await?;
        if !missing.is_empty() {
            return Ok(Some(format!(
                "the control user may not call {missing} on the primary (migrations/roles.sql grants that)"
            )));
        }
        let full_pages: String = self.asked.get("SELECT current_setting('full_page_writes')").await?;
        Ok((full_pages != "on").then(|| "full_page_writes is off on the primary".to_owned()))
    }

    /// Part of a file of its log; `None`: there is no such file.
    pub async fn read(&self, file: &str, from: u64, bytes: u64) -> Result<Option<Vec<u8>>, Failed> {
        let row = self.asked.row(READ, &[&file, &(from as i64), &(bytes as i64)]).await?;
        self.asked.column(row.as_ref(), 0)
    }

    /// Sees to it that its control file tells its timeline, which `pg_rewind` goes by before PostgreSQL 16.
    pub async fn checkpoint(&self) -> Result<(), Failed> {
        let is_told = async || {
            let timeline: i32 = self.asked.get(CHECKPOINTED).await?;
            Ok::<_, Failed>(timeline as u32 == self.timeline.0)
        };
        if is_told().await? {
            return Ok(());
        }
        let refused = self.asked.run("CHECKPOINT", CHECKPOINT_LIMIT).await.err();
        let patience = tokio::time::Instant::now() + CHECKPOINT_LIMIT;
        // One that was refused comes by itself after checkpoint_timeout at the latest, which is 5 minutes by default.
        while !is_told().await? {
            if tokio::time::Instant::now() > patience {
                let why = refused.map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(Failed::new(
                    Code::Failed,
                    format!("the primary made no checkpoint since its promotion{why}"),
                ));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// Sees to it that the node has a slot there, if that can be: a receiver that names one which is not there gets nothing.
    pub async fn make_slot(&mut self, node: &NodeId) {
        let name = slot_name(node);
        match self.free_slot(&name).await {
            Ok(()) => self.slot = name,
            Err(error) => {
                tracing::warn!(%node, %error, "it does without a slot on the primary, which cannot be made");
                self.slot = String::new();
            }
        }
    }

    /// There is a slot of this name which nobody uses, and it keeps the log from now on at least.
    async fn free_slot(&self, name: &str) -> Result<(), Failed> {
        let patience = tokio::time::Instant::now() + LIMIT;
        // A connection of ours that was cut is noticed by the primary after a while only.
        let firmly = tokio::time::Instant::now() + Duration::from_secs(2);
        loop {
            let row = self.asked.row(SLOT, &[&name]).await?;
            let Some(row) = row.as_ref() else {
                let make = "SELECT pg_create_physical_replication_slot($1::text::name, true)::text";
                self.asked.row(make, &[&name]).await?;
                return Ok(());
            };
            if !self.asked.column::<bool>(Some(row), 2)? {
                return Err(Failed::new(Code::Impossible, format!("the slot {name} on the primary is a logical one")));
            }
            match self.asked.column::<Option<i32>>(Some(row), 0)? {
                None if self.asked.column::<bool>(Some(row), 1)? => {
                    self.asked.row("SELECT pg_drop_replication_slot($1::text::name)::text", &[&name]).await?;
                    continue;
                }
                None => return Ok(()),
                Some(_) if tokio::time::Instant::now() > patience => {
                    let why = format!("the slot {name} on the primary is used by somebody else");
                    return Err(Failed::new(Code::Failed, why));
                }
                Some(pid) if tokio::time::Instant::now() > firmly => {
                    // It is this node's, and this node is stopped.
                    let _ = self.asked.row("SELECT pg_terminate_backend($1)", &[&pid]).await;
                }
                Some(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What the node is to connect to the primary with: whatever it knew before (certificates, `sslmode`), but as whom it is now.
fn conninfo(site: &Site, place: &Place, known: Option<Conninfo>) -> Conninfo {
    let mut conninfo = known.unwrap_or_default();
    conninfo.point_at(&place.host, Some(place.port));
    conninfo.set("user", &site.control_user);
    match &site.control_password {
        Some(password) => {
            conninfo.set("password", password.reveal());
            conninfo.remove("passfile");
        }
        // It is in the passfile, or none is asked for.
        None => conninfo.remove("password"),
    }
    conninfo.set("application_name", &site.node.0);
    conninfo
}

fn refusal(name: &str, error: &tokio_postgres::Error) -> Failed {
    if let Some(said) = error.as_db_error() {
        let code = match said.code().code() {
            "28P01" | "28000" => Code::Password,
            "57P01" | "57P02" | "57P03" | "53300" => Code::Unreachable,
            _ => Code::Failed,
        };
        return Failed::new(code, format!("{name}: {} ({})", said.message(), said.code().code()));
    }
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    let code = if cause.contains("password missing") { Code::Password } else { Code::Unreachable };
    Failed::new(code, format!("{name}: {error}{cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_called_as_pgbaton_calls_it() {
        assert_eq!(slot_name(&NodeId::from("Db-East.2")), "db_east_2");
        assert_eq!(slot_name(&NodeId::from(&*"x".repeat(80))).len(), 63);
    }
}
