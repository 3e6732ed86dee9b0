use super::*;
use crate::table::{Table, world};

const TICK: Duration = tick_duration();

/// A client that stands in the world and has sent all its inputs, and the server.
fn entered() -> Table<Client> {
    let (server, clients) = world(1);
    let mut table = Table::new(server, clients);
    table.run_until(Timestamp::START.after(Duration::from_secs(1)));
    assert!(table.players[0].own().is_some());
    table
}

/// Lets time pass up to `now` without a call, and counts the packets that are then sent.
fn wake(client: &mut Client, now: Timestamp, pool: &PacketPool) -> usize {
    client.handle_timeout(now);
    let mut out = DatagramBatch::new(64);
    client.poll_transmit(now, pool, &mut out);
    out.len()
}

#[test]
fn each_slot_is_one_packet_however_late_the_client_is_called() {
    let mut table = entered();
    let (client, pool) = (&mut table.players[0], PacketPool::new(64));
    let first = client.next_input_at().unwrap();
    let before = client.stats().inputs_sent;
    // Called in the middle of a slot, three slots late, and exactly at a slot.
    assert_eq!(wake(client, first.after(TICK / 2), &pool), 1);
    assert_eq!(client.next_input_at(), Some(first.after(TICK)), "the schedule did not shift");
    assert_eq!(wake(client, first.after(TICK * 4), &pool), 4);
    assert_eq!(wake(client, first.after(TICK * 4), &pool), 0);
    assert_eq!(wake(client, first.after(TICK * 5), &pool), 1);
    assert_eq!(client.next_input_at(), Some(first.after(TICK * 6)));
    assert_eq!(client.stats().inputs_sent - before, 6);
    assert_eq!(client.stats().inputs_skipped, 0);
}

#[test]
fn after_a_stall_the_newest_slots_are_sent_and_the_others_counted() {
    let mut table = entered();
    let (client, pool) = (&mut table.players[0], PacketPool::new(64));
    let first = client.next_input_at().unwrap();
    let before = client.stats().inputs_sent;
    assert_eq!(wake(client, first.after(TICK * 99), &pool), INPUT_SLOTS_MAX);
    assert_eq!(client.stats().inputs_sent - before, INPUT_SLOTS_MAX as u64);
    assert_eq!(client.stats().inputs_skipped, 100 - INPUT_SLOTS_MAX as u64);
    assert_eq!(client.next_input_at(), Some(first.after(TICK * 100)));
}

#[test]
fn a_slot_without_a_buffer_waits_for_one() {
    let mut table = entered();
    let (client, pool) = (&mut table.players[0], PacketPool::new(1));
    let first = client.next_input_at().unwrap();
    let taken = pool.take();
    assert_eq!(wake(client, first, &pool), 0);
    drop(taken);
    assert_eq!(wake(client, first, &pool), 1);
    assert_eq!(client.stats().inputs_skipped, 0);
}

#[test]
fn the_server_takes_each_input_once_and_measures_from_its_slot() {
    let mut table = entered();
    table.run_until(Timestamp::START.after(Duration::from_secs(5)));
    let stats = table.server.player_stats();
    let sent = table.players[0].stats().inputs_sent;
    assert!((235..=300).contains(&sent), "{sent} inputs in under five seconds");
    assert_eq!((stats.inputs, stats.inputs_expected, stats.malformed), (sent, sent, 0));
    assert_eq!(stats.up.count(), sent);
    assert!(stats.up.micros_at(1.0) < 2.0, "at this table nothing takes time");
}

#[test]
fn notices_and_samples_that_nobody_fetches_are_bounded_and_counted() {
    let (server, mut clients) = world(1);
    clients[0].notices_max = 2;
    let mut table = Table::new(server, clients);
    for second in 1..=5 {
        let now = Timestamp::START.after(Duration::from_secs(second));
        table.run_until(now);
        let client = &mut table.players[0];
        client.apply_effect(now, client.own().unwrap()).unwrap();
    }
    table.run_until(table.now.after(Duration::from_secs(1)));
    let client = &mut table.players[0];
    let stats = *client.stats();
    // Connected, Entered, and two for each action: its result and the effect.
    assert_eq!(stats.notices_lost, 2 + 2 * 5 - 2);
    assert_eq!(stats.samples_lost, stats.states_applied - 64);
    assert_eq!(std::iter::from_fn(|| client.poll_notice()).count(), 2);
    assert_eq!(std::iter::from_fn(|| client.poll_sample()).count(), 64);
    assert_eq!(client.actions(), (5, 5));
}

#[test]
fn a_client_that_nobody_measures_keeps_no_samples() {
    let (server, mut clients) = world(1);
    clients[0].samples_max = 0;
    let mut table = Table::new(server, clients);
    table.run_until(Timestamp::START.after(Duration::from_secs(2)));
    let client = &mut table.players[0];
    assert!(client.stats().states_applied > 20);
    assert_eq!((client.poll_sample(), client.stats().samples_lost), (None, 0));
    assert_eq!(client.samples.capacity(), 0);
}

#[test]
fn a_datagram_from_elsewhere_does_not_reach_the_session() {
    let mut table = entered();
    let client = &mut table.players[0];
    let before = client.session().stats().packets_in;
    let pool = PacketPool::new(2);
    let mut received = DatagramBatch::new(2);
    for peer in [SocketAddr::from(([127, 0, 0, 1], 7_001)), client.session().server_addr()] {
        let packet = pool.take().unwrap();
        received.push(Datagram { peer, at: table.now, packet }).unwrap();
    }
    client.handle_datagrams(table.now, &mut received);
    assert_eq!(client.session().stats().packets_in, before + 1);
}
