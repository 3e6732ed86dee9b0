//! The grid: its sessions, its regions, and who is where.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_circuit::{
    AgentIds, CircuitEvent, CircuitStats, Circuits, Config, ConfigError, DeliveryId, Farewell,
    Outcome, QueueEvent, SendError, SendOptions, StrangerStats,
};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::DisableSimulator;
use twinspan_lludp::{AnyMessage, Message, Uuid, Vector3};

use crate::door::{Door, Word};
use crate::reply;
use crate::travel::Coming;

/// Regions of one grid.
pub const REGIONS_MAX: usize = 256;
/// Sessions of one grid.
pub const SESSIONS_MAX: usize = 4_096;
/// Events that may wait for one session's event queues.
pub const QUEUE_EVENTS_MAX: usize = 256;
/// Events that may wait to be taken; past it the oldest are dropped and counted.
const EVENTS_MAX: usize = 16_384;
/// How long a circuit stays open after its last word, for that to arrive.
const LINGER: Duration = Duration::from_secs(3);
/// Metres along a region's side.
const REGION_METRES: u64 = 256;

/// A region of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(pub(crate) usize);

/// What a region is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionConfig {
    /// Its name.
    pub name: String,
    /// Its column on the grid, in regions.
    pub x: u32,
    /// Its row on the grid, in regions.
    pub y: u32,
    /// Where it hears, as viewers are told.
    pub addr: SocketAddr,
}

impl RegionConfig {
    /// Its place on the grid, as viewers know it: metres of its south-west corner.
    pub const fn handle(&self) -> u64 {
        (self.x as u64 * REGION_METRES) << 32 | (self.y as u64 * REGION_METRES)
    }
}

/// Somebody whom login let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Who that is.
    pub ids: AgentIds,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
}

impl Guest {
    /// A guest for tests and scenarios; the number makes it unlike others.
    pub fn example(number: u32) -> Self {
        let ids = AgentIds {
            agent_id: Uuid::from_u128(0xa9e0_0000 + u128::from(number)),
            session_id: Uuid::from_u128(0x5e55_0000 + u128::from(number)),
            circuit_code: 100_000 + number,
        };
        Self { ids, first_name: format!("Guest{number}"), last_name: "Resident".into() }
    }
}

/// Times of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct GridConfig {
    /// The circuits of each region.
    pub circuits: Config,
    /// How long somebody may take from login, or from the word to go, to his arrival.
    pub arrival_timeout: Duration,
    /// Silence that is borne of who said that he pauses.
    pub paused_silence_max: Duration,
}

impl Default for GridConfig {
    fn default() -> Self {
        Self {
            circuits: Config::simulator(),
            arrival_timeout: Duration::from_secs(25),
            paused_silence_max: Duration::from_secs(300),
        }
    }
}

/// Why a grid or a region of it cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GridError {
    /// A field of the circuits' configuration is out of range.
    #[error("the regions' circuits cannot be: {0}")]
    Circuits(#[from] ConfigError),
    /// There are as many regions as a grid has.
    #[error("a grid has {REGIONS_MAX} regions at most")]
    TooManyRegions,
    /// Another region is there, or hears there.
    #[error("region {name} has the place or the address of {other}")]
    Taken {
        /// The one that was to be added.
        name: String,
        /// The one that is there.
        other: String,
    },
}

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The agent is on the grid.
    #[error("the agent is on the grid already, remove it first")]
    Present,
    /// The circuit code is somebody else's.
    #[error("the circuit code is taken, draw another")]
    CodeTaken,
    /// As many are on the grid as it takes.
    #[error("{SESSIONS_MAX} agents are on the grid, no more fit")]
    Full,
    /// There is no such region.
    #[error("there is no such region")]
    NoRegion,
}

/// What a grid has to tell.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GridEvent {
    /// Somebody is in a region from now on.
    Arrived {
        /// Who, by circuit code.
        code: u32,
        /// Where.
        region: RegionId,
        /// From where; `None` at login.
        from: Option<RegionId>,
    },
    /// Somebody said something that is for everybody or for scripts.
    Chat {
        /// Who, by circuit code.
        code: u32,
        /// Where.
        region: RegionId,
        /// What.
        text: String,
        /// The channel; 0 is heard by people.
        channel: i32,
    },
    /// A journey came to nothing.
    TravelFailed {
        /// Whose, by circuit code.
        code: u32,
        /// Where to.
        to: RegionId,
    },
    /// Somebody is gone.
    Left {
        /// Who, by circuit code.
        code: u32,
        /// Whether he said goodbye.
        asked: bool,
    },
    /// What became of messages sent by [`Grid::send_reliable`].
    Delivery {
        /// Which region sent it.
        region: RegionId,
        /// What sending gave.
        id: DeliveryId,
        /// What became of them.
        outcome: Outcome,
    },
}

/// Something for an event queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// For whom, by circuit code.
    pub code: u32,
    /// On the queue of which region.
    pub region: RegionId,
    /// What.
    pub event: QueueEvent,
}

/// Counters of a grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GridStats {
    /// Messages that no region acts on, or that speak for somebody else.
    pub unused: u64,
    /// Words at a wrong time or in a wrong region.
    pub stale: u64,
    /// What could not be sent or told, because too much waited already.
    pub dropped: u64,
}

/// Somebody on the grid.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) guest: Guest,
    /// The region that he is in.
    pub(crate) home: Option<RegionId>,
    /// The region that is to let him in.
    pub(crate) coming: Option<Coming>,
    /// Regions that he has or may open circuits to.
    pub(crate) allowed: BTreeSet<RegionId>,
    pub(crate) position: Vector3,
    /// The word that let him in, until he acknowledged it.
    pub(crate) let_in: Option<(RegionId, DeliveryId)>,
    queued: usize,
}

impl Session {
    pub(crate) fn may_enter(&self, region: RegionId) -> bool {
        self.allowed.contains(&region)
    }
}

pub(crate) type Sessions = BTreeMap<u32, Session>;

#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) config: RegionConfig,
    id: Uuid,
    pub(crate) circuits: Circuits,
    /// Circuit codes of those with a circuit.
    pub(crate) peers: BTreeMap<SocketAddr, u32>,
    /// Circuits that close soon.
    lingering: VecDeque<(Timestamp, SocketAddr)>,
}

/// A grid with all its regions, as one machine.
///
/// Each region has a socket of its own; see [`RegionMachine`](crate::RegionMachine).
#[derive(Debug)]
pub struct Grid {
    pub(crate) config: GridConfig,
    pub(crate) regions: Vec<Region>,
    pub(crate) sessions: Sessions,
    events: VecDeque<GridEvent>,
    queue: VecDeque<Queued>,
    words: Vec<(SocketAddr, Word)>,
    random: Stream,
    pub(crate) stats: GridStats,
}

impl Grid {
    /// A grid without regions.
    ///
    /// # Errors
    /// [`GridError::Circuits`]
    pub fn new(config: GridConfig, random: Stream) -> Result<Self, GridError> {
        config.circuits.check()?;
        Ok(Self {
            config,
            regions: Vec::new(),
            sessions: BTreeMap::new(),
            events: VecDeque::new(),
            queue: VecDeque::new(),
            words: Vec::new(),
            random,
            stats: GridStats::default(),
        })
    }

    /// Adds a region.
    ///
    /// # Errors
    /// [`GridError`]
    pub fn add_region(&mut self, config: RegionConfig) -> Result<RegionId, GridError> {
        if self.regions.len() >= REGIONS_MAX {
            return Err(GridError::TooManyRegions);
        }
        let same = |other: &&Region| {
            other.config.addr == config.addr || other.config.handle() == config.handle()
        };
        if let Some(other) = self.regions.iter().find(same) {
            let other = other.config.name.clone();
            return Err(GridError::Taken { name: config.name, other });
        }
        let stream = Stream::new(self.random.next_u64(), "region", 0);
        let id = Uuid::from_u64_pair(self.random.next_u64(), self.random.next_u64());
        self.regions.push(Region {
            config,
            id,
            circuits: Circuits::new(self.config.circuits.clone(), stream)?,
            peers: BTreeMap::new(),
            lingering: VecDeque::new(),
        });
        Ok(RegionId(self.regions.len() - 1))
    }

    /// What a region is.
    pub fn region(&self, region: RegionId) -> Option<&RegionConfig> {
        self.regions.get(region.0).map(|region| &region.config)
    }

    /// All regions, in the order in which they were added.
    pub fn regions(&self) -> impl ExactSizeIterator<Item = (RegionId, &RegionConfig)> {
        self.regions.iter().enumerate().map(|(index, region)| (RegionId(index), &region.config))
    }

    /// The region at a place.
    pub fn region_at(&self, handle: u64) -> Option<RegionId> {
        self.regions().find(|(_, config)| config.handle() == handle).map(|(id, _)| id)
    }

    /// Login let somebody in: he is expected in this region.
    ///
    /// # Errors
    /// [`AdmitError`]
    pub fn admit(
        &mut self,
        now: Timestamp,
        guest: Guest,
        region: RegionId,
        position: Vector3,
    ) -> Result<(), AdmitError> {
        if region.0 >= self.regions.len() {
            return Err(AdmitError::NoRegion);
        }
        if self.code_of(guest.ids.agent_id).is_some() {
            return Err(AdmitError::Present);
        }
        if self.sessions.contains_key(&guest.ids.circuit_code) {
            return Err(AdmitError::CodeTaken);
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(AdmitError::Full);
        }
        let until = now.after(self.config.arrival_timeout);
        let session = Session {
            home: None,
            coming: Some(Coming::login(region, until, position)),
            allowed: BTreeSet::from([region]),
            position,
            let_in: None,
            queued: 0,
            guest,
        };
        self.sessions.insert(session.guest.ids.circuit_code, session);
        Ok(())
    }

    /// The circuit code of an agent on the grid.
    pub fn code_of(&self, agent_id: Uuid) -> Option<u32> {
        let mut sessions = self.sessions.iter();
        let found = sessions.find(|(_, session)| session.guest.ids.agent_id == agent_id);
        found.map(|(code, _)| *code)
    }

    /// Who somebody is.
    pub fn guest(&self, code: u32) -> Option<&Guest> {
        self.sessions.get(&code).map(|session| &session.guest)
    }

    /// The region that somebody is in.
    pub fn home(&self, code: u32) -> Option<RegionId> {
        self.sessions.get(&code)?.home
    }

    /// How many are on the grid.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody is on the grid.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes a datagram that came to the socket of a region.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        region: RegionId,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        self.at_door(region, |circuits, door| {
            circuits.handle_datagram(now, from, datagram, door);
        });
        self.follow(now, region);
    }

    /// Does what is due in a region.
    pub fn handle_timeout(&mut self, now: Timestamp, region: RegionId) {
        self.at_door(region, |circuits, door| circuits.handle_timeout(now, door));
        self.follow(now, region);
        self.close_lingering(now, region);
        self.expire(now);
    }

    fn at_door(&mut self, region: RegionId, act: impl FnOnce(&mut Circuits, &mut Door<'_>)) {
        let Some(place) = self.regions.get_mut(region.0) else { return };
        let mut door = Door {
            region,
            sessions: &self.sessions,
            peers: &mut place.peers,
            words: &mut self.words,
            unused: &mut self.stats.unused,
        };
        act(&mut place.circuits, &mut door);
    }

    /// Acts on what came.
    fn follow(&mut self, now: Timestamp, region: RegionId) {
        while let Some(event) = self.regions.get_mut(region.0).and_then(|r| r.circuits.poll_event())
        {
            match event {
                CircuitEvent::Delivery { id, outcome, .. } => {
                    self.on_delivery(now, (region, id), outcome);
                }
                CircuitEvent::Closed { addr, .. } => self.on_closed(region, addr),
                _ => {}
            }
        }
        let mut words = std::mem::take(&mut self.words);
        for (from, word) in words.drain(..) {
            let code = self.regions.get(region.0).and_then(|place| place.peers.get(&from).copied());
            if let Some(code) = code {
                self.on_word(now, region, (from, code), word);
            }
        }
        self.words = words;
    }

    fn on_delivery(&mut self, now: Timestamp, what: (RegionId, DeliveryId), outcome: Outcome) {
        let mut sessions = self.sessions.iter_mut();
        let found = sessions.find(|(_, session)| session.let_in == Some(what));
        let Some((code, session)) = found else {
            let (region, id) = what;
            return self.tell(GridEvent::Delivery { region, id, outcome });
        };
        session.let_in = None;
        if matches!(outcome, Outcome::TimedOut { .. }) {
            // He does not know that he is here, and thinks that he is elsewhere: nobody could say
            // where he is.
            let code = *code;
            self.remove(now, code, None, false);
        }
    }

    fn on_word(
        &mut self,
        now: Timestamp,
        region: RegionId,
        (from, code): (SocketAddr, u32),
        word: Word,
    ) {
        match word {
            Word::Hello => self.on_hello(now, region, (from, code)),
            Word::Arrive { code: named } if named == code => {
                // It may overtake the word that opens the circuit.
                self.keep_circuit(region, (from, code));
                self.on_arrive(now, region, code);
            }
            Word::Arrive { .. } => self.stats.stale += 1,
            Word::Throttle(rates) => {
                if let Some(place) = self.regions.get_mut(region.0) {
                    place.circuits.set_rates(from, &rates);
                }
            }
            Word::Chat { text, kind, channel } => {
                self.on_chat(now, region, code, (text, kind, channel));
            }
            Word::Teleport { handle, position, look_at } => {
                self.on_teleport(now, region, code, (handle, position, look_at));
            }
            Word::Cancel => self.on_cancel(now, region, code),
            Word::Logout => self.on_logout(now, region, code),
            Word::Pause(paused) => {
                let usual = self.config.circuits.silence_max;
                let silence = if paused { self.config.paused_silence_max } else { usual };
                if let Some(place) = self.regions.get_mut(region.0) {
                    place.circuits.set_silence_max(from, silence);
                }
            }
        }
    }

    /// Somebody opened a circuit: the region says what it is.
    fn on_hello(&mut self, now: Timestamp, region: RegionId, (from, code): (SocketAddr, u32)) {
        self.keep_circuit(region, (from, code));
        let Some(place) = self.regions.get_mut(region.0) else { return };
        // He comes from elsewhere now: the circuit of before is of no more use.
        let before: Vec<SocketAddr> = place
            .peers
            .iter()
            .filter(|(addr, of)| **of == code && **addr != from)
            .map(|(addr, _)| *addr)
            .collect();
        for addr in before {
            place.peers.remove(&addr);
            place.circuits.close(addr, Farewell::Silent);
        }
        let message = reply::handshake(&place.config, place.id);
        let options = SendOptions::CRITICAL.within(self.config.arrival_timeout);
        self.send_to(now, region, code, &message, options);
    }

    /// Somebody is back before his circuit was closed: it stays open.
    fn keep_circuit(&mut self, region: RegionId, (from, code): (SocketAddr, u32)) {
        let may = self.sessions.get(&code).is_some_and(|session| session.may_enter(region));
        if let Some(place) = self.regions.get_mut(region.0).filter(|_| may) {
            place.lingering.retain(|(_, addr)| *addr != from);
        }
    }

    fn on_chat(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        (text, kind, channel): (String, u8, i32),
    ) {
        // On his way somebody may still speak where he is no more: nobody there listens.
        let is_here = self.home(code) == Some(region);
        self.stats.stale += u64::from(!is_here);
        if is_here && channel == 0 && !text.is_empty() {
            let Some(session) = self.sessions.get(&code) else { return };
            let message = reply::chat(&session.guest, session.position, (&text, kind));
            let hearers: Vec<u32> = self.present(region);
            for hearer in hearers {
                self.send_to(now, region, hearer, &message, SendOptions::RELIABLE);
            }
        }
        self.tell(GridEvent::Chat { code, region, text, channel });
    }

    /// The circuit codes of all in a region.
    fn present(&self, region: RegionId) -> Vec<u32> {
        let here = self.sessions.iter().filter(|(_, session)| session.home == Some(region));
        here.map(|(code, _)| *code).collect()
    }

    fn on_logout(&mut self, now: Timestamp, region: RegionId, code: u32) {
        let Some(session) = self.sessions.get(&code) else { return };
        if session.home.is_some_and(|home| home != region) {
            self.stats.stale += 1;
            return;
        }
        let message = reply::logout_reply(&session.guest.ids);
        self.send_to(now, region, code, &message, SendOptions::CRITICAL.within(LINGER));
        self.remove(now, code, Some(region), true);
    }

    /// Removes somebody with a word why.
    pub fn kick(&mut self, now: Timestamp, code: u32, reason: &str) {
        let Some(session) = self.sessions.get(&code) else { return };
        let message = reply::kick(&session.guest.ids, reason);
        if let Some(home) = session.home {
            self.send_to(now, home, code, &message, SendOptions::CRITICAL.within(LINGER));
            self.remove(now, code, Some(home), false);
        } else {
            self.remove(now, code, None, false);
        }
    }

    /// Forgets somebody; `spoken` is the region that has said its last word already.
    pub(crate) fn remove(
        &mut self,
        now: Timestamp,
        code: u32,
        spoken: Option<RegionId>,
        asked: bool,
    ) {
        let Some(session) = self.sessions.get(&code) else { return };
        let regions: Vec<RegionId> = session.allowed.iter().copied().collect();
        for region in regions {
            if Some(region) != spoken {
                self.disable(now, region, code);
            } else if let Some(addr) = self.addr_of(region, code) {
                self.linger(now, region, addr);
            }
        }
        self.sessions.remove(&code);
        self.queue.retain(|queued| queued.code != code);
        self.tell(GridEvent::Left { code, asked });
    }

    /// Sends somebody away from a region: he has no more to do there.
    pub(crate) fn disable(&mut self, now: Timestamp, region: RegionId, code: u32) {
        if let Some(session) = self.sessions.get_mut(&code) {
            session.allowed.remove(&region);
        }
        if let Some(addr) = self.addr_of(region, code) {
            let word = SendOptions::CRITICAL.within(LINGER);
            self.send_to(now, region, code, &DisableSimulator::default(), word);
            self.linger(now, region, addr);
        }
    }

    fn linger(&mut self, now: Timestamp, region: RegionId, addr: SocketAddr) {
        if let Some(place) = self.regions.get_mut(region.0) {
            place.lingering.push_back((now.after(LINGER), addr));
        }
    }

    fn close_lingering(&mut self, now: Timestamp, region: RegionId) {
        let Some(place) = self.regions.get_mut(region.0) else { return };
        while let Some((_, addr)) = place.lingering.pop_front_if(|(at, _)| *at <= now) {
            place.peers.remove(&addr);
            place.circuits.close(addr, Farewell::Silent);
        }
    }

    fn on_closed(&mut self, region: RegionId, addr: SocketAddr) {
        let Some(place) = self.regions.get_mut(region.0) else { return };
        let Some(code) = place.peers.remove(&addr) else { return };
        let Some(session) = self.sessions.get_mut(&code) else { return };
        session.allowed.remove(&region);
        if session.home == Some(region) {
            session.home = None;
            // Somebody on his way to another region may still arrive there.
            if session.coming.is_none() {
                let ended = Timestamp::START;
                session.coming = Some(Coming::nowhere(region, ended));
            }
        }
    }

    /// Where somebody hears what a region says.
    pub(crate) fn addr_of(&self, region: RegionId, code: u32) -> Option<SocketAddr> {
        let place = self.regions.get(region.0)?;
        let leaves = |addr: &SocketAddr| place.lingering.iter().any(|(_, of)| of == addr);
        let mut peers = place.peers.iter().filter(|(addr, of)| **of == code && !leaves(addr));
        peers.next().map(|(addr, _)| *addr)
    }

    /// Sends a message from a region to somebody with a circuit there.
    pub(crate) fn send_to<M: Message>(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        message: &M,
        options: SendOptions,
    ) {
        let sent = self.addr_of(region, code).and_then(|addr| {
            let place = self.regions.get_mut(region.0)?;
            place.circuits.send(now, addr, message, options).ok()
        });
        self.stats.dropped += u64::from(sent.is_none());
    }

    /// Sends messages reliably from the region that somebody is in, all of them or none;
    /// [`GridEvent::Delivery`] tells what becomes of them.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NoRegion`] when he is in none.
    pub fn send_reliable(
        &mut self,
        now: Timestamp,
        code: u32,
        messages: &[AnyMessage],
    ) -> Result<(RegionId, DeliveryId), SendError> {
        let home = self.home(code).ok_or(SendError::NoRegion)?;
        let addr = self.addr_of(home, code).ok_or(SendError::NoRegion)?;
        let place = self.regions.get_mut(home.0).ok_or(SendError::NoRegion)?;
        Ok((home, place.circuits.send_reliable(now, addr, messages)?))
    }

    pub(crate) fn tell(&mut self, event: GridEvent) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
            self.stats.dropped += 1;
        }
        self.events.push_back(event);
    }

    /// Puts something on the event queue that somebody has at a region.
    pub(crate) fn enqueue(&mut self, code: u32, region: RegionId, event: QueueEvent) {
        let Some(session) = self.sessions.get_mut(&code) else { return };
        if session.queued >= QUEUE_EVENTS_MAX {
            self.stats.dropped += 1;
            return;
        }
        session.queued += 1;
        self.queue.push_back(Queued { code, region, event });
    }

    /// The next event for somebody's event queue, oldest first.
    pub fn poll_queue(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        if let Some(session) = self.sessions.get_mut(&queued.code) {
            session.queued -= 1;
        }
        Some(queued)
    }

    /// What there is to tell, oldest first.
    pub fn poll_event(&mut self) -> Option<GridEvent> {
        self.events.pop_front()
    }

    /// Writes the next datagram of a region into `out`, as
    /// [`Circuits::poll_transmit`] does.
    pub fn poll_transmit(
        &mut self,
        now: Timestamp,
        region: RegionId,
        out: &mut [u8],
    ) -> Option<(SocketAddr, usize)> {
        self.regions.get_mut(region.0)?.circuits.poll_transmit(now, out)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next for a region.
    pub fn poll_timeout(&self, region: RegionId) -> Timestamp {
        let Some(place) = self.regions.get(region.0) else { return Timestamp::NEVER };
        let lingering = place.lingering.front().map_or(Timestamp::NEVER, |(at, _)| *at);
        let coming = self.sessions.values().filter_map(|session| session.coming.as_ref());
        let coming = coming.map(Coming::until).min().unwrap_or(Timestamp::NEVER);
        place.circuits.poll_timeout().min(lingering).min(coming)
    }

    /// Its counters.
    pub const fn stats(&self) -> &GridStats {
        &self.stats
    }

    /// The counters of a region's circuits, and what they dropped of strangers.
    pub fn circuit_stats(&self, region: RegionId) -> Option<(CircuitStats, StrangerStats)> {
        let circuits = &self.regions.get(region.0)?.circuits;
        Some((circuits.total(), *circuits.strangers()))
    }

    /// Reliable messages of all regions without an outcome, those that wait included.
    pub fn unacknowledged(&self) -> usize {
        let open = self.regions.iter().map(|place| {
            let circuits = &place.circuits;
            let open = |addr| circuits.unacknowledged(addr) + circuits.waiting(addr);
            circuits.addresses().map(open).sum::<usize>()
        });
        open.sum()
    }
}
