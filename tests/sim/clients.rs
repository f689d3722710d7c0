//! Clients that commit through the data plane, one after the other, and believe what they are told.

use crate::invariants::Fact;
use crate::message::{Caller, Reply, What};
use crate::plants::Plant;
use crate::world::{Due, World};

const PATIENCE: u64 = 2500;

#[derive(Clone, Default, Debug)]
pub struct Client {
    /// The commit that it waits for, and the epoch under which it was sent.
    waits: Option<(u64, u64)>,
    /// A wake-up is in the queue.
    is_thinking: bool,
    /// The number of its commits that were acknowledged.
    pub acknowledged: u64,
}

impl World {
    pub fn think(&mut self, client: usize) {
        self.clients[client].is_thinking = false;
        if self.clients[client].waits.is_some() {
            return;
        }
        let Some((epoch, node)) = self.pgbaton.serves() else {
            return self.will_think(client, (40, 120));
        };
        let id = self.next_serial();
        self.clients[client].waits = Some((id, epoch));
        self.request(node, Caller::Client { client, id, epoch }, 0, What::Write(id));
        self.after(PATIENCE, Due::Impatient { client, id });
    }

    fn will_think(&mut self, client: usize, after: (u64, u64)) {
        if !self.clients[client].is_thinking {
            self.clients[client].is_thinking = true;
            let after = self.random.between(after.0, after.1);
            self.after(after, Due::Think { client });
        }
    }

    pub fn impatient(&mut self, client: usize, id: u64) {
        if self.clients[client].waits.is_some_and(|(waits, _)| waits == id) {
            self.clients[client].waits = None;
            self.will_think(client, (1, 50));
        }
    }

    /// Server connections of epochs before this one are closed: what was asked there remains unknown.
    pub fn drop_clients(&mut self, before: u64) {
        for client in 0..self.clients.len() {
            if self.clients[client].waits.is_some_and(|(_, epoch)| epoch < before) {
                self.clients[client].waits = None;
                self.will_think(client, (1, 50));
            }
        }
    }

    pub fn client_replied(&mut self, client: usize, id: u64, epoch: u64, from: usize, reply: Reply) {
        if self.clients[client].waits.is_none_or(|(waits, _)| waits != id) {
            return;
        }
        self.clients[client].waits = None;
        match reply {
            Reply::Done => {
                let is_open = self.pgbaton.open.is_some_and(|(open, _)| open == epoch);
                if is_open || self.plant == Some(Plant::OldAcksPass) {
                    self.clients[client].acknowledged += 1;
                    self.judge(&Fact::Acknowledged { epoch, id });
                }
            }
            // A socket that dies under a client is a reason to look at once.
            Reply::Reset => self.probe(from),
            _ => {}
        }
        self.will_think(client, (60, 240));
    }
}
