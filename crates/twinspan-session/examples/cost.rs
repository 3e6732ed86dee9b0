//! Prints what taking a packet and making one cost at several numbers of sessions: with many, each
//! packet finds its session outside the caches.
//!
//! `cargo run --release -p twinspan-session --example cost -- 10000`: three packets to the server for
//! each that it makes, as in a game.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that measures")]

use std::time::{Duration, Instant};

use twinspan_core::packet::PacketBuf;
use twinspan_reliable::{Channel, Delivery, StreamId};
use twinspan_session::{Addressed, ClientSession, SessionConfig, SessionKey};

#[path = "../tests/farm/mod.rs"]
mod farm;

use farm::{Farm, address, resident_bytes};

const INPUT: Channel = Channel::new(Delivery::Unreliable, StreamId::INPUT);
const STATE: Channel = Channel::new(Delivery::Unreliable, StreamId::STATE);
const ROUNDS: u64 = 36;
/// Rounds before the first that counts: they grow tables.
const ROUNDS_BEFORE: u64 = 6;
/// Packets to the server for each that it makes.
const UP_PER_DOWN: u64 = 3;
/// How many packets before its turn a session's key is wished for.
const AHEAD: usize = 6;
const BATCH: usize = 64;

fn main() {
    let sessions = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    let sessions: Vec<u64> = sessions.collect();
    let all = if sessions.is_empty() { vec![100, 1_000, 10_000] } else { sessions };
    for count in all {
        measure(count);
    }
}

fn measure(count: u64) {
    let config = SessionConfig { sessions_max: 1 << 17, ..SessionConfig::default() };
    let mut farm = Farm::new(config);
    let mut clients: Vec<ClientSession> = (0..count).map(|index| farm.connect(index)).collect();
    let keys: Vec<SessionKey> = farm.endpoint.sessions().collect();
    farm.pass(Duration::from_secs(1));
    let resident = resident_bytes() / count as usize;
    let (mut open, mut seal) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        farm.now = farm.now.after(Duration::from_millis(16));
        let up = take(&mut farm, &mut clients);
        let mut down = Duration::ZERO;
        if round % UP_PER_DOWN == 0 {
            let made = make(&mut farm, &keys);
            down = hand_out(&mut farm, &mut clients, made);
        }
        if round >= ROUNDS_BEFORE {
            open += up;
            seal += down;
        }
    }
    let rounds = ROUNDS - ROUNDS_BEFORE;
    let each = |time: Duration, rounds: u64| time.as_nanos() / u128::from(rounds * count);
    let bytes = resident_bytes() / count as usize;
    println!(
        "{count} sessions: open {} ns, seal {} ns; {resident} B idle, {bytes} B active, \
         clients included",
        each(open, rounds),
        each(seal, rounds / UP_PER_DOWN)
    );
}

/// Every client sends an input; how long the server took over all of them. They come 64 at a time, as
/// from a kernel that has just copied them.
fn take(farm: &mut Farm, clients: &mut [ClientSession]) -> Duration {
    let mut packets: Vec<(u64, Vec<u8>)> = Vec::with_capacity(BATCH);
    let (mut time, mut from) = (Duration::ZERO, 0);
    for batch in clients.chunks_mut(BATCH) {
        packets.clear();
        for (index, client) in (from..).zip(batch) {
            let mut packet = farm.pool.take().unwrap();
            let written =
                client.write_packet(farm.now, INPUT, 0, &mut packet, &mut |out| out.put(&[7; 48]));
            written.unwrap();
            packets.push((index, packet.to_vec()));
        }
        from += packets.len() as u64;
        let began = Instant::now();
        for index in 0..packets.len() {
            let named = |ahead: usize| {
                packets.get(index + ahead).and_then(|(_, packet)| farm.endpoint.addressed(packet))
            };
            if let Some(Addressed { session, .. }) = named(2 * AHEAD) {
                farm.endpoint.prefetch(session);
            }
            if let Some(addressed) = named(AHEAD) {
                farm.endpoint.prefetch_to_open(addressed);
            }
            if let Some(Addressed { session, .. }) = named(AHEAD / 2).filter(|named| named.acks) {
                farm.endpoint.prefetch_records(session);
            }
            let (client, packet) = &mut packets[index];
            farm.endpoint.handle_datagram(farm.now, address(*client), packet, &mut |_| {});
        }
        time += began.elapsed();
    }
    time
}

/// The server makes a state for everybody.
fn make(farm: &mut Farm, keys: &[SessionKey]) -> (Duration, Vec<Vec<u8>>) {
    let mut packets = Vec::with_capacity(keys.len());
    let mut packet: PacketBuf = farm.pool.take().unwrap();
    let mut time = Duration::ZERO;
    for chunk in keys.chunks(BATCH) {
        let began = Instant::now();
        for (index, key) in chunk.iter().enumerate() {
            if let Some(session) = chunk.get(index + 2 * AHEAD) {
                farm.endpoint.prefetch(*session);
            }
            if let Some(session) = chunk.get(index + AHEAD) {
                farm.endpoint.prefetch_to_seal(*session);
            }
            if let Some(session) = chunk.get(index + AHEAD / 2) {
                farm.endpoint.prefetch_records(*session);
            }
            farm.endpoint
                .write_packet(farm.now, *key, STATE, 1, &mut packet, &mut |out| out.put(&[7; 260]))
                .unwrap();
            packets.push(packet.to_vec());
        }
        time += began.elapsed();
    }
    (time, packets)
}

fn hand_out(
    farm: &mut Farm,
    clients: &mut [ClientSession],
    (time, packets): (Duration, Vec<Vec<u8>>),
) -> Duration {
    for (client, mut packet) in clients.iter_mut().zip(packets) {
        client.handle_datagram(farm.now, &mut packet, &mut |_| {});
    }
    time
}
