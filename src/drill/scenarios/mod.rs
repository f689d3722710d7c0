//! Everything that a drill can do to a cluster: what it is, what is expected, and what it takes.

mod crash;
mod middle;
mod network;
mod open;
mod orders;
mod standbys;

use super::play::{Play, Step};
use crate::types::Durability;

pub struct Scenario {
    pub name: &'static str,
    /// What it does.
    pub does: &'static str,
    /// What is to come of it.
    pub expects: &'static str,
    /// It cuts cables, for which it takes a network of its own: Linux, and root.
    pub needs_network: bool,
    /// Of one durability only.
    pub only: Option<Durability>,
    /// Why clients may lose their connections.
    pub drops: Option<&'static str>,
    /// No client may be told of an error.
    pub is_smooth: bool,
    /// Why there are two primaries, by intention.
    pub impostor: Option<&'static str>,
    pub play: fn(&mut Play) -> Step,
}

impl Scenario {
    /// What it takes, in brackets.
    fn takes(&self) -> String {
        let network = if self.needs_network { " (root)" } else { "" };
        let only = self.only.map(|only| format!(" ({} only)", only.as_str())).unwrap_or_default();
        format!("{network}{only}")
    }

    /// For `--list`.
    pub fn description(&self) -> String {
        let Scenario { name, does, expects, .. } = self;
        format!("{name}{}\n    {does}\n    expected: {expects}\n", self.takes())
    }
}

/// What most of them are.
const ANY: Scenario = Scenario {
    name: "",
    does: "",
    expects: "",
    needs_network: false,
    only: None,
    drops: None,
    is_smooth: false,
    impostor: None,
    play: |_| Ok(()),
};

/// In the order in which they are listed and played.
pub fn all() -> Vec<Scenario> {
    let parts = [crash::all(), standbys::all(), network::all(), middle::all(), open::all(), orders::all()];
    parts.into_iter().flatten().collect()
}

/// `Err`: the name that is nearest.
pub fn find(name: &str) -> Result<Scenario, String> {
    let names = || all().into_iter().map(|scenario| scenario.name);
    let nearest = names().min_by_key(|known| distance(known, name)).unwrap_or_default();
    all().into_iter().find(|scenario| scenario.name == name).ok_or_else(|| nearest.to_owned())
}

/// How many letters have to be added, removed or exchanged.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let exchanged = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

/// Part of `docs/drill.md`.
pub fn reference() -> String {
    let mut page = String::from("| scenario | what it does | what is expected |\n|---|---|---|\n");
    for scenario in all() {
        let Scenario { name, does, expects, .. } = scenario;
        page.push_str(&format!("| `{name}`{} | {does} | {expects} |\n", scenario.takes()));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_everything_is_said() {
        let mut names: Vec<&str> = all().iter().map(|scenario| scenario.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(count >= 30, "{count}");
        for Scenario { name, does, expects, .. } in all() {
            assert!(!does.is_empty() && !expects.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_wrong_name_has_a_nearest() {
        assert_eq!(find("kil-primary").err().as_deref(), Some("kill-primary"));
        assert_eq!(find("swichover").err().as_deref(), Some("switchover"));
        assert!(find("kill-primary").is_ok());
    }
}
