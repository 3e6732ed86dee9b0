//! Faults that last: partitions, clogs, narrow links, hosts that stand still.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;

use super::hosts::Start;
use crate::streams::EndKey;
use crate::world::ip_words;

/// Faults that last at the same time; no further one begins while there are so many.
pub const TROUBLES_MAX: usize = 4_096;

/// One of them.
pub(crate) struct Trouble {
    pub(crate) kind: FaultKind,
    until: Timestamp,
    pub(crate) what: What,
}

/// What it does.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// Hosts fall into two groups.
    Split { key: u64 },
    /// Nothing comes through from one to the other.
    Cut { from: IpAddr, to: IpAddr },
    /// Nothing comes through between the two.
    CutPair { one: IpAddr, other: IpAddr },
    /// Nothing comes through in every other turn.
    Flap { from: IpAddr, to: IpAddr, began: Timestamp, turn: Duration },
    /// Nothing leaves until the end.
    ClogSend { ip: IpAddr },
    /// Nothing comes until the end.
    ClogReceive { ip: IpAddr },
    /// For half of all hosts nothing comes until each one's own end.
    Swizzle { key: u64, began: Timestamp },
    /// So many bytes a second, and so many that wait.
    Narrow { from: IpAddr, to: IpAddr, rate: u64, queue: u64, idle_at: Timestamp },
    /// Nothing longer comes through.
    Short { from: IpAddr, to: IpAddr, bytes_max: usize },
    /// Nothing of the host runs.
    Pause { ip: IpAddr },
    /// Each poll of the host takes time.
    Slow { ip: IpAddr, cost: Duration, busy_until: Timestamp },
    /// The wall clock is ahead by this.
    Step { ip: IpAddr, by_ns: i64 },
    /// The wall clock gains this much in a million.
    Drift { ip: IpAddr, began: Timestamp, ppm: i64 },
    /// No descriptors.
    Fds { ip: IpAddr },
    /// No buffers.
    Buffers { ip: IpAddr },
    /// One datagram at a time, so far apart.
    Consumer { ip: IpAddr, pace: Duration },
    /// Ready tasks go in another order.
    Order { ip: IpAddr, key: u64 },
}

/// What comes to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// It comes through whole or not at all.
    Datagram,
    /// Its sender makes it as short as the path needs.
    Piece,
}

/// What happens when something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Tasks of a host that were put off go on.
    Release(IpAddr),
    /// A host that was asked to stop is stopped.
    Stop(IpAddr, Duration),
    /// A host starts again.
    Boot(IpAddr, Start),
    /// The window of a stream's peer opens.
    Window(EndKey),
    /// Nothing but that a trouble is over.
    Sweep,
}

/// All that last, and what is due.
#[derive(Default)]
pub(crate) struct Troubles {
    active: Vec<Trouble>,
    endings: BTreeMap<(Timestamp, u64), Ending>,
    endings_made: u64,
}

impl Troubles {
    pub(crate) fn is_full(&self) -> bool {
        self.active.len() >= TROUBLES_MAX
    }

    /// Begins one. The caller looked that there is room.
    pub(crate) fn begin(&mut self, kind: FaultKind, until: Timestamp, what: What) {
        self.active.push(Trouble { kind, until, what });
        self.end_with(until, Ending::Sweep);
    }

    pub(crate) fn end_with(&mut self, at: Timestamp, ending: Ending) {
        self.endings_made += 1;
        self.endings.insert((at, self.endings_made), ending);
    }

    /// When something is due next.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.endings.first_key_value().map(|((at, _), _)| *at)
    }

    /// What is due now.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<Ending> {
        if self.next_at()? > now {
            return None;
        }
        let ending = self.endings.pop_first().map(|(_, ending)| ending);
        if ending == Some(Ending::Sweep) {
            self.active.retain(|trouble| trouble.until > now);
        }
        ending
    }

    /// Ends all of them now; what was to follow, follows at once.
    pub(crate) fn end_all(&mut self, now: Timestamp) {
        self.active.clear();
        let endings = std::mem::take(&mut self.endings);
        for ending in endings.into_values().filter(|ending| *ending != Ending::Sweep) {
            self.end_with(now, ending);
        }
    }

    fn now(&self, now: Timestamp) -> impl Iterator<Item = &Trouble> {
        self.active.iter().filter(move |trouble| trouble.until > now)
    }

    /// Why nothing comes through from one host to another, if so.
    pub(crate) fn blocked(&self, now: Timestamp, from: IpAddr, to: IpAddr) -> Option<FaultKind> {
        let blocks = |trouble: &&Trouble| match trouble.what {
            What::Split { key } => group(key, from) != group(key, to),
            What::Cut { from: a, to: b } => (a, b) == (from, to),
            What::CutPair { one, other } => {
                (one, other) == (from, to) || (other, one) == (from, to)
            }
            What::Flap { from: a, to: b, began, turn } => {
                let turns = now.since(began).as_nanos() / turn.as_nanos().max(1);
                (a, b) == (from, to) && turns.is_multiple_of(2)
            }
            _ => false,
        };
        self.now(now).find(blocks).map(|trouble| trouble.kind)
    }

    /// Until when nothing leaves a host, and why.
    pub(crate) fn send_clog(&self, now: Timestamp, from: IpAddr) -> Option<(Timestamp, FaultKind)> {
        let clogs = |trouble: &Trouble| match trouble.what {
            What::ClogSend { ip } if ip == from => Some((trouble.until, trouble.kind)),
            _ => None,
        };
        self.now(now).filter_map(clogs).max()
    }

    /// Until when nothing reaches a host, and why.
    pub(crate) fn receive_clog(
        &self,
        now: Timestamp,
        to: IpAddr,
    ) -> Option<(Timestamp, FaultKind)> {
        let clogs = |trouble: &Trouble| match trouble.what {
            What::ClogReceive { ip } if ip == to => Some((trouble.until, trouble.kind)),
            What::Swizzle { key, began } if group(key, to) => {
                let [high, low] = ip_words(to);
                let whole = trouble.until.since(began).as_nanos();
                let share = u128::from(draw(key, &[high, low, 1]) >> 32) + 1;
                let own = u64::try_from((whole * share) >> 32).unwrap_or(u64::MAX);
                let until = began.after(Duration::from_nanos(own));
                (until > now).then_some((until, trouble.kind))
            }
            _ => None,
        };
        self.now(now).filter_map(clogs).max()
    }

    /// How much later narrow links let something through, and which fault it is; or that it is
    /// dropped there.
    pub(crate) fn narrow(
        &mut self,
        now: Timestamp,
        (from, to): (IpAddr, IpAddr),
        bytes: usize,
        carried: Carried,
    ) -> Option<(FaultKind, Option<Duration>)> {
        let mut found = None;
        for trouble in self.active.iter_mut().filter(|trouble| trouble.until > now) {
            match &mut trouble.what {
                What::Narrow { from: a, to: b, rate, queue, idle_at } if (*a, *b) == (from, to) => {
                    let rate = u128::from(*rate).max(1);
                    let waiting = idle_at.since(now).as_nanos() * rate / 1_000_000_000;
                    if waiting > 0 && waiting + bytes as u128 > u128::from(*queue) {
                        return Some((trouble.kind, None));
                    }
                    let nanos = (bytes as u128 * 1_000_000_000).div_ceil(rate);
                    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
                    *idle_at = (*idle_at).max(now).after(Duration::from_nanos(nanos));
                    found = Some((trouble.kind, Some(idle_at.since(now))));
                }
                What::Short { from: a, to: b, bytes_max }
                    if (*a, *b) == (from, to)
                        && bytes > *bytes_max
                        && carried == Carried::Datagram =>
                {
                    return Some((trouble.kind, None));
                }
                _ => {}
            }
        }
        found
    }

    /// Why nothing of a host runs now, if so.
    pub(crate) fn standing(&self, now: Timestamp, host: IpAddr) -> Option<FaultKind> {
        let stands = |trouble: &&Trouble| match trouble.what {
            What::Pause { ip } => ip == host,
            What::Slow { ip, busy_until, .. } => ip == host && busy_until > now,
            _ => false,
        };
        self.now(now).find(stands).map(|trouble| trouble.kind)
    }

    /// A task of a host was polled; on a slow one that took time.
    pub(crate) fn polled(&mut self, now: Timestamp, host: IpAddr) {
        let mut release_at = None;
        for trouble in self.active.iter_mut().filter(|trouble| trouble.until > now) {
            if let What::Slow { ip, cost, busy_until } = &mut trouble.what
                && *ip == host
            {
                *busy_until = now.after(*cost);
                release_at = Some(*busy_until);
            }
        }
        if let Some(at) = release_at {
            self.end_with(at, Ending::Release(host));
        }
    }

    /// By how much a host's wall clock is ahead, and each fault that makes it so.
    pub(crate) fn wall_ahead_ns(
        &self,
        now: Timestamp,
        host: IpAddr,
        mut because: impl FnMut(FaultKind),
    ) -> i64 {
        let mut ahead = 0_i64;
        for trouble in self.now(now) {
            let by = match trouble.what {
                What::Step { ip, by_ns } if ip == host => by_ns,
                What::Drift { ip, began, ppm } if ip == host => {
                    let passed = i64::try_from(now.since(began).as_nanos()).unwrap_or(i64::MAX);
                    (passed / 1_000_000).saturating_mul(ppm)
                }
                _ => continue,
            };
            if by != 0 {
                because(trouble.kind);
            }
            ahead = ahead.saturating_add(by);
        }
        ahead
    }

    /// Whether a host has no descriptors left.
    pub(crate) fn lacks_fds(&self, now: Timestamp, host: IpAddr) -> bool {
        self.now(now).any(|trouble| matches!(trouble.what, What::Fds { ip } if ip == host))
    }

    /// Whether a host has no buffers left for what comes.
    pub(crate) fn lacks_buffers(&self, now: Timestamp, host: IpAddr) -> bool {
        self.now(now).any(|trouble| matches!(trouble.what, What::Buffers { ip } if ip == host))
    }

    /// How far apart a host takes datagrams.
    pub(crate) fn pace(&self, now: Timestamp, host: IpAddr) -> Option<Duration> {
        self.now(now).find_map(|trouble| match trouble.what {
            What::Consumer { ip, pace } if ip == host => Some(pace),
            _ => None,
        })
    }

    /// What a host's order of tasks is changed by; 0 for nothing.
    pub(crate) fn order(&self, now: Timestamp, host: IpAddr) -> u64 {
        let found = self.now(now).find_map(|trouble| match trouble.what {
            What::Order { ip, key } if ip == host => Some(key | 1),
            _ => None,
        });
        found.unwrap_or_default()
    }
}

/// In which of two groups a host is.
fn group(key: u64, ip: IpAddr) -> bool {
    let [high, low] = ip_words(ip);
    draw(key, &[high, low]) & 1 == 1
}
