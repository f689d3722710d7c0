//! `synchronous_standby_names` as pgbaton writes it: `ANY k ("n2", "n3")`, or empty, or the name that nobody can have.

use std::collections::BTreeSet;

use crate::cluster::SyncNames;
use crate::sql::quote_ident;
use crate::types::NodeId;

/// Of a fenced node: every commit waits for a standby that cannot exist. A standby is known by its `application_name`, in
/// which PostgreSQL replaces everything but printable ASCII, so none is ever called anything with a tab in it.
pub const FENCED: &str = "ANY 1 (\"pgbaton:\tfenced\")";

pub fn to_text(names: &SyncNames) -> String {
    if names.voters.is_empty() || names.k == 0 {
        return String::new();
    }
    let quoted: Vec<String> = names.voters.iter().map(|voter| quote_ident(&voter.0)).collect();
    format!("ANY {} ({})", names.k, quoted.join(", "))
}

/// `None`: it was not written by [`to_text`].
pub fn parse(text: &str) -> Option<SyncNames> {
    if text.is_empty() {
        return Some(SyncNames::default());
    }
    if text == FENCED {
        return None;
    }
    let (k, names) = text.strip_prefix("ANY ")?.split_once(" (")?;
    let k = k.parse::<u32>().ok().filter(|k| *k > 0)?;
    let mut voters = BTreeSet::new();
    let mut rest = names.strip_suffix(')')?;
    loop {
        let (name, after) = quoted(rest)?;
        voters.insert(NodeId::from(name.as_str()));
        if after.is_empty() {
            return Some(SyncNames { voters, k });
        }
        rest = after.strip_prefix(", ")?;
    }
}

/// A delimited identifier at the beginning, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(voters: &[&str], k: u32) -> SyncNames {
        SyncNames { voters: voters.iter().map(|voter| NodeId::from(*voter)).collect(), k }
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(to_text(&names(&["n3", "n2"], 1)), r#"ANY 1 ("n2", "n3")"#);
        assert_eq!(to_text(&names(&[], 1)), "");
        for names in [names(&[], 0), names(&["a"], 1), names(&["a", "b, c", r#"d"e) "#], 2)] {
            assert_eq!(parse(&to_text(&names)), Some(names));
        }
    }

    #[test]
    fn what_others_write_is_not_taken_for_ours() {
        for text in ["*", "n2", "FIRST 1 (n2)", "ANY 1 (n2)", "ANY 0 (\"a\")", "ANY 1 (\"a\"", "ANY 1 ()", FENCED] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
