//! Who announces a topic on the machine: whom one visits and when, who said what, who came and who is
//! gone. It has no socket and no clock.
//!
//! //= hub 15.1

use std::collections::VecDeque;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_net::shm::PARTICIPANTS_MAX;

use super::announcement::Announcement;

/// Connections of one hub with others of its topic: each pair may have two, and strangers some.
pub(crate) const GUESTS_MAX: usize = 3 * PARTICIPANTS_MAX as usize;
/// How long somebody who is met has to say who it is.
pub(crate) const WORD_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a place is left alone whose owner had no time, at first and at most: the wait doubles.
const VISIT_AGAIN_MIN: Duration = Duration::from_millis(500);
const VISIT_AGAIN_MAX: Duration = Duration::from_secs(30);

/// A place that is to be visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Visit {
    place: u8,
    at: Timestamp,
    /// How long the next visit waits, should this one come to nothing.
    wait: Duration,
}

/// A connection.
#[derive(Debug)]
struct Guest {
    key: u64,
    /// When it must have said who it is.
    until: Timestamp,
    /// How it is visited again; `None` for one that came by itself.
    visit: Option<Visit>,
    who: Option<Announcement>,
}

/// What there is to tell of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A hub of the topic is there.
    Came(Announcement),
    /// It is gone.
    Gone(Announcement),
}

/// What was met and not spoken with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Words that were none, or of another machine.
    pub(crate) malformed: u64,
    /// Hubs of other users.
    pub(crate) foreign: u64,
    /// The last of these users.
    pub(crate) foreign_user: u32,
    /// Visits that are made once more: nobody had time for them.
    pub(crate) again: u64,
}

/// Who announces a topic on the machine.
///
/// The driver makes the connections that [`poll_visit`](Self::poll_visit) asks for, and tells what
/// became of each. On every connection that is kept it says the [`word`](Self::word) once. After each
/// `handle_*` call it closes what [`poll_closed`](Self::poll_closed) names, and drains
/// [`poll_heard`](Self::poll_heard).
#[derive(Debug)]
pub(crate) struct Roster {
    ours: Announcement,
    word: Vec<u8>,
    guests: Vec<Guest>,
    /// One for each place at most.
    visits: Vec<Visit>,
    closed: VecDeque<u64>,
    heard: VecDeque<Heard>,
    next_key: u64,
    tally: Tally,
}

impl Roster {
    /// One that has met nobody, whose owner has `place`: all others are to be visited.
    pub(crate) fn new(now: Timestamp, ours: Announcement, place: u8) -> Self {
        let others = (0..PARTICIPANTS_MAX).filter(|other| *other != place);
        let visit = |place| Visit { place, at: now, wait: VISIT_AGAIN_MIN };
        let mut word = Vec::new();
        ours.write(&mut word);
        Self {
            ours,
            word,
            guests: Vec::new(),
            visits: others.map(visit).collect(),
            closed: VecDeque::new(),
            heard: VecDeque::new(),
            next_key: 0,
            tally: Tally::default(),
        }
    }

    /// What is said on each connection.
    pub(crate) fn word(&self) -> &[u8] {
        &self.word
    }

    /// What was met and not spoken with so far.
    pub(crate) const fn tally(&self) -> Tally {
        self.tally
    }

    /// Connections that are kept.
    #[cfg(any(test, feature = "scenarios"))]
    pub(crate) fn guests(&self) -> usize {
        self.guests.len()
    }

    /// Whether everybody who is met has said who it is.
    pub(crate) fn is_settled(&self) -> bool {
        self.guests.iter().all(|guest| guest.who.is_some())
    }

    /// A place that is to be visited now, once.
    pub(crate) fn poll_visit(&mut self, now: Timestamp) -> Option<u8> {
        let at = self.visits.iter().position(|visit| visit.at <= now)?;
        // It is kept until the driver says what became of it.
        let visit = self.visits.get_mut(at)?;
        visit.at = Timestamp::NEVER;
        Some(visit.place)
    }

    fn take_visit(&mut self, place: u8) -> Option<Visit> {
        let at = self.visits.iter().position(|visit| visit.place == place)?;
        Some(self.visits.swap_remove(at))
    }

    /// Nobody is at a place that was visited: who takes it later comes by itself.
    pub(crate) fn handle_nobody(&mut self, place: u8) {
        self.take_visit(place);
    }

    /// Whoever is at a place has too many at the door: it is visited again.
    pub(crate) fn handle_busy(&mut self, now: Timestamp, place: u8) {
        if let Some(visit) = self.take_visit(place) {
            self.visit_again(now, visit);
        }
    }

    fn visit_again(&mut self, now: Timestamp, visit: Visit) {
        self.tally.again = self.tally.again.saturating_add(1);
        let wait = (2 * visit.wait).min(VISIT_AGAIN_MAX);
        self.visits.push(Visit { at: now.after(visit.wait), wait, ..visit });
    }

    /// A connection with a process of a user was made: by a visit to a `place`, or by one who came.
    /// The number that stands for it; `None` where it is not kept.
    pub(crate) fn handle_met(
        &mut self,
        now: Timestamp,
        place: Option<u8>,
        user: Option<u32>,
    ) -> Option<u64> {
        let visit = place.and_then(|place| self.take_visit(place));
        if user != Some(self.ours.user) {
            if let Some(user) = user {
                self.tally.foreign_user = user;
                self.tally.foreign = self.tally.foreign.saturating_add(1);
            }
            return None;
        }
        if self.guests.len() >= GUESTS_MAX {
            if let Some(visit) = visit {
                self.visit_again(now, visit);
            }
            return None;
        }
        let key = self.next_key;
        self.next_key += 1;
        self.guests.push(Guest { key, until: now.after(WORD_TIMEOUT), visit, who: None });
        Some(key)
    }

    /// Something was said on a connection.
    pub(crate) fn handle_word(&mut self, key: u64, bytes: &[u8]) {
        let Some(index) = self.guests.iter().position(|guest| guest.key == key) else { return };
        let is_first = self.guests.get(index).is_some_and(|guest| guest.who.is_none());
        // The kernel says which user it is, and abstract names are those of one machine: who says
        // anything else is not believed in the rest.
        let ours = &self.ours;
        let is_right = |who: &Announcement| {
            who.user == ours.user
                && who.host == ours.host
                && who.greeting.topic == ours.greeting.topic
                && who.greeting.id != ours.greeting.id
        };
        let who = Announcement::parse(bytes).ok().filter(|who| is_first && is_right(who));
        let Some(who) = who else {
            self.tally.malformed = self.tally.malformed.saturating_add(1);
            self.closed.push_back(key);
            // Who lies is not asked again.
            return self.lose(index);
        };
        if !self.is_here(who.greeting.id) {
            self.heard.push_back(Heard::Came(who.clone()));
        }
        if let Some(guest) = self.guests.get_mut(index) {
            (guest.until, guest.visit, guest.who) = (Timestamp::NEVER, None, Some(who));
        }
    }

    /// A connection ended. Where nobody had said who it is, its place is visited again: its owner may
    /// have had no room.
    pub(crate) fn handle_end(&mut self, now: Timestamp, key: u64) {
        let Some(index) = self.guests.iter().position(|guest| guest.key == key) else { return };
        if let Some(visit) = self.guests.get(index).and_then(|guest| guest.visit) {
            self.visit_again(now, visit);
        }
        self.lose(index);
    }

    fn is_here(&self, id: [u8; 16]) -> bool {
        let mut all = self.guests.iter().filter_map(|guest| guest.who.as_ref());
        all.any(|who| who.greeting.id == id)
    }

    /// Forgets a connection.
    fn lose(&mut self, index: usize) {
        let Some(who) = self.guests.swap_remove(index).who else { return };
        if !self.is_here(who.greeting.id) {
            self.heard.push_back(Heard::Gone(who));
        }
    }

    /// Cuts off who has not said in time who it is, and comes again later where it was visited: it may
    /// have stood still.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(index) = self.guests.iter().position(|guest| guest.until <= now) {
            if let Some(guest) = self.guests.get(index) {
                let (key, visit) = (guest.key, guest.visit);
                self.closed.push_back(key);
                if let Some(visit) = visit {
                    self.visit_again(now, visit);
                }
            }
            self.lose(index);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) or a visit is due.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        let words = self.guests.iter().map(|guest| guest.until);
        let visits = self.visits.iter().map(|visit| visit.at);
        words.chain(visits).min().unwrap_or(Timestamp::NEVER)
    }

    /// A connection that the driver has to close.
    pub(crate) fn poll_closed(&mut self) -> Option<u64> {
        self.closed.pop_front()
    }

    /// What there is to tell, in order.
    pub(crate) fn poll_heard(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::super::announcement::example;
    use super::*;

    const USER: u32 = 1_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_millis(millis))
    }

    fn hub(id: u8) -> Announcement {
        let mut hub = example();
        hub.user = USER;
        hub.greeting.id = [id; 16];
        hub
    }

    fn written(hub: &Announcement) -> Vec<u8> {
        let mut word = Vec::new();
        hub.write(&mut word);
        word
    }

    fn all<T>(next: impl FnMut() -> Option<T>) -> Vec<T> {
        std::iter::from_fn(next).collect()
    }

    /// A roster at place 2 that has found nobody but at the given places.
    fn roster(there: &[u8]) -> Roster {
        let mut roster = Roster::new(at(0), hub(1), 2);
        while let Some(place) = roster.poll_visit(at(0)) {
            if !there.contains(&place) {
                roster.handle_nobody(place);
            }
        }
        roster
    }

    #[test]
    fn all_other_places_are_visited_once() {
        let mut roster = Roster::new(at(0), hub(1), 2);
        let mut visited = all(|| roster.poll_visit(at(0)));
        visited.sort_unstable();
        let others: Vec<u8> = (0..PARTICIPANTS_MAX).filter(|place| *place != 2).collect();
        assert_eq!(visited, others);
        for place in visited {
            roster.handle_nobody(place);
        }
        assert_eq!((roster.poll_timeout(), roster.is_settled()), (Timestamp::NEVER, true));
    }

    #[test]
    fn who_comes_is_told_once_and_missed_when_its_last_connection_ends() {
        let mut roster = roster(&[0]);
        let first = roster.handle_met(at(0), Some(0), Some(USER)).unwrap();
        let second = roster.handle_met(at(1), None, Some(USER)).unwrap();
        assert!(!roster.is_settled());
        roster.handle_word(first, &written(&hub(7)));
        roster.handle_word(second, &written(&hub(7)));
        assert!(roster.is_settled());
        assert_eq!(all(|| roster.poll_heard()), [Heard::Came(hub(7))]);
        roster.handle_end(at(2), first);
        assert_eq!(all(|| roster.poll_heard()), []);
        roster.handle_end(at(3), second);
        assert_eq!(all(|| roster.poll_heard()), [Heard::Gone(hub(7))]);
        assert_eq!((roster.poll_timeout(), roster.guests()), (Timestamp::NEVER, 0));
    }

    #[test]
    fn who_stood_still_is_visited_again_ever_more_rarely() {
        let mut roster = roster(&[5]);
        let (mut now, mut times) = (at(0), Vec::new());
        for _ in 0..8 {
            let key = roster.handle_met(now, Some(5), Some(USER)).unwrap();
            now = roster.poll_timeout();
            roster.handle_timeout(now);
            assert_eq!(all(|| roster.poll_closed()), [key]);
            assert_eq!((roster.guests(), roster.poll_visit(now)), (0, None));
            now = roster.poll_timeout();
            assert_eq!(roster.poll_visit(now), Some(5));
            times.push(now.since(at(0)).as_millis());
        }
        let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0] - 1_000).collect();
        assert_eq!(
            (times[0], &waits[..]),
            (1_500, &[1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000][..])
        );
        // It runs on: the last visit is answered.
        let key = roster.handle_met(now, Some(5), Some(USER)).unwrap();
        roster.handle_word(key, &written(&hub(9)));
        assert_eq!(all(|| roster.poll_heard()), [Heard::Came(hub(9))]);
        assert_eq!((roster.poll_timeout(), roster.tally().again), (Timestamp::NEVER, 8));
    }

    #[test]
    fn who_had_no_room_is_visited_again() {
        let mut roster = roster(&[5, 6]);
        roster.handle_busy(at(0), 5);
        let key = roster.handle_met(at(0), Some(6), Some(USER)).unwrap();
        roster.handle_end(at(10), key);
        assert_eq!(roster.poll_visit(at(499)), None);
        assert_eq!((roster.poll_visit(at(500)), roster.poll_visit(at(500))), (Some(5), None));
        assert_eq!(roster.poll_visit(at(510)), Some(6));
        roster.handle_nobody(5);
        roster.handle_nobody(6);
        assert_eq!(roster.poll_timeout(), Timestamp::NEVER);
    }

    #[test]
    fn who_came_by_itself_and_says_nothing_is_cut_off_and_not_looked_for() {
        let mut roster = roster(&[]);
        let key = roster.handle_met(at(0), None, Some(USER)).unwrap();
        roster.handle_timeout(at(999));
        assert_eq!(roster.poll_closed(), None);
        roster.handle_timeout(at(1_000));
        assert_eq!((roster.poll_closed(), roster.poll_timeout()), (Some(key), Timestamp::NEVER));
    }

    #[test]
    fn liars_and_other_users_are_counted_and_neither_heard_nor_visited_again() {
        let mut liars = [hub(7), hub(7), hub(7), hub(1)];
        liars[0].user += 1;
        liars[1].host.boot[0] ^= 1;
        liars[2].greeting.topic.push('x');
        let mut words: Vec<Vec<u8>> = liars.iter().map(written).collect();
        words.push(b"nonsense".to_vec());
        let mut roster = roster(&[0, 1]);
        for (number, word) in (1..).zip(&words) {
            let place = (number == 1).then_some(0);
            let key = roster.handle_met(at(0), place, Some(USER)).unwrap();
            roster.handle_word(key, word);
            assert_eq!((roster.poll_closed(), roster.tally().malformed), (Some(key), number));
        }
        assert_eq!(roster.handle_met(at(0), Some(1), Some(7)), None);
        assert_eq!(roster.handle_met(at(0), None, None), None);
        assert_eq!((roster.tally().foreign, roster.tally().foreign_user), (1, 7));
        assert_eq!(all(|| roster.poll_heard()), []);
        assert_eq!((roster.poll_timeout(), roster.guests()), (Timestamp::NEVER, 0));
    }

    #[test]
    fn who_says_two_things_is_cut_off_and_gone() {
        let mut roster = roster(&[]);
        let key = roster.handle_met(at(0), None, Some(USER)).unwrap();
        roster.handle_word(key, &written(&hub(7)));
        roster.handle_word(key, &written(&hub(7)));
        let heard = all(|| roster.poll_heard());
        assert_eq!(heard, [Heard::Came(hub(7)), Heard::Gone(hub(7))]);
        assert_eq!(roster.poll_closed(), Some(key));
        // What comes behind it is of nobody.
        roster.handle_word(key, &written(&hub(8)));
        assert_eq!((roster.poll_heard(), roster.tally().malformed), (None, 1));
    }

    #[test]
    fn connections_are_bounded_and_a_visit_that_found_no_room_is_made_again() {
        let mut roster = roster(&[9]);
        let kept = (0..1_000).filter_map(|_| roster.handle_met(at(0), None, Some(USER))).count();
        assert_eq!((kept, roster.guests()), (GUESTS_MAX, GUESTS_MAX));
        assert_eq!(roster.handle_met(at(0), Some(9), Some(USER)), None);
        roster.handle_timeout(at(1_000));
        assert_eq!((roster.guests(), roster.poll_visit(at(1_000))), (0, Some(9)));
        assert!(roster.handle_met(at(1_000), Some(9), Some(USER)).is_some());
    }
}
