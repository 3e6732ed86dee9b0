//! The world: the server and its clients, each on a host of its own, walking and acting.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::time::Timestamp;
use twinspan_game::{Bot, BotConfig, ClientConfig, GATHER};
use twinspan_provider::{RandomProvider, UdpOptions};
use twinspan_session::CryptoSuite;
use twinspan_sim::{SimConfig, SimSuite, Wish};
use twinspan_world::SharedKeyframes;

use super::{Measured, ROUGH, SEED, meter};
use crate::error::BenchError;
use crate::memory;
use crate::simulated::{SERVER, Site};

/// From the start of one client to that of the next.
const START_SPACING: Duration = Duration::from_micros(200);
/// Time for the last ones to come in, and for areas of interest to settle.
const SETTLE: Duration = Duration::from_secs(2);
/// Packet buffers of a client's socket: it has a few datagrams at a time.
const CLIENT_POOL_PACKETS: usize = 8;
/// The same of the server's, with datagrams for everybody at once.
const SERVER_POOL_PACKETS: usize = 8_192;

pub(super) fn run(
    clients: u32,
    time: Duration,
    real_ciphers: bool,
) -> Result<Measured, BenchError> {
    let suites: Arc<dyn AeadSuite> = match real_ciphers {
        true => Arc::new(CryptoSuite::detect()),
        false => Arc::new(SimSuite),
    };
    let cipher = suites.ciphers().first().map_or("none", |cipher| cipher.name()).to_owned();
    let config = SimConfig { seed: SEED, conditions: ROUGH, ..SimConfig::default() };
    let (mut site, secrets) = Site::new(config, suites);
    let server = site.world_server(clients, secrets)?;
    // All replicas are on this thread.
    let _keyframes = SharedKeyframes::begin(clients as usize);
    memory::begin();
    let before = memory::Memory::now();
    let env = site.server.clone();
    // As a server on a real socket does.
    let options =
        UdpOptions { pool_packets: SERVER_POOL_PACKETS, gather: GATHER, ..UdpOptions::default() };
    site.launch(&env, SERVER, None, options, server);
    let options = UdpOptions { pool_packets: CLIENT_POOL_PACKETS, ..UdpOptions::default() };
    let mut bots = Vec::with_capacity(clients as usize);
    for number in 0..clients {
        let address = client_address(number);
        let env = site.sim.host("client", address.ip());
        let config = ClientConfig { samples_max: 0, ..ClientConfig::default() };
        let client = site.client(number, &env, config)?;
        let bot = Bot::new(client, BotConfig::default(), env.stream("bot", 0));
        let bot = Rc::new(RefCell::new(bot));
        let start_at = Timestamp::START.after(START_SPACING * number);
        site.launch(&env, address, Some(start_at), options, Rc::clone(&bot));
        site.sim.set_wish(address.ip(), Rc::clone(&bot) as Rc<dyn Wish>);
        bots.push(bot);
    }
    site.sim.run_for(START_SPACING * clients + SETTLE);
    let measured = meter(&mut site.sim, time);
    let after = memory::Memory::now();
    let live = |memory: Option<memory::Memory>| memory.map_or(0, |memory| memory.live_bytes);
    let live_bytes = u64::try_from(live(after) - live(before)).unwrap_or(0);
    let connected = bots.iter().filter(|bot| bot.borrow().connected_at().is_some()).count() as u64;
    Ok(Measured { count: connected, cipher, live_bytes, ..measured })
}

/// The address of client `number`: 10.1.0.1 and on.
fn client_address(number: u32) -> SocketAddr {
    let base = u32::from(Ipv4Addr::new(10, 1, 0, 1));
    SocketAddr::from((Ipv4Addr::from(base + number), 5_000))
}
