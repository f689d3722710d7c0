//! A bare PostgreSQL for tests that ask it about its catalogs, and need nothing of the demo cluster.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

/// A server of its own in a temporary directory, reached by unix socket; gone when dropped.
pub struct Server {
    dir: tempfile::TempDir,
    process: Child,
}

impl Server {
    pub fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        // PostgreSQL refuses to run as root.
        let postgres = is_root().then(|| ids_of("postgres"));
        let command = |program: &str| {
            let mut command = Command::new(bin_dir().join(program));
            command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if let Some((user, group)) = postgres {
                chown(dir.path(), Some(user), Some(group)).unwrap();
                command.uid(user).gid(group);
            }
            command
        };
        let data = dir.path().join("data");
        let made = command("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data)
            .status();
        assert!(made.unwrap().success(), "initdb failed");
        let process = command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "autovacuum=off", "-k"])
            .arg(dir.path())
            .spawn()
            .unwrap();
        Server { dir, process }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        connect(self.dir.path()).await
    }

    /// The first connection, once the server accepts one.
    pub async fn client(&self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.connect().await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "the server does not start: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// As the superuser, without anything said at startup.
pub async fn connect(socket_dir: &Path) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(socket_dir).port(5432).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT is an immediate stop: the server's children and its shared memory go too.
        let _ = Command::new("kill").arg("-QUIT").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("PGBATON_PG_BIN") {
        return dir.into();
    }
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|dir| dir.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().expect("no PostgreSQL found; set PGBATON_PG_BIN")
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

fn ids_of(user: &str) -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).expect("no such user");
    let fields: Vec<_> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}
