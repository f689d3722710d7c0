//! What people ask of a running pgbaton: reads handles, sends wishes; decides nothing.

pub mod alerts;
pub mod console;
pub mod figures;
pub mod history;
pub mod http;
pub mod metrics;
pub mod orders;
mod pgbouncer;
pub mod picture;
pub mod tables;
