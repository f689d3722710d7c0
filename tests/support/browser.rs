//! A headless browser, told what to do by WebDriver (<https://www.w3.org/TR/webdriver2/>): Chromium and its chromedriver, where
//! they are installed.

#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

/// How long the page may take to show something on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);
const DRIVERS: [&str; 2] = ["chromedriver", "chromium.chromedriver"];
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What kind of key an element's name is under.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Its profile, gone with it.
    _home: tempfile::TempDir,
}

fn in_path(names: &[&str]) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let directories: Vec<_> = std::env::split_paths(&path).collect();
    names.iter().find_map(|name| directories.iter().map(|directory| directory.join(name)).find(|file| file.is_file()))
}

impl Browser {
    /// `None` where there is no browser, which is said.
    pub fn start() -> Option<Browser> {
        let (Some(driver), Some(browser)) = (in_path(&DRIVERS), in_path(&BROWSERS)) else {
            eprintln!("not run: this needs chromium and chromedriver (./setup.sh test)");
            return None;
        };
        let home = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(driver)
            .arg(format!("--port={port}"))
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut this = Browser { driver: child, port, session: String::new(), _home: home };
        super::wait_until(LIMIT, "chromedriver answers", || {
            this.request("GET", "/status", None).is_ok_and(|status| status["ready"] == true)
        });
        let profile = this._home.path().join("profile");
        // Root has no sandbox to put it in; /dev/shm is small in containers.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments, "binary": browser },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let session = this.request("POST", "/session", Some(&wanted)).unwrap_or_else(|error| panic!("{error}"));
        this.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        Some(this)
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map_or(String::new(), Value::to_string);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let question = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(question.as_bytes()).map_err(|error| error.to_string())?;
        // It keeps the connection open, whatever it is asked to do.
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).map_err(|error| error.to_string())?;
            if line.len() <= 2 {
                break;
            }
            if let Some(told) = line.to_lowercase().strip_prefix("content-length:") {
                length = told.trim().parse().map_err(|_| line.clone())?;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(&body);
        let mut body: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if head.starts_with("HTTP/1.1 200") { Ok(body["value"].take()) } else { Err(body["value"].to_string()) }
    }

    #[track_caller]
    fn order(&self, path: &str, body: Value) -> Value {
        let done = self.request("POST", &format!("{}{path}", self.session), Some(&body));
        done.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    #[track_caller]
    pub fn open(&self, url: &str) {
        self.order("/url", json!({ "url": url }));
    }

    /// Runs JavaScript in the page, of which this is the body of a function.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.order("/execute/sync", json!({ "script": script, "args": [] }))
    }

    #[track_caller]
    fn find(&self, css: &str) -> String {
        let found = self.order("/element", json!({ "using": "css selector", "value": css }));
        format!("/element/{}", found[ELEMENT].as_str().unwrap())
    }

    /// As a person does: it has to be there to be seen, and nothing may lie over it.
    #[track_caller]
    pub fn click(&self, css: &str) {
        let element = self.find(css);
        self.order(&format!("{element}/click"), json!({}));
    }

    #[track_caller]
    pub fn write(&self, css: &str, text: &str) {
        let element = self.find(css);
        self.order(&format!("{element}/value"), json!({ "text": text }));
    }

    /// What can be read there; empty where there is nothing.
    #[track_caller]
    pub fn text(&self, css: &str) -> String {
        let css = Value::from(css);
        let text = self.run(&format!("return [...document.querySelectorAll({css})].map(e => e.innerText).join('\\n')"));
        text.as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, css: &str, what: &str) -> String {
        let mut text = String::new();
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            text = self.text(css);
            if text.contains(what) {
                return text;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{css} does not say {what:?} but {text:?}\n{:?}", self.complaints());
    }

    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.order("/goog/cdp/execute", json!({ "cmd": command, "params": parameters }))
    }

    pub fn size(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", size);
    }

    /// `light` or `dark`.
    pub fn scheme(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features);
    }

    /// Writes a picture of the whole page, however long, into `target/tmp`.
    pub fn picture(&self, name: &str, width: u32) {
        self.size(width, 800);
        let height = self.run("return document.documentElement.scrollHeight").as_u64().unwrap();
        self.size(width, u32::try_from(height).unwrap());
        // Two frames: it is drawn as it is now.
        let drawn = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))";
        self.order("/execute/async", json!({ "script": drawn, "args": [] }));
        let picture = self.devtools("Page.captureScreenshot", json!({ "format": "png" }));
        let picture = base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), picture).unwrap();
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.order("/se/log", json!({ "type": kind }));
        log.as_array().cloned().unwrap_or_default()
    }

    /// What its console says since it was last asked.
    pub fn complaints(&self) -> Vec<String> {
        self.log("browser").iter().map(|line| line["message"].to_string()).collect()
    }

    /// Every URL that it has asked for since this was last asked.
    pub fn requests(&self) -> Vec<String> {
        let messages = self.log("performance").into_iter().filter_map(|line| {
            let message: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let is_request = message["message"]["method"] == "Network.requestWillBeSent";
            is_request.then(|| message["message"]["params"]["request"]["url"].as_str().map(str::to_owned))?
        });
        messages.collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends the browser, and all of its processes.
            let _ = self.request("DELETE", &self.session, None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
