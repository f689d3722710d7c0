use pgbaton::{
    net::*,
    pool::*,
    session::{self, login::LoginContext, shared::*},
    types::*,
};
use std::sync::Arc;
use std::time::Duration;
fn main() {
    let node: u16 = std::env::var("NODE").unwrap().parse().unwrap();
    let port = std::env::var("PORT").unwrap();
    let size: usize = std::env::var("SIZE").unwrap_or("20".into()).parse().unwrap();
    let workers: usize = std::env::var("WORKERS").unwrap_or("2".into()).parse().unwrap();
    let v = Arc::new(NodeView {
        address: NodeAddress { id: "n1".into(), host: "127.0.0.1".into(), port: node },
        role: Role::Primary,
        timeline: Timeline(1),
        lsn: Lsn(0),
        system_identifier: 1,
        reason: String::new(),
    });
    let (_tx, rx) = tokio::sync::watch::channel(Arc::new(Topology {
        version: 1,
        nodes: vec![v],
        primary: Some(0),
        reason: String::new(),
    }));
    let pools = Pools::new(
        Limits {
            pool_size: size,
            wait: Duration::from_secs(30),
            login_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(600),
            lifetime: Duration::from_secs(3600),
        },
        Arc::new(NodeTls),
        workers,
    );
    let shared = Arc::new(Shared::new(
        Settings {
            session_mode: false,
            max_clients: 10000,
            max_prepared: 500,
            max_inspect: 1 << 20,
            hold: Duration::from_secs(30),
        },
        LoginContext,
        pools,
        rx,
        Default::default(),
        Box::new(|_, _| {}),
    ));
    let mut txs = vec![];
    for w in 0..workers {
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel::<std::net::TcpStream>();
        txs.push(tx);
        let shared = shared.clone();
        std::thread::spawn(move || {
            let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            rt.block_on(async move {
                while let Some(s) = rx.recv().await {
                    let s = tokio::net::TcpStream::from_std(s).unwrap();
                    s.set_nodelay(true).unwrap();
                    let sh = shared.clone();
                    tokio::spawn(async move {
                        session::serve(Stream::Tcp(s), "x".into(), sh, w).await;
                    });
                }
            })
        });
    }
    let l = std::net::TcpListener::bind(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
    let mut i = 0;
    loop {
        let (s, _) = l.accept().unwrap();
        s.set_nonblocking(true).unwrap();
        txs[i % workers].send(s).unwrap();
        i += 1;
    }
}
