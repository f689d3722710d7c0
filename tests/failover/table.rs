//! The table that the suite is for: one row for each fault and durability, medians where it was run more than once.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What came of one run.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub fault: String,
    pub durability: &'static str,
    /// Of all changes of epoch in the run, in milliseconds; `None`: there was none.
    pub detection: Option<u64>,
    pub promotion: Option<u64>,
    pub total: Option<u64>,
    pub write_gap: Duration,
    pub read_gap: Duration,
    pub acknowledged: usize,
    pub failed: BTreeMap<String, usize>,
    pub dropped: usize,
    pub lost: usize,
    /// WAL of the old primary that the new one does not have, in bytes.
    pub lost_bytes: Option<u64>,
    /// The same as pgbaton says it knows.
    pub known_lost_bytes: Option<u64>,
    pub unknown: usize,
    pub wrong: usize,
}

const HEAD: &str = "| fault | durability | runs | detection | promotion | total | write gap | read gap | acknowledged | \
                    failed | dropped | lost | lost WAL (known) | unknown | wrong |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// Adds a row, prints it past libtest's capture, and writes the whole table anew.
pub fn add(row: Row) {
    static ROWS: Mutex<Vec<Vec<Row>>> = Mutex::new(Vec::new());
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_first = rows.is_empty();
    let same = |runs: &Vec<Row>| runs[0].fault == row.fault && runs[0].durability == row.durability;
    let place = rows.iter().position(same).unwrap_or_else(|| {
        rows.push(Vec::new());
        rows.len() - 1
    });
    rows[place].push(row);
    let mut out = std::io::stderr().lock();
    if is_first {
        let _ = writeln!(out, "\n{HEAD}");
    }
    let _ = writeln!(out, "{}", line(&rows[place]));
    let table: String = rows.iter().map(|runs| line(runs) + "\n").collect();
    let _ = std::fs::write(file(), format!("{HEAD}\n{table}"));
}

pub fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("failover.md")
}

/// How often each scenario is to be run.
pub fn runs() -> usize {
    std::env::var("PGBATON_FAILOVER_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

fn line(runs: &[Row]) -> String {
    let ms = |of: fn(&Row) -> Option<u64>| {
        let values: Vec<u64> = runs.iter().filter_map(of).collect();
        if values.is_empty() { "–".into() } else { format!("{} ms", median(values)) }
    };
    let sum = |of: fn(&Row) -> usize| runs.iter().map(of).sum::<usize>();
    let mut failed: BTreeMap<&str, usize> = BTreeMap::new();
    for (code, count) in runs.iter().flat_map(|row| &row.failed) {
        *failed.entry(code).or_default() += count;
    }
    let failed: Vec<String> = failed.iter().map(|(code, count)| format!("{code}: {count}")).collect();
    let bytes = |of: fn(&Row) -> Option<u64>| {
        runs.iter().filter_map(of).max().map_or("–".into(), |bytes| format!("{bytes} B"))
    };
    let (lost_bytes, known) = (bytes(|row| row.lost_bytes), bytes(|row| row.known_lost_bytes));
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {lost_bytes} ({known}) | {} | {} |",
        runs[0].fault,
        runs[0].durability,
        runs.len(),
        ms(|row| row.detection),
        ms(|row| row.promotion),
        ms(|row| row.total),
        ms(|row| Some(row.write_gap.as_millis() as u64)),
        ms(|row| Some(row.read_gap.as_millis() as u64)),
        sum(|row| row.acknowledged),
        failed.join(", "),
        sum(|row| row.dropped),
        sum(|row| row.lost),
        sum(|row| row.unknown),
        sum(|row| row.wrong),
    )
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}
