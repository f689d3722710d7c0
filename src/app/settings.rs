//! Turns the configuration into the settings each module takes, and opens the files it names.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::auth::{MockSecret, Rules, Secret, Users};
use crate::catalog::Overrides;
use crate::cluster::{NodePolicy, Policy};
use crate::config::{AuthMethod, ClientTlsMode as TlsMode, Config, NodeTlsMode as Mode, PoolMode, Rejoin};
use crate::driver::Nodes;
use crate::net::{ClientTlsMode, NodeTls, NodeTlsMode, ServerTls};
use crate::node::{AgentAddress, Control, ControlConfig, Reached};
use crate::pool::Limits;
use crate::route::FunctionName;
use crate::route::eligible::ReadLimits;
use crate::session::login::{LoginContext, Source};
use crate::session::readers::ReadSettings;
use crate::session::shared::Settings;
use crate::types::{Millis, NodeAddress};

/// Every job has deadlines of its own below this; it is for one that is lost altogether.
const JOB_LIMIT: Millis = Millis(30_000);

fn wrong(key: &'static str) -> impl Fn(&dyn std::fmt::Display) -> StartError {
    move |reason| StartError::Setting { key, reason: reason.to_string() }
}

pub fn limits(config: &Config) -> Limits {
    Limits {
        pool_size: config.proxy.pool_size,
        max_waiting: config.proxy.max_waiting,
        wait: config.proxy.pool_wait,
        login_timeout: config.proxy.server_login_timeout,
        idle_timeout: config.proxy.server_idle_timeout,
        lifetime: config.proxy.server_lifetime,
    }
}

pub fn session(config: &Config) -> Settings {
    Settings {
        session_mode: config.proxy.pool_mode == PoolMode::Session,
        max_clients: config.proxy.max_clients,
        max_prepared: config.proxy.max_prepared_statements,
        max_inspect: config.proxy.max_inspect_bytes,
        hold: config.failover.hold,
        max_held: config.failover.max_held,
        max_held_bytes: config.failover.max_held_bytes,
        ask_commits: config.failover.ask_commits,
    }
}

pub fn reads(config: &Config) -> ReadSettings {
    let millis = |duration: Duration| Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let reads = &config.reads;
    ReadSettings {
        is_enabled: reads.enabled,
        consistency: reads.consistency,
        limits: ReadLimits { max_lag: millis(reads.max_lag), max_lag_bytes: reads.max_lag_bytes },
        balance: reads.balance,
        fallback: reads.fallback,
        wait: reads.wait,
        zone: reads.zone.clone(),
        hash_by: reads.hash_by,
        slow_start: millis(reads.slow_start),
        nodes: config
            .cluster
            .nodes
            .iter()
            .map(|node| (node.id.as_str().into(), (node.zone.clone(), node.weight)))
            .collect(),
    }
}

pub fn policy(config: &Config) -> Policy {
    let millis = |duration: Duration| Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let failover = &config.failover;
    let node = |node: &crate::config::Node| {
        (
            node.id.as_str().into(),
            NodePolicy { priority: node.priority, zone: node.zone.clone(), has_agent: node.agent.is_some() },
        )
    };
    Policy {
        coordinator: coordinator(),
        automatic: failover.automatic,
        durability: config.cluster.durability,
        acks: config.cluster.quorum_acks,
        max_lost_bytes: config.cluster.max_lost_bytes,
        misses: failover.misses,
        probe_interval: millis(failover.probe_interval),
        probe_timeout: millis(failover.probe_timeout),
        veto: millis(failover.veto),
        restart_wait: millis(failover.restart_wait),
        anti_flap: millis(failover.anti_flap),
        voter_grace: millis(failover.voter_grace),
        drain: millis(failover.drain),
        rejoins: failover.rejoin == Rejoin::Auto,
        job_limit: JOB_LIMIT,
        nodes: config.cluster.nodes.iter().map(node).collect(),
    }
}

/// The host, for people who read the record; the same after a restart.
fn coordinator() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub fn overrides(config: &Config) -> Overrides {
    let written = |function: &FunctionName| match &function.schema {
        Some(schema) => format!("{schema}.{}", function.name).into(),
        None => function.name.clone(),
    };
    let names = |names: &[FunctionName]| names.iter().map(written).collect();
    Overrides { safe: names(&config.reads.safe_functions), unsafe_: names(&config.reads.unsafe_functions) }
}

pub fn node_tls(config: &Config) -> Result<Arc<NodeTls>, StartError> {
    let mode = match config.cluster.tls.mode {
        Mode::Disable => NodeTlsMode::Disable,
        Mode::Prefer => NodeTlsMode::Prefer,
        Mode::Require => NodeTlsMode::Require,
        Mode::VerifyCa => NodeTlsMode::VerifyCa,
        Mode::VerifyFull => NodeTlsMode::VerifyFull,
    };
    let tls = NodeTls::new(mode, config.cluster.tls.ca.as_deref());
    Ok(Arc::new(tls.map_err(|error| wrong("cluster.tls")(&error))?))
}

/// Reads the passwords too.
pub fn nodes(config: &Config) -> Result<Nodes, StartError> {
    Ok(Nodes { reached: reached(config)?, policies: policy(config).nodes })
}

fn reached(config: &Config) -> Result<Vec<Reached>, StartError> {
    let token = &config.cluster.agent_token;
    let token = (!token.is_empty()).then(|| Secret::new(token.reveal()));
    let mut nodes = Vec::new();
    for node in &config.cluster.nodes {
        let password = config.control_password(node)?.map(|password| Secret::new(password.as_str()));
        let address = NodeAddress { id: node.id.as_str().into(), host: node.host.clone(), port: node.port };
        let agent = node.agent.clone().map(|url| AgentAddress { url, token: token.clone() });
        nodes.push(Reached { address: Arc::new(address), password, agent });
    }
    Ok(nodes)
}

pub fn control(config: &Config, tls: Arc<NodeTls>) -> Result<ControlConfig, StartError> {
    Ok(ControlConfig {
        nodes: reached(config)?,
        user: config.cluster.control_user.clone(),
        database: config.cluster.control_database.clone(),
        tls,
        probe_timeout: config.failover.probe_timeout,
    })
}

pub fn login(config: &Config, control: Control, mock: MockSecret) -> Result<LoginContext, StartError> {
    let mode = match config.proxy.tls.mode {
        TlsMode::Disable => ClientTlsMode::Disable,
        TlsMode::Allow => ClientTlsMode::Allow,
        TlsMode::Require => ClientTlsMode::Require,
    };
    let files = &config.proxy.tls;
    let tls = ServerTls::new(mode, files.cert.as_deref(), files.key.as_deref(), files.client_ca.as_deref())
        .map_err(|error| wrong("proxy.tls")(&error))?;
    let users = match &config.auth.users_file {
        Some(path) => Users::load(path).map_err(|error| wrong("auth.users_file")(&error))?,
        None => Users::default(),
    };
    let source = match config.auth.method {
        AuthMethod::Passthrough => Source::Passthrough,
        AuthMethod::File => Source::File,
    };
    Ok(LoginContext {
        tls,
        rules: rules(&config.auth.rules)?,
        source,
        users,
        roles: Some(control),
        mock,
        login_timeout: config.proxy.client_login_timeout,
    })
}

/// The rules as `auth` reads them; no rule at all lets everybody try with a password.
fn rules(written: &[crate::config::Rule]) -> Result<Rules, StartError> {
    let mut rules = Vec::new();
    for (at, rule) in written.iter().enumerate() {
        let mut table = toml::Table::new();
        for (key, value) in
            [("user", &rule.user), ("database", &rule.database), ("address", &rule.address), ("method", &rule.method)]
        {
            table.insert(key.into(), toml::Value::String(value.clone()));
        }
        if let Some(tls) = rule.tls {
            table.insert("tls".into(), toml::Value::Boolean(tls));
        }
        let rule = toml::Value::Table(table).try_into().map_err(|error: toml::de::Error| StartError::Setting {
            key: "auth.rules",
            reason: format!("rule {}: {}", at + 1, error.message()),
        })?;
        rules.push(rule);
    }
    Ok(Rules(rules))
}
