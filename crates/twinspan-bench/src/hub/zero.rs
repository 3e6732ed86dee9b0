//! The first answer over QUIC with and without words before the handshake's end, over a link of 20 ms
//! that the project's proxy makes, beside bare quinn on the same link.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use twinspan_hub::{Hub, Idempotent, Serde};

use super::floor::Certificate;
use super::free_ports;
use crate::child::Child;
use crate::error::BenchError;
use crate::lines::Parent;
use crate::proxy::Proxy;

/// The hidden command of the process that listens.
const PEER: &str = "hub-zero";
/// Each way over the link, in milliseconds.
const WAY_MS: u64 = 10;
/// First answers of each kind.
const ROUNDS: usize = 8;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What is asked: a number, whose answer is the next one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ask(u64);

/// The answer to a number is the same however often it is asked.
impl Idempotent for Ask {}

/// What the other process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    /// Where the hub listens, and bare quinn.
    ports: [u16; 2],
    certificate: Certificate,
}

/// The figures of one run; times are medians.
#[derive(Clone, Debug, Serialize)]
pub struct ZeroRttSummary {
    /// The road.
    pub transport: &'static str,
    /// What was measured.
    pub mode: &'static str,
    /// A round trip over the link, in milliseconds.
    pub link_round_trip_ms: f64,
    /// First answers of each kind.
    pub rounds: usize,
    /// Connections whose greeting was heard before the handshake ended.
    pub heard_early: usize,
    /// From the wish for a hub to the first answer, by a whole handshake.
    pub first_answer_ms: f64,
    /// The same where an earlier connection left a session.
    pub first_answer_zero_rtt_ms: f64,
    /// Round trips that it was earlier.
    pub round_trips_saved: f64,
    /// Bare quinn: a stream's first bytes and their answer, by a whole handshake.
    pub floor_first_answer_ms: f64,
    /// The same before its end.
    pub floor_first_answer_zero_rtt_ms: f64,
    /// What bare quinn saves.
    pub floor_round_trips_saved: f64,
    /// Ours over the floor's, with the session.
    pub ratio_to_floor: f64,
}

impl ZeroRttSummary {
    /// Whether the first answer came a round trip earlier, but for a tenth of one.
    pub fn is_good(&self) -> bool {
        self.heard_early == self.rounds && self.round_trips_saved > 0.9
    }

    /// The figures for people.
    pub fn text(&self) -> String {
        let Self { link_round_trip_ms, rounds, heard_early, round_trips_saved, .. } = self;
        let (whole, early) = (self.first_answer_ms, self.first_answer_zero_rtt_ms);
        let (bare, bare_early) = (self.floor_first_answer_ms, self.floor_first_answer_zero_rtt_ms);
        let mut text = format!("quic, first answer over a link of {link_round_trip_ms} ms\n");
        text += &format!("hub         {whole:.1} ms, {early:.1} ms with a session: ");
        text += &format!("{round_trips_saved:.2} round trips earlier\n");
        text += &format!("bare quinn  {bare:.1} ms, {bare_early:.1} ms with a session: ");
        text += &format!("{:.2} round trips earlier\n", self.floor_round_trips_saved);
        text + &format!("heard before the handshake ended: {heard_early} of {rounds}\n")
    }
}

/// The project's proxy, which leads from each of the first ports to the second of its pair.
fn link(ways: [(u16, u16); 2]) -> Result<Proxy, BenchError> {
    let lines = ways.map(|(from, to)| {
        format!(
            "[[udp]]\nlisten = \"127.0.0.1:{from}\"\nto = \"127.0.0.1:{to}\"\n\
             up = {{ delay_ms = {WAY_MS} }}\ndown = {{ delay_ms = {WAY_MS} }}\n"
        )
    });
    Proxy::start(&format!("hub-zero-{}", std::process::id()), &lines.concat(), ways.len())
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Quinn(error.to_string())
}

fn endpoint(port: u16) -> String {
    format!("quic://127.0.0.1:{port}/first")
}

/// The answer to a first question that is asked as soon as there is a hub.
fn ask(hub: &Hub<Serde<Ask>>, number: u64) -> Result<(), BenchError> {
    hub.publish(&Serde(Ask(number)))?;
    let began = Instant::now();
    while began.elapsed() < ANSWER_MAX {
        if let Some(Serde(Ask(answer))) = hub.recv_timeout(ANSWER_MAX)?
            && answer == number + 1
        {
            return Ok(());
        }
    }
    Err(BenchError::Ended { name: PEER })
}

/// From the wish for a hub to the first answer, and whether its greeting was heard early.
fn first_answer(port: u16, number: u64, is_early: bool) -> Result<(Duration, bool), BenchError> {
    let began = Instant::now();
    let builder = Hub::<Serde<Ask>>::builder(endpoint(port)).connect();
    let hub = if is_early { builder.zero_rtt().build()? } else { builder.build()? };
    // Nobody hears what is published before the other end is known.
    if !hub.wait_for_subscribers(1, ANSWER_MAX) {
        return Err(BenchError::Ended { name: PEER });
    }
    ask(&hub, number)?;
    let took = began.elapsed();
    Ok((took, hub.transport().notes.iter().any(|note| note.contains("and was heard"))))
}

/// The same of bare quinn.
async fn bare_answer(
    bare: &quinn::Endpoint,
    port: u16,
    is_early: bool,
) -> Result<Duration, BenchError> {
    let began = Instant::now();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connecting = bare.connect(address, "localhost").map_err(failed)?;
    let connection = match (is_early, connecting) {
        (true, connecting) => match connecting.into_0rtt() {
            Ok((connection, _)) => connection,
            Err(connecting) => connecting.await.map_err(failed)?,
        },
        (false, connecting) => connecting.await.map_err(failed)?,
    };
    let (mut send, mut receive) = connection.open_bi().await.map_err(failed)?;
    send.write_all(&[7; 8]).await.map_err(failed)?;
    receive.read_exact(&mut [0; 8]).await.map_err(failed)?;
    let took = began.elapsed();
    // The session for the next one comes behind the handshake.
    tokio::time::sleep(Duration::from_millis(3 * WAY_MS)).await;
    connection.close(0_u8.into(), b"");
    Ok(took)
}

fn runtime() -> Result<Runtime, BenchError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Measures.
///
/// # Errors
/// [`BenchError`] says what could not be had.
pub fn run() -> Result<ZeroRttSummary, BenchError> {
    let here = Ipv4Addr::LOCALHOST.into();
    let (ports, [ours, bares]) = (free_ports::<2>(here)?, free_ports(here)?);
    let plan = Plan { ports, certificate: Certificate::new()? };
    let _proxy = link([(ours, ports[0]), (bares, ports[1])])?;
    let mut child = Child::start(PEER)?;
    child.tell(&plan)?;
    let () = child.hear()?;
    let runtime = runtime()?;
    let bare = runtime.block_on(async {
        let mut bare = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        bare.set_default_client_config(plan.certificate.client()?);
        Ok::<_, BenchError>(bare)
    })?;
    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut heard_early = 0;
    // The first connection of each leaves the session.
    first_answer(ours, 0, true)?;
    runtime.block_on(bare_answer(&bare, bares, true))?;
    for round in 0..ROUNDS {
        let [whole, early, bare_whole, bare_early] = &mut times;
        let number = 2 * round as u64 + 2;
        whole.push(first_answer(ours, number, false)?.0);
        let (took, was_heard) = first_answer(ours, number, true)?;
        early.push(took);
        heard_early += usize::from(was_heard);
        bare_whole.push(runtime.block_on(bare_answer(&bare, bares, false))?);
        bare_early.push(runtime.block_on(bare_answer(&bare, bares, true))?);
    }
    drop(child);
    let [whole, early, bare_whole, bare_early] = times.each_mut().map(|it| median_ms(it));
    let round_trip = (2 * WAY_MS) as f64;
    Ok(ZeroRttSummary {
        transport: "quic",
        mode: "zero-rtt",
        link_round_trip_ms: round_trip,
        rounds: ROUNDS,
        heard_early,
        first_answer_ms: whole,
        first_answer_zero_rtt_ms: early,
        round_trips_saved: (whole - early) / round_trip,
        floor_first_answer_ms: bare_whole,
        floor_first_answer_zero_rtt_ms: bare_early,
        floor_round_trips_saved: (bare_whole - bare_early) / round_trip,
        ratio_to_floor: early / bare_early.max(1e-9),
    })
}

/// Sends back what comes on each stream of a bare connection.
async fn echo(incoming: quinn::Incoming) -> Result<(), BenchError> {
    let connecting = incoming.accept().map_err(failed)?;
    let connection = match connecting.into_0rtt() {
        Ok((connection, _)) => connection,
        Err(connecting) => connecting.await.map_err(failed)?,
    };
    let (mut send, mut receive) = connection.accept_bi().await.map_err(failed)?;
    let mut question = [0; 8];
    receive.read_exact(&mut question).await.map_err(failed)?;
    send.write_all(&question).await.map_err(failed)?;
    connection.closed().await;
    Ok(())
}

/// The process that listens.
///
/// # Errors
/// [`BenchError`] says what could not be had.
pub fn run_peer() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let plan: Plan = parent.hear()?;
    let [ours, bares] = plan.ports;
    let hub = Hub::<Serde<Ask>>::builder(endpoint(ours)).listen().zero_rtt().build()?;
    let runtime = runtime()?;
    let bare = runtime.block_on(async {
        let mut config = plan.certificate.server()?;
        config.migration(false);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, bares));
        Ok::<_, BenchError>(quinn::Endpoint::server(config, address)?)
    })?;
    std::thread::Builder::new().name("bare-quinn".into()).spawn(move || {
        runtime.block_on(async {
            while let Some(incoming) = bare.accept().await {
                // One that breaks off is one that the parent misses.
                let answered = timeout(ANSWER_MAX, echo(incoming)).await;
                drop(answered);
            }
        });
    })?;
    parent.tell(&())?;
    // The parent ends this process.
    loop {
        let Serde(Ask(number)) = hub.recv()?;
        hub.publish(&Serde(Ask(number + 1)))?;
    }
}
