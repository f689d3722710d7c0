//! What people ask of a running pgbaton: reads handles, sends wishes; decides nothing.

pub mod client;
pub mod console;
pub mod history;
pub mod http;
pub mod orders;
mod metrics;
mod picture;
pub mod tables;
