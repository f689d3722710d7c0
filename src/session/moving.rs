//! What interrupts a conversation: things to be done before a statement is sent, a block that goes to another node, a
//! server connection that breaks, a replica that could not answer.

use super::clients::Activity;
use super::machine::plan::Why;
use super::machine::{self, Before};
use super::taking::OWN_STATEMENT;
use super::{Refusal, Session, lost_transaction};
use crate::pool::Lease;
use crate::pool::server::Exchange;
use crate::sql::{Pin, quote_ident, quote_literal};
use crate::wire::message::{self, Problem};

impl Session {
    /// Does what a statement needs done before it is sent.
    async fn do_before(&mut self, before: Before) -> bool {
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
            let fresh = lease.replace(&self.want()).await;
            return match fresh {
                Ok(mut lease) => {
                    let steps = self.machine.steps_to_attach(&lease.server().memory);
                    lease.server().memory.image = self.machine.image().clone();
                    if !steps.is_empty() && lease.server().run(&steps, OWN_STATEMENT).await.is_err() {
                        return self
                            .refuse(&Problem::new("08006", "could not restore the session on a new connection"));
                    }
                    self.attach(&mut lease);
                    self.lease = Some(lease);
                    true
                }
                Err(error) => self.refuse(&Refusal::from(error).problem()),
            };
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

    /// The server connection broke while this session used it.
    pub(super) async fn lose_server(&mut self, error: std::io::Error) -> bool {
        self.me.client.set_server(None);
        self.me.client.set_activity(Activity::Idle);
        self.shared.look_now.notify_one();
        self.lease = None;
        self.to_server.clear();
        if self.machine.saw_fatal() {
            // PostgreSQL has told the client why, and that the connection is over.
            return false;
        }
        let pins = self.machine.pins();
        if !pins.is_empty() {
            let lost: Vec<_> = pins.iter().map(Pin::as_str).collect();
            self.farewell(
                &Problem::new("57P01", "terminating connection: the server it was tied to is gone")
                    .detail(format!("Lost with it: {}. {error}", lost.join(", "))),
            );
            return false;
        }
        let problem = match self.machine.may_have_committed() {
            true => Problem::new("08007", "server connection lost while the statement was running")
                .detail(format!("It is not known whether its effects were committed. {error}")),
            false => lost_transaction().detail(error.to_string()),
        };
        self.machine.answer_lost(&problem, &mut self.to_client);
        self.stalled = !self.from_client.is_empty();
        true
    }

}
