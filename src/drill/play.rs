//! One scenario on a stage: clients at work, something that happens to them, and everything that was written down on the way.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::baton::Record;
use super::checker::{Asked, Tables};
use super::faults;
use super::figures::ms;
use super::load::{CREW, Load, Log, TABLES};
use super::network::Network;
use super::outcome::{Mark, MarkKind};
use super::stage::{Stage, WHOLE};
use super::watch::{Watch, Zombie};
use crate::cluster::HistoryEntry;
use crate::demo::Host;
use crate::types::Durability;

/// Of ordinary life, before and after.
const CALM: Duration = Duration::from_millis(1000);
const LOOK: Duration = Duration::from_millis(10);
/// Longer than anything that is waited for may take, hold and vetoes included; not a promise of pgbaton's.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Why a scenario does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Ctrl-C.
    Cancelled,
    /// This machine, or this durability, has not what it takes.
    Skipped(String),
    /// What it waits for does not come.
    Stuck(String),
}

pub type Step<T = ()> = Result<T, Trouble>;

/// A scenario that is being played.
pub struct Play<'s> {
    pub stage: &'s Stage,
    name: &'static str,
    /// What was so before anything happened.
    pub first: Record,
    /// The last one that was waited for.
    epoch: u64,
    load: Load,
    watch: Watch,
    /// When the load's clock began, in milliseconds since 1970.
    began: u64,
    fault: Option<Duration>,
    marks: Vec<Mark>,
    /// What is not as the scenario expects.
    surprises: Vec<String>,
}

/// What is left of it when it is over.
pub struct Played {
    pub log: Log,
    /// Of the primary in the end; `None`: it could not be read.
    pub tables: Option<Tables>,
    pub zombies: Vec<Zombie>,
    pub history: Vec<HistoryEntry>,
    pub began: u64,
    pub fault: Duration,
    pub marks: Vec<Mark>,
    pub surprises: Vec<String>,
    /// Whether another scenario may be played on this stage.
    pub is_whole: bool,
}

/// On standard error, one line for each step.
pub fn say(name: &str, at: Option<u64>, text: &str) {
    let at = at.map_or_else(|| " ".repeat(9), |at| format!("{:>7.1} s", at as f64 / 1000.0));
    eprintln!("{at}  {name}: {text}");
}

impl<'s> Play<'s> {
    /// New tables, and everybody at work on them.
    pub fn begin(stage: &'s Stage, name: &'static str) -> Step<Play<'s>> {
        wait(stage, WHOLE, "a whole cluster before it begins", || stage.is_whole().is_ok())?;
        let first = stage.record();
        let tables = format!("DROP TABLE IF EXISTS ledger, accounts; {TABLES}");
        let made = stage.ask(&first.primary, &tables);
        made.ok_or_else(|| Trouble::Stuck(format!("{} does not make the tables", first.primary)))?;
        let servers = stage.ids().iter().map(|id| stage.server(id)).collect();
        let (clock, began) = (Instant::now(), unix_ms());
        let load = Load::start(stage.baton.address, stage.network.clone(), CREW);
        let watch = Watch::start(servers, clock);
        let (marks, surprises) = (Vec::new(), Vec::new());
        let epoch = first.epoch;
        let play = Play { stage, name, first, epoch, load, watch, began, fault: None, marks, surprises };
        play.until("everybody is connected and writes", || {
            play.load.connected() == CREW.size() as u64 && play.load.has_written_since(CALM)
        })?;
        Ok(play)
    }

    /// Until the load has gone on for so long after the fault and all is whole again; then everybody comes to an end.
    pub fn end(mut self, seconds: u64, outcome: Step) -> (Played, Step) {
        self.mend();
        let outcome = outcome.and_then(|()| {
            let end = self.fault.unwrap_or_default() + Duration::from_secs(seconds);
            while self.now() < end {
                self.pause(LOOK)?;
            }
            self.whole("after all of it")?;
            self.live_on()
        });
        let Play { stage, load, watch, began, fault, mut marks, mut surprises, name, .. } = self;
        if stage.cancel.check().is_err() {
            say(name, None, "interrupted; coming to an end");
        }
        let log = load.end();
        // What was sent last has arrived everywhere.
        let is_whole = match &outcome {
            Ok(()) => wait(stage, WHOLE, "a whole cluster at the verdict", || stage.is_whole().is_ok()).is_ok(),
            Err(_) => stage.is_whole().is_ok(),
        };
        let zombies = watch.end();
        let primary = stage.record().primary;
        let tables = stage.hosts.get(&primary).and_then(|_| Tables::of_a_primary(&stage.server(&primary)));
        if is_whole {
            for id in stage.ids().iter().filter(|id| **id != primary) {
                let held = Tables::read(&stage.server(id));
                if held.ok() != tables {
                    surprises.push(format!("{id} holds something else than {primary}"));
                }
            }
        }
        let history = stage.history().unwrap_or_default();
        marks.sort_by_key(|mark| mark.at);
        let fault = fault.unwrap_or_default();
        (Played { log, tables, zombies, history, began, fault, marks, surprises, is_whole }, outcome)
    }

    /// Everything that the drill itself holds down.
    fn mend(&self) {
        if let Some(network) = &self.stage.network {
            network.heal();
        }
        for host in self.stage.hosts.all() {
            host.thaw();
            host.switch_on();
        }
        self.stage.baton.thaw();
        if self.stage.baton.has_ended().is_some() {
            let _ = self.stage.baton.restart();
        }
    }

    // --- what is written down ----------------------------------------------------------------------------------------

    pub fn now(&self) -> Duration {
        self.load.now()
    }

    fn mark(&mut self, kind: MarkKind, text: &str) {
        let at = ms(self.now());
        say(self.name, Some(at), text);
        self.marks.push(Mark { at, kind, text: text.to_owned() });
    }

    /// Something is about to be broken, or ordered; only the first time counts for gaps.
    pub fn fault(&mut self, text: impl AsRef<str>) {
        let now = self.now();
        self.fault.get_or_insert(now);
        self.mark(MarkKind::Fault, text.as_ref());
    }

    pub fn mended(&mut self, text: impl AsRef<str>) {
        self.mark(MarkKind::Mended, text.as_ref());
    }

    pub fn seen(&mut self, text: impl AsRef<str>) {
        self.mark(MarkKind::Seen, text.as_ref());
    }

    /// What the scenario expects; it goes on if that is not so.
    pub fn expect(&mut self, is_so: bool, otherwise: impl Into<String>) {
        if !is_so {
            let text = otherwise.into();
            self.mark(MarkKind::Seen, &format!("unexpected: {text}"));
            self.surprises.push(text);
        }
    }

    // --- what is waited for ------------------------------------------------------------------------------------------

    pub fn until(&self, what: &str, condition: impl FnMut() -> bool) -> Step {
        wait(self.stage, LIMIT, what, condition)
    }

    /// So much time passes.
    pub fn pause(&self, time: Duration) -> Step {
        match self.stage.cancel.wait_for(time) {
            true => Err(Trouble::Cancelled),
            false => Ok(()),
        }
    }

    pub fn has_written_since(&self, moment: Duration) -> bool {
        self.load.has_written_since(moment)
    }

    /// Until something that is sent from now on is acknowledged.
    pub fn writes(&mut self) -> Step {
        let now = self.now();
        self.until("a write is acknowledged", || self.load.has_written_since(now))?;
        self.seen("writes are acknowledged");
        Ok(())
    }

    pub fn reads(&mut self) -> Step {
        let now = self.now();
        self.until("a read is answered", || self.load.has_read_since(now))
    }

    /// Life goes on for a while, with everything as it is.
    pub fn live_on(&self) -> Step {
        let until = self.now() + CALM;
        self.until("writes go on", || self.load.has_written_since(until))
    }

    /// Until another node than this one, which cannot come back by itself, takes writes in a new epoch.
    pub fn another_primary(&mut self, than: &str) -> Step<String> {
        self.until_epoch(&format!("another primary than {than}"), |primary| primary != than)
    }

    /// Until somebody takes writes in a new epoch. It may be the same node: one whose agent has started it again before anybody
    /// was promoted is taken back, with everything it has.
    pub fn next_primary(&mut self) -> Step<String> {
        self.until_epoch("a primary of a new epoch", |_| true)
    }

    fn until_epoch(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> Step<String> {
        let before = self.epoch;
        self.until(what, || {
            let record = self.stage.record();
            record.epoch > before && record.phase == "stable" && is_it(&record.primary)
        })?;
        let record = self.stage.record();
        self.epoch = record.epoch;
        self.seen(format!("{} is the primary of epoch {}", record.primary, record.epoch));
        self.writes()?;
        Ok(record.primary)
    }

    /// Until every node is where it belongs.
    pub fn whole(&mut self, what: &str) -> Step {
        let began = Instant::now();
        let mut last = String::new();
        loop {
            match self.stage.is_whole() {
                Ok(()) => break,
                Err(reason) => last.clone_from(&reason),
            }
            if began.elapsed() > WHOLE {
                return Err(Trouble::Stuck(format!("{what}: not whole after {} s: {last}", WHOLE.as_secs())));
            }
            self.pause(Duration::from_millis(50))?;
        }
        let _ = last;
        self.seen("whole: all nodes stream, and no agent is at work");
        Ok(())
    }

    /// It is the primary it was, in the same epoch.
    pub fn expect_no_failover(&mut self) {
        let (record, first) = (self.stage.record(), self.first.clone());
        let text = format!(
            "epoch {} with {} instead of epoch {} with {}",
            record.epoch, record.primary, first.epoch, first.primary
        );
        self.expect(record.epoch == first.epoch && record.primary == first.primary, text);
    }

    // --- what can be broken, and asked ---------------------------------------------------------------------------------

    /// By the record.
    pub fn primary(&self) -> String {
        self.stage.record().primary
    }

    /// All others.
    pub fn standbys(&self) -> Vec<String> {
        let primary = self.primary();
        self.stage.ids().into_iter().filter(|id| *id != primary).collect()
    }

    /// One of them.
    pub fn standby(&self) -> Step<String> {
        self.standbys().pop().ok_or_else(|| Trouble::Stuck("there is no standby".into()))
    }

    pub fn host(&self, id: &str) -> &'s Host {
        self.stage.host(id)
    }

    /// It has to be there: scenarios that need it say so.
    pub fn network(&self) -> Step<&'s Network> {
        self.stage.network.as_deref().ok_or_else(|| Trouble::Skipped(self.stage.no_network.clone()))
    }

    pub fn is_quorum(&self) -> bool {
        self.stage.durability == Durability::Quorum
    }

    pub fn ask(&self, id: &str, sql: &str) -> Step<String> {
        self.stage.server(id).ask(sql).ok_or_else(|| Trouble::Stuck(format!("{id} does not answer {sql}")))
    }

    pub fn order(&mut self, path: &str, body: Value) -> Result<String, String> {
        self.fault(format!("POST {path} {body}"));
        let answer = self.stage.order(path, &body);
        let text = match &answer {
            Ok(done) => format!("done: {done}"),
            Err(reason) => format!("refused: {reason}"),
        };
        self.seen(text);
        answer
    }

    /// Exchanges the primary; that it is done is expected.
    pub fn switchover(&mut self) -> Step<String> {
        let before = self.primary();
        let answer = self.order("/switchover", json!({}));
        self.expect(answer.is_ok(), format!("the switchover was refused: {}", answer.err().unwrap_or_default()));
        self.epoch = self.stage.record().epoch;
        let after = self.primary();
        self.expect(after != before, format!("{before} is the primary still"));
        self.writes()?;
        Ok(after)
    }

    /// A host stands still, its agent too.
    pub fn freeze(&mut self, id: &str) {
        self.host(id).freeze();
        self.fault(format!("{id} stands still"));
    }

    /// A host goes down at once, with all that runs on it, and comes back when it is told to.
    pub fn switch_off(&mut self, id: &str) {
        self.freeze(id);
        self.host(id).switch_off();
    }

    /// SIGKILL to all of a server at once.
    pub fn kill_server(&mut self, id: &str) {
        // From the moment on in which it answers nobody.
        let frozen = self.host(id).server_pid().map(faults::freeze_all).unwrap_or_default();
        self.fault(format!("kill -9 of {id}'s PostgreSQL, all of it"));
        faults::kill_these(&frozen);
    }
}

fn wait(stage: &Stage, limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Step {
    let began = Instant::now();
    while !condition() {
        if stage.cancel.wait_for(LOOK) {
            return Err(Trouble::Cancelled);
        }
        if began.elapsed() > limit {
            let state = stage.is_whole().err().map(|reason| format!(" ({reason})")).unwrap_or_default();
            return Err(Trouble::Stuck(format!("not within {} s: {what}{state}", limit.as_secs())));
        }
    }
    Ok(())
}

pub(super) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
