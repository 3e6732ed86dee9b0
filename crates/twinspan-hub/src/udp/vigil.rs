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
/// The same on a best-effort road, where nobody's acks wait, while that thread sleeps between messages or
/// looks all the time.
const LOOK_INTERVAL_CALM: Duration = Duration::from_millis(50);
/// Looks of users' threads between two of the own one's from which on they look all the time.
const DRIVES_BUSY: u64 = 16;
/// How long it goes on to watch for a task that waited.
const WATCH_FOR_TASKS: Duration = Duration::from_secs(1);

/// What is seen of a road and of those who use it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now: Timestamp,
    /// When something is due next.
    pub(super) due_at: Timestamp,
    /// When a task was left waiting, if ever.
    pub(super) wanted_at: Option<Timestamp>,
    /// Until when somebody sleeps on the road, if anybody does: who gave its descriptor to an epoll does so
    /// for ever, and wakes for nothing that is due.
    pub(super) slept_until: Option<Timestamp>,
    /// Whether messages came that nobody took.
    pub(super) is_kept_waiting: bool,
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

    /// Whether users' threads drove the road since the last plan: then it does not have to compete with
    /// them for the lock, but for tasks.
    pub(super) const fn is_driven(&self, drives: u64) -> bool {
        self.drives != drives
    }

    /// What is done next, where nothing that is queued waits for company.
    pub(super) fn plan(&mut self, seen: &Seen) -> Plan {
        let Seen { now, due_at, .. } = *seen;
        let drives = seen.drives.wrapping_sub(std::mem::replace(&mut self.drives, seen.drives));
        let is_taken = std::mem::replace(&mut self.taken, seen.taken) != seen.taken;
        let for_tasks = is_for_tasks(now, seen.wanted_at);
        let soon = now.after(LOOK_INTERVAL);
        let calm = due_at.max(soon).min(now.after(LOOK_INTERVAL_CALM));
        let (watches, looks_at) = match seen.slept_until {
            _ if for_tasks => (true, due_at),
            // Nobody waits for what comes: it is not woken for each datagram, which would keep who is to
            // take them from the processor, and who sends them busy with waking.
            None if drives == 0 && seen.is_kept_waiting && !self.is_reliable => (false, soon),
            None if drives == 0 => (true, due_at),
            None if drives >= DRIVES_BUSY && !self.is_reliable => (false, calm),
            None => (false, soon),
            Some(_) if is_taken && self.is_reliable => (false, soon),
            Some(_) if is_taken => (false, calm),
            Some(until) if due_at < until => (false, due_at),
            Some(_) => (false, Timestamp::NEVER),
        };
        Plan { watches, looks_at }
    }
}

/// Whether a task waited of late.
pub(super) fn is_for_tasks(now: Timestamp, wanted_at: Option<Timestamp>) -> bool {
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
        let (wanted_at, slept_until, is_kept_waiting) = (None, None, false);
        let (now, due_at) = (ms(now), ms(2_000));
        Seen { now, due_at, wanted_at, slept_until, is_kept_waiting, drives: 0, taken: 0 }
    }

    fn plan(watches: bool, looks_at: u64) -> Plan {
        Plan { watches, looks_at: ms(looks_at) }
    }

    #[test]
    fn a_road_that_nobody_drives_is_watched_until_something_is_due() {
        let mut vigil = Vigil::new(false);
        assert_eq!(vigil.plan(&seen(1)), plan(true, 2_000));
        assert_eq!(vigil.plan(&Seen { drives: 7, ..seen(1) }), plan(false, 5), "it was driven");
        assert!(vigil.is_driven(8) && !vigil.is_driven(7));
        assert!(is_for_tasks(ms(5), Some(ms(4))) && !is_for_tasks(ms(5), None));
        assert_eq!(vigil.plan(&Seen { drives: 7, ..seen(5) }), plan(true, 2_000), "no longer");
        let wanted_at = Some(ms(5));
        let for_a_task = Seen { drives: 8, wanted_at, ..seen(1_004) };
        assert_eq!(vigil.plan(&for_a_task), plan(true, 2_000));
        assert_eq!(vigil.plan(&Seen { drives: 9, wanted_at, ..seen(1_005) }), plan(false, 1_009));
    }

    #[test]
    fn who_looks_all_the_time_is_looked_after_rarely_where_no_acks_wait() {
        for (is_reliable, calm) in [(false, 51), (true, 5)] {
            let mut vigil = Vigil::new(is_reliable);
            let busy = Seen { drives: DRIVES_BUSY, ..seen(1) };
            assert_eq!(vigil.plan(&busy), plan(false, calm));
            assert_eq!(vigil.plan(&busy), plan(true, 2_000), "it stopped");
            let due_soon = Seen { drives: 2 * DRIVES_BUSY, due_at: ms(9), ..seen(1) };
            assert_eq!(vigil.plan(&due_soon), plan(false, if is_reliable { 5 } else { 9 }));
        }
    }

    #[test]
    fn datagrams_that_nobody_waits_for_do_not_wake_it_one_by_one_on_a_best_effort_road() {
        for (is_reliable, then) in [(false, plan(false, 5)), (true, plan(true, 2_000))] {
            let mut vigil = Vigil::new(is_reliable);
            let kept = Seen { is_kept_waiting: true, ..seen(1) };
            assert_eq!(vigil.plan(&kept), then);
            assert_eq!(vigil.plan(&Seen { wanted_at: Some(ms(1)), ..kept }), plan(true, 2_000));
            assert_eq!(vigil.plan(&seen(6)), plan(true, 2_000), "they were taken");
        }
    }

    #[test]
    fn who_gave_the_descriptor_to_an_epoll_wakes_for_nothing_that_is_due() {
        let mut vigil = Vigil::new(false);
        let armed = Seen { slept_until: Some(Timestamp::NEVER), drives: 1, ..seen(1) };
        assert_eq!(vigil.plan(&armed), plan(false, 2_000));
        assert!(!vigil.is_driven(1) && vigil.is_driven(2));
        assert_eq!(vigil.plan(&Seen { taken: 1, drives: 2, ..armed }), plan(false, 51));
        assert!(is_overslept(ms(51), armed.slept_until, ms(20)), "an answer is due before");
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
                match draws.below(8) {
                    // It sleeps on the road, knowing what is due.
                    0 | 1 => model.seen.slept_until = Some(model.seen.due_at),
                    // It looks in vain, and gives the descriptor to an epoll.
                    6 => {
                        model.seen.slept_until = Some(Timestamp::NEVER);
                        model.seen.drives += 1;
                        model.hand_over(false);
                    }
                    // It looks all the time for a while, in vain.
                    7 => {
                        model.seen.slept_until = None;
                        model.seen.drives += 2 * DRIVES_BUSY;
                        model.hand_over(true);
                    }
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
                    model.seen.is_kept_waiting = draws.chance(0.2);
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
