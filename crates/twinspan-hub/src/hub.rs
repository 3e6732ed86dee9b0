//! The handle that users hold.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use twinspan_net::lock;
use twinspan_net::shm::{Joined, LatencyGuard, Wait, ring};

use crate::builder::HubBuilder;
use crate::compress::CompressionStats;
use crate::effect::SettingReport;
use crate::error::{BuildError, PublishError};
use crate::payload::Payload;
use crate::report::{Transport, TransportReport};
use crate::road::{InStats, Opened, OutStats, Patience};
use crate::seal::Declined;
use crate::side::{Inlet, Outlet, Present};
use crate::stream::roads::RoadChange;

/// The publishing side.
pub(crate) struct Sending<T> {
    pub(crate) outlet: Outlet,
    /// Where values are encoded.
    scratch: Vec<u8>,
    /// A place for a loan of a value that lies in its slot.
    pub(crate) spare: Option<Box<T>>,
    pub(crate) spare_bytes: Vec<u8>,
}

/// The receiving side.
pub(crate) struct Receiving<T: Payload> {
    pub(crate) inlet: Inlet,
    pub(crate) inbox: T::Inbox,
}

/// What a hub did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubStats {
    /// Messages published.
    pub published: u64,
    /// Messages dropped because a subscriber that drops new ones was full.
    pub dropped: u64,
    /// Messages taken.
    pub received: u64,
    /// Messages missed because they were overwritten before they were read.
    pub lost: u64,
    /// Messages that no good publisher writes, or longer than this side takes: skipped.
    pub corrupt: u64,
    /// Times that this side slept while it waited for messages.
    pub naps: u64,
    /// Publishers that went and were forgotten before their last messages were taken.
    pub forgotten: u64,
    /// Peers on roads over the network that went without a goodbye, or broke the protocol. What they
    /// had not acknowledged may not have arrived.
    pub ended: u64,
    /// How often somebody on a road over a network was refused, or refused this hub: [`Hub::declined`]
    /// tells of the last.
    pub declined: u64,
}

/// A handle to a topic: it publishes values of `T` and receives those of others.
///
/// It can be shared between threads: one publishes at a time, and one receives. It leaves the topic
/// when it is dropped; what it published last is still delivered.
pub struct Hub<T: Payload> {
    topic: String,
    // Dropped first: others learn that we are gone before the segments are.
    present: Present,
    sending: Option<Mutex<Sending<T>>>,
    receiving: Option<Mutex<Receiving<T>>>,
    /// What is readable with the next message, where anything is received.
    fd: Option<OwnedFd>,
    /// What is rung to make that readable.
    pub(crate) bell: Option<OwnedFd>,
    report: TransportReport,
    _guard: Option<LatencyGuard>,
}

impl<T: Payload> Hub<T> {
    /// Joins the topic that `endpoint` names, by the fastest road there is to it.
    ///
    /// # Errors
    /// [`BuildError`] says what is wrong and what to do.
    pub fn new(endpoint: impl AsRef<str>) -> Result<Self, BuildError> {
        Self::builder(endpoint).build()
    }

    /// Options for the topic that `endpoint` names.
    pub fn builder(endpoint: impl AsRef<str>) -> HubBuilder<T> {
        HubBuilder::new(endpoint.as_ref())
    }

    /// A hub in shared memory.
    pub(crate) fn assemble(
        topic: String,
        joined: Joined,
        report: TransportReport,
        guard: Option<LatencyGuard>,
    ) -> Self {
        let Joined { member, publisher, subscriber } = joined;
        let outlet = publisher.map(Outlet::Memory);
        let inlet = subscriber.map(Inlet::Memory);
        Self::of_sides(topic, Present::Memory(member), (outlet, inlet), report, guard)
    }

    /// A hub on a road over the network.
    pub(crate) fn on_road(
        topic: String,
        opened: Opened,
        wait: Wait,
        report: TransportReport,
        guard: Option<LatencyGuard>,
    ) -> Self {
        let Opened { out, inlet, peers, .. } = opened;
        let sides =
            (out.map(Outlet::Road), inlet.map(|road| Inlet::Road(road, Patience::new(wait))));
        Self::of_sides(topic, Present::Road(peers), sides, report, guard)
    }

    fn of_sides(
        topic: String,
        present: Present,
        (outlet, inlet): (Option<Outlet>, Option<Inlet>),
        report: TransportReport,
        guard: Option<LatencyGuard>,
    ) -> Self {
        let sending = outlet.map(|outlet| {
            let (scratch, spare_bytes) = (Vec::new(), Vec::new());
            Mutex::new(Sending { outlet, scratch, spare: None, spare_bytes })
        });
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().ok();
        let fd = inlet.as_ref().and_then(|inlet| own(inlet.fd()));
        let bell = inlet.as_ref().and_then(|inlet| own(inlet.bell()));
        if let Some(bell) = &bell {
            // Readable at first: who begins with a wait looks once, and is told of what comes then.
            ring(bell);
        }
        let receiving = inlet.map(|inlet| Mutex::new(Receiving { inlet, inbox: T::inbox() }));
        Self { topic, present, sending, receiving, fd, bell, report, _guard: guard }
    }

    /// Publishes a value: every subscriber gets a copy. Returns its number, from 0.
    ///
    /// # Errors
    /// [`PublishError`] says why nobody gets it.
    #[inline]
    pub fn publish(&self, value: &T) -> Result<u64, PublishError> {
        let mut sending = lock(self.sending()?);
        let Sending { outlet, scratch, .. } = &mut *sending;
        let bytes = value.encode(scratch)?;
        outlet.publish(bytes)
    }

    /// Publishes values one after the other, and wakes who sleeps once, at the end.
    ///
    /// # Errors
    /// How many were published, and [`PublishError`] for the one after them.
    pub fn publish_all(&self, values: &[T]) -> Result<usize, (usize, PublishError)> {
        let mut sending = lock(self.sending().map_err(|error| (0, error))?);
        let Sending { outlet, scratch, .. } = &mut *sending;
        if values.iter().all(|value| value.own_bytes().is_some()) {
            return outlet.publish_all(values.iter().filter_map(T::own_bytes));
        }
        for (count, value) in values.iter().enumerate() {
            let bytes = value.encode(scratch).map_err(|error| (count, error.into()))?;
            outlet.publish_one_of_many(bytes).map_err(|error| (count, error))?;
        }
        outlet.end_of_many().map_err(|error| (values.len(), error))?;
        Ok(values.len())
    }

    /// Sends what waits for company on a road over the network; in shared memory nothing ever does.
    ///
    /// # Errors
    /// [`PublishError`] when the road takes nothing any more.
    pub fn flush(&self) -> Result<(), PublishError> {
        lock(self.sending()?).outlet.flush()
    }

    pub(crate) fn sending(&self) -> Result<&Mutex<Sending<T>>, PublishError> {
        self.sending.as_ref().ok_or(PublishError::NoPublisher)
    }

    pub(crate) const fn receiving(&self) -> Option<&Mutex<Receiving<T>>> {
        self.receiving.as_ref()
    }

    /// Which road was taken, and why.
    pub const fn transport(&self) -> &TransportReport {
        &self.report
    }

    /// The road that is used now: that of the report, unless the hub went to another, as it may behind
    /// `hub://`.
    pub fn road(&self) -> Transport {
        self.present.road().unwrap_or(self.report.transport)
    }

    /// The oldest change of the road that was not told yet; the last 64 are kept. `None` where there is
    /// none, as on every road that was asked for.
    pub fn take_road_change(&self) -> Option<RoadChange> {
        self.present.take_change()
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Subscribers that hear this hub now.
    pub fn subscribers(&self) -> usize {
        self.present.subscribers()
    }

    /// Publishers that this hub hears now, and those that are gone but not heard out.
    pub fn publishers(&self) -> usize {
        self.present.publishers()
    }

    /// What was done so far. Waits for a thread that is just receiving.
    pub fn stats(&self) -> HubStats {
        let sent = self.sending.as_ref();
        let sent = sent.map_or_else(OutStats::default, |side| lock(side).outlet.stats());
        let got = self.receiving.as_ref();
        let got = got.map_or_else(InStats::default, |side| lock(side).inlet.stats());
        HubStats {
            published: sent.published,
            dropped: sent.dropped,
            received: got.taken,
            lost: got.lost,
            corrupt: got.corrupt,
            naps: got.naps,
            forgotten: self.present.forgotten(),
            ended: self.present.ended(),
            declined: self.present.declined().0,
        }
    }

    /// Whom this hub refused last on a road over a network, or who refused it, and why: another type, another
    /// reliability, compression that one cannot undo, on UDP a topic that is sealed at one end alone or with
    /// another key. Who was built before the other end was there learns it here.
    pub fn declined(&self) -> Option<Declined> {
        self.present.declined().1
    }

    /// What became of the settings of sockets, batches and threads that were asked for, or are usual, and
    /// whether each helped so far; none in shared memory, which has none of them. It asks the system, so it
    /// is nothing for each message.
    pub fn settings(&self) -> Vec<SettingReport> {
        self.present.settings()
    }

    /// What compression did; `None` on a road that has none.
    pub fn compression(&self) -> Option<CompressionStats> {
        self.present.compression()
    }

    /// Makes sure that the hub's descriptor becomes readable with the next message, for an epoll of
    /// one's own; false when there may be a message already, or nothing is received here.
    pub fn arm(&self) -> bool {
        self.receiving.as_ref().is_some_and(|side| lock(side).inlet.arm())
    }

    /// What becomes readable with the next message after [`arm`](Self::arm), or after
    /// [`recv_nonblocking`](Self::recv_nonblocking) found none; on UDP with any datagram, also one that
    /// brings no message. It is readable once at first. Nothing is read from it or written to it. `None` where nothing is received.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Waits until so many subscribers hear this hub; false when there are fewer at the end.
    pub fn wait_for_subscribers(&self, count: usize, timeout: Duration) -> bool {
        self.present.wait_for_subscribers(count, timeout)
    }
}

impl<T: Payload> fmt::Debug for Hub<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Hub");
        shown.field("topic", &self.topic).field("transport", &self.report.transport);
        shown.finish_non_exhaustive()
    }
}
