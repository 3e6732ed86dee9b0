//! When the thread that a UDP road has of its own looks at it, and whether it watches the socket: a
//! machine that decides while the road's lock is held.
//!
//! Whoever drives a road sees to what is due: a user's thread that sleeps on it wakes for that by
//! itself. So the road's own thread sleeps for as long as one does and takes nothing, and is woken by who
//! comes back, or makes something due that neither of them wakes for.

use std::time::Duration;

use twinspan_core::time::Timestamp;

/// How often it looks whether a user's thread still drives the road: acks of what that left in the
/// socket wait for twice as long at most. What is due is seen to so much later at most.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(4);
/// The same while that thread sleeps on a best-effort road between messages, where nobody's acks wait.
const LOOK_INTERVAL_ASLEEP: Duration = Duration::from_millis(50);
/// How long it goes on to watch for a task that waited.
const WATCH_FOR_TASKS: Duration = Duration::from_secs(1);

/// What is seen of a road and of those who use it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now: Timestamp,
    /// When something is due next.
    pub(super) due_at: Timestamp,
    /// When a task was left waiting, or the descriptor armed, if ever.
    pub(super) wanted_at: Option<Timestamp>,
    /// Until when a user's thread sleeps on the road, if one does.
    pub(super) slept_until: Option<Timestamp>,
    /// How often users' threads drove the road.
    pub(super) drives: u64,
    /// Messages that they took.
    pub(super) taken: u64,
}

/// What the thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// It is woken by what comes, too.
    pub(super) watches: bool,
    /// When it looks again if nobody wakes it.
    pub(super) looks_at: Timestamp,
}

/// The state between two looks.
#[derive(Debug)]
pub(super) struct Vigil {
    is_reliable: bool,
    drives: u64,
    taken: u64,
}

impl Vigil {
    pub(super) const fn new(is_reliable: bool) -> Self {
        Self { is_reliable, drives: 0, taken: 0 }
    }

    /// Whether users' threads drive the road, and it does not have to compete with them for the lock.
    pub(super) fn is_left_to_users(
        &self,
        now: Timestamp,
        wanted_at: Option<Timestamp>,
        drives: u64,
    ) -> bool {
        self.drives != drives && !is_for_tasks(now, wanted_at)
    }

    /// What is done next, where nothing that is queued waits for company.
    pub(super) fn plan(&mut self, seen: &Seen) -> Plan {
        let Seen { now, due_at, .. } = *seen;
        let is_driven = std::mem::replace(&mut self.drives, seen.drives) != seen.drives;
        let is_taken = std::mem::replace(&mut self.taken, seen.taken) != seen.taken;
        let for_tasks = is_for_tasks(now, seen.wanted_at);
        let next = due_at.max(now.after(LOOK_INTERVAL));
        let (watches, looks_at) = match seen.slept_until {
            _ if for_tasks => (true, due_at),
            None if !is_driven => (true, due_at),
            None => (false, now.after(LOOK_INTERVAL)),
            Some(_) if is_taken && self.is_reliable => (false, now.after(LOOK_INTERVAL)),
            Some(_) if is_taken => (false, next.min(now.after(LOOK_INTERVAL_ASLEEP))),
            Some(until) if due_at < until => (false, due_at),
            Some(_) => (false, Timestamp::NEVER),
        };
        Plan { watches, looks_at }
    }
}

/// Whether a task waited of late.
fn is_for_tasks(now: Timestamp, wanted_at: Option<Timestamp>) -> bool {
    wanted_at.is_some_and(|at| now.since(at) < WATCH_FOR_TASKS)
}

/// Whether something is due so long before anybody looks that the thread is woken for it.
pub(super) fn is_overslept(
    looks_at: Timestamp,
    slept_until: Option<Timestamp>,
    due_at: Timestamp,
) -> bool {
    let seen_to_at = slept_until.map_or(looks_at, |until| looks_at.min(until));
    due_at.after(LOOK_INTERVAL) < seen_to_at
}

#[cfg(test)]
mod tests {
    use twinspan_core::random::Stream;

    use super::*;

    const fn ms(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    fn seen(now: u64) -> Seen {
        let (wanted_at, slept_until) = (None, None);
        Seen { now: ms(now), due_at: ms(2_000), wanted_at, slept_until, drives: 0, taken: 0 }
    }

    fn plan(watches: bool, looks_at: u64) -> Plan {
        Plan { watches, looks_at: ms(looks_at) }
    }

    #[test]
    fn a_road_that_nobody_drives_is_watched_until_something_is_due() {
        let mut vigil = Vigil::new(false);
        assert_eq!(vigil.plan(&seen(1)), plan(true, 2_000));
        assert_eq!(vigil.plan(&Seen { drives: 7, ..seen(1) }), plan(false, 5), "it was driven");
        assert!(vigil.is_left_to_users(ms(5), None, 8) && !vigil.is_left_to_users(ms(5), None, 7));
        assert!(!vigil.is_left_to_users(ms(5), Some(ms(4)), 8), "a task waits");
        assert_eq!(vigil.plan(&Seen { drives: 7, ..seen(5) }), plan(true, 2_000), "no longer");
        let wanted_at = Some(ms(5));
        let for_a_task = Seen { drives: 8, wanted_at, ..seen(1_004) };
        assert_eq!(vigil.plan(&for_a_task), plan(true, 2_000));
        assert_eq!(vigil.plan(&Seen { drives: 9, wanted_at, ..seen(1_005) }), plan(false, 1_009));
    }

    #[test]
    fn it_sleeps_for_as_long_as_a_thread_sleeps_on_the_road_and_takes_nothing() {
        for (is_reliable, first) in [(false, 51), (true, 5)] {
            let mut vigil = Vigil::new(is_reliable);
            let asleep = Seen { slept_until: Some(ms(2_000)), ..seen(1) };
            let took = Seen { taken: 1, drives: 1, ..asleep };
            assert_eq!(vigil.plan(&took), plan(false, first), "messages come");
            let silent = Seen { now: ms(60), ..took };
            let for_ever = Plan { watches: false, looks_at: Timestamp::NEVER };
            assert_eq!(vigil.plan(&silent), for_ever);
            assert_eq!(vigil.plan(&Seen { drives: 2, ..silent }), for_ever, "it looked in vain");
            let other = Seen { due_at: ms(80), ..silent };
            assert_eq!(vigil.plan(&other), plan(false, 80), "somebody else made something due");
        }
    }

    #[test]
    fn who_makes_something_due_wakes_it_unless_somebody_looks_soon() {
        for (looks_at, slept_until, due_at, wakes) in [
            (ms(50), None, ms(10), true),
            (ms(50), None, ms(46), false),
            (Timestamp::NEVER, None, ms(46), true),
            (Timestamp::NEVER, None, Timestamp::NEVER, false),
            (Timestamp::NEVER, Some(ms(50)), ms(46), false),
            (Timestamp::NEVER, Some(ms(50)), ms(45), true),
        ] {
            assert_eq!(is_overslept(looks_at, slept_until, due_at), wakes, "{due_at:?}");
        }
    }

    /// A road with a user, a second thread that publishes, and the road's own thread.
    struct Model {
        now: Timestamp,
        vigil: Vigil,
        plan: Plan,
        seen: Seen,
    }

    impl Model {
        fn look(&mut self) {
            if self.seen.due_at <= self.now {
                // What was due was said: the next is a sign of life.
                self.seen.due_at = self.now.after(Duration::from_secs(2));
            }
            self.seen.now = self.now;
            self.plan = self.vigil.plan(&self.seen);
        }

        /// A user's thread let go of the lock: as `Shared::hand_over`.
        fn hand_over(&mut self, was_look: bool) {
            let Seen { due_at, slept_until, .. } = self.seen;
            let is_away = was_look && self.plan.looks_at == Timestamp::NEVER;
            if is_away || is_overslept(self.plan.looks_at, slept_until, due_at) {
                self.look();
            }
        }

        /// Something becomes due, as an ack or the word behind a message.
        fn make_due(&mut self, draws: &mut Stream) {
            let due_at = self.now.after(Duration::from_micros(draws.below(30_000)));
            self.seen.due_at = self.seen.due_at.min(due_at);
        }
    }

    #[test]
    fn nothing_that_is_due_waits_longer_than_a_look_whatever_users_do() {
        for seed in 0..400 {
            let mut draws = Stream::new(seed, "vigil", 0);
            let mut vigil = Vigil::new(seed % 2 == 0);
            let seen = Seen { due_at: ms(2_000), ..seen(0) };
            let plan = vigil.plan(&seen);
            let mut model = Model { now: Timestamp::START, vigil, plan, seen };
            for _ in 0..300 {
                match draws.below(6) {
                    // It sleeps on the road, knowing what is due.
                    0 | 1 => model.seen.slept_until = Some(model.seen.due_at),
                    // It comes back, looks, and may take something whose ack becomes due.
                    2 => {
                        model.seen.slept_until = None;
                        model.seen.drives += 1;
                        if draws.chance(0.5) {
                            model.seen.taken += 1;
                            model.make_due(&mut draws);
                        }
                        model.hand_over(true);
                    }
                    // Another thread publishes.
                    3 => {
                        model.make_due(&mut draws);
                        model.hand_over(false);
                    }
                    _ => {}
                }
                let end = model.now.after(Duration::from_micros(draws.below(100_000)));
                loop {
                    let slept_until = model.seen.slept_until.unwrap_or(Timestamp::NEVER);
                    let next = slept_until.min(model.plan.looks_at);
                    if next > end {
                        break;
                    }
                    model.now = model.now.max(next);
                    let late = model.now.since(model.seen.due_at);
                    assert!(late <= LOOK_INTERVAL, "seed {seed}: {late:?} late");
                    if slept_until <= model.now {
                        // The sleeper wakes, sees to it, and sleeps again.
                        model.seen.due_at = model.now.after(Duration::from_secs(2));
                        model.seen.slept_until = Some(model.seen.due_at);
                        model.seen.drives += 1;
                        model.hand_over(true);
                    }
                    if model.plan.looks_at <= model.now {
                        model.look();
                    }
                }
                model.now = end;
                let late = model.now.since(model.seen.due_at);
                assert!(late <= LOOK_INTERVAL, "seed {seed}: nobody looks, {late:?} late");
            }
        }
    }
}
