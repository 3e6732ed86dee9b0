//! The trailer with which a datagram travels between a relay and a server: relay spec, section 2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use twinspan_core::packet::PacketBuf;

use crate::key::{TAG_BYTES, TrunkTag, TrunkTags};

/// Bytes of the shortest session datagram: a header and a tag, session 1.5.
pub const INNER_BYTES_MIN: usize = 30;
/// Bytes of the longest datagram that a relay takes from a client or hands to it.
pub const INNER_BYTES_MAX: usize = 1_500;
/// Bytes by which an inner datagram may be lengthened so that neighbours are of equal length.
pub const PADDING_BYTES_MAX: usize = 255;
/// Bytes of the trailer for a client with an IPv4 address.
pub const TRAILER_V4_BYTES: usize = 4 + TAIL_BYTES;
/// Bytes of the trailer for a client with an IPv6 address.
pub const TRAILER_V6_BYTES: usize = 16 + TAIL_BYTES;
/// Port, padding, form and tag.
const TAIL_BYTES: usize = 4 + TAG_BYTES;

/// The form byte: version 1 in the high half, the address family in the low one.
const FORM_V4: u8 = 0x14;
const FORM_V6: u8 = 0x16;

const _: () = assert!(
    INNER_BYTES_MAX + PADDING_BYTES_MAX + TRAILER_V6_BYTES
        <= twinspan_core::packet::PACKET_BYTES_MAX
);
// A HELLO through an IPv6 trunk still fits the least MTU of IPv6.
const _: () = assert!(1_200 + TRAILER_V6_BYTES + 48 <= 1_280);

/// Why bytes are no trunk datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Too short for an inner datagram and its trailer.
    #[error("a trunk datagram of {have} bytes is too short for its trailer and what it carries")]
    Short {
        /// Bytes there are.
        have: usize,
    },
    /// What it carries is longer than [`INNER_BYTES_MAX`].
    #[error("a trunk datagram carries {have} bytes, more than {INNER_BYTES_MAX}")]
    TooLong {
        /// Bytes that it carries.
        have: usize,
    },
    /// A version or address family that is not known.
    #[error("trunk form {0:#04x} is not known; run relay and server of one version")]
    Form(u8),
    /// The tag is not that of the trunk's key.
    #[error("the trunk tag is wrong; give relay and server the same trunk key")]
    Tag,
    /// The client's address is one that no client has.
    #[error("no client has the address in the trailer")]
    Client,
}

/// Lengthens `packet` by padding and the trailer that names `client`; false, and no change, when
/// that does not fit, or the client's address has a scope that the trailer cannot carry.
///
/// The length before the trailer becomes a multiple of `pad_to`, as far as
/// [`PADDING_BYTES_MAX`] allows; 0 and 1 pad nothing.
#[must_use]
pub fn encode(packet: &mut PacketBuf, client: SocketAddr, pad_to: usize, tag: TrunkTag) -> bool {
    let len = packet.len();
    if !(INNER_BYTES_MIN..=INNER_BYTES_MAX).contains(&len) || !is_client(client) {
        return false;
    }
    let padding = (len.next_multiple_of(pad_to.max(1)) - len).min(PADDING_BYTES_MAX);
    let mut trailer = [0; TRAILER_V6_BYTES];
    let (trailer_len, form) = match client.ip() {
        IpAddr::V4(ip) => {
            put(&mut trailer, 0, &ip.octets());
            (TRAILER_V4_BYTES, FORM_V4)
        }
        IpAddr::V6(ip) => {
            put(&mut trailer, 0, &ip.octets());
            (TRAILER_V6_BYTES, FORM_V6)
        }
    };
    let at = trailer_len - TAIL_BYTES;
    put(&mut trailer, at, &client.port().to_le_bytes());
    put(&mut trailer, at + 2, &[padding as u8, form]);
    put(&mut trailer, at + 4, &tag.to_bytes());
    packet.set_len(len + padding + trailer_len);
    let Some(behind) = packet.get_mut(len..) else { return false };
    // What an earlier packet left in the buffer must not travel.
    behind.fill(0);
    let Some(room) = behind.get_mut(padding..) else { return false };
    room.iter_mut().zip(trailer).for_each(|(out, byte)| *out = byte);
    true
}

fn put(trailer: &mut [u8; TRAILER_V6_BYTES], at: usize, bytes: &[u8]) {
    trailer.iter_mut().skip(at).zip(bytes).for_each(|(out, byte)| *out = *byte);
}

/// Reads a trunk datagram: the client that it names, and how many of the first bytes are the inner
/// datagram.
///
/// # Errors
/// [`FrameError`] names what is wrong with it.
pub fn decode(bytes: &[u8], tags: &TrunkTags) -> Result<(SocketAddr, usize), FrameError> {
    let short = FrameError::Short { have: bytes.len() };
    let (rest, tag) = bytes.split_last_chunk::<TAG_BYTES>().ok_or(short)?;
    let (rest, [p0, p1, padding, form]) = rest.split_last_chunk::<4>().ok_or(short)?;
    // The tag first: what else is wrong is told only to who knows the key.
    if !tags.match_one(TrunkTag::from_bytes(*tag)) {
        return Err(FrameError::Tag);
    }
    let (rest, ip) = match *form {
        FORM_V4 => {
            let (rest, octets) = rest.split_last_chunk::<4>().ok_or(short)?;
            (rest, IpAddr::V4(Ipv4Addr::from(*octets)))
        }
        FORM_V6 => {
            let (rest, octets) = rest.split_last_chunk::<16>().ok_or(short)?;
            (rest, IpAddr::V6(Ipv6Addr::from(*octets)))
        }
        other => return Err(FrameError::Form(other)),
    };
    let inner = rest.len().checked_sub(usize::from(*padding)).ok_or(short)?;
    if inner < INNER_BYTES_MIN {
        return Err(short);
    }
    if inner > INNER_BYTES_MAX {
        return Err(FrameError::TooLong { have: inner });
    }
    let client = SocketAddr::new(ip, u16::from_le_bytes([*p0, *p1]));
    if !is_client(client) {
        return Err(FrameError::Client);
    }
    Ok((client, inner))
}

/// Whether a client can be there: one host, one way to write it, and no scope.
fn is_client(client: SocketAddr) -> bool {
    let host = match client {
        SocketAddr::V4(client) => {
            let ip = client.ip();
            !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast())
        }
        SocketAddr::V6(client) => {
            let ip = client.ip();
            let one = !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local());
            // An IPv4 address has a form of its own, so that one client has one name.
            one && client.scope_id() == 0 && ip.to_ipv4_mapped().is_none()
        }
    };
    host && client.port() != 0
}

/// Marks the scope of addresses that stand for clients behind a relay; interface numbers, which
/// are the scopes of real addresses, are positive `i32`s.
const RELAYED: u32 = 1 << 31;

/// The address under which a server knows `client` behind the relay with this index in its list.
///
/// It is the client's own, in IPv6 form, with the relay in the scope: limits by source still see
/// the source, two relays' clients differ, and no address from a socket is equal to it.
pub fn relayed_address(client: SocketAddr, relay: u16) -> SocketAddr {
    let ip = match client.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddrV6::new(ip, client.port(), 0, RELAYED | u32::from(relay)).into()
}

/// The client and the index of its relay, for an address that [`relayed_address`] made.
pub fn client_of(address: SocketAddr) -> Option<(SocketAddr, u16)> {
    let SocketAddr::V6(address) = address else { return None };
    let relay = u16::try_from(address.scope_id() ^ RELAYED).ok()?;
    Some((SocketAddr::new(address.ip().to_canonical(), address.port()), relay))
}

/// Takes any bytes as a trunk datagram and, when they are one, writes them again: they must come
/// out the same but for the padding. For fuzzing.
pub fn fuzz(bytes: &[u8]) {
    let tags =
        TrunkTags::new(&crate::TrunkKey::from_bytes([7; 32]), None, crate::Direction::ToServer);
    let Ok((client, inner)) = decode(bytes, &tags) else { return };
    let pool = twinspan_core::packet::PacketPool::new(1);
    let Some(mut packet) = pool.take() else { return };
    let padded = bytes.len() - trailer_bytes(client);
    let filled = bytes.get(..inner).is_some_and(|inner| packet.fill(inner));
    assert!(filled && encode(&mut packet, client, padded, tags.present()));
    assert_eq!(packet.len(), bytes.len());
    assert_eq!(packet.get(..inner), bytes.get(..inner));
    assert_eq!(packet.get(padded..), bytes.get(padded..));
    assert_eq!(client_of(relayed_address(client, 3)), Some((client, 3)));
}

/// Bytes of the trailer that names `client`.
pub const fn trailer_bytes(client: SocketAddr) -> usize {
    match client {
        SocketAddr::V4(_) => TRAILER_V4_BYTES,
        SocketAddr::V6(_) => TRAILER_V6_BYTES,
    }
}

#[cfg(test)]
mod tests;
