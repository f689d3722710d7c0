//! Asking one database: whether anything has changed, and if so what its objects are and who uses whom.

use super::builtins::{Builtins, argument_range};
use super::functions::{Function, PER_NODE_SETTINGS};
use super::graph::{Flow, Graph, Object, Sort};
use super::rows::{CatalogError, as_number, boolean, object, oid, readable, rows, text};
use super::why::Cause;
use crate::route::names::{Meaning, Names};
use crate::sql::{Pins, Suspects};
use hashbrown::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

const LOOK: &str = include_str!("look.sql");
const OBJECTS: &str = include_str!("objects.sql");
/// All `part` rows of its answer come before the `depends` rows.
const DEPENDENCIES: &str = include_str!("dependencies.sql");

/// Where a setting has its value from that all sessions have, as `pg_settings.source` says it.
const CONFIGURATION: &[&str] = &["default", "environment variable", "configuration file", "command line"];

const UNKNOWN_ROW: CatalogError = CatalogError::Answer("an unknown kind of row");

/// What the configuration says of functions. A name is `schema.function`, or `function` for those in any schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// They count as reads that mean the same everywhere, whatever they do.
    pub safe: Vec<Box<str>>,
    /// They never count as that. Stronger than `safe`.
    pub unsafe_: Vec<Box<str>>,
}

enum Override {
    Safe,
    Unsafe,
}

impl Overrides {
    fn of(&self, schema: &str, name: &str) -> Option<Override> {
        let names = |list: &[Box<str>]| {
            list.iter().any(|listed| {
                **listed == *name || listed.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.')) == Some(name)
            })
        };
        match () {
            _ if names(&self.unsafe_) => Some(Override::Unsafe),
            _ if names(&self.safe) => Some(Override::Safe),
            _ => None,
        }
    }
}

/// Reads the catalog of one database again and again; remembers what need not be asked twice.
#[derive(Default)]
pub struct Reader {
    /// With what the server said of itself then.
    builtins: Option<(String, Arc<Builtins>)>,
    /// What the last reading began with.
    last: Option<(Vec<String>, Overrides)>,
}

impl Reader {
    /// Everything in the client's database whose mention may leave session state behind, and what its names stand for;
    /// `None` if that is the same as the last time. Any role may ask: the catalogs it reads are open to all. A change that
    /// commits meanwhile may be missing.
    pub async fn read(
        &mut self,
        client: &Client,
        overrides: &Overrides,
    ) -> Result<Option<(Suspects, Names)>, CatalogError> {
        let look = client.simple_query(LOOK).await?;
        let seen: Vec<String> = rows(&look).map(joined).collect();
        let now = (seen, overrides.clone());
        if self.last.as_ref() == Some(&now) {
            return Ok(None);
        }
        // A reading that fails must be done again.
        self.last = None;
        let server = now.0.iter().find(|row| row.starts_with("server")).cloned().unwrap_or_default();
        let builtins = match &self.builtins {
            Some((known, builtins)) if *known == server => builtins.clone(),
            _ => self.builtins.insert((server, Arc::new(Builtins::read(client).await?))).1.clone(),
        };
        let question = OBJECTS.replace("BUILTINS", &numbers(&builtins, overrides)).replace("SETTINGS", &settings());
        let answer = client.simple_query(&question).await?;
        // Reading bodies is computing: seconds in a database with very many functions.
        let overrides = overrides.clone();
        let first = compute(move || First::read(&answer, builtins, &overrides)).await??;
        let answer = if first.has_to_be_followed() { client.simple_query(DEPENDENCIES).await? } else { Vec::new() };
        let found = compute(move || first.finish(&answer, &look)).await??;
        self.last = Some(now);
        Ok(Some(found))
    }
}

/// What mentioning the names of the client's database does to a session, and what they stand for, without configuration.
pub async fn read(client: &Client, overrides: &Overrides) -> Result<(Suspects, Names), CatalogError> {
    // A new reader has nothing to compare with, so it always answers.
    Ok(Reader::default().read(client, overrides).await?.unwrap_or_default())
}

/// The suspects alone.
pub async fn read_suspects(client: &Client) -> Result<Suspects, CatalogError> {
    Ok(read(client, &Overrides::default()).await?.0)
}

async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CatalogError::Stopped)
}

fn joined(row: &SimpleQueryRow) -> String {
    let columns: Vec<_> = (0..row.len()).map(|at| readable(row, at).unwrap_or("\u{0}")).collect();
    columns.join("\u{1}")
}

/// The builtin functions and relations for which callers must be found, as rows of an SQL VALUES.
fn numbers(builtins: &Builtins, overrides: &Overrides) -> String {
    let mut list = String::new();
    for builtin in &builtins.all {
        let sort = match builtin.object.0 {
            Sort::Function if builtin.cause.is_some() || !builtin.pins.is_empty() => 'f',
            Sort::Function if overrides.of(&builtin.schema, &builtin.name).is_some() => 'f',
            Sort::Relation if *builtin.schema == *"pg_catalog" => 'r',
            _ => continue,
        };
        let comma = if list.is_empty() { "" } else { ", " };
        // Writing to a String does not fail.
        let _ = write!(list, "{comma}('{sort}', {})", builtin.object.1);
    }
    list
}

/// The settings to be looked for in stored expressions, with a regular expression for each, as rows of an SQL VALUES.
fn settings() -> String {
    let row = |setting: &&str| {
        let byte = |byte: u8| match byte.to_ascii_uppercase() {
            capital if capital != byte => format!(" ({byte}|{capital})"),
            _ => format!(" {byte}"),
        };
        format!("('{setting}', '{} ')", setting.bytes().map(byte).collect::<String>())
    };
    PER_NODE_SETTINGS.iter().map(row).collect::<Vec<_>>().join(", ")
}

/// An object of this database that `Names` shows.
struct Named {
    object: Object,
    name: Box<str>,
    schema: Box<str>,
    /// Of a relation.
    row_type: u32,
}

/// What the first answer tells.
struct First {
    graph: Graph,
    builtins: Arc<Builtins>,
    functions: Vec<Function>,
    named: Vec<Named>,
    event_triggers: Vec<Object>,
    /// There is something that others may use, or that may use others.
    must_follow: bool,
}

impl First {
    fn read(
        answer: &[SimpleQueryMessage],
        builtins: Arc<Builtins>,
        overrides: &Overrides,
    ) -> Result<First, CatalogError> {
        let mut first = First {
            graph: Graph::default(),
            builtins,
            functions: Vec::new(),
            named: Vec::new(),
            event_triggers: Vec::new(),
            must_follow: false,
        };
        let mut calls = Vec::new();
        let mut causes = Vec::new();
        for row in rows(answer) {
            match text(row, 0)? {
                "function" => first.functions.push(function(row)?),
                "event trigger" => first.event_triggers.push((Sort::Function, oid(row, 1)?)),
                "relation" => first.relation(row)?,
                "type" => first.named(Sort::Type, row)?,
                "operator" => first.named(Sort::Operator, row)?,
                "calls" => calls.push((flow(row, 1)?, object(row, 2)?, object(row, 4)?)),
                "cause" => {
                    let setting =
                        PER_NODE_SETTINGS.iter().find(|setting| text(row, 2).is_ok_and(|name| name == **setting));
                    let cause = setting.map_or(Cause::Locks, |setting| Cause::Setting(setting));
                    causes.push(((Sort::Relation, oid(row, 1)?), cause));
                }
                "follow" => first.must_follow = true,
                _ => return Err(UNKNOWN_ROW),
            }
        }
        let labels: HashMap<_, _> = first.named.iter().map(|named| (named.object, named)).collect();
        for (object, cause) in causes {
            let label =
                || labels.get(&object).map(|found| format!("{}.{}", found.schema, found.name)).unwrap_or_default();
            first.graph.traits.add_cause(object, label, cause);
        }
        drop(labels);
        first.add_builtins(overrides, calls);
        first.add_functions(overrides);
        Ok(first)
    }

    fn named(&mut self, sort: Sort, row: &SimpleQueryRow) -> Result<(), CatalogError> {
        let object = (sort, oid(row, 1)?);
        self.graph.add_name(object, readable(row, 2).unwrap_or(Suspects::NOT_ASCII).into());
        if let (Some(name), Some(schema)) = (readable(row, 2), readable(row, 3)) {
            self.named.push(Named { object, name: name.into(), schema: schema.into(), row_type: 0 });
        }
        Ok(())
    }

    fn relation(&mut self, row: &SimpleQueryRow) -> Result<(), CatalogError> {
        let object = (Sort::Relation, oid(row, 1)?);
        let (name, schema) = (readable(row, 2), readable(row, 3));
        let cause = match (text(row, 4)?, text(row, 5)?) {
            ("S", _) => Some(Cause::Sequence),
            ("f", _) => Some(Cause::Foreign),
            (_, "u") => Some(Cause::Unlogged),
            _ => None,
        };
        if let Some(cause) = cause {
            // Sequences are in nearly every database, and only views, policies and functions read them.
            self.must_follow |= cause != Cause::Sequence;
            let label = || format!("{}.{}", schema.unwrap_or("?"), name.unwrap_or("?"));
            self.graph.traits.add_cause(object, label, cause);
        }
        match text(row, 4)? {
            // What a sequence does to a session, the functions on it say.
            "S" => self.graph.add_other_name(object, name.unwrap_or_default().into()),
            kind => {
                self.graph.add_name(object, name.unwrap_or(Suspects::NOT_ASCII).into());
                self.must_follow |= kind == "v";
            }
        }
        if let (Some(name), Some(schema)) = (name, schema) {
            self.named.push(Named { object, name: name.into(), schema: schema.into(), row_type: oid(row, 6)? });
        }
        Ok(())
    }

    fn add_builtins(&mut self, overrides: &Overrides, calls: Vec<(Flow, Object, Object)>) {
        let mut pins: HashMap<Object, Pins> = HashMap::new();
        for builtin in &self.builtins.all {
            if !builtin.pins.is_empty() {
                pins.insert(builtin.object, builtin.pins);
            }
            let traits = &mut self.graph.traits;
            let label = || builtin.name.to_string();
            let is_mentioned = match (builtin.object.0, overrides.of(&builtin.schema, &builtin.name), &builtin.cause) {
                (Sort::Function, Some(Override::Unsafe), _) => {
                    traits.add_cause(builtin.object, label, Cause::Unsafe);
                    true
                }
                (Sort::Function, Some(Override::Safe), _) => {
                    traits.allow(builtin.object);
                    false
                }
                (Sort::Function, None, Some(cause)) => {
                    traits.add_cause(builtin.object, label, cause.clone());
                    true
                }
                (sort, _, _) => sort == Sort::Relation && *builtin.schema == *"pg_catalog",
            };
            if is_mentioned {
                self.graph.add_other_name(builtin.object, builtin.name.to_string());
            }
        }
        for (user, used) in &self.builtins.uses {
            self.graph.add_use(*user, *used, Flow::Traits);
        }
        for (flow, user, builtin) in calls {
            // What calls a builtin has its pins; the builtin itself is known to the judgement of statements.
            if let Some(pins) = pins.get(&builtin) {
                self.graph.add_pins(user, *pins);
            }
            if flow == Flow::Both {
                self.graph.add_use(user, builtin, Flow::Traits);
                self.must_follow = true;
            }
        }
    }

    fn add_functions(&mut self, overrides: &Overrides) {
        self.must_follow |= !self.functions.is_empty();
        for function in &mut self.functions {
            let object = (Sort::Function, function.oid);
            if function.language == "internal" {
                for builtin in function.body.iter().flat_map(|source| self.builtins.of_source(source)) {
                    function.pins_of_alias = function.pins_of_alias.union(builtin.pins);
                    self.graph.add_use(object, builtin.object, Flow::Traits);
                }
            }
            let pins = function.pins();
            self.graph.add_name(object, function.name.clone());
            self.graph.add_pins(object, pins);
            let traits = &mut self.graph.traits;
            match overrides.of(&function.schema, &function.name) {
                Some(Override::Safe) => traits.allow(object),
                Some(Override::Unsafe) => traits.add_cause(object, || function.label(), Cause::Unsafe),
                None => {}
            }
            for cause in function.causes(pins) {
                traits.add_cause(object, || function.label(), cause);
            }
        }
    }

    fn has_to_be_followed(&self) -> bool {
        self.must_follow || self.graph.has_pins()
    }

    fn finish(
        mut self,
        answer: &[SimpleQueryMessage],
        look: &[SimpleQueryMessage],
    ) -> Result<(Suspects, Names), CatalogError> {
        // An object of a system catalog: the catalog's number and its own.
        let mut parts: HashMap<(u32, u32), Vec<(Object, Flow)>> = HashMap::new();
        for row in rows(answer) {
            match text(row, 0)? {
                "part" => {
                    let part = (object(row, 4)?, flow(row, 1)?);
                    parts.entry((oid(row, 2)?, oid(row, 3)?)).or_default().push(part);
                }
                "depends" => {
                    let (user, used) = ((oid(row, 1)?, oid(row, 2)?), (oid(row, 3)?, oid(row, 4)?));
                    let used = (Sort::of_catalog(used.0).ok_or(CatalogError::UNKNOWN_OBJECT)?, used.1);
                    // Reading a relation reaches the types of its columns; what else the relation itself depends on is
                    // its partition key.
                    let is_key = Sort::of_catalog(user.0) == Some(Sort::Relation) && used.0 != Sort::Type;
                    for (owner, flow) in parts.get(&user).into_iter().flatten() {
                        self.graph.add_use(*owner, used, if is_key { Flow::Pins } else { *flow });
                    }
                    if let Some(sort) = Sort::of_catalog(user.0) {
                        self.graph.add_use((sort, user.1), used, if is_key { Flow::Pins } else { Flow::Both });
                    }
                }
                "uses" => self.graph.add_use(object(row, 2)?, object(row, 4)?, flow(row, 1)?),
                _ => return Err(UNKNOWN_ROW),
            }
        }
        let bodies = self.functions.iter().filter_map(|function| Some((function.oid, function.readable_body()?)));
        self.graph.add_mentions(bodies);
        self.graph.spread();
        let any_ddl =
            self.event_triggers.iter().fold(Pins::EMPTY, |pins, function| pins.union(self.graph.pins_of(*function)));
        let names = self.names(look)?;
        Ok((self.graph.into_suspects(any_ddl), names))
    }

    fn names(&self, look: &[SimpleQueryMessage]) -> Result<Names, CatalogError> {
        let mut names = Names { is_read: true, ..Names::default() };
        let traits = &self.graph.traits;
        let mut add = |object: Object, name: &str, schema: &str, arguments| {
            let map = match object.0 {
                Sort::Function => &mut names.functions,
                Sort::Relation => &mut names.relations,
                Sort::Operator => &mut names.operators,
                Sort::Type => &mut names.types,
                Sort::OperatorClass | Sort::Anything => return,
            };
            let (found, why) = (traits.traits_of(object), traits.why(object));
            let meaning = Meaning { schema: schema.into(), arguments, traits: found, why: why.into() };
            map.entry(name.into()).or_default().push(meaning);
        };
        for builtin in &self.builtins.all {
            add(builtin.object, &builtin.name, &builtin.schema, builtin.arguments);
            if builtin.row_type != 0 {
                add((Sort::Type, builtin.row_type), &builtin.name, &builtin.schema, (0, 0));
            }
        }
        for function in self.functions.iter().filter(|function| !function.is_procedure && !function.schema.is_empty()) {
            add((Sort::Function, function.oid), &function.name, &function.schema, function.arguments);
        }
        for named in &self.named {
            add(named.object, &named.name, &named.schema, (0, 0));
            if named.row_type != 0 {
                add((Sort::Type, named.row_type), &named.name, &named.schema, (0, 0));
            }
        }
        for map in [&mut names.functions, &mut names.relations, &mut names.operators, &mut names.types] {
            for meanings in map.values_mut() {
                meanings
                    .sort_unstable_by(|a, b| (&a.schema, a.arguments, &a.why).cmp(&(&b.schema, b.arguments, &b.why)));
                meanings.dedup();
            }
        }
        let (anything, why) = traits.anything();
        names.anything = anything;
        names.why_anything = why.into();
        for row in rows(look) {
            match text(row, 0)? {
                "path" if CONFIGURATION.contains(&text(row, 2)?) => names.default_path = Some(text(row, 3)?.into()),
                // Later rows are stronger.
                "setting" if oid(row, 1)? == 0 => names.default_path = Some(text(row, 3)?.into()),
                "setting" => {
                    if let Some(role) = readable(row, 2) {
                        names.role_paths.insert(role.into(), text(row, 3)?.into());
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }
}

fn function(row: &SimpleQueryRow) -> Result<Function, CatalogError> {
    let kind = text(row, 9)?;
    Ok(Function {
        oid: oid(row, 1)?,
        schema: readable(row, 3).filter(|_| readable(row, 2).is_some()).unwrap_or_default().into(),
        name: readable(row, 2).unwrap_or(Suspects::NOT_ASCII).into(),
        signature: readable(row, 15).unwrap_or("…").into(),
        is_procedure: kind == "p",
        is_volatile: text(row, 10)? == "v",
        arguments: argument_range(as_number(row, 11)?, as_number(row, 12)?, boolean(row, 13)?),
        is_internal: boolean(row, 14)?,
        pins_of_alias: Pins::EMPTY,
        language: text(row, 4)?.into(),
        extension: readable(row, 5).unwrap_or_default().into(),
        body: readable(row, 6).map(Into::into),
        has_standard_body: boolean(row, 7)?,
        creates_in_pg_temp: boolean(row, 8)?,
    })
}

fn flow(row: &SimpleQueryRow, column: usize) -> Result<Flow, CatalogError> {
    Flow::of(text(row, column)?).ok_or(UNKNOWN_ROW)
}
