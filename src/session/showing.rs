//! A session explains itself: `EXPLAIN ROUTE …`, and what `SHOW pgbaton.…` says.

use std::time::Duration;

use tokio::time::timeout;

use super::Session;
use super::explain::{Case, Explanation, explain, nodes};
use super::machine::Context;
use super::machine::plan::{Demand, explain_route};
use super::wishes::{Wishes, write_token};
use crate::route::eligible::Floor;
use crate::wire::frame::{self, HEADER};
use crate::wire::message;

/// How long SHOW pgbaton.lsn waits for a node to say how far it is.
pub(super) const LSN_WAIT: Duration = Duration::from_secs(1);

impl Session {
    /// The value of one of our own settings, as far as the client has not set it itself.
    pub(super) async fn shown(&mut self, name: &str) -> Option<String> {
        let full = format!("pgbaton.{name}");
        if self.machine.image().settings.iter().any(|(known, _)| **known == *full) {
            return None;
        }
        self.refresh_wishes();
        let wishes = self.wish(Wishes::clone);
        let node = |place: usize| {
            let view = self.shared.readers.view();
            view.nodes.get(place).map_or(String::new(), |reader| reader.address.id.to_string())
        };
        match name {
            "node" => Some(self.previous.map_or(String::new(), |(place, _)| node(place))),
            "route" => Some(self.previous.map_or(String::new(), |(place, demand)| {
                let (target, why) = match demand {
                    Demand::Primary(why) => ("primary", why),
                    Demand::Replica(why) => ("replica", why),
                };
                format!("{target} {}: {}", node(place), why.as_str())
            })),
            "epoch" => Some(self.shared.gate.epoch().to_string()),
            "lsn" => self.position().await.map(write_token),
            "consistency" => {
                let default = self.shared.readers.settings.load().consistency;
                Some(wishes.consistency.unwrap_or(default).to_string())
            }
            "target" => Some(wishes.target.to_string()),
            "min_lsn" => Some(String::new()),
            "key" => Some(wishes.key.map_or(String::new(), String::from)),
            _ => None,
        }
    }

    /// A position that covers everything this session has seen.
    async fn position(&mut self) -> Option<Floor> {
        let shared = self.shared.clone();
        let view = shared.readers.view().clone();
        let primary = view.primary?;
        let node = self.freshness.unsettled(&view).unwrap_or(primary);
        if self.freshness.unsettled(&view).is_some() || self.freshness.floor().is_none() {
            let position = timeout(LSN_WAIT, shared.readers.positions.next(node)).await.ok()?;
            self.freshness.raise(Floor { timeline: view.timeline, lsn: position.lsn }, &shared.readers);
        }
        self.freshness.floor()
    }

    /// Answers `EXPLAIN ROUTE` at the head of what the client has sent.
    pub(super) async fn explain(&mut self) -> bool {
        let Ok(Some(head)) = frame::client_header(&self.from_client) else { return false };
        let Some(body) = self.from_client.get(HEADER..head.total) else { return false };
        let text = body.strip_suffix(b"\0").unwrap_or(body);
        let text = explain_route(text).unwrap_or_default().to_vec();
        self.from_client.drain(..head.total);
        self.stalled = !self.from_client.is_empty();
        self.database.facts.refreshed().await;
        let explanation = self.explanation(&text);
        let out = &mut self.to_client;
        message::text_table(out, &["item", "value"], explanation.rows());
        message::command_complete(out, "EXPLAIN");
        message::ready_for_query(out, self.machine.status().as_byte());
        true
    }

    fn explanation(&mut self, text: &[u8]) -> Explanation {
        let shared = self.shared.clone();
        let settings = shared.readers.settings.load();
        self.refresh_wishes();
        let consistency = self.wish(|wishes| wishes.consistency).unwrap_or(settings.consistency);
        let is_current = self.database.facts.is_current();
        // Judged also while there is no replica: then that is the reason, and not that nobody looked.
        let reads = settings.is_enabled && is_current;
        let (judged, demand) =
            self.with_context(|session, context| session.machine.explain(text, &Context { reads, ..*context }));
        let token = self.token();
        let nodes = nodes(&shared.readers, &mut self.freshness, consistency, token);
        explain(Case { judged: &judged, demand, consistency, fallback: settings.fallback, nodes, is_current })
    }
}
