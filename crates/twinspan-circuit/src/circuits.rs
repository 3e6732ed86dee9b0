//! Many circuits over one socket, by the address of the peer.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_core::wheel::{TimerHandle, TimerWheel};
use twinspan_lludp::messages::{CloseCircuit, UseCircuitCode};
use twinspan_lludp::{AnyMessage, Encoder, Flags, Frame, Message, MessageId, Sequence, WriteError};

use crate::acks::AckQueue;
use crate::circuit::{Circuit, Numbers};
use crate::config::{
    Config, ConfigError, EVENTS_WAITING_MAX, GROUP_MESSAGES_MAX, ORDERED_MESSAGES_MAX, Role,
};
use crate::message::{
    Admission, CircuitEvent, CloseReason, DeliveryId, OpenCircuitError, Retry, SendError,
    SendOptions, Sink,
};
use crate::queue::Outgoing;
use crate::shared::Shared;
use crate::stats::{CircuitStats, StrangerStats};
use crate::throttle::Rates;

/// Datagrams of one circuit before the next has its turn.
const TURN_DATAGRAMS: u32 = 32;
/// Last words to peers that may wait to leave.
const FAREWELLS_MAX: usize = 64;
/// Circuits whose numbers are remembered after their end.
const PAST_MAX: usize = 256;

/// Whether a peer is told that its circuit is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing is said: the peer knows, or is gone.
    Silent,
    /// `CloseCircuit`, once and unreliably.
    CloseCircuit,
}

/// What a circuit leaves to be sent after its end.
#[derive(Debug)]
struct LastWord {
    addr: SocketAddr,
    number: u64,
    farewell: Farewell,
    /// What came is acknowledged, or the peer would send it again for nothing.
    acks: AckQueue,
}

/// A circuit and its place in the set's queues.
#[derive(Debug, Default)]
struct Slot {
    circuit: Option<Box<Circuit>>,
    /// Whether it stands in the queue of those that may have something to send.
    ready: bool,
    timer: Option<(Timestamp, TimerHandle)>,
}

/// The circuits of one socket.
///
/// Feed it [`handle_datagram`](Self::handle_datagram) and, at
/// [`poll_timeout`](Self::poll_timeout), [`handle_timeout`](Self::handle_timeout); after each of
/// these and after sending, drain [`poll_transmit`](Self::poll_transmit), then
/// [`poll_event`](Self::poll_event), then read the timeout.
///
/// ```
/// use twinspan_circuit::{CircuitEvent, Circuits, Config, Outcome, Received, Sink, Taken};
/// use twinspan_circuit::Admission;
/// use twinspan_core::{random::Stream, time::Timestamp};
/// use twinspan_lludp::AnyMessage;
/// use twinspan_lludp::messages::UseCircuitCode;
///
/// /// Lets everybody in, and counts.
/// #[derive(Default)]
/// struct Region(u32);
///
/// impl Sink for Region {
///     fn on_message(&mut self, _now: Timestamp, message: Received<'_>) -> Taken {
///         assert!(message.reliable);
///         self.0 += 1;
///         Taken::Yes
///     }
///
///     fn on_stranger(
///         &mut self, _: Timestamp, _: std::net::SocketAddr, ask: &UseCircuitCode,
///     ) -> Admission {
///         if ask.circuit_code.code == 7 { Admission::Open } else { Admission::Refuse }
///     }
/// }
///
/// let now = Timestamp::START;
/// let (at_viewer, at_region) = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into());
/// let mut viewer = Circuits::new(Config::default(), Stream::new(1, "viewer", 0))?;
/// let mut simulator = Circuits::new(Config::simulator(), Stream::new(1, "region", 0))?;
///
/// viewer.open(now, at_region)?;
/// let mut hello = UseCircuitCode::default();
/// hello.circuit_code.code = 7;
/// let id = viewer.send_reliable(now, at_region, &[AnyMessage::from(hello)])?;
///
/// let mut out = [0; 1_500];
/// let mut region = Region::default();
/// while let Some((_, len)) = viewer.poll_transmit(now, &mut out) {
///     simulator.handle_datagram(now, at_viewer, &out[..len], &mut region);
/// }
/// assert_eq!(region.0, 1);
///
/// // Its acks leave by themselves a little later, if nothing takes them along before.
/// let later = simulator.poll_timeout();
/// simulator.handle_timeout(later, &mut region);
/// while let Some((_, len)) = simulator.poll_transmit(later, &mut out) {
///     viewer.handle_datagram(later, at_region, &out[..len], &mut Region::default());
/// }
/// assert_eq!(viewer.poll_event(), Some(CircuitEvent::Heard { addr: at_region }));
/// let Some(CircuitEvent::Delivery { id: told, outcome, .. }) = viewer.poll_event() else {
///     panic!("it was delivered");
/// };
/// assert!(told == id && matches!(outcome, Outcome::Acked { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Circuits {
    shared: Shared,
    table: BTreeMap<SocketAddr, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Circuits that may have something to send.
    ready: VecDeque<u32>,
    /// Datagrams that the first of these has sent in this turn.
    turn: u32,
    wheel: TimerWheel<u32>,
    farewells: VecDeque<LastWord>,
    /// The numbers of circuits that ended, oldest first.
    past_numbers: VecDeque<(SocketAddr, Numbers)>,
    random: Stream,
    strangers: StrangerStats,
    /// What circuits did that are gone.
    past: CircuitStats,
}

impl Circuits {
    /// No circuits yet. `random` spreads pings and resends.
    ///
    /// # Errors
    /// [`ConfigError`] names the field that is out of range.
    pub fn new(config: Config, random: Stream) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            wheel: TimerWheel::new(config.circuits_max),
            shared: Shared::new(config),
            table: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            turn: 0,
            farewells: VecDeque::new(),
            past_numbers: VecDeque::new(),
            random,
            strangers: StrangerStats::default(),
            past: CircuitStats::default(),
        })
    }

    /// The configuration.
    pub const fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Hands on this message in the order of sending from now on, on every circuit; it waits for
    /// older packets no longer than [`Config::order_hold`]. Each call asks once more: the order is
    /// kept until [`forget_order`](Self::forget_order) was called as often. False, and nothing was
    /// asked, when [`ORDERED_MESSAGES_MAX`] others are kept in order already.
    pub fn keep_in_order(&mut self, id: MessageId) -> bool {
        let ordered = &mut self.shared.ordered;
        if let Some((_, users)) = ordered.iter_mut().find(|(of, _)| *of == id) {
            *users = users.saturating_add(1);
            return true;
        }
        if ordered.len() >= ORDERED_MESSAGES_MAX {
            return false;
        }
        ordered.push((id, 1));
        true
    }

    /// Who asked for the order of this message does not want it any more; with the last of them it
    /// comes as it arrives. What waits already keeps its time. False when nobody asked.
    pub fn forget_order(&mut self, id: MessageId) -> bool {
        let ordered = &mut self.shared.ordered;
        let Some(index) = ordered.iter().position(|(of, _)| *of == id) else { return false };
        if let Some((_, users)) = ordered.get_mut(index) {
            *users -= 1;
            if *users == 0 {
                ordered.swap_remove(index);
            }
        }
        true
    }

    /// Whether somebody asked for the order of this message.
    pub fn is_in_order(&self, id: MessageId) -> bool {
        self.shared.is_ordered(id)
    }

    /// Begins a circuit; nothing is sent by that. Where there was one to this address before, the
    /// numbers of packets go on, and what comes again is known: the peer may not have heard that
    /// it ended.
    ///
    /// # Errors
    /// [`OpenCircuitError`]
    pub fn open(&mut self, now: Timestamp, addr: SocketAddr) -> Result<(), OpenCircuitError> {
        self.open_after(now, addr, addr)
    }

    /// As [`open`](Self::open), with the numbers of what there was to the address `former`.
    fn open_after(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        former: SocketAddr,
    ) -> Result<(), OpenCircuitError> {
        let max = self.shared.config.circuits_max;
        if self.table.contains_key(&addr) {
            return Err(OpenCircuitError::Exists { addr });
        }
        if self.table.len() >= max {
            return Err(OpenCircuitError::Full { max });
        }
        let jitter = Stream::new(self.random.next_u64(), "circuit", 0);
        let past = self.past_numbers.iter().position(|(of, _)| *of == former);
        let past = past.and_then(|index| self.past_numbers.remove(index));
        let numbers = match past {
            Some((_, past)) => past,
            // It is there still, for nobody knows yet who is right.
            None => self
                .circuit(former)
                .map_or_else(|| Numbers::new(self.shared.config.first_number), Circuit::numbers),
        };
        self.past_numbers.retain(|(of, _)| *of != addr);
        let config = &self.shared.config;
        let circuit = Box::new(Circuit::new(now, addr, numbers, config, jitter));
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.circuit = Some(circuit);
        }
        self.table.insert(addr, index);
        self.mark_ready(index);
        Ok(())
    }

    /// Ends a circuit. What it had to send is not sent, but for acks of what came; outcomes and
    /// [`CircuitEvent::Closed`] follow. False when there is none.
    pub fn close(&mut self, addr: SocketAddr, farewell: Farewell) -> bool {
        let Some(index) = self.table.get(&addr).copied() else { return false };
        let has_room = self.farewells.len() < FAREWELLS_MAX;
        if has_room && let Some((_, circuit, _)) = self.circuit_mut(addr) {
            let (number, acks) = (circuit.next_number(), circuit.take_acks());
            if farewell == Farewell::CloseCircuit || acks.due() != Timestamp::NEVER {
                self.farewells.push_back(LastWord { addr, number, farewell, acks });
            }
        }
        self.remove(index, CloseReason::Local);
        true
    }

    fn remove(&mut self, index: u32, reason: CloseReason) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(circuit) = slot.circuit.take() else { return };
        if let Some((_, handle)) = slot.timer.take() {
            self.wheel.cancel(handle);
        }
        if slot.ready {
            slot.ready = false;
            self.ready.retain(|ready| *ready != index);
            self.turn = 0;
        }
        self.table.remove(&circuit.addr());
        if self.past_numbers.len() >= PAST_MAX {
            self.past_numbers.pop_front();
        }
        self.past_numbers.push_back((circuit.addr(), circuit.numbers()));
        self.past.add(&circuit.close(reason, &mut self.shared));
        self.free.push(index);
    }

    fn circuit(&self, addr: SocketAddr) -> Option<&Circuit> {
        let slot = self.slots.get(*self.table.get(&addr)? as usize)?;
        slot.circuit.as_deref()
    }

    fn circuit_mut(&mut self, addr: SocketAddr) -> Option<(u32, &mut Circuit, &mut Shared)> {
        let index = *self.table.get(&addr)?;
        let circuit = self.slots.get_mut(index as usize)?.circuit.as_deref_mut()?;
        Some((index, circuit, &mut self.shared))
    }

    fn mark_ready(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && !slot.ready
        {
            slot.ready = true;
            self.ready.push_back(index);
        }
    }

    /// Sends one message; what becomes of it is not told.
    ///
    /// # Errors
    /// [`SendError`], and nothing was queued.
    pub fn send<M: Message>(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        message: &M,
        options: SendOptions,
    ) -> Result<(), SendError> {
        self.send_one(now, addr, options, None, |encoder, out, flags, number| {
            encoder.packet(out, flags, number, message)
        })
    }

    /// Sends one message whose type is known at run time; what becomes of it is not told.
    ///
    /// # Errors
    /// [`SendError`], and nothing was queued.
    pub fn send_any(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        message: &AnyMessage,
        options: SendOptions,
    ) -> Result<(), SendError> {
        self.send_one(now, addr, options, None, |encoder, out, flags, number| {
            encoder.any(out, flags, number, message)
        })
    }

    /// Sends one message reliably, however `options` say it is cared for;
    /// [`CircuitEvent::Delivery`] tells what becomes of it.
    ///
    /// # Errors
    /// [`SendError`], and nothing was queued.
    pub fn send_tracked<M: Message>(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        message: &M,
        options: SendOptions,
    ) -> Result<DeliveryId, SendError> {
        let retry = match options.retry {
            Retry::Unreliable => Retry::Once,
            retry => retry,
        };
        let id = self.shared.delivery(1);
        let options = SendOptions { retry, ..options };
        self.send_one(now, addr, options, Some(id), |encoder, out, flags, number| {
            encoder.packet(out, flags, number, message)
        })?;
        Ok(id)
    }

    fn send_one(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        options: SendOptions,
        delivery: Option<DeliveryId>,
        encode: impl FnOnce(&mut Encoder, &mut [u8], Flags, Sequence) -> Result<usize, WriteError>,
    ) -> Result<(), SendError> {
        self.check_events()?;
        if !self.table.contains_key(&addr) {
            return Err(SendError::NoCircuit { addr });
        }
        let packet = self.shared.packet(flags_of(options.retry), encode)?;
        self.enqueue(now, addr, packet, options, delivery)
    }

    /// Sends messages reliably, each in a packet of its own and all of them or none;
    /// [`CircuitEvent::Delivery`] tells what becomes of them together: acknowledged, timed out
    /// ([`Config::delivery_timeout`]), or the circuit closed.
    ///
    /// # Errors
    /// [`SendError`], and nothing was queued.
    pub fn send_reliable(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        messages: &[AnyMessage],
    ) -> Result<DeliveryId, SendError> {
        self.send_reliable_with(now, addr, messages, SendOptions::RELIABLE)
    }

    /// Sends messages as [`send_reliable`](Self::send_reliable) does, with other options;
    /// [`Retry::Unreliable`] counts as [`Retry::Once`].
    ///
    /// # Errors
    /// [`SendError`], and nothing was queued.
    pub fn send_reliable_with(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        messages: &[AnyMessage],
        options: SendOptions,
    ) -> Result<DeliveryId, SendError> {
        self.check_events()?;
        let count = messages.len();
        if !(1..=GROUP_MESSAGES_MAX).contains(&count) {
            return Err(SendError::Count { count });
        }
        let Some(circuit) = self.circuit(addr) else { return Err(SendError::NoCircuit { addr }) };
        let (waiting, waiting_bytes) = circuit.waiting();
        let retry = match options.retry {
            Retry::Unreliable => Retry::Once,
            retry => retry,
        };
        let mut packets = Vec::with_capacity(count);
        let mut bytes = waiting_bytes;
        for message in messages {
            let encode = |encoder: &mut Encoder, out: &mut [u8], flags, number| {
                encoder.any(out, flags, number, message)
            };
            match self.shared.packet(flags_of(retry), encode) {
                Ok(packet) => {
                    bytes += packet.len();
                    packets.push(packet);
                }
                Err(error) => return Err(self.give_back(packets, error)),
            }
        }
        let config = &self.shared.config;
        if waiting + count > config.queued_messages_max || bytes > config.queued_bytes_max {
            let full = SendError::Full { messages: waiting, bytes: waiting_bytes };
            return Err(self.give_back(packets, full));
        }
        let id = self.shared.delivery(count);
        let options = SendOptions { retry, ..options };
        for packet in packets {
            self.enqueue(now, addr, packet, options, Some(id))?;
        }
        Ok(id)
    }

    fn give_back(&mut self, packets: Vec<Vec<u8>>, error: SendError) -> SendError {
        packets.into_iter().for_each(|packet| self.shared.recycle(packet));
        error
    }

    fn check_events(&self) -> Result<(), SendError> {
        let waiting = self.shared.events.len();
        if waiting < EVENTS_WAITING_MAX {
            Ok(())
        } else {
            Err(SendError::EventsWaiting { waiting })
        }
    }

    fn enqueue(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        packet: Vec<u8>,
        options: SendOptions,
        delivery: Option<DeliveryId>,
    ) -> Result<(), SendError> {
        let until = if options.retry.is_reliable() {
            now.after(options.timeout.unwrap_or(self.shared.config.delivery_timeout))
        } else {
            Timestamp::NEVER
        };
        let SendOptions { retry, throttle, .. } = options;
        let Some((index, circuit, shared)) = self.circuit_mut(addr) else {
            return Err(SendError::NoCircuit { addr });
        };
        let (messages, bytes) = circuit.waiting();
        if !circuit.enqueue(Outgoing { packet, retry, throttle, until, delivery }, shared) {
            return Err(SendError::Full { messages, bytes });
        }
        self.mark_ready(index);
        Ok(())
    }

    /// Takes a datagram. Acks wait for nothing but a place in `sink`.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        datagram: &[u8],
        sink: &mut dyn Sink,
    ) {
        let Ok(frame) = Frame::parse(datagram) else {
            self.strangers.malformed += 1;
            return;
        };
        if !self.table.contains_key(&from) && !self.admit(now, from, &frame, sink) {
            return;
        }
        let Some((index, circuit, shared)) = self.circuit_mut(from) else { return };
        circuit.handle(now, datagram.len(), &frame, shared, sink);
        let over = circuit.over();
        self.settle(index, over);
    }

    /// Whether somebody without a circuit gets one. Nothing is kept of who does not, and nothing
    /// answered.
    //= lludp 6.5
    fn admit(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        frame: &Frame<'_>,
        sink: &mut dyn Sink,
    ) -> bool {
        let asks = self.shared.config.role == Role::Simulator
            && frame.id().is_ok_and(|id| id == UseCircuitCode::ID);
        let payload = if asks { frame.open(&mut self.shared.space).ok() } else { None };
        let ask = payload.and_then(|payload| UseCircuitCode::decode(payload.body).ok());
        let Some((ask, _)) = ask else {
            self.strangers.unknown += 1;
            return false;
        };
        let former = match sink.on_stranger(now, from, &ask) {
            Admission::Open => from,
            Admission::Continue { former } => former,
            Admission::Refuse => {
                self.strangers.refused += 1;
                return false;
            }
        };
        let opened = self.open_after(now, from, former).is_ok();
        self.strangers.refused += u64::from(!opened);
        self.strangers.table_full += u64::from(!opened);
        opened
    }

    /// A circuit was touched: it may have something to send, or be over.
    fn settle(&mut self, index: u32, over: Option<CloseReason>) {
        match over {
            Some(reason) => self.remove(index, reason),
            None => self.mark_ready(index),
        }
    }

    /// Does what is due. Messages that waited for older ones may come to `sink`.
    pub fn handle_timeout(&mut self, now: Timestamp, sink: &mut dyn Sink) {
        while let Some((_, index)) = self.wheel.pop_before(now) {
            let Some(slot) = self.slots.get_mut(index as usize) else { continue };
            slot.timer = None;
            let Some(circuit) = slot.circuit.as_deref_mut() else { continue };
            circuit.handle_timeout(now, &mut self.shared);
            let Shared { config, spare, .. } = &mut self.shared;
            circuit.release(now, (&*config, spare), sink);
            let over = circuit.over();
            self.settle(index, over);
        }
    }

    /// Writes the next datagram into `out`, which has room for
    /// [`Config::datagram_bytes_max`] bytes, and says whom it goes to and how long it is. `None`
    /// when nothing may leave now, or there is no such room.
    pub fn poll_transmit(&mut self, now: Timestamp, out: &mut [u8]) -> Option<(SocketAddr, usize)> {
        if out.len() < self.shared.config.datagram_bytes_max {
            return None;
        }
        while let Some(last) = self.farewells.pop_front() {
            let addr = last.addr;
            if let Some(len) = self.say_last(last, out) {
                return Some((addr, len));
            }
        }
        while let Some(index) = self.ready.front().copied() {
            let circuit = self.slots.get_mut(index as usize).and_then(|slot| slot.circuit.as_mut());
            let sent = circuit.and_then(|circuit| {
                let len = circuit.poll_transmit(now, &mut self.shared, out)?;
                Some((circuit.addr(), len))
            });
            let Some(sent) = sent else {
                self.ready.pop_front();
                self.turn = 0;
                self.rest(index);
                continue;
            };
            self.turn += 1;
            if self.turn >= TURN_DATAGRAMS {
                self.turn = 0;
                self.ready.rotate_left(1);
            }
            return Some(sent);
        }
        None
    }

    /// Writes the one packet that follows a circuit: acks in or behind it as far as they fit.
    fn say_last(&mut self, mut last: LastWord, out: &mut [u8]) -> Option<usize> {
        let number = Sequence::of(last.number);
        let max = self.shared.config.datagram_bytes_max;
        if last.farewell == Farewell::CloseCircuit {
            let bye = CloseCircuit::default();
            let len = self.shared.encoder.packet(out, Flags::NONE, number, &bye).ok()?;
            let (len, count) = last.acks.append(out, len, max);
            self.past.acks_piggybacked += count as u64;
            return Some(len);
        }
        let (len, count) = last.acks.pack(out, number, max)?;
        self.past.packet_acks_out += 1;
        self.past.acks_packed += count as u64;
        Some(len)
    }

    /// A circuit has nothing to send now: the wheel knows until when.
    fn rest(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        slot.ready = false;
        let Some(circuit) = &slot.circuit else { return };
        let at = circuit.poll_timeout();
        match slot.timer {
            // Early is harmless, and cheaper than to set it anew with every packet.
            Some((set, _)) if set <= at => return,
            Some((_, handle)) => {
                self.wheel.cancel(handle);
            }
            None => {}
        }
        slot.timer = self.wheel.insert(at, index).ok().map(|handle| (at, handle));
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next;
    /// [`Timestamp::START`] while [`poll_transmit`](Self::poll_transmit) was not drained.
    pub fn poll_timeout(&self) -> Timestamp {
        if !self.ready.is_empty() || !self.farewells.is_empty() {
            return Timestamp::START;
        }
        self.wheel.peek_time().unwrap_or(Timestamp::NEVER)
    }

    /// What there is to tell, oldest first.
    pub fn poll_event(&mut self) -> Option<CircuitEvent> {
        self.shared.events.pop_front()
    }

    /// Lets a circuit keep to other rates, up to [`Config::rate_total_max`] in all; false when
    /// there is none.
    pub fn set_rates(&mut self, addr: SocketAddr, rates: &Rates) -> bool {
        let rates = rates.capped(self.shared.config.rate_total_max);
        let found = self.circuit_mut(addr).map(|(index, circuit, _)| {
            circuit.set_rates(&rates);
            index
        });
        found.inspect(|index| self.mark_ready(*index)).is_some()
    }

    /// The rates that a circuit keeps to.
    pub fn rates(&self, addr: SocketAddr) -> Option<Rates> {
        self.circuit(addr).map(Circuit::rates)
    }

    /// Bears a longer or shorter silence of one peer; false when there is no such circuit.
    pub fn set_silence_max(&mut self, addr: SocketAddr, silence_max: Duration) -> bool {
        let found = self.circuit_mut(addr).map(|(index, circuit, _)| {
            circuit.set_silence_max(silence_max);
            index
        });
        found.inspect(|index| self.mark_ready(*index)).is_some()
    }

    /// The share of the peer's packets that did not come since this was last asked, 0 to 1; `None`
    /// while too few were expected.
    pub fn take_loss(&mut self, addr: SocketAddr) -> Option<f64> {
        self.circuit_mut(addr)?.1.take_loss()
    }

    /// Whether there is a circuit to this address.
    pub fn contains(&self, addr: SocketAddr) -> bool {
        self.table.contains_key(&addr)
    }

    /// Whether anything ever came on it.
    pub fn is_heard(&self, addr: SocketAddr) -> bool {
        self.circuit(addr).is_some_and(Circuit::is_heard)
    }

    /// The addresses of all circuits, in their order.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = SocketAddr> {
        self.table.keys().copied()
    }

    /// How many circuits there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The smoothed round trip to a peer, once a ping was answered.
    pub fn rtt(&self, addr: SocketAddr) -> Option<Duration> {
        self.circuit(addr)?.rtt()
    }

    /// The smoothed round trip to a peer or, where its circuit ended, the one that this ended with;
    /// the latest circuits that ended are remembered.
    pub fn last_rtt(&self, addr: SocketAddr) -> Option<Duration> {
        let past = || self.past_numbers.iter().find(|(of, _)| *of == addr)?.1.rtt();
        self.rtt(addr).or_else(past)
    }

    /// When acks to a peer leave in a packet of their own, if nothing takes them along before;
    /// [`Timestamp::NEVER`] while none waits.
    pub fn acks_due(&self, addr: SocketAddr) -> Timestamp {
        self.circuit(addr).map_or(Timestamp::NEVER, Circuit::acks_due)
    }

    /// Whether a peer leaves so many pings unanswered that it looks gone for the moment.
    pub fn is_blocked(&self, addr: SocketAddr) -> bool {
        self.circuit(addr).is_some_and(|circuit| circuit.pings_in_flight() > 3)
    }

    /// Reliable messages that left and have no outcome; 0 where there is no circuit.
    pub fn unacknowledged(&self, addr: SocketAddr) -> usize {
        self.circuit(addr).map_or(0, Circuit::unacknowledged)
    }

    /// Messages that wait to leave; 0 where there is no circuit.
    pub fn waiting(&self, addr: SocketAddr) -> usize {
        self.circuit(addr).map_or(0, |circuit| circuit.waiting().0)
    }

    /// The counters of one circuit.
    pub fn stats(&self, addr: SocketAddr) -> Option<CircuitStats> {
        self.circuit(addr).map(|circuit| *circuit.stats())
    }

    /// The counters of all circuits that there are and were.
    pub fn total(&self) -> CircuitStats {
        let mut total = self.past;
        for slot in &self.slots {
            if let Some(circuit) = &slot.circuit {
                total.add(circuit.stats());
            }
        }
        total
    }

    /// What was dropped before it reached a circuit.
    pub const fn strangers(&self) -> &StrangerStats {
        &self.strangers
    }
}

fn flags_of(retry: Retry) -> Flags {
    if retry.is_reliable() { Flags::RELIABLE } else { Flags::NONE }
}
