//! Entering, against the real thing: pgbaton into PostgreSQL, and libpq into pgbaton.
//!
//! The proxy here is a toy: it admits a client, opens one server connection with what the login left it, and copies bytes.
//! So what is seen is the login and nothing else. Nodes are PostgreSQL with every authentication method in its `pg_hba.conf`.

mod support;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pgbaton::auth::{Credential, Md5Hash, MockSecret, Rules, Secret, StoredPassword, Users, verifier};
use pgbaton::demo::{CONTROL_USER, Cluster, DATABASE, Shutdown};
use pgbaton::monitor::{self, MonitorConfig, Sighting};
use pgbaton::net::{ClientTlsMode, NodeTls, NodeTlsMode, Peer, ServerTls, Stream};
use pgbaton::node::{Control, ControlConfig, NodeError};
use pgbaton::pool::connect::{ConnectError, ConnectRequest, Connected, connect, send_cancel};
use pgbaton::session::login::{Admitted, LoginContext, Source, admit};
use pgbaton::types::{NodeAddress, NodeId, Role, Timeline, Topology};
use support::Psql;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};

const LIMIT: Duration = Duration::from_secs(20);
const HBA: &str = "
local   all all                     scram-sha-256
host    all trusting   127.0.0.1/32 trust
host    all md5er      127.0.0.1/32 md5
host    all clear      127.0.0.1/32 password
hostssl all tlsonly    127.0.0.1/32 scram-sha-256
host    all tlsonly    127.0.0.1/32 reject
host    all all        127.0.0.1/32 scram-sha-256
host    replication all 127.0.0.1/32 scram-sha-256
";
const ROLES: &str = "
SET password_encryption = 'scram-sha-256';
CREATE ROLE alice LOGIN PASSWORD 'wonderland';
CREATE ROLE clear LOGIN PASSWORD 'plain';
CREATE ROLE tlsonly LOGIN PASSWORD 'inside';
CREATE ROLE trusting LOGIN;
CREATE ROLE changing LOGIN PASSWORD 'first';
CREATE ROLE expired LOGIN PASSWORD 'late' VALID UNTIL '2001-01-01';
CREATE ROLE nologin PASSWORD 'never';
CREATE ROLE prepared LOGIN PASSWORD E'I\\u00ADX';
SET password_encryption = 'md5';
CREATE ROLE md5er LOGIN PASSWORD 'old';
";

// --- what the tests stand on ------------------------------------------------------------------------------------------

/// PEM files of an authority, a server's certificate (localhost), clients' certificates, and a stranger's
/// authority that signed nothing here.
struct Certificates {
    dir: tempfile::TempDir,
    server_cert: String,
    server_key: String,
}

impl Certificates {
    fn make() -> Certificates {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            support::set_mode(&dir.path().join(name), 0o600);
        };
        let authority = |name: &str| {
            let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
        };
        let ca = authority("test authority");
        put("ca.pem", &ca.as_ref().pem());
        put("stranger.pem", &authority("stranger").as_ref().pem());
        let signed = |common_name: &str, names: Vec<String>| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
            (params.signed_by(&key, &ca).unwrap().pem(), key.serialize_pem())
        };
        let (server_cert, server_key) = signed("server", vec!["localhost".into()]);
        put("server.pem", &server_cert);
        put("server.key", &server_key);
        for name in ["alice", "trusting"] {
            let (cert, key) = signed(name, vec![]);
            put(&format!("{name}.pem"), &cert);
            put(&format!("{name}.key"), &key);
        }
        Certificates { dir, server_cert, server_key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

struct Ground {
    cluster: Cluster,
    certificates: Certificates,
}

/// One node with all methods and TLS, for every test that does not break it.
fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let cluster = support::cluster(0);
        let certificates = Certificates::make();
        let node = cluster.primary().unwrap();
        node.sql(ROLES).unwrap();
        node.write_file("server.crt", certificates.server_cert.as_bytes()).unwrap();
        node.write_file("server.key", certificates.server_key.as_bytes()).unwrap();
        node.write_file("pg_hba.conf", HBA.as_bytes()).unwrap();
        node.set("ssl", "on").unwrap();
        let tls = NodeTls::new(NodeTlsMode::Require, None).unwrap();
        let address = address_of(&cluster);
        support::wait_until(LIMIT, "TLS on the node", || {
            runtime().block_on(pgbaton::net::dial_tls(&address, &tls, LIMIT)).is_ok()
        });
        Ground { cluster, certificates }
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn address_of(cluster: &Cluster) -> NodeAddress {
    let node = cluster.primary().unwrap();
    NodeAddress { id: NodeId::from(&*node.id), host: node.host().into(), port: node.port() }
}

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
        // The listener speaks at once, so by the time the connection is made its bytes are there.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let error = pgbaton::net::dial_tls(&address, &tls, LIMIT).await.unwrap_err().to_string();
        assert!(error.contains("TLS"), "{error}");
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

fn fixed(cluster: &Cluster) -> watch::Receiver<Arc<Topology>> {
    let mut topology = monitor::unseen(&[Arc::new(address_of(cluster))]);
    topology.primary = Some(0);
    watch::channel(Arc::new(topology)).1
}

fn control_config(cluster: &Cluster, user: &str, text: &str) -> ControlConfig {
    let address = |node: &pgbaton::demo::Node| {
        Arc::new(NodeAddress { id: NodeId::from(&*node.id), host: node.host().into(), port: node.port() })
    };
    ControlConfig {
        nodes: cluster.nodes().iter().map(|node| (address(node), Some(Secret::new(text)))).collect(),
        user: user.into(),
        database: "postgres".into(),
        tls: Arc::new(NodeTls::new(NodeTlsMode::Prefer, None).unwrap()),
        probe_timeout: Duration::from_secs(5),
    }
}

fn control_of(cluster: &Cluster) -> Control {
    Control::new(control_config(cluster, CONTROL_USER, cluster.control_password()), fixed(cluster))
}

#[test]
fn a_role_is_always_as_the_primary_has_it_now() {
    let cluster = &ground().cluster;
    runtime().block_on(async {
        let control = control_of(cluster);
        assert_eq!(control.check_rights().await.unwrap(), Vec::<String>::new());
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

#[test]
fn rights_that_are_missing_are_said_with_the_grant() {
    let cluster = &ground().cluster;
    runtime().block_on(async {
        let control = Control::new(control_config(cluster, "alice", "wonderland"), fixed(cluster));
        let missing = control.check_rights().await.unwrap().join("\n");
        assert!(missing.contains("GRANT SELECT ON pg_authid TO \"alice\""), "{missing}");
        let error = control.role("alice").await.unwrap_err().to_string();
        assert!(error.contains("permission denied for table pg_authid (42501)"), "{error}");
    });
}

#[test]
fn the_monitor_follows_a_promotion_and_logins_survive_a_dead_primary() {
    let cluster = support::cluster(1);
    cluster.wait_for_replicas().unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        let mut config = control_config(&cluster, CONTROL_USER, cluster.control_password());
        config.probe_timeout = Duration::from_secs(1);
        let addresses: Vec<_> = config.nodes.iter().map(|(address, _)| address.clone()).collect();
        let (publish, mut topology) = watch::channel(Arc::new(monitor::unseen(&addresses)));
        let control = Control::new(config, topology.clone());
        let asked = control.clone();
        let probe = move |id: NodeId| {
            let control = asked.clone();
            async move {
                let status = control.status(&id).await.map_err(|error| error.to_string())?;
                Ok(Sighting {
                    is_in_recovery: status.is_in_recovery,
                    timeline: status.timeline,
                    lsn: status.lsn,
                    system_identifier: status.system_identifier,
                })
            }
        };
        let look_now = Arc::new(Notify::new());
        let often = MonitorConfig { probe_interval: Duration::from_millis(50), probe_timeout: Duration::from_secs(1) };
        tokio::spawn(monitor::run(often, publish, look_now, probe));

        let record = control.role("demo").await.unwrap().expect("asking waits until the primary is known");
        let first = topology.borrow_and_update().clone();
        assert_eq!(first.primary().unwrap().address.id.to_string(), cluster.nodes()[0].id);
        let seen = topology.wait_for(|seen| seen.nodes[1].role == Role::Replica);
        assert_eq!(tokio::time::timeout(LIMIT, seen).await.unwrap().unwrap().nodes[1].timeline, Timeline(1));

        cluster.nodes()[0].stop(Shutdown::Immediate);
        let silent = topology.wait_for(|seen| seen.nodes[0].role == Role::Unknown);
        let silent = tokio::time::timeout(LIMIT, silent).await.unwrap().unwrap().clone();
        assert_eq!((silent.primary, silent.version), (Some(0), first.version), "{}", silent.reason);
        assert_eq!(control.role("demo").await.unwrap().as_deref(), Some(&*record), "what was known before counts");

        cluster.nodes()[1].sql("SELECT pg_promote()").unwrap();
        let promoted = topology.wait_for(|seen| seen.primary == Some(1));
        let promoted = tokio::time::timeout(LIMIT, promoted).await.unwrap().unwrap().clone();
        assert_eq!((promoted.version, promoted.nodes[1].timeline), (first.version + 1, Timeline(2)));
        assert!(control.role("demo").await.unwrap().is_some());
    });
}

// --- from libpq -------------------------------------------------------------------------------------------------------

/// What the toy proxy is told; the rest is as by default.
struct Toy {
    mode: ClientTlsMode,
    rules: &'static str,
    users: &'static str,
    source: Source,
    login_timeout: Duration,
}

impl Default for Toy {
    fn default() -> Self {
        Toy {
            mode: ClientTlsMode::Allow,
            rules: "rules = []",
            users: "",
            source: Source::Passthrough,
            login_timeout: LIMIT,
        }
    }
}

/// A toy proxy in a thread of its own, on a TCP port and a Unix socket, until it is dropped.
struct Running {
    port: u16,
    sockets: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Toy {
    fn start(self) -> Running {
        #[derive(serde::Deserialize)]
        struct Config {
            rules: Rules,
        }
        let Ground { cluster, certificates } = ground();
        let path = |name| certificates.path(name);
        let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
        let tls = ServerTls::new(self.mode, Some(&cert), Some(&key), Some(&ca)).unwrap();
        let rules = toml::from_str::<Config>(self.rules).unwrap().rules;
        let users = Users::parse(self.users, Path::new("users.txt")).unwrap();
        let sockets = tempfile::tempdir().unwrap();
        let (told, port) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let directory = sockets.path().to_owned();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async move {
                let context = Arc::new(LoginContext {
                    tls,
                    rules,
                    source: self.source,
                    users,
                    roles: Some(control_of(cluster)),
                    mock: MockSecret::generate(),
                    login_timeout: self.login_timeout,
                });
                let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let port = tcp.local_addr().unwrap().port();
                let unix = UnixListener::bind(directory.join(format!(".s.PGSQL.{port}"))).unwrap();
                told.send(port).unwrap();
                let serve = async {
                    loop {
                        let (stream, peer) = tokio::select! {
                            accepted = tcp.accept() => {
                                let (socket, peer) = accepted.unwrap();
                                (Stream::tcp(socket).unwrap(), Peer::Tcp(peer))
                            }
                            accepted = unix.accept() => (Stream::unix(accepted.unwrap().0), Peer::Local),
                        };
                        tokio::spawn(serve_one(stream, peer, context.clone()));
                    }
                };
                tokio::select! { _ = serve => {}, _ = stopped => {} }
            });
        });
        Running { port: port.recv().unwrap(), sockets, stop: Some(stop), thread: Some(thread) }
    }
}

impl Running {
    fn psql(&self, user: &str, password: Option<&str>) -> Psql {
        Psql::tcp(self.port).user(user, password).env("PGGSSENCMODE", "disable")
    }

    fn local(&self, user: &str, password: Option<&str>) -> Psql {
        self.psql(user, password).host(self.sockets.path().to_str().unwrap())
    }

    fn raw(&self) -> std::net::TcpStream {
        let socket = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }

    /// Everything that is answered to these bytes until the connection is closed.
    fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        use std::io::{Read, Write};
        let mut socket = self.raw();
        socket.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve_one(stream: Stream, peer: Peer, context: Arc<LoginContext>) {
    let mut client = match admit(stream, peer, &context).await {
        Ok(Admitted::Client(client)) => client,
        _ => return,
    };
    let address = address_of(&ground().cluster);
    let request = ConnectRequest {
        address: &address,
        tls: &NodeTls::disabled(),
        user: &client.user,
        database: &client.database,
        startup: &client.startup,
        credential: &client.credential,
        timeout: LIMIT,
    };
    let mut out = std::mem::take(&mut client.pending);
    use pgbaton::wire::message;
    let mut server = match connect(&request).await {
        Ok(server) => server,
        Err(error) => {
            message::fatal(&mut out, &message::Problem::new("08006", error.to_string()));
            let _ = client.stream.write_all(&out).await;
            return;
        }
    };
    message::authentication_ok(&mut out);
    for (name, value) in &server.parameters {
        message::parameter_status(&mut out, name, value);
    }
    // What the tests want to know, where psql can see it.
    message::parameter_status(&mut out, "server_version", &format!("tls={}", client.tls));
    message::backend_key_data(&mut out, server.pid, &server.cancel_key);
    message::ready_for_query(&mut out, b'I');
    let relay = async {
        client.stream.write_all(&out).await?;
        server.stream.write_all(&client.unread).await?;
        tokio::io::copy_bidirectional(&mut client.stream, &mut server.stream).await
    };
    let _ = relay.await;
}

const WHO: &str = "SELECT current_user";

#[test]
fn a_role_of_the_database_simply_works_and_a_changed_password_at_once() {
    let toy = Toy::default().start();
    assert_eq!(toy.psql("alice", Some("wonderland")).ok(&[WHO]), "alice");
    assert_eq!(toy.local("alice", Some("wonderland")).ok(&[WHO]), "alice");
    assert_eq!(toy.psql("md5er", Some("old")).ok(&[WHO]), "md5er");
    assert_eq!(toy.psql("changing", Some("first")).ok(&[WHO]), "changing");
    let sql = "SET password_encryption = 'scram-sha-256'; ALTER ROLE changing PASSWORD 'second'";
    ground().cluster.primary().unwrap().sql(sql).unwrap();
    assert_eq!(toy.psql("changing", Some("second")).ok(&[WHO]), "changing");
    assert!(toy.psql("changing", Some("first")).refused(&[WHO]).contains("authentication failed"));
}

#[test]
fn wrong_passwords_and_unknown_roles_look_the_same_and_take_the_same_time() {
    let toy = Toy::default().start();
    let mut quickest = Duration::MAX;
    let mut slowest = Duration::ZERO;
    for role in ["alice", "nobody", "expired", "trusting", "md5er"] {
        let password = if role == "expired" { "late" } else { "wrong" };
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let begun = Instant::now();
            let text = toy.psql(role, Some(password)).refused(&[WHO]);
            best = best.min(begun.elapsed());
            let expected = format!("FATAL:  password authentication failed for user \"{role}\"");
            assert!(text.contains(&expected) && !text.contains("DETAIL") && !text.contains("HINT"), "{text}");
        }
        (quickest, slowest) = (quickest.min(best), slowest.max(best));
    }
    assert!(quickest >= pgbaton::session::login::FAILURE_DELAY, "{quickest:?}");
    assert!(slowest - quickest < Duration::from_millis(100), "{quickest:?} to {slowest:?}");
}

#[test]
fn an_unknown_role_is_asked_with_the_salt_it_was_asked_with_before() {
    let toy = Toy::default().start();
    let salt = |role: &str| {
        use std::io::{Read, Write};
        let mut socket = toy.raw();
        socket.write_all(&startup_packet(3 << 16, &[("user", role)])).unwrap();
        let mut first = [0; 24 + 9];
        let _ = socket.read(&mut first).unwrap();
        let initial = b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc";
        let mut message = vec![b'p'];
        message.extend_from_slice(&(initial.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(initial);
        socket.write_all(&message).unwrap();
        let mut answer = [0; 512];
        let count = socket.read(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer[9..count]).into_owned();
        text.split(',').find_map(|part| part.strip_prefix("s=").map(str::to_owned)).unwrap_or_else(|| panic!("{text}"))
    };
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("nobody else"));
    assert_eq!(salt("alice"), salt("alice"));
    assert_eq!(salt("nobody").len(), salt("alice").len());
}

#[test]
fn libpq_finds_tls_in_every_mode_it_has() {
    let certificates = &ground().certificates;
    let toy = Toy::default().start();
    let alice = || toy.psql("alice", Some("wonderland")).host("localhost");
    let tls = |psql: Psql| psql.ok(&["\\echo :SERVER_VERSION_NAME"]);
    assert_eq!(tls(alice().env("PGSSLMODE", "disable")), "tls=false");
    for mode in ["prefer", "require"] {
        assert_eq!(tls(alice().env("PGSSLMODE", mode)), "tls=true", "{mode}");
    }
    for mode in ["verify-ca", "verify-full"] {
        let psql = alice().env("PGSSLMODE", mode).env("PGSSLROOTCERT", &certificates.text("ca.pem"));
        assert_eq!(tls(psql), "tls=true", "{mode}");
    }
    // Channel binding: SCRAM-SHA-256-PLUS is offered inside TLS, and only there.
    assert_eq!(tls(alice().env("PGSSLMODE", "require").env("PGCHANNELBINDING", "require")), "tls=true");
    let refused = alice().env("PGSSLMODE", "disable").env("PGCHANNELBINDING", "require").refused(&[WHO]);
    assert!(refused.contains("channel binding"), "{refused}");
    assert_eq!(tls(alice().env("PGSSLMODE", "require").env("PGCHANNELBINDING", "disable")), "tls=true");
    // No TLS on Unix sockets, as with PostgreSQL; libpq does not even ask.
    assert_eq!(tls(toy.local("alice", Some("wonderland")).env("PGSSLMODE", "prefer")), "tls=false");
}

#[test]
fn where_tls_is_required_a_client_without_it_is_told_so() {
    let toy = Toy { mode: ClientTlsMode::Require, ..Toy::default() }.start();
    let alice = || toy.psql("alice", Some("wonderland"));
    let refused = alice().env("PGSSLMODE", "disable").refused(&[WHO]);
    let expected = format!(
        "FATAL:  no pg_hba.conf entry for host \"127.0.0.1\", user \"alice\", database \"{DATABASE}\", no encryption"
    );
    assert!(refused.contains(&expected), "{refused}");
    assert_eq!(alice().env("PGSSLMODE", "allow").ok(&[WHO]), "alice");
    assert_eq!(toy.local("alice", Some("wonderland")).ok(&[WHO]), "alice");
}

#[test]
fn where_tls_is_off_or_has_no_certificate_it_is_refused_politely() {
    let toy = Toy { mode: ClientTlsMode::Disable, ..Toy::default() }.start();
    assert_eq!(toy.psql("alice", Some("wonderland")).env("PGSSLMODE", "prefer").ok(&[WHO]), "alice");
    let refused = toy.psql("alice", Some("wonderland")).env("PGSSLMODE", "require").refused(&[WHO]);
    assert!(refused.contains("server does not support SSL"), "{refused}");
}

#[test]
fn a_certificate_lets_in_whom_it_names() {
    let certificates = &ground().certificates;
    let toy = Toy { rules: "[[rules]]\nmethod = \"cert\"", ..Toy::default() }.start();
    let with = |role: &str, name: &str| {
        let files = (certificates.text(&format!("{name}.pem")), certificates.text(&format!("{name}.key")));
        toy.psql(role, None).env("PGSSLMODE", "require").env("PGSSLCERT", &files.0).env("PGSSLKEY", &files.1)
    };
    assert_eq!(with("trusting", "trusting").ok(&[WHO]), "trusting");
    let refused = with("trusting", "alice").refused(&[WHO]);
    assert!(refused.contains("certificate authentication failed for user \"trusting\""), "{refused}");
    let refused = toy.psql("trusting", None).env("PGSSLMODE", "require").refused(&[WHO]);
    assert!(refused.contains("connection requires a valid client certificate"), "{refused}");
    // In here, but the node asks alice for a password, and nobody knows it.
    let refused = with("alice", "alice").refused(&[WHO]);
    assert!(refused.contains("auth.users_file"), "{refused}");
}

#[test]
fn rules_decide_who_is_asked_for_what() {
    let rules = "[[rules]]\nuser = \"md5er\"\nmethod = \"reject\"\n[[rules]]\naddress = \"local\"\nmethod = \"trust\"\n\
                 [[rules]]\nuser = \"alice\"\naddress = \"127.0.0.0/8\"\nmethod = \"scram\"\n";
    let toy = Toy { rules, users: "\"alice\" \"wonderland\"\n", ..Toy::default() }.start();
    let refused = toy.psql("md5er", Some("old")).refused(&[WHO]);
    assert!(refused.contains("pg_hba.conf rejects connection for host \"127.0.0.1\", user \"md5er\""), "{refused}");
    let refused = toy.psql("changing", Some("first")).refused(&[WHO]);
    assert!(refused.contains("no pg_hba.conf entry for host \"127.0.0.1\", user \"changing\""), "{refused}");
    assert_eq!(toy.local("trusting", None).ok(&[WHO]), "trusting");
    // Trusted here, and the users file has what the node asks for.
    assert_eq!(toy.local("alice", None).ok(&[WHO]), "alice");
    assert_eq!(toy.psql("alice", Some("wonderland")).ok(&[WHO]), "alice");
}

#[test]
fn a_users_file_holds_every_kind_of_password() {
    let stored = ground().cluster.primary().unwrap().sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'alice'");
    let text = format!(
        "\"alice\" \"{}\"\n\"md5er\" \"{}\"\n\"prepared\" \"IX\"\n\"trusting\" \"\"\n",
        stored.unwrap(),
        Md5Hash::of("old", "md5er").reveal()
    );
    let toy = Toy { users: Box::leak(text.into_boxed_str()), source: Source::File, ..Toy::default() }.start();
    assert_eq!(toy.psql("alice", Some("wonderland")).ok(&[WHO]), "alice");
    assert_eq!(toy.psql("md5er", Some("old")).ok(&[WHO]), "md5er");
    assert_eq!(toy.psql("prepared", Some("IX")).ok(&[WHO]), "prepared");
    for (role, password) in [("changing", "first"), ("trusting", ""), ("trusting", "x"), ("alice", "IX")] {
        let refused = toy.psql(role, Some(password)).refused(&[WHO]);
        assert!(refused.contains("authentication failed") || refused.contains("no password supplied"), "{refused}");
    }
}

// --- from clients that are not libpq ----------------------------------------------------------------------------------

fn startup_packet(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend_from_slice(&body);
    packet
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

#[test]
fn startup_packets_that_are_wrong_get_an_answer() {
    let toy = Toy { rules: "[[rules]]\nmethod = \"reject\"", ..Toy::default() }.start();
    let says = |bytes: &[u8], code: &str, text: &str| {
        let answer = toy.answer(bytes);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.contains(&format!("SFATAL\0VFATAL\0C{code}\0")) && answer.contains(text),
            "{bytes:?}: {answer:?}"
        );
    };
    says(&startup_packet(2 << 16, &[("user", "alice")]), "0A000", "unsupported frontend protocol 2.0");
    says(&startup_packet(4 << 16, &[("user", "alice")]), "0A000", "unsupported frontend protocol 4.0");
    says(&startup_packet(3 << 16, &[]), "28000", "no PostgreSQL user name specified in startup packet");
    says(&startup_packet(3 << 16, &[("user", "a"), ("replication", "maybe")]), "22023", "\"replication\": \"maybe\"");
    says(b"\0\0\x27\x11\0\x03\0\0", "08P01", "invalid length of startup packet");
    says(b"\0\0\0\x07\0\x03\0", "08P01", "invalid length of startup packet");
    says(b"\0\0\0\x0d\0\x03\0\0user\0", "08P01", "invalid startup packet layout");
    says(b"\0\0\0\x0b\0\x03\0\0\0\0\0", "08P01", "invalid startup packet layout");
    says(b"GET / HTTP/1.1\r\n\r\n", "08P01", "invalid length of startup packet");
    says(&startup_packet(3 << 16, &[("user", "a"), ("replication", "on")]), "28000", "rejects replication connection");
    let long = "\u{e9}".repeat(40);
    let cut = format!("user \"{}\", database", "\u{e9}".repeat(31));
    says(&startup_packet(3 << 16, &[("user", &long)]), "28000", &cut);
    let mut latin = startup_packet(3 << 16, &[("user", "aaaa")]);
    latin[13] = 0xe9;
    says(&latin, "22021", "invalid byte sequence");
    // Each question once, and what is left is no startup packet.
    says(&[&SSL_REQUEST[..]].concat().repeat(2), "08P01", "received unencrypted data after SSL request");
    says(&[&GSSENC_REQUEST[..]].concat().repeat(2), "08P01", "received unencrypted data after GSSAPI");
}

#[test]
fn gss_encryption_is_refused_politely_and_the_client_goes_on() {
    use std::io::{Read, Write};
    let toy = Toy { rules: "[[rules]]\nmethod = \"reject\"", ..Toy::default() }.start();
    let mut socket = toy.raw();
    socket.write_all(&GSSENC_REQUEST).unwrap();
    let mut byte = [0];
    socket.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"N");
    socket.write_all(&SSL_REQUEST).unwrap();
    socket.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"S");
}

#[test]
fn a_newer_protocol_is_negotiated() {
    use std::io::{Read, Write};
    let toy = Toy::default().start();
    let parameters = [("user", "trusting"), ("_pq_.test", "1"), ("database", DATABASE)];
    for (minor, expected) in [(0u32, 0u32), (2, 2), (3, 2), (9999, 2)] {
        let mut socket = toy.raw();
        socket.write_all(&startup_packet(3 << 16 | minor, &parameters)).unwrap();
        let mut message = [0; 23];
        socket.read_exact(&mut message).unwrap();
        let mut wanted = b"v\0\0\0\x16".to_vec();
        wanted.extend_from_slice(&(3 << 16 | expected).to_be_bytes());
        wanted.extend_from_slice(b"\0\0\0\x01_pq_.test\0");
        assert_eq!(message, *wanted);
    }
    let mut socket = toy.raw();
    socket.write_all(&startup_packet(3 << 16 | 2, &[("user", "alice")])).unwrap();
    let mut byte = [0];
    socket.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"R", "3.2 needs no negotiation");
}

#[test]
fn a_login_that_does_not_end_is_ended() {
    use std::io::{Read, Write};
    let toy = Toy { login_timeout: Duration::from_millis(200), ..Toy::default() }.start();
    for bytes in [&b""[..], b"\0\0\0\x20\0", &startup_packet(3 << 16, &[("user", "alice")])] {
        let mut socket = toy.raw();
        socket.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("canceling authentication due to timeout"), "{text:?}");
    }
}

#[test]
fn messages_that_are_no_password_end_the_login() {
    use std::io::{Read, Write};
    let toy = Toy::default().start();
    let attempts: [(&[u8], &str); 8] = [
        (b"Q\0\0\0\x09SELE\0", "expected password response, got message type 81"),
        (b"p\xff\xff\xff\xff", "invalid length of password packet"),
        (b"p\0\0\x10\0", "invalid length of password packet"),
        (b"p\0\0\0\x04", "malformed SASL message"),
        (b"p\0\0\0\x0aPLAIN\0", "malformed SASL message"),
        (b"p\0\0\0\x16SCRAM-SHA-256\0\0\0\0\x09", "malformed SASL message"),
        (b"p\0\0\0\x16SCRAM-SHA-256\0\0\0\0\0", "malformed SCRAM message"),
        (b"p\0\0\0\x1bSCRAM-SHA-256-PLUS\0\0\0\0\0", "malformed SCRAM message"),
    ];
    for (bytes, expected) in attempts {
        let mut socket = toy.raw();
        socket.write_all(&startup_packet(3 << 16, &[("user", "alice")])).unwrap();
        let mut asked = [0; 24];
        socket.read_exact(&mut asked).unwrap();
        assert_eq!(&asked[..9], b"R\0\0\0\x17\0\0\0\x0a");
        socket.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(expected) && text.contains("C08P01"), "{bytes:?}: {text:?}");
    }
}

fn client_tls(alpn: &[&[u8]]) -> tokio_rustls::TlsConnector {
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls_pki_types::CertificateDer::from_pem_file(ground().certificates.path("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[test]
fn direct_tls_needs_the_protocols_name() {
    let toy = Toy { rules: "[[rules]]\nmethod = \"reject\"", ..Toy::default() }.start();
    let answer = |alpn: &'static [&'static [u8]]| {
        runtime().block_on(async {
            let socket = TcpStream::connect(("127.0.0.1", toy.port)).await.unwrap();
            let mut tls = client_tls(alpn).connect("localhost".try_into().unwrap(), socket).await?;
            tls.write_all(&startup_packet(3 << 16, &[("user", "alice")])).await?;
            let mut answer = Vec::new();
            tls.read_to_end(&mut answer).await?;
            std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
        })
    };
    assert!(answer(&[b"postgresql"]).unwrap().contains("rejects connection"));
    assert!(!answer(&[]).is_ok_and(|text| text.contains("rejects connection")));
    assert!(!answer(&[b"h2"]).is_ok_and(|text| text.contains("rejects connection")));
}

#[test]
fn a_cancel_request_is_recognised_with_keys_of_any_length() {
    runtime().block_on(async {
        let context = LoginContext {
            tls: ServerTls::disabled(),
            rules: Rules::default(),
            source: Source::File,
            users: Users::default(),
            roles: None,
            mock: MockSecret::generate(),
            login_timeout: LIMIT,
        };
        for length in [4, 32, 256] {
            let (mut client, server) = tokio::net::UnixStream::pair().unwrap();
            let mut packet = (12 + length as u32).to_be_bytes().to_vec();
            packet.extend_from_slice(&[4, 210, 22, 46, 0, 0, 1, 2]);
            packet.extend(vec![9; length]);
            client.write_all(&packet).await.unwrap();
            let peer = Peer::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1));
            match admit(Stream::unix(server), peer, &context).await.unwrap() {
                Admitted::Cancel { pid, secret } => assert_eq!((pid, secret), (258, vec![9; length])),
                Admitted::Client(_) => panic!("not a cancel request"),
            }
        }
    });
}
