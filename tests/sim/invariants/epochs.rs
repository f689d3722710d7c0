//! Epochs grow by one, and an epoch that is stable stays as it is.
//!
//! The epoch is what tells two primaries apart whose timelines may have the same number. If a record could go back, or
//! leave an epoch out, or an epoch could change its primary after it took writes, nobody could tell by its number whose
//! writes are whose.

use pgbaton::cluster::Phase;

use super::{Fact, Invariant, View};

pub struct Epochs;

impl Invariant for Epochs {
    fn name(&self) -> &'static str {
        "epochs grow"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        let Fact::Stored { before: Some(before) } = fact else { return Ok(()) };
        let Some(after) = view.record else { return Ok(()) };
        if after.written > after.epoch || after.written < before.written {
            return Err(format!(
                "epoch {} says that {} is written, before {}",
                after.epoch, after.written, before.written
            ));
        }
        if after.epoch == before.epoch.next() {
            return if after.phase == Phase::Stable { Err("an epoch begins with writes".into()) } else { Ok(()) };
        }
        if after.epoch != before.epoch {
            return Err(format!("epoch {} follows {}", after.epoch, before.epoch));
        }
        if after.phase < before.phase {
            return Err(format!("epoch {} goes back from {:?} to {:?}", after.epoch, before.phase, after.phase));
        }
        if before.phase >= Phase::Promoting && after.primary != before.primary {
            return Err(format!("epoch {} goes from {} to {}", after.epoch, before.primary, after.primary));
        }
        Ok(())
    }
}
