//! The bytes of SOCKS5: replies, and the headers of relayed datagrams.

use std::net::SocketAddr;

use super::SocksReply;

pub(super) const VERSION: u8 = 5;
pub(super) const NO_AUTHENTICATION: u8 = 0;
pub(super) const BY_PASSWORD: u8 = 2;
pub(super) const NO_METHOD: u8 = 0xff;
pub(super) const PASSWORD_VERSION: u8 = 1;
pub(super) const CONNECT: u8 = 1;
pub(super) const ASSOCIATE: u8 = 3;
pub(super) const IPV4: u8 = 1;
pub(super) const NAME: u8 = 3;
pub(super) const IPV6: u8 = 4;
/// The longest header of a datagram with an address in digits.
pub(super) const HEADER_BYTES_MAX: usize = 22;

/// Where something is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Address(SocketAddr),
    Name(String, u16),
}

/// A reply with the address that the proxy uses.
pub(super) fn reply(code: SocksReply, bound: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION, code as u8, 0];
    put_address(&mut bytes, bound);
    bytes
}

/// The header of a datagram from `from`.
pub(super) fn header(from: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0];
    put_address(&mut bytes, from);
    bytes
}

fn put_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            bytes.push(IPV4);
            bytes.extend(address.ip().octets());
        }
        SocketAddr::V6(address) => {
            bytes.push(IPV6);
            bytes.extend(address.ip().octets());
        }
    }
    bytes.extend(address.port().to_be_bytes());
}

/// Takes a datagram of a client apart: where it is to go, and what. `None` where it has no header,
/// or is a fragment, which nobody sends.
pub(super) fn parse(bytes: &[u8]) -> Option<(Target, &[u8])> {
    let ([0, 0, 0, kind], rest) = bytes.split_first_chunk()? else { return None };
    match *kind {
        IPV4 => {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            let (port, rest) = rest.split_first_chunk()?;
            Some((Target::Address(SocketAddr::from((*ip, u16::from_be_bytes(*port)))), rest))
        }
        IPV6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let (port, rest) = rest.split_first_chunk()?;
            Some((Target::Address(SocketAddr::from((*ip, u16::from_be_bytes(*port)))), rest))
        }
        NAME => {
            let (len, rest) = rest.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*len))?;
            let (port, rest) = rest.split_first_chunk()?;
            let name = std::str::from_utf8(name).ok()?.to_owned();
            Some((Target::Name(name, u16::from_be_bytes(*port)), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replies_and_headers_are_these_bytes() {
        let four = SocketAddr::from(([10, 0, 0, 1], 258));
        assert_eq!(reply(SocksReply::Succeeded, four), [5, 0, 0, 1, 10, 0, 0, 1, 1, 2]);
        assert_eq!(reply(SocksReply::NotAllowed, four)[1], 2);
        let six: SocketAddr = "[::1]:80".parse().unwrap();
        let mut bytes = vec![0, 0, 0, 4];
        bytes.extend([0; 15]);
        bytes.extend([1, 0, 80]);
        assert_eq!(header(six), bytes);
        assert_eq!(header(six).len(), HEADER_BYTES_MAX);
    }

    #[test]
    fn what_a_client_sends_is_taken_apart() {
        let four = [0, 0, 0, 1, 10, 0, 0, 1, 1, 2, b'h', b'i'];
        let target = Target::Address(SocketAddr::from(([10, 0, 0, 1], 258)));
        assert_eq!(parse(&four), Some((target, &b"hi"[..])));
        let named = [0, 0, 0, 3, 2, b'a', b'b', 0, 80, 7];
        assert_eq!(parse(&named), Some((Target::Name("ab".into(), 80), &[7][..])));
        let six: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(parse(&header(six)), Some((Target::Address(six), &[][..])));
        for wrong in [&four[..9], &[0, 0, 1, 1, 10, 0, 0, 1, 1, 2], &[0, 0, 0, 9], &named[..6], &[]]
        {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_datagram_or_none(bytes: Vec<u8>) {
            if let Some((_, rest)) = parse(&bytes) {
                prop_assert!(bytes.ends_with(rest));
            }
        }

        #[test]
        fn a_header_is_read_as_it_was_written(ip: u32, port: u16, rest: Vec<u8>) {
            let address = SocketAddr::from((ip.to_be_bytes(), port));
            let mut bytes = header(address);
            bytes.extend(&rest);
            prop_assert_eq!(parse(&bytes), Some((Target::Address(address), &rest[..])));
        }
    }
}
