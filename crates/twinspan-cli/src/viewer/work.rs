//! What an avatar is asked to do, one thing after the other: what fails is told as it happens.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use twinspan_viewer::BotError;

use crate::args::ViewerLoginArgs;

/// What is said of a thing that the session's end left undone.
const NOT_DONE: &str = "it was not done when the session ended";

/// What was asked for, and what became of it.
pub(super) struct Work {
    /// What is not done yet, the one under way first.
    left: RefCell<VecDeque<&'static str>>,
    /// What failed and was not told yet, and why.
    failed: RefCell<Vec<(&'static str, String)>>,
    is_well: Cell<bool>,
}

impl Work {
    /// What a command line asks for. A walk is not among it: it has no end to reach.
    pub(super) fn new(args: &ViewerLoginArgs) -> Self {
        let say = args.say.iter().map(|_| "say");
        let teleport = args.teleport.iter().map(|_| "teleport");
        Self::of(say.chain(teleport))
    }

    fn of(left: impl Iterator<Item = &'static str>) -> Self {
        Self {
            left: RefCell::new(left.collect()),
            failed: RefCell::default(),
            is_well: Cell::new(true),
        }
    }

    /// The thing under way came to its end.
    pub(super) fn done(&self, outcome: Result<(), BotError>) {
        let what = self.left.borrow_mut().pop_front();
        if let (Some(what), Err(error)) = (what, outcome) {
            self.fail(what, &error);
        }
    }

    /// Something failed.
    pub(super) fn fail(&self, what: &'static str, error: &BotError) {
        self.failed.borrow_mut().push((what, error.to_string()));
        self.is_well.set(false);
    }

    /// The session ends: what is left was not done.
    pub(super) fn end(&self) {
        let left = self.left.take().into_iter().map(|what| (what, NOT_DONE.to_owned()));
        self.failed.borrow_mut().extend(left);
        self.is_well.set(self.is_well.get() && self.failed.borrow().is_empty());
    }

    /// What failed and was not told yet.
    pub(super) fn take_failed(&self) -> Vec<(&'static str, String)> {
        self.failed.take()
    }

    /// Whether nothing failed.
    pub(super) const fn is_well(&self) -> bool {
        self.is_well.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_there_to_tell_at_once_and_counts_for_ever() {
        let work = Work::of(["say", "teleport"].into_iter());
        work.done(Ok(()));
        assert!(work.take_failed().is_empty() && work.is_well());
        work.done(Err(BotError::NoPlace));
        assert_eq!(work.take_failed(), [("teleport", BotError::NoPlace.to_string())]);
        work.end();
        assert!(work.take_failed().is_empty(), "it is told once");
        assert!(!work.is_well());
    }

    #[test]
    fn what_is_under_way_or_not_begun_at_the_end_was_not_done() {
        let work = Work::of(["say", "teleport", "teleport"].into_iter());
        work.done(Ok(()));
        work.end();
        let left = ("teleport", NOT_DONE.to_owned());
        assert_eq!(work.take_failed(), [left.clone(), left]);
        assert!(!work.is_well());
    }

    #[test]
    fn a_walk_fails_though_it_has_no_end_to_reach() {
        let work = Work::of(std::iter::empty());
        work.fail("walk", &BotError::NotConnected);
        assert_eq!(work.take_failed(), [("walk", BotError::NotConnected.to_string())]);
        assert!(!work.is_well());
        let work = Work::of(std::iter::empty());
        work.end();
        assert!(work.is_well());
    }
}
