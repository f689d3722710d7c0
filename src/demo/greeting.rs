//! What the demo says when it is up: how to connect, and what to try next, to be typed as it stands.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::hosts::{Hosts, reachable};
use super::{PASSWORD, USER};
use crate::admin::picture::Cluster;

/// Where pgbaton's verbs look when nothing is said.
const ADMIN: &str = "127.0.0.1:6433";

pub(super) fn greeting(
    hosts: &Hosts,
    cluster: &Cluster,
    listen: SocketAddr,
    admin: SocketAddr,
    took: Duration,
    is_chaos: bool,
) -> String {
    let user = hosts.run_as().map(|user| format!(" (as user {user})")).unwrap_or_default();
    let (proxy, admin) = (reachable(listen), reachable(admin));
    let psql = format!("PGPASSWORD={PASSWORD} psql -h {} -p {} -U {USER}", proxy.ip(), proxy.port());
    let mut text = format!(
        "\npgbaton is in front of PostgreSQL {}{user}, up after {:.1} s. Connect with\n\n    {psql}\n\n",
        hosts.bin().version(),
        took.as_secs_f64(),
    );
    for host in hosts.all() {
        let is_primary = cluster.primary.as_ref() == Some(&host.id);
        let role = if is_primary { "primary" } else { "replica" };
        let pid = host.server_pid().map_or("-".into(), |pid| pid.to_string());
        let _ = writeln!(text, "    {}  {role}  127.0.0.1:{}  pid {pid}", host.id, host.port);
    }
    let directory = hosts.directory().display();
    if is_chaos {
        let _ = write!(text, "\nLogs are in {directory}/log/.");
        return text;
    }
    let pgbaton = this_program();
    let at = if admin.to_string() == ADMIN { String::new() } else { format!(" --admin http://{admin}") };
    let primary = cluster.primary.as_deref().unwrap_or("n1");
    let _ = write!(
        text,
        "\n    configuration  {directory}/pgbaton.toml, {directory}/{primary}/agent.toml\n    \
         dashboard      http://{admin}/\n    \
         admin          http://{admin}/cluster, /metrics\n    logs           {directory}/log/\n\
         \nTry next, in a second terminal:\n\n\
         \x20   {pgbaton} list --watch{at}\n        what each node is and does; in a third one, then,\n\
         \x20   kill -9 $(head -1 {directory}/{primary}/data/postmaster.pid)\n        the primary dies: another one takes over in a moment, \
         and {primary} comes back as its replica\n\
         \x20   {pgbaton} switchover{at}\n        a planned change of primary: open sessions notice nothing\n\
         \x20   {pgbaton} history{at}\n        what happened, why, and how long each step took\n\
         \x20   {pgbaton} rebuild {other}{at}\n        all of its data is copied anew\n\
         \x20   {psql} -c 'SELECT count(*) FROM pg_class' -c 'SHOW pgbaton.route'\n        which node served a read, and why\n\
         \nOr have all of that done, again and again, under load: {pgbaton} demo --chaos\n\
         \nCtrl-C stops everything and {}.",
        if hosts.is_kept() { "keeps the directory" } else { "removes the directory" },
        other = hosts.all().iter().map(|host| &*host.id).find(|id| *id != primary).unwrap_or(primary),
    );
    text
}

/// As it was typed, if that is a path; else the shell finds it.
fn this_program() -> String {
    std::env::args().next().filter(|program| !program.is_empty()).unwrap_or_else(|| "pgbaton".into())
}
