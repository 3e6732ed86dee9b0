//! What floors are made of, measured by itself on one thread that never waits.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use twinspan_core::packet::DatagramBatch;
use twinspan_net::shm::{BareRing, End};
use twinspan_net::{BareSocket, TrainSocket, pin_to_core};

use super::{Plan, STREAM_BYTES, fan, udp};
use crate::error::BenchError;
use crate::hub::options::{HubOptions, HubRoad, HubWait, Mode};

/// Messages that are measured by themselves.
const CALLS_MEASURED: u32 = 4_000;
/// Full batches that are.
const BATCHES_MEASURED: u32 = 256;
/// Times that bytes are handed to another core and back.
const HANDED: u32 = 64;
/// How long what was sent to oneself may take to come.
const COMES_WITHIN: Duration = Duration::from_millis(5);

/// Nanoseconds that the system calls of one message take by themselves, of sending and of receiving.
/// `None` for floors that are more than their calls, and for memory, which has none.
pub(in crate::hub) fn calls_ns(
    options: &HubOptions,
    ip: IpAddr,
) -> Result<Option<f64>, BenchError> {
    let size = options.size;
    match (options.mode, options.road) {
        (Mode::Latency, HubRoad::Udp | HubRoad::Uring)
            if options.wait != HubWait::Async && size <= udp::DATAGRAM_BYTES_MAX =>
        {
            Ok(Some(datagram(size, ip)?))
        }
        // What does not fit the buffers of both ends would wait for itself.
        (Mode::Latency, HubRoad::Tcp) if options.wait != HubWait::Async && size <= STREAM_BYTES => {
            Ok(Some(stream(size, CALLS_MEASURED, ip)?))
        }
        (Mode::Throughput, HubRoad::Udp | HubRoad::Uring) if options.destinations > 1 => {
            datagrams_to_many(options, ip)
        }
        (Mode::Throughput, HubRoad::Udp | HubRoad::Uring) => trains(size, ip),
        (Mode::Throughput, HubRoad::Tcp) => {
            // Messages are what the bytes of full buffers come to.
            let buffer = stream(STREAM_BYTES, BATCHES_MEASURED, ip)?;
            Ok(Some(buffer * size as f64 / STREAM_BYTES as f64))
        }
        _ => Ok(None),
    }
}

/// Nanoseconds that the bytes of one message take from the core that wrote them to the one that reads them,
/// which calls on one thread do not show. `None` where no floor of sockets is measured for throughput.
pub(in crate::hub) fn memory_ns(plan: &Plan) -> Result<Option<f64>, BenchError> {
    let options = &plan.options;
    if options.mode != Mode::Throughput || matches!(options.road, HubRoad::Shm | HubRoad::Quic) {
        return Ok(None);
    }
    let name = format!("{}/parts", plan.name);
    let per_byte = thread::scope(|scope| {
        let answer = || -> Result<(), BenchError> {
            plan.core.map_or(Ok(()), pin_to_core)?;
            let mut ring = BareRing::meet(&name, End::Second, STREAM_BYTES)?;
            let mut room = vec![0; STREAM_BYTES];
            for _ in 0..HANDED {
                while !ring.try_grasp(&mut room) {
                    std::hint::spin_loop();
                }
                ring.hand(&room);
            }
            Ok(())
        };
        let other = scope.spawn(answer);
        let mut ring = BareRing::meet(&name, End::First, STREAM_BYTES)?;
        let (message, mut room) = (vec![7; STREAM_BYTES], vec![0; STREAM_BYTES]);
        let per_byte = median_ns(HANDED, || {
            ring.hand(&message);
            loop {
                // Its last answer is there when it has ended well.
                let is_over = other.is_finished();
                if ring.try_grasp(&mut room) {
                    return Ok(2 * STREAM_BYTES as u64);
                }
                if is_over {
                    return Ok(0);
                }
                std::hint::spin_loop();
            }
        });
        other.join().map_err(|_| BenchError::Ended { name: "parts" })??;
        per_byte
    })?;
    Ok(per_byte.map(|cost| cost * options.size as f64))
}

/// The median cost of doing something so often, in nanoseconds for each part that it says it did.
fn median_ns(
    times: u32,
    mut work: impl FnMut() -> Result<u64, BenchError>,
) -> Result<Option<f64>, BenchError> {
    let mut costs = Vec::with_capacity(times as usize);
    for _ in 0..times {
        let began = Instant::now();
        let parts = work()?;
        let took = began.elapsed();
        if parts > 0 {
            costs.push(took.as_nanos() as f64 / parts as f64);
        }
    }
    costs.sort_by(f64::total_cmp);
    Ok(costs.get(costs.len() / 2).copied())
}

/// A message to oneself in one datagram.
fn datagram(size: usize, ip: IpAddr) -> Result<f64, BenchError> {
    let (message, mut room) = (vec![7; size], vec![0; size]);
    let socket = UdpSocket::bind((ip, 0))?;
    socket.connect(socket.local_addr()?)?;
    let cost = median_ns(CALLS_MEASURED, || {
        socket.send(&message)?;
        socket.recv(&mut room)?;
        Ok(1)
    })?;
    Ok(cost.unwrap_or_default())
}

/// Bytes to oneself by a stream.
fn stream(size: usize, times: u32, ip: IpAddr) -> Result<f64, BenchError> {
    let (message, mut room) = (vec![7; size], vec![0; size]);
    let listener = TcpListener::bind((ip, 0))?;
    let mut there = TcpStream::connect(listener.local_addr()?)?;
    let (mut here, _) = listener.accept()?;
    there.set_nodelay(true)?;
    let cost = median_ns(times, || {
        there.write_all(&message)?;
        here.read_exact(&mut room)?;
        Ok(1)
    })?;
    Ok(cost.unwrap_or_default())
}

/// Full trains to another socket of this thread: what their bytes cost a message of this size.
fn trains(size: usize, ip: IpAddr) -> Result<Option<f64>, BenchError> {
    let bind = || TrainSocket::bind((ip, 0).into(), &udp::train_options());
    let (mut there, mut here) = (bind()?, bind()?);
    let (to, message) = (here.local_addr(), vec![7; size]);
    let per_byte = median_ns(BATCHES_MEASURED, || {
        let mut left = udp::fill(&mut there, to, &message);
        let began = Instant::now();
        there.send()?;
        let mut came = 0;
        while left > 0 && began.elapsed() < COMES_WITHIN {
            here.receive()?;
            while let Some((_, datagram)) = here.take_next() {
                came += datagram.len() as u64;
                left = left.saturating_sub(1);
            }
        }
        Ok(came)
    })?;
    Ok(per_byte.map(|cost| cost * size as f64))
}

/// A full batch of datagrams, each to another socket of this thread.
fn datagrams_to_many(options: &HubOptions, ip: IpAddr) -> Result<Option<f64>, BenchError> {
    let bind = || BareSocket::bind((ip, 0).into(), &fan::socket_options());
    let mut there = bind()?;
    let here = (0..options.destinations).map(|_| bind());
    let mut here: Vec<BareSocket> = here.collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = here.iter().map(BareSocket::local_addr).collect();
    let (message, mut next) = (vec![7; options.size], addresses.iter().cycle());
    let [mut out, mut back] = [(); 2].map(|()| DatagramBatch::new(fan::BATCH_DATAGRAMS));
    median_ns(BATCHES_MEASURED, || {
        fan::fill(&mut out, &there, &mut next, &message);
        let wanted = out.len();
        there.send(&mut out).map_err(io::Error::other)?;
        let (mut came, began) = (0, Instant::now());
        while came < wanted && began.elapsed() < COMES_WITHIN {
            for socket in &mut here {
                came += socket.recv(&mut back).map_err(io::Error::other)?;
                back.clear();
            }
        }
        Ok(came as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::options::Touch;

    fn options(road: HubRoad, mode: Mode) -> HubOptions {
        HubOptions {
            road,
            reliable: false,
            best_effort: false,
            loss: 0.0,
            seal: None,
            mode,
            size: 64,
            wait: HubWait::Spin,
            gap: Duration::ZERO,
            batch: 1,
            guard: false,
            loan: false,
            touch: Touch::All,
            destinations: 0,
            netns: false,
            time: Duration::from_millis(100),
        }
    }

    #[test]
    fn what_is_made_of_calls_alone_has_parts() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let cost = |road, mode| calls_ns(&options(road, mode), here).unwrap();
        for road in [HubRoad::Udp, HubRoad::Uring, HubRoad::Tcp] {
            assert!(cost(road, Mode::Latency) > Some(0.0));
            assert!(cost(road, Mode::Throughput) > Some(0.0));
        }
        let fan = HubOptions { destinations: 4, ..options(HubRoad::Udp, Mode::Throughput) };
        assert!(calls_ns(&fan, here).unwrap() > Some(0.0));
        assert_eq!(cost(HubRoad::Quic, Mode::Throughput), None);
        assert_eq!(cost(HubRoad::Shm, Mode::Throughput), None);
        assert_eq!(cost(HubRoad::Udp, Mode::Idle), None);
    }
}
