//! The keys of an agent's file, in the order of the reference page.

use super::table::{RELOADS, RESTART, key};
use super::{Key, Kind, Schema, SectionInfo};

/// The file of `pgbaton agent`.
pub static AGENT: Schema = Schema { sections: SECTIONS, keys: KEYS, shared: &["log"], free: Some("agent.postgres") };

const SECTIONS: &[SectionInfo] = &[
    SectionInfo {
        name: "agent",
        is_list: false,
        meaning: "One PostgreSQL, its data, and who may order. *Reload* is by SIGHUP to the agent, which never restarts PostgreSQL.",
    },
    SectionInfo {
        name: "agent.postgres",
        is_list: false,
        meaning: "Further settings of PostgreSQL, as in `postgresql.conf` (which they come after): `shared_buffers = \"1GB\"`, \
                  `max_connections = 200`. A reload writes them anew and has PostgreSQL read them; what waits for its restart is said \
                  in the log. Refused are those that pgbaton changes itself (`primary_conninfo`, `synchronous_standby_names` …). \
                  `config_file`, `hba_file` and `ident_file` may name files outside of the data directory, as Debian's packages have \
                  them.",
    },
];

const KEYS: &[Key] = &[
    key("agent", "node", Kind::Label, None, RESTART, "Which node this is: its `id` under `[[cluster.nodes]]`."),
    key(
        "agent",
        "listen",
        Kind::Address,
        Some("127.0.0.1:6501"),
        RESTART,
        "Where pgbaton orders: `agent` under `[[cluster.nodes]]`. On an address that others reach, `token` has to be given.",
    ),
    key(
        "agent",
        "token",
        Kind::Secret,
        Some(""),
        RESTART,
        "What pgbaton shows: `agent_token` under `[cluster]`. Empty: whoever can connect may order.",
    ),
    key(
        "agent",
        "token_file",
        Kind::Path,
        Some(""),
        RESTART,
        "In place of `token`: a file with it on its first line. It is refused when everybody can read it.",
    ),
    key(
        "agent",
        "data_dir",
        Kind::Directory,
        None,
        RESTART,
        "PostgreSQL's data directory. One that is there is taken over; where there is none, or an empty one, pgbaton has a cluster \
         made, or one copied. Beside it the agent keeps `<data_dir>.agent`, so the directory that both are in has to be writable.",
    ),
    key(
        "agent",
        "bin_dir",
        Kind::Directory,
        Some(""),
        RESTART,
        "Where `postgres`, `initdb` and so on are. Empty: `PGBATON_PG_BIN`, `pg_config --bindir`, the usual directories, PATH.",
    ),
    key("agent", "port", Kind::Integer(1, 65535), Some("5432"), RESTART, "PostgreSQL's port."),
    key(
        "agent",
        "listen_addresses",
        Kind::Text,
        Some("127.0.0.1"),
        RESTART,
        "PostgreSQL's setting of that name: `*`, or addresses with commas between them.",
    ),
    key(
        "agent",
        "socket_dir",
        Kind::Directory,
        Some(""),
        RESTART,
        "Where PostgreSQL's Unix socket is. Empty: `/var/run/postgresql` if it can be written there, else `/tmp`.",
    ),
    key(
        "agent",
        "pgbatons",
        Kind::Urls,
        Some("http://127.0.0.1:6433"),
        RELOADS,
        "Admin endpoints of pgbatons, where the record is asked before PostgreSQL may start as a primary.",
    ),
    key(
        "agent",
        "control_user",
        Kind::Text,
        Some("pgbaton"),
        RESTART,
        "The role of pgbaton itself, which this node replicates as, too: `control_user` under `[cluster]`.",
    ),
    key(
        "agent",
        "control_password_file",
        Kind::Path,
        Some(""),
        RESTART,
        "A file with its password on the first line, not readable by everybody. Empty: `PGBATON_CONTROL_PASSWORD`.",
    ),
    key("agent", "superuser", Kind::Text, Some("postgres"), RESTART, "Of a cluster that is made new: its superuser."),
    key(
        "agent",
        "superuser_password_file",
        Kind::Path,
        Some(""),
        RESTART,
        "A file with that one's password. Empty: it has none, and logs in on the Unix socket as the system's user of its name.",
    ),
    key(
        "agent",
        "database",
        Kind::Label,
        Some(""),
        RESTART,
        "Of a cluster that is made new: a database beside `postgres`, owned by the superuser. Empty: none.",
    ),
    key(
        "agent",
        "networks",
        Kind::Networks,
        Some(""),
        RESTART,
        "Of a cluster that is made new: who may connect with a password (`pg_hba.conf`), for replication too, besides loopback.",
    ),
    key(
        "agent",
        "keep",
        Kind::Size("0B", "100000GiB"),
        Some("1GiB"),
        RELOADS,
        "How much data of the past is kept in `<data_dir>.agent/kept`; the oldest goes first.",
    ),
];
