//! How traits flow: from a function, table or type that has a cause of its own to everything whose reading reaches it.
//!
//! Names are compared from one refresh to the next, so the same definitions must give the same reasons, whatever order
//! the server answers in: everything here is visited in the order of the objects.

use super::graph::{Object, Sort};
use super::why::Cause;
use crate::route::names::Traits;
use crate::sql::Pin;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// Both traits that flow; of an object that has both, the reason for the latter is told.
const FLOWING: [Traits; 2] = [Traits::MAY_WRITE, Traits::DIFFERS];

/// Where an object has a trait from.
#[derive(Clone)]
enum Source {
    Own(Cause),
    Used(Object),
}

#[derive(Default)]
struct Node {
    sources: [Option<Source>; 2],
    /// What people call it. Only of objects with a cause of their own.
    label: Box<str>,
    is_allowed: bool,
}

impl Node {
    fn add(&mut self, cause: &Cause) {
        for (source, flowing) in self.sources.iter_mut().zip(FLOWING) {
            if cause.traits().contains(flowing) && source.is_none() {
                *source = Some(Source::Own(cause.clone()));
            }
        }
    }
}

#[derive(Default)]
pub(super) struct TraitGraph {
    nodes: HashMap<Object, Node>,
    /// From an object to those whose reading reaches it.
    users: HashMap<Object, Vec<Object>>,
    /// Causes that are told only where nothing that is used explains the same trait.
    vague: Vec<(Object, Cause)>,
}

impl TraitGraph {
    pub fn add_cause(&mut self, object: Object, label: impl FnOnce() -> String, cause: Cause) {
        let node = self.nodes.entry(object).or_default();
        if node.label.is_empty() {
            node.label = label().into();
        }
        match cause {
            // Of a function that calls pg_advisory_lock(), its name says more than "takes advisory locks".
            Cause::Pin(pin) if pin != Pin::Opaque => self.vague.push((object, cause)),
            cause => node.add(&cause),
        }
    }

    /// Whatever it has or uses, nothing of it counts.
    pub fn allow(&mut self, object: Object) {
        self.nodes.entry(object).or_default().is_allowed = true;
    }

    pub fn add_use(&mut self, user: Object, used: Object) {
        if user != used {
            self.users.entry(used).or_default().push(user);
        }
    }

    /// Lets the traits flow until nothing changes, nearest causes first.
    pub fn spread(&mut self) {
        for users in self.users.values_mut() {
            users.sort_unstable();
            users.dedup();
        }
        self.flow();
        for (object, cause) in std::mem::take(&mut self.vague) {
            self.nodes.entry(object).or_default().add(&cause);
        }
        self.flow();
    }

    fn flow(&mut self) {
        for at in 0..FLOWING.len() {
            let has = |node: &Node| node.sources[at].is_some() && !node.is_allowed;
            let mut start: Vec<_> =
                self.nodes.iter().filter(|(_, node)| has(node)).map(|(object, _)| *object).collect();
            start.sort_unstable();
            let mut changed = VecDeque::from(start);
            while let Some(object) = changed.pop_front() {
                for user in self.users.get(&object).into_iter().flatten() {
                    let node = self.nodes.entry(*user).or_default();
                    if node.sources[at].is_none() && !node.is_allowed {
                        node.sources[at] = Some(Source::Used(object));
                        changed.push_back(*user);
                    }
                }
            }
        }
    }

    pub fn traits_of(&self, object: Object) -> Traits {
        match self.nodes.get(&object) {
            None => Traits::NONE,
            Some(node) if node.is_allowed => Traits::ALLOWED,
            Some(node) => {
                let has = node.sources.iter().zip(FLOWING).filter(|(source, _)| source.is_some());
                has.fold(Traits::NONE, |traits, (_, flowing)| traits.union(flowing))
            }
        }
    }

    /// Why it has its worst trait, in words.
    pub fn why(&self, object: Object) -> String {
        let Some(node) = self.nodes.get(&object) else { return String::new() };
        if node.is_allowed {
            return "reads.safe_functions".into();
        }
        let Some(at) = (0..FLOWING.len()).rev().find(|at| node.sources[*at].is_some()) else { return String::new() };
        let mut user = object;
        // Each source was found before those it is the source of, so this ends.
        while let Some(Node { sources, label, .. }) = self.nodes.get(&user) {
            match &sources[at] {
                Some(Source::Own(cause)) if user == object => return cause.text(),
                Some(Source::Own(cause)) => {
                    let is_direct = matches!(&node.sources[at], Some(Source::Used(used)) if *used == user);
                    return cause.text_of_user(is_direct, object.0, user.0, label);
                }
                Some(Source::Used(used)) => user = *used,
                None => break,
            }
        }
        String::new()
    }

    /// Traits of what is reached without a name.
    pub fn anything(&self) -> (Traits, String) {
        let object = (Sort::Anything, 0);
        (self.traits_of(object), self.why(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Object = (Sort::Function, 20001);
    const B: Object = (Sort::Function, 20002);
    const C: Object = (Sort::Function, 20003);
    const VIEW: Object = (Sort::Relation, 20004);
    const BUILTIN: Object = (Sort::Function, 2880);

    fn graph(causes: &[(Object, &str, Cause)], uses: &[(Object, Object)]) -> TraitGraph {
        let mut graph = TraitGraph::default();
        for (object, label, cause) in causes {
            graph.add_cause(*object, || label.to_string(), cause.clone());
        }
        for (user, used) in uses {
            graph.add_use(*user, *used);
        }
        graph
    }

    fn told(graph: &TraitGraph, object: Object) -> String {
        format!("{:?} {}", graph.traits_of(object), graph.why(object)).replace('"', "")
    }

    #[test]
    fn traits_flow_to_the_end_and_tell_where_they_come_from() {
        let mut graph = graph(&[(A, "public.a()", Cause::Volatile)], &[(B, A), (C, B), (VIEW, C)]);
        graph.spread();
        assert_eq!(told(&graph, A), "{MAY_WRITE} VOLATILE");
        assert_eq!(told(&graph, B), "{MAY_WRITE} calls public.a(), which is VOLATILE");
        assert_eq!(told(&graph, VIEW), "{MAY_WRITE} reaches public.a(), which is VOLATILE");
        assert_eq!(told(&graph, BUILTIN), "{} ");
    }

    #[test]
    fn cycles_end_and_the_worst_trait_is_told() {
        let causes =
            [(A, "public.a()", Cause::Volatile), (BUILTIN, "pg_advisory_lock", Cause::PerNode("advisory lock"))];
        let mut graph = graph(&causes, &[(A, B), (B, C), (C, A), (B, BUILTIN)]);
        graph.spread();
        assert_eq!(told(&graph, B), "{MAY_WRITE, DIFFERS} mentions pg_advisory_lock");
        assert_eq!(told(&graph, A), "{MAY_WRITE, DIFFERS} reaches pg_advisory_lock");
        assert_eq!(told(&graph, C), "{MAY_WRITE, DIFFERS} reaches pg_advisory_lock");
    }

    #[test]
    fn what_is_allowed_gives_nothing_on() {
        let mut graph = graph(&[(A, "public.a()", Cause::Pin(Pin::Opaque))], &[(B, A), (C, B)]);
        graph.allow(B);
        graph.spread();
        assert_eq!(told(&graph, A), "{MAY_WRITE, DIFFERS} changes settings or runs a text");
        assert_eq!(told(&graph, B), "{ALLOWED} reads.safe_functions");
        assert_eq!(told(&graph, C), "{} ");
    }

    #[test]
    fn the_order_of_the_answer_does_not_change_the_reason() {
        let causes = [(A, "public.a()", Cause::Volatile), (B, "public.b()", Cause::Volatile)];
        let mut one = graph(&causes, &[(VIEW, A), (VIEW, B)]);
        let mut other = graph(&[causes[1].clone(), causes[0].clone()], &[(VIEW, B), (VIEW, A), (VIEW, B)]);
        one.spread();
        other.spread();
        assert_eq!(told(&one, VIEW), "{MAY_WRITE} calls public.a(), which is VOLATILE");
        assert_eq!(told(&one, VIEW), told(&other, VIEW));
    }
}
