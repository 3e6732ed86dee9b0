//! `--scenario loss`: the world and bare sessions in the simulator, on a path that loses, delays and
//! reorders.
//!
//! Two runs over the same path. In the first the world server and its bots play, and the age of
//! states is taken when clients apply them. In the second clients and a server without a world send
//! each other reliable messages that say when they left, and the time to the other application is
//! taken in round trips of the undisturbed path.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use twinspan_core::link::Conditions;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_game::{
    Bot, BotConfig, ClientConfig, EVENTS, Fleet, INPUT, Latency, session_defaults, wire_micros,
};
use twinspan_provider::{Machine, RandomProvider, UdpOptions};
use twinspan_session::{ClientEvent, ClientSession};
use twinspan_sim::{SimConfig, SimSuite};
use twinspan_world::tick_duration;

use crate::error::BenchError;
use crate::simulated::{SERVER, Secrets, Site};
use crate::transport::{TransportKeys, TransportServer, event_bytes, sent_at};

/// What every link is like, each way.
const CONDITIONS: Conditions = Conditions {
    loss: 0.05,
    delay: Duration::from_millis(35),
    jitter: Duration::from_millis(30),
    reorder: 0.05,
    ..Conditions::CLEAN
};
/// Clients in each run at most: the simulator is no load generator.
pub const CLIENTS_MAX: u32 = 100;
/// Time in which all clients must have come in.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// From one reliable message to the next.
const EVENT_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of a state of the server without a world.
const STATE_BYTES: usize = 300;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct LossSummary {
    /// Clients in each of the two runs.
    pub players: u32,
    /// Virtual seconds that were measured, in each.
    pub seconds: u64,
    /// The seed: the figures are a function of it and of the arguments.
    pub seed: u64,
    /// Share of datagrams lost, each way.
    pub loss: f64,
    /// What every datagram takes, each way, in milliseconds.
    pub delay_ms: f64,
    /// What it may take longer, in milliseconds.
    pub jitter_ms: f64,
    /// Share of datagrams that lag behind later ones.
    pub reorder: f64,
    /// A round trip without loss: twice the delay and the mean jitter, in milliseconds.
    pub rtt_ms: f64,
    /// Reliable messages delivered, both ways together.
    pub reliable_delivered: u64,
    /// Median time of a reliable message to the other application, in round trips.
    pub reliable_event_p50_rtt: f64,
    /// 99th percentile of it.
    pub reliable_event_p99_rtt: f64,
    /// Packets that either end of the sessions declared lost.
    pub packets_lost: u64,
    /// Those of them that had arrived all the same: what was in them was sent twice for nothing.
    pub packets_late: u64,
    /// Median age of a state when a client of the world applied it, in milliseconds.
    pub state_age_p50_ms: f64,
    /// 99th percentile of it.
    pub state_age_p99_ms: f64,
    /// What a run must not show, a line each.
    pub broken: Vec<String>,
}

/// Runs both for `seconds` virtual seconds.
///
/// # Errors
/// [`BenchError`] when there are too many players, or a machine cannot be.
pub fn run(players: u32, seconds: u64, seed: u64) -> Result<LossSummary, BenchError> {
    if !(1..=CLIENTS_MAX).contains(&players) {
        return Err(BenchError::Clients { players, max: CLIENTS_MAX });
    }
    let time = Duration::from_secs(seconds);
    let mut broken = Vec::new();
    let age = world(players, time, seed, &mut broken)?;
    let (events, (packets_lost, packets_late)) = sessions(players, time, seed, &mut broken)?;
    let rtt = 2 * (CONDITIONS.delay + CONDITIONS.jitter / 2);
    let rtt_ms = rtt.as_secs_f64() * 1_000.0;
    let in_rtt = |quantile| events.micros_at(quantile) / 1_000.0 / rtt_ms;
    Ok(LossSummary {
        players,
        seconds,
        seed,
        loss: CONDITIONS.loss,
        delay_ms: CONDITIONS.delay.as_secs_f64() * 1_000.0,
        jitter_ms: CONDITIONS.jitter.as_secs_f64() * 1_000.0,
        reorder: CONDITIONS.reorder,
        rtt_ms,
        reliable_delivered: events.count(),
        reliable_event_p50_rtt: in_rtt(0.5),
        reliable_event_p99_rtt: in_rtt(0.99),
        packets_lost,
        packets_late,
        state_age_p50_ms: age.micros_at(0.5) / 1_000.0,
        state_age_p99_ms: age.micros_at(0.99) / 1_000.0,
        broken,
    })
}

impl LossSummary {
    /// The summary as a table for people.
    pub fn text(&self) -> String {
        let promises = match self.broken.is_empty() {
            true => "all kept".to_owned(),
            false => self.broken.join("; "),
        };
        format!(
            "\npath       {:.0} % lost, {:.0} ms and up to {:.0} ms more, {:.0} % lag; round trip {:.0} ms\n\
             players    {} for {} virtual seconds, seed {}\n\
             reliable   p50 {:.2}, p99 {:.2} round trips; {} delivered; {} packets taken for lost, \
             {} of them had arrived\n\
             state age  p50 {:.1} ms, p99 {:.1} ms\n\
             promises   {promises}\n",
            self.loss * 100.0,
            self.delay_ms,
            self.jitter_ms,
            self.reorder * 100.0,
            self.rtt_ms,
            self.players,
            self.seconds,
            self.seed,
            self.reliable_event_p50_rtt,
            self.reliable_event_p99_rtt,
            self.reliable_delivered,
            self.packets_lost,
            self.packets_late,
            self.state_age_p50_ms,
            self.state_age_p99_ms,
        )
    }
}

type Shared<M> = Rc<RefCell<M>>;

fn site(seed: u64) -> (Site, Secrets) {
    let config = SimConfig { seed, conditions: CONDITIONS, ..SimConfig::default() };
    Site::new(config, Arc::new(SimSuite))
}

fn client_address(number: u32) -> SocketAddr {
    let [_, a, b, c] = (number + 2).to_be_bytes();
    SocketAddr::from(([10, a.wrapping_add(1), b, c], 9_000))
}

/// Runs the world; returns the ages of states.
fn world(
    players: u32,
    time: Duration,
    seed: u64,
    broken: &mut Vec<String>,
) -> Result<Latency, BenchError> {
    let (mut site, secrets) = site(seed);
    let server = site.world_server(players, secrets)?;
    let (env, usual) = (site.server.clone(), UdpOptions::default());
    site.launch(&env, SERVER, None, usual, server);
    let mut fleets = Vec::new();
    for number in 0..players {
        let address = client_address(number);
        let env = site.sim.host(&format!("client {number}"), address.ip());
        let client = site.client(number, &env, ClientConfig::default())?;
        let bot = Bot::new(client, BotConfig::default(), env.stream("bot", 0));
        let start_at = Timestamp::START.after(Duration::from_millis(3) * number);
        let fleet = Rc::new(RefCell::new(Fleet::new(vec![bot], |_| start_at)));
        site.launch(&env, address, None, usual, Rc::clone(&fleet));
        fleets.push(fleet);
    }
    site.sim.run_for(CONNECT_TIME);
    for fleet in &fleets {
        fleet.borrow_mut().forget_ages();
    }
    site.sim.run_for(time);
    let mut ages = Latency::default();
    for fleet in &fleets {
        let fleet = fleet.borrow();
        if fleet.bots().iter().any(|bot| bot.connected_at().is_none()) {
            broken.push("a client of the world did not come in".into());
        }
        ages.add(&fleet.ages().state_age);
    }
    Ok(ages)
}

/// Runs sessions without a world; returns how long reliable messages took, both ways, and how many
/// packets were declared lost, and of those had arrived.
fn sessions(
    players: u32,
    time: Duration,
    seed: u64,
    broken: &mut Vec<String>,
) -> Result<(Latency, (u64, u64)), BenchError> {
    let (mut site, Secrets { keys, source }) = site(seed);
    let unusable = |error: twinspan_session::ConfigError| BenchError::Plan(error.to_string());
    let (env, usual) = (site.server.clone(), UdpOptions::default());
    let server = TransportServer::new(
        session_defaults(),
        Arc::clone(&site.suites),
        TransportKeys { identity: keys.identity, tokens: keys.tokens },
        source,
        env.stream("session", 0),
        0,
        STATE_BYTES,
    )
    .map_err(unusable)?;
    let server = Rc::new(RefCell::new(server));
    site.launch(&env, SERVER, None, usual, Teller::new(&server));
    let mut clients = Vec::new();
    for number in 0..players {
        let address = client_address(number);
        let env = site.sim.host(&format!("client {number}"), address.ip());
        let session = ClientSession::new(
            session_defaults(),
            Arc::clone(&site.suites),
            &site.token(number),
            SERVER,
            env.secrets(),
            env.stream("client", 0),
        )
        .map_err(unusable)?;
        let phase = tick_duration().mul_f64(env.stream("phase", 0).unit());
        let client = Rc::new(RefCell::new(EventClient::new(session, phase)));
        site.launch(&env, address, None, usual, Rc::clone(&client));
        clients.push(client);
    }
    site.sim.run_for(CONNECT_TIME);
    let before = server.borrow().counts().event_latency.clone();
    for client in &clients {
        client.borrow_mut().latency.clear();
    }
    site.sim.run_for(time);
    let mut latency = server.borrow().counts().event_latency.clone();
    latency.subtract(&before);
    let (mut lost, mut late) = server.borrow().losses();
    for client in &clients {
        let client = client.borrow();
        latency.add(&client.latency);
        let stats = client.session.stats();
        (lost, late) = (lost + stats.packets_lost, late + stats.packets_late);
    }
    let wanted = 2 * time.as_millis() / EVENT_INTERVAL.as_millis() * u128::from(players);
    if u128::from(latency.count()) * 100 < wanted * 95 {
        broken.push(format!("{} reliable messages delivered of {wanted}", latency.count()));
    }
    Ok((latency, (lost, late)))
}

/// Lets a transport server tell all its clients something now and then.
struct Teller {
    server: Shared<TransportServer>,
    tell_at: Timestamp,
}

impl Teller {
    fn new(server: &Shared<TransportServer>) -> Self {
        Self { server: Rc::clone(server), tell_at: Timestamp::START }
    }
}

impl Machine for Teller {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.server.borrow_mut().handle_datagrams(now, received);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        let mut server = self.server.borrow_mut();
        server.handle_timeout(now);
        if now >= self.tell_at {
            self.tell_at = now.after(EVENT_INTERVAL);
            server.tell_all(now, &event_bytes(now));
        }
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.server.borrow_mut().poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let at = self.server.borrow().poll_timeout();
        Some(at.map_or(self.tell_at, |at| at.min(self.tell_at)))
    }
}

/// A client that sends inputs sixty times a second and a reliable message now and then.
struct EventClient {
    session: ClientSession,
    phase: Duration,
    /// When the next input is due; `None` before the session is up.
    input_at: Option<Timestamp>,
    event_at: Timestamp,
    is_due: bool,
    latency: Latency,
}

impl EventClient {
    fn new(session: ClientSession, phase: Duration) -> Self {
        Self {
            session,
            phase,
            input_at: None,
            event_at: Timestamp::START,
            is_due: false,
            latency: Latency::default(),
        }
    }

    fn on_event(
        now: Timestamp,
        input_at: &mut Option<Timestamp>,
        phase: Duration,
        latency: &mut Latency,
        event: &ClientEvent<'_>,
    ) {
        match event {
            ClientEvent::Connected { .. } => *input_at = Some(now.after(phase)),
            ClientEvent::Message { channel: EVENTS, bytes } => {
                if let Some(at) = sent_at(bytes) {
                    latency.record(now.since(at));
                }
            }
            ClientEvent::Closed { .. } => *input_at = None,
            _ => {}
        }
    }
}

impl Machine for EventClient {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        let Self { session, input_at, latency, phase, .. } = self;
        while let Some(mut datagram) = received.pop() {
            session.handle_datagram(now, &mut datagram.packet, &mut |event| {
                Self::on_event(now, input_at, *phase, latency, &event);
            });
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        let Self { session, input_at, latency, phase, .. } = self;
        if session.poll_timeout().is_some_and(|at| now >= at) {
            session.handle_timeout(now, &mut |event| {
                Self::on_event(now, input_at, *phase, latency, &event);
            });
        }
        if let Some(at) = self.input_at.filter(|at| now >= *at) {
            self.input_at = Some(at.after(tick_duration()));
            self.is_due = true;
            if now >= self.event_at {
                self.event_at = now.after(EVENT_INTERVAL);
                // A full queue loses it, which the count shows.
                let _ = self.session.send(now, EVENTS, &event_bytes(now));
            }
        }
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        if self.is_due
            && out.room() > 0
            && let Some(mut packet) = pool.take()
        {
            self.is_due = false;
            let written = self.session.write_packet(now, INPUT, 0, &mut packet, &mut |text| {
                text.u32(0)?;
                text.u32(wire_micros(now))?;
                text.put(&[0; 40])
            });
            if let Ok(peer) = written {
                // There is room: it was looked at.
                let _ = out.push(Datagram { peer, at: now, packet });
            }
        }
        self.session.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        match (self.session.poll_timeout(), self.input_at) {
            (Some(session), Some(input)) => Some(session.min(input)),
            (session, input) => session.or(input),
        }
    }

    fn is_done(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_a_function_of_the_seed_and_everything_arrives() {
        let first = run(4, 3, 7).unwrap();
        assert_eq!(first.broken, [""; 0]);
        assert!(first.reliable_event_p50_rtt >= 0.5, "{first:?}");
        assert!(first.state_age_p50_ms >= 35.0, "{first:?}");
        let again = run(4, 3, 7).unwrap();
        assert_eq!(format!("{again:?}"), format!("{first:?}"));
        let other = run(4, 3, 8).unwrap();
        assert_ne!(format!("{other:?}"), format!("{first:?}"));
    }
}
