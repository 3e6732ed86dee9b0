//! One handler and its queue.

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use twinspan_lludp::messages::{
    CoarseLocationUpdate, ImprovedTerseObjectUpdate, SimStats, SimulatorViewerTimeMessage,
};
use twinspan_lludp::{DecodeError, Message, MessageId};

use super::gate::{Gate, Opener};
use super::{HandlerContext, HandlerError, HandlerId, Job, TypedPacketHandler};
use crate::event::NetworkError;

/// Messages that wait for one handler; past it unreliable ones are dropped.
pub const HANDLER_QUEUE_MAX: usize = 1_024;
/// Messages that wait for one handler in all: those past [`HANDLER_QUEUE_MAX`] were sent reliably.
/// Past it these are dropped as well, counted, and told.
pub const HANDLER_RESERVE_MAX: usize = 8_192;
/// Waiting messages that are looked through for one that a newer one replaces.
const SUPERSEDED_SEARCH_MAX: usize = 128;

/// What one handler did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerReport {
    /// Which.
    pub id: HandlerId,
    /// Its type.
    pub name: &'static str,
    /// The message that it handles.
    pub message: &'static str,
    /// Its priority.
    pub priority: i32,
    /// Messages that it handled.
    pub handled: u64,
    /// Messages that it did not want.
    pub passed_over: u64,
    /// Messages that newer ones replaced while they waited.
    pub superseded: u64,
    /// Messages that found its queue full.
    pub dropped: u64,
    /// Messages that it failed at.
    pub failed: u64,
    /// Of these, those at which it panicked.
    pub panicked: u64,
    /// Messages that wait for it.
    pub waiting: usize,
}

/// Which messages of one kind replace one another while they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// What it is about.
    about: u32,
    /// Whether a newer one says everything that this one does.
    is_replaceable: bool,
}

/// What a message replaces, and whether it may be replaced.
pub(super) fn superseding(id: MessageId, body: &[u8]) -> Option<Key> {
    let whole = Key { about: 0, is_replaceable: true };
    match id {
        CoarseLocationUpdate::ID | SimStats::ID | SimulatorViewerTimeMessage::ID => Some(whole),
        ImprovedTerseObjectUpdate::ID => moved(body),
        _ => None,
    }
}

/// One object that moved: handle, dilation, count, then its bytes, which begin with its number, and
/// its texture, which later ones do not repeat.
fn moved(body: &[u8]) -> Option<Key> {
    let (count, rest) = body.get(10..)?.split_first()?;
    let (len, rest) = rest.split_first()?;
    let (data, rest) = rest.split_at_checked(usize::from(*len))?;
    let about = u32::from_le_bytes(*data.first_chunk()?);
    let texture = u16::from_le_bytes(*rest.first_chunk()?);
    (*count == 1).then_some(Key { about, is_replaceable: texture == 0 })
}

/// A message that waits.
pub(super) struct Item {
    pub(super) packet: Arc<dyn Any + Send + Sync>,
    pub(super) context: HandlerContext,
    pub(super) key: Option<Key>,
    /// Not before this is open.
    pub(super) after: Option<Arc<Gate>>,
    /// Opens when the message is done with.
    pub(super) done: Option<Opener>,
}

/// What became of a message.
pub(super) enum Pushed {
    Waits,
    Begins(Job),
    Dropped,
}

/// One handler, whatever its type.
pub(super) trait Slot: Send + Sync {
    fn id(&self) -> HandlerId;
    fn priority(&self) -> i32;
    fn in_order(&self) -> bool;
    fn decode(&self, body: &[u8]) -> Result<Arc<dyn Any + Send + Sync>, DecodeError>;
    fn push(self: Arc<Self>, item: Item) -> Pushed;
    /// Nothing more comes.
    fn close(&self);
    /// What waits is forgotten.
    fn clear(&self);
    fn is_late(&self) -> bool;
    fn set_late(&self);
    fn report(&self) -> HandlerReport;
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Whether its work goes on.
    active: bool,
    closed: bool,
    handled: u64,
    passed_over: u64,
    superseded: u64,
    dropped: u64,
    failed: u64,
    panicked: u64,
}

pub(super) struct TypedSlot<P, H> {
    id: HandlerId,
    priority: i32,
    in_order: bool,
    handler: H,
    queue: Mutex<Queue>,
    /// Whether the message that it is at took longer than others wait for.
    late: AtomicBool,
    packet: PhantomData<fn(&P)>,
}

impl<P: Message + Send + Sync + 'static, H: TypedPacketHandler<P>> TypedSlot<P, H> {
    pub(super) fn new(id: HandlerId, handler: H) -> Self {
        Self {
            id,
            // Users' code: it is asked here, where it can harm only who registers it.
            priority: handler.priority(),
            in_order: handler.in_order(),
            handler,
            queue: Mutex::default(),
            late: AtomicBool::new(false),
            packet: PhantomData,
        }
    }

    /// Held for a push or a pop alone: no user's code runs under it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Item> {
        let mut queue = self.queue();
        let item = queue.items.pop_front();
        queue.active = item.is_some();
        item
    }

    /// Handles what waits, until nothing does.
    async fn work(self: Arc<Self>) {
        while let Some(item) = self.next() {
            if let Some(after) = &item.after {
                after.opened().await;
            }
            let Some(packet) = item.packet.downcast_ref::<P>() else { continue };
            let handling = async {
                if !self.handler.should_handle(packet, &item.context) {
                    return Ok(false);
                }
                self.handler.handle(packet, &item.context).await.map(|()| true)
            };
            let outcome = caught(handling).await;
            self.settle(outcome, &item.context);
            self.late.store(false, Ordering::Relaxed);
            drop(item.done);
        }
    }

    fn settle(
        &self,
        outcome: Result<Result<bool, HandlerError>, String>,
        context: &HandlerContext,
    ) {
        let mut queue = self.queue();
        let error = match outcome {
            Ok(Ok(true)) => {
                queue.handled += 1;
                return;
            }
            Ok(Ok(false)) => {
                queue.passed_over += 1;
                return;
            }
            Ok(Err(error)) => NetworkError::HandlerFailed {
                handler: std::any::type_name::<H>(),
                message: P::NAME,
                reason: error.to_string(),
            },
            Err(reason) => {
                queue.panicked += 1;
                let handler = std::any::type_name::<H>();
                NetworkError::HandlerPanicked { handler, message: P::NAME, reason }
            }
        };
        queue.failed += 1;
        drop(queue);
        context.core.tell_error(error);
    }
}

impl<P: Message + Send + Sync + 'static, H: TypedPacketHandler<P>> Slot for TypedSlot<P, H> {
    fn id(&self) -> HandlerId {
        self.id
    }

    fn priority(&self) -> i32 {
        self.priority
    }

    fn in_order(&self) -> bool {
        self.in_order
    }

    fn decode(&self, body: &[u8]) -> Result<Arc<dyn Any + Send + Sync>, DecodeError> {
        let (packet, _) = P::decode(body)?;
        Ok(Arc::new(packet))
    }

    fn push(self: Arc<Self>, item: Item) -> Pushed {
        let mut queue = self.queue();
        if queue.closed {
            return Pushed::Waits;
        }
        if let Some(key) = item.key {
            let replaced = queue.items.iter_mut().rev().take(SUPERSEDED_SEARCH_MAX).find(|older| {
                let replaceable =
                    older.key.is_some_and(|older| older.is_replaceable && older.about == key.about);
                replaceable && older.context.from == item.context.from
            });
            if let Some(older) = replaced {
                // What it replaced is done with: those who wait for that go on.
                let older = std::mem::replace(older, item);
                queue.superseded += 1;
                drop(queue);
                drop(older);
                return Pushed::Waits;
            }
        }
        let limit = if item.context.reliable { HANDLER_RESERVE_MAX } else { HANDLER_QUEUE_MAX };
        if queue.items.len() >= limit {
            queue.dropped += 1;
            return Pushed::Dropped;
        }
        queue.items.push_back(item);
        if std::mem::replace(&mut queue.active, true) {
            return Pushed::Waits;
        }
        drop(queue);
        Pushed::Begins(Job { id: self.id, work: Box::pin(self.work()) })
    }

    fn close(&self) {
        self.queue().closed = true;
        self.clear();
    }

    fn clear(&self) {
        let items = std::mem::take(&mut self.queue().items);
        drop(items);
    }

    fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    fn set_late(&self) {
        // Alone it says nothing that must be seen at once.
        self.late.store(true, Ordering::Relaxed);
    }

    fn report(&self) -> HandlerReport {
        let queue = self.queue();
        HandlerReport {
            id: self.id,
            name: std::any::type_name::<H>(),
            message: P::NAME,
            priority: self.priority,
            handled: queue.handled,
            passed_over: queue.passed_over,
            superseded: queue.superseded,
            dropped: queue.dropped,
            failed: queue.failed,
            panicked: queue.panicked,
            waiting: queue.items.len(),
        }
    }
}

/// What a future gives, or what it panicked with.
async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(words(panic.as_ref()))),
    })
    .await
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "something without words".into())
}
