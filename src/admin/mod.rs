//! What people ask of a running pgbaton: reads handles, sends wishes; decides nothing.

pub mod asked;
mod balancers;
pub mod console;
mod guard;
pub mod history;
pub mod http;
mod metrics;
pub mod openapi;
pub mod orders;
pub mod picture;
pub mod tables;
