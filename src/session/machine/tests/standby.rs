//! Sessions that are a standby's: where they run, and what may be asked of another replica.

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

fn answered(story: &mut Story, replica: &mut Memory, reply: &[u8]) -> ServerStep {
    let mut rest = Vec::new();
    let mut sink = Sink::new(reply, &mut rest);
    story.machine.server(reply, replica, &mut sink, 1 << 20).unwrap().1
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

#[test]
fn a_read_that_recovery_cancels_is_asked_again_and_a_refusal_is_not() {
    let conflict = || cat(&[&fails("40001", "canceling statement due to conflict with recovery"), &z(b'I')]);
    let refusal = cat(&[&fails("25006", "cannot execute DELETE in a read-only transaction"), &z(b'I')]);
    let (mut story, mut replica) = served(&q("SELECT 1"));
    story.send(&mut replica, &q("SELECT 1"));
    assert_eq!(answered(&mut story, &mut replica, &conflict()), ServerStep::Heal(*b"40001"));
    let (mut story, mut replica) = served(&q("SELECT 1"));
    story.send(&mut replica, &q("SELECT 1"));
    assert_eq!(answered(&mut story, &mut replica, &refusal), ServerStep::Rest);
    // What may have done something somewhere is not asked twice.
    let (mut story, mut replica) = served(&q("DELETE FROM t"));
    story.send(&mut replica, &q("DELETE FROM t"));
    assert_eq!(answered(&mut story, &mut replica, &conflict()), ServerStep::Rest);
}

#[test]
fn what_may_not_be_repeated_waits_for_the_answer_to_what_may() {
    let (mut story, mut replica) = served(&q("SELECT 1"));
    story.send(&mut replica, &q("SELECT 1"));
    assert_eq!(story.send_raw(Some(&mut replica), &q("DELETE FROM t")).2, ClientStep::Full);
    answered(&mut story, &mut replica, &cat(&[&c("SELECT 1"), &z(b'I')]));
    assert_eq!(story.send(&mut replica, &q("DELETE FROM t")).0, "Q(DELETE FROM t)");
}
