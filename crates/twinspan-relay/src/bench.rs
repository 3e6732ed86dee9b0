//! How much a relay forwards, beside a forwarder that does nothing but move datagrams.
//!
//! One thread forwards on a core of its own; another, on another core, plays players and server: it
//! sends as fast as it can in both directions, three datagrams up for one down as in a game, and
//! takes what comes. Forwarders take turns within one run, and what is compared is the processor
//! time of the forwarding thread for each datagram that it handed on.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_net::{
    BareSocket, SchedulingClass, lock, request_fifo, scheduling_class, thread_cpu_time,
};
use twinspan_provider::{BindError, UdpError, UdpOptions};

use crate::config::RelayConfig;
use crate::error::RelayError;
use crate::frame::encode;
use crate::key::{Direction, TrunkKey, TrunkTag, TrunkTags};
use crate::real::{Place, RelayOptions, start};

/// Datagrams in one batch of the bare forwarder: what one receive call takes.
const BATCH_DATAGRAMS: usize = 64;
/// Flows of the players.
const FLOWS: usize = 16;
/// Datagrams that one flow sends at once, all of one length.
const BURST_UP: usize = 12;
/// Datagrams that the server sends at once.
const BURST_DOWN: usize = 64;
/// What waits in each socket: the generator must not lose what the forwarder handed on.
const BUFFER_BYTES: usize = 8 << 20;
/// Time at the start of each turn that does not count.
const WARM_UP: Duration = Duration::from_millis(300);
/// What both threads ask for: ahead of what else runs on the machine.
const FIFO_PRIORITY: u8 = 10;
/// What the bare forwarder publishes every so many looks.
const LOOKS_PER_PUBLICATION: u32 = 32;

/// What is measured and where.
#[derive(Clone, Copy, Debug)]
pub struct BenchOptions {
    /// Turns of each forwarder.
    pub rounds: u32,
    /// How long a turn counts.
    pub window: Duration,
    /// The core that forwards and the one that plays; `None` leaves it to the system.
    pub cores: Option<(usize, usize)>,
    /// Whether to ask for the first-in-first-out scheduling class.
    pub fifo: bool,
    /// Datagrams offered a second; `None` for as many as the player can send.
    pub offered_per_second: Option<u32>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            rounds: 5,
            window: Duration::from_secs(1),
            cores: Some((0, 1)),
            fifo: true,
            offered_per_second: None,
        }
    }
}

/// One forwarder's figures: medians over its turns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forwarded {
    /// Processor time for one datagram, in nanoseconds.
    pub cpu_ns: f64,
    /// Datagrams handed on a second.
    pub per_second: f64,
    /// Share of its core that the forwarder used.
    pub core_share: f64,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct BenchReport {
    /// The bare forwarder: one call receives up to 64 datagrams, one call sends them.
    pub bare: Forwarded,
    /// The bare forwarder with the kernel's runs on the server's side, as the relay uses them.
    pub bare_with_runs: Forwarded,
    /// The relay.
    pub relay: Forwarded,
    /// Datagrams to and from clients that one second of processor time moves, relay over bare.
    pub ratio_to_bare: f64,
    /// The same over the bare forwarder with runs.
    pub ratio_to_bare_with_runs: f64,
    /// Scheduling class of the forwarding thread.
    pub priority: String,
    /// Turns of each forwarder.
    pub rounds: u32,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A socket could not be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A socket failed.
    #[error(transparent)]
    Socket(#[from] UdpError),
    /// The relay could not be started.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The operating system refused something.
    #[error("cannot measure: {0}")]
    Os(#[from] std::io::Error),
    /// Nothing was forwarded.
    #[error("{0} forwarded nothing; is the loopback interface up?")]
    Nothing(&'static str),
}

/// What takes its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bare,
    BareWithRuns,
    Relay,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Bare, Self::BareWithRuns, Self::Relay];

    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "the bare forwarder",
            Self::BareWithRuns => "the bare forwarder with runs",
            Self::Relay => "the relay",
        }
    }
}

/// Measures; `on_turn` hears of each turn as it ends.
///
/// # Errors
/// [`BenchError`] says what could not be had.
pub fn run(
    options: BenchOptions,
    on_turn: &mut dyn FnMut(&str, Forwarded),
) -> Result<BenchReport, BenchError> {
    let (class, places) = places(options)?;
    let (told_tx, told_rx) = mpsc::channel();
    // A thread of its own, so that the caller's core and class stay as they are.
    let playing = thread::Builder::new().name("bench-relay".into()).spawn(move || {
        let mut turns = Vec::new();
        for round in 0..options.rounds.max(1) {
            // Not always in the same order, lest one of them always follows the dearest.
            for step in 0..Kind::ALL.len() {
                let at = (round as usize + step) % Kind::ALL.len();
                let kind = *Kind::ALL.get(at).unwrap_or(&Kind::Relay);
                let forwarded = turn(kind, options, places)?;
                turns.push((kind, forwarded));
                // Whoever asked may have left; the figures are returned all the same.
                let _ = told_tx.send((kind, forwarded));
            }
        }
        Ok::<_, BenchError>(turns)
    })?;
    for (kind, forwarded) in told_rx {
        on_turn(kind.name(), forwarded);
    }
    let turns = match playing.join() {
        Ok(turns) => turns?,
        Err(_) => return Err(std::io::Error::other("the measuring thread panicked").into()),
    };
    let median_of = |kind: Kind| -> Forwarded {
        let of_kind: Vec<_> =
            turns.iter().filter(|(turn, _)| *turn == kind).map(|(_, one)| *one).collect();
        Forwarded {
            cpu_ns: median(of_kind.iter().map(|one| one.cpu_ns)),
            per_second: median(of_kind.iter().map(|one| one.per_second)),
            core_share: median(of_kind.iter().map(|one| one.core_share)),
        }
    };
    let [bare, bare_with_runs, relay] = Kind::ALL.map(median_of);
    Ok(BenchReport {
        ratio_to_bare: bare.cpu_ns / relay.cpu_ns,
        ratio_to_bare_with_runs: bare_with_runs.cpu_ns / relay.cpu_ns,
        bare,
        bare_with_runs,
        relay,
        priority: class.to_string(),
        rounds: options.rounds.max(1),
    })
}

/// The places of the player and the forwarder, and the class that both get.
fn places(options: BenchOptions) -> Result<(SchedulingClass, (Place, Place)), BenchError> {
    // Asked for by a thread that ends at once: what is refused is reported, not insisted on.
    let asked = thread::spawn(move || {
        let granted = options.fifo && request_fifo(FIFO_PRIORITY).is_ok();
        (granted, scheduling_class())
    });
    let Ok((granted, class)) = asked.join() else {
        return Err(std::io::Error::other("asking for a scheduling class panicked").into());
    };
    let fifo_priority = granted.then_some(FIFO_PRIORITY);
    let (there, here) = options.cores.unzip();
    Ok((class, (Place { core: here, fifo_priority }, Place { core: there, fifo_priority })))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// What a forwarding thread did so far.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    datagrams: u64,
    cpu: Duration,
}

/// A forwarder under way.
struct Forwarder {
    clients: SocketAddr,
    progress: Box<dyn Fn() -> Progress>,
    stop: Box<dyn FnOnce() -> Result<(), BenchError>>,
}

fn turn(
    kind: Kind,
    options: BenchOptions,
    places: (Place, Place),
) -> Result<Forwarded, BenchError> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let flow_options = UdpOptions {
        receive_buffer_bytes: BUFFER_BYTES,
        send_buffer_bytes: BUFFER_BYTES,
        coalesce_receives: true,
        ..UdpOptions::default()
    };
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        flows.push(BareSocket::bind(loopback, &flow_options)?);
    }
    let server = BareSocket::bind(loopback, &flow_options)?;
    // The forwarder's side of the trunk, known before it is bound: the server sends there.
    let trunk = BareSocket::bind(loopback, &UdpOptions::default())?.local_addr();
    let clients: Vec<_> = flows.iter().map(BareSocket::local_addr).collect();
    let key = TrunkKey::from_bytes([7; 32]);
    let (here, there) = places;
    let server_addr = server.local_addr();
    let forwarder = match kind {
        Kind::Relay => start_relay(there, trunk, server_addr, key.clone())?,
        _ => start_bare(kind, there, trunk, server_addr, clients)?,
    };
    here.take()?;
    let tag = TrunkTags::new(&key, None, Direction::ToRelay).present();
    let tag = (kind == Kind::Relay).then_some(tag);
    let per_exchange = (FLOWS * BURST_UP + BURST_DOWN) as u32;
    let pause = options
        .offered_per_second
        .map_or(Duration::ZERO, |rate| Duration::from_secs(1) * per_exchange / rate.max(1));
    let mut load = Load {
        flows,
        server,
        trunk,
        clients_at: forwarder.clients,
        tag,
        round: 0,
        next_at: Instant::now(),
        pause,
    };
    let measured = load.play(&forwarder, options.window);
    (forwarder.stop)()?;
    let (from, to, wall) = measured?;
    let datagrams = (to.datagrams - from.datagrams) as f64;
    if datagrams == 0.0 {
        return Err(BenchError::Nothing(kind.name()));
    }
    let cpu = to.cpu.saturating_sub(from.cpu).as_secs_f64();
    Ok(Forwarded {
        cpu_ns: cpu * 1e9 / datagrams,
        per_second: datagrams / wall.as_secs_f64(),
        core_share: cpu / wall.as_secs_f64(),
    })
}

/// Players and server in one: sends in both directions and takes what comes.
struct Load {
    flows: Vec<BareSocket>,
    server: BareSocket,
    trunk: SocketAddr,
    clients_at: SocketAddr,
    tag: Option<TrunkTag>,
    round: usize,
    /// When the next burst is due, and the time between two.
    next_at: Instant,
    pause: Duration,
}

impl Load {
    /// Plays for the warm-up and the window; what the forwarder had done at the window's ends.
    fn play(
        &mut self,
        forwarder: &Forwarder,
        window: Duration,
    ) -> Result<(Progress, Progress, Duration), BenchError> {
        self.play_for(WARM_UP)?;
        let (from, began) = self.settled(forwarder)?;
        self.play_for(window)?;
        let (to, ended) = self.settled(forwarder)?;
        Ok((from, to, ended - began))
    }

    /// Plays on until the forwarder publishes anew.
    fn settled(&mut self, forwarder: &Forwarder) -> Result<(Progress, Instant), BenchError> {
        let last = (forwarder.progress)();
        let give_up = Instant::now() + Duration::from_secs(2);
        loop {
            self.exchange()?;
            let progress = (forwarder.progress)();
            if progress.cpu != last.cpu || Instant::now() > give_up {
                return Ok((progress, Instant::now()));
            }
        }
    }

    fn play_for(&mut self, time: Duration) -> Result<(), BenchError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.exchange()?;
        }
        Ok(())
    }

    fn exchange(&mut self) -> Result<(), BenchError> {
        let now = Instant::now();
        if now < self.next_at {
            return self.receive();
        }
        // What could not be sent in time is left out, not made up for in one burst.
        self.next_at = (self.next_at + self.pause).max(now);
        self.round += 1;
        let mut batch = DatagramBatch::new(1_024);
        for (index, flow) in self.flows.iter_mut().enumerate() {
            // Inputs of a game differ by their acks: 64 to 111 bytes.
            let len = 64 + (self.round * 7 + index * 13) % 48;
            for _ in 0..BURST_UP {
                push(flow.pool(), &mut batch, self.clients_at, len, None);
            }
            flow.send(&mut batch)?;
            batch.clear();
        }
        for index in 0..BURST_DOWN {
            // States differ by what is in sight: 200 to 599 bytes, sorted as a server's port does.
            let len = 599 - (index * 400 / BURST_DOWN) / 32 * 32 - self.round % 32;
            let client = self.flows.get((index + self.round) % FLOWS).map(BareSocket::local_addr);
            let name = self.tag.zip(client);
            push(self.server.pool(), &mut batch, self.trunk, len, name);
        }
        self.server.send(&mut batch)?;
        self.receive()
    }

    fn receive(&mut self) -> Result<(), BenchError> {
        let mut batch = DatagramBatch::new(1_024);
        for socket in self.flows.iter_mut().chain([&mut self.server]) {
            // What is left stays for the next time: the load must not wait for one socket.
            socket.recv(&mut batch)?;
            batch.clear();
        }
        Ok(())
    }
}

/// Adds a datagram that looks sealed, named for a client when it goes over a trunk.
fn push(
    pool: &PacketPool,
    batch: &mut DatagramBatch,
    peer: SocketAddr,
    len: usize,
    name: Option<(TrunkTag, SocketAddr)>,
) {
    let Some(mut packet) = pool.take() else { return };
    packet.set_len(len);
    packet.iter_mut().take(14).for_each(|byte| *byte = 0x40);
    if let Some((tag, client)) = name
        && !encode(&mut packet, client, 32, tag)
    {
        return;
    }
    // There is room for a burst.
    drop(batch.push(Datagram { peer, at: Timestamp::START, packet }));
}

fn start_relay(
    place: Place,
    trunk: SocketAddr,
    server: SocketAddr,
    key: TrunkKey,
) -> Result<Forwarder, BenchError> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut options = RelayOptions::new(loopback, RelayConfig::new(server, key));
    options.trunk = Some(trunk);
    options.clients_udp.receive_buffer_bytes = BUFFER_BYTES;
    options.trunk_udp.receive_buffer_bytes = BUFFER_BYTES;
    options.place = place;
    let relay = Rc::new(start(options)?);
    let (clients, shown) = (relay.address(), Rc::clone(&relay));
    let progress = move || {
        let report = shown.report();
        let datagrams = report.stats.to_server + report.stats.to_clients;
        Progress { datagrams, cpu: report.cpu }
    };
    let stop = move || {
        // The last handle: the relay ends with it.
        drop(relay);
        Ok(())
    };
    Ok(Forwarder { clients, progress: Box::new(progress), stop: Box::new(stop) })
}

#[derive(Default)]
struct BareShared {
    stop: AtomicBool,
    progress: Mutex<Progress>,
}

/// The bare forwarder: what came from clients goes to the server, what came from the server goes to
/// the clients in turn.
fn start_bare(
    kind: Kind,
    place: Place,
    trunk: SocketAddr,
    server: SocketAddr,
    flows: Vec<SocketAddr>,
) -> Result<Forwarder, BenchError> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let with_runs = kind == Kind::BareWithRuns;
    let shared = Arc::new(BareShared::default());
    let (told_tx, told_rx) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("bench-bare".into()).spawn({
        let shared = Arc::clone(&shared);
        move || {
            place.take()?;
            let options = UdpOptions {
                receive_buffer_bytes: BUFFER_BYTES,
                segment_sends: false,
                ..UdpOptions::default()
            };
            let trunk_options =
                UdpOptions { segment_sends: with_runs, coalesce_receives: with_runs, ..options };
            let open = BareSocket::bind(loopback, &options)?;
            let trunk = BareSocket::bind(trunk, &trunk_options)?;
            // Whoever started this waits for it.
            let _ = told_tx.send(open.local_addr());
            forward(open, trunk, server, &flows, &shared)
        }
    })?;
    let ended = |thread: thread::JoinHandle<_>| match thread.join() {
        Ok(ended) => ended,
        Err(_) => Err(std::io::Error::other("the bare forwarder panicked").into()),
    };
    let Ok(clients) = told_rx.recv() else {
        ended(thread)?;
        return Err(std::io::Error::other("the bare forwarder ended at once").into());
    };
    let shown = Arc::clone(&shared);
    let progress = move || *lock(&shown.progress);
    let stop = move || {
        shared.stop.store(true, Ordering::Relaxed);
        ended(thread)
    };
    Ok(Forwarder { clients, progress: Box::new(progress), stop: Box::new(stop) })
}

fn forward(
    mut open: BareSocket,
    mut trunk: BareSocket,
    server: SocketAddr,
    flows: &[SocketAddr],
    shared: &BareShared,
) -> Result<(), BenchError> {
    let mut batch = DatagramBatch::new(BATCH_DATAGRAMS);
    let (mut next, mut looks) = (0, 0);
    let mut datagrams = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut moved = open.recv(&mut batch)?;
        batch.iter_mut().for_each(|datagram| datagram.peer = server);
        trunk.send(&mut batch)?;
        batch.clear();
        moved += trunk.recv(&mut batch)?;
        for datagram in batch.iter_mut() {
            next = (next + 1) % flows.len().max(1);
            datagram.peer = flows.get(next).copied().unwrap_or(server);
        }
        open.send(&mut batch)?;
        batch.clear();
        datagrams += moved as u64;
        looks += 1;
        if looks % LOOKS_PER_PUBLICATION == 0
            && let Ok(mut progress) = shared.progress.try_lock()
        {
            *progress = Progress { datagrams, cpu: thread_cpu_time() };
        }
        if moved == 0 {
            open.wait(Some(Duration::from_millis(1)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_forwarder_takes_its_turn_and_forwards() {
        let options = BenchOptions {
            rounds: 1,
            window: Duration::from_millis(50),
            cores: None,
            fifo: false,
            offered_per_second: Some(100_000),
        };
        let mut turns = Vec::new();
        let report = run(options, &mut |name, _| turns.push(name.to_owned())).unwrap();
        assert_eq!(turns, Kind::ALL.map(Kind::name));
        for one in [report.bare, report.bare_with_runs, report.relay] {
            assert!(one.cpu_ns > 0.0 && one.per_second > 0.0 && one.core_share > 0.0, "{one:?}");
        }
        assert!(report.ratio_to_bare > 0.0 && report.ratio_to_bare_with_runs > 0.0);
    }
}
