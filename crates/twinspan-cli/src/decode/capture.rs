//! Packet captures: the datagrams in them, SOCKS5 relays seen through.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use etherparse::{EtherType, NetSlice, SlicedPacket, TransportSlice};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, PcapHeader, create_reader};

use super::DecodeError;

/// The longest block of a capture that is read.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Interfaces of a section that are remembered.
const INTERFACES_MAX: usize = 1_024;
/// SOCKS5 associations that are remembered.
const ASSOCIATIONS_MAX: usize = 1_024;

/// What is said of a file that was not written to its end.
const CUT: &str = "it ends within a packet";

/// One datagram.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Datagram<'a> {
    /// Which packet of the file, from 1.
    pub(super) number: u64,
    /// Seconds since 1970.
    pub(super) time: f64,
    pub(super) from: String,
    pub(super) to: String,
    /// Both ports.
    pub(super) ports: [u16; 2],
    /// Whether a SOCKS5 relay carried it.
    pub(super) relayed: bool,
    pub(super) payload: &'a [u8],
}

/// What in a file is no datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) tcp: u64,
    /// Other protocols, fragments, packets that were cut, links that are not known.
    pub(super) others: u64,
}

/// Hands every datagram of a file to `sink`.
pub(super) fn read(
    path: &Path,
    sink: &mut dyn FnMut(Datagram<'_>) -> Result<(), DecodeError>,
) -> Result<Skipped, DecodeError> {
    let name = || path.display().to_string();
    let failed = |source| DecodeError::Open { file: name(), source };
    let file = File::open(path).map_err(failed)?;
    walk(file, sink).map_err(|error| match error {
        WalkError::Format(what) => DecodeError::Format { file: name(), what },
        WalkError::Read => failed(io::ErrorKind::UnexpectedEof.into()),
        WalkError::Sink(error) => error,
    })
}

/// All datagrams of a capture: time, from, to, payload.
#[cfg(test)]
pub(crate) fn datagrams_of(bytes: Vec<u8>) -> Vec<(f64, String, String, Vec<u8>)> {
    let mut found = Vec::new();
    let walked = walk(io::Cursor::new(bytes), &mut |datagram| {
        let Datagram { time, from, to, payload, .. } = datagram;
        found.push((time, from, to, payload.to_vec()));
        Ok(())
    });
    assert!(walked.is_ok(), "the capture is read to its end");
    found
}

enum WalkError {
    Format(&'static str),
    Read,
    Sink(DecodeError),
}

fn walk(
    file: impl Read + Send + 'static,
    sink: &mut dyn FnMut(Datagram<'_>) -> Result<(), DecodeError>,
) -> Result<Skipped, WalkError> {
    let neither = |_| WalkError::Format("neither pcap nor pcapng");
    let mut reader = create_reader(BLOCK_BYTES_MAX, file).map_err(neither)?;
    let mut state = State::default();
    loop {
        let consumed = match reader.next() {
            Ok((consumed, block)) => {
                if let Some((time, link, data)) = state.block(block)? {
                    state.packet(time, link, data, sink).map_err(WalkError::Sink)?;
                }
                Some(consumed)
            }
            Err(PcapError::Eof) => return Ok(state.skipped),
            Err(PcapError::Incomplete(_)) => None,
            Err(PcapError::UnexpectedEof) => return Err(WalkError::Format(CUT)),
            Err(PcapError::BufferTooSmall) => {
                return Err(WalkError::Format("a packet of more than 1 MiB"));
            }
            Err(PcapError::ReadError) => return Err(WalkError::Read),
            Err(_) => return Err(WalkError::Format("a block that cannot be read")),
        };
        match consumed {
            Some(consumed) => reader.consume(consumed),
            None if reader.reader_exhausted() => return Err(WalkError::Format(CUT)),
            None => reader.refill().map_err(|_| WalkError::Read)?,
        }
    }
}

/// Time, link and bytes of a packet.
type Captured<'a> = (f64, Linktype, &'a [u8]);

#[derive(Default)]
struct State {
    number: u64,
    skipped: Skipped,
    /// Link, and seconds of a unit and of the beginning of its clock, of each interface.
    interfaces: Vec<(Linktype, f64, f64)>,
    associations: Associations,
}

impl State {
    /// A packet's time, link and bytes, if the block is one.
    fn block<'a>(&mut self, block: PcapBlockOwned<'a>) -> Result<Option<Captured<'a>>, WalkError> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.interfaces = vec![(header.network, unit(&header), 0.0)];
            }
            PcapBlockOwned::Legacy(packet) => {
                let (link, unit, _) = self.interface(0)?;
                let time = f64::from(packet.ts_sec) + f64::from(packet.ts_usec) * unit;
                return Ok(Some((time, link, packet.data)));
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => self.interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(one)) => {
                if self.interfaces.len() == INTERFACES_MAX {
                    return Err(WalkError::Format("more than 1,024 interfaces"));
                }
                let units = one.ts_resolution().filter(|units| *units > 0).unwrap_or(1_000_000);
                let (unit, begin) = (1.0 / units as f64, one.ts_offset() as f64);
                self.interfaces.push((one.linktype, unit, begin));
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let (link, unit, begin) = self.interface(packet.if_id as usize)?;
                let units = (u64::from(packet.ts_high) << 32) | u64::from(packet.ts_low);
                let data = captured(packet.data, packet.caplen);
                return Ok(Some((begin + units as f64 * unit, link, data)));
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let (link, ..) = self.interface(0)?;
                return Ok(Some((0.0, link, captured(packet.data, packet.origlen))));
            }
            PcapBlockOwned::NG(_) => {}
        }
        Ok(None)
    }

    fn interface(&self, index: usize) -> Result<(Linktype, f64, f64), WalkError> {
        let unknown = WalkError::Format("a packet of an interface that is not described");
        self.interfaces.get(index).copied().ok_or(unknown)
    }

    /// Takes a packet apart.
    fn packet(
        &mut self,
        time: f64,
        link: Linktype,
        data: &[u8],
        sink: &mut dyn FnMut(Datagram<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.number += 1;
        let Some(packet) = sliced(link, data) else {
            self.skipped.others += 1;
            return Ok(());
        };
        let addresses: Option<(IpAddr, IpAddr)> = match &packet.net {
            Some(NetSlice::Ipv4(ip)) if !ip.is_payload_fragmented() => {
                let header = ip.header();
                Some((header.source_addr().into(), header.destination_addr().into()))
            }
            Some(NetSlice::Ipv6(ip)) if !ip.is_payload_fragmented() => {
                let header = ip.header();
                Some((header.source_addr().into(), header.destination_addr().into()))
            }
            _ => None,
        };
        match (addresses, &packet.transport) {
            (Some((from, to)), Some(TransportSlice::Udp(udp))) => {
                let from = SocketAddr::new(from, udp.source_port());
                let to = SocketAddr::new(to, udp.destination_port());
                match self.associations.datagram(from, to, udp.payload()) {
                    Some((ends, relayed, payload)) => {
                        let [from, to] = ends;
                        let ports = [from.1, to.1];
                        let (from, to) = (from.0, to.0);
                        let number = self.number;
                        sink(Datagram { number, time, from, to, ports, relayed, payload })?;
                    }
                    None => self.skipped.others += 1,
                }
            }
            (Some((from, to)), Some(TransportSlice::Tcp(tcp))) => {
                let from = SocketAddr::new(from, tcp.source_port());
                let to = SocketAddr::new(to, tcp.destination_port());
                self.associations.segment(from, to, tcp.payload());
                self.skipped.tcp += 1;
            }
            _ => self.skipped.others += 1,
        }
        Ok(())
    }
}

/// A packet without the padding of its block.
fn captured(data: &[u8], len: u32) -> &[u8] {
    data.get(..len as usize).unwrap_or(data)
}

/// Seconds of a unit of the second half of a time.
fn unit(header: &PcapHeader) -> f64 {
    if header.is_nanosecond_precision() { 1e-9 } else { 1e-6 }
}

/// Bytes of the head that a packet of "any device" has in the newer form of that.
const SLL2_BYTES: usize = 20;

/// Takes the layers of a packet apart; `None` when it is cut, or its link is not known.
fn sliced(link: Linktype, data: &[u8]) -> Option<SlicedPacket<'_>> {
    match link {
        Linktype::ETHERNET => SlicedPacket::from_ethernet(data).ok(),
        Linktype::LINUX_SLL => SlicedPacket::from_linux_sll(data).ok(),
        Linktype::LINUX_SLL2 => {
            // What it carries stands first; the rest says which device it was, and whose.
            let (head, rest) = data.split_at_checked(SLL2_BYTES)?;
            let carries = EtherType(u16::from_be_bytes(*head.first_chunk()?));
            SlicedPacket::from_ether_type(carries, rest).ok()
        }
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => SlicedPacket::from_ip(data).ok(),
        // A loopback: four bytes of a protocol family, in the order of the machine.
        Linktype::NULL | Linktype::LOOP => SlicedPacket::from_ip(data.get(4..)?).ok(),
        _ => None,
    }
}

/// A name and a port.
type End = (String, u16);

/// The SOCKS5 relays that were seen to be asked for.
#[derive(Default)]
struct Associations {
    /// Client and proxy of each request.
    asked: BTreeSet<(SocketAddr, SocketAddr)>,
    relays: BTreeSet<SocketAddr>,
}

impl Associations {
    /// Looks for a request for a relay, and for the answer that names it.
    fn segment(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        match payload {
            [5, 3, 0, 1 | 3 | 4, ..] if self.asked.len() < ASSOCIATIONS_MAX => {
                self.asked.insert((from, to));
            }
            [5, 0, 0, rest @ ..] if self.asked.contains(&(to, from)) => {
                let Some(((host, port), [])) = address(rest) else { return };
                let Ok(host) = host.parse::<IpAddr>() else { return };
                // A proxy that names no address means its own.
                let host = if host.is_unspecified() { from.ip() } else { host };
                if self.relays.len() < ASSOCIATIONS_MAX {
                    self.relays.insert(SocketAddr::new(host, port));
                }
            }
            _ => {}
        }
    }

    /// A datagram's true ends and payload; `None` for a fragment or what a relay would not take.
    fn datagram<'a>(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &'a [u8],
    ) -> Option<([End; 2], bool, &'a [u8])> {
        let plain = |end: SocketAddr| (end.to_string(), end.port());
        let outward = self.relays.contains(&to);
        if !outward && !self.relays.contains(&from) {
            return Some(([plain(from), plain(to)], false, payload));
        }
        let [0, 0, 0, framed @ ..] = payload else { return None };
        let ((host, port), payload) = address(framed)?;
        let shown =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let far = (shown, port);
        let ends = if outward { [plain(from), far] } else { [far, plain(to)] };
        Some((ends, true, payload))
    }
}

/// The address at the front, as SOCKS5 writes one, and what follows it.
fn address(bytes: &[u8]) -> Option<(End, &[u8])> {
    let (host, rest) = match bytes {
        [1, rest @ ..] => {
            let (host, rest) = rest.split_first_chunk::<4>()?;
            (IpAddr::from(*host).to_string(), rest)
        }
        [4, rest @ ..] => {
            let (host, rest) = rest.split_first_chunk::<16>()?;
            (IpAddr::from(*host).to_string(), rest)
        }
        [3, len, rest @ ..] => {
            let (host, rest) = rest.split_at_checked(usize::from(*len))?;
            (String::from_utf8_lossy(host).into_owned(), rest)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some(((host, u16::from_be_bytes(*port)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_relay_is_known_by_its_association() {
        let mut seen = Associations::default();
        let (client, proxy) = (end("10.0.0.2:5000"), end("10.0.0.1:1080"));
        let (local, relay) = (end("10.0.0.2:6000"), end("10.0.0.1:7000"));
        let framed = [&[0, 0, 0, 1, 192, 0, 2, 1, 0x23, 0x28][..], b"packet"].concat();
        // Before the association it is a datagram like any other.
        let before = seen.datagram(local, relay, &framed).unwrap();
        assert!(!before.1 && before.2 == framed);
        // An answer that nobody asked for is none.
        seen.segment(proxy, client, &[5, 0, 0, 1, 0, 0, 0, 0, 0x1B, 0x58]);
        assert!(seen.relays.is_empty());
        seen.segment(client, proxy, &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]);
        seen.segment(proxy, client, &[5, 0, 0, 1, 0, 0, 0, 0, 0x1B, 0x58]);
        let (ends, relayed, payload) = seen.datagram(local, relay, &framed).unwrap();
        assert_eq!(ends[1], ("192.0.2.1:9000".to_owned(), 9_000));
        assert!(relayed && payload == b"packet");
        let (ends, ..) = seen.datagram(relay, local, &framed).unwrap();
        assert_eq!(ends[0].1, 9_000);
        // Fragments are not put together.
        assert_eq!(seen.datagram(local, relay, &[0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 7]), None);
        assert_eq!(seen.datagram(local, relay, &[0, 0]), None);
    }

    #[test]
    fn addresses_have_three_forms() {
        let name = [&[3, 3][..], b"sim", &[0, 80, 9]].concat();
        assert_eq!(address(&name), Some((("sim".to_owned(), 80), &[9][..])));
        let six = [&[4][..], &[0; 15], &[1, 0, 80]].concat();
        assert_eq!(address(&six), Some((("::1".to_owned(), 80), &[][..])));
        assert_eq!(address(&[3, 200, 1]), None);
        assert_eq!(address(&[2]), None);
    }

    #[test]
    fn what_is_no_capture_is_named() {
        for (bytes, what) in [(&b""[..], "neither"), (b"neither of the two", "neither")] {
            match walk(bytes, &mut |_| Ok(())) {
                Err(WalkError::Format(found)) => assert!(found.contains(what), "{found}"),
                Err(WalkError::Read) => assert!(bytes.is_empty()),
                _ => panic!("{bytes:?} was read"),
            }
        }
    }
}
