//! The lock-free core of the shared-memory road: slots, holds and naps, over any atomic word.
//!
//! One process writes a word and others read it, or the other way round: no word has two writers, so
//! there is no compare-and-swap here, and whoever dies between two stores leaves nothing locked.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A word that can be looked at.
pub(super) trait Look {
    fn load(&self, order: Ordering) -> u64;
    /// A fence of the same memory model as the word: the tests' model checker has its own.
    fn fence(order: Ordering);
}

/// A word that this process alone writes.
pub(super) trait Word: Look {
    fn store(&self, value: u64, order: Ordering);
}

impl Look for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }
}

impl Word for AtomicU64 {
    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        Self::store(self, value, order);
    }
}

/// The largest number that a message can have: four states of it fit a word.
pub(super) const NUMBER_MAX: u64 = (1 << 61) - 1;

/// What a slot's word says while message `number` is written into it.
pub(super) const fn writing(number: u64) -> u64 {
    4 * number + 1
}

/// What it says when the message is there.
pub(super) const fn complete(number: u64) -> u64 {
    4 * number + 2
}

/// What it says when the message may be read no more.
pub(super) const fn retired(number: u64) -> u64 {
    4 * number + 3
}

/// Begins to overwrite a slot with message `number`.
///
/// The fence orders this mark before the payload: a reader that saw a word of the new payload finds
/// the mark when it looks again.
#[inline]
pub(super) fn begin<W: Word>(state: &W, number: u64) {
    state.store(writing(number), Ordering::Relaxed);
    W::fence(Ordering::Release);
}

/// Completes message `number`. The release publishes the payload to the acquire in [`look`].
#[inline]
pub(super) fn finish<W: Word>(state: &W, number: u64) {
    state.store(complete(number), Ordering::Release);
}

/// What a slot holds for who wants message `number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// The message is not there yet.
    Early,
    /// It is there.
    Ready,
    /// It was there, and it alone was taken back.
    Retired,
    /// A later one is there, or will be.
    Overtaken,
}

/// Looks for message `number` in its slot.
#[inline]
pub(super) fn look<L: Look>(state: &L, number: u64) -> Slot {
    let seen = state.load(Ordering::Acquire);
    if seen == complete(number) {
        Slot::Ready
    } else if seen < complete(number) {
        Slot::Early
    } else if seen == retired(number) {
        Slot::Retired
    } else {
        Slot::Overtaken
    }
}

/// Whether what was copied out of a slot since [`look`] found it ready is message `number`, whole.
#[inline]
pub(super) fn is_whole<L: Look>(state: &L, number: u64) -> bool {
    L::fence(Ordering::Acquire);
    state.load(Ordering::Relaxed) == complete(number)
}

/// Marks that the block of message `number` is in use; false when it came too late for that, and the
/// block must not be read.
///
/// Either the writer, which retires the slot, passes its fence and only then looks at holds, sees the
/// mark, or this sees the slot retired: both fences stand in one order.
pub(super) fn hold<W: Word, L: Look>(place: &W, mark: u64, state: &L, number: u64) -> bool {
    place.store(mark, Ordering::Relaxed);
    W::fence(Ordering::SeqCst);
    let held = state.load(Ordering::Acquire) == complete(number);
    if !held {
        release(place);
    }
    held
}

/// Ends a hold. The release orders all reads of the block before the writer's next use of it.
pub(super) fn release<W: Word>(place: &W) {
    place.store(0, Ordering::Release);
}

/// Takes message `number` back. Blocks may be looked at for reuse after [`settle`].
pub(super) fn retire<W: Word>(state: &W, number: u64) {
    state.store(retired(number), Ordering::Relaxed);
}

/// Stands between taking messages back and looking for holds on them.
pub(super) fn settle<W: Word>() {
    W::fence(Ordering::SeqCst);
}

/// Whether a place holds what `mark` names. The acquire pairs with the release of [`release`].
pub(super) fn is_held<L: Look>(place: &L, mark: u64) -> bool {
    place.load(Ordering::Acquire) == mark
}

/// How a subscriber sleeps, for who has just completed a message: looked at behind a fence where it asks
/// for one, unless one was passed since the message.
///
/// That fence is the pair of the one which the subscriber passes between saying that it sleeps and looking
/// once more. It began to ask in front of a barrier of all cores: whoever does not find the wish completed
/// the message before that barrier. Where it does not ask, it passes such a barrier with each sleep.
#[inline]
pub(super) fn nap_of<L: Look>(asks: &L, nap: &L, is_fenced: &mut bool) -> u64 {
    if asks.load(Ordering::Relaxed) != 0 && !*is_fenced {
        L::fence(Ordering::SeqCst);
        *is_fenced = true;
    }
    nap.load(Ordering::Relaxed)
}

/// Writes bytes into words, the last one filled up with zeroes; what does not fit is left out.
#[inline]
pub(super) fn store_bytes<W: Word>(words: &[W], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<8>();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
    }
    if let (false, Some(word)) = (rest.is_empty(), words.get(whole.len())) {
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        word.store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

/// Reads words into bytes; where there are too few words the rest is left alone.
#[inline]
pub(super) fn load_bytes<L: Look>(words: &[L], bytes: &mut [u8]) {
    let (whole, rest) = bytes.as_chunks_mut::<8>();
    for (chunk, word) in whole.iter_mut().zip(words) {
        *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    if let (false, Some(word)) = (rest.is_empty(), words.get(whole.len())) {
        let last = word.load(Ordering::Relaxed).to_ne_bytes();
        for (to, from) in rest.iter_mut().zip(last) {
            *to = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_one_number_lie_below_those_of_the_next() {
        for number in [0, 1, 2, 1_000, NUMBER_MAX - 1] {
            assert!(writing(number) < complete(number) && complete(number) < retired(number));
            assert!(retired(number) < writing(number + 1));
        }
        let state = AtomicU64::new(0);
        assert_eq!(look(&state, 0), Slot::Early, "fresh memory holds no message");
        begin(&state, 0);
        assert_eq!(look(&state, 0), Slot::Early);
        finish(&state, 0);
        assert_eq!((look(&state, 0), is_whole(&state, 0)), (Slot::Ready, true));
        retire(&state, 0);
        assert_eq!((look(&state, 0), is_whole(&state, 0)), (Slot::Retired, false));
        begin(&state, 8);
        assert_eq!((look(&state, 0), look(&state, 8)), (Slot::Overtaken, Slot::Early));
    }

    #[test]
    fn bytes_of_any_length_come_back() {
        let words: Vec<AtomicU64> = (0..5).map(|_| AtomicU64::new(u64::MAX)).collect();
        for length in 0..=40 {
            let bytes: Vec<u8> = (1..=length).collect();
            store_bytes(&words, &bytes);
            let mut back = vec![0; bytes.len()];
            load_bytes(&words, &mut back);
            assert_eq!(back, bytes);
        }
        store_bytes(&words, &[7; 99]);
        let mut back = [1; 99];
        load_bytes(&words, &mut back);
        assert_eq!((back[39], back[40]), (7, 1), "what is not there is left alone");
    }
}

#[cfg(all(test, twinspan_loom))]
#[expect(unsafe_code, reason = "the model checker's cells are reached by pointers")]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64 as Modelled;
    use loom::thread;

    use super::*;

    impl Look for Modelled {
        fn load(&self, order: Ordering) -> u64 {
            Self::load(self, order)
        }

        fn fence(order: Ordering) {
            loom::sync::atomic::fence(order);
        }
    }

    impl Word for Modelled {
        fn store(&self, value: u64, order: Ordering) {
            Self::store(self, value, order);
        }
    }

    fn words(count: usize) -> Vec<Modelled> {
        (0..count).map(|_| Modelled::new(0)).collect()
    }

    /// A reader that copies while the slot is written again gets a whole message or none.
    #[test]
    fn no_torn_message_is_taken() {
        loom::model(|| {
            let slot = Arc::new(words(3));
            let theirs = Arc::clone(&slot);
            let writer = thread::spawn(move || {
                for number in 0..2 {
                    begin(&theirs[0], number);
                    theirs[1].store(10 + number, Ordering::Relaxed);
                    theirs[2].store(20 + number, Ordering::Relaxed);
                    finish(&theirs[0], number);
                }
            });
            for number in 0..2 {
                if look(&slot[0], number) == Slot::Ready {
                    let copy = [slot[1].load(Ordering::Relaxed), slot[2].load(Ordering::Relaxed)];
                    if is_whole(&slot[0], number) {
                        assert_eq!(copy, [10 + number, 20 + number]);
                    }
                }
            }
            writer.join().unwrap();
        });
    }

    /// Who sees the first message of a group, which is written last, finds the others.
    #[test]
    fn groups_are_there_whole_or_not_at_all() {
        loom::model(|| {
            let slots = Arc::new(words(2));
            let theirs = Arc::clone(&slots);
            let writer = thread::spawn(move || {
                for number in [1, 0] {
                    begin(&theirs[number], number as u64);
                    finish(&theirs[number], number as u64);
                }
            });
            if look(&slots[0], 0) == Slot::Ready {
                assert_eq!(look(&slots[1], 1), Slot::Ready);
            }
            writer.join().unwrap();
        });
    }

    /// A block is not written while a reader holds it.
    #[test]
    fn no_held_block_is_used_again() {
        loom::model(|| {
            // The slot's state, the hold, and the block, whose words say which message it is.
            let shared = Arc::new((words(2), loom::cell::UnsafeCell::new(1_u64)));
            begin(&shared.0[0], 1);
            finish(&shared.0[0], 1);
            let theirs = Arc::clone(&shared);
            let writer = thread::spawn(move || {
                retire(&theirs.0[0], 1);
                settle::<Modelled>();
                if !is_held(&theirs.0[1], 77) {
                    // SAFETY: nobody holds the block, which is what is tested: the model checker
                    // objects when a reader is at it at the same time.
                    theirs.1.with_mut(|block| unsafe { *block = 2 });
                }
            });
            let (place, state) = (&shared.0[1], &shared.0[0]);
            if look(state, 1) == Slot::Ready && hold(place, 77, state, 1) {
                // SAFETY: the hold was confirmed, which is what is tested: the model checker objects
                // when the writer is at it at the same time.
                shared.1.with(|block| assert_eq!(unsafe { *block }, 1));
                release(place);
            }
            writer.join().unwrap();
        });
    }

    /// Who goes to sleep and looks once more sees the message, or the writer sees the sleeper.
    #[test]
    fn no_sleeper_misses_a_message() {
        loom::model(|| {
            let shared = Arc::new(words(2));
            let theirs = Arc::clone(&shared);
            let writer = thread::spawn(move || {
                begin(&theirs[0], 0);
                finish(&theirs[0], 0);
                Modelled::fence(Ordering::SeqCst);
                theirs[1].load(Ordering::Relaxed) != 0
            });
            shared[1].store(5, Ordering::Relaxed);
            Modelled::fence(Ordering::SeqCst);
            let seen = look(&shared[0], 0) == Slot::Ready;
            let rung = writer.join().unwrap();
            assert!(seen || rung, "the sleeper would sleep for ever");
        });
    }
}
