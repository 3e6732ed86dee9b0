//! Golden bytes of the handshake messages, and what their parsers refuse.

use super::*;
use crate::noise::Secret;
use proptest::prelude::*;

fn macs() -> PublicMacs {
    PublicMacs::new(&PublicKey::from_bytes([6; 32]))
}

fn hello() -> Vec<u8> {
    let prologue = hello_prologue(HelloParts {
        nonce: &[0x11; 16],
        connection: 0xa1b2_c3d4,
        versions: &[1],
        options: 0x0302,
        suites: &[Cipher::Aes128Gcm, Cipher::ChaCha20Poly1305],
        token_public: &[0x22; PUBLIC_PART_BYTES],
        token_private: &[0x33; PRIVATE_PART_BYTES],
    });
    let mut hello = HelloBytes::new(&prologue, &[0x44; MESSAGE_1_BYTES], &macs());
    hello.set_cookie(&[0x55; 16]);
    let mut out = vec![0xff; HELLO_BYTES];
    assert!(hello.write(&mut out));
    out
}

fn parse(bytes: &[u8]) -> Result<Hello<'_>, DropCause> {
    let hello = Hello::parse(bytes)?;
    hello.verify(&macs()).map(|()| hello)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn hello_has_its_golden_bytes() {
    let bytes = hello();
    let expected = [
        "0000000001010100000000000000",
        &"11".repeat(16),
        "d4c3b2a1 01 010000000000 0203 02 0201000000000000",
        &"22".repeat(32),
        &"33".repeat(80),
        &"44".repeat(48),
        MAC1_GOLDEN,
        &"55".repeat(16),
    ];
    assert_eq!(hex(&bytes[..244]), expected.concat().replace(' ', ""));
    assert!(bytes[244..].iter().all(|byte| *byte == 0));
    assert_eq!(bytes.len(), 1_200);

    let hello = parse(&bytes).unwrap();
    assert_eq!(hello.nonce, [0x11; 16]);
    assert_eq!(hello.connection, 0xa1b2_c3d4);
    assert_eq!(hello.versions, [1, 0, 0]);
    assert_eq!(hello.options, 0x0302);
    assert_eq!(hello.suites, [2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(hello.token_public, [0x22; 32]);
    assert_eq!(hello.token_private, [0x33; 80]);
    assert_eq!(hello.prologue, &bytes[..164]);
    assert_eq!(hello.noise, [0x44; 48]);
    assert_eq!(hello.cookie, [0x55; 16]);
}
const MAC1_GOLDEN: &str = "de4ab4c9e5c545aca2038ff9e07f5336";

#[test]
fn retry_has_its_golden_bytes() {
    let bytes = retry(&[0x11; 16], &[0x55; 16], &macs());
    let expected = ["0000000002010100000000000000", &"11".repeat(16), &"55".repeat(16), RETRY_MAC];
    assert_eq!(hex(&bytes), expected.concat());
    assert_eq!(parse_retry(&bytes, &[0x11; 16], &macs()), Ok([0x55; 16]));
    assert_eq!(handshake_nonce(&bytes), Some([0x11; 16]));
}
const RETRY_MAC: &str = "0f0519c66c635c2f24f6e228386fd793";

#[test]
fn refuse_has_its_golden_bytes() {
    let bytes = refuse(&[0x11; 16], &[0x55; 16], RefuseReason::TokenExpired, &macs());
    let expected = ["0000000004010100000000000000", &"11".repeat(16), "02", REFUSE_MAC];
    assert_eq!(hex(&bytes), expected.concat());
    let parsed = parse_refuse(&bytes, &[0x11; 16], &[0x55; 16], &macs());
    assert_eq!(parsed, Ok(RefuseReason::TokenExpired));
}
const REFUSE_MAC: &str = "9c43cd797df1f11d2252bb17864e2a8b";

#[test]
fn accept_has_its_golden_bytes() {
    let payload = Accept {
        version: 1,
        suite: 2,
        hidden: true,
        connection: 0x0102_0304,
        server_time: Timestamp::from_nanos(0x1122_3344_5566_7788),
        idle_timeout: Duration::from_secs(20),
        resume_window: Duration::from_secs(30),
    };
    let ticket = Ticket {
        psk: Secret::new([0x77; 32]),
        public: [0x88; PUBLIC_PART_BYTES],
        private: [0x99; PRIVATE_PART_BYTES],
    };
    let bytes = payload.to_payload(&ticket);
    let expected = [
        "01000201040302018877665544332211204e000030750000",
        &"77".repeat(32),
        &"88".repeat(32),
        &"99".repeat(80),
    ];
    assert_eq!(hex(bytes.as_slice()), expected.concat());
    let (parsed, again) = Accept::parse_payload(&bytes).unwrap();
    assert_eq!((parsed, again.to_bytes()), (payload, ticket.to_bytes()));

    let bytes = accept(&[0x11; 16], &[0x66; MESSAGE_2_BYTES]);
    let expected = ["0000000003010100000000000000", &"11".repeat(16), &"66".repeat(216)];
    assert_eq!(hex(&bytes), expected.concat());
    assert_eq!(parse_accept(&bytes, &[0x11; 16]), Ok(&[0x66; MESSAGE_2_BYTES]));
}

#[test]
fn a_changed_answer_is_dropped() {
    let made = retry(&[0x11; 16], &[0x55; 16], &macs());
    for index in HEADER_BYTES..RETRY_BYTES {
        let mut forged = made;
        forged[index] ^= 1;
        assert_eq!(parse_retry(&forged, &[0x11; 16], &macs()), Err(DropCause::AnswerBad));
    }
    let made = refuse(&[0x11; 16], &[0x55; 16], RefuseReason::Full, &macs());
    for index in HEADER_BYTES..REFUSE_BYTES {
        let mut forged = made;
        forged[index] ^= 1;
        assert!(parse_refuse(&forged, &[0x11; 16], &[0x55; 16], &macs()).is_err());
    }
    assert!(parse_refuse(&made, &[0x11; 16], &[0x54; 16], &macs()).is_err(), "other cookie");
    let other = PublicMacs::new(&PublicKey::from_bytes([7; 32]));
    assert!(parse_refuse(&made, &[0x11; 16], &[0x55; 16], &other).is_err(), "other server");
}

#[test]
fn a_hello_of_another_length_or_with_a_changed_byte_is_dropped() {
    let made = hello();
    for len in 0..made.len() {
        assert_eq!(parse(&made[..len]).err(), Some(DropCause::Malformed));
    }
    for index in HEADER_BYTES..made.len() {
        let mut forged = made.clone();
        forged[index] ^= 0x80;
        match parse(&forged) {
            // The cookie is checked by the cookies.
            Ok(hello) => assert!((COOKIE_AT..PADDING_AT).contains(&index), "{hello:?}"),
            Err(cause) => assert!(matches!(cause, DropCause::Malformed | DropCause::BadMac1)),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_name_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..1_300)) {
        let macs = macs();
        prop_assert!(parse(&bytes).is_err());
        prop_assert!(parse_retry(&bytes, &[0; 16], &macs).is_err());
        prop_assert!(parse_refuse(&bytes, &[0; 16], &[0; 16], &macs).is_err());
        let _ = parse_accept(&bytes, &[0; 16]);
        let _ = handshake_nonce(&bytes);
    }
}
