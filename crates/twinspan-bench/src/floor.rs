//! The floor, a process of its own: what no server can do without, and nothing else.
//!
//! It receives, looks the connection up in a table, opens and drops inputs, and seals and sends
//! states of given sizes on the world server's schedule: no reliability, no acks, no world, no
//! handshake. What a server costs above it is the price of being one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::TryRecvError;

use twinspan_core::aead::Cipher;
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::prefetch;
use twinspan_core::time::Timestamp;
use twinspan_game::STATE;
use twinspan_net::{BareSocket, ReactorEnv, thread_cpu_time};
use twinspan_provider::UdpOptions;
use twinspan_session::{BareConnection, LOAD_OVERHEAD_BYTES, connection_id};
use twinspan_world::tick_duration;

use crate::clock::Clock;
use crate::error::BenchError;
use crate::generator::{player_secret, suite};
use crate::lines::{Parent, write_line};
use crate::plan::{FloorPlan, FloorReady, FloorReport, Window};
use crate::process;

/// Datagrams of one batch: what one system call moves.
const BATCH_DATAGRAMS: usize = 64;
/// Slots of one tick and ticks of one state period, as the world server has them.
const SLOTS_PER_TICK: u32 = 16;
const TICKS_PER_STATE: u32 = 3;
/// Slots between two looks whether the parent has gone.
const SLOTS: usize = (SLOTS_PER_TICK * TICKS_PER_STATE) as usize;

/// Runs the floor as its parent says.
///
/// # Errors
/// [`BenchError`] when it cannot run or the parent is not to be understood.
pub fn run() -> Result<(), BenchError> {
    // It hears the parent from a thread of its own, begun before the floor takes its core and its
    // class: a floor that is too full never sleeps, and beside it nobody would hear anything.
    let (tx, orders) = std::sync::mpsc::sync_channel(2);
    std::thread::Builder::new().name("orders".into()).spawn(move || {
        let mut parent = Parent::default();
        let plan = parent.hear::<FloorPlan>().map(|plan| Order::Plan(Box::new(plan)));
        let is_sound = plan.is_ok();
        // The floor ends with its receiver, and then nobody needs to know.
        let _ = tx.send(plan);
        if is_sound {
            let _ = tx.send(parent.hear::<Window>().map(Order::Window));
        }
    })?;
    let hung_up = || BenchError::Plan("its reader failed".into());
    let Order::Plan(plan) = orders.recv().map_err(|_| hung_up())?? else { return Err(hung_up()) };
    plan.placement.apply()?;
    let clock_nanos = ReactorEnv::clock_ns();
    let mut floor = Floor::new(&plan, Clock::new(clock_nanos))?;
    let address = floor.socket.local_addr();
    write_line(&mut io::stdout().lock(), &FloorReady { address, epoch_nanos: clock_nanos })?;
    let window = loop {
        floor.turn()?;
        match orders.try_recv() {
            Ok(Ok(Order::Window(window))) => break window,
            Ok(Ok(Order::Plan(_))) | Err(TryRecvError::Disconnected) => return Err(hung_up()),
            Ok(Err(error)) => return Err(error),
            Err(TryRecvError::Empty) => {}
        }
    };
    let report = floor.measure(&window)?;
    Ok(write_line(&mut io::stdout().lock(), &report)?)
}

/// What the parent says.
enum Order {
    Plan(Box<FloorPlan>),
    Window(Window),
}

/// One player.
struct Row {
    connection: BareConnection,
    /// Where its packets come from; `None` before the first.
    peer: Option<SocketAddr>,
    /// Datagrams owed, in parts of one: a state may take more than one on average.
    owed: f64,
}

struct Floor {
    clock: Clock,
    socket: BareSocket,
    received: DatagramBatch,
    out: DatagramBatch,
    /// By connection id, which starts at 1.
    rows: Vec<Row>,
    sizes: Vec<u16>,
    next_size: usize,
    datagrams_per_state: f64,
    base: Timestamp,
    next_slot: u64,
    counted: FloorReport,
}

impl Floor {
    fn new(plan: &FloorPlan, clock: Clock) -> Result<Self, BenchError> {
        let cipher = Cipher::from_wire(plan.cipher).unwrap_or(Cipher::Aes128Gcm);
        let suite = suite(Some(plan.cipher));
        let mut rows = Vec::with_capacity(plan.players as usize);
        for player in 0..plan.players {
            let secret = player_secret(&plan.secret, player);
            let connection =
                BareConnection::with_secret(suite.as_ref(), cipher, &secret, player + 1)
                    .ok_or_else(|| BenchError::Cipher(cipher.name().into()))?;
            rows.push(Row { connection, peer: None, owed: 0.0 });
        }
        Ok(Self {
            socket: BareSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), &UdpOptions::default())?,
            received: DatagramBatch::new(BATCH_DATAGRAMS),
            out: DatagramBatch::new(BATCH_DATAGRAMS),
            rows,
            sizes: plan.state_datagram_bytes.clone(),
            next_size: 0,
            datagrams_per_state: plan.datagrams_per_state,
            base: clock.now(),
            next_slot: 0,
            counted: FloorReport::default(),
            clock,
        })
    }

    /// Runs until the window opens, counts in it, and goes on for a moment so that the generator's
    /// window ends under load too.
    fn measure(&mut self, window: &Window) -> Result<FloorReport, BenchError> {
        let from = Timestamp::from_nanos(window.from_nanos);
        let to = Timestamp::from_nanos(window.to_nanos);
        while self.clock.now() < from {
            self.turn()?;
        }
        self.counted = FloorReport::default();
        let cpu_before = process::cpu_time();
        let waited_before = process::waited_time().unwrap_or_default();
        while self.clock.now() < to {
            self.turn()?;
        }
        let cpu = process::cpu_time().saturating_sub(cpu_before);
        self.counted.cpu_nanos = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let waited = process::waited_time().unwrap_or_default().saturating_sub(waited_before);
        self.counted.waited_nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        let report = self.counted.clone();
        let until = to.after(tick_duration() * TICKS_PER_STATE);
        while self.clock.now() < until {
            self.turn()?;
        }
        Ok(report)
    }

    fn slot_at(&self, slot: u64) -> Timestamp {
        let tick = tick_duration();
        let (ticks, part) = (slot / u64::from(SLOTS_PER_TICK), slot % u64::from(SLOTS_PER_TICK));
        let nanos = u64::try_from(tick.as_nanos()).unwrap_or(0).saturating_mul(ticks);
        let at = self.base.after(std::time::Duration::from_nanos(nanos));
        at.after(tick / SLOTS_PER_TICK * part as u32)
    }

    /// One slot of the schedule: what came, then the states that are due, then sleep.
    fn turn(&mut self) -> Result<(), BenchError> {
        let slot = self.next_slot;
        self.next_slot += 1;
        let slot_at = self.slot_at(slot);
        if self.clock.now() < slot_at {
            let before = thread_cpu_time();
            self.clock.wait_until(slot_at);
            let spent = thread_cpu_time().saturating_sub(before);
            self.counted.sleep_nanos += u64::try_from(spent.as_nanos()).unwrap_or(0);
        }
        self.receive()?;
        self.send((slot % SLOTS as u64) as usize)
    }

    /// Takes what has come, until nothing is left or the next slot is due.
    fn receive(&mut self) -> Result<(), BenchError> {
        let until = self.slot_at(self.next_slot);
        loop {
            let began = ReactorEnv::clock_ns();
            let count = self.socket.recv(&mut self.received).map_err(io::Error::other)?;
            let received = ReactorEnv::clock_ns();
            self.counted.receive_nanos += received - began;
            self.counted.received += count as u64;
            self.wish_ahead();
            while let Some(datagram) = self.received.pop() {
                self.open(datagram);
            }
            self.counted.open_nanos += ReactorEnv::clock_ns() - received;
            if count < BATCH_DATAGRAMS || self.clock.now() >= until {
                return Ok(());
            }
        }
    }

    /// Wishes for the rows of a batch, then for their keys, so that the memory comes while others
    /// are worked on.
    fn wish_ahead(&self) {
        let row = |datagram: &Datagram| {
            let id = connection_id(&datagram.packet).unwrap_or(0) as usize;
            id.checked_sub(1).and_then(|row| self.rows.get(row))
        };
        self.received.iter().filter_map(row).for_each(prefetch::value);
        for row in self.received.iter().filter_map(row) {
            row.connection.prefetch_to_open();
        }
    }

    fn open(&mut self, mut datagram: Datagram) {
        let bytes = &mut *datagram.packet;
        let id = connection_id(bytes).unwrap_or(0) as usize;
        let Some(row) = id.checked_sub(1).and_then(|row| self.rows.get_mut(row)) else { return };
        if row.connection.open(bytes).is_some() {
            self.counted.opened += 1;
            row.peer.get_or_insert(datagram.peer);
        }
    }

    /// Seals and sends the states of one slot, in batches.
    fn send(&mut self, slot: usize) -> Result<(), BenchError> {
        let mut at = slot;
        while at < self.rows.len() {
            let began = ReactorEnv::clock_ns();
            at = self.fill(at);
            let sealed = ReactorEnv::clock_ns();
            let sent = self.socket.send(&mut self.out).map_err(io::Error::other)?;
            // What finds no room is lost, as on a network.
            self.out.clear();
            self.counted.seal_nanos += sealed - began;
            self.counted.send_nanos += ReactorEnv::clock_ns() - sealed;
            self.counted.sent += sent as u64;
        }
        Ok(())
    }

    /// Seals states into the batch from row `at` on; returns where to go on.
    fn fill(&mut self, mut at: usize) -> usize {
        let Self { rows, socket, out, sizes, next_size, datagrams_per_state, .. } = self;
        while let Some(row) = rows.get_mut(at) {
            let Row { connection, peer: Some(peer), owed } = row else {
                at += SLOTS;
                continue;
            };
            *owed += *datagrams_per_state;
            while *owed >= 1.0 {
                let Some(mut packet) = socket.pool().take().filter(|_| out.room() > 0) else {
                    *owed -= *datagrams_per_state;
                    return at;
                };
                let size = sizes.get(*next_size).copied().unwrap_or_default();
                packet.set_len(usize::from(size).max(LOAD_OVERHEAD_BYTES));
                connection.seal(STATE, &mut packet);
                // There is room: it was looked at.
                let _ = out.push(Datagram { peer: *peer, at: Timestamp::START, packet });
                *next_size = (*next_size + 1) % sizes.len().max(1);
                *owed -= 1.0;
            }
            at += SLOTS;
        }
        at
    }
}
