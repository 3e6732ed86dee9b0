//! Control messages that come with a datagram, read byte by byte.

use std::mem;

use twinspan_core::packet::Ecn;

/// Bytes of a control message's header: its length, its level and its type.
const HEADER_BYTES: usize = mem::size_of::<libc::cmsghdr>();
/// Messages begin at multiples of this.
const ALIGN_BYTES: usize = mem::size_of::<usize>();
/// Messages that a receive call asks for at most: how long joined datagrams are, and marks.
const MESSAGES_MAX: usize = 2;
/// The most data that one of them has, an int.
const DATA_BYTES: usize = mem::size_of::<libc::c_int>();
/// Room for all of them.
pub(super) const ROOM_BYTES: usize =
    MESSAGES_MAX * (HEADER_BYTES + DATA_BYTES).next_multiple_of(ALIGN_BYTES);

/// Room that the kernel writes control messages to, aligned as their headers are.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Room(pub(super) [u8; ROOM_BYTES]);

const _: () = assert!(mem::align_of::<Room>() >= mem::align_of::<libc::cmsghdr>());

/// What control messages say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// How long the datagrams are that the kernel joined.
    pub(super) segment: Option<usize>,
    /// What the header says about congestion.
    pub(super) ecn: Ecn,
}

/// Reads the control messages in `bytes`, which the kernel has written.
pub(super) fn read(bytes: &[u8]) -> Said {
    let mut said = Said::default();
    let mut rest = bytes;
    while let Some((length, level, kind)) = header(rest) {
        let data = rest.get(HEADER_BYTES..length).unwrap_or_default();
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let bytes = data.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes));
                let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
                said.segment = bytes.filter(|bytes| *bytes > 0);
            }
            // One byte in IPv4, an int in IPv6.
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                said.ecn = data.first().map_or(Ecn::Incapable, |byte| Ecn::from_bits(*byte));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                let class = data.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes));
                said.ecn = class.map_or(Ecn::Incapable, |class| Ecn::from_bits(class as u8));
            }
            _ => {}
        }
        let Some(next) = rest.get(length.next_multiple_of(ALIGN_BYTES)..) else { break };
        rest = next;
    }
    said
}

/// Length, level and type of the first message, when it is there whole.
fn header(bytes: &[u8]) -> Option<(usize, libc::c_int, libc::c_int)> {
    let length = usize::from_ne_bytes(*bytes.first_chunk()?);
    let int = |at: usize| {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| libc::c_int::from_ne_bytes(*bytes))
    };
    let (level, kind) = (int(ALIGN_BYTES)?, int(ALIGN_BYTES + 4)?);
    (HEADER_BYTES..=bytes.len()).contains(&length).then_some((length, level, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel writes it, with the padding behind it.
    pub(crate) fn message(level: libc::c_int, kind: libc::c_int, data: &[u8]) -> Vec<u8> {
        let length = HEADER_BYTES + data.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(length.next_multiple_of(ALIGN_BYTES), 0xee);
        bytes
    }

    #[test]
    fn messages_are_read_in_any_order() {
        let joined = message(libc::SOL_UDP, libc::UDP_GRO, &1_200_i32.to_ne_bytes());
        let v4 = message(libc::IPPROTO_IP, libc::IP_TOS, &[0b1010_0011]);
        let v6 = message(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &2_i32.to_ne_bytes());
        let other = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMP, &[7; 16]);
        let segment = Some(1_200);
        for (bytes, ecn) in [
            ([joined.clone(), v4.clone()].concat(), Ecn::Congested),
            ([v4.clone(), joined.clone()].concat(), Ecn::Congested),
            ([v6, joined.clone()].concat(), Ecn::Capable),
            ([other, joined.clone()].concat(), Ecn::Incapable),
        ] {
            assert_eq!(read(&bytes), Said { segment, ecn });
        }
        assert!(joined.len() + v4.len() <= ROOM_BYTES);
        assert_eq!(read(&[]), Said::default());
    }

    #[test]
    fn what_is_no_message_says_nothing() {
        let whole = message(libc::SOL_UDP, libc::UDP_GRO, &9_i32.to_ne_bytes());
        for len in 0..HEADER_BYTES + 4 {
            assert_eq!(read(&whole[..len]), Said::default(), "{len} bytes");
        }
        for length in [0, 1, HEADER_BYTES - 1, usize::MAX, usize::MAX - 7] {
            let mut bytes = whole.clone();
            bytes[..ALIGN_BYTES].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(read(&bytes), Said::default(), "a length of {length}");
        }
        for joined in [0, -1] {
            let bytes = message(libc::SOL_UDP, libc::UDP_GRO, &i32::to_ne_bytes(joined));
            assert_eq!(read(&bytes).segment, None);
        }
    }
}
