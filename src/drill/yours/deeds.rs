//! What can be done to a cluster from outside, by orders to pgbaton and by commands of the user's own.

use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::admin::Admin;
use super::ground::{APPLICATION, Ground, SCHEMA};
use crate::demo::Cancel;
use crate::drill::outcome::{End, MarkKind};
use crate::drill::wire::Batch;

/// How long a command of the user's may take.
const COMMAND: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(20);
/// How long the long transaction stays open after the switchover was ordered. Less than `failover.drain` by default, and yet long.
const LONG: Duration = Duration::from_secs(2);
/// Between a pause and its end.
const PAUSED: Duration = Duration::from_secs(2);

/// What breaks the cluster, and what mends it.
#[derive(Clone, Debug, Default)]
pub struct UserCommands {
    pub breaks: Option<String>,
    pub mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Switchover,
    SwitchoverWithLongTransaction,
    FailoverByOrder,
    RestartStandbys,
    RollingRestart,
    TerminateBackends,
    PauseAndResume,
    /// By the user's commands.
    Break,
}

impl Deed {
    /// Those that need no command.
    pub const ALL: [Deed; 7] = [
        Deed::Switchover,
        Deed::SwitchoverWithLongTransaction,
        Deed::FailoverByOrder,
        Deed::RestartStandbys,
        Deed::RollingRestart,
        Deed::TerminateBackends,
        Deed::PauseAndResume,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Deed::Switchover => "switchover",
            Deed::SwitchoverWithLongTransaction => "switchover-with-long-transaction",
            Deed::FailoverByOrder => "failover-by-order",
            Deed::RestartStandbys => "restart-standbys",
            Deed::RollingRestart => "rolling-restart",
            Deed::TerminateBackends => "terminate-backends",
            Deed::PauseAndResume => "pause-and-resume",
            Deed::Break => "break",
        }
    }

    pub fn does(self, commands: &UserCommands) -> String {
        match self {
            Deed::Switchover => "another node is made the primary, as planned".into(),
            Deed::SwitchoverWithLongTransaction => {
                "another node is made the primary while a transaction is open that has written".into()
            }
            Deed::FailoverByOrder => {
                "a replica is made the primary at once, without waiting for the present one".into()
            }
            Deed::RestartStandbys => "each standby's server is restarted by its agent, one after the other".into(),
            Deed::RollingRestart => {
                "every server is restarted by its agent: the standbys, and after a switchover the primary of the past"
                    .into()
            }
            Deed::TerminateBackends => {
                "the drill's own server connections on the primary are ended (pg_terminate_backend)".into()
            }
            Deed::PauseAndResume => "changes of primary are forbidden, one is tried, and they are allowed again".into(),
            Deed::Break => {
                let breaks = commands.breaks.as_deref().unwrap_or_default();
                match &commands.mend {
                    Some(mend) => format!("runs `{breaks}`, and later `{mend}`"),
                    None => format!("runs `{breaks}`"),
                }
            }
        }
    }

    pub fn expects(self) -> &'static str {
        match self {
            Deed::Switchover | Deed::RollingRestart => "Clients wait for a moment and see no error; nothing is lost.",
            Deed::SwitchoverWithLongTransaction => "The open transaction may end, or is told that it did not happen.",
            Deed::FailoverByOrder => "Nothing is lost; the primary of the past comes back as a replica.",
            Deed::RestartStandbys => "Clients see no error: reads go to the others, or to the primary.",
            Deed::TerminateBackends => "Sessions keep their connections; there is no failover.",
            Deed::PauseAndResume => "The change of primary is refused; clients see nothing of it.",
            Deed::Break => "Nothing is lost, and when all is mended the cluster is as it was.",
        }
    }
}

impl FromStr for Deed {
    type Err = String;

    fn from_str(name: &str) -> Result<Deed, String> {
        let names = || Deed::ALL.map(Deed::name).join(", ");
        Deed::ALL.into_iter().find(|deed| deed.name() == name).ok_or_else(|| {
            format!("no scenario is called {name} that can be played on a cluster of one's own; there are {}", names())
        })
    }
}

/// What it is done with.
pub struct Hand<'h> {
    pub admin: &'h Admin,
    pub ground: &'h Ground,
    pub cancel: &'h Cancel,
    pub commands: &'h UserCommands,
}

type Mark<'m> = &'m mut dyn FnMut(MarkKind, String);

fn stuck(reason: impl Into<String>) -> End {
    End::Stuck { reason: reason.into() }
}

impl Hand<'_> {
    /// Returns when it was done, with what was not as expected. `seconds`: how long what is broken stays so.
    pub fn act(&self, deed: Deed, seconds: Duration, mark: Mark<'_>) -> Result<Vec<String>, End> {
        let mut surprises = Vec::new();
        match deed {
            Deed::Switchover => {
                mark(MarkKind::Fault, "a switchover is ordered".into());
                note(self.admin.switchover(), mark, &mut surprises);
            }
            Deed::SwitchoverWithLongTransaction => self.switch_over_a_transaction(mark, &mut surprises)?,
            Deed::FailoverByOrder => {
                let cluster = self.admin.cluster().map_err(stuck)?;
                // The most advanced one, so that nothing is lost by the choice.
                let best = cluster.nodes.iter().filter(|node| node.eligible).min_by_key(|node| node.lag_bytes);
                let to = best.map(|node| node.id.clone()).ok_or_else(|| stuck("no replica follows"))?;
                mark(MarkKind::Fault, format!("a failover to {to} is ordered"));
                note(self.admin.failover(&to), mark, &mut surprises);
            }
            Deed::RestartStandbys => {
                let standbys = self.standbys()?;
                mark(MarkKind::Fault, format!("{} are restarted", standbys.join(" and ")));
                for node in standbys {
                    note(self.admin.restart(&node), mark, &mut surprises);
                }
            }
            Deed::RollingRestart => self.roll(mark, &mut surprises)?,
            Deed::TerminateBackends => {
                let count = self.terminate().map_err(stuck)?;
                mark(MarkKind::Fault, format!("{count} server connections are ended"));
                if count == "0" {
                    surprises.push("no server connection of the drill was found on the primary".into());
                }
            }
            Deed::PauseAndResume => {
                mark(MarkKind::Fault, "pause is ordered".into());
                note(self.admin.pause(), mark, &mut surprises);
                match self.admin.switchover() {
                    Ok(done) => surprises.push(format!("a switchover was not refused while paused: {done}")),
                    Err(reason) => mark(MarkKind::Seen, format!("a switchover is refused: {reason}")),
                }
                let passed = self.pass(PAUSED);
                // Whatever happened: the cluster was not paused before.
                note(self.admin.resume(), mark, &mut surprises);
                passed?;
            }
            Deed::Break => {
                let Some(breaks) = &self.commands.breaks else { return Err(stuck("there is no command to break it")) };
                mark(MarkKind::Fault, breaks.clone());
                let done = self.shell(breaks).and_then(|()| self.pass(seconds));
                // Also after Ctrl-C: what was broken is not left so.
                if let Some(mend) = &self.commands.mend {
                    mark(MarkKind::Mended, mend.clone());
                    shell_to_the_end(mend).map_err(stuck)?;
                }
                done?;
            }
        }
        Ok(surprises)
    }

    fn standbys(&self) -> Result<Vec<String>, End> {
        let cluster = self.admin.cluster().map_err(stuck)?;
        let primary = cluster.primary.clone();
        Ok(cluster.nodes.into_iter().map(|node| node.id).filter(|id| Some(id) != primary.as_ref()).collect())
    }

    fn roll(&self, mark: Mark<'_>, surprises: &mut Vec<String>) -> Result<(), End> {
        let primary = self.admin.cluster().map_err(stuck)?.primary.ok_or_else(|| stuck("there is no primary"))?;
        mark(MarkKind::Fault, "every server is restarted".into());
        for node in self.standbys()? {
            note(self.admin.restart(&node), mark, surprises);
            self.wait_until_eligible(&node)?;
        }
        note(self.admin.switchover(), mark, surprises);
        self.wait_until_eligible(&primary)?;
        note(self.admin.restart(&primary), mark, surprises);
        Ok(())
    }

    /// One that does not follow cannot take over from the next.
    fn wait_until_eligible(&self, id: &str) -> Result<(), End> {
        let deadline = Instant::now() + super::LIMIT;
        loop {
            let cluster = self.admin.cluster();
            if cluster.is_ok_and(|cluster| {
                let is_voting = cluster.durability != "quorum" || cluster.voters.iter().any(|voter| voter == id);
                is_voting && cluster.nodes.iter().any(|node| node.id == id && node.eligible)
            }) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(stuck(format!("{id} does not follow")));
            }
            self.pass(LOOK)?;
        }
    }

    fn switch_over_a_transaction(&self, mark: Mark<'_>, surprises: &mut Vec<String>) -> Result<(), End> {
        let mut wire = self.ground.connect().map_err(stuck)?;
        let begin = format!("BEGIN; CREATE TABLE {SCHEMA}.long (n int); INSERT INTO {SCHEMA}.long VALUES (1)");
        let begun = wire.ask(Batch::new().query(&begin)).map_err(|error| stuck(error.to_string()))?;
        if let Some(said) = begun.errors.first() {
            return Err(stuck(format!("no long transaction: {} {}", said.code, said.message)));
        }
        mark(MarkKind::Fault, "a switchover is ordered while a transaction is open".into());
        let (done, told) = std::thread::scope(|scope| {
            let transaction = scope.spawn(|| {
                std::thread::sleep(LONG);
                wire.ask(Batch::new().query("COMMIT"))
            });
            let done = self.admin.switchover();
            // A panic in it is a fault of ours and goes on as one.
            (done, transaction.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        note(done, mark, surprises);
        let reader = self.ground.reader();
        let there =
            crate::drill::checker::Asked::ask(&reader, &format!("SELECT to_regclass('{SCHEMA}.long') IS NOT NULL"));
        let is_there = there.as_deref() == Some("t");
        match told {
            Ok(answer) if answer.errors.is_empty() => {
                mark(MarkKind::Seen, "the open transaction was committed".into());
                if !is_there {
                    surprises.push("the long transaction was said to be committed, and is not there".into());
                }
            }
            Ok(answer) => {
                let said =
                    answer.errors.first().map_or(String::new(), |said| format!("{} {}", said.code, said.message));
                mark(MarkKind::Seen, format!("the open transaction was told {said}"));
                if is_there && !said.starts_with("08007") {
                    surprises.push(format!("the long transaction was said to have failed ({said}), and is there"));
                }
            }
            Err(error) => surprises.push(format!("the session with the long transaction was dropped: {error}")),
        }
        Ok(())
    }

    fn terminate(&self) -> Result<String, String> {
        let mut wire = self.ground.connect()?;
        let sql = format!(
            "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = '{APPLICATION}' AND pid <> pg_backend_pid() OFFSET 0) AS ended"
        );
        let answer = wire.ask(Batch::new().query(&sql)).map_err(|error| error.to_string())?;
        match answer.errors.first() {
            Some(said) => Err(format!("{} {}", said.code, said.message)),
            None => Ok(answer.first().unwrap_or("0").to_owned()),
        }
    }

    fn pass(&self, time: Duration) -> Result<(), End> {
        match self.cancel.wait_for(time) {
            true => Err(stuck("it was interrupted")),
            false => Ok(()),
        }
    }

    fn shell(&self, command: &str) -> Result<(), End> {
        let mut child = start(command).map_err(stuck)?;
        let deadline = Instant::now() + COMMAND;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(stuck(format!("`{command}` ended with {status}"))),
                Ok(None) if Instant::now() < deadline => self.pass(LOOK).inspect_err(|_| end(&mut child))?,
                _ => {
                    end(&mut child);
                    return Err(stuck(format!("`{command}` did not end within {} s", COMMAND.as_secs())));
                }
            }
        }
    }
}

/// What was done, or that it was refused.
fn note(result: Result<String, String>, mark: Mark<'_>, surprises: &mut Vec<String>) {
    match result {
        Ok(done) => mark(MarkKind::Seen, done),
        Err(reason) => {
            mark(MarkKind::Seen, format!("refused: {reason}"));
            surprises.push(format!("refused: {reason}"));
        }
    }
}

/// Its output is for the person who typed it.
fn start(command: &str) -> Result<Child, String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(std::io::stderr());
    shell.spawn().map_err(|error| format!("cannot run /bin/sh: {error}"))
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// For what has to be done whoever wants to end.
fn shell_to_the_end(command: &str) -> Result<(), String> {
    let status = start(command)?.wait().map_err(|error| error.to_string())?;
    status.success().then_some(()).ok_or_else(|| format!("`{command}` ended with {status}"))
}
