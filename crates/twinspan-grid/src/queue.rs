//! An event queue: what a region has to say to one session over HTTP, told once and certainly.

use std::collections::VecDeque;

use twinspan_llsd::Value;

use crate::config::QUEUE_EVENTS_MAX;

/// Events in one answer.
const EVENTS_PER_ANSWER_MAX: usize = 32;
/// How many times events are told that are not acknowledged; a viewer that never acknowledges would
/// hear the same for ever.
const TOLD_MAX: u32 = 4;

/// Names one poll of a queue; a newer one ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Poll(u64);

/// What a poll comes to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Polled {
    /// Events with the id that the next poll acknowledges.
    Events(i32, Vec<Value>),
    /// There are none yet.
    Waiting,
    /// Another poll took its place.
    Superseded,
}

/// Events that were told.
#[derive(Clone, Debug)]
struct Told {
    id: i32,
    events: Vec<Value>,
    times: u32,
}

/// The queue of one session at one region.
///
/// A poll acknowledges what the one before brought. What was told and not acknowledged is told
/// again under its id: a viewer whose connection broke within an answer loses nothing.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    waiting: VecDeque<Value>,
    told: Option<Told>,
    last_id: i32,
    polls: u64,
}

impl EventQueue {
    /// Adds an event; false when there are as many as fit.
    pub(crate) fn push(&mut self, event: Value) -> bool {
        let fits = self.waiting.len() < QUEUE_EVENTS_MAX;
        if fits {
            self.waiting.push_back(event);
        }
        fits
    }

    /// Begins a poll, which ends the one before.
    pub(crate) fn begin(&mut self, ack: Option<i32>) -> Poll {
        self.told.take_if(|told| Some(told.id) == ack || told.times >= TOLD_MAX);
        self.polls += 1;
        Poll(self.polls)
    }

    /// What a poll comes to now.
    pub(crate) fn take(&mut self, poll: Poll) -> Polled {
        if poll.0 != self.polls {
            return Polled::Superseded;
        }
        if self.told.is_none() && !self.waiting.is_empty() {
            self.last_id = if self.last_id == i32::MAX { 1 } else { self.last_id + 1 };
            let count = self.waiting.len().min(EVENTS_PER_ANSWER_MAX);
            let events = self.waiting.drain(..count).collect();
            self.told = Some(Told { id: self.last_id, events, times: 0 });
        }
        let Some(told) = &mut self.told else { return Polled::Waiting };
        told.times += 1;
        // It is answered: nobody takes anything for it again.
        self.polls += 1;
        Polled::Events(told.id, told.events.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(events: i32) -> EventQueue {
        let mut queue = EventQueue::default();
        assert!((0..events).all(|event| queue.push(event.into())));
        queue
    }

    fn poll(queue: &mut EventQueue, ack: Option<i32>) -> Polled {
        let poll = queue.begin(ack);
        queue.take(poll)
    }

    #[test]
    fn events_are_told_once_when_they_are_acknowledged() {
        let mut queue = queue(2);
        assert_eq!(poll(&mut queue, None), Polled::Events(1, vec![0.into(), 1.into()]));
        assert_eq!(poll(&mut queue, Some(1)), Polled::Waiting);
        queue.push(7.into());
        assert_eq!(poll(&mut queue, Some(1)), Polled::Events(2, vec![7.into()]));
    }

    #[test]
    fn events_whose_answer_was_lost_are_told_again_before_newer_ones() {
        let mut queue = queue(1);
        let first = Polled::Events(1, vec![0.into()]);
        assert_eq!(poll(&mut queue, None), first);
        queue.push(1.into());
        assert_eq!(poll(&mut queue, None), first);
        assert_eq!(poll(&mut queue, Some(1)), Polled::Events(2, vec![1.into()]));
    }

    #[test]
    fn who_never_acknowledges_hears_the_same_a_few_times_only() {
        let mut queue = queue(1);
        let told = (0..9).filter(|_| poll(&mut queue, None) != Polled::Waiting).count();
        assert_eq!(told, TOLD_MAX as usize);
    }

    #[test]
    fn a_newer_poll_ends_the_one_before_and_takes_what_comes() {
        let mut queue = queue(0);
        let old = queue.begin(None);
        assert_eq!(queue.take(old), Polled::Waiting);
        let new = queue.begin(None);
        queue.push(5.into());
        assert_eq!(queue.take(old), Polled::Superseded);
        assert_eq!(queue.take(new), Polled::Events(1, vec![5.into()]));
        assert_eq!(queue.take(new), Polled::Superseded);
    }

    #[test]
    fn a_full_queue_takes_no_more_and_answers_are_bounded() {
        let mut queue = queue(QUEUE_EVENTS_MAX as i32);
        assert!(!queue.push(0.into()));
        let Polled::Events(_, events) = poll(&mut queue, None) else { panic!("there are events") };
        assert_eq!(events.len(), EVENTS_PER_ANSWER_MAX);
    }

    #[test]
    fn ids_begin_anew_at_the_end_of_their_range() {
        let mut queue = EventQueue { last_id: i32::MAX, ..queue(1) };
        assert!(matches!(poll(&mut queue, None), Polled::Events(1, _)));
    }
}
