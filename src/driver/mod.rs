//! Turns the brain's decisions into deeds, and what came of them into events.
//!
//! One task owns the [`Brain`] and steps it; nothing else decides. Jobs, writes to the store and questions run beside it and
//! report through one channel. What the data plane has to know is told through [`DataPlane`] before it is published, so that
//! no session can see a new primary and still have a connection to the old one in use.

mod agents;
pub mod changes;
mod jobs;
mod ledger;
mod nodes;
mod upkeep;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::cluster::agent::{Order as AgentOrder, Report as AgentReport};
use crate::cluster::history::HistoryEntry;
use crate::cluster::{
    Action, Answer, Brain, Command, CommandId, Event, Failure, FailureKind, Job, JobId, Lead, NodeState, Picture,
    Policy, Record,
};
use crate::coord::Embedded;
use crate::monitor::{Monitor, MonitorConfig, Seen};
use crate::net::http::HttpUrl;
use crate::node::{Control, Reached};
use crate::types::{Epoch, Millis, NodeId, Topology};
use changes::Changes;
use ledger::Ledger;
use views::Views;

pub use nodes::Nodes;
pub use views::unseen;

/// Sights that may wait to be taken in: one for each node and then some.
const SIGHTS: usize = 64;

/// Orders that may wait.
const ORDERS: usize = 16;

/// How long sessions may take to let go of connections to a primary that was given up. They are woken; one that is not
/// polled for so long is blocked, and its commit will be told to be unknown.
const LET_GO: Duration = Duration::from_millis(150);

/// The data plane, as far as a change of primary concerns it.
pub trait DataPlane: Send + Sync + 'static {
    /// Nothing more is sent to a primary of an epoch before this one, nor passed on from it.
    fn close_writes(&self, epoch: Epoch, reason: &str);
    fn open_writes(&self, epoch: Epoch, primary: &NodeId);
    /// The primary is about to be exchanged: transactions open on it may end, new ones wait. Until writes are closed, or opened
    /// again.
    fn drain_writes(&self, reason: &str);
    /// Waits until no transaction is open on the primary; how many still are after the limit.
    fn all_drained(&self, limit: Duration) -> Pin<Box<dyn Future<Output = usize> + Send + '_>>;
    /// Waits until every session has let go of the primary given up, and said which commits are in doubt; false: not
    /// within the limit.
    fn all_let_go(&self, limit: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
    /// Transactions whose COMMIT was sent and not answered.
    fn doubts(&self) -> Vec<u64>;
    /// What became of them; of those not named nobody will ever know.
    fn deliver(&self, outcomes: &HashMap<u64, bool>);
    /// The same, and those not named may be known later.
    fn deliver_some(&self, outcomes: &HashMap<u64, bool>);
    /// Commits with effect that clients were told of, since the start.
    fn acknowledged(&self) -> u64;
}

/// What the driver is made of.
pub struct Parts {
    pub policy: Policy,
    pub monitor: MonitorConfig,
    pub nodes: Nodes,
    /// Of its own: a probe must not wait behind anything else.
    pub control: Control,
    pub store: Embedded,
    pub record: Option<Record>,
    pub topology: watch::Sender<Arc<Topology>>,
    /// Somebody has reason to doubt the primary.
    pub look_now: Arc<Notify>,
    pub plane: Arc<dyn DataPlane>,
}

/// What others may ask and tell the driver.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    picture: watch::Receiver<Arc<Picture>>,
    store: Arc<Mutex<Embedded>>,
    /// In milliseconds since 1970.
    started: u64,
    changes: Changes,
    /// What the brain counts time from.
    origin: Instant,
}

/// An order, whose it is, and who is told what came of it.
struct Asked {
    command: Command,
    by: String,
    answer: oneshot::Sender<Result<String, String>>,
}

enum Request {
    Order(Asked),
    Nodes(Nodes, oneshot::Sender<Result<(), String>>),
}

impl Handle {
    /// What the brain believes.
    pub fn picture(&self) -> Arc<Picture> {
        self.picture.borrow().clone()
    }

    /// What is counted of changes of primary.
    pub fn changes(&self) -> Changes {
        self.changes.clone()
    }

    /// For how long nobody has taken writes, in milliseconds; `None` while somebody does.
    pub fn closed_for(&self) -> Option<u64> {
        let since = self.picture.borrow().closed_since?;
        Some(since_origin(self.origin).0.saturating_sub(since.0))
    }

    /// What is written down, and that somebody has watched since the start until now.
    pub fn history(&self) -> Vec<HistoryEntry> {
        let mut entries = self.store.lock().unwrap_or_else(PoisonError::into_inner).history();
        HistoryEntry::Watch { from: self.started, to: unix_ms() }.add_to(&mut entries);
        entries
    }

    /// Gives an order and waits for what comes of it: what was done, or why not. `by`: whose it is, for the history.
    pub async fn order(&self, command: Command, by: String) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| "shutting down".to_owned();
        self.requests
            .try_send(Request::Order(Asked { command, by, answer }))
            .map_err(|_| "too many orders wait".to_owned())?;
        answered.await.map_err(gone)?
    }
}

/// Something that ended beside the brain.
enum Report {
    Event(Event),
    /// Of the agent that was asked then.
    Agent {
        url: HttpUrl,
        node: NodeId,
        report: Result<Box<AgentReport>, String>,
    },
    Settled {
        id: JobId,
        node: NodeId,
        result: Result<(Answer, HashMap<u64, bool>), Failure>,
    },
    /// What was asked about commits in doubt while the primary lives.
    Cleared {
        epoch: Epoch,
        outcomes: HashMap<u64, bool>,
    },
    BeatDone {
        epoch: Epoch,
        node: NodeId,
        result: Result<(), Failure>,
    },
    /// On which node nothing is left of whom.
    UpkeepDone(Vec<(NodeId, Vec<NodeId>)>),
}

pub struct Driver {
    brain: Brain,
    policy: Policy,
    control: Control,
    plane: Arc<dyn DataPlane>,
    store: Arc<Mutex<Embedded>>,
    monitor: Arc<Monitor>,
    reports: mpsc::UnboundedSender<Report>,
    jobs: BTreeMap<JobId, AbortHandle>,
    orders: BTreeMap<CommandId, Asked>,
    /// Whose order the change of primary was that has just been carried out; its entry of the history comes next.
    changed_by: Option<String>,
    next_order: u64,
    /// In milliseconds since 1970: orders of another run of this program have other names.
    started: u64,
    views: Views,
    /// `None` before anything was published.
    lead: Option<Lead>,
    /// What the node asked last said of the commits in doubt.
    verdicts: Option<(NodeId, HashMap<u64, bool>)>,
    /// What the primary was when it was opened: one that has restarted since gives out transaction ids again.
    incarnation: Option<u64>,
    /// Questions about commits in doubt of a primary that lives are under way.
    is_clearing: bool,
    is_beating: bool,
    is_keeping_up: bool,
    ledger: Ledger,
    changes: Changes,
    picture: watch::Sender<Arc<Picture>>,
    origin: Instant,
    /// Those of the configuration.
    wanted: Nodes,
    /// Those that are reached and looked at just now: those, and who is leaving.
    reached: BTreeMap<NodeId, Reached>,
    /// Somebody is leaving, or waits for that.
    is_changing: bool,
    /// Who is no node any more, and which nodes are known to have no slot for it left.
    departed: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// Who asks which agent.
    asking: BTreeMap<NodeId, (HttpUrl, AbortHandle)>,
}

/// Makes the driver and what speaks to it. [`Driver::run`] does the rest.
pub fn new(parts: Parts) -> (Handle, impl Future<Output = ()> + Send) {
    let Parts { policy, monitor, nodes, control, store, record, topology, look_now, plane } = parts;
    let brain = Brain::new(policy.clone());
    let (requests, requested) = mpsc::channel(ORDERS);
    let (picture, pictured) = watch::channel(Arc::new(brain.picture()));
    let store = Arc::new(Mutex::new(store));
    let started = unix_ms();
    let changes = Changes::default();
    let origin = Instant::now();
    let handle =
        Handle { requests, picture: pictured, store: store.clone(), started, changes: changes.clone(), origin };
    let (reports, reported) = mpsc::unbounded_channel();
    let driver = Driver {
        brain,
        policy,
        monitor: Arc::new(Monitor::new(nodes.addresses())),
        control,
        plane,
        store: store.clone(),
        reports,
        jobs: BTreeMap::new(),
        orders: BTreeMap::new(),
        changed_by: None,
        next_order: 0,
        started,
        views: Views::new(topology),
        lead: None,
        verdicts: None,
        incarnation: None,
        is_clearing: false,
        is_beating: false,
        is_keeping_up: false,
        ledger: Ledger::new(store, started),
        changes,
        picture,
        origin,
        reached: nodes.reached.iter().map(|node| (node.address.id.clone(), node.clone())).collect(),
        wanted: nodes,
        is_changing: false,
        departed: BTreeMap::new(),
        asking: BTreeMap::new(),
    };
    (handle, driver.run(monitor, record, look_now, requested, reported))
}

impl Driver {
    async fn run(
        mut self,
        config: MonitorConfig,
        record: Option<Record>,
        look_now: Arc<Notify>,
        mut requests: mpsc::Receiver<Request>,
        mut reports: mpsc::UnboundedReceiver<Report>,
    ) {
        let (tell, mut sights) = mpsc::channel::<Seen>(SIGHTS);
        let (monitor, control) = (self.monitor.clone(), self.control.clone());
        tokio::spawn(async move {
            let ask = move |node: NodeId| {
                let control = control.clone();
                async move { control.observe(&node).await }
            };
            monitor.run(config, tell, ask).await;
        });
        self.ask_agents();
        self.step(Event::Loaded { record, unix_ms_at_zero: unix_ms() });
        let mut beat = interval(upkeep::beat_interval(config.probe_interval));
        let mut upkeep = interval(upkeep::INTERVAL);
        let mut doubts = interval(upkeep::DOUBTS);
        for ticks in [&mut beat, &mut upkeep, &mut doubts] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let deadline = self.brain.next_deadline();
            let wake = self.origin + Duration::from_millis(deadline.unwrap_or_default().0);
            tokio::select! {
                // What has happened before what is due: a deadline may be off the table by then.
                biased;
                Some(report) = reports.recv() => self.take(report),
                seen = sights.recv() => match seen {
                    Some(seen) => self.see(seen),
                    None => return tracing::error!("nobody looks at the nodes any more"),
                },
                Some(request) = requests.recv() => match request {
                    Request::Order(asked) => {
                        self.next_order += 1;
                        let id = CommandId(self.next_order);
                        let command = asked.command.clone();
                        self.orders.insert(id, asked);
                        self.step(Event::Asked { id, command });
                    }
                    Request::Nodes(nodes, answer) => {
                        // Who asked may have given up.
                        let _ = answer.send(self.change_nodes(nodes));
                    }
                },
                () = look_now.notified() => self.monitor.look_at_all(),
                () = sleep_until(wake), if deadline.is_some() => self.step(Event::Tick),
                _ = beat.tick() => self.beat(),
                _ = upkeep.tick() => self.keep_up(),
                _ = doubts.tick() => self.clear_doubts(),
            }
            if self.is_changing {
                self.follow_brain();
            }
            self.publish_picture();
        }
    }

    fn now(&self) -> Millis {
        since_origin(self.origin)
    }

    fn see(&mut self, seen: Seen) {
        if !self.is_current(&seen.address) {
            return;
        }
        self.views.take(&seen);
        self.ledger.see(&seen, self.lead.as_ref(), self.plane.acknowledged());
        self.step(Event::Seen { node: seen.node, sight: seen.sight });
        self.views.publish();
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Event(event) => {
                if let Event::Done { id, .. } = &event {
                    self.jobs.remove(id);
                }
                self.step(event);
            }
            Report::Settled { id, node, result } => {
                self.jobs.remove(&id);
                let result = result.map(|(answer, outcomes)| {
                    self.verdicts = Some((node, outcomes));
                    answer
                });
                self.step(Event::Done { id, result });
            }
            Report::Cleared { epoch, outcomes } => {
                self.is_clearing = false;
                // Of an epoch that is over, the candidate of the next is asked.
                if matches!(&self.lead, Some(Lead::Open { epoch: open, .. }) if *open == epoch) {
                    self.plane.deliver_some(&outcomes);
                }
            }
            Report::BeatDone { epoch, node, result } => {
                self.is_beating = false;
                self.step(Event::Beat { node, epoch, result });
            }
            Report::Agent { url, node, report } => {
                if self.asking.get(&node).is_some_and(|(asked, _)| *asked == url) {
                    self.step(Event::Agent { node, report });
                }
            }
            Report::UpkeepDone(parted) => {
                self.is_keeping_up = false;
                self.note_parted(parted);
            }
        }
    }

    fn step(&mut self, event: Event) {
        let actions = self.brain.step(self.now(), event);
        // What has led to an epoch is counted with that, however its order is answered.
        if !actions.iter().any(|action| matches!(action, Action::Note(_))) {
            self.count_refusals(&actions);
        }
        for action in actions {
            self.act(action);
        }
    }

    fn count_refusals(&self, actions: &[Action]) {
        for action in actions {
            if let Action::Answer { id, result: Err(_) } = action
                && let Some(kind) = self.orders.get(id).and_then(|asked| changes::Kind::of(&asked.command))
            {
                self.changes.refuse(kind);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Store { serial, record } => {
                let (store, reports) = (self.store.clone(), self.reports.clone());
                tokio::task::spawn_blocking(move || {
                    let result = store.lock().unwrap_or_else(PoisonError::into_inner).store(&record);
                    let result = result.map_err(|error| error.to_string());
                    // Nobody listens any more only when everything ends.
                    let _ = reports.send(Report::Event(Event::Stored { epoch: record.epoch, serial, result }));
                });
            }
            Action::Do { id, epoch, job } => self.begin(id, epoch, job),
            Action::Forget(id) => {
                if let Some(job) = self.jobs.remove(&id) {
                    job.abort();
                }
            }
            Action::Probe(node) => self.monitor.look(&node),
            Action::Publish(lead) => self.publish(lead),
            Action::Note(mut note) => {
                note.by = self.changed_by.take().filter(|_| note.is_ordered());
                self.changes.note(&note);
                let to = note.to.clone();
                let (epoch, entry) = self.ledger.note(*note, self.plane.acknowledged());
                let control = self.control.clone();
                tokio::spawn(async move {
                    if let Err(failure) = control.write_history(&to, epoch, &entry.to_string()).await {
                        tracing::warn!(node = %to, reason = failure.reason, "the history is not in the database");
                    }
                });
            }
            Action::NoteRepair(note) => {
                self.changes.repair(note.failure.is_empty());
                self.ledger.repaired(*note);
            }
            Action::Answer { id, result } => {
                if let Some(Asked { command, by, answer }) = self.orders.remove(&id) {
                    if result.is_ok() && matches!(command, Command::Switchover { .. } | Command::Failover { .. }) {
                        self.changed_by = Some(by);
                    }
                    // Who asked may have given up.
                    let _ = answer.send(result);
                }
            }
            Action::Say { is_warning: true, text } => tracing::warn!("{text}"),
            Action::Say { is_warning: false, text } => tracing::info!("{text}"),
        }
    }

    fn begin(&mut self, id: JobId, epoch: Epoch, job: Job) {
        let (control, reports) = (self.control.clone(), self.reports.clone());
        tracing::debug!(?id, %epoch, ?job, "begun");
        let task = match job {
            // Who only watches changes nothing of its own accord: any number may watch one cluster.
            Job::WriteEpoch { .. } if self.only_watches() => tokio::spawn(async move {
                let reason = "this pgbaton only watches (failover.automatic = false) and writes nothing".to_owned();
                let result = Err(Failure { kind: FailureKind::Refused, reason });
                let _ = reports.send(Report::Event(Event::Done { id, result }));
            }),
            Job::Drain { limit } => {
                let plane = self.plane.clone();
                tokio::spawn(async move {
                    let left = plane.all_drained(Duration::from_millis(limit.0)).await;
                    let _ = reports.send(Report::Event(Event::Done { id, result: Ok(Answer::Drained { left }) }));
                })
            }
            Job::Settle { node } => {
                let (plane, incarnation) = (self.plane.clone(), self.incarnation);
                tokio::spawn(async move {
                    if !plane.all_let_go(LET_GO).await {
                        tracing::warn!("some sessions have not let go of the primary that was given up");
                    }
                    let result = jobs::settle(&control, &node, &plane.doubts(), incarnation).await;
                    let _ = reports.send(Report::Settled { id, node, result });
                })
            }
            job => {
                let told = agents::task(&job, &self.views);
                let order = told
                    .map(|(node, task)| (node, AgentOrder { epoch, id: format!("{}-{}", self.started, id.0), task }));
                let coordinator = self.policy.coordinator.clone();
                let agent = order.as_ref().and_then(|(node, _)| self.reached.get(node)?.agent.clone());
                tokio::spawn(async move {
                    let begun = Instant::now();
                    let result = match order {
                        Some((node, order)) => {
                            let result = control.agent_do(&node, &order).await.map(Answer::Agent);
                            // Whoever hears that it is done may go by what it has led to, not by what was said half a second ago.
                            if let (Some(agent), Some(Ok(report))) = (agent, control.agent_report(&node).await) {
                                let report = Ok(Box::new(report));
                                let _ = reports.send(Report::Agent { url: agent.url, node, report });
                            }
                            result
                        }
                        None => jobs::perform(&control, epoch, &coordinator, job).await,
                    };
                    tracing::debug!(?id, ms = begun.elapsed().as_millis(), ?result, "ended");
                    let _ = reports.send(Report::Event(Event::Done { id, result }));
                })
            }
        };
        self.jobs.insert(id, task.abort_handle());
    }

    fn only_watches(&self) -> bool {
        self.policy.only_watches()
    }

    fn publish(&mut self, lead: Lead) {
        // Whoever is told that there is a primary, or none, and looks why, must not read what was believed before.
        self.publish_picture();
        match &lead {
            Lead::Closed { epoch, reason } => self.plane.close_writes(*epoch, reason),
            Lead::Draining { reason, .. } => self.plane.drain_writes(reason),
            // It has drained and nothing came of it: no primary has changed, and no doubt is settled by that.
            Lead::Open { epoch, primary, .. } if matches!(&self.lead, Some(Lead::Draining { epoch: drained, .. }) if drained == epoch) =>
            {
                self.plane.open_writes(*epoch, primary);
            }
            Lead::Open { epoch, primary, .. } => {
                // Before anybody can write: what was asked of another node is worth nothing.
                let outcomes = self.verdicts.take().filter(|(node, _)| node == primary);
                self.plane.deliver(&outcomes.map(|(_, outcomes)| outcomes).unwrap_or_default());
                self.incarnation = self.views.incarnation(primary);
                self.plane.open_writes(*epoch, primary);
            }
        }
        self.ledger.lead(&lead);
        self.views.lead(&lead);
        self.lead = Some(lead);
        self.views.publish();
    }

    fn publish_picture(&mut self) {
        let picture = self.brain.picture();
        let is_out =
            |node: &NodeId| picture.nodes.get(node).is_some_and(|account| account.state == NodeState::Maintenance);
        // Refused once, however often it is thought over.
        if picture.is_refused && !self.picture.borrow().is_refused {
            self.changes.refuse(changes::Kind::Failover);
        }
        self.views.maintain(is_out);
        self.views.publish_news();
        self.picture.send_if_modified(|known| {
            let is_news = **known != picture;
            if is_news {
                *known = Arc::new(picture);
            }
            is_news
        });
    }
}

/// The calendar, for records and history; nothing is decided by it.
fn since_origin(origin: Instant) -> Millis {
    Millis(u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX))
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
