//! What happens at the nodes, seen from the nodes: which of them ran which statement, and standing in the way of replay.
//!
//! The proxy is never asked where it sent something, because that is what is to be proved. Servers write every statement
//! to their log before they run it (`log_statement`), and a mark in a comment tells the tests' statements apart.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pgbaton::demo::{Cluster, Node};

use crate::support::{self, DEADLINE, ProxySettings, wait_until};
use crate::wire::{Batch, Login, Rng, Wire, trusting};

/// A cluster whose nodes write down what they run.
pub fn watched_cluster(replicas: usize) -> Cluster {
    support::cluster_with(replicas, &[("log_statement", "all")])
}

/// Settings for a proxy that asks no client for a password, with these lines below `[reads]`. None of them: no such
/// section, and every key has its default.
pub fn reads(cluster: &Cluster, lines: &str) -> ProxySettings {
    let mut settings = trusting(cluster, "");
    if !lines.is_empty() {
        settings.sections = format!("{}\n[reads]\n{lines}", settings.sections);
    }
    settings
}

/// A mark nobody has used in this process, to be put into a statement as a comment.
pub fn mark(name: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    format!("{name}.{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// How often something was seen at each node, by the node's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares(pub BTreeMap<String, usize>);

impl Shares {
    pub fn of(&self, id: &str) -> usize {
        self.0.get(id).copied().unwrap_or_default()
    }

    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Of all nodes but the one that was the primary at the beginning.
    pub fn replicas(&self) -> usize {
        self.total() - self.of("n1")
    }

    pub fn part(&self, id: &str) -> f64 {
        self.of(id) as f64 / self.total().max(1) as f64
    }

    /// The only node where it was seen.
    pub fn only(&self) -> Option<&str> {
        let mut seen = self.0.iter().filter(|(_, count)| **count > 0);
        let first = seen.next().map(|(id, _)| id.as_str());
        first.filter(|_| seen.next().is_none())
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.0.iter().map(|(id, count)| format!("{id}: {count} ({:.1} %)", 100.0 * self.part(id)));
        f.write_str(&each.collect::<Vec<_>>().join(", "))
    }
}

/// The statements in the nodes' logs since this was made.
pub struct Ledger {
    logs: Vec<(String, PathBuf, u64)>,
}

impl Ledger {
    pub fn of(cluster: &Cluster) -> Ledger {
        let log = |node: &Node| {
            let length = std::fs::metadata(node.log_file()).map_or(0, |facts| facts.len());
            (node.id.clone(), node.log_file().to_path_buf(), length)
        };
        Ledger { logs: cluster.nodes().iter().map(log).collect() }
    }

    fn text(&self, id: &str) -> String {
        let (_, path, from) = self.logs.iter().find(|(log, _, _)| log == id).unwrap();
        let mut file = std::fs::File::open(path).unwrap();
        file.seek(SeekFrom::Start(*from)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How often each node began a statement with this mark, however it was sent.
    pub fn count(&self, mark: &str) -> Shares {
        let comment = format!("/* {mark} */");
        let is_one = |line: &&str| is_statement(line) && line.contains(&comment);
        let count = |id: &String| (id.clone(), self.text(id).lines().filter(is_one).count());
        Shares(self.logs.iter().map(|(id, _, _)| count(id)).collect())
    }

    /// For marks of the form `name=rest`: how often each node began a statement with each rest.
    pub fn by_rest(&self, name: &str) -> BTreeMap<String, Shares> {
        let opening = format!("/* {name}=");
        let mut all: BTreeMap<String, Shares> = BTreeMap::new();
        for (id, _, _) in &self.logs {
            for line in self.text(id).lines().filter(is_statement) {
                let rest = line.split_once(&opening).and_then(|(_, after)| after.split_once(" */"));
                if let Some((rest, _)) = rest {
                    *all.entry(rest.into()).or_default().0.entry(id.clone()).or_default() += 1;
                }
            }
        }
        all
    }

    /// How many lines of a node's log hold this text.
    pub fn lines_with(&self, id: &str, text: &str) -> usize {
        self.text(id).lines().filter(|line| line.contains(text)).count()
    }
}

fn is_statement(line: &&str) -> bool {
    line.contains("LOG:  statement: ") || line.contains("LOG:  execute ")
}

/// How long a proxy may take to notice what has changed at the nodes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads until what the nodes saw of these reads is as wanted: a proxy that has just started has yet to find its replicas,
/// and one whose replicas came back has yet to notice.
#[track_caller]
pub fn until_reads(port: u16, ledger: &Ledger, what: &str, wanted: impl Fn(&Shares) -> bool) {
    let mut client = Login::to(port).connect();
    let mut shares = Shares::default();
    let mut round = || {
        // Only the latest reads count: what was true before the change that is waited for says nothing.
        let mark = mark("until");
        for _ in 0..8 {
            client.run(&format!("SELECT 1 /* {mark} */"));
        }
        shares = ledger.count(&mark);
        wanted(&shares)
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while !round() {
        if std::time::Instant::now() > deadline {
            panic!("not within {PATIENCE:?}: {what}; the latest reads ran on {shares}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until reads run on replicas, and nothing but replicas.
#[track_caller]
pub fn until_replicas_serve(port: u16, ledger: &Ledger) {
    until_reads(port, ledger, "reads run on replicas only", |shares| shares.of("n1") == 0 && shares.total() > 0);
}

/// A replica that can be held back, over a connection of its own.
pub struct Standby {
    pub id: String,
    wire: Wire,
}

impl Standby {
    pub fn of(node: &Node) -> Standby {
        Standby { id: node.id.clone(), wire: Login::to(node.port()).connect() }
    }

    /// All nodes but the first.
    pub fn all(cluster: &Cluster) -> Vec<Standby> {
        cluster.nodes()[1..].iter().map(Standby::of).collect()
    }

    /// Asks for a pause, which the next record to be replayed brings at the latest.
    pub fn ask_for_pause(&mut self) {
        self.wire.run("SELECT pg_wal_replay_pause()");
    }

    /// Nothing is replayed any more when this returns.
    pub fn pause(&mut self) {
        self.ask_for_pause();
        wait_until(DEADLINE, "replay is paused", || {
            self.wire.value("SELECT pg_get_wal_replay_pause_state()") == "paused"
        });
    }

    pub fn resume(&mut self) {
        self.wire.run("SELECT pg_wal_replay_resume()");
    }

    /// Commits are replayed so many milliseconds after they were made.
    pub fn delay(&mut self, milliseconds: usize) {
        self.wire.run(&format!("ALTER SYSTEM SET recovery_min_apply_delay = {milliseconds}"));
        self.wire.run("SELECT pg_reload_conf()");
    }

    pub fn value(&mut self, sql: &str) -> String {
        self.wire.value(sql)
    }

    pub fn run(&mut self, sql: &str) {
        self.wire.run(sql);
    }
}

/// Pauses, delays and resumes replay on the replicas at random until dropped; then they replay as ever.
pub struct Disturber {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Disturber {
    pub fn start(cluster: &Cluster, seed: u64) -> Disturber {
        let mut standbys = Standby::all(cluster);
        let stop = Arc::new(AtomicBool::new(false));
        let wish = stop.clone();
        let mut random = Rng(seed);
        let thread = std::thread::spawn(move || {
            let mut acts = 0;
            while !wish.load(Ordering::Relaxed) {
                let at = random.below(standbys.len());
                match random.below(6) {
                    0 | 1 => standbys[at].ask_for_pause(),
                    2 => standbys[at].delay(50 + random.below(700)),
                    // Everything at rest, and for longer, so that replicas have their time too.
                    _ => standbys.iter_mut().for_each(|standby| {
                        standby.delay(0);
                        standby.resume();
                    }),
                }
                acts += 1;
                std::thread::sleep(Duration::from_millis(100 + random.next() % 500));
            }
            for standby in &mut standbys {
                standby.delay(0);
                standby.resume();
            }
            acts
        });
        Disturber { stop, thread: Some(thread) }
    }

    /// How much it did.
    pub fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().unwrap())
    }
}

impl Drop for Disturber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Clients that read without a rest until they are told to end; whatever went wrong is kept.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(usize, Option<String>)>>,
    pub mark: String,
}

impl Crowd {
    pub fn start(port: u16, clients: usize) -> Crowd {
        let (stop, mark) = (Arc::new(AtomicBool::new(false)), mark("crowd"));
        let read = |number: usize| {
            let (stop, mark) = (stop.clone(), mark.clone());
            std::thread::spawn(move || {
                let mut client = Login::to(port).connect();
                // Some milliseconds of work, so that something is always under way.
                let sql = format!("SELECT count(*) FROM generate_series(1, 10000) /* {mark} */");
                let name = "counting";
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    let batch = match (done + number) % 3 {
                        0 => Batch::new().query(&sql),
                        1 => Batch::new().parse("", &sql).run("", &[]).sync(),
                        _ if done < 3 => Batch::new().parse(name, &sql).run(name, &[]).sync(),
                        _ => Batch::new().run(name, &[]).sync(),
                    };
                    match client.ask(batch) {
                        Ok(answer) if answer.errors.is_empty() && answer.table() == "10000" => done += 1,
                        other => return (done, Some(format!("client {number} after {done} reads: {other:?}"))),
                    }
                }
                (done, None)
            })
        };
        let threads = (0..clients).map(read).collect();
        Crowd { stop, threads, mark }
    }

    /// How much was read, when nothing went wrong for anybody.
    #[track_caller]
    pub fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let ends: Vec<_> = self.threads.drain(..).map(|thread| thread.join().unwrap()).collect();
        let wrong: Vec<_> = ends.iter().filter_map(|(_, wrong)| wrong.as_ref()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        ends.iter().map(|(done, _)| done).sum()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
