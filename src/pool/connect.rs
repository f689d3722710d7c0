//! stub
use crate::auth::Credential;
use crate::net::*;
use crate::types::NodeAddress;
use crate::wire::*;
use std::time::Duration;
use tokio::io::*;
pub struct ConnectRequest<'a> {
    pub address: &'a NodeAddress,
    pub tls: &'a NodeTls,
    pub user: &'a str,
    pub database: &'a str,
    pub startup: &'a [(Box<str>, Box<str>)],
    pub credential: &'a Credential,
    pub timeout: Duration,
}
#[derive(Debug)]
pub struct Connected {
    pub stream: Stream,
    pub pid: u32,
    pub cancel_key: Vec<u8>,
    pub parameters: Vec<(String, String)>,
    pub unread: Vec<u8>,
}
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("io {0}")]
    Io(#[from] std::io::Error),
    #[error("server")]
    Server { body: Vec<u8>, sqlstate: String },
    #[error("nocred")]
    NoCredential { role: String },
}
pub async fn connect(r: &ConnectRequest<'_>) -> std::result::Result<Connected, ConnectError> {
    let s = tokio::net::TcpStream::connect((r.address.host.as_str(), r.address.port)).await?;
    s.set_nodelay(true)?;
    let mut s = Stream::Tcp(s);
    let mut b = Vec::new();
    b.extend_from_slice(&196608u32.to_be_bytes());
    for (k, v) in
        [("user", r.user), ("database", r.database)].into_iter().chain(r.startup.iter().map(|(a, b)| (&**a, &**b)))
    {
        b.extend_from_slice(k.as_bytes());
        b.push(0);
        b.extend_from_slice(v.as_bytes());
        b.push(0);
    }
    b.push(0);
    let mut o = ((b.len() + 4) as u32).to_be_bytes().to_vec();
    o.extend(b);
    s.write_all(&o).await?;
    let mut buf = Vec::new();
    let mut c = (0, vec![], vec![]);
    loop {
        if let Ok(Some(h)) = frame::header(&buf)
            && buf.len() >= h.total
        {
            let f: Vec<u8> = buf.drain(..h.total).collect();
            let body = &f[5..];
            match h.tag {
                b'E' => return Err(ConnectError::Server { body: body.to_vec(), sqlstate: "".into() }),
                b'S' => {
                    let (n, v) = fields::parameter_status(body).unwrap();
                    c.2.push((String::from_utf8_lossy(n).into(), String::from_utf8_lossy(v).into()))
                }
                b'K' => {
                    c.0 = u32::from_be_bytes(body[..4].try_into().unwrap());
                    c.1 = body[4..].to_vec()
                }
                b'Z' => return Ok(Connected { stream: s, pid: c.0, cancel_key: c.1, parameters: c.2, unread: buf }),
                _ => {}
            }
            continue;
        }
        if s.read_buf(&mut buf).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}
pub async fn send_cancel(
    a: &NodeAddress,
    _t: &NodeTls,
    pid: u32,
    key: &[u8],
    _d: Duration,
) -> std::result::Result<(), ConnectError> {
    let mut s = tokio::net::TcpStream::connect((a.host.as_str(), a.port)).await?;
    let mut o = (12 + key.len() as u32).to_be_bytes().to_vec();
    o.extend(80877102u32.to_be_bytes());
    o.extend(pid.to_be_bytes());
    o.extend(key);
    s.write_all(&o).await?;
    let mut v = vec![];
    s.read_to_end(&mut v).await?;
    Ok(())
}
