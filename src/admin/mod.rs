//! What people ask of a running pgbaton: reads handles, sends wishes; decides nothing.

pub mod console;
mod dashboard;
pub mod events;
pub mod history;
pub mod http;
mod metrics;
pub mod orders;
pub mod picture;
mod pulse;
pub mod tables;
