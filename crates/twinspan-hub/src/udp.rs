//! The UDP road: the caller's thread drives the socket, and one of the road's own does so only while
//! nobody else does.

pub(crate) mod core;
mod group;
mod helper;
pub(crate) mod packing;
mod shared;
mod uring;
mod vigil;
pub(crate) mod wire;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use twinspan_core::random::Stream;
use twinspan_net::shm::{
    Echo, Policy, PublishError as MemoryError, Room, Taken, deadline_in, quiet, ring, sleep_on,
    sleep_on_either, watch, watcher,
};
use twinspan_net::{TrainOptions, TrainReport, TrainSocket};
use twinspan_topic::{
    Compressions, Disagreement, Door, Greeting, NodeConfig, NodeSide, Offer, Overflow, Refusal,
};

use crate::compress::CompressionStats;
use crate::discover::Host;
use crate::effect::{Asked, OwnThread, SettingReport};
use crate::error::{BuildError, PublishError};
use crate::port::{self, Place, Tenant};
use crate::quic::Fingerprint;
use crate::report::{Compression, Transport};
use crate::road::{
    BATCH_DEFAULT, Callee, InStats, Incoming, More, Opened, OutStats, Outgoing, Peers, Reliability,
    RoadConfig, Side, Ways,
};
use crate::seal::Declined;
use crate::system::{self, any_like, stopwatch};

use self::core::{Core, CoreParts, Left, Met, now};
use self::packing::Packing;
use self::shared::Shared;
pub(crate) use self::uring::of_this_machine;

/// How long building waits for the first answer of the other end.
const MEETING_MAX: Duration = Duration::from_millis(250);
/// The longest sleep while waiting for room.
const ROOM_NAP_MAX: Duration = Duration::from_millis(1);
/// How long publishing looks for room before it sleeps.
const ROOM_SPIN: Duration = Duration::from_micros(100);
/// The stack of the helper's thread, which calls little.
const HELPER_STACK_BYTES: usize = 256 << 10;

/// A road: it is closed when the last side of it is dropped.
struct Road {
    shared: Arc<Shared>,
    own: Arc<OwnThread>,
    helper: Option<JoinHandle<()>>,
    /// How long what was published last is waited for.
    linger: Duration,
    /// At the port of who listens, until the socket is closed.
    _place: Option<Place>,
}

impl Drop for Road {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        ring(&self.shared.helper_bell);
        if let Some(helper) = self.helper.take() {
            // One that panicked has let go of the road too.
            let _ = helper.join();
        }
        let deadline = Instant::now() + self.linger;
        let mut core = self.shared.core();
        core.flush(now());
        while core.is_owed() && Instant::now() < deadline {
            if !core.drive(true) && core.may_wait() {
                let left = core.node.poll_timeout().since(now()).min(ROOM_NAP_MAX);
                sleep_on(self.shared.socket.as_fd(), Some(left));
            }
        }
        core.close();
    }
}

/// Opens a UDP road, by batched calls or by a completion ring.
pub(crate) fn open(config: &RoadConfig, road: Transport) -> Result<Opened, BuildError> {
    Ok(sides(begin(config, road)?, config))
}

/// A road that was opened, and what became of what was asked for.
struct Begun {
    road: Arc<Road>,
    notes: Vec<String>,
    asked: Asked,
    /// Settings that were decided on when it was opened.
    chosen: Vec<SettingReport>,
}

/// Opens a road, and tells what took effect.
fn begin(config: &RoadConfig, road: Transport) -> Result<Begun, BuildError> {
    let batch_size = config.batch_size.unwrap_or(BATCH_DEFAULT) as usize;
    let Some(address) = config.addresses.first().copied() else {
        return Err(BuildError::NoHost { road });
    };
    let multicast = group::of(config, address.ip())?;
    let (local, side) = match config.side {
        _ if multicast.is_some() => (address, NodeSide::Group(address)),
        Side::Listen => (address, NodeSide::Listen),
        Side::Connect => (any_like(address), NodeSide::Connect(address)),
    };
    let options = TrainOptions {
        buffer_bytes: config.net.socket_buffer_bytes,
        busy_poll: config.net.busy_poll,
        connect: (config.side == Side::Connect && multicast.is_none()).then_some(address),
        batch_size,
        datagram_bytes_max: config.net.datagram_bytes,
        multicast,
    };
    let asked = Asked::new(&config.net, batch_size);
    let open = |given: Option<UdpSocket>| match road {
        Transport::IoUring => uring::bind(config, (local, given), &options),
        _ => {
            let bound = match given {
                Some(socket) => TrainSocket::around(socket, &options),
                None => TrainSocket::bind(local, &options),
            };
            let socket = bound.map_err(|source| BuildError::Bind { address: local, source })?;
            Ok(uring::Bound { socket, notes: Vec::new(), chosen: Vec::new() })
        }
    };
    let (opened, place) = if side == NodeSide::Listen {
        let tenant = Tenant::Topic(Door::of(&config.topic));
        let (opened, place) =
            port::bind(local, tenant, open, |it: &uring::Bound| it.socket.socket())?;
        (opened, Some(place))
    } else {
        (open(None)?, None)
    };
    let uring::Bound { socket, notes: ways, chosen } = opened;
    let packing = match multicast {
        Some(_) => None,
        None => Some(packing(config)?),
    };
    let node = node(config, side, batch_size, packing.as_ref());
    let mut notes = notes(config, &socket.report(), batch_size, multicast.is_some());
    notes.extend(ways);
    notes.extend(place.as_ref().and_then(|place| port::shared(place.others())));
    match &multicast {
        Some(multicast) => notes.extend(group::notes(config, multicast, road)),
        None => notes.extend(group::idle(config)),
    }
    if road != Transport::IoUring && (config.net.sqpoll, config.net.sqpoll_core) != (None, None) {
        notes.push("sqpoll has no effect without a completion ring".to_owned());
    }
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|_| BuildError::NoRandomness)?;
    let loss = config.net.injected_loss;
    let (node, inbox) = system::node(node, now())?;
    let mut core = Core::new(CoreParts {
        node,
        inbox,
        is_reliable: is_reliable(config),
        echo: (config.echo == Echo::On && config.receives())
            .then(|| crate::road::publisher_of(config.id)),
        batch_size,
        flush_interval: config.net.flush_interval,
        loss: (loss > 0.0).then(|| (loss, Stream::new(u64::from_le_bytes(seed), "loss", 0))),
        packing,
        socket,
    });
    if config.side == Side::Connect && multicast.is_none() && !meet(&mut core, config, address)? {
        notes.push(format!("nobody at {address} has answered yet; it goes on trying"));
    }
    Ok(Begun { road: start(core, config, place)?, notes, asked, chosen })
}

fn is_reliable(config: &RoadConfig) -> bool {
    config.reliability == Some(Reliability::Reliable)
}

/// What packs the road's messages.
fn packing(config: &RoadConfig) -> Result<Packing, BuildError> {
    let dictionary = config.dictionary.as_deref();
    let longest = config.message_bytes_max;
    Ok(Packing::new(config.compression, dictionary, stopwatch, longest)?)
}

/// What the road's machine is made with.
fn node(
    config: &RoadConfig,
    side: NodeSide,
    batch_size: usize,
    packing: Option<&Packing>,
) -> NodeConfig {
    let mut greeting = Greeting {
        id: config.id,
        publishes: config.publishes(),
        receives: config.receives(),
        reliable: is_reliable(config),
        message_bytes_max: u32::try_from(config.message_bytes_max).unwrap_or(u32::MAX),
        history: config.history,
        compressions: Compressions::NONE,
        packs: Compressions::NONE,
        dictionary: 0,
        topic: config.topic.clone(),
        identity: config.identity.clone(),
    };
    if let Some(packing) = packing {
        packing.greet(&mut greeting);
    }
    NodeConfig {
        datagram_bytes_max: config.net.datagram_bytes,
        chunks_max: batch_size,
        depth: config.depth,
        overflow: match config.policy {
            Policy::Overwrite => Overflow::DropOldest,
            _ => Overflow::DropNew,
        },
        offer: Offer { host: Host::own().map_or([0; 16], |host| host.digest()), ..Offer::NONE },
        seal: config.seal.clone(),
        ..NodeConfig::new(greeting, side)
    }
}

/// Whether something is on, off or refused.
fn said(offload: impl std::fmt::Debug) -> String {
    format!("{offload:?}").to_lowercase()
}

/// What took effect of what was asked for.
fn notes(
    config: &RoadConfig,
    report: &TrainReport,
    batch_size: usize,
    is_group: bool,
) -> Vec<String> {
    let asked = config.net.socket_buffer_bytes;
    let TrainReport { receive_buffer_bytes, send_buffer_bytes, .. } = *report;
    let mut notes = vec![
        match (is_reliable(config), config.policy) {
            (true, Policy::Overwrite) => "reliable: a full subscriber holds publishers back",
            (true, _) => {
                "reliable: a full subscriber holds publishers back, so policy has no effect"
            }
            (false, Policy::Overwrite) => "best effort: a full subscriber misses the oldest",
            (false, Policy::Block) => {
                "best effort: nobody waits for a full subscriber, which drops what is new"
            }
            (false, _) => "best effort: a full subscriber drops what is new",
        }
        .to_owned(),
        // The kernel doubles what it is asked for, for its own use.
        format!(
            "socket buffers of {asked} bytes were asked for, and {receive_buffer_bytes} to receive \
             and {send_buffer_bytes} to send are in effect"
        ),
        format!("up to {batch_size} datagrams of {} bytes a call", config.net.datagram_bytes),
        format!("segmentation {}, joining {}", said(report.segmentation), said(report.coalescing)),
    ];
    if let Some(time) = config.net.busy_poll {
        notes.push(format!(
            "busy polling for {time:?} is {}; it shortens waits on devices alone that have queues to \
             poll, not on loopback",
            said(report.busy_poll)
        ));
    }
    notes.push(match &config.seal {
        Some(seal) => format!("sealed with the topic's key, by {}", seal.cipher.name()),
        None => "not sealed: who can read the network reads the topic".to_owned(),
    });
    if let Some(core) = config.net.core {
        notes.push(format!("its thread runs on core {core}"));
    }
    if config.compression != Compression::None && !is_group {
        notes.push(format!("messages are packed where that pays: {:?}", config.compression));
    }
    if config.net.injected_loss > 0.0 {
        notes.push(format!("{} of the datagrams that come are dropped", config.net.injected_loss));
    }
    notes
}

/// Whether a meeting went well.
fn judge(met: Met, config: &RoadConfig, address: SocketAddr) -> Result<(), BuildError> {
    match met {
        Met::Joined => Ok(()),
        Met::Refused(Some(Disagreement::Type(theirs))) => Err(BuildError::AnotherType {
            topic: config.topic.clone(),
            theirs: theirs.to_string(),
            ours: config.identity.to_string(),
        }),
        Met::Refused(Some(Disagreement::Sealing(what))) => {
            Err(BuildError::Sealing { address, what })
        }
        Met::Refused(why) => {
            let why = why.map_or("it has no room for more".to_owned(), |why| why.to_string());
            Err(BuildError::Refused { address, why })
        }
    }
}

/// Goes to the other end; whether it answered in time.
fn meet(core: &mut Core, config: &RoadConfig, address: SocketAddr) -> Result<bool, BuildError> {
    let deadline = deadline_in(MEETING_MAX);
    core.await_answer(address);
    loop {
        core.drive(true);
        if let Some(error) = core.broken.take() {
            return Err(BuildError::Os(error));
        }
        if let Some((_, Some(met))) = core.awaited.pop_if(|(_, met)| met.is_some()) {
            judge(met, config, address)?;
            return Ok(true);
        }
        let now = Instant::now();
        let Some(left) = deadline.and_then(|at| at.checked_duration_since(now)) else {
            core.awaited.clear();
            return Ok(false);
        };
        let until_next = core.node.poll_timeout().since(self::now());
        if core.may_wait() {
            sleep_on(core.socket.fd(), Some(left.min(until_next)));
        }
    }
}

/// Starts the helper.
fn start(core: Core, config: &RoadConfig, place: Option<Place>) -> Result<Arc<Road>, BuildError> {
    let socket = core.socket.fd().try_clone_to_owned().map_err(BuildError::Os)?;
    let bell = twinspan_net::shm::bell().map_err(BuildError::Os)?;
    let either = watcher().map_err(BuildError::Os)?;
    watch(&either, &bell).map_err(BuildError::Os)?;
    let shared = Arc::new(Shared {
        core: Mutex::new(core),
        socket,
        bell,
        either,
        watches_socket: OnceLock::new(),
        helper_bell: twinspan_net::shm::bell().map_err(BuildError::Os)?,
        flush_interval: config.net.flush_interval.max(Duration::from_micros(10)),
        drives: AtomicU64::new(0),
        sleepers: AtomicU32::new(0),
        slept_until: AtomicU64::new(0),
        looks_at: AtomicU64::new(0),
        wanted_ns: AtomicU64::new(0),
        watches: AtomicBool::new(false),
        alert: AtomicU8::new(Left::Nothing as u8),
        is_armed: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
    });
    let own = Arc::new(OwnThread::new(config.net.core));
    let (helped, thread_own) = (Arc::clone(&shared), Arc::clone(&own));
    let helper = thread::Builder::new().name("hub-udp".into()).stack_size(HELPER_STACK_BYTES);
    let run = move || helper::run(&helped, &thread_own);
    let helper = helper.spawn(run).map_err(BuildError::Os)?;
    let (helper, linger) = (Some(helper), config.publish_timeout);
    Ok(Arc::new(Road { shared, own, helper, linger, _place: place }))
}

/// What the user's side of the hub is given.
fn sides(begun: Begun, config: &RoadConfig) -> Opened {
    let Begun { road, notes, asked, chosen } = begun;
    let outlet = UdpOutlet { road: Arc::clone(&road), publish_timeout: config.publish_timeout };
    let inlet = UdpInlet { road: Arc::clone(&road), naps: 0 };
    let peers = Arc::new(UdpPeers { road, config: config.clone(), asked, chosen });
    Opened {
        out: config.publishes().then(|| Box::new(outlet) as Box<dyn Outgoing>),
        inlet: config.receives().then(|| Box::new(inlet) as Box<dyn Incoming>),
        ways: (config.side == Side::Listen).then(|| Arc::clone(&peers) as _),
        peers,
        notes,
    }
}

struct UdpOutlet {
    road: Arc<Road>,
    publish_timeout: Duration,
}

/// How long publishing has waited for room.
struct RoomWait {
    began: Instant,
    /// Since when nothing came: while acks do, the next one is soon.
    quiet_since: Instant,
}

impl RoomWait {
    fn begin() -> Self {
        let began = Instant::now();
        Self { began, quiet_since: began }
    }
}

impl UdpOutlet {
    /// Waits until there may be room for a message.
    fn wait_for_room(&self, wait: &mut RoomWait) -> Result<(), PublishError> {
        let shared = &self.road.shared;
        let looked_at = Instant::now();
        if looked_at.duration_since(wait.began) >= self.publish_timeout {
            return Err(MemoryError::Stalled { waited: self.publish_timeout }.into());
        }
        shared.drives.fetch_add(1, Ordering::Relaxed);
        let left = {
            let mut core = shared.core();
            let came = core.drive(true);
            core.flush(now());
            shared.tell(&mut core);
            shared.hand_over(&core);
            core.check()?;
            if came {
                wait.quiet_since = looked_at;
            }
            if looked_at.duration_since(wait.quiet_since) < ROOM_SPIN || !core.may_wait() {
                return Ok(());
            }
            core.node.poll_timeout().since(now())
        };
        sleep_on(shared.socket.as_fd(), Some(left.min(ROOM_NAP_MAX)));
        Ok(())
    }
}

impl Outgoing for UdpOutlet {
    #[inline]
    fn publish(&mut self, bytes: &[u8], more: More) -> Result<u64, PublishError> {
        let shared = &self.road.shared;
        let mut wait = None;
        loop {
            let mut core = shared.core();
            match core.publish(bytes, more) {
                Ok(number) => {
                    shared.leave(&core);
                    let has_looked = core.take_looked();
                    if has_looked {
                        shared.drives.fetch_add(1, Ordering::Relaxed);
                    }
                    if core.echo.is_some() || has_looked {
                        shared.tell(&mut core);
                    }
                    core.check()?;
                    return Ok(number);
                }
                Err(Refusal::TooLong { have, max }) => {
                    return Err(MemoryError::TooLong { have, max }.into());
                }
                Err(_) => {}
            }
            drop(core);
            self.wait_for_room(wait.get_or_insert_with(RoomWait::begin))?;
        }
    }

    fn flush(&mut self) -> Result<(), PublishError> {
        let shared = &self.road.shared;
        let mut core = shared.core();
        core.flush(now());
        shared.hand_over(&core);
        core.check()
    }

    fn end_of_many(&mut self) -> Result<(), PublishError> {
        let shared = &self.road.shared;
        let mut core = shared.core();
        core.end_of_many();
        shared.leave(&core);
        core.check()
    }

    fn next_number(&self) -> u64 {
        self.road.shared.core().published
    }

    fn stats(&self) -> OutStats {
        OutStats { published: self.road.shared.core().published, dropped: 0 }
    }
}

struct UdpInlet {
    road: Arc<Road>,
    naps: u64,
}

impl Incoming for UdpInlet {
    #[inline]
    fn try_take(&mut self, room: &mut dyn Room) -> Option<Taken> {
        let shared = &self.road.shared;
        let mut core = shared.core();
        let drives = core.inbox.is_empty();
        if drives {
            shared.drives.fetch_add(1, Ordering::Relaxed);
        }
        let found = core.take(room);
        if found.is_some() {
            shared.pass_on(&mut core);
        }
        shared.hand_over_look(&core, drives && found.is_some());
        found
    }

    fn sleep(&mut self, limit: Option<Duration>) {
        let shared = &self.road.shared;
        shared.sleepers.fetch_add(1, Ordering::SeqCst);
        let next = {
            let mut core = shared.core();
            let next = core.settle();
            shared.slept_until.store(next.as_nanos(), Ordering::SeqCst);
            // What is left of the last call to the kernel tells nobody that it is there.
            let is_ready = !core.inbox.is_empty() || !core.may_wait();
            (!is_ready).then_some(next)
        };
        if let Some(next) = next {
            self.naps += 1;
            let until_next = next.since(now());
            let limit = limit.map_or(until_next, |limit| limit.min(until_next));
            let [_, is_rung] =
                sleep_on_either([shared.socket.as_fd(), shared.bell.as_fd()], Some(limit));
            if is_rung {
                let _core = shared.core();
                quiet(&shared.bell);
                // It rang for who gave the descriptor to an epoll, too, or by who was kept out by this thread
                // and has not seen it yet: what rings next rings for them.
                shared.is_armed.store(true, Ordering::SeqCst);
            }
        }
        shared.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake(&mut self, waker: &Waker) {
        let shared = &self.road.shared;
        shared.core().wakers.leave(waker);
        shared.want();
    }

    fn arm(&mut self) -> bool {
        let shared = &self.road.shared;
        shared.drives.fetch_add(1, Ordering::Relaxed);
        let mut core = shared.core();
        shared.arm();
        core.drive(false);
        shared.hand_over(&core);
        core.inbox.is_empty() && core.may_wait()
    }

    fn take_or_arm(&mut self, room: &mut dyn Room) -> Option<Taken> {
        let shared = &self.road.shared;
        let mut core = shared.core();
        shared.arm();
        loop {
            let drives = core.inbox.is_empty();
            if drives {
                shared.drives.fetch_add(1, Ordering::Relaxed);
            }
            let found = core.take(room);
            if found.is_some() {
                shared.pass_on(&mut core);
                shared.hand_over_look(&core, drives);
            } else if core.may_wait() {
                // An epoll wakes for nothing that is due.
                shared.hand_over(&core);
            } else {
                continue;
            }
            return found;
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.road.shared.either.as_fd()
    }

    fn bell(&self) -> BorrowedFd<'_> {
        self.road.shared.bell.as_fd()
    }

    fn stats(&self) -> InStats {
        let stats = self.road.shared.core().inbox.stats();
        InStats { taken: stats.taken, lost: stats.lost, corrupt: stats.corrupt, naps: self.naps }
    }
}

struct UdpPeers {
    road: Arc<Road>,
    config: RoadConfig,
    asked: Asked,
    chosen: Vec<SettingReport>,
}

impl Ways for UdpPeers {
    fn bound(&self) -> (SocketAddr, Option<Fingerprint>) {
        (self.road.shared.core().socket.local_addr(), None)
    }

    fn call(&self, to: &Callee) -> Result<(), BuildError> {
        let shared = &self.road.shared;
        let mut core = shared.core();
        if to.id.is_none() {
            core.await_answer(to.address);
        }
        if !core.node.call(now(), to.address) {
            let (setting, value) = ("the number of peers", "more".to_owned());
            return Err(BuildError::Setting { setting, value, range: "64 at most" });
        }
        core.transmit(now());
        drop(core);
        ring(&shared.helper_bell);
        Ok(())
    }

    fn hang_up(&self, to: &Callee) {
        self.road.shared.core().node.hang_up(to.address);
    }

    fn settle(&self) -> Result<Vec<String>, BuildError> {
        let deadline = Instant::now() + MEETING_MAX;
        loop {
            let until_next = {
                let shared = &self.road.shared;
                let mut core = shared.core();
                core.drive(true);
                shared.hand_over(&core);
                for (address, met) in std::mem::take(&mut core.awaited) {
                    match met {
                        Some(met) => judge(met, &self.config, address)?,
                        // It came first, or is met at another address.
                        None if core.node.is_met(address) => {}
                        None => core.await_answer(address),
                    }
                }
                if core.awaited.is_empty() || Instant::now() >= deadline {
                    let silent = std::mem::take(&mut core.awaited);
                    let note = |address| {
                        format!("nobody at {address} has answered yet; it goes on trying")
                    };
                    return Ok(silent.into_iter().map(|(address, _)| note(address)).collect());
                }
                core.node.poll_timeout().since(now())
            };
            let left = deadline.saturating_duration_since(Instant::now());
            // The road's own thread may take the answer: look again soon.
            let nap = left.min(until_next).min(ROOM_NAP_MAX);
            sleep_on(self.road.shared.socket.as_fd(), Some(nap));
        }
    }
}

impl Peers for UdpPeers {
    fn subscribers(&self) -> usize {
        self.road.shared.core().node.subscribers()
    }

    fn publishers(&self) -> usize {
        self.road.shared.core().node.publishers()
    }

    fn ended(&self) -> u64 {
        self.road.shared.core().node.stats().ended
    }

    fn declined(&self) -> (u64, Option<Declined>) {
        let core = self.road.shared.core();
        (core.node.stats().refused, core.declined.clone())
    }

    fn compression(&self) -> Option<CompressionStats> {
        self.road.shared.core().compression()
    }

    fn settings(&self) -> Vec<SettingReport> {
        let report = self.road.shared.core().socket.report();
        let mut settings = self.asked.settings(&report);
        settings.push(self.road.own.setting());
        settings.extend(self.chosen.iter().cloned());
        settings
    }
}

#[cfg(test)]
mod tests;
