//! Making a new cluster in an empty directory, with the roles and rights that pgbaton needs.
//!
//! Until it is complete, a file beside the directory says that it is not: what is found there then is removed, and made anew.
//! Meanwhile it listens on a socket that nobody else can reach.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::data::UNFINISHED;
use super::process::Process;
use super::processes::{LockFile, makers_of, those_in};
use super::site::{Site, Steps};
use super::{Failed, Settings, conf};
use crate::cluster::agent::Code;
use crate::programs::{ProgramError, tail};

/// The least-privilege script for the control user, for psql.
const ROLES: &str = include_str!("../../migrations/roles.sql");

/// Each program of it; a slow disk makes them slow.
const LIMIT: Duration = Duration::from_secs(300);

const LOOK: Duration = Duration::from_millis(10);

/// Can be dropped at any moment, and called again.
pub async fn initialise(site: &Site, settings: &Settings, agent_dir: &Path, steps: &Steps) -> Result<(), Failed> {
    let Some(password) = &settings.control_password else {
        let reason = "the password of the control user has to be given: agent.control_password_file, or PGBATON_CONTROL_PASSWORD";
        return Err(Failed::new(Code::Password, reason));
    };
    for text in [Some(password), settings.superuser_password.as_ref()].into_iter().flatten() {
        if text.reveal().contains(['\n', '\r', '\0']) {
            return Err(Failed::new(Code::Password, "a password must be one line"));
        }
    }
    forget(site, agent_dir).await?;
    if std::fs::read_dir(&site.data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failed::new(Code::Impossible, format!("{} is not empty", site.data_dir.display())));
    }
    let marker = agent_dir.join(UNFINISHED);
    site.runner.write(&marker, b"").map_err(failed)?;
    sync(&marker).and_then(|()| sync(agent_dir)).map_err(io("write", &marker))?;

    steps.say("making a new cluster (initdb)");
    let log = agent_dir.join("initdb.log");
    let _ = std::fs::remove_file(&log);
    initdb(site, settings, agent_dir, &log).await?;
    write_hba(site, settings)?;
    conf::write(site, &settings.postgres)?;

    steps.say("making the roles");
    let place = Private::new(site)?;
    let server = Serving(serve(site, &place.0, &log)?);
    let server = &server.0;
    let made = async {
        ready(site, server, &log).await?;
        let roles = roles(settings, password.reveal());
        psql(site, settings, &place.0, roles, &log).await
    };
    let made = made.await;
    server.signal(Signal::INT);
    if timeout(LIMIT, server.end()).await.is_err() {
        return Err(Failed::new(Code::Failed, "the new cluster does not stop"));
    }
    made?;
    let _ = std::fs::remove_file(&log);
    std::fs::remove_file(&marker).and_then(|()| sync(agent_dir)).map_err(io("remove", &marker))
}

/// Whether the making of a cluster was begun here, and has not come to its end.
pub fn is_unfinished(agent_dir: &Path) -> bool {
    agent_dir.join(UNFINISHED).exists()
}

/// Removes what an earlier attempt has left behind: nobody has ever been served from it.
pub async fn forget(site: &Site, agent_dir: &Path) -> Result<(), Failed> {
    if !is_unfinished(agent_dir) {
        return Ok(());
    }
    tracing::warn!("the making of a cluster was interrupted; what there is of it is removed");
    loop {
        // An agent that was killed has left them at work. First who starts others.
        let makers = makers_of(&site.data_dir);
        let left = if makers.is_empty() { those_in(&site.data_dir) } else { makers };
        if left.is_empty() {
            break;
        }
        left.iter().for_each(|one| one.signal(Signal::KILL));
        sleep(LOOK).await;
    }
    for entry in std::fs::read_dir(&site.data_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.map_err(io("remove", &path))?;
    }
    let marker = agent_dir.join(UNFINISHED);
    std::fs::remove_file(&marker).and_then(|()| sync(agent_dir)).map_err(io("remove", &marker))
}

async fn initdb(site: &Site, settings: &Settings, agent_dir: &Path, log: &Path) -> Result<(), Failed> {
    // Root's parent directory is not the server's to write; what is there already stays what it is.
    if !site.data_dir.exists() {
        site.runner.create_directory(&site.data_dir, 0o700).map_err(failed)?;
    }
    let password_file = agent_dir.join("password");
    let _gone = Removed(&password_file);
    if let Some(password) = &settings.superuser_password {
        site.runner.write(&password_file, password.reveal().as_bytes()).map_err(failed)?;
    }
    let command = |locale: &str| {
        let mut command = site.runner.command(&site.bin.program("initdb"));
        command.arg("-D").arg(&site.data_dir).args(["-U", &settings.superuser, "-E", "UTF8", "--data-checksums"]);
        command.args(["--auth-host=scram-sha-256", "--auth-local=peer", "--no-instructions"]);
        command.args([format!("--locale={locale}"), "--lc-messages=C".into()]);
        if settings.superuser_password.is_some() {
            command.arg("--pwfile").arg(&password_file);
        }
        command
    };
    // Sorting that is the same everywhere. Some systems do not have the first; every system has the second.
    match run(command("C.UTF-8"), "initdb", log, None).await {
        Err(Failed { reason, .. }) if reason.contains("invalid locale") => run(command("C"), "initdb", log, None).await,
        other => other,
    }
}

/// Who may connect: on the socket the superuser as the system's user of its name, and everybody with a password.
fn write_hba(site: &Site, settings: &Settings) -> Result<(), Failed> {
    let mut text = String::from("# Made by `pgbaton agent`; from now on it is yours.\n");
    text.push_str(&format!("local all {} peer\n", quoted_name(&settings.superuser)));
    text.push_str("local all,replication all scram-sha-256\n");
    let loopback = ["127.0.0.1/32", "::1/128"].map(str::to_owned);
    for network in loopback.iter().chain(&settings.networks) {
        text.push_str(&format!("host all,replication all {network} scram-sha-256\n"));
    }
    site.runner.write(&site.data("pg_hba.conf"), text.as_bytes()).map_err(failed)
}

/// In `pg_hba.conf`.
fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn serve(site: &Site, place: &Path, log: &Path) -> Result<Process, Failed> {
    let hba = place.join("hba");
    site.runner.write(&hba, b"local all all trust\n").map_err(failed)?;
    let mut command = site.runner.command(&site.bin.program("postgres"));
    command.arg("-D").arg(&site.data_dir).args(["-c", "listen_addresses=", "-c", "port=5432"]);
    command.arg("-c").arg(format!("config_file={}", site.data(conf::FILE).display()));
    command.arg("-c").arg(format!("hba_file={}", hba.display()));
    command.arg("-c").arg(format!("unix_socket_directories={}", place.display()));
    command.args(["-c", "archive_mode=off", "-c", "synchronous_standby_names=", "-c", "logging_collector=off"]);
    let output = append(log)?;
    command.stdout(output.try_clone().map_err(io("write", log))?).stderr(output);
    Process::spawn(command).map_err(|error| Failed::new(Code::Failed, format!("cannot run postgres: {error}")))
}

async fn ready(site: &Site, server: &Process, log: &Path) -> Result<(), Failed> {
    let is_ready = || LockFile::read(&site.data_dir).is_some_and(|lock| lock.pid == server.pid && lock.is_ready);
    let deadline = Instant::now() + LIMIT;
    while !is_ready() {
        if timeout(LOOK, server.end()).await.is_ok() || Instant::now() > deadline {
            return Err(said("the new cluster does not start", log));
        }
    }
    Ok(())
}

fn roles(settings: &Settings, control_password: &str) -> String {
    // Neither is to be seen in a log, whatever is set.
    let mut text = String::from(
        "SET log_statement = none; SET log_min_duration_statement = -1;\nSET log_min_error_statement = panic;\n",
    );
    text.push_str(&format!("\\set control_user {}\n", in_quotes(&settings.control_user)));
    text.push_str(&format!("\\set control_password {}\n{ROLES}\n", in_quotes(control_password)));
    if let Some(database) = &settings.database {
        text.push_str(&format!(
            "\\set database {}\n\\set owner {}\n",
            in_quotes(database),
            in_quotes(&settings.superuser)
        ));
        text.push_str("SELECT NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') AS is_missing \\gset\n");
        text.push_str("\\if :is_missing\nCREATE DATABASE :\"database\" OWNER :\"owner\";\n\\endif\n");
    }
    text
}

/// A value of psql's `\set`.
fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

async fn psql(site: &Site, settings: &Settings, place: &Path, text: String, log: &Path) -> Result<(), Failed> {
    let mut command = site.runner.command(&site.bin.program("psql"));
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-p", "5432", "-d", "postgres", "-U", &settings.superuser]);
    command.arg("-h").arg(place).args(["-f", "-"]);
    run(command, "making the roles", log, Some(text)).await
}

/// What it says goes to the file, and its end into the error. Dropped, it is killed.
async fn run(mut command: Command, what: &str, log: &Path, input: Option<String>) -> Result<(), Failed> {
    let output = append(log)?;
    command.stdout(output.try_clone().map_err(io("write", log))?).stderr(output);
    let cannot = |error: std::io::Error| Failed::new(Code::Failed, format!("{what}: {error}"));
    if let Some(text) = input {
        // Told by standard input, where nobody reads it off the list of processes.
        let (reader, mut writer) = std::io::pipe().map_err(cannot)?;
        command.stdin(Stdio::from(reader));
        // A program that has stopped reading says why itself.
        tokio::task::spawn_blocking(move || writer.write_all(text.as_bytes()));
    }
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(cannot)?;
    match timeout(LIMIT, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(said(&format!("{what} failed ({status})"), log)),
        Ok(Err(error)) => Err(cannot(error)),
        Err(_) => Err(said(&format!("{what} does not end"), log)),
    }
}

fn said(what: &str, log: &Path) -> Failed {
    let output = tail(log, 8);
    let code = if output.contains("No space left on device") { Code::DiskFull } else { Code::Failed };
    Failed::new(code, format!("{what}: {}", output.replace('\n', "; ")))
}

fn append(log: &Path) -> Result<std::fs::File, Failed> {
    std::fs::File::options().create(true).append(true).open(log).map_err(io("write", log))
}

fn sync(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

fn io<'p>(act: &'static str, path: &'p Path) -> impl Fn(std::io::Error) -> Failed + 'p {
    move |error| {
        let code = if error.kind() == std::io::ErrorKind::StorageFull { Code::DiskFull } else { Code::Failed };
        Failed::new(code, format!("cannot {act} {}: {error}", path.display()))
    }
}

fn failed(error: ProgramError) -> Failed {
    Failed::new(conf::code_of(&error), error.to_string())
}

/// A directory that only the server's user can enter, with a name short enough for a socket in it.
struct Private(PathBuf);

impl Private {
    fn new(site: &Site) -> Result<Private, Failed> {
        let mut random = [0; 8];
        let made = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
        made.map_err(|_| Failed::new(Code::Failed, "the system gives no random numbers"))?;
        let name = format!("pgbaton-{:016x}", u64::from_ne_bytes(random));
        let path = std::env::temp_dir().join(name);
        site.runner.create_directory(&path, 0o700).map_err(failed)?;
        Ok(Private(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server that does not outlive the making of its cluster.
struct Serving(Process);

impl Drop for Serving {
    fn drop(&mut self) {
        if self.0.ended().is_none() {
            self.0.signal(Signal::QUIT);
        }
    }
}

struct Removed<'p>(&'p Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_keep_their_signs() {
        assert_eq!(in_quotes(r"it's \ ok"), r"'it\'s \\ ok'");
        assert_eq!(quoted_name(r#"a "b""#), r#""a ""b""""#);
    }
}
