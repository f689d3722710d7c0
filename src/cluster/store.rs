//! Keeping the record: one store at a time, tried again until it is safe. While it is not, nothing that hangs on it moves.

use super::brain::after;
use super::event::CommandId;
use super::{Action, Brain, Record};
use crate::types::Millis;

#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub record: Record,
    pub tries: u32,
    /// When to try again; `None` while it is under way.
    pub again: Option<Millis>,
    /// Who is to be told when it is done, and what.
    pub answer: Option<(CommandId, String)>,
}

const FIRST_RETRY_MS: u64 = 100;
const LAST_RETRY_MS: u64 = 2000;

impl Brain {
    /// To be called only while none is pending.
    pub(super) fn store(&mut self, record: Record) {
        debug_assert!(self.pending.is_none(), "one record is stored at a time");
        self.pending = Some(Pending { record, tries: 0, again: None, answer: None });
        self.put();
    }

    fn put(&mut self) {
        self.serial += 1;
        let Some(pending) = &mut self.pending else { return };
        pending.again = None;
        pending.tries += 1;
        self.out.push(Action::Store { serial: self.serial, record: Box::new(pending.record.clone()) });
    }

    pub(super) fn retry_store(&mut self) {
        let Some(again) = self.pending.as_ref().and_then(|pending| pending.again) else { return };
        if self.is_due(again) {
            self.put();
        }
    }

    pub(super) fn stored(&mut self, serial: u64, result: Result<(), String>) {
        let is_under_way = self.pending.as_ref().is_some_and(|pending| pending.again.is_none());
        if serial != self.serial || !is_under_way {
            return;
        }
        let Some(mut pending) = self.pending.take() else { return };
        match result {
            Ok(()) => {
                self.said.remove("store");
                self.record = Some(pending.record);
                if let Some((id, text)) = pending.answer {
                    self.out.push(Action::Answer { id, result: Ok(text) });
                }
            }
            Err(reason) => {
                let wait = (FIRST_RETRY_MS << (pending.tries - 1).min(10)).min(LAST_RETRY_MS);
                pending.again = Some(after(self.now, wait));
                let about = format!("epoch {}, {}", pending.record.epoch, pending.record.phase.as_str());
                self.pending = Some(pending);
                self.say_once(
                    "store",
                    format!("the record ({about}) could not be stored, nothing moves until it is: {reason}"),
                );
            }
        }
    }
}
