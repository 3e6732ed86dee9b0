//! What strikes links and hosts, slot by slot, and what is due in between.

use std::net::IpAddr;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::time::Timestamp;

use super::hosts::Start;
use super::troubles::{Ending, What};
use super::{Scope, Source, Strike, scope, slot_start};
use crate::executor::Task;
use crate::network::Socket;
use crate::plan::{Fault, Place, host_key, link_key, node_key};
use crate::world::{Dead, State};

/// How long most faults of links and hosts last.
const LAST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long hosts are down.
const DOWN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// How long a host that is asked to stop may take.
const GRACE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// A turn of a link that flaps.
const TURN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// What a poll costs on a slow host.
const POLL_COST: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// How far apart a slow consumer takes datagrams.
const PACE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// By how much wall clocks jump.
const STEP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(86_400));
/// By how much wall clocks drift, in millionths.
const DRIFT_PPM: u64 = 100_000;
/// Bytes a second over a link that became narrow, its short queue in bytes, and its very long one in
/// seconds.
const NARROW_RATE: (u64, u64) = (8_000, 128_000);
const SHORT_QUEUE: u64 = 4_096;
const LONG_QUEUE_SECONDS: u64 = 3;
/// The longest datagram over a path that became too narrow.
const PATH_BYTES: (u64, u64) = (64, 1_200);

/// What is to be dropped when the world is free, and hosts to start then.
#[derive(Default)]
pub(crate) struct Garbage {
    pub(crate) tasks: Vec<Task>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) streams: Vec<Dead>,
    pub(crate) boots: Vec<(IpAddr, Start)>,
}

impl super::Chaos {
    /// When something of it is due next.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        if !self.is_on {
            return None;
        }
        let slot = match &self.source {
            Source::Off => None,
            Source::Drawn(_) => Some(self.slot),
            Source::Listed { slots, next, .. } => slots.get(*next).map(|fault| fault.number),
        };
        let ending = self.troubles.next_at();
        match (slot.map(slot_start), ending) {
            (Some(slot), Some(ending)) => Some(slot.min(ending)),
            (one, other) => one.or(other),
        }
    }

    /// The strikes that are told for slots up to now.
    fn listed(&mut self, now: Timestamp) -> Vec<Fault> {
        let Source::Listed { slots, next, .. } = &mut self.source else { return Vec::new() };
        let due = slots.get(*next..).unwrap_or_default();
        let count = due.partition_point(|fault| slot_start(fault.number) <= now);
        *next += count;
        due.get(..count).unwrap_or_default().to_vec()
    }
}

impl State {
    /// Does what is due now; endings first.
    pub(crate) fn chaos_due(&mut self, now: Timestamp) -> Garbage {
        let mut garbage = Garbage::default();
        while let Some(ending) = self.chaos.troubles.take_due(now) {
            self.end_trouble(now, ending, &mut garbage);
        }
        for Fault { kind, number, place } in self.chaos.listed(now) {
            self.try_slot(now, kind, number, &place, &mut garbage);
        }
        while matches!(self.chaos.source, Source::Drawn(_)) && slot_start(self.chaos.slot) <= now {
            let number = self.chaos.slot;
            self.chaos.slot += 1;
            self.draw_slot(now, number, &mut garbage);
        }
        garbage
    }

    /// Lets every place draw for a slot, in the order in which a list would name them.
    fn draw_slot(&mut self, now: Timestamp, number: u64, garbage: &mut Garbage) {
        for kind in FaultKind::ALL {
            if !self.chaos.can(kind) {
                continue;
            }
            match scope(kind) {
                Some(Scope::World) => self.try_slot(now, kind, number, &Place::World, garbage),
                Some(Scope::Host | Scope::Boot) => {
                    for ip in self.hosts.ips() {
                        self.try_slot(now, kind, number, &Place::Host(ip), garbage);
                    }
                }
                Some(Scope::Link) => {
                    for (from, to) in self.network.ways() {
                        self.try_slot(now, kind, number, &Place::Link(from, to), garbage);
                    }
                }
                Some(Scope::Pair) => {
                    for (from, to) in self.network.ways().into_iter().filter(|(a, b)| a < b) {
                        self.try_slot(now, kind, number, &Place::Link(from, to), garbage);
                    }
                }
                Some(Scope::Box) => {
                    for name in self.box_names() {
                        self.try_slot(now, kind, number, &Place::Node(name), garbage);
                    }
                }
                Some(Scope::Each) | None => {}
            }
        }
    }

    /// Lets one place draw for a slot; a list has drawn.
    fn try_slot(
        &mut self,
        now: Timestamp,
        kind: FaultKind,
        number: u64,
        place: &Place,
        garbage: &mut Garbage,
    ) {
        let key = match (place, scope(kind)) {
            (Place::World, Some(Scope::World)) => 0,
            (Place::Host(ip), Some(Scope::Host)) if self.runs(*ip) => host_key(*ip),
            (Place::Host(ip), Some(Scope::Boot)) if self.runs(*ip) && self.can_boot(*ip) => {
                host_key(*ip)
            }
            (Place::Link(from, to), Some(Scope::Link | Scope::Pair)) => link_key(*from, *to),
            (Place::Node(name), Some(Scope::Box)) if self.is_box(name) => node_key(name),
            // A list may name what is not there any more, or never was.
            _ => return,
        };
        if self.chaos.troubles.is_full() {
            return;
        }
        let coordinates = (kind, key, number);
        let strike = match self.chaos.source {
            Source::Listed { .. } => Some(self.chaos.strike_of(coordinates)),
            _ => self.chaos.decide(coordinates),
        };
        if let Some(strike) = strike {
            self.note_strike(coordinates, place.clone());
            match place {
                Place::Host(ip) => self.strike_host(now, kind, *ip, strike, garbage),
                Place::Link(from, to) => self.strike_link(now, kind, (*from, *to), strike),
                Place::Node(name) => self.strike_box(now, kind, name),
                _ => self.strike_world(now, kind, strike),
            }
        }
    }

    fn runs(&self, ip: IpAddr) -> bool {
        self.hosts.at(ip).and_then(|id| self.hosts.get(id)).is_some_and(|host| host.is_running)
    }

    fn can_boot(&self, ip: IpAddr) -> bool {
        self.chaos.boots.is_known(ip)
    }

    fn strike_world(&mut self, now: Timestamp, kind: FaultKind, strike: Strike) {
        let until = now.after(strike.duration(0, LAST.0, LAST.1));
        let key = strike.draw(1);
        let what = match kind {
            FaultKind::PartitionSplit => What::Split { key },
            _ => What::Swizzle { key, began: now },
        };
        self.chaos.troubles.begin(kind, until, what);
    }

    fn strike_link(
        &mut self,
        now: Timestamp,
        kind: FaultKind,
        (from, to): (IpAddr, IpAddr),
        strike: Strike,
    ) {
        let until = now.after(strike.duration(0, LAST.0, LAST.1));
        let within = |what, (least, most): (u64, u64)| least + strike.below(what, most - least + 1);
        let rate = within(1, NARROW_RATE);
        let narrow = |queue| What::Narrow { from, to, rate, queue, idle_at: now };
        let what = match kind {
            FaultKind::PartitionPair => What::CutPair { one: from, other: to },
            FaultKind::Bandwidth => narrow(SHORT_QUEUE),
            FaultKind::Bufferbloat => narrow(rate * LONG_QUEUE_SECONDS),
            FaultKind::Flap => {
                let turn = strike.duration(1, TURN.0, TURN.1);
                What::Flap { from, to, began: now, turn }
            }
            FaultKind::Oversize => {
                // 64 to 1,200 fits any platform's sizes.
                What::Short { from, to, bytes_max: within(1, PATH_BYTES) as usize }
            }
            _ => What::Cut { from, to },
        };
        self.chaos.troubles.begin(kind, until, what);
    }

    fn strike_host(
        &mut self,
        now: Timestamp,
        kind: FaultKind,
        ip: IpAddr,
        strike: Strike,
        garbage: &mut Garbage,
    ) {
        let down = strike.duration(1, DOWN.0, DOWN.1);
        match kind {
            FaultKind::Crash => self.crash_host(now, kind, ip, (down, Start::Kept), garbage),
            FaultKind::RestartEmpty => {
                self.crash_host(now, kind, ip, (down, Start::Empty), garbage);
            }
            FaultKind::RestartOld => self.crash_host(now, kind, ip, (down, Start::Old), garbage),
            FaultKind::GracefulStop => {
                let at = now.after(strike.duration(2, GRACE.0, GRACE.1));
                self.chaos.boots.ask_to_stop(ip);
                self.chaos.troubles.end_with(at, Ending::Stop(ip, down));
            }
            FaultKind::Rebind => {
                self.chaos.rebind(ip, strike.draw(1));
            }
            FaultKind::SpuriousWake => {
                if let Some(id) = self.hosts.at(ip) {
                    let woken = self.network.wake_for_nothing(id);
                    (0..woken).for_each(|_| self.faults.observe(kind));
                }
            }
            _ => self.begin_at_host(now, kind, ip, strike),
        }
    }

    /// What lasts at a host.
    fn begin_at_host(&mut self, now: Timestamp, kind: FaultKind, ip: IpAddr, strike: Strike) {
        let until = now.after(strike.duration(0, LAST.0, LAST.1));
        let step = strike.duration(1, STEP.0, STEP.1).as_nanos();
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let ppm = strike.below(1, 2 * DRIFT_PPM + 1).cast_signed() - DRIFT_PPM.cast_signed();
        let what = match kind {
            FaultKind::ClogSend => What::ClogSend { ip },
            FaultKind::ClogReceive => What::ClogReceive { ip },
            FaultKind::SlowCpu => {
                let cost = strike.duration(1, POLL_COST.0, POLL_COST.1);
                What::Slow { ip, cost, busy_until: now }
            }
            FaultKind::ClockForward => What::Step { ip, by_ns: step },
            FaultKind::ClockBack => What::Step { ip, by_ns: -step },
            FaultKind::ClockDrift => What::Drift { ip, began: now, ppm },
            FaultKind::OutOfFds => What::Fds { ip },
            FaultKind::OutOfBuffers => What::Buffers { ip },
            FaultKind::SlowConsumer => {
                What::Consumer { ip, pace: strike.duration(1, PACE.0, PACE.1) }
            }
            FaultKind::TaskOrder => What::Order { ip, key: strike.draw(1) },
            _ => What::Pause { ip },
        };
        self.chaos.troubles.begin(kind, until, what);
        if matches!(what, What::Pause { .. } | What::Slow { .. }) {
            self.chaos.troubles.end_with(until, Ending::Release(ip));
        }
    }

    fn end_trouble(&mut self, now: Timestamp, ending: Ending, garbage: &mut Garbage) {
        match ending {
            Ending::Sweep => {}
            Ending::Release(ip) => self.release_tasks(now, ip),
            Ending::Stop(ip, down) => {
                let down =
                    if matches!(self.chaos.source, Source::Off) { Duration::ZERO } else { down };
                let kind = FaultKind::GracefulStop;
                self.crash_host(now, kind, ip, (down, Start::Kept), garbage);
            }
            Ending::Boot(ip, start) => garbage.boots.push((ip, start)),
            Ending::Window(end) => self.open_window(now, end),
        }
    }
}
