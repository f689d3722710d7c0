//! How the log gets from one server to the next: connections that keep their order, that outlive their primary by what the
//! kernel still delivers, and that are noticed to be dead only after a while.

use crate::node::{Life, RECEIVER_TIMEOUT, Receiver, Sender};
use crate::wal::Entry;
use crate::world::{Due, World};

/// `wal_retrieve_retry_interval`
const RETRY: (u64, u64) = (120, 240);
const TIMER: u64 = 250;

impl World {
    pub fn will_connect(&mut self, node: usize, after: u64) {
        let standby = &mut self.nodes[node];
        if standby.is_connecting || !standby.in_recovery || standby.conninfo.is_none() {
            return;
        }
        standby.is_connecting = true;
        let incarnation = standby.incarnation;
        self.after(after, Due::Connect { node, incarnation });
    }

    pub fn connect(&mut self, node: usize) {
        let standby = &mut self.nodes[node];
        standby.is_connecting = false;
        let Some(upstream) = standby.conninfo else { return };
        if standby.life != Life::Running || !standby.in_recovery || standby.is_promoting || standby.receiver.is_some() {
            return;
        }
        let source = &self.nodes[upstream];
        let standby = &self.nodes[node];
        let is_reachable =
            upstream != node && source.is_up() && !self.net.is_cut(node, upstream) && !self.net.is_cut(upstream, node);
        let start = match source.wal.continues(source.available(), standby.wal.end(), standby.wal.timeline()) {
            Ok(start) if is_reachable && standby.diverged_at.is_none() => start,
            _ => {
                let retry = self.random.between(RETRY.0, RETRY.1);
                return self.will_connect(node, retry);
            }
        };
        let is_same = start == standby.wal.len()
            && standby.wal.entries.last().map(|entry| entry.number)
                == start.checked_sub(1).map(|at| source.wal.entries[at].number);
        let (known, names) = (source.wal.timeline(), source.names.clone());
        let serial = self.next_serial();
        let now = self.now;
        let standby = &mut self.nodes[node];
        if !is_same {
            // The numbers fit, the histories do not. It is noticed when the first record does not belong to the last one.
            standby.diverged_at = Some(standby.wal.len());
        }
        standby.known_timeline = standby.known_timeline.max(known);
        standby.has_streamed = true;
        standby.receiver = Some(Receiver { upstream, serial, fed_at: now });
        let flushed = standby.wal.end();
        let source = &mut self.nodes[upstream];
        source.senders.retain(|sender| sender.standby != node);
        source.senders.push(Sender {
            standby: node,
            serial,
            sent: start,
            flushed: 0,
            heard_at: now,
            applied: names,
            next_arrival: now,
        });
        self.say(|world| format!("{} receives from {}", world.nodes[node].id, world.nodes[upstream].id));
        let delay = self.delay(node, upstream);
        self.after(delay, Due::Ack { node: upstream, from: node, serial, flushed });
        self.after(TIMER, Due::ReceiverTimer { node, serial });
        self.pump(upstream);
        self.names_changed(upstream);
    }

    /// Sends what there is to be sent.
    pub fn pump(&mut self, node: usize) {
        let available = self.nodes[node].available();
        for at in 0..self.nodes[node].senders.len() {
            let sender = &self.nodes[node].senders[at];
            if sender.sent >= available {
                continue;
            }
            let (standby, serial, sent, next_arrival) =
                (sender.standby, sender.serial, sender.sent, sender.next_arrival);
            let entries = self.nodes[node].wal.entries[sent..available].to_vec();
            let behind = self.nodes[node].wal.end_of(sent);
            let arrival = next_arrival.max(self.now + self.delay(node, standby));
            let sender = &mut self.nodes[node].senders[at];
            sender.sent = available;
            sender.next_arrival = arrival;
            self.at(arrival, Due::Batch { node: standby, from: node, serial, behind, entries });
        }
    }

    pub fn batch(&mut self, node: usize, from: usize, serial: u64, behind: u64, entries: Vec<Entry>) {
        let standby = &self.nodes[node];
        if standby.life != Life::Running || standby.receiver.as_ref().is_none_or(|receiver| receiver.serial != serial) {
            return;
        }
        // TCP sends it again, and keeps the order.
        if self.net.is_cut(from, node) || (standby.wal.end() != behind && standby.diverged_at.is_none()) {
            return self.after(150, Due::Batch { node, from, serial, behind, entries });
        }
        let now = self.now;
        let standby = &mut self.nodes[node];
        for entry in entries {
            standby.wal.push(entry);
        }
        standby.flushed = standby.wal.len();
        standby.will_replay(now);
        if let Some(receiver) = &mut standby.receiver {
            receiver.fed_at = now;
        }
        // The first record that does not belong to the last one ends the receiver, and so does it each time.
        if standby.diverged_at.is_some() && standby.agent.is_some() {
            let after = self.random.between(20, 200);
            let incarnation = standby.incarnation;
            self.after(after, Due::LoseReceiver { node, incarnation });
        }
        let standby = &self.nodes[node];
        let flushed = standby.wal.end();
        let delay = self.delay(node, from);
        self.after(1 + delay, Due::Ack { node: from, from: node, serial, flushed });
        self.pump(node);
    }

    pub fn ack(&mut self, node: usize, from: usize, serial: u64, flushed: u64) {
        let now = self.now;
        let is_cut = self.net.is_cut(from, node);
        let Some(at) = self.nodes[node].senders.iter().position(|sender| sender.serial == serial) else { return };
        if is_cut {
            return self.after(150, Due::Ack { node, from, serial, flushed });
        }
        let sender = &mut self.nodes[node].senders[at];
        sender.flushed = sender.flushed.max(flushed);
        sender.heard_at = now;
        self.release(node, at);
    }

    pub fn receiver_timer(&mut self, node: usize, serial: u64) {
        let now = self.now;
        let Some(receiver) = self.nodes[node].receiver.as_ref().filter(|receiver| receiver.serial == serial) else {
            return;
        };
        let (upstream, silence) = (receiver.upstream, now - receiver.fed_at);
        if silence >= RECEIVER_TIMEOUT {
            return self.stop_receiver(node);
        }
        if silence >= RECEIVER_TIMEOUT / 2 {
            let delay = self.delay(node, upstream);
            self.after(delay, Due::Ping { node: upstream, from: node, serial });
        }
        self.after(TIMER, Due::ReceiverTimer { node, serial });
    }

    pub fn ping(&mut self, node: usize, from: usize, serial: u64) {
        if self.net.is_cut(from, node) || self.nodes[node].life != Life::Running {
            return;
        }
        let now = self.now;
        let sender = self.nodes[node].senders.iter_mut().find(|sender| sender.serial == serial);
        let delay = self.random.between(1, 5);
        match sender {
            Some(sender) => {
                sender.heard_at = now;
                self.after(delay, Due::Pong { node: from, from: node, serial });
            }
            None => self.after(delay, Due::Hangup { node: from, from: node, serial }),
        }
    }

    pub fn pong(&mut self, node: usize, from: usize, serial: u64) {
        let now = self.now;
        let is_cut = self.net.is_cut(from, node);
        if let Some(receiver) = &mut self.nodes[node].receiver
            && receiver.serial == serial
            && !is_cut
        {
            receiver.fed_at = now;
        }
    }

    /// The other end of a connection is gone.
    pub fn hangup(&mut self, node: usize, from: usize, serial: u64) {
        if self.net.is_cut(from, node) {
            return;
        }
        self.nodes[node].senders.retain(|sender| sender.serial != serial);
        if self.nodes[node].receiver.as_ref().is_some_and(|receiver| receiver.serial == serial) {
            self.nodes[node].receiver = None;
            let retry = self.random.between(RETRY.0, RETRY.1);
            self.will_connect(node, retry);
        }
    }

    /// Ends the receiver; another is started if the configuration names a primary.
    pub fn stop_receiver(&mut self, node: usize) {
        if let Some(receiver) = self.nodes[node].receiver.take() {
            let delay = self.delay(node, receiver.upstream);
            self.after(delay, Due::Hangup { node: receiver.upstream, from: node, serial: receiver.serial });
        }
        let retry = self.random.between(1, 60);
        self.will_connect(node, retry);
    }

    /// Ends all senders, after what was sent before.
    pub fn stop_senders(&mut self, node: usize) {
        for sender in std::mem::take(&mut self.nodes[node].senders) {
            let arrival = sender.next_arrival.max(self.now) + self.random.between(1, 10);
            if self.nodes[node].life != Life::Gone {
                self.at(arrival, Due::Hangup { node: sender.standby, from: node, serial: sender.serial });
            }
        }
    }
}
