//! Pages that are printed from the code say what the code says. `PGBATON_PRINT_PAGES=1 cargo test --test pages` prints them anew.

use std::path::Path;

use pgbaton::admin::{alerts, metrics};
use pgbaton::cluster::diagram;

const BEGIN: &str = "<!-- diagram: begin -->\n";
const END: &str = "<!-- diagram: end -->";

#[test]
fn the_page_on_failover_has_the_states_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/failover.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the diagram");
    let (printed, after) = rest.split_once(END).expect("and its end");
    let diagram = format!("```mermaid\n{}```\n", diagram::mermaid());
    if std::env::var_os("PGBATON_PRINT_PAGES").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{diagram}{END}{after}")).unwrap();
    } else {
        assert_eq!(printed, diagram, "run PGBATON_PRINT_PAGES=1 cargo test --test pages");
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
