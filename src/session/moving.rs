//! What interrupts a conversation: things to be done before a statement is sent, a block that goes to another node, a
//! server connection that breaks, a replica that could not answer.

use super::machine::plan::Why;
use super::machine::{self, Before};
use super::taking::{FAILED_BLOCK, OWN_STATEMENT};
use super::{Refusal, Session, lost_transaction};
use crate::pool::server::Exchange;
use crate::sql::{quote_ident, quote_literal};
use crate::wire::message::{self, Problem};

/// How many replicas may fail to answer one read before the primary is asked.
const MOST_HEALS: u8 = 2;

impl Session {
    /// Does what a statement needs done before it is sent.
    pub(super) async fn do_before(&mut self, before: Before) -> bool {
        if let Before::EmptyDatabases(databases) = &before {
            for database in databases {
                if let Some(known) = self.shared.known_database(database) {
                    known.facts.let_go();
                }
                let closed = self.shared.pools.empty_database(database);
                tracing::debug!(database, closed, "closed idle connections before a statement that needs them gone");
                self.shared.forget_greetings();
            }
            return true;
        }
        if before == Before::FreshServer {
            self.me.client.set_server(None);
            let Some(lease) = self.lease.take() else { return true };
            let on_replica = self.machine.is_on_replica();
            let fresh = lease.replace(&self.want(on_replica)).await;
            return match fresh {
                Ok(mut lease) => {
                    let steps = self.machine.steps_to_attach(&lease.server().memory);
                    lease.server().memory.image = self.machine.image().clone();
                    if !steps.is_empty() && lease.server().run(&steps, OWN_STATEMENT).await.is_err() {
                        return self
                            .refuse(&Problem::new("08006", "could not restore the session on a new connection"));
                    }
                    self.attach(&mut lease, on_replica);
                    self.lease = Some(lease);
                    true
                }
                Err(error) => self.refuse(&Refusal::from(error).problem()),
            };
        }
        match &before {
            Before::MoveToPrimary => return self.move_block(false).await,
            Before::MoveToReplica => return self.move_block(true).await,
            Before::Publish(name) => return self.publish(name).await,
            _ => {}
        }
        let Some(lease) = &mut self.lease else { return true };
        if self.machine.status() == machine::Tx::Failed {
            // Nothing can be run in a failed transaction; the statement itself will be refused too.
            return true;
        }
        let server = lease.server();
        let result = match before {
            Before::GoNative => {
                let mut out = Vec::new();
                message::query(&mut out, b"DEALLOCATE ALL");
                let mut ready = 1;
                for (_, text) in &self.machine.image().prepared {
                    message::query(&mut out, text);
                    ready += 1;
                }
                for (name, prepared) in self.machine.go_native(&mut server.memory) {
                    message::raw(&mut out, b'P', &[&name, b"\0", &prepared.tail]);
                    message::sync(&mut out);
                    ready += 1;
                }
                server.exchange(&out, ready, OWN_STATEMENT).await
            }
            Before::RestoreName => server.run(&[self.machine.restore_name()], OWN_STATEMENT).await,
            _ => server.run(&[b"DISCARD SEQUENCES".to_vec()], OWN_STATEMENT).await,
        };
        self.pass_overheard();
        self.after_own(result).await
    }

    /// How it goes on after a statement of our own.
    async fn after_own(&mut self, result: Result<Vec<Vec<u8>>, Exchange>) -> bool {
        match result {
            // A statement that can no longer be prepared will say so itself when it is used.
            Ok(_) | Err(Exchange::Refused(_)) => true,
            Err(Exchange::Lost(error)) => self.lose_server(error).await,
            Err(Exchange::Timeout(limit)) => {
                self.lose_server(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    format!("no answer for {} s", limit.as_secs()),
                ))
                .await
            }
        }
    }

    /// Opens the block again where it has to run, before anything but its opening has: on the primary, or on a replica.
    async fn move_block(&mut self, to_replica: bool) -> bool {
        // A failed block is opened as one.
        let is_failed = self.machine.status() == machine::Tx::Failed;
        let opening = match is_failed {
            true => FAILED_BLOCK.map(<[u8]>::to_vec).to_vec(),
            false => vec![self.machine.opening().to_vec()],
        };
        let Some(mut lease) = self.lease.take() else { return true };
        self.me.client.set_server(None);
        let (shared, ground) = (self.shared.clone(), self.ground(self.machine.is_on_replica()));
        let rollback = [b"ROLLBACK".to_vec()];
        if shared.during(ground, lease.server().run(&rollback, OWN_STATEMENT)).await.is_ok()
            && lease.server().let_cancels_pass(OWN_STATEMENT).await.is_ok()
            && lease.server().unread.is_empty()
        {
            lease.release();
        } else {
            drop(lease);
        }
        self.replace_demand(to_replica);
        for _ in 0..2 {
            let taken = match to_replica {
                true => self.lease_from_replica().await,
                false => Ok(None),
            };
            let (mut lease, on_replica) = match taken {
                Ok(Some(lease)) => (lease, true),
                Ok(None) if self.aside.is_some() => match self.aside.take() {
                    Some(lease) => {
                        self.place = self.primary_at;
                        (lease, false)
                    }
                    None => continue,
                },
                Ok(None) => match self.lease_from_primary().await {
                    Ok(lease) => (lease, false),
                    Err(refusal) => return self.lose_block(&refusal.problem()),
                },
                Err(refusal) => return self.lose_block(&refusal.problem()),
            };
            let steps = self.machine.steps_to_attach(&lease.server().memory);
            let (shared, ground) = (self.shared.clone(), self.ground(on_replica));
            let mut result = match steps.is_empty() {
                true => Ok(Vec::new()),
                false => shared.during(ground, lease.server().run(&steps, OWN_STATEMENT)).await,
            };
            if result.is_ok() {
                result = shared.during(ground, lease.server().run(&opening, OWN_STATEMENT)).await;
                if is_failed && matches!(result, Err(Exchange::Refused(_))) {
                    result = Ok(Vec::new());
                }
            }
            match result {
                Ok(_) => {
                    lease.server().memory.image = self.machine.image().clone();
                    self.attach(&mut lease, on_replica);
                    self.machine.moved(on_replica);
                    self.lease = Some(lease);
                    self.stalled = true;
                    return true;
                }
                Err(error) if on_replica => {
                    tracing::debug!(%error, "a block could not be opened on a replica");
                    self.avoid = Some(self.place);
                }
                Err(error) => return self.lose_block(&lost_transaction().detail(error.to_string())),
            }
        }
        self.lose_block(&lost_transaction())
    }

    /// The open block is gone: what the client sends next is refused for it.
    fn lose_block(&mut self, problem: &Problem) -> bool {
        self.note_over();
        self.machine.answer_lost(problem, &mut self.to_client);
        self.refuse(problem)
    }

    fn replace_demand(&mut self, to_replica: bool) {
        match to_replica {
            true => self.machine.demand_replica(Why::ReadOnlyTransaction),
            false => self.machine.demand_primary(Why::MeansSomethingElse),
        }
    }

    /// Gives `pgbaton.<name>` its value on the server at hand, so that PostgreSQL itself answers the SHOW, in whatever
    /// protocol it was asked.
    async fn publish(&mut self, name: &str) -> bool {
        let Some(value) = self.shown(name).await else { return true };
        let Some(lease) = &mut self.lease else { return true };
        let text = format!("SET {}.{} TO {}", "pgbaton", quote_ident(name), quote_literal(&value));
        let result = lease.server().run(&[text.into_bytes()], OWN_STATEMENT).await;
        self.pass_overheard();
        self.after_own(result).await
    }

    /// A replica could not answer, and the client has heard nothing yet: the same is asked again, of the primary if it was an
    /// error (of another replica in a session that is a standby's), of whoever may serve if the connection broke.
    pub(super) fn heal(&mut self, sqlstate: Option<[u8; 5]>) -> bool {
        let was_replica = self.machine.is_on_replica();
        self.me.client.set_server(None);
        // Not to be used again: nobody has read what it still has to say.
        self.lease = None;
        self.to_server.clear();
        let mut again = std::mem::take(&mut self.sent);
        if sqlstate == Some(*b"25006") {
            self.distrust(&again);
        }
        again.append(&mut self.from_client);
        self.from_client = again;
        self.stalled = true;
        self.machine.rewind();
        let state = sqlstate.as_ref().map_or("", |state| std::str::from_utf8(state).unwrap_or(""));
        tracing::debug!(client = self.me.client.id, sqlstate = state, "a read is repeated elsewhere");
        self.shared.routes.count_retry(self.me.client.worker);
        match sqlstate {
            // The node itself is going.
            Some([b'5', b'7', b'P', ..]) | None => {
                if was_replica {
                    self.shared.readers.failed(self.place);
                    self.avoid = Some(self.place);
                }
                self.shared.look_now.notify_one();
            }
            Some(_) if self.machine.is_standby() => self.avoid = Some(self.place),
            Some(_) => self.machine.demand_primary(Why::Retry),
        }
        self.heals += 1;
        if self.heals > MOST_HEALS && self.machine.is_standby() {
            return self.refuse_to_heal(state);
        }
        if self.heals > MOST_HEALS {
            self.machine.demand_primary(Why::Retry);
        }
        true
    }
}
