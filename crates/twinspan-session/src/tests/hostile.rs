//! What an attacker on the path, off the path or inside a session can do: nothing but be counted.

use proptest::prelude::*;
use twinspan_core::random::Stream;
use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;
use crate::header::{HEADER_BYTES, flag};
use crate::{ClientState, CloseReason, SessionConfig, SessionKey};

const INPUT: Channel = Channel::new(Delivery::Unreliable, StreamId::INPUT);
const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);

/// A sealed packet of the client that the server has not seen.
fn sealed(rig: &mut Rig) -> Vec<u8> {
    let mut packet = rig.pool.take().unwrap();
    rig.clients[0]
        .write_packet(rig.now, INPUT, 0, &mut packet, &mut |out| out.put(b"input"))
        .unwrap();
    packet.to_vec()
}

fn drops(rig: &Rig) -> u64 {
    rig.endpoint.stats().drops.total()
}

/// Hands `bytes` to the server and says whether anything came of it but a count.
fn is_dropped(rig: &mut Rig, from: std::net::SocketAddr, bytes: &[u8]) -> bool {
    let (told, sent, before) = (rig.told.len(), rig.sent.len(), drops(rig));
    rig.deliver_to_server(from, bytes);
    rig.flush();
    rig.told.len() == told && rig.sent_since(sent, false).is_empty() && drops(rig) == before + 1
}

#[test]
fn a_truncated_packet_is_dropped_at_every_length() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    let packet = sealed(&mut rig);
    for len in 0..packet.len() {
        assert!(is_dropped(&mut rig, client_addr(0), &packet[..len]), "{len}");
    }
    rig.deliver_to_server(client_addr(0), &packet);
    assert_eq!(rig.messages().len(), 1, "the whole packet is still good");
}

#[test]
fn a_packet_with_a_changed_bit_is_dropped_at_every_byte() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    let packet = sealed(&mut rig);
    for bit in 0..packet.len() * 8 {
        let mut forged = packet.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(is_dropped(&mut rig, client_addr(0), &forged), "bit {bit}");
    }
    let drops = rig.endpoint.stats().drops;
    assert_eq!(drops.unknown_connection, 32, "a changed id");
    assert!(drops.not_authentic > 100 && drops.unsupported_flag > 0 && drops.bad_long_form > 0);
    rig.deliver_to_server(client_addr(0), &packet);
    assert_eq!(rig.messages().len(), 1);
}

#[test]
fn a_replayed_packet_is_dropped() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    let packet = sealed(&mut rig);
    rig.deliver_to_server(client_addr(0), &packet);
    for _ in 0..3 {
        assert!(is_dropped(&mut rig, client_addr(0), &packet));
    }
    assert_eq!(rig.endpoint.stats().drops.replayed, 3);
    assert_eq!(rig.messages().len(), 1);
}

#[test]
fn every_packet_of_a_session_is_dropped_when_it_comes_again() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.endpoint.send(rig.now, session, EVENTS, b"event").unwrap();
    rig.clients[0].send(rig.now, EVENTS, b"event").unwrap();
    rig.run_for(ms(500));
    let (told, client_told) = (rig.told.clone(), rig.client_told[0].clone());
    for packet in rig.sent_since(0, true).iter().filter(|packet| packet[5] & flag::LONG == 0) {
        assert!(is_dropped(&mut rig, client_addr(0), packet));
    }
    for packet in rig.sent_since(0, false) {
        rig.deliver_to_client(0, &packet);
    }
    assert_eq!(rig.told, told);
    assert_eq!(rig.client_told[0], client_told);
}

#[test]
fn packets_out_of_order_are_taken_and_too_old_ones_dropped() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    let packets: Vec<_> = (0..1_100).map(|_| sealed(&mut rig)).collect();
    let from = client_addr(0);
    packets[80..].iter().rev().for_each(|packet| rig.deliver_to_server(from, packet));
    let taken = rig.messages().len();
    assert!((1_005..=1_020).contains(&taken), "the window's width, less skipped numbers: {taken}");
    assert!(is_dropped(&mut rig, from, &packets[0]));
    assert_eq!(rig.endpoint.stats().drops.replayed, 0);
    assert_eq!(rig.endpoint.stats().drops.too_old, 1 + 1_020 - taken as u64);
}

#[test]
fn a_forged_high_number_does_not_move_the_window() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    let packet = sealed(&mut rig);
    let mut forged = packet.clone();
    for high in [1 << 20, 1 << 40, u64::MAX - 1] {
        forged[6..14].copy_from_slice(&u64::to_le_bytes(high));
        assert!(is_dropped(&mut rig, client_addr(0), &forged));
    }
    assert_eq!(rig.endpoint.stats().drops.not_authentic, 3);
    rig.deliver_to_server(client_addr(0), &packet);
    assert_eq!(rig.messages().len(), 1);
}

#[test]
fn a_packet_sealed_for_another_session_is_dropped() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    rig.add_client();
    rig.connect();
    let mut packet = sealed(&mut rig);
    rig.flush();
    let other = rig.sent_since(0, true).into_iter().rev();
    let other = other.clone().find(|sent| sent[..4] != packet[..4] && sent[5] & flag::LONG == 0);
    packet[..4].copy_from_slice(&other.unwrap()[..4]);
    assert!(is_dropped(&mut rig, client_addr(1), &packet));
    assert_eq!(rig.endpoint.stats().drops.not_authentic, 1);
}

#[test]
fn a_packet_is_not_reflected_to_its_sender() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.endpoint.send(rig.now, session, EVENTS, b"event").unwrap();
    rig.flush();
    let mut packet = rig.sent_since(0, false).pop().unwrap();
    let own = rig.sent_since(0, true).pop().unwrap();
    packet[..4].copy_from_slice(&own[..4]);
    assert!(is_dropped(&mut rig, client_addr(0), &packet), "each direction has its own keys");
}

#[test]
fn handshake_packets_before_confirmation_need_the_right_key_too() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    assert!(rig.run_until(ms(500), |rig| rig.clients[0].state() == ClientState::Connected));
    rig.flush();
    let packet = rig.sent_since(0, true).pop().unwrap();
    for index in HEADER_BYTES..packet.len() {
        let mut forged = packet.clone();
        forged[index] ^= 1;
        assert!(is_dropped(&mut rig, client_addr(0), &forged));
    }
    assert!(is_dropped(&mut rig, client_addr(3), &packet));
    assert_eq!(rig.endpoint.held(), (0, 1, 1, 0), "no slot, and the handshake is still there");
    rig.connect();
}

#[test]
fn an_optimistic_acker_is_closed() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let token = rig.token();
    let mut config = SessionConfig::default();
    config.reliable.knobs.ack_ahead = 3;
    rig.add_client_configured(&token, aes(), config);
    rig.run_for(ms(2_000));
    let session = match rig.told[0] {
        Told::Established(session, ..) => session,
        _ => unreachable!(),
    };
    let _ = rig.endpoint.send(rig.now, session, EVENTS, b"event");
    rig.run_for(ms(8_000));
    assert_eq!(rig.closes(), [CloseReason::AckOfUnsent]);
    assert_eq!(rig.endpoint.stats().ack_of_unsent, 1);
    let reason = CloseReason::AckOfUnsent;
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason }, "it is told why");
}

#[test]
fn an_ack_of_a_skipped_number_closes_the_session() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let skipped = rig.endpoint.connection(session).numbers().1;
    while rig.endpoint.connection(session).numbers().0 <= skipped {
        rig.endpoint.send(rig.now, session, INPUT, b"state").unwrap();
        rig.run_for(ms(5));
    }
    rig.run_for(ms(300));
    assert!(rig.closes().is_empty(), "honest acks pass over the skipped number");
    let mut text = (skipped as u32).to_le_bytes().to_vec();
    text.extend([0, 0, 0]);
    let lie = rig.clients[0].connection().seal_raw(0, flag::ACK, &text);
    rig.deliver_to_server(client_addr(0), &lie);
    assert_eq!(rig.closes(), [CloseReason::AckOfUnsent]);
}

/// Sends an authentic packet that the protocol would not make and says how the session took it.
fn lie(channel: u8, flags: u8, text: &[u8]) -> Vec<CloseReason> {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    let packet = rig.clients[0].connection().seal_raw(channel, flags, text);
    rig.deliver_to_server(client_addr(0), &packet);
    rig.closes()
}

#[test]
fn an_authentic_violation_closes_the_session() {
    let violation = [CloseReason::ProtocolViolation];
    assert_eq!(lie(0, 0, &[]), violation, "neither ack nor frame");
    assert_eq!(lie(0, 0, &[5]), violation, "a control kind of later versions");
    assert_eq!(lie(0, 0, &[1, 0]), violation, "a PING of two bytes");
    assert_eq!(lie(0, 0, &[4, 0, 0, 0, 0, 0, 0, 0, 0]), violation, "TIME from a client");
    assert_eq!(lie(0xc0, 0, &[0, 0, 1]), violation, "an ordered control frame");
    assert_eq!(lie(0x40, 0, &[0, 0, 1]), violation, "a sequenced control frame");
    assert_eq!(lie(0x41, 0, &[0]), violation, "half a message number");
    assert_eq!(lie(0x01, flag::FRAG, &[0, 0, 0, 1]), violation, "an unreliable fragment");
    assert_eq!(lie(0xc3, flag::FRAG, &[0, 0, 2, 1]), violation, "index past the last");
    assert_eq!(lie(0xc3, flag::FRAG, &[0, 0, 2, 64]), violation, "65 fragments");
    assert_eq!(lie(0, flag::BUNDLE, &[0x80]), violation, "an unended length");
    assert_eq!(lie(0, flag::BUNDLE, &[10, 1, 0]), violation, "a frame past the end");
    assert_eq!(lie(0xc3, 0, &[0, 0x40]), violation, "a message far ahead");
    assert_eq!(lie(0, flag::ACK, &[1, 0]), violation, "half an ack block");
    assert_eq!(lie(0x01, 0, b"an honest message"), []);
}

#[test]
fn more_than_the_credit_closes_the_session() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    // Ordered messages 1, 2, 3 ..: the server holds them, because 0 never comes.
    for number in 1_u16..300 {
        let mut text = number.to_le_bytes().to_vec();
        text.resize(1_100, 7);
        let packet = rig.clients[0].connection().seal_raw(0xc3, 0, &text);
        rig.deliver_to_server(client_addr(0), &packet);
        if !rig.closes().is_empty() {
            assert!((200..=240).contains(&number), "256 KiB are held, then no more: {number}");
            break;
        }
    }
    assert_eq!(rig.closes(), [CloseReason::ProtocolViolation]);
    assert_eq!(rig.endpoint.stats().violations, 1);
}

#[test]
fn a_server_that_breaks_the_protocol_is_left() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let packet = rig.endpoint.connection(session).seal_raw(0, 0, &[77]);
    rig.deliver_to_client(0, &packet);
    assert_eq!(
        rig.client_told[0].last(),
        Some(&ClientTold::Closed(CloseReason::ProtocolViolation))
    );
    rig.run_for(ms(1_000));
    assert_eq!(rig.closes(), [CloseReason::ProtocolViolation], "and told why");
}

/// Datagrams that were sent in an honest session, to be changed and sent again.
fn honest(seed: u64) -> (Rig, Vec<(bool, Vec<u8>)>) {
    let (mut rig, session): (Rig, SessionKey) = Rig::connected(seed, Link::CLEAN);
    rig.endpoint.send(rig.now, session, EVENTS, b"event").unwrap();
    rig.clients[0].send(rig.now, EVENTS, b"event").unwrap();
    rig.run_for(ms(300));
    let sent = rig.sent.iter().map(|sent| (sent.to == Target::Server, sent.bytes.clone()));
    let sent = sent.collect();
    (rig, sent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_taken_without_a_panic(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_400), 1..20),
        long in any::<bool>(),
    ) {
        let (mut rig, _) = Rig::connected(1, Link::CLEAN);
        let (told, client_told) = (rig.told.len(), rig.client_told[0].len());
        for mut bytes in datagrams {
            if long && bytes.len() > 14 {
                bytes[..4].fill(0);
                bytes[5..14].copy_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0]);
                bytes[4] %= 5;
            }
            rig.deliver_to_server(client_addr(0), &bytes);
            rig.deliver_to_client(0, &bytes);
        }
        rig.flush();
        prop_assert_eq!((rig.told.len(), rig.client_told[0].len()), (told, client_told));
    }

    #[test]
    fn any_authentic_text_is_taken_without_a_panic(
        packets in prop::collection::vec(
            (any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)),
            1..12,
        ),
    ) {
        let (mut rig, session) = Rig::connected(1, Link::CLEAN);
        for (channel, flags, text) in packets {
            let flags = flags & (flag::ACK | flag::FRAG | flag::BUNDLE | flag::PROBE);
            let channel = if flags & flag::BUNDLE != 0 { 0 } else { channel };
            if rig.clients[0].state() != ClientState::Connected {
                break;
            }
            let up = rig.clients[0].connection().seal_raw(channel, flags, &text);
            rig.deliver_to_server(client_addr(0), &up);
            if rig.endpoint.session_stats(session).is_some() {
                let down = rig.endpoint.connection(session).seal_raw(channel, flags, &text);
                rig.deliver_to_client(0, &down);
            }
        }
        rig.run_for(ms(2_000));
    }

    #[test]
    fn no_stranger_gets_more_bytes_than_it_sent(seed in 0_u64..1_000, count in 1_usize..60) {
        let (mut rig, sent) = honest(1);
        let mut random = Stream::new(seed, "attacker", 0);
        let stranger = client_addr(99);
        for _ in 0..count {
            let (_, mut bytes) = sent[random.below(sent.len() as u64) as usize].clone();
            match random.below(4) {
                0 => {}
                1 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
                2 => bytes.resize(bytes.len() + random.below(100) as usize, 0),
                _ => {
                    let index = random.below(bytes.len() as u64) as usize;
                    bytes[index] ^= random.next_u64() as u8;
                }
            }
            let from = rig.sent.len();
            rig.deliver_to_server(stranger, &bytes);
            rig.flush();
            let answers = rig.sent[from..].iter().filter(|sent| sent.client == stranger);
            let answered: usize = answers.map(|sent| sent.bytes.len()).sum();
            prop_assert!(answered <= bytes.len());
            prop_assert!(answered == 0 || answered == 62 && bytes.len() == 1_200);
        }
        prop_assert_eq!(rig.endpoint.held(), (1, 0, 4, 0), "and leaves nothing behind");
    }
}

#[test]
fn secrets_appear_in_no_debug_output() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let token = rig.token();
    let stats = rig.endpoint.session_stats(session);
    let text = format!("{token:?} {:?} {:?} {stats:?}", rig.endpoint, rig.clients[0]);
    let psk: String = token.psk().iter().map(|byte| format!("{byte}, ")).collect();
    assert!(!text.contains(&psk[..20]));
    assert!(!text.contains("psk") && !text.contains("key: ["));
}

#[test]
fn a_client_that_sends_more_packets_than_it_may_is_closed_for_flooding() {
    for (packets, closes) in [(4_900, vec![]), (5_100, vec![CloseReason::Flooding])] {
        let (mut rig, _) = Rig::connected(1, Link::CLEAN);
        for _ in 0..packets {
            // Nothing an application would see: a stale ack alone.
            let packet = rig.clients[0].connection().seal_raw(0, flag::ACK, &[1, 0, 0, 0, 0, 0, 0]);
            rig.deliver_to_server(client_addr(0), &packet);
        }
        assert_eq!(rig.closes(), closes, "{packets} packets at once");
    }
}

#[test]
fn a_client_that_sends_more_control_frames_than_it_may_is_closed_for_flooding() {
    for (pings, closes) in [(480, vec![]), (520, vec![CloseReason::Flooding])] {
        let (mut rig, _) = Rig::connected(1, Link::CLEAN);
        for _ in 0..pings / 40 {
            // Length 1, channel 0, PING.
            let text = [2, 0, 1].repeat(40);
            let packet = rig.clients[0].connection().seal_raw(0, flag::BUNDLE, &text);
            rig.deliver_to_server(client_addr(0), &packet);
        }
        assert_eq!(rig.closes(), closes, "{pings} PINGs at once");
    }
}
