//! A drill on a cluster that somebody has: what can be done to it from outside, with consent, under a gentle load.
//!
//! It knows the cluster as an operator does, by pgbaton's admin endpoint ([`admin`]), and as an application does, by the proxy. It
//! makes a schema of its own there and takes it away again ([`ground`]), whatever comes of the drill.

mod account;
mod admin;
mod consent;
mod deeds;
mod ground;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::checker::{Tables, judge};
use super::figures::{figures, ms, slices};
use super::findings::{judged, not_applicable, promises};
use super::load::{Crew, Load, Log};
use super::outcome::{End, Figures, Judged, Mark, MarkKind, Plan, Promise, Report, Run};
use super::reach::Reach;
use super::words::span;
use crate::demo::{self, Cancel};
use crate::net::http::HttpUrl;
use admin::{Admin, Before};
pub use deeds::{Deed, UserCommands};
pub use ground::{Dsn, SCHEMA};
use ground::{Ground, Reader};

/// Calm before the fault, for the eye to compare with.
const CALM: Duration = Duration::from_secs(3);
/// How long clients may take to be at work, and to write again after something was done.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the cluster may take to be as it was.
const WHOLE: Duration = Duration::from_secs(300);
/// Between two looks, at our own clients and at pgbaton.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_AT_CLUSTER: Duration = Duration::from_millis(250);

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    pub on: HttpUrl,
    pub token: Option<String>,
    /// Of the proxy.
    pub dsn: Dsn,
    /// Of nodes, which are read past the proxy in the end.
    pub nodes: Vec<(String, Dsn)>,
    pub deeds: Vec<Deed>,
    pub commands: UserCommands,
    pub clients: usize,
    /// How long the load goes on after the fault, at least.
    pub seconds: Duration,
    /// The cluster's name, as consent in advance.
    pub yes: Option<String>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum YoursError {
    /// Nothing was touched.
    #[error("{0}")]
    NoConsent(String),
    #[error("{0}")]
    Failed(String),
}

impl From<String> for YoursError {
    fn from(reason: String) -> Self {
        YoursError::Failed(reason)
    }
}

/// Asks, plays all of it, and takes away what it made. Ctrl-C ends it early, with what is known so far.
pub fn run(options: &Options) -> Result<Report, YoursError> {
    let admin = Admin::new(options.on.clone(), options.token.clone())?;
    let cluster = admin.cluster()?;
    let before = Before::of(&cluster)?;
    consent::ask(options, &cluster)?;
    let cancel = Cancel::default();
    demo::cancel_on_signal(cancel.clone()).map_err(|error| format!("cannot handle signals: {error}"))?;
    let mut report =
        Report { version: env!("CARGO_PKG_VERSION").into(), postgres: String::new(), began: now(), runs: Vec::new() };
    report.postgres = ground::version(&options.dsn)?;
    for deed in &options.deeds {
        if cancel.check().is_err() {
            break;
        }
        let durability = cluster.durability.to_string();
        report.runs.push(play(options, *deed, &admin, &before, &durability, &cancel));
    }
    Ok(report)
}

/// In milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms)
}

fn play(options: &Options, deed: Deed, admin: &Admin, before: &Before, durability: &str, cancel: &Cancel) -> Run {
    let begun = Instant::now();
    let mut run = Run {
        scenario: deed.name().into(),
        does: deed.does(&options.commands),
        expects: deed.expects().into(),
        plan: Plan::Pgbaton,
        durability: durability.into(),
        took: 0,
        end: End::Played,
        promises: Vec::new(),
        figures: Figures::default(),
        marks: Vec::new(),
        slices: Vec::new(),
        story: Vec::new(),
    };
    let tell = |what: &str| eprintln!("{:>7.1} s  {}: {what}", begun.elapsed().as_secs_f64(), deed.name());
    tell("making the tables");
    match Ground::make(&options.dsn) {
        Err(reason) => run.end = End::Stuck { reason },
        Ok(ground) => {
            let scene = Scene { options, deed, admin, before, cancel, tell: &tell };
            scene.play(&ground, &mut run);
            tell("removing the tables");
            if let Err(reason) = ground.remove() {
                run.end = End::Stuck { reason };
            }
        }
    }
    run.took = ms(begun.elapsed());
    run
}

/// What there is while it is played.
struct Scene<'s> {
    options: &'s Options,
    deed: Deed,
    admin: &'s Admin,
    before: &'s Before,
    cancel: &'s Cancel,
    tell: &'s dyn Fn(&str),
}

/// A gentle load of so many clients: half of them write, the others read, move money or say nothing.
fn crew(clients: usize) -> Crew {
    let (transfers, own_readers, readers, idle) = (clients / 8, clients / 4, clients / 8, clients / 8);
    Crew { writers: clients - transfers - own_readers - readers - idle, transfers, own_readers, readers, idle }
}

impl Scene<'_> {
    fn play(&self, ground: &Ground, run: &mut Run) {
        let crew = crew(self.options.clients);
        let load = Load::start_as(ground.account(), Reach::One(ground.address()), None, crew);
        let began = now();
        let mut surprises = Vec::new();
        let fault = match self.drive(&load, crew, ground, run, &mut surprises) {
            Ok(fault) => fault,
            Err((fault, end)) => {
                run.end = end;
                fault
            }
        };
        (self.tell)("ending the load, and judging");
        let log = load.end();
        run.slices = slices(&log);
        let Some(fault) = fault else {
            surprises.push("nothing was done: it did not come to that".into());
            run.promises.push(judged(Promise::AsExpected, surprises.join("\n")));
            return;
        };
        let tables = Tables::read(&ground.reader());
        match tables {
            Ok(tables) => {
                let verdict = judge(&log, &tables);
                run.figures = figures(&log, &verdict, fault);
                run.promises = promises(&verdict);
                surprises.extend(self.nodes_differ(&tables));
                run.promises.push(self.one_primary(&log, &tables));
            }
            Err(reason) => surprises.push(format!("the tables cannot be read through the proxy: {reason}")),
        }
        run.promises.push(judged(Promise::AsExpected, surprises.join("\n")));
        match self.admin.history() {
            Ok(entries) => account::tell(&entries, began, fault, run),
            Err(reason) => (self.tell)(&format!("no history: {reason}")),
        }
    }

    /// From the first client to a cluster that is as it was; when the fault was. What is not as expected is noted.
    fn drive(
        &self,
        load: &Load,
        crew: Crew,
        ground: &Ground,
        run: &mut Run,
        surprises: &mut Vec<String>,
    ) -> Result<Option<Duration>, (Option<Duration>, End)> {
        let before = |end| (None, end);
        self.wait(LIMIT, LOOK, "all clients are connected and write", || {
            Ok(load.connected() == crew.size() as u64 && load.has_written_since(Duration::ZERO))
        })
        .map_err(before)?;
        self.pass(CALM).map_err(before)?;
        let fault = load.now();
        let mut mark = |kind: MarkKind, text: String| {
            (self.tell)(&text);
            run.marks.push(Mark { at: ms(load.now()), kind, text });
        };
        let during = |end| (Some(fault), end);
        let hand = deeds::Hand { admin: self.admin, ground, cancel: self.cancel, commands: &self.options.commands };
        surprises.extend(hand.act(self.deed, self.options.seconds, &mut mark).map_err(during)?);
        let acted = load.now();
        if self.deed != Deed::Break || self.options.commands.mend.is_some() {
            self.wait(LIMIT, LOOK, "clients write again", || Ok(load.has_written_since(acted))).map_err(during)?;
            mark(MarkKind::Seen, "clients write".into());
        }
        self.pass(self.options.seconds.saturating_sub(load.now().saturating_sub(fault))).map_err(during)?;
        if self.deed != Deed::Break || self.options.commands.mend.is_some() {
            (self.tell)("waiting until the cluster is as it was");
            self.wait(WHOLE, LOOK_AT_CLUSTER, "the cluster is as it was", || {
                // One that cannot be asked for a moment is not as it was.
                let missing = self.admin.cluster().map_or_else(Some, |now| self.before.missing(&now));
                missing.map_or(Ok(true), Err)
            })
            .map_err(during)?;
            mark(MarkKind::Seen, "the cluster is as it was".into());
        }
        Ok(Some(fault))
    }

    /// Whether each node that may be asked holds what the primary holds.
    fn nodes_differ(&self, tables: &Tables) -> Vec<String> {
        let differ = |(id, dsn): &(String, Dsn)| {
            let reader = Reader::of_node(id, dsn);
            let deadline = Instant::now() + LIMIT;
            loop {
                match Tables::read(&reader) {
                    Ok(found) if found == *tables => return None,
                    // A replica may be behind for a moment.
                    _ if Instant::now() < deadline && self.pass(LOOK_AT_CLUSTER).is_ok() => {}
                    Ok(found) => {
                        let missing = tables.ids.keys().filter(|id| !found.ids.contains_key(id)).count();
                        let more = found.ids.keys().filter(|id| !tables.ids.contains_key(id)).count();
                        return Some(format!(
                            "{id} lacks {missing} rows of the primary, and has {more} that it has not"
                        ));
                    }
                    Err(reason) => return Some(reason),
                }
            }
        };
        self.options.nodes.iter().filter_map(differ).collect()
    }

    /// A node that took writes behind the primary's back holds rows that the primary has not.
    fn one_primary(&self, log: &Log, tables: &Tables) -> Judged {
        if self.options.nodes.is_empty() {
            let why = "the tables were read through the proxy, on the primary: without --node nobody asks the others";
            return not_applicable(Promise::OnePrimary, why);
        }
        let mut against = Vec::new();
        for (id, dsn) in &self.options.nodes {
            let Ok(found) = Tables::read(&Reader::of_node(id, dsn)) else { continue };
            let is_behind =
                |write: &&super::load::Write| found.ids.contains_key(&write.id) && !tables.ids.contains_key(&write.id);
            let behind: Vec<u64> = log.writes.iter().filter(is_behind).map(|write| write.id).collect();
            if !behind.is_empty() {
                against
                    .push(format!("{id} has writes that the primary has not: {}", super::findings::examples(&behind)));
            }
        }
        judged(Promise::OnePrimary, against.join("\n"))
    }

    fn pass(&self, time: Duration) -> Result<(), End> {
        match self.cancel.wait_for(time) {
            true => Err(End::Stuck { reason: "it was interrupted".into() }),
            false => Ok(()),
        }
    }

    /// `Err` from the condition says what is missing.
    fn wait(
        &self,
        limit: Duration,
        every: Duration,
        what: &str,
        mut is_so: impl FnMut() -> Result<bool, String>,
    ) -> Result<(), End> {
        let deadline = Instant::now() + limit;
        loop {
            let missing = match is_so() {
                Ok(true) => return Ok(()),
                Ok(false) => String::new(),
                Err(missing) => format!(": {missing}"),
            };
            if Instant::now() > deadline {
                return Err(End::Stuck { reason: format!("not so after {}: {what}{missing}", span(ms(limit))) });
            }
            self.pass(every)?;
        }
    }
}
