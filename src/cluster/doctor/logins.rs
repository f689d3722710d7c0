//! Whether nodes let each other in: a standby has to log in to whoever is the primary next, and an agent copies from there.
//!
//! `pg_hba.conf` is read as the server reads it, the first line that fits counts. Where a line cannot be understood from here (a
//! host's name, a regular expression, the server's own networks), nothing is said: it may well be right.

// `core`: addresses are values, and no socket comes with them.
use core::net::IpAddr;

use ipnet::IpNet;

use super::facts::{Agent, Case, HbaRule, Patient, Survey};
use super::reach::host_mask;
use super::{Check, Judge, Notes, check, fix};
use crate::sql::quote_ident;

pub(super) const CHECKS: &[Check] = &[check(
    "logins_between",
    "it lets every other node in, to replicate and to be copied",
    "when it is the primary, the others do not follow it",
    Judge::Seen(logins_between),
)];

/// Who wants to log in.
pub(super) struct Visitor<'a> {
    /// `None`: for replication.
    pub database: Option<&'a str>,
    pub user: &'a str,
    /// What it is a member of.
    pub roles: &'a [String],
    pub address: &'a str,
}

/// What a line says of a visitor.
#[derive(PartialEq, Eq)]
enum Fits {
    Yes,
    No,
    Unknown,
}

/// The line that decides; `None`: that cannot be known, or there is none.
pub(super) fn rule_for<'s>(seen: &'s Survey, visitor: &Visitor<'_>) -> Option<&'s HbaRule> {
    decide(seen.hba.as_ref()?, visitor).ok().flatten()
}

/// `Err`: a line above all that fit cannot be understood. `Ok(None)`: no line fits.
fn decide<'r>(rules: &'r [HbaRule], visitor: &Visitor<'_>) -> Result<Option<&'r HbaRule>, ()> {
    for rule in rules {
        match fits(rule, visitor) {
            Fits::Yes => return Ok(Some(rule)),
            Fits::No => {}
            Fits::Unknown => return Err(()),
        }
    }
    Ok(None)
}

fn fits(rule: &HbaRule, visitor: &Visitor<'_>) -> Fits {
    let kind = rule.kind.as_deref().unwrap_or_default();
    // With a line that cannot be parsed the server goes on with the file it read before.
    if rule.error.is_some() {
        return Fits::Unknown;
    }
    if kind == "local" || kind == "hostgssenc" {
        return Fits::No;
    }
    let parts = [
        names(rule.database.as_deref(), |name| match (name, visitor.database) {
            ("replication", of) => {
                if of.is_none() {
                    Fits::Yes
                } else {
                    Fits::No
                }
            }
            (_, None) => Fits::No,
            ("all", _) => Fits::Yes,
            ("sameuser", Some(of)) => {
                if of == visitor.user {
                    Fits::Yes
                } else {
                    Fits::No
                }
            }
            ("samerole" | "samegroup", _) => Fits::Unknown,
            (name, Some(of)) if name == of => Fits::Yes,
            (name, _) if name.starts_with('/') => Fits::Unknown,
            _ => Fits::No,
        }),
        names(rule.user_name.as_deref(), |name| match name {
            "all" => Fits::Yes,
            name if name == visitor.user => Fits::Yes,
            name if name.starts_with('/') => Fits::Unknown,
            name => match name.strip_prefix('+') {
                Some(role) if visitor.roles.iter().any(|of| of == role) => Fits::Yes,
                Some(_) if visitor.roles.is_empty() => Fits::Unknown,
                _ => Fits::No,
            },
        }),
        address(rule, visitor.address),
        // Whether the connection is encrypted is up to both sides.
        if kind == "host" { Fits::Yes } else { Fits::Unknown },
    ];
    if parts.contains(&Fits::No) {
        return Fits::No;
    }
    if parts.contains(&Fits::Unknown) { Fits::Unknown } else { Fits::Yes }
}

fn names(all: Option<&[String]>, fits: impl Fn(&str) -> Fits) -> Fits {
    let mut best = Fits::No;
    for name in all.unwrap_or_default() {
        match fits(name) {
            Fits::Yes => return Fits::Yes,
            Fits::Unknown => best = Fits::Unknown,
            Fits::No => {}
        }
    }
    best
}

fn address(rule: &HbaRule, visitor: &str) -> Fits {
    let Some(written) = rule.address.as_deref() else { return Fits::Unknown };
    if written == "all" {
        return Fits::Yes;
    }
    let (Ok(at), Ok(visitor)) = (written.parse::<IpAddr>(), visitor.parse::<IpAddr>()) else { return Fits::Unknown };
    let mask = rule.netmask.as_deref().and_then(|mask| mask.parse::<IpAddr>().ok());
    let Some(network) = mask.and_then(|mask| IpNet::with_netmask(at, mask).ok()) else { return Fits::Unknown };
    if network.contains(&visitor) { Fits::Yes } else { Fits::No }
}

/// Where a node comes from when it connects to another: what the primary sees of it, else where it is itself.
fn address_of(case: &Case, node: &Patient) -> Option<String> {
    let seen = node.seen()?;
    let names = [Some(&*node.id.0), seen.upstream.application_name.as_deref()];
    let of_sender = case.primary().and_then(|(_, leading)| {
        let mut own = leading.replication.senders.iter().filter(|sender| names.contains(&Some(&*sender.name)));
        own.find_map(|sender| sender.address.clone())
    });
    of_sender.or_else(|| seen.basics.address.clone())
}

fn logins_between(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let Some(rules) = &seen.hba else { return notes.leave_open() };
    // One that is never promoted is followed by nobody.
    if node.priority == 0 && seen.basics.is_in_recovery {
        return;
    }
    for rule in rules {
        if let Some(error) = &rule.error {
            notes.warn(
                format!(
                    "line {} of pg_hba.conf cannot be read, so the file as a whole is not: {error}",
                    rule.line_number
                ),
                fix::sql(
                    node,
                    "SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL; then correct it; SELECT pg_reload_conf()",
                ),
            );
        }
    }
    // Users by whom it is refused, with the standbys that come as them.
    for other in case.nodes.iter().filter(|other| other.id != node.id) {
        let (Some(theirs), Some(from)) = (other.seen(), address_of(case, other)) else { continue };
        let mut visits: Vec<(Option<&str>, String)> = Vec::new();
        visits.extend(theirs.upstream.user.clone().map(|user| (None, user)));
        if !matches!(other.agent, Agent::None) {
            let user = &case.wishes.control_user;
            visits.push((Some(&case.wishes.control_database), user.clone()));
            if theirs.upstream.user.as_ref() != Some(user) {
                visits.push((None, user.clone()));
            }
        }
        for (database, user) in visits {
            let roles = seen.roles.replicators.get(&user).cloned().unwrap_or_default();
            let found = decide(rules, &Visitor { database, user: &user, roles: &roles, address: &from });
            let Ok(found) = found else { continue };
            let what = if database.is_none() { "to replicate" } else { "to copy or rewind from it" };
            let said = match found {
                None => "no line of pg_hba.conf fits".to_owned(),
                Some(rule) if rule.auth_method.as_deref() == Some("reject") => {
                    format!("line {} of pg_hba.conf rejects it", rule.line_number)
                }
                Some(_) => continue,
            };
            let database = database.map_or("replication".to_owned(), quote_ident);
            notes.error(
                format!("{} could not log in here as {user} {what}, coming from {from}: {said}", other.id),
                fix::hba(node, &format!("host {database} {} {} scram-sha-256", quote_ident(&user), host_mask(&from))),
            );
        }
    }
}
