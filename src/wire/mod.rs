//! PostgreSQL's wire protocol as bytes: where a message begins and ends, the few fields pgbaton reads, and the messages
//! it says itself. Pure: no socket, no allocation for what merely passes through.
//!
//! Source of the formats: PostgreSQL manual, "Frontend/Backend Protocol", "Message Formats".

pub mod fields;
pub mod frame;
pub mod message;
