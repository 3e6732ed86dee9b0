use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::server::StatsSnapshot;
use crate::table::{Table, world};

const MS: Duration = Duration::from_millis(1);
/// A tick whose slots are 1 ms each.
const TICK: Duration = Duration::from_millis(SLOTS_PER_TICK as u64);

/// Keys of real sessions.
fn keys() -> &'static [SessionKey] {
    static KEYS: OnceLock<Vec<SessionKey>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let (server, clients) = world(120);
        let mut table = Table::new(server, clients);
        table.run_until(Timestamp::START.after(100 * MS));
        let mut stats = StatsSnapshot::default();
        table.server.snapshot_stats(table.now, &mut stats);
        stats.sessions.iter().map(|row| row.session).collect()
    })
}

fn tick_at(tick: u32) -> Timestamp {
    Timestamp::START.after(TICK * tick)
}

/// All that is due at `now`.
fn due(schedule: &mut SendSchedule, now: Timestamp) -> Vec<Due> {
    std::iter::from_fn(|| schedule.next_due(now)).collect()
}

#[test]
fn sends_are_spread_evenly_over_the_slots_of_a_state_period() {
    let mut schedule = SendSchedule::new(TICK);
    for (count, key) in keys().iter().enumerate() {
        schedule.add(Timestamp::START, *key);
        let fullest = schedule.slots.iter().map(Vec::len).max().unwrap();
        assert_eq!(fullest, (count + 1).div_ceil(SLOTS));
    }
    assert_eq!(keys().len(), 120);
}

#[test]
fn every_session_sends_once_in_three_ticks_in_its_slot() {
    let mut schedule = SendSchedule::new(TICK);
    keys().iter().for_each(|key| schedule.add(Timestamp::START, *key));
    let mut sent = Vec::new();
    for tick in 3..3 + TICKS_PER_STATE {
        assert_eq!(schedule.begin_tick(tick, tick_at(tick)), 0);
        while let Some(at) = schedule.poll_timeout() {
            assert_eq!(due(&mut schedule, at.before(Duration::from_nanos(1))), []);
            let now = due(&mut schedule, at);
            assert!(now.iter().all(|due| due.slot_at == at), "{now:?} at {at}");
            assert!((2..=3).contains(&now.len()), "{} in one slot", now.len());
            sent.extend(now.iter().map(|due| due.session));
        }
    }
    sent.sort_unstable();
    assert_eq!(sent, keys());
}

#[test]
fn whoever_comes_when_its_slot_has_passed_waits_for_the_next() {
    let mut schedule = SendSchedule::new(TICK);
    schedule.begin_tick(3, tick_at(3));
    let now = tick_at(3).after(5 * MS);
    schedule.add(now, keys()[0]);
    assert_eq!(due(&mut schedule, now), []);
    assert_eq!(schedule.poll_timeout(), None);
    schedule.begin_tick(6, tick_at(6));
    assert_eq!(due(&mut schedule, tick_at(6)), [Due { session: keys()[0], slot_at: tick_at(6) }]);
}

#[test]
fn what_a_late_tick_did_not_send_is_counted_and_not_sent_later() {
    let mut schedule = SendSchedule::new(TICK);
    keys().iter().take(10).for_each(|key| schedule.add(Timestamp::START, *key));
    schedule.begin_tick(0, tick_at(0));
    assert_eq!(due(&mut schedule, tick_at(0).after(3 * MS)).len(), 4);
    assert_eq!(schedule.begin_tick(1, tick_at(1)), 6);
    assert_eq!(due(&mut schedule, tick_at(2)), []);
    assert_eq!(schedule.poll_timeout(), None);
}

/// The same as a table of who sends in which slot and who did.
#[derive(Default)]
struct Model {
    sessions: Vec<(SessionKey, usize)>,
    sent: Vec<SessionKey>,
    tick: u32,
}

impl Model {
    fn of_tick(&self) -> impl Iterator<Item = (SessionKey, usize)> {
        let first = (self.tick % TICKS_PER_STATE) as usize * SLOTS_PER_TICK;
        let sessions =
            self.sessions.iter().map(move |(key, slot)| (*key, slot.wrapping_sub(first)));
        sessions.filter(|(_, slot)| *slot < SLOTS_PER_TICK)
    }

    /// Who has to send in the present tick up to `now` and has not.
    fn due(&self, passed_ms: usize) -> Vec<SessionKey> {
        let due =
            self.of_tick().filter(|(key, slot)| *slot <= passed_ms && !self.sent.contains(key));
        due.map(|(key, _)| key).collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Add(usize),
    Remove(usize),
    /// Serves this many at most after so many milliseconds of the tick.
    Serve(usize, usize),
    NextTick,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0_usize..120).prop_map(Op::Add),
        2 => (0_usize..120).prop_map(Op::Remove),
        4 => (0_usize..4, 0_usize..SLOTS_PER_TICK).prop_map(|(count, ms)| Op::Serve(count, ms)),
        1 => Just(Op::NextTick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whoever was in the schedule all the time is served once a period: nobody twice, nobody not
    /// at all, whoever comes and goes meanwhile.
    #[test]
    fn coming_and_going_neither_skips_nor_repeats_anybody(
        ops in proptest::collection::vec(op(), 0..200),
    ) {
        let mut schedule = SendSchedule::new(TICK);
        let mut model = Model::default();
        let mut passed_ms = 0;
        schedule.begin_tick(0, tick_at(0));
        for op in ops {
            match op {
                Op::Add(number) => {
                    let key = keys()[number];
                    if model.sessions.iter().any(|(other, _)| *other == key) {
                        continue;
                    }
                    schedule.add(tick_at(model.tick).after(MS * passed_ms as u32), key);
                    let slot = schedule.slots.iter().position(|slot| slot.contains(&key)).unwrap();
                    let shortest = schedule.slots.iter().map(Vec::len).min().unwrap();
                    prop_assert!(schedule.slots[slot].len() <= shortest + 1, "not the emptiest");
                    model.sessions.push((key, slot));
                    // A slot of this tick that is over does not come again.
                    let first = schedule.first;
                    if (first..first + schedule.done).contains(&slot) {
                        model.sent.push(key);
                    }
                }
                Op::Remove(number) => {
                    schedule.remove(keys()[number]);
                    model.sessions.retain(|(key, _)| *key != keys()[number]);
                    model.sent.retain(|key| *key != keys()[number]);
                }
                Op::Serve(count, ms) => {
                    passed_ms = passed_ms.max(ms);
                    let now = tick_at(model.tick).after(MS * passed_ms as u32);
                    for _ in 0..count {
                        let waiting = model.due(passed_ms);
                        match schedule.next_due(now) {
                            Some(due) => {
                                prop_assert!(waiting.contains(&due.session), "twice, or too soon");
                                model.sent.push(due.session);
                            }
                            None => prop_assert_eq!(waiting, []),
                        }
                    }
                }
                Op::NextTick => {
                    let left = model.due(SLOTS_PER_TICK).len() as u64;
                    model.tick += 1;
                    passed_ms = 0;
                    prop_assert_eq!(schedule.begin_tick(model.tick, tick_at(model.tick)), left);
                    model.sent.clear();
                }
            }
            let next = model.of_tick().filter(|(key, _)| !model.sent.contains(key));
            let next = next.map(|(_, slot)| tick_at(model.tick).after(MS * slot as u32)).min();
            prop_assert_eq!(schedule.poll_timeout(), next);
        }
    }
}
