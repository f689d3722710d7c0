//! What has to be done, with the connection at rest, before a statement may be sent.

use super::{Before, Machine, Tx};
use crate::pool::memory::Memory;
use crate::sql::{Kind, Pin, Statement};

impl Machine {
    /// Whether something must be done before these statements are sent; asked again afterwards, it says no.
    pub(super) fn before(&mut self, statements: &[Statement], memory: &Memory) -> Option<Before> {
        if self.done_before || !self.is_quiet() {
            return None;
        }
        for statement in statements {
            if let Kind::NeedsDatabaseEmpty(databases) = &statement.kind
                && !self.is_standby()
            {
                return Some(Before::EmptyDatabases(databases.clone()));
            }
            let pins = statement.pins.union(statement.pins_at_commit);
            let new = |pin: Pin| pins.contains(pin) && !self.pins.contains(pin);
            if self.needs_fresh_server(statement, memory) {
                return Some(Before::FreshServer);
            }
            let executes = |name: &str| self.statements.contains_key(name.as_bytes());
            let by_name = matches!(&statement.kind, Kind::Execute(name) if executes(name));
            if (new(Pin::Introspection) || by_name) && !self.native {
                return Some(Before::GoNative);
            }
            if pins.contains(Pin::Sequence) {
                self.happened.sequence_memory = true;
                if !std::mem::replace(&mut self.undisturbed, true) {
                    return Some(Before::ForgetSequences);
                }
            }
        }
        None
    }

    /// Statements that would show what an earlier session has left in the server process where nothing undoes it.
    fn needs_fresh_server(&self, statement: &Statement, memory: &Memory) -> bool {
        if self.status != Tx::Idle || !self.pins.is_empty() {
            return false;
        }
        match &statement.kind {
            // With `pg_temp` in its search_path a transaction counts as having used temporary objects just when it made
            // the schema for them.
            Kind::Set { name, .. } if &**name == "search_path" => {
                let pins = statement.pins.union(statement.pins_at_commit);
                memory.has_temp_schema && pins.contains(Pin::Temporary)
            }
            // Once PL/pgSQL is loaded in a process, it refuses settings it does not know; before that it could not.
            Kind::Set { name, .. } => name.starts_with("plpgsql.") && memory.sole_session != self.session,
            _ => false,
        }
    }
}
