//! The server under load, a process of its own: the world server as users run it, or sessions alone.

mod counters;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use twinspan_core::aead::Cipher;
use twinspan_core::time::Timestamp;
use twinspan_game::{
    RelayDoor, ServeOptions, ServerConfig, ServerHandle, serve_with, session_defaults,
};
use twinspan_provider::IoPath;
use twinspan_relay::{PortConfig, TrunkKey};
use twinspan_session::UserId;

use crate::clock::Clock;
use crate::error::BenchError;
use crate::lines::Parent;
use crate::memory::{self, Memory};
use crate::plan::{ServerEnd, ServerOrder, ServerPlan, ServerReady, ServerReport, Window};
use crate::process;
use crate::transport::TransportHandle;
use counters::Counters;

/// A little more than the time between two publications of a server's counters.
const COUNTERS_AGE_MAX: Duration = Duration::from_millis(1_050);
/// How often the counters are read in a window, as whoever scrapes metrics does.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

/// What has grown after so long goes on growing.
const MINUTE: Duration = Duration::from_secs(60);

/// Runs the server as its parent says.
///
/// # Errors
/// [`BenchError`] when it cannot run or the parent is not to be understood.
pub fn run() -> Result<(), BenchError> {
    memory::begin();
    let mut parent = Parent::default();
    let plan: ServerPlan = parent.hear()?;
    let priority = plan.placement.apply()?;
    let server = Running::start(&plan)?;
    plan.placement.go_first();
    let users = (0..plan.tokens).map(|user| UserId(u64::from(user)));
    let tokens = users.map(|user| server.token(user)).collect();
    let mut ready = server.ready();
    ready.priority = priority;
    ready.tokens = tokens;
    parent.tell(&ready)?;
    // What the tokens took must not count as given back by the sessions.
    drop(ready);
    // Nor must what is measured with.
    let mut counters = [Counters::default(), Counters::default(), Counters::default()];
    let idle = Memory::now();
    loop {
        match parent.hear()? {
            ServerOrder::Measure(window) => {
                let mut report = measure(&server, &window, &mut counters);
                report.live_bytes_before = idle.map(|memory| memory.live_bytes);
                parent.tell(&report)?;
            }
            ServerOrder::End => {
                let [last, ..] = &mut counters;
                server.read(last);
                return parent.tell(&ServerEnd {
                    reliable_sent: last.reliable_sent,
                    reliable_received: last.reliable_received,
                    out_of_order: last.out_of_order,
                    closed: last.closed,
                });
            }
        }
    }
}

/// The server at work.
enum Running {
    World(ServerHandle),
    Transport(TransportHandle),
}

impl Running {
    fn start(plan: &ServerPlan) -> Result<Self, BenchError> {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sessions_max = plan.sessions_max as usize;
        if let Some(state_bytes) = plan.transport_state_bytes {
            let mut session = session_defaults();
            session.sessions_max = sessions_max;
            session.spent_tokens_max = session.spent_tokens_max.max(2 * plan.tokens as usize);
            let bytes = state_bytes as usize;
            return Ok(Self::Transport(TransportHandle::start(local, session, bytes)?));
        }
        let mut config = ServerConfig::for_players(plan.players);
        config.session.sessions_max = config.session.sessions_max.max(sessions_max);
        let spent_max = &mut config.session.spent_tokens_max;
        *spent_max = (*spent_max).max(2 * plan.tokens as usize);
        let relay = plan.relay.as_ref().map(|relay| RelayDoor {
            listen: local,
            port: PortConfig {
                relays: relay.addresses.clone(),
                keys: TrunkKey::from_bytes(relay.key).into(),
                pad_to: relay.pad_to,
            },
            only: true,
        });
        // Not the measured path: figures of one run shall compare with those of the next.
        let io_path = IoPath::Usual;
        let options = ServeOptions { relay, io_path, ..ServeOptions::new(local, config) };
        Ok(Self::World(serve_with(options)?))
    }

    fn ready(&self) -> ServerReady {
        let (address, epoch_nanos, socket) = match self {
            Self::World(server) => (server.address(), server.epoch_nanos(), server.socket()),
            Self::Transport(server) => (server.address(), server.epoch_nanos(), server.socket()),
        };
        ServerReady {
            address,
            epoch_nanos,
            io_path: socket.path.to_owned(),
            gro: socket.coalescing == twinspan_provider::Offload::On,
            priority: String::new(),
            tokens: Vec::new(),
            resident_bytes: process::resident_bytes().unwrap_or(0),
        }
    }

    fn token(&self, user: UserId) -> String {
        match self {
            Self::World(server) => server.token(user).to_text(),
            Self::Transport(server) => server.token(user),
        }
    }

    fn clock(&self) -> Clock {
        Clock::new(match self {
            Self::World(server) => server.epoch_nanos(),
            Self::Transport(server) => server.epoch_nanos(),
        })
    }

    /// Copies the counters as last published, without allocating.
    fn read(&self, out: &mut Counters) {
        match self {
            Self::World(server) => {
                server.with_stats(|stats| out.copy_world(stats));
                out.copy_traffic(server.traffic());
            }
            Self::Transport(server) => server.counts(&mut out.transport),
        }
        out.is_world = matches!(self, Self::World(_));
        out.settle();
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn measure(server: &Running, window: &Window, counters: &mut [Counters; 3]) -> ServerReport {
    let clock = server.clock();
    let [first, last, scraped] = counters;
    let from = Timestamp::from_nanos(window.from_nanos);
    let to = Timestamp::from_nanos(window.to_nanos);
    clock.wait_until(from);
    let waited_before = process::waited_time().unwrap_or_default();
    let cpu_before = process::cpu_time();
    let memory_before = Memory::now();
    // The counters are those of the next publication, and the traffic that of this moment.
    server.read(scraped);
    let next = from.after(COUNTERS_AGE_MAX).min(to);
    clock.wait_until(next);
    server.read(first);
    let mut at = next;
    let mut ticks_per_state_max = first.ticks_per_state;
    let mut after_minute_one = None;
    let mut allocations_of_ours = 0;
    while at.after(SCRAPE_INTERVAL) < to {
        at = at.after(SCRAPE_INTERVAL);
        clock.wait_until(at);
        server.read(last);
        ticks_per_state_max = ticks_per_state_max.max(last.ticks_per_state);
        if after_minute_one.is_none() && at >= from.after(MINUTE) {
            // To ask takes memory, which is not the server's.
            let before = Memory::now().unwrap_or_default().allocations;
            after_minute_one = process::resident_bytes();
            allocations_of_ours = Memory::now().unwrap_or_default().allocations - before;
        }
    }
    clock.wait_until(to);
    let memory = Memory::now();
    let cpu = process::cpu_time().saturating_sub(cpu_before);
    let waited = process::waited_time().unwrap_or_default().saturating_sub(waited_before);
    let resident_bytes = process::resident_bytes().unwrap_or(0);
    clock.wait_until(to.after(COUNTERS_AGE_MAX));
    server.read(last);
    let mut report = last.since(first);
    // Looked at once a second: a stretch lasts five at least.
    report.ticks_per_state_max = ticks_per_state_max.max(last.ticks_per_state);
    report.cpu_nanos = nanos(cpu);
    report.waited_nanos = nanos(waited);
    report.allocations = memory
        .zip(memory_before)
        .map(|(after, before)| after.allocations - before.allocations)
        .map(|count| count.saturating_sub(allocations_of_ours));
    report.resident_bytes_after_minute_one = after_minute_one;
    report.live_bytes = memory.map(|memory| memory.live_bytes);
    report.resident_bytes = resident_bytes;
    report.resident_bytes_max = process::resident_bytes_max().unwrap_or(0);
    report
}

/// The name of a cipher, and whether it encrypts.
fn cipher_facts(cipher: Option<Cipher>) -> (String, bool) {
    (cipher.map_or("none", Cipher::name).to_owned(), cipher.is_some_and(Cipher::encrypts))
}
