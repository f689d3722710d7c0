//! The store: one record, replaced as a whole. A write takes time and may fail, and then either record may be there.

use pgbaton::cluster::Record;

#[derive(Clone, Default, Debug)]
pub struct Store {
    /// What a pgbaton that starts now would find.
    pub record: Option<Record>,
    /// Of a write under way: its number and what is written.
    pub pending: Option<(u64, Record)>,
    /// The disk is full.
    pub is_failing: bool,
    pub is_slow: bool,
}
