//! The scenario `circuit` for the simulator: agents talk, travel and are cut off on a bad network,
//! and every promise of circuits is checked.

mod planned;
mod player;
mod proxy;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_circuit::{AgentConfig, CircuitStats, Config, DeliveryId, Outcome};
use twinspan_core::link::Conditions;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_http::socks5::HEADER_BYTES_MAX;
use twinspan_lludp::{AnyMessage, Vector3};
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, TaskProvider, UdpOptions, drive,
};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask};

use crate::config::{GridConfig, GridError, Guest, RegionConfig, RegionId};
use crate::event::GridEvent;
use crate::grid::Grid;
use crate::machine::RegionMachine;
use crate::reply;
use player::{Player, PlayerMachine};
use proxy::{Associations, PROXY_IP, ProxyHost, Tally, launch_behind};

pub use planned::PlannedCircuit;

/// Regions of the grid: two in a row, and one out of sight of both.
const PLACES: [(u32, &str); 3] = [(1_000, "Alpha"), (1_001, "Beta"), (1_010, "Gamma")];
/// How often the hand on the simulation looks after everything.
const STEP: Duration = Duration::from_millis(20);
/// How long an event takes from a region to the viewer over HTTP.
const QUEUE_DELAY: Duration = Duration::from_millis(60);
/// Time between two things that one player does.
const ACT: Duration = Duration::from_millis(250);
/// Virtual time after the healing in which everything must settle.
const LIVENESS_TIME_MAX: Duration = Duration::from_secs(90);
/// The type of chat that is said aloud.
const SAY: u8 = 1;
/// How often a message leaves again at most: one of a handshake, others half as often.
const RESENDS_MAX: u64 = 16;
/// Numbers of packets are as many as this; then they begin anew.
const WRAP: u64 = 1 << 24;
/// How many packets before that the players begin, unless their seed says otherwise.
const PLAYERS_TO_WRAP: u64 = 60;
/// The mark of a circuit whose numbers began anew.
const WRAPPED: &str = "the packet numbers of a circuit began anew";
/// Broken promises that are told; the rest is counted.
const BROKEN_TOLD_MAX: usize = 20;

/// The scenario's settings. A run is a function of them.
#[derive(Clone, Debug)]
pub struct CircuitScenario {
    /// Players, each on a host of its own.
    pub clients: u32,
    /// Virtual time under faults.
    pub duration: Duration,
    /// The seed.
    pub seed: u64,
    /// What every link is like until it is healed; `None` draws it from the seed, with a loss of up
    /// to 30 %.
    pub conditions: Option<Conditions>,
    /// Players whose datagrams go through a SOCKS5 proxy, which loses associations, refuses, dies
    /// and comes back; `None` draws it from the seed: nobody in two seeds of three.
    pub proxied: Option<u32>,
    /// Where the numbers of packets begin; `None` draws it from the seed.
    pub numbers: Option<FirstNumbers>,
}

/// Where the numbers of packets begin. They begin anew behind 2^24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstNumbers {
    /// Of what players send.
    pub players: u64,
    /// Of what regions send.
    pub regions: u64,
}

impl FirstNumbers {
    /// So many packets before they begin anew; with 0 they begin with 1, as usual.
    pub const fn before_wrap(players: u64, regions: u64) -> Self {
        const fn first(packets: u64) -> u64 {
            if packets == 0 { 1 } else { WRAP.saturating_sub(packets) }
        }
        Self { players: first(players), regions: first(regions) }
    }

    /// Those of a seed: in half of them regions, too, begin close to the end.
    fn drawn(seed: u64) -> Self {
        let mut random = Stream::new(seed, "numbers", 0);
        let regions = if random.chance(0.5) { 1 + random.below(600) } else { 0 };
        Self::before_wrap(PLAYERS_TO_WRAP, regions)
    }
}

impl Default for CircuitScenario {
    fn default() -> Self {
        Self {
            clients: 6,
            duration: Duration::from_secs(40),
            seed: 1,
            conditions: None,
            proxied: None,
            numbers: None,
        }
    }
}

/// What a run was like.
#[derive(Clone, Debug)]
pub struct CircuitReport {
    /// Hash over every event: the same for the same settings.
    pub trace_hash: u64,
    /// Events in the trace.
    pub events: u64,
    /// Virtual time that passed, healing included.
    pub virtual_time: Duration,
    /// Players that were in the world at the end.
    pub connected: u32,
    /// Logins, those after a lost region included.
    pub logins: u32,
    /// Reliable messages whose outcome was checked, both ways.
    pub reliable_sent: u64,
    /// Of these, acknowledged ones.
    pub reliable_acked: u64,
    /// Of these, such that timed out or lost their circuit.
    pub reliable_failed: u64,
    /// Journeys that led to another region.
    pub teleports: u64,
    /// Borders crossed.
    pub crossings: u64,
    /// Journeys that came to nothing, each with its reason.
    pub travel_failures: u64,
    /// Players behind the proxy.
    pub proxied: u32,
    /// Associations with the proxy that were made.
    pub associations: u64,
    /// Of these, those that ended before their player did.
    pub associations_lost: u64,
    /// Circuits whose packet numbers began anew behind 2^24, at either end.
    pub wraps: u64,
    /// What the players' circuits did.
    pub viewers: CircuitStats,
    /// What the regions' circuits did.
    pub regions: CircuitStats,
    /// From each login to the first object seen, slowest last.
    pub first_object: Vec<Duration>,
    /// Each fault with how often it was put in and how often its effect was seen.
    pub faults: Vec<(&'static str, u64, u64)>,
    /// Promises that were not kept; empty when all is well.
    pub broken: Vec<String>,
}

impl CircuitScenario {
    /// Runs the scenario to its end.
    ///
    /// # Errors
    /// [`GridError`] when its grid cannot be.
    pub fn run(&self) -> Result<CircuitReport, GridError> {
        let mut run = Run::new(self, |_| {})?;
        run.under_faults(self.duration, &mut |_| {});
        run.heal(&mut |_| {});
        Ok(run.report())
    }
}

type Shared<T> = Rc<RefCell<T>>;
/// Regions and where they hear.
type Regions = Vec<(RegionId, SocketAddr)>;

/// What a region said to one player, by the number in it.
#[derive(Debug, Default)]
struct Said {
    /// Player, region, delivery.
    open: BTreeMap<(RegionId, DeliveryId), (usize, u32)>,
    acked: Vec<(usize, u32)>,
    failed: u64,
    sent: u64,
}

struct Run {
    sim: Sim,
    _tasks: Vec<SimTask>,
    grid: Shared<Grid>,
    regions: Regions,
    players: Vec<Seat>,
    said: Said,
    /// Cuts that are to be healed: when, and which link of a way to a region.
    cuts: Vec<(Timestamp, IpAddr, IpAddr)>,
    /// Whether players are cut off now and then; else what happens to links is planned.
    is_cutting: bool,
    /// The players before this one are behind the proxy.
    proxied: usize,
    proxy: Option<ProxyHost>,
    associations: Tally,
    numbers: FirstNumbers,
    next_number: u32,
    next_code: u32,
    logins: u32,
    random: Stream,
    resting: bool,
    broken: Vec<String>,
    untold: u64,
}

/// A player's host, the player on it now, and what is on its way to its event queues.
struct Seat {
    env: SimEnv,
    player: Shared<Player>,
    stopped: Rc<Cell<bool>>,
    task: Option<SimTask>,
    queue: Vec<(Timestamp, RegionId, twinspan_circuit::QueueEvent)>,
    act_at: Timestamp,
    /// Players that sat here before.
    former: Vec<Shared<Player>>,
}

fn client_ip(index: usize) -> IpAddr {
    IpAddr::from([10, 1, (index / 250) as u8, (index % 250) as u8 + 1])
}

impl Run {
    /// `prepare` is given the simulation before anything has happened in it.
    fn new(scenario: &CircuitScenario, prepare: impl FnOnce(&mut Sim)) -> Result<Self, GridError> {
        let seed = scenario.seed;
        let conditions = scenario.conditions.unwrap_or_else(|| drawn(seed));
        let numbers = scenario.numbers.unwrap_or_else(|| FirstNumbers::drawn(seed));
        let proxied = scenario.proxied.unwrap_or_else(|| drawn_proxied(seed, scenario.clients));
        let proxied = proxied.min(scenario.clients) as usize;
        let mut sim = Sim::new(SimConfig { seed, conditions, ..SimConfig::default() });
        prepare(&mut sim);
        let secrets = Box::new(Stream::new(seed, "secrets", 0));
        let usual = GridConfig::default();
        let circuits = Config { first_number: numbers.regions, ..usual.circuits.clone() };
        let config = GridConfig { circuits, ..usual };
        let grid = Grid::new(config, Stream::new(seed, "grid", 0), secrets)?;
        let grid = Rc::new(RefCell::new(grid));
        let (tasks, regions) = start_regions(&mut sim, &grid)?;
        let proxy = (proxied > 0).then(|| ProxyHost::boot(&mut sim, seed));
        let mut run = Self {
            sim,
            _tasks: tasks,
            grid,
            regions,
            players: Vec::new(),
            said: Said::default(),
            cuts: Vec::new(),
            is_cutting: true,
            proxied,
            proxy,
            associations: Tally::default(),
            numbers,
            next_number: 0,
            next_code: 0,
            logins: 0,
            random: Stream::new(seed, "scenario", 0),
            resting: false,
            broken: Vec::new(),
            untold: 0,
        };
        for index in 0..scenario.clients as usize {
            let env = run.sim.host(&format!("player {index}"), client_ip(index));
            let player = Rc::new(RefCell::new(Player::nobody()));
            let stopped = Rc::new(Cell::new(true));
            run.players.push(Seat {
                env,
                player,
                stopped,
                task: None,
                queue: Vec::new(),
                act_at: Timestamp::START.after(ACT * index as u32 / 3),
                former: Vec::new(),
            });
            run.login(index);
        }
        Ok(run)
    }

    fn break_promise(&mut self, line: String) {
        if self.broken.len() < BROKEN_TOLD_MAX {
            self.broken.push(line);
        } else {
            self.untold += 1;
        }
    }

    /// Logs a player in, with a socket of its own: regions know viewers by their address.
    fn login(&mut self, index: usize) {
        let now = self.sim.now();
        let guest = Guest::example(self.next_code);
        let ids = guest.ids;
        let (region, addr) = self.regions[self.next_code as usize % 2];
        self.next_code += 1;
        self.logins += 1;
        let middle = Vector3::new(128.0, 128.0, 22.0);
        let admitted = self.grid.borrow_mut().admit(now, guest, region, middle);
        if let Err(error) = admitted {
            return self.break_promise(format!("player {index} was not let in: {error}"));
        }
        let handle = self.grid.borrow().region(region).map_or(0, RegionConfig::handle);
        let circuits = self.circuits_of(index);
        let seat = &mut self.players[index];
        let random = seat.env.stream("agent", u64::from(ids.circuit_code));
        let player = match Player::login(now, ids, (addr, handle), circuits, random) {
            Ok(player) => Rc::new(RefCell::new(player)),
            Err(error) => return self.break_promise(format!("player {index}: {error}")),
        };
        seat.stopped.set(true);
        seat.stopped = Rc::new(Cell::new(false));
        seat.queue.clear();
        let machine = PlayerMachine::new(Rc::clone(&player), Rc::clone(&seat.stopped));
        let local = SocketAddr::new(client_ip(index), 20_000 + (ids.circuit_code % 30_000) as u16);
        seat.task = Some(if index < self.proxied {
            launch_behind(&seat.env, local, machine, Rc::clone(&self.associations))
        } else {
            launch(&seat.env, local, machine)
        });
        let former = std::mem::replace(&mut seat.player, player);
        if former.borrow().code() != 0 {
            seat.former.push(former);
        }
    }

    /// A player's circuits; a proxy's header comes off their datagrams.
    fn circuits_of(&self, index: usize) -> Config {
        let usual = AgentConfig::default().circuits;
        let header = if index < self.proxied { HEADER_BYTES_MAX } else { 0 };
        Config {
            first_number: self.numbers.players,
            datagram_bytes_max: usual.datagram_bytes_max - header,
            ..usual
        }
    }

    /// `after` is shown the run after each step.
    fn under_faults(&mut self, duration: Duration, after: &mut dyn FnMut(&Self)) {
        let end = self.sim.now().after(duration);
        while self.sim.now() < end {
            self.step();
            after(self);
        }
    }

    /// Heals the network; players rest, and everything under way must come to its end. How long that
    /// took.
    fn heal(&mut self, after: &mut dyn FnMut(&Self)) -> Duration {
        self.resting = true;
        self.sim.set_conditions(Conditions::CLEAN);
        self.sim.heal_faults();
        if let Some(proxy) = &mut self.proxy {
            proxy.heal(&mut self.sim);
        }
        self.cuts.clear();
        let healed_at = self.sim.now();
        let deadline = healed_at.after(LIVENESS_TIME_MAX);
        while self.sim.now() < deadline && !self.is_settled() {
            self.step();
            after(self);
        }
        let settled_after = self.sim.now().since(healed_at);
        if !self.is_settled() {
            let open = self.open();
            self.break_promise(format!("not settled {LIVENESS_TIME_MAX:?} after healing: {open}"));
        }
        // What is given up stays so: only what regions say anew to players who are gone leaves
        // again, within its budget.
        let before = self.everybody();
        for _ in 0..250 {
            self.step();
            after(self);
        }
        let ended = self.everybody();
        let resends = ended.resends_out - before.resends_out;
        if resends > RESENDS_MAX * (ended.reliable_out - before.reliable_out) {
            self.break_promise(format!("{resends} resends of messages without a future"));
        }
        settled_after
    }

    fn everybody(&self) -> CircuitStats {
        let mut total = self.viewer_stats();
        total.add(&self.region_stats());
        total
    }

    fn is_settled(&self) -> bool {
        let seated = |seat: &Seat| {
            let player = seat.player.borrow();
            let home = self.grid.borrow().home(player.code());
            let here = self.regions.iter().find(|(id, _)| Some(*id) == home).map(|(_, at)| *at);
            player.is_settled()
                && here.is_some()
                && player.region() == here
                && seat.queue.is_empty()
        };
        self.players.iter().all(seated)
            && self.said.open.is_empty()
            && self.grid.borrow().unacknowledged() == 0
    }

    fn open(&self) -> String {
        let players = self.players.iter().enumerate().map(|(index, seat)| {
            let player = seat.player.borrow();
            let home = self.grid.borrow().home(player.code());
            format!("player {index} {} at {home:?}; ", player.describe())
        });
        let open = players.collect::<String>();
        format!("{open}{} words of regions", self.said.open.len())
    }

    /// One step of time and everything that the hand does beside it.
    fn step(&mut self) {
        self.sim.run_for(STEP);
        let now = self.sim.now();
        self.mend(now);
        self.collect(now);
        for index in 0..self.players.len() {
            self.deliver(now, index);
            if self.players[index].player.borrow().is_ended() {
                self.login(index);
            }
            if self.players[index].act_at <= now {
                self.players[index].act_at = now.after(ACT);
                if !self.resting {
                    self.act(now, index);
                }
            }
        }
        if self.is_cutting && !self.resting {
            if self.random.chance(0.004) {
                self.cut(now);
            }
            if let Some(proxy) = &mut self.proxy {
                proxy.mend(now, &mut self.sim);
                proxy.trouble(now, &mut self.sim);
            }
        }
    }

    /// Cuts a player off from a region, often the one that he is in or goes to; one behind the proxy
    /// from that, or the proxy from the region.
    fn cut(&mut self, now: Timestamp) {
        let index = self.random.below(self.players.len() as u64) as usize;
        let region = self.random.below(self.regions.len() as u64) as usize;
        let at = self.players[index].player.borrow().region();
        let chosen = at.filter(|_| self.random.chance(0.5));
        let region = chosen.unwrap_or(self.regions[region].1).ip();
        let hops = self.hops(index, region);
        // A way without a proxy takes no draw.
        let hop = if hops.len() > 1 { self.random.below(hops.len() as u64) as usize } else { 0 };
        let (one, other) = hops[hop];
        self.sim.partition(one, other);
        let long = self.random.below(9_000);
        self.cuts.push((now.after(Duration::from_millis(500 + long)), one, other));
    }

    /// The links on a player's way to a region.
    fn hops(&self, index: usize, region: IpAddr) -> Vec<(IpAddr, IpAddr)> {
        let player = client_ip(index);
        if index < self.proxied {
            vec![(player, PROXY_IP), (PROXY_IP, region)]
        } else {
            vec![(player, region)]
        }
    }

    fn mend(&mut self, now: Timestamp) {
        if self.cuts.iter().any(|(until, ..)| *until <= now) {
            self.cuts.retain(|(until, ..)| *until > now);
            self.sim.heal_all();
            for (_, one, other) in self.cuts.clone() {
                self.sim.partition(one, other);
            }
        }
    }

    fn is_cut(&self, index: usize, region: RegionId) -> bool {
        let region = self.regions.iter().find(|(id, _)| *id == region);
        let hops = region.map_or_else(Vec::new, |(_, at)| self.hops(index, at.ip()));
        self.cuts.iter().any(|(_, one, other)| hops.contains(&(*one, *other)))
    }

    /// What the grid tells: outcomes, and events for queues.
    fn collect(&mut self, now: Timestamp) {
        let mut grid = self.grid.borrow_mut();
        while let Some(queued) = grid.poll_queue() {
            let seat =
                self.players.iter_mut().find(|seat| seat.player.borrow().code() == queued.code);
            if let Some(seat) = seat {
                seat.queue.push((now.after(QUEUE_DELAY), queued.region, queued.event));
            }
        }
        while let Some(event) = grid.poll_event() {
            match event {
                GridEvent::Delivery { region, id, outcome } => {
                    let Some(said) = self.said.open.remove(&(region, id)) else { continue };
                    match outcome {
                        Outcome::Acked { .. } => self.said.acked.push(said),
                        _ => self.said.failed += 1,
                    }
                }
                GridEvent::Chat { code, text, .. } => {
                    let players = self
                        .players
                        .iter()
                        .flat_map(|seat| seat.former.iter().chain([&seat.player]));
                    for player in players.filter(|player| player.borrow().code() == code) {
                        player.borrow_mut().on_heard_by_region(&text);
                    }
                }
                _ => {}
            }
        }
    }

    /// Hands a player what his event queues brought. While he is cut off from the region, the
    /// stream waits.
    fn deliver(&mut self, now: Timestamp, index: usize) {
        loop {
            let open = |(at, region, _): &(Timestamp, RegionId, _)| {
                *at <= now && !self.is_cut(index, *region)
            };
            let Some(place) = self.players[index].queue.iter().position(open) else { return };
            let (_, region, event) = self.players[index].queue.remove(place);
            let from = self.regions.iter().find(|(id, _)| *id == region).map(|(_, at)| *at);
            if let Some(from) = from {
                self.players[index].player.borrow_mut().on_queue(now, from, event);
            }
        }
    }

    /// A player does something, and his region says something to him.
    fn act(&mut self, now: Timestamp, index: usize) {
        let number = self.next_number;
        self.next_number += 2;
        let player = Rc::clone(&self.players[index].player);
        player.borrow_mut().say(now, number);
        let code = player.borrow().code();
        let mut grid = self.grid.borrow_mut();
        if let Some(guest) = grid.guest(code).cloned() {
            let word = format!("#{}", number + 1);
            let word = reply::chat(&guest, Vector3::default(), (&word, SAY));
            if let Ok((region, id)) = grid.send_reliable(now, code, &[AnyMessage::from(word)]) {
                self.said.sent += 1;
                self.said.open.insert((region, id), (index, number + 1));
            }
        }
        match self.random.below(24) {
            0 => {
                let (to, _) = self.regions[self.random.below(3) as usize];
                let handle = grid.region(to).map_or(1, RegionConfig::handle);
                player.borrow_mut().teleport(now, handle);
            }
            // A place that is not there.
            1 => player.borrow_mut().teleport(now, 77),
            2 => player.borrow_mut().cancel(now),
            3 | 4 => {
                let home = grid.home(code);
                if let Some((to, _)) = self.regions.iter().find(|(id, _)| Some(*id) != home) {
                    grid.cross(now, code, *to, Vector3::new(1.0, 128.0, 22.0));
                }
            }
            _ => {}
        }
    }

    fn viewer_stats(&self) -> CircuitStats {
        let mut total = CircuitStats::default();
        for seat in &self.players {
            for player in seat.former.iter().chain([&seat.player]) {
                total.add(&player.borrow().circuit_stats());
            }
        }
        total
    }

    fn region_stats(&self) -> CircuitStats {
        let mut total = CircuitStats::default();
        for (region, _) in &self.regions {
            if let Some((stats, _)) = self.grid.borrow().circuit_stats(*region) {
                total.add(&stats);
            }
        }
        total
    }

    /// Each message that a region said came once, if it was acknowledged, and never twice.
    fn check_words(&mut self) {
        let mut lines = Vec::new();
        for (index, seat) in self.players.iter().enumerate() {
            for player in seat.former.iter().chain([&seat.player]) {
                player.borrow().check(&mut |line| lines.push(format!("player {index}: {line}")));
            }
        }
        for (index, number) in &self.said.acked {
            let seat = &self.players[*index];
            let all = seat.former.iter().chain([&seat.player]);
            let times: u32 = all.map(|player| player.borrow().heard(*number)).sum();
            if times != 1 {
                lines.push(format!(
                    "player {index} heard {number} {times} times, it was acknowledged"
                ));
            }
        }
        lines.into_iter().for_each(|line| self.break_promise(line));
    }

    fn check_budgets(&mut self) {
        for (who, stats) in [("viewers", self.viewer_stats()), ("regions", self.region_stats())] {
            if stats.resends_out > RESENDS_MAX * stats.reliable_out {
                let (resends, sent) = (stats.resends_out, stats.reliable_out);
                self.break_promise(format!("{who}: {resends} resends of {sent} messages"));
            }
            if stats.acks_unknown > 0 {
                let unknown = stats.acks_unknown;
                self.break_promise(format!("{who}: {unknown} acks of what was never sent"));
            }
        }
    }

    /// Looks after every promise that is judged at the end.
    fn judge(&mut self) {
        self.check_words();
        self.check_budgets();
        if self.untold > 0 {
            self.broken.push(format!("and {} more", self.untold));
        }
    }

    fn report(mut self) -> CircuitReport {
        self.judge();
        let faults = self.sim.faults();
        let faults: Vec<_> =
            faults.iter().map(|(kind, injected, effect)| (kind.name(), injected, effect)).collect();
        let marks = self.sim.marks();
        let wraps = marks.iter().filter(|mark| mark.site.name == WRAPPED).map(|mark| mark.met);
        let Associations { made, lost, .. } = self.associations.get();
        let mut report = CircuitReport {
            trace_hash: self.sim.trace_hash(),
            events: self.sim.events(),
            virtual_time: self.sim.now().since(Timestamp::START),
            connected: 0,
            logins: self.logins,
            reliable_sent: self.said.sent,
            reliable_acked: self.said.acked.len() as u64,
            reliable_failed: self.said.failed,
            teleports: 0,
            crossings: 0,
            travel_failures: 0,
            proxied: self.proxied as u32,
            associations: made,
            associations_lost: lost,
            wraps: wraps.sum(),
            viewers: self.viewer_stats(),
            regions: self.region_stats(),
            first_object: Vec::new(),
            faults,
            broken: self.broken,
        };
        for seat in &self.players {
            report.connected += u32::from(seat.player.borrow().region().is_some());
            for player in seat.former.iter().chain([&seat.player]) {
                player.borrow().add_to(&mut report);
            }
        }
        report.first_object.sort_unstable();
        report
    }
}

/// A host and a task for each region.
fn start_regions(sim: &mut Sim, grid: &Shared<Grid>) -> Result<(Vec<SimTask>, Regions), GridError> {
    let (mut tasks, mut regions) = (Vec::new(), Vec::new());
    for (index, (x, name)) in PLACES.into_iter().enumerate() {
        let addr = SocketAddr::from(([10, 0, 0, 1 + index as u8], 9_000));
        let config = RegionConfig { name: name.into(), x, y: 1_000, addr };
        let id = grid.borrow_mut().add_region(config)?;
        let env = sim.host(name, addr.ip());
        let stopped = Rc::new(Cell::new(false));
        let machine = RegionMachine::new(Rc::clone(grid), id, stopped);
        tasks.push(launch(&env, addr, machine));
        regions.push((id, addr));
    }
    Ok((tasks, regions))
}

/// How many of a seed's players are behind the proxy.
fn drawn_proxied(seed: u64, clients: u32) -> u32 {
    let mut random = Stream::new(seed, "proxied", 0);
    let is_there = random.below(3) == 0;
    // As many as there are clients at most.
    if is_there { 1 + random.below(u64::from(clients).max(1)) as u32 } else { 0 }
}

/// Conditions of a seed: each seed another network, up to bad ones.
fn drawn(seed: u64) -> Conditions {
    let mut random = Stream::new(seed, "conditions", 0);
    let ms = |random: &mut Stream, most: u64| Duration::from_millis(random.below(most));
    Conditions {
        loss: random.between(0.0, 0.3),
        delay: Duration::from_millis(5) + ms(&mut random, 80),
        jitter: ms(&mut random, 120),
        duplicate: random.between(0.0, 0.1),
        reorder: random.between(0.0, 0.2),
        ..Conditions::CLEAN
    }
}

/// Binds a socket on the host and drives `machine` over it.
fn launch<M: Machine + 'static>(env: &SimEnv, local: SocketAddr, mut machine: M) -> SimTask {
    let task_env = env.clone();
    env.spawn("machine", async move {
        // Without a socket nobody would be connected, which the scenario checks.
        if let Ok(mut socket) = task_env.bind_udp(local, &UdpOptions::default()).await {
            let _ = drive(&task_env, &mut socket, &mut machine).await;
        }
    })
}
