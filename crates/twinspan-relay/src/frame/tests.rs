//! Golden bytes, any bytes, and addresses that no client has.

use proptest::prelude::*;
use twinspan_core::packet::PacketPool;

use super::*;
use crate::key::{Direction, TrunkKey};

fn tags() -> TrunkTags {
    TrunkTags::new(&TrunkKey::from_bytes([7; 32]), None, Direction::ToServer)
}

fn encoded(inner: &[u8], client: &str, pad_to: usize) -> Option<Vec<u8>> {
    let pool = PacketPool::new(1);
    let mut packet = pool.take().unwrap();
    packet.room_mut().fill(0xee);
    assert!(packet.fill(inner));
    let client = client.parse().unwrap();
    encode(&mut packet, client, pad_to, tags().present()).then(|| packet.to_vec())
}

const V4: [u8; 48] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
    27, 28, 29, 30, 0, 0, // the inner datagram, two bytes of padding
    203, 0, 113, 9, 0x39, 0x30, 2, 0x14, // address, port, padding, form
    0xd3, 0xc5, 0x6b, 0xbb, 0x0d, 0xa9, 0x73, 0x4a, // tag
];
const V6_TRAILER: [u8; 28] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a, // address
    0xbb, 0x01, 0, 0x16, // port, padding, form
    0xd3, 0xc5, 0x6b, 0xbb, 0x0d, 0xa9, 0x73, 0x4a, // tag
];

fn inner(len: usize) -> Vec<u8> {
    (1..=len).map(|byte| byte as u8).collect()
}

#[test]
fn a_trunk_datagram_has_its_golden_bytes() {
    assert_eq!(encoded(&inner(30), "203.0.113.9:12345", 16).unwrap(), V4);
    let client = "203.0.113.9:12345".parse().unwrap();
    assert_eq!(decode(&V4, &tags()), Ok((client, 30)));

    let v6 = encoded(&inner(30), "[2001:db8::a]:443", 1).unwrap();
    assert_eq!(v6[..30], inner(30));
    assert_eq!(v6[30..], V6_TRAILER);
    assert_eq!(decode(&v6, &tags()), Ok(("[2001:db8::a]:443".parse().unwrap(), 30)));
}

#[test]
fn every_length_pads_to_the_next_multiple() {
    for len in INNER_BYTES_MIN..=INNER_BYTES_MAX {
        for pad_to in [1, 16, 32, 128] {
            let bytes = encoded(&vec![9; len], "10.0.0.1:1", pad_to).unwrap();
            let before_trailer = bytes.len() - TRAILER_V4_BYTES;
            assert_eq!(before_trailer % pad_to, 0);
            assert!((len..len + pad_to).contains(&before_trailer));
            assert_eq!(decode(&bytes, &tags()).unwrap().1, len);
            assert!(bytes[len..before_trailer].iter().all(|byte| *byte == 0), "old bytes leak");
        }
    }
}

#[test]
fn a_trailer_takes_16_bytes_or_28_and_a_hello_with_it_fits_every_path() {
    // What any path carries of IPv6 (RFC 8200, section 5), less the headers of IPv6 and UDP; a path of
    // as many bytes with IPv4 has shorter ones.
    const EVERY_PATH: usize = 1_280 - 40 - 8;
    for (client, trailer) in [("203.0.113.9:12345", 16), ("[2001:db8::a]:443", 28)] {
        for len in [30, 700, 1_200, 1_452] {
            assert_eq!(encoded(&vec![1; len], client, 1).unwrap().len(), len + trailer);
        }
        assert!(encoded(&[1; 1_200], client, 1).unwrap().len() <= EVERY_PATH, "{client}");
    }
}

#[test]
fn what_no_session_sends_is_not_encoded() {
    for len in [0, 29, 1_501] {
        assert_eq!(encoded(&vec![0; len], "10.0.0.1:1", 1), None, "{len} bytes");
    }
}

#[test]
fn addresses_that_no_client_has_are_refused_both_ways() {
    let bad = [
        "10.0.0.1:0",
        "0.0.0.0:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "[::]:1",
        "[ff02::1]:1",
        "[fe80::1]:1",
        "[2001:db8::1%3]:1",
        "[::ffff:10.0.0.1]:1",
    ];
    for client in bad {
        assert_eq!(encoded(&inner(30), client, 1), None, "{client}");
    }
    let mut no_port = V4;
    no_port[36..38].fill(0);
    assert_eq!(decode(&no_port, &tags()), Err(FrameError::Client));
    let mut multicast = V4;
    multicast[32] = 224;
    assert_eq!(decode(&multicast, &tags()), Err(FrameError::Client));
}

#[test]
fn each_fault_is_named() {
    for len in 0..12 {
        assert_eq!(decode(&V4[48 - len..], &tags()), Err(FrameError::Short { have: len }));
    }
    assert_eq!(decode(&V4[1..], &tags()), Err(FrameError::Short { have: 47 }));
    let mut changed = V4;
    changed[47] ^= 1;
    assert_eq!(decode(&changed, &tags()), Err(FrameError::Tag));
    let mut later = V4;
    later[39] = 0x24;
    assert_eq!(decode(&later, &tags()), Err(FrameError::Form(0x24)));
    let mut padded = V4;
    padded[38] = 33;
    assert_eq!(decode(&padded, &tags()), Err(FrameError::Short { have: 48 }));
    let mut long = vec![1; 1_501];
    long.extend_from_slice(&V6_TRAILER);
    assert_eq!(decode(&long, &tags()), Err(FrameError::TooLong { have: 1_501 }));
    let other = TrunkTags::new(&TrunkKey::from_bytes([8; 32]), None, Direction::ToServer);
    assert_eq!(decode(&V4, &other), Err(FrameError::Tag));
}

#[test]
fn clients_of_different_relays_have_different_addresses() {
    let client = "203.0.113.9:12345".parse().unwrap();
    let (first, second) = (relayed_address(client, 0), relayed_address(client, 1));
    assert_ne!(first, second);
    assert_eq!(client_of(first), Some((client, 0)));
    assert_eq!(client_of(second), Some((client, 1)));
    assert_eq!(first.ip().to_canonical(), client.ip(), "limits by source see the source");
}

#[test]
fn an_address_from_a_socket_is_of_no_relay() {
    for real in ["10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1", "[fe80::1%2147483647]:1"] {
        assert_eq!(client_of(real.parse().unwrap()), None, "{real}");
    }
}

fn clients() -> impl Strategy<Value = SocketAddr> {
    let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from);
    let v6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from);
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn any_bytes_are_a_trunk_datagram_or_name_a_reason(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..1_700),
        is_tagged in any::<bool>(),
    ) {
        if is_tagged {
            bytes.extend_from_slice(&tags().present().to_bytes());
        }
        fuzz(&bytes);
        if let Err(error) = decode(&bytes, &tags()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn what_was_encoded_is_decoded(
        inner in proptest::collection::vec(any::<u8>(), 30..1_500),
        client in clients(),
        pad_to in 1_usize..=128,
    ) {
        if let Some(bytes) = encoded(&inner, &client.to_string(), pad_to) {
            fuzz(&bytes);
            prop_assert_eq!(decode(&bytes, &tags()), Ok((client, inner.len())));
            prop_assert_eq!(&bytes[..inner.len()], inner);
        }
    }
}
