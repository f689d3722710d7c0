//! Stories of one client, told as transcripts: what it sent, what the server got, what the server said, what it heard.

mod commits;
mod standby;

use std::sync::Arc;

use proptest::prelude::*;

use super::{Before, ClientStep, Machine, Nothing, ServerStep, Tx};
use crate::pool::memory::{Memory, Parameters};
use crate::session::sink::Sink;
use crate::sql::Pin;
use crate::wire::frame;
use crate::wire::message::{self, Problem};

/// A client with its machine; servers are given to it one call at a time.
struct Story {
    machine: Machine,
    known: Nothing,
}

const SELF: u64 = 7;

impl Story {
    fn new() -> Self {
        Story { machine: Machine::new(SELF, 4711, Arc::new(Parameters::default()), false), known: Nothing::default() }
    }

    /// The client sends; returns what the server gets and what the client hears at once, as text.
    fn send(&mut self, server: &mut Memory, messages: &[u8]) -> (String, String) {
        let (to_server, to_client, step) = self.send_raw(Some(server), messages);
        assert_eq!(step, ClientStep::More);
        (show(&to_server), show(&to_client))
    }

    fn send_raw(&mut self, server: Option<&mut Memory>, messages: &[u8]) -> (Vec<u8>, Vec<u8>, ClientStep) {
        let context = self.known.context();
        let (mut rest, mut to_client) = (Vec::new(), Vec::new());
        let mut sink = Sink::new(messages, &mut rest);
        let (_, step) = self.machine.client(messages, server, &mut sink, &mut to_client, &context).unwrap();
        let run = sink.finish();
        rest.extend_from_slice(&messages[run]);
        (rest, to_client, step)
    }

    /// The server answers; returns what the client hears, and whether all is at rest.
    fn answer(&mut self, server: &mut Memory, messages: &[u8]) -> (String, bool) {
        let mut rest = Vec::new();
        let mut sink = Sink::new(messages, &mut rest);
        let (taken, step) = self.machine.server(messages, server, &mut sink, 1 << 20).unwrap();
        assert_eq!(taken, messages.len());
        let run = sink.finish();
        rest.extend_from_slice(&messages[run]);
        (show(&rest), step == ServerStep::Rest)
    }

    /// One simple query that succeeds with these tags.
    fn query(&mut self, server: &mut Memory, text: &str, tags: &[&str], status: u8) {
        self.send(server, &q(text));
        let mut reply: Vec<u8> = tags.iter().flat_map(|tag| c(tag)).collect();
        reply.extend(z(status));
        self.answer(server, &reply);
    }
}

fn m(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    message::raw(&mut out, tag, parts);
    out
}
fn q(text: &str) -> Vec<u8> {
    m(b'Q', &[text.as_bytes(), b"\0"])
}
fn p(name: &str, text: &str) -> Vec<u8> {
    m(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0", &[0, 0]])
}
fn b(name: &str) -> Vec<u8> {
    m(b'B', &[b"\0", name.as_bytes(), b"\0", &[0; 6]])
}
fn e() -> Vec<u8> {
    m(b'E', &[b"\0", &[0; 4]])
}
fn s() -> Vec<u8> {
    m(b'S', &[])
}
fn c(tag: &str) -> Vec<u8> {
    m(b'C', &[tag.as_bytes(), b"\0"])
}
fn z(status: u8) -> Vec<u8> {
    m(b'Z', &[&[status]])
}
fn fails(code: &str, text: &str) -> Vec<u8> {
    m(b'E', &[b"SERROR\0VERROR\0C", code.as_bytes(), b"\0M", text.as_bytes(), b"\0\0"])
}
const OK_1: &[u8] = &[b'1', 0, 0, 0, 4];
const OK_2: &[u8] = &[b'2', 0, 0, 0, 4];

fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Messages as a line: tag, and the printable part of the body.
fn show(mut bytes: &[u8]) -> String {
    let mut words = Vec::new();
    while let Ok(Some(head)) = frame::header(bytes) {
        let body: String =
            bytes[5..head.total].iter().filter(|b| b.is_ascii_graphic() || **b == b' ').map(|b| *b as char).collect();
        words.push(format!("{}({body})", head.tag as char));
        bytes = &bytes[head.total..];
    }
    assert!(bytes.is_empty(), "half a message");
    words.join(" ")
}

#[test]
fn a_query_passes_as_it_is_and_the_connection_comes_to_rest() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    assert_eq!(story.send_raw(None, &q("SELECT 1")).2, ClientStep::NeedServer);
    assert_eq!(story.send(&mut server, &q("SELECT 1")), ("Q(SELECT 1)".into(), "".into()));
    assert!(!story.machine.is_at_rest());
    assert_eq!(story.answer(&mut server, &cat(&[&c("SELECT 1"), &z(b'I')])), ("C(SELECT 1) Z(I)".into(), true));
}

#[test]
fn an_open_transaction_keeps_its_connection() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &q("BEGIN"));
    assert_eq!(story.answer(&mut server, &cat(&[&c("BEGIN"), &z(b'T')])), ("C(BEGIN) Z(T)".into(), false));
    assert_eq!(story.machine.status(), Tx::Block);
}

#[test]
fn what_is_set_follows_the_session_to_another_server() {
    let (mut story, mut one) = (Story::new(), Memory::default());
    story.query(&mut one, "SET timezone TO 'UTC'", &["SET"], b'I');
    assert!(story.machine.steps_to_attach(&one).is_empty(), "this server has it");
    assert_eq!(story.machine.steps_to_attach(&Memory::default()), [b"SET timezone TO 'UTC'".to_vec()]);
}

#[test]
fn what_a_rollback_undoes_does_not_follow() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    story.query(&mut server, "SET timezone TO 'UTC'", &["SET"], b'T');
    story.query(&mut server, "SAVEPOINT a", &["SAVEPOINT"], b'T');
    story.query(&mut server, "SET work_mem TO '1MB'", &["SET"], b'T');
    story.query(&mut server, "ROLLBACK TO a", &["ROLLBACK"], b'T');
    story.query(&mut server, "COMMIT", &["COMMIT"], b'I');
    assert_eq!(story.machine.steps_to_attach(&Memory::default()), [b"SET timezone TO 'UTC'".to_vec()]);
    story.query(&mut server, "BEGIN; SET timezone TO 'CET'", &["BEGIN", "SET"], b'T');
    story.query(&mut server, "ROLLBACK", &["ROLLBACK"], b'I');
    assert_eq!(story.machine.steps_to_attach(&Memory::default()), [b"SET timezone TO 'UTC'".to_vec()]);
}

#[test]
fn a_failed_message_sets_nothing_even_if_its_first_statement_succeeded() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &q("SET timezone TO 'UTC'; SELECT 1/0"));
    story.answer(&mut server, &cat(&[&c("SET"), &fails("22012", "division by zero"), &z(b'I')]));
    assert!(story.machine.steps_to_attach(&Memory::default()).is_empty());
}

#[test]
fn a_named_statement_is_prepared_again_where_it_is_missing() {
    let (mut story, mut one, mut two) = (Story::new(), Memory::default(), Memory::default());
    let (sent, _) = story.send(&mut one, &cat(&[&p("s", "SELECT 1"), &s()]));
    assert_eq!(sent, "P(pgbaton_1SELECT 1) S()");
    assert_eq!(story.answer(&mut one, &cat(&[OK_1, &z(b'I')])), ("1() Z(I)".into(), true));
    // On another server it is parsed in the same write, and the client does not hear of it.
    let (sent, _) = story.send(&mut two, &cat(&[&b("s"), &e(), &s()]));
    assert_eq!(sent, "P(pgbaton_1SELECT 1) B(pgbaton_1) E() S()");
    let (heard, rest) = story.answer(&mut two, &cat(&[OK_1, OK_2, &c("SELECT 1"), &z(b'I')]));
    assert_eq!((heard.as_str(), rest), ("2() C(SELECT 1) Z(I)", true));
    // The second time it is there.
    assert_eq!(story.send(&mut two, &cat(&[&b("s"), &e(), &s()])).0, "B(pgbaton_1) E() S()");
}

#[test]
fn a_statement_another_client_prepared_is_used_without_parsing_it_again() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&p("a", "SELECT 1"), &s()]));
    story.answer(&mut server, &cat(&[OK_1, &z(b'I')]));
    // Parse is answered by us, in its turn: after the reply to the Bind before it.
    let (sent, heard) = story.send(&mut server, &cat(&[&b("a"), &p("b", "SELECT 1"), &s()]));
    assert_eq!((sent.as_str(), heard.as_str()), ("B(pgbaton_1) S()", ""));
    assert_eq!(story.answer(&mut server, &cat(&[OK_2, &z(b'I')])).0, "2() 1() Z(I)");
    // After DDL the plan may have another shape, so it is prepared anew.
    story.known.generation += 1;
    assert_eq!(story.send(&mut server, &cat(&[&p("c", "SELECT 1"), &s()])).0, "P(pgbaton_2SELECT 1) S()");
}

#[test]
fn a_parse_that_failed_leaves_no_statement() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&p("s", "SELEC"), &b("s"), &e(), &s()]));
    let (heard, rest) = story.answer(&mut server, &cat(&[&fails("42601", "syntax error"), &z(b'I')]));
    assert!(heard.starts_with("E(SERROR") && heard.ends_with("Z(I)") && rest, "{heard}");
    // The name is free, and unknown on the server.
    assert_eq!(story.send(&mut server, &cat(&[&b("s"), &s()])).0, "B(s) S()");
}

#[test]
fn after_an_error_everything_up_to_sync_is_dropped() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &b("nothing"));
    story.answer(&mut server, &fails("26000", "does not exist"));
    assert_eq!(story.send(&mut server, &cat(&[&e(), &q("SELECT 1"), &s()])).0, "S()");
    assert!(story.answer(&mut server, &z(b'I')).1);
}

#[test]
fn a_name_in_use_is_refused_as_postgresql_does() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&p("mine", "SELECT 1"), &s()]));
    story.answer(&mut server, &cat(&[OK_1, &z(b'I')]));
    let (sent, _) = story.send(&mut server, &cat(&[&p("mine", "SELECT 2"), &s()]));
    assert_eq!(sent, "D(Spgbaton_nowhere) S()");
    let unknown = fails("26000", "prepared statement \"pgbaton_nowhere\" does not exist");
    let (heard, rest) = story.answer(&mut server, &cat(&[&unknown, &z(b'I')]));
    assert!(heard.contains("C42P05Mprepared statement \"mine\" already exists") && rest, "{heard}");
    assert_eq!(
        story.send(&mut server, &cat(&[&b("mine"), &s()])).0,
        "B(pgbaton_1) S()",
        "the first one is still there"
    );
}

#[test]
fn errors_name_a_statement_as_the_client_does() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&p("mine", "SELECT 1"), &s()]));
    story.answer(&mut server, &cat(&[OK_1, &z(b'I')]));
    story.send(&mut server, &cat(&[&b("mine"), &s()]));
    let reply = fails("08P01", "bind message supplies 0 parameters, but prepared statement \"pgbaton_1\" requires 1");
    let (heard, _) = story.answer(&mut server, &cat(&[&reply, &z(b'I')]));
    assert!(heard.contains("prepared statement \"mine\" requires 1"), "{heard}");
}

/// A RowDescription of one column `a` with this type.
fn row(type_oid: u32) -> Vec<u8> {
    m(b'T', &[&[0, 1], b"a\0", &[0; 6], &type_oid.to_be_bytes(), &[0; 8]])
}

#[test]
fn a_statement_described_before_ddl_is_only_used_where_it_still_has_its_shape() {
    let (mut story, mut one) = (Story::new(), Memory::default());
    let describe = m(b'D', &[b"S", b"s\0"]);
    story.send(&mut one, &cat(&[&p("s", "SELECT a FROM t"), &describe, &s()]));
    story.answer(&mut one, &cat(&[OK_1, &m(b't', &[&[0, 0]]), &row(23), &z(b'I')]));
    story.known.generation += 1;
    let bind = cat(&[&b("s"), &e(), &s()]);
    let looked = "P(pgbaton_1SELECT a FROM t) D(Spgbaton_1) H()";

    // On a server that lacks it the shape is asked for, and nothing sent before the answer.
    let mut same = Memory::default();
    let (sent, _, step) = story.send_raw(Some(&mut same), &bind);
    assert_eq!((show(&sent).as_str(), step), (looked, ClientStep::Full));
    let (heard, _) = story.answer(&mut same, &cat(&[OK_1, &m(b't', &[&[0, 0]]), &row(23)]));
    assert_eq!(heard, "");
    assert_eq!(story.send(&mut same, &bind).0, "B(pgbaton_1) E() S()");
    story.answer(&mut same, &cat(&[OK_2, &c("SELECT 1"), &z(b'I')]));

    let mut other = Memory::default();
    assert_eq!(show(&story.send_raw(Some(&mut other), &bind).0), looked);
    story.answer(&mut other, &cat(&[OK_1, &m(b't', &[&[0, 0]]), &row(25)]));
    assert_eq!(story.send(&mut other, &bind).0, "C(Spgbaton_1) B(pgbaton_nowhere) E() S()");
    let refused = fails("26000", "prepared statement \"pgbaton_nowhere\" does not exist");
    let (heard, rest) = story.answer(&mut other, &cat(&[&m(b'3', &[]), &refused, &z(b'I')]));
    assert!(heard.contains("C0A000Mcached plan must not change result type") && rest, "{heard}");
}

#[test]
fn the_least_recently_used_statement_makes_room() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    for number in 1..=3 {
        story.send(&mut server, &cat(&[&p(&format!("s{number}"), &format!("SELECT {number}")), &s()]));
        story.answer(&mut server, &cat(&[OK_1, &z(b'I')]));
    }
    let (sent, _) = story.send(&mut server, &cat(&[&p("s4", "SELECT 4"), &s()]));
    assert_eq!(sent, "C(Spgbaton_1) P(pgbaton_4SELECT 4) S()");
    let closed = m(b'3', &[]);
    assert_eq!(story.answer(&mut server, &cat(&[&closed, OK_1, &z(b'I')])).0, "1() Z(I)");
}

#[test]
fn the_unnamed_statement_comes_along_and_nobody_else_s_is_used() {
    let (mut story, mut one) = (Story::new(), Memory::default());
    story.send(&mut one, &cat(&[&p("", "SELECT 1"), &s()]));
    story.answer(&mut one, &cat(&[OK_1, &z(b'I')]));
    let mut two = Memory::default();
    two.unnamed = 99;
    assert_eq!(story.send(&mut two, &cat(&[&b(""), &s()])).0, "P(SELECT 1) B() S()");
    story.answer(&mut two, &cat(&[OK_1, OK_2, &z(b'I')]));
    // A simple query drops it, as PostgreSQL does; then the server must not have one left of somebody else.
    story.query(&mut two, "SELECT 2", &["SELECT 1"], b'I');
    two.unnamed = 99;
    assert_eq!(story.send(&mut two, &cat(&[&b(""), &s()])).0, "C(S) B() S()");
}

#[test]
fn a_sync_ahead_of_copy_data_is_not_waited_for() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&p("", "COPY t FROM STDIN"), &b(""), &e(), &s()]));
    let copy_in = m(b'G', &[&[0, 0, 0]]);
    story.answer(&mut server, &cat(&[OK_1, OK_2, &copy_in]));
    assert!(story.machine.copy_in());
    let (sent, _) = story.send(&mut server, &cat(&[&m(b'd', &[b"1\n"]), &m(b'c', &[]), &s()]));
    assert_eq!(sent, "d(1) c() S()");
    assert!(story.answer(&mut server, &cat(&[&c("COPY 1"), &z(b'I')])).1);
}

#[test]
fn copy_data_after_a_failed_copy_is_dropped() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &q("COPY t FROM STDIN"));
    story.answer(&mut server, &m(b'G', &[&[0, 0, 0]]));
    assert!(story.answer(&mut server, &cat(&[&fails("22P02", "invalid"), &z(b'I')])).1);
    let (to_server, to_client, step) = story.send_raw(None, &cat(&[&m(b'd', &[b"x\n"]), &m(b'c', &[])]));
    assert!(to_server.is_empty() && to_client.is_empty() && step == ClientStep::More);
}

#[test]
fn pins_come_and_go_with_what_they_stand_for() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.query(&mut server, "SELECT pg_advisory_lock(1)", &["SELECT 1"], b'I');
    assert!(story.machine.pins().contains(Pin::AdvisoryLock));
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    story.query(&mut server, "LISTEN x", &["LISTEN"], b'T');
    story.query(&mut server, "ROLLBACK", &["ROLLBACK"], b'I');
    assert!(!story.machine.pins().contains(Pin::Listen), "rolled back");
    story.query(&mut server, "DISCARD ALL", &["DISCARD ALL"], b'I');
    assert!(story.machine.pins().is_empty());
}

#[test]
fn a_session_that_looks_at_its_statements_gets_its_own_names_first() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    let (_, _, step) = story.send_raw(Some(&mut server), &q("SELECT * FROM pg_prepared_statements"));
    assert_eq!(step, ClientStep::Before(Before::GoNative));
    story.machine.go_native(&mut server);
    assert_eq!(story.send(&mut server, &q("SELECT * FROM pg_prepared_statements")).0.chars().next(), Some('Q'));
    story.answer(&mut server, &cat(&[&c("SELECT 0"), &z(b'I')]));
    assert_eq!(story.send(&mut server, &cat(&[&p("mine", "SELECT 1"), &s()])).0, "P(mineSELECT 1) S()");
}

#[test]
fn sql_finds_a_statement_of_the_protocol_under_the_client_s_name() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.send(&mut server, &cat(&[&p("mine", "SELECT 1"), &s()]));
    story.answer(&mut server, &cat(&[OK_1, &z(b'I')]));
    let (sent, _) = story.send(&mut server, &q("DEALLOCATE mine"));
    assert_eq!(sent, "P(mineSELECT 1) S() Q(DEALLOCATE mine)");
    let (heard, rest) = story.answer(&mut server, &cat(&[OK_1, &z(b'I'), &c("DEALLOCATE"), &z(b'I')]));
    assert_eq!((heard.as_str(), rest), ("C(DEALLOCATE) Z(I)", true));
    assert_eq!(story.send(&mut server, &cat(&[&b("mine"), &s()])).0, "B(mine) S()", "it is gone");
}

#[test]
fn a_lost_block_stays_failed_until_the_client_ends_it() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    story.send(&mut server, &q("INSERT INTO t VALUES (1)"));
    assert!(!story.machine.may_have_committed());
    let mut heard = Vec::new();
    story.machine.answer_lost(&Problem::new("40001", "lost"), &mut heard);
    assert!(show(&heard).ends_with("Z(E)"));
    assert_eq!(story.machine.status(), Tx::Failed);
    assert_eq!(story.send_raw(None, &q("INSERT INTO t VALUES (2)")).2, ClientStep::NeedServer);
}

#[test]
fn a_commit_under_way_may_have_happened() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.query(&mut server, "BEGIN", &["BEGIN"], b'T');
    story.send(&mut server, &q("COMMIT"));
    assert!(story.machine.may_have_committed());
}

#[test]
fn what_was_done_before_a_statement_is_done_again_when_its_server_is_lost() {
    let (mut story, mut first, mut second) = (Story::new(), Memory::default(), Memory::default());
    let show = q("SHOW pgbaton.node");
    let publish = ClientStep::Before(Before::Publish("node".into()));
    assert_eq!(story.send_raw(Some(&mut first), &show).2, publish);
    // The server dies while it is told the value.
    story.machine.answer_lost(&Problem::new("40001", "gone"), &mut Vec::new());
    assert_eq!(story.send_raw(Some(&mut second), &show).2, publish, "another server does not know it");
    assert_eq!(story.send(&mut second, &show).0, "Q(SHOW pgbaton.node)");
}

#[test]
fn a_session_s_own_notifications_carry_the_process_id_it_was_told() {
    let (mut story, mut server) = (Story::new(), Memory::default());
    story.machine.attach(&mut server, 99, false, &mut Vec::new());
    let own = m(b'A', &[&99u32.to_be_bytes(), b"x\0y\0"]);
    let mut rest = Vec::new();
    let mut sink = Sink::new(&own, &mut rest);
    story.machine.server(&own, &mut server, &mut sink, 1 << 20).unwrap();
    sink.finish();
    assert_eq!(rest, m(b'A', &[&4711u32.to_be_bytes(), b"x\0y\0"]));
}

fn any_client_message() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec![
        "SELECT 1",
        "SET a.b = 1",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "DISCARD ALL",
        "DEALLOCATE s",
        "SELECT 1; SELECT 2",
        "",
        "SELECT pg_advisory_lock(1)",
        "PREPARE s AS SELECT 1",
        "EXECUTE s",
        "SAVEPOINT x",
        "ROLLBACK TO x",
        "DEALLOCATE ALL",
    ]);
    let name = prop::sample::select(vec!["", "s", "t"]);
    prop_oneof![
        text.clone().prop_map(q),
        (name.clone(), text).prop_map(|(name, text)| p(name, text)),
        name.clone().prop_map(b),
        name.clone().prop_map(|name| m(b'D', &[b"S", name.as_bytes(), b"\0"])),
        name.prop_map(|name| m(b'C', &[b"S", name.as_bytes(), b"\0"])),
        Just(e()),
        Just(s()),
        Just(m(b'H', &[])),
        Just(m(b'd', &[b"data"])),
        Just(m(b'c', &[])),
        Just(m(b'F', &[&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]])),
    ]
}

fn any_server_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(OK_1.to_vec()),
        Just(OK_2.to_vec()),
        Just(m(b'3', &[])),
        Just(c("SET")),
        Just(c("COMMIT")),
        Just(m(b'T', &[&[0, 0]])),
        Just(m(b'n', &[])),
        Just(m(b'D', &[&[0, 0]])),
        Just(m(b'G', &[&[0, 0, 0]])),
        Just(fails("26000", "no")),
        Just(m(b'S', &[b"TimeZone\0UTC\0"])),
        Just(m(b'A', &[&[0, 0, 0, 1], b"c\0p\0"])),
        Just(z(b'I')),
        Just(z(b'T')),
        Just(z(b'E')),
    ]
}

/// What PostgreSQL would answer to messages that all succeed outside of transaction blocks.
fn good_server(sent: &[u8]) -> Vec<u8> {
    let (mut bytes, mut out) = (sent, Vec::new());
    while let Ok(Some(head)) = frame::header(bytes) {
        match head.tag {
            b'Q' => out.extend(cat(&[&c("X"), &z(b'I')])),
            b'P' => out.extend_from_slice(OK_1),
            b'B' => out.extend_from_slice(OK_2),
            b'D' => out.extend(m(b'n', &[])),
            b'E' => out.extend(c("X")),
            b'C' => out.extend(m(b'3', &[])),
            b'S' | b'F' => out.extend(z(b'I')),
            _ => {}
        }
        bytes = &bytes[head.total..];
    }
    out
}

proptest! {
    /// Whatever either side sends, in whatever order, nothing panics and the answers can be split into messages.
    #[test]
    fn no_order_of_messages_makes_it_panic(
        turns in prop::collection::vec((prop::collection::vec(any_client_message(), 0..4), prop::collection::vec(any_server_message(), 0..4)), 0..12)
    ) {
        let (mut story, mut server) = (Story::new(), Memory::default());
        for (from_client, from_server) in turns {
            let (to_server, to_client, _) = story.send_raw(Some(&mut server), &from_client.concat());
            show(&to_server);
            show(&to_client);
            story.answer(&mut server, &from_server.concat());
        }
    }

    /// Answered in full, every pipeline that ends in Sync comes to rest, and each side gets as many replies as it sent
    /// messages that have one.
    #[test]
    fn what_is_answered_comes_to_rest(messages in prop::collection::vec(any_client_message(), 0..20)) {
        // A name prepared twice is refused, which this server does not play.
        for name in [&b"s\0"[..], b"t\0"] {
            prop_assume!(messages.iter().filter(|message| message[0] == b'P' && message[5..].starts_with(name)).count() < 2);
        }
        let (mut story, mut server) = (Story::new(), Memory::default());
        let mut input = messages.concat();
        input.extend(s());
        let mut heard = Vec::new();
        let mut at = 0;
        for _ in 0..200 {
            let context = story.known.context();
            let mut rest = Vec::new();
            let mut sink = Sink::new(&input[at..], &mut rest);
            let (taken, step) =
                story.machine.client(&input[at..], Some(&mut server), &mut sink, &mut heard, &context).unwrap();
            let run = sink.finish();
            rest.extend_from_slice(&input[at..][run]);
            at += taken;
            let reply = good_server(&rest);
            let mut out = Vec::new();
            let mut sink = Sink::new(&reply, &mut out);
            story.machine.server(&reply, &mut server, &mut sink, 1 << 20).unwrap();
            let run = sink.finish();
            out.extend_from_slice(&reply[run]);
            heard.extend(out);
            if step == ClientStep::More { break; }
        }
        prop_assert!(story.machine.is_at_rest());
        let count = |bytes: &[u8], tags: &[u8]| {
            let (mut bytes, mut n) = (bytes, 0);
            while let Ok(Some(head)) = frame::header(bytes) {
                n += usize::from(tags.contains(&head.tag));
                bytes = &bytes[head.total..];
            }
            n
        };
        prop_assert_eq!(count(&heard, b"Z"), count(&input, b"QSF"));
        prop_assert_eq!(count(&heard, b"1"), count(&input, b"P"));
        prop_assert_eq!(count(&heard, b"2"), count(&input, b"B"));
        prop_assert_eq!(count(&heard, b"3"), count(&input, b"C"));
    }

    /// Both sides' bytes may arrive in any pieces.
    #[test]
    fn pieces_of_any_size_come_to_the_same(messages in prop::collection::vec(any_client_message(), 0..10), cut in 1usize..30) {
        let mut whole = messages.concat();
        whole.extend(s());
        let run = |pieces: usize| {
            let (mut story, mut server) = (Story::new(), Memory::default());
            let (mut buffer, mut sent, mut heard) = (Vec::new(), Vec::new(), Vec::new());
            for piece in whole.chunks(pieces) {
                buffer.extend_from_slice(piece);
                for _ in 0..100 {
                    let context = story.known.context();
                    let mut rest = Vec::new();
                    let mut sink = Sink::new(&buffer, &mut rest);
                    let (taken, step) =
                        story.machine.client(&buffer, Some(&mut server), &mut sink, &mut heard, &context).unwrap();
                    let run = sink.finish();
                    rest.extend_from_slice(&buffer[run]);
                    buffer.drain(..taken);
                    sent.extend(rest);
                    if step == ClientStep::More { break; }
                }
            }
            sent
        };
        // A pause for the server's answers (Before) depends on what is under way, so only streams without one compare.
        if !messages.iter().any(|message| message.windows(3).any(|w| w == b"pg_")) {
            prop_assert_eq!(run(cut), run(usize::MAX));
        }
    }
}
