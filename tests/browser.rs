//! The dashboard in a real browser, before a real cluster: what it shows, what can be clicked, and what it does not let in.
//!
//! Pictures of what was seen are in `target/tmp/dashboard*.png`.

mod support;
#[path = "support/browser.rs"]
mod webdriver;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use support::{ProxySettings, wait_until};
use webdriver::{Browser, LIMIT};

const TOKEN: &str = "open-\"sesame\"";

/// A demo with three nodes and their agents, whose orders want a token.
struct Demo {
    child: Child,
    admin: String,
    psql: String,
    directory: tempfile::TempDir,
}

impl Demo {
    fn start() -> Demo {
        let directory = tempfile::tempdir().unwrap();
        support::set_mode(directory.path(), 0o755);
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--dir"]);
        command.arg(directory.path().join("d")).env("PGBATON_TOKEN", TOKEN);
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut demo = Demo { child, admin: String::new(), psql: String::new(), directory };
        for line in lines.by_ref() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("dashboard") => demo.admin = words.next().unwrap().trim_end_matches('/').to_owned(),
                Some("PGPASSWORD=demo") if demo.psql.is_empty() => demo.psql = line.trim().to_owned(),
                Some("Ctrl-C") => break,
                _ => {}
            }
        }
        assert!(!demo.admin.is_empty() && !demo.psql.is_empty(), "the demo is not up");
        // It says more when it ends, to nobody.
        std::thread::spawn(move || lines.for_each(drop));
        demo
    }

    fn psql(&self, sql: &str) {
        let path = format!("{}:{}", support::bin().directory().display(), std::env::var("PATH").unwrap());
        let line = format!("{} -XAtqc \"{sql}\"", self.psql);
        let output = Command::new("sh").args(["-c", &line]).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn kill(&self, node: &str) {
        let file = self.directory.path().join(format!("d/{node}/data/postmaster.pid"));
        let pid = std::fs::read_to_string(file).unwrap().lines().next().unwrap().parse().unwrap();
        support::send(pid, Signal::KILL);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("d/log/pgbaton.log")).unwrap_or_default();
            eprintln!("{}", log.lines().rev().take(40).collect::<Vec<_>>().join("\n"));
        }
        support::send(self.child.id(), Signal::TERM);
        support::wait_for_end(&mut self.child, LIMIT);
    }
}

const PRIMARY: &str = ".node.primary.leader h3";

/// A standby that may become the primary, by what its card says.
#[track_caller]
fn candidate(browser: &Browser) -> String {
    let mut id = String::new();
    wait_until(LIMIT, "a node may be promoted", || {
        id = browser.text(".node.follower:has(.promote:enabled) h3").lines().next().unwrap_or_default().to_owned();
        !id.is_empty()
    });
    id
}

/// Everything runs and follows.
#[track_caller]
fn wait_until_whole(browser: &Browser) {
    wait_until(LIMIT, "all nodes run", || {
        browser.run("return document.querySelectorAll('.node.running .reads.good').length") == 3
            && browser.run("return document.querySelectorAll('.node.follower .promote:enabled').length") == 2
    });
}

#[test]
fn the_dashboard_of_a_cluster_that_changes_hands() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    demo.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    browser.size(1280, 900);
    browser.scheme("light");
    browser.open(&format!("{}/", demo.admin));
    browser.wait_for("#connection", "live");
    browser.run("window.isTheSamePage = true");
    wait_until_whole(&browser);
    for node in ["n1", "n2", "n3"] {
        browser.wait_for(".node h3", node);
    }
    let first = browser.text(PRIMARY);
    browser.wait_for("#facts", "quorum");
    browser.wait_for("#availability", "%");
    browser.wait_for("#routes", "→ primary");
    browser.wait_for("#pools", "demo");

    a_statement_is_explained(&browser);
    orders_want_the_token(&browser);

    // A switchover by clicking, to the node that is named, and the page follows.
    let next = candidate(&browser);
    assert_ne!(next, first);
    browser.run(&format!(
        "[...document.querySelectorAll('.node')].find(card => card.ariaLabel === '{next}').querySelector('.promote').click()"
    ));
    browser.wait_for("#order", "stopped cleanly");
    browser.click("#order-go");
    browser.wait_for(PRIMARY, &next);
    browser.wait_for("#order-said", "Done");
    browser.click("#order-cancel");
    browser.wait_for("#past .epoch", "switchover");
    wait_until_whole(&browser);

    // The primary dies: somebody else is it, and the past says how that went.
    demo.kill(&next);
    wait_until(LIMIT, "another one takes over", || {
        let primary = browser.text(PRIMARY);
        !primary.is_empty() && primary != next
    });
    let past = browser.wait_for("#past .epoch", "failover");
    assert!(past.contains("detect") && past.contains("promote") && past.contains("no writes for"), "{past}");
    wait_until_whole(&browser);
    browser.wait_for("#past .repair", &next);
    assert_eq!(browser.run("return window.isTheSamePage"), true, "the page was loaded again");

    it_fits_and_follows_the_scheme(&browser);
    let complaints = browser.complaints();
    assert_eq!(complaints.len(), 2, "but for the two orders without the token: {complaints:?}");
    assert!(complaints.iter().all(|line| line.contains("401")), "{complaints:?}");
    let (here, elsewhere): (Vec<String>, Vec<String>) =
        browser.requests().into_iter().partition(|url| url.starts_with(&demo.admin));
    assert!(here.iter().any(|url| url.ends_with("/events")), "{here:?}");
    // Its own first page apart.
    let elsewhere: Vec<_> =
        elsewhere.iter().filter(|url| !url.starts_with("chrome:") && !url.starts_with("data:")).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

#[track_caller]
fn a_statement_is_explained(browser: &Browser) {
    browser.write("#sql", "INSERT INTO t VALUES (2)");
    browser.click("#explain button");
    let said = browser.wait_for("#explanation", "goes to the primary");
    assert!(said.contains("writes"), "{said}");
    browser.run("document.getElementById('sql').value = ''");
    browser.write("#sql", "SELECT count(*) FROM t");
    browser.click("#explain button");
    let said = browser.wait_for("#explanation", "goes to a replica");
    assert!(said.contains("is the primary") && said.contains("may serve it"), "{said}");
}

#[track_caller]
fn orders_want_the_token(browser: &Browser) {
    browser.click("#pause");
    browser.wait_for("#order", "whatever happens to it");
    browser.click("#order-go");
    browser.wait_for("#order-said", "wants to see its token");
    browser.write("#order-token input", "wrong");
    browser.click("#order-go");
    browser.wait_for("#order-said", "That is not its token");
    browser.write("#order-token input", TOKEN);
    browser.click("#order-go");
    browser.wait_for("#order-said", "Done");
    browser.wait_for("#facts", "paused");
    browser.wait_for("#banner", "paused");
    browser.click("#order-cancel");
    // It is remembered for this tab, and nowhere else.
    let kept = browser.run("return [Object.values(sessionStorage), localStorage.length, document.cookie]");
    assert_eq!(kept, serde_json::json!([[TOKEN], 0, ""]));
    browser.click("#pause");
    browser.click("#order-go");
    browser.wait_for("#order-said", "Done");
    browser.wait_for("#facts", "automatic");
    browser.click("#order-cancel");
}

#[track_caller]
fn it_fits_and_follows_the_scheme(browser: &Browser) {
    let colour = || browser.run("return getComputedStyle(document.documentElement).backgroundColor");
    let light = colour();
    browser.picture("dashboard.png", 1280);
    browser.scheme("dark");
    assert_ne!(colour(), light);
    browser.picture("dashboard-dark.png", 1280);
    browser.scheme("light");
    browser.picture("dashboard-phone.png", 360);
    let widths = browser.run("return [document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]");
    assert_eq!(widths, serde_json::json!([360, 360, 360]));
    // Everything that acts can be named by who does not see it.
    let nameless = browser.run(
        "return [...document.querySelectorAll('button, input, textarea, [role=img]')].filter(e => !e.closest('[hidden]') && \
         !(e.ariaLabel || e.innerText || e.labels?.length)).map(e => e.outerHTML)",
    );
    assert_eq!(nameless, serde_json::json!([]));
}

const HOSTILE: &str =
    "<img src=x onerror=\"document.body.dataset.got='in'\"><script>document.body.dataset.got='in'</script>";

/// Says this to everybody who comes, as PostgreSQL says an error.
fn hostile_node() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 8];
            let _ = stream.read_exact(&mut head);
            if head[4..] == [4, 210, 22, 47] {
                // No TLS here.
                let _ = stream.write_all(b"N").and_then(|()| stream.read_exact(&mut head));
            }
            let fields = format!("SFATAL\0VFATAL\0C28000\0M{HOSTILE}\0\0");
            let length = u32::try_from(fields.len() + 4).unwrap();
            let _ = stream.write_all(&[b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat());
        }
    });
    port
}

#[test]
fn what_others_write_is_text_and_a_lost_connection_is_told() {
    let Some(browser) = Browser::start() else { return };
    let cluster = support::shared_cluster();
    let sections = format!(
        "[failover]\nautomatic = false\n[[cluster.nodes]]\nid = \"evil\"\nhost = \"127.0.0.1\"\nport = {}\n",
        hostile_node()
    );
    let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = ProxySettings { admin: admin.to_string(), sections, ..Default::default() };
    let mut proxy = support::InProcess::start(cluster, &settings);
    proxy.psql().ok(&["SELECT 1"]);
    browser.open(&format!("http://{admin}/"));
    browser.wait_for("#connection", "live");
    browser.wait_for(".node[aria-label=evil]", "<img src=x onerror=");
    browser.write("#sql", &format!("SELECT \"{}\"()", HOSTILE.replace('"', "\"\"")));
    browser.click("#explain button");
    browser.wait_for("#explanation", "<img src=x");
    assert_eq!(browser.run("return document.querySelectorAll('img, body script').length"), 0);

    // Nor would it do anything if it were in: the policy is in force.
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'document.body.dataset.got = \"in\"'; \
         document.body.append(script); const image = new Image(); image.src = 'http://127.0.0.2:9/x.png'; document.body.append(image);",
    );
    assert_eq!(browser.run("return document.body.dataset.got ?? null"), Value::Null);
    let complaints = browser.complaints().join("\n");
    assert!(complaints.contains("Content Security Policy"), "{complaints}");
    assert!(complaints.contains("127.0.0.2"), "{complaints}");

    proxy.stop();
    browser.wait_for("#connection", "not connected, last seen ");
    assert_eq!(browser.run("return document.body.classList.contains('stale')"), true);
    let proxy = support::InProcess::start(cluster, &settings);
    assert_eq!(proxy.admin(), admin);
    browser.wait_for("#connection", "live");
}
