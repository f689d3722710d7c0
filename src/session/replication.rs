//! `replication=` connections (pg_basebackup, pg_receivewal, logical subscribers): passed to the primary on a connection of
//! their own, byte for byte. Nothing is pooled or read, because the walsender's protocol lasts as long as the connection.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;

use super::clients::{Activity, Arrival, Entrance, Wish};
use super::hold::Wait;
use super::login;
use super::shared::Shared;
use super::{Refusal, too_many, turn_away};
use crate::pool::connect::{self, ConnectError, ConnectRequest};
use crate::pool::{CancelGate, PoolKey, ServerIdentity};
use crate::wire::message::{self, Problem};

/// Buffer in each direction, in bytes.
const BUFFER: usize = 64 * 1024;

pub async fn serve(client: login::Client, shared: Arc<Shared>, worker: usize) {
    let login::Client { mut stream, unread, mut pending, user, database, mut startup, credential, .. } = client;
    let settings = shared.settings.load_full();
    let user: Arc<str> = (&*user).into();
    let database: Arc<str> = (&*database).into();
    let (primary, _, generation) = match Wait::new(&shared, 0).primary().await {
        Ok(primary) => primary,
        Err(problem) => {
            turn_away(stream, pending, &problem).await;
            return;
        }
    };
    let key = PoolKey { node: primary.address.id.clone(), database: database.clone(), user: user.clone() };
    let pool = shared.pools.get(&key, &primary.address);
    if let Some(mode) = client.replication {
        startup.push(("replication".into(), mode.into()));
    }
    let connected = connect::connect(&ConnectRequest {
        address: &pool.address,
        tls: pool.tls(),
        user: &user,
        database: &database,
        startup: &startup,
        credential: &credential,
        timeout: pool.login_timeout(),
    })
    .await;
    let mut server = match connected {
        Ok(server) => server,
        Err(ConnectError::Server { body, .. }) => {
            Refusal::Theirs(body).write_fatal(&mut pending);
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(&pending)).await;
            return;
        }
        Err(error) => {
            turn_away(stream, pending, &Problem::new("08006", error.to_string())).await;
            return;
        }
    };
    let arrival = Arrival {
        user,
        database,
        peer: client.peer.to_string(),
        local: stream.local_addr().map(|address| address.to_string()),
        application_name: String::new(),
        // Nothing of it is looked at.
        tally: Arc::default(),
        tls: client.tls,
        entrance: Entrance::ReadWrite,
        worker,
        long_key: client.protocol_minor >= 2,
        pid: Some(server.pid),
    };
    let Some(me) = shared.clients.enter(arrival, settings.max_clients) else {
        turn_away(stream, pending, &too_many(settings.max_clients)).await;
        return;
    };
    me.client.set_activity(Activity::Active);
    me.client.set_pass(generation);
    me.client.set_server(Some(Arc::new(ServerIdentity {
        address: pool.address.clone(),
        tls: pool.tls().clone(),
        pid: server.pid,
        cancel_key: server.cancel_key,
        gate: CancelGate::default(),
        opened: SystemTime::now(),
        local: server.stream.local_addr().map(|address| address.to_string()),
        is_tls: server.stream.is_tls(),
    })));
    message::authentication_ok(&mut pending);
    for (name, value) in &server.parameters {
        message::parameter_status(&mut pending, name, value);
    }
    message::backend_key_data(&mut pending, me.client.pid, &me.client.secret);
    message::ready_for_query(&mut pending, b'I');
    pending.extend_from_slice(&server.unread);
    let relay = async {
        stream.write_all(&pending).await?;
        server.stream.write_all(&unread).await?;
        tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut server.stream, BUFFER, BUFFER).await
    };
    let killed = std::future::poll_fn(|cx| {
        me.client.waker.register(cx.waker());
        if me.client.wish() == Wish::None { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    });
    tokio::select! {
        _ = relay => {}
        () = killed => {}
        // What a primary of the past says is of no use to anybody.
        () = shared.gate.gave_up(generation) => {}
    }
}
