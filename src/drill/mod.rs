//! `pgbaton drill`: breaks a cluster under load, and judges what clients saw.
//!
//! Clients ([`load`], [`clients`]) write down what they did and were told; the judge ([`checker`]) compares that with what each node
//! holds, and asks nobody else.

pub mod checker;
pub mod clients;
pub mod compare;
pub mod faults;
pub mod figures;
pub mod findings;
pub mod load;
pub mod network;
pub mod outcome;
pub mod print;
pub mod reach;
pub mod report;
pub mod wire;
pub mod words;
pub mod yours;
