//! stub
use crate::auth::Credential;
use crate::net::Stream;
use tokio::io::*;
pub type Peer = String;
pub struct LoginContext;
pub struct Client {
    pub stream: Stream,
    pub unread: Vec<u8>,
    pub pending: Vec<u8>,
    pub user: String,
    pub database: String,
    pub startup: Vec<(Box<str>, Box<str>)>,
    pub protocol_minor: u16,
    pub credential: Credential,
    pub tls: bool,
    pub peer: Peer,
    pub replication: Option<String>,
}
pub enum Admitted {
    Cancel { pid: u32, secret: Vec<u8> },
    Client(Box<Client>),
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct LoginFailure;
pub async fn admit(mut s: Stream, peer: Peer, _c: &LoginContext) -> std::result::Result<Admitted, LoginFailure> {
    loop {
        let mut h = [0; 8];
        s.read_exact(&mut h).await.map_err(|_| LoginFailure)?;
        let n = u32::from_be_bytes(h[..4].try_into().unwrap()) as usize;
        let code = u32::from_be_bytes(h[4..].try_into().unwrap());
        let mut b = vec![0; n - 8];
        s.read_exact(&mut b).await.map_err(|_| LoginFailure)?;
        if code == 80877102 {
            return Ok(Admitted::Cancel {
                pid: u32::from_be_bytes(b[..4].try_into().unwrap()),
                secret: b[4..].to_vec(),
            });
        }
        if code == 80877103 || code == 80877104 {
            s.write_all(b"N").await.unwrap();
            continue;
        }
        let mut it = b.split(|x| *x == 0).map(|x| String::from_utf8_lossy(x).to_string());
        let (mut u, mut d, mut r, mut st) = (String::new(), None, None, vec![]);
        while let Some(k) = it.next() {
            if k.is_empty() {
                break;
            }
            let v = it.next().unwrap();
            match k.as_str() {
                "user" => u = v,
                "database" => d = Some(v),
                "replication" => r = Some(v),
                _ => st.push((k.into(), v.into())),
            }
        }
        let d = d.unwrap_or(u.clone());
        return Ok(Admitted::Client(Box::new(Client {
            stream: s,
            unread: vec![],
            pending: vec![],
            user: u,
            database: d,
            startup: st,
            protocol_minor: 0,
            credential: Credential::None,
            tls: false,
            peer,
            replication: r,
        })));
    }
}
