//! What a configuration file may say, told by example. Apart from `mod.rs` for length only.

use super::*;

const NODE: &str = "[[cluster.nodes]]\nid = \"n1\"\nhost = \"127.0.0.1\"\nport = 54321\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("pgbaton.toml")).map_err(|error| error.to_string())
}

fn refusal(text: &str) -> String {
    match parse(&format!("{text}\n{NODE}")) {
        Ok(_) => panic!("accepted: {text}"),
        Err(message) => message,
    }
}

#[test]
fn nodes_alone_are_a_whole_configuration() {
    let config = parse(NODE).unwrap();
    assert_eq!(config.proxy.listen, [Listen::Tcp { host: "127.0.0.1".into(), port: 6432 }]);
    assert_eq!(config.proxy.pool_mode, PoolMode::Transaction);
    assert_eq!(config.proxy.pool_size, 20);
    assert_eq!(config.proxy.max_inspect_bytes, 1 << 20);
    assert_eq!(config.failover.probe_interval, Duration::from_millis(250));
    let node = Node {
        id: "n1".into(),
        host: "127.0.0.1".into(),
        port: 54321,
        agent: None,
        zone: String::new(),
        weight: 1,
        priority: 100,
    };
    assert_eq!(config.cluster.nodes, [node]);
    assert!(config.reads.enabled);
    assert_eq!(config.reads.consistency, Consistency::Session);
    assert_eq!(config.reads.balance, Strategy::LeastConnections);
    assert_eq!(config.reads.balance, Strategy::default());
    assert_eq!(config.reads.max_lag_bytes, 64 << 20);
    assert_eq!((config.reads.fallback, config.reads.hash_by), (Fallback::Primary, HashBy::User));
    assert_eq!(config.reads.wait, Duration::from_secs(1));
    assert_eq!((config.reads.zone.as_str(), config.reads.safe_functions.len()), ("", 0));
    assert_eq!(config.proxy.tls.cert, None);
    assert_eq!((config.cluster.durability, config.cluster.quorum_acks), (Durability::Async, 1));
    assert_eq!(config.cluster.max_lost_bytes, 1 << 20);
    let failover = Failover {
        automatic: true,
        probe_interval: Duration::from_millis(250),
        probe_timeout: Duration::from_secs(1),
        misses: 3,
        veto: Duration::from_secs(10),
        restart_wait: Duration::from_secs(3),
        anti_flap: Duration::from_secs(30),
        voter_grace: Duration::from_secs(5),
        drain: Duration::from_secs(3),
        rejoin: Rejoin::Auto,
        hold: Duration::from_secs(30),
        max_held: 10_000,
        max_held_bytes: 64 << 20,
        ask_commits: true,
    };
    assert_eq!(config.failover, failover);
    let coordination = Coordination { kind: CoordinationKind::Embedded, path: "pgbaton-state.json".into() };
    assert_eq!(config.coordination, coordination);
}

#[test]
fn every_key_can_be_set() {
    let config = parse(
        r#"
        [proxy]
        listen = ["0.0.0.0:7000", "[::1]:7000", "/run/pgbaton"]
        listen_read_only = ["0.0.0.0:7001", "/run/pgbaton"]
        pool_mode = "session"
        max_inspect_bytes = "64KiB"
        pool_wait = "1m 30s"
        [proxy.tls]
        mode = "require"
        cert = "tls/server.pem"
        key = "/etc/key.pem"
        [auth]
        method = "file"
        users_file = "users.txt"
        [[auth.rules]]
        user = "app"
        address = "10.0.0.0/8"
        method = "cert"
        tls = true
        [[auth.rules]]
        method = "reject"
        [cluster]
        name = "west"
        durability = "quorum"
        quorum_acks = 2
        max_lost_bytes = 0
        [cluster.tls]
        mode = "verify-full"
        ca = "ca.pem"
        [[cluster.nodes]]
        id = "n1"
        host = "/var/run/postgresql"
        zone = "eu-1a"
        weight = 0
        priority = 0
        [reads]
        enabled = false
        consistency = "strong"
        max_lag = "250ms"
        max_lag_bytes = "1MiB"
        balance = "consistent_hash"
        hash_by = "application"
        zone = "eu-1b"
        slow_start = "0s"
        fallback = "wait"
        wait = "3s"
        safe_functions = ["App.Total", "now2"]
        unsafe_functions = ['"Odd".f']
        [failover]
        automatic = false
        probe_interval = "1s"
        probe_timeout = "2s"
        misses = 5
        veto = "0s"
        restart_wait = "1s"
        anti_flap = "1m"
        voter_grace = "10s"
drain = "1s"
rejoin = "manual"
        hold = "5s"
        max_held = 0
        max_held_bytes = "1MiB"
        ask_commits = false
        [coordination]
        kind = "embedded"
        path = "/var/lib/pgbaton/state.json"
        [log]
        format = "json"
        level = "info,pgbaton::session=debug"
        "#,
    )
    .unwrap();
    let shown: Vec<String> = config.proxy.listen.iter().map(Listen::to_string).collect();
    assert_eq!(shown, ["0.0.0.0:7000", "[::1]:7000", "/run/pgbaton"]);
    assert_eq!(config.proxy.unix_port(), 7000);
    let shown: Vec<String> = config.proxy.listen_read_only.iter().map(Listen::to_string).collect();
    assert_eq!((shown.join(" "), config.proxy.read_only_unix_port()), ("0.0.0.0:7001 /run/pgbaton".into(), 7001));
    assert_eq!(config.proxy.pool_wait, Duration::from_secs(90));
    assert_eq!(config.proxy.tls.key.as_deref(), Some(Path::new("/etc/key.pem")));
    assert_eq!(config.auth.rules[0].tls, Some(true));
    assert_eq!(config.auth.rules[1].user, "all");
    assert_eq!(config.cluster.nodes[0].port, 5432);
    assert_eq!((config.cluster.nodes[0].zone.as_str(), config.cluster.nodes[0].weight), ("eu-1a", 0));
    let reads = Reads {
        enabled: false,
        consistency: Consistency::Strong,
        max_lag: Duration::from_millis(250),
        max_lag_bytes: 1 << 20,
        balance: Strategy::ConsistentHash,
        hash_by: HashBy::Application,
        zone: "eu-1b".into(),
        slow_start: Duration::ZERO,
        fallback: Fallback::Wait,
        wait: Duration::from_secs(3),
        safe_functions: vec!["app.total".parse().unwrap(), "now2".parse().unwrap()],
        unsafe_functions: vec!["\"Odd\".f".parse().unwrap()],
    };
    assert_eq!(config.reads, reads);
    assert_eq!((config.cluster.durability, config.cluster.quorum_acks), (Durability::Quorum, 2));
    assert_eq!((config.cluster.max_lost_bytes, config.cluster.nodes[0].priority), (0, 0));
    let failover = Failover {
        automatic: false,
        probe_interval: Duration::from_secs(1),
        probe_timeout: Duration::from_secs(2),
        misses: 5,
        veto: Duration::ZERO,
        restart_wait: Duration::from_secs(1),
        anti_flap: Duration::from_secs(60),
        voter_grace: Duration::from_secs(10),
        drain: Duration::from_secs(1),
        rejoin: Rejoin::Manual,
        hold: Duration::from_secs(5),
        max_held: 0,
        max_held_bytes: 1 << 20,
        ask_commits: false,
    };
    assert_eq!(config.failover, failover);
    assert_eq!(config.coordination.path, Path::new("/var/lib/pgbaton/state.json"));
}

#[test]
fn a_relative_path_starts_at_the_directory_of_the_file() {
    let text = format!("{NODE}\n[proxy.tls]\ncert = \"tls/server.pem\"\nkey = \"/k.pem\"");
    let config = Config::parse(&text, Path::new("/etc/pgbaton/pgbaton.toml")).unwrap();
    assert_eq!(config.proxy.tls.cert.as_deref(), Some(Path::new("/etc/pgbaton/tls/server.pem")));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let message = refusal("# one\n[proxy]\npool_mode = \"session\"\npool_sise = 3");
    assert_eq!(message, "pgbaton.toml:4: proxy.pool_sise: unknown key; did you mean \"pool_size\"?");
    assert_eq!(refusal("[prox]"), "pgbaton.toml:1: prox: unknown key; did you mean \"proxy\"?");
    assert_eq!(
        refusal("[proxy]\nhold = \"3s\""),
        "pgbaton.toml:2: proxy.hold: unknown key; \"hold\" belongs in [failover]"
    );
    assert_eq!(refusal("[proxy.tls]\nsni = 1"), "pgbaton.toml:2: proxy.tls.sni: unknown key");
    assert_eq!(
        parse("[[cluster.nodes]]\nid = \"a\"\nhosts = \"b\"\nhost = \"b\"").unwrap_err(),
        "pgbaton.toml:3: cluster.nodes.hosts: unknown key; did you mean \"host\"?"
    );
}

#[test]
fn a_value_out_of_range_is_told_the_range() {
    let cases = [
        ("[proxy]\npool_size = 0", "proxy.pool_size: must be a whole number from 1 to 10000, found 0"),
        ("[proxy]\npool_size = \"20\"", "proxy.pool_size: must be a whole number from 1 to 10000, found \"20\""),
        ("[proxy]\npool_size = -1", "proxy.pool_size: must be a whole number from 1 to 10000, found -1"),
        (
            "[proxy]\npool_wait = 30",
            "proxy.pool_wait: must be a duration with a unit, such as \"30s\", from 10ms to 1h, found 30",
        ),
        (
            "[failover]\nhold = \"2h\"",
            "failover.hold: must be a duration with a unit, such as \"30s\", from 0s to 1h, found \"2h\"",
        ),
        (
            "[proxy]\nmax_inspect_bytes = \"1 MB!\"",
            "proxy.max_inspect_bytes: must be a size such as \"1MiB\", from 1KiB to 1GiB, found \"1 MB!\"",
        ),
        (
            "[proxy]\npool_mode = \"transactoin\"",
            "proxy.pool_mode: must be one of \"transaction\", \"session\", found \"transactoin\"; did you mean \"transaction\"?",
        ),
        ("[proxy]\nlisten = []", "proxy.listen: must name at least one address"),
        (
            "[proxy]\nlisten = [\"6432\"]",
            "proxy.listen: must be \"host:port\" or the directory of a Unix socket (beginning with \"/\"), found \"6432\"",
        ),
        (
            "[proxy]\nlisten_read_only = [\"x\"]",
            "proxy.listen_read_only: must be \"host:port\" or the directory of a Unix socket (beginning with \"/\"), found \"x\"",
        ),
        (
            "[proxy]\nlisten_read_only = [\"127.0.0.1:6432\"]",
            "proxy.listen_read_only: names \"127.0.0.1:6432\", where pgbaton listens for clients already",
        ),
        (
            "[proxy]\nlisten = [\"/run\", \"::1:0\", \"/run\"]",
            "proxy.listen: must be \"host:port\" or the directory of a Unix socket (beginning with \"/\"), found \"::1:0\"",
        ),
        (
            "[proxy]\nlisten = [\"/run\", \"/run\"]",
            "proxy.listen: names \"/run\", where pgbaton listens for clients already",
        ),
        ("[cluster]\nname = \"\"", "cluster.name: must not be empty"),
        (
            "[reads]\nbalance = \"least_conections\"",
            "reads.balance: must be one of \"round_robin\", \"random\", \"weighted_round_robin\", \"least_connections\", \
             \"fastest\", \"consistent_hash\", found \"least_conections\"; did you mean \"least_connections\"?",
        ),
        ("[reads]\nenabled = \"no\"", "reads.enabled: must be true or false, found \"no\""),
        (
            "[reads]\nzone = \"a b\"",
            "reads.zone: must be up to 63 letters, digits, \"_\", \"-\" or \".\", found \"a b\"",
        ),
        (
            "[reads]\nmax_lag = \"0s\"",
            "reads.max_lag: must be a duration with a unit, such as \"30s\", from 1ms to 30days, found \"0s\"",
        ),
        (
            "[reads]\nsafe_functions = \"f\"",
            "reads.safe_functions: must be a list such as [\"schema.function\"], found \"f\"",
        ),
        (
            "[reads]\nunsafe_functions = [\"f\", \"g(int)\"]",
            "reads.unsafe_functions: must be \"function\" or \"schema.function\", without arguments, found \"g(int)\"",
        ),
        ("[reads]\nsafe_functions = [1]", "reads.safe_functions: must be a text, found 1"),
        ("[failover]\nmisses = 0", "failover.misses: must be a whole number from 1 to 100, found 0"),
        ("[cluster]\nquorum_acks = 9", "cluster.quorum_acks: must be a whole number from 1 to 8, found 9"),
        (
            "[cluster]\ndurability = \"quorom\"",
            "cluster.durability: must be one of \"async\", \"quorum\", found \"quorom\"; did you mean \"quorum\"?",
        ),
        (
            "[coordination]\nkind = \"etcd\"",
            "coordination.kind: \"etcd\" is not built yet: run one pgbaton, with \"embedded\"",
        ),
        ("[coordination]\npath = \"\"", "coordination.path: must name a file, found \"\""),
        ("[coordination]\npath = \"/var/\"", "coordination.path: must name a file, found \"/var/\""),
        ("[[auth.rules]]\ntls = 1\nmethod = \"scram\"", "auth.rules[1].tls: must be true or false, found 1"),
    ];
    for (text, expected) in cases {
        let message = refusal(text);
        let (_, message) = message.split_once(": ").unwrap();
        assert_eq!(message, expected);
    }
}

#[test]
fn the_admin_endpoint_needs_a_token_beyond_this_machine() {
    let config = parse(NODE).unwrap();
    assert_eq!(config.admin.listen, Some(Listen::Tcp { host: "127.0.0.1".into(), port: 6433 }));
    let config = parse(&format!("[admin]\nlisten = \"\"\n{NODE}")).unwrap();
    assert_eq!(config.admin.listen, None);
    let message = refusal("[admin]\nlisten = \"0.0.0.0:6433\"");
    assert_eq!(
        message,
        "pgbaton.toml:1: admin.token: has to be given, as admin.listen (\"0.0.0.0\") is not a loopback address"
    );
    let given = format!("[admin]\nlisten = \"0.0.0.0:6433\"\ntoken = \"open-sesame\"\n{NODE}");
    let config = parse(&given).unwrap();
    assert_eq!(config.admin.token.reveal(), "open-sesame");
    assert!(!format!("{config:?}{:?}", config.entries()).contains("sesame"), "the token is told to nobody");
    let other = parse(&given.replace("open-sesame", "close-sesame")).unwrap();
    assert_eq!(config.changes(&other).needs_restart, ["admin.token"]);
    let message = refusal("[admin]\ntoken = \"open sesame\"");
    assert!(message.contains("admin.token: must be") && !message.contains("sesame"), "{message}");
    assert!(refusal("[admin]\nlisten = \"/run/pgbaton\"").contains("admin.listen: must be \"host:port\""));
}

#[test]
fn a_token_may_stand_in_a_file_of_its_own() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (token, file) = (directory.path().join("token"), directory.path().join("pgbaton.toml"));
    let load = |section: &str, mode: u32, held: &str| {
        std::fs::write(&token, held).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::write(&file, format!("{section}\n{NODE}")).unwrap();
        Config::load(&file).map_err(|error| error.to_string())
    };
    let given = "[admin]\nlisten = \"0.0.0.0:6433\"\ntoken_file = \"token\"\n[cluster]\nagent_token_file = \"token\"";
    let config = load(given, 0o640, "open-sesame\n").unwrap();
    assert_eq!((config.admin.token.reveal(), config.cluster.agent_token.reveal()), ("open-sesame", "open-sesame"));
    assert!(!format!("{config:?}{:?}", config.entries()).contains("sesame"), "it is told to nobody");
    let other = load(given, 0o640, "close-sesame\n").unwrap();
    let changes = config.changes(&other);
    assert_eq!(
        (changes.needs_restart, changes.applied),
        (vec!["admin.token".into()], vec!["cluster.agent_token".into()])
    );

    for (section, mode, held, expected) in [
        (given, 0o644, "open-sesame", "can be read by everybody; chmod 600 (or 640) it"),
        (given, 0o600, "\n", "has nothing on its first line"),
        (given, 0o600, "open sesame", "admin.token_file: must hold ASCII letters, digits and signs, without spaces"),
        ("[admin]\ntoken = \"x\"\ntoken_file = \"token\"", 0o600, "y", "admin.token_file: is given besides token"),
    ] {
        let message = load(section, mode, held).unwrap_err();
        assert!(message.contains(expected) && !message.contains("sesame"), "{message}");
    }
}

#[test]
fn keys_that_need_each_other_are_checked_together() {
    assert!(refusal("[proxy.tls]\nmode = \"require\"").contains("needs proxy.tls.cert and proxy.tls.key"));
    assert!(refusal("[proxy.tls]\ncert = \"c.pem\"").contains("proxy.tls.key: has to be given"));
    assert!(refusal("[proxy.tls]\nclient_ca = \"c.pem\"").contains("has no effect without"));
    assert!(refusal("[auth]\nmethod = \"file\"").contains("auth.users_file: has to be given"));
    assert!(refusal("[cluster.tls]\nca = \"u\"").contains("has no effect unless cluster.tls.mode"));
    assert!(
        refusal("[reads]\nsafe_functions = [\"a.f\"]\nunsafe_functions = [\"g\", \"A.F\"]")
            .contains("reads.unsafe_functions: \"a.f\" is among reads.safe_functions too")
    );
    assert!(refusal("[[auth.rules]]\nuser = \"app\"").contains("auth.rules[1].method: has to be given"));
}

#[test]
fn nodes_are_present_named_and_different() {
    assert_eq!(
        parse("").unwrap_err(),
        "pgbaton.toml: cluster.nodes: at least one node has to be given, as [[cluster.nodes]] with id, host and port"
    );
    assert_eq!(refusal("[[cluster.nodes]]\nhost = \"a\""), "pgbaton.toml:1: cluster.nodes[1].id: has to be given");
    assert!(
        refusal("[[cluster.nodes]]\nid = \"n1\"\nhost = \"a\"").contains("cluster.nodes[2].id: \"n1\" is the name")
    );
    assert!(
        refusal("[[cluster.nodes]]\nid = \"a\"\nhost = \"127.0.0.1\"\nport = 54321")
            .contains("address of another node")
    );
    assert!(refusal("[[cluster.nodes]]\nid = \"a b\"\nhost = \"h\"").contains("letters, digits"));
    assert!(parse("[cluster.nodes]\nid = \"n1\"\nhost = \"h\"").unwrap_err().contains("written [[cluster.nodes]]"));
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_lines() {
    let message = refusal("[proxy]\npool_size = 0\nworkerz = 1\nlisten = [\"x\"]");
    let lines: Vec<&str> = message.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(lines, ["proxy.pool_size", "proxy.workerz", "proxy.listen"]);
}

#[test]
fn a_text_that_is_not_toml_is_told_the_line() {
    let message = parse("[proxy]\npool_size = = 3").unwrap_err();
    assert!(message.starts_with("pgbaton.toml:2: "), "{message}");
}

#[test]
fn load_sees_that_the_named_files_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgbaton.toml");
    std::fs::write(&file, format!("{NODE}\n[proxy.tls]\ncert = \"missing.pem\"\nkey = \"pgbaton.toml\"")).unwrap();
    let message = Config::load(&file).unwrap_err().to_string();
    assert!(message.contains(":7: proxy.tls.cert: cannot read"), "{message}");
    assert!(message.contains("missing.pem: No such file"), "{message}");
    std::fs::write(&file, format!("{NODE}\n[coordination]\npath = \"none/state.json\"")).unwrap();
    let message = Config::load(&file).unwrap_err().to_string();
    assert!(message.contains(":7: coordination.path: cannot make") && message.contains("No such file"), "{message}");
    std::fs::create_dir(directory.path().join("none")).unwrap();
    Config::load(&file).unwrap();
    let message = Config::load(&directory.path().join("none.toml")).unwrap_err().to_string();
    assert!(message.starts_with("cannot read "), "{message}");
}

#[test]
fn a_reload_says_what_it_applies_and_what_waits() {
    let old = parse(NODE).unwrap();
    let new = format!(
        "[proxy]\npool_size = 5\nworkers = 3\n[reads]\nmax_lag = \"1s\"\nsafe_functions = [\"f\"]\n[[auth.rules]]\nmethod = \"trust\"\n{NODE}\
         [[cluster.nodes]]\nid = \"n2\"\nhost = \"h\""
    );
    let changes = old.changes(&parse(&new).unwrap());
    assert_eq!(
        changes.applied,
        ["proxy.pool_size", "auth.rules", "cluster.nodes", "reads.max_lag", "reads.safe_functions"]
    );
    assert_eq!(changes.needs_restart, ["proxy.workers"]);
    assert_eq!(old.changes(&old), Changes::default());
    let reloads = |key: &keys::Key| key.section != "reads" || key.reloads;
    assert!(KEYS.iter().all(reloads));
}

#[test]
fn the_table_and_the_parser_know_the_same_keys() {
    let text = format!("[[auth.rules]]\nmethod = \"trust\"\n{NODE}");
    let document = Document::parse(&text, Path::new("t"), &keys::PGBATON, false).unwrap();
    let config = build(&document).unwrap();
    let table: std::collections::BTreeSet<String> = KEYS.iter().map(keys::Key::path).collect();
    assert_eq!(document.asked(), table);
    assert_eq!(document.into_problems(), []);
    assert!(KEYS.iter().all(|key| SECTIONS.iter().any(|section| section.name == key.section)));
    // A default that is not empty has to show up under the key's own name, or changes() would never see it change.
    for (path, value) in config.entries() {
        let default = KEYS.iter().find(|key| key.path() == path).and_then(|key| key.default);
        assert!(default.is_none_or(str::is_empty) || !value.is_empty(), "{path} is not among the entries");
    }
}

#[test]
fn the_reference_page_is_the_printed_one() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let checked_in = std::fs::read_to_string(&page).unwrap_or_default();
    let run = "cargo run -- config print-reference > docs/configuration.md";
    assert!(checked_in == keys::reference(), "docs/configuration.md is stale; run: {run}");
}
