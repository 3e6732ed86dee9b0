//! Captures of simulated datagrams that network tools open: pcapng, IP packets, nanoseconds.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;

/// Block types.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// By which readers learn the order of bytes.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Packets begin with their IP header.
const LINK_RAW: u16 = 101;
/// Times count nanoseconds: ten to minus nine.
const TIME_RESOLUTION: [u8; 1] = [9];
/// Options.
const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const HOPS: u8 = 64;

/// Writes one capture.
pub(super) struct Capture<W> {
    out: W,
    packet: Vec<u8>,
    block: Vec<u8>,
}

/// One datagram of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Captured<'a> {
    /// Nanoseconds since 1970.
    pub(super) unix_nanos: u64,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) payload: &'a [u8],
    /// What became of it, when that was not to arrive.
    pub(super) comment: Option<&'a str>,
}

impl<W: Write> Capture<W> {
    /// Begins a capture of one interface.
    pub(super) fn new(mut out: W, interface: &str) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0; how long the section is does not matter.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        write_block(&mut out, SECTION, &body)?;
        body.clear();
        body.extend(LINK_RAW.to_le_bytes());
        body.extend([0, 0]);
        // No limit on the length of packets.
        body.extend(0_u32.to_le_bytes());
        option(&mut body, OPTION_NAME, interface.as_bytes());
        option(&mut body, OPTION_RESOLUTION, &TIME_RESOLUTION);
        option(&mut body, OPTION_END, &[]);
        write_block(&mut out, INTERFACE, &body)?;
        Ok(Self { out, packet: Vec::new(), block: Vec::new() })
    }

    /// Adds a datagram. Between two families of addresses there is none.
    pub(super) fn add(&mut self, datagram: Captured<'_>) -> io::Result<()> {
        let Captured { unix_nanos, from, to, payload, comment } = datagram;
        let builder = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), HOPS)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), HOPS)
            }
            _ => return Ok(()),
        };
        self.packet.clear();
        builder
            .udp(from.port(), to.port())
            .write(&mut self.packet, payload)
            .map_err(io::Error::other)?;
        let body = &mut self.block;
        body.clear();
        body.extend(0_u32.to_le_bytes());
        // The upper half comes first.
        body.extend(((unix_nanos >> 32) as u32).to_le_bytes());
        body.extend((unix_nanos as u32).to_le_bytes());
        // A datagram fits 16 bits.
        let length = (self.packet.len() as u32).to_le_bytes();
        body.extend(length);
        body.extend(length);
        body.extend(&self.packet);
        pad(body);
        if let Some(comment) = comment {
            option(body, OPTION_COMMENT, comment.as_bytes());
            option(body, OPTION_END, &[]);
        }
        write_block(&mut self.out, PACKET, body)
    }

    /// Writes what is left.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..value.len().min(usize::from(u16::MAX))).unwrap_or_default();
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

/// A block: its type, its length, its body, its length again.
fn write_block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_has_these_bytes() {
        let mut bytes = Vec::new();
        let mut capture = Capture::new(&mut bytes, "sim").unwrap();
        let from = "10.0.0.1:7000".parse().unwrap();
        let to = "10.0.0.2:5000".parse().unwrap();
        let comment = Some("lost");
        let datagram =
            Captured { unix_nanos: 0x0001_0000_0002, from, to, payload: b"hello", comment };
        capture.add(datagram).unwrap();
        let other = "[::1]:1".parse().unwrap();
        capture.add(Captured { to: other, ..datagram }).unwrap();
        capture.end().unwrap();
        let words: Vec<_> =
            bytes.chunks(4).map(|word| <[u8; 4]>::try_from(word).unwrap()).collect();
        let word = |index: usize| u32::from_le_bytes(words[index]);
        // Section: 28 bytes; interface: 20 bytes and three options.
        assert_eq!((word(0), word(1), word(2), word(6)), (SECTION, 28, BYTE_ORDER, 28));
        assert_eq!((word(7), word(8), word(9)), (INTERFACE, 40, u32::from(LINK_RAW)));
        assert_eq!((word(17), word(18)), (PACKET, 12 + 20 + 36 + 12));
        assert_eq!((word(19), word(20), word(21)), (0, 1, 2), "interface, and time by halves");
        assert_eq!((word(22), word(23)), (33, 33), "20 of IP, 8 of UDP, 5 of payload");
        assert_eq!(words[24][0], 0x45);
        assert_eq!(&bytes[31 * 4..31 * 4 + 5], b"hello");
        assert_eq!(word(33), u32::from(OPTION_COMMENT) | 4 << 16);
        assert_eq!(&words[34], b"lost");
        assert_eq!(words.len(), 37, "nothing between two families");
    }

    #[test]
    fn our_own_reader_finds_the_datagram() {
        use crate::decode::datagrams_of;

        let mut bytes = Vec::new();
        let mut capture = Capture::new(&mut bytes, "sim").unwrap();
        let from = "[fd00::1]:7000".parse().unwrap();
        let to = "[fd00::2]:5000".parse().unwrap();
        let payload = &[7; 900][..];
        let datagram =
            Captured { unix_nanos: 1_767_225_600_500_000_000, from, to, payload, comment: None };
        capture.add(datagram).unwrap();
        capture.end().unwrap();
        let found = datagrams_of(bytes);
        assert_eq!(found.len(), 1);
        let (time, from, to, payload) = &found[0];
        assert!((time - 1_767_225_600.5).abs() < 1e-6);
        assert_eq!((from.as_str(), to.as_str()), ("[fd00::1]:7000", "[fd00::2]:5000"));
        assert_eq!(payload, &[7; 900]);
    }
}
