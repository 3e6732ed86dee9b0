//! What a server counts of states that it was too late to send.

use std::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_world::tick_duration;

use crate::rig::{BOTS, Rig, SERVER};

#[test]
fn states_of_a_stall_count_as_scheduled_and_unsent() {
    let mut rig = Rig::new(|_| {});
    let before = rig.stats().stats;
    assert_eq!((before.states_unsent, before.skipped_ticks), (0, 0));
    // The server does not come to its turn for half a second.
    let late = rig.now().after(tick_duration() * 30);
    // In its first turn it lets go of what the present tick still owes, but nobody sends it.
    rig.server.borrow_mut().handle_timeout(late);
    rig.server.borrow_mut().handle_timeout(late);
    // What replicas hold is not compared here: the clock of the ticks was ahead of the clients.
    rig.sim.run_for(tick_duration() * 33);
    let after = rig.stats().stats;
    // 33 ticks are 11 state periods, whatever became of them.
    let scheduled = after.states_scheduled - before.states_scheduled;
    assert_eq!(scheduled, 11 * u64::from(BOTS));
    assert_eq!(after.skipped_ticks, 26);
    assert!(after.states_unsent >= 8 * u64::from(BOTS), "{}", after.states_unsent);
    // In the last three ticks at least the slots of one tick's beginning were served.
    assert!(after.states_unsent < 11 * u64::from(BOTS), "{}", after.states_unsent);
}

#[test]
fn a_turn_that_comes_a_little_late_loses_no_state() {
    let mut rig = Rig::new(|_| {});
    let pool = PacketPool::new(64);
    let mut out = DatagramBatch::new(64);
    let before = rig.stats().stats;
    // Every turn comes as late as the next tick: all slots of the present one have come by then.
    for tick in 1..=6 {
        let late = rig.now().after(tick_duration() * tick);
        for _ in 0..2 {
            let mut server = rig.server.borrow_mut();
            server.handle_timeout(late);
            server.poll_transmit(late, &pool, &mut out);
            out.clear();
        }
    }
    // The stats are published by the server's own turns.
    rig.sim.run_for(tick_duration() * 9);
    let after = rig.stats().stats;
    assert!(after.states_scheduled > before.states_scheduled);
    assert_eq!(after.states_unsent, before.states_unsent);
}

#[test]
fn a_late_server_sends_a_share_of_its_states_and_hears_its_clients_between() {
    const PLAYERS: u32 = 240;
    let mut rig = Rig::new(|_| {});
    for number in BOTS + 1..=PLAYERS {
        rig.add_bot(number, SERVER);
    }
    rig.wait("all in", Rig::all_entered);
    let pool = PacketPool::new(256);
    let mut out = DatagramBatch::new(256);
    let before = rig.stats().stats;
    let late = rig.now().after(tick_duration());
    let mut turns = Vec::new();
    for _ in 0..4 {
        let mut server = rig.server.borrow_mut();
        server.handle_timeout(late);
        server.poll_transmit(late, &pool, &mut out);
        // States are longer than that, and few other packets.
        turns.push(out.iter().filter(|datagram| datagram.packet.len() > 100).count());
        out.clear();
    }
    let sent: usize = turns.iter().sum();
    assert!(turns.iter().all(|states| *states <= 64 + 6), "{turns:?}");
    assert!(sent > 70, "{turns:?}");
    assert_eq!(rig.server.borrow().stats().states_unsent, before.states_unsent, "{turns:?}");
}

/// Runs the server's own clock for `ticks` ticks, each of which takes `work`.
fn run_slowly(rig: &Rig, from: Timestamp, ticks: u32, work: Duration) -> Vec<u8> {
    let pool = PacketPool::new(64);
    let mut out = DatagramBatch::new(64);
    let mut paces = Vec::new();
    for tick in 1..=ticks {
        let at = from.after(tick_duration() * tick);
        let mut server = rig.server.borrow_mut();
        for _ in 0..2 {
            server.handle_timeout(at);
            server.on_elapsed(at, at.after(work));
            server.poll_transmit(at, &pool, &mut out);
            out.clear();
        }
        paces.push(server.ticks_per_state());
    }
    paces
}

#[test]
fn ticks_that_overrun_lower_the_state_rate_and_calm_brings_it_back() {
    // Nobody is let go for its silence while the server alone lives on.
    let rig = Rig::new(|config| config.session.idle_timeout = Duration::from_secs(60));
    let slow = run_slowly(&rig, rig.now(), 240, tick_duration() * 3 / 2);
    assert_eq!((slow[10], slow[239]), (3, 9), "20 Hz, then 6.7");
    assert!(slow.contains(&6) && slow.is_sorted());
    let later = rig.now().after(tick_duration() * 240);
    let before = rig.stats().stats.states_scheduled;
    let quick = run_slowly(&rig, later, 780, Duration::from_millis(1));
    let sent = rig.stats().stats.states_scheduled - before;
    assert_eq!(quick[779], 3, "20 Hz again");
    // Thirteen seconds at 20 Hz would be 260 states for each player.
    let (least, most) = (120 * u64::from(BOTS), 220 * u64::from(BOTS));
    assert!((least..most).contains(&sent), "{sent} states were made");
    assert_eq!(rig.server.borrow().player_stats().inputs_flooding, 0);
}
