//! The fourteen bytes before everything sealed.

use crate::stats::DropCause;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 14;
/// Where the flags are in a header.
pub(crate) const FLAGS_AT: usize = 5;
/// Bytes of the longest packet that every path carries: handshakes and the start of a session.
pub const PACKET_BYTES_MAX: usize = 1_200;
/// Bytes of the longest packet on a path that was found to carry it: an Ethernet frame's payload
/// less IPv6, UDP and what tunnels add.
pub const PACKET_BYTES_LIMIT: usize = 1_452;
/// Bytes of the shortest sealed packet: a header and a tag.
pub(crate) const SEALED_BYTES_MIN: usize = HEADER_BYTES + twinspan_core::aead::TAG_BYTES;

/// Bits of the flags byte, session 1.3.
pub(crate) mod flag {
    /// Handshake form.
    pub(crate) const LONG: u8 = 0x01;
    /// Key phase.
    pub(crate) const PHASE: u8 = 0x02;
    /// An ack block comes first.
    pub(crate) const ACK: u8 = 0x04;
    /// The single frame is a fragment.
    pub(crate) const FRAG: u8 = 0x08;
    /// Several frames.
    pub(crate) const BUNDLE: u8 = 0x10;
    /// Compressed bulk.
    pub(crate) const LZ4: u8 = 0x20;
    /// The receiver shall ack at once.
    pub(crate) const PROBE: u8 = 0x40;
    /// Not given a meaning yet.
    pub(crate) const RESERVED: u8 = 0x80;
    /// What version 1 neither sends nor takes.
    pub(crate) const LATER: u8 = LZ4 | RESERVED;
}

/// The header of a sealed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The id that the receiver chose.
    pub(crate) connection: u32,
    /// The channel byte of a single frame, or 0.
    pub(crate) channel: u8,
    /// See [`flag`].
    pub(crate) flags: u8,
    /// The packet number.
    pub(crate) number: u64,
}

/// A datagram by its form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Connection id 0 and LONG: a handshake message of this kind.
    Handshake {
        /// The kind byte.
        kind: u8,
    },
    /// A sealed packet.
    Sealed(Header),
}

impl Header {
    /// The bytes on the wire.
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [c0, c1, c2, c3] = self.connection.to_le_bytes();
        let [n0, n1, n2, n3, n4, n5, n6, n7] = self.number.to_le_bytes();
        [c0, c1, c2, c3, self.channel, self.flags, n0, n1, n2, n3, n4, n5, n6, n7]
    }
}

/// The bytes that begin a handshake message of `kind`, session 3.2.
pub(crate) const fn long_header(kind: u8) -> [u8; HEADER_BYTES] {
    [0, 0, 0, 0, kind, flag::LONG, LAYOUT, 0, 0, 0, 0, 0, 0, 0]
}

/// The layout of handshake messages that version 1 knows.
const LAYOUT: u8 = 1;

/// Sorts a datagram by its header, session 1.2, 1.3, 3.2.
pub(crate) fn parse(bytes: &[u8]) -> Result<Form, DropCause> {
    let Some((head, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(DropCause::Short);
    };
    if bytes.len() > PACKET_BYTES_LIMIT {
        return Err(DropCause::TooLong);
    }
    let [c0, c1, c2, c3, channel, flags, n0, n1, n2, n3, n4, n5, n6, n7] = *head;
    let connection = u32::from_le_bytes([c0, c1, c2, c3]);
    if connection == 0 || flags & flag::LONG != 0 {
        if *head != long_header(channel) {
            return Err(DropCause::BadLongForm);
        }
        return Ok(Form::Handshake { kind: channel });
    }
    if bytes.len() < SEALED_BYTES_MIN {
        return Err(DropCause::Short);
    }
    if flags & flag::LATER != 0 {
        return Err(DropCause::UnsupportedFlag);
    }
    let bundle = flags & flag::BUNDLE != 0;
    if bundle && (flags & flag::FRAG != 0 || channel != 0) {
        return Err(DropCause::Malformed);
    }
    let number = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
    if number == 0 || number == u64::MAX {
        return Err(DropCause::Malformed);
    }
    Ok(Form::Sealed(Header { connection, channel, flags, number }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; 30] = [
        0x44, 0x33, 0x22, 0x11, 0x42, 0x44, 8, 7, 6, 5, 4, 3, 2, 1, // header
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // tag
    ];

    #[test]
    fn the_header_has_its_golden_bytes() {
        let header = Header {
            connection: 0x1122_3344,
            channel: 0x42,
            flags: flag::ACK | flag::PROBE,
            number: 0x0102_0304_0506_0708,
        };
        assert_eq!(header.to_bytes(), GOLDEN[..14]);
        assert_eq!(parse(&GOLDEN), Ok(Form::Sealed(header)));
    }

    #[test]
    fn flags_of_later_versions_are_dropped() {
        for later in [flag::LZ4, flag::RESERVED] {
            let mut bytes = GOLDEN;
            bytes[5] |= later;
            assert_eq!(parse(&bytes), Err(DropCause::UnsupportedFlag));
        }
    }

    #[test]
    fn the_long_form_and_id_0_go_together() {
        let mut long_with_id = GOLDEN;
        long_with_id[5] = flag::LONG;
        assert_eq!(parse(&long_with_id), Err(DropCause::BadLongForm));
        let mut zero_without_long = GOLDEN;
        zero_without_long[..4].fill(0);
        assert_eq!(parse(&zero_without_long), Err(DropCause::BadLongForm));
        assert_eq!(parse(&long_header(3)), Ok(Form::Handshake { kind: 3 }));
        let mut other_layout = long_header(3);
        other_layout[6] = 2;
        assert_eq!(parse(&other_layout), Err(DropCause::BadLongForm));
    }

    #[test]
    fn bundles_carry_no_channel_and_no_fragment_flag() {
        let mut bytes = GOLDEN;
        bytes[5] = flag::BUNDLE;
        assert_eq!(parse(&bytes), Err(DropCause::Malformed));
        bytes[4] = 0;
        assert!(parse(&bytes).is_ok());
        bytes[5] |= flag::FRAG;
        assert_eq!(parse(&bytes), Err(DropCause::Malformed));
    }

    #[test]
    fn packet_numbers_begin_at_1() {
        let mut bytes = GOLDEN;
        for number in [0, u64::MAX] {
            bytes[6..14].copy_from_slice(&number.to_le_bytes());
            assert_eq!(parse(&bytes), Err(DropCause::Malformed));
        }
    }

    #[test]
    fn lengths_outside_the_limits_are_named() {
        for len in 0..GOLDEN.len() {
            assert_eq!(parse(&GOLDEN[..len]), Err(DropCause::Short));
        }
        let mut long = vec![0; PACKET_BYTES_LIMIT + 1];
        long[..30].copy_from_slice(&GOLDEN);
        assert_eq!(parse(&long), Err(DropCause::TooLong));
    }
}
