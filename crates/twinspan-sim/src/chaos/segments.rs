//! What planned faults do to the segments of streams, to proxies and to disks.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_core::link::FaultKind;

use super::Strike;
use super::weather::Kinds;
use crate::plan::{Place, flow_key, host_key, socket_key};
use crate::world::{HostId, State};

/// How far a second copy of a segment, and one that is overtaken, lags.
const LAG: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));
/// How long a disk stalls.
const STALL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(3));

/// What befalls one segment on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SegmentStrikes {
    /// It does not come.
    pub(crate) is_lost: bool,
    /// A second copy comes so much later.
    pub(crate) copy_later: Option<Duration>,
    /// It comes so much later.
    pub(crate) later: Duration,
    /// What counts as an effect when it comes.
    pub(crate) marks: Kinds,
}

/// What befalls one call to a disk when its work is done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskStrikes {
    /// A write stops after a part of its bytes.
    pub(crate) torn: Option<Strike>,
    /// There is no room.
    pub(crate) is_full: bool,
    /// Nothing is made durable.
    pub(crate) sync_fails: bool,
    /// A bit of what is read is turned.
    pub(crate) corrupt: Option<Strike>,
}

/// What a call to a disk does, as far as faults tell calls apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskCall {
    Read,
    Write,
    Sync,
    Other,
}

impl State {
    /// What befalls segment `number` between the ends of a connection, by the sender's addresses.
    pub(crate) fn strike_segment(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        number: u64,
        can_be_marked: bool,
    ) -> SegmentStrikes {
        use FaultKind as K;
        let mut strikes = SegmentStrikes::default();
        let kinds =
            [K::SegmentLoss, K::SegmentDuplicate, K::SegmentReorder, K::SegmentDamage, K::EcnMark];
        if !kinds.iter().any(|kind| self.chaos.can(*kind)) {
            return strikes;
        }
        let key = flow_key(from, to);
        let mut strike = |kind| {
            let strike = self.strike((kind, key, number), || Place::Flow(from, to))?;
            Some(strike.duration(0, LAG.0, LAG.1))
        };
        if strike(K::SegmentLoss).is_some() {
            strikes.is_lost = true;
        }
        strikes.copy_later = strike(K::SegmentDuplicate);
        if let Some(later) = strike(K::SegmentReorder) {
            strikes.later = later;
            strikes.marks.add(K::SegmentReorder);
        }
        if strike(K::SegmentDamage).is_some() {
            strikes.marks.add(K::SegmentDamage);
        }
        if can_be_marked && strike(K::EcnMark).is_some() {
            strikes.marks.add(K::EcnMark);
        }
        if strikes.is_lost {
            self.faults.observe(K::SegmentLoss);
        }
        strikes
    }

    /// Whether a connection is reset with segment `number`, by the sender's addresses.
    pub(crate) fn strikes_reset(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        number: u64,
    ) -> bool {
        let kind = FaultKind::StreamReset;
        self.chaos.can(kind)
            && self.strike((kind, flow_key(from, to), number), || Place::Flow(from, to)).is_some()
    }

    /// Strikes a service at a socket the `number`th time that it is asked.
    pub(crate) fn strike_service(
        &mut self,
        kind: FaultKind,
        local: SocketAddr,
        number: u64,
    ) -> Option<Strike> {
        if !self.chaos.can(kind) {
            return None;
        }
        let strike = self.strike((kind, socket_key(local), number), || Place::Socket(local))?;
        self.faults.observe(kind);
        Some(strike)
    }

    /// Strikes a call to a host's disk.
    fn strike_call(&mut self, kind: FaultKind, host: HostId, call: u64) -> Option<Strike> {
        if !self.chaos.can(kind) {
            return None;
        }
        let ip = self.hosts.get(host)?.ip;
        self.strike((kind, host_key(ip), call), || Place::Host(ip))
    }

    /// How long the `call`th call to a host's disk takes because of a fault.
    pub(crate) fn disk_stall(&mut self, host: HostId, call: u64) -> Option<Duration> {
        let strike = self.strike_call(FaultKind::DiskStall, host, call)?;
        self.faults.observe(FaultKind::DiskStall);
        Some(strike.duration(0, STALL.0, STALL.1))
    }

    /// What befalls the `call`th call to a host's disk; the call tells what came of it.
    pub(crate) fn strike_disk(&mut self, host: HostId, call: u64, what: DiskCall) -> DiskStrikes {
        use FaultKind as K;
        let mut strikes = DiskStrikes::default();
        match what {
            DiskCall::Read => strikes.corrupt = self.strike_call(K::CorruptRead, host, call),
            DiskCall::Write => {
                strikes.is_full = self.strike_call(K::DiskFull, host, call).is_some();
                if !strikes.is_full {
                    strikes.torn = self.strike_call(K::TornWrite, host, call);
                }
            }
            DiskCall::Sync => {
                strikes.sync_fails = self.strike_call(K::SyncFailure, host, call).is_some();
            }
            DiskCall::Other => {}
        }
        strikes
    }
}
