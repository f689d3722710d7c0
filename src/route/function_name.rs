//! The name of a function as somebody writes it in `reads.safe_functions`, read by PostgreSQL's rules for identifiers.
//!
//! Names in a database are compared byte by byte, so what is written here has to be folded the same way once, where it
//! enters, instead of each time it is compared.

use std::fmt;
use std::str::FromStr;

/// A function, with or without its schema; without one, it stands for the functions of that name in every schema. All
/// overloads are meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName {
    pub schema: Option<Box<str>>,
    /// As stored in the catalog: folded unless it was quoted.
    pub name: Box<str>,
}

impl FunctionName {
    /// Whether the function `name` of `schema` (both as stored in the catalog) is meant.
    pub fn matches(&self, schema: &str, name: &str) -> bool {
        *self.name == *name && self.schema.as_deref().is_none_or(|own| own == schema)
    }

    /// Whether both can mean the same function.
    pub fn overlaps(&self, other: &FunctionName) -> bool {
        self.name == other.name && (self.schema.is_none() || other.schema.is_none() || self.schema == other.schema)
    }
}

impl FromStr for FunctionName {
    /// What is wrong, to follow "must be".
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "\"function\" or \"schema.function\", without arguments";
        let (first, rest) = identifier(text).ok_or(EXPECTED)?;
        let Some(rest) = rest.strip_prefix('.') else {
            return if rest.is_empty() { Ok(FunctionName { schema: None, name: first }) } else { Err(EXPECTED) };
        };
        match identifier(rest) {
            Some((name, "")) => Ok(FunctionName { schema: Some(first), name }),
            _ => Err(EXPECTED),
        }
    }
}

/// Takes one identifier off the front: `Name` becomes `name`, `"Na""me"` becomes `Na"me`.
fn identifier(text: &str) -> Option<(Box<str>, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut rest = quoted;
        loop {
            let (part, after) = rest.split_once('"')?;
            name.push_str(part);
            let Some(more) = after.strip_prefix('"') else {
                let fits = !name.is_empty() && !name.contains('\0');
                return fits.then(|| (name.into_boxed_str(), after));
            };
            name.push('"');
            rest = more;
        }
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let begins = name.chars().next().is_some_and(|c| !c.is_ascii_digit() && c != '$');
    begins.then(|| (name.to_ascii_lowercase().into_boxed_str(), rest))
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write_identifier(f, schema)?;
            f.write_str(".")?;
        }
        write_identifier(f, &self.name)
    }
}

/// Quoted where it would not read back as it is.
fn write_identifier(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    match identifier(name) {
        Some((folded, "")) if *folded == *name => f.write_str(name),
        _ => write!(f, "\"{}\"", name.replace('"', "\"\"")),
    }
}

impl serde::Serialize for FunctionName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(Option<String>, String)> {
        let name = text.parse::<FunctionName>().ok()?;
        assert_eq!(name.to_string().parse(), Ok(name.clone()), "{text}");
        Some((name.schema.map(String::from), name.name.into()))
    }

    #[test]
    fn names_fold_as_postgresql_folds_them() {
        assert_eq!(read("Total_Of"), Some((None, "total_of".into())));
        assert_eq!(read("App.f1"), Some((Some("app".into()), "f1".into())));
        assert_eq!(read("\"App\".\"Odd \"\"one\"\".\""), Some((Some("App".into()), "Odd \"one\".".into())));
        assert_eq!(read("größe"), Some((None, "größe".into())));
        for wrong in ["", ".f", "f.", "a.b.c", "f(text)", "f ()", "1f", "\"\"", "\"open", "a-b", " f", "a..b"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_without_schema_means_all_of_them() {
        let (bare, full): (FunctionName, FunctionName) = ("f".parse().unwrap(), "app.f".parse().unwrap());
        assert!(bare.matches("app", "f") && bare.matches("public", "f") && !bare.matches("f", "app"));
        assert!(full.matches("app", "f") && !full.matches("public", "f"));
        assert!(bare.overlaps(&full) && full.overlaps(&bare));
        assert!(!full.overlaps(&"public.f".parse().unwrap()) && !full.overlaps(&"app.g".parse().unwrap()));
    }
}
