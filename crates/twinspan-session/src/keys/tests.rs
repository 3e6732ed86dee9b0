//! Two ends whose keys change.

use proptest::prelude::*;
use twinspan_core::aead::TAG_BYTES;
use twinspan_core::random::Stream;

use super::*;
use crate::header::{Form, HEADER_BYTES, parse};
use crate::suite::CryptoSuite;

const CIPHER: Cipher = Cipher::Aes128Gcm;
const PACKET: usize = HEADER_BYTES + 4 + TAG_BYTES;

fn at(millis: u64) -> Timestamp {
    Timestamp::START.after(Duration::from_millis(millis))
}

fn split() -> Split {
    Split { client_to_server: Secret::new([1; 32]), server_to_client: Secret::new([2; 32]) }
}

/// One end: its keys, its numbers, and what it knows.
struct End {
    keys: Keys,
    config: KeyConfig,
    next: u64,
    /// The largest number of the peer's that was opened: what the next ack names.
    heard: u64,
    pairs: Stream,
    /// A REKEY frame that waits for a packet, and whether one was sent.
    rekey: Option<Rekey>,
}

#[derive(Clone)]
struct Packet {
    bytes: [u8; PACKET],
    number: u64,
    ack: u64,
    rekey: Option<Rekey>,
}

impl End {
    fn new(role: Role, config: &KeyConfig) -> Self {
        let means = Means { suite: &CryptoSuite::AES_FIRST, config };
        let keys = Keys::new(at(0), means, CIPHER, &split(), role).unwrap();
        let pairs = Stream::new(role as u64, "pairs", 0);
        Self { keys, config: config.clone(), next: 1, heard: 0, pairs, rekey: None }
    }

    fn send(&mut self, now: Timestamp) -> Packet {
        let means = Means { suite: &CryptoSuite::AES_FIRST, config: &self.config };
        if self.keys.wants_pair(now) {
            self.rekey = self.keys.on_pair(KeyPair::generate(&mut self.pairs));
        }
        let number = self.next;
        self.next += 1;
        let flags = self.keys.advance(means, now, number);
        let header = Header { connection: 7, channel: 1, flags, number };
        let mut bytes = [9; PACKET];
        bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        self.keys.seal(means, number, &mut bytes).unwrap();
        Packet { bytes, number, ack: self.heard, rekey: self.rekey }
    }

    fn open(&mut self, now: Timestamp, packet: &Packet) -> Result<(), DropCause> {
        let means = Means { suite: &CryptoSuite::AES_FIRST, config: &self.config };
        let mut bytes = packet.bytes;
        let Ok(Form::Sealed(header)) = parse(&bytes) else { panic!("not a sealed packet") };
        let rtt = || Duration::from_millis(100);
        assert_eq!(self.keys.open(means, now, rtt, &header, &mut bytes)?, [9; 4]);
        self.heard = self.heard.max(packet.number);
        self.keys.on_acked(packet.ack);
        Ok(())
    }

    /// Takes the packet and the frame in it, once.
    fn take(&mut self, now: Timestamp, packet: &Packet, seen: &mut Vec<Rekey>) {
        self.open(now, packet).unwrap();
        if let Some(rekey) = packet.rekey.filter(|rekey| !seen.contains(rekey)) {
            seen.push(rekey);
            self.keys.on_rekey(now, rekey).unwrap();
        }
    }
}

fn ends(config: &KeyConfig) -> (End, End) {
    (End::new(Role::Client, config), End::new(Role::Server, config))
}

/// Keys that change after four packets.
fn quick() -> KeyConfig {
    KeyConfig { rekey_packets: 4, packets_max: 64, ..KeyConfig::default() }
}

/// Sends a packet each way.
fn turn(now: Timestamp, client: &mut End, server: &mut End) {
    let up = client.send(now);
    server.open(now, &up).unwrap();
    let down = server.send(now);
    client.open(now, &down).unwrap();
}

#[test]
fn both_ends_go_through_many_phases_and_agree() {
    let (mut client, mut server) = ends(&quick());
    let mut seen = Vec::new();
    for _ in 0..1_000 {
        turn(at(0), &mut client, &mut server);
        let [seal, open] = client.keys.secrets();
        let theirs = server.keys.secrets();
        assert_eq!([&open, &seal], [&theirs[0], &theirs[1]]);
        if seen.last() != Some(&seal) {
            assert!(!seen.contains(&seal), "a secret came again");
            seen.push(seal);
        }
    }
    assert_eq!(seen.len(), 250);
}

#[test]
fn a_phase_ends_by_age_too() {
    let (mut client, mut server) = ends(&KeyConfig::default());
    turn(at(0), &mut client, &mut server);
    turn(at(119_999), &mut client, &mut server);
    assert_eq!(client.keys.phases(), (false, false, false));
    turn(at(120_000), &mut client, &mut server);
    assert_eq!(client.keys.phases(), (true, true, false));
    assert_eq!(server.keys.phases(), (true, true, false));
}

#[test]
fn no_next_phase_begins_before_an_ack_under_the_present_one() {
    let (mut client, mut server) = ends(&quick());
    for _ in 0..20 {
        assert_eq!(client.send(at(0)).bytes[5], 0);
    }
    let first = client.send(at(0));
    server.open(at(0), &first).unwrap();
    let ack = server.send(at(0));
    client.open(at(0), &ack).unwrap();
    let packet = client.send(at(0));
    assert_eq!(packet.bytes[5], flag::PHASE);
    assert_eq!(client.send(at(0)).bytes[5], flag::PHASE, "and none before an ack under this one");
    for _ in 0..20 {
        assert_eq!(client.send(at(0)).bytes[5], flag::PHASE);
    }
}

#[test]
fn a_key_stops_at_its_packets_and_at_its_age() {
    let (mut client, _) = ends(&quick());
    for _ in 0..63 {
        client.send(at(0));
    }
    assert!(!client.keys.is_worn());
    client.send(at(0));
    assert!(client.keys.is_worn(), "64 packets");
    assert_eq!(client.keys.deadline(), Timestamp::START);

    let (mut client, _) = ends(&KeyConfig::default());
    client.send(at(179_999));
    assert!(!client.keys.is_worn());
    client.send(at(180_000));
    assert!(client.keys.is_worn());
}

#[test]
fn a_flipped_phase_bit_moves_nothing_and_makes_one_key_at_most() {
    let (mut client, mut server) = ends(&quick());
    turn(at(0), &mut client, &mut server);
    let honest = client.send(at(0));
    let mut forged = honest.clone();
    forged.bytes[5] ^= flag::PHASE;
    for _ in 0..9 {
        assert_eq!(server.open(at(0), &forged), Err(DropCause::NotAuthentic));
        assert_eq!(server.keys.phases(), (false, false, false));
    }
    assert!(server.keys.opening.next.is_some(), "made ahead, and kept for the honest packet");
    server.open(at(0), &honest).unwrap();
    (0..10).for_each(|_| turn(at(0), &mut client, &mut server));
}

#[test]
fn late_packets_of_the_phase_before_open_for_three_round_trips() {
    let (mut client, mut server) = ends(&quick());
    (0..3).for_each(|_| turn(at(0), &mut client, &mut server));
    let late: Vec<Packet> = (0..2).map(|_| client.send(at(0))).collect();
    assert_eq!(late[0].bytes[5], 0);
    assert_eq!(late[1].bytes[5], flag::PHASE);
    server.open(at(0), &late[1]).unwrap();
    server.open(at(299), &late[0]).unwrap();
    assert_eq!(server.open(at(300), &late[0]), Err(DropCause::OldPhase));
    server.keys.handle_timeout(at(300));
    assert!(server.keys.opening.old.is_none());
    server.open(at(300), &late[1]).unwrap();
    let mut forged = late[0].clone();
    forged.bytes[6] = 1;
    assert_eq!(server.open(at(300), &forged), Err(DropCause::OldPhase));
}

#[test]
fn an_exchange_changes_all_secrets_of_both_ends() {
    let config = KeyConfig::default();
    let (mut client, mut server) = ends(&config);
    (0..=5).for_each(|phase| turn(at(phase * 119_000), &mut client, &mut server));
    let before = client.keys.secrets();
    assert!(!client.keys.wants_pair(at(599_999)));
    let now = at(600_000);
    let (mut up_seen, mut down_seen) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let up = client.send(now);
        server.take(now, &up, &mut up_seen);
        let down = server.send(now);
        client.take(now, &down, &mut down_seen);
    }
    assert!(!client.keys.phases().2 && !server.keys.phases().2, "the exchange is over");
    let [seal, open] = client.keys.secrets();
    assert_eq!([open.clone(), seal.clone()], server.keys.secrets());
    // Who knows all the secrets of before but not the fresh keys ends elsewhere.
    for (then, here) in before.iter().zip([seal, open]) {
        let next = next_secret(CIPHER, then).unwrap();
        assert!(then != &here && next != here && next_secret(CIPHER, &next).unwrap() != here);
    }
    assert!(!client.keys.wants_pair(at(1_199_999)));
    assert!(client.keys.wants_pair(at(1_200_000)));
}

#[test]
fn an_offer_that_comes_too_early_is_a_violation() {
    let (mut client, mut server) = ends(&KeyConfig::default());
    assert_eq!(client.keys.on_rekey(at(0), Rekey::Offer([7; 32])), Err(Violation));
    assert_eq!(server.keys.on_rekey(at(0), Rekey::Answer([7; 32])), Err(Violation));
    let offer = Rekey::Offer(*KeyPair::from_secret(&[7; 32]).public());
    server.keys.on_rekey(at(0), offer).unwrap();
    assert_eq!(server.keys.on_rekey(at(0), offer), Err(Violation));
    server.keys.on_pair(KeyPair::from_secret(&[8; 32])).unwrap();
    assert_eq!(server.keys.on_rekey(at(0), offer), Err(Violation));
    let (_, mut server) = ends(&KeyConfig::default());
    server.keys.on_rekey(at(0), Rekey::Offer([0; 32])).unwrap();
    assert_eq!(server.keys.on_pair(KeyPair::from_secret(&[8; 32])), None, "of small order");
}

#[test]
fn a_key_that_rested_seals_as_before() {
    let (mut client, mut server) = ends(&KeyConfig::default());
    turn(at(0), &mut client, &mut server);
    client.keys.rest();
    assert!(!client.keys.is_awake());
    turn(at(0), &mut client, &mut server);
    assert!(client.keys.is_awake());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A link that loses, delays and reorders: whatever arrives within the old phase's time opens,
    /// exchanges under way included, and both ends keep changing their keys.
    #[test]
    fn every_packet_that_is_not_too_late_opens(seed in any::<u64>()) {
        let config = KeyConfig {
            rekey_packets: 4,
            packets_max: 1 << 20,
            exchange_interval: Duration::from_secs(1),
            ..KeyConfig::default()
        };
        let (mut client, mut server) = ends(&config);
        let mut random = Stream::new(seed, "link", 0);
        let mut wire: Vec<(Timestamp, bool, Packet)> = Vec::new();
        let (mut up_seen, mut down_seen) = (Vec::new(), Vec::new());
        let (mut steps, mut last) = (0, server.keys.secrets());
        for millis in (0..20_000).step_by(10) {
            let now = at(millis);
            for up in [true, false] {
                let end = if up { &mut client } else { &mut server };
                let packet = end.send(now);
                prop_assert!(!end.keys.is_worn());
                if !random.chance(0.2) {
                    let due = now.after(Duration::from_millis(20 + random.below(30)));
                    wire.push((due, up, packet));
                }
            }
            let (due, rest): (Vec<_>, _) = wire.into_iter().partition(|(due, ..)| *due <= now);
            wire = rest;
            for (_, up, packet) in due {
                if up {
                    server.take(now, &packet, &mut up_seen);
                } else {
                    client.take(now, &packet, &mut down_seen);
                }
            }
            client.keys.handle_timeout(now);
            server.keys.handle_timeout(now);
            let secrets = server.keys.secrets();
            steps += usize::from(secrets[0] != last[0]) + usize::from(secrets[1] != last[1]);
            last = secrets;
        }
        prop_assert!(steps > 100, "{steps} phases");
        prop_assert!(up_seen.len() > 10 && down_seen.len() > 10, "{} exchanges", up_seen.len());
    }
}
