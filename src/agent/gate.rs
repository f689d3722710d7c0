//! Whether this node may start as a primary: the record says, asked of the pgbatons.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;

use super::state::{Memory, State};
use crate::net::http::{self, HttpUrl};
use crate::types::{Epoch, NodeId};

/// How long a pgbaton may take to answer. They answer from memory.
const LIMIT: Duration = Duration::from_secs(1);

pub struct Gate {
    node: NodeId,
    pgbatons: Mutex<Vec<HttpUrl>>,
    memory: Arc<Memory>,
}

/// Who asks to pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asks {
    /// The agent of its own accord.
    Itself,
    /// By an order to start this node.
    ByOrder,
}

/// What one pgbaton says, as far as it matters here; from `GET /cluster`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
struct Said {
    epoch: Option<Epoch>,
    leader: Option<NodeId>,
}

impl Gate {
    pub fn new(node: NodeId, pgbatons: Vec<HttpUrl>, memory: Arc<Memory>) -> Gate {
        Gate { node, pgbatons: Mutex::new(pgbatons), memory }
    }

    pub fn ask_others(&self, pgbatons: Vec<HttpUrl>) {
        *self.pgbatons.lock().unwrap_or_else(PoisonError::into_inner) = pgbatons;
    }

    /// The reason is why not, for people.
    pub async fn may_lead(&self, asks: Asks) -> Result<(), String> {
        let answers = self.ask().await;
        decide(&self.node, &self.memory.state(), asks, &answers)
    }

    /// Keeps in mind how far the record is.
    pub async fn listen(&self) {
        self.ask().await;
    }

    async fn ask(&self) -> Vec<Result<Said, String>> {
        let pgbatons = self.pgbatons.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = pgbatons.iter().map(|url| async move {
            let text = http::get(url, None, "/cluster", &[], LIMIT).await.map_err(|error| error.to_string())?;
            serde_json::from_str::<Said>(&text)
                .map_err(|error| format!("{url} does not answer as pgbaton does: {error}"))
        });
        let answers = join_all(asked).await;
        for said in answers.iter().flatten() {
            self.memory.heard(said.epoch.unwrap_or_default());
        }
        answers
    }
}

/// The highest epoch counts. `state` is as of after the answers.
fn decide(node: &NodeId, state: &State, asks: Asks, answers: &[Result<Said, String>]) -> Result<(), String> {
    let told = answers.iter().flatten();
    let newest =
        told.clone().filter_map(|said| Some((said.epoch?, said.leader.as_ref()))).max_by_key(|(epoch, _)| *epoch);
    match newest {
        Some((epoch, _)) if epoch < state.epoch => {
            Err(format!("the record is of epoch {epoch}, and this node knows epoch {} already", state.epoch))
        }
        Some((_, Some(leader))) if leader == node => Ok(()),
        Some((epoch, Some(leader))) => {
            Err(format!("it holds a primary's data, and {leader} is the primary of epoch {epoch}; it has to rejoin"))
        }
        Some((epoch, None)) => Err(format!("nobody is the primary of epoch {epoch} yet")),
        None if told.clone().next().is_none() => {
            let reasons: Vec<&str> =
                answers.iter().filter_map(|answer| answer.as_ref().err()).map(String::as_str).collect();
            Err(format!("no pgbaton can be asked whether it is the primary: {}", reasons.join("; ")))
        }
        // There is no record (yet). This node has never heard of one: a cluster that pgbaton is to take over. Should another
        // node start in the same way, pgbaton sees two primaries and opens none of them.
        None if state.record == Epoch(0) => Ok(()),
        // There was a record, and it is lost. Which of several former primaries has the latest data is not ours to guess.
        None => match asks {
            Asks::ByOrder => Ok(()),
            Asks::Itself => Err(format!(
                "pgbaton has no record, and this node has known one of epoch {}: it waits for an order to start",
                state.record
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(epoch: Option<u64>, leader: Option<&str>) -> Result<Said, String> {
        Ok(Said { epoch: epoch.map(Epoch), leader: leader.map(NodeId::from) })
    }

    fn away() -> Result<Said, String> {
        Err("cannot reach http://db:6433".into())
    }

    /// For n1, which knows these epochs.
    fn verdict(epoch: u64, record: u64, asks: Asks, answers: &[Result<Said, String>]) -> String {
        let state = State { epoch: Epoch(epoch), record: Epoch(record), ..State::default() };
        decide(&NodeId::from("n1"), &state, asks, answers).map_or_else(|reason| reason, |()| "may".into())
    }

    #[test]
    fn only_the_leader_of_the_newest_record_may() {
        let itself = |epoch, answers: &[_]| verdict(epoch, epoch, Asks::Itself, answers);
        assert_eq!(itself(3, &[said(Some(3), Some("n1"))]), "may");
        assert_eq!(itself(3, &[away(), said(Some(4), Some("n1"))]), "may");
        assert!(
            itself(3, &[said(Some(3), Some("n1")), said(Some(4), Some("n2"))]).contains("n2 is the primary of epoch 4")
        );
        assert!(itself(3, &[said(Some(2), Some("n1"))]).contains("this node knows epoch 3 already"));
        assert!(itself(3, &[said(Some(3), None)]).contains("nobody is the primary"));
        assert!(itself(3, &[said(None, None), said(Some(3), Some("n2"))]).contains("n2 is the primary"));
        assert!(itself(0, &[away(), away()]).contains("cannot reach http://db:6433; cannot reach"));
    }

    #[test]
    fn an_order_does_not_lift_what_the_record_says() {
        assert!(verdict(3, 3, Asks::ByOrder, &[said(Some(3), Some("n2"))]).contains("n2 is the primary"));
        assert!(verdict(3, 3, Asks::ByOrder, &[away()]).contains("no pgbaton can be asked"));
    }

    #[test]
    fn without_a_record_only_who_never_knew_one_starts_of_its_own_accord() {
        let none = [said(None, None)];
        assert_eq!(verdict(0, 0, Asks::Itself, &none), "may");
        // An order came before there was a record: the cluster was made by it.
        assert_eq!(verdict(1, 0, Asks::Itself, &none), "may");
        assert!(verdict(5, 5, Asks::Itself, &none).contains("waits for an order"));
        assert_eq!(verdict(5, 5, Asks::ByOrder, &none), "may");
    }
}
