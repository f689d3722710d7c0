//! Where a statement may run: on the primary only, or on a replica as well.
//!
//! Pure. `outline` reads a text with PostgreSQL's own grammar and says what it does and whom it mentions; `names` says what
//! those names stand for in one database; `judge` brings the two together into a [`Verdict`]. `lag` measures replicas,
//! `outlier` counts their failures, `eligible` says which may serve, `balance` chooses among those.
//!
//! Everything errs on the side of the primary: a text that does not parse, a node of the grammar that nobody has thought
//! about, a name that is not known.

/// An enum of the words that a setting may have, as the configuration and `SET pgbaton.…` write them.
macro_rules! words {
    ($(#[$about:meta])* $name:ident => $($(#[$doc:meta])* $variant:ident $text:literal),+ $(,)?) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($text => Ok($name::$variant),)+ _ => Err(()) }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

pub mod balance;
pub mod eligible;
pub mod function_name;
pub mod judge;
pub mod lag;
pub mod names;
pub mod outlier;
pub mod outline;

pub use function_name::FunctionName;
pub use judge::{Class, Verdict};

words!(
    /// How old the data may be that a read sees.
    Consistency =>
    /// Any replica that `reads.max_lag` lets serve; a client may not see its own last write.
    Eventual "eventual",
    /// As `Eventual`, and where nobody can say how far a replica lags, the primary.
    Bounded "bounded",
    /// A client sees everything it wrote itself.
    Session "session",
    /// A client sees everything that anybody had committed when its read arrived.
    Strong "strong",
);

words!(
    /// What a read does when no replica may serve it.
    Fallback =>
    Primary "primary",
    /// Waits up to `reads.wait` for a replica.
    Wait "wait",
    Error "error",
);

words!(
    /// What `consistent_hash` makes its key of: the same value reads from the same replica, whose caches know it.
    HashBy =>
    User "user",
    Database "database",
    Application "application",
    /// What the client says with `SET pgbaton.hash_key`.
    Key "key",
);

words!(
    /// Where a client wants its statements to run.
    Target =>
    /// Reads on replicas, all else on the primary.
    Auto "auto",
    Primary "primary",
    Replica "replica",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_as_it_is_written() {
        fn check<T: std::str::FromStr<Err = ()> + std::fmt::Display>(names: &[&str], of: usize) {
            assert_eq!(names.len(), of);
            for name in names {
                assert_eq!(name.parse::<T>().map(|value| value.to_string()), Ok(name.to_string()));
            }
            assert!("Primary".parse::<T>().is_err(), "words are written in lower case");
        }
        check::<Consistency>(Consistency::NAMES, 4);
        check::<Fallback>(Fallback::NAMES, 3);
        check::<HashBy>(HashBy::NAMES, 4);
        check::<Target>(Target::NAMES, 3);
        check::<balance::Strategy>(balance::Strategy::NAMES, 6);
    }
}
