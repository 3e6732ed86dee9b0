//! `twinspan proxy`: the simulator's link model between real programs.

mod config;
mod link;
mod tcp;
#[cfg(target_os = "linux")]
mod tun;
mod udp;

use std::cell::Cell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::{JoinSet, LocalSet};
use twinspan_core::link::FaultCounters;

use crate::args::ProxyArgs;
use crate::error::CommandError;
use crate::output::print;
use crate::settings_file::SettingsFileError;
use crate::signals::Signals;
use config::{Cable, Config, Protocol};
use link::{Clock, SharedLink};

/// How often signals are looked at.
const TURN: Duration = Duration::from_millis(50);

/// Why a proxy cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Its conditions cannot be used.
    #[error(transparent)]
    File(#[from] SettingsFileError),
    /// It cannot listen.
    #[error("cannot listen at {address} ({protocol}): {error}; choose another `listen`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// For what.
        protocol: &'static str,
        /// Why.
        error: io::Error,
    },
    /// It cannot make tun devices.
    #[error(
        "cannot make the tun devices {one:?} and {other:?}: {error}; it takes Linux, /dev/net/tun and \
         the right to configure networks"
    )]
    Devices {
        /// The name of the one.
        one: String,
        /// Of the other.
        other: String,
        /// Why.
        error: io::Error,
    },
    /// There is no runtime for it.
    #[error("cannot wait for sockets: {0}")]
    Runtime(io::Error),
}

/// What one way counts besides what its links do.
#[derive(Clone, Default)]
struct Counters {
    shared: Rc<Counts>,
}

#[derive(Default)]
struct Counts {
    begun: Cell<u64>,
    refused: Cell<u64>,
    overflowed: Cell<u64>,
}

impl Counters {
    /// One more client or connection.
    fn begin(&self) {
        self.shared.begun.set(self.shared.begun.get() + 1);
    }

    /// One more that found no room.
    fn refuse(&self) {
        self.shared.refused.set(self.shared.refused.get() + 1);
    }

    /// One more datagram that found no room.
    fn overflow(&self) {
        self.shared.overflowed.set(self.shared.overflowed.get() + 1);
    }
}

/// Does something when it is dropped, however that came.
struct Tasks<F: FnMut()>(F);

impl<F: FnMut()> Tasks<F> {
    fn new(end: F) -> Self {
        Self(end)
    }
}

impl<F: FnMut()> Drop for Tasks<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A way that is carried.
struct Carried {
    protocol: &'static str,
    /// Where it begins and where it leads: addresses, or devices.
    listen: String,
    to: String,
    up: SharedLink,
    down: SharedLink,
    counters: Counters,
}

/// What all ways came to.
#[derive(Debug, Serialize)]
struct Ways<'a> {
    ways: &'a [WaySummary],
}

/// What a way came to.
#[derive(Debug, Serialize)]
struct WaySummary {
    protocol: &'static str,
    listen: String,
    to: String,
    /// Clients or connections.
    begun: u64,
    refused: u64,
    overflowed: u64,
    up: LinkSummary,
    down: LinkSummary,
}

/// What a link did.
#[derive(Debug, Serialize)]
struct LinkSummary {
    /// Datagrams or pieces of streams that came through, second copies included.
    passed: u64,
    /// Each fault that was injected, and how often it had an effect.
    faults: Vec<(&'static str, u64, u64)>,
}

impl LinkSummary {
    fn new((passed, faults): (u64, FaultCounters)) -> Self {
        let faults = faults.iter().filter(|(_, injected, _)| *injected > 0);
        let faults = faults.map(|(kind, injected, effect)| (kind.name(), injected, effect));
        Self { passed, faults: faults.collect() }
    }
}

/// Runs a proxy until it is told to stop.
///
/// # Errors
/// [`CommandError`] when it cannot start, or cannot say what came of it.
pub fn run(args: &ProxyArgs) -> Result<u8, CommandError> {
    let config = Config::read(&args.conditions).map_err(ProxyError::from)?;
    let signals = Signals::catch()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ProxyError::Runtime)?;
    let summary = LocalSet::new().block_on(&runtime, carry_all(args, &config, &signals))?;
    print(&Ways { ways: &summary }, args.json, |found| text(found.ways))?;
    Ok(0)
}

async fn carry_all(
    args: &ProxyArgs,
    config: &Config,
    signals: &Signals,
) -> Result<Vec<WaySummary>, CommandError> {
    let clock = Clock::start();
    let mut tasks = JoinSet::new();
    let mut carried = Vec::new();
    for (way, id) in config.ways.iter().zip((0_u64..).step_by(2)) {
        let up = SharedLink::new(config.seed, id, way.up);
        let down = SharedLink::new(config.seed, id + 1, way.down);
        let (links, counters) = ((up.clone(), down.clone()), Counters::default());
        let rest = (clock, counters.clone());
        let protocol = way.protocol;
        let failed =
            |error| ProxyError::Listen { address: way.listen, protocol: protocol.name(), error };
        let shared = Rc::new(way.clone());
        let listen = match protocol {
            Protocol::Udp => {
                let front = UdpSocket::bind(way.listen).await.map_err(failed)?;
                let address = front.local_addr().map_err(failed)?;
                tasks.spawn_local(udp::carry(shared, front, links, rest));
                address
            }
            Protocol::Tcp => {
                let listener = TcpListener::bind(way.listen).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                tasks.spawn_local(tcp::carry(shared, listener, links, rest));
                address
            }
        };
        say(args, &format!("{} {listen} leads to {}", protocol.name(), way.to))?;
        let (listen, to) = (listen.to_string(), way.to.to_string());
        carried.push(Carried { protocol: protocol.name(), listen, to, up, down, counters });
    }
    let mut laid = Vec::new();
    let first_id = 2 * config.ways.len() as u64;
    for (cable, id) in config.cables.iter().zip((first_id..).step_by(2)) {
        laid.push(lay(cable, (config.seed, id), clock)?);
        say(args, &format!("tun {} leads to {}", cable.one, cable.other))?;
    }
    let end = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    while !signals.caught() && end.is_none_or(|end| Instant::now() < end) {
        tokio::time::sleep(TURN).await;
    }
    drop(tasks);
    let laid = laid.into_iter().map(Laid::end);
    Ok(carried.iter().map(summary_of).chain(laid).collect())
}

/// Two tun devices that are carried.
struct Laid {
    cable: Cable,
    #[cfg(target_os = "linux")]
    carrier: tun::Carrier,
}

/// Carries packets between two devices from now on.
#[cfg(target_os = "linux")]
fn lay(cable: &Cable, (seed, id): (u64, u64), clock: Clock) -> Result<Laid, ProxyError> {
    let failed =
        |error| ProxyError::Devices { one: cable.one.clone(), other: cable.other.clone(), error };
    let carrier = tun::Carrier::start(cable, seed, id, clock).map_err(failed)?;
    Ok(Laid { cable: cable.clone(), carrier })
}

/// There are no such devices here.
#[cfg(not(target_os = "linux"))]
fn lay(cable: &Cable, _: (u64, u64), _: Clock) -> Result<Laid, ProxyError> {
    let (one, other) = (cable.one.clone(), cable.other.clone());
    Err(ProxyError::Devices { one, other, error: io::ErrorKind::Unsupported.into() })
}

impl Laid {
    /// Ends it; what it came to.
    fn end(self) -> WaySummary {
        #[cfg(target_os = "linux")]
        let (up, down, overflowed) = {
            let tun::Ended { up, down, overflowed } = self.carrier.end();
            (LinkSummary::new(up), LinkSummary::new(down), overflowed)
        };
        #[cfg(not(target_os = "linux"))]
        let (up, down, overflowed) = {
            let nothing = || LinkSummary::new(Default::default());
            (nothing(), nothing(), 0)
        };
        let Cable { one, other, .. } = self.cable;
        let (begun, refused) = (0, 0);
        WaySummary { protocol: "tun", listen: one, to: other, begun, refused, overflowed, up, down }
    }
}

/// Tells people; with `--json` standard output belongs to the summary.
fn say(args: &ProxyArgs, line: &str) -> Result<(), CommandError> {
    if args.json {
        // With standard error closed the summary still comes.
        let _ = writeln!(io::stderr(), "{line}");
        return Ok(());
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(CommandError::Output)
}

fn summary_of(way: &Carried) -> WaySummary {
    let Carried { listen, to, up, down, counters, .. } = way;
    WaySummary {
        protocol: way.protocol,
        listen: listen.clone(),
        to: to.clone(),
        begun: counters.shared.begun.get(),
        refused: counters.shared.refused.get(),
        overflowed: counters.shared.overflowed.get(),
        up: LinkSummary::new(up.counts()),
        down: LinkSummary::new(down.counts()),
    }
}

fn text(ways: &[WaySummary]) -> String {
    let mut text = String::new();
    for way in ways {
        let WaySummary { protocol, listen, to, begun, refused, overflowed, up, down } = way;
        text += &format!("{protocol} {listen} to {to}: {begun} clients");
        for (what, count) in [("refused", refused), ("datagrams without room", overflowed)] {
            if *count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text.push('\n');
        for (name, link) in [("up", up), ("down", down)] {
            text += &format!("  {name:<5} {} came through", link.passed);
            for (fault, injected, effect) in &link.faults {
                text += &format!("; {fault} {injected}, in effect {effect}");
            }
            text.push('\n');
        }
    }
    text
}
