//! What operators ask for.

use super::event::CommandId;
use super::mode::{Adopting, Change, Mode, Order};
use super::{Action, Brain, Command, Record};
use crate::types::NodeId;

impl Brain {
    /// One after the other, each when the store is free.
    pub(super) fn obey(&mut self) {
        while self.pending.is_none() {
            let Some((id, command)) = self.commands.pop_front() else { return };
            if let Err(reason) = self.obey_one(id, command) {
                self.out.push(Action::Answer { id, result: Err(reason) });
            }
        }
    }

    fn obey_one(&mut self, id: CommandId, command: Command) -> Result<(), String> {
        if let Mode::Frozen { epoch, reason } = self.mode.clone() {
            if command != Command::Resume || self.record.is_none() {
                return Err(reason);
            }
            self.record = None;
            let mode = Adopting { since: self.now, floor: epoch, reason: "looking for the primary".into() };
            self.enter(Mode::Adopting(mode), format!("an operator resumes after epoch {epoch}"));
            let text = format!("the one primary that is found will be that of epoch {}", epoch.next());
            self.out.push(Action::Answer { id, result: Ok(text) });
            return Ok(());
        }
        if let (Mode::Adopting(_), Command::Restart { node }) = (&self.mode, &command) {
            return self.start_unrecorded(id, node.clone());
        }
        let Some(record) = self.record.clone() else { return Err("there is no record of this cluster yet".into()) };
        match command {
            Command::Pause | Command::Resume => {
                let paused = command == Command::Pause;
                let text = if paused { "paused: no change of primary until resumed" } else { "resumed" };
                self.store_answering(id, text.into(), Record { paused, ..record });
            }
            Command::Maintenance { node, on } => {
                self.check_node(&node)?;
                if on && record.primary == node {
                    return Err(format!("{node} is the primary"));
                }
                let mut next = record;
                let text = match on {
                    true => format!("{node} is in maintenance"),
                    false => format!("{node} is in use again"),
                };
                if on {
                    next.maintenance.insert(node);
                } else {
                    next.maintenance.remove(&node);
                }
                self.store_answering(id, text, next);
            }
            Command::Switchover { to } => self.switch_over(&record, id, to)?,
            Command::Rejoin { node, rebuild } => {
                self.check_node(&node)?;
                self.rejoin_by_order(id, &record, node, rebuild)?;
            }
            Command::Restart { node } => {
                self.check_node(&node)?;
                self.restart_by_order(id, &record, node)?;
            }
            Command::Failover { to, allow_data_loss } => {
                self.fail_over_to(&record, Order { id, to, allow_data_loss })?;
            }
        }
        Ok(())
    }

    pub(super) fn check_node(&self, node: &NodeId) -> Result<(), String> {
        self.policy.nodes.contains_key(node).then_some(()).ok_or(format!("{node} is not in the configuration"))
    }

    fn store_answering(&mut self, id: CommandId, text: String, record: Record) {
        self.say(true, format!("by an operator: {text}"));
        self.store(record);
        if let Some(pending) = &mut self.pending {
            pending.answer = Some((id, text));
        }
    }

    fn fail_over_to(&mut self, record: &Record, order: Order) -> Result<(), String> {
        self.check_node(&order.to)?;
        if self.policy.nodes.get(&order.to).is_some_and(|node| node.priority == 0) {
            return Err(format!("{} has priority 0 and is never promoted", order.to));
        }
        if record.maintenance.contains(&order.to) {
            return Err(format!("{} is in maintenance", order.to));
        }
        let known = self.known(&order.to);
        if let Some(trouble) = known.and_then(|known| known.trouble.as_ref()) {
            return Err(format!("{} does not answer: {}", order.to, trouble.text));
        }
        if known.is_some_and(|known| known.is_primary()) {
            return Err(format!("{} is a primary", order.to));
        }
        match &mut self.mode {
            Mode::Stable(stable) => {
                let incarnation = stable.incarnation;
                let cause = format!("an operator asked for {}", order.to);
                let mut change = Change::new("order", cause, Some(record.primary.clone()), self.now);
                change.incarnation = incarnation;
                change.order = Some(order);
                self.begin(change, false);
                Ok(())
            }
            Mode::Recruiting(recruiting) if recruiting.change.order.is_none() => {
                recruiting.is_in_place = false;
                recruiting.change.order = Some(order);
                Ok(())
            }
            _ => Err("another change of primary is under way".into()),
        }
    }
}
