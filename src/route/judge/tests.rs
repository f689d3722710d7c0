//! Statements and where they may run, in a small database: the table of what the classifier promises.

use super::*;
use crate::route::names::{Meaning, Traits};
use crate::route::outline::outline;

mod statements;

const WRITES: Traits = Traits::MAY_WRITE;
const DIFFERS: Traits = Traits::DIFFERS;
const NONE: Traits = Traits::NONE;
const MANY: u16 = u16::MAX;

fn meaning(schema: &str, arguments: (u16, u16), traits: Traits, why: &str) -> Meaning {
    Meaning { schema: schema.into(), arguments, traits, why: why.into() }
}

/// A database with a shop in it: `public` is what one expects, `audit` is full of surprises.
pub(in crate::route) fn names() -> Names {
    let mut names = Names { is_read: true, ..Names::default() };
    let mut functions = |schema: &str, traits, why: &str, list: &[(&str, u16, u16)]| {
        for (name, least, most) in list {
            names.functions.entry((*name).into()).or_default().push(meaning(schema, (*least, *most), traits, why));
        }
    };
    let builtins = [
        ("lower", 1, 1),
        ("upper", 1, 1),
        ("length", 1, 1),
        ("count", 0, 1),
        ("sum", 1, 1),
        ("avg", 1, 1),
        ("min", 1, 1),
        ("max", 1, 1),
        ("array_agg", 1, 1),
        ("string_agg", 2, 2),
        ("percentile_cont", 2, 2),
        ("rank", 0, 0),
        ("row_number", 0, 0),
        ("lag", 1, 3),
        ("rank", 0, MANY),
        ("now", 0, 0),
        ("generate_series", 2, 3),
        ("unnest", 1, 1),
        ("json_to_recordset", 1, 1),
        ("jsonb_each", 1, 1),
        ("format", 1, MANY),
        ("concat", 0, MANY),
        ("make_interval", 0, 7),
        ("extract", 2, 2),
        ("overlay", 3, 4),
        ("position", 2, 2),
        ("substring", 2, 3),
        ("btrim", 1, 2),
        ("ltrim", 1, 2),
        ("timezone", 1, 2),
        ("like_escape", 2, 2),
        ("similar_to_escape", 1, 2),
        ("normalize", 1, 2),
        ("is_normalized", 1, 2),
        ("pg_collation_for", 1, 1),
        ("xmlexists", 2, 2),
        ("current_setting", 1, 2),
        ("abs", 1, 1),
        ("date", 1, 1),
        ("to_char", 2, 2),
    ];
    functions("pg_catalog", NONE, "", &builtins);
    functions("pg_catalog", WRITES, "VOLATILE", &[("nextval", 1, 1), ("set_config", 3, 3), ("random", 0, 0)]);
    functions("pg_catalog", WRITES, "VOLATILE", &[("setval", 2, 3), ("lo_unlink", 1, 1), ("pg_notify", 2, 2)]);
    let standby = [("pg_is_in_recovery", 0, 0), ("pg_advisory_lock", 1, 2), ("txid_current", 0, 0)];
    functions("pg_catalog", DIFFERS, "not the same on a standby", &standby);
    functions("public", NONE, "", &[("total", 1, 1), ("vat", 2, 2), ("sample", 1, 1)]);
    functions("public", WRITES, "VOLATILE", &[("log_it", 1, 1), ("log_it", 0, 0), ("strange", 0, MANY)]);
    functions("public", DIFFERS, "LANGUAGE plpython3u", &[("remote", 1, 1)]);
    functions("audit", WRITES, "VOLATILE", &[("upper", 1, 1), ("touch", 1, 1)]);
    functions("public", WRITES.union(Traits::ALLOWED), "VOLATILE", &[("blessed", 1, 1)]);

    let mut relations = |schema: &str, traits, why: &str, list: &[&str]| {
        for name in list {
            names.relations.entry((*name).into()).or_default().push(meaning(schema, (0, 0), traits, why));
        }
    };
    relations("public", NONE, "", &["t", "u", "orders", "customers", "s", "Odd Name"]);
    relations("public", WRITES, "calls public.log_it(text)", &["v_logging"]);
    relations("public", DIFFERS, "unlogged table", &["cache"]);
    relations("public", DIFFERS, "foreign table", &["elsewhere"]);
    relations("audit", DIFFERS, "unlogged table", &["orders"]);
    relations("pg_catalog", NONE, "", &["pg_class", "pg_namespace"]);
    relations("pg_catalog", DIFFERS, "statistics of the server", &["pg_stat_activity"]);
    relations("information_schema", NONE, "", &["tables"]);

    let mut operators = |schema: &str, traits, why: &str, list: &[&str]| {
        for symbol in list {
            names.operators.entry((*symbol).into()).or_default().push(meaning(schema, (0, 0), traits, why));
        }
    };
    let symbols = [
        "=", "<>", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "||", "~", "!~", "~*", "~~", "!~~", "~~*", "!~~*",
        "->", "->>", "@>", "&&", "^@",
    ];
    operators("pg_catalog", NONE, "", &symbols);
    operators("public", WRITES, "calls public.log_it(text)", &["@@@"]);
    operators("audit", DIFFERS, "LANGUAGE plpython3u", &["+", "="]);

    let mut types = |schema: &str, traits, why: &str, list: &[&str]| {
        for name in list {
            names.types.entry((*name).into()).or_default().push(meaning(schema, (0, 0), traits, why));
        }
    };
    let builtins = [
        "int4",
        "int8",
        "int2",
        "text",
        "bool",
        "numeric",
        "varchar",
        "bpchar",
        "date",
        "timestamp",
        "timestamptz",
        "interval",
        "json",
        "jsonb",
        "uuid",
        "float8",
        "regclass",
        "xml",
        "char",
        "bit",
        "time",
        "float4",
    ];
    types("pg_catalog", NONE, "", &builtins);
    types("public", NONE, "", &["colour"]);
    types("public", WRITES, "its CHECK calls public.log_it(text)", &["checked"]);
    types("public", DIFFERS, "its input is in C", &["opaque"]);
    names
}

pub(in crate::route) fn usual() -> Path {
    Path::Schemas(vec!["public".into()])
}

fn verdict(text: &str) -> Verdict {
    let verdict = judge(&outline(text), &names(), &usual());
    assert!(REASONS.contains(&verdict.reason), "{text}: {}", verdict.reason);
    assert!((1..=MOST_REASONS).contains(&verdict.reasons.len()), "{text}: {:?}", verdict.reasons);
    verdict
}

#[track_caller]
fn all_are(class: Class, texts: &[&str]) {
    let wrong = texts.iter().filter_map(|text| {
        let verdict = verdict(text);
        (verdict.class != class).then(|| format!("{text}\n    is {:?}: {:?}", verdict.class, verdict.reasons))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "these should be {class:?}:\n{}", wrong.join("\n"));
}

#[track_caller]
fn because(texts: &[(&str, Class, &str)]) {
    for (text, class, reason) in texts {
        let verdict = verdict(text);
        assert_eq!((verdict.class, verdict.reasons[0].as_str()), (*class, *reason), "{text}");
    }
}

#[test]
fn nothing_goes_anywhere() {
    all_are(Class::Empty, &["", " ", ";", ";;", "-- nothing", "/* a /* nested */ comment */", " ; -- x\n;"]);
}

#[test]
fn plain_queries_are_reads() {
    all_are(
        Class::Read,
        &[
            "SELECT 1",
            "select 1; select 2",
            "SELECT 1;;SELECT 2;",
            "SELECT",
            "SELECT * FROM t",
            "SELECT t.* FROM t",
            "SELECT t FROM t",
            "TABLE t",
            "VALUES (1, 'a'), (2, 'b')",
            "SELECT a, b AS c FROM public.t AS x (a, b) WHERE a = 1 ORDER BY b DESC NULLS LAST LIMIT 10 OFFSET 5",
            "SELECT * FROM t ORDER BY a FETCH FIRST 3 ROWS WITH TIES",
            "SELECT * FROM ONLY t",
            r#"SELECT "Weird Column" FROM "Odd Name""#,
            "SELECT DISTINCT a FROM t",
            "SELECT DISTINCT ON (a, lower(b)) a FROM t",
            "SELECT count(*) FROM t",
            "SELECT count(DISTINCT a) FILTER (WHERE a > 1) FROM t",
            "SELECT a, sum(b) FROM t GROUP BY a HAVING sum(b) > 10",
            "SELECT a, sum(b) FROM t GROUP BY GROUPING SETS ((a), ROLLUP (a, b), CUBE (a, b), ())",
            "SELECT GROUPING(a, b) FROM t GROUP BY ROLLUP (a, b)",
            "SELECT a FROM t GROUP BY DISTINCT a, b",
            "SELECT string_agg(a, ',' ORDER BY b DESC) FROM t",
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t",
            "SELECT rank() OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY b), x AS (w ORDER BY a)",
            "SELECT lag(a, 1) OVER (ORDER BY b) FROM t",
            "SELECT a FROM t ORDER BY b USING >",
            "SELECT * FROM t TABLESAMPLE bernoulli (10)",
            "SELECT * FROM t TABLESAMPLE SYSTEM (0.1 + 1) REPEATABLE (42)",
            "SELECT $1, $2::int",
            "SELECT current_date, current_timestamp(3), localtime, current_user, session_user, current_schema",
            "SELECT lower('A'), pg_catalog.lower('B')",
            "SELECT now()",
            "SELECT public.total(1), vat(1, 2)",
            "SELECT total(x => 1)",
            "SELECT concat(VARIADIC ARRAY['a', 'b'])",
            "SELECT make_interval(days => 10)",
            "SELECT blessed(1)",
            "SELECT date('2024-01-01')",
            "SELECT * FROM pg_class",
            "SELECT * FROM information_schema.tables",
        ],
    );
}

#[test]
fn tables_may_be_joined_nested_and_called() {
    all_are(
        Class::Read,
        &[
            "SELECT * FROM t, u",
            "SELECT * FROM t JOIN u ON t.id = u.id",
            "SELECT * FROM t LEFT JOIN u USING (id) AS j",
            "SELECT * FROM t NATURAL JOIN u",
            "SELECT * FROM t CROSS JOIN u FULL JOIN customers ON true",
            "SELECT * FROM (t JOIN u ON true) AS x",
            "SELECT * FROM (SELECT a FROM t) AS x",
            "SELECT * FROM (VALUES (1), (2)) AS x (a)",
            "SELECT * FROM t, LATERAL (SELECT * FROM u WHERE u.id = t.id) AS x",
            "SELECT * FROM generate_series(1, 10) AS n",
            "SELECT * FROM generate_series(1, 10) WITH ORDINALITY",
            "SELECT * FROM ROWS FROM (generate_series(1, 2), unnest(ARRAY[1, 2])) AS x (a, b)",
            "SELECT * FROM json_to_recordset('[]') AS x (a int, b text COLLATE \"C\")",
            "SELECT * FROM ROWS FROM (json_to_recordset('[]') AS (a int, b text)) AS x",
            "SELECT * FROM current_date",
            "SELECT 1 UNION SELECT 2",
            "SELECT 1 UNION ALL SELECT 2 INTERSECT SELECT 3 EXCEPT SELECT 4 ORDER BY 1 LIMIT 1",
            "(SELECT 1) UNION (VALUES (2))",
            "SELECT (SELECT max(a) FROM t)",
            "SELECT ARRAY(SELECT a FROM t)",
            "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u)",
            "SELECT * FROM t WHERE a IN (SELECT b FROM u)",
            "SELECT * FROM t WHERE a NOT IN (SELECT b FROM u)",
            "SELECT * FROM t WHERE a > ALL (SELECT b FROM u)",
            "SELECT * FROM t WHERE a = ANY ('{1,2}'::int[])",
            "SELECT * FROM t WHERE (a, b) = (SELECT 1, 2)",
            "SELECT * FROM t WHERE a LIKE ANY (ARRAY['a%'])",
        ],
    );
}

#[test]
fn names_of_common_table_expressions_are_no_tables() {
    all_are(
        Class::Read,
        &[
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "WITH x AS MATERIALIZED (SELECT 1), y AS NOT MATERIALIZED (SELECT * FROM x) TABLE y",
            "WITH RECURSIVE x (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM x WHERE n < 5) SELECT * FROM x",
            "WITH RECURSIVE y AS (SELECT * FROM x), x AS (SELECT 1) SELECT * FROM y",
            "WITH x AS (SELECT 1) SELECT * FROM (WITH y AS (SELECT * FROM x) SELECT * FROM y, x) AS z",
            "WITH x AS (SELECT 1) SELECT (SELECT a FROM x) UNION SELECT 1 FROM x",
            "WITH RECURSIVE x AS (SELECT 1 AS a UNION SELECT a FROM x) SEARCH DEPTH FIRST BY a SET o SELECT * FROM x",
            "WITH RECURSIVE x AS (SELECT 1 AS a UNION SELECT a FROM x) CYCLE a SET c TO 'Y' DEFAULT 'N' USING p TABLE x",
            "WITH x AS (WITH y AS (SELECT 1) SELECT * FROM y) SELECT * FROM x",
            // A table may be read by the CTE that hides it.
            "WITH cache AS (SELECT 1) SELECT * FROM cache",
        ],
    );
    all_are(
        Class::Differs,
        &[
            // Out of its scope the name means the table.
            "SELECT * FROM (WITH cache AS (SELECT 1) SELECT * FROM cache) AS x, cache",
            "WITH cache AS (SELECT 1) SELECT * FROM public.cache",
            "WITH cache AS (SELECT * FROM cache) SELECT * FROM cache",
            "WITH a AS (SELECT * FROM cache), cache AS (SELECT 1) SELECT * FROM a",
            "(WITH cache AS (SELECT 1) SELECT * FROM cache) UNION SELECT * FROM cache",
            "WITH x AS (WITH cache AS (SELECT 1) SELECT * FROM cache) SELECT * FROM cache",
        ],
    );
}

#[test]
fn every_kind_of_expression_is_walked() {
    all_are(
        Class::Read,
        &[
            "SELECT a + b * -c / 2 || 'x' FROM t",
            "SELECT a AND NOT b OR c FROM t",
            "SELECT CASE WHEN a THEN 1 ELSE 2 END, CASE a WHEN 1 THEN 2 END FROM t",
            "SELECT coalesce(a, b), nullif(a, b), greatest(a, b), least(a, 1) FROM t",
            "SELECT a IS NULL, a IS NOT NULL, b IS TRUE, b IS NOT UNKNOWN, a IS DISTINCT FROM b FROM t",
            "SELECT a IN (1, 2), a NOT IN (3, 4) FROM t",
            "SELECT a BETWEEN 1 AND 2, a NOT BETWEEN SYMMETRIC 1 AND 2 FROM t",
            "SELECT a LIKE 'x%' ESCAPE '!', a NOT ILIKE 'y', a SIMILAR TO 'z', a NOT SIMILAR TO 'z' ESCAPE '!' FROM t",
            "SELECT ROW(1, 2) < ROW(3, 4), (1, 2) = (3, 4)",
            "SELECT (ARRAY[1, 2])[1], ARRAY[[1], [2]], (ARRAY[1, 2])[1:2]",
            "SELECT a[1], a[b], (t).a, (t).* FROM t",
            "SELECT a::int, CAST(b AS varchar(10)), int '1', interval '1 day', c::numeric(10, 2)[] FROM t",
            "SELECT a COLLATE \"C\" FROM t",
            "SELECT a::_int4 FROM t",
            "SELECT a::public.colour, b::colour[] FROM t",
            "SELECT ROW(1, 2)::orders",
            "SELECT EXTRACT(year FROM now()), now() AT TIME ZONE 'UTC', now() AT LOCAL",
            "SELECT OVERLAY('abc' PLACING 'x' FROM 2), POSITION('a' IN 'b'), SUBSTRING('abc' FROM 1 FOR 2)",
            "SELECT TRIM(BOTH 'x' FROM 'xax'), TRIM(LEADING FROM ' a'), NORMALIZE('a', NFC), 'a' IS NFC NORMALIZED",
            "SELECT COLLATION FOR ('a')",
            "SELECT a OPERATOR(pg_catalog.+) b FROM t",
            "SELECT 'x' || $1 || E'\\n' || U&'\\0041' || $$dollar$$",
            "SELECT B'101', X'1F', 1.5e10, true, NULL",
        ],
    );
}

#[test]
fn xml_and_json_are_walked() {
    all_are(
        Class::Read,
        &[
            "SELECT xmlelement(name a, xmlattributes(1 AS b), 'c'), xmlforest(a, b AS c) FROM t",
            "SELECT xmlconcat('<a/>', '<b/>'), xmlpi(name php), xmlroot('<a/>', version no value, standalone yes)",
            "SELECT xmlparse(document '<a/>'), xmlserialize(content a AS text), a IS DOCUMENT FROM t",
            "SELECT xmlexists('//a' PASSING BY REF '<a/>')",
            "SELECT * FROM XMLTABLE(XMLNAMESPACES('x' AS y), '/r' PASSING '<r/>' COLUMNS a int PATH 'b' DEFAULT 1, \
             n FOR ORDINALITY)",
            "SELECT JSON_OBJECT('a': 1, 'b' VALUE 2 ABSENT ON NULL RETURNING jsonb), JSON_ARRAY(1, 2), \
             JSON_ARRAY(SELECT a FROM t)",
            "SELECT JSON_OBJECTAGG(a: b), JSON_ARRAYAGG(a ORDER BY b) FILTER (WHERE a > 1) OVER (PARTITION BY a) FROM t",
            "SELECT '{}' IS JSON OBJECT WITH UNIQUE KEYS, JSON('{}'), JSON_SCALAR(1), JSON_SERIALIZE('{}' RETURNING text)",
            "SELECT JSON_EXISTS(a, '$.b' PASSING 1 AS x), JSON_VALUE(a, '$' RETURNING int DEFAULT 1 ON EMPTY), \
             JSON_QUERY(a, '$' WITH WRAPPER NULL ON ERROR) FROM t",
            "SELECT * FROM t, JSON_TABLE(a, '$[*]' PASSING 1 AS x COLUMNS (b int PATH '$.b' DEFAULT 0 ON EMPTY, \
             n FOR ORDINALITY, e int EXISTS PATH '$.e', NESTED PATH '$.c[*]' COLUMNS (d text)))",
        ],
    );
    all_are(
        Class::Volatile,
        &[
            "SELECT xmlelement(name a, xmlattributes(log_it(1) AS b))",
            "SELECT xmlelement(name a, log_it(1))",
            "SELECT xmlforest(log_it(1) AS a)",
            "SELECT xmlserialize(content log_it(1) AS text)",
            "SELECT xmlserialize(content a AS checked) FROM t",
            "SELECT * FROM XMLTABLE('/r' PASSING log_it(1) COLUMNS a int)",
            "SELECT * FROM XMLTABLE(log_it(1) PASSING '<r/>' COLUMNS a int)",
            "SELECT * FROM XMLTABLE('/r' PASSING '<r/>' COLUMNS a int PATH log_it(1))",
            "SELECT * FROM XMLTABLE('/r' PASSING '<r/>' COLUMNS a int DEFAULT log_it(1))",
            "SELECT * FROM XMLTABLE('/r' PASSING '<r/>' COLUMNS a checked)",
            "SELECT * FROM XMLTABLE(XMLNAMESPACES(log_it(1) AS y), '/r' PASSING '<r/>' COLUMNS a int)",
            "SELECT JSON_OBJECT('a': log_it(1))",
            "SELECT JSON_OBJECT(log_it(1): 1)",
            "SELECT JSON_OBJECT('a': 1 RETURNING checked)",
            "SELECT JSON_ARRAY(log_it(1))",
            "SELECT JSON_ARRAY(SELECT log_it(1))",
            "SELECT JSON_ARRAY(SELECT 1 RETURNING checked)",
            "SELECT JSON_OBJECTAGG(log_it(1): 1)",
            "SELECT JSON_ARRAYAGG(1 ORDER BY log_it(1))",
            "SELECT JSON_ARRAYAGG(1) FILTER (WHERE log_it(1))",
            "SELECT JSON_ARRAYAGG(1) OVER (PARTITION BY log_it(1))",
            "SELECT log_it(1) IS JSON",
            "SELECT JSON(log_it(1))",
            "SELECT JSON_SCALAR(log_it(1))",
            "SELECT JSON_SERIALIZE(log_it(1))",
            "SELECT JSON_SERIALIZE('{}' RETURNING checked)",
            "SELECT JSON_EXISTS(log_it(1), '$')",
            "SELECT JSON_VALUE('{}', '$' PASSING log_it(1) AS x)",
            "SELECT JSON_VALUE('{}', log_it(1))",
            "SELECT JSON_VALUE('{}', '$' RETURNING checked)",
            "SELECT JSON_VALUE('{}', '$' DEFAULT log_it(1) ON EMPTY)",
            "SELECT JSON_VALUE('{}', '$' DEFAULT log_it(1) ON ERROR)",
            "SELECT * FROM JSON_TABLE(log_it(1), '$' COLUMNS (a int))",
            "SELECT * FROM JSON_TABLE('{}', '$' PASSING log_it(1) AS x COLUMNS (a int))",
            "SELECT * FROM JSON_TABLE('{}', '$' COLUMNS (a checked))",
            "SELECT * FROM JSON_TABLE('{}', '$' COLUMNS (a int DEFAULT log_it(1) ON EMPTY))",
            "SELECT * FROM JSON_TABLE('{}', '$' COLUMNS (NESTED '$.a' COLUMNS (b int DEFAULT log_it(1) ON ERROR)))",
        ],
    );
}

#[test]
fn a_volatile_call_is_found_wherever_it_hides() {
    all_are(
        Class::Volatile,
        &[
            "SELECT nextval('s')",
            "SELECT pg_catalog.nextval('s')",
            "SELECT log_it('x')",
            "SELECT public.log_it('x')",
            "SELECT log_it(x => 'x')",
            "SELECT strange(VARIADIC ARRAY[1])",
            "SELECT set_config('a.b', 'c', false)",
            "SELECT 1 WHERE log_it(1)",
            "SELECT * FROM log_it(1)",
            "SELECT * FROM t, LATERAL log_it(t.a) AS x",
            "SELECT * FROM ROWS FROM (generate_series(1, 2), log_it(1))",
            "SELECT * FROM (SELECT log_it(1)) AS x",
            "SELECT (SELECT log_it(1))",
            "SELECT EXISTS (SELECT log_it(1))",
            "SELECT ARRAY(SELECT log_it(1))",
            "SELECT 1 IN (SELECT log_it(1))",
            "SELECT log_it(1) IN (SELECT 1)",
            "SELECT * FROM t JOIN u ON log_it(1)",
            "SELECT a FROM t GROUP BY log_it(1)",
            "SELECT a FROM t GROUP BY ROLLUP (log_it(1))",
            "SELECT a FROM t GROUP BY GROUPING SETS ((a), (log_it(1)))",
            "SELECT 1 FROM t HAVING log_it(1)",
            "SELECT 1 FROM t ORDER BY log_it(1)",
            "SELECT 1 LIMIT log_it(1)",
            "SELECT 1 OFFSET log_it(1)",
            "SELECT DISTINCT ON (log_it(1)) 1",
            "SELECT 1 UNION SELECT log_it(1)",
            "SELECT log_it(1) UNION SELECT 1",
            "SELECT 1 UNION SELECT 2 ORDER BY log_it(1)",
            "VALUES (1), (log_it(1))",
            "WITH x AS (SELECT log_it(1)) SELECT 1",
            "WITH RECURSIVE x AS (SELECT 1 UNION SELECT log_it(1) FROM x) SELECT 1",
            "SELECT sum(a) FILTER (WHERE log_it(1)) FROM t",
            "SELECT sum(a ORDER BY log_it(1)) FROM t",
            "SELECT percentile_cont(log_it(1)) WITHIN GROUP (ORDER BY a) FROM t",
            "SELECT percentile_cont(0.1) WITHIN GROUP (ORDER BY log_it(1)) FROM t",
            "SELECT sum(a) OVER (PARTITION BY log_it(1)) FROM t",
            "SELECT sum(a) OVER (ORDER BY log_it(1)) FROM t",
            "SELECT sum(a) OVER (ROWS log_it(1) PRECEDING) FROM t",
            "SELECT sum(a) OVER (ROWS BETWEEN 1 PRECEDING AND log_it(1) FOLLOWING) FROM t",
            "SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY log_it(1))",
            "SELECT * FROM t TABLESAMPLE bernoulli (log_it(1))",
            "SELECT * FROM t TABLESAMPLE bernoulli (1) REPEATABLE (log_it(1))",
            "SELECT * FROM v_logging TABLESAMPLE bernoulli (1)",
            "SELECT CASE log_it(1) WHEN 1 THEN 2 END",
            "SELECT CASE WHEN log_it(1) THEN 2 END",
            "SELECT CASE WHEN true THEN log_it(1) END",
            "SELECT CASE WHEN true THEN 1 ELSE log_it(1) END",
            "SELECT coalesce(1, log_it(1))",
            "SELECT greatest(1, log_it(1))",
            "SELECT nullif(1, log_it(1))",
            "SELECT ROW(log_it(1))",
            "SELECT ARRAY[log_it(1)]",
            "SELECT (ARRAY[1])[log_it(1)]",
            "SELECT (ARRAY[1])[1:log_it(1)]",
            "SELECT (log_it(1)).a",
            "SELECT (log_it(1))[1]",
            "SELECT log_it(1)::text",
            "SELECT log_it(1) COLLATE \"C\"",
            "SELECT log_it(1) IS NULL",
            "SELECT log_it(1) IS TRUE",
            "SELECT NOT log_it(1)",
            "SELECT true AND log_it(1)",
            "SELECT -log_it(1)",
            "SELECT 1 + log_it(1)",
            "SELECT 1 = ANY (log_it(1))",
            "SELECT 1 IN (1, log_it(1))",
            "SELECT 1 BETWEEN 0 AND log_it(1)",
            "SELECT log_it(1) BETWEEN 0 AND 1",
            "SELECT 'a' LIKE log_it(1)",
            "SELECT 'a' SIMILAR TO log_it(1)",
            "SELECT 1 IS DISTINCT FROM log_it(1)",
            "SELECT lower(lower(lower(log_it(1))))",
            "SELECT GROUPING(log_it(1)) FROM t",
            "SELECT now() AT TIME ZONE log_it(1)",
            "SELECT EXTRACT(year FROM log_it(1))",
            "SELECT make_interval(days => log_it(1))",
            "SELECT 1; SELECT log_it(1)",
            "SELECT * FROM v_logging",
            "SELECT 1 @@@ 2",
            "SELECT @@@ 2",
            "SELECT 1 OPERATOR(public.@@@) 2",
            "SELECT 1 @@@ ANY (ARRAY[1])",
            "SELECT 1 @@@ ALL (SELECT 1)",
            "SELECT a FROM t ORDER BY a USING @@@",
            "SELECT 1::checked",
            "SELECT checked '1'",
            "SELECT checked(1)",
            "SELECT NULL::checked[]",
            "SELECT NULL::public.checked",
            "SELECT * FROM json_to_recordset('[]') AS x (a checked)",
            "SELECT * FROM ROWS FROM (json_to_recordset('[]') AS (a checked)) AS x",
            "SELECT t.log_it FROM t",
            "SELECT (t).log_it FROM t",
            "SELECT public.t.log_it FROM t",
            "SELECT t.checked FROM t",
            "SELECT t.touch FROM t",
            "EXPLAIN SELECT log_it(1)",
            "EXPLAIN ANALYZE SELECT log_it(1)",
            "COPY (SELECT log_it(1)) TO STDOUT",
            "COPY v_logging TO STDOUT",
            "DECLARE c CURSOR FOR SELECT log_it(1)",
        ],
    );
}

#[test]
fn what_differs_on_a_standby_or_is_not_known_is_for_the_primary() {
    all_are(
        Class::Differs,
        &[
            "SELECT pg_is_in_recovery()",
            "SELECT pg_advisory_lock(1)",
            "SELECT remote(1)",
            "SELECT * FROM cache",
            "SELECT * FROM elsewhere",
            "SELECT * FROM pg_stat_activity",
            "SELECT * FROM nowhere",
            "SELECT * FROM pg_temp.t",
            "SELECT * FROM audit.orders",
            "SELECT 1 OPERATOR(audit.+) 2",
            "SELECT nothing()",
            "SELECT lower(1, 2)",
            "SELECT 1 <<>> 2",
            "SELECT 1::unheard_of",
            "SELECT 1::opaque",
            "SELECT 1::_opaque",
            "SELECT x.remote FROM t AS x",
            "SELECT * FROM t TABLESAMPLE own_method (1)",
            "SELECT log_it(1), pg_is_in_recovery()",
            "SELECT log_it(1); SELECT * FROM cache",
            "EXPLAIN SELECT * FROM cache",
            "COPY cache TO STDOUT",
            "COPY cache (a) TO STDOUT WITH (FORMAT csv)",
            "DECLARE c CURSOR FOR SELECT * FROM cache",
            "EXECUTE p(log_it(1))",
            "EXECUTE p(nothing())",
        ],
    );
    because(&[
        ("SELECT public.f(1, 2, 3)", Class::Differs, "function public.f(3 arguments) is not known"),
        ("SELECT f(1)", Class::Differs, "function f(1 argument) is not known"),
        ("SELECT * FROM audit.nowhere", Class::Differs, "relation audit.nowhere is not known"),
        ("SELECT 1 <<>> 2", Class::Differs, "operator <<>> is not known"),
        ("SELECT 1::unheard_of", Class::Differs, "type unheard_of is not known"),
        ("SELECT log_it('a')", Class::Volatile, "calls public.log_it(1 argument): VOLATILE"),
        ("SELECT * FROM cache", Class::Differs, "reads public.cache: unlogged table"),
        ("SELECT 1 @@@ 2", Class::Volatile, "uses the operator public.@@@: calls public.log_it(text)"),
        ("SELECT 1::checked", Class::Volatile, "uses the type public.checked: its CHECK calls public.log_it(text)"),
        ("SELECT t.log_it FROM t", Class::Volatile, "may call public.log_it, as .log_it: VOLATILE"),
        (
            "SELECT log_it(1), pg_is_in_recovery()",
            Class::Differs,
            "calls pg_catalog.pg_is_in_recovery(0 arguments): not the same on a standby",
        ),
        ("SELECT 1", Class::Read, "reads only"),
    ]);
    assert_eq!(verdict("SELECT f(1)").reason, "unknown name");
    assert_eq!(verdict("SELECT * FROM cache").reason, "differs");
    assert_eq!(verdict("SELECT log_it(1)").reason, "volatile");
}

/// A user's operator or function of the same name counts where the path reaches it.
#[test]
fn operators_that_the_syntax_implies_are_looked_up_as_well() {
    let audit = Path::Schemas(vec!["audit".into(), "public".into()]);
    let class = |text: &str, path: &Path| judge(&outline(text), &names(), path).class;
    for text in [
        "SELECT nullif(1, 2)",
        "SELECT 1 IS DISTINCT FROM 2",
        "SELECT 1 IS NOT DISTINCT FROM 2",
        "SELECT 1 IN (1, 2)",
        "SELECT 1 IN (SELECT 1)",
        "SELECT CASE 1 WHEN 2 THEN 3 END",
        "SELECT * FROM t JOIN u USING (id)",
        "SELECT * FROM t NATURAL JOIN u",
        "SELECT ROW(1, 2) = ROW(1, 2)",
        "SELECT DISTINCT 1",
        "SELECT count(DISTINCT a) FROM t",
        "SELECT a FROM t GROUP BY a",
        "SELECT 1 UNION SELECT 2",
        "SELECT sum(a) OVER (PARTITION BY a) FROM t",
        "SELECT 1 + 2",
    ] {
        assert_eq!(class(text, &usual()), Class::Read, "{text}");
        assert_eq!(class(text, &audit), Class::Differs, "{text}");
        assert_eq!(class(text, &Path::Unknown), Class::Differs, "{text}");
    }
    assert_eq!(class("SELECT upper('a')", &usual()), Class::Read);
    assert_eq!(class("SELECT upper('a')", &audit), Class::Volatile);
    assert_eq!(class("SELECT pg_catalog.upper('a')", &audit), Class::Read);

    // Each of these is only ever found by its symbol.
    for (text, symbol) in [
        ("SELECT 1 BETWEEN 0 AND 2", ">="),
        ("SELECT 1 BETWEEN SYMMETRIC 0 AND 2", "<="),
        ("SELECT 1 NOT BETWEEN 0 AND 2", "<"),
        ("SELECT 1 NOT BETWEEN SYMMETRIC 0 AND 2", ">"),
        ("SELECT 1 NOT IN (1, 2)", "<>"),
        ("SELECT 'a' LIKE 'b'", "~~"),
        ("SELECT 'a' NOT LIKE 'b'", "!~~"),
        ("SELECT 'a' ILIKE 'b'", "~~*"),
        ("SELECT 'a' NOT ILIKE 'b'", "!~~*"),
        ("SELECT 'a' SIMILAR TO 'b'", "~"),
        ("SELECT 'a' NOT SIMILAR TO 'b'", "!~"),
        ("SELECT greatest(1, 2)", "<"),
        ("SELECT 1 ORDER BY 1", "<"),
        ("SELECT 1 ORDER BY 1 DESC", ">"),
        ("WITH RECURSIVE x AS (SELECT 1 AS a UNION ALL SELECT a FROM x) CYCLE a SET c USING p SELECT 1", "<>"),
    ] {
        let mut names = names();
        assert_eq!(judge(&outline(text), &names, &usual()).class, Class::Read, "{text}");
        names.operators.remove(symbol);
        assert_eq!(judge(&outline(text), &names, &usual()).reason, "unknown name", "{text} without {symbol}");
    }
}

#[test]
fn what_cannot_be_read() {
    all_are(
        Class::Unreadable,
        &["SELEC 1", "SELECT (", "SELECT 'open", "SELECT 1; SELEC 2", "SELECT \0", "/* open", "SELECT 1 FROM t t t"],
    );
    let long = format!("SELECT '{}'", "x".repeat(crate::route::outline::MAX_TEXT));
    assert_eq!(verdict(&long).class, Class::Unreadable);
    let most = format!("SELECT '{}'", "x".repeat(crate::route::outline::MAX_TEXT - 9));
    assert_eq!(verdict(&most).class, Class::Read);
}

#[test]
fn nothing_is_a_read_before_the_catalog_has_been_read() {
    let unread = Names::default();
    let class = |text: &str| judge(&outline(text), &unread, &usual()).class;
    assert_eq!(class("SELECT 1"), Class::Differs);
    assert_eq!(class("COPY t TO STDOUT"), Class::Differs);
    assert_eq!(class("BEGIN READ ONLY; SELECT 1"), Class::Differs);
    assert_eq!(class("BEGIN READ ONLY"), Class::BeginReadOnly);
    assert_eq!(class("EXECUTE p(1)"), Class::Execute);
    assert_eq!(class("SHOW timezone"), Class::Read);
    assert_eq!(class(""), Class::Empty);
    let verdict = judge(&outline("SELECT 1"), &unread, &usual());
    assert_eq!(verdict.reasons, ["the catalog has not been read yet"]);
    assert_eq!(verdict.reason, "no catalog");
}

#[test]
fn what_needs_no_name_counts_for_every_read() {
    let mut names = names();
    names.why_anything = "the cast from int4 to text is public.log_it(int4)".into();
    let class = |names: &Names, text: &str| judge(&outline(text), names, &usual()).class;
    names.anything = WRITES;
    assert_eq!(class(&names, "SELECT 1"), Class::Volatile);
    assert_eq!(class(&names, "SELECT * FROM cache"), Class::Differs);
    assert_eq!(class(&names, "SHOW timezone"), Class::Read);
    let verdict = judge(&outline("SELECT 1"), &names, &usual());
    assert_eq!(verdict.reasons, ["in this database anything may: the cast from int4 to text is public.log_it(int4)"]);
    names.anything = DIFFERS;
    assert_eq!(class(&names, "TABLE t"), Class::Differs);
    names.anything = DIFFERS.union(Traits::ALLOWED);
    assert_eq!(class(&names, "TABLE t"), Class::Read);
}

#[test]
fn at_most_eight_reasons_are_given_each_once() {
    let many: Vec<String> = (0..20).map(|number| format!("f{number}(1), f0(1), log_it({number})")).collect();
    let text = format!("SELECT {}", many.join(", "));
    let verdict = verdict(&text);
    assert_eq!(verdict.reasons.len(), 8);
    assert_eq!(verdict.reasons[0], "function f0(1 argument) is not known");
    assert_eq!(verdict.reasons[7], "function f7(1 argument) is not known");
}
