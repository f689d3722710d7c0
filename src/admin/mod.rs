//! What people ask of a running pgbaton: reads handles, sends wishes; decides nothing.

pub mod alerts;
pub mod asked;
mod balancers;
pub mod console;
mod dashboard;
pub mod doctor;
pub mod events;
pub mod figures;
mod guard;
pub mod history;
pub mod http;
pub mod metrics;
pub mod openapi;
pub mod orders;
mod pgbouncer;
pub mod picture;
mod pulse;
pub mod tables;
