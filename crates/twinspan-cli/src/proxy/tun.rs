//! Packets between two tun devices, which may stand in two network namespaces.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use twinspan_core::link::{Arrival, FaultCounters};
use twinspan_core::random::draw;
use twinspan_net::{TUN_PACKET_BYTES_MAX, Tun};

use super::config::Cable;
use super::link::{Clock, SharedLink, Waiting};

/// Packets that wait in one direction.
const WAITING_MAX: usize = 65_536;
/// Flows that are told apart in each direction; more share their numbers.
const FLOWS: u64 = 4_096;
/// Packets of one device that are read before the other is looked after.
const READS_MAX: usize = 256;
/// How long the thread waits at most before it looks whether it is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Headers of IPv4 and UDP.
const UDP_HEADER_BYTES: usize = 28;
/// The number of UDP in the header of IP.
const UDP: u8 = 17;

/// Two devices with links between them, carried by a thread until it is told to end: timers of the
/// runtime are a millisecond coarse.
pub(super) struct Carrier {
    thread: JoinHandle<Ended>,
    is_over: Arc<AtomicBool>,
}

/// What a cable came to.
#[derive(Default)]
pub(super) struct Ended {
    /// What came through from the one device to the other, and what befell it.
    pub(super) up: (u64, FaultCounters),
    /// The same back.
    pub(super) down: (u64, FaultCounters),
    /// Packets that found no room.
    pub(super) overflowed: u64,
}

impl Carrier {
    /// Makes the devices and carries from now on.
    pub(super) fn start(cable: &Cable, seed: u64, id: u64, clock: Clock) -> io::Result<Self> {
        let (near, far) = (Tun::open(&cable.one)?, Tun::open(&cable.other)?);
        let (up, down) = (cable.up, cable.down);
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = thread::Builder::new().name("tun".into()).spawn(move || {
            let up = SharedLink::new(seed, id, up);
            let down = SharedLink::new(seed, id + 1, down);
            let mut ways = [Leg::new(near, up), Leg::new(far, down)];
            // It orders nothing: one look more or less is the same.
            while !told.load(Ordering::Relaxed) {
                turn(&mut ways, clock);
            }
            let [up, down] = ways;
            let overflowed = up.overflowed + down.overflowed;
            Ended { up: up.link.counts(), down: down.link.counts(), overflowed }
        })?;
        Ok(Self { thread, is_over })
    }

    /// Ends it; what it came to.
    pub(super) fn end(self) -> Ended {
        self.is_over.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// One direction: what leaves over a device.
struct Leg {
    device: Tun,
    link: SharedLink,
    waiting: Waiting<(u64, Arrival, Vec<u8>)>,
    bytes: Vec<u8>,
    overflowed: u64,
}

impl Leg {
    fn new(device: Tun, link: SharedLink) -> Self {
        let (waiting, bytes) = (Waiting::new(WAITING_MAX), vec![0; TUN_PACKET_BYTES_MAX]);
        Self { device, link, waiting, bytes, overflowed: 0 }
    }

    /// Takes what has left over the device.
    fn take(&mut self, clock: Clock) {
        for _ in 0..READS_MAX {
            // Nothing more is there, or the device is down for now.
            let Ok(len) = self.device.recv(&mut self.bytes) else { return };
            let packet = self.bytes.get(..len).unwrap_or_default();
            let (flow, size) = coordinates(packet);
            for arrival in self.link.admit(clock.now(), flow, size) {
                let is_kept = self.waiting.push(arrival.at, (flow, arrival, packet.to_vec()));
                self.overflowed += u64::from(!is_kept);
            }
        }
    }

    /// Hands on what is due.
    fn give(&mut self, to: &Tun, clock: Clock) {
        while let Some((flow, arrival, packet)) = self.waiting.pop(clock.now()) {
            self.link.arrived(flow, &arrival);
            // What a device that is down does not take is lost as on any network.
            let _ = to.send(&packet);
        }
    }
}

/// Waits for a packet, for one that is due, or to look whether it is over; and carries what there is.
fn turn(ways: &mut [Leg; 2], clock: Clock) {
    let [one, other] = ways;
    let due = one.waiting.next().into_iter().chain(other.waiting.next()).min();
    let wait = due.map_or(LOOK_INTERVAL, |at| at.since(clock.now()).min(LOOK_INTERVAL));
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
    let mut files =
        [PollFd::new(&one.device, PollFlags::IN), PollFd::new(&other.device, PollFlags::IN)];
    // An interrupted wait is a short one.
    let _ = poll(&mut files, Some(&wait));
    one.take(clock);
    other.take(clock);
    one.give(&other.device, clock);
    other.give(&one.device, clock);
}

/// Which flow a packet belongs to, and how long it is for the link: of a datagram over IPv4 what it
/// carries, as in the simulator, of any other packet all of it.
fn coordinates(packet: &[u8]) -> (u64, usize) {
    let part = |from: usize, to: usize| {
        packet
            .get(from..to)
            .unwrap_or_default()
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    let version = packet.first().map_or(0, |byte| byte >> 4);
    if version != 4 {
        // The addresses of IPv6.
        let key = draw(6, &[part(8, 16), part(16, 24), part(24, 32), part(32, 40)]);
        return (key % FLOWS, packet.len());
    }
    let is_udp = packet.get(9) == Some(&UDP);
    let header = packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4);
    let ports = part(header, header + 4);
    let flow = draw(4, &[part(9, 10), part(12, 20), ports]) % FLOWS;
    let size = if is_udp { packet.len().saturating_sub(UDP_HEADER_BYTES) } else { packet.len() };
    (flow, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_told_apart_and_datagrams_count_as_in_the_simulator() {
        let mut packet = vec![0; 128];
        packet[0] = 0x45;
        packet[9] = UDP;
        let (flow, size) = coordinates(&packet);
        assert_eq!((size, coordinates(&packet)), (100, (flow, size)));
        packet[23] = 7;
        assert_ne!(coordinates(&packet).0, flow, "another port");
        packet[9] = 6;
        assert_eq!(coordinates(&packet).1, 128);
        for len in 0..packet.len() {
            assert!(coordinates(&packet[..len]).0 < FLOWS);
        }
    }
}
