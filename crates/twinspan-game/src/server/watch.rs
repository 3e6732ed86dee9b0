//! A look at one session after the other, a tick each: their packet numbers must only grow.

use twinspan_session::{PacketNumbers, SessionKey};

/// Which session is looked at, and what was seen of it a tick ago.
#[derive(Debug, Default)]
pub(super) struct Watch {
    slot: usize,
    noted: Option<(SessionKey, PacketNumbers)>,
}

impl Watch {
    /// Compares the session that was looked at with what it was then, and notes the next one; false
    /// when numbers went back. `next` says who has a slot and how many slots there are.
    pub(super) fn look(
        &mut self,
        next: impl FnOnce(usize) -> (Option<SessionKey>, usize),
        numbers: impl Fn(SessionKey) -> Option<PacketNumbers>,
    ) -> bool {
        let is_sound = self.noted.take().is_none_or(|(session, before)| {
            // One that has ended shows nothing any more.
            numbers(session).is_none_or(|now| now.can_follow(before))
        });
        let (session, slots) = next(self.slot);
        self.slot = if self.slot + 1 < slots { self.slot + 1 } else { 0 };
        self.noted = session.and_then(|session| Some((session, numbers(session)?)));
        is_sound
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;

    use super::*;

    #[test]
    fn every_session_is_looked_at_in_turn_and_numbers_that_go_back_are_noticed() {
        let keys: [_; 3] = core::array::from_fn(|slot| SessionKey::from_parts(slot as u32, 0));
        let start = PacketNumbers { next: 1, received: 0 };
        let all = RefCell::new([Some(start); 3]);
        let mut watch = Watch::default();
        let look = |watch: &mut Watch| {
            let numbers = |key: SessionKey| all.borrow().get(key.index()).copied().flatten();
            watch.look(|slot| (keys.get(slot).copied(), keys.len()), numbers)
        };
        for _ in 0..7 {
            assert!(look(&mut watch));
            for numbers in all.borrow_mut().iter_mut().flatten() {
                numbers.next += 3;
                numbers.received += 1;
            }
        }
        // The first of three was noted last.
        let grown = all.borrow()[0].unwrap();
        all.borrow_mut()[0] = Some(PacketNumbers { received: 1, ..grown });
        assert!(!look(&mut watch), "what was received went back");
        all.borrow_mut()[1] = Some(start);
        assert!(!look(&mut watch), "the next number went back");
        all.borrow_mut()[2] = None;
        assert!(look(&mut watch), "the third has ended");
        assert!(look(&mut watch));
    }
}
