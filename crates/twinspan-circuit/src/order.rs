//! The order of sending, for who asks: messages wait a little for older ones.

use core::time::Duration;
use std::collections::VecDeque;

use twinspan_core::time::Timestamp;
use twinspan_lludp::MessageId;

/// A message that waits for older ones.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) number: u64,
    pub(crate) id: MessageId,
    pub(crate) reliable: bool,
    pub(crate) body: Vec<u8>,
    /// When it waits no longer.
    until: Timestamp,
}

/// Where a message belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Everything before it came or was given up.
    Next,
    /// Something before it is missing.
    Later,
    /// It was given up: newer ones were handed on.
    Late,
}

/// The reorder buffer of one circuit.
///
/// Packet numbers count all packets of a direction, so a number that is missing may or may not be a
/// message of the kind whose order matters: all of them are waited for, but none for long.
#[derive(Debug)]
pub(crate) struct Reorder {
    /// Every number below came or was given up.
    base: u64,
    /// By number.
    held: VecDeque<Held>,
    /// What is below this number and still missing at that time is given up then.
    mark: (u64, Timestamp),
}

impl Reorder {
    /// The first packet that counts has this number.
    pub(crate) const fn new(first: u64) -> Self {
        Self { base: first, held: VecDeque::new(), mark: (first, Timestamp::START) }
    }

    /// A packet came; `largest` is the largest number by now, `came` says which others did. What is
    /// missing longer than `hold` is waited for no more.
    pub(crate) fn on_packet(
        &mut self,
        now: Timestamp,
        hold: Duration,
        largest: u64,
        came: impl Fn(u64) -> bool,
    ) {
        if self.mark.1 <= now {
            self.base = self.base.max(self.mark.0);
            self.mark = (largest + 1, now.after(hold));
        }
        while self.base <= largest && came(self.base) {
            self.base += 1;
        }
    }

    /// Where a message with this number belongs.
    pub(crate) const fn place(&self, number: u64) -> Place {
        if number < self.base {
            Place::Late
        } else if number == self.base {
            Place::Next
        } else {
            Place::Later
        }
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Keeps a message until its turn or `now + hold`.
    pub(crate) fn hold(
        &mut self,
        now: Timestamp,
        hold: Duration,
        (number, id, reliable): (u64, MessageId, bool),
        body: Vec<u8>,
    ) {
        let at = self.held.partition_point(|held| held.number < number);
        self.held.insert(at, Held { number, id, reliable, body, until: now.after(hold) });
    }

    /// The oldest message that waits, if its turn has come: nothing before it is missing, its time
    /// is over, or `full` says that it must make room.
    pub(crate) fn ready(&self, now: Timestamp, full: bool) -> Option<&Held> {
        let oldest = self.held.front()?;
        // Whoever follows it has waited at least as long as the youngest of all that wait.
        let overdue = self.held.iter().any(|held| held.until <= now);
        (oldest.number <= self.base || overdue || full).then_some(oldest)
    }

    /// The oldest message was handed on.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let held = self.held.pop_front()?;
        self.base = self.base.max(held.number + 1);
        Some(held.body)
    }

    /// The oldest message found no room: it is tried again at this time.
    pub(crate) fn put_off(&mut self, until: Timestamp) {
        self.held.iter_mut().for_each(|held| held.until = held.until.max(until));
    }

    /// When [`ready`](Self::ready) is to be asked.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        self.held.iter().map(|held| held.until).min().unwrap_or(Timestamp::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const HOLD: Duration = Duration::from_millis(250);

    fn at(ms: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_millis(ms))
    }

    /// Feeds numbers at times, all of them messages to be ordered; what came out, in order.
    fn run(arrivals: &[(u64, u64)], first: u64) -> Vec<u64> {
        let id = MessageId::low(139).unwrap();
        let mut order = Reorder::new(first);
        let (mut out, mut came, mut largest) = (Vec::new(), BTreeSet::new(), 0);
        for (ms, number) in arrivals {
            let now = at(*ms);
            while order.poll_timeout() <= now && order.ready(now, false).is_some() {
                out.push(order.held.front().unwrap().number);
                order.pop();
            }
            match order.place(*number) {
                Place::Later => order.hold(now, HOLD, (*number, id, true), Vec::new()),
                Place::Next | Place::Late => out.push(*number),
            }
            came.insert(*number);
            largest = largest.max(*number);
            order.on_packet(now, HOLD, largest, |number| came.contains(&number));
            while order.ready(now, false).is_some() {
                out.push(order.held.front().unwrap().number);
                order.pop();
                order.on_packet(now, HOLD, largest, |number| came.contains(&number));
            }
        }
        out
    }

    #[test]
    fn messages_come_out_in_the_order_of_their_numbers() {
        assert_eq!(run(&[(0, 5), (1, 7), (2, 8), (3, 6), (4, 9)], 5), [5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_missing_number_is_waited_for_no_longer_than_the_hold() {
        assert_eq!(run(&[(0, 5), (10, 7), (20, 8), (300, 9), (301, 6)], 5), [5, 7, 8, 9, 6]);
    }

    #[test]
    fn numbers_that_are_long_missing_delay_nobody() {
        // 6 never comes. Messages a second later leave at once.
        assert_eq!(
            run(&[(0, 5), (500, 8), (1_000, 9), (1_500, 10), (1_501, 11)], 5),
            [5, 8, 9, 10, 11]
        );
        let mut order = Reorder::new(1);
        order.on_packet(at(0), HOLD, 9, |number| number != 4);
        assert_eq!(order.place(10), Place::Later);
        order.on_packet(at(300), HOLD, 9, |number| number != 4);
        assert_eq!(order.place(10), Place::Next);
    }

    #[test]
    fn a_full_buffer_hands_on_its_oldest() {
        let id = MessageId::low(139).unwrap();
        let mut order = Reorder::new(1);
        order.hold(at(0), HOLD, (9, id, true), vec![9]);
        order.hold(at(0), HOLD, (7, id, true), vec![7]);
        assert!(order.ready(at(0), false).is_none());
        assert_eq!(order.ready(at(0), true).unwrap().number, 7);
        assert_eq!((order.pop(), order.len(), order.base), (Some(vec![7]), 1, 8));
        assert_eq!(order.poll_timeout(), at(250));
        order.put_off(at(400));
        assert_eq!(order.poll_timeout(), at(400));
    }
}
