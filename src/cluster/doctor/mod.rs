//! The doctor: every precondition of a safe failover, looked for in what was asked, each finding with its fix.
//!
//! Asking is done elsewhere (`node/survey.rs`, `agent/survey.rs`, `app/doctor.rs`) and ends in a [`Case`]; here it is only
//! judged. One check is one small function with a line in [`CHECKS`]: its name, what is well when it finds nothing, and why
//! that matters. docs/doctor.md is printed from that table.
//!
//! A wrong alarm is as bad as silence: what was not seen, or cannot be known, is no finding.

pub mod facts;

mod fix;
mod host;
mod logins;
mod own;
mod reach;
mod replication;
mod settings;
mod slots;
mod stock;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use self::facts::{Case, Patient, Survey};
pub use self::settings::ASKED;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Something is lost, slow or in the way when the day comes, or would be after a failover.
    Warning,
    /// A promise is not kept as things stand: no failover, or one that loses what was acknowledged.
    Error,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// What one check says of one node, or of the cluster and pgbaton as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub check: Cow<'static, str>,
    /// `None`: it is about no node in particular.
    pub node: Option<String>,
    pub level: Level,
    pub message: String,
    /// What can be typed against it, and where; empty when all is well.
    pub fix: String,
}

/// Where a check looks.
enum Judge {
    /// Each node, also one that was not reached.
    Node(fn(&Case, &Patient, &mut Notes)),
    /// Each node that answered.
    Seen(fn(&Case, &Patient, &Survey, &mut Notes)),
    /// Each node that answered and is no standby.
    Primary(fn(&Case, &Patient, &Survey, &mut Notes)),
    Standby(fn(&Case, &Patient, &Survey, &mut Notes)),
    /// The cluster, or pgbaton itself.
    Whole(fn(&Case, &mut Notes)),
}

struct Check {
    name: &'static str,
    /// What is so when nothing is found.
    fine: &'static str,
    /// What comes of it when it is not so.
    why: &'static str,
    judge: Judge,
}

/// What a check complains of.
struct Notes {
    found: Vec<(Level, String, String)>,
    /// There was nothing to be judged by.
    is_open: bool,
}

impl Notes {
    fn error(&mut self, message: impl Into<String>, fix: impl Into<String>) {
        self.found.push((Level::Error, message.into(), fix.into()));
    }

    fn warn(&mut self, message: impl Into<String>, fix: impl Into<String>) {
        self.found.push((Level::Warning, message.into(), fix.into()));
    }

    fn complain(&mut self, level: Level, message: impl Into<String>, fix: impl Into<String>) {
        self.found.push((level, message.into(), fix.into()));
    }

    /// It could not be looked at: that nothing is found says nothing.
    fn leave_open(&mut self) {
        self.is_open = true;
    }
}

const fn check(name: &'static str, fine: &'static str, why: &'static str, judge: Judge) -> Check {
    Check { name, fine, why, judge }
}

/// All of them, in the order of the page.
const CHECKS: &[&[Check]] = &[
    reach::CHECKS,
    settings::CHECKS,
    replication::CHECKS,
    logins::CHECKS,
    slots::CHECKS,
    stock::CHECKS,
    host::CHECKS,
    own::CHECKS,
];

fn checks() -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().flat_map(|some| some.iter())
}

/// Everything there is to say, what is well too; the worst first within each node, the cluster before its nodes.
pub fn examine(case: &Case) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in checks() {
        let mut looked = |node: Option<&Patient>, judge: &dyn Fn(&mut Notes)| {
            let mut notes = Notes { found: Vec::new(), is_open: false };
            judge(&mut notes);
            if notes.found.is_empty() && !notes.is_open {
                notes.found.push((Level::Ok, check.fine.to_owned(), String::new()));
            }
            let node = node.map(|node| node.id.to_string());
            findings.extend(notes.found.into_iter().map(|(level, message, fix)| Finding {
                check: check.name.into(),
                node: node.clone(),
                level,
                message,
                fix,
            }));
        };
        match check.judge {
            Judge::Whole(judge) => looked(None, &|notes| judge(case, notes)),
            Judge::Node(judge) => {
                for node in &case.nodes {
                    looked(Some(node), &|notes| judge(case, node, notes));
                }
            }
            Judge::Seen(judge) | Judge::Primary(judge) | Judge::Standby(judge) => {
                for node in &case.nodes {
                    let Some(seen) = node.seen() else { continue };
                    let is_meant = match check.judge {
                        Judge::Primary(_) => !seen.basics.is_in_recovery,
                        Judge::Standby(_) => seen.basics.is_in_recovery,
                        _ => true,
                    };
                    if is_meant {
                        looked(Some(node), &|notes| judge(case, node, seen, notes));
                    }
                }
            }
        }
    }
    let place = |finding: &Finding| {
        finding.node.as_ref().map_or(0, |id| 1 + case.nodes.iter().position(|node| *node.id.0 == **id).unwrap_or(0))
    };
    // Stable: among equals the order of the checks.
    findings.sort_by_key(|finding| (place(finding), std::cmp::Reverse(finding.level)));
    findings
}

impl Case {
    /// The only node that says it is no standby.
    fn primary(&self) -> Option<(&Patient, &Survey)> {
        let mut leading = self.nodes.iter().filter_map(|node| Some((node, node.seen()?)));
        let mut leading = leading.by_ref().filter(|(_, seen)| !seen.basics.is_in_recovery);
        match (leading.next(), leading.next()) {
            (Some(one), None) => Some(one),
            // A primary of the past waits to be a standby again: the record says which one it is.
            (Some(_), Some(_)) => {
                let record = self.picture.as_ref()?.primary.as_ref()?;
                let node = self.nodes.iter().find(|node| node.id == *record)?;
                node.seen().filter(|seen| !seen.basics.is_in_recovery).map(|seen| (node, seen))
            }
            _ => None,
        }
    }

    fn is_primary(&self, node: &Patient) -> bool {
        self.primary().is_some_and(|(primary, _)| primary.id == node.id)
    }
}

/// The table of docs/doctor.md.
pub fn reference() -> String {
    let mut text = String::from("| check | looked at | all is well when | else |\n|---|---|---|---|\n");
    for check in checks() {
        let at = match check.judge {
            Judge::Node(_) | Judge::Seen(_) => "each node",
            Judge::Primary(_) => "the primary",
            Judge::Standby(_) => "each standby",
            Judge::Whole(_) => "the cluster, pgbaton",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {at} | {} | {} |", check.name, check.fine, check.why);
    }
    text
}
