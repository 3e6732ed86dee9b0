//! What tests stand on: a simulated network with a grid's host and a viewer's.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_grid::{Account, GridServer, GridServerConfig};
use twinspan_provider::{Env, TimeProvider, Timer};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask};
use twinspan_viewer::{
    AccountName, Bot, ClientHandle, Grid, LoginCredentials, NetworkEvent, NetworkManager,
    Subscription, ViewerConfig, ViewerCore,
};

pub(crate) const GRID_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
pub(crate) const VIEWER_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const PROXY_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5));
/// Virtual time that a test may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(1_800);

pub(crate) const USER: &str = "Ruth Resident";
pub(crate) const OTHER: &str = "Max Miller";
pub(crate) const PASSWORD: &str = "secret";

/// A simulated network and its hosts.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) grid: SimEnv,
    pub(crate) viewer: SimEnv,
}

impl World {
    pub(crate) fn new(seed: u64, conditions: Conditions) -> Self {
        let mut sim = Sim::new(SimConfig { seed, conditions, ..SimConfig::default() });
        let grid = sim.host("grid", GRID_IP);
        let viewer = sim.host("viewer", VIEWER_IP);
        Self { sim, grid, viewer }
    }

    /// Runs a test on the viewer's host.
    pub(crate) fn run<F>(&mut self, test: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let viewer = self.viewer.clone();
        self.sim.block_on(&viewer, LIMIT, test).expect("the test ends within its time")
    }

    /// Starts a grid and logs an avatar in.
    pub(crate) fn log_in(&mut self, config: ViewerConfig) -> Visit {
        let (grid, viewer) = (self.grid.clone(), self.viewer.clone());
        self.run(async move {
            let server = start_grid(&grid, grid_config(GRID_IP)).await;
            let Viewer { handle, events, task } = start_viewer(&viewer, config);
            let manager = handle.network_manager.clone();
            manager.connect(credentials(USER, server.login_url())).await.expect("let in");
            Visit { server, bot: handle.bot(), manager, handle, events, task }
        })
    }
}

/// An avatar that is in, and its grid.
pub(crate) struct Visit {
    pub(crate) server: GridServer<SimEnv>,
    pub(crate) manager: NetworkManager,
    pub(crate) bot: Bot,
    pub(crate) handle: ClientHandle,
    pub(crate) events: Subscription<NetworkEvent>,
    pub(crate) task: SimTask,
}

/// A grid with accounts for two.
pub(crate) fn grid_config(ip: IpAddr) -> GridServerConfig {
    let accounts =
        [USER, OTHER].map(|name| Account::new(AccountName::parse(name).expect("a name"), PASSWORD));
    GridServerConfig {
        listen: SocketAddr::new(ip, 0),
        accounts: accounts.to_vec(),
        ..GridServerConfig::default()
    }
}

pub(crate) async fn start_grid<E: Env>(env: &E, config: GridServerConfig) -> GridServer<E> {
    GridServer::start(env.clone(), config).await.expect("the grid starts")
}

/// A viewer's core as a task; it ends with the handle.
pub(crate) struct Viewer<E: Env> {
    pub(crate) handle: ClientHandle,
    pub(crate) events: Subscription<NetworkEvent>,
    pub(crate) task: E::Task,
}

pub(crate) fn start_viewer<E: Env>(env: &E, config: ViewerConfig) -> Viewer<E> {
    let (core, handle) = ViewerCore::new(env.clone(), config).expect("a legal configuration");
    let events = handle.network_manager.subscribe();
    let task = env.spawn("core", core.run());
    Viewer { handle, events, task }
}

pub(crate) fn credentials(user: &str, url: &str) -> LoginCredentials {
    LoginCredentials::new(user, PASSWORD).with_grid(Grid::OpenSim(url.to_owned()))
}

/// Waits.
pub(crate) async fn sleep<E: TimeProvider>(env: &E, duration: Duration) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(duration)));
    std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// What a future gives, unless that takes longer.
pub(crate) async fn within<E: TimeProvider, F: Future>(
    env: &E,
    limit: Duration,
    future: F,
) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut timer = env.timer();
    timer.set(Some(env.now().after(limit)));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => timer.poll_expired(cx).map(|()| None),
    })
    .await
}

/// The first event that `pick` takes.
pub(crate) async fn next<T>(
    events: &mut Subscription<NetworkEvent>,
    mut pick: impl FnMut(&NetworkEvent) -> Option<T>,
) -> T {
    loop {
        let event = events.recv().await.expect("the client is there");
        assert!(!matches!(event, NetworkEvent::Lagged { .. }), "the test is quick enough");
        if let Some(picked) = pick(&event) {
            return picked;
        }
    }
}
