//! Entering pgbaton: psql in every mode it has, and clients that are not as polite.
//!
//! The proxy here is a toy: it admits a client, opens one server connection with what the login left it, and copies bytes.
//! So what is seen is the login and nothing else.

#[path = "support/ground.rs"]
mod ground;
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ground::{Ground, LIMIT, address_of, control_of, ground, runtime};
use pgbaton::auth::{Md5Hash, MockSecret, Rules, Users};
use pgbaton::demo::DATABASE;
use pgbaton::net::{ClientTlsMode, NodeTls, Peer, ServerTls, Stream};
use pgbaton::pool::connect::{ConnectRequest, connect};
use pgbaton::session::login::{Admitted, LoginContext, Source, admit};
use support::Psql;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

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
                Admitted::Cancel { pid, secret, .. } => assert_eq!((pid, secret), (258, vec![9; length])),
                Admitted::Client(_) => panic!("not a cancel request"),
            }
        }
    });
}
