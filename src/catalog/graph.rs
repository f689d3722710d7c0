//! Who reaches whom among a database's objects, and what that makes of the names: pins and traits flow from a function to
//! everything that uses it, however indirectly. Pins flow to all who do anything with it, traits only to those who reach
//! it by reading: the default of a column counts for the one, not for the other.

use super::traits::TraitGraph;
use crate::sql::{Pins, Suspects};
use hashbrown::{HashMap, HashSet};

/// The kinds of object pins flow through.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Sort {
    Function,
    Relation,
    Type,
    Operator,
    OperatorClass,
    /// Not an object: whatever can be reached without any name, by a cast between two of PostgreSQL's own types.
    Anything,
}

impl Sort {
    pub fn of(letter: &str) -> Option<Sort> {
        Some(match letter {
            "f" => Sort::Function,
            "r" => Sort::Relation,
            "t" => Sort::Type,
            "o" => Sort::Operator,
            "c" => Sort::OperatorClass,
            "x" => Sort::Anything,
            _ => return None,
        })
    }

    /// By the number of the system catalog that holds the object, which is the same in every version.
    pub fn of_catalog(catalog: u32) -> Option<Sort> {
        Some(match catalog {
            1255 => Sort::Function,
            1259 => Sort::Relation,
            1247 => Sort::Type,
            2617 => Sort::Operator,
            2616 => Sort::OperatorClass,
            _ => return None,
        })
    }
}

pub(super) type Object = (Sort, u32);

/// What flows from the used to the user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Flow {
    Both,
    /// It is used when something else than reading is done.
    Pins,
    Traits,
}

impl Flow {
    pub fn of(letter: &str) -> Option<Flow> {
        Some(match letter {
            "b" => Flow::Both,
            "p" => Flow::Pins,
            "t" => Flow::Traits,
            _ => return None,
        })
    }
}

/// With a suspect under `Anything`, every statement that can compute something is suspect.
const VERBS: &[&str] =
    &["select", "insert", "update", "delete", "merge", "values", "table", "with", "execute", "copy", "refresh"];

#[derive(Default)]
pub(super) struct Graph {
    pins: HashMap<Object, Pins>,
    /// From an object to those that use it.
    users: HashMap<Object, Vec<Object>>,
    names: Vec<(Object, String)>,
    /// What bodies may mention besides: it has traits, but no pins that flow by name.
    other_names: Vec<(Object, String)>,
    pub traits: TraitGraph,
}

impl Graph {
    pub fn add_pins(&mut self, object: Object, pins: Pins) {
        if !pins.is_empty() {
            let known = self.pins.entry(object).or_default();
            *known = known.union(pins);
        }
    }

    pub fn add_use(&mut self, user: Object, used: Object, flow: Flow) {
        if user != used && flow != Flow::Traits {
            self.users.entry(used).or_default().push(user);
        }
        if flow != Flow::Pins {
            self.traits.add_use(user, used);
        }
    }

    pub fn add_name(&mut self, object: Object, name: String) {
        self.names.push((object, name));
    }

    /// A name that bodies may mention, but which is no suspect by itself.
    pub fn add_other_name(&mut self, object: Object, name: String) {
        self.other_names.push((object, name));
    }

    pub fn has_pins(&self) -> bool {
        !self.pins.is_empty()
    }

    /// Adds what bodies mention by name; schemas are not resolved, so a name stands for all objects that have it.
    pub fn add_mentions<'a>(&mut self, bodies: impl Iterator<Item = (u32, &'a str)>) {
        let mut objects: HashMap<&str, Vec<(Object, Flow)>> = HashMap::new();
        for (object, name) in &self.names {
            objects.entry(name.as_str()).or_default().push((*object, Flow::Both));
        }
        for (object, name) in &self.other_names {
            objects.entry(name.as_str()).or_default().push((*object, Flow::Traits));
        }
        let mut uses = HashSet::new();
        for (oid, body) in bodies {
            crate::sql::body::each_name(body, |name| {
                for (object, flow) in objects.get(name).into_iter().flatten() {
                    uses.insert(((Sort::Function, oid), *object, *flow));
                }
            });
        }
        drop(objects);
        for (user, used, flow) in uses {
            self.add_use(user, used, flow);
        }
    }

    /// Lets pins and traits flow until nothing changes. Each object is visited again only when it has gained a pin.
    pub fn spread(&mut self) {
        let mut changed: Vec<Object> = self.pins.keys().copied().collect();
        while let Some(object) = changed.pop() {
            let pins = self.pins[&object];
            for user in self.users.get(&object).into_iter().flatten() {
                let known = self.pins.entry(*user).or_default();
                let union = known.union(pins);
                if union != *known {
                    *known = union;
                    changed.push(*user);
                }
            }
        }
        self.traits.spread();
    }

    pub fn pins_of(&self, object: Object) -> Pins {
        self.pins.get(&object).copied().unwrap_or_default()
    }

    pub fn into_suspects(self, any_ddl: Pins) -> Suspects {
        let mut suspects = Suspects { any_ddl, ..Suspects::default() };
        for (object, name) in &self.names {
            let pins = self.pins_of(*object);
            match object.0 {
                _ if pins.is_empty() => {}
                Sort::Operator => suspects.add_operator(name, pins),
                _ => suspects.add_name(name, pins),
            }
        }
        let anything = self.pins_of((Sort::Anything, 0));
        if !anything.is_empty() {
            for verb in VERBS {
                suspects.add_name(verb, anything);
            }
        }
        suspects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Pin;

    #[test]
    fn pins_flow_through_cycles_and_by_name() {
        let mut graph = Graph::default();
        let (a, b, view, table) = ((Sort::Function, 1), (Sort::Function, 2), (Sort::Relation, 3), (Sort::Relation, 4));
        for (object, name) in [(a, "a"), (b, "b"), (view, "v"), (table, "t")] {
            graph.add_name(object, name.into());
        }
        graph.add_pins(a, Pins::of(Pin::Process));
        graph.add_pins(table, Pins::of(Pin::Temporary));
        graph.add_use(view, b, Flow::Both);
        // b calls a, and reads the view that calls b.
        graph.add_mentions([(2, "select A() from v")].into_iter());
        graph.spread();
        let suspects = graph.into_suspects(Pins::EMPTY);
        let mut names: Vec<_> = suspects.names.iter().map(|(name, pins)| format!("{name} {pins:?}")).collect();
        names.sort();
        assert_eq!(names, ["a {Process}", "b {Process}", "t {Temporary}", "v {Process}"]);
    }

    #[test]
    fn what_only_writing_reaches_counts_for_pins_only() {
        use crate::catalog::why::Cause;
        use crate::route::names::Traits;

        let mut graph = Graph::default();
        let (f, table, view) = ((Sort::Function, 20001), (Sort::Relation, 20002), (Sort::Relation, 20003));
        graph.add_name(table, "t".into());
        graph.add_name(view, "v".into());
        graph.add_pins(f, Pins::of(Pin::Process));
        graph.traits.add_cause(f, || "public.f()".into(), Cause::Volatile);
        graph.add_use(table, f, Flow::Pins);
        graph.add_use(view, f, Flow::Traits);
        graph.spread();
        assert_eq!(graph.traits.traits_of(table), Traits::NONE);
        assert_eq!(graph.traits.traits_of(view), Traits::MAY_WRITE);
        assert_eq!(graph.into_suspects(Pins::EMPTY).names.keys().map(|name| &**name).collect::<Vec<_>>(), ["t"]);
    }
}
