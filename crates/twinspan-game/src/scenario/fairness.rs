//! A sealed session and a TCP flow on one bottleneck: how they share it.
//!
//! ```
//! use std::time::Duration;
//! use twinspan_game::scenario::fairness::{FairnessConfig, share};
//!
//! let config = FairnessConfig { measured: Duration::from_secs(10), ..FairnessConfig::default() };
//! let report = share(&config)?;
//! assert!((0.3..0.7).contains(&report.session_share()), "{report:?}");
//! # Ok::<(), twinspan_game::scenario::fairness::FairnessError>(())
//! ```

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, Machine, NetworkProvider, TaskProvider, TcpListener, TcpOptions,
    UdpOptions, drive,
};
use twinspan_session::ConfigError;
use twinspan_sim::topology::{LinkReport, LinkSpec, Queue, Topology, TopologyError};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimSuite, SimTask};

use super::bulk::{BulkReceiver, BulkSender, Delivered};

/// The hosts: the session's server and client, TCP's server and client.
const IPS: [IpAddr; 4] = [ip(1), ip(2), ip(3), ip(4)];
const PORT: u16 = 7_000;
/// What goes at once into the stream.
const PART_BYTES: usize = 8 << 10;

const fn ip(last: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, last))
}

/// What the two flows meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FairnessConfig {
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// Bytes a second that the bottleneck carries, headers included.
    pub rate_bytes_per_s: u64,
    /// Time that a packet takes one way, besides its turn.
    pub delay: Duration,
    /// The queue in front of the bottleneck.
    pub queue: Queue,
    /// How long both flows go on before it counts.
    pub settling: Duration,
    /// How long it counts.
    pub measured: Duration,
}

impl Default for FairnessConfig {
    /// Ten megabits a second, 40 ms both ways, a queue of twice what is on the way then.
    fn default() -> Self {
        Self {
            seed: 1,
            rate_bytes_per_s: 1_250_000,
            delay: Duration::from_millis(20),
            queue: Queue { bytes_max: 100_000, ..Queue::DEFAULT },
            settling: Duration::from_secs(10),
            measured: Duration::from_secs(60),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FairnessReport {
    /// Bytes of the session that came over the bottleneck while it counted, headers included.
    pub session_bytes: u64,
    /// Bytes of the stream that did, headers included.
    pub tcp_bytes: u64,
    /// Bytes that the session's messages had, and those of the stream, without headers.
    pub payload_bytes: [u64; 2],
    /// What both together were of what the bottleneck carries, 0 to 1.
    pub used: f64,
    /// What the bottleneck did from the beginning.
    pub link: LinkReport,
    /// The trace hash of the run.
    pub hash: u64,
}

impl FairnessReport {
    /// The session's share of all that came, 0 to 1.
    pub fn session_share(&self) -> f64 {
        self.session_bytes as f64 / (self.session_bytes + self.tcp_bytes).max(1) as f64
    }
}

/// Why there was nothing to measure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FairnessError {
    /// The bottleneck cannot be as it was described.
    #[error("the bottleneck cannot be simulated: {0}")]
    Topology(#[from] TopologyError),
    /// The session cannot be made.
    #[error("the session cannot be made: {0}")]
    Session(#[from] ConfigError),
}

/// Lets a session and a TCP flow, each with more to send than there is room for, share a bottleneck.
///
/// # Errors
/// [`FairnessError`] when `config` describes no link.
pub fn share(config: &FairnessConfig) -> Result<FairnessReport, FairnessError> {
    let mut sim = Sim::new(SimConfig { seed: config.seed, ..SimConfig::default() });
    let down =
        LinkSpec { queue: config.queue, ..LinkSpec::rated(config.rate_bytes_per_s, config.delay) };
    let [from_session, to_session, from_tcp, to_tcp] = IPS;
    let clean = LinkSpec::CLEAN;
    sim.set_topology(
        Topology::new()
            .host("session-server", from_session)
            .host("tcp-server", from_tcp)
            .host("session-client", to_session)
            .host("tcp-client", to_tcp)
            .router("left")
            .router("right")
            .cable("session-server", "session-server", "left", clean.clone())
            .cable("tcp-server", "tcp-server", "left", clean.clone())
            .cable("session-client", "session-client", "right", clean.clone())
            .cable("tcp-client", "tcp-client", "right", clean)
            .link("bottleneck", "left", "right", down)
            .link("back", "right", "left", LinkSpec::delay(config.delay)),
    )?;
    let [session, tcp] = [0, 1].map(|_| Rc::new(Delivered::default()));
    let mut tasks = Vec::new();
    tasks.extend(start_session(&mut sim, &session)?);
    tasks.extend(start_tcp(&mut sim, &tcp));
    sim.run_for(config.settling);
    let counts = |sim: &Sim| -> Result<[u64; 4], TopologyError> {
        let all = sim.link_report("bottleneck")?.delivered_bytes;
        Ok([all, session.wire(), session.payload(), tcp.payload()])
    };
    let before = counts(&sim)?;
    sim.run_for(config.measured);
    let [all, session_bytes, session_payload, tcp_payload] = counts(&sim)?;
    let session_bytes = session_bytes - before[1];
    // What is not the session's is the stream's.
    let tcp_bytes = (all - before[0]).saturating_sub(session_bytes);
    let room = config.rate_bytes_per_s as f64 * config.measured.as_secs_f64();
    drop(tasks);
    Ok(FairnessReport {
        session_bytes,
        tcp_bytes,
        payload_bytes: [session_payload - before[2], tcp_payload - before[3]],
        used: (session_bytes + tcp_bytes) as f64 / room,
        link: sim.link_report("bottleneck")?,
        hash: sim.trace_hash(),
    })
}

fn start_session(sim: &mut Sim, delivered: &Rc<Delivered>) -> Result<[SimTask; 2], ConfigError> {
    let seed = sim.seed();
    let [server, client] = [IPS[0], IPS[1]].map(|ip| sim.host("session", ip));
    let suites: Arc<dyn AeadSuite> = Arc::new(SimSuite);
    let address = SocketAddr::new(IPS[0], PORT);
    let sender = BulkSender::new(&server, Arc::clone(&suites), seed)?;
    let receiver = BulkReceiver::new(&client, suites, (seed, address), Rc::clone(delivered))?;
    Ok([run(&server, PORT, sender), run(&client, 0, receiver)])
}

fn run(env: &SimEnv, port: u16, machine: impl Machine + 'static) -> SimTask {
    let (inner, local) = (env.clone(), SocketAddr::new(env.ip(), port));
    env.spawn("session", async move {
        let mut machine = machine;
        if let Ok(mut socket) = inner.bind_udp(local, &UdpOptions::default()).await {
            // It ends with its host.
            let _ = drive(&inner, &mut socket, &mut machine).await;
        }
    })
}

fn start_tcp(sim: &mut Sim, delivered: &Rc<Delivered>) -> [SimTask; 2] {
    let [server, client] = [IPS[2], IPS[3]].map(|ip| sim.host("tcp", ip));
    let address = SocketAddr::new(IPS[2], PORT);
    let inner = server.clone();
    let serving = server.spawn("serve", async move {
        let Ok(mut listener) = inner.listen(address, &TcpOptions::default()).await else { return };
        // One client: the others wait.
        while let Ok(mut stream) = listener.accept().await {
            while stream.write_all(&[7; PART_BYTES]).await.is_ok() {}
        }
    });
    let (inner, delivered) = (client.clone(), Rc::clone(delivered));
    let reading = client.spawn("read", async move {
        let mut buffer = vec![0; 8 * PART_BYTES];
        loop {
            // The server may not listen yet.
            let Ok(mut stream) = inner.connect(address, &TcpOptions::default()).await else {
                continue;
            };
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                delivered.add_payload(len);
            }
        }
    });
    [serving, reading]
}
