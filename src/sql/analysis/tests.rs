//! The corpus: texts, and the whole answer for each on one line.

use super::*;
use proptest::prelude::*;
use std::fmt::Write;

/// One statement as words: the kind, then `+pin`, `@pin-at-commit`, `unpin`, `ddl`, `facts`.
fn line(statement: &Statement) -> String {
    let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let argument = |argument: &Argument| match argument {
        Argument::Literal(text) => format!("'{text}'"),
        Argument::Parameter(n) => format!("${n}"),
    };
    let mut line = match &statement.kind {
        Kind::Savepoint(name) => format!("savepoint {name}"),
        Kind::RollbackTo(name) => format!("rollback-to {name}"),
        Kind::Release(name) => format!("release {name}"),
        Kind::Set { name, text: said } => format!("set {name} [{}]", text(said)),
        Kind::SetConfig { name, value, is_local } => {
            format!("set_config {} {} {}", argument(name), argument(value), argument(is_local))
        }
        Kind::Reset(name) => format!("reset {name}"),
        Kind::Prepare { name, text: said } => format!("prepare {name} [{}]", text(said)),
        Kind::Execute(name) => format!("execute {name}"),
        Kind::Deallocate(name) => format!("deallocate {name}"),
        Kind::NeedsDatabaseEmpty(names) => format!("needs-empty {}", names.join(",")),
        kind => format!("{kind:?}").to_lowercase(),
    };
    for pin in statement.pins.iter() {
        write!(line, " +{pin:?}").unwrap();
    }
    for pin in statement.pins_at_commit.iter() {
        write!(line, " @{pin:?}").unwrap();
    }
    for (is, word) in [(statement.may_unpin, " unpin"), (statement.is_ddl, " ddl"), (statement.changes_facts, " facts")]
    {
        if is {
            line += word;
        }
    }
    line
}

fn lines_with(text: &str, dialect: Dialect, suspects: &Suspects) -> String {
    analyze(text.as_bytes(), dialect, suspects).statements.iter().map(line).collect::<Vec<_>>().join(" ; ")
}

fn lines(text: &str) -> String {
    lines_with(text, Dialect::default(), &Suspects::default())
}

fn check(corpus: &[(&str, &str)]) {
    let wrong: Vec<_> = corpus
        .iter()
        .filter(|(text, expected)| lines(text) != *expected)
        .map(|(text, expected)| format!("{text}\n  expected: {expected}\n  got:      {}", lines(text)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn statements_are_counted_as_postgresql_counts_them() {
    check(&[
        ("", ""),
        ("  ;; /* nothing */ ; -- here", ""),
        ("select 1", "plain"),
        ("select 1;", "plain"),
        ("select 1; select 2", "plain ; plain"),
        ("select ';'; select \";\", $$;$$, E'\\';' ; select 3 -- ;", "plain ; plain ; plain"),
        ("(select 1); ((select 2))", "plain ; plain"),
        ("create rule r as on insert to t do also (select 1; select 2); select 3", "plain ddl facts ; plain"),
        (
            "create function f() returns int begin atomic select 1; select case when true then 1 end; end; select 2",
            "plain ddl facts ; plain",
        ),
        (
            "create or replace procedure p() language sql begin atomic select 1 as end; select t.end, t.case from t; end; commit",
            "plain ddl facts ; commit",
        ),
        ("create function f() returns int return 1; end", "plain ddl facts ; commit"),
        ("create table begin_atomic(a int); begin; end", "plain ddl facts ; begin ; commit"),
        ("create view v as select begin atomic from t; select 1", "plain ddl facts ; plain"),
        ("begin;select 1;commit", "begin ; plain ; commit"),
        ("select 1\0; select 2", "plain"),
    ]);
}

#[test]
fn a_text_the_scanner_refuses_does_nothing() {
    check(&[
        ("select 'open", ""),
        ("set a = 1; select 'open", "plain"),
        ("listen x; set a = 1; select /* open", "plain ; plain"),
        ("select pg_advisory_lock(1), $tag$ open", ""),
        ("select \"\"", ""),
        ("select {", ""),
    ]);
}

#[test]
fn transactions() {
    check(&[
        ("BEGIN", "begin"),
        ("begin work", "begin"),
        ("Begin Transaction Isolation Level Serializable, Read Only", "begin"),
        ("start transaction read write", "begin"),
        ("start", "plain"),
        ("commit", "commit"),
        ("COMMIT AND CHAIN", "commit"),
        ("end work", "commit"),
        ("commit prepared 'x'", "plain"),
        ("rollback", "rollback"),
        ("rollback and no chain", "rollback"),
        ("abort transaction", "rollback"),
        ("rollback prepared 'x'", "plain"),
        ("rollback to a", "rollback-to a"),
        ("rollback work to savepoint \"A b\"", "rollback-to A b"),
        ("rollback to savepoint", "rollback-to savepoint"),
        ("savepoint SP1", "savepoint sp1"),
        ("release savepoint sp1", "release sp1"),
        ("release SP1", "release sp1"),
        ("release savepoint", "release savepoint"),
        ("prepare transaction 'gid'", "preparetransaction"),
        ("/* leading */ -- and\n commit", "commit"),
    ]);
}

#[test]
fn settings() {
    check(&[
        ("SET work_mem = '64MB'", "set work_mem [SET work_mem = '64MB']"),
        ("set Work_Mem to 65536; ", "set work_mem [set Work_Mem to 65536]"),
        ("/* c */ set session statement_timeout=10 -- x", "set statement_timeout [set session statement_timeout=10]"),
        ("set x=-1", "set x [set x=-1]"),
        ("set search_path to a, \"B\", 'c'", "set search_path [set search_path to a, \"B\", 'c']"),
        ("set \"DateStyle\" = iso, dmy", "set datestyle [set \"DateStyle\" = iso, dmy]"),
        ("set my.Setting = 'x'", "set my.setting [set my.Setting = 'x']"),
        ("set a.b.c = 'x'", "set a.b.c [set a.b.c = 'x']"),
        ("set session.x = 1", "set session.x [set session.x = 1]"),
        ("set local.x = 1", "set local.x [set local.x = 1]"),
        ("set local to 1", "set local [set local to 1]"),
        ("set sort_mem = 100", "set work_mem [set sort_mem = 100]"),
        ("set local work_mem = 1", "setlocal"),
        ("set local role x", "setlocal"),
        ("set local session authorization x", "setlocal"),
        ("set local time zone 'UTC'", "setlocal"),
        ("set work_mem to default", "reset work_mem"),
        ("set session work_mem = DEFAULT", "reset work_mem"),
        ("set search_path = default, x", "set search_path [set search_path = default, x]"),
        ("set x from current", "plain +Opaque"),
        ("set time zone 'UTC'", "set timezone [set time zone 'UTC']"),
        (
            "set session time zone interval '-08:00' hour to minute",
            "set timezone [set session time zone interval '-08:00' hour to minute]",
        ),
        ("set time zone -7", "set timezone [set time zone -7]"),
        ("set time zone local", "reset timezone"),
        ("set time zone default", "reset timezone"),
        ("set timezone = 'UTC'", "set timezone [set timezone = 'UTC']"),
        ("set names 'latin1'", "set client_encoding [set names 'latin1']"),
        ("set names", "reset client_encoding"),
        ("set names default", "reset client_encoding"),
        ("set schema 'x'", "set search_path [set schema 'x']"),
        ("set role none", "set role [set role none]"),
        ("set session role joe", "set role [set session role joe]"),
        ("set role = 'joe'", "set role [set role = 'joe']"),
        ("set session authorization 'joe'", "set session_authorization [set session authorization 'joe']"),
        ("set session session authorization joe", "set session_authorization [set session session authorization joe]"),
        ("set session authorization default", "reset session_authorization"),
        (
            "set session characteristics as transaction read only",
            "set session characteristics [set session characteristics as transaction read only]",
        ),
        ("set xml option document", "set xmloption [set xml option document]"),
        ("set transaction isolation level repeatable read", "plain"),
        ("set session transaction read only", "plain"),
        ("set transaction snapshot '0-1'", "plain"),
        ("set transaction_read_only = on", "plain"),
        ("set constraints all deferred", "plain"),
        ("set seed = 0.5", "plain +Process"),
        ("set search_path = pg_temp, public", "set search_path [set search_path = pg_temp, public] @Temporary"),
        ("set local search_path = 'a, PG_TEMP'", "setlocal @Temporary"),
        ("set nonsense", "plain"),
        ("reset work_mem", "reset work_mem"),
        ("reset a.b", "reset a.b"),
        ("reset all", "resetall"),
        ("reset time zone", "reset timezone"),
        ("reset session authorization", "reset session_authorization"),
        ("reset role", "reset role"),
        ("reset transaction isolation level", "plain"),
        ("reset transaction_isolation", "plain"),
        ("show all", "plain"),
        ("select current_setting('x')", "plain"),
    ]);
}

#[test]
fn settings_by_function() {
    check(&[
        (
            "select set_config('Search_Path', '', false)",
            "set search_path [select set_config('Search_Path', '', false)]",
        ),
        (
            "SELECT pg_catalog.set_config('a.b', 'it''s'::text, 'f'::pg_catalog.bool) AS x;",
            "set a.b [SELECT pg_catalog.set_config('a.b', 'it''s'::text, 'f'::pg_catalog.bool) AS x]",
        ),
        ("select \"set_config\"('a', 'b', 'off') x", "set a [select \"set_config\"('a', 'b', 'off') x]"),
        ("select set_config('a', 'b', null)", "set a [select set_config('a', 'b', null)]"),
        ("select set_config('a', null, false)", "reset a"),
        ("select set_config('a', 'b', true)", "setlocal"),
        ("select set_config('a', 'b', 't')", "setlocal"),
        ("select set_config($1, $2, $3)", "set_config $1 $2 $3"),
        ("select set_config($1::text, $2::text, $3::bool)", "set_config $1 $2 $3"),
        ("select set_config('role', $1, false)", "set_config 'role' $1 'false'"),
        ("select set_config('role', $1, true)", "setlocal"),
        ("select set_config('role', 'x', $1)", "set_config 'role' 'x' $1"),
        ("select set_config('role', null, $1)", "plain +Opaque"),
        ("select set_config('search_path', $1, true), set_config('role', f(a, b), true)", "setlocal"),
        ("select set_config('a', 'b', false), 1", "plain +Opaque"),
        ("select set_config('a', 'b' || 'c', false)", "plain +Opaque"),
        ("select set_config('a', E'b\\n', false)", "plain +Opaque"),
        ("select set_config('a', E'b\\n', true)", "setlocal"),
        ("select set_config('a', array['x','y']::text, true)", "plain +Opaque"),
        ("select set_config(x, y, z) from t", "plain +Opaque"),
        ("select set_config('a', 'b', not false)", "plain +Opaque"),
        ("select set_config('a', 'b', true and x)", "plain +Opaque"),
        ("with x as (select set_config('a', 'b', true)) select * from x", "setlocal"),
        ("insert into t select set_config('a', 'b', false)", "plain +Opaque"),
        ("select set_config('seed', '0.1', false)", "plain +Process"),
        ("select set_config('transaction_read_only', 'on', false)", "plain"),
        (
            "select set_config('search_path', 'pg_temp', false)",
            "set search_path [select set_config('search_path', 'pg_temp', false)] @Temporary",
        ),
        ("select set_config", "plain"),
        ("update pg_settings set setting = 'x' where name = 'y'", "plain +Opaque"),
        ("select * from pg_settings", "plain"),
    ]);
}

#[test]
fn prepared_statements() {
    check(&[
        ("prepare P as select 1", "prepare p [prepare P as select 1]"),
        ("prepare \"P\" (int, text) as select $1;", "prepare P [prepare \"P\" (int, text) as select $1]"),
        ("prepare transaction as select 1", "prepare transaction [prepare transaction as select 1]"),
        (
            "prepare l as select pg_advisory_lock(1)",
            "prepare l [prepare l as select pg_advisory_lock(1)] +AdvisoryLock",
        ),
        ("execute P(1, 'x')", "execute p"),
        ("execute p", "execute p"),
        ("explain execute p(1)", "execute p"),
        ("explain analyze verbose execute p", "execute p"),
        ("explain (analyze, costs off) execute \"P\"", "execute P"),
        ("create table t as execute p(1)", "execute p ddl facts"),
        ("create temp table t as execute p", "execute p @Temporary ddl"),
        ("explain create table t as execute p with no data", "execute p ddl facts"),
        ("create unlogged table t (a, b) as execute p(1)", "execute p ddl facts"),
        ("deallocate p", "deallocate p"),
        ("deallocate prepare P", "deallocate p"),
        ("deallocate prepare", "deallocate prepare"),
        ("deallocate all", "deallocateall"),
        ("deallocate prepare all", "deallocateall"),
        ("deallocate \"all\"", "deallocate all"),
        ("discard all", "discardall unpin"),
        ("discard plans", "discardplans"),
        ("discard sequences", "discardsequences unpin"),
        ("discard temp", "discardtemp unpin"),
        ("discard temporary", "discardtemp unpin"),
    ]);
}

#[test]
fn what_ties_a_session_to_its_server() {
    check(&[
        ("listen x", "plain @Listen"),
        ("unlisten x", "unlisten unpin"),
        ("unlisten *", "unlisten unpin"),
        ("notify x, 'y'", "plain"),
        ("create temp table t (a int)", "plain @Temporary ddl"),
        ("create temporary table if not exists t (a int)", "plain @Temporary ddl"),
        ("create local temp table t (a int)", "plain @Temporary ddl"),
        ("create global temporary table t (a int) on commit preserve rows", "plain @Temporary ddl"),
        ("create temp table t (a int) on commit delete rows", "plain @Temporary ddl"),
        ("create temp table t (a int) on commit drop", "plain ddl"),
        ("create temp table t on commit drop as select 1", "plain ddl"),
        ("create temp table t (a int check (a on commit drop))", "plain @Temporary ddl"),
        ("create or replace temp view v as select 1", "plain @Temporary ddl"),
        ("create temp sequence s", "plain @Temporary ddl"),
        ("create table pg_temp.t (a int)", "plain @Temporary ddl facts"),
        ("create table \"pg_temp\".t (a int)", "plain @Temporary ddl facts"),
        ("create type pg_temp.t as (a int)", "plain @Temporary ddl facts"),
        ("create function pg_temp.f() returns int return 1", "plain +Opaque @Temporary ddl facts"),
        (
            "create function f() returns int set search_path = pg_catalog, pg_temp language sql as 'select 1'",
            "plain ddl facts",
        ),
        ("select * from pg_temp.t", "plain"),
        ("select 1 into temp t", "plain @Temporary ddl"),
        ("select 1 into local temporary table t", "plain @Temporary ddl"),
        ("with x as (select 1) select * into pg_temp.t from x", "plain @Temporary ddl facts"),
        ("select 1 into t", "plain ddl facts"),
        ("explain analyze select 1 into temp t", "plain @Temporary ddl"),
        ("insert into temp values (1)", "plain"),
        ("merge into temp using s on true when matched then do nothing", "plain"),
        ("declare c cursor for select 1", "plain"),
        ("declare c cursor without hold for select 1", "plain"),
        ("declare c binary insensitive no scroll cursor with hold for select 1", "plain @HoldCursor"),
        ("declare cursor cursor with hold for select 1", "plain @HoldCursor"),
        ("close c", "plain unpin"),
        ("close all", "plain unpin"),
        ("fetch all from c", "plain"),
        ("load 'auto_explain'", "plain +Process"),
        ("do $$ begin end $$", "plain +Opaque ddl facts"),
        ("call p(1)", "plain +Opaque ddl facts"),
        ("select pg_advisory_lock(1)", "plain +AdvisoryLock"),
        ("select PG_CATALOG.pg_try_advisory_lock_shared (1, 2)", "plain +AdvisoryLock"),
        ("select \"pg_advisory_lock\"(1)", "plain +AdvisoryLock"),
        ("select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)", "plain"),
        ("select pg_advisory_lock from t", "plain"),
        ("select 'pg_advisory_lock(1)'", "plain"),
        ("select pg_advisory_unlock(1)", "plain unpin"),
        ("select pg_advisory_unlock_all()", "plain unpin"),
        ("select currval('s')", "plain +Sequence"),
        ("select lastval()", "plain +Sequence"),
        ("select nextval('s')", "plain"),
        ("select setseed(0.5)", "plain +Process"),
        ("select pg_replication_origin_session_setup('x')", "plain +Process"),
        ("select dblink_connect('x', 'y')", "plain +Process"),
        ("select * from dblink('host=x', 'select 1') as t(a int)", "plain"),
        ("select pg_backup_start('x')", "plain +Process"),
        ("select pg_create_logical_replication_slot('x', 'y', true)", "plain +Process"),
        ("select query_to_xml('select 1', true, true, '')", "plain +Opaque"),
        ("select pg_backend_pid()", "plain +Introspection"),
        ("select * from pg_stat_activity where pid <> pg_backend_pid()", "plain +Introspection"),
        ("table pg_prepared_statements", "plain +Introspection"),
        ("select name from pg_catalog.\"pg_cursors\"", "plain +Introspection"),
        ("select lo_open(1, 2)", "plain"),
        ("select U&\"\\0070g_advisory_lock\"(1)", "plain +Opaque ddl facts"),
        ("copy t from stdin", "plain"),
        ("copy (select pg_advisory_lock(1)) to stdout", "plain +AdvisoryLock"),
        ("lock table t in exclusive mode nowait", "plain"),
        ("vacuum analyze", "plain"),
    ]);
}

#[test]
fn definitions() {
    check(&[
        ("create table t (a int)", "plain ddl facts"),
        ("create unique index on t (a)", "plain ddl"),
        ("create index concurrently i on t (f(a))", "plain ddl"),
        ("create role r", "plain ddl"),
        ("create user mapping for r server s", "plain ddl facts"),
        ("create foreign data wrapper w", "plain ddl"),
        ("create foreign table t () server s", "plain ddl facts"),
        ("create trigger t before insert on t for each row execute function f()", "plain ddl facts"),
        ("create extension x", "plain ddl facts"),
        ("create sequence s", "plain ddl"),
        ("create materialized view v as select 1", "plain ddl facts"),
        ("alter table t add column b int", "plain ddl facts"),
        ("alter index i rename to j", "plain ddl"),
        ("alter function f() set search_path = pg_temp", "plain ddl facts"),
        ("drop table t", "plain unpin ddl facts"),
        ("drop index i", "plain unpin ddl"),
        ("drop owned by x", "plain unpin ddl facts"),
        ("import foreign schema s from server x into y", "plain ddl facts"),
        ("truncate t", "plain"),
        ("comment on table t is 'x'", "plain"),
        ("grant select on t to r", "plain"),
        ("reindex table t", "plain"),
        ("refresh materialized view v", "plain"),
        ("create database d", "needs-empty template1 ddl"),
        ("create database d with owner x template = \"T\" encoding 'utf8'", "needs-empty T ddl"),
        ("create database d template 'tpl'", "needs-empty tpl ddl"),
        ("create database d template default", "needs-empty template1 ddl"),
        ("drop database D", "needs-empty d unpin ddl"),
        ("drop database if exists d with (force)", "needs-empty d unpin ddl"),
        ("alter database d rename to e", "needs-empty d ddl"),
        ("alter database d set tablespace x", "needs-empty d ddl"),
        ("alter database d set work_mem = 1", "changesdefaults ddl"),
        ("alter database d reset all", "changesdefaults ddl"),
        ("alter database d owner to x", "plain ddl"),
        ("alter role r set work_mem = 1", "changesdefaults ddl"),
        ("alter role all in database d reset work_mem", "changesdefaults ddl"),
        ("alter user r in database d set search_path = x", "changesdefaults ddl"),
        ("alter role r with password 'x'", "plain ddl"),
        ("alter role r rename to s", "plain ddl"),
        ("alter user mapping for r server s options (set a 'b')", "plain ddl facts"),
        ("alter system set work_mem = 1", "changesdefaults ddl"),
        ("alter system reset all", "changesdefaults ddl"),
    ]);
}

#[test]
fn suspects_are_found_in_any_position() {
    let mut suspects = Suspects::default();
    suspects.add_name("audit", Pins::of(Pin::Process));
    suspects.add_name("Mixed", Pins::of(Pin::AdvisoryLock));
    suspects.add_name("größe", Pins::of(Pin::Temporary));
    suspects.add_name(&"x".repeat(63), Pins::of(Pin::Listen));
    suspects.add_operator("@+", Pins::of(Pin::Sequence));
    suspects.any_ddl = Pins::of(Pin::Opaque);
    for (text, expected) in [
        ("select Audit(1)", "plain +Process"),
        ("insert into s.\"audit\" values (1)", "plain +Process"),
        ("select \"Audit\"", "plain"),
        ("select mixed", "plain"),
        ("select t.\"Mixed\" from t", "plain +AdvisoryLock"),
        ("select 'audit' -- audit", "plain"),
        ("select 1 @+ 2", "plain +Sequence"),
        ("select 1 @ +2", "plain"),
        ("select GRÖSSE", "plain +Temporary"),
        ("select \u{a1}", "plain +Temporary"),
        (&format!("select {}", "X".repeat(80)), "plain +Listen"),
        ("create index i on t (a)", "plain +Opaque ddl"),
        ("comment on table t is 'x'", "plain +Opaque"),
        ("select 1", "plain"),
    ] {
        assert_eq!(lines_with(text, Dialect::default(), &suspects), expected, "{text}");
    }
}

#[test]
fn an_encoding_that_hides_ascii_is_not_trusted() {
    let sjis = Dialect { unsafe_encoding: true, ..Dialect::default() };
    let answer = |text: &[u8]| {
        let analysis = analyze(text, sjis, &Suspects::default());
        analysis.statements.iter().map(line).collect::<Vec<_>>().join(" ; ")
    };
    assert_eq!(answer(b"set a = '\x83\x5c'; select 1"), "set a [set a = '\u{fffd}\\'] ; plain");
    // Read as ASCII the string never ends; as SJIS it does.
    assert_eq!(answer(b"select 1; select E'\x83\x5c'; select 2"), "plain ; plain +Opaque ddl facts");
    assert_eq!(answer(b"select E'\x83'; select 2"), "plain +Opaque ddl facts ; plain +Opaque ddl facts");
    assert_eq!(answer(b"select 1; select \x83\x5c from t; select 2"), "plain ; plain +Opaque ddl facts");
}

proptest! {
    #[test]
    fn any_bytes_are_answered(text in proptest::collection::vec(any::<u8>(), 0..300), standard: bool, unsafe_encoding: bool) {
        let dialect = Dialect { standard_conforming_strings: standard, unsafe_encoding };
        let mut suspects = Suspects::default();
        suspects.add_name("a", Pins::of(Pin::Process));
        suspects.add_operator("+", Pins::of(Pin::Process));
        analyze(&text, dialect, &suspects);
    }

    #[test]
    fn any_mix_of_words_is_answered(words in proptest::collection::vec(prop::sample::select(vec![
        "set", "session", "local", "time", "zone", "to", "=", "default", "select", "set_config", "(", ")", ",", "'a'", "$1", "::",
        "text", "true", "create", "or", "replace", "function", "begin", "atomic", "case", "end", ";", "temp", "table", "on", "commit",
        "drop", "database", "if", "exists", "alter", "role", "in", "rename", "prepare", "transaction", "execute", "as", "explain",
        "declare", "cursor", "with", "hold", "deallocate", "all", "rollback", "savepoint", "release", "discard", "\"x\"", ".", "pg_temp",
        "template", "names", "role", "characteristics", "authorization", "reset", "into", "from"]), 0..25)) {
        let text = words.join(" ");
        let analysis = analyze(text.as_bytes(), Dialect::default(), &Suspects::default());
        let semicolons = words.iter().filter(|word| **word == ";").count();
        prop_assert!(analysis.statements.len() <= semicolons + 1);
    }
}
