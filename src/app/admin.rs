//! The admin endpoint as the proxy runs it: its socket, opened before anything is started, and what it may see.

use std::net::{TcpListener, ToSocketAddrs};
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::watch;

use super::{Running, StartError, listen};
use crate::admin::doctor::{Doctor, Examination};
use crate::admin::events::Feed;
use crate::admin::history::History;
use crate::admin::http::{self, Api};
use crate::admin::orders::{Orders, Reload};
use crate::auth::Secret;
use crate::config::{Config, Listen};
use crate::driver;
use crate::session::shared::Shared;

/// The socket of `admin.listen`; `None` when it is switched off. Of a name with several addresses the first is taken.
pub fn open(config: &Config) -> Result<Option<TcpListener>, StartError> {
    let Some(wanted) = &config.admin.listen else { return Ok(None) };
    let failed = |source| StartError::AdminListen { listen: wanted.to_string(), source };
    // The configuration takes no directory here.
    let Listen::Tcp { host, port } = wanted else { return Ok(None) };
    let address = (host.as_str(), *port).to_socket_addrs().map_err(failed)?.next();
    let address = address.ok_or_else(|| failed(std::io::ErrorKind::AddrNotAvailable.into()))?;
    listen::open_tcp(address).map(Some).map_err(failed)
}

pub fn api(
    config: &Config,
    shared: Arc<Shared>,
    cluster: driver::Handle,
    refused: watch::Receiver<bool>,
    history: History,
    reload: Reload,
    doctor: Doctor,
) -> Api {
    let token = &config.admin.token;
    let changes = cluster.changes();
    let (seen, closed) = (cluster.clone(), cluster.clone());
    Api {
        shared,
        believed: Box::new(move || seen.picture()),
        orders: orders(cluster),
        reload,
        cluster: config.cluster.name.clone(),
        accepts: Box::new(move || !*refused.borrow()),
        token: (!token.is_empty()).then(|| Secret::new(token.reveal())),
        history,
        changes,
        closed_for: Box::new(move || closed.closed_for()),
        feed: Feed::default(),
        doctor,
    }
}

/// Reads the configuration again, once everything is there.
pub fn reload(whole: Arc<OnceLock<Weak<Running>>>) -> Reload {
    Arc::new(move || {
        let running = whole.get().and_then(Weak::upgrade);
        Box::pin(async move {
            match running {
                Some(running) => running.reload().await,
                None => Err("starting, or shutting down".to_owned()),
            }
        })
    })
}

/// Examines everything, as the configuration in force has it.
pub fn doctor(whole: Arc<OnceLock<Weak<Running>>>) -> Doctor {
    Doctor::new(Box::new(move || {
        let running = whole.get().and_then(Weak::upgrade);
        Box::pin(async move {
            let running = running.ok_or_else(|| "starting, or shutting down".to_owned())?;
            Ok(Examination { findings: running.examine().await })
        })
    }))
}

pub fn orders(cluster: driver::Handle) -> Orders {
    Arc::new(move |command, by| {
        let cluster = cluster.clone();
        Box::pin(async move { cluster.order(command, by).await })
    })
}

/// Runs within the runtime that serves it.
pub async fn serve(listener: TcpListener, api: Arc<Api>) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => http::serve(listener, api).await,
        Err(error) => tracing::error!(%error, "the admin endpoint failed"),
    }
}
