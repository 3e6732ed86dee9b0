//! Messages that wait to leave: one lane for what has no rate, one for each class that has.

use std::collections::VecDeque;

use twinspan_core::time::Timestamp;

use crate::message::{DeliveryId, Retry};
use crate::throttle::{THROTTLE_CLASSES, ThrottleClass, Throttles};

/// The lane without a rate, and one for each class.
const LANES: usize = 1 + THROTTLE_CLASSES;

/// A message as a packet, its number still 0.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) packet: Vec<u8>,
    pub(crate) retry: Retry,
    pub(crate) throttle: Option<ThrottleClass>,
    /// When it is given up, sent or not; never for unreliable ones.
    pub(crate) until: Timestamp,
    pub(crate) delivery: Option<DeliveryId>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queues {
    lanes: [VecDeque<Outgoing>; LANES],
    len: usize,
    bytes: usize,
    /// No message is given up before.
    next_until: Timestamp,
    /// The class that is asked first the next time.
    cursor: usize,
}

const fn lane_of(throttle: Option<ThrottleClass>) -> usize {
    match throttle {
        None => 0,
        Some(class) => 1 + class.index(),
    }
}

impl Queues {
    pub(crate) const fn new() -> Self {
        Self {
            lanes: [const { VecDeque::new() }; LANES],
            len: 0,
            bytes: 0,
            next_until: Timestamp::NEVER,
            cursor: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, message: Outgoing) {
        self.len += 1;
        self.bytes += message.packet.len();
        self.next_until = self.next_until.min(message.until);
        if let Some(lane) = self.lanes.get_mut(lane_of(message.throttle)) {
            lane.push_back(message);
        }
    }

    fn on_removed(&mut self, message: &Outgoing) {
        self.len -= 1;
        self.bytes -= message.packet.len();
    }

    /// Takes out the unreliable message of the lane that waited longest: what is newer says more.
    pub(crate) fn drop_unreliable(&mut self, throttle: Option<ThrottleClass>) -> Option<Outgoing> {
        let lane = self.lanes.get_mut(lane_of(throttle))?;
        let index = lane.iter().position(|message| !message.retry.is_reliable())?;
        let message = lane.remove(index)?;
        self.on_removed(&message);
        Some(message)
    }

    /// Takes out the next message that its class lets leave and of which `may_leave` holds. Lanes
    /// with a rate take turns.
    pub(crate) fn pop(
        &mut self,
        now: Timestamp,
        throttles: &Throttles,
        mut may_leave: impl FnMut(&Outgoing) -> bool,
    ) -> Option<Outgoing> {
        if self.len == 0 {
            return None;
        }
        let mut found = None;
        for turn in 0..LANES {
            // The lane without a rate first, then the classes from the cursor on.
            let lane = if turn == 0 { 0 } else { 1 + (self.cursor + turn - 1) % THROTTLE_CLASSES };
            let Some(head) = self.lanes.get(lane).and_then(VecDeque::front) else { continue };
            let open = head.throttle.is_none_or(|class| throttles.open_at(class) <= now);
            if open && may_leave(head) {
                found = Some(lane);
                break;
            }
        }
        let lane = found?;
        if lane > 0 {
            self.cursor = lane % THROTTLE_CLASSES;
        }
        let message = self.lanes.get_mut(lane)?.pop_front()?;
        self.on_removed(&message);
        Some(message)
    }

    /// When the next message may leave as far as rates go; those of which `may_leave` does not hold
    /// wait for something else.
    pub(crate) fn open_at(
        &self,
        throttles: &Throttles,
        mut may_leave: impl FnMut(&Outgoing) -> bool,
    ) -> Timestamp {
        if self.len == 0 {
            return Timestamp::NEVER;
        }
        let heads = self.lanes.iter().filter_map(VecDeque::front);
        let open = heads
            .filter(|head| may_leave(head))
            .map(|head| head.throttle.map_or(Timestamp::START, |class| throttles.open_at(class)));
        open.min().unwrap_or(Timestamp::NEVER)
    }

    /// Takes out a message whose time is over.
    pub(crate) fn pop_overdue(&mut self, now: Timestamp) -> Option<Outgoing> {
        if self.next_until > now {
            return None;
        }
        for lane in &mut self.lanes {
            if let Some(index) = lane.iter().position(|message| message.until <= now) {
                let message = lane.remove(index)?;
                self.on_removed(&message);
                return Some(message);
            }
        }
        let waiting = self.lanes.iter().flatten().map(|message| message.until);
        self.next_until = waiting.min().unwrap_or(Timestamp::NEVER);
        None
    }

    /// When to look for overdue ones; it may be early.
    pub(crate) const fn poll_timeout(&self) -> Timestamp {
        if self.len == 0 { Timestamp::NEVER } else { self.next_until }
    }

    /// Takes out any message, when all are given up.
    pub(crate) fn pop_any(&mut self) -> Option<Outgoing> {
        let message = self.lanes.iter_mut().find_map(VecDeque::pop_front)?;
        self.on_removed(&message);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Rates;

    fn message(throttle: Option<ThrottleClass>, tag: u8, until: u64) -> Outgoing {
        let retry = if until == u64::MAX { Retry::Unreliable } else { Retry::Ordinary };
        let until = Timestamp::from_nanos(until);
        Outgoing { packet: vec![tag; 1_000], retry, throttle, until, delivery: None }
    }

    fn order(queues: &mut Queues, throttles: &Throttles) -> Vec<u8> {
        let popped = || queues.pop(Timestamp::START, throttles, |_| true);
        std::iter::from_fn(popped).map(|message| message.packet[0]).collect()
    }

    #[test]
    fn what_has_no_rate_goes_first_and_classes_take_turns() {
        let mut queues = Queues::new();
        let throttles = Throttles::new(&Rates::UNLIMITED);
        for tag in 0..3 {
            queues.push(message(Some(ThrottleClass::Land), 10 + tag, u64::MAX));
            queues.push(message(Some(ThrottleClass::Asset), 20 + tag, u64::MAX));
        }
        queues.push(message(None, 1, u64::MAX));
        assert_eq!(order(&mut queues, &throttles), [1, 10, 20, 11, 21, 12, 22]);
        assert_eq!((queues.len(), queues.bytes()), (0, 0));
    }

    #[test]
    fn a_class_without_budget_holds_back_itself_alone() {
        let mut queues = Queues::new();
        let mut throttles = Throttles::new(&Rates::new([9_600.0; 7]));
        throttles.take(Timestamp::START, ThrottleClass::Land, 10_000);
        queues.push(message(Some(ThrottleClass::Land), 1, u64::MAX));
        queues.push(message(Some(ThrottleClass::Task), 2, u64::MAX));
        let popped = queues.pop(Timestamp::START, &throttles, |_| true).unwrap();
        assert_eq!(popped.packet[0], 2);
        assert!(queues.pop(Timestamp::START, &throttles, |_| true).is_none());
        let open = queues.open_at(&throttles, |_| true);
        assert!(open > Timestamp::START && open < Timestamp::NEVER);
        assert_eq!(queues.open_at(&throttles, |_| false), Timestamp::NEVER);
        assert!(queues.pop(open, &throttles, |_| true).is_some());
    }

    #[test]
    fn overdue_messages_come_out_wherever_they_are() {
        let mut queues = Queues::new();
        for (tag, until) in [(1, 50), (2, u64::MAX), (3, 20)] {
            queues.push(message(Some(ThrottleClass::Task), tag, until));
        }
        let at = Timestamp::from_nanos;
        assert_eq!(queues.poll_timeout(), at(20));
        assert!(queues.pop_overdue(at(19)).is_none());
        assert_eq!(queues.pop_overdue(at(20)).unwrap().packet[0], 3);
        assert!(queues.pop_overdue(at(20)).is_none());
        assert_eq!(queues.poll_timeout(), at(50));
        assert_eq!(queues.drop_unreliable(Some(ThrottleClass::Task)).unwrap().packet[0], 2);
        assert!(queues.drop_unreliable(Some(ThrottleClass::Task)).is_none());
        assert_eq!(queues.pop_any().unwrap().packet[0], 1);
        assert_eq!((queues.poll_timeout(), queues.bytes()), (Timestamp::NEVER, 0));
    }
}
