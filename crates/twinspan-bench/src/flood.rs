//! The flood, a process of its own: HELLOs from addresses that are not the sender's.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_game::session_defaults;
use twinspan_provider::OsSecrets;
use twinspan_session::{ClientSession, ConnectToken, CryptoSuite};

use crate::clock::Clock;
use crate::error::BenchError;
use crate::lines::Parent;
use crate::plan::{FloodPlan, FloodReport};

/// Bytes of the IPv4 and UDP headers.
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// Protocol number of UDP.
const UDP: u8 = 17;
/// One burst after the other.
const BURST_INTERVAL: Duration = Duration::from_micros(500);

/// Runs the flood as its parent says.
///
/// # Errors
/// [`BenchError`] when it cannot run, for lack of privilege among others, or the parent is not to be
/// understood.
pub fn run() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let plan: FloodPlan = parent.hear()?;
    plan.placement.apply()?;
    let SocketAddr::V4(server) = plan.server else {
        return Err(BenchError::Plan("a flood goes to IPv4 addresses alone".into()));
    };
    // A raw socket: the sender's addresses are made up.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(UDP))))?;
    socket.set_header_included_v4(true)?;
    let mut packets = Vec::new();
    for token in &plan.tokens {
        packets.push(packet(&hello(token, plan.server)?, server));
    }
    let report = send(&plan, &socket, &mut packets);
    parent.tell(&report)
}

fn send(plan: &FloodPlan, socket: &Socket, packets: &mut [Vec<u8>]) -> FloodReport {
    let mut seed = [0; 8];
    OsSecrets.fill(&mut seed);
    let mut random = Stream::new(u64::from_le_bytes(seed), "flood", 0);
    let clock = Clock::new(plan.epoch_nanos);
    let to = Timestamp::from_nanos(plan.window.to_nanos);
    let target = SockAddr::from(plan.server);
    let headers = IP_BYTES + UDP_BYTES;
    let hello_bytes = packets.first().map_or(0, |packet| packet.len() - headers) as u64;
    let mut report = FloodReport { hello_bytes, ..FloodReport::default() };
    let mut burst = Timestamp::from_nanos(plan.window.from_nanos);
    clock.wait_until(burst);
    let per_burst = f64::from(plan.per_second) * BURST_INTERVAL.as_secs_f64();
    let mut due = 0.0;
    let mut next = 0;
    while burst < to {
        due += per_burst;
        while due >= 1.0 {
            due -= 1.0;
            next = (next + 1) % packets.len().max(1);
            let Some(packet) = packets.get_mut(next) else { return report };
            disguise(packet, &mut random);
            match socket.send_to(packet, &target) {
                Ok(_) => report.sent += 1,
                Err(_) => report.unsent += 1,
            }
        }
        burst = burst.after(BURST_INTERVAL);
        clock.wait_until(burst);
    }
    report
}

/// The first HELLO of a client with this token.
fn hello(token: &str, server: SocketAddr) -> Result<Vec<u8>, BenchError> {
    let token = ConnectToken::from_text(token)?;
    let mut client = ClientSession::new(
        session_defaults(),
        Arc::new(CryptoSuite::detect()),
        &token,
        server,
        Box::new(OsSecrets),
        Stream::new(0, "flood", 0),
    )
    .map_err(|error| BenchError::Plan(error.to_string()))?;
    let (pool, mut out) = (PacketPool::new(1), DatagramBatch::new(1));
    client.poll_transmit(Timestamp::START, &pool, &mut out);
    Ok(out.pop().map(|datagram| datagram.packet.to_vec()).unwrap_or_default())
}

/// An IPv4 packet with a UDP datagram in it; its source is left to [`disguise`]. The kernel fills in
/// the length, the identification and the checksum of the IP header; a UDP checksum of zero says
/// that there is none.
fn packet(text: &[u8], server: SocketAddrV4) -> Vec<u8> {
    let udp_length = (UDP_BYTES + text.len()) as u16;
    let ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0];
    let mut bytes = ip.to_vec();
    bytes.extend(Ipv4Addr::LOCALHOST.octets());
    bytes.extend(server.ip().octets());
    bytes.extend(0_u16.to_be_bytes());
    bytes.extend(server.port().to_be_bytes());
    bytes.extend(udp_length.to_be_bytes());
    bytes.extend(0_u16.to_be_bytes());
    bytes.extend(text);
    bytes
}

/// Gives a packet another source: some address of the loopback network, some port.
fn disguise(packet: &mut [u8], random: &mut Stream) {
    let [a, b, c, p0, p1, ..] = random.next_u64().to_le_bytes();
    let source = [127, a, b, c | 1];
    let places = packet.iter_mut().skip(12);
    places.zip(source).for_each(|(place, byte)| *place = byte);
    let port = u16::from_le_bytes([p0, p1]).max(1_024).to_be_bytes();
    packet.iter_mut().skip(IP_BYTES).zip(port).for_each(|(place, byte)| *place = byte);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_goes_from_a_made_up_address_to_the_server() {
        let server = "127.0.0.1:7777".parse().unwrap();
        let mut bytes = packet(b"hello", server);
        disguise(&mut bytes, &mut Stream::new(1, "flood", 0));
        assert_eq!(bytes.len(), IP_BYTES + UDP_BYTES + 5);
        assert_eq!(bytes[9], UDP);
        assert_eq!(bytes[12], 127);
        assert_eq!(bytes[16..20], [127, 0, 0, 1]);
        assert_eq!(bytes[22..24], 7_777_u16.to_be_bytes());
        assert_eq!(bytes[24..26], [0, 13]);
        let before = bytes.clone();
        disguise(&mut bytes, &mut Stream::new(2, "flood", 0));
        assert_ne!(bytes, before);
    }
}
