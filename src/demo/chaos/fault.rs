//! What can be broken, and how.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::admin::orders::{Done, Switchover};
use crate::admin::picture::Cluster;
use crate::demo::host::Host;
use crate::demo::hosts::Hosts;
use crate::net::http;

/// How long an ordered switchover may take to be answered.
const SWITCHOVER: Duration = Duration::from_secs(60);

/// Lots that nobody can guess and nobody needs to repeat.
pub(super) struct Lot(u64);

impl Lot {
    pub fn new() -> Lot {
        // The standard library's only source of randomness: every RandomState has other keys.
        Lot(RandomState::new().hash_one(0))
    }

    /// From 0 up to `below`, which is not 0.
    fn draw(&mut self, below: u64) -> u64 {
        self.0 = RandomState::new().hash_one(self.0);
        self.0 % below
    }
}

pub(super) enum Fault<'h> {
    KillServer(&'h Host),
    /// For so long.
    Freeze(&'h Host, Duration),
    /// The agent and the server.
    KillHost(&'h Host),
    /// A host that comes back with an empty disk.
    Wipe(&'h Host),
    Switchover,
}

impl<'h> Fault<'h> {
    /// The primary most often. `None`: there is none now.
    pub fn draw(lot: &mut Lot, hosts: &'h Hosts, cluster: &Cluster) -> Option<Fault<'h>> {
        let primary = hosts.get(cluster.primary.as_deref()?)?;
        let replicas: Vec<&Host> = hosts.all().iter().filter(|host| host.id != primary.id).collect();
        let length = Duration::from_millis(2000 + lot.draw(4000));
        let replica = match replicas.len() {
            0 => None,
            some => replicas.get(usize::try_from(lot.draw(some as u64)).unwrap_or_default()).copied(),
        };
        let pick = lot.draw(100);
        Some(match (pick, replica) {
            (0..10, Some(replica)) => Fault::KillServer(replica),
            (10..16, Some(replica)) => Fault::Freeze(replica, length),
            (16..22, Some(replica)) => Fault::KillHost(replica),
            (22..28, Some(replica)) => Fault::Wipe(replica),
            (28..40, Some(_)) => Fault::Switchover,
            (40..52, _) => Fault::Freeze(primary, length),
            (52..64, _) => Fault::KillHost(primary),
            _ => Fault::KillServer(primary),
        })
    }

    /// As it is counted in the summary.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::KillServer(_) => "kill -9",
            Fault::Freeze(..) => "freeze",
            Fault::KillHost(_) => "host gone",
            Fault::Wipe(_) => "disk wiped",
            Fault::Switchover => "switchover",
        }
    }

    pub fn announcement(&self, cluster: &Cluster) -> String {
        let role = |host: &Host| {
            let is_primary = cluster.primary.as_ref() == Some(&host.id);
            format!("{} ({})", host.id, if is_primary { "primary" } else { "replica" })
        };
        match self {
            Fault::KillServer(host) => format!("kill -9 {}", role(host)),
            Fault::Freeze(host, length) => format!("freeze {} for {:.1} s", role(host), length.as_secs_f64()),
            Fault::KillHost(host) => format!("kill -9 {} and its agent", role(host)),
            Fault::Wipe(host) => format!("wipe the disk of {}", role(host)),
            Fault::Switchover => "switchover".into(),
        }
    }

    pub fn victim(&self) -> Option<&'h Host> {
        match self {
            Fault::KillServer(host) | Fault::Freeze(host, _) | Fault::KillHost(host) | Fault::Wipe(host) => Some(host),
            Fault::Switchover => None,
        }
    }

    pub fn changes_primary(&self) -> bool {
        matches!(self, Fault::Switchover)
    }

    /// The server is the same one afterwards: it takes a while until it is seen how it is.
    pub fn is_seen_late(&self) -> bool {
        matches!(self, Fault::Freeze(..) | Fault::Switchover)
    }

    /// Who stands still from now on, and for how long.
    pub fn frozen(&self) -> Option<(&'h Host, Duration)> {
        match self {
            Fault::Freeze(host, length) => Some((host, *length)),
            _ => None,
        }
    }

    /// Does it. The process id of a server that another one has to take the place of; or why it could not be done.
    pub fn strike(&self, admin: SocketAddr, token: Option<&str>) -> Result<Option<u32>, String> {
        match self {
            Fault::KillServer(host) => Ok(host.kill_server()),
            Fault::Freeze(host, _) => {
                host.freeze();
                Ok(None)
            }
            Fault::KillHost(host) => {
                let old = host.server_pid();
                host.kill_all();
                Ok(old)
            }
            Fault::Wipe(host) => {
                let (old, mut wiped) = (host.server_pid(), Ok(()));
                host.exchange_disk(|data| wiped = empty(data));
                wiped.map_err(|error| format!("cannot wipe {}: {error}", host.data().display()))?;
                Ok(old)
            }
            Fault::Switchover => switch_over(admin, token).map(|()| None),
        }
    }
}

fn empty(data: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// As an operator does.
fn switch_over(admin: SocketAddr, token: Option<&str>) -> Result<(), String> {
    let fault = |error: &dyn std::fmt::Display| format!("switchover refused: {error}");
    let url = format!("http://{admin}").parse().map_err(|error: String| fault(&error))?;
    let order = serde_json::to_string(&Switchover { to: None }).map_err(|error| fault(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| fault(&error))?;
    let answer = runtime.block_on(http::post(&url, token, "/switchover", order, SWITCHOVER));
    serde_json::from_str::<Done>(&answer.map_err(|error| fault(&error))?).map(drop).map_err(|error| fault(&error))
}
