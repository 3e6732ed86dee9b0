//! The grid: its sessions, its regions, and who is where.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_circuit::{
    CircuitEvent, CircuitStats, Circuits, DeliveryId, Farewell, Outcome, QueueEvent, Rates,
    SendError, SendOptions, StrangerStats,
};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{DisableSimulator, LayerData};
use twinspan_lludp::{AnyMessage, Message, Uuid, Vector3};

use crate::assets::Library;
use crate::avatar::{Activity, Avatar, AvatarBody, News, Seat};
use crate::config::{
    AdmitError, GridConfig, GridError, Guest, QUEUE_EVENTS_MAX, REGIONS_MAX, RegionConfig,
    RegionId, SESSIONS_MAX,
};
use crate::door::{Door, Word};
use crate::event::{GridEvent, GridStats, Queued};
use crate::files::{FEED_INTERVAL, Files};
use crate::homes::Homes;
use crate::intake::Intake;
use crate::lures::Lures;
use crate::reply;
use crate::scene::{self, AVATAR_IDS_FROM, Thing};
use crate::seats::Seats;
use crate::seeds::Seeds;
use crate::travel::Coming;

/// Events that may wait to be taken; past it the oldest are dropped and counted.
const EVENTS_MAX: usize = 16_384;
/// Agents whose last places are remembered; past it one of them is forgotten.
const LASTS_MAX: usize = 4_096;
/// How long a circuit stays open after its last word, for that to arrive.
const LINGER: Duration = Duration::from_secs(3);

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
    pub(crate) avatar: Avatar,
    /// What he was last said to do, and how many times that changed.
    pub(crate) animated: Activity,
    pub(crate) animations: i32,
    /// How far his viewer shows things, in metres; 0 until it said so.
    pub(crate) far: f32,
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
    pub(crate) id: Uuid,
    pub(crate) circuits: Circuits,
    pub(crate) seats: Seats,
    pub(crate) things: Vec<Thing>,
    /// Those who do not know all things yet, and how many they were told of.
    pub(crate) showing: BTreeMap<u32, usize>,
    /// When it last handed circuits what waits for room in them.
    fed_at: Timestamp,
    /// Circuits that close soon.
    lingering: VecDeque<(Timestamp, SocketAddr)>,
}

impl Region {
    /// Those who see what the region shows, and where they hear it.
    pub(crate) fn audience(&self) -> impl Iterator<Item = (SocketAddr, u32)> {
        let leaves = |addr: &SocketAddr| self.lingering.iter().any(|(_, of)| of == addr);
        self.seats.audience().filter(move |(addr, _)| !leaves(addr))
    }
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
    pub(crate) seeds: Seeds,
    pub(crate) library: Library,
    pub(crate) files: Files,
    pub(crate) intake: Intake,
    pub(crate) lures: Lures,
    pub(crate) homes: Homes,
    /// Where those were last who left.
    lasts: BTreeMap<Uuid, (RegionId, Vector3)>,
    next_local_id: u32,
    /// The ground of every region.
    pub(crate) ground: Vec<LayerData>,
    pub(crate) stepped_at: Timestamp,
    pub(crate) step_at: Timestamp,
    pub(crate) map_at: Timestamp,
    /// Room that steps use again.
    pub(crate) moved: Vec<(RegionId, u32, News)>,
    pub(crate) hearers: Vec<(SocketAddr, u32)>,
    pub(crate) stats: GridStats,
}

impl Grid {
    /// A grid without regions. `random` spreads timers and makes ids, `secrets` makes the paths of
    /// capabilities.
    ///
    /// # Errors
    /// [`GridError::Circuits`]
    pub fn new(
        config: GridConfig,
        random: Stream,
        secrets: Box<dyn SecretSource>,
    ) -> Result<Self, GridError> {
        config.circuits.check()?;
        Ok(Self {
            config,
            regions: Vec::new(),
            sessions: BTreeMap::new(),
            events: VecDeque::new(),
            queue: VecDeque::new(),
            words: Vec::new(),
            random,
            seeds: Seeds::new(secrets),
            library: Library::new(),
            files: Files::default(),
            intake: Intake::default(),
            lures: Lures::default(),
            homes: Homes::default(),
            lasts: BTreeMap::new(),
            next_local_id: AVATAR_IDS_FROM,
            ground: scene::ground(),
            stepped_at: Timestamp::START,
            step_at: Timestamp::START,
            map_at: Timestamp::START,
            moved: Vec::new(),
            hearers: Vec::new(),
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
            seats: Seats::default(),
            things: Thing::all(&mut self.random, self.config.things),
            showing: BTreeMap::new(),
            fed_at: Timestamp::START,
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
        let local_id = self.next_local_id;
        self.next_local_id = local_id.checked_add(1).unwrap_or(AVATAR_IDS_FROM);
        let session = Session {
            home: None,
            coming: Some(Coming::login(region, until, position)),
            allowed: BTreeSet::from([region]),
            avatar: Avatar::new(local_id, position),
            animated: Activity::Stand,
            animations: 0,
            far: 0.0,
            let_in: None,
            queued: 0,
            guest,
        };
        self.sessions.insert(session.guest.ids.circuit_code, session);
        Ok(())
    }

    /// A number that nothing else has.
    pub(crate) fn draw_number(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// An id that nothing else has.
    pub(crate) fn draw_id(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.random.next_u64(), self.random.next_u64())
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

    /// Where somebody is in his region, in metres from its south-west corner.
    pub fn position(&self, code: u32) -> Option<Vector3> {
        self.sessions.get(&code).map(|session| session.avatar.position())
    }

    /// The region and the place that an agent left from, if that is remembered.
    pub fn left_from(&self, agent_id: Uuid) -> Option<(RegionId, Vector3)> {
        self.lasts.get(&agent_id).copied()
    }

    /// How somebody stands, and what he does.
    pub fn body(&self, code: u32) -> Option<AvatarBody> {
        let session = self.sessions.get(&code)?;
        let (avatar, region) = (&session.avatar, session.home?);
        let seat = match avatar.seat() {
            Seat::Thing { local_id, .. } => {
                let things = &self.regions.get(region.0)?.things;
                things.iter().find(|thing| thing.local_id == local_id).map(|thing| thing.id)
            }
            Seat::None | Seat::Ground => None,
        };
        Some(AvatarBody {
            region,
            position: avatar.position(),
            rotation: avatar.rotation(),
            velocity: avatar.velocity(),
            activity: avatar.activity(),
            seat,
            far: session.far,
        })
    }

    /// The rates that somebody's region keeps to on the way to him, in bits a second.
    pub fn rates(&self, code: u32) -> Option<Rates> {
        let home = self.home(code)?;
        self.regions.get(home.0)?.circuits.rates(self.addr_of(home, code)?)
    }

    /// The counters of the circuit between somebody and his region.
    pub fn stats_of(&self, code: u32) -> Option<CircuitStats> {
        let home = self.home(code)?;
        self.regions.get(home.0)?.circuits.stats(self.addr_of(home, code)?)
    }

    /// The region that somebody is in.
    pub fn home(&self, code: u32) -> Option<RegionId> {
        self.sessions.get(&code)?.home
    }

    /// The circuit codes of all on the grid.
    pub fn codes(&self) -> impl Iterator<Item = u32> {
        self.sessions.keys().copied()
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
            door.seats.on_heard(now, from);
            circuits.handle_datagram(now, from, datagram, door);
        });
        self.follow(now, region);
        self.feed(now, region);
    }

    /// Does what is due in a region.
    pub fn handle_timeout(&mut self, now: Timestamp, region: RegionId) {
        self.at_door(region, |circuits, door| circuits.handle_timeout(now, door));
        self.follow(now, region);
        self.close_lingering(now, region);
        self.expire(now);
        self.step(now);
        self.feed(now, region);
    }

    /// Hands circuits what waits for room in them.
    fn feed(&mut self, now: Timestamp, region: RegionId) {
        if let Some(place) = self.regions.get_mut(region.0) {
            place.fed_at = now;
        }
        self.show_things(now, region);
        self.feed_files(now, region);
        self.expire_uploads(now, region);
    }

    fn at_door(&mut self, region: RegionId, act: impl FnOnce(&mut Circuits, &mut Door<'_>)) {
        let Some(place) = self.regions.get_mut(region.0) else { return };
        let mut door = Door {
            region,
            sessions: &self.sessions,
            seats: &mut place.seats,
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
                CircuitEvent::Closed { addr, .. } => self.on_closed(now, region, addr),
                _ => {}
            }
        }
        let mut words = std::mem::take(&mut self.words);
        for (from, word) in words.drain(..) {
            let code = self.regions.get(region.0).and_then(|place| place.seats.code_of(from));
            let Some(code) = code else { continue };
            if matches!(word, Word::Hello) || self.may_speak(now, region, from) {
                self.on_word(now, region, (from, code), word);
            } else {
                self.stats.stale += 1;
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
                let rates = if self.config.ignores_throttles { Rates::UNLIMITED } else { rates };
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
            word => self.on_word_of_world(now, region, code, word),
        }
    }

    /// A word about bodies, things, people or the map.
    fn on_word_of_world(&mut self, now: Timestamp, region: RegionId, code: u32, word: Word) {
        match word {
            Word::Ready => self.on_ready(now, region, code),
            Word::Stance { rotation, flags, far } => {
                self.on_stance(now, region, code, (rotation, flags, far));
            }
            Word::Trip(word) => self.on_trip_word(now, region, code, word),
            Word::File(word) => self.on_file_word(now, region, code, word),
            Word::Run(runs) => {
                if let Some(session) = self.sessions.get_mut(&code) {
                    session.avatar.on_run(runs);
                }
            }
            Word::AskSeat(thing) => self.on_sit_asked(now, region, code, thing),
            Word::Sit => self.on_sit(now, region, code),
            Word::Message(message) => self.on_message(now, region, code, *message),
            Word::MapName { name, flags } => self.on_map_name(now, region, code, (&name, flags)),
            Word::MapBlock { area, flags } => self.on_map_block(now, region, code, (area, flags)),
            Word::Names(ids) => self.on_names(now, region, code, &ids),
            Word::Objects(ids) => self.on_objects_asked(now, region, code, &ids),
            Word::Region(id) => self.on_region_asked(now, region, code, id),
            Word::Myself => self.on_self_asked(now, region, code),
            Word::Clothes => self.on_clothes_asked(now, region, code),
            Word::Here => self.on_here_asked(now, region, code),
            // The others are about circuits and journeys.
            _ => {}
        }
    }

    /// Somebody opened a circuit: the region says what it is.
    fn on_hello(&mut self, now: Timestamp, region: RegionId, (from, code): (SocketAddr, u32)) {
        self.keep_circuit(region, (from, code));
        let Some(place) = self.regions.get_mut(region.0) else { return };
        if place.seats.is_holder(from) {
            // What is shown here is shown anew once he says that he is ready.
            place.seats.unset_ready(code);
            place.showing.remove(&code);
        }
        let message = reply::handshake(&place.config, place.id);
        let options = SendOptions::CRITICAL.within(self.config.arrival_timeout);
        let sent = place.circuits.send(now, from, &message, options);
        self.stats.dropped += u64::from(sent.is_err());
    }

    /// Whether what comes on a circuit is of who holds its code; other circuits of the code are
    /// closed then.
    fn may_speak(&mut self, now: Timestamp, region: RegionId, from: SocketAddr) -> bool {
        let Some(place) = self.regions.get_mut(region.0) else { return false };
        let Some(others) = place.seats.speak(now, from) else { return false };
        for addr in others {
            place.circuits.close(addr, Farewell::Silent);
        }
        true
    }

    /// Somebody is back before his circuit was closed: it stays open.
    fn keep_circuit(&mut self, region: RegionId, (from, code): (SocketAddr, u32)) {
        let may = self.sessions.get(&code).is_some_and(|session| session.may_enter(region));
        if let Some(place) = self.regions.get_mut(region.0).filter(|_| may) {
            place.lingering.retain(|(_, addr)| *addr != from);
        }
    }

    /// The circuit codes of all in a region.
    pub(crate) fn present(&self, region: RegionId) -> Vec<u32> {
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
        if let Some(home) = session.home {
            let (agent_id, position) = (session.guest.ids.agent_id, session.avatar.position());
            self.hide(now, home, code);
            if self.lasts.len() >= LASTS_MAX {
                self.lasts.pop_first();
            }
            self.lasts.insert(agent_id, (home, position));
        }
        for region in regions {
            if Some(region) != spoken {
                self.disable(now, region, code);
            } else if let Some(addr) = self.addr_of(region, code) {
                self.linger(now, region, addr);
            }
            self.forbid(region, code);
        }
        let Some(session) = self.sessions.remove(&code) else { return };
        self.regions.iter_mut().for_each(|place| place.seats.forget(code));
        self.files.forget(code);
        self.intake.forget(code);
        self.lures.forget(session.guest.ids.agent_id);
        self.queue.retain(|queued| queued.code != code);
        let name = format!("{} {}", session.guest.first_name, session.guest.last_name);
        self.tell(GridEvent::Left { code, name, asked });
    }

    /// Somebody may no longer enter a region, and has no capabilities there.
    fn forbid(&mut self, region: RegionId, code: u32) {
        if let Some(session) = self.sessions.get_mut(&code) {
            session.allowed.remove(&region);
        }
        if let Some(place) = self.regions.get_mut(region.0) {
            place.seats.unset_ready(code);
            place.showing.remove(&code);
        }
        self.files.leave(region, code);
        self.intake.leave(region, code);
        self.seeds.end(code, region);
    }

    /// Sends somebody away from a region: he has no more to do there.
    pub(crate) fn disable(&mut self, now: Timestamp, region: RegionId, code: u32) {
        self.forbid(region, code);
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
            place.seats.leave(addr);
            place.circuits.close(addr, Farewell::Silent);
        }
    }

    fn on_closed(&mut self, now: Timestamp, region: RegionId, addr: SocketAddr) {
        let Some(place) = self.regions.get_mut(region.0) else { return };
        let spoke = place.seats.is_holder(addr);
        let Some(code) = place.seats.leave(addr) else { return };
        if place.seats.of(code).next().is_some() || !(spoke || self.home(code) == Some(region)) {
            // He is here from elsewhere meanwhile, or was never here.
            return;
        }
        self.forbid(region, code);
        if self.home(code) == Some(region) {
            self.hide(now, region, code);
        }
        let Some(session) = self.sessions.get_mut(&code) else { return };
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
        place.seats.of(code).find(|addr| !leaves(addr))
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
        let fed_at = place.fed_at;
        let feed =
            if place.showing.is_empty() { Timestamp::NEVER } else { fed_at.after(FEED_INTERVAL) };
        let feed = feed.min(self.files.poll_timeout(region, fed_at));
        let feed = feed.min(self.intake.poll_timeout(region));
        place.circuits.poll_timeout().min(lingering).min(coming).min(feed)
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
