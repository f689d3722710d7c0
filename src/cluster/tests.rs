//! The brain's stories, as transcripts: what happens to a small world, and everything the brain does about it.

mod failover;
mod ground;
