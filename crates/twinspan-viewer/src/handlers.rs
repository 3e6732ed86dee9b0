//! Handlers of messages: typed, in order of priority, each with a queue of its own.
//!
//! Handlers run apart from the network: acks and pings never wait for one. Each handles its messages
//! one after the other in the order in which they came; of several handlers of one message those
//! with a higher priority begin first, and the others wait until they are done with it, but no
//! longer than [`PRIORITY_GRACE`]: who is slow or panics holds back nobody but itself.

mod gate;
mod pool;
mod slot;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use twinspan_circuit::ORDERED_MESSAGES_MAX;
use twinspan_core::time::Timestamp;
use twinspan_lludp::{DecodeError, Message, MessageId};

pub use pool::HANDLERS_AT_ONCE_MAX;
pub(crate) use pool::HandlerPool;
pub use slot::{HANDLER_QUEUE_MAX, HANDLER_RESERVE_MAX, HandlerReport};

use crate::client::ClientHandle;
use crate::handle::{Circuit, CoreHandle};
use crate::region::RegionInfo;
use gate::{Gate, Opener};
use slot::{Item, Pushed, Slot, TypedSlot};

/// Handlers of one client.
pub const HANDLERS_MAX: usize = 1_024;
/// How long a handler waits for those with a higher priority.
pub const PRIORITY_GRACE: Duration = Duration::from_millis(50);
/// Gates that the network may have to open; past it handlers wait for nobody.
const GATES_MAX: usize = 8_192;

/// What a handler gives when it fails: told as [`NetworkError::HandlerFailed`].
///
/// [`NetworkError::HandlerFailed`]: crate::NetworkError::HandlerFailed
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// Handles messages of one type.
///
/// ```
/// use twinspan_lludp::messages::ChatFromSimulator;
/// use twinspan_viewer::{HandlerContext, HandlerError, TypedPacketHandler};
///
/// struct PrintChat;
///
/// impl TypedPacketHandler<ChatFromSimulator> for PrintChat {
///     async fn handle(
///         &self,
///         packet: &ChatFromSimulator,
///         context: &HandlerContext,
///     ) -> Result<(), HandlerError> {
///         let chat = &packet.chat_data;
///         let region = context.region().map_or("?", |region| &region.name);
///         println!("[{region}] {}: {}", chat.from_name.to_text(), chat.message.to_text());
///         Ok(())
///     }
/// }
/// ```
pub trait TypedPacketHandler<P: Message>: Send + Sync + 'static {
    /// Handlers with a higher number come first; equal ones in the order of registration.
    fn priority(&self) -> i32 {
        0
    }

    /// Whether messages are wanted in the order of sending. They wait for older ones then, but not
    /// for long ([`Config::order_hold`](twinspan_circuit::Config::order_hold)). It is asked once,
    /// when the handler is registered; there is room for [`ORDERED_MESSAGES_MAX`] kinds of
    /// messages.
    ///
    /// [`ORDERED_MESSAGES_MAX`]: twinspan_circuit::ORDERED_MESSAGES_MAX
    fn in_order(&self) -> bool {
        false
    }

    /// Whether this message is handled.
    fn should_handle(&self, packet: &P, context: &HandlerContext) -> bool {
        let _ = (packet, context);
        true
    }

    /// Handles a message. It may wait for what it likes.
    fn handle(
        &self,
        packet: &P,
        context: &HandlerContext,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Names a handler; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandlerId(u64);

/// Why a handler was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// There are as many as a client has.
    #[error("{HANDLERS_MAX} handlers are registered, remove some")]
    Full,
    /// It wants the order of sending, and as many kinds of messages are kept in order as there is
    /// room for.
    #[error(
        "handlers want {ORDERED_MESSAGES_MAX} kinds of messages in order, remove some or take \
         this one as it arrives"
    )]
    OrderFull,
}

/// What registering gave. It may be dropped: the handler stays until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration(Result<HandlerId, RegisterError>);

impl Registration {
    /// The handler's name.
    ///
    /// # Errors
    /// [`RegisterError`] when it was not registered.
    pub const fn id(self) -> Result<HandlerId, RegisterError> {
        self.0
    }
}

/// What a handler can reach.
#[derive(Clone, Debug)]
pub struct HandlerContext {
    pub(crate) core: CoreHandle,
    pub(crate) from: SocketAddr,
    pub(crate) region: Option<Arc<RegionInfo>>,
    pub(crate) number: u64,
    pub(crate) reliable: bool,
    pub(crate) late: bool,
}

impl HandlerContext {
    /// The client.
    pub fn client(&self) -> ClientHandle {
        ClientHandle::of(&self.core)
    }

    /// Its core: sends to whom it likes.
    pub const fn core(&self) -> &CoreHandle {
        &self.core
    }

    /// The circuit that the message came on.
    pub fn circuit(&self) -> Circuit {
        self.core.circuit(self.from)
    }

    /// The region at the other end of it, once it said what it is.
    pub fn region(&self) -> Option<&RegionInfo> {
        self.region.as_deref()
    }

    /// The number of the message's packet, as [`Received`](twinspan_circuit::Received) counts it.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Whether it was sent reliably.
    pub const fn is_reliable(&self) -> bool {
        self.reliable
    }

    /// Whether the order of sending was asked for, and it comes after a newer one all the same.
    pub const fn is_late(&self) -> bool {
        self.late
    }
}

/// A handler's work that is to begin.
pub(crate) struct Job {
    /// Whose; each has one at a time.
    pub(crate) id: HandlerId,
    pub(crate) work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Handlers by message, those with a higher priority first.
#[derive(Default)]
struct Table {
    by_message: BTreeMap<MessageId, Vec<Arc<dyn Slot>>>,
    len: usize,
}

impl Table {
    /// Messages that some handler wants in the order of sending.
    fn ordered(&self) -> impl Iterator<Item = MessageId> {
        let ordered =
            self.by_message.iter().filter(|(_, slots)| slots.iter().any(|slot| slot.in_order()));
        ordered.map(|(id, _)| *id)
    }

    /// Whether there is room for somebody who wants the order of this message.
    fn has_order_for(&self, id: MessageId) -> bool {
        self.ordered().filter(|other| *other != id).count() < ORDERED_MESSAGES_MAX
    }
}

struct Shared {
    table: Mutex<Arc<Table>>,
    /// Counts changes of the table: who reads it looks here first, without a lock.
    version: AtomicU64,
    next_id: AtomicU64,
}

/// Registers and removes handlers, also while messages come. Clones are the same registry.
#[derive(Clone)]
pub struct HandlerRegistry {
    shared: Arc<Shared>,
}

impl HandlerRegistry {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                table: Mutex::default(),
                version: AtomicU64::new(0),
                next_id: AtomicU64::new(1),
            }),
        }
    }

    fn table(&self) -> Arc<Table> {
        // A table is replaced whole: what a panicking thread left is right.
        Arc::clone(&self.shared.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        let mut held = self.shared.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table { by_message: held.by_message.clone(), len: held.len };
        let outcome = change(&mut table);
        *held = Arc::new(table);
        // Pairs with the Acquire of `Dispatcher::refresh`: who sees the number sees the table.
        self.shared.version.fetch_add(1, Ordering::Release);
        outcome
    }

    /// Registers a handler; messages that come from now on reach it.
    ///
    /// # Cancel safety
    /// It does not wait.
    pub async fn register_handler<P, H>(&self, handler: H) -> Registration
    where
        P: Message + Send + Sync + 'static,
        H: TypedPacketHandler<P>,
    {
        let id = HandlerId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let slot: Arc<dyn Slot> = Arc::new(TypedSlot::<P, H>::new(id, handler));
        Registration(self.change(|table| {
            if table.len >= HANDLERS_MAX {
                return Err(RegisterError::Full);
            }
            if slot.in_order() && !table.has_order_for(P::ID) {
                return Err(RegisterError::OrderFull);
            }
            table.len += 1;
            let slots = table.by_message.entry(P::ID).or_default();
            let behind = slots.partition_point(|other| other.priority() >= slot.priority());
            slots.insert(behind, slot);
            Ok(id)
        }))
    }

    /// Removes a handler: it finishes what it has begun, and gets nothing more. False when there is
    /// none.
    ///
    /// # Cancel safety
    /// It does not wait.
    pub async fn unregister_handler(&self, id: HandlerId) -> bool {
        let removed = self.change(|table| {
            let mut removed = None;
            for slots in table.by_message.values_mut() {
                if let Some(index) = slots.iter().position(|slot| slot.id() == id) {
                    removed = Some(slots.remove(index));
                    table.len -= 1;
                }
            }
            table.by_message.retain(|_, slots| !slots.is_empty());
            removed
        });
        if let Some(slot) = &removed {
            slot.close();
        }
        removed.is_some()
    }

    /// What each handler did, by the message that it handles, those with a higher priority first.
    pub fn reports(&self) -> Vec<HandlerReport> {
        let table = self.table();
        table.by_message.values().flatten().map(|slot| slot.report()).collect()
    }

    /// Messages that want the order of sending, [`ORDERED_MESSAGES_MAX`] at most.
    pub(crate) fn ordered(&self) -> Vec<MessageId> {
        self.table().ordered().collect()
    }

    /// Forgets everything that waits: the client is over.
    pub(crate) fn clear(&self) {
        self.table().by_message.values().flatten().for_each(|slot| slot.clear());
    }
}

impl fmt::Debug for HandlerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerRegistry").field("handlers", &self.table().len).finish()
    }
}

/// What the network did with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dispatched {
    /// Handlers whose queues were full.
    pub(crate) overruns: u64,
}

/// The network's side of the registry: hands messages to handlers without waiting for any.
pub(crate) struct Dispatcher {
    registry: HandlerRegistry,
    table: Arc<Table>,
    version: u64,
    /// Gates that are opened at these times, if handlers have not by then.
    gates: VecDeque<(Timestamp, Arc<Gate>, Arc<dyn Slot>)>,
    jobs: Vec<Job>,
}

impl Dispatcher {
    pub(crate) fn new(registry: HandlerRegistry) -> Self {
        let mut dispatcher = Self {
            table: Arc::default(),
            version: u64::MAX,
            registry,
            gates: VecDeque::new(),
            jobs: Vec::new(),
        };
        dispatcher.refresh();
        dispatcher
    }

    /// Looks whether handlers came or went; true when so.
    pub(crate) fn refresh(&mut self) -> bool {
        // Pairs with the Release of `HandlerRegistry::change`.
        let version = self.registry.shared.version.load(Ordering::Acquire);
        if version == self.version {
            return false;
        }
        self.version = version;
        self.table = self.registry.table();
        true
    }

    /// Whether anybody handles this message.
    pub(crate) fn wants(&self, id: MessageId) -> bool {
        self.table.by_message.contains_key(&id)
    }

    /// Hands a message to everybody who handles it.
    pub(crate) fn dispatch(
        &mut self,
        now: Timestamp,
        id: MessageId,
        body: &[u8],
        context: &HandlerContext,
    ) -> Result<Dispatched, DecodeError> {
        let mut done = Dispatched::default();
        let table = Arc::clone(&self.table);
        let Some([first, rest @ ..]) = table.by_message.get(&id).map(Vec::as_slice) else {
            return Ok(done);
        };
        let packet: Arc<dyn Any + Send + Sync> = first.decode(body)?;
        let key = slot::superseding(id, body);
        let mut after = None;
        for (slot, last) in
            [first].into_iter().chain(rest).zip((0..=rest.len()).map(|index| index == rest.len()))
        {
            let gated = !last && !slot.is_late() && self.gates.len() < GATES_MAX;
            let gate = gated.then(|| Arc::new(Gate::default()));
            let item = Item {
                packet: Arc::clone(&packet),
                context: context.clone(),
                key,
                after: after.clone(),
                done: gate.clone().map(Opener),
            };
            match Arc::clone(slot).push(item) {
                Pushed::Waits => {}
                Pushed::Begins(job) => self.jobs.push(job),
                Pushed::Dropped => done.overruns += 1,
            }
            if let Some(gate) = gate {
                self.gates.push_back((
                    now.after(PRIORITY_GRACE),
                    Arc::clone(&gate),
                    Arc::clone(slot),
                ));
                after = Some(gate);
            }
        }
        Ok(done)
    }

    /// Work that is to begin.
    pub(crate) fn take_jobs(&mut self) -> std::vec::Drain<'_, Job> {
        self.jobs.drain(..)
    }

    /// Lets go on who waited long enough for others.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        while let Some((_, gate, slot)) =
            self.gates.pop_front_if(|(at, gate, _)| *at <= now || gate.is_open())
        {
            if gate.open() {
                slot.set_late();
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has work.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        self.gates.front().map_or(Timestamp::NEVER, |(at, ..)| *at)
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("gates", &self.gates.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
