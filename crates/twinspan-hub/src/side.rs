//! The two sides of a hub, whichever road they are on.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use twinspan_net::shm::{
    Block, Got, Member, PublishError as MemoryError, Publisher, Room, Subscriber, Taken,
    TooManyHeld, deadline_in, ring,
};

use crate::compress::CompressionStats;
use crate::effect::SettingReport;
use crate::error::PublishError;
use crate::report::Transport;
use crate::road::{InStats, Incoming, More, OutStats, Outgoing, Patience, Peers, wait_for};
use crate::seal::Declined;
use crate::stream::roads::RoadChange;

/// How often somebody who waits for subscribers looks.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// The publishing side.
#[expect(clippy::large_enum_variant, reason = "a hub has one, and the large one is the fastest")]
pub(crate) enum Outlet {
    Memory(Publisher),
    Road(Box<dyn Outgoing>),
}

impl Outlet {
    #[inline]
    pub(crate) fn publish(&mut self, bytes: &[u8]) -> Result<u64, PublishError> {
        match self {
            Self::Memory(publisher) => Ok(publisher.publish(bytes)?),
            Self::Road(road) => road.publish(bytes, More::Unknown),
        }
    }

    /// Publishes a message behind which [`end_of_many`](Self::end_of_many) will be called.
    pub(crate) fn publish_one_of_many(&mut self, bytes: &[u8]) -> Result<u64, PublishError> {
        match self {
            Self::Memory(publisher) => Ok(publisher.publish(bytes)?),
            Self::Road(road) => road.publish(bytes, More::Follows),
        }
    }

    pub(crate) fn publish_all<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a [u8]>,
    ) -> Result<usize, (usize, PublishError)> {
        match self {
            Self::Memory(publisher) => match publisher.publish_all(messages) {
                (count, None) => Ok(count),
                (count, Some(error)) => Err((count, error.into())),
            },
            Self::Road(road) => {
                let mut count = 0;
                for bytes in messages {
                    road.publish(bytes, More::Follows).map_err(|error| (count, error))?;
                    count += 1;
                }
                road.end_of_many().map_err(|error| (count, error))?;
                Ok(count)
            }
        }
    }

    /// The last of some messages was published.
    pub(crate) fn end_of_many(&mut self) -> Result<(), PublishError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Road(road) => road.end_of_many(),
        }
    }

    /// Publishes a block of this publisher's memory.
    pub(crate) fn publish_block(&mut self, block: Block) -> Result<u64, PublishError> {
        match self {
            Self::Memory(publisher) => Ok(publisher.publish_block(block)?),
            // No road but memory lends blocks.
            Self::Road(_) => Err(MemoryError::Foreign.into()),
        }
    }

    pub(crate) fn flush(&mut self) -> Result<(), PublishError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Road(road) => road.flush(),
        }
    }

    pub(crate) fn next_number(&self) -> u64 {
        match self {
            Self::Memory(publisher) => publisher.next_number(),
            Self::Road(road) => road.next_number(),
        }
    }

    pub(crate) fn stats(&self) -> OutStats {
        match self {
            Self::Memory(publisher) => {
                let stats = publisher.stats();
                OutStats { published: stats.published, dropped: stats.dropped }
            }
            Self::Road(road) => road.stats(),
        }
    }
}

/// The receiving side.
pub(crate) enum Inlet {
    Memory(Subscriber),
    Road(Box<dyn Incoming>, Patience),
}

impl Inlet {
    #[inline]
    pub(crate) fn try_take(&mut self, room: &mut impl Room) -> Option<Taken> {
        match self {
            Self::Memory(subscriber) => subscriber.try_take(room),
            Self::Road(road, _) => road.try_take(room),
        }
    }

    /// Waits for a message until the deadline, for ever without one.
    #[inline]
    pub(crate) fn take(
        &mut self,
        room: &mut impl Room,
        deadline: Option<Instant>,
    ) -> Option<Taken> {
        match self {
            Self::Memory(subscriber) => subscriber.take(room, deadline),
            Self::Road(road, patience) => {
                wait_for(&mut **road, patience, deadline, |road| road.try_take(room))
            }
        }
    }

    /// Takes a message, or holds it where it lies if that is shared memory.
    pub(crate) fn try_get(&mut self, room: &mut impl Room) -> Result<Option<Got>, TooManyHeld> {
        match self {
            Self::Memory(subscriber) => subscriber.try_get(room),
            Self::Road(road, _) => Ok(road.try_take(room).map(Got::Copied)),
        }
    }

    /// The same, waiting for one; `None` when the wait ended early.
    pub(crate) fn get(&mut self, room: &mut impl Room) -> Option<Result<Got, TooManyHeld>> {
        match self {
            Self::Memory(subscriber) => {
                subscriber.wait_for(None, |it| it.try_get(room).transpose())
            }
            Self::Road(..) => self.take(room, None).map(|taken| Ok(Got::Copied(taken))),
        }
    }

    pub(crate) fn wake(&mut self, waker: &Waker) {
        match self {
            Self::Memory(subscriber) => subscriber.wake(waker),
            Self::Road(road, _) => road.wake(waker),
        }
    }

    pub(crate) fn arm(&mut self) -> bool {
        match self {
            Self::Memory(subscriber) => subscriber.arm(),
            Self::Road(road, _) => road.arm(),
        }
    }

    /// Takes a message, or arms where there is none.
    pub(crate) fn take_or_arm(&mut self, room: &mut impl Room) -> Option<Taken> {
        let subscriber = match self {
            Self::Memory(subscriber) => subscriber,
            Self::Road(road, _) => return road.take_or_arm(room),
        };
        let found = subscriber.try_take(room);
        if found.is_some() || subscriber.arm() {
            return found;
        }
        // As on other roads: arming quieted what others may wait for.
        ring(subscriber.fd());
        subscriber.try_take(room)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Memory(subscriber) => subscriber.fd(),
            Self::Road(road, _) => road.fd(),
        }
    }

    /// What is rung to make the descriptor readable.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        match self {
            Self::Memory(subscriber) => subscriber.fd(),
            Self::Road(road, _) => road.bell(),
        }
    }

    pub(crate) fn stats(&self) -> InStats {
        match self {
            Self::Memory(subscriber) => {
                let stats = subscriber.stats();
                let (taken, lost, corrupt) = (stats.taken, stats.lost, stats.corrupt);
                InStats { taken, lost, corrupt, naps: stats.naps }
            }
            Self::Road(road, _) => road.stats(),
        }
    }
}

/// Who takes part.
pub(crate) enum Present {
    Memory(Member),
    Road(Arc<dyn Peers>),
}

impl Present {
    pub(crate) fn compression(&self) -> Option<CompressionStats> {
        match self {
            Self::Memory(_) => None,
            Self::Road(peers) => peers.compression(),
        }
    }

    pub(crate) fn settings(&self) -> Vec<SettingReport> {
        match self {
            Self::Memory(_) => Vec::new(),
            Self::Road(peers) => peers.settings(),
        }
    }

    pub(crate) fn road(&self) -> Option<Transport> {
        match self {
            Self::Memory(_) => None,
            Self::Road(peers) => peers.road(),
        }
    }

    pub(crate) fn take_change(&self) -> Option<RoadChange> {
        match self {
            Self::Memory(_) => None,
            Self::Road(peers) => peers.take_change(),
        }
    }

    pub(crate) fn subscribers(&self) -> usize {
        match self {
            Self::Memory(member) => member.subscribers(),
            Self::Road(peers) => peers.subscribers(),
        }
    }

    pub(crate) fn publishers(&self) -> usize {
        match self {
            Self::Memory(member) => member.publishers(),
            Self::Road(peers) => peers.publishers(),
        }
    }

    pub(crate) fn forgotten(&self) -> u64 {
        match self {
            Self::Memory(member) => member.forgotten(),
            Self::Road(_) => 0,
        }
    }

    pub(crate) fn ended(&self) -> u64 {
        match self {
            Self::Memory(_) => 0,
            Self::Road(peers) => peers.ended(),
        }
    }

    pub(crate) fn declined(&self) -> (u64, Option<Declined>) {
        match self {
            Self::Memory(_) => (0, None),
            Self::Road(peers) => peers.declined(),
        }
    }

    /// Waits until so many subscribers hear this hub; false when there are fewer at the end.
    pub(crate) fn wait_for_subscribers(&self, count: usize, timeout: Duration) -> bool {
        let peers = match self {
            Self::Memory(member) => return member.wait_for_subscribers(count, timeout),
            Self::Road(peers) => peers,
        };
        let deadline = deadline_in(timeout);
        while peers.subscribers() < count {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
        true
    }
}
