//! The flood, a process of its own: HELLOs from many addresses that never answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_game::session_defaults;
use twinspan_net::BareSocket;
use twinspan_provider::{OsSecrets, UdpOptions};
use twinspan_session::{ClientSession, ConnectToken, CryptoSuite};

use crate::clock::Clock;
use crate::error::BenchError;
use crate::lines::Parent;
use crate::plan::{FloodPlan, FloodReport};

/// Addresses from which hellos come: a server cannot tell them from made-up ones, and what it sends
/// there is thrown away.
const SOURCES: usize = 256;
/// Hellos that leave in one call, as one run that the kernel splits before the server's queue.
const RUN: usize = 50;
/// What waits in a source's queue, unread.
const UNREAD_BYTES: usize = 4_096;
/// One burst after the other.
const BURST_INTERVAL: Duration = Duration::from_micros(500);
/// What is later than this is left out: made up for, it would be one great burst.
const BURST_LATE_MAX: Duration = Duration::from_millis(3);

/// Runs the flood as its parent says.
///
/// # Errors
/// [`BenchError`] when it cannot run or the parent is not to be understood.
pub fn run() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let plan: FloodPlan = parent.hear()?;
    plan.placement.apply()?;
    if !plan.server.ip().is_loopback() || plan.server.is_ipv6() {
        return Err(BenchError::Plan("a flood goes to an IPv4 loopback address alone".into()));
    }
    let mut hellos = Vec::new();
    for token in &plan.tokens {
        hellos.push(hello(token, plan.server)?);
    }
    let mut seed = [0; 8];
    OsSecrets.fill(&mut seed);
    let mut random = Stream::new(u64::from_le_bytes(seed), "flood", 0);
    let sources: Result<Vec<_>, _> = (0..SOURCES).map(|_| source(&mut random)).collect();
    let report = send(&plan, &mut sources?, &hellos)?;
    parent.tell(&report)
}

/// A socket at some address of the loopback network.
fn source(random: &mut Stream) -> Result<BareSocket, BenchError> {
    let [a, b, c, ..] = random.next_u64().to_le_bytes();
    let local = SocketAddr::from((Ipv4Addr::new(127, a, b, c | 1), 0));
    let options = UdpOptions {
        receive_buffer_bytes: UNREAD_BYTES,
        pool_packets: RUN,
        ..UdpOptions::default()
    };
    Ok(BareSocket::bind(local, &options)?)
}

fn send(
    plan: &FloodPlan,
    sources: &mut [BareSocket],
    hellos: &[Vec<u8>],
) -> Result<FloodReport, BenchError> {
    let clock = Clock::new(plan.epoch_nanos);
    let to = Timestamp::from_nanos(plan.window.to_nanos);
    let hello_bytes = hellos.first().map_or(0, Vec::len) as u64;
    let mut report = FloodReport { hello_bytes, ..FloodReport::default() };
    let mut burst = Timestamp::from_nanos(plan.window.from_nanos);
    clock.wait_until(burst);
    let per_burst = f64::from(plan.per_second) * BURST_INTERVAL.as_secs_f64();
    let (mut due, mut next) = (0.0, 0);
    let mut batch = DatagramBatch::new(RUN);
    while burst < to {
        due += per_burst;
        while due >= RUN as f64 {
            due -= RUN as f64;
            next += 1;
            let Some(source) = sources.get_mut(next % SOURCES) else { return Ok(report) };
            let pool = source.pool().clone();
            for hello in hellos.iter().cycle().skip(next * RUN % hellos.len().max(1)).take(RUN) {
                let Some(mut packet) = pool.take().filter(|_| batch.room() > 0) else { break };
                if packet.fill(hello) {
                    // There is room.
                    drop(batch.push(Datagram { peer: plan.server, at: burst, packet }));
                }
            }
            report.sent += source.send(&mut batch).map_err(std::io::Error::other)? as u64;
            report.unsent += batch.len() as u64;
            batch.clear();
        }
        burst = burst.after(BURST_INTERVAL);
        clock.wait_until(burst);
        let now = clock.now();
        if now.since(burst) > BURST_LATE_MAX {
            burst = now;
        }
    }
    Ok(report)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_many_loopback_addresses() {
        let mut random = Stream::new(1, "flood", 0);
        let first = source(&mut random).unwrap().local_addr();
        let second = source(&mut random).unwrap().local_addr();
        assert!(first.ip().is_loopback() && second.ip().is_loopback());
        assert_ne!(first.ip(), second.ip());
    }
}
