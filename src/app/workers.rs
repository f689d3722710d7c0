//! A worker: a thread with a runtime of its own that accepts for its share of the listeners and serves the clients it is handed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

use super::listen::{self, Arrival, Listener};
use crate::admin::console::{self, Console, Right};
use crate::net::{Peer, Stream};
use crate::node::Control;
use crate::session::clients::Entrance;
use crate::session::login;
use crate::session::shared::Shared;
use crate::session::{self, Arrived};

/// Whom a connection can be handed to.
pub(super) struct Worker {
    pub arrivals: mpsc::UnboundedSender<(Arrival, Entrance)>,
    pub clients: Arc<AtomicUsize>,
}

/// A worker: takes in the connections handed to it, and accepts for its share of the listeners.
pub(super) async fn work(
    index: usize,
    mut inbox: mpsc::UnboundedReceiver<(Arrival, Entrance)>,
    listeners: Vec<(Listener, Entrance)>,
    workers: Arc<[Worker]>,
    refused: watch::Receiver<bool>,
    shared: Arc<Shared>,
    console: Arc<Console>,
    control: Control,
) {
    for (listener, entrance) in listeners {
        let workers = workers.clone();
        let mut refused = refused.clone();
        tokio::spawn(async move {
            let hand_over = |arrival| {
                let fewest = workers.iter().min_by_key(|worker| worker.clients.load(Ordering::Relaxed));
                if let Some(worker) = fewest {
                    worker.clients.fetch_add(1, Ordering::Relaxed);
                    // A worker that is gone means that everything is ending; the connection closes with it.
                    let _ = worker.arrivals.send((arrival, entrance));
                }
            };
            tokio::select! {
                result = listen::accept_all(listener, hand_over) => {
                    if let Err(error) = result {
                        tracing::error!(%error, "a listener failed");
                    }
                }
                _ = refused.wait_for(|refused| *refused) => {}
            }
        });
    }
    while let Some((arrival, entrance)) = inbox.recv().await {
        let clients = workers[index].clients.clone();
        let (shared, console, control) = (shared.clone(), console.clone(), control.clone());
        tokio::spawn(async move {
            let _gone = Leaves(clients);
            let (stream, peer) = match arrival {
                Arrival::Tcp(socket, address) => {
                    (TcpStream::from_std(socket).and_then(Stream::tcp), Peer::Tcp(address))
                }
                Arrival::Unix(socket) => (UnixStream::from_std(socket).map(Stream::unix), Peer::Local),
            };
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => return tracing::debug!(%error, "a connection was gone before it was served"),
            };
            if let Arrived::Console(client) = session::serve(stream, peer, entrance, shared, index).await {
                Box::pin(serve_console(*client, &console, &control, index)).await;
            }
        });
    }
}

struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve_console(client: login::Client, console: &Console, control: &Control, worker: usize) {
    let right = match control.console_right(&client.user).await {
        Ok((_, true)) => Right::Act,
        Ok((true, false)) => Right::Show,
        Ok((false, false)) => Right::None,
        Err(error) => {
            tracing::warn!(%error, "could not ask for the rights of a console user");
            Right::None
        }
    };
    console::serve(client, right, console, worker).await;
}
