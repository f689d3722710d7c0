//! The answering side of HTTP, as pgbaton's admin endpoint and its agents have it in common: connections within bounds, the
//! token, and errors that are `{"error":{"code","message","hint"}}`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::impatient::{self, Impatient};

/// Connections served at once; the next one waits to be accepted. Monitoring and load balancers need a handful.
const CONNECTIONS: usize = 256;

/// How long the head of a request may take, also on a connection kept open for the next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest body of a request, in bytes: an order has some hundred.
pub const LONGEST_BODY: usize = 64 * 1024;

/// How long the body of a request may take. It is read before anything is made of the request.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when no connection can be accepted: trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, router: Router) {
    let router = router.layer(middleware::from_fn(take_body));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // Never closed.
    while let Ok(place) = room.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve_connection(stream, Caller(peer), router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "the endpoint could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Where a request comes from: an extension of each.
#[derive(Clone, Copy, Debug)]
pub struct Caller(pub SocketAddr);

async fn serve_connection(stream: TcpStream, caller: Caller, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller);
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(Impatient::new(stream, impatient::UNREAD)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the endpoint ended early");
    }
}

/// Reads the body within its bounds, so that no handler waits for one.
async fn take_body(request: Request, next: Next) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let hint = "An order has some hundred bytes of JSON.";
    let refused = |status, code, message: String| Err(Refused::new(status, code, message, hint));
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, LONGEST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(next.run(Request::from_parts(head, Body::from(body.to_bytes()))).await),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body has more than {LONGEST_BODY} bytes");
            refused(StatusCode::PAYLOAD_TOO_LARGE, "too_long", message)
        }
        Ok(Err(error)) => refused(StatusCode::BAD_REQUEST, "bad_request", format!("the body cannot be read: {error}")),
        Err(_) => {
            let message = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
            refused(StatusCode::REQUEST_TIMEOUT, "too_slow", message)
        }
    }
}

/// What went wrong, for people and programs.
pub struct Refused {
    status: StatusCode,
    /// For programs; never changes its meaning.
    code: &'static str,
    message: String,
    hint: &'static str,
}

impl Refused {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>, hint: &'static str) -> Refused {
        Refused { status, code, message: message.into(), hint }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused { status, code, message, hint } = self;
        let body = serde_json::json!({ "error": { "code": code, "message": message, "hint": hint } });
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Whether a request shows this token. Takes as long for a wrong one as for the right one.
pub fn shows(headers: &HeaderMap, token: &[u8]) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    given.is_some_and(|given| bool::from(subtle::ConstantTimeEq::ct_eq(given, token)))
}
