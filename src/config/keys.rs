//! Every key a configuration file may hold, in one table.
//!
//! The parser takes defaults and ranges from here, the reload takes from here what may change while running, and the
//! reference page is printed from here, so the three cannot disagree.

use std::fmt::Write;

mod agent;
mod table;

pub use agent::AGENT;
pub use table::KEYS;

/// What a key's value must look like. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    /// Up to 63 letters, digits, `_`, `-` and `.`; or nothing.
    Label,
    Boolean,
    /// A file that must exist. Empty means none; relative to the directory of the configuration file.
    Path,
    /// A file that pgbaton makes itself. Relative to the directory of the configuration file.
    State,
    /// One listen address, or nothing.
    Address,
    /// Text that is not shown.
    Secret,
    /// `http://host:port`, or nothing.
    Url,
    /// A list of those; at least one.
    Urls,
    /// A directory that need not exist yet. Empty means that one is found.
    Directory,
    /// A list of `address/bits`, or `samenet`.
    Networks,
    /// A list of listen addresses; at least one.
    Addresses,
    /// A list of listen addresses; may be empty.
    AddressesOrNone,
    /// A list of names of functions, with or without a schema; may be empty.
    Functions,
    Choice(&'static [&'static str]),
    Integer(u64, u64),
    /// Bounds as they would be written in the file.
    Duration(&'static str, &'static str),
    /// Bounds as they would be written in the file.
    Size(&'static str, &'static str),
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// `proxy`, `proxy.tls`; for `auth.rules` and `cluster.nodes` each element of the list has these keys.
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    /// As it would be written in the file, without quotes; `None` when the key has to be given.
    pub default: Option<&'static str>,
    /// Whether a reload applies a new value to the running proxy.
    pub reloads: bool,
    pub meaning: &'static str,
}

impl Key {
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// A section and whether it is a list (`[[…]]`) of tables.
pub struct SectionInfo {
    pub name: &'static str,
    pub is_list: bool,
    pub meaning: &'static str,
}

pub const SECTIONS: &[SectionInfo] = &[
    SectionInfo { name: "proxy", is_list: false, meaning: "Where clients connect, and how many may share what." },
    SectionInfo { name: "proxy.tls", is_list: false, meaning: "TLS between clients and pgbaton." },
    SectionInfo { name: "auth", is_list: false, meaning: "Who may enter." },
    SectionInfo {
        name: "auth.rules",
        is_list: true,
        meaning: "Rules for those who want to tell users, databases and addresses apart: the first rule that matches a \
                  client decides, and a client that none of them matches is refused. Without any rule every client \
                  logs in by `scram`.",
    },
    SectionInfo {
        name: "cluster",
        is_list: false,
        meaning: "The nodes behind pgbaton, and the control user it looks after them with (its rights: \
                  [operations.md](operations.md)).",
    },
    SectionInfo { name: "cluster.tls", is_list: false, meaning: "TLS between pgbaton and the nodes." },
    SectionInfo {
        name: "cluster.nodes",
        is_list: true,
        meaning: "One for each PostgreSQL node; at least one. Which of them is the primary is asked, not configured.",
    },
    SectionInfo {
        name: "reads",
        is_list: false,
        meaning: "Which statements may be served by replicas, and by which of them.",
    },
    SectionInfo {
        name: "failover",
        is_list: false,
        meaning: "Watching the nodes, replacing a primary that is down, and what clients do meanwhile.",
    },
    SectionInfo {
        name: "coordination",
        is_list: false,
        meaning: "Where pgbaton keeps the record: which node is the primary, of which epoch. It is written before anything is \
                  done on the strength of it.",
    },
    SectionInfo {
        name: "admin",
        is_list: false,
        meaning: "The HTTP endpoint for operators, load balancers and monitoring ([operations.md](operations.md#http)).",
    },
    SectionInfo { name: "log", is_list: false, meaning: "What is written to standard error." },
];

pub const RULE_METHODS: &[&str] = &["scram", "cert", "trust", "reject"];
/// Those of [`Durability`](crate::types::Durability).
pub const DURABILITIES: &[&str] = &["async", "quorum"];

/// What a file of one kind may hold.
pub struct Schema {
    sections: &'static [SectionInfo],
    keys: &'static [Key],
    /// Sections of pgbaton's own file that this one has, too.
    shared: &'static [&'static str],
    /// The one whose keys are somebody else's.
    pub free: Option<&'static str>,
}

/// The file of `pgbaton serve`.
pub static PGBATON: Schema = Schema { sections: SECTIONS, keys: KEYS, shared: &[], free: None };

impl Schema {
    pub fn sections(&self) -> impl Iterator<Item = &'static SectionInfo> {
        self.sections.iter().chain(SECTIONS.iter().filter(|section| self.shared.contains(&section.name)))
    }

    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().chain(KEYS.iter().filter(|key| self.shared.contains(&key.section)))
    }

    /// The key with this section and name.
    pub fn find(&self, section: &str, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.section == section && key.name == name)
    }
}

/// `docs/configuration.md`, printed from the table.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    describe_sections(&mut page, SECTIONS, KEYS);
    page.push_str(AGENT_INTRODUCTION);
    describe_sections(&mut page, AGENT.sections, AGENT.keys);
    page
}

fn describe_sections(page: &mut String, sections: &[SectionInfo], keys: &[Key]) {
    for section in sections {
        let brackets = if section.is_list { ("[[", "]]") } else { ("[", "]") };
        let _ = write!(page, "\n## `{}{}{}`\n\n{}\n\n", brackets.0, section.name, brackets.1, section.meaning);
        if !keys.iter().any(|key| key.section == section.name) {
            continue;
        }
        page.push_str("| key | type | default | range | reload | meaning |\n|---|---|---|---|---|---|\n");
        for key in keys.iter().filter(|key| key.section == section.name) {
            let (kind, range) = describe(key.kind);
            let _ = writeln!(
                page,
                "| `{}` | {kind} | {} | {range} | {} | {} |",
                key.name,
                default_cell(key),
                if key.reloads { "yes" } else { "restart" },
                key.meaning,
            );
        }
    }
}

fn describe(kind: Kind) -> (&'static str, String) {
    match kind {
        Kind::Text => ("text", String::new()),
        Kind::Label => ("text", "up to 63 of `A-Z a-z 0-9 _ - .`".into()),
        Kind::Boolean => ("boolean", String::new()),
        Kind::Path | Kind::State | Kind::Directory => ("path", String::new()),
        Kind::Address => ("address", "one or `\"\"`".into()),
        Kind::Secret => ("text", String::new()),
        Kind::Url => ("URL", "`http://host:port`".into()),
        Kind::Urls => ("list of URLs", "at least one `http://host:port`".into()),
        Kind::Networks => ("list of networks", "`address/bits`, `samenet`".into()),
        Kind::Addresses => ("list of addresses", "at least one".into()),
        Kind::AddressesOrNone => ("list of addresses", String::new()),
        Kind::Functions => ("list of functions", "`function`, `schema.function`".into()),
        Kind::Choice(names) => ("one of", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        Kind::Integer(min, max) => ("integer", format!("{min} … {max}")),
        Kind::Duration(min, max) => ("duration", format!("{min} … {max}")),
        Kind::Size(min, max) => ("size", format!("{min} … {max}")),
    }
}

fn default_cell(key: &Key) -> String {
    match (key.default, key.kind) {
        (None, _) => "required".into(),
        (Some(""), Kind::Boolean) => "not given".into(),
        (Some(""), Kind::Functions | Kind::Networks | Kind::AddressesOrNone) => "`[]`".into(),
        (Some(text), Kind::Integer(..) | Kind::Boolean) => format!("`{text}`"),
        (Some(text), Kind::Addresses | Kind::Urls) => format!("`[\"{text}\"]`"),
        (Some(text), _) => format!("`\"{text}\"`"),
    }
}

const INTRODUCTION: &str = "\
# Configuration

*Printed by `pgbaton config print-reference`; do not edit by hand.*

One TOML file, given with `pgbaton serve -c FILE`. Every key has a default but the nodes, so this is a whole configuration:

```toml
[[cluster.nodes]]
id = \"n1\"
host = \"10.0.0.11\"

[[cluster.nodes]]
id = \"n2\"
host = \"10.0.0.12\"
```

`pgbaton config check -c FILE` reads a file and says what is wrong with it, with the line. An unknown key is an error,
so a misspelt one is never silently ignored.

A **duration** is text with a unit: `\"250ms\"`, `\"30s\"`, `\"1h 30m\"`. A **size** is `\"64KiB\"`, `\"1MiB\"`, or a number of
bytes. A relative **path** starts at the directory of the configuration file. **Reload** says whether SIGHUP applies a
changed value; a change of the others is reported in the log and waits for a restart.
";

const AGENT_INTRODUCTION: &str = "
# The agent's file

A file of its own, given with `pgbaton agent -c FILE`; [agent.md](agent.md) says what an agent does. `pgbaton config check` reads
it as well: it is one if it has `[agent]`. It may have `[log]` as above. This is a whole one:

```toml
[agent]
node = \"n1\"
data_dir = \"/var/lib/pgbaton/n1\"
```
";
