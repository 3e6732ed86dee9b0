//! A relay on a thread of its own, and the handle that its owner keeps.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_net::{ReactorEnv, lock, thread_cpu_time};
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, SocketReport, TimeProvider, UdpError, UdpOptions,
    UdpSocket, drive,
};

use crate::config::{RelayConfig, TrunkKeys};
use crate::error::RelayError;
use crate::relay::{Relay, RelayEvent};
use crate::stats::RelayStats;
use crate::two_sided::{SideDrops, TwoSided};

/// Time between two publications of the counters, and the longest that a stop is not seen.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// Events kept for the owner; older ones give way.
const EVENTS_MAX: usize = 64;

/// What a relay on a thread is told.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Where clients find it; port 0 picks a free one.
    pub listen: SocketAddr,
    /// From where it speaks to the server: the address that the server must know. `None` picks a
    /// free port of any interface.
    pub trunk: Option<SocketAddr>,
    /// The relay itself.
    pub config: RelayConfig,
    /// The socket towards clients.
    pub clients_udp: UdpOptions,
    /// The socket towards the server.
    pub trunk_udp: UdpOptions,
    /// Where its thread runs and how urgently.
    pub place: Place,
}

/// Where a thread runs and how urgently; what is asked for and refused is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The one core to run on; `None` leaves it to the system.
    pub core: Option<usize>,
    /// Priority in the first-in-first-out class, 1 to 99; `None` for the usual class.
    pub fifo_priority: Option<u8>,
}

impl Place {
    /// Takes the place, for the calling thread.
    #[cfg(target_os = "linux")]
    pub(crate) fn take(self) -> io::Result<()> {
        if let Some(core) = self.core {
            twinspan_net::pin_to_core(core).map_err(|error| {
                let what = "name one that this process may use";
                io::Error::new(error.kind(), format!("core {core} cannot be had: {error}; {what}"))
            })?;
        }
        if let Some(priority) = self.fifo_priority {
            twinspan_net::request_fifo(priority).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Only the usual place can be had here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn take(self) -> io::Result<()> {
        self.on_others()
    }

    /// What becomes of it on systems that place no threads for this program.
    #[cfg(any(test, not(target_os = "linux")))]
    fn on_others(self) -> io::Result<()> {
        let flag = match (self.core, self.fifo_priority) {
            (None, None) => return Ok(()),
            (Some(_), _) => "a core (`--core`)",
            (None, Some(_)) => "a priority (`--fifo`)",
        };
        let what = format!("{flag} for a thread can be had on Linux alone; leave it out here");
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }
}

impl RelayOptions {
    /// The usual settings.
    pub fn new(listen: SocketAddr, config: RelayConfig) -> Self {
        let clients_udp = UdpOptions { pool_packets: 8_192, ..UdpOptions::default() };
        Self {
            listen,
            trunk: None,
            config,
            clients_udp,
            trunk_udp: trunk_options(),
            place: Place::default(),
        }
    }
}

/// What a socket of a trunk is best asked for: many datagrams to and from one peer.
pub fn trunk_options() -> UdpOptions {
    UdpOptions { pool_packets: 8_192, coalesce_receives: true, ..UdpOptions::default() }
}

/// What a relay did so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct RelayReport {
    /// What the machine counted.
    pub stats: RelayStats,
    /// What the sockets dropped.
    pub sides: SideDrops,
    /// Processor time that its thread used.
    pub cpu: Duration,
    /// The socket towards clients.
    pub clients: SocketReport,
    /// The socket towards the server.
    pub trunk: SocketReport,
}

/// What the relay's thread and its handle share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Whether `keys` holds some that the thread has not taken yet.
    has_keys: AtomicBool,
    /// Locked by the thread with `try_lock` alone.
    keys: Mutex<Option<TrunkKeys>>,
    /// Locked by the thread with `try_lock` alone, so that a slow reader delays no datagram.
    report: Mutex<RelayReport>,
    events: Mutex<VecDeque<RelayEvent>>,
}

/// A running relay. Dropping it stops it and waits for its end.
pub struct RelayHandle {
    shared: Arc<Shared>,
    started: Started,
    thread: Option<JoinHandle<Result<(), UdpError>>>,
}

/// What the thread tells once it stands.
#[derive(Clone, Copy)]
struct Started {
    address: SocketAddr,
    trunk: SocketAddr,
    clients_socket: SocketReport,
    trunk_socket: SocketReport,
}

/// Starts a relay on a thread of its own.
///
/// # Errors
/// [`RelayError`] names the setting or the address that cannot be.
pub fn start(options: RelayOptions) -> Result<RelayHandle, RelayError> {
    options.config.check()?;
    let shared = Arc::new(Shared::default());
    let (started_tx, started_rx) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("twinspan-relay".into()).spawn({
        let shared = Arc::clone(&shared);
        move || run(&options, shared, &started_tx)
    })?;
    let started = match started_rx.recv() {
        Ok(started) => started?,
        // The thread ended without a word: it panicked, and the panic was printed.
        Err(_) => return Err(RelayError::Os(io::Error::other("the thread ended at once"))),
    };
    Ok(RelayHandle { shared, started, thread: Some(thread) })
}

/// The relay's thread.
fn run(
    options: &RelayOptions,
    shared: Arc<Shared>,
    started: &mpsc::SyncSender<Result<Started, RelayError>>,
) -> Result<(), UdpError> {
    let env = match options.place.take().and_then(|()| ReactorEnv::new(None)) {
        Ok(env) => env,
        Err(error) => {
            // Whoever called `start` waits for this; if it is gone nobody needs to know.
            let _ = started.send(Err(error.into()));
            return Ok(());
        }
    };
    env.clone().block_on(async {
        match bind(&env, options).await {
            Ok((relay, mut socket)) => {
                let (clients, trunk) = socket.reports();
                let _ = started.send(Ok(Started {
                    address: socket.local_addr(),
                    trunk: socket.trunk_addr(),
                    clients_socket: clients.unwrap_or_default(),
                    trunk_socket: trunk,
                }));
                let mut tap = Tap { relay, shared, publish_at: Timestamp::START };
                let ended = drive(&env, &mut socket, &mut tap).await;
                tap.publish_last(env.now(), &socket);
                ended
            }
            Err(error) => {
                let _ = started.send(Err(error));
                Ok(())
            }
        }
    })
}

type Socket = TwoSided<<ReactorEnv as NetworkProvider>::Udp>;

async fn bind(env: &ReactorEnv, options: &RelayOptions) -> Result<(Relay, Socket), RelayError> {
    let servers = &options.config.servers;
    let any: SocketAddr = match servers.first() {
        Some(SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let local = options.trunk.unwrap_or(any);
    let open =
        env.bind_udp(options.listen, &options.clients_udp).await.map_err(RelayError::Listen)?;
    let trunk = env.bind_udp(local, &options.trunk_udp).await.map_err(RelayError::Trunk)?;
    let relay = Relay::new(options.config.clone(), env.secrets().as_mut())?;
    Ok((relay, TwoSided::new(Some(open), trunk, servers)))
}

impl RelayHandle {
    /// Where clients find it: what tokens must name.
    pub const fn address(&self) -> SocketAddr {
        self.started.address
    }

    /// From where it speaks to the server: what the server must allow. The address is unspecified
    /// when no interface was named.
    pub const fn trunk_address(&self) -> SocketAddr {
        self.started.trunk
    }

    /// How its sockets towards clients and towards the server move datagrams, as it began.
    pub const fn sockets(&self) -> (&SocketReport, &SocketReport) {
        (&self.started.clients_socket, &self.started.trunk_socket)
    }

    /// Gives the relay other keys of the trunk; it takes them within a tenth of a second, sends with the
    /// present one and takes both.
    pub fn replace_keys(&self, keys: TrunkKeys) {
        *lock(&self.shared.keys) = Some(keys);
        // Pairs with the load in `Tap::take_keys`; the keys themselves travel under the lock.
        self.shared.has_keys.store(true, Ordering::Relaxed);
    }

    /// Whether the keys that were given last are in use.
    pub fn has_taken_keys(&self) -> bool {
        // Its thread holds the lock until it uses them.
        lock(&self.shared.keys).is_none()
    }

    /// What it did, at most a tenth of a second ago; the sockets' part is told at the end alone.
    pub fn report(&self) -> RelayReport {
        *lock(&self.shared.report)
    }

    /// What happened and was not told yet, oldest first.
    pub fn poll_event(&self) -> Option<RelayEvent> {
        lock(&self.shared.events).pop_front()
    }

    /// Whether the relay's thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it, waits for its end and says what it did.
    ///
    /// # Errors
    /// [`UdpError`] when one of its sockets had failed.
    pub fn stop(mut self) -> Result<RelayReport, UdpError> {
        self.end()?;
        Ok(self.report())
    }

    fn end(&mut self) -> Result<(), UdpError> {
        // Pairs with the load in `Tap::handle_timeout`; the request carries no other data.
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(UdpError::HostStopped),
            None => Ok(()),
        }
    }
}

impl Drop for RelayHandle {
    fn drop(&mut self) {
        // The socket's last error has nobody left to tell.
        let _ = self.end();
    }
}

/// The relay as its thread runs it: obeys the handle and publishes.
struct Tap {
    relay: Relay,
    shared: Arc<Shared>,
    publish_at: Timestamp,
}

impl Tap {
    fn publish(&mut self, now: Timestamp) {
        if let Ok(mut report) = self.shared.report.try_lock() {
            (report.stats, report.cpu) = (self.relay.stats(now), thread_cpu_time());
        }
        if let Ok(mut events) = self.shared.events.try_lock() {
            while let Some(event) = self.relay.poll_event() {
                if events.len() == EVENTS_MAX {
                    events.pop_front();
                }
                events.push_back(event);
            }
        }
    }

    fn take_keys(&mut self) {
        if !self.shared.has_keys.load(Ordering::Relaxed) {
            return;
        }
        // A lock that is held means newer keys: they are taken in the next turn.
        let Ok(mut waiting) = self.shared.keys.try_lock() else { return };
        self.shared.has_keys.store(false, Ordering::Relaxed);
        if let Some(keys) = waiting.take() {
            self.relay.replace_keys(keys);
        }
    }

    fn publish_last(&mut self, now: Timestamp, socket: &Socket) {
        self.publish(now);
        let (clients, trunk) = socket.reports();
        let (stats, sides) = (self.relay.stats(now), socket.drops().get());
        let clients = clients.unwrap_or_default();
        *lock(&self.shared.report) =
            RelayReport { stats, sides, cpu: thread_cpu_time(), clients, trunk };
    }
}

impl Machine for Tap {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.relay.handle_datagrams(now, received);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        if self.shared.stop.load(Ordering::Relaxed) {
            self.relay.stop();
        }
        self.take_keys();
        self.relay.handle_timeout(now);
        if now >= self.publish_at {
            self.publish(now);
            self.publish_at = now.after(PUBLISH_INTERVAL);
        }
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.relay.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.relay.poll_timeout().map(|at| at.min(self.publish_at)).or(Some(self.publish_at))
    }

    fn is_done(&self) -> bool {
        self.relay.is_done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_had_is_named_with_its_flag() {
        let place = |core, fifo_priority| Place { core, fifo_priority };
        assert!(place(None, None).on_others().is_ok());
        for (place, flag) in [
            (place(Some(0), None), "a core (`--core`) for a thread can be had on Linux alone"),
            (place(None, Some(1)), "a priority (`--fifo`) for a thread can be had on Linux alone"),
        ] {
            let error = place.on_others().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(error.to_string().starts_with(flag), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_core_that_is_not_there_is_named() {
        let place = Place { core: Some(usize::MAX), fifo_priority: None };
        let error = place.take().unwrap_err().to_string();
        assert!(error.starts_with(&format!("core {} cannot be had", usize::MAX)), "{error}");
    }
}
