//! Why a text would go where it would go, in words.

use serde::{Deserialize, Serialize};

use super::machine::plan::{Demand, Why};
use super::readers::{Freshness, Readers};
use super::routes::class_name;
use super::verdicts::Judged;
use crate::route::eligible::Floor;
use crate::route::{Consistency, Fallback};

/// Said of whatever is sent in a session that is a standby's.
const READ_ONLY_LISTENER: &str = "read-only listener: everything runs on a replica; pgbaton.target and the comment /* pgbaton: primary */ have no effect";

/// What `EXPLAIN ROUTE` and `pgbaton explain` say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What kind of text it is.
    pub class: String,
    /// `primary` or `replica`; `none` where it would be refused.
    pub target: String,
    /// The short word for why, under which it would be counted.
    pub reason: String,
    /// Why, the deciding reason first.
    pub reasons: Vec<String>,
    pub consistency: String,
    /// Each node with the reason why it may not serve this read; none for those that may.
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    pub rejected: Option<String>,
    /// Unknown of a node that does not answer, and none of the primary.
    pub lag_bytes: Option<u64>,
    pub lag_ms: Option<u64>,
    /// It may serve reads, though perhaps not this one.
    #[serde(skip)]
    pub is_eligible: bool,
}

/// Each node as a place for a read that needs this much; `token` is the position its session asks for.
pub fn nodes(
    readers: &Readers,
    freshness: &mut Freshness,
    consistency: Consistency,
    token: Option<Floor>,
) -> Vec<Node> {
    let is_free = matches!(consistency, Consistency::Eventual | Consistency::Bounded);
    let reasons = readers.reasons(freshness, is_free, token);
    let view = readers.view();
    let node = |(id, rejected): (String, Option<String>)| {
        let reader = view.nodes.iter().find(|reader| reader.is_present() && *reader.address.id.0 == *id);
        let lag = reader.and_then(|reader| reader.known_lag());
        let is_eligible = reader.is_some_and(|reader| reader.state.is_ok());
        Node { id, rejected, lag_bytes: lag.map(|lag| lag.bytes), lag_ms: lag.map(|lag| lag.time.0), is_eligible }
    };
    reasons.into_iter().map(node).collect()
}

/// What is known when a text is explained.
pub struct Case<'a> {
    pub judged: &'a Judged,
    pub demand: Demand,
    pub consistency: Consistency,
    pub fallback: Fallback,
    /// Of [`nodes`].
    pub nodes: Vec<Node>,
    /// What the names of the database stand for is known as of now.
    pub is_current: bool,
}

pub fn explain(case: Case<'_>) -> Explanation {
    let Case { judged, demand, consistency, fallback, nodes, is_current } = case;
    let mut reasons = judged.verdict.reasons.clone();
    let (target, why) = match demand {
        Demand::Replica(why @ Why::ReadOnlyListener) => {
            reasons.insert(0, READ_ONLY_LISTENER.to_owned());
            // One that is not fresh enough yet is waited for.
            let serves = nodes.iter().any(|node| node.is_eligible);
            if !serves {
                reasons.insert(0, "no replica, and the primary never serves this session".to_owned());
            }
            (if serves { "replica" } else { "none" }, why)
        }
        Demand::Replica(why) if nodes.iter().any(|node| node.rejected.is_none()) => ("replica", why),
        Demand::Replica(_) => {
            let why = if nodes.iter().any(|node| node.is_eligible) { Why::NotFresh } else { Why::NoReplica };
            let (target, then) = match fallback {
                Fallback::Primary => ("primary", ""),
                Fallback::Wait => ("primary", ", also after waiting for reads.wait"),
                Fallback::Error => ("none", ", and reads.fallback makes that an error"),
            };
            reasons.insert(0, format!("{}{then}", why.as_str()));
            (target, why)
        }
        Demand::Primary(why) => {
            let is_said = matches!(
                why,
                Why::Read | Why::Write | Why::MayWrite | Why::MeansSomethingElse | Why::Unreadable | Why::Transaction
            );
            if why == Why::Disabled && !is_current {
                reasons.insert(0, "what the names of this database stand for is not known at present".to_owned());
            } else if !is_said || reasons.is_empty() {
                reasons.insert(0, why.as_str().to_owned());
            }
            ("primary", why)
        }
    };
    Explanation {
        class: class_name(Some(judged.class())).to_owned(),
        target: target.to_owned(),
        reason: why.as_str().to_owned(),
        reasons,
        consistency: consistency.as_str().to_owned(),
        nodes,
    }
}

impl Explanation {
    /// As rows of two columns.
    pub fn rows(&self) -> Vec<[String; 2]> {
        let row = |item: &str, value: &str| [item.to_owned(), value.to_owned()];
        let mut rows = vec![row("class", &self.class), row("target", &self.target)];
        rows.extend(self.reasons.iter().map(|reason| row("reason", reason)));
        rows.push(row("consistency", &self.consistency));
        for node in &self.nodes {
            let mut said = node.rejected.clone().unwrap_or_else(|| "may serve it".to_owned());
            if let (Some(bytes), Some(ms)) = (node.lag_bytes, node.lag_ms) {
                said.push_str(&format!(" (lag {bytes} bytes, {ms} ms)"));
            }
            rows.push([format!("node {}", node.id), said]);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::names::{Names, Path};
    use crate::session::verdicts::{Encoding, Reading, Verdicts};
    use crate::sql::Dialect;

    fn judged(text: &str) -> Judged {
        let (names, path) = (Names::default(), Path::Unknown);
        let dialect = Dialect::default();
        let reading =
            Reading { dialect, encoding: Encoding::Utf8, names: &names, names_version: 1, path: &path, scope: 1 };
        Verdicts::default().judge(text.as_bytes(), &reading)
    }

    fn node(id: &str, rejected: Option<&str>, is_eligible: bool) -> Node {
        let rejected = rejected.map(str::to_owned);
        Node { id: id.into(), rejected, lag_bytes: Some(8), lag_ms: Some(2), is_eligible }
    }

    fn explained(nodes: Vec<Node>, fallback: Fallback) -> [String; 3] {
        let judged = judged("SELECT 1");
        let (demand, consistency) = (Demand::Replica(Why::Read), Consistency::Session);
        let said = explain(Case { judged: &judged, demand, consistency, fallback, nodes, is_current: true });
        [said.target, said.reason, said.reasons[0].clone()]
    }

    #[test]
    fn a_read_that_no_replica_may_serve_says_which_want_it_is() {
        let behind = || vec![node("n1", Some("is the primary"), false), node("n2", Some("has replayed 0/1"), true)];
        let gone = || vec![node("n1", Some("is the primary"), false), node("n2", Some("does not answer"), false)];
        let fresh = vec![node("n1", Some("is the primary"), false), node("n2", None, true)];
        assert_eq!(explained(fresh, Fallback::Primary)[0], "replica");
        let not_fresh = "no replica is fresh enough";
        assert_eq!(explained(behind(), Fallback::Primary), ["primary", not_fresh, not_fresh]);
        assert_eq!(explained(gone(), Fallback::Primary), ["primary", "no replica", "no replica"]);
        let refused = "no replica, and reads.fallback makes that an error";
        assert_eq!(explained(gone(), Fallback::Error), ["none", "no replica", refused]);
    }

    #[test]
    fn what_is_not_known_is_not_called_switched_off() {
        let judged = judged("SELECT 1");
        let case = |is_current| Case {
            judged: &judged,
            demand: Demand::Primary(Why::Disabled),
            consistency: Consistency::Session,
            fallback: Fallback::Primary,
            nodes: vec![node("n2", None, true)],
            is_current,
        };
        assert_eq!(explain(case(true)).reasons[0], "routing is off");
        assert!(explain(case(false)).reasons[0].contains("not known"), "{:?}", explain(case(false)));
        assert_eq!(explain(case(true)).rows().last().unwrap(), &["node n2", "may serve it (lag 8 bytes, 2 ms)"]);
    }
}
