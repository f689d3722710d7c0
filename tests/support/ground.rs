//! One node that has every authentication method in its `pg_hba.conf`, TLS, and roles for each: what the tests of logging in
//! stand on, on either side.

// Each test binary uses another part of this.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pgbaton::auth::Secret;
use pgbaton::demo::{CONTROL_USER, Cluster};
use pgbaton::driver;
use pgbaton::net::{NodeTls, NodeTlsMode};
use pgbaton::node::{Control, ControlConfig, Reached};
use pgbaton::types::{NodeAddress, NodeId, Topology};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::support;

pub const LIMIT: Duration = Duration::from_secs(20);
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
pub struct Certificates {
    dir: tempfile::TempDir,
    server_cert: String,
    server_key: String,
}

impl Certificates {
    pub fn make() -> Certificates {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

pub struct Ground {
    pub cluster: Cluster,
    pub certificates: Certificates,
}

/// One node with all methods and TLS, for every test that does not break it.
pub fn ground() -> &'static Ground {
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

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn address_of(cluster: &Cluster) -> NodeAddress {
    let node = cluster.primary().unwrap();
    NodeAddress { id: NodeId::from(&*node.id), host: node.host(), port: node.port() }
}

pub fn fixed(cluster: &Cluster) -> watch::Receiver<Arc<Topology>> {
    let mut topology = driver::unseen(&[Arc::new(address_of(cluster))]);
    topology.primary = Some(0);
    watch::channel(Arc::new(topology)).1
}

pub fn control_config(cluster: &Cluster, user: &str, text: &str) -> ControlConfig {
    let reached = |node: &pgbaton::demo::Node| {
        let address = NodeAddress { id: NodeId::from(&*node.id), host: node.host(), port: node.port() };
        Reached { address: Arc::new(address), password: Some(Secret::new(text)), agent: None }
    };
    ControlConfig {
        nodes: cluster.nodes().iter().map(reached).collect(),
        user: user.into(),
        database: "postgres".into(),
        tls: Arc::new(NodeTls::new(NodeTlsMode::Prefer, None).unwrap()),
        probe_timeout: Duration::from_secs(5),
    }
}

pub fn control_of(cluster: &Cluster) -> Control {
    Control::new(control_config(cluster, CONTROL_USER, cluster.control_password()), fixed(cluster))
}
