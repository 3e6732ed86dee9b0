//! The bytes of SOCKS5, written out.

use proptest::prelude::*;

use super::*;

fn four() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 258))
}

fn six() -> SocketAddr {
    "[2001:db8::7]:80".parse().unwrap()
}

#[test]
fn a_client_says_these_bytes() {
    assert_eq!(greeting(false), [5, 1, 0]);
    assert_eq!(greeting(true), [5, 2, 0, 2]);
    let auth = Credentials::new("user", "secret");
    assert_eq!(login(&auth).unwrap().as_slice(), b"\x01\x04user\x06secret");
    assert_eq!(request(CONNECT, &four().into()).unwrap(), [5, 1, 0, 1, 10, 0, 0, 1, 1, 2]);
    let named = request(ASSOCIATE, &Target::new("a.example", 80)).unwrap();
    assert_eq!(named, [&[5, 3, 0, 3, 9][..], b"a.example", &[0, 80]].concat());
    let by_six = request(CONNECT, &six().into()).unwrap();
    let ip = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    assert_eq!(by_six, [&[5, 1, 0, 4][..], &ip, &[0, 80]].concat());
}

#[test]
fn what_cannot_be_said_is_refused() {
    for (user, password) in [("", "a"), ("a", ""), (&*"a".repeat(256), "a")] {
        let outcome = login(&Credentials::new(user, password));
        assert!(matches!(outcome, Err(Socks5Error::CredentialsLength)));
    }
    assert!(login(&Credentials::new("a".repeat(255), "b".repeat(255))).is_ok());
    for host in [String::new(), "a".repeat(256)] {
        assert!(matches!(request(1, &Target::new(host, 1)), Err(Socks5Error::Name)));
    }
}

#[test]
fn answers_to_greetings_are_told_apart() {
    assert_eq!(method([5, 2]).unwrap(), 2);
    assert!(matches!(method([5, 0xff]), Err(Socks5Error::NoMethod)));
    assert!(matches!(method([b'H', b'T']), Err(Socks5Error::Version(b'H'))));
    assert!(login_outcome([1, 0]).is_ok());
    assert!(matches!(login_outcome([1, 1]), Err(Socks5Error::Credentials)));
}

#[test]
fn a_reply_is_read_byte_by_byte_and_never_too_far() {
    let replies = [
        ([&[5, 0, 0][..], &[1, 10, 0, 0, 1, 1, 2]].concat(), Bound::Address(four())),
        ([&[5, 0, 0][..], &Header::of(six()).bytes()[3..]].concat(), Bound::Address(six())),
        ([&[5, 0, 0, 3, 2][..], b"ab", &[0, 80]].concat(), Bound::Name("ab".into(), 80)),
        (vec![5, 0, 0, 3, 0, 0, 80], Bound::Name(String::new(), 80)),
    ];
    for (bytes, wanted) in replies {
        let mut came = 0;
        loop {
            match reply(&bytes[..came]).unwrap() {
                Parsed::Needs(needed) => {
                    assert!(needed > came && needed <= bytes.len(), "{needed} after {came}");
                    came = needed;
                }
                Parsed::Whole(bound) => {
                    assert_eq!((bound, came), (wanted, bytes.len()));
                    break;
                }
            }
        }
    }
}

#[test]
fn a_refusal_is_known_by_its_code() {
    for code in 1..=u8::MAX {
        let Err(Socks5Error::Refused(refusal)) = reply(&[5, code]) else { panic!("{code}") };
        assert_eq!(refusal == Reply::Unknown(code), code > 8, "{refusal}");
    }
    assert!(matches!(reply(&[4, 0]), Err(Socks5Error::Version(4))));
    assert!(matches!(reply(&[5, 0, 0, 9, 9]), Err(Socks5Error::AddressKind(9))));
}

#[test]
fn headers_of_datagrams_are_these_bytes() {
    assert_eq!(Header::of(four()).bytes(), [0, 0, 0, 1, 10, 0, 0, 1, 1, 2]);
    assert_eq!(Header::of(six()).bytes().len(), HEADER_BYTES_MAX);
    for peer in [four(), six()] {
        let bytes = [Header::of(peer).bytes(), b"hi"].concat();
        let (from, at) = datagram(&bytes).unwrap();
        assert_eq!((from, &bytes[at..]), (Place::Address(peer), &b"hi"[..]));
    }
    let named = named_header(&Target::new("ab", 80)).unwrap();
    assert_eq!(named, [0, 0, 0, 3, 2, b'a', b'b', 0, 80]);
    assert_eq!(datagram(&named), Ok((Place::Name(b"ab", 80), named.len())));
}

#[test]
fn what_is_no_datagram_of_a_proxy_is_named() {
    let good = [Header::of(four()).bytes(), b"hi"].concat();
    let mut fragment = good.clone();
    fragment[2] = 1;
    assert_eq!(datagram(&fragment), Err(Dropped::Fragment));
    let mut reserved = good.clone();
    reserved[1] = 1;
    for wrong in [&good[..9], &[], &[0, 0], &reserved, &[0, 0, 0, 9, 1, 2, 3], &[0, 0, 0, 3, 9, 1]]
    {
        assert_eq!(datagram(wrong), Err(Dropped::Garbled), "{wrong:?}");
    }
    assert!(datagram(&good[..10]).is_ok(), "an empty datagram is one");
}

proptest! {
    #[test]
    fn any_bytes_are_a_reply_or_name_a_reason(bytes: Vec<u8>) {
        match reply(&bytes) {
            Ok(Parsed::Needs(needed)) => {
                prop_assert!(needed > bytes.len() && needed <= REPLY_BYTES_MAX);
            }
            Ok(Parsed::Whole(_)) => prop_assert!(bytes.len() >= 7),
            Err(_) => {}
        }
    }

    #[test]
    fn any_bytes_are_a_datagram_or_name_a_reason(bytes: Vec<u8>) {
        if let Ok((_, at)) = datagram(&bytes) {
            prop_assert!(at <= bytes.len());
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written(ip: u128, port: u16, four: bool, rest: Vec<u8>) {
        let ip = if four { IpAddr::V4(Ipv4Addr::from(ip as u32)) } else { Ipv6Addr::from(ip).into() };
        let peer = SocketAddr::new(ip, port);
        let bytes = [Header::of(peer).bytes(), &rest].concat();
        let (from, at) = datagram(&bytes).unwrap();
        prop_assert_eq!((from, &bytes[at..]), (Place::Address(peer), &rest[..]));
    }
}
