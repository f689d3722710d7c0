//! Stories of a COMMIT: what is asked before it, what is known of it when its server is lost, and what is never taken for
//! success.

use super::*;
use crate::session::machine::commit::Xid;
use crate::session::machine::lost::Loss;

/// In a block that has written, on a server that knows the question already.
fn writing() -> (Story, Memory) {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.known.ask_commits = true;
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    story.query(&mut server, "INSERT INTO t VALUES (1)", &["INSERT 0 1"], b'T');
    story.send(&mut server, &q("COMMIT"));
    story.answer(&mut server, &cat(&[OK_1, &xid("700"), &z(b'T'), &c("COMMIT"), &z(b'I')]));
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    story.query(&mut server, "INSERT INTO t VALUES (2)", &["INSERT 0 1"], b'T');
    (story, server)
}

/// The answer to the question: Bind, the row and its end.
fn xid(value: &str) -> Vec<u8> {
    let row = m(b'D', &[&[0, 1], &(value.len() as u32).to_be_bytes(), value.as_bytes()]);
    cat(&[OK_2, &row, &c("SELECT 1")])
}

fn no_xid() -> Vec<u8> {
    cat(&[OK_2, &m(b'D', &[&[0, 1], &[0xff; 4]]), &c("SELECT 1")])
}

fn notice(code: &str, routine: &str) -> Vec<u8> {
    m(b'N', &[b"SWARNING\0VWARNING\0C", code.as_bytes(), b"\0Mwords\0R", routine.as_bytes(), b"\0\0"])
}

fn fatal(code: &str) -> Vec<u8> {
    m(b'E', &[b"SFATAL\0VFATAL\0C", code.as_bytes(), b"\0Mterminating\0\0"])
}

fn lose(story: &mut Story) -> String {
    let mut heard = Vec::new();
    story.machine.answer_lost(&Problem::new("08007", "lost"), &mut heard);
    show(&heard)
}

fn is(xid: u64) -> Loss {
    Loss::Commit(Xid::Is(xid.try_into().unwrap()))
}

const ASKED: &str = "B(pgbaton_1) E() S() Q(COMMIT)";

#[test]
fn before_a_commit_its_transaction_id_is_asked_for_in_the_same_write() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.known.ask_commits = true;
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    story.query(&mut server, "INSERT INTO t VALUES (1)", &["INSERT 0 1"], b'T');
    let (sent, heard) = story.send(&mut server, &q("COMMIT"));
    assert_eq!(sent, format!("P(pgbaton_1SELECT pg_catalog.pg_current_xact_id_if_assigned()) {ASKED}"));
    assert_eq!(heard, "");
    // Until it is answered nothing is known.
    assert_eq!(story.machine.loss(), Loss::Commit(Xid::Unknown));
    assert!(story.machine.only_commit_is_due());
    let (heard, rest) = story.answer(&mut server, &cat(&[OK_1, &xid("4294968000"), &z(b'T')]));
    assert_eq!((heard.as_str(), rest), ("", false));
    assert_eq!(story.machine.loss(), is(4_294_968_000));
    assert_eq!(story.answer(&mut server, &cat(&[&c("COMMIT"), &z(b'I')])), ("C(COMMIT) Z(I)".into(), true));
    assert_eq!(story.machine.loss(), Loss::Nothing);
    // The second time the server knows the question.
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    story.query(&mut server, "INSERT INTO t VALUES (1)", &["INSERT 0 1"], b'T');
    assert_eq!(story.send(&mut server, &q("end")).0, ASKED.replace("COMMIT", "end"));
}

#[test]
fn the_answer_may_come_in_pieces() {
    let (mut story, mut server) = writing();
    story.send(&mut server, &q("COMMIT"));
    let reply = cat(&[&xid("701"), &z(b'T')]);
    let mut rest = Vec::new();
    let mut waiting = Vec::new();
    for byte in reply {
        waiting.push(byte);
        let mut sink = Sink::new(&waiting, &mut rest);
        let (taken, _) = story.machine.server(&waiting, &mut server, &mut sink, 1 << 20).unwrap();
        sink.finish();
        waiting.drain(..taken);
    }
    assert!(rest.is_empty());
    assert_eq!(story.machine.loss(), is(701));
}

#[test]
fn nothing_is_asked_where_there_is_nothing_to_know() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.known.ask_commits = true;
    let plain = |story: &mut Story, server: &mut Memory, text: &str| story.send(server, &q(text)).0;
    // Outside a block it is a warning.
    assert_eq!(plain(&mut story, &mut server, "COMMIT"), "Q(COMMIT)");
    story.answer(&mut server, &cat(&[&c("COMMIT"), &z(b'I')]));
    // Nothing has run; then it is known all the same.
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    assert_eq!(plain(&mut story, &mut server, "COMMIT"), "Q(COMMIT)");
    assert_eq!(story.machine.loss(), Loss::Commit(Xid::None));
    story.answer(&mut server, &cat(&[&c("COMMIT"), &z(b'I')]));
    // A block that has failed is rolled back by it.
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    story.send(&mut server, &q("SELECT 1/0"));
    story.answer(&mut server, &cat(&[&fails("22012", "zero"), &z(b'E')]));
    assert_eq!(plain(&mut story, &mut server, "COMMIT"), "Q(COMMIT)");
    story.answer(&mut server, &cat(&[&c("ROLLBACK"), &z(b'I')]));
    // What begins the next block at once, what ends in two phases, and what is more than a COMMIT.
    for text in ["COMMIT AND CHAIN", "PREPARE TRANSACTION 'x'", "INSERT INTO t VALUES (2); COMMIT", "ROLLBACK"] {
        story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
        story.query(&mut server, "INSERT INTO t VALUES (1)", &["INSERT 0 1"], b'T');
        assert_eq!(plain(&mut story, &mut server, text), format!("Q({text})"));
        let expected = if text == "ROLLBACK" { Loss::RolledBack } else { Loss::Unknown };
        assert_eq!(story.machine.loss(), expected, "{text}");
        story.answer(&mut server, &cat(&[&c("ROLLBACK"), &z(b'I')]));
    }
}

#[test]
fn a_portal_with_commit_is_preceded_by_the_question_in_its_own_pipeline() {
    let (mut story, mut server) = writing();
    let pipeline = cat(&[&p("", "COMMIT"), &b(""), &e(), &s()]);
    let (sent, _) = story.send(&mut server, &pipeline);
    assert_eq!(sent, "P(COMMIT) B() B(pgbaton_xidpgbaton_1) E(pgbaton_xid) H() E() S()");
    let (heard, _) = story.answer(&mut server, &cat(&[OK_1, OK_2, &xid("702")]));
    assert_eq!(heard, "1() 2()");
    assert_eq!(story.machine.loss(), is(702));
    assert_eq!(story.answer(&mut server, &cat(&[&c("COMMIT"), &z(b'I')])), ("C(COMMIT) Z(I)".into(), true));
}

#[test]
fn a_pipeline_that_fails_before_its_commit_skips_the_question_too() {
    let (mut story, mut server) = writing();
    let insert = cat(&[&p("", "INSERT INTO t VALUES (1)"), &b(""), &e()]);
    let (sent, _) = story.send(&mut server, &cat(&[&insert, &p("", "COMMIT"), &b(""), &e(), &s()]));
    assert!(sent.contains("E(pgbaton_xid) H() E() S()"), "{sent}");
    let (heard, rest) = story.answer(&mut server, &cat(&[OK_1, OK_2, &fails("23505", "duplicate"), &z(b'E')]));
    assert!(heard.starts_with("1() 2() E(") && heard.ends_with("Z(E)") && !rest, "{heard}");
    assert_eq!(story.machine.status(), Tx::Failed);
    // With an earlier pipeline unanswered the block may have failed, and COMMIT must end it all the same.
    let (mut story, mut server) = writing();
    story.send(&mut server, &cat(&[&insert, &s()]));
    let (sent, _) = story.send(&mut server, &cat(&[&p("", "COMMIT"), &b(""), &e(), &s()]));
    assert_eq!(sent, "P(COMMIT) B() E() S()");
}

#[test]
fn a_simple_commit_behind_others_is_asked_for_on_its_own() {
    let (mut story, mut server) = writing();
    story.send(&mut server, &q("INSERT INTO t VALUES (3)"));
    assert_eq!(story.send(&mut server, &q("COMMIT")).0, ASKED);
    // The insert failed: so does the question, and nobody hears of that.
    let failed = cat(&[&fails("23505", "duplicate"), &z(b'E'), &fails("25P02", "aborted"), &z(b'E')]);
    let (heard, _) = story.answer(&mut server, &failed);
    assert!(heard.starts_with("E(") && heard.ends_with("Z(E)") && !heard.contains("25P02"), "{heard}");
    let (heard, rest) = story.answer(&mut server, &cat(&[&c("ROLLBACK"), &z(b'I')]));
    assert_eq!((heard.as_str(), rest), ("C(ROLLBACK) Z(I)", true));
}

#[test]
fn a_question_that_is_cancelled_is_the_commit_s_own_error() {
    let (mut story, mut server) = writing();
    story.send(&mut server, &q("COMMIT"));
    let (heard, _) = story.answer(&mut server, &cat(&[&fails("57014", "canceling"), &z(b'E')]));
    assert_eq!(heard, "");
    let (heard, rest) = story.answer(&mut server, &cat(&[&c("ROLLBACK"), &z(b'I')]));
    assert!(heard.contains("57014") && !heard.contains("ROLLBACK") && heard.ends_with("Z(I)") && rest, "{heard}");
}

#[test]
fn a_transaction_that_wrote_nothing_has_nothing_to_lose() {
    let (mut story, mut server) = writing();
    story.query(&mut server, "SET timezone TO 'UTC'", &["SET"], b'T');
    story.send(&mut server, &q("COMMIT"));
    story.answer(&mut server, &cat(&[&no_xid(), &z(b'T')]));
    assert_eq!(story.machine.loss(), Loss::Commit(Xid::None));
    let mut heard = Vec::new();
    story.machine.answer_committed(&mut heard);
    assert_eq!(show(&heard), "C(COMMIT) Z(I)");
    assert!(story.machine.is_at_rest());
    // What it set is the session's.
    assert_eq!(story.machine.steps_to_attach(&Memory::default()), [b"SET timezone TO 'UTC'".to_vec()]);
    // A cursor WITH HOLD runs to its end in COMMIT, and may write then.
    let (mut story, mut server) = writing();
    story.query(&mut server, "DECLARE c CURSOR WITH HOLD FOR SELECT f()", &["DECLARE CURSOR"], b'T');
    story.send(&mut server, &q("COMMIT"));
    story.answer(&mut server, &cat(&[&no_xid(), &z(b'T')]));
    assert_eq!(story.machine.loss(), Loss::Commit(Xid::Unknown));
}

#[test]
fn a_lost_commit_ends_its_block_and_is_answered_once() {
    for extended in [false, true] {
        let (mut story, mut server) = writing();
        let commit = if extended { cat(&[&p("", "COMMIT"), &b(""), &e(), &s()]) } else { q("COMMIT") };
        story.send(&mut server, &commit);
        if extended {
            story.answer(&mut server, &cat(&[OK_1, OK_2]));
        }
        let heard = lose(&mut story);
        assert!(heard.starts_with("E(") && heard.ends_with("Z(I)") && heard.matches("Z(").count() == 1, "{heard}");
        assert_eq!(story.machine.status(), Tx::Idle);
    }
    // With more behind it nobody knows how far the server came; what is sent next must not run on its own.
    let (mut story, mut server) = writing();
    story.send(&mut server, &cat(&[&q("COMMIT"), &q("BEGIN"), &q("INSERT INTO t VALUES (4)")]));
    story.answer(&mut server, &cat(&[&xid("703"), &z(b'T')]));
    assert_eq!(story.machine.loss(), Loss::Unknown);
    let heard = lose(&mut story);
    assert_eq!((heard.matches("E(").count(), heard.matches("Z(E)").count()), (3, 3), "{heard}");
}

#[test]
fn a_commit_that_is_only_local_is_no_success() {
    let local = notice("01000", "SyncRepWaitForLSN");
    // Alone, as a simple query: the warning comes before the end of the statement.
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &q("INSERT INTO t VALUES (1)"));
    let (heard, rest) = story.answer(&mut server, &cat(&[&local, &c("INSERT 0 1"), &z(b'I')]));
    assert!(heard.contains("C08007") && !heard.contains("INSERT") && heard.ends_with("Z(I)") && rest, "{heard}");
    // In the extended protocol the statement is complete before it is committed.
    story.send(&mut server, &cat(&[&p("", "INSERT INTO t VALUES (1)"), &b(""), &e(), &s()]));
    let (heard, _) = story.answer(&mut server, &cat(&[OK_1, OK_2, &c("INSERT 0 1"), &local, &z(b'I')]));
    let error = heard.find("C08007").unwrap();
    assert!(heard.find("INSERT").unwrap() < error && heard.ends_with("Z(I)"), "{heard}");
    // The end of a block; what is behind it up to Sync is not for a client that has heard an error.
    let (mut story, mut server) = writing();
    let more = cat(&[&p("", "SELECT 1"), &b(""), &e(), &s()]);
    story.send(&mut server, &cat(&[&p("", "COMMIT"), &b(""), &e(), &more]));
    let replies = cat(&[OK_1, OK_2, &xid("704"), &local, &c("COMMIT"), OK_1, OK_2, &c("SELECT 1"), &z(b'I')]);
    let (heard, rest) = story.answer(&mut server, &replies);
    assert!(
        heard.starts_with("1() 2() N(") && heard.contains("C08007") && heard.ends_with(") Z(I)") && rest,
        "{heard}"
    );
    assert!(!heard.contains("COMMIT") && !heard.contains("SELECT 1") && heard.matches("E(").count() == 1, "{heard}");
    // It was once.
    story.query(&mut server, "SELECT 1", &["SELECT 1"], b'I');
    story.send(&mut server, &q("SELECT 2"));
    assert_eq!(story.answer(&mut server, &cat(&[&c("SELECT 1"), &z(b'I')])).0, "C(SELECT 1) Z(I)");
    // Other warnings are nobody's business but the client's.
    story.send(&mut server, &q("SELECT 3"));
    let other = cat(&[&notice("01000", "exec_stmt_raise"), &c("SELECT 1"), &z(b'I')]);
    assert!(story.answer(&mut server, &other).0.ends_with("C(SELECT 1) Z(I)"));
}

#[test]
fn a_server_that_is_going_does_not_take_its_client_along() {
    for (text, code, expected) in [
        ("INSERT INTO t VALUES (1)", "57P01", Loss::RolledBack),
        ("INSERT INTO t VALUES (1)", "57P02", Loss::RolledBack),
        // A procedure may have committed half of its work.
        ("CALL p()", "57P01", Loss::Unknown),
        ("VACUUM t", "57P01", Loss::Unknown),
        ("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)", "57P01", Loss::Unknown),
    ] {
        let (mut story, mut server) = (Story::new(), Memory::default());
        story.send(&mut server, &q(text));
        assert_eq!(story.answer(&mut server, &fatal(code)).0, "");
        assert_eq!((story.machine.loss(), story.machine.saw_fatal()), (expected, false), "{text}");
    }
    // Said while the session waited, it is not heard at all.
    let (mut story, mut server) = (Story::new(), Memory::default());
    assert_eq!(story.answer(&mut server, &fatal("57P01")).0, "");
    assert_eq!(story.machine.loss(), Loss::Nothing);
    // A crash may come at any moment, also just after the commit.
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &q("INSERT INTO t VALUES (1)"));
    assert_eq!(story.answer(&mut server, &notice("57P02", "quickdie")).0, "");
    assert_eq!(story.machine.loss(), Loss::Unknown);
    // Before the commit was made: the answer is that it was not.
    let (mut story, mut server) = writing();
    story.send(&mut server, &q("COMMIT"));
    story.answer(&mut server, &cat(&[&xid("705"), &z(b'T'), &fatal("57P01")]));
    assert_eq!(story.machine.loss(), Loss::RolledBack);
    // After it was made, while it waited for its standbys.
    let (mut story, mut server) = writing();
    story.send(&mut server, &q("COMMIT"));
    story.answer(&mut server, &cat(&[&xid("706"), &z(b'T'), &notice("57P01", "SyncRepWaitForLSN")]));
    assert_eq!((story.machine.loss(), story.machine.is_only_local()), (is(706), true));
    story.answer(&mut server, &fatal("57P01"));
    assert_eq!(story.machine.loss(), is(706), "what is committed is not rolled back by the end of its server");
    // What ends a session for the client's own sake is the client's to hear.
    for code in ["25P03", "57P05", "57P04"] {
        let (mut story, mut server) = (Story::new(), Memory::default());
        assert!(story.answer(&mut server, &fatal(code)).0.contains(code));
        assert!(story.machine.saw_fatal());
    }
}

#[test]
fn a_server_that_panics_does_not_take_its_client_along() {
    let panic = m(b'E', &[b"SPANIC\0VPANIC\0CXX000\0Mcould not write to file\0\0"]);
    // It panics where it writes the commit, too: whether that is on its disk its next start will show.
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &q("INSERT INTO t VALUES (1)"));
    assert_eq!(story.answer(&mut server, &panic).0, "");
    assert_eq!((story.machine.loss(), story.machine.saw_fatal()), (Loss::Unknown, false));
    let (mut story, mut server) = writing();
    story.send(&mut server, &q("COMMIT"));
    assert_eq!(story.answer(&mut server, &cat(&[&xid("705"), &z(b'T'), &panic])).0, "");
    assert_eq!((story.machine.loss(), story.machine.saw_fatal()), (is(705), false));
    let (mut story, mut server) = writing();
    story.send(&mut server, &q("INSERT INTO t VALUES (3)"));
    assert_eq!(story.answer(&mut server, &panic).0, "");
    assert_eq!((story.machine.loss(), story.machine.saw_fatal()), (Loss::RolledBack, false));
}

#[test]
fn what_was_only_prepared_has_not_happened() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    let describe = m(b'D', &[b"S", b"mine\0"]);
    story.send(&mut server, &cat(&[&p("mine", "INSERT INTO t VALUES (1)"), &describe, &s()]));
    assert_eq!(story.machine.loss(), Loss::RolledBack);
    assert!(lose(&mut story).ends_with("Z(I)"));
    // The name is free again.
    let mut other = Memory::default();
    assert!(story.send(&mut other, &cat(&[&p("mine", "INSERT INTO t VALUES (1)"), &s()])).0.starts_with("P(pgbaton_"));
}

#[test]
fn what_was_executed_before_a_lost_sync_may_be_committed() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&p("", "INSERT INTO t VALUES (1)"), &b(""), &e(), &s()]));
    story.answer(&mut server, &cat(&[OK_1, OK_2, &c("INSERT 0 1")]));
    assert_eq!(story.machine.loss(), Loss::Unknown);
    assert!(lose(&mut story).starts_with("E("));
}

#[test]
fn what_was_not_sent_to_its_end_is_not_committed() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&p("", "INSERT INTO t VALUES (1)"), &b(""), &e(), &m(b'H', &[])]));
    assert_eq!(story.machine.loss(), Loss::RolledBack);
    story.answer(&mut server, &cat(&[OK_1, OK_2, &c("INSERT 0 1")]));
    assert_eq!(story.machine.loss(), Loss::RolledBack);
    assert!(lose(&mut story).starts_with("E("));
    // What is before it may have committed.
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&q("CALL p()"), &p("", "INSERT INTO t VALUES (1)"), &b("")]));
    assert_eq!(story.machine.loss(), Loss::Unknown);
    for (text, expected) in [("COPY t FROM STDIN", Loss::RolledBack), ("COPY t FROM STDIN; VACUUM", Loss::Unknown)] {
        let (mut story, mut server) = (Story::new(), Memory::default());
        story.send(&mut server, &q(text));
        story.answer(&mut server, &m(b'G', &[&[0, 0, 0]]));
        story.send(&mut server, &m(b'd', &[b"1\n"]));
        assert_eq!(story.machine.loss(), expected, "{text}");
        story.send(&mut server, &m(b'c', &[]));
        assert_eq!(story.machine.loss(), Loss::Unknown);
    }
}

#[test]
fn an_error_that_was_passed_on_is_not_repeated_when_the_server_is_lost_behind_it() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &q("SELECT 1/0"));
    story.answer(&mut server, &fails("22012", "zero"));
    assert_eq!(lose(&mut story), "Z(I)");
}

#[test]
fn a_rollback_ends_a_lost_block_however_it_is_sent() {
    let rollbacks =
        [q("ROLLBACK"), q("abort"), cat(&[&p("", "ROLLBACK"), &b(""), &e(), &s()]), cat(&[&b("undo"), &e(), &s()])];
    for rollback in rollbacks {
        let (mut story, mut server) = (Story::new(), Memory::default());
        story.send(&mut server, &cat(&[&p("undo", "ROLLBACK"), &s()]));
        story.answer(&mut server, &cat(&[OK_1, &z(b'I')]));
        story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
        assert_eq!(lose(&mut story), "");
        assert!(!story.machine.takes_lost_block(&rollback));
    }
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    lose(&mut story);
    assert!(story.machine.takes_lost_block(&q("INSERT INTO t VALUES (1)")));
}

#[test]
fn a_short_row_is_passed_on_whole_or_not_at_all() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &q("SELECT 1"));
    let row = m(b'D', &[&[0, 1], &[0, 0, 0, 3], b"abc"]);
    let mut rest = Vec::new();
    let half = &row[..8];
    let mut sink = Sink::new(half, &mut rest);
    let (taken, _) = story.machine.server(half, &mut server, &mut sink, 1 << 20).unwrap();
    assert!(taken == 0 && sink.finish().is_empty() && !story.machine.is_cut_short());
    let long = m(b'D', &[&vec![b'x'; 10_000]]);
    let (taken, _) =
        story.machine.server(&long[..100], &mut server, &mut Sink::new(&long[..100], &mut rest), 1 << 20).unwrap();
    assert!(taken == 100 && story.machine.is_cut_short());
}

#[test]
fn nothing_of_an_open_block_is_committed() {
    let insert = |text: &str| cat(&[&p("", text), &b(""), &e()]);
    let pipelined: Vec<Vec<u8>> = ["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT", "ROLLBACK"].map(insert).into();
    let [begin, write, commit, rollback] = &pipelined[..] else { unreachable!() };
    // What is sent outside of a block.
    for (sent, expected) in [
        (q("BEGIN"), Loss::RolledBack),
        (q("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO t VALUES (1)"), Loss::RolledBack),
        (cat(&[begin, &s()]), Loss::RolledBack),
        (cat(&[begin, write, &s()]), Loss::RolledBack),
        (cat(&[begin, write]), Loss::RolledBack),
        // Should the BEGIN fail, the other runs on its own.
        (cat(&[&q("BEGIN"), &q("INSERT INTO t VALUES (1)")]), Loss::Unknown),
        (cat(&[begin, &s(), write, &s()]), Loss::Unknown),
        (q("BEGIN; INSERT INTO t VALUES (1); COMMIT"), Loss::Unknown),
        (q("BEGIN; ROLLBACK; INSERT INTO t VALUES (1)"), Loss::Unknown),
        (cat(&[begin, write, commit, &s()]), Loss::Unknown),
        (cat(&[begin, rollback, write, &s()]), Loss::Unknown),
        (cat(&[&q("INSERT INTO t VALUES (1)"), &q("BEGIN")]), Loss::Unknown),
        (cat(&[write, begin, &s()]), Loss::Unknown),
    ] {
        let (mut story, mut server) = (Story::new(), Memory::default());
        story.send(&mut server, &sent);
        assert_eq!(story.machine.loss(), expected, "{}", show(&sent));
        let heard = lose(&mut story);
        assert!(heard.starts_with("E(") && !heard.contains("Z(E)"), "{heard}");
    }
    // What is sent within one.
    for (sent, expected) in [
        (q("INSERT INTO t VALUES (1)"), Loss::RolledBack),
        (q("INSERT INTO t VALUES (1); SAVEPOINT a; ROLLBACK TO a"), Loss::RolledBack),
        (cat(&[write, &s(), write, &s()]), Loss::RolledBack),
        (cat(&[write, rollback, &s()]), Loss::RolledBack),
        // What is behind the end of a block may be committed, whatever became of the block.
        (cat(&[&q("ROLLBACK"), &q("INSERT INTO t VALUES (1)")]), Loss::Unknown),
        (cat(&[rollback, write, &s()]), Loss::Unknown),
        (q("ROLLBACK; INSERT INTO t VALUES (1)"), Loss::Unknown),
        (cat(&[write, commit, &s()]), Loss::Unknown),
    ] {
        let (mut story, mut server) = (Story::new(), Memory::default());
        story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
        story.send(&mut server, &sent);
        assert_eq!(story.machine.loss(), expected, "{}", show(&sent));
    }
    // The end was answered, though not what is behind it.
    for end in [commit, rollback] {
        let (mut story, mut server) = (Story::new(), Memory::default());
        story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
        story.send(&mut server, &cat(&[end, write, &s()]));
        story.answer(&mut server, &cat(&[OK_1, OK_2, &c("COMMIT"), OK_1, OK_2]));
        assert_eq!(story.machine.loss(), Loss::Unknown);
    }
    // The BEGIN has failed, and what is behind it runs on its own.
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&q("BEGIN"), &q("INSERT INTO t VALUES (1)")]));
    story.answer(&mut server, &cat(&[&fails("57014", "cancelled"), &z(b'I')]));
    assert_eq!(story.machine.loss(), Loss::Unknown);
    // It has not.
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&q("BEGIN"), &q("INSERT INTO t VALUES (1)")]));
    story.answer(&mut server, &cat(&[&c("BEGIN"), &z(b'T')]));
    assert_eq!(story.machine.loss(), Loss::RolledBack);
}
