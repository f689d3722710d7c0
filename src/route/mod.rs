//! Where a statement may run: on the primary only, or on a replica as well.
//!
//! Pure. `outline` reads a text with PostgreSQL's own grammar and says what it does and whom it mentions; `names` says what
//! those names stand for in one database; `judge` brings the two together into a [`Verdict`]. `lag` measures replicas,
//! `balance` chooses among those that may serve.
//!
//! Everything errs on the side of the primary: a text that does not parse, a node of the grammar that nobody has thought
//! about, a name that is not known.

pub mod judge;
pub mod names;
pub mod outline;

pub use judge::{Class, Verdict};
