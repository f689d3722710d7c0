//! Counts where transactions and autocommit statements went, by what they were and why. Each worker counts for itself.

use std::sync::atomic::{AtomicU64, Ordering};

use super::machine::plan::Why;
use crate::route::Class;
use crate::telemetry::metric::Metric;

pub const STATEMENTS: Metric = Metric::counter(
    "pgbaton_statements",
    "Transactions and statements outside of one that were given a server connection, by what they are, where they went and \
     why. A session that is pinned counts once for as long as it keeps it.",
)
.labels(&["class", "target", "reason"]);
pub const RETRIED: Metric = Metric::counter(
    "pgbaton_retried_statements",
    "Statements that a replica could not answer and that were run elsewhere.",
);

/// One decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// `None` where the text was not looked at: within what pins a session, or with routing off.
    pub class: Option<Class>,
    pub on_replica: bool,
    pub why: Why,
}

const CLASSES: usize = 16;
const REASONS: usize = Why::ALL.len();

/// What a class is called in counters and explanations.
pub fn class_name(class: Option<Class>) -> &'static str {
    let Some(class) = class else { return "not judged" };
    match class {
        Class::Empty => "empty",
        Class::Read => "read",
        Class::Volatile => "may write",
        Class::Differs => "differs",
        Class::Write => "write",
        Class::BeginReadOnly => "begin read only",
        Class::Begin => "begin",
        Class::BeginReadWrite => "begin read write",
        Class::SetReadOnly => "set transaction read only",
        Class::Transaction => "transaction",
        Class::SetLocal => "set local",
        Class::Session => "session",
        Class::Cursor => "cursor",
        Class::Execute => "execute",
        Class::Unreadable => "unreadable",
    }
}

struct Counts {
    by_route: [AtomicU64; CLASSES * 2 * REASONS],
    retried: AtomicU64,
}

/// The counters of all workers.
pub struct Routes {
    workers: Vec<Box<Counts>>,
}

impl Routes {
    pub fn new(workers: usize) -> Routes {
        let counts = |_| {
            Box::new(Counts {
                by_route: [const { AtomicU64::new(0) }; CLASSES * 2 * REASONS],
                retried: AtomicU64::new(0),
            })
        };
        Routes { workers: (0..workers).map(counts).collect() }
    }

    #[inline]
    pub fn count(&self, worker: usize, route: Route) {
        let class = route.class.map_or(CLASSES - 1, |class| class as usize);
        let at = (class * 2 + usize::from(route.on_replica)) * REASONS + route.why as usize;
        if let Some(counts) = self.workers.get(worker) {
            counts.by_route[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A replica could not answer, and somebody else was asked.
    pub fn count_retry(&self, worker: usize) {
        if let Some(counts) = self.workers.get(worker) {
            counts.retried.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn retried(&self) -> u64 {
        self.workers.iter().map(|counts| counts.retried.load(Ordering::Relaxed)).sum()
    }

    /// Every route taken so far: class, `primary` or `replica`, reason, how often.
    pub fn all(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
        let mut all = Vec::new();
        for class in 0..CLASSES {
            for (side, target) in ["primary", "replica"].into_iter().enumerate() {
                for (reason, why) in Why::ALL.into_iter().enumerate() {
                    let at = (class * 2 + side) * REASONS + reason;
                    let count = self.workers.iter().map(|counts| counts.by_route[at].load(Ordering::Relaxed)).sum();
                    if count > 0 {
                        let class = Class::ALL.get(class).copied();
                        all.push((class_name(class), target, why.as_str(), count));
                    }
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let routes = Routes::new(2);
        let read = Route { class: Some(Class::Read), on_replica: true, why: Why::Read };
        routes.count(0, read);
        routes.count(1, read);
        routes.count(1, Route { class: None, on_replica: false, why: Why::Pinned });
        assert_eq!(routes.all(), [("read", "replica", "read", 2), ("not judged", "primary", "pinned", 1)]);
    }
}
