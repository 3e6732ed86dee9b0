//! The world: the server and its clients, each on a host of its own, walking and acting.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_game::{Bot, BotConfig, Client, ClientConfig, Server, ServerConfig, ServerKeys};
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, TaskProvider, TimeProvider, Timer, UdpOptions, drive,
};
use twinspan_session::{CryptoSuite, ServerIdentity, TokenIssuer, TokenKey, UserId};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimSuite, SimTask};

use super::{Measured, ROUGH, SEED, meter};
use crate::error::BenchError;

/// The server's address in the simulated network.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7_000);
/// From the start of one client to that of the next.
const START_SPACING: Duration = Duration::from_micros(500);
/// Time for the last ones to come in, and for areas of interest to settle.
const SETTLE: Duration = Duration::from_secs(4);
/// Packet buffers of a client's socket: it has a few datagrams at a time.
const CLIENT_POOL_PACKETS: usize = 32;
/// The same of the server's, with datagrams for everybody at once.
const SERVER_POOL_PACKETS: usize = 8_192;

type Shared<M> = Rc<RefCell<M>>;

pub(super) fn run(
    clients: u32,
    time: Duration,
    real_ciphers: bool,
) -> Result<Measured, BenchError> {
    let mut sim = Sim::new(SimConfig { seed: SEED, conditions: ROUGH, ..SimConfig::default() });
    let suites: Arc<dyn AeadSuite> = match real_ciphers {
        true => Arc::new(CryptoSuite::detect()),
        false => Arc::new(SimSuite),
    };
    let cipher = suites.ciphers().first().map_or("none", |cipher| cipher.name()).to_owned();
    let env = sim.host("server", SERVER.ip());
    let mut secrets = env.secrets();
    let identity = ServerIdentity::new(secrets.as_mut());
    let tokens = TokenKey::new(secrets.as_mut());
    let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
    let server = Server::new(
        ServerConfig::for_players(clients),
        Arc::clone(&suites),
        ServerKeys { identity, tokens },
        secrets,
        &mut |name| env.stream(name, 0),
    )
    .map_err(|error| BenchError::Plan(error.to_string()))?;
    let server = Rc::new(RefCell::new(server));
    let at_once = Timestamp::START;
    let mut tasks = vec![launch(&env, SERVER, (at_once, SERVER_POOL_PACKETS), server)];
    let mut login = Stream::new(SEED, "login", 0);
    let mut bots: Vec<Shared<Bot>> = Vec::with_capacity(clients as usize);
    for number in 0..clients {
        let address = client_address(number);
        let env = sim.host("client", address.ip());
        let token = issuer.issue(&mut login, UserId(u64::from(number)), SERVER, u64::MAX);
        let client = Client::new(
            ClientConfig::default(),
            Arc::clone(&suites),
            &token,
            SERVER,
            env.secrets(),
            env.stream("client", 0),
        )?;
        let bot = Bot::new(client, BotConfig::default(), env.stream("bot", 0));
        let bot = Rc::new(RefCell::new(bot));
        let start_at = at_once.after(START_SPACING * number);
        tasks.push(launch(&env, address, (start_at, CLIENT_POOL_PACKETS), Rc::clone(&bot)));
        bots.push(bot);
    }
    sim.run_for(START_SPACING * clients + SETTLE);
    let measured = meter(&mut sim, time);
    let connected = bots.iter().filter(|bot| bot.borrow().connected_at().is_some()).count() as u64;
    drop(tasks);
    Ok(Measured { count: connected, cipher, ..measured })
}

/// The address of client `number`: 10.1.0.1 and on.
fn client_address(number: u32) -> SocketAddr {
    let base = u32::from(Ipv4Addr::new(10, 1, 0, 1));
    SocketAddr::from((Ipv4Addr::from(base + number), 5_000))
}

/// Binds a socket on the host and drives `machine` over it from `start_at` on.
fn launch<M: Machine + 'static>(
    env: &SimEnv,
    local: SocketAddr,
    (start_at, pool_packets): (Timestamp, usize),
    mut machine: Shared<M>,
) -> SimTask {
    let inner = env.clone();
    env.spawn("machine", async move {
        let mut timer = inner.timer();
        timer.set(Some(start_at));
        std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        let options = UdpOptions { pool_packets, ..UdpOptions::default() };
        // Without a socket the client does not come in, which the figures show.
        if let Ok(mut socket) = inner.bind_udp(local, &options).await {
            let _ = drive(&inner, &mut socket, &mut machine).await;
        }
    })
}
