//! The server as its thread runs it, and what the thread shares with handles.

use core::fmt;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_admission::Rules;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_net::lock;
use twinspan_provider::Machine;
use twinspan_relay::{PortKeys, PortStats, TrunkKeys};

use super::server::Traffic;
use crate::server::{Front, Member, Server, ServerKeys, StatsSnapshot, WorldSnapshot};

/// Time between two publications of the world while somebody looks at it.
const WORLD_INTERVAL: Duration = Duration::from_millis(100);
/// For so much longer a picture that nobody looked at stays: the next one takes every player's memory
/// through the caches.
const UNREAD_FOR: Duration = Duration::from_millis(900);
/// Time between two publications of the counters.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// What is asked of the server's thread. Only ever raised.
pub(super) const ASK_DRAIN: u8 = 1;
pub(super) const ASK_STOP: u8 = 2;

/// Counters that the server's thread writes and handles read; each stands alone, so relaxed order
/// is enough.
#[derive(Debug, Default)]
struct SharedTraffic {
    packets_in: AtomicU64,
    packets_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// What the server is to take in its next tick.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) rules: Option<Rules>,
    pub(super) keys: Option<ServerKeys>,
    /// The keys before the present ones are good no longer.
    pub(super) retire: bool,
    /// Keys that are shared with relays.
    pub(super) trunk: Option<TrunkKeys>,
}

impl Changes {
    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        let Self { rules, keys, retire, trunk } = self;
        rules.is_none() && keys.is_none() && !*retire && trunk.is_none()
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

/// What the server's thread and its handle share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) asked: AtomicU8,
    /// Whether `changes` holds some that the thread has not taken yet.
    pub(super) has_changes: AtomicBool,
    /// Locked by the thread with `try_lock` alone.
    pub(super) changes: Mutex<Changes>,
    traffic: SharedTraffic,
    /// Locked by the thread with `try_lock` alone, so that a slow reader delays no tick.
    pub(super) world: Mutex<WorldSnapshot>,
    /// Whether somebody looked at the world since it was published last; says nothing of other
    /// memory, so relaxed order is enough.
    pub(super) world_was_read: AtomicBool,
    pub(super) stats: Mutex<StatsSnapshot>,
}

impl Shared {
    pub(super) fn traffic(&self) -> Traffic {
        let traffic = &self.traffic;
        Traffic {
            packets_in: traffic.packets_in.load(Ordering::Relaxed),
            packets_out: traffic.packets_out.load(Ordering::Relaxed),
            bytes_in: traffic.bytes_in.load(Ordering::Relaxed),
            bytes_out: traffic.bytes_out.load(Ordering::Relaxed),
        }
    }
}

/// What a server's thread runs: a whole server, or a shard of one.
pub(super) trait Served: Machine {
    fn drain(&mut self, now: Timestamp);
    fn stop(&mut self, now: Timestamp);
    fn replace_rules(&mut self, now: Timestamp, rules: &Rules);
    fn rotate_keys(&mut self, keys: ServerKeys);
    fn retire_old_keys(&mut self);
    fn snapshot_world(&self, out: &mut WorldSnapshot);
    fn snapshot_stats(&mut self, now: Timestamp, out: &mut StatsSnapshot);

    /// Whether another thread has said something.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }
}

/// What a server, or the part of it that has the players, does by methods of the same names.
macro_rules! served {
    ($server:ident $(by its $part:ident)? $(, $ready:ident)?) => {
        impl Served for $server {
            fn drain(&mut self, now: Timestamp) {
                self$(.$part)?.drain(now);
            }

            fn stop(&mut self, now: Timestamp) {
                self$(.$part)?.stop(now);
            }

            fn replace_rules(&mut self, now: Timestamp, rules: &Rules) {
                self$(.$part)?.replace_rules(now, rules);
            }

            fn rotate_keys(&mut self, keys: ServerKeys) {
                self$(.$part)?.rotate_keys(keys);
            }

            fn retire_old_keys(&mut self) {
                self$(.$part)?.retire_old_keys();
            }

            fn snapshot_world(&self, out: &mut WorldSnapshot) {
                self.snapshot_world(out);
            }

            fn snapshot_stats(&mut self, now: Timestamp, out: &mut StatsSnapshot) {
                self.snapshot_stats(now, out);
            }

            $(fn $ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
                self.$ready(cx)
            })?
        }
    };
}

served!(Server);
served!(Member, poll_ready);
served!(Front by its member, poll_ready);

/// A socket's side towards relays, as the server's thread reaches it.
pub(super) struct RelaySide {
    /// What it counts.
    pub(super) counted: Rc<Cell<PortStats>>,
    pub(super) keys: PortKeys,
}

/// The server as its thread runs it: obeys the handle, counts traffic, publishes.
pub(super) struct Tap<S> {
    server: S,
    shared: Arc<Shared>,
    /// The socket's side towards relays, where they come.
    relay: Option<RelaySide>,
    world_at: Timestamp,
    stats_at: Timestamp,
}

impl<S: Served> Tap<S> {
    pub(super) const fn new(server: S, shared: Arc<Shared>) -> Self {
        let start = Timestamp::START;
        Self { server, shared, relay: None, world_at: start, stats_at: start }
    }

    /// Publishes what the socket counts of relays too, and hands keys of the trunk on to it.
    pub(super) fn with_relay(mut self, relay: Option<RelaySide>) -> Self {
        self.relay = relay;
        self
    }

    /// Whether another thread has said something.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.server.poll_ready(cx)
    }

    fn obey(&mut self, now: Timestamp) {
        match self.shared.asked.load(Ordering::Relaxed) {
            ASK_DRAIN => self.server.drain(now),
            ASK_STOP => self.server.stop(now),
            _ => {}
        }
    }

    fn take_changes(&mut self, now: Timestamp) {
        if !self.shared.has_changes.load(Ordering::Relaxed) {
            return;
        }
        // A lock that is held means newer changes: they are taken in the next tick.
        let Ok(mut waiting) = self.shared.changes.try_lock() else { return };
        self.shared.has_changes.store(false, Ordering::Relaxed);
        let Changes { rules, keys, retire, trunk } = core::mem::take(&mut *waiting);
        if let Some(rules) = rules {
            self.server.replace_rules(now, &rules);
        }
        if let Some(keys) = keys {
            self.server.rotate_keys(keys);
        }
        if retire {
            self.server.retire_old_keys();
        }
        if let (Some(trunk), Some(relay)) = (trunk, &self.relay) {
            relay.keys.replace(&trunk);
        }
    }

    fn publish(&mut self, now: Timestamp) {
        let ended = self.server.is_done();
        let was_read = self.shared.world_was_read.load(Ordering::Relaxed);
        let wait = if was_read { Duration::ZERO } else { UNREAD_FOR };
        if (now >= self.world_at.after(wait) || ended)
            && let Ok(mut world) = self.shared.world.try_lock()
        {
            self.server.snapshot_world(&mut world);
            self.shared.world_was_read.store(false, Ordering::Relaxed);
            self.world_at = now.after(WORLD_INTERVAL);
        }
        if ended {
            // Nothing is delayed any more: wait for the lock, so that the last word is kept.
            let mut stats = lock(&self.shared.stats);
            self.server.snapshot_stats(now, &mut stats);
            stats.relay = self.relay.as_ref().map(|relay| relay.counted.get());
        } else if now >= self.stats_at
            && let Ok(mut stats) = self.shared.stats.try_lock()
        {
            self.server.snapshot_stats(now, &mut stats);
            stats.relay = self.relay.as_ref().map(|relay| relay.counted.get());
            self.stats_at = now.after(STATS_INTERVAL);
        }
    }
}

impl<S: Served> Machine for Tap<S> {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        if received.is_empty() {
            // Another thread has said something.
            return self.handle_timeout(now);
        }
        let bytes: usize = received.iter().map(|datagram| datagram.packet.len()).sum();
        self.shared.traffic.packets_in.fetch_add(received.len() as u64, Ordering::Relaxed);
        self.shared.traffic.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.server.handle_datagrams(now, received);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.obey(now);
        self.take_changes(now);
        self.server.handle_timeout(now);
        self.publish(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        let before = out.len();
        self.server.poll_transmit(now, pool, out);
        let sent = out.len() - before;
        let bytes: usize = out.iter().skip(before).map(|datagram| datagram.packet.len()).sum();
        self.shared.traffic.packets_out.fetch_add(sent as u64, Ordering::Relaxed);
        self.shared.traffic.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.server.poll_timeout()
    }

    fn is_done(&self) -> bool {
        self.server.is_done()
    }

    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        self.server.on_elapsed(began, ended);
    }
}
