//! What no text may do to the classifier: hide a write in a read, panic, or run out of stack. And how long it takes.

use super::*;
use crate::route::judge::tests::{names, usual};
use crate::route::judge::{Class, judge};
use proptest::prelude::*;
use proptest::sample::select;

fn class(text: &str) -> Class {
    judge(&outline(text), &names(), &usual()).class
}

/// Reads around an expression, for `{}`.
const AROUND_EXPRESSIONS: &[&str] = &[
    "lower({})",
    "({} + 1)",
    "(- {})",
    "(NOT {})",
    "(a AND {} OR b)",
    "({})::text",
    "CAST({} AS varchar(3))",
    "ARRAY[1, {}]",
    "ROW({}, 2)",
    "(ARRAY[1])[{}]",
    "coalesce(NULL, {})",
    "nullif({}, 1)",
    "greatest(1, {})",
    "CASE WHEN {} THEN 1 ELSE 2 END",
    "CASE 1 WHEN 2 THEN {} END",
    "({} IN (1, 2))",
    "(1 IN ({}, 2))",
    "({} BETWEEN 1 AND 2)",
    "('a' LIKE {})",
    "({} SIMILAR TO 'b')",
    "({} IS DISTINCT FROM 1)",
    "({} IS NULL)",
    "({} COLLATE \"C\")",
    "EXTRACT(year FROM {})",
    "TRIM({})",
    "({} AT TIME ZONE 'UTC')",
    "sum({}) FILTER (WHERE a)",
    "count(*) FILTER (WHERE {})",
    "sum(a) OVER (PARTITION BY b ORDER BY {})",
    "string_agg(a, ',' ORDER BY {})",
    "JSON_OBJECT('a': {})",
    "JSON_VALUE('{}', '$' DEFAULT {} ON EMPTY)",
    "xmlforest({} AS a)",
    "(SELECT {})",
    "ARRAY(SELECT {} FROM t)",
    "EXISTS (SELECT 1 FROM t WHERE {})",
    "(1 = ANY (SELECT {}))",
];

/// Reads around an expression that are queries.
const QUERIES: &[&str] = &[
    "SELECT {}",
    "SELECT DISTINCT ON ({}) 1 FROM t",
    "SELECT 1 FROM t WHERE {}",
    "SELECT 1 FROM t GROUP BY {}",
    "SELECT 1 FROM t GROUP BY GROUPING SETS ((a), ROLLUP ({}))",
    "SELECT 1 FROM t HAVING {}",
    "SELECT 1 FROM t ORDER BY {} DESC",
    "SELECT 1 LIMIT {}",
    "SELECT 1 OFFSET {}",
    "SELECT 1 FROM t JOIN u ON {}",
    "SELECT * FROM generate_series(1, {})",
    "SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY {})",
    "VALUES (1, {})",
    "SELECT * FROM t TABLESAMPLE system ({})",
];

/// Reads around a query.
const AROUND_QUERIES: &[&str] = &[
    "SELECT * FROM ({}) AS x",
    "SELECT * FROM t, LATERAL ({}) AS x",
    "WITH x AS ({}) SELECT 1",
    "WITH x AS (SELECT 1), y AS MATERIALIZED ({}) SELECT * FROM x, y",
    "WITH RECURSIVE x AS (SELECT 1 UNION ALL ({})) SELECT * FROM x",
    "({}) UNION SELECT 1",
    "SELECT 1 EXCEPT ALL ({})",
    "SELECT ({})",
    "SELECT 1 WHERE 1 NOT IN ({})",
    "SELECT ARRAY({})",
    "SELECT JSON_ARRAY({})",
    "SELECT 1 FROM t ORDER BY ({}) LIMIT 1",
];

const STATEMENTS: &[&str] =
    &["{}", "EXPLAIN {}", "EXPLAIN (ANALYZE, FORMAT json) {}", "COPY ({}) TO STDOUT", "SELECT 1; {}; SELECT 2"];

/// The `{}` of JSON in a frame is a constant; what is to be filled stands last.
fn fill(frame: &str, with: &str) -> String {
    let at = frame.rfind("{}").unwrap();
    format!("{}{with}{}", &frame[..at], &frame[at + 2..])
}

/// Statements around an expression or a query that is given later.
fn frames() -> impl Strategy<Value = (Vec<&'static str>, &'static str, Vec<&'static str>, &'static str)> {
    let inner = prop::collection::vec(select(AROUND_EXPRESSIONS), 0..5);
    let outer = prop::collection::vec(select(AROUND_QUERIES), 0..4);
    (inner, select(QUERIES), outer, select(STATEMENTS))
}

fn wrapped(with: &str, frames: impl IntoIterator<Item = &'static str>) -> String {
    frames.into_iter().fold(with.to_string(), |text, frame| fill(frame, &text))
}

/// No files for counterexamples beside the source: one that is found becomes a line of the tables.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn reads_in_reads_are_reads(
        (inner, query, outer, statement) in frames(),
        leaf in select(&["1", "a", "t.a", "$1", "now()", "'x'", "length(b)", "NULL", "current_date"][..]),
    ) {
        let expression = wrapped(leaf, inner);
        let text = wrapped(&expression, [query].into_iter().chain(outer).chain([statement]));
        prop_assert_eq!(class(&text), Class::Read, "{}", text);
    }

    #[test]
    fn what_may_write_is_never_lost_in_a_read(
        (inner, query, outer, statement) in frames(),
        leaf in select(&["log_it(1)", "nextval('s')", "(1 @@@ 2)", "'1'::checked", "x.log_it", "(x).log_it"][..]),
    ) {
        let expression = wrapped(leaf, inner);
        let text = wrapped(&expression, [query].into_iter().chain(outer).chain([statement]));
        prop_assert_eq!(class(&text), Class::Volatile, "{}", text);
    }

    #[test]
    fn what_writes_is_never_lost_in_a_read(
        outer in prop::collection::vec(select(AROUND_QUERIES), 0..5),
        statement in select(STATEMENTS),
        write in select(&[
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t FOR KEY SHARE",
            "SELECT 1 INTO n",
            "WITH x AS (DELETE FROM t RETURNING a) SELECT * FROM x",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) TABLE x",
        ][..]),
    ) {
        let text = wrapped(write, outer.into_iter().chain([statement]));
        let class = class(&text);
        prop_assert!(matches!(class, Class::Write), "{:?}: {}", class, text);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        class(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_row_of_words_panics(words in prop::collection::vec(select(&[
        "SELECT", "FROM", "WHERE", "t", "a", "*", "(", ")", ",", ".", ";", "1", "'x'", "$1", "AS", "JOIN", "ON", "USING",
        "WITH", "RECURSIVE", "UNION", "ORDER BY", "GROUP BY", "VALUES", "COPY", "TO", "STDOUT", "EXPLAIN", "ANALYZE",
        "BEGIN", "READ ONLY", "SET", "LOCAL", "TRANSACTION", "=", "+", "-", "::", "[", "]", "INSERT INTO", "CREATE",
        "TABLE", "DROP", "FUNCTION", "f", "PREPARE", "EXECUTE", "CASE", "WHEN", "END", "IN", "BETWEEN", "AND", "NOT",
    ][..]), 0..14)) {
        class(&words.join(" "));
    }
}

#[test]
fn an_outline_names_everything_once_and_in_order() {
    let text =
        "SELECT t.a, (x).b, public.f('k', 1), f('k') FROM s.t AS x WHERE a = 1 AND b = 2 AND a::s.kind[] IS NULL";
    let outlines = outline(text).unwrap();
    let schema = |name: &str| Some(name.into());
    let function =
        |schema, arguments| Mention::Function { schema, name: "f".into(), arguments, constant: Some("k".into()) };
    let mentions = vec![
        Mention::Field("a".into()),
        Mention::Field("b".into()),
        function(schema("public"), 2),
        function(None, 1),
        Mention::Relation { schema: schema("s"), name: "t".into() },
        Mention::Operator { schema: None, symbol: "=".into() },
        Mention::Type { schema: schema("s"), name: "kind".into() },
    ];
    assert_eq!(outlines, [Outline { act: Act::Read("SELECT"), mentions, depends_on_constants: false }]);

    let row = outline("SELECT a FROM f() AS x (a s.t.c%TYPE)");
    // The grammar has no %TYPE in a query, only in a function's signature.
    assert!(row.is_err(), "{row:?}");
}

/// Pure as the module is, these two need a thread and a clock.
#[cfg(test)]
mod outside {
    use super::*;

    #[test]
    fn no_nesting_runs_out_of_a_workers_stack() {
        let nested = |open: &str, middle: &str, close: &str, depth: usize| {
            format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
        };
        let chain = |start: &str, link: &str, length: usize| format!("{start}{}", link.repeat(length));
        let check = move || {
            for depth in [10, 50, 100, 1_000, 9_000] {
                for text in [
                    nested("(", "SELECT 1", ")", depth),
                    nested("SELECT (", "SELECT 1", ")", depth),
                    nested("SELECT * FROM (", "SELECT 1", ") AS x", depth),
                    nested("WITH x AS (", "SELECT 1", ") SELECT 1", depth),
                    nested("SELECT 1 UNION (", "SELECT 1", ")", depth),
                    format!("SELECT {}", nested("(", "1", ")", depth)),
                    format!("SELECT {}", nested("- ", "1", "", depth)),
                    format!("SELECT {}", nested("NOT ", "a", "", depth)),
                    format!("SELECT {}", nested("lower(", "a", ")", depth)),
                    format!("SELECT ARRAY{}", nested("[", "1", "]", depth)),
                    format!("SELECT {}", nested("CASE WHEN a THEN ", "1", " END", depth)),
                    format!("SELECT * FROM {}", nested("(t JOIN ", "u", " ON true)", depth)),
                    format!("SELECT {}", nested("JSON_ARRAY(", "1", ")", depth)),
                    format!("SELECT {}", nested("xmlconcat(", "a", ")", depth)),
                    format!("SELECT 1 {}", nested("/* ", "", "*/", depth)),
                    format!("{} SELECT 1", "EXPLAIN ".repeat(depth)),
                ] {
                    class(&text);
                }
            }
            for length in [100, 1_000, 10_000, 40_000, 100_000] {
                for text in [
                    chain("SELECT 1", "+1", length),
                    chain("SELECT a", "||a", length),
                    chain("SELECT a", "::int", length),
                    chain("SELECT a", "[1]", length),
                    chain("SELECT a", ".b", length),
                    chain("SELECT (a)", ".b", length),
                    chain("SELECT a", " IS NULL", length),
                    chain("SELECT a", " COLLATE c", length),
                    chain("SELECT 1", " UNION SELECT 1", length),
                    chain("SELECT 1", " UNION ALL SELECT 1", length),
                    chain("SELECT * FROM t", " JOIN t ON a", length),
                    chain("SELECT 1", ";SELECT 1", length),
                ] {
                    class(&text);
                }
            }
            // Long without being deep is no trouble at all.
            assert_eq!(class(&chain("SELECT a", " AND a", 40_000)), Class::Read);
            assert_eq!(class(&chain("SELECT a", " OR a", 40_000)), Class::Read);
            assert_eq!(class(&format!("SELECT a IN ({}1)", "1,".repeat(100_000))), Class::Read);
            assert_eq!(class(&format!("VALUES (1){}", ",(1)".repeat(60_000))), Class::Read);
            assert_eq!(class(&format!("SELECT 1{}", ",1".repeat(100_000))), Class::Read);
            assert_eq!(class(&chain("SELECT 1", ";SELECT 1", 25_000)), Class::Read);
            let names: String = (0..30_000).map(|number| format!("t.c{number},")).collect();
            assert_eq!(class(&format!("SELECT {names}1 FROM t")), Class::Read);
            // So much nesting must be possible for ordinary statements.
            assert_eq!(class(&nested("SELECT * FROM (", "SELECT 1", ") AS x", 15)), Class::Read);
            assert_eq!(class(&chain("SELECT a", " || a", 40)), Class::Read);
            assert_eq!(class(&chain("SELECT * FROM t", " JOIN t ON a", 40)), Class::Read);
            assert_eq!(class(&chain("SELECT 1", " UNION ALL SELECT 1", 80)), Class::Read);
            // And this much is refused, not overlooked.
            assert_eq!(class(&chain("SELECT 1", "+1", 1_000)), Class::Unreadable);
        };
        std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(check).unwrap().join().unwrap();
    }

    /// `cargo test --release --lib route::outline -- --ignored --nocapture`
    #[test]
    #[ignore = "prints times and checks nothing"]
    fn how_long_it_takes() {
        let column = "orders.id AS c, lower(customers.name), orders.price * 2 + 1, ";
        let middle =
            format!("SELECT {}1 FROM orders JOIN customers USING (id) WHERE orders.id = $1", column.repeat(31));
        let long = format!("SELECT a FROM t WHERE a IN ({}1)", "12345678,".repeat(11_100));
        let (names, path) = (names(), usual());
        for text in ["SELECT id, name FROM customers WHERE id = $1 AND a > 10 LIMIT 1", &middle, &long] {
            let rounds = 20_000_000 / (text.len() * 60 + 5_000);
            let time = |act: &dyn Fn()| {
                let start = std::time::Instant::now();
                (0..rounds).for_each(|_| act());
                start.elapsed().as_nanos() / rounds as u128
            };
            let outlines = outline(text);
            let parse = time(&|| drop(pg_query::parse(text, 0)));
            let outlined = time(&|| drop(outline(text)));
            let judged = time(&|| drop(judge(&outlines, &names, &path)));
            println!("{} bytes: outline {outlined} ns (of these the parser {parse}), judge {judged} ns", text.len());
        }
    }
}
