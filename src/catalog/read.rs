//! Asking one database for its suspects, in one round trip when there are none and two otherwise.

use super::functions::Function;
use super::graph::{Graph, Object, Sort};
use crate::sql::body::{builtin_names, pins_of_builtin};
use crate::sql::{Pins, Suspects, quote_literal};
use hashbrown::HashMap;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

const FUNCTIONS: &str = include_str!("functions.sql");
/// All `part` rows of its answer come before the `depends` rows.
const DEPENDENCIES: &str = include_str!("dependencies.sql");

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("the catalog could not be read")]
    Query(#[from] tokio_postgres::Error),
    #[error("the catalog gave an answer this version does not understand: {0}")]
    Answer(&'static str),
    #[error("the reading of the catalog was stopped")]
    Stopped,
}

const UNKNOWN_OBJECT: CatalogError = CatalogError::Answer("an unknown kind of object");

/// Everything in the client's database whose mention may leave session state behind. Any role may ask: the catalogs it
/// reads are open to all. A change that commits meanwhile may be missing.
pub async fn read_suspects(client: &Client) -> Result<Suspects, CatalogError> {
    let names: Vec<_> = builtin_names().map(quote_literal).collect();
    let answer = client.simple_query(&FUNCTIONS.replace("BUILTINS", &names.join(", "))).await?;
    // Reading bodies is computing: seconds in a database with very many functions.
    let first = compute(move || First::read(&answer)).await??;
    if !first.graph.has_pins() {
        return Ok(Suspects::default());
    }
    let answer = client.simple_query(DEPENDENCIES).await?;
    compute(move || first.finish(&answer)).await?
}

async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CatalogError::Stopped)
}

/// What the first answer tells.
struct First {
    graph: Graph,
    functions: Vec<Function>,
    event_triggers: Vec<Object>,
}

impl First {
    fn read(answer: &[SimpleQueryMessage]) -> Result<First, CatalogError> {
        let mut first = First { graph: Graph::default(), functions: Vec::new(), event_triggers: Vec::new() };
        let mut builtins = Vec::new();
        let mut calls = Vec::new();
        for row in rows(answer) {
            match text(row, 0)? {
                "function" => first.functions.push(Function {
                    oid: oid(row, 1)?,
                    name: readable(row, 2).unwrap_or(Suspects::NOT_ASCII).into(),
                    language: text(row, 3)?.into(),
                    extension: readable(row, 4).unwrap_or_default().into(),
                    body: readable(row, 5).map(Into::into),
                    has_standard_body: text(row, 6)? == "t",
                    creates_in_pg_temp: text(row, 7)? == "t",
                }),
                "builtin" => builtins.push((object(row, 1)?, pins_of_builtin(text(row, 3)?))),
                "event trigger" => first.event_triggers.push((Sort::Function, oid(row, 1)?)),
                "calls" => calls.push((object(row, 1)?, object(row, 3)?)),
                _ => return Err(CatalogError::Answer("an unknown kind of row")),
            }
        }
        // What calls a builtin has its pins; the builtin itself is known to the judgement of statements.
        for (object, builtin) in calls {
            for (_, pins) in builtins.iter().filter(|(known, _)| *known == builtin) {
                first.graph.add_pins(object, *pins);
            }
        }
        for function in &first.functions {
            first.graph.add_name((Sort::Function, function.oid), function.name.clone());
            first.graph.add_pins((Sort::Function, function.oid), function.pins());
        }
        Ok(first)
    }

    fn finish(mut self, answer: &[SimpleQueryMessage]) -> Result<Suspects, CatalogError> {
        // An object of a system catalog: the catalog's number and its own.
        let mut parts: HashMap<(u32, u32), Vec<Object>> = HashMap::new();
        for row in rows(answer) {
            match text(row, 0)? {
                "part" => parts.entry((oid(row, 1)?, oid(row, 2)?)).or_default().push(object(row, 3)?),
                "depends" => {
                    let (user, used) = ((oid(row, 1)?, oid(row, 2)?), (oid(row, 3)?, oid(row, 4)?));
                    let used = (Sort::of_catalog(used.0).ok_or(UNKNOWN_OBJECT)?, used.1);
                    for owner in parts.get(&user).into_iter().flatten() {
                        self.graph.add_use(*owner, used);
                    }
                    if let Some(sort) = Sort::of_catalog(user.0) {
                        self.graph.add_use((sort, user.1), used);
                    }
                }
                "uses" => self.graph.add_use(object(row, 1)?, object(row, 3)?),
                "name" => self.graph.add_name(object(row, 1)?, readable(row, 3).unwrap_or(Suspects::NOT_ASCII).into()),
                _ => return Err(CatalogError::Answer("an unknown kind of row")),
            }
        }
        let bodies = self.functions.iter().filter_map(|function| Some((function.oid, function.readable_body()?)));
        self.graph.add_mentions(bodies);
        self.graph.spread();
        let any_ddl =
            self.event_triggers.iter().fold(Pins::EMPTY, |pins, function| pins.union(self.graph.pins_of(*function)));
        Ok(self.graph.into_suspects(any_ddl))
    }
}

fn rows(answer: &[SimpleQueryMessage]) -> impl Iterator<Item = &SimpleQueryRow> {
    answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// A column that may hold bytes which are no text (a database in SQL_ASCII).
fn readable(row: &SimpleQueryRow, column: usize) -> Option<&str> {
    row.try_get(column).ok().flatten()
}

fn text(row: &SimpleQueryRow, column: usize) -> Result<&str, CatalogError> {
    readable(row, column).ok_or(CatalogError::Answer("a missing column"))
}

fn oid(row: &SimpleQueryRow, column: usize) -> Result<u32, CatalogError> {
    text(row, column)?.parse().map_err(|_| CatalogError::Answer("a number that is none"))
}

fn object(row: &SimpleQueryRow, column: usize) -> Result<Object, CatalogError> {
    let sort = Sort::of(text(row, column)?).ok_or(UNKNOWN_OBJECT)?;
    Ok((sort, oid(row, column + 1)?))
}
