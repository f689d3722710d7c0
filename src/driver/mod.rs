//! Turns the brain's decisions into deeds, and what came of them into events.
