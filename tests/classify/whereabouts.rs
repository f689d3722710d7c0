//! Where each statement ran, from what the nodes themselves wrote into their logs.
//!
//! With `log_statement = all` a server writes each text before it runs it, and those it refuses beside the error; it does
//! so before it answers, so that what was answered is in the file. The text ends with a comment that says which step
//! it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pgbaton::demo::Cluster;

/// A step, by the number in its marker: the nodes that had it.
pub type Whereabouts = BTreeMap<usize, BTreeSet<String>>;

const DIGITS: usize = 6;

/// The comment at the end of a statement. Those of the direct connection are as long, so that positions are the same.
pub fn marker(kind: char, number: usize) -> String {
    format!("/*@{kind}{number:0DIGITS$}*/")
}

/// Reads all logs; looks again while one of `expected` is nowhere, for as long as `patience`.
pub fn read(cluster: &Cluster, expected: &BTreeSet<usize>, patience: Duration) -> Whereabouts {
    let deadline = Instant::now() + patience;
    loop {
        let mut found = Whereabouts::new();
        for node in cluster.nodes() {
            let log = std::fs::read(node.log_file()).unwrap_or_default();
            read_log(&String::from_utf8_lossy(&log), &node.id, &mut found);
        }
        if expected.iter().all(|number| found.contains_key(number)) || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn read_log(log: &str, node: &str, found: &mut Whereabouts) {
    let mut counts = false;
    for line in log.lines() {
        // Further lines of an entry begin with a tab.
        if !line.starts_with('\t') {
            // `DETAIL:  prepare: …` repeats the text of another statement, so it does not count.
            counts = [" LOG:  statement: ", " LOG:  execute ", " STATEMENT:  "].iter().any(|kind| line.contains(kind));
        }
        if !counts {
            continue;
        }
        for (at, opening) in line.match_indices("/*@p") {
            let digits = line.get(at + opening.len()..at + opening.len() + DIGITS).unwrap_or_default();
            if let Ok(number) = digits.parse() {
                found.entry(number).or_default().insert(node.to_owned());
            }
        }
    }
}
