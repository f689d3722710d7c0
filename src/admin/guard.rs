//! Who may order something over HTTP: the token, and that no page in somebody's browser can.
//!
//! A browser sends a page's requests from inside the network it is in. Three things stand between such a page and an order: an
//! order is JSON by its Content-Type, which a page of another origin may not send without asking first, and nobody here
//! answers that question (`orders`); what has an `Origin` has to be of the origin it asks; and where no token is needed, who asks
//! has to call this place by a name that nobody else can give it, or a page could have its own name point here (DNS rebinding).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::asked::{Who, refused_token};
use super::http::{Api, Refused};
use crate::net::endpoint;

/// What the doctor finds helps whoever wants to break in, and costs the nodes some work.
pub(super) const TOLD_WITH_TOKEN: &str = "/doctor";

/// In front of every path. OPTIONS is what load balancers look with.
pub(super) async fn check(State(api): State<Arc<Api>>, request: Request, next: Next) -> Result<Response, Refused> {
    let headers = request.headers();
    let orders = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    match &api.token {
        None => check_host(headers)?,
        // What the doctor finds helps whoever wants to break in, and costs the nodes some work.
        Some(token)
            if (orders || request.uri().path() == "/doctor")
                && !endpoint::shows(headers, token.reveal().as_bytes()) =>
        {
            refused_token(&Who::of(&request), request.uri().path());
            let hint = "Send it as Authorization: Bearer …; pgbaton's own commands take it from PGBATON_TOKEN.";
            let message = "this needs the token of [admin]";
            return Err(Refused::new(StatusCode::UNAUTHORIZED, "token_required", message, hint));
        }
        Some(_) => {}
    }
    if orders {
        check_origin(headers)?;
    }
    Ok(next.run(request).await)
}

/// Without a token: a name with a dot in it may be anybody's, and point here only for as long as somebody looks at their page.
/// HTTP/1.0 need not say a name; no browser speaks it.
fn check_host(headers: &HeaderMap) -> Result<(), Refused> {
    let Some(host) = headers.get(header::HOST) else { return Ok(()) };
    let is_ours = host.to_str().is_ok_and(is_known_name);
    is_ours.then_some(()).ok_or_else(|| {
        let hint = "Ask it at an address, as localhost, or by a name without a dot; or set admin.token.";
        let message = "without a token this is not told to whoever calls it by that name";
        Refused::new(StatusCode::FORBIDDEN, "unknown_host", message, hint)
    })
}

/// An address or a name that no stranger can have: one without a dot, or below localhost.
fn is_known_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.');
    name.parse::<IpAddr>().is_ok() || !name.contains('.') || name.to_ascii_lowercase().ends_with(".localhost")
}

/// A browser says from where a page sends an order; our own page is where the order goes.
fn check_origin(headers: &HeaderMap) -> Result<(), Refused> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_ours = origin.is_some() && origin == host;
    is_ours.then_some(()).ok_or_else(|| {
        let hint = "A proxy in front of pgbaton has to pass on the Host that the browser asked for.";
        Refused::new(StatusCode::FORBIDDEN, "other_origin", "a page from elsewhere may not order anything", hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_may_be_anybodys_is_not_ours() {
        for ours in [
            "127.0.0.1:6433",
            "127.0.0.1",
            "[::1]:6433",
            "[::1]",
            "localhost",
            "LOCALHOST:6433",
            "app.localhost:1",
            "pgbaton:6433",
            "10.1.2.3:80",
        ] {
            assert!(is_known_name(ours), "{ours}");
        }
        for other in
            ["evil.example", "evil.example:6433", "127.0.0.1.evil.example", "localhost.evil.example.", "a.local"]
        {
            assert!(!is_known_name(other), "{other}");
        }
    }

    #[test]
    fn an_order_of_a_page_has_to_come_from_where_it_goes() {
        let check = |host: &'static str, origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            check_origin(&headers).is_ok()
        };
        assert!(check("db:6433", "http://db:6433"));
        assert!(check("db.example", "https://db.example"));
        for other in ["http://evil.example", "null", "http://db:6434", "http://db:6433.evil.example", ""] {
            assert!(!check("db:6433", other), "{other}");
        }
        assert!(check_origin(&HeaderMap::new()).is_ok(), "who is no browser says nothing of an origin");
    }
}
