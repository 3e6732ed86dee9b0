//! One player: an agent, what it said and heard, and its socket's machine.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_circuit::{
    Agent, AgentConfig, AgentEvent, AgentIds, CircuitStats, Config, DeliveryId, Destination,
    OpenCircuitError, Outcome, QueueEvent, Received, Sink, Taken,
};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{ChatFromSimulator, ChatFromViewer, ObjectUpdate};
use twinspan_lludp::{AnyMessage, Message, Var2, Vector3};
use twinspan_provider::Machine;

use super::CircuitReport;

/// Looked after at least so often: the hand on the simulation acts beside the driver.
const TURN: Duration = Duration::from_millis(25);

/// What became of one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Open,
    Acked,
    Failed,
}

/// What a player heard.
#[derive(Debug, Default)]
struct Ears {
    numbers: BTreeMap<u32, u32>,
    first_object: Option<Timestamp>,
}

impl Sink for Ears {
    fn on_message(&mut self, now: Timestamp, message: Received<'_>) -> Taken {
        if message.id == ObjectUpdate::ID {
            self.first_object.get_or_insert(now);
        }
        if message.id == ChatFromSimulator::ID
            && let Ok((chat, _)) = ChatFromSimulator::decode(message.body)
            && let Some(number) = number_of(&chat.chat_data.message.to_text())
        {
            *self.numbers.entry(number).or_default() += 1;
        }
        Taken::Yes
    }
}

/// The number of a word that counts.
fn number_of(text: &str) -> Option<u32> {
    text.strip_prefix('#')?.parse().ok()
}

#[derive(Debug)]
pub(super) struct Player {
    agent: Option<Agent>,
    ears: Ears,
    began: Timestamp,
    words: BTreeMap<u32, Word>,
    deliveries: BTreeMap<DeliveryId, u32>,
    /// How often a region heard each word.
    heard_by_region: BTreeMap<u32, u32>,
    requests: u64,
    ended: bool,
    broken: Vec<String>,
    failures: u64,
}

impl Player {
    /// An empty seat.
    pub(super) fn nobody() -> Self {
        Self {
            agent: None,
            ears: Ears::default(),
            began: Timestamp::START,
            words: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            heard_by_region: BTreeMap::new(),
            requests: 0,
            ended: false,
            broken: Vec::new(),
            failures: 0,
        }
    }

    pub(super) fn login(
        now: Timestamp,
        ids: AgentIds,
        (addr, handle): (SocketAddr, u64),
        circuits: Config,
        random: Stream,
    ) -> Result<Self, String> {
        let lost_after = Duration::from_secs(20);
        let mut config = AgentConfig { circuits, lost_after, ..AgentConfig::default() };
        config.circuits.silence_max = Duration::from_secs(30);
        let mut agent = Agent::new(ids, config, random).map_err(|error| error.to_string())?;
        agent.enter(now, addr, handle).map_err(|error: OpenCircuitError| error.to_string())?;
        Ok(Self { agent: Some(agent), began: now, ..Self::nobody() })
    }

    /// The circuit code; 0 for nobody.
    pub(super) fn code(&self) -> u32 {
        self.agent.as_ref().map_or(0, |agent| agent.ids().circuit_code)
    }

    pub(super) fn region(&self) -> Option<SocketAddr> {
        self.agent.as_ref()?.region()
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn is_settled(&self) -> bool {
        let Some(agent) = &self.agent else { return false };
        let circuits = agent.circuits();
        let open = |addr| circuits.unacknowledged(addr) + circuits.waiting(addr);
        // An update of stance and camera may be on its way; it is unreliable.
        self.deliveries.is_empty()
            && !agent.is_travelling()
            && circuits.addresses().all(|addr| open(addr) == 0)
    }

    pub(super) fn describe(&self) -> String {
        let Some(agent) = &self.agent else { return "nobody".into() };
        format!(
            "in {:?}, travelling {}, {} words open, circuits {:?}",
            agent.region(),
            agent.is_travelling(),
            self.deliveries.len(),
            agent.circuits().addresses().collect::<Vec<_>>(),
        )
    }

    /// Says a word that counts.
    pub(super) fn say(&mut self, now: Timestamp, number: u32) {
        let Some(agent) = &mut self.agent else { return };
        let mut chat = ChatFromViewer::default();
        chat.agent_data.agent_id = agent.ids().agent_id;
        chat.agent_data.session_id = agent.ids().session_id;
        // For scripts: it is not passed on to the others.
        chat.chat_data.channel = 5;
        chat.chat_data.message = Var2::text(&format!("#{number}")).unwrap_or_default();
        if let Ok(id) = agent.send_reliable(now, &[AnyMessage::from(chat)]) {
            self.words.insert(number, Word::Open);
            self.deliveries.insert(id, number);
        }
    }

    pub(super) fn teleport(&mut self, now: Timestamp, handle: u64) {
        let position = Vector3::new(100.0, 100.0, 22.0);
        let look_at = Vector3::new(1.0, 0.0, 0.0);
        let to = Destination::Location { handle, position, look_at };
        if let Some(agent) = &mut self.agent {
            self.requests += u64::from(agent.teleport(now, to).is_ok());
        }
    }

    pub(super) fn cancel(&mut self, now: Timestamp) {
        if let Some(agent) = &mut self.agent {
            // There may be nothing to cancel.
            let _ = agent.cancel_teleport(now);
        }
    }

    pub(super) fn on_queue(&mut self, now: Timestamp, from: SocketAddr, event: QueueEvent) {
        if let Some(agent) = &mut self.agent {
            agent.handle_event(now, from, event);
        }
        self.drain();
    }

    /// A region heard a word.
    pub(super) fn on_heard_by_region(&mut self, text: &str) {
        if let Some(number) = number_of(text) {
            *self.heard_by_region.entry(number).or_default() += 1;
        }
    }

    /// How often a word of a region was heard.
    pub(super) fn heard(&self, number: u32) -> u32 {
        self.ears.numbers.get(&number).copied().unwrap_or(0)
    }

    fn drain(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        while let Some(event) = agent.poll_event() {
            match event {
                AgentEvent::Delivery { id, outcome, .. } => {
                    let Some(number) = self.deliveries.remove(&id) else {
                        self.broken.push(format!("an outcome of nothing, or a second one: {id:?}"));
                        continue;
                    };
                    let acked = matches!(outcome, Outcome::Acked { .. });
                    self.words.insert(number, if acked { Word::Acked } else { Word::Failed });
                }
                AgentEvent::TravelFailed { .. } => self.failures += 1,
                AgentEvent::Ended { .. } => self.ended = true,
                _ => {}
            }
        }
    }

    /// Tells what was promised to this player and not kept.
    pub(super) fn check(&self, tell: &mut dyn FnMut(String)) {
        self.broken.iter().for_each(|line| tell(line.clone()));
        for (number, times) in &self.ears.numbers {
            if *times > 1 {
                tell(format!("heard {number} {times} times"));
            }
        }
        for (number, word) in &self.words {
            let times = self.heard_by_region.get(number).copied().unwrap_or(0);
            match word {
                Word::Acked if times != 1 => {
                    tell(format!("{number} was acknowledged and heard {times} times"));
                }
                Word::Failed if times > 1 => tell(format!("{number} was heard {times} times")),
                Word::Open => tell(format!("{number} has no outcome")),
                _ => {}
            }
        }
    }

    pub(super) fn circuit_stats(&self) -> CircuitStats {
        self.agent.as_ref().map_or_else(CircuitStats::default, |agent| agent.circuits().total())
    }

    pub(super) fn add_to(&self, report: &mut CircuitReport) {
        let Some(agent) = &self.agent else { return };
        report.teleports += agent.stats().teleports;
        report.crossings += agent.stats().crossings;
        report.travel_failures += self.failures;
        for word in self.words.values() {
            report.reliable_sent += 1;
            report.reliable_acked += u64::from(*word == Word::Acked);
            report.reliable_failed += u64::from(*word == Word::Failed);
        }
        report.first_object.extend(self.ears.first_object.map(|at| at.since(self.began)));
    }
}

/// Drives a player over a socket.
#[derive(Debug)]
pub(super) struct PlayerMachine {
    player: Rc<RefCell<Player>>,
    stopped: Rc<Cell<bool>>,
    turn_at: Timestamp,
}

impl PlayerMachine {
    pub(super) const fn new(player: Rc<RefCell<Player>>, stopped: Rc<Cell<bool>>) -> Self {
        Self { player, stopped, turn_at: Timestamp::START }
    }
}

impl Machine for PlayerMachine {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        let mut player = self.player.borrow_mut();
        let Player { agent: Some(agent), ears, .. } = &mut *player else { return };
        while let Some(datagram) = received.pop() {
            agent.handle_datagram(now, datagram.peer, &datagram.packet, ears);
        }
        player.drain();
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.turn_at = now.after(TURN);
        let mut player = self.player.borrow_mut();
        let Player { agent: Some(agent), ears, .. } = &mut *player else { return };
        agent.handle_timeout(now, ears);
        player.drain();
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        let mut player = self.player.borrow_mut();
        let Some(agent) = &mut player.agent else { return };
        while out.room() > 0 {
            let Some(mut packet) = pool.take() else { return };
            let Some((peer, len)) = agent.poll_transmit(now, packet.room_mut()) else { return };
            packet.set_len(len);
            // There is room.
            drop(out.push(Datagram { peer, at: now, packet }));
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let player = self.player.borrow();
        let due = player.agent.as_ref().map_or(Timestamp::NEVER, Agent::poll_timeout);
        Some(if due == Timestamp::START { self.turn_at } else { due.min(self.turn_at) })
    }

    fn is_done(&self) -> bool {
        self.stopped.get()
    }
}
