//! What a server does with what it is asked, and with itself: commits and whom they wait for, promotion, death and restart.

use crate::invariants::Fact;
use crate::message::{Caller, Reply, Request, What};
use crate::node::{Data, Life, Names, SENDER_TIMEOUT, Waiter, index};
use crate::plants::Plant;
use crate::wal::{Entry, Payload};
use crate::world::{Due, World};

impl World {
    pub fn arrive(&mut self, to: usize, request: Request) {
        match self.nodes[to].life {
            Life::Gone => return,
            Life::Down => return self.reply(to, &request, Reply::Reset),
            Life::Starting => return self.reply(to, &request, Reply::Starting),
            Life::Running => {}
        }
        let node = &mut self.nodes[to];
        if node.is_full && request.what == What::Look {
            return self.reply(to, &request, Reply::Full);
        }
        // A connection's first statement ends those of a pgbaton before, a job's first those of jobs before.
        if request.process < node.process || (request.order > 0 && request.order < node.order) {
            return self.reply(to, &request, Reply::No("superseded"));
        }
        node.process = request.process;
        node.order = node.order.max(request.order);
        if let Some(reply) = self.perform(to, &request) {
            self.reply(to, &request, reply);
        }
    }

    fn perform(&mut self, to: usize, request: &Request) -> Option<Reply> {
        let now = self.now;
        self.nodes[to].catch_up(now);
        let node = &self.nodes[to];
        let standby = Reply::No("it is a standby");
        let primary = Reply::No("it is a primary");
        let position = |row: Option<u64>| Reply::Is {
            timeline: node.wal.timeline(),
            lsn: node.wal.end(),
            row,
            fork: node.wal.fork(),
        };
        Some(match &request.what {
            What::Look => {
                let observation = self.nodes[to].observe(now, &self.ids);
                Reply::Seen(Box::new(observation))
            }
            What::Beat | What::Row(_) | What::Commit | What::Write(_) if node.in_recovery => standby,
            What::Write(_) | What::Beat if node.is_fenced => Reply::No("it is read-only"),
            What::Beat => return self.commit(to, Payload::Other, true, request),
            What::Commit => return self.commit(to, Payload::Other, false, request),
            What::Row(epoch) => return self.commit(to, Payload::Row(*epoch), false, request),
            What::Write(id) => {
                if let Caller::Client { epoch, .. } = request.caller {
                    self.judge(&Fact::Written { node: to, epoch });
                }
                return self.commit(to, Payload::Commit(*id), false, request);
            }
            What::Recruit(_) | What::IsRecruited | What::Follow(_) if !node.in_recovery => primary,
            What::Recruit(epoch) => {
                let incarnation = node.incarnation;
                self.nodes[to].recruited_for = Some(*epoch);
                if self.plant == Some(Plant::RecruitLeavesTheReceiver) {
                    return Some(Reply::Done);
                }
                self.nodes[to].conninfo = None;
                let after = self.random.between(2, 80);
                self.after(after, Due::StopReceiver { node: to, incarnation });
                Reply::Done
            }
            What::IsRecruited if self.plant == Some(Plant::RecruitLeavesTheReceiver) => {
                position(node.newest_row().map(|epoch| epoch.0))
            }
            // After a restart the position received is not known before all that is there is replayed.
            What::IsRecruited
                if node.receiver.is_some()
                    || (!node.has_streamed && node.diverged_at.is_none() && node.replayed < node.wal.len()) =>
            {
                self.nodes[to].is_replay_paused = false;
                Reply::NotYet
            }
            What::IsRecruited if node.conninfo.is_some() => Reply::No("it was told to follow"),
            What::IsRecruited => position(node.newest_row().map(|epoch| epoch.0)),
            // What keeps it from replaying is ended.
            What::IsSettled if node.in_recovery && node.replayed < node.wal.len() => {
                self.nodes[to].is_replay_paused = false;
                Reply::NotYet
            }
            What::IsSettled => position(node.newest_row().map(|epoch| epoch.0)),
            What::Names(sync) => {
                self.nodes[to].names = Names::Sync(sync.clone());
                self.names_written(to);
                Reply::Done
            }
            What::AreNamesApplied if node.in_recovery => standby,
            What::AreNamesApplied if node.has_applied_names() => Reply::Done,
            What::AreNamesApplied => Reply::NotYet,
            What::Promote if !node.in_recovery => {
                self.nodes[to].is_fenced = false;
                Reply::Done
            }
            What::Promote => {
                self.promote(to);
                Reply::Done
            }
            What::IsPromoted if node.in_recovery || !node.has_applied_names() => Reply::NotYet,
            What::IsPromoted => position(None),
            What::Follow(upstream) => {
                let incarnation = node.incarnation;
                let node = &mut self.nodes[to];
                node.recruited_for = None;
                node.conninfo = Some(*upstream);
                let after = self.random.between(2, 80);
                self.after(after, Due::StopReceiver { node: to, incarnation });
                Reply::Done
            }
            What::Fence | What::IsFenced if node.in_recovery => standby,
            What::Fence => {
                self.nodes[to].is_fenced = true;
                self.nodes[to].names = Names::Nobody;
                self.names_written(to);
                self.terminate_clients(to);
                Reply::Done
            }
            What::IsFenced if node.is_fenced && node.has_applied_names() => position(None),
            What::IsFenced => Reply::NotYet,
            What::Checkpoint => Reply::Done,
        })
    }

    pub fn reply(&mut self, from: usize, request: &Request, reply: Reply) {
        self.answer(from, request.process, request.caller, reply);
    }

    fn answer(&mut self, from: usize, process: u64, caller: Caller, reply: Reply) {
        let delay = self.delay(from, self.nodes.len());
        self.after(delay, Due::Reply { process, from, caller, reply });
    }

    // --- commits ---------------------------------------------------------------------------------------------------------

    fn commit(&mut self, to: usize, payload: Payload, is_local: bool, request: &Request) -> Option<Reply> {
        let size = match payload {
            Payload::Commit(_) => self.random.between(100, 2500),
            _ => 100,
        };
        let number = self.next_serial();
        let node = &mut self.nodes[to];
        let end = node.wal.end() + size;
        let timeline = node.wal.timeline();
        let at = node.wal.len();
        node.wal.push(Entry { number, end, timeline, payload });
        let (process, caller) = (request.process, request.caller);
        node.waiters.push(Waiter { at, end, is_local, is_flushed: false, process, caller });
        let due = Due::Flush { node: to, incarnation: node.incarnation, len: at + 1 };
        let after = self.random.between(1, 3);
        self.after(after, due);
        None
    }

    pub fn flush(&mut self, node: usize, len: usize) {
        let server = &mut self.nodes[node];
        if server.is_stalled {
            let incarnation = server.incarnation;
            return server.stalled.push(Due::Flush { node, incarnation, len });
        }
        server.flushed = server.flushed.max(len);
        let (flushed, is_waiting) = (server.flushed, server.is_waiting);
        for waiter in &mut server.waiters {
            waiter.is_flushed |= waiter.at < flushed;
        }
        self.let_go(node, |waiter| waiter.is_flushed && (waiter.is_local || !is_waiting));
        self.pump(node);
    }

    /// Answers those for whom this is true.
    fn let_go(&mut self, node: usize, is_done: impl Fn(&Waiter) -> bool) {
        let mut at = 0;
        while at < self.nodes[node].waiters.len() {
            if is_done(&self.nodes[node].waiters[at]) {
                let waiter = self.nodes[node].waiters.remove(at);
                self.answer(node, waiter.process, waiter.caller, Reply::Done);
            } else {
                at += 1;
            }
        }
    }

    /// A sender has heard of progress: it lets go whom its own names allow.
    pub fn release(&mut self, node: usize, sender: usize) {
        let now = self.now;
        let server = &self.nodes[node];
        let sender = &server.senders[sender];
        let Names::Sync(names) = &sender.applied else { return };
        if server.in_recovery || !names.voters.iter().any(|voter| index(voter) == sender.standby) {
            return;
        }
        let live = server.senders.iter().filter(|sender| now - sender.heard_at < SENDER_TIMEOUT);
        let voting = live.filter(|sender| names.voters.iter().any(|voter| index(voter) == sender.standby));
        let mut flushed: Vec<u64> = voting.map(|sender| sender.flushed).collect();
        flushed.sort_unstable_by(|left, right| right.cmp(left));
        let Some(&safe) = flushed.get((names.k as usize).saturating_sub(1)) else { return };
        self.let_go(node, |waiter| waiter.is_flushed && waiter.end <= safe);
    }

    /// The configuration was changed and a reload asked for: each process takes it up when it gets round to it.
    fn names_written(&mut self, node: usize) {
        let incarnation = self.nodes[node].incarnation;
        if self.nodes[node].in_recovery {
            return;
        }
        let serials: Vec<u64> = self.nodes[node].senders.iter().map(|sender| sender.serial).collect();
        for whom in std::iter::once(None).chain(serials.into_iter().map(Some)) {
            let after = self.random.between(0, 60);
            self.after(after, Due::Apply { node, incarnation, whom });
        }
    }

    pub fn apply(&mut self, node: usize, whom: Option<u64>) {
        let server = &mut self.nodes[node];
        match whom {
            None => {
                server.is_waiting = server.wants_waiting();
                if !server.is_waiting {
                    self.let_go(node, |waiter| waiter.is_flushed);
                }
            }
            Some(serial) => {
                if let Some(at) = server.senders.iter().position(|sender| sender.serial == serial) {
                    server.senders[at].applied = server.names.clone();
                    self.release(node, at);
                }
            }
        }
        self.names_changed(node);
    }

    pub fn names_changed(&mut self, node: usize) {
        self.judge(&Fact::NamesApplied { node });
    }

    fn terminate_clients(&mut self, node: usize) {
        let (ended, kept) = std::mem::take(&mut self.nodes[node].waiters)
            .into_iter()
            .partition(|waiter| matches!(waiter.caller, Caller::Client { .. }));
        self.nodes[node].waiters = kept;
        let ended: Vec<Waiter> = ended;
        for waiter in ended {
            self.answer(node, waiter.process, waiter.caller, Reply::Reset);
        }
    }

    // --- life ------------------------------------------------------------------------------------------------------------

    pub fn promote(&mut self, node: usize) {
        let server = &mut self.nodes[node];
        if server.is_promoting || !server.in_recovery {
            return;
        }
        server.is_promoting = true;
        let due = Due::Promoted { node, incarnation: server.incarnation };
        let after = if self.random.chance(100) { self.random.between(200, 700) } else { self.random.between(20, 120) };
        self.after(after, due);
    }

    pub fn promoted(&mut self, node: usize) {
        self.stop_receiver(node);
        self.stop_senders(node);
        let number = self.next_serial();
        let server = &mut self.nodes[node];
        if let Some(valid) = server.diverged_at.take() {
            server.wal.truncate(valid);
        }
        let timeline = server.known_timeline.max(server.wal.timeline()) + 1;
        let end = server.wal.end() + 100;
        server.wal.push(Entry { number, end, timeline, payload: Payload::Promotion });
        server.flushed = server.wal.len();
        server.replayed = server.wal.len();
        server.replays.clear();
        server.known_timeline = timeline;
        server.in_recovery = false;
        server.is_promoting = false;
        server.conninfo = None;
        server.recruited_for = None;
        server.is_waiting = server.wants_waiting();
        self.say(|world| format!("{} is a primary on timeline {timeline} from {end}", world.nodes[node].id));
        self.names_changed(node);
    }

    pub fn kill(&mut self, node: usize, life: Life) {
        if !matches!(self.nodes[node].life, Life::Running | Life::Starting) {
            return;
        }
        self.say(|world| format!("{} dies ({life:?})", world.nodes[node].id));
        self.nodes[node].life = life;
        self.stop_senders(node);
        self.stop_receiver(node);
        let server = &mut self.nodes[node];
        server.incarnation += 1;
        server.is_frozen = false;
        server.is_connecting = false;
        server.is_promoting = false;
        server.stalled.clear();
        // What is not on disk is lost.
        server.wal.truncate(server.flushed);
        server.replays.clear();
        let waiters = std::mem::take(&mut server.waiters);
        let inbox = std::mem::take(&mut server.inbox);
        if life != Life::Gone {
            let after = if server.in_recovery { self.random.between(100, 300) } else { 1000 };
            self.watch_in(node, after);
        }
        for waiter in waiters {
            if life != Life::Gone {
                self.answer(node, waiter.process, waiter.caller, Reply::Reset);
            }
        }
        for due in inbox {
            match due {
                _ if life == Life::Gone => {}
                Due::Arrive { request, .. } => self.reply(node, &request, Reply::Reset),
                // Its agent lives on.
                Due::Watch { .. } | Due::Work { .. } | Due::GateSays { .. } | Due::AgentAsked { .. } => {
                    self.after(0, due);
                }
                _ => {}
            }
        }
    }

    pub fn start(&mut self, node: usize) {
        if !matches!(self.nodes[node].life, Life::Down | Life::Gone) || self.nodes[node].data != Data::Present {
            return;
        }
        self.nodes[node].life = Life::Starting;
        let due = Due::Started { node, incarnation: self.nodes[node].incarnation };
        let after = self.random.between(60, 900);
        self.after(after, due);
    }

    pub fn started(&mut self, node: usize) {
        let now = self.now;
        let server = &mut self.nodes[node];
        server.life = Life::Running;
        server.has_streamed = false;
        server.is_connecting = false;
        server.replayed = server.replayed.min(server.wal.len());
        if server.in_recovery {
            server.will_replay(now);
        } else {
            server.replayed = server.wal.len();
            server.is_waiting = server.wants_waiting();
        }
        self.say(|world| {
            let role = if world.nodes[node].in_recovery { "standby" } else { "primary" };
            format!(
                "{} runs again as a {role} with the log up to {}",
                world.nodes[node].id,
                world.nodes[node].wal.end()
            )
        });
        self.will_connect(node, 20);
        self.names_changed(node);
    }
}
