//! Peers that lie, strangers that pretend, and bytes that are nothing.

use std::time::Duration;

use proptest::prelude::*;
use twinspan_circuit::{Config, Rates, SendOptions};
use twinspan_lludp::messages::{EnableSimulator, PacketAck, PacketAckPackets, TeleportFinish};
use twinspan_lludp::{AnyMessage, Encoder, Flags, Message, Sequence, append_acks};

use crate::pair::{CLEAN, Pair, SIMULATOR, VIEWER, addr, chat_down, chat_up};

fn pair() -> Pair {
    let configs = [Config::default(), Config { rates: Rates::UNLIMITED, ..Config::simulator() }];
    let mut pair = Pair::connected(configs, CLEAN, 1);
    pair.run_for(Duration::from_secs(1));
    pair
}

fn packet<M: Message>(flags: Flags, number: u32, message: &M) -> Vec<u8> {
    let mut out = [0; 1_500];
    let len = Encoder::default().packet(&mut out, flags, Sequence(number), message).unwrap();
    out[..len].to_vec()
}

/// Hands the viewer a datagram as if the simulator had sent it.
fn forge(pair: &mut Pair, datagram: &[u8]) {
    let now = pair.now;
    pair.ends[VIEWER].handle_datagram(now, addr(SIMULATOR), datagram, &mut pair.inboxes[VIEWER]);
}

#[test]
fn one_forged_number_far_ahead_stops_nothing() {
    let mut pair = pair();
    forge(&mut pair, &packet(Flags::RELIABLE, 8_000_000, &chat_down(1, 10)));
    assert!(pair.inboxes[VIEWER].order.is_empty());
    assert_eq!(pair.ends[VIEWER].total().far_jumps, 1);
    for number in 2..50 {
        let (now, down) = (pair.now, chat_down(number, 10));
        pair.ends[SIMULATOR].send(now, addr(VIEWER), &down, SendOptions::RELIABLE).unwrap();
        pair.run_for(Duration::from_millis(10));
    }
    pair.settle(Duration::from_secs(5));
    assert_eq!(pair.inboxes[VIEWER].order, (2..50).collect::<Vec<u32>>());
    assert_eq!(pair.ends[SIMULATOR].total().resends_out, 0);
}

#[test]
fn a_real_jump_is_believed_when_the_next_packet_agrees() {
    let mut pair = pair();
    for number in 0..3 {
        forge(&mut pair, &packet(Flags::NONE, 300_000 + number, &chat_down(number, 10)));
    }
    assert_eq!(pair.inboxes[VIEWER].order, [1, 2]);
}

/// A viewer that heard packets 20 to 29 and opened its circuit again.
fn reopened() -> Pair {
    let mut pair = pair();
    for number in 20..30 {
        forge(&mut pair, &packet(Flags::RELIABLE, number, &chat_down(number, 10)));
    }
    let now = pair.now;
    pair.ends[VIEWER].close(addr(SIMULATOR), twinspan_circuit::Farewell::Silent);
    pair.ends[VIEWER].open(now, addr(SIMULATOR)).unwrap();
    pair
}

#[test]
fn a_circuit_opened_again_knows_resends_and_a_peer_that_begins_anew() {
    let mut pair = reopened();
    let again = Flags::RELIABLE.with(Flags::RESENT);
    forge(&mut pair, &packet(again, 25, &chat_down(25, 10)));
    assert_eq!(pair.inboxes[VIEWER].numbers[&25], 1, "a resend of the circuit before");
    forge(&mut pair, &packet(Flags::RELIABLE, 21, &chat_down(100, 10)));
    forge(&mut pair, &packet(again, 25, &chat_down(101, 10)));
    assert_eq!(pair.inboxes[VIEWER].order[10..], [100, 101], "it counts anew");
}

#[test]
fn a_resend_that_overtakes_its_packet_on_a_circuit_opened_again_begins_nothing_anew() {
    let mut pair = reopened();
    let again = Flags::RELIABLE.with(Flags::RESENT);
    for flags in [again, Flags::RELIABLE] {
        forge(&mut pair, &packet(flags, 30, &chat_down(30, 10)));
        forge(&mut pair, &packet(again, 25, &chat_down(25, 10)));
    }
    let numbers = &pair.inboxes[VIEWER].numbers;
    assert_eq!((numbers[&30], numbers[&25]), (1, 1));
}

#[test]
fn acks_of_what_was_never_sent_are_counted_and_do_nothing() {
    let mut pair = pair();
    let (now, to) = (pair.now, addr(SIMULATOR));
    pair.cut = true;
    let chat = AnyMessage::from(chat_up(1, 10));
    let id = pair.ends[VIEWER].send_reliable(now, to, &[chat]).unwrap();
    pair.run_for(Duration::from_millis(10));
    let lies = PacketAck { packets: (1_000..1_200).map(|id| PacketAckPackets { id }).collect() };
    forge(&mut pair, &packet(Flags::NONE, 40, &lies));
    let mut behind = packet(Flags::NONE, 41, &chat_down(1, 10));
    let len = behind.len();
    behind.resize(len + 64, 0);
    let len = append_acks(&mut behind, len, &[Sequence(70_000), Sequence(5_000_000)]).unwrap();
    forge(&mut pair, &behind[..len]);
    pair.run_for(Duration::from_millis(10));
    assert_eq!(pair.ends[VIEWER].total().acks_unknown, 202);
    assert!(!pair.outcomes[VIEWER].contains_key(&id));
    assert_eq!(pair.ends[VIEWER].unacknowledged(to), 1);
}

#[test]
fn strangers_are_dropped_and_counted() {
    let mut pair = pair();
    let (now, stranger) = (pair.now, addr(77));
    for end in [VIEWER, SIMULATOR] {
        let chat = packet(Flags::RELIABLE, 1, &chat_down(1, 10));
        pair.ends[end].handle_datagram(now, stranger, &chat, &mut pair.inboxes[end]);
        pair.ends[end].handle_datagram(now, stranger, &[1, 2, 3], &mut pair.inboxes[end]);
        let seen = pair.ends[end].strangers();
        assert_eq!((seen.unknown, seen.malformed, pair.ends[end].len()), (1, 1, 1));
    }
    // A viewer lets nobody in, whatever the code.
    let mut hello = twinspan_lludp::messages::UseCircuitCode::default();
    hello.circuit_code.code = crate::pair::CODE;
    let hello = packet(Flags::RELIABLE, 1, &hello);
    pair.ends[VIEWER].handle_datagram(now, stranger, &hello, &mut pair.inboxes[VIEWER]);
    assert_eq!((pair.ends[VIEWER].len(), pair.ends[VIEWER].strangers().unknown), (1, 2));
}

#[test]
fn messages_that_may_not_come_this_way_are_acknowledged_and_dropped() {
    let mut pair = pair();
    forge(&mut pair, &packet(Flags::RELIABLE, 30, &EnableSimulator::default()));
    forge(&mut pair, &packet(Flags::RELIABLE, 31, &TeleportFinish::default()));
    assert_eq!((pair.ends[VIEWER].total().refused, pair.inboxes[VIEWER].others.len()), (2, 0));
    // A viewer that plays simulator.
    let (now, to) = (pair.now, addr(SIMULATOR));
    pair.ends[VIEWER].send(now, to, &chat_down(1, 10), SendOptions::RELIABLE).unwrap();
    pair.settle(Duration::from_secs(5));
    assert_eq!(pair.ends[SIMULATOR].total().refused, 1);
    assert!(pair.inboxes[SIMULATOR].order.is_empty());
    assert_eq!(pair.ends[VIEWER].total().given_up, 0);
}

#[test]
fn a_flood_of_reliable_packets_fills_the_acks_and_no_more() {
    let mut pair = pair();
    let now = pair.now;
    // Nothing leaves meanwhile.
    for number in 0..20_000 {
        let chat = packet(Flags::RELIABLE, 100 + number % 10_000, &chat_down(number, 4));
        pair.ends[VIEWER].handle_datagram(now, addr(SIMULATOR), &chat, &mut pair.inboxes[VIEWER]);
    }
    let total = pair.ends[VIEWER].total();
    assert_eq!(total.messages_in, 8_192);
    assert!(total.no_room_in >= 1_808, "{}", total.no_room_in);
    let mut out = [0; 1_500];
    let mut packets = 0;
    while pair.ends[VIEWER].poll_transmit(now, &mut out).is_some() {
        packets += 1;
    }
    assert!((32..=36).contains(&packets), "{packets}");
}

#[test]
fn a_peer_that_acknowledges_nothing_costs_no_more_than_its_budget() {
    let mut pair = pair();
    pair.cut = true;
    let (now, to) = (pair.now, addr(SIMULATOR));
    let before = pair.ends[VIEWER].total().packets_out;
    for number in 0..100 {
        let chat = chat_up(number, 10);
        pair.ends[VIEWER].send(now, to, &chat, SendOptions::RELIABLE).unwrap();
        // Of these 64 are in flight at a time.
        let options = SendOptions::CRITICAL.within(Duration::from_secs(3_600));
        if number < 60 {
            pair.ends[VIEWER].send(now, to, &chat, options).unwrap();
        }
    }
    pair.run_for(Duration::from_secs(55));
    let total = pair.ends[VIEWER].total();
    assert_eq!(total.given_up, 160);
    // Every message with all its resends, and pings.
    let most = 100 * (1 + 8) + 60 * (1 + 16) + 30;
    assert!(total.packets_out - before <= most, "{}", total.packets_out - before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_datagrams_are_taken_without_a_panic(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..200),
        from in 0_usize..3,
    ) {
        let mut pair = pair();
        for end in [VIEWER, SIMULATOR] {
            for datagram in &datagrams {
                let (now, peer) = (pair.now, addr(from));
                pair.ends[end].handle_datagram(now, peer, datagram, &mut pair.inboxes[end]);
                pair.run_for(Duration::from_millis(1));
            }
        }
        prop_assert!(pair.ends.iter().all(|end| end.len() <= 1));
    }

    #[test]
    fn mutated_packets_are_taken_without_a_panic(
        seeds in prop::collection::vec((0_u32..60, any::<u8>(), 0_usize..60, any::<u8>()), 1..150),
    ) {
        let mut pair = pair();
        for (number, flags, place, value) in seeds {
            let mut chat = packet(Flags::from_byte(flags & 0x60), number, &chat_down(number, 20));
            let place = place % chat.len();
            chat[place] = value;
            for end in [VIEWER, SIMULATOR] {
                let (now, peer) = (pair.now, addr(1 - end));
                // The chat is read by the test alone, and may be broken.
                let sink = &mut |_, _: twinspan_circuit::Received<'_>| twinspan_circuit::Taken::Yes;
                pair.ends[end].handle_datagram(now, peer, &chat, sink);
            }
        }
        pair.run_for(Duration::from_secs(1));
    }
}
