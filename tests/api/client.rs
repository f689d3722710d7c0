//! Asks over HTTP, byte by byte where it matters, and holds every answer against the description.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::schema;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Api {
    pub address: SocketAddr,
    token: Option<String>,
    description: OnceLock<Value>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let told = self.json();
        for key in ["code", "message", "hint"] {
            assert!(told["error"][key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {told}");
        }
        (self.status, told["error"]["code"].as_str().unwrap().to_owned())
    }

    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

impl Api {
    pub fn new(address: SocketAddr, token: Option<&str>) -> Api {
        Api { address, token: token.map(str::to_owned), description: OnceLock::new() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", None)
    }

    /// An order as it should be: with the token, and as JSON.
    pub fn order(&self, path: &str, body: &str) -> Answer {
        let token = self.token.as_ref().map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        self.send("POST", path, &format!("{token}Content-Type: application/json\r\n"), Some(body))
    }

    /// `headers`: whole lines; a Host that is given replaces the right one.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: Option<&str>) -> Answer {
        let answer = self.raw(method, path, headers, body);
        if method != "HEAD" {
            self.check(method, path, &answer);
        }
        answer
    }

    fn raw(&self, method: &str, path: &str, headers: &str, body: Option<&str>) -> Answer {
        let host = if headers.contains("Host:") { String::new() } else { format!("Host: {}\r\n", self.address) };
        let length = body.map_or(String::new(), |body| format!("Content-Length: {}\r\n", body.len()));
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{length}{headers}\r\n{}",
            body.unwrap_or_default()
        );
        Api::said(self.address, request.as_bytes())
    }

    /// What is answered to these bytes.
    pub fn said(address: SocketAddr, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // One that refuses may not read it all.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn description(&self) -> &Value {
        self.description.get_or_init(|| self.raw("GET", "/openapi.json", "", None).json())
    }

    /// The answer is one that the description has.
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let description = self.description();
        let mut schema = Value::from("#/components/schemas/Error");
        if let Some((template, operations)) = found(description, path)
            && let Some(operation) = operations.get(method.to_ascii_lowercase())
        {
            let responses = &operation["responses"];
            let expected = &responses[answer.status.to_string()];
            assert!(!expected.is_null(), "{method} {template} is not described to answer {answer:?}");
            let content = &expected["content"];
            let Some((media, content)) = content.as_object().and_then(|content| content.iter().next()) else {
                assert_eq!(answer.body, "", "{method} {path} has no body");
                return;
            };
            let kind = answer.header("content-type").unwrap_or_default();
            assert!(media == "*/*" || kind.starts_with(media.as_str()), "{method} {path}: {kind}");
            if media != "application/json" {
                return;
            }
            schema = content["schema"]["$ref"].clone();
        } else {
            assert!(answer.status >= 400, "{method} {path} is not described: {answer:?}");
        }
        schema::check(description, &serde_json::json!({ "$ref": schema }), &answer.json());
    }
}

/// The template in the description that this path is of: the one with the fewest places to fill in.
fn found<'d>(description: &'d Value, path: &str) -> Option<(&'d str, &'d Value)> {
    let parts: Vec<&str> = path.split('/').collect();
    let matches = |template: &str| {
        let template: Vec<&str> = template.split('/').collect();
        template.len() == parts.len()
            && template.iter().zip(&parts).all(|(wanted, part)| wanted == part || wanted.starts_with('{'))
    };
    let paths = description["paths"].as_object().unwrap();
    paths.iter().find(|(template, _)| matches(template)).map(|(template, operations)| (template.as_str(), operations))
}
