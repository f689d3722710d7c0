//! `pgbaton drill`: breaks a cluster under load, and judges what clients saw.

pub mod outcome;
pub mod print;
pub mod report;
pub mod words;
