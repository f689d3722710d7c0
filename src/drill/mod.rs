//! `pgbaton drill`: breaks a cluster under load, and judges what clients saw.
//!
//! Clients ([`load`], [`clients`]) write down what they did and were told; the judge ([`checker`]) compares that with what each node
//! holds, and asks nobody else. A scenario ([`scenarios`]) is played ([`play`]) on a throw-away cluster ([`stage`]), which is used for
//! the next one if it is whole afterwards; what came of it is data ([`outcome`]), and nothing else is printed from ([`mod@print`],
//! [`report`]). The same can be played without pgbaton ([`compare`]), and some of it on a cluster that somebody has ([`yours`]).

pub mod baton;
pub mod checker;
pub mod clients;
pub mod compare;
pub mod faults;
pub mod figures;
pub mod findings;
pub mod load;
pub mod network;
pub mod outcome;
mod play;
pub mod print;
pub mod reach;
pub mod report;
pub mod scenarios;
mod stage;
mod verdict;
mod watch;
pub mod wire;
pub mod words;
pub mod yours;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::demo::{self, Cancel, PgBin};
use crate::programs::ProgramError;
use crate::types::Durability;
use figures::ms;
use outcome::{End, Figures, Plan, Report, Run};
use play::{Play, Trouble, say};
use scenarios::Scenario;
use stage::{Stage, StageError};

/// What is played when nothing is named: a minute of what people fear most, and of what they plan.
pub const TOUR: [&str; 4] = ["kill-primary", "freeze-primary", "kill-replica", "switchover"];

/// What the command line says.
pub struct Options {
    pub scenarios: Vec<Scenario>,
    pub durability: Durability,
    /// How long the load goes on after the fault.
    pub seconds: u64,
    /// Where the logs of a run that went wrong are kept.
    pub keep: Option<PathBuf>,
    /// Each is played without pgbaton too, where a standby is promoted by hand so long after the fault.
    pub operator_after: Option<Duration>,
}

/// Why there was no drill.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error("cannot handle signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("there is no cluster to break: {0}")]
    Stage(#[from] StageError),
}

/// Plays them one after the other, until Ctrl-C or SIGTERM; a second one leaves the cleaning up to the sweeper.
pub fn run(options: Options) -> Result<Report, DrillError> {
    let cancel = Cancel::default();
    demo::cancel_on_signal(cancel.clone()).map_err(DrillError::Signals)?;
    let postgres = PgBin::find()?.version().to_string();
    let mut report =
        Report { version: env!("CARGO_PKG_VERSION").into(), postgres, began: play::unix_ms(), runs: Vec::new() };
    let mut stage = None;
    let count = options.scenarios.len();
    for (scenario, number) in options.scenarios.iter().zip(1..) {
        if cancel.check().is_err() {
            break;
        }
        say(scenario.name, None, &format!("{number} of {count}: {}", scenario.does));
        let made = match stage.take() {
            Some(stage) => Ok(stage),
            None => {
                say(scenario.name, None, "a new cluster is made");
                Stage::set(options.durability, &cancel)
            }
        };
        let run = match made {
            Ok(made) => {
                let (run, is_whole) = one(&made, scenario, options.seconds);
                keep_logs(&made, &run, options.keep.as_deref());
                stage = is_whole.then_some(made);
                run
            }
            Err(_) if cancel.check().is_err() => break,
            Err(error) if report.runs.is_empty() => return Err(error.into()),
            Err(error) => nothing(scenario, options.durability, End::Stuck { reason: error.to_string() }),
        };
        say(scenario.name, None, &last_words(&run));
        let is_played = !matches!(run.end, End::Skipped { .. });
        report.runs.push(run);
        if let Some(operator_after) = options.operator_after.filter(|_| is_played && cancel.check().is_ok()) {
            let seconds = Duration::from_secs(options.seconds);
            let plain = compare::Plain { operator_after, seconds, cancel: cancel.clone() };
            let run = compare::play(scenario.name, &plain, &|what| say(scenario.name, None, what));
            say(scenario.name, None, &last_words(&run));
            report.runs.push(run);
        }
    }
    Ok(report)
}

/// A run in which nothing was played.
fn nothing(scenario: &Scenario, durability: Durability, end: End) -> Run {
    Run {
        scenario: scenario.name.into(),
        does: scenario.does.into(),
        expects: scenario.expects.into(),
        plan: Plan::Pgbaton,
        durability: durability.as_str().into(),
        took: 0,
        end,
        promises: Vec::new(),
        figures: Figures::default(),
        marks: Vec::new(),
        slices: Vec::new(),
        story: Vec::new(),
    }
}

/// Plays one, and says whether the stage can be used for another.
fn one(stage: &Stage, scenario: &Scenario, seconds: u64) -> (Run, bool) {
    let skipped = |reason: String| nothing(scenario, stage.durability, End::Skipped { reason });
    if let Some(only) = scenario.only.filter(|only| *only != stage.durability) {
        return (skipped(format!("it is about durability \"{}\"", only.as_str())), true);
    }
    if scenario.needs_network && stage.network.is_none() {
        return (skipped(format!("it cuts cables, and {}", stage.no_network)), true);
    }
    let began = Instant::now();
    let mut play = match Play::begin(stage, scenario.name) {
        Ok(play) => play,
        Err(Trouble::Cancelled) => return (skipped("interrupted".into()), true),
        Err(Trouble::Skipped(reason)) => return (skipped(reason), true),
        Err(Trouble::Stuck(reason)) => return (nothing(scenario, stage.durability, End::Stuck { reason }), false),
    };
    let outcome = (scenario.play)(&mut play);
    let (played, outcome) = play.end(seconds, outcome);
    let (promises, figures) = verdict::promises(scenario, stage.durability, &played, &outcome);
    let end = match outcome {
        Ok(()) => End::Played,
        Err(Trouble::Skipped(reason)) => End::Skipped { reason },
        Err(Trouble::Cancelled) => End::Skipped { reason: "interrupted".into() },
        Err(Trouble::Stuck(reason)) => End::Stuck { reason },
    };
    let run = Run {
        took: ms(began.elapsed()),
        promises,
        figures,
        slices: figures::slices(&played.log),
        story: verdict::story(&played),
        marks: played.marks,
        ..nothing(scenario, stage.durability, end)
    };
    (run, played.is_whole)
}

fn last_words(run: &Run) -> String {
    let took = run.took as f64 / 1000.0;
    let failed = run.promises.iter().filter(|judged| judged.verdict == outcome::Verdict::Fail);
    let broken: Vec<String> = failed.map(|judged| format!("{:?}: {}", judged.promise, judged.why)).collect();
    match &run.end {
        End::Skipped { reason } => format!("skipped: {reason}"),
        End::Stuck { reason } => format!("STUCK: {reason}"),
        End::Played if broken.is_empty() => format!("kept all promises; {took:.1} s"),
        End::Played => format!("BROKEN: {}", broken.join("; ")),
    }
}

/// Of a run that went wrong: whoever wonders why finds it there.
fn keep_logs(stage: &Stage, run: &Run, keep: Option<&Path>) {
    let Some(keep) = keep.filter(|_| run.is_bad()) else { return };
    let to = keep.join(&run.scenario);
    let copy = || -> std::io::Result<()> {
        std::fs::create_dir_all(&to)?;
        for entry in std::fs::read_dir(stage.hosts.directory().join("log"))? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    };
    match copy() {
        Ok(()) => say(&run.scenario, None, &format!("all logs are in {}", to.display())),
        Err(error) => say(&run.scenario, None, &format!("the logs cannot be kept in {}: {error}", to.display())),
    }
}
