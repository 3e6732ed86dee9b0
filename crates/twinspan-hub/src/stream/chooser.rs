//! Which of several roads to one listener is used: left when it dies or grows bad, taken again when it
//! has been good for a while, and never changed too often.
//!
//! //= hub 16.3

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_topic::Probed;

/// Changes in a minute at most.
pub(crate) const CHANGES_PER_MINUTE_MAX: usize = 6;
const MINUTE: Duration = Duration::from_secs(60);
/// Probes whose fate must be known before they say anything.
const SETTLED_MIN: u32 = 12;
/// How long a road may be without a stream.
const DOWN_MAX: Duration = Duration::from_millis(1_500);
/// A road is left above this share of lost probes, and is good again below the other.
const LOSS_BAD: f64 = 0.25;
const LOSS_GOOD: f64 = 0.05;
/// A road is left when its round trip is longer than so many times the usual one and a slack, and is
/// good again below the others.
const RTT_BAD: (u32, Duration) = (4, Duration::from_millis(10));
const RTT_GOOD: (u32, Duration) = (2, Duration::from_millis(5));
/// How long a better road must have been good before it is taken again; twice as long each time that
/// it was left soon after it was taken.
const PROOF_MIN: Duration = Duration::from_secs(5);
const PROOF_MAX: Duration = Duration::from_secs(300);
/// A road that was left so soon did not hold.
const SOON: Duration = Duration::from_secs(60);
/// A road that probes tell of, and which was left, is not tried again for so long. One that no probe
/// tells of rests as long as its proof: nothing but trying it shows that it leads nowhere.
const REST: Duration = Duration::from_secs(5);

/// The usual round trip is the shortest of so many minutes, the present one among them: a way that
/// has become longer for good is what is usual from then on.
const USUAL_MINUTES: usize = 5;

/// Why a road was left for another.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ChangeReason {
    /// Nothing came through for so long.
    Dead(Duration),
    /// So much of what was sent was lost, 0 to 1.
    Loss(f64),
    /// A round trip took so long, and usually the other time.
    Latency(Duration, Duration),
    /// A better road has been good for so long.
    Better(Duration),
}

impl fmt::Display for ChangeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead(time) => write!(f, "nothing came through for {time:?}"),
            Self::Loss(share) => write!(f, "it lost {:.0} % of the probes", share * 100.0),
            Self::Latency(now, usual) => {
                write!(f, "a round trip took {now:?} where {usual:?} is usual")
            }
            Self::Better(time) => write!(f, "the better road has been good for {time:?}"),
        }
    }
}

/// Another road is to be taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) why: ChangeReason,
}

/// The shortest of the middle round trips of each of the last minutes.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    minutes: [Option<Duration>; USUAL_MINUTES],
    /// The last of them, since the start.
    minute: u64,
}

impl Usual {
    /// Takes in what the last probes say, and gives what is usual.
    fn take(&mut self, now: Timestamp, rtt: Option<Duration>) -> Option<Duration> {
        let minute = now.since(Timestamp::START).as_secs() / MINUTE.as_secs();
        // Places of minutes that are too long ago, or that nobody looked in.
        for minute in (self.minute + 1..=minute).take(USUAL_MINUTES) {
            if let Some(place) = self.minutes.get_mut(minute as usize % USUAL_MINUTES) {
                *place = None;
            }
        }
        self.minute = self.minute.max(minute);
        if let Some(place) = self.minutes.get_mut(self.minute as usize % USUAL_MINUTES) {
            *place = place.iter().copied().chain(rtt).min();
        }
        self.minutes.iter().flatten().min().copied()
    }
}

/// What is known of one road.
#[derive(Clone, Copy, Debug)]
struct Road {
    usual: Usual,
    /// Since when all that is known of it is good.
    good_since: Option<Timestamp>,
    /// Why it is to be left.
    bad: Option<ChangeReason>,
    /// Whether anything is known of it but by using it.
    is_probed: bool,
    /// Whether it is known where it leads, and the listener has it.
    is_usable: bool,
    /// Not tried again before.
    rests_until: Timestamp,
    /// How long it must be good before it is taken again.
    proof: Duration,
}

/// The choice between roads, the best first.
///
/// Tell [`probed`](Self::probed) and [`stream`](Self::stream), then ask [`poll`](Self::poll) what is to
/// change, again when [`poll_timeout`](Self::poll_timeout) says so.
#[derive(Debug)]
pub(crate) struct Chooser {
    roads: Vec<Road>,
    active: usize,
    taken_at: Timestamp,
    /// Since when the active road has no stream.
    down_since: Option<Timestamp>,
    changes: VecDeque<Timestamp>,
}

impl Chooser {
    /// A choice between so many roads, of which the first is taken.
    pub(crate) fn new(now: Timestamp, roads: usize, active: usize) -> Self {
        let road = Road {
            usual: Usual::default(),
            good_since: None,
            bad: None,
            is_probed: false,
            is_usable: true,
            rests_until: Timestamp::START,
            proof: PROOF_MIN,
        };
        Self {
            roads: vec![road; roads.max(1)],
            active: active.min(roads.max(1) - 1),
            taken_at: now,
            down_since: Some(now),
            changes: VecDeque::with_capacity(CHANGES_PER_MINUTE_MAX),
        }
    }

    /// Another road is used, which is no change: nobody was met on the one before.
    pub(crate) const fn restart(&mut self, now: Timestamp, active: usize) {
        (self.active, self.taken_at, self.down_since) = (active, now, Some(now));
    }

    /// Whether a road leads anywhere.
    pub(crate) fn is_usable(&self, road: usize) -> bool {
        self.roads.get(road).is_some_and(|road| road.is_usable)
    }

    /// Whether it is known where a road leads, and the listener has it.
    pub(crate) fn usable(&mut self, road: usize, is_usable: bool) {
        if let Some(road) = self.roads.get_mut(road) {
            road.is_usable = is_usable;
        }
    }

    /// A road leads elsewhere from now on: what probes of it said is of no more use.
    pub(crate) fn forget(&mut self, road: usize) {
        if let Some(road) = self.roads.get_mut(road) {
            (road.usual, road.good_since, road.bad) = (Usual::default(), None, None);
        }
    }

    /// A road did not answer: it is not tried for a while in place of one that is bad and lives.
    pub(crate) fn rest(&mut self, now: Timestamp, road: usize) {
        if let Some(road) = self.roads.get_mut(road) {
            road.rests_until = now.after(road.proof);
        }
    }

    /// The road that is used.
    pub(crate) const fn active(&self) -> usize {
        self.active
    }

    /// What the last probes of a road say.
    pub(crate) fn probed(&mut self, now: Timestamp, road: usize, probed: &Probed) {
        let Some(road) = self.roads.get_mut(road) else { return };
        road.is_probed = true;
        if probed.settled < SETTLED_MIN {
            return;
        }
        let loss = probed.loss();
        let rtt = probed.rtt_median;
        let usual = road.usual.take(now, rtt);
        let is_beyond = |(times, slack): (u32, Duration)| {
            rtt.zip(usual).filter(|(rtt, usual)| *rtt > *usual * times + slack)
        };
        road.bad = if loss >= LOSS_BAD {
            Some(ChangeReason::Loss(loss))
        } else {
            is_beyond(RTT_BAD).map(|(rtt, usual)| ChangeReason::Latency(rtt, usual))
        };
        if loss <= LOSS_GOOD && is_beyond(RTT_GOOD).is_none() {
            road.good_since.get_or_insert(now);
        } else {
            road.good_since = None;
        }
    }

    /// Whether the active road has a stream.
    pub(crate) fn stream(&mut self, now: Timestamp, is_up: bool) {
        if is_up {
            self.down_since = None;
        } else {
            self.down_since.get_or_insert(now);
        }
    }

    /// Whether a road may be taken in place of one that is left.
    fn may_take(&self, now: Timestamp, index: usize) -> bool {
        let Some(road) = self.roads.get(index).filter(|_| index != self.active) else {
            return false;
        };
        let is_known_good = !road.is_probed || road.good_since.is_some();
        road.is_usable && road.bad.is_none() && is_known_good && now >= road.rests_until
    }

    /// When one more change is allowed.
    fn allowed_at(&self) -> Timestamp {
        if self.changes.len() < CHANGES_PER_MINUTE_MAX {
            return Timestamp::START;
        }
        self.changes.front().map_or(Timestamp::START, |first| first.after(MINUTE))
    }

    /// What is to change now.
    pub(crate) fn poll(&mut self, now: Timestamp) -> Option<Change> {
        if now < self.allowed_at() {
            return None;
        }
        let (to, why) = self.wanted(now)?;
        let from = self.active;
        if let Some(left) = self.roads.get_mut(from)
            && !matches!(why, ChangeReason::Better(_))
        {
            left.good_since = None;
            if now.since(self.taken_at) < SOON {
                left.proof = (2 * left.proof).min(PROOF_MAX);
            } else {
                left.proof = PROOF_MIN;
            }
            let rest = if left.is_probed { REST } else { left.proof };
            left.rests_until = now.after(rest);
        }
        if self.changes.len() >= CHANGES_PER_MINUTE_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(now);
        (self.active, self.taken_at, self.down_since) = (to, now, Some(now));
        Some(Change { from, to, why })
    }

    fn wanted(&self, now: Timestamp) -> Option<(usize, ChangeReason)> {
        let road = self.roads.get(self.active)?;
        let down = self.down_since.map(|since| now.since(since)).filter(|down| *down >= DOWN_MAX);
        let count = self.roads.len();
        if let Some(why) = down.map(ChangeReason::Dead).or(road.bad) {
            let good = (0..count).find(|index| self.may_take(now, *index));
            // A dead road is worse than one of which nothing good is known.
            let is_usable = |index: &usize| self.roads.get(*index).is_some_and(|it| it.is_usable);
            let any = || (1..count).map(|step| (self.active + step) % count).find(is_usable);
            let to = good.or_else(|| if down.is_some() { any() } else { None })?;
            return Some((to, why));
        }
        // Better ones, the best first, that have been good for long enough.
        (0..self.active).find_map(|index| {
            let better = self.roads.get(index)?;
            let good = now.since(better.good_since?);
            let is_proved = good >= better.proof && self.may_take(now, index);
            is_proved.then_some((index, ChangeReason::Better(good)))
        })
    }

    /// When [`poll`](Self::poll) may have something to say though nothing was told.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        let down = self.down_since.map_or(Timestamp::NEVER, |since| since.after(DOWN_MAX));
        let better = self.roads.iter().take(self.active);
        let proved = better
            .filter_map(|road| Some(road.good_since?.after(road.proof).max(road.rests_until)));
        let next = proved.min().unwrap_or(Timestamp::NEVER).min(down);
        next.max(self.allowed_at())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    fn probed(lost: u32, rtt_ms: u64) -> Probed {
        let rtt = (lost < 32).then(|| Duration::from_millis(rtt_ms));
        Probed { settled: 32, lost, rtt_min: rtt, rtt_median: rtt, offer: None }
    }

    /// Lets time pass while the roads are like this; the changes with their seconds.
    fn pass(
        chooser: &mut Chooser,
        now: &mut Timestamp,
        seconds: u64,
        roads: [Option<Probed>; 2],
    ) -> Vec<(u64, Change)> {
        let (from, end) = (*now, now.after(Duration::from_secs(seconds)));
        let mut changes = Vec::new();
        while *now < end {
            *now = now.after(TICK);
            for (index, road) in roads.iter().enumerate() {
                if let Some(probed) = road {
                    chooser.probed(*now, index, probed);
                }
            }
            let is_up = roads[chooser.active()].is_none_or(|probed| probed.is_there());
            chooser.stream(*now, is_up);
            changes.extend(chooser.poll(*now).map(|change| (now.since(from).as_secs(), change)));
        }
        changes
    }

    const GOOD: Option<Probed> = Some(Probed {
        settled: 32,
        lost: 0,
        rtt_min: Some(Duration::from_millis(2)),
        rtt_median: Some(Duration::from_millis(2)),
        offer: None,
    });

    #[test]
    fn a_way_that_has_become_longer_for_good_is_usual_after_some_minutes() {
        let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
        assert_eq!(pass(&mut chooser, &mut now, 600, [GOOD, None]), []);
        let longer = Some(probed(0, 30));
        let changes = pass(&mut chooser, &mut now, 600, [longer, None]);
        let [(0, left), (seconds, back)] = changes[..] else { panic!("{changes:?}") };
        assert!(matches!(left.why, ChangeReason::Latency(..)), "{left:?}");
        assert!(matches!(back.why, ChangeReason::Better(_)), "{back:?}");
        assert!((240..=310).contains(&seconds), "{seconds} s");
        // A road that nothing came by for longer than that begins anew.
        let dead = pass(&mut chooser, &mut now, 600, [Some(probed(32, 0)), None]);
        assert_eq!(dead.len(), 1, "{dead:?}");
        let back = pass(&mut chooser, &mut now, 60, [Some(probed(0, 200)), None]);
        assert!(matches!(back[..], [(5, Change { to: 0, .. })]), "{back:?}");
    }

    #[test]
    fn what_is_usual_is_forgotten_where_a_road_leads_elsewhere() {
        let longer = Some(probed(0, 30));
        for (forgets, changes) in [(false, 1), (true, 0)] {
            let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
            assert_eq!(pass(&mut chooser, &mut now, 60, [GOOD, None]), []);
            if forgets {
                chooser.forget(0);
            }
            assert_eq!(pass(&mut chooser, &mut now, 60, [longer, None]).len(), changes);
        }
    }

    #[test]
    fn a_good_road_is_kept() {
        let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
        assert_eq!(pass(&mut chooser, &mut now, 600, [GOOD, None]), []);
        // Neither some loss nor a somewhat longer way is a reason.
        let worse = Some(probed(6, 15));
        assert_eq!(pass(&mut chooser, &mut now, 600, [worse, None]), []);
    }

    #[test]
    fn a_road_that_dies_is_left_and_taken_again_when_it_was_good_for_a_while() {
        let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
        assert_eq!(pass(&mut chooser, &mut now, 120, [GOOD, None]), []);
        let left = pass(&mut chooser, &mut now, 20, [Some(probed(32, 0)), None]);
        let [(0, Change { from: 0, to: 1, why: ChangeReason::Loss(_) })] = left[..] else {
            panic!("{left:?}")
        };
        let back = pass(&mut chooser, &mut now, 60, [GOOD, None]);
        let [(5, Change { from: 1, to: 0, why: ChangeReason::Better(_) })] = back[..] else {
            panic!("{back:?}")
        };
    }

    #[test]
    fn loss_and_latency_beyond_their_bounds_are_reasons() {
        for (bad, is_loss) in [(probed(8, 2), true), (probed(0, 30), false)] {
            let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
            assert_eq!(pass(&mut chooser, &mut now, 60, [GOOD, GOOD]), []);
            let left = pass(&mut chooser, &mut now, 10, [Some(bad), GOOD]);
            assert_eq!(left.len(), 1, "{left:?}");
            assert_eq!(matches!(left[0].1.why, ChangeReason::Loss(_)), is_loss);
            // Between the bounds it is not good enough to come back to.
            let between = if is_loss { probed(4, 2) } else { probed(0, 12) };
            assert_eq!(pass(&mut chooser, &mut now, 60, [Some(between), GOOD]), []);
        }
    }

    #[test]
    fn a_dead_road_without_a_good_one_is_left_all_the_same_and_a_bad_one_is_not() {
        let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
        let dead = Some(probed(32, 0));
        let changes = pass(&mut chooser, &mut now, 30, [dead, dead]);
        assert!(changes.len() >= 2, "both are tried: {changes:?}");
        let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
        let bad = Some(probed(16, 2));
        assert_eq!(pass(&mut chooser, &mut now, 60, [bad, bad]), []);
    }

    #[test]
    fn a_road_of_which_nobody_knows_where_it_leads_is_not_taken() {
        let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
        chooser.usable(1, false);
        let dead = Some(probed(32, 0));
        assert_eq!(pass(&mut chooser, &mut now, 30, [dead, None]), []);
        chooser.usable(1, true);
        assert_eq!(pass(&mut chooser, &mut now, 30, [dead, None]).len(), 1);
        chooser.restart(now, 0);
        assert_eq!(chooser.active(), 0);
    }

    #[test]
    fn a_road_that_does_not_hold_has_to_be_good_for_longer_and_longer() {
        let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
        let mut waits = Vec::new();
        for _ in 0..5 {
            while chooser.active() == 0 {
                pass(&mut chooser, &mut now, 1, [Some(probed(32, 0)), None]);
            }
            let mut seconds = 0;
            while chooser.active() == 1 {
                pass(&mut chooser, &mut now, 1, [GOOD, None]);
                seconds += 1;
            }
            waits.push(seconds - 1);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160]);
    }

    /// When a road that nobody probes was tried, in seconds, beside one that is bad and lives.
    fn tried(chooser: &mut Chooser, seconds: u64) -> Vec<u64> {
        let (mut now, mut tried) = (Timestamp::START, Vec::new());
        while now < Timestamp::START.after(Duration::from_secs(seconds)) {
            now = now.after(TICK);
            chooser.probed(now, 0, &probed(10, 2));
            chooser.stream(now, chooser.active() == 0);
            if let Some(change) = chooser.poll(now)
                && change.to == 1
            {
                tried.push(now.since(Timestamp::START).as_secs());
            }
        }
        tried
    }

    #[test]
    fn a_dead_road_that_nobody_probes_is_tried_ever_more_rarely_in_place_of_a_bad_one() {
        let mut chooser = Chooser::new(Timestamp::START, 2, 0);
        let tried = tried(&mut chooser, 3_600);
        assert!(tried.len() >= 10, "it is tried now and then: {tried:?}");
        let waits: Vec<u64> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (wait, least) in waits.iter().zip([10, 20, 40, 80, 160, 300, 300, 300]) {
            assert!((least..least + 5).contains(wait), "{waits:?}");
        }
    }

    #[test]
    fn a_road_that_did_not_answer_is_not_tried_at_once_in_place_of_a_bad_one() {
        for (rests, at_least) in [(false, 0), (true, 5)] {
            let mut chooser = Chooser::new(Timestamp::START, 2, 0);
            if rests {
                chooser.rest(Timestamp::START, 1);
            }
            let tried = tried(&mut chooser, 60);
            assert_eq!(tried.first(), Some(&at_least), "{tried:?}");
        }
        // A dead one is worse.
        let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 2, 0), Timestamp::START);
        chooser.rest(now, 1);
        let changes = pass(&mut chooser, &mut now, 4, [Some(probed(32, 0)), None]);
        assert_eq!(changes.len(), 1, "{changes:?}");
    }

    proptest! {
        #[test]
        fn changes_are_few_whatever_the_roads_do(
            steps in prop::collection::vec((0_u32..=32, 1_u64..60, 0_u32..=32, any::<bool>()), 50..400),
        ) {
            let (mut chooser, mut now) = (Chooser::new(Timestamp::START, 3, 0), Timestamp::START);
            let mut at: Vec<Timestamp> = Vec::new();
            for (lost, rtt, other, is_up) in steps {
                now = now.after(TICK);
                chooser.probed(now, 0, &probed(lost, rtt));
                chooser.probed(now, 1, &probed(other, 2));
                chooser.stream(now, is_up);
                if let Some(change) = chooser.poll(now) {
                    prop_assert_ne!(change.from, change.to);
                    prop_assert_eq!(change.to, chooser.active());
                    prop_assert_eq!(chooser.poll(now), None, "one change at a time");
                    at.push(now);
                }
                let timeout = chooser.poll_timeout();
                prop_assert!(timeout > Timestamp::START || chooser.active() == 0);
            }
            for window in at.windows(CHANGES_PER_MINUTE_MAX + 1) {
                prop_assert!(window[CHANGES_PER_MINUTE_MAX].since(window[0]) >= MINUTE);
            }
        }
    }
}
