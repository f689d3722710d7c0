//! The judge: what clients were told, against what is in the tables. It knows nothing of proxies, epochs or failovers.
//!
//! Tables are read from each node directly, by its Unix socket. What makes each of its findings is tried at the end of this
//! file on logs made up for it, and in `tests/failover/planted.rs` on real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::process::Command;
use std::time::Duration;

use crate::demo::{Node, PgBin};
use crate::types::Lsn;

use super::load::{ACCOUNTS, BALANCE, Log, Outcome, SESSION, Write};

/// A server that can be asked past everything.
pub trait Asked {
    fn name(&self) -> &str;
    /// `None`: it does not answer.
    fn ask(&self, sql: &str) -> Option<String>;
}

impl Asked for Node {
    fn name(&self) -> &str {
        &self.id
    }

    fn ask(&self, sql: &str) -> Option<String> {
        self.sql(sql).ok()
    }
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// How often each id is there.
    pub ids: BTreeMap<u64, usize>,
    /// Of all accounts.
    pub sum: i64,
}

impl Tables {
    /// What [`Tables::parse`] reads the answer to.
    pub const QUESTION: &str = "SELECT id FROM ledger; SELECT sum(balance) FROM accounts";

    /// `Err`: why they cannot be read.
    pub fn read(node: &impl Asked) -> Result<Tables, String> {
        let text = node.ask(Tables::QUESTION);
        let text = text.ok_or_else(|| format!("{} does not answer", node.name()))?;
        Tables::parse(&text).ok_or_else(|| format!("{} says {text}", node.name()))
    }

    /// `None`: it does not answer, or is a standby.
    pub fn of_a_primary(node: &impl Asked) -> Option<Tables> {
        let sql = "SELECT pg_is_in_recovery(); SELECT id FROM ledger; SELECT sum(balance) FROM accounts";
        Tables::parse(node.ask(sql)?.strip_prefix("f\n")?)
    }

    /// Values line by line.
    pub fn parse(text: &str) -> Option<Tables> {
        let mut lines: Vec<&str> = text.lines().collect();
        let sum = lines.pop()?.parse().ok()?;
        let mut ids = BTreeMap::new();
        for line in lines {
            *ids.entry(line.parse().ok()?).or_default() += 1;
        }
        Some(Tables { ids, sum })
    }

    fn has(&self, id: u64) -> bool {
        self.ids.contains_key(&id)
    }
}

/// What is wrong, and what else is worth knowing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub acknowledged: usize,
    /// By SQLSTATE.
    pub failed: BTreeMap<String, usize>,
    /// By SQLSTATE, or what the socket said.
    pub unknown: BTreeMap<String, usize>,
    /// Acknowledged and not there.
    pub lost: Vec<u64>,
    /// Said to have failed and there all the same.
    pub phantoms: Vec<u64>,
    /// There more than once.
    pub doubled: Vec<u64>,
    /// Nobody ever wrote them.
    pub invented: Vec<u64>,
    /// A session was shown less than it had been told or shown before, though that was not lost.
    pub stale: Vec<String>,
    /// What a client found after an unknown outcome was not what came of it.
    pub turned: Vec<u64>,
    /// Accounts did not sum up, in the end or to somebody on the way.
    pub broken_sums: Vec<i64>,
    /// What clients complained of.
    pub broken: Vec<String>,
    /// By session, its kind and the reason; when the first was.
    pub dropped: BTreeMap<String, usize>,
    pub first_dropped: Option<Duration>,
}

impl Verdict {
    /// Everything that is wrong whatever a commit is worth. Lost ones are counted by themselves.
    pub fn wrong(&self) -> usize {
        self.phantoms.len()
            + self.doubled.len()
            + self.invented.len()
            + self.stale.len()
            + self.turned.len()
            + self.broken_sums.len()
            + self.broken.len()
    }

    pub fn unknown(&self) -> usize {
        self.unknown.values().sum()
    }

    pub fn dropped(&self) -> usize {
        self.dropped.values().sum()
    }
}

/// The whole story, for a person who has to find out why.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "acknowledged {}, failed {:?}, unknown {:?}", self.acknowledged, self.failed, self.unknown)?;
        let Verdict { lost, phantoms, doubled, invented, turned, .. } = self;
        for (name, ids) in
            [("lost", lost), ("phantom", phantoms), ("doubled", doubled), ("invented", invented), ("turned", turned)]
        {
            if !ids.is_empty() {
                writeln!(f, "{name} {}: {:?}", ids.len(), &ids[..ids.len().min(20)])?;
            }
        }
        for (name, texts) in [("stale", &self.stale), ("broken", &self.broken)] {
            if !texts.is_empty() {
                writeln!(f, "{name} {}: {:#?}", texts.len(), &texts[..texts.len().min(20)])?;
            }
        }
        if !self.broken_sums.is_empty() {
            writeln!(f, "sums {:?}", self.broken_sums)?;
        }
        write!(f, "dropped {:?}, the first at {:?}", self.dropped, self.first_dropped)
    }
}

pub fn judge(log: &Log, tables: &Tables) -> Verdict {
    let mut verdict = Verdict::default();
    let mut sent = BTreeSet::new();
    let mut acknowledged = BTreeSet::new();
    for Write { id, outcome, .. } in &log.writes {
        sent.insert(*id);
        match outcome {
            Outcome::Acknowledged => {
                acknowledged.insert(*id);
                verdict.acknowledged += 1;
                if !tables.has(*id) {
                    verdict.lost.push(*id);
                }
            }
            Outcome::Failed(code) => {
                *verdict.failed.entry(code.clone()).or_default() += 1;
                if tables.has(*id) {
                    verdict.phantoms.push(*id);
                }
            }
            Outcome::Unknown(why) => *verdict.unknown.entry(why.clone()).or_default() += 1,
        }
    }
    verdict.doubled = tables.ids.iter().filter(|(_, count)| **count > 1).map(|(id, _)| *id).collect();
    verdict.invented = tables.ids.keys().filter(|id| !sent.contains(id)).copied().collect();
    for look in log.looks.iter().filter(|look| look.seen < look.expected) {
        // What is lost cannot be seen, and is counted as that.
        let known = |id: &u64| *id == look.expected || acknowledged.contains(id);
        let hidden = tables.ids.range(look.seen + 1..=look.expected).map(|(id, _)| *id).find(known);
        if let Some(id) = hidden {
            let (session, expected, seen) = (id / SESSION, look.expected, look.seen);
            verdict.stale.push(format!("at {:?} session {session} saw {seen} after {expected}", look.at));
        }
    }
    for resolved in log.resolved.iter().filter(|resolved| resolved.is_there != tables.has(resolved.id)) {
        // Found, and then gone: an acknowledged loss, not another wrong outcome.
        match resolved.is_there {
            true => verdict.lost.push(resolved.id),
            false => verdict.turned.push(resolved.id),
        }
    }
    let whole = ACCOUNTS as i64 * BALANCE;
    let seen = log.sums.iter().map(|(_, sum)| *sum);
    verdict.broken_sums = seen.chain([tables.sum]).filter(|sum| *sum != whole).collect();
    verdict.broken = log.broken.clone();
    verdict.first_dropped = log.dropped.iter().map(|dropped| dropped.at).min();
    for dropped in &log.dropped {
        let what = format!("session {}, {}: {}", dropped.session, dropped.kind, dropped.why);
        *verdict.dropped.entry(what).or_default() += 1;
    }
    verdict
}

/// What a node holds that was primary once and is so no more, in its own view: writes that were sent after the next
/// primary had acknowledged one. Nobody may have brought it any.
pub fn written_behind_the_back(log: &Log, zombie: &Tables, since: Duration) -> Vec<u64> {
    let late = log.writes.iter().filter(|write| write.sent > since && zombie.has(write.id));
    late.map(|write| write.id).collect()
}

/// How many bytes of WAL a server that does not run had written after `fork`. `None`: that cannot be read.
pub fn wal_after(node: &Node, bin: &PgBin, fork: &str) -> Option<u64> {
    let mut command = Command::new(bin.program("pg_waldump"));
    command.arg("-p").arg(node.data_directory().join("pg_wal")).args(["-s", fork]);
    // It ends with an error where the log ends, which is where it always ends.
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let field = |line: &str| Some(line.split("lsn: ").nth(1)?.split([',', ' ']).next()?.parse::<Lsn>().ok()?.0);
    let begin = fork.parse::<Lsn>().ok()?.0;
    Some(text.lines().filter_map(field).next_back().map_or(0, |last| last.saturating_sub(begin)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::load::{Dropped, Look, Resolved};

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn write(id: u64, outcome: Outcome) -> Write {
        Write { id, sent: at(id), done: at(id + 1), waited: at(1), outcome }
    }

    fn tables(ids: &[u64]) -> Tables {
        let mut tables = Tables { ids: BTreeMap::new(), sum: 10_000 };
        for id in ids {
            *tables.ids.entry(*id).or_default() += 1;
        }
        tables
    }

    fn log() -> Log {
        let failed = || Outcome::Failed("40001".into());
        let unknown = || Outcome::Unknown("08007".into());
        let writes = vec![
            write(1, Outcome::Acknowledged),
            write(2, failed()),
            write(3, unknown()),
            write(4, unknown()),
            write(5, Outcome::Acknowledged),
        ];
        let resolved = vec![Resolved { id: 3, is_there: true }, Resolved { id: 4, is_there: false }];
        Log { writes, resolved, ..Default::default() }
    }

    #[test]
    fn what_is_told_and_kept_is_right() {
        let verdict = judge(&log(), &tables(&[1, 3, 5]));
        assert_eq!((verdict.acknowledged, verdict.unknown(), verdict.wrong()), (2, 2, 0), "{verdict}");
        assert!(verdict.lost.is_empty());
        assert_eq!(verdict.failed, BTreeMap::from([("40001".to_string(), 1)]));
    }

    #[test]
    fn each_wrong_is_found_by_its_name() {
        assert_eq!(judge(&log(), &tables(&[3, 5])).lost, [1]);
        assert_eq!(judge(&log(), &tables(&[1, 5])).lost, [3], "found once, then gone");
        assert_eq!(judge(&log(), &tables(&[1, 2, 3, 5])).phantoms, [2]);
        assert_eq!(judge(&log(), &tables(&[1, 3, 4, 5])).turned, [4]);
        assert_eq!(judge(&log(), &tables(&[1, 3, 3, 5])).doubled, [3]);
        assert_eq!(judge(&log(), &tables(&[1, 3, 5, 6])).invented, [6]);
        assert_eq!(judge(&log(), &Tables { sum: 9_999, ..tables(&[1, 3, 5]) }).broken_sums, [9_999]);
        for wrong in [&[1, 2, 3, 5][..], &[1, 3, 4, 5], &[1, 3, 3, 5], &[1, 3, 5, 6]] {
            assert_eq!(judge(&log(), &tables(wrong)).wrong(), 1);
        }
    }

    #[test]
    fn a_look_is_stale_if_what_it_missed_was_there() {
        let mut log = log();
        log.looks.push(Look { at: at(9), expected: 5, seen: 3 });
        assert_eq!(judge(&log, &tables(&[1, 3, 5])).stale.len(), 1);
        // Lost, and not to be seen any more: that is no second wrong.
        let lost = judge(&log, &tables(&[1, 3]));
        assert_eq!((lost.lost.as_slice(), lost.wrong()), (&[5][..], 0));
        // Of what was lost and what was not, the latter has to be seen.
        log.looks[0].seen = 0;
        assert_eq!(judge(&log, &tables(&[1, 3])).stale.len(), 1);
    }

    #[test]
    fn gaps_are_between_acknowledgements() {
        let mut log = log();
        log.writes.push(write(900, Outcome::Acknowledged));
        log.writes.push(write(500, Outcome::Unknown("08007".into())));
        assert_eq!(log.write_gap(at(0)), at(895));
        assert_eq!(log.write_gap(at(700)), at(201));
    }

    #[test]
    fn a_zombie_is_found_by_what_it_took() {
        let zombie = tables(&[1, 3, 5]);
        assert_eq!(written_behind_the_back(&log(), &zombie, at(4)), [5]);
        assert!(written_behind_the_back(&log(), &zombie, at(5)).is_empty());
    }

    #[test]
    fn whoever_was_dropped_is_counted() {
        let mut log = log();
        log.dropped.push(Dropped { at: at(1), session: 7, kind: "idle", why: "57P01".into() });
        assert_eq!(
            judge(&log, &tables(&[1, 3, 5])).dropped,
            BTreeMap::from([("session 7, idle: 57P01".to_string(), 1)])
        );
    }
}
