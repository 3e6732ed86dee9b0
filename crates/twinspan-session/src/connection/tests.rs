//! Two connections hand in hand, without a link between them.

use super::*;
use crate::noise::{Secret, Split};
use crate::suite::CryptoSuite;
use crate::{SendError, SessionConfig};
use core::sync::atomic::{AtomicBool, Ordering};
use twinspan_core::aead::{AeadSuite, Cipher, HeaderKey, PacketKey, SECRET_BYTES};
use twinspan_reliable::Delivery;

const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);

fn end(role: Role) -> Connection {
    end_with(role, Arc::new(CryptoSuite::AES_FIRST))
}

fn end_with(role: Role, suites: Arc<dyn AeadSuite>) -> Connection {
    end_configured(role, suites, SessionConfig::default())
}

fn end_configured(role: Role, suites: Arc<dyn AeadSuite>, config: SessionConfig) -> Connection {
    let split =
        Split { client_to_server: Secret::new([1; 32]), server_to_client: Secret::new([2; 32]) };
    let common = Common::new(config, suites);
    let (start, cipher) = (Timestamp::START, Cipher::Aes128Gcm);
    let keys = Keys::new(start, common.means(), cipher, &split, role).unwrap();
    let (jitter, skips) = (Stream::new(1, "jitter", 0), Stream::new(1, "skips", 0));
    let parts = ConnectionParts { role, keys, peer_id: 7, jitter, skips };
    Connection::new(start, &common, parts)
}

fn at(millis: u64) -> Timestamp {
    Timestamp::START.after(Duration::from_millis(millis))
}

/// Moves all that one end has to say to the other; returns how many packets that were.
fn carry(now: Timestamp, from: &mut Connection, to: &mut Connection) -> usize {
    let mut room = [0; PACKET_BYTES_MAX];
    let mut packets = 0;
    while let Some(len) = from.build(now, &mut room) {
        packets += 1;
        let packet = &mut room[..len];
        let Ok(crate::header::Form::Sealed(header)) = crate::header::parse(packet) else {
            panic!("not a sealed packet");
        };
        let text = to.open(now, &header, packet).unwrap();
        let _: Stir = to.process(now, &header, text, &mut |_| {});
    }
    packets
}

#[test]
fn an_ack_alone_is_not_acknowledged() {
    let (mut client, mut server) = (end(Role::Client), end(Role::Server));
    client.send(at(0), EVENTS, b"event").unwrap();
    assert_eq!(carry(at(0), &mut client, &mut server), 1);
    assert_eq!(carry(at(0), &mut server, &mut client), 0, "the ack waits for company");
    server.handle_timeout(at(25), &mut |_| {});
    assert_eq!(carry(at(25), &mut server, &mut client), 1);
    assert_eq!(client.unacknowledged(), 0);
    client.handle_timeout(at(1_000), &mut |_| {});
    assert_eq!(carry(at(1_000), &mut client, &mut server), 0);
}

#[test]
fn a_probe_is_answered_at_once() {
    let (mut client, mut server) = (end(Role::Client), end(Role::Server));
    client.probe();
    assert_eq!(carry(at(0), &mut client, &mut server), 1);
    assert_eq!(carry(at(0), &mut server, &mut client), 1);
}

#[test]
fn a_one_time_message_is_acknowledged_within_100_ms() {
    let (mut client, mut server) = (end(Role::Client), end(Role::Server));
    let state = Channel::new(Delivery::Sequenced, StreamId::STATE);
    client.send(at(0), state, b"state").unwrap();
    carry(at(0), &mut client, &mut server);
    assert_eq!(server.deadline(), at(100));
    server.handle_timeout(at(99), &mut |_| {});
    assert_eq!(carry(at(99), &mut server, &mut client), 0);
    server.handle_timeout(at(100), &mut |_| {});
    assert_eq!(carry(at(100), &mut server, &mut client), 1);
}

#[test]
fn a_worn_out_key_ends_the_session() {
    let (mut client, mut server) = (end(Role::Client), end(Role::Server));
    client.set_number(1 << 24);
    client.send(at(0), EVENTS, b"event").unwrap();
    carry(at(0), &mut client, &mut server);
    assert_eq!(client.deadline(), Timestamp::START);
    let closed = SendError::Closed(CloseReason::KeyWornOut);
    assert_eq!(client.send(at(0), EVENTS, b"event"), Err(closed));
    let mut closed = None;
    client.handle_timeout(at(1), &mut |notice| {
        if let Notice::Closed { reason } = notice {
            closed = Some(reason);
        }
    });
    assert_eq!(closed, Some(CloseReason::KeyWornOut));
    carry(at(1), &mut client, &mut server);
    assert_eq!(server.close_reason(), Some(CloseReason::KeyWornOut));
}

#[test]
fn numbers_never_repeat_and_some_are_skipped() {
    let mut client = end(Role::Client);
    let numbers: Vec<u64> = (0..5_000).map(|_| client.take_number()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert_eq!(numbers[0], 1);
    let skipped = numbers[4_999] - 5_000;
    assert!((20..=60).contains(&skipped), "{skipped} of 5,000");
    assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] <= 2));
}

/// A suite that loses its ciphers when it is told to.
struct Lossy {
    gone: AtomicBool,
}

impl AeadSuite for Lossy {
    fn ciphers(&self) -> &[Cipher] {
        CryptoSuite::AES_FIRST.ciphers()
    }

    fn key(&self, cipher: Cipher, secret: &[u8; SECRET_BYTES]) -> Option<Box<dyn PacketKey>> {
        let gone = self.gone.load(Ordering::Relaxed);
        if gone { None } else { CryptoSuite::AES_FIRST.key(cipher, secret) }
    }

    fn header_key(
        &self,
        cipher: Cipher,
        secret: &[u8; SECRET_BYTES],
    ) -> Option<Box<dyn HeaderKey>> {
        CryptoSuite::AES_FIRST.header_key(cipher, secret)
    }
}

#[test]
fn a_session_that_has_no_key_to_seal_with_sends_nothing_and_ends() {
    let suite = Arc::new(Lossy { gone: AtomicBool::new(false) });
    let mut server = end_with(Role::Server, suite.clone());
    server.keys.rest();
    suite.gone.store(true, Ordering::Relaxed);
    server.send(at(0), EVENTS, b"event").unwrap();
    let mut room = [0; PACKET_BYTES_MAX];
    assert_eq!(server.build(at(0), &mut room), None);
    assert_eq!(server.traffic.packets_out, 0, "it does not count as sent");
    assert_eq!(server.deadline(), Timestamp::START);
    let mut told = Vec::new();
    for millis in [0, 100, 5_000] {
        server.handle_timeout(at(millis), &mut |notice| {
            if let Notice::Closed { reason } = notice {
                told.push(reason);
            }
        });
        assert_eq!(server.build(at(millis), &mut room), None);
    }
    assert_eq!(told, [CloseReason::KeyWornOut]);
    assert!(server.is_closed());
}

/// Two ends whose messages wait half a second for company, and that know their round trip.
fn patient_ends() -> (Connection, Connection) {
    let flush_delay = Duration::from_millis(500);
    let end = |role| {
        let config = SessionConfig { flush_delay, ..SessionConfig::default() };
        end_configured(role, Arc::new(CryptoSuite::AES_FIRST), config)
    };
    let (mut client, mut server) = (end(Role::Client), end(Role::Server));
    server.probe();
    carry(at(0), &mut server, &mut client);
    assert_eq!(carry(at(10), &mut client, &mut server), 1);
    assert!(server.smoothed_rtt() > Duration::ZERO);
    (client, server)
}

#[test]
fn a_control_message_waits_for_no_company_and_takes_along_what_does() {
    let (mut client, mut server) = patient_ends();
    server.send(at(20), EVENTS, b"event").unwrap();
    assert!(!server.wants_transmit(at(21)), "it waits for company");
    assert!(server.send_ids(at(22), [1, 2, 3]));
    assert_eq!(carry(at(22), &mut server, &mut client), 1);
    // Nor does a message that comes later make it wait.
    assert!(server.send_ids(at(23), [4, 5, 6]));
    server.send(at(23), EVENTS, b"event").unwrap();
    assert_eq!(carry(at(23), &mut server, &mut client), 1);
    assert!(!server.wants_transmit(at(24)));
}

#[test]
fn a_lost_frame_is_sent_again_while_another_message_waits_for_company() {
    let (_, mut server) = patient_ends();
    server.send(at(20), EVENTS, b"lost").unwrap();
    server.handle_timeout(at(520), &mut |_| {});
    let mut room = [0; PACKET_BYTES_MAX];
    assert!(server.build(at(520), &mut room).is_some(), "it leaves, and is lost");
    server.send(at(530), EVENTS, b"waits").unwrap();
    assert!(!server.wants_transmit(at(530)));
    let due = server.deadline();
    assert!(due < at(700), "the resend is due before the flush: {due:?}");
    server.handle_timeout(due, &mut |_| {});
    assert!(server.build(due, &mut room).is_some());
}
