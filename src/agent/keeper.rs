//! The agent at work: one task that either carries out an order or keeps the server running, never both.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::admission::{Admission, admit};
use super::data::DataReader;
use super::gate::{Asks, Gate};
use super::postmaster::Postmaster;
use super::site::{Server as _, Site, Steps};
use super::state::Memory;
use super::{Failed, Settings, initialise, kept, orders};
use crate::cluster::agent::{Code, Data, Doing, Done, Kept, Order, Outcome, Report, Server};

/// How long one that has died is left before it is started again: at first, and at most if it keeps dying.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// One that ran so long has not kept dying.
const LONG: Duration = Duration::from_secs(60);

/// A primary that died unexpectedly is left alone for so long before the record is asked: a standby takes over in a third of
/// that, while a crashed server has its recovery ahead.
const AFTER_A_PRIMARY: Duration = Duration::from_secs(1);

/// How often it is looked whether what is waited for has come.
const LOOK: Duration = Duration::from_secs(1);

pub struct Agent {
    pub site: Arc<Site>,
    /// Beside the data directory: the state, kept data, logs.
    pub dir: PathBuf,
    pub memory: Arc<Memory>,
    pub gate: Arc<Gate>,
    pub postmaster: Postmaster,
    data: DataReader,
    desk: Mutex<Desk>,
    /// An order was put on the desk.
    came: Notify,
}

/// What is to be done, and what is said of it.
#[derive(Default)]
struct Desk {
    /// Taken, and not begun.
    next: Option<Order>,
    doing: Option<(Doing, Steps)>,
    kept: Vec<Kept>,
    /// Why the server does not run.
    waits: String,
    /// What went wrong with it the last time.
    trouble: String,
}

impl Agent {
    pub fn new(site: Arc<Site>, dir: PathBuf, memory: Arc<Memory>, gate: Arc<Gate>, postmaster: Postmaster) -> Agent {
        Agent {
            site,
            dir,
            memory,
            gate,
            postmaster,
            data: DataReader::default(),
            desk: Mutex::new(Desk { waits: "the agent has just started".into(), ..Desk::default() }),
            came: Notify::new(),
        }
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.postmaster.settings()
    }

    pub async fn data(&self) -> Data {
        self.data.read(&self.site, &self.dir).await
    }

    pub fn server(&self) -> Server {
        if self.postmaster.is_running() {
            return match (self.postmaster.is_stopping(), self.postmaster.is_ready()) {
                (true, _) => Server::Stopping,
                (false, true) => Server::Running,
                (false, false) => Server::Starting,
            };
        }
        if self.memory.state().is_stopped {
            return Server::Stopped;
        }
        let desk = self.desk();
        let reason = match &desk.doing {
            Some((doing, _)) => format!("{} is under way", doing.task),
            None => desk.waits.clone(),
        };
        Server::Waiting { reason }
    }

    pub async fn report(&self) -> Report {
        let (data, server) = (self.data().await, self.server());
        // In this order, as an order is noted as done before it is taken off the desk: it is never neither.
        let desk = self.desk();
        let state = self.memory.state();
        let doing = desk.doing.as_ref().map(|(doing, steps)| Doing { step: steps.current(), ..doing.clone() });
        let is_done =
            |doing: &Doing| state.done.as_ref().is_some_and(|done| (done.epoch, &done.id) == (doing.epoch, &doing.id));
        let doing = doing.filter(|doing| !is_done(doing));
        let next = desk.next.as_ref().map(begun);
        let troubles = [self.memory.trouble().unwrap_or_default(), desk.trouble.clone()];
        Report {
            node: self.site.node.clone(),
            epoch: state.epoch,
            server,
            data,
            doing: next.or(doing),
            done: state.done,
            kept: desk.kept.clone(),
            trouble: troubles.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; "),
        }
    }

    /// Puts an order on the desk, unless it is not to be carried out.
    pub fn take(&self, order: Order) -> Admission {
        let mut desk = self.desk();
        let state = self.memory.state();
        let next = desk.next.as_ref().map(begun);
        let doing = next.as_ref().or(desk.doing.as_ref().map(|(doing, _)| doing));
        let admission = admit(state.epoch, doing, state.done.as_ref(), &order);
        if admission == Admission::Taken {
            tracing::info!(epoch = %order.epoch, id = %order.id, task = order.task.name(), "ordered");
            self.memory.change(|state| state.epoch = state.epoch.max(order.epoch));
            desk.next = Some(order);
            self.came.notify_one();
        }
        admission
    }

    /// Works for as long as it is polled.
    pub async fn work(&self) {
        self.count_kept().await;
        loop {
            let next = {
                let mut desk = self.desk();
                let next = desk.next.take();
                desk.doing = next.as_ref().map(|order| (begun(order), Steps::default()));
                next
            };
            let Some(order) = next else {
                tokio::select! {
                    biased;
                    () = self.came.notified() => {}
                    () = self.keep() => {}
                }
                continue;
            };
            self.carry_out(order).await;
        }
    }

    async fn carry_out(&self, order: Order) {
        let begun = Instant::now();
        let steps = self.desk().doing.as_ref().map(|(_, steps)| steps.clone()).unwrap_or_default();
        // A mistake of ours in one order must not end the agent, which holds the server.
        let carried = AssertUnwindSafe(orders::carry_out(self, &order.task, &steps)).catch_unwind();
        let ended = tokio::select! {
            biased;
            () = self.replaced() => Err(Failed::new(Code::Replaced, "another order took its place")),
            ended = carried => ended.unwrap_or_else(|_| Err(Failed::new(Code::Failed, "the agent failed; see its log"))),
        };
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let outcome = match ended {
            Ok(deed) => Outcome::Well(deed),
            Err(Failed { code, reason }) => Outcome::Failed { code, reason },
        };
        let task = order.task.name();
        match &outcome {
            Outcome::Well(deed) => tracing::info!(id = %order.id, task, took_ms, why = deed.why, "done"),
            Outcome::Failed { code, reason } => {
                tracing::warn!(id = %order.id, task, took_ms, ?code, "failed: {reason}")
            }
        }
        self.count_kept().await;
        // In this order: it is never neither under way nor done.
        self.memory.change(|state| {
            state.done = Some(Done { epoch: order.epoch, id: order.id, task: task.to_owned(), took_ms, outcome });
        });
        self.desk().doing = None;
    }

    /// Returns when an order has been taken meanwhile.
    async fn replaced(&self) {
        loop {
            let came = self.came.notified();
            if self.desk().next.is_some() {
                return;
            }
            came.await;
        }
    }

    /// Keeps the server running as what its data is, for as long as it is polled.
    async fn keep(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.memory.state().is_stopped {
                return std::future::pending().await;
            }
            let begun = Instant::now();
            let was_standby = self.postmaster.is_standby();
            let process = match self.postmaster.process() {
                Some(process) => process,
                None => match self.start().await {
                    Ok(process) => process,
                    Err(reason) => {
                        self.wait_for(reason, LOOK).await;
                        continue;
                    }
                },
            };
            let readied = self.postmaster.ready(&process).await;
            if readied.is_ok() {
                self.say(String::new());
                tracing::info!("PostgreSQL accepts connections");
                process.end().await;
            }
            if begun.elapsed() > LONG {
                pause = FIRST_PAUSE;
            }
            self.postmaster.log.pass_on_now();
            let failed = self.postmaster.failed_start(&process);
            let reason = match readied {
                Ok(()) => format!("PostgreSQL has ended ({})", process.ended().unwrap_or_default()),
                Err(_) => failed.reason,
            };
            tracing::warn!("{reason}");
            self.desk().trouble = reason.clone();
            // One that never accepted connections was nobody's primary.
            let least = if was_standby || self.postmaster.is_standby() { Duration::ZERO } else { AFTER_A_PRIMARY };
            self.wait_for(reason, pause.max(least)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn start(&self) -> Result<super::process::Process, String> {
        if initialise::is_unfinished(&self.dir) {
            initialise::forget(&self.site, &self.dir).await.map_err(|failed| failed.reason)?;
        }
        match self.data().await {
            Data::Absent => Err("there is no data yet: pgbaton has a cluster made here, or one copied".into()),
            Data::Unusable { reason } => Err(reason),
            Data::Present { .. } => self.postmaster.launch(Asks::Itself).await.map_err(|failed| failed.reason),
        }
    }

    async fn wait_for(&self, reason: String, pause: Duration) {
        self.say(reason);
        sleep(pause).await;
    }

    /// Said once, not every second.
    fn say(&self, reason: String) {
        let mut desk = self.desk();
        if reason.is_empty() {
            desk.trouble.clear();
        }
        if desk.waits != reason {
            if !reason.is_empty() {
                tracing::info!("PostgreSQL does not run: {reason}");
            }
            desk.waits = reason;
        }
    }

    async fn count_kept(&self) {
        let place = self.site.kept_dir.clone();
        let found = tokio::task::spawn_blocking(move || kept::list(&place)).await;
        self.desk().kept = found.unwrap_or_default();
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begun(order: &Order) -> Doing {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Doing {
        epoch: order.epoch,
        id: order.id.clone(),
        task: order.task.name().to_owned(),
        since: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        step: String::new(),
    }
}
