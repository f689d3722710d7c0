//! The asking side of HTTP: `pgbaton`'s verbs ask a running pgbaton, pgbaton its agents, and these the pgbatons.
//!
//! Plain HTTP, one question per connection. What is on another machine is best reached through a tunnel.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take, all of it; that to an order to pgbaton comes when it has been carried out.
pub const ANSWER: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes.
const LONGEST: usize = 16 * 1024 * 1024;

/// What is said of who asks, in characters.
const LONGEST_NAME: usize = 100;

/// Where a running pgbaton's endpoint is: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    host: String,
    port: u16,
    /// In front of every path, for an endpoint behind something else; without a slash at its end.
    prefix: String,
}

impl FromStr for HttpUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<HttpUrl, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}; expected http://host:port"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("https is not spoken; use http through a tunnel".into()),
            _ => return Err("expected http://host:port".into()),
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or("expected http://host:port")?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err("expected http://host:port, without a user and without a query".into());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(HttpUrl { host, port: authority.port_u16().unwrap_or(80), prefix })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

impl HttpUrl {
    pub fn host(&self) -> &str {
        &self.host
    }

    fn authority(&self) -> String {
        let HttpUrl { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: HttpUrl, reason: String },
    /// Who was asked says no. `code` is for programs.
    #[error("{message}{}{hint}", if hint.is_empty() { "" } else { "\nHint: " })]
    Refused { code: String, message: String, hint: String },
    #[error("{url} does not answer as pgbaton does: {reason}")]
    Strange { url: HttpUrl, reason: String },
    #[error("the question is too long or cannot be sent: {0}")]
    Unsayable(String),
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    #[serde(default)]
    code: String,
    message: String,
    #[serde(default)]
    hint: String,
}

/// Asks for a path with these parameters, and gives the body of a good answer that came within `limit`.
pub async fn get(
    url: &HttpUrl,
    token: Option<&str>,
    path: &str,
    parameters: &[(&str, &str)],
    limit: Duration,
) -> Result<String, ClientError> {
    send(url, token, path, parameters, None, limit).await
}

/// Gives an order, as JSON, and gives the body of a good answer that came within `limit`.
pub async fn post(
    url: &HttpUrl,
    token: Option<&str>,
    path: &str,
    order: String,
    limit: Duration,
) -> Result<String, ClientError> {
    send(url, token, path, &[], Some(order), limit).await
}

async fn send(
    url: &HttpUrl,
    token: Option<&str>,
    path: &str,
    parameters: &[(&str, &str)],
    order: Option<String>,
    limit: Duration,
) -> Result<String, ClientError> {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let target = format!("{}{path}{}{query}", url.prefix, if query.is_empty() { "" } else { "?" });
    let unsayable = |error: &dyn fmt::Display| ClientError::Unsayable(error.to_string());
    let mut request = match order {
        Some(_) => Request::post(target).header(CONTENT_TYPE, "application/json"),
        None => Request::get(target),
    };
    request = request.header(HOST, url.authority()).header(USER_AGENT, user_agent());
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| unsayable(&error))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Full::new(Bytes::from(order.unwrap_or_default()))).map_err(|error| unsayable(&error))?;
    let unreachable = |reason: String| ClientError::Unreachable { url: url.clone(), reason };
    let strange = |reason: String| ClientError::Strange { url: url.clone(), reason };

    let stream = match timeout(CONNECT.min(limit), TcpStream::connect((url.host.as_str(), url.port))).await {
        Ok(connected) => connected.map_err(|error| unreachable(error.to_string()))?,
        Err(_) => return Err(unreachable("no answer".into())),
    };
    let conversation = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what goes wrong is seen in the answer.
        let driving = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await;
        driving.abort();
        Ok::<_, hyper::Error>((head.status, body))
    };
    let answered = timeout(limit, conversation).await;
    let answered = answered.map_err(|_| unreachable(format!("no answer within {} ms", limit.as_millis())))?;
    let (status, body) = answered.map_err(|error| strange(error.to_string()))?;
    let body = body.map_err(|error| strange(error.to_string()))?.to_bytes();
    let body = String::from_utf8(body.into()).map_err(|error| strange(error.to_string()))?;
    if status.is_success() {
        return Ok(body);
    }
    match serde_json::from_str(&body) {
        Ok(ErrorBody { error: ErrorText { code, message, hint } }) => Err(ClientError::Refused { code, message, hint }),
        Err(_) => Err(strange(format!("status {status}"))),
    }
}

/// Who asks: `pgbaton/0.1.0 (alice@host)`, for the log of who is asked. Whoever became root by sudo is still who they were.
fn user_agent() -> &'static str {
    static WHO: OnceLock<String> = OnceLock::new();
    WHO.get_or_init(|| {
        let mut names = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
        let name = names.find(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let text = format!("pgbaton/{} ({name}@{host})", env!("CARGO_PKG_VERSION"));
        // What a header can hold.
        text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(LONGEST_NAME).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_people_write_it() {
        let shown = |text: &str| text.parse::<HttpUrl>().map(|url| url.to_string());
        assert_eq!(shown("http://127.0.0.1:6433").as_deref(), Ok("http://127.0.0.1:6433"));
        assert_eq!(shown("http://[::1]:6433/").as_deref(), Ok("http://[::1]:6433"));
        assert_eq!(shown("http://db/pgbaton/").as_deref(), Ok("http://db:80/pgbaton"));
        for wrong in ["127.0.0.1:6433", "https://db:6433", "http://", "", "http://me:secret@db", "http://db?x=1", "db"]
        {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
        assert!(shown("https://db").unwrap_err().contains("tunnel"));
    }
}
