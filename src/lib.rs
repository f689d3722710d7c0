//! pgbaton: one address for the application, any number of PostgreSQL nodes behind it.
//!
//! Read `docs/architecture.md` first: it has the picture and the walk of one query. The modules stand in layers; a file
//! uses only what stands below it, and neighbours in a layer do not use each other (`tests/tidy.rs` checks this); in
//! the top layer, which puts everything together, each may use those to its right.
//!
//! | layer | modules |
//! |---|---|
//! | 6 | `cli` > `drill` > `demo` > `app` > `config` |
//! | 5 | `admin` |
//! | 4 | `session` `driver` |
//! | 3 | `pool` `node` `monitor` `catalog` `coord` `migrate` `agent` |
//! | 2 | `auth` `net` `route` `cluster` `programs` |
//! | 1 | `wire` `sql` |
//! | 0 | `types` `telemetry` |

pub mod admin;
pub mod agent;
pub mod app;
pub mod auth;
pub mod catalog;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod coord;
pub mod demo;
pub mod drill;
pub mod driver;
pub mod migrate;
pub mod monitor;
pub mod net;
pub mod node;
pub mod pool;
pub mod programs;
pub mod route;
pub mod session;
pub mod sql;
pub mod telemetry;
pub mod types;
pub mod wire;
