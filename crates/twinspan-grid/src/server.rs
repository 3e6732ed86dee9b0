//! A whole grid on one node: login, capabilities and every region's UDP, on either side of the seam.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_http::{ServeError, ServerConfig, serve};
use twinspan_provider::{
    BindError, Env, Machine, TcpListener, TcpOptions, Timer, UdpError, UdpOptions, UdpSocket, drive,
};

use crate::account::{ACCOUNTS_MAX, Account, NAME_BYTES_MAX, key_of};
use crate::config::{GridConfig, GridError, REGIONS_MAX, RegionConfig, RegionId};
use crate::desk::{Desk, HttpStats};
use crate::event::GridEvent;
use crate::front::{Front, Shared};
use crate::grid::Grid;
use crate::login::{Addresses, LoginDesk, LoginStats};
use crate::machine::RegionMachine;

/// Letters of a region's name, in bytes.
pub const REGION_NAME_BYTES_MAX: usize = 63;
/// The highest column and row of a region: maps have 16 bits for them.
pub const REGION_PLACE_MAX: u32 = 65_535;

/// A region that a server is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionPlan {
    /// Its name.
    pub name: String,
    /// Its column on the grid, in regions.
    pub x: u32,
    /// Its row on the grid, in regions.
    pub y: u32,
    /// Its port for UDP; 0 for any.
    pub port: u16,
}

impl RegionPlan {
    /// A region at any port.
    pub fn new(name: impl Into<String>, x: u32, y: u32) -> Self {
        Self { name: name.into(), x, y, port: 0 }
    }
}

/// What a whole grid is told.
#[derive(Clone, Debug)]
pub struct GridServerConfig {
    /// What the grid is called.
    pub name: String,
    /// The grid's circuits and times; its address of capabilities is set by the server.
    pub grid: GridConfig,
    /// Where HTTP listens, port 0 for any; regions hear at the same address. IPv4, as the protocol
    /// has it.
    pub listen: SocketAddr,
    /// Where viewers reach the grid, if that is not where it listens.
    pub public_ip: Option<Ipv4Addr>,
    /// The regions, the first of which is everybody's home.
    pub regions: Vec<RegionPlan>,
    /// Who may log in.
    pub accounts: Vec<Account>,
    /// How long a poll of an event queue waits, from 1 s to 60 s.
    pub poll_hold: Duration,
    /// Limits of HTTP.
    pub http: ServerConfig,
}

impl Default for GridServerConfig {
    /// Two regions side by side and one far away, at any ports of this machine, for nobody.
    fn default() -> Self {
        Self {
            name: "Twinspan".into(),
            grid: GridConfig::default(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            public_ip: None,
            regions: vec![
                RegionPlan::new("Alpha", 1_000, 1_000),
                RegionPlan::new("Beta", 1_001, 1_000),
                RegionPlan::new("Gamma", 1_010, 1_000),
            ],
            accounts: Vec::new(),
            poll_hold: Duration::from_secs(20),
            http: ServerConfig {
                body_bytes_max: 256 << 10,
                // Each viewer polls a queue for its region and for each neighbour.
                connections_max: 8_192,
                ..ServerConfig::default()
            },
        }
    }
}

impl GridServerConfig {
    /// Checks everything that has a range.
    ///
    /// # Errors
    /// [`GridServerError::Config`] names what is wrong.
    pub fn check(&self) -> Result<Ipv4Addr, GridServerError> {
        let wrong = |what: String| Err(GridServerError::Config(what));
        let IpAddr::V4(local) = self.listen.ip() else {
            return wrong(format!("{} is no address of IPv4, which viewers need", self.listen));
        };
        if self.regions.is_empty() || self.regions.len() > REGIONS_MAX {
            let count = self.regions.len();
            return wrong(format!("{count} regions, give 1 to {REGIONS_MAX}"));
        }
        let mut names = BTreeSet::new();
        for region in &self.regions {
            let name = &region.name;
            let is_name = !name.trim().is_empty() && !name.contains(char::is_control);
            if !is_name || name.len() > REGION_NAME_BYTES_MAX {
                let max = REGION_NAME_BYTES_MAX;
                return wrong(format!("`{name}` is no name of a region: 1 to {max} bytes of text"));
            }
            if region.x > REGION_PLACE_MAX || region.y > REGION_PLACE_MAX {
                return wrong(format!(
                    "{name} is off the map: {REGION_PLACE_MAX} is its last place"
                ));
            }
            if !names.insert(name.to_lowercase()) {
                return wrong(format!("two regions are called {name}"));
            }
        }
        self.check_accounts()?;
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.poll_hold) {
            return wrong(format!("poll_hold is {:?}, set it to 1 s..=60 s", self.poll_hold));
        }
        let told = if local.is_unspecified() { Ipv4Addr::LOCALHOST } else { local };
        Ok(self.public_ip.unwrap_or(told))
    }

    fn check_accounts(&self) -> Result<(), GridServerError> {
        let wrong = |what: String| Err(GridServerError::Config(what));
        if self.accounts.len() > ACCOUNTS_MAX {
            return wrong(format!("more than {ACCOUNTS_MAX} accounts"));
        }
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for account in &self.accounts {
            let name = &account.name;
            for part in [&name.first, &name.last] {
                let fits = (1..=NAME_BYTES_MAX).contains(&part.len());
                if !fits || part.contains(|letter: char| letter.is_control() || letter == ' ') {
                    let max = NAME_BYTES_MAX;
                    return wrong(format!("`{name}` is no name: two words of 1 to {max} bytes"));
                }
            }
            if !names.insert(key_of(name)) || !ids.insert(account.agent_id) {
                return wrong(format!("there are two accounts of {name}, or of its id"));
            }
        }
        Ok(())
    }
}

/// Why a grid cannot be served, or is no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GridServerError {
    /// Something that it was told cannot be.
    #[error("{0}")]
    Config(String),
    /// The grid cannot be.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// Its HTTP cannot listen, or a region cannot hear.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The socket of a region failed.
    #[error("region {region}: {source}")]
    Region {
        /// Which region.
        region: String,
        /// What failed.
        source: UdpError,
    },
    /// HTTP failed.
    #[error("the grid's HTTP ended: {0}")]
    Http(ServeError),
}

/// How a grid came to its end, for who waits for that.
#[derive(Default)]
struct End {
    error: RefCell<Option<GridServerError>>,
    waker: Cell<Option<Waker>>,
}

impl End {
    fn set(&self, error: GridServerError) {
        self.error.borrow_mut().get_or_insert(error);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A grid that runs: login, capabilities and all regions. Dropping it ends all of its tasks and
/// closes its sockets, at once; [`stop`](Self::stop) says goodbye first.
///
/// It does not use the network beyond what it listens on, and its state lives as long as it does.
///
/// ```
/// use twinspan_grid::{Account, GridServer, GridServerConfig};
/// use twinspan_xmlrpc::login::AccountName;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let name = AccountName::parse("Ruth Tester")?;
/// let config =
///     GridServerConfig { accounts: vec![Account::new(name, "sesame")], ..Default::default() };
/// let url = twinspan_provider::run(async |env| {
///     let server = GridServer::start(env, config).await?;
///     // Viewers log in here for as long as the server is kept.
///     Ok::<_, twinspan_grid::GridServerError>(server.login_url().to_owned())
/// })??;
/// assert!(url.starts_with("http://127.0.0.1:"));
/// # Ok(())
/// # }
/// ```
pub struct GridServer<E: Env> {
    env: E,
    shared: Rc<Shared>,
    end: Rc<End>,
    stopped: Rc<Cell<bool>>,
    login_url: String,
    _tasks: Vec<E::Task>,
}

impl<E: Env> GridServer<E> {
    /// Binds everything and begins.
    ///
    /// # Errors
    /// [`GridServerError`]; then nothing runs.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was bound.
    pub async fn start(env: E, config: GridServerConfig) -> Result<Self, GridServerError> {
        let ip = config.check()?;
        let listener = env.listen(config.listen, &TcpOptions::default()).await?;
        let http_port = listener.local_addr().port();
        let base = format!("http://{ip}:{http_port}");
        let login_url = format!("{base}/");
        let grid_config = GridConfig { caps_url: base, ..config.grid };
        let mut grid = Grid::new(grid_config, env.stream("grid", 0), env.secrets())?;
        let mut sockets = Vec::new();
        for plan in &config.regions {
            let local = SocketAddr::new(config.listen.ip(), plan.port);
            let socket = env.bind_udp(local, &UdpOptions::default()).await?;
            let addr = (ip, socket.local_addr().port()).into();
            let (name, x, y) = (plan.name.clone(), plan.x, plan.y);
            let id = grid.add_region(RegionConfig { name, x, y, addr })?;
            sockets.push((id, plan.name.clone(), socket));
        }
        let addresses = Addresses { ip, http_port, login_url: login_url.clone() };
        let login = LoginDesk::new(config.accounts, addresses, env.secrets());
        let shared = Rc::new(Shared {
            grid: Rc::new(RefCell::new(grid)),
            desk: RefCell::new(Desk::new(login, config.name)),
        });
        let (end, stopped) = (Rc::new(End::default()), Rc::new(Cell::new(false)));
        let mut tasks = Vec::new();
        for (id, region, mut socket) in sockets {
            let machine = RegionMachine::new(Rc::clone(&shared.grid), id, Rc::clone(&stopped));
            let mut machine = Served { machine, shared: Rc::clone(&shared) };
            let (task_env, end) = (env.clone(), Rc::clone(&end));
            tasks.push(env.spawn("region", async move {
                if let Err(source) = drive(&task_env, &mut socket, &mut machine).await {
                    end.set(GridServerError::Region { region, source });
                }
            }));
        }
        let front = Rc::new(Front::new(env.clone(), Rc::clone(&shared), config.poll_hold));
        let serving = serve(env.clone(), listener, front, config.http);
        let http_end = Rc::clone(&end);
        tasks.push(env.spawn("grid http", async move {
            if let Err(error) = serving.await {
                http_end.set(GridServerError::Http(error));
            }
        }));
        Ok(Self { env, shared, end, stopped, login_url, _tasks: tasks })
    }

    /// Where viewers log in.
    pub fn login_url(&self) -> &str {
        &self.login_url
    }

    /// Its regions and where they hear.
    pub fn regions(&self) -> Vec<(RegionId, RegionConfig)> {
        let grid = self.shared.grid.borrow();
        grid.regions().map(|(id, config)| (id, config.clone())).collect()
    }

    /// What happened, oldest first; what is not taken is dropped in the end and counted.
    pub fn poll_event(&self) -> Option<GridEvent> {
        self.shared.grid.borrow_mut().poll_event()
    }

    /// Looks at the grid.
    pub fn with_grid<T>(&self, look: impl FnOnce(&Grid) -> T) -> T {
        look(&self.shared.grid.borrow())
    }

    /// Acts on the grid at the present moment, as a test does that sends somebody over a border.
    pub fn act<T>(&self, act: impl FnOnce(&mut Grid, Timestamp) -> T) -> T {
        let now = self.env.now();
        let outcome = act(&mut self.shared.grid.borrow_mut(), now);
        self.shared.collect();
        outcome
    }

    /// Its counters of HTTP.
    pub fn http_stats(&self) -> HttpStats {
        self.shared.desk.borrow().stats
    }

    /// Its counters of logins.
    pub fn login_stats(&self) -> LoginStats {
        self.shared.desk.borrow().login.stats
    }

    /// Waits until the grid fails, which is not before one of its sockets does.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn failed(&self) -> GridServerError {
        poll_fn(|cx| match self.end.error.borrow_mut().take() {
            Some(error) => Poll::Ready(error),
            None => {
                self.end.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }

    /// Removes everybody with a word why, gives that a moment to arrive, and ends.
    ///
    /// # Cancel safety
    /// Dropping the future ends it at once.
    pub async fn stop(self, reason: &str) {
        /// How long last words may be under way.
        const FAREWELL: Duration = Duration::from_millis(200);
        let everybody: Vec<u32> = self.with_grid(|grid| grid.codes().collect());
        self.act(|grid, now| everybody.iter().for_each(|code| grid.kick(now, *code, reason)));
        let mut timer = self.env.timer();
        timer.set(Some(self.env.now().after(FAREWELL)));
        poll_fn(|cx| timer.poll_expired(cx)).await;
        self.stopped.set(true);
    }
}

/// A region whose events reach their queues.
struct Served {
    machine: RegionMachine,
    shared: Rc<Shared>,
}

impl Machine for Served {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.machine.handle_datagrams(now, received);
        self.shared.collect();
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.machine.handle_timeout(now);
        self.shared.collect();
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.machine.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.machine.poll_timeout()
    }

    fn is_done(&self) -> bool {
        self.machine.is_done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_xmlrpc::login::AccountName;

    fn refused(change: impl Fn(&mut GridServerConfig)) -> String {
        let mut config = GridServerConfig::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_is_named() {
        let account = |name: &str| Account::new(AccountName::parse(name).unwrap(), "x");
        assert_eq!(GridServerConfig::default().check().unwrap(), Ipv4Addr::LOCALHOST);
        for (told, words) in [
            (refused(|config| config.listen = "[::1]:0".parse().unwrap()), "[::1]:0"),
            (refused(|config| config.regions.clear()), "0 regions"),
            (refused(|config| config.regions[0].name = " ".into()), "no name of a region"),
            (refused(|config| config.regions[0].name = "BETA".into()), "called Beta"),
            (refused(|config| config.regions[0].x = 70_000), "off the map"),
            (refused(|config| config.poll_hold = Duration::ZERO), "poll_hold"),
            (refused(|config| config.accounts = vec![account("A B"); 2]), "two accounts of A B"),
            (
                refused(|config| config.accounts = vec![account(&"x".repeat(64))]),
                "two words of 1 to 63",
            ),
        ] {
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn viewers_are_told_an_address_that_they_can_reach() {
        let listen = "0.0.0.0:80".parse().unwrap();
        let mut config = GridServerConfig { listen, ..GridServerConfig::default() };
        assert_eq!(config.check().unwrap(), Ipv4Addr::LOCALHOST);
        config.public_ip = Some([192, 0, 2, 1].into());
        assert_eq!(config.check().unwrap(), Ipv4Addr::new(192, 0, 2, 1));
    }
}
