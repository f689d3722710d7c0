//! Making a node a standby again: as it is, by `pg_rewind`, or by a copy of everything, whichever is the cheapest that is right.
//!
//! First both sides are asked, and refusals come before anything is touched. Then the server is stopped, its log read to the
//! end and compared with the primary's (`local`, `timelines`, `compare`), a repair chosen (`choose`), what only this node has put
//! aside (`kept`), the repair done (`rewind`, `copy`), and the node started and watched until it replays (`standby`). It can be
//! cut off anywhere: `note` and `swap` know what was begun.

mod choose;
mod compare;
mod control;
mod copy;
mod kept;
mod local;
mod note;
mod program;
mod rewind;
mod server;
mod settings;
mod standby;
mod swap;
mod timelines;

use super::{Failed, Place, Server, Site, Steps};
use crate::cluster::agent::{Code, Deed, Diverged, Repair, Shutdown};
use crate::types::Lsn;

use choose::{Choice, Found, Tried, choose};
use compare::{Sameness, compare};
use control::Control;
use copy::Worth;
use local::Local;
use note::{Note, Stage};
use server::Source;
use standby::NotYet;
use swap::Spot;
use timelines::{OPEN, Stretch, relate};

/// Why a server must not be started on this data as it is: a repair of it has begun and not ended. [`rejoin`] goes on with it.
pub fn unfinished(site: &Site) -> Option<String> {
    let note = Note::read(site)?;
    note.forbids_start().then(|| format!("a repair of its data was interrupted ({})", note.why))
}

/// Ends when the node receives from the primary and replays what it receives. Can be dropped at any moment (a newer order has
/// come), and called again.
pub async fn rejoin(
    site: &Site,
    server: &dyn Server,
    primary: &Place,
    repair: Repair,
    steps: &Steps,
) -> Result<Deed, Failed> {
    if site.node == primary.node {
        return Err(Failed::new(Code::Impossible, "a node cannot be a standby of itself"));
    }
    steps.say(format!("looking at {}", primary.node));
    let note = Note::read(site);
    let local = local::look(site).await;
    check_identity(&local, primary, note.as_ref())?;
    let source = Source::ask(site, primary, settings::known_conninfo(site)).await?;
    let may_stay = matches!(repair, Repair::Auto | Repair::Follow) && server.is_running();
    if may_stay && unfinished(site).is_none() && standby::is_one(site, primary, &source).await {
        // It may have been made one by a repair whose end nobody waited for.
        let made = note.filter(|note| note.stage == Stage::Made);
        forget(site);
        let why = format!("it follows {} already", primary.node);
        return Ok(deed(Choice { repair: Repair::Follow, why }, None, made));
    }
    let was_standby = server.is_running() && local::is_standby(site);
    stop(server, steps).await?;
    let mut work = Work { site, server, place: primary, source, steps };
    let done = work.repair(repair, note).await;
    // A standby that could not be made this primary's goes on as what it was, and may serve reads.
    if done.is_err()
        && was_standby
        && !server.is_running()
        && unfinished(site).is_none()
        && local::is_standby(site)
        && let Err(error) = server.start().await
    {
        tracing::warn!(%error, "the standby could not be started again");
    }
    done
}

/// Whether the data may be made the ordered cluster's: before anything is stopped.
fn check_identity(local: &Local, primary: &Place, note: Option<&Note>) -> Result<(), Failed> {
    match local {
        // In the middle of a repair anything may lie there.
        Local::Foreign(_) if note.is_some_and(Note::forbids_start) => Ok(()),
        Local::Foreign(reason) => Err(Failed::new(Code::Impossible, format!("{reason}; it stays as it is"))),
        Local::Data(control) if control.system_identifier != primary.system_identifier => Err(Failed::new(
            Code::OtherCluster,
            format!(
                "the data directory belongs to another cluster: its system identifier is {}, and {} was ordered; it stays \
                 as it is",
                control.system_identifier, primary.system_identifier
            ),
        )),
        _ => Ok(()),
    }
}

async fn stop(server: &dyn Server, steps: &Steps) -> Result<(), Failed> {
    if !server.is_running() {
        return Ok(());
    }
    steps.say("stopping the server");
    match server.stop(Shutdown::Fast).await {
        Ok(()) => Ok(()),
        Err(_) => server.stop(Shutdown::Immediate).await,
    }
}

/// One repair, with everything that it needs.
struct Work<'a> {
    site: &'a Site,
    server: &'a dyn Server,
    place: &'a Place,
    source: Source,
    steps: &'a Steps,
}

/// What was found in the data directory, with the facts that the choice left aside.
struct Examined {
    found: Found,
    control: Option<Control>,
    stretches: Vec<Stretch>,
}

impl Examined {
    fn end(&self) -> Option<Lsn> {
        match &self.found {
            Found::Log { end, .. } => Some(*end),
            _ => None,
        }
    }
}

impl Work<'_> {
    async fn repair(&mut self, repair: Repair, mut note: Option<Note>) -> Result<Deed, Failed> {
        let Work { site, server, place, steps, .. } = *self;
        kept::make_directory(site)?;
        kept::sweep(&site.kept_dir);
        Spot::of(site)?.recover(site, note.as_mut()).await?;
        if !note.as_ref().is_some_and(Note::forbids_start) {
            // The data directory has them.
            settings::forget(site);
        }
        let mut tried: Vec<Tried> = Vec::new();
        loop {
            let examined = self.examine(note.as_ref()).await?;
            let timeline = self.source.timeline;
            let is_made = |note: &Note| {
                note.stage == Stage::Made
                    && note.timeline == timeline
                    && (repair != Repair::Rebuild || note.repair == Repair::Rebuild)
            };
            let is_ready = tried.is_empty() && local::is_fresh(site) && note.as_ref().is_some_and(is_made);
            let choice = match (&note, is_ready) {
                // It only has to be started.
                (Some(made), true) => Choice { repair: made.repair, why: made.why.clone() },
                _ => choose(repair, &examined.found, &tried)?,
            };
            steps.say(format!("{}: {}", choice.repair.as_str(), choice.why));
            self.source.make_slot(&site.node).await;
            let source = &self.source;
            let done = match choice.repair {
                _ if is_ready => settings::prepare(site, &site.data_dir, source),
                Repair::Follow | Repair::Auto => settings::prepare(site, &site.data_dir, source),
                Repair::Rewind => {
                    let mut begun = self.begin(&choice, &examined, note.take()).await?;
                    let done = match &examined.control {
                        Some(control) => rewind::rewind(site, control, source, &mut begun, steps).await,
                        None => Err(Failed::new(Code::Failed, "there is no data to rewind")),
                    };
                    note = Some(begun);
                    done
                }
                Repair::Rebuild => {
                    let worth = worth(&examined, note.as_ref());
                    let mut begun = self.begin(&choice, &examined, note.take()).await?;
                    copy::rebuild(site, place, source, worth, &mut begun, steps).await?;
                    note = Some(begun);
                    Ok(())
                }
            };
            let trouble = match done {
                Err(error) if choice.repair == Repair::Rewind => NotYet::Data(error.reason),
                Err(error) => return Err(error),
                Ok(()) => match self.start().await {
                    Ok(()) => {
                        forget(site);
                        return Ok(deed(choice, examined.end(), note));
                    }
                    Err(trouble) => trouble,
                },
            };
            let reason = match trouble {
                NotYet::Other(error) => return Err(error),
                NotYet::Data(reason) if repair == Repair::Follow => {
                    return Err(Failed::new(Code::Impossible, format!("it cannot follow as it is: {reason}")));
                }
                NotYet::Data(reason) if choice.repair == Repair::Rebuild => {
                    return Err(Failed::new(Code::Failed, format!("it was made anew, and all the same: {reason}")));
                }
                NotYet::Data(reason) => reason,
            };
            steps.say(format!("{} did not work: {reason}", choice.repair.as_str()));
            tried.push(Tried { repair: choice.repair, reason });
            stop(server, steps).await?;
        }
    }

    async fn start(&mut self) -> Result<(), NotYet> {
        // A copy may have taken hours, in which nothing was said on the old connection.
        self.source.reconnect(self.site, self.place).await.map_err(NotYet::Other)?;
        standby::start(self.site, self.server, self.place, &self.source, self.steps).await
    }

    /// Of a server that is stopped.
    async fn examine(&self, note: Option<&Note>) -> Result<Examined, Failed> {
        let Work { site, source, .. } = self;
        let without = |found| Examined { found, control: None, stretches: Vec::new() };
        let local = local::look(site).await;
        check_identity(&local, self.place, note)?;
        if let Some(note) = note.filter(|note| note.forbids_start()) {
            return Ok(without(match local {
                Local::Empty => Found::Empty,
                _ => Found::Damaged(format!("a repair of it was interrupted ({})", note.why)),
            }));
        }
        let control = match local {
            Local::Empty => return Ok(without(Found::Empty)),
            Local::Damaged(reason) | Local::Foreign(reason) => return Ok(without(Found::Damaged(reason))),
            Local::Data(control) => control,
        };
        self.steps.say("reading its log to the end");
        let stretches = match local::log(site, &control).await {
            Ok(stretches) => stretches,
            Err(reason) => return Ok(without(Found::Damaged(reason))),
        };
        // Asked after the node has stopped: whatever it has of this log, the primary has written by now.
        let flushed = source.flushed().await?;
        let mut theirs = source.chain.clone();
        for stretch in theirs.iter_mut().filter(|stretch| stretch.to == OPEN) {
            stretch.to = flushed.max(stretch.from);
        }
        let relation = relate(&stretches, &theirs);
        let sameness = match relation {
            Some(relation) => compare(site, &control, source, relation.shared).await,
            None => Sameness::Same,
        };
        let no_rewind = rewind::refused(site, &control, source).await?;
        let (timeline, end) = stretches.last().map_or((control.timeline, Lsn(0)), |last| (last.timeline, last.to));
        let found = Found::Log { timeline, end, primary_timeline: source.timeline, relation, sameness, no_rewind };
        Ok(Examined { found, control: Some(control), stretches })
    }

    /// Notes what is begun, after what the primary does not have was counted and put aside.
    async fn begin(&self, choice: &Choice, examined: &Examined, before: Option<Note>) -> Result<Note, Failed> {
        let mut note = copy::note(&self.source, &choice.why);
        note.repair = choice.repair;
        note.end = examined.end();
        // In the middle of a repair, only what was noted before is known of it.
        let (stage, end, diverged) = before.map_or((Stage::Made, None, None), |it| (it.stage, it.end, it.diverged));
        note.diverged = self.put_aside(choice, examined).await.or(diverged);
        note.end = note.end.or(end);
        if stage == Stage::Unusable {
            note.stage = stage;
        }
        note.write(self.site)?;
        Ok(note)
    }

    async fn put_aside(&self, choice: &Choice, examined: &Examined) -> Option<Diverged> {
        let (control, from) = (examined.control.as_ref()?, fork(&examined.found)?);
        let last = examined.stretches.last()?;
        let mut lost = Diverged { timeline: last.timeline, from, to: last.to, commits: None, kept: String::new() };
        self.steps.say(format!("putting aside what the primary does not have, from {from} to {}", last.to));
        match local::commits(self.site, control, &examined.stretches, from).await {
            Ok(commits) => lost.commits = Some(commits),
            Err(reason) => tracing::warn!(reason, "the commits that are lost cannot be counted"),
        }
        let files = local::segments(control, &examined.stretches, from);
        match kept::keep_log(self.site, files, &lost, &choice.why).await {
            Ok(path) => lost.kept = path.display().to_string(),
            Err(reason) => tracing::warn!(reason, "what diverged is not kept aside"),
        }
        Some(lost)
    }
}

/// Where the node's log leaves the primary's, if it does.
fn fork(found: &Found) -> Option<Lsn> {
    let Found::Log { relation: Some(relation), sameness, .. } = found else { return None };
    match sameness {
        Sameness::Other(at) => Some(*at),
        _ => relation.beyond.map(|_| relation.shared.to),
    }
}

/// Data of which it is not known that the primary has all of it is worth something.
fn worth(examined: &Examined, note: Option<&Note>) -> Worth {
    match &examined.found {
        Found::Empty | Found::Damaged(_) => Worth::Nothing,
        _ if note.is_some_and(|note| note.stage == Stage::Made) => Worth::Nothing,
        Found::Log { relation: Some(relation), sameness: Sameness::Same, .. } if relation.beyond.is_none() => {
            Worth::Nothing
        }
        Found::Log { .. } => Worth::Something,
    }
}

fn deed(choice: Choice, end: Option<Lsn>, note: Option<Note>) -> Deed {
    match note {
        Some(note) => Deed { repair: Some(note.repair), why: note.why, end: note.end.or(end), diverged: note.diverged },
        None => Deed { repair: Some(choice.repair), why: choice.why, end, diverged: None },
    }
}

/// A repair has come to its end.
fn forget(site: &Site) {
    Note::remove(site);
    settings::forget(site);
}
