//! The words every layer shares: node names, log positions, timelines, and the picture of the cluster.
//!
//! Nothing here does anything; there is no socket, clock or lock. A value that crosses from the control plane to the
//! data plane is one of these.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a node as written in `cluster.nodes[].id`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub Arc<str>);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for NodeId {
    fn from(name: &str) -> Self {
        NodeId(name.into())
    }
}

/// A position in the write-ahead log, in bytes from its beginning. Printed as PostgreSQL prints it: `16/B374D848`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Lsn {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (high, low) = text.split_once('/').ok_or(())?;
        let high = u32::from_str_radix(high, 16).map_err(|_| ())?;
        let low = u32::from_str_radix(low, 16).map_err(|_| ())?;
        Ok(Lsn(u64::from(high) << 32 | u64::from(low)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse()
            .map_err(|()| serde::de::Error::custom(format!("\"{text}\" is not a log position such as 16/B374D848")))
    }
}

/// A moment of the proxy's own clock, in milliseconds since it was started. Never that of the calendar: it does not jump.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

/// pgbaton's own count of primaries: one primary for each epoch, and it only grows, by one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an acknowledged commit is worth: `cluster.durability`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On the primary's disk. A failover may lose what no standby had received, up to `cluster.max_lost_bytes`.
    Async,
    /// On the primary's disk and on `k` voters' disks.
    Quorum,
}

impl Durability {
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Async => "async",
            Durability::Quorum => "quorum",
        }
    }
}

/// A PostgreSQL timeline: grows by one at each promotion, but two promotions can take the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

/// What a node says it is (`pg_is_in_recovery()`), or `Unknown` while it does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    Primary,
    Replica,
    Unknown,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Unknown => "unknown",
        }
    }
}

/// Where a node listens. A `host` that begins with `/` is the directory of a Unix socket, as in libpq.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct NodeAddress {
    pub id: NodeId,
    pub host: String,
    pub port: u16,
}

/// So many addresses of nodes one run of pgbaton can have known: each has its place in the topology for good, so that what
/// was decided about a place can never be done to another node. At hundreds of bytes each it is a bound against accidents.
pub const PLACES: usize = 256;

/// One node as last seen by the monitor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    pub address: NodeAddress,
    /// It has been removed from the configuration, or is somewhere else now: its place stays empty.
    pub is_removed: bool,
    /// An operator has taken it out of use.
    pub is_in_maintenance: bool,
    pub role: Role,
    pub timeline: Timeline,
    pub lsn: Lsn,
    /// `system_identifier` of `pg_control_system()`; 0 while unknown. Two nodes of one cluster have the same.
    pub system_identifier: u64,
    /// Why the node is in this state, for people: the error of the last failed probe, or empty.
    pub reason: String,
}

/// The cluster as the data plane may use it, published through a `watch` channel. `version` grows with every change of
/// primary, so that a session can tell "same primary as before" by comparing one number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    pub version: u64,
    /// Each in its place, also those that were removed ([`Topology::present`] has the others). A place is never given to
    /// another address.
    pub nodes: Vec<Arc<NodeView>>,
    /// Index into `nodes` of the node that takes writes; `None` while there is none, or while two claim to be it.
    pub primary: Option<usize>,
    /// Why there is no primary, for the message a waiting client gets.
    pub reason: String,
    /// Whose primary it is, or is to be; 0 while not known.
    pub epoch: Epoch,
}

impl Topology {
    /// The nodes that there are, with their places.
    pub fn present(&self) -> impl Iterator<Item = (usize, &Arc<NodeView>)> {
        self.nodes.iter().enumerate().filter(|(_, view)| !view.is_removed)
    }

    pub fn primary(&self) -> Option<&Arc<NodeView>> {
        self.primary.and_then(|at| self.nodes.get(at))
    }
}

/// Year, month, day, hour, minute and second of a moment, in seconds since 1970, UTC. The algorithm is `civil_from_days` of
/// <https://howardhinnant.github.io/date_algorithms.html>: years begin in March, so that the leap day is the last.
pub fn calendar(seconds: u64) -> [u64; 6] {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    [year, month, day, rest / 3600, rest / 60 % 60, rest % 60]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_back_as_it_is_printed() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert!("16".parse::<Lsn>().is_err());
    }
}
