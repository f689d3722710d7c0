//! A real PostgreSQL, and what the names in it are said to stand for: which of them may be used on a replica, which may
//! write, which differ there, and the reasons that people are told.

use pgbaton::catalog::{Facts, Overrides, read};
use pgbaton::route::names::{Found, Names, Path, Traits};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Client;

#[path = "support/server.rs"]
mod server;

use server::{Server, connect};

async fn names(client: &Client) -> Names {
    read(client, &Overrides::default()).await.unwrap().1
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
}

async fn clean(client: &Client) {
    let sql = "DISCARD TEMP; DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS other CASCADE;
               DROP CAST IF EXISTS (int4 AS date); DROP FOREIGN DATA WRAPPER IF EXISTS nothing CASCADE";
    run(client, sql).await;
}

/// `W` may write, `D` differs, `A` is allowed, nothing of it `-`; then why.
fn told(traits: Traits, why: &str) -> String {
    let bits = [(Traits::MAY_WRITE, 'W'), (Traits::DIFFERS, 'D'), (Traits::ALLOWED, 'A')];
    let letters: String = bits.iter().filter(|(bit, _)| traits.contains(*bit)).map(|(_, letter)| letter).collect();
    match letters.as_str() {
        "" => "-".into(),
        letters => format!("{letters} {why}"),
    }
}

/// What one name stands for: `f()` with so many arguments as there are commas and one, `operator @`, `type t`, else a
/// relation.
fn meaning(names: &Names, what: &str) -> String {
    let split = |name: &str| match name.split_once('.') {
        Some((schema, name)) => (Some(schema.to_string()), name.to_string()),
        None => (None, name.to_string()),
    };
    let path = Path::Unknown;
    if what == "anything" {
        return told(names.anything, &names.why_anything);
    }
    let found = if let Some(symbol) = what.strip_prefix("operator ") {
        names.operator(None, symbol, &path)
    } else if let Some(name) = what.strip_prefix("type ") {
        let (schema, name) = split(name);
        names.type_(schema.as_deref(), &name, &path)
    } else if let Some((name, arguments)) = what.strip_suffix(')').and_then(|call| call.split_once('(')) {
        let count = if arguments.is_empty() { 0 } else { arguments.split(',').count() as u16 };
        let (schema, name) = split(name);
        names.function(schema.as_deref(), &name, count, &path)
    } else {
        let (schema, name) = split(what);
        names.relation(schema.as_deref(), &name, &path)
    };
    match found {
        Found::Unknown => "unknown".into(),
        Found::Known { worst, .. } => told(worst.traits, &worst.why),
    }
}

const FUNCTIONS: &str = "
    CREATE FUNCTION plain() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION stable() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION lock() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN 1; END';
    CREATE FUNCTION writes(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
    CREATE FUNCTION check_it(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN writes($1) > 0; END';";

/// The story, definitions, and what is expected: one `name = meaning` a line.
const STORIES: &[(&str, &str, &str)] = &[
    (
        "volatility",
        "CREATE FUNCTION fixed() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
        "plain() = W VOLATILE
         stable() = -
         fixed() = -
         public.plain() = W VOLATILE
         other.plain() = unknown
         plain(x) = unknown
         absent() = unknown
         lock() = D mentions pg_advisory_xact_lock",
    ),
    (
        "a function is trusted only as far as nothing bad is reached",
        "CREATE FUNCTION trusting() RETURNS int STABLE LANGUAGE sql AS 'SELECT plain()';
         CREATE FUNCTION further() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN trusting(); END';
         CREATE FUNCTION atomic() RETURNS int STABLE LANGUAGE sql RETURN writes(1);
         CREATE FUNCTION atomic_lock() RETURNS bool STABLE LANGUAGE sql RETURN pg_try_advisory_xact_lock(1);
         CREATE FUNCTION recursive() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN recursive(); END';
         CREATE FUNCTION innocent() RETURNS float STABLE LANGUAGE plpgsql AS 'BEGIN RETURN stable() + random(); END';
         CREATE TABLE t (a int);
         CREATE FUNCTION reads_table() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM t';
         CREATE UNLOGGED TABLE fast (a int);
         CREATE FUNCTION reads_fast() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM fast';
         CREATE FUNCTION reads_stats() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM pg_stat_activity'",
        "trusting() = W calls public.plain(), which is VOLATILE
         further() = W reaches public.plain(), which is VOLATILE
         atomic() = W calls public.writes(integer), which is VOLATILE
         atomic_lock() = D mentions pg_try_advisory_xact_lock
         recursive() = -
         innocent() = -
         reads_table() = -
         reads_fast() = D reads public.fast, which is an unlogged table
         reads_stats() = D reaches pg_stat_get_activity",
    ),
    (
        "overloads, defaults and variadic arguments",
        "CREATE FUNCTION o(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION o(int, int, int DEFAULT 2) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION v(VARIADIC int[]) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
         CREATE SEQUENCE s;
         CREATE FUNCTION d(int8 DEFAULT nextval('s')) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION e(int DEFAULT plain()) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
         CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'",
        "o(a) = -
         o(a,b) = W VOLATILE
         o(a,b,c) = W VOLATILE
         o(a,b,c,d) = unknown
         o() = unknown
         v(a,b,c,d,e,f,g) = -
         d() = D mentions nextval
         e() = W calls public.plain(), which is VOLATILE
         p() = unknown",
    ),
    (
        "what hides one of PostgreSQL's own",
        "CREATE FUNCTION lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
         CREATE VIEW pg_tables AS SELECT plain()",
        "lower(a) = W VOLATILE
         pg_catalog.lower(a) = -
         pg_tables = W calls public.plain(), which is VOLATILE
         pg_catalog.pg_tables = -",
    ),
    (
        "bodies",
        "CREATE FUNCTION dynamic() RETURNS void STABLE LANGUAGE plpgsql AS $$BEGIN EXECUTE 'SELECT 1'; END$$;
         CREATE FUNCTION setting() RETURNS text STABLE LANGUAGE sql AS $$SELECT set_config('a.b', 'c', false)$$;
         CREATE FUNCTION tells() RETURNS bool STABLE LANGUAGE sql AS $$SELECT current_setting('in_hot_standby') = 'on'$$;
         CREATE FUNCTION tenant() RETURNS text STABLE LANGUAGE sql AS $$SELECT current_setting('my.tenant', true)$$;
         CREATE FUNCTION scratch() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE x (a int); END';
         CREATE FUNCTION in_c(float8) RETURNS float8 IMMUTABLE LANGUAGE c AS 'utf8_and_iso8859_1', 'iso8859_1_to_utf8';
         CREATE FUNCTION alias(regclass) RETURNS int8 IMMUTABLE LANGUAGE internal AS 'nextval_oid';
         CREATE FUNCTION harmless(int) RETURNS int IMMUTABLE LANGUAGE internal AS 'int4abs'",
        "dynamic() = WD changes settings or runs a text
         setting() = WD changes settings or runs a text
         tells() = D looks at in_hot_standby
         tenant() = -
         scratch() = WD makes temporary objects
         in_c(a) = D language c
         alias(a) = D mentions nextval
         harmless(a) = -",
    ),
    (
        "aggregates",
        "CREATE FUNCTION step(int, int) RETURNS int STABLE LANGUAGE sql AS 'SELECT writes($2)';
         CREATE AGGREGATE total(int) (sfunc = step, stype = int);
         CREATE AGGREGATE good(int) (sfunc = int4pl, stype = int);
         CREATE FUNCTION uses_total() RETURNS int STABLE LANGUAGE sql AS 'SELECT total(1)'",
        "total(a) = W reaches public.writes(integer), which is VOLATILE
         good(a) = -
         uses_total() = W reaches public.writes(integer), which is VOLATILE",
    ),
    (
        "views over views over functions",
        "CREATE VIEW v AS SELECT plain() AS a; CREATE VIEW w AS SELECT a FROM v;
         CREATE VIEW good AS SELECT stable(), now(), random(), current_setting('x.y', true);
         CREATE VIEW advisory AS SELECT pg_try_advisory_lock(1);
         CREATE VIEW activity AS SELECT pid FROM pg_stat_activity;
         CREATE VIEW catalog AS SELECT relname, pg_get_viewdef(oid) FROM pg_class;
         CREATE VIEW tables AS SELECT table_name FROM information_schema.tables;
         CREATE TABLE t (a int); CREATE VIEW locked AS SELECT a FROM t FOR UPDATE;
         CREATE SEQUENCE s; CREATE VIEW last AS SELECT last_value FROM s;
         CREATE VIEW over_lock AS SELECT a FROM locked;
         CREATE MATERIALIZED VIEW m AS SELECT plain() AS a;
         CREATE VIEW tells AS SELECT current_setting('in_hot_standby') AS a;
         CREATE VIEW aggregate AS SELECT count(*) FILTER (WHERE pg_is_in_recovery()) FROM t",
        "v = W calls public.plain(), which is VOLATILE
         w = W reaches public.plain(), which is VOLATILE
         good = -
         advisory = D calls pg_try_advisory_lock
         activity = D reaches pg_stat_get_activity
         catalog = -
         tables = -
         locked = W FOR UPDATE or FOR SHARE
         over_lock = W reads public.locked, which locks rows
         s = D sequence
         last = D reads public.s, which is a sequence
         m = -
         tells = D looks at in_hot_standby
         aggregate = D calls pg_is_in_recovery
         type v = -",
    ),
    (
        "what only writing reaches does not count",
        "CREATE TABLE t (id serial PRIMARY KEY, other bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT clock_timestamp(),
                         a int DEFAULT plain() CHECK (writes(a) > 0), b int CHECK (pg_try_advisory_lock(b)),
                         c bool GENERATED ALWAYS AS (check_it(a)) STORED);
         CREATE INDEX ON t (check_it(a));
         CREATE TABLE child (id int REFERENCES t ON DELETE CASCADE);
         CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM plain(); RETURN NEW; END';
         CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION trg();
         CREATE RULE r AS ON DELETE TO t DO ALSO SELECT lock();
         CREATE TABLE keyed (a int) PARTITION BY LIST (check_it(a));
         CREATE POLICY p ON child FOR INSERT WITH CHECK (lock() > 0);
         CREATE VIEW v AS SELECT * FROM t; CREATE RULE i AS ON INSERT TO v DO INSTEAD SELECT lock()",
        "t = -
         child = -
         keyed = -
         v = -
         type t = -
         t_id_seq = D sequence",
    ),
    (
        "row-level security",
        "CREATE TABLE t (a int); CREATE POLICY p ON t USING (check_it(a));
         CREATE TABLE u (a int); CREATE POLICY p ON u FOR SELECT USING (pg_try_advisory_xact_lock(a));
         CREATE TABLE modes (a text); CREATE POLICY p ON modes USING (current_setting('Transaction_Read_Only') = 'on');
         CREATE TABLE tenants (a text); CREATE POLICY p ON tenants USING (a = current_setting('my.tenant'));
         CREATE VIEW helper AS SELECT plain() AS a;
         CREATE TABLE x (a int); CREATE POLICY p ON x USING (a IN (SELECT helper.a FROM helper));
         CREATE VIEW over AS SELECT * FROM x",
        "t = W reaches public.writes(integer), which is VOLATILE
         u = D calls pg_try_advisory_xact_lock
         modes = D looks at transaction_read_only
         tenants = -
         x = W reaches public.plain(), which is VOLATILE
         over = W reaches public.plain(), which is VOLATILE",
    ),
    (
        "kinds of tables",
        "CREATE UNLOGGED TABLE fast (a int);
         CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         CREATE UNLOGGED TABLE p2 PARTITION OF p FOR VALUES IN (2);
         CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent);
         CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
         CREATE FOREIGN TABLE far (a int) SERVER nowhere;
         CREATE TEMP TABLE mine (a int);
         CREATE VIEW over AS SELECT p.a FROM p, parent",
        "fast = D unlogged table
         p = D reads public.p2, which is an unlogged table
         p1 = -
         p2 = D unlogged table
         parent = -
         child = -
         far = D foreign table
         mine = unknown
         over = D reaches public.p2, which is an unlogged table",
    ),
    (
        "domains and types",
        "CREATE DOMAIN d AS int CHECK (writes(VALUE) > 0); CREATE TABLE t (a d); CREATE TABLE u (a d[]); CREATE DOMAIN e AS d;
         CREATE DOMAIN b AS int CHECK (VALUE <> pg_backend_pid()); CREATE TABLE w (a b);
         CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE c AS (x d); CREATE TABLE of_c (a c);
         CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE good (a mood, b positive, c text);
         CREATE MATERIALIZED VIEW m AS SELECT a FROM t;
         CREATE FUNCTION takes(e) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'",
        "type d = W calls public.writes(integer), which is VOLATILE
         type e = W reaches public.writes(integer), which is VOLATILE
         type b = D calls pg_backend_pid
         type positive = -
         type mood = -
         type c = W reaches public.writes(integer), which is VOLATILE
         type good = -
         type int4 = -
         type absent = unknown
         t = W reaches public.writes(integer), which is VOLATILE
         u = W reaches public.writes(integer), which is VOLATILE
         w = D reaches pg_backend_pid
         of_c = W reaches public.writes(integer), which is VOLATILE
         m = W reaches public.writes(integer), which is VOLATILE
         good = -
         takes(a) = W reaches public.writes(integer), which is VOLATILE",
    ),
    (
        "operators",
        "CREATE OPERATOR @+ (function = writes, rightarg = int);
         CREATE OPERATOR @! (function = pg_advisory_lock, rightarg = bigint);
         CREATE OPERATOR @- (function = int4mi, leftarg = int, rightarg = int);
         CREATE VIEW v AS SELECT @+ 1 AS a;
         CREATE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT @+ 1'",
        "operator @+ = W calls public.writes(integer), which is VOLATILE
         operator @! = D calls pg_advisory_lock
         operator @- = -
         operator + = -
         operator @@@@ = unknown
         v = W reaches public.writes(integer), which is VOLATILE
         f() = W reaches public.writes(integer), which is VOLATILE",
    ),
    (
        "casts of a type of one's own",
        "CREATE TYPE c AS (x int); CREATE FUNCTION conv(c) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE CAST (c AS int) WITH FUNCTION conv(c); CREATE TABLE t (a c)",
        "type c = W calls public.conv(public.c), which is VOLATILE
         t = W reaches public.conv(public.c), which is VOLATILE
         anything = -",
    ),
    (
        "a cast between types of PostgreSQL",
        "CREATE FUNCTION conv(int) RETURNS date LANGUAGE sql AS 'SELECT now()::date';
         CREATE CAST (int AS date) WITH FUNCTION conv(int)",
        "anything = W calls public.conv(integer), which is VOLATILE
         type date = -",
    ),
    (
        "a cast between types of PostgreSQL that only computes",
        "CREATE FUNCTION conv(int) RETURNS date IMMUTABLE LANGUAGE sql AS $$SELECT date '2000-01-01' + $1$$;
         CREATE CAST (int AS date) WITH FUNCTION conv(int)",
        "anything = -",
    ),
    (
        "an index over a type of PostgreSQL calls its operator class",
        "CREATE FUNCTION cmp(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT writes($1)';
         CREATE OPERATOR CLASS oc FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 cmp(int, int)",
        "anything = W reaches public.writes(integer), which is VOLATILE",
    ),
];

#[tokio::test]
async fn names_stand_for_what_reading_them_reaches() {
    let server = Server::start();
    let client = server.client().await;
    for (story, definitions, expected) in STORIES {
        run(&client, &format!("{FUNCTIONS}{definitions}")).await;
        let names = names(&client).await;
        let expected: Vec<_> = expected.lines().map(|line| line.trim().to_string()).collect();
        let found: Vec<_> = expected
            .iter()
            .map(|line| {
                let (what, _) = line.split_once(" = ").unwrap();
                format!("{what} = {}", meaning(&names, what))
            })
            .collect();
        assert_eq!(found, expected, "{story}");
        clean(&client).await;
    }
}

/// Those of a query's names that have traits.
async fn tainted(client: &Client, names: &Names, query: &str) -> Vec<String> {
    let mut found = Vec::new();
    for row in client.query(query, &[]).await.unwrap() {
        let what: String = row.get(0);
        let meaning = meaning(names, &what);
        if meaning != "-" {
            found.push(format!("{what} = {meaning}"));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[tokio::test]
async fn what_postgresql_brings() {
    let server = Server::start();
    let client = server.client().await;
    let names = names(&client).await;
    let expected = "random() = -
        clock_timestamp() = -
        now() = -
        gen_random_uuid() = -
        pg_sleep(a) = -
        version() = -
        current_setting(a) = -
        count() = -
        count(a) = -
        mode() = -
        percentile_cont(a) = -
        rank(a,b) = -
        row_number() = -
        concat(a,b,c,d) = -
        format(a) = -
        coalesce(a) = unknown
        nextval(a) = D state of a sequence
        setval(a,b) = D state of a sequence
        pg_advisory_xact_lock(a,b) = D advisory lock
        pg_is_in_recovery() = D says whether this is a standby
        txid_current() = D transaction ids
        pg_current_xact_id() = D transaction ids
        inet_server_addr() = D address of the server
        pg_stat_get_numscans(a) = D statistics of the server
        pg_backend_pid() = D state of the server
        pg_relation_size(a) = D size on disk
        lo_get(a) = D large objects
        set_config(a,b,c) = D changes a setting
        query_to_xml(a,b,c,d) = D runs a text
        ts_rewrite(a,b) = D runs a text
        ts_rewrite(a,b,c) = -
        pg_read_file(a) = D files of the server
        brin_summarize_new_values(a) = W VOLATILE
        pg_class = -
        pg_largeobject = -
        pg_statistic = -
        pg_stats = -
        pg_tables = -
        pg_views = -
        pg_indexes = -
        pg_roles = -
        pg_stat_activity = D calls pg_stat_get_activity
        pg_locks = D calls pg_lock_status
        pg_settings = D calls pg_show_all_settings
        pg_prepared_statements = D calls pg_prepared_statement
        pg_cursors = D calls pg_cursor
        pg_replication_slots = D calls pg_get_replication_slots
        pg_hba_file_rules = D calls pg_hba_file_rules
        pg_file_settings = D calls pg_show_all_file_settings
        pg_stat_wal_receiver = D calls pg_stat_get_wal_receiver
        pg_config = D calls pg_config
        pg_backend_memory_contexts = D calls pg_get_backend_memory_contexts
        operator = = -
        operator ->> = -
        operator && = -
        type int8 = -
        type pg_class = -
        type oidvector = -
        type _int4 = unknown";
    for line in expected.lines().map(str::trim) {
        let (what, expected) = line.rsplit_once(" = ").unwrap();
        assert_eq!(meaning(&names, what), expected, "{what}");
    }
    assert!(names.is_read && names.anything.is_empty());
    // Nothing is missing …
    let all = "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'v') UNION
               SELECT 'type ' || typname FROM pg_type t WHERE NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
                  AND typname !~ '^pg_toast' UNION
               SELECT 'operator ' || oprname FROM pg_operator UNION
               SELECT proname || '(' || array_to_string(proargtypes, ',') || ')' FROM pg_proc WHERE prokind <> 'p' AND provariadic = 0";
    let found = tainted(&client, &names, all).await;
    let unknown: Vec<_> = found.iter().filter(|line| line.ends_with("unknown")).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // … all of information_schema means the same everywhere, and so do the functions psql and ORMs ask the catalog with.
    let relations = "SELECT 'information_schema.' || table_name FROM information_schema.views WHERE table_schema = 'information_schema'";
    assert_eq!(tainted(&client, &names, relations).await, Vec::<String>::new());
    let tables = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND oid < 16384 AND relnamespace = 'pg_catalog'::regnamespace";
    assert_eq!(tainted(&client, &names, tables).await, Vec::<String>::new());
    let asked = "SELECT proname || '(' || array_to_string(proargtypes, ',') || ')' FROM pg_proc
                  WHERE oid < 16384 AND (proname ~ '^pg_get_.*(def|expr|arguments|result|userbyid|keywords)$' OR proname ~ '^has_'
                        OR proname ~ '_is_visible$' OR proname ~ '^(format_type|obj_description|col_description|shobj_description|'
                        'pg_typeof|pg_encoding_to_char|pg_size_pretty|pg_column_size|pg_get_serial_sequence|pg_has_role|'
                        'pg_collation_for|current_schemas?|current_database|to_reg.*|array_.*|string_agg|json.*|unnest|'
                        'generate_.*|quote_.*|pg_partition_.*|pg_relation_is_.*|pg_index.*_has_property|pg_options_to_table)$')";
    assert_eq!(tainted(&client, &names, asked).await, Vec::<String>::new());
    // Whatever is VOLATILE and not here has traits.
    let volatile =
        "SELECT DISTINCT proname::text FROM pg_proc WHERE provolatile = 'v' AND prokind <> 'p' AND oid < 16384
                       AND NOT 2281 = ANY (proargtypes) ORDER BY 1";
    let mut harmless = Vec::new();
    for row in client.query(volatile, &[]).await.unwrap() {
        let name: String = row.get(0);
        if names.functions[name.as_str()].iter().any(|meaning| meaning.traits.is_empty()) {
            harmless.push(name);
        }
    }
    let known = [
        "array_sample",
        "array_shuffle",
        "clock_timestamp",
        "gen_random_uuid",
        "pg_partition_ancestors",
        "pg_partition_tree",
        "pg_sleep",
        "pg_sleep_for",
        "pg_sleep_until",
        "random",
        "random_normal",
        "timeofday",
        "ts_rewrite",
        "uuidv4",
        "uuidv7",
    ];
    harmless.retain(|name| !known.contains(&name.as_str()));
    assert_eq!(harmless, Vec::<String>::new());
}

#[tokio::test]
async fn extensions_in_c_are_believed_except_some() {
    let server = Server::start();
    let client = server.client().await;
    for extension in
        ["pg_trgm", "dblink", "pg_stat_statements", "btree_gist", "citext", "hstore", "uuid-ossp", "intarray"]
    {
        let sql = format!("CREATE EXTENSION \"{extension}\"");
        if client.batch_execute(&sql).await.is_err() {
            eprintln!("{extension} is not installed");
            return;
        }
    }
    run(&client, "CREATE TABLE t (a citext, b hstore); CREATE INDEX ON t USING gist (b)").await;
    let names = names(&client).await;
    for (what, expected) in [
        ("similarity(a,b)", "-"),
        ("operator %", "-"),
        ("operator <->", "-"),
        ("t", "-"),
        ("type citext", "-"),
        ("type hstore", "-"),
        ("anything", "-"),
        ("uuid_generate_v4()", "W VOLATILE"),
        ("dblink(a,b)", "WD extension dblink"),
        (
            "pg_stat_statements",
            "WD calls public.pg_stat_statements(boolean), which belongs to extension pg_stat_statements",
        ),
    ] {
        assert_eq!(meaning(&names, what), expected, "{what}");
    }
}

#[tokio::test]
async fn the_configuration_has_the_last_word() {
    let server = Server::start();
    let client = server.client().await;
    let definitions = "CREATE FUNCTION uses_plain() RETURNS int STABLE LANGUAGE sql AS 'SELECT plain()';
         CREATE FUNCTION uses_stable() RETURNS int STABLE LANGUAGE sql AS 'SELECT stable()';
         CREATE VIEW v AS SELECT plain() AS a; CREATE VIEW w AS SELECT stable() AS a;
         CREATE VIEW process AS SELECT pg_backend_pid(); CREATE VIEW upper AS SELECT upper('a');
         CREATE SCHEMA other; CREATE FUNCTION other.plain() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    run(&client, &format!("{FUNCTIONS}{definitions}")).await;
    let overrides = Overrides {
        safe: ["public.plain", "pg_backend_pid", "lock"].map(Into::into).into(),
        unsafe_: ["stable", "pg_catalog.upper", "lock"].map(Into::into).into(),
    };
    let names = read(&client, &overrides).await.unwrap().1;
    for (what, expected) in [
        ("public.plain()", "A reads.safe_functions"),
        ("other.plain()", "W VOLATILE"),
        ("v", "-"),
        ("process", "-"),
        ("pg_backend_pid()", "A reads.safe_functions"),
        ("stable()", "D reads.unsafe_functions"),
        ("w", "D calls public.stable(), which stands in reads.unsafe_functions"),
        ("upper(a)", "D reads.unsafe_functions"),
        ("upper", "D calls upper, which stands in reads.unsafe_functions"),
        ("uses_stable()", "D calls public.stable(), which stands in reads.unsafe_functions"),
        // A name in a body is not resolved, so it is the other one as well.
        ("uses_plain()", "W calls other.plain(), which is VOLATILE"),
        ("lock()", "D reads.unsafe_functions"),
    ] {
        assert_eq!(meaning(&names, what), expected, "{what}");
    }
}

#[tokio::test]
async fn search_paths_are_those_a_session_starts_with() {
    let server = Server::start();
    let client = server.client().await;
    let path = async |sql: &str| {
        run(&client, sql).await;
        names(&server.connect().await.unwrap()).await
    };
    assert_eq!(path("").await.default_path.as_deref(), Some(r#""$user", public"#));
    run(&client, "ALTER SYSTEM SET search_path = filed").await;
    run(&client, "SELECT pg_reload_conf()").await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while path("").await.default_path.as_deref() != Some("filed") {
        assert!(std::time::Instant::now() < deadline, "the configuration is not seen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Of another role it is known even so; what the asker's own role says is no default.
    let found = path(
        "CREATE ROLE app; ALTER ROLE app SET search_path = app, public; ALTER ROLE postgres SET search_path = own",
    )
    .await;
    assert_eq!(found.default_path, None);
    assert_eq!(&*found.role_paths["app"], "app, public");
    assert_eq!(&*found.role_paths["postgres"], "own");
    let found = path("ALTER ROLE ALL SET search_path = everybody").await;
    assert_eq!(found.default_path.as_deref(), Some("everybody"));
    let found = path(
        "ALTER DATABASE postgres SET search_path = here; ALTER ROLE app IN DATABASE postgres SET search_path = mine",
    )
    .await;
    assert_eq!(found.default_path.as_deref(), Some("here"));
    assert_eq!(&*found.role_paths["app"], "mine");
    let found =
        path("ALTER ROLE postgres RESET search_path; ALTER DATABASE template1 SET search_path = elsewhere").await;
    assert_eq!(found.default_path.as_deref(), Some("here"));
    assert!(!found.role_paths.contains_key("postgres"));

    // One who has been there for longer than the setting does not know what it was before.
    run(&client, "ALTER ROLE ALL RESET search_path").await;
    let old = server.connect().await.unwrap();
    assert_eq!(names(&old).await.default_path.as_deref(), Some("here"));
    run(&client, "ALTER DATABASE postgres RESET search_path").await;
    assert_eq!(names(&old).await.default_path, None);

    // A connection that said something at its start cannot know what the configuration says.
    let mut config = tokio_postgres::Config::new();
    config.host_path(server.dir()).port(5432).user("postgres").dbname("postgres").options("-c search_path=pg_catalog");
    let (other, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(names(&other).await.default_path, None);
    assert_eq!(names(&server.connect().await.unwrap()).await.default_path.as_deref(), Some("filed"));
}

#[tokio::test]
async fn the_same_definitions_give_the_same_names() {
    let server = Server::start();
    let client = server.client().await;
    let definitions = (0..30).map(|at| {
        format!(
            "CREATE FUNCTION a{at}() RETURNS int LANGUAGE sql AS 'SELECT plain() + writes(1)';
             CREATE FUNCTION b{at}() RETURNS int STABLE LANGUAGE sql AS 'SELECT a{at}() + a{}() + lock() FROM pg_locks';
             CREATE VIEW v{at} AS SELECT a{at}() + b{at}() + pg_backend_pid() AS a FROM pg_stat_activity;",
            29 - at,
        )
    });
    run(&client, FUNCTIONS).await;
    run(&client, "SET check_function_bodies = off").await;
    run(&client, &definitions.collect::<String>()).await;
    let first = names(&client).await;
    for _ in 0..5 {
        assert!(first == names(&server.connect().await.unwrap()).await);
    }
}

#[tokio::test]
async fn facts_show_names_and_count_their_changes() {
    let server = Server::start();
    let client = server.client().await;
    run(&client, "CREATE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'").await;
    let facts = Arc::new(Facts::default());
    assert!(!facts.names().is_read && facts.names_version() == 0);
    let dir = server.dir().to_path_buf();
    let connecting = move || {
        let dir = dir.clone();
        async move { connect(&dir).await }
    };
    let keeper = tokio::spawn(facts.clone().keep_fresh(connecting, Duration::from_secs(3600)));
    assert!(facts.refreshed().await);
    assert_eq!(meaning(&facts.names(), "f()"), "-");
    let version = facts.names_version();
    assert_eq!(version, 1);

    // What changes nothing of the names leaves them where they are.
    let before = Arc::as_ptr(&facts.names());
    run(&client, "CREATE TEMP TABLE t (a int); CREATE INDEX ON t (a)").await;
    facts.mark_dirty();
    assert!(facts.refreshed().await);
    assert!(Arc::as_ptr(&facts.names()) == before && facts.names_version() == version);

    for (change, expected) in [
        ("ALTER FUNCTION f() VOLATILE", "W VOLATILE"),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT pg_backend_pid()'",
            "D mentions pg_backend_pid",
        ),
        ("DROP FUNCTION f()", "unknown"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "W VOLATILE"),
    ] {
        let version = facts.names_version();
        run(&client, change).await;
        facts.mark_dirty();
        assert!(facts.refreshed().await);
        assert_eq!(meaning(&facts.names(), "f()"), expected, "{change}");
        assert_eq!(facts.names_version(), version + 1);
    }
    facts.set_overrides(Overrides { safe: vec!["public.f".into()], ..Overrides::default() });
    assert!(facts.is_dirty());
    assert!(facts.refreshed().await);
    assert_eq!(meaning(&facts.names(), "f()"), "A reads.safe_functions");
    facts.set_overrides(Overrides { safe: vec!["public.f".into()], ..Overrides::default() });
    assert!(!facts.is_dirty(), "nothing new");
    keeper.abort();
}

/// Whoever may connect may ask, and what a path leads to cannot mislead.
#[tokio::test]
async fn any_role_is_told_the_same() {
    let server = Server::start();
    let client = server.client().await;
    run(&client, FUNCTIONS).await;
    let expected = names(&client).await;
    run(
        &client,
        "CREATE ROLE nobody LOGIN; CREATE SCHEMA trap;
         CREATE FUNCTION trap.never(text, text) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT false';
         CREATE FUNCTION trap.never(name, text) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT false';
         CREATE OPERATOR trap.= (function = trap.never, leftarg = text, rightarg = text);
         CREATE OPERATOR trap.= (function = trap.never, leftarg = name, rightarg = text);
         ALTER DATABASE postgres SET search_path = trap, pg_catalog; GRANT USAGE ON SCHEMA trap TO PUBLIC",
    )
    .await;
    let mut config = tokio_postgres::Config::new();
    config.host_path(server.dir()).port(5432).user("nobody").dbname("postgres");
    let (nobody, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let mut found = names(&nobody).await;
    assert_eq!(found.default_path.take().as_deref(), Some("trap, pg_catalog"));
    found.default_path = expected.default_path.clone();
    found.functions.remove("never");
    found.operators.get_mut("=").unwrap().retain(|meaning| *meaning.schema != *"trap");
    assert!(found == expected);
}
