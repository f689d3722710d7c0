//! Who is let in, and how what cannot be understood is refused.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::Api;
use crate::{Alone, TOKEN};

#[test]
fn orders_need_the_token_and_looking_does_not() {
    let alone = Alone::with_token();
    let api = &alone.api;
    let json = "Content-Type: application/json\r\n";
    for wrong in ["", "Authorization: Bearer open-sesamo\r\n", "Authorization: Basic open-sesame\r\n"] {
        let refused = api.send("POST", "/pause", &format!("{json}{wrong}"), Some("{}"));
        assert_eq!(refused.refusal(), (401, "token_required".into()), "{wrong}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        assert!(!refused.body.contains(TOKEN));
    }
    for open in ["/cluster", "/history", "/availability", "/metrics", "/primary", "/health/ready", "/openapi.json"] {
        assert_eq!(api.get(open).status, 200, "{open}");
    }
    assert_eq!(api.order("/resume", "{}").status, 200);
}

#[test]
fn what_cannot_be_understood_is_refused_with_what_would_be() {
    let alone = Alone::without_token();
    let api = &alone.api;
    let json = "Content-Type: application/json\r\n";
    assert_eq!(api.get("/nowhere").refusal(), (404, "unknown_path".into()));
    assert_eq!(api.get("/nodes/n1").refusal(), (404, "unknown_path".into()));
    for (method, path, allowed) in
        [("DELETE", "/cluster", "GET"), ("GET", "/switchover", "POST"), ("PUT", "/primary", "GET")]
    {
        let refused = api.send(method, path, json, Some("{}"));
        assert_eq!(refused.refusal(), (405, "method_not_allowed".into()), "{method} {path}");
        let allow = refused.header("allow").unwrap_or_default();
        assert!(allow.split(',').any(|method| method.trim() == allowed), "{method} {path}: {allow}");
    }
    for path in ["/pause", "/switchover", "/nodes/n2/rejoin", "/nodes/n2/maintenance", "/reload"] {
        for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
            assert_eq!(api.send("POST", path, kind, Some("{}")).refusal(), (415, "bad_request".into()), "{path}");
        }
        assert_eq!(api.order(path, "{").refusal(), (400, "bad_request".into()), "{path}");
        assert_eq!(api.order(path, "{\"too\":\"n2\"}").refusal(), (422, "bad_request".into()), "{path}");
        // Fields without names, in the order of the type.
        for list in ["[]", "[\"n2\"]", "[true]", "null", "1"] {
            assert_eq!(api.order(path, list).refusal(), (422, "bad_request".into()), "{path} {list}");
        }
        let long = format!("{{\"to\":\"{}\"}}", "x".repeat(100_000));
        assert_eq!(api.order(path, &long).refusal(), (413, "too_long".into()), "{path}");
    }
    assert_eq!(api.get("/explain").refusal(), (400, "bad_request".into()));
    assert_eq!(api.get("/explain?sql=SELECT+1&database=nowhere").refusal(), (404, "unknown_database".into()));
    assert_eq!(api.get("/history?limit=many").refusal(), (400, "bad_request".into()));
    assert_eq!(api.get("/availability?window=soon").refusal(), (400, "bad_request".into()));
}

#[test]
fn a_page_elsewhere_orders_nothing_with_or_without_a_token() {
    let json = "Content-Type: application/json\r\n";
    let page = "Origin: http://evil.example\r\n";
    let named = "Host: evil.example:6433\r\n";
    {
        let alone = Alone::without_token();
        let api = &alone.api;
        // By its own name, which points here now, nothing is told either.
        for path in ["/cluster", "/metrics", "/health/live", "/primary"] {
            assert_eq!(api.send("GET", path, named, None).refusal(), (403, "unknown_host".into()), "{path}");
        }
        let rebound = format!("{json}{named}Origin: http://evil.example:6433\r\n");
        assert_eq!(api.send("POST", "/pause", &rebound, Some("{}")).refusal(), (403, "unknown_host".into()));
        let refused = api.send("POST", "/pause", &format!("{json}{page}"), Some("{}"));
        assert_eq!(refused.refusal(), (403, "other_origin".into()));
        assert_eq!(api.get("/cluster").json()["paused"], false, "nothing was ordered");
        // The question a browser asks first is not answered with leave.
        let asked = api.send("OPTIONS", "/pause", &format!("{page}Access-Control-Request-Method: POST\r\n"), None);
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (405, None));
        // Our own page, by whatever name it was opened, and what is no page.
        let own = format!("{json}Host: localhost:1\r\nOrigin: http://localhost:1\r\n");
        assert_eq!(api.send("POST", "/resume", &own, Some("{}")).status, 200);
        assert_eq!(api.send("GET", "/cluster", "Host: pgbaton\r\n", None).status, 200);
        assert_eq!(Api::said(api.address, b"GET /primary HTTP/1.0\r\n\r\n").status, 200);
    }
    let alone = Alone::with_token();
    let bearer = format!("{json}Authorization: Bearer {TOKEN}\r\n");
    let refused = alone.api.send("POST", "/pause", &format!("{bearer}{page}"), Some("{}"));
    assert_eq!(refused.refusal(), (403, "other_origin".into()));
    assert_eq!(alone.api.send("GET", "/cluster", named, None).status, 200, "who has a token has its own name");
    let own = format!("{bearer}{named}Origin: https://evil.example:6433\r\n");
    assert_eq!(alone.api.send("POST", "/resume", &own, Some("{}")).status, 200, "it showed the token");
}

#[test]
fn a_body_that_never_comes_is_not_waited_for() {
    let alone = Alone::without_token();
    let mut stream = TcpStream::connect(alone.api.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head =
        "POST /pause HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let begun = Instant::now();
    let mut answer = [0; 400];
    let read = stream.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("too_slow"), "{answer}");
    assert!(begun.elapsed() > Duration::from_secs(5), "a slow one is not cut off at once");
    assert_eq!(alone.api.get("/cluster").json()["paused"], false);
}
