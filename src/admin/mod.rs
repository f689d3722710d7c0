//! What people ask of a running pgbaton: reads handles, sends wishes; decides nothing.

pub mod console;
pub mod doctor;
pub mod history;
pub mod http;
mod metrics;
pub mod orders;
pub mod picture;
pub mod tables;
