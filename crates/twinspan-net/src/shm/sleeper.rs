//! What a subscriber says of its sleep, and who pays for the barrier: the one that sleeps, or those who
//! publish while it sleeps often.
//!
//! //= hub 6

use std::sync::atomic::Ordering;

use super::line::Word;

/// Messages from one sleep to the next above which a fence behind each costs more than a barrier before
/// each sleep.
const MESSAGES_BRIEF: u64 = 16;
/// Sleeps in a row with no more messages in between, behind which publishers are asked for fences.
const SLEEPS_BRIEF: u32 = 4;
/// What [`Sleeper::asks_until`] says while nobody is asked.
const NEVER: u64 = u64::MAX;

/// The sleep of one subscriber.
#[derive(Debug)]
pub(super) struct Sleeper {
    /// How often it said that it sleeps.
    naps: u64,
    /// Messages that it had taken then.
    taken: u64,
    /// Sleeps in a row with few messages in between.
    brief: u32,
    /// Publishers are asked for fences until so many messages were taken.
    asks_until: u64,
}

/// The words of a subscriber's segment that a sleep is about.
#[derive(Debug)]
pub(super) struct SleepWords<'a, W> {
    /// How it sleeps.
    pub(super) nap: &'a W,
    /// Whether it asks for fences.
    pub(super) asks: &'a W,
}

impl Sleeper {
    pub(super) const fn new() -> Self {
        Self { naps: 0, taken: 0, brief: 0, asks_until: NEVER }
    }

    /// Says that we sleep, having `taken` so many messages; `how` is a bit for each bell that is to be
    /// rung. Whoever completes a message from here on finds it, or we find the message if we look again.
    ///
    /// `barrier` is what orders all cores, and says whether it did.
    pub(super) fn say<W: Word>(
        &mut self,
        words: &SleepWords<'_, W>,
        how: u64,
        taken: u64,
        barrier: impl FnOnce() -> bool,
    ) {
        self.naps += 1;
        let is_brief = taken.saturating_sub(self.taken) <= MESSAGES_BRIEF;
        self.brief = if is_brief { self.brief.saturating_add(1) } else { 0 };
        self.taken = taken;
        words.nap.store(self.naps << 2 | how, Ordering::Relaxed);
        if self.asks() {
            // Publishers pass one too, see `line::nap_of`: either they see the nap, or we the message.
            W::fence(Ordering::SeqCst);
            self.asks_until = taken + MESSAGES_BRIEF;
            return;
        }
        let begins = self.brief >= SLEEPS_BRIEF;
        if begins {
            words.asks.store(1, Ordering::Relaxed);
        }
        // One barrier for both: behind it every look at the wish finds it.
        let is_ordered = barrier();
        if begins && is_ordered {
            self.asks_until = taken + MESSAGES_BRIEF;
        } else if begins {
            words.asks.store(0, Ordering::Relaxed);
        }
    }

    /// Says that we are awake, but for tasks that wait for their bell (`how`, 0 without any).
    pub(super) fn say_awake<W: Word>(&self, words: &SleepWords<'_, W>, how: u64) {
        let word = if how == 0 { 0 } else { self.naps << 2 | how };
        words.nap.store(word, Ordering::Relaxed);
    }

    /// Whether publishers are asked for fences.
    pub(super) const fn asks(&self) -> bool {
        self.asks_until != NEVER
    }

    /// Whether publishers are asked for fences in vain: so many messages were taken without a sleep.
    #[inline]
    pub(super) const fn is_awake(&self, taken: u64) -> bool {
        taken > self.asks_until
    }

    /// Asks for fences no more: the next sleep pays for its own barrier.
    #[cold]
    pub(super) fn ask_no_more<W: Word>(&mut self, words: &SleepWords<'_, W>) {
        words.asks.store(0, Ordering::Relaxed);
        (self.asks_until, self.brief) = (NEVER, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::super::line::Look;
    use super::*;

    /// What the words say, and how many barriers there were.
    #[derive(Default)]
    struct Rig {
        nap: AtomicU64,
        asks: AtomicU64,
        barriers: u32,
    }

    impl Rig {
        fn sleep(&mut self, sleeper: &mut Sleeper, taken: u64, is_ordered: bool) -> (u64, u64) {
            let words = SleepWords { nap: &self.nap, asks: &self.asks };
            sleeper.say(&words, 1, taken, || {
                self.barriers += 1;
                is_ordered
            });
            (Look::load(&self.nap, Ordering::Relaxed), Look::load(&self.asks, Ordering::Relaxed))
        }
    }

    #[test]
    fn who_sleeps_often_asks_for_fences_and_pays_for_one_barrier_more() {
        let (mut rig, mut sleeper) = (Rig::default(), Sleeper::new());
        for nap in 1..=3 {
            assert_eq!(rig.sleep(&mut sleeper, nap * 16, true), (nap << 2 | 1, 0));
        }
        assert_eq!(rig.sleep(&mut sleeper, 64, true), (4 << 2 | 1, 1));
        assert_eq!((rig.barriers, sleeper.asks()), (4, true));
        for nap in 5..=100 {
            assert_eq!(rig.sleep(&mut sleeper, 64 + nap, true), (nap << 2 | 1, 1));
        }
        assert_eq!(rig.barriers, 4);
    }

    #[test]
    fn who_has_stayed_awake_asks_no_more_and_pays_again() {
        let (mut rig, mut sleeper) = (Rig::default(), Sleeper::new());
        for _ in 0..4 {
            rig.sleep(&mut sleeper, 0, true);
        }
        assert_eq!((sleeper.is_awake(16), sleeper.is_awake(17)), (false, true));
        sleeper.ask_no_more(&SleepWords { nap: &rig.nap, asks: &rig.asks });
        assert!(!sleeper.asks() && !sleeper.is_awake(u64::MAX));
        assert_eq!(rig.sleep(&mut sleeper, 17, true).1, 0);
        assert_eq!(rig.barriers, 5);
    }

    #[test]
    fn who_takes_many_messages_between_sleeps_asks_for_nothing() {
        let (mut rig, mut sleeper) = (Rig::default(), Sleeper::new());
        for nap in 1..50 {
            assert_eq!(rig.sleep(&mut sleeper, nap * 17, true).1, 0);
        }
        assert_eq!(rig.barriers, 49);
    }

    #[test]
    fn a_wish_that_was_not_ordered_is_taken_back() {
        let (mut rig, mut sleeper) = (Rig::default(), Sleeper::new());
        for _ in 0..10 {
            assert_eq!(rig.sleep(&mut sleeper, 0, false).1, 0);
        }
        assert_eq!((rig.barriers, sleeper.asks()), (10, false));
    }
}

#[cfg(all(test, twinspan_loom))]
mod loom_tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64 as Modelled;
    use loom::thread;

    use super::super::line::{Look, Slot, finish, look, nap_of};
    use super::*;

    /// What a subscriber and a publisher share, and what stands for the kernel's barrier.
    struct Shared {
        slot: Modelled,
        nap: Modelled,
        asks: Modelled,
        bell: Modelled,
        /// The subscriber is in its barrier; the publisher was interrupted for it.
        begun: Modelled,
        ended: Modelled,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            let word = || Modelled::new(0);
            Arc::new(Self {
                slot: word(),
                nap: word(),
                asks: word(),
                bell: word(),
                begun: word(),
                ended: word(),
            })
        }

        fn words(&self) -> SleepWords<'_, Modelled> {
            SleepWords { nap: &self.nap, asks: &self.asks }
        }

        /// The barrier: the other core passes a fence between its beginning and its end.
        fn barrier(&self) -> bool {
            Modelled::fence(Ordering::SeqCst);
            self.begun.store(1, Ordering::Release);
            while Look::load(&self.ended, Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            Modelled::fence(Ordering::SeqCst);
            true
        }

        fn interrupt(&self) {
            while Look::load(&self.begun, Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            Modelled::fence(Ordering::SeqCst);
            self.ended.store(1, Ordering::Release);
        }

        fn is_seen(&self) -> bool {
            look(&self.slot, 0) == Slot::Ready
        }
    }

    /// A word of the publisher's, before the use of which it may be interrupted.
    struct Interrupted<'a> {
        word: &'a Modelled,
        shared: &'a Shared,
        /// Uses of words until the interruption.
        left: Rc<Cell<Option<u32>>>,
    }

    impl Interrupted<'_> {
        fn step(&self) {
            match self.left.get() {
                Some(0) => {
                    self.left.set(None);
                    self.shared.interrupt();
                }
                left => self.left.set(left.map(|left| left - 1)),
            }
        }
    }

    impl Look for Interrupted<'_> {
        fn load(&self, order: Ordering) -> u64 {
            self.step();
            Look::load(self.word, order)
        }

        fn fence(order: Ordering) {
            Modelled::fence(order);
        }
    }

    impl Word for Interrupted<'_> {
        fn store(&self, value: u64, order: Ordering) {
            self.step();
            Word::store(self.word, value, order);
        }
    }

    /// Publishes message 0, without a fence of its own, interrupted before the use of a word of this
    /// number, or at the end.
    fn publish(shared: &Shared, interrupted_at: u32) {
        let left = Rc::new(Cell::new(Some(interrupted_at)));
        let of = |word| Interrupted { word, shared, left: Rc::clone(&left) };
        finish(&of(&shared.slot), 0);
        if nap_of(&of(&shared.asks), &of(&shared.nap), &mut false) != 0 {
            shared.bell.store(1, Ordering::Release);
        }
        if left.get().is_some() {
            shared.interrupt();
        }
    }

    /// Words that [`publish`] uses.
    const USES: u32 = 3;

    fn model(sleeps: impl Fn(&Shared) -> bool + Sync + Send + Copy + 'static) {
        for interrupted_at in 0..=USES {
            loom::model(move || {
                let shared = Shared::new();
                let theirs = Arc::clone(&shared);
                let publisher = thread::spawn(move || publish(&theirs, interrupted_at));
                let seen = sleeps(&shared);
                publisher.join().unwrap();
                let is_rung = Look::load(&shared.bell, Ordering::Acquire) != 0;
                assert!(seen || is_rung, "the sleeper would sleep for ever");
            });
        }
    }

    /// One barrier when it begins to ask, a fence with the next sleep: no message is missed, whatever the
    /// publisher was about to do when it was interrupted.
    #[test]
    fn no_sleeper_that_begins_to_ask_for_fences_misses_a_message() {
        model(|shared| {
            let mut sleeper = Sleeper { brief: SLEEPS_BRIEF, ..Sleeper::new() };
            sleeper.say(&shared.words(), 1, 0, || shared.barrier());
            assert!(sleeper.asks());
            if shared.is_seen() {
                return true;
            }
            // Something else woke it: rings so far are taken away, and it sleeps again.
            sleeper.say_awake(&shared.words(), 0);
            shared.bell.swap(0, Ordering::AcqRel);
            sleeper.say(&shared.words(), 1, 0, || panic!("there is a fence instead"));
            shared.is_seen()
        });
    }

    /// Who asks no more passes a barrier with the next sleep.
    #[test]
    fn no_sleeper_that_asks_no_more_misses_a_message() {
        model(|shared| {
            shared.asks.store(1, Ordering::Relaxed);
            let mut sleeper = Sleeper { asks_until: 0, ..Sleeper::new() };
            sleeper.ask_no_more(&shared.words());
            sleeper.say(&shared.words(), 1, 0, || shared.barrier());
            shared.is_seen()
        });
    }
}
