//! Pages that are printed from the code say what the code says. `PGBATON_PRINT_PAGES=1 cargo test --test pages` prints them anew.

use std::path::Path;

use pgbaton::admin::{alerts, metrics};
use pgbaton::cli;
use pgbaton::cluster::{diagram, doctor};

#[test]
fn the_page_on_failover_has_the_states_of_the_code() {
    compare("docs/failover.md", "diagram", &format!("```mermaid\n{}```\n", diagram::mermaid()));
}

#[test]
fn the_page_on_the_doctor_has_every_check() {
    compare("docs/doctor.md", "checks", &doctor::reference());
}

/// What stands on a page between `<!-- name: begin -->` and `<!-- name: end -->`.
#[track_caller]
fn compare(page: &str, name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(&begin).expect("the page has a place for it");
    let (printed, after) = rest.split_once(&end).expect("and its end");
    if std::env::var_os("PGBATON_PRINT_PAGES").is_some() {
        std::fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
    } else {
        assert_eq!(printed, expected, "run PGBATON_PRINT_PAGES=1 cargo test --test pages");
    }
}

/// A page that is printed as a whole.
fn printed(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("PGBATON_PRINT_PAGES").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "{page} is stale: run PGBATON_PRINT_PAGES=1 cargo test --test pages");
}

#[test]
fn the_pages_on_metrics_and_alerts_have_those_of_the_code() {
    printed("docs/metrics.md", &metrics::reference());
    printed("docker/monitoring/alerts.yml", &alerts::rules());
}

#[test]
fn the_page_on_the_command_line_has_the_verbs_of_the_code() {
    printed("docs/cli.md", &cli::reference());
}
