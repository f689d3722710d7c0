//! What is left of a write-ahead log when only failover is of interest: a list of records, each with its end, its timeline
//! and whether a commit or the row of an epoch is in it.
//!
//! Records carry a number that no other record of the run has. PostgreSQL has no such thing: it compares positions and
//! timeline numbers, and so does the model where PostgreSQL decides; the invariants go by the number.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A client's commit.
    Commit(u64),
    /// The row of an epoch.
    Row(u64),
    /// A heartbeat, a checkpoint, a commit of pgbaton's own: nothing that is looked for later.
    Other,
    /// The end of recovery: the first record of a timeline.
    Promotion,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub number: u64,
    pub end: u64,
    pub timeline: u32,
    pub payload: Payload,
}

#[derive(Clone, Default, Debug)]
pub struct Wal {
    pub entries: Vec<Entry>,
    /// The places of the rows of epochs among them, kept because each probe asks for the newest.
    rows: Vec<(usize, u64)>,
}

impl Wal {
    pub fn push(&mut self, entry: Entry) {
        if let Payload::Row(epoch) = entry.payload {
            self.rows.push((self.entries.len(), epoch));
        }
        self.entries.push(entry);
    }

    pub fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
        self.rows.retain(|(at, _)| *at < len);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The end of the first `len` records.
    pub fn end_of(&self, len: usize) -> u64 {
        len.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(0, |entry| entry.end)
    }

    pub fn end(&self) -> u64 {
        self.end_of(self.len())
    }

    pub fn timeline(&self) -> u32 {
        self.entries.last().map_or(1, |entry| entry.timeline)
    }

    /// The number of each timeline in it, and where its records begin and end.
    pub fn stretches(&self) -> Vec<(u32, u64, u64)> {
        let mut stretches: Vec<(u32, u64, u64)> = Vec::new();
        for entry in &self.entries {
            match stretches.last_mut() {
                Some((timeline, _, end)) if *timeline == entry.timeline => *end = entry.end,
                before => {
                    let begin = before.map_or(0, |(_, _, end)| *end);
                    stretches.push((entry.timeline, begin, entry.end));
                }
            }
        }
        stretches
    }

    /// Where the records of the last timeline begin.
    pub fn fork(&self) -> u64 {
        let timeline = self.timeline();
        let older = self.entries.iter().rev().find(|entry| entry.timeline < timeline);
        older.map_or(0, |entry| entry.end)
    }

    /// The newest epoch whose row is among the first `len` records, without those at `hidden`.
    pub fn newest_row(&self, len: usize, hidden: impl Fn(usize) -> bool) -> Option<u64> {
        self.rows.iter().filter(|(at, _)| *at < len && !hidden(*at)).map(|(_, epoch)| *epoch).max()
    }

    /// How many records the two have in common from the beginning.
    pub fn common(&self, other: &Wal) -> usize {
        let pairs = self.entries.iter().zip(&other.entries);
        pairs.take_while(|(left, right)| left.number == right.number).count()
    }

    /// Where a standby that has the log up to `end` on `timeline` would go on in this log, of which `flushed` records can be
    /// had, by PostgreSQL's rules: the timeline is in this one's history and was not left before `end`. `Err` says why not.
    pub fn continues(&self, flushed: usize, end: u64, timeline: u32) -> Result<usize, &'static str> {
        let mine = &self.entries[..flushed];
        if mine.last().is_none_or(|last| last.timeline < timeline) {
            return Err("its timeline is not in the history");
        }
        if !mine.iter().any(|entry| entry.timeline == timeline) {
            return Err("its timeline is not in the history");
        }
        let left_at = mine.iter().rev().find(|entry| entry.timeline <= timeline).map_or(0, |entry| entry.end);
        if left_at < end {
            return Err("it is ahead of where its timeline was left");
        }
        Ok(mine.partition_point(|entry| entry.end <= end))
    }
}
