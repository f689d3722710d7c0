//! The brain's stories, as transcripts: what happens to a small world, and everything the brain does about it.

mod agents;
mod beginnings;
mod failover;
mod ground;
mod orders;
mod refusals;
mod rejoin;
mod roster;
mod switchover;
mod voters;
mod weather;
