//! A cluster with agents is broken again and again, and has to be whole again each time, with nobody's help: one primary,
//! all others streaming from it. The same clients work through it all, and the same judge judges.
//!
//! `PGBATON_HEAL_FAULTS=n` breaks it n times instead of twenty, `PGBATON_HEAL_SEED=s` repeats what was done with that seed.

mod field;
mod host;
mod scenarios;
