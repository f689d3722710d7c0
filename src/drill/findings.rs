//! From what the judge found to a verdict on each promise, with examples.

use super::checker::Verdict as Found;
use super::outcome::{Judged, Promise, Verdict};
use super::words::counted;

/// Of each kind of finding.
const EXAMPLES: usize = 5;

/// What clients alone can judge; who took writes, and whether the cluster is as expected, is for whoever knows the cluster.
pub fn promises(found: &Found) -> Vec<Judged> {
    let mut honest = Vec::new();
    for (ids, what) in [
        (&found.phantoms, "said to have failed and there"),
        (&found.doubled, "there more than once"),
        (&found.invented, "there, though nobody wrote them"),
        (&found.turned, "not what their client then found them to be"),
    ] {
        if !ids.is_empty() {
            honest.push(format!("{} {what}: {}", counted(ids.len() as u64, "write"), examples(ids)));
        }
    }
    if !found.broken_sums.is_empty() {
        honest.push(format!("all accounts together had {}", examples(&found.broken_sums)));
    }
    if !found.broken.is_empty() {
        honest.push(format!("clients complained: {}", examples(&found.broken)));
    }
    let lost = match found.lost.is_empty() {
        true => String::new(),
        false => format!("{} lost: {}", counted(found.lost.len() as u64, "acknowledged write"), examples(&found.lost)),
    };
    let stale = match found.stale.is_empty() {
        true => String::new(),
        false => {
            let count = counted(found.stale.len() as u64, "read");
            format!("{count} showed less than the session knew: {}", examples(&found.stale))
        }
    };
    let dropped: Vec<&String> = found.dropped.keys().collect();
    let dropped = match dropped.is_empty() {
        true => String::new(),
        false => {
            let count = counted(found.dropped() as u64, "connection");
            format!("{count} ended under a client: {}", examples(&dropped))
        }
    };
    vec![
        judged(Promise::NothingLost, lost),
        judged(Promise::HonestAnswers, honest.join("\n")),
        judged(Promise::FreshReads, stale),
        judged(Promise::StayConnected, dropped),
    ]
}

/// Kept if there is nothing to say against it.
pub fn judged(promise: Promise, against: String) -> Judged {
    let verdict = if against.is_empty() { Verdict::Pass } else { Verdict::Fail };
    Judged { promise, verdict, why: against }
}

pub fn not_applicable(promise: Promise, why: &str) -> Judged {
    Judged { promise, verdict: Verdict::NotApplicable, why: why.into() }
}

pub fn examples(all: &[impl ToString]) -> String {
    let mut shown: Vec<String> = all.iter().take(EXAMPLES).map(ToString::to_string).collect();
    if all.len() > EXAMPLES {
        shown.push(format!("and {} more", all.len() - EXAMPLES));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_breaks_its_promise_and_no_other() {
        let broken = |found: Found| -> Vec<Promise> {
            let all = promises(&found).into_iter();
            all.filter(|judged| judged.verdict == Verdict::Fail).map(|judged| judged.promise).collect()
        };
        assert_eq!(broken(Found::default()), []);
        assert_eq!(broken(Found { lost: vec![1], ..Found::default() }), [Promise::NothingLost]);
        assert_eq!(broken(Found { stale: vec!["x".into()], ..Found::default() }), [Promise::FreshReads]);
        let dropped = [("session 1".to_owned(), 2)].into();
        assert_eq!(broken(Found { dropped, ..Found::default() }), [Promise::StayConnected]);
        for found in [
            Found { phantoms: vec![1], ..Found::default() },
            Found { doubled: vec![1], ..Found::default() },
            Found { invented: vec![1], ..Found::default() },
            Found { turned: vec![1], ..Found::default() },
            Found { broken_sums: vec![9], ..Found::default() },
            Found { broken: vec!["x".into()], ..Found::default() },
        ] {
            assert_eq!(broken(found), [Promise::HonestAnswers]);
        }
    }

    #[test]
    fn a_few_examples_stand_for_all() {
        assert_eq!(examples(&[1, 2, 3, 4, 5, 6, 7]), "1, 2, 3, 4, 5, and 2 more");
        let why = &promises(&Found { lost: vec![7], ..Found::default() })[0].why;
        assert_eq!(why, "1 acknowledged write lost: 7");
    }
}
