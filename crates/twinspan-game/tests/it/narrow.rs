//! What states make of the paths that they take: less on a narrow one, longer packets on one that
//! carries them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::Conditions;

use crate::rig::{NETWORK, Rig, SERVER, address};

/// 100 kbit/s and 200 ms each way.
const NARROW: Conditions = Conditions {
    delay: Duration::from_millis(200),
    rate_bytes_per_s: 12_500,
    queue_bytes_max: 16 << 10,
    ..Conditions::CLEAN
};
/// The oldest that 99 of 100 states are when they reach the player on that path: the way itself, a
/// state's own length on the wire, and queues.
const AGE_P99: Duration = Duration::from_millis(500);

/// Players, the first of them on the narrow path.
const PLAYERS: u32 = 3;
/// Those who wander about in the hall.
const OTHERS: u32 = 1_500;
/// How long ago every cell in sight was told at least, in ticks.
const TOLD_TICKS: u32 = 5 * 60;
const TIME: Duration = Duration::from_secs(20);

/// How a player fared: bytes a second, lost packets, and the age that 99 of 100 states did not pass.
type Fared = (u64, u64, Duration);

/// A crowded hall, in which the first player has such a path, and how each fared after a while.
fn hall(first: Conditions) -> (Rig, Vec<Fared>) {
    let mut rig = Rig::empty(NETWORK, |config| {
        (config.npcs, config.projectiles) = (OTHERS, 0);
        config.world.side = 224.0;
        (config.interest.enter, config.interest.leave) = (90.0, 96.0);
    });
    rig.sim.set_link(SERVER.ip(), address(1).ip(), first);
    rig.sim.set_link(address(1).ip(), SERVER.ip(), first);
    for number in 1..=PLAYERS {
        rig.add_bot(number, SERVER);
    }
    rig.wait("the players to enter", Rig::all_entered);
    // Sessions begin with what a path of this length surely bears, and find out.
    rig.run_for(Duration::from_secs(8));
    let before = rig.stats();
    let ages = rig.ages_for(TIME);
    let after = rig.stats();
    let players = (1..=u64::from(PLAYERS)).zip(ages).map(|(user, mut ages)| {
        let [before, after] = [&before, &after].map(|stats| {
            let mut rows = stats.sessions.iter();
            rows.find(|row| row.user == user).unwrap().stats
        });
        let rate = (after.bytes_out - before.bytes_out) / TIME.as_secs();
        assert!(ages.len() >= 20 * TIME.as_secs() as usize * 95 / 100, "{} states", ages.len());
        ages.sort_unstable();
        let age = ages[ages.len() * 99 / 100];
        (rate, after.packets_lost - before.packets_lost, age)
    });
    let players = players.collect();
    (rig, players)
}

#[test]
fn states_fit_a_narrow_path_and_others_get_theirs_whole() {
    let (_, alike) = hall(NETWORK);
    let (rig, players) = hall(NARROW);
    let (rate, lost, age) = players[0];
    assert!(age <= AGE_P99, "{age:?}");
    assert_eq!(lost, 0, "states made it through the queue");
    assert!((9_000..12_500).contains(&rate) && rate < alike[0].0 / 2, "{rate} B/s");
    // Keyframes came: it was told of every cell in sight, and of none long ago.
    let bot = rig.bots[0].borrow();
    let replica = bot.client().replica();
    let told: Vec<_> = replica
        .cells_with_ticks()
        .map(|(_, tick)| tick.map(|tick| replica.tick() - tick))
        .collect();
    assert!(told.iter().all(|ticks| ticks.is_some_and(|ticks| ticks <= TOLD_TICKS)), "{told:?}");
    // The others have what they had when nobody's path was narrow.
    for (with, without) in players.iter().zip(&alike).skip(1) {
        assert!(with.0 * 2 > rate * 3, "{with:?}");
        assert!(with.2 <= without.2 + Duration::from_millis(2), "{with:?}, not {without:?}");
    }
}

/// The longest datagram of the server, and how many it sent to everybody in five seconds of a hall in
/// which states are longer than a packet surely is.
fn packets(packet_bytes_max: u16) -> (usize, u64) {
    let mut rig = Rig::empty(NETWORK, |config| {
        (config.npcs, config.projectiles) = (500, 0);
        config.state_bytes_per_second = 256 * 1_024;
        config.session.packet_bytes_max = packet_bytes_max;
    });
    let longest = Rc::new(Cell::new(0));
    let tape = Rc::clone(&longest);
    rig.sim.set_tape(move |sent| {
        if sent.from == SERVER {
            tape.set(tape.get().max(sent.bytes.len()));
        }
    });
    for number in 1..=PLAYERS {
        rig.add_bot(number, SERVER);
    }
    rig.wait("the players to enter", Rig::all_entered);
    rig.run_for(Duration::from_secs(3));
    let before = rig.stats().endpoint.packets_out;
    rig.run_for(Duration::from_secs(5));
    assert_eq!(rig.stats().stats.states_unsent, 0);
    (longest.get(), rig.stats().endpoint.packets_out - before)
}

#[test]
fn long_states_use_the_longest_packets_that_a_path_carries() {
    let (longest, count) = packets(1_200);
    let (longest_found, count_found) = packets(1_452);
    assert!(longest <= 1_200 && longest_found == 1_452);
    assert!(count_found * 10 < count * 9, "{count_found} instead of {count} packets");
}
