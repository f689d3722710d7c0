//! `GET /`: the dashboard, a page of plain HTML, CSS and JavaScript that lives on `GET /events` and the other paths of this endpoint.
//!
//! Its files are part of the program: there is no build step, nothing is loaded from elsewhere, and the Content-Security-Policy
//! sees to that. What the page shows is hostile (reasons that servers gave, names, SQL): it goes into it as text only.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::http::{Api, Refused};

/// Own files only; no inline script or style, no frame around it, no form that is sent anywhere.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

struct File {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const PAGE: File = File { name: "index.html", kind: HTML, text: include_str!("index.html") };

/// What the page asks for, below `/dashboard/`.
const FILES: [File; 10] = [
    File { name: "style.css", kind: CSS, text: include_str!("style.css") },
    File { name: "icon.svg", kind: "image/svg+xml", text: include_str!("icon.svg") },
    File { name: "app.js", kind: SCRIPT, text: include_str!("app.js") },
    File { name: "words.js", kind: SCRIPT, text: include_str!("words.js") },
    File { name: "feed.js", kind: SCRIPT, text: include_str!("feed.js") },
    File { name: "topology.js", kind: SCRIPT, text: include_str!("topology.js") },
    File { name: "traffic.js", kind: SCRIPT, text: include_str!("traffic.js") },
    File { name: "past.js", kind: SCRIPT, text: include_str!("past.js") },
    File { name: "explain.js", kind: SCRIPT, text: include_str!("explain.js") },
    File { name: "orders.js", kind: SCRIPT, text: include_str!("orders.js") },
];

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/", get(page)).route("/dashboard/{file}", get(file))
}

async fn page() -> Response {
    answer(&PAGE)
}

async fn file(Path(name): Path<String>) -> Result<Response, Refused> {
    let known = FILES.iter().find(|file| file.name == name);
    let hint = "The dashboard is at /.";
    known.map(answer).ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, "unknown_path", "there is no such file", hint))
}

fn answer(file: &File) -> Response {
    let text = HeaderValue::from_static;
    let headers = [
        (header::CONTENT_TYPE, text(file.kind)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, text("nosniff")),
        (header::X_FRAME_OPTIONS, text("DENY")),
        (header::REFERRER_POLICY, text("no-referrer")),
        // Another pgbaton may answer at this address tomorrow.
        (header::CACHE_CONTROL, text("no-cache")),
    ];
    (headers, file.text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_page_names_is_there_and_nothing_is_put_into_it_as_markup() {
        let names: Vec<_> = FILES.iter().map(|file| file.name).collect();
        for file in FILES.iter().chain([&PAGE]) {
            let named = file.text.split(['"', '\'']).filter(|word| word.ends_with(".js") || word.ends_with(".css"));
            for word in named {
                let name = word.trim_start_matches("dashboard/").trim_start_matches("./");
                assert!(names.contains(&name), "{} names {word}", file.name);
            }
            // The one address is the name of SVG's elements.
            for way in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://", "localStorage"]
            {
                assert!(!file.text.contains(way), "{} has {way}", file.name);
            }
            assert_eq!(file.text.matches("http://").count(), file.text.matches("http://www.w3.org/2000/svg").count());
        }
        let is_inline = |word: &str| word.starts_with("on") && word.contains('=');
        assert!(!PAGE.text.contains("<style") && !PAGE.text.contains(" style="));
        assert!(!PAGE.text.split_whitespace().any(is_inline));
        assert_eq!(PAGE.text.matches("<script").count(), PAGE.text.matches("<script type=\"module\" src=").count());
    }
}
