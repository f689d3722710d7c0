//! Which order is taken, and which is not.

use crate::cluster::agent::{Doing, Done, Order, Task};
use crate::types::Epoch;

/// What becomes of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is carried out; what is under way ends.
    Taken,
    /// It is under way, or has ended: it is told how far it is.
    Known,
    /// An order of a later epoch, or a record of one, was seen.
    Stale,
    /// Another order of the same epoch is under way.
    Busy,
}

/// Of the same epoch, an order takes the place of another only if it stops the server: that is never wrong to do, and it must
/// not have to wait for a copy of gigabytes. Any other waits until pgbaton asks again, as what it goes by is what the first one
/// is just changing.
pub fn admit(known: Epoch, doing: Option<&Doing>, done: Option<&Done>, order: &Order) -> Admission {
    // Noted as done, and not yet off the desk: whoever has seen the one may go by it at once.
    let doing = doing.filter(|doing| done.is_none_or(|done| (done.epoch, &done.id) != (doing.epoch, &doing.id)));
    let is_under_way = doing.is_some_and(|doing| (doing.epoch, &doing.id) == (order.epoch, &order.id));
    if is_under_way || done.is_some_and(|done| (done.epoch, &done.id) == (order.epoch, &order.id)) {
        return Admission::Known;
    }
    match doing {
        _ if order.epoch < known => Admission::Stale,
        Some(doing) if order.epoch == doing.epoch && !matches!(order.task, Task::Stop { .. }) => Admission::Busy,
        _ => Admission::Taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::agent::{Deed, Outcome, Shutdown};

    const STOP: Task = Task::Stop { how: Shutdown::Fast };

    fn order(epoch: u64, id: &str, task: Task) -> Order {
        Order { epoch: Epoch(epoch), id: id.into(), task }
    }

    fn doing(epoch: u64, id: &str) -> Doing {
        Doing { epoch: Epoch(epoch), id: id.into(), task: "rejoin".into(), since: 0, step: String::new() }
    }

    fn done(epoch: u64, id: &str) -> Done {
        let outcome = Outcome::Well(Deed::default());
        Done { epoch: Epoch(epoch), id: id.into(), task: "stop".into(), took_ms: 1, outcome }
    }

    #[test]
    fn the_same_order_again_is_told_and_one_of_the_past_is_refused() {
        let (running, ended) = (doing(5, "b"), done(5, "a"));
        let admit = |order| admit(Epoch(5), Some(&running), Some(&ended), &order);
        assert_eq!(admit(order(5, "a", Task::Start)), Admission::Known);
        assert_eq!(admit(order(5, "b", Task::Start)), Admission::Known);
        assert_eq!(admit(order(4, "a", STOP)), Admission::Stale, "the same name in another epoch");
        assert_eq!(admit(order(5, "c", Task::Start)), Admission::Busy);
        assert_eq!(admit(order(5, "c", STOP)), Admission::Taken);
        assert_eq!(admit(order(6, "b", Task::Start)), Admission::Taken);
    }

    #[test]
    fn an_old_order_is_still_told_of_when_the_epoch_has_grown() {
        let ended = done(5, "a");
        assert_eq!(admit(Epoch(7), None, Some(&ended), &order(5, "a", STOP)), Admission::Known);
        assert_eq!(admit(Epoch(7), None, Some(&ended), &order(6, "a", STOP)), Admission::Stale);
        assert_eq!(admit(Epoch(7), None, None, &order(7, "x", Task::Start)), Admission::Taken);
    }

    #[test]
    fn who_has_seen_that_an_order_is_done_may_give_the_next() {
        let (running, ended) = (doing(5, "a"), done(5, "a"));
        assert_eq!(admit(Epoch(5), Some(&running), Some(&ended), &order(5, "b", Task::Start)), Admission::Taken);
    }

    #[test]
    fn an_order_under_way_that_the_record_has_overtaken_gives_way() {
        let running = doing(5, "a");
        assert_eq!(admit(Epoch(6), Some(&running), None, &order(6, "b", Task::Start)), Admission::Taken);
    }
}
