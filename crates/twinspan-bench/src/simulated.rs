//! A server and its clients in the simulator, each on a host of its own, for measurements.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use twinspan_core::aead::AeadSuite;
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_game::{Client, ClientConfig, Server, ServerConfig, ServerKeys};
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, TaskProvider, TimeProvider, Timer, UdpOptions, drive,
};
use twinspan_session::{ConnectToken, ServerIdentity, TokenIssuer, TokenKey, UserId};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask};

use crate::error::BenchError;

/// The server's address in the simulated network.
pub(crate) const SERVER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7_000);

/// A simulated network with a server's host in it.
pub(crate) struct Site {
    pub(crate) sim: Sim,
    pub(crate) suites: Arc<dyn AeadSuite>,
    /// The server's host.
    pub(crate) server: SimEnv,
    issuer: TokenIssuer,
    login: Stream,
    /// What drives the machines; dropping it stops them.
    tasks: Vec<SimTask>,
}

/// What the server of a site is made with.
pub(crate) struct Secrets {
    pub(crate) keys: ServerKeys,
    pub(crate) source: Box<dyn SecretSource>,
}

impl Site {
    /// A network without machines. Everything in it is a function of the configuration's seed.
    pub(crate) fn new(config: SimConfig, suites: Arc<dyn AeadSuite>) -> (Self, Secrets) {
        let login = Stream::new(config.seed, "login", 0);
        let mut sim = Sim::new(config);
        let server = sim.host("server", SERVER.ip());
        let mut source = server.secrets();
        let identity = ServerIdentity::new(source.as_mut());
        let tokens = TokenKey::new(source.as_mut());
        let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
        let secrets = Secrets { keys: ServerKeys { identity, tokens }, source };
        (Self { sim, suites, server, issuer, login, tasks: Vec::new() }, secrets)
    }

    /// A world server for so many players, which nobody drives yet.
    pub(crate) fn world_server(
        &self,
        players: u32,
        secrets: Secrets,
    ) -> Result<Server, BenchError> {
        let Secrets { keys, source } = secrets;
        let random = &mut |name| self.server.stream(name, 0);
        let config = ServerConfig::for_players(players);
        Server::new(config, Arc::clone(&self.suites), keys, source, random)
            .map_err(|error| BenchError::Plan(error.to_string()))
    }

    /// A token for player `number`.
    pub(crate) fn token(&mut self, number: u32) -> ConnectToken {
        self.issuer.issue(&mut self.login, UserId(u64::from(number)), SERVER, u64::MAX)
    }

    /// A client of player `number` for the host of `env`.
    pub(crate) fn client(
        &mut self,
        number: u32,
        env: &SimEnv,
        config: ClientConfig,
    ) -> Result<Client, BenchError> {
        let token = self.token(number);
        let (secrets, random) = (env.secrets(), env.stream("client", 0));
        let suites = Arc::clone(&self.suites);
        Ok(Client::new(config, suites, &token, SERVER, secrets, random)?)
    }

    /// Binds a socket on the host and drives `machine` over it, from `start_at` on if that is given.
    pub(crate) fn launch<M: Machine + 'static>(
        &mut self,
        env: &SimEnv,
        local: SocketAddr,
        start_at: Option<Timestamp>,
        options: UdpOptions,
        mut machine: M,
    ) {
        let inner = env.clone();
        self.tasks.push(env.spawn("machine", async move {
            if start_at.is_some() {
                let mut timer = inner.timer();
                timer.set(start_at);
                std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
            }
            // A simulated socket that cannot be bound or fails leaves its machine alone, which the
            // figures show.
            if let Ok(mut socket) = inner.bind_udp(local, &options).await {
                let _ = drive(&inner, &mut socket, &mut machine).await;
            }
        }));
    }
}
