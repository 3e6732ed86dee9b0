use proptest::prelude::*;
use twinspan_core::random::Stream;

use super::*;

const PROLOGUE: &[u8] = b"what both know";

/// Made with keys of 4, 2 and 3 in each byte, as docs/spec/hub.md says.
const FIRST: &str = concat!(
    "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59",
    "dcff51e8d713baab6cdcf7c6ef35125919f8f85e8f",
);
const SECOND: &str = concat!(
    "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22",
    "d358e8c17ba238ad472edcadf9ce90781fec4d4fb35e0c",
);
/// By cipher: the first packet of who connects.
const PACKETS: [&str; 3] = [
    "0a000102030405060708010000003300e5ead05fb78fb9631f95f998ac1ea4770f4e",
    "0a0001020304050607080100000011cf86135a9796a8e82ad8aa38de3fb34ce93248",
    "0a000102030405060708010000006c3edcd5079e64d08a61434877fd0414a803af6a",
];

struct Made {
    first: Vec<u8>,
    second: Vec<u8>,
    here: LinkSecrets,
    there: LinkSecrets,
}

/// Fills with one byte: ephemeral keys that a test knows.
struct Fixed(u8);

impl SecretSource for Fixed {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

fn made() -> Made {
    let key = SharedKey::from_bytes([4; 32]);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let opener = Opener::new(&key, PROLOGUE, b"hello", &mut Fixed(2), &mut first).unwrap();
    let opening = Opening::read(&key, PROLOGUE, &first).unwrap();
    assert_eq!(opening.payload(), b"hello");
    let there = opening.answer(b"welcome", &mut Fixed(3), &mut second).unwrap();
    let (payload, here) = opener.finish(&second).unwrap();
    assert_eq!(payload, b"welcome");
    Made { first, second, here, there }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// snow is the oracle: another implementation of Noise with other primitives.
#[test]
fn messages_and_keys_equal_those_of_snow() {
    let build = |ephemeral: &[u8; 32], is_first: bool| {
        let params = std::str::from_utf8(NAME).unwrap().parse().unwrap();
        let builder = snow::Builder::new(params).prologue(PROLOGUE).unwrap();
        let builder = builder.psk(0, &[4; 32]).unwrap();
        let builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral);
        if is_first { builder.build_initiator() } else { builder.build_responder() }.unwrap()
    };
    let (mut initiator, mut responder) = (build(&[2; 32], true), build(&[3; 32], false));
    let (mut buffer, mut read) = ([0; 512], [0; 512]);
    let made = made();
    let len = initiator.write_message(b"hello", &mut buffer).unwrap();
    assert_eq!(buffer[..len], made.first);
    responder.read_message(&made.first, &mut read).unwrap();
    let len = responder.write_message(b"welcome", &mut buffer).unwrap();
    assert_eq!(buffer[..len], made.second);
    initiator.read_message(&made.second, &mut read).unwrap();
    for mut theirs in [initiator, responder] {
        let (first, second) = theirs.dangerously_get_raw_split();
        for ours in [&made.here, &made.there] {
            assert_eq!(first, *ours.split.client_to_server);
            assert_eq!(second, *ours.split.server_to_client);
        }
    }
}

/// What docs/spec/hub.md shows.
#[test]
fn the_handshake_and_the_first_packets_have_their_golden_bytes() {
    let made = made();
    let sealed = [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm].map(|cipher| {
        let (mut here, mut there) = keys(cipher, &KeyConfig::default());
        let mut packet = packet(b"text");
        assert_eq!(here.seal(Timestamp::START, &mut packet), Some(1));
        let told = hex(&packet);
        let opened = there.open(Timestamp::START, &mut packet);
        assert_eq!(opened, Ok((1, &b"text"[..])));
        told
    });
    let golden = [FIRST, SECOND].concat();
    assert_eq!(
        (hex(&[made.first, made.second].concat()), sealed),
        (golden, PACKETS.map(Into::into))
    );
}

#[test]
fn another_key_prologue_or_byte_fails_at_either_end() {
    let Made { first, second, .. } = made();
    let key = SharedKey::from_bytes([4; 32]);
    assert!(Opening::read(&SharedKey::from_bytes([5; 32]), PROLOGUE, &first).is_none());
    assert!(Opening::read(&key, b"something else", &first).is_none());
    for index in 0..first.len() {
        let mut forged = first.clone();
        forged[index] ^= 1;
        assert!(Opening::read(&key, PROLOGUE, &forged).is_none(), "byte {index}");
    }
    let mut again = Vec::new();
    let opener = Opener::new(&key, PROLOGUE, b"hello", &mut Fixed(2), &mut again).unwrap();
    for index in 0..second.len() {
        let mut forged = second.clone();
        forged[index] ^= 1;
        assert!(opener.finish(&forged).is_none(), "byte {index}");
    }
    assert!(opener.finish(&second).is_some(), "forgeries changed nothing");
    for bytes in [&[][..], &[0; 31], &[0; 32], &[0; 47]] {
        assert!(Opening::read(&key, PROLOGUE, bytes).is_none() && opener.finish(bytes).is_none());
    }
    // A key that agrees on nothing.
    let mut symmetric = begin(&key, PROLOGUE);
    symmetric.mix_ephemeral(&[0; 32]);
    let mut low = Vec::new();
    assert!(write(&mut symmetric, &[0; 32], b"", &mut low));
    let opening = Opening::read(&key, PROLOGUE, &low).unwrap();
    assert!(opening.answer(b"", &mut Fixed(3), &mut Vec::new()).is_none());
}

fn keys(cipher: Cipher, config: &KeyConfig) -> (LinkKeys, LinkKeys) {
    let Made { here, there, .. } = made();
    let new = |secrets| LinkKeys::new(Timestamp::START, cipher, config, secrets).unwrap();
    (new(here), new(there))
}

fn packet(text: &[u8]) -> Vec<u8> {
    let mut packet = vec![10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0];
    packet.extend_from_slice(text);
    packet.extend_from_slice(&[0; OVERHEAD_BYTES]);
    packet
}

#[test]
fn a_packet_opens_once_and_changed_ones_never() {
    for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm] {
        let (mut here, mut there) = keys(cipher, &KeyConfig::default());
        let now = Timestamp::START;
        let mut sealed = packet(b"hello");
        here.seal(now, &mut sealed).unwrap();
        for index in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[index] ^= 1;
            assert!(there.open(now, &mut forged).is_err(), "byte {index}");
        }
        assert_eq!(there.open(now, &mut sealed.clone()), Ok((1, &b"hello"[..])));
        assert_eq!(there.open(now, &mut sealed.clone()), Err(LinkDrop::Repeated));
        assert!(here.open(now, &mut sealed).is_err(), "nobody opens what it sealed itself");
        assert_eq!(there.open(now, &mut [0; 29]), Err(LinkDrop::Short));
        assert_eq!(here.seal(now, &mut [0; 29]), None);
        assert_eq!(here.next_number(), 2);
    }
    let Made { here, .. } = made();
    let config = KeyConfig::default();
    assert!(LinkKeys::new(Timestamp::START, Cipher::SimulatorTag, &config, here).is_none());
}

#[test]
fn phases_follow_each_other_when_the_other_end_saw_them_and_end_the_link_when_not() {
    let config = KeyConfig { rekey_packets: 10, packets_max: 50, ..KeyConfig::default() };
    let (mut here, mut there) = keys(Cipher::Aes128Gcm, &config);
    let mut draws = Stream::new(1, "losses", 0);
    let mut now = Timestamp::START;
    let mut phases = std::collections::BTreeSet::new();
    for number in 0..2_000_u32 {
        now = now.after(Duration::from_millis(1));
        let mut sealed = packet(&number.to_le_bytes());
        here.seal(now, &mut sealed).unwrap();
        phases.insert((number / 40, sealed[1] & PHASE));
        // One in five is lost.
        if draws.chance(0.8) {
            let opened = there.open(now, &mut sealed).map(|(_, text)| text.to_vec());
            assert_eq!(opened, Ok(number.to_le_bytes().to_vec()));
        }
        if number % 7 == 0 {
            let mut back = packet(b"");
            there.seal(now, &mut back).unwrap();
            if draws.chance(0.8) {
                here.open(now, &mut back).unwrap();
            }
        }
    }
    assert!(phases.len() > 60, "both phases in most forties: {}", phases.len());
    // Nothing comes back any more: the key ends, and nothing leaves.
    let worn = (0..200).find(|_| here.seal(now, &mut packet(b"")).is_none());
    assert!(worn.is_some_and(|count| (1..=60).contains(&count)), "{worn:?}");
    assert_eq!(here.seal(now, &mut packet(b"")), None);
}

#[test]
fn an_old_packet_confirms_no_phase() {
    let config = KeyConfig { rekey_packets: 4, packets_max: 1_000, ..KeyConfig::default() };
    let (mut here, mut there) = keys(Cipher::Aes128Gcm, &config);
    let now = Timestamp::START;
    let send = |from: &mut LinkKeys, to: &mut LinkKeys| {
        let mut sealed = packet(b"");
        from.seal(now, &mut sealed).unwrap();
        let copy = sealed.clone();
        to.open(now, &mut sealed).unwrap();
        copy
    };
    // An answer under phase 0 that is late.
    let mut late = packet(b"");
    there.seal(now, &mut late).unwrap();
    for _ in 0..6 {
        send(&mut here, &mut there);
        send(&mut there, &mut here);
    }
    // More than one change, so that an even phase is sealed with again.
    while here.keys.is_sealed_odd() || here.next_number() < 9 {
        send(&mut here, &mut there);
        if here.keys.is_sealed_odd() {
            send(&mut there, &mut here);
        }
    }
    let told_at = here.told_at;
    let _ = here.open(now, &mut late);
    assert_eq!(here.told_at, told_at, "what is older tells nothing");
}

#[test]
fn keys_appear_in_no_debug_output() {
    let Made { here, there, .. } = made();
    let key = SharedKey::from_bytes([0x5a; 32]);
    let keys = LinkKeys::new(Timestamp::START, Cipher::Aes128Gcm, &KeyConfig::default(), there);
    let text = format!("{key:?} {here:?} {:?}", keys.unwrap());
    assert_eq!(text, "SharedKey(..) LinkSecrets { role: Client, .. } LinkKeys { number: 0, .. }");
}

proptest! {
    #[test]
    fn any_bytes_are_dropped_and_change_nothing(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let (mut here, mut there) = keys(Cipher::ChaCha20Poly1305, &KeyConfig::default());
        let key = SharedKey::from_bytes([4; 32]);
        prop_assert!(Opening::read(&key, PROLOGUE, &bytes).is_none());
        prop_assert!(there.open(Timestamp::START, &mut bytes).is_err());
        let mut sealed = packet(b"x");
        here.seal(Timestamp::START, &mut sealed);
        prop_assert_eq!(there.open(Timestamp::START, &mut sealed), Ok((1, &b"x"[..])));
    }
}
