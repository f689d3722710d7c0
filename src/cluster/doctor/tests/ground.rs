//! What the stories stand on: a cluster of three in good health, of which a story changes one thing.

use std::collections::BTreeMap;

use crate::cluster::doctor::facts::*;
use crate::cluster::doctor::{Finding, Level, examine};
use crate::cluster::{NodeAccount, NodeState, Phase, Picture, SyncNames};
use crate::types::{Durability, Epoch, NodeId, Timeline};

pub fn settings() -> BTreeMap<String, Setting> {
    // Name, value, unit, whether only a restart changes it.
    let values = [
        ("fsync", "on", None, false),
        ("full_page_writes", "on", None, false),
        ("hot_standby", "on", None, true),
        ("data_checksums", "on", None, true),
        ("wal_log_hints", "off", None, true),
        ("wal_level", "replica", None, true),
        ("wal_segment_size", "16777216", Some("B"), true),
        ("synchronous_commit", "on", None, false),
        ("synchronous_standby_names", "", None, false),
        ("default_transaction_read_only", "off", None, false),
        ("primary_conninfo", "", None, false),
        ("primary_slot_name", "n2", None, false),
        ("max_connections", "100", None, true),
        ("max_worker_processes", "8", None, true),
        ("max_wal_senders", "10", None, true),
        ("max_prepared_transactions", "0", None, true),
        ("max_locks_per_transaction", "64", None, true),
        ("max_replication_slots", "10", None, true),
        ("max_slot_wal_keep_size", "10240", Some("MB"), false),
        ("max_standby_streaming_delay", "30000", Some("ms"), false),
        ("recovery_min_apply_delay", "0", Some("ms"), false),
        ("recovery_target_timeline", "latest", None, true),
        ("superuser_reserved_connections", "3", None, true),
        ("tcp_keepalives_idle", "60", Some("s"), false),
        ("tcp_keepalives_interval", "10", Some("s"), false),
        ("tcp_keepalives_count", "6", None, false),
        ("wal_receiver_timeout", "5000", Some("ms"), false),
        ("wal_sender_timeout", "5000", Some("ms"), false),
        ("wal_retrieve_retry_interval", "200", Some("ms"), false),
        ("wal_receiver_status_interval", "1", Some("s"), false),
        ("archive_mode", "off", None, true),
        ("archive_command", "(disabled)", None, false),
        ("idle_session_timeout", "0", Some("ms"), false),
    ];
    let setting = |(name, value, unit, restarts): (&str, &str, Option<&str>, bool)| {
        let setting = Setting {
            value: value.into(),
            unit: unit.map(str::to_owned),
            source: "configuration file".into(),
            context: if restarts { "postmaster" } else { "sighup" }.into(),
            pending: false,
        };
        (name.to_owned(), setting)
    };
    values.into_iter().map(setting).collect()
}

pub fn rule(line_number: i32, database: &str, user: &str, address: &str, netmask: &str, method: &str) -> HbaRule {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    HbaRule {
        line_number,
        kind: Some("host".into()),
        database: Some(database.split(',').map(str::to_owned).collect()),
        user_name: Some(vec![user.into()]),
        address: given(address),
        netmask: given(netmask),
        auth_method: Some(method.into()),
        error: None,
    }
}

pub fn survey(number: u8) -> Survey {
    let is_primary = number == 1;
    let sender = |number: u8| Sender {
        name: format!("n{number}"),
        address: Some(format!("10.0.0.{number}")),
        state: Some("streaming".into()),
    };
    Survey {
        basics: Basics {
            is_in_recovery: !is_primary,
            version: 150_018,
            address: Some(format!("10.0.0.{number}")),
            client: Some("10.0.0.9".into()),
            ..Basics::default()
        },
        identity: Some(Identity { system_identifier: "7".into(), timeline: Timeline(1) }),
        settings: settings(),
        upstream: match is_primary {
            true => Upstream { is_empty: true, ..Upstream::default() },
            false => Upstream {
                host: Some("10.0.0.1".into()),
                port: Some(5432),
                user: Some("replicator".into()),
                application_name: Some(format!("n{number}")),
                has_password: true,
                ..Upstream::default()
            },
        },
        replication: match is_primary {
            true => Replication { senders: vec![sender(2), sender(3)], receiver: None },
            false => Replication {
                senders: Vec::new(),
                receiver: Some(Receiver {
                    status: Some("streaming".into()),
                    host: Some("10.0.0.1".into()),
                    port: Some(5432),
                }),
            },
        },
        hba: Some(vec![
            rule(1, "all", "all", "10.0.0.0", "255.255.255.0", "scram-sha-256"),
            rule(2, "replication", "all", "10.0.0.0", "255.255.255.0", "scram-sha-256"),
        ]),
        file_errors: Some(Vec::new()),
        things: Things { reads_files: true, ..Things::default() },
        schema: Schema { version: Some(1), epoch: Some(1), is_ours: true },
        ..Survey::default()
    }
}

pub fn healthy() -> Case {
    let plenty = Some(Room { free: 100 << 30, total: 200 << 30 });
    let site = Site {
        data_dir: "/data".into(),
        data: plenty,
        wal: plenty,
        kept: plenty,
        mode: Some(0o700),
        is_owned: true,
        bin_dir: "/bin".into(),
        version: 15,
        data_version: Some(15),
        missing: Vec::new(),
        has_token: true,
    };
    let node = |number: u8| Patient {
        id: NodeId::from(&*format!("n{number}")),
        host: format!("10.0.0.{number}"),
        port: 5432,
        priority: 100,
        agent: Agent::Answers(Box::new(site.clone())),
        survey: Ok(Box::new(survey(number))),
    };
    let account = |number: u8| {
        let account = NodeAccount { state: NodeState::Running, promotable: Ok(()), reason: String::new(), agent: None };
        (NodeId::from(&*format!("n{number}")), account)
    };
    Case {
        wishes: Wishes {
            control_user: "pgbaton".into(),
            control_database: "postgres".into(),
            durability: Durability::Quorum,
            acks: 1,
            only_watches: false,
            pool_size: 20,
            hold_ms: 30_000,
            detection_ms: 1_750,
            admin: "127.0.0.1:6433".into(),
            admin_is_loopback: true,
            has_admin_token: false,
            schema_version: 1,
        },
        store: Store { path: "/s.json".into(), room: plenty, epoch: Some(Epoch(1)), ..Store::default() },
        picture: Some(Picture {
            epoch: Some(Epoch(1)),
            phase: Some(Phase::Stable),
            primary: Some("n1".into()),
            durability: Durability::Quorum,
            sync: SyncNames::default(),
            paused: false,
            reason: String::new(),
            closed_since: None,
            is_refused: false,
            unready: None,
            nodes: (1..=3).map(account).collect(),
        }),
        pools: 1,
        nodes: (1..=3).map(node).collect(),
    }
}

/// What is said when this is different, a line for each: `error n2 check: message > fix`.
pub fn said(change: impl FnOnce(&mut Case)) -> Vec<String> {
    let mut case = healthy();
    change(&mut case);
    let findings = examine(&case).into_iter().filter(|finding| finding.level != Level::Ok);
    let line = |finding: Finding| {
        let node = finding.node.unwrap_or("-".into());
        format!("{} {node} {}: {} > {}", finding.level.as_str(), finding.check, finding.message, finding.fix)
    };
    findings.map(line).collect()
}

/// One thing is said, which begins like this and has these words in it.
#[track_caller]
pub fn one(beginning: &str, words: &[&str], change: impl FnOnce(&mut Case)) {
    let said = said(change);
    assert!(said.len() == 1 && said[0].starts_with(beginning), "{said:#?}");
    for word in words {
        assert!(said[0].contains(word), "{word}: {said:#?}");
    }
}

pub fn seen(case: &mut Case, number: usize) -> &mut Survey {
    case.nodes[number - 1].survey.as_mut().unwrap()
}

pub fn set(case: &mut Case, number: usize, name: &str, value: &str) {
    seen(case, number).settings.entry(name.into()).or_default().value = value.into();
}

pub fn site(case: &mut Case, number: usize) -> &mut Site {
    let Agent::Answers(site) = &mut case.nodes[number - 1].agent else { panic!("there is an agent") };
    site
}
