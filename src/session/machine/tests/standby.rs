//! Sessions that are a standby's: where they run. What needs a catalog is told in `tests/read_only.rs`.

use super::*;
use crate::session::machine::plan::{Demand, Why};

/// A client of the read-only listener whose next message has been given a replica.
fn served(messages: &[u8]) -> (Story, Memory) {
    let mut story = Story::new();
    story.machine = Machine::new(SELF, 4711, Arc::new(Parameters::default()), false).as_standby();
    let mut replica = Memory::default();
    assert_eq!(story.send_raw(None, messages).2, ClientStep::NeedServer);
    assert_eq!(story.machine.demand(), Demand::Replica(Why::ReadOnlyListener));
    story.machine.attach(&mut replica, 4711, true, &mut Vec::new());
    (story, replica)
}

#[test]
fn whatever_is_sent_goes_to_a_replica_as_it_is() {
    for text in ["SELECT 1", "DELETE FROM t", "BEGIN", "/* pgbaton: primary */ SELECT 1", "nonsense", ""] {
        let (mut story, mut replica) = served(&q(text));
        assert_eq!(story.send(&mut replica, &q(text)).0, format!("Q({text})"));
    }
    // Within a block nothing is looked for elsewhere either.
    let (mut story, mut replica) = served(&q("BEGIN"));
    story.query(&mut replica, "BEGIN", &["BEGIN"], b'T');
    assert_eq!(story.send(&mut replica, &q("DELETE FROM t")).0, "Q(DELETE FROM t)");
}
