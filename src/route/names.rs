//! What the names in one database stand for, as far as it decides where a statement may run.
//!
//! `catalog` fills this in from PostgreSQL's catalogs, with everything already followed to its end: a view has the traits
//! of the functions it calls, a table those of its row-security policies, a function those of the functions its body
//! mentions. A name that is not in here is unknown, which is for the caller to fear.

use hashbrown::HashMap;
use smallvec::SmallVec;

/// Why something may not simply run on a replica. None of these: it reads, and means the same there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Traits(u8);

impl Traits {
    pub const NONE: Traits = Traits(0);
    /// It may write: a function that is VOLATILE, or that uses one. In a transaction declared READ ONLY it cannot, so there
    /// it may run on a replica.
    pub const MAY_WRITE: Traits = Traits(1);
    /// It means something else on a standby (advisory locks, `pg_is_in_recovery()`, a view of the server's own statistics),
    /// fails there (unlogged and temporary tables, `txid_current()`), or nobody can read what it does (a function in an
    /// untrusted language, a foreign table). Never for a replica.
    pub const DIFFERS: Traits = Traits(2);
    /// `reads.safe_functions` names it: nothing else counts.
    pub const ALLOWED: Traits = Traits(4);

    pub const fn union(self, other: Traits) -> Traits {
        Traits(self.0 | other.0)
    }

    pub const fn contains(self, other: Traits) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Debug for Traits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [(Traits::MAY_WRITE, "MAY_WRITE"), (Traits::DIFFERS, "DIFFERS"), (Traits::ALLOWED, "ALLOWED")];
        f.debug_set().entries(names.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, name)| name)).finish()
    }
}

/// One object that a name may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    pub schema: Box<str>,
    /// How many arguments a function can be called with; for a variadic one the upper bound is `u16::MAX`. Zero for
    /// everything that is not called.
    pub arguments: (u16, u16),
    pub traits: Traits,
    /// For people: why it has those traits, e.g. `VOLATILE`, `calls public.audit(text)`, `unlogged table`. Empty if none.
    pub why: Box<str>,
}

type Meanings = HashMap<Box<str>, SmallVec<[Meaning; 1]>, foldhash::fast::RandomState>;

/// The names of one database. Names are as stored in the catalog (already folded).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    /// Functions, aggregates and window functions, PostgreSQL's own included.
    pub functions: Meanings,
    /// Tables, views, materialized views, foreign tables and sequences, the system's included; temporary ones are not.
    pub relations: Meanings,
    /// By symbol, PostgreSQL's own included.
    pub operators: Meanings,
    /// Types and domains, PostgreSQL's own included; not arrays (`int4[]` mentions `int4`).
    pub types: Meanings,
    /// Traits of whatever can be reached without a name: a cast between two of PostgreSQL's own types. With any of them,
    /// no statement of this database that computes something is a read.
    pub anything: Traits,
    /// For people, of `anything`.
    pub why_anything: Box<str>,
    /// The `search_path` a session starts with in this database: that of the configuration and of `ALTER DATABASE`.
    /// `None` while it is not known.
    pub default_path: Option<Box<str>>,
    /// Roles for which `ALTER ROLE … SET search_path` (in this database or all) says something else, with what it says.
    pub role_paths: HashMap<Box<str>, Box<str>, foldhash::fast::RandomState>,
    /// False until the catalog has been read: then nothing is known, and everything goes to the primary.
    pub is_read: bool,
}

/// In which schemas names without one are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Path {
    /// Anywhere: of all objects with the name, the worst counts.
    #[default]
    Unknown,
    /// These, and `pg_catalog`.
    Schemas(Vec<Box<str>>),
}

/// What a lookup found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found<'a> {
    /// The worst of the objects it may be.
    Known {
        traits: Traits,
        worst: &'a Meaning,
    },
    Unknown,
}

impl Path {
    fn reaches(&self, schema: &str) -> bool {
        match self {
            Path::Unknown => true,
            Path::Schemas(schemas) => schema == "pg_catalog" || schemas.iter().any(|known| **known == *schema),
        }
    }
}

impl Names {
    pub fn function(&self, schema: Option<&str>, name: &str, arguments: u16, path: &Path) -> Found<'_> {
        let fits = |meaning: &Meaning| (meaning.arguments.0..=meaning.arguments.1).contains(&arguments);
        worst(&self.functions, schema, name, path, fits)
    }

    pub fn relation(&self, schema: Option<&str>, name: &str, path: &Path) -> Found<'_> {
        worst(&self.relations, schema, name, path, |_| true)
    }

    pub fn operator(&self, schema: Option<&str>, symbol: &str, path: &Path) -> Found<'_> {
        worst(&self.operators, schema, symbol, path, |_| true)
    }

    pub fn type_(&self, schema: Option<&str>, name: &str, path: &Path) -> Found<'_> {
        worst(&self.types, schema, name, path, |_| true)
    }

    /// Functions that `x.name` may call: those of one argument. Most such names are columns, so an unknown one is fine.
    pub fn field(&self, name: &str) -> Option<&Meaning> {
        let meanings = self.functions.get(name)?;
        let calls = |meaning: &&Meaning| {
            (meaning.arguments.0..=meaning.arguments.1).contains(&1)
                && !meaning.traits.is_empty()
                && !meaning.traits.contains(Traits::ALLOWED)
        };
        meanings.iter().find(calls)
    }
}

fn worst<'a>(
    all: &'a Meanings,
    schema: Option<&str>,
    name: &str,
    path: &Path,
    fits: impl Fn(&Meaning) -> bool,
) -> Found<'a> {
    let visible = |meaning: &&Meaning| match schema {
        Some(schema) => *meaning.schema == *schema,
        None => path.reaches(&meaning.schema),
    };
    let badness = |traits: Traits| match traits {
        _ if traits.contains(Traits::ALLOWED) => 0,
        _ if traits.contains(Traits::DIFFERS) => 2,
        _ => u8::from(!traits.is_empty()),
    };
    let meanings = all.get(name).into_iter().flatten();
    let candidates = meanings.filter(visible).filter(|meaning| fits(meaning));
    match candidates.max_by_key(|meaning| badness(meaning.traits)) {
        None => Found::Unknown,
        Some(worst) if worst.traits.contains(Traits::ALLOWED) => Found::Known { traits: Traits::NONE, worst },
        Some(worst) => Found::Known { traits: worst.traits, worst },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        let mut function = |schema: &str, name: &str, arguments, traits| {
            let meaning = Meaning { schema: schema.into(), arguments, traits, why: "".into() };
            names.functions.entry(name.into()).or_default().push(meaning);
        };
        function("pg_catalog", "lower", (1, 1), Traits::NONE);
        function("public", "lower", (2, 2), Traits::MAY_WRITE);
        function("audit", "lower", (1, 1), Traits::DIFFERS);
        function("pg_catalog", "nextval", (1, 1), Traits::MAY_WRITE);
        names
    }

    fn traits(found: Found<'_>) -> Option<Traits> {
        match found {
            Found::Known { traits, .. } => Some(traits),
            Found::Unknown => None,
        }
    }

    #[test]
    fn the_worst_overload_that_fits_counts_and_the_path_narrows_it() {
        let names = names();
        let path = Path::Schemas(vec!["public".into()]);
        assert_eq!(traits(names.function(None, "lower", 1, &Path::Unknown)), Some(Traits::DIFFERS));
        assert_eq!(traits(names.function(None, "lower", 1, &path)), Some(Traits::NONE));
        assert_eq!(traits(names.function(None, "lower", 2, &path)), Some(Traits::MAY_WRITE));
        assert_eq!(traits(names.function(None, "lower", 3, &path)), None);
        assert_eq!(traits(names.function(Some("pg_catalog"), "lower", 1, &Path::Unknown)), Some(Traits::NONE));
        assert_eq!(traits(names.function(None, "upper", 1, &path)), None);
    }

    #[test]
    fn a_field_may_call_a_function_of_one_argument() {
        let names = names();
        assert!(names.field("nextval").is_some());
        assert!(names.field("lower").is_some());
        assert!(names.field("price").is_none());
    }
}
