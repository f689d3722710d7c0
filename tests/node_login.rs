//! Entering PostgreSQL as pgbaton does: by recovered keys, md5, passwords, through TLS in every mode; cancelling; and the
//! questions of the control user, whose answers tell who the primary is.

#[path = "support/ground.rs"]
mod ground;
mod support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ground::{Ground, LIMIT, address_of, control_config, control_of, fixed, ground, runtime};
use pgbaton::auth::{Credential, Md5Hash, Secret, StoredPassword, verifier};
use pgbaton::cluster::doctor::facts::Lack;
use pgbaton::cluster::{Sight, Symptom};
use pgbaton::demo::{CONTROL_USER, Cluster, DATABASE, Shutdown};
use pgbaton::driver;
use pgbaton::net::{NodeTls, NodeTlsMode};
use pgbaton::node::{Control, NodeError};
use pgbaton::pool::connect::{ConnectError, ConnectRequest, Connected, connect, send_cancel};
use pgbaton::types::{NodeAddress, NodeId, Timeline, Topology};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

fn enter(address: &NodeAddress, tls: &NodeTls, user: &str, credential: Credential) -> Result<Connected, ConnectError> {
    runtime().block_on(connect(&ConnectRequest {
        address,
        tls,
        user,
        database: DATABASE,
        startup: &[("application_name".into(), "entering".into())],
        credential: &credential,
        timeout: LIMIT,
    }))
}

fn plainly(user: &str, credential: Credential) -> Result<Connected, ConnectError> {
    enter(&address_of(&ground().cluster), &NodeTls::disabled(), user, credential)
}

fn password(text: &str) -> Credential {
    Credential::Password(Secret::new(text))
}

/// What a client's own SCRAM exchange would have left us.
fn keys(role: &str, text: &str) -> Credential {
    let sql = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'");
    let stored = ground().cluster.primary().unwrap().sql(&sql).unwrap();
    let StoredPassword::Scram(stored) = StoredPassword::parse(&stored) else { panic!("{role} has no SCRAM verifier") };
    let (client_key, server_key) = verifier::derive_keys(&Secret::new(text), &stored.salt, stored.iterations);
    Credential::ScramKeys { client_key, server_key }
}

#[track_caller]
fn refused_with(outcome: Result<Connected, ConnectError>, code: &str) {
    match outcome {
        Err(ConnectError::Server { sqlstate, .. }) => assert_eq!(sqlstate, code),
        other => panic!("not refused by the server: {other:?}"),
    }
}

// --- into PostgreSQL --------------------------------------------------------------------------------------------------

#[test]
fn a_node_lets_us_in_by_password_or_by_recovered_keys() {
    for credential in [password("wonderland"), keys("alice", "wonderland")] {
        let connected = plainly("alice", credential).unwrap();
        assert!(connected.pid > 0 && connected.cancel_key.len() == 4 && connected.unread.is_empty());
        let parameters: HashMap<_, _> = connected.parameters.into_iter().collect();
        assert_eq!(parameters["application_name"], "entering");
        assert_eq!(parameters["session_authorization"], "alice");
    }
    plainly("prepared", password("I\u{ad}X")).unwrap();
    plainly("prepared", password("IX")).unwrap();
    refused_with(plainly("alice", password("wrong")), "28P01");
    refused_with(plainly("alice", keys("alice", "wrong")), "28P01");
    refused_with(plainly("nobody", password("wonderland")), "28P01");
    refused_with(plainly("nologin", password("never")), "28000");
}

#[test]
fn md5_takes_the_verifier_or_the_password_and_trust_takes_nothing() {
    plainly("md5er", password("old")).unwrap();
    plainly("md5er", Credential::Md5(Md5Hash::of("old", "md5er"))).unwrap();
    refused_with(plainly("md5er", Credential::Md5(Md5Hash::of("new", "md5er"))), "28P01");
    plainly("trusting", Credential::None).unwrap();
}

#[test]
fn a_missing_credential_is_explained() {
    for (role, credential) in [("alice", Credential::None), ("alice", Credential::Md5(Md5Hash::of("x", "alice")))] {
        match plainly(role, credential) {
            Err(error @ ConnectError::NoCredential { .. }) => {
                let text = error.to_string();
                assert!(
                    text.contains("SCRAM password of role \"alice\"") && text.contains("auth.users_file"),
                    "{text}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_password_is_not_sent_in_clear_text_without_tls() {
    let text = plainly("clear", password("plain")).unwrap_err().to_string();
    assert!(text.contains("clear text on a connection without TLS"), "{text}");
    let tls = NodeTls::new(NodeTlsMode::Require, None).unwrap();
    enter(&address_of(&ground().cluster), &tls, "clear", password("plain")).unwrap();
}

#[test]
fn each_tls_mode_promises_what_libpq_promises() {
    let Ground { cluster, certificates } = ground();
    let address = address_of(cluster);
    // The certificate is for this name only, not for 127.0.0.1.
    let by_name = NodeAddress { host: "localhost".into(), ..address.clone() };
    let ca = certificates.path("ca.pem");
    let stranger = certificates.path("stranger.pem");
    let attempt = |mode, ca: Option<&Path>, address: &NodeAddress| {
        let tls = NodeTls::new(mode, ca).unwrap();
        enter(address, &tls, "tlsonly", password("inside"))
    };
    refused_with(attempt(NodeTlsMode::Disable, None, &address), "28000");
    for connected in [
        attempt(NodeTlsMode::Prefer, None, &address),
        attempt(NodeTlsMode::Require, None, &address),
        attempt(NodeTlsMode::Require, Some(&ca), &address),
        attempt(NodeTlsMode::VerifyCa, Some(&ca), &address),
        attempt(NodeTlsMode::VerifyFull, Some(&ca), &by_name),
    ] {
        assert!(connected.unwrap().stream.is_tls());
    }
    for wrong in [
        attempt(NodeTlsMode::Require, Some(&stranger), &address),
        attempt(NodeTlsMode::VerifyCa, Some(&stranger), &address),
        attempt(NodeTlsMode::VerifyFull, Some(&stranger), &by_name),
        attempt(NodeTlsMode::VerifyFull, Some(&ca), &address),
        attempt(NodeTlsMode::VerifyFull, None, &by_name),
    ] {
        assert!(matches!(wrong, Err(ConnectError::Tls { .. })), "{wrong:?}");
    }
}

#[test]
fn a_unix_socket_is_a_directory_as_in_libpq() {
    let node = ground().cluster.primary().unwrap();
    let host = node.socket_directory().to_str().unwrap().to_owned();
    let address = NodeAddress { host, ..address_of(&ground().cluster) };
    // TLS settings do not matter there, as with libpq.
    let tls = NodeTls::new(NodeTlsMode::Require, None).unwrap();
    let connected = enter(&address, &tls, "alice", password("wonderland")).unwrap();
    assert!(connected.stream.is_unix() && !connected.stream.is_tls());
}

#[test]
fn what_the_node_complains_of_is_passed_on_and_what_does_not_answer_is_named() {
    let address = address_of(&ground().cluster);
    let missing = runtime().block_on(connect(&ConnectRequest {
        address: &address,
        tls: &NodeTls::disabled(),
        user: "alice",
        database: "no such database",
        startup: &[],
        credential: &password("wonderland"),
        timeout: LIMIT,
    }));
    refused_with(missing, "3D000");

    runtime().block_on(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let address = NodeAddress { id: NodeId::from("n9"), host: "127.0.0.1".into(), port };
        let mut request = ConnectRequest {
            address: &address,
            tls: &NodeTls::disabled(),
            user: "alice",
            database: "app",
            startup: &[],
            credential: &Credential::None,
            timeout: Duration::from_millis(100),
        };
        let error = connect(&request).await.unwrap_err();
        assert_eq!(error.to_string(), "node n9 did not let us in within 100 ms");
        drop(silent);
        request.timeout = LIMIT;
        let error = connect(&request).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("node n9 (127.0.0.1:{port}): ")), "{error}");
    });
}

#[test]
fn a_node_that_sends_nonsense_is_an_error() {
    let nonsense: [&[u8]; 8] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"R\0\0\0\x03",
        b"R\0\0\0\x04",
        b"R\0\0\0\x08\0\0\0\x05",
        b"R\0\0\0\x08\0\0\0\x0b",
        b"R\xff\xff\xff\xff",
        b"Z\0\0\0\x05I",
        b"R\0\0\0\x08\0\0\0\0K\0\0\0\x06\0\0",
    ];
    for bytes in nonsense {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                socket.write_all(bytes).await.unwrap();
                let _ = socket.read_to_end(&mut Vec::new()).await;
            });
            let address = NodeAddress { id: NodeId::from("n9"), host: "127.0.0.1".into(), port };
            let request = ConnectRequest {
                address: &address,
                tls: &NodeTls::disabled(),
                user: "alice",
                database: "app",
                startup: &[],
                credential: &password("x"),
                timeout: LIMIT,
            };
            let error = connect(&request).await.unwrap_err();
            assert!(matches!(error, ConnectError::Protocol { .. }), "{bytes:?}: {error:?}");
        });
    }
}

#[test]
fn bytes_behind_the_answer_to_ssl_request_are_refused() {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"SR\0\0\0\x08\0\0\0\0").await.unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        });
        let address = NodeAddress { id: NodeId::from("n9"), host: "127.0.0.1".into(), port };
        let tls = NodeTls::new(NodeTlsMode::Require, None).unwrap();
        let error = pgbaton::net::dial_tls(&address, &tls, LIMIT).await.unwrap_err().to_string();
        assert!(error.contains("sent unencrypted data after its answer to SSLRequest"), "{error}");
    });
}

#[test]
fn a_cancel_has_been_sent_when_send_cancel_returns() {
    let address = address_of(&ground().cluster);
    for tls in [NodeTls::disabled(), NodeTls::new(NodeTlsMode::Require, None).unwrap()] {
        runtime().block_on(async {
            let mut connected = connect(&ConnectRequest {
                address: &address,
                tls: &tls,
                user: "alice",
                database: DATABASE,
                startup: &[],
                credential: &password("wonderland"),
                timeout: LIMIT,
            })
            .await
            .unwrap();
            connected.stream.write_all(b"Q\0\0\0\x19SELECT pg_sleep(600)\0").await.unwrap();
            let begun = Instant::now();
            let mut answer = Vec::new();
            while !answer.ends_with(b"I") {
                send_cancel(&address, &tls, connected.pid, &connected.cancel_key, LIMIT).await.unwrap();
                let read = connected.stream.read_buf(&mut answer);
                let _ = tokio::time::timeout(Duration::from_millis(500), read).await;
                assert!(begun.elapsed() < LIMIT);
            }
            assert!(answer.windows(6).any(|part| part == b"C57014"), "{answer:?}");
        });
    }
}

// --- control connections and the monitor ------------------------------------------------------------------------------

#[test]
fn a_role_is_always_as_the_primary_has_it_now() {
    let cluster = &ground().cluster;
    runtime().block_on(async {
        let control = control_of(cluster);
        assert_eq!(lacks(&control, cluster).await, Vec::<Lack>::new());
        let sql = |text: &str| cluster.primary().unwrap().sql(text).unwrap();
        sql("CREATE ROLE turning LOGIN PASSWORD 'a'");
        let first = control.role("turning").await.unwrap().unwrap();
        assert!(first.verifier.as_ref().unwrap().starts_with("SCRAM-SHA-256$") && first.can_login);
        sql("ALTER ROLE turning PASSWORD 'b'");
        assert_ne!(control.role("turning").await.unwrap().unwrap(), first);
        sql("DROP ROLE turning");
        assert_eq!(control.role("turning").await.unwrap(), None);
        assert!(control.role("expired").await.unwrap().unwrap().valid_until_passed);
        assert!(!control.role("nologin").await.unwrap().unwrap().can_login);
        assert_eq!(control.role("no \"such' role").await.unwrap(), None);

        let all = (0..200).map(|at| {
            let (control, name) = (control.clone(), if at % 2 == 0 { "alice" } else { "nobody" });
            tokio::spawn(async move { control.role(name).await.unwrap().is_some() == (name == "alice") })
        });
        for one in all.collect::<Vec<_>>() {
            assert!(one.await.unwrap());
        }
    });
}

#[test]
fn a_control_connection_that_was_killed_is_opened_again() {
    let cluster = &ground().cluster;
    runtime().block_on(async {
        let control = control_of(cluster);
        let node = NodeId::from(&*cluster.primary().unwrap().id);
        let status = control.status(&node).await.unwrap();
        assert!(!status.is_in_recovery && status.timeline == Timeline(1) && status.system_identifier != 0);
        let kill =
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pgbaton control'";
        assert_ne!(cluster.primary().unwrap().sql(kill).unwrap(), "0");
        assert!(control.status(&node).await.unwrap().lsn >= status.lsn);
        let client = control.client_for(DATABASE).await.unwrap();
        let row = client.query_one("SELECT current_database()::text", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), DATABASE);
        assert!(matches!(control.status(&NodeId::from("n99")).await, Err(NodeError::Unknown(_))));
    });
}

/// What the control user lacks on the primary.
async fn lacks(control: &Control, cluster: &Cluster) -> Vec<Lack> {
    let node = NodeId::from(&*cluster.primary().unwrap().id);
    control.survey(&node).await.unwrap().lacks
}

#[test]
fn rights_that_are_missing_are_said_with_the_grant() {
    let cluster = &ground().cluster;
    runtime().block_on(async {
        let control = Control::new(control_config(cluster, "alice", "wonderland"), fixed(cluster));
        let missing = format!("{:#?}", lacks(&control, cluster).await).replace("\\\"", "\"");
        assert!(missing.contains("GRANT SELECT ON pg_authid TO \"alice\""), "{missing}");
        for words in
            ["ALTER ROLE", "pg_signal_backend", "pg_checkpoint", "pg_promote", "pg_reload_conf", "replay_resume"]
        {
            assert!(missing.contains(words), "{words}: {missing}");
        }
        let error = control.role("alice").await.unwrap_err().to_string();
        assert!(error.contains("permission denied for table pg_authid (42501)"), "{error}");
    });
}

#[test]
fn what_is_said_to_be_granted_is_what_was_missing() {
    let cluster = support::cluster(0);
    let node = cluster.primary().unwrap();
    node.sql("CREATE ROLE \"Short\" LOGIN PASSWORD 'short'").unwrap();
    runtime().block_on(async {
        let control = Control::new(control_config(&cluster, "Short", "short"), fixed(&cluster));
        let missing = lacks(&control, &cluster).await;
        for parameter in [
            "primary_conninfo",
            "primary_slot_name",
            "synchronous_standby_names",
            "default_transaction_read_only",
            "recovery_min_apply_delay",
        ] {
            let grant = format!("ALTER SYSTEM ON PARAMETER {parameter} ");
            let said = missing.iter().filter(|said| said.grant.contains(&grant));
            assert_eq!(said.count(), 1, "{parameter}: {missing:#?}");
        }
        for (done, said) in missing.iter().enumerate() {
            println!("{said:?}");
            assert!(said.what.contains(", so "), "{said:?}");
            node.sql_in("postgres", &said.grant).unwrap();
            assert_eq!(lacks(&control, &cluster).await, missing[done + 1..]);
        }
        assert!(missing.len() >= 12, "{missing:#?}");
    });
}

#[test]
fn logins_survive_a_dead_primary_and_follow_a_promotion() {
    let cluster = support::cluster(1);
    cluster.wait_for_replicas().unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        let mut config = control_config(&cluster, CONTROL_USER, cluster.control_password());
        config.probe_timeout = Duration::from_secs(1);
        let addresses: Vec<_> = config.nodes.iter().map(|node| node.address.clone()).collect();
        let (publish, topology) = watch::channel(Arc::new(driver::unseen(&addresses)));
        let control = Control::new(config, topology);
        let led_by = |primary| {
            publish.send_modify(|known| {
                let mut topology = Topology::clone(known);
                topology.primary = primary;
                *known = Arc::new(topology);
            });
        };

        led_by(Some(0));
        let record = control.role("demo").await.unwrap().expect("it is there");

        cluster.nodes()[0].stop(Shutdown::Immediate);
        assert_eq!(control.role("demo").await.unwrap().as_deref(), Some(&*record), "what was known before counts");
        led_by(None);
        assert_eq!(control.role("demo").await.unwrap().as_deref(), Some(&*record), "without a primary too");

        let dead = control.observe(&addresses[0].id).await;
        assert!(matches!(dead, Sight::Fails(Symptom::Refused, _)), "{dead:?}");
        cluster.nodes()[1].sql("SELECT pg_promote()").unwrap();
        match control.observe(&addresses[1].id).await {
            Sight::Answers(seen) => assert_eq!((seen.is_in_recovery, seen.timeline), (false, Timeline(2))),
            other => panic!("{other:?}"),
        }
        led_by(Some(1));
        assert!(control.role("demo").await.unwrap().is_some());
    });
}
