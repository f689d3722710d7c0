//! Carrying out one order, from its beginning to its end. Each can be dropped at any moment: a newer one has come.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;

use super::gate::Asks;
use super::keeper::Agent;
use super::site::{Place, Server as _, Site, Steps};
use super::{Failed, data, initialise, repair};
use crate::auth::Secret;
use crate::cluster::agent::{Code, Data, Deed, Shutdown, Task};

/// How long a running server may take to read its settings again.
const RELOAD_LIMIT: Duration = Duration::from_secs(5);

pub async fn carry_out(agent: &Agent, task: &Task, steps: &Steps) -> Result<Deed, Failed> {
    // Whatever comes of it: only an order to stop leaves it stopped.
    let is_stop = matches!(task, Task::Stop { .. });
    if !matches!(task, Task::Configure) {
        agent.memory.change(|state| state.is_stopped = is_stop);
    }
    match task {
        Task::Stop { how } => stop(agent, *how, steps).await,
        Task::Start => start(agent, steps).await,
        Task::Restart { how } => {
            steps.say("stopping PostgreSQL");
            agent.postmaster.stop(*how).await?;
            start(agent, steps).await
        }
        Task::Rejoin { primary, host, port, system_identifier, repair, reason } => {
            tracing::info!(%primary, repair = repair.as_str(), reason, "rejoining");
            if *primary == agent.site.node {
                return Err(Failed::new(Code::Impossible, "a node cannot be a standby of itself"));
            }
            initialise::forget(&agent.site, &agent.dir).await?;
            let place =
                Place { node: primary.clone(), host: host.clone(), port: *port, system_identifier: *system_identifier };
            let site = Site { keep_bytes: agent.settings().keep_bytes, ..(*agent.site).clone() };
            repair::rejoin(&site, &agent.postmaster, &place, *repair, steps).await
        }
        Task::Initialise => {
            match agent.data().await {
                Data::Absent => {}
                _ if initialise::is_unfinished(&agent.dir) => {}
                _ => return Err(Failed::new(Code::Impossible, "there is data already, which is not written over")),
            }
            initialise::initialise(&agent.site, &agent.settings(), &agent.dir, steps).await?;
            start(agent, steps).await.map_err(|Failed { code, reason }| {
                Failed::new(code, format!("the new cluster is made, and does not run yet: {reason}"))
            })
        }
        Task::Configure => configure(agent).await,
    }
}

async fn stop(agent: &Agent, how: Shutdown, steps: &Steps) -> Result<Deed, Failed> {
    steps.say("stopping PostgreSQL");
    agent.postmaster.stop(how).await?;
    let mut deed = Deed::default();
    if let Data::Present { is_clean: true, timeline, checkpoint, is_standby: false, .. } = agent.data().await {
        deed.end = Some(data::end_of_log(&agent.site, timeline, checkpoint).await);
    }
    Ok(deed)
}

async fn start(agent: &Agent, steps: &Steps) -> Result<Deed, Failed> {
    match agent.data().await {
        Data::Absent => return Err(Failed::new(Code::Impossible, "there is no data to start")),
        Data::Unusable { reason } => return Err(Failed::new(Code::Impossible, reason)),
        Data::Present { .. } => {}
    }
    steps.say("starting PostgreSQL");
    agent.postmaster.start_as(Asks::ByOrder).await?;
    Ok(Deed::default())
}

async fn configure(agent: &Agent) -> Result<Deed, Failed> {
    let before = if agent.postmaster.is_ready() { Some(ask(agent).await) } else { None };
    agent.postmaster.reload()?;
    let why = match before {
        None => "PostgreSQL does not run; it starts with them".into(),
        Some(Err(reason)) => {
            format!("PostgreSQL was told to read them; whether all count could not be asked: {reason}")
        }
        Some(Ok((loaded, _))) => match wait_for_reload(agent, &loaded).await {
            Ok(waiting) if waiting.is_empty() => "all are in force".into(),
            Ok(waiting) => format!("these wait for a restart: {waiting}"),
            Err(reason) => format!("PostgreSQL was told to read them; whether all count could not be asked: {reason}"),
        },
    };
    Ok(Deed { why, ..Deed::default() })
}

/// The names of settings that wait for a restart.
async fn wait_for_reload(agent: &Agent, before: &str) -> Result<String, String> {
    let deadline = Instant::now() + RELOAD_LIMIT;
    loop {
        // On a connection made since: a server process has the time of its own last reading.
        match ask(agent).await {
            Ok((loaded, waiting)) if loaded != before => return Ok(waiting),
            Ok(_) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
            Ok(_) => return Err("it does not read them".into()),
            Err(reason) => return Err(reason),
        }
    }
}

/// When the settings were read, and which wait for a restart.
async fn ask(agent: &Agent) -> Result<(String, String), String> {
    let site = &agent.site;
    let mut config = tokio_postgres::Config::new();
    config.host_path(&site.socket_dir).port(site.port).user(&site.control_user).dbname("postgres");
    if let Some(password) = site.control_password.as_ref().map(Secret::reveal) {
        config.password(password);
    }
    let asked = async {
        let (client, connection) = config.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let question = "SELECT pg_conf_load_time()::text,
                               coalesce((SELECT string_agg(name, ', ' ORDER BY name) FROM pg_settings WHERE pending_restart), '')";
        let row = client.query_one(question, &[]).await;
        drop(client);
        connection.abort();
        let row = row?;
        Ok::<_, tokio_postgres::Error>((row.try_get(0)?, row.try_get(1)?))
    };
    match timeout(RELOAD_LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| match error.as_db_error() {
            Some(said) => said.message().to_owned(),
            None => error.to_string(),
        }),
        Err(_) => Err("no answer".into()),
    }
}
