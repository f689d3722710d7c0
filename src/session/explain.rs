//! Why a text would go where it would go, in words.

use serde::Serialize;

use super::machine::plan::{Demand, Why};
use super::verdicts::Judged;
use crate::route::Consistency;

/// What `EXPLAIN ROUTE` and `pgbaton explain` say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What kind of text it is.
    pub class: String,
    /// `primary` or `replica`.
    pub target: &'static str,
    /// Why, the deciding reason first.
    pub reasons: Vec<String>,
    pub consistency: &'static str,
    /// Each node with the reason why it may not serve this read; none for those that may.
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    pub id: String,
    pub rejected: Option<String>,
}

pub fn explain(
    judged: &Judged,
    demand: Demand,
    class: &str,
    consistency: Consistency,
    nodes: Vec<(String, Option<String>)>,
) -> Explanation {
    let mut reasons = judged.verdict.reasons.clone();
    let nodes: Vec<Node> = nodes.into_iter().map(|(id, rejected)| Node { id, rejected }).collect();
    let has_any = nodes.iter().any(|node| node.rejected.is_none());
    let target = match demand {
        Demand::Replica(_) if has_any => "replica",
        Demand::Replica(_) => {
            reasons.insert(0, Why::NotFresh.as_str().to_owned());
            "primary"
        }
        Demand::Primary(why) => {
            let is_said = matches!(
                why,
                Why::Read | Why::Write | Why::MayWrite | Why::MeansSomethingElse | Why::Unreadable | Why::Transaction
            );
            if !is_said || reasons.is_empty() {
                reasons.insert(0, why.as_str().to_owned());
            }
            "primary"
        }
    };
    Explanation { class: class.to_owned(), target, reasons, consistency: consistency.as_str(), nodes }
}

impl Explanation {
    /// As rows of two columns.
    pub fn rows(&self) -> Vec<[String; 2]> {
        let row = |item: &str, value: &str| [item.to_owned(), value.to_owned()];
        let mut rows = vec![row("class", &self.class), row("target", self.target)];
        rows.extend(self.reasons.iter().map(|reason| row("reason", reason)));
        rows.push(row("consistency", self.consistency));
        for node in &self.nodes {
            rows.push([
                format!("node {}", node.id),
                node.rejected.clone().unwrap_or_else(|| "may serve it".to_owned()),
            ]);
        }
        rows
    }
}
