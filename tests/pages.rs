//! Pages that are printed from the code say what the code says. `PGBATON_PRINT_PAGES=1 cargo test --test pages` prints them anew.

use std::path::Path;

use pgbaton::cli;
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

#[test]
fn the_page_on_the_command_line_has_the_verbs_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    if std::env::var_os("PGBATON_PRINT_PAGES").is_some() {
        std::fs::write(&path, cli::reference()).unwrap();
    } else {
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(page, cli::reference(), "run PGBATON_PRINT_PAGES=1 cargo test --test pages");
    }
}
