//! Stories: a cluster of three in good health, one thing that is different, and what the doctor says of it.

mod ground;

use ground::{healthy, one, rule, said, seen, set, site};

use super::examine;
use super::facts::*;
use crate::cluster::NodeState;
use crate::types::{Durability, NodeId, Timeline};

#[test]
fn of_a_cluster_in_good_health_nothing_is_said_but_that() {
    assert_eq!(said(|_| {}), Vec::<String>::new());
    let findings = examine(&healthy());
    let checks: std::collections::BTreeSet<&str> = findings.iter().map(|finding| &*finding.check).collect();
    let all: std::collections::BTreeSet<&str> = super::checks().map(|check| check.name).collect();
    assert_eq!(checks, all, "each check says so");
    assert_eq!(super::checks().count(), all.len(), "no two have one name");
}

#[test]
fn the_worst_comes_first_within_a_node_and_the_cluster_before_its_nodes() {
    let said = said(|case| {
        set(case, 2, "full_page_writes", "off");
        set(case, 2, "wal_level", "minimal");
        case.wishes.hold_ms = 0;
    });
    let heads: Vec<&str> = said.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(heads, ["warning - hold", "error n2 wal_level", "warning n2 full_page_writes"]);
}

#[test]
fn a_login_that_fails_says_what_is_missing() {
    let unseen = |reason: &str, sqlstate: &str, lacks_password| {
        let unseen = Unseen { reason: reason.into(), sqlstate: sqlstate.into(), lacks_password };
        move |case: &mut Case| case.nodes[2].survey = Err(unseen)
    };
    let no_line = "no pg_hba.conf entry for host \"10.0.0.9\", user \"pgbaton\", database \"postgres\", no encryption";
    one(
        "error n3 reachable: no line of pg_hba.conf",
        &["host \"postgres\" \"pgbaton\" 10.0.0.9/32 scram-sha-256"],
        unseen(no_line, "28000", false),
    );
    one(
        "error n3 reachable: it does not take",
        &["ALTER ROLE \"pgbaton\" PASSWORD"],
        unseen("password authentication failed", "28P01", false),
    );
    one("error n3 reachable: it asks for", &["PGBATON_CONTROL_PASSWORD"], unseen("password missing", "", true));
    one(
        "error n3 reachable: cluster.control_database",
        &["CREATE DATABASE \"postgres\""],
        unseen("no such database", "3D000", false),
    );
    one("error n3 reachable: it does not answer", &["pg_isready -h 10.0.0.3 -p 5432"], unseen("refused", "", false));
}

#[test]
fn a_node_that_is_being_mended_is_no_error() {
    let mend = |case: &mut Case, state| {
        case.picture.as_mut().unwrap().nodes.get_mut(&NodeId::from("n3")).unwrap().state = state;
    };
    one("warning n3 reachable: it is being made a standby again", &[], |case| {
        case.nodes[2].survey = Err(Unseen { reason: "refused".into(), sqlstate: String::new(), lacks_password: false });
        mend(case, NodeState::Rejoining);
    });
    one("warning - one_primary: n3 is a primary of the past", &["pgbaton rejoin n3"], |case| {
        seen(case, 3).basics.is_in_recovery = false;
        mend(case, NodeState::Fenced);
    });
}

#[test]
fn two_primaries_are_an_error_and_the_one_of_the_record_is_right() {
    one("error - one_primary: n3 is no standby, and n1 is the primary", &[], |case| {
        seen(case, 3).basics.is_in_recovery = false;
    });
    one("error - one_primary: n1 and n3 say that they are primaries", &[], |case| {
        seen(case, 3).basics.is_in_recovery = false;
        case.picture = None;
    });
}

#[test]
fn versions_and_identities_are_compared_with_the_primarys() {
    one("error n2 version: its PostgreSQL is 16.2, and that of n1 15.18", &[], |case| {
        seen(case, 2).basics.version = 160_002
    });
    one("warning n2 version: its PostgreSQL is 15.17", &["install 15.18 on n2", "pgbaton restart n2"], |case| {
        seen(case, 2).basics.version = 150_017;
    });
    one("error n2 timeline: it is on timeline 2", &["pgbaton rejoin n2"], |case| {
        seen(case, 2).identity.as_mut().unwrap().timeline = Timeline(2);
    });
    one("error n2 system_identifier: its system identifier is 8", &["of the cluster 7"], |case| {
        seen(case, 2).identity.as_mut().unwrap().system_identifier = "8".into();
    });
}

#[test]
fn a_right_that_is_missing_everywhere_is_said_once() {
    one("error n1 rights: the control user \"pgbaton\" cannot fly", &["on n1, as superuser: GRANT fly"], |case| {
        for number in 1..=3 {
            seen(case, number).lacks = vec![Lack { what: "fly".into(), grant: "GRANT fly".into() }];
        }
    });
}

#[test]
fn nodes_let_each_other_in_by_the_first_line_that_fits() {
    one(
        "error n2 logins_between: n3 could not log in here as replicator",
        &["line 1 of pg_hba.conf rejects", "host replication \"replicator\" 10.0.0.3/32"],
        |case| {
            seen(case, 2)
                .hba
                .as_mut()
                .unwrap()
                .insert(0, rule(1, "replication", "replicator", "10.0.0.3", "255.255.255.255", "reject"));
        },
    );
    // The control user may still come, for copies.
    let others = said(|case| {
        seen(case, 2).hba = Some(vec![rule(1, "all", "all", "10.0.0.0", "255.255.255.0", "md5")]);
    });
    assert!(
        others.iter().all(|line| line.starts_with("error n2 logins_between") && line.contains("to replicate")),
        "{others:#?}"
    );
    assert_eq!(others.len(), 3, "n3 as replicator, n1 and n3 as pgbaton: {others:#?}");
    // What nobody can understand from outside is no finding.
    for (address, netmask, user) in
        [("samenet", "", "all"), ("db.example", "", "all"), ("10.0.0.0", "255.0.0.0", "/^rep")]
    {
        let silent = said(|case| {
            seen(case, 2).hba = Some(vec![rule(1, "all,replication", user, address, netmask, "scram-sha-256")])
        });
        assert_eq!(silent, Vec::<String>::new(), "{address} {user}");
    }
    // A member of a role that is let in.
    assert_eq!(
        said(|case| {
            for number in 1..=3 {
                let roles = ["replicator", "pgbaton"].map(|role| (role.to_owned(), vec![role.into(), "nodes".into()]));
                seen(case, number).roles.replicators = roles.into();
                seen(case, number).hba = Some(vec![rule(1, "all,replication", "+nodes", "all", "", "scram-sha-256")]);
            }
        }),
        Vec::<String>::new()
    );
    one("warning n2 login_method: pg_hba.conf lets anybody in from 10.0.0.9", &["10.0.0.9/32 scram-sha-256"], |case| {
        seen(case, 2).hba.as_mut().unwrap().insert(0, rule(1, "all", "pgbaton", "10.0.0.0", "255.255.255.0", "trust"));
    });
    one(
        "warning n1 rights: the control user \"pgbaton\" cannot read pg_hba.conf",
        &["GRANT SELECT ON pg_hba_file_rules"],
        |case| {
            (1..=3).for_each(|number| seen(case, number).hba = None);
        },
    );
}

#[test]
fn a_setting_on_the_command_line_has_another_fix() {
    one("error n2 fsync:", &["take fsync off the server's command line"], |case| {
        set(case, 2, "fsync", "off");
        seen(case, 2).settings.get_mut("fsync").unwrap().source = "command line".into();
    });
    one("error n2 alter_system: primary_conninfo is given", &[], |case| {
        seen(case, 2).settings.get_mut("primary_conninfo").unwrap().source = "command line".into();
    });
    one("error n2 alter_system: allow_alter_system is off", &[], |case| set(case, 2, "allow_alter_system", "off"));
    one("warning n2 rewind:", &["wal_log_hints = 'on'; then pgbaton restart n2"], |case| {
        set(case, 2, "data_checksums", "off")
    });
}

#[test]
fn what_an_acknowledgement_is_worth_depends_on_the_durability_that_is_wished() {
    one("error n1 synchronous_commit: synchronous_commit is local", &[], |case| {
        set(case, 1, "synchronous_commit", "local")
    });
    assert_eq!(
        said(|case| {
            case.wishes.durability = Durability::Async;
            set(case, 1, "synchronous_commit", "local");
        }),
        Vec::<String>::new()
    );
    one(
        "warning n1 synchronous_commit: synchronous_commit is off for database app",
        &["ALTER DATABASE \"app\" RESET synchronous_commit"],
        |case| {
            for number in 1..=3 {
                seen(case, number).role_settings = vec![RoleSetting {
                    role: String::new(),
                    database: "app".into(),
                    name: "synchronous_commit".into(),
                    value: "off".into(),
                }];
            }
        },
    );
    one("warning n1 synchronous_standby_names: synchronous_standby_names is set by hand (n2)", &[], |case| {
        case.wishes.durability = Durability::Async;
        set(case, 1, "synchronous_standby_names", "n2");
    });
    assert_eq!(said(|case| set(case, 1, "synchronous_standby_names", "ANY 1 (\"n2\", \"n3\")")), Vec::<String>::new());
}

#[test]
fn quorum_wants_a_standby_to_spare() {
    one("warning - voters: of 1 that may be promoted 1 has", &[], |case| {
        case.nodes.truncate(2);
        case.picture = None;
        seen(case, 1).replication.senders.truncate(1);
    });
    one("error - voters: cluster.quorum_acks is 3", &["quorum_acks = 2"], |case| case.wishes.acks = 3);
    one("error - candidates: no node but n1 may be the primary", &[], |case| {
        case.wishes.durability = Durability::Async;
        (1..3).for_each(|at| case.nodes[at].priority = 0);
    });
    one("error - candidates: every node has priority = 0", &[], |case| {
        case.wishes.durability = Durability::Async;
        (0..3).for_each(|at| case.nodes[at].priority = 0);
    });
}

#[test]
fn a_standby_that_replays_late_may_if_it_is_never_promoted() {
    let delay = |case: &mut Case| set(case, 3, "recovery_min_apply_delay", "3600000");
    one("warning n3 recovery: recovery_min_apply_delay is 3600 s", &["priority = 0"], delay);
    let said = said(|case| {
        delay(case);
        case.nodes[2].priority = 0;
    });
    assert!(said.len() == 1 && said[0].starts_with("warning - voters"), "{said:#?}");
    one("error n3 recovery: recovery_target_timeline is \"current\"", &["pgbaton restart n3"], |case| {
        set(case, 3, "recovery_target_timeline", "current");
    });
}

#[test]
fn a_standby_that_pauses_for_lack_of_room_is_not_told_to_go_on() {
    one(
        "error n2 standby_limits: max_connections is 50, and 100 on its primary n1",
        &["max_connections = '100'; then pgbaton restart n2"],
        |case| {
            set(case, 2, "max_connections", "50");
            seen(case, 2).basics.is_paused = true;
        },
    );
    one("warning n1 standby_limits: max_worker_processes is 8, and 16 on n3", &[], |case| {
        set(case, 2, "max_worker_processes", "16");
        set(case, 3, "max_worker_processes", "16");
    });
}

#[test]
fn names_of_standbys_are_their_nodes() {
    one(
        "error n2 application_name: its primary_conninfo has no application_name",
        &["' application_name=n2'", "\\gexec \\\\ SELECT"],
        |case| {
            seen(case, 2).upstream.application_name = None;
        },
    );
    one("error n1 senders: 2 receivers call themselves n2", &["application_name = 'n2'"], |case| {
        let again = seen(case, 1).replication.senders[0].clone();
        seen(case, 1).replication.senders.push(again);
    });
    // A copy that is being made goes by the name of the node it will be.
    let copies = said(|case| {
        let copy = Sender { state: Some("backup".into()), ..seen(case, 1).replication.senders[0].clone() };
        seen(case, 1).replication.senders.push(copy);
    });
    assert_eq!(copies, Vec::<String>::new());
    // Whoever takes the log under another name is nobody's business, as long as there is room.
    let archives = said(|case| {
        let more = Sender { name: "pg_receivewal".into(), ..seen(case, 1).replication.senders[0].clone() };
        seen(case, 1).replication.senders.push(more);
    });
    assert_eq!(archives, Vec::<String>::new());
    let crowded = said(|case| (1..=3).for_each(|number| set(case, number, "max_wal_senders", "3")));
    assert_eq!(crowded.len(), 3, "{crowded:#?}");
    assert!(
        crowded[0].starts_with(
            "warning n1 room_for_followers: max_wal_senders is 3, and 2 follow it and a copy takes 2 more"
        )
    );
    assert!(crowded[0].ends_with("max_wal_senders = '10'; then pgbaton restart n1"), "{}", crowded[0]);
}

#[test]
fn a_password_is_safe_while_nobody_else_may_read_settings() {
    one("warning n2 conninfo_password: zabbix can read the password of replicator", &["password=''"], |case| {
        seen(case, 2).roles.readers = vec!["pgbaton".into(), "zabbix".into()];
    });
}

#[test]
fn slots_are_told_apart_by_whose_they_are() {
    let slot = |name: &str, active, status: &str| Slot {
        slot_name: name.into(),
        slot_type: "physical".into(),
        active,
        wal_status: Some(status.into()),
        kept: Some(64 << 20),
        ..Slot::default()
    };
    // A node's own, wherever it is; one that is in use.
    let own = said(|case| seen(case, 2).slots = vec![slot("n1", false, "reserved"), slot("backup", true, "reserved")]);
    assert_eq!(own, Vec::<String>::new());
    one(
        "warning n2 inactive_slots: nobody uses the physical slot old, which keeps 64 MiB",
        &["pg_drop_replication_slot('old')"],
        |case| {
            seen(case, 2).slots = vec![slot("old", false, "reserved")];
        },
    );
    one("warning n1 lost_slots: the slot n2 has lost", &[], |case| {
        seen(case, 1).slots = vec![slot("n2", true, "lost")]
    });
    one("warning n1 slot_limit:", &[], |case| set(case, 1, "max_slot_wal_keep_size", "-1"));
}

#[test]
fn logical_slots_are_carried_over_from_17_on_if_everything_is_set() {
    let slot = |failover| Slot {
        slot_name: "feed".into(),
        slot_type: "logical".into(),
        database: Some("app".into()),
        active: true,
        failover,
        ..Slot::default()
    };
    one(
        "warning n1 logical_slots: the logical slot feed (database app) will not be on the next primary",
        &[],
        |case| {
            seen(case, 1).slots = vec![slot(false)];
        },
    );
    let newer = |case: &mut Case, failover| {
        (1..=3).for_each(|number| seen(case, number).basics.version = 170_005);
        (1..=3).for_each(|number| site(case, number).data_version = Some(15));
        seen(case, 1).slots = vec![slot(failover)];
        for number in 2..=3 {
            for name in ["sync_replication_slots", "hot_standby_feedback"] {
                set(case, number, name, "on");
            }
            seen(case, number).upstream.has_database = true;
        }
    };
    one(
        "warning n1 logical_slots: the logical slot feed (database app) is not carried over",
        &["failover = true"],
        |case| newer(case, false),
    );
    assert_eq!(said(|case| newer(case, true)), Vec::<String>::new());
    one("warning n1 logical_slots: n3 does not fetch", &["on n3, as superuser"], |case| {
        newer(case, true);
        set(case, 3, "sync_replication_slots", "off");
    });
    one("warning n1 logical_slots: n2 cannot fetch", &["' dbname=postgres'"], |case| {
        newer(case, true);
        seen(case, 2).upstream.has_database = false;
    });
}

#[test]
fn what_lies_about_is_named() {
    one("warning n1 tablespaces:", &["fast (/ssd)"], |case| {
        seen(case, 1).things.tablespaces = vec!["fast (/ssd)".into()]
    });
    one("warning n1 prepared_transactions:", &["two-phase"], |case| {
        seen(case, 1).things.prepared = vec!["two-phase".into()]
    });
    one("error n2 archiving: archiving fails (7 times", &[], |case| {
        set(case, 2, "archive_mode", "always");
        set(case, 2, "archive_command", "cp");
        seen(case, 2).archiver = Archiver { failed_count: 7, last_failed_wal: None, is_failing: true };
    });
    one("warning n3 archiving: archive_mode is off, and on on n1", &[], |case| {
        for number in 1..=2 {
            set(case, number, "archive_mode", "on");
            set(case, number, "archive_command", "cp");
        }
    });
    let small = said(|case| case.wishes.pool_size = 95);
    assert!(small.len() == 3 && small[0].starts_with("warning n1 connections: max_connections is 100"), "{small:#?}");
    assert!(
        small[0].contains("proxy.pool_size = 91 ") && small[0].contains("max_connections = '104'; then"),
        "{}",
        small[0]
    );
    let many = said(|case| case.pools = 5);
    assert!(many.len() == 3 && many[0].contains("5 pools") && many[0].contains("pool_size = 18 "), "{many:#?}");
    one("warning n1 password_expiry: the password of replicator ends in 2 days", &["VALID UNTIL 'infinity'"], |case| {
        seen(case, 1).roles.expiring.insert("replicator".into(), 50);
    });
    one("warning n3 clock: its clock is 5.0 s behind ours", &[], |case| {
        (seen(case, 3).ahead_ms, seen(case, 3).uncertain_ms) = (-5000, 20);
    });
    assert_eq!(said(|case| (seen(case, 3).ahead_ms, seen(case, 3).uncertain_ms) = (-5000, 4000)), Vec::<String>::new());
    one("warning n2 keepalives: tcp_keepalives_idle is 7200 s", &[], |case| {
        set(case, 2, "tcp_keepalives_idle", "7200")
    });
    let local = said(|case| {
        set(case, 2, "tcp_keepalives_idle", "7200");
        case.nodes[1].host = "127.0.0.1".into();
    });
    assert_eq!(local, Vec::<String>::new());
}

#[test]
fn disks_are_nearly_full_by_bytes_and_by_parts() {
    let of = |free_mib: u64, total_mib: u64| {
        said(|case| site(case, 2).wal = Some(Room { free: free_mib << 20, total: total_mib << 20 }))
    };
    let begins =
        |said: Vec<String>| said.first().map(|line| line.split(':').next().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(begins(of(900, 5_000)), "error n2 disk_space");
    assert_eq!(begins(of(1_500, 5_000)), "warning n2 disk_space");
    assert_eq!(begins(of(20_000, 500_000)), "warning n2 disk_space");
    // A tenth of a large disk is plenty.
    assert_eq!(begins(of(60_000, 10_000_000)), "");
    assert_eq!(begins(of(3_000, 5_000)), "");
    // Large segments want more.
    one("error n2 disk_space:", &[], |case| {
        set(case, 2, "wal_segment_size", "1073741824");
        site(case, 2).data = Some(Room { free: 10 << 30, total: 11 << 30 });
    });
}

#[test]
fn agents_are_asked_whether_they_could_do_their_work() {
    one("error n3 agent: its agent does not answer", &[], |case| case.nodes[2].agent = Agent::Silent("refused".into()));
    one("error n3 agent: its agent does not take our token", &["cluster.agent_token"], |case| {
        case.nodes[2].agent = Agent::Refused("token".into());
    });
    one("warning n3 agent: its agent has no token", &[], |case| site(case, 3).has_token = false);
    one("warning n3 programs: /bin lacks pg_rewind", &["apt-get install postgresql-15"], |case| {
        site(case, 3).missing = vec!["pg_rewind".into()];
    });
    one("error n3 programs: its programs in /bin are of version 15, and its data of 16", &[], |case| {
        site(case, 3).data_version = Some(16);
    });
    one("error n3 data_directory: /data has the permissions 755", &["chmod 700 /data"], |case| {
        site(case, 3).mode = Some(0o755)
    });
    one("error n3 data_directory: /data does not belong", &[], |case| site(case, 3).is_owned = false);
    one("warning - agents: not n2 has an agent", &[], |case| case.nodes[1].agent = Agent::None);
    one("warning - agents: no node has an agent", &[], |case| {
        case.nodes.iter_mut().for_each(|node| node.agent = Agent::None)
    });
}

#[test]
fn pgbatons_own_side_is_looked_at_too() {
    one("error - store: the state file /s.json cannot be written", &[], |case| {
        case.store.trouble = Some("read-only".into())
    });
    one("warning - store: the state file /s.json is on a file system in memory", &[], |case| {
        case.store.is_volatile = true
    });
    one("error - epoch: the store is at epoch 1, and n2 has one of 4", &["pgbaton resume"], |case| {
        seen(case, 2).schema.epoch = Some(4)
    });
    one("warning - epoch: the state file /s.json has no record", &[], |case| {
        (case.picture, case.store.epoch) = (None, None)
    });
    one("warning - hold: failover.hold is 2 s, and a failover may take 4.75 s", &["hold = \"10s\""], |case| {
        case.wishes.hold_ms = 2000
    });
    one("error - admin: admin.listen is off", &[], |case| case.wishes.admin = String::new());
    one("error - admin: admin.listen is 0.0.0.0:6433, and there is no token", &[], |case| {
        (case.wishes.admin, case.wishes.admin_is_loopback) = ("0.0.0.0:6433".into(), false);
    });
    one("warning - state: paused", &["pgbaton resume"], |case| case.picture.as_mut().unwrap().paused = true);
    one("warning - state: n2 lags too far", &[], |case| {
        case.picture.as_mut().unwrap().reason = "n2 lags too far".into()
    });
    one("error n1 schema: there is no schema pgbaton", &["pgbaton migrate"], |case| {
        seen(case, 1).schema.version = None
    });
    let first = said(|case| {
        (seen(case, 1).schema, case.picture) = (Schema { is_ours: true, ..Schema::default() }, None);
    });
    assert_eq!(first, Vec::<String>::new(), "before the first start it is made by that");
}
