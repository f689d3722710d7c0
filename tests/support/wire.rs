//! The PostgreSQL client of bare messages that drills use, with what only tests need: seeds, and proxies that let everybody in.

#![allow(dead_code, unused_imports)]

pub use pgbaton::drill::wire::*;

use pgbaton::demo::{PASSWORD, USER};

/// Seed from the environment to repeat a run, else from the system; printed so that it can be repeated.
pub fn seed(what: &str) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let given = std::env::var("PGBATON_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(what) & 0xffff_ffff);
    println!("{what}: PGBATON_SEED={seed}");
    seed
}

/// Settings for a proxy that lets everybody in unasked, and still knows the password for the nodes: tests that log in
/// thousands of times are not about SCRAM.
pub fn trusting(cluster: &pgbaton::demo::Cluster, proxy: &str) -> crate::support::ProxySettings {
    let file = cluster.directory().join("users");
    // Tests share a cluster, and a proxy may be reading the file just now: it is only ever there whole.
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let draft = file.with_extension(number.to_string());
    std::fs::write(&draft, format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
    crate::support::set_mode(&draft, 0o600);
    std::fs::rename(&draft, &file).unwrap();
    crate::support::ProxySettings {
        proxy: proxy.into(),
        auth: format!("method = \"file\"\nusers_file = \"{}\"", file.display()),
        sections: "[[auth.rules]]\nmethod = \"trust\"".into(),
        ..Default::default()
    }
}
