//! The bytes of SOCKS5: greetings, requests, replies, and the headers of datagrams.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use zeroize::Zeroizing;

use super::Socks5Error;
use crate::target::{Credentials, Target};

const VERSION: u8 = 5;
const PASSWORD_VERSION: u8 = 1;
pub(super) const NO_AUTHENTICATION: u8 = 0;
pub(super) const BY_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
pub(super) const CONNECT: u8 = 1;
pub(super) const ASSOCIATE: u8 = 3;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// Bytes of a name, or of a user or a password: what one byte counts.
const COUNTED_BYTES_MAX: usize = 255;

/// Bytes that the header of a datagram to or from an address takes at most: 10 with IPv4, 22 with
/// IPv6. Whoever measures how long a datagram may be takes them off.
pub const HEADER_BYTES_MAX: usize = 22;
/// Bytes of a reply: head, and an address that is a name as long as a name can be.
pub(super) const REPLY_BYTES_MAX: usize = 5 + COUNTED_BYTES_MAX + 2;

/// What a proxy says to a request (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The proxy failed.
    GeneralFailure,
    /// Its rules do not allow it.
    NotAllowed,
    /// There is no way to the network.
    NetworkUnreachable,
    /// There is no way to the host, or no such name.
    HostUnreachable,
    /// The host refused.
    ConnectionRefused,
    /// It took too long.
    TtlExpired,
    /// The proxy does not do that.
    CommandNotSupported,
    /// It does not know that kind of address.
    AddressNotSupported,
    /// A code without a meaning.
    Unknown(u8),
}

impl Reply {
    fn of(code: u8) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::GeneralFailure,
            2 => Self::NotAllowed,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::TtlExpired,
            7 => Self::CommandNotSupported,
            8 => Self::AddressNotSupported,
            other => Self::Unknown(other),
        })
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GeneralFailure => f.write_str("it failed"),
            Self::NotAllowed => f.write_str("its rules do not allow it"),
            Self::NetworkUnreachable => f.write_str("there is no way to the network"),
            Self::HostUnreachable => f.write_str("there is no way to the host"),
            Self::ConnectionRefused => f.write_str("the host refused the connection"),
            Self::TtlExpired => f.write_str("it took too long"),
            Self::CommandNotSupported => f.write_str("it does not do that"),
            Self::AddressNotSupported => f.write_str("it does not know that kind of address"),
            Self::Unknown(code) => write!(f, "code {code}, which means nothing"),
        }
    }
}

/// The first bytes: which ways to say who asks are offered.
pub(super) fn greeting(has_password: bool) -> &'static [u8] {
    if has_password { &[VERSION, 2, NO_AUTHENTICATION, BY_PASSWORD] } else { &[VERSION, 1, 0] }
}

/// The way that the proxy chose.
pub(crate) fn method(answer: [u8; 2]) -> Result<u8, Socks5Error> {
    match answer {
        [VERSION, NO_METHOD] => Err(Socks5Error::NoMethod),
        [VERSION, method] => Ok(method),
        [other, _] => Err(Socks5Error::Version(other)),
    }
}

/// User and password (RFC 1929).
pub(super) fn login(auth: &Credentials) -> Result<Zeroizing<Vec<u8>>, Socks5Error> {
    let (user, password) = (auth.user().as_bytes(), auth.password().as_bytes());
    // All at once, so that no shorter copy is left behind as it grows.
    let mut bytes = Vec::with_capacity(3 + user.len() + password.len());
    bytes.push(PASSWORD_VERSION);
    for text in [user, password] {
        let len = counted(text).ok_or(Socks5Error::CredentialsLength)?;
        bytes.push(len);
        bytes.extend_from_slice(text);
    }
    Ok(Zeroizing::new(bytes))
}

/// The length of what is not empty and can be counted by a byte.
fn counted(text: &[u8]) -> Option<u8> {
    u8::try_from(text.len()).ok().filter(|len| *len > 0)
}

/// What the proxy says to user and password.
pub(crate) fn login_outcome(answer: [u8; 2]) -> Result<(), Socks5Error> {
    match answer {
        [_, 0] => Ok(()),
        _ => Err(Socks5Error::Credentials),
    }
}

/// A request.
pub(super) fn request(command: u8, target: &Target) -> Result<Vec<u8>, Socks5Error> {
    let mut bytes = vec![VERSION, command, 0];
    put_target(&mut bytes, target)?;
    Ok(bytes)
}

/// The header of datagrams to a name.
pub(super) fn named_header(target: &Target) -> Result<Vec<u8>, Socks5Error> {
    let mut bytes = vec![0, 0, 0];
    put_target(&mut bytes, target)?;
    Ok(bytes)
}

fn put_target(bytes: &mut Vec<u8>, target: &Target) -> Result<(), Socks5Error> {
    match target.host.parse() {
        Ok(IpAddr::V4(ip)) => {
            bytes.push(IPV4);
            bytes.extend_from_slice(&ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            bytes.push(IPV6);
            bytes.extend_from_slice(&ip.octets());
        }
        Err(_) => {
            let name = target.host.as_bytes();
            bytes.push(NAME);
            bytes.push(counted(name).ok_or(Socks5Error::Name)?);
            bytes.extend_from_slice(name);
        }
    }
    bytes.extend_from_slice(&target.port.to_be_bytes());
    Ok(())
}

/// What a proxy has opened, by address or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Address(SocketAddr),
    Name(String, u16),
}

/// What has come of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// All of it.
    Whole(Bound),
    /// A part: it has at least so many bytes, more than came.
    Needs(usize),
}

/// Reads a reply. One that refuses is an error as soon as that is known.
pub(crate) fn reply(came: &[u8]) -> Result<Parsed, Socks5Error> {
    let [version, code, ..] = came else { return Ok(Parsed::Needs(2)) };
    if *version != VERSION {
        return Err(Socks5Error::Version(*version));
    }
    if let Some(reply) = Reply::of(*code) {
        return Err(Socks5Error::Refused(reply));
    }
    // The first byte of the address tells how long a name is.
    let Some(([_, _, _, kind, _], _)) = came.split_first_chunk() else {
        return Ok(Parsed::Needs(5));
    };
    let address = came.get(3..).unwrap_or_default();
    match place(address) {
        Ok((Place::Address(address), _)) => Ok(Parsed::Whole(Bound::Address(address))),
        Ok((Place::Name(name, port), _)) => {
            let name = String::from_utf8_lossy(name).into_owned();
            Ok(Parsed::Whole(Bound::Name(name, port)))
        }
        Err(Broken::Short(needed)) => Ok(Parsed::Needs(3 + needed)),
        Err(Broken::Kind) => Err(Socks5Error::AddressKind(*kind)),
    }
}

/// Where a datagram comes from, in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Address(SocketAddr),
    Name(&'a [u8], u16),
}

/// Why an address cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// It has at least so many bytes.
    Short(usize),
    /// Nobody knows its kind.
    Kind,
}

/// Reads an address, and how many bytes it has.
fn place(bytes: &[u8]) -> Result<(Place<'_>, usize), Broken> {
    let (kind, rest) = bytes.split_first().ok_or(Broken::Short(1))?;
    match *kind {
        IPV4 => {
            let (ip, port) = chunks::<4>(rest).ok_or(Broken::Short(7))?;
            Ok((Place::Address(SocketAddr::new(Ipv4Addr::from(ip).into(), port)), 7))
        }
        IPV6 => {
            let (ip, port) = chunks::<16>(rest).ok_or(Broken::Short(19))?;
            Ok((Place::Address(SocketAddr::new(Ipv6Addr::from(ip).into(), port)), 19))
        }
        NAME => {
            let (len, rest) = rest.split_first().ok_or(Broken::Short(2))?;
            let whole = 4 + usize::from(*len);
            let (name, rest) =
                rest.split_at_checked(usize::from(*len)).ok_or(Broken::Short(whole))?;
            let (port, _) = rest.split_first_chunk().ok_or(Broken::Short(whole))?;
            Ok((Place::Name(name, u16::from_be_bytes(*port)), whole))
        }
        _ => Err(Broken::Kind),
    }
}

/// Some bytes, and the port behind them.
fn chunks<const N: usize>(bytes: &[u8]) -> Option<([u8; N], u16)> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    let (port, _) = rest.split_first_chunk()?;
    Some((*first, u16::from_be_bytes(*port)))
}

/// Why a datagram from a proxy is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is a piece of one, which nobody sends.
    Fragment,
    /// It has no header.
    Garbled,
}

/// Takes a datagram from a proxy apart: who sent it, and where its bytes begin.
pub(crate) fn datagram(bytes: &[u8]) -> Result<(Place<'_>, usize), Dropped> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Dropped::Garbled)?;
    match head {
        [0, 0, 0] => {}
        [0, 0, _] => return Err(Dropped::Fragment),
        _ => return Err(Dropped::Garbled),
    }
    let (from, len) = place(rest).map_err(|_| Dropped::Garbled)?;
    Ok((from, head.len() + len))
}

/// The header of a datagram to or from `peer`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

impl Header {
    pub(crate) fn of(peer: SocketAddr) -> Self {
        let mut bytes = [0; HEADER_BYTES_MAX];
        let [p, q] = peer.port().to_be_bytes();
        let len = match peer.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                let header = [0, 0, 0, IPV4, a, b, c, d, p, q];
                bytes.iter_mut().zip(header).for_each(|(byte, value)| *byte = value);
                header.len()
            }
            IpAddr::V6(ip) => {
                let header = [0, 0, 0, IPV6].into_iter().chain(ip.octets()).chain([p, q]);
                bytes.iter_mut().zip(header).for_each(|(byte, value)| *byte = value);
                HEADER_BYTES_MAX
            }
        };
        Self { bytes, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
