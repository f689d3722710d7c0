//! What is done to a bare node: to all of its processes, as when a machine dies or stands still, or to one of them.

use std::collections::BTreeSet;

use pgbaton::demo::Node;
pub use pgbaton::drill::faults::*;
use rustix::process::Signal;

/// SIGKILL to everything at once. Waits until it is gone.
pub fn kill(node: &Node) {
    kill_all(postmaster(node));
    // The postmaster is our child: looking at it takes it away.
    assert_eq!(node.pid(), None, "{} lives on", node.id);
}

/// SIGKILL to the postmaster alone; its children notice and end, each in its own time.
pub fn kill_postmaster(node: &Node) {
    kill_alone(postmaster(node));
    assert_eq!(node.pid(), None, "{} lives on", node.id);
}

/// SIGSTOP to everything, as when a virtual machine is paused. Returns the processes.
pub fn freeze(node: &Node) -> BTreeSet<u32> {
    freeze_all(postmaster(node))
}

/// SIGKILL to one backend: the postmaster ends all the others, recovers, and opens again at the same port.
pub fn kill_a_backend(node: &Node) {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1";
    let pid = node.sql(sql).unwrap().parse().expect("a backend");
    send(pid, Signal::KILL);
}

fn postmaster(node: &Node) -> u32 {
    node.pid().unwrap_or_else(|| panic!("{} does not run", node.id))
}
