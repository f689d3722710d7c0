//! Which repair is right, and why: pure.

use super::compare::Sameness;
use super::timelines::Relation;
use crate::agent::Failed;
use crate::cluster::agent::{Code, Repair};
use crate::types::{Lsn, Timeline};

/// What was found out about a node whose server is stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    Empty,
    /// It cannot be used as it is.
    Damaged(String),
    Log {
        /// The last one of its log.
        timeline: Timeline,
        end: Lsn,
        primary_timeline: Timeline,
        /// `None`: it has nothing in common with the primary's.
        relation: Option<Relation>,
        sameness: Sameness,
        /// Why it could not be rewound.
        no_rewind: Option<String>,
    },
}

/// What did not work just now, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    pub repair: Repair,
    pub reason: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    pub repair: Repair,
    pub why: String,
}

/// Never [`Repair::Auto`].
pub fn choose(asked: Repair, found: &Found, tried: &[Tried]) -> Result<Choice, Failed> {
    let (possible, why) = match asked {
        Repair::Rebuild => (Repair::Rebuild, "it was asked for".to_owned()),
        _ => cheapest(found),
    };
    if asked == Repair::Follow && possible != Repair::Follow {
        return Err(Failed::new(Code::Impossible, format!("it cannot follow as it is: {why}")));
    }
    // Whatever did not work is followed by what needs less of the node.
    match tried.last() {
        None => Ok(Choice { repair: possible, why }),
        Some(last) if possible == Repair::Rewind && last.repair == Repair::Follow => {
            Ok(Choice { repair: possible, why })
        }
        Some(last) => {
            Ok(Choice { repair: Repair::Rebuild, why: format!("{} did not work: {}", verb(last.repair), last.reason) })
        }
    }
}

fn verb(repair: Repair) -> &'static str {
    match repair {
        Repair::Auto | Repair::Follow => "following as it is",
        Repair::Rewind => "rewinding it",
        Repair::Rebuild => "rebuilding it",
    }
}

fn cheapest(found: &Found) -> (Repair, String) {
    let (timeline, end, primary_timeline, relation, sameness, no_rewind) = match found {
        Found::Empty => return (Repair::Rebuild, "its data directory is empty".into()),
        Found::Damaged(reason) => return (Repair::Rebuild, format!("its data cannot be used: {reason}")),
        Found::Log { timeline, end, primary_timeline, relation, sameness, no_rewind } => {
            (timeline.0, end, primary_timeline.0, relation, sameness, no_rewind)
        }
    };
    let Some(Relation { shared, beyond }) = relation else {
        return (Repair::Rebuild, "its log has nothing in common with the primary's".into());
    };
    let on = shared.timeline.0;
    match sameness {
        Sameness::Same => {}
        Sameness::Other(at) => {
            let why = format!("it has another timeline {on} than the primary's: their contents differ at {at}");
            return (Repair::Rebuild, why);
        }
        // The first timeline was begun once only; if it is not the primary's all the same, replaying it will tell.
        Sameness::Unknown(_) if on == 1 => {}
        Sameness::Unknown(reason) => {
            let why = format!("it cannot be told whether its timeline {on} is the primary's: {reason}");
            return (Repair::Rebuild, why);
        }
    }
    if beyond.is_none() {
        return (Repair::Follow, format!("its log ends at {end} on timeline {on}, and the primary has all of that"));
    }
    let left = format!("its log left the primary's at {} on timeline {on}, and goes on to {end}", shared.to);
    if timeline == primary_timeline {
        let why = format!("{left}, on a timeline with the number of the primary's, which pg_rewind takes for the same");
        return (Repair::Rebuild, why);
    }
    match no_rewind {
        Some(reason) => (Repair::Rebuild, format!("{left}, and it cannot be rewound: {reason}")),
        None => (Repair::Rewind, left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::repair::timelines::Stretch;

    fn found(on: u32, beyond: Option<u64>, sameness: Sameness, no_rewind: Option<&str>) -> Found {
        let shared = Stretch { timeline: Timeline(on), from: Lsn(8), to: Lsn(64) };
        Found::Log {
            timeline: Timeline(on),
            end: Lsn(beyond.unwrap_or(64)),
            primary_timeline: Timeline(3),
            relation: Some(Relation { shared, beyond: beyond.map(Lsn) }),
            sameness,
            no_rewind: no_rewind.map(str::to_owned),
        }
    }

    fn chosen(asked: Repair, found: &Found) -> (Repair, String) {
        choose(asked, found, &[]).map(|choice| (choice.repair, choice.why)).unwrap()
    }

    #[test]
    fn the_cheapest_that_is_right_is_chosen() {
        let same = Sameness::Same;
        let auto = |found: &Found| chosen(Repair::Auto, found);
        assert_eq!(
            auto(&found(2, None, same.clone(), Some("x"))),
            (Repair::Follow, "its log ends at 0/40 on timeline 2, and the primary has all of that".into())
        );
        assert_eq!(
            auto(&found(2, Some(80), same.clone(), None)),
            (Repair::Rewind, "its log left the primary's at 0/40 on timeline 2, and goes on to 0/50".into())
        );
        let (repair, why) = auto(&found(2, Some(80), same.clone(), Some("wal_log_hints is off")));
        assert_eq!(repair, Repair::Rebuild);
        assert!(why.ends_with("and it cannot be rewound: wal_log_hints is off"), "{why}");
        let (repair, why) = auto(&found(3, None, Sameness::Other(Lsn(16)), None));
        assert_eq!(repair, Repair::Rebuild);
        assert_eq!(why, "it has another timeline 3 than the primary's: their contents differ at 0/10");
        assert_eq!(auto(&found(3, Some(80), same.clone(), None)).0, Repair::Rebuild);
        assert_eq!(auto(&found(2, None, Sameness::Unknown("gone".into()), None)).0, Repair::Rebuild);
        assert_eq!(auto(&found(1, None, Sameness::Unknown("gone".into()), None)).0, Repair::Follow);
        assert_eq!(auto(&Found::Empty), (Repair::Rebuild, "its data directory is empty".into()));
        assert_eq!(auto(&Found::Damaged("x".into())).0, Repair::Rebuild);
    }

    #[test]
    fn what_is_asked_for_is_done_or_refused() {
        let (right, ahead) = (found(2, None, Sameness::Same, None), found(2, Some(80), Sameness::Same, None));
        assert_eq!(chosen(Repair::Rebuild, &right), (Repair::Rebuild, "it was asked for".into()));
        assert_eq!(chosen(Repair::Rewind, &ahead).0, Repair::Rewind);
        assert_eq!(chosen(Repair::Rewind, &right).0, Repair::Follow);
        for found in [ahead, Found::Empty, Found::Damaged("x".into())] {
            assert_eq!(choose(Repair::Follow, &found, &[]).unwrap_err().code, Code::Impossible);
        }
    }

    #[test]
    fn what_did_not_work_is_not_tried_again() {
        let tried = |repair| [Tried { repair, reason: "the log is gone".into() }];
        let (right, ahead) = (found(2, None, Sameness::Same, None), found(2, Some(80), Sameness::Same, None));
        let choice = choose(Repair::Auto, &right, &tried(Repair::Follow)).unwrap();
        assert_eq!(
            (choice.repair, &*choice.why),
            (Repair::Rebuild, "following as it is did not work: the log is gone")
        );
        assert_eq!(choose(Repair::Auto, &ahead, &tried(Repair::Follow)).unwrap().repair, Repair::Rewind);
        assert_eq!(choose(Repair::Auto, &ahead, &tried(Repair::Rewind)).unwrap().repair, Repair::Rebuild);
    }
}
