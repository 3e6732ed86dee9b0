//! The machine, the socket and the inbox of a UDP road, moved on by whichever thread has them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_net::{ReactorEnv, TrainSocket};
use twinspan_topic::{Ended, Event, Inbox, Node, Refusal, Room, Taken, copy_to};

use super::packing::Packing;
use super::wire::Wire;
use crate::compress::CompressionStats;
use crate::ends::{Ends, PairEnd};
use crate::error::PublishError;
use crate::mailbox::Wakers;
use crate::road::More;
use crate::seal::Declined;

/// A message that comes so soon behind the one before belongs to a burst, and waits for company.
const BURST_GAP: Duration = Duration::from_micros(2);

/// Messages of a burst between two looks at the clock, which takes as long as one of them. What they
/// wait longer for it is for the road's own thread to end.
const MESSAGES_PER_CLOCK: u32 = 16;

/// Datagrams of a reliable topic that are taken in before acks leave: what they bring is still in the
/// caches when it is taken.
const PART_DATAGRAMS: usize = 64;

/// Reliable chunks without an ack from which on who publishes looks for acks before each train: two
/// trains. Fewer stay in flight so than the window lets, and what comes back of them is still in the
/// caches when it is written again.
const UNACKNOWLEDGED_MANY: usize = 128;
/// Reliable chunks whose acks may wait in the socket for a while: they leave again one by one at most.
const UNACKNOWLEDGED_CALM: usize = 8;

/// The time of machines.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_nanos(ReactorEnv::clock_ns())
}

/// What refused the road, at the first meeting.
#[derive(Debug)]
pub(crate) enum Met {
    Joined,
    Refused(Option<twinspan_topic::Disagreement>),
}

/// What is left to do behind a message, the most urgent of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Left {
    Nothing,
    /// To take in acks, which may let more go.
    Acks,
    /// To send what waits for company.
    Queued,
}

impl Left {
    /// What was kept as a number.
    pub(super) const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Nothing,
            1 => Self::Acks,
            _ => Self::Queued,
        }
    }
}

/// A UDP road, on a socket of this machine unless it is simulated.
pub(crate) struct Core<W = TrainSocket> {
    pub(crate) node: Node,
    pub(crate) inbox: Inbox,
    pub(crate) socket: W,
    pub(crate) wakers: Wakers,
    pub(crate) is_reliable: bool,
    /// The number that stands for this hub, where it hears itself.
    pub(crate) echo: Option<u64>,
    pub(crate) batch_size: usize,
    pub(crate) flush_interval: Duration,
    /// Since when messages wait for company.
    pub(crate) queued_at: Option<Timestamp>,
    /// When the last message had been published, as far as the clock was looked at.
    left_at: Timestamp,
    /// Messages since then.
    unclocked: u32,
    /// Whether the first of the messages that wait came alone.
    began_alone: bool,
    /// Drops a share of what comes.
    loss: Option<(f64, Stream)>,
    /// What packs messages and undoes that; a group has none.
    packing: Option<Packing>,
    /// What made the socket useless.
    pub(crate) broken: Option<io::Error>,
    pub(crate) published: u64,
    /// Whether publishing looked at the socket since this was asked last.
    has_looked: bool,
    /// Addresses whose first answer is waited for while the hub is built, and what it was. Who is given
    /// bounds them.
    pub(crate) awaited: Vec<(SocketAddr, Option<Met>)>,
    /// Who was refused last, or refused this hub.
    pub(crate) declined: Option<Declined>,
    /// Links that ended, for scenarios.
    pub(crate) ends: Ends,
}

/// What a road is made of.
pub(crate) struct CoreParts<W = TrainSocket> {
    pub(crate) node: Node,
    pub(crate) inbox: Inbox,
    pub(crate) socket: W,
    pub(crate) is_reliable: bool,
    pub(crate) echo: Option<u64>,
    pub(crate) batch_size: usize,
    pub(crate) flush_interval: Duration,
    pub(crate) loss: Option<(f64, Stream)>,
    pub(crate) packing: Option<Packing>,
}

impl<W: Wire> Core<W> {
    pub(crate) fn new(parts: CoreParts<W>) -> Self {
        let CoreParts { node, inbox, socket, is_reliable, echo, .. } = parts;
        let CoreParts { batch_size, flush_interval, loss, packing, .. } = parts;
        Self {
            node,
            inbox,
            socket,
            wakers: Wakers::default(),
            is_reliable,
            echo,
            batch_size,
            flush_interval,
            queued_at: None,
            left_at: Timestamp::START,
            unclocked: 0,
            began_alone: false,
            loss,
            packing,
            broken: None,
            published: 0,
            has_looked: false,
            awaited: Vec::new(),
            declined: None,
            ends: Ends::default(),
        }
    }

    /// Publishes a message if there is room, and sends what is due.
    pub(crate) fn publish(&mut self, bytes: &[u8], more: More) -> Result<u64, Refusal> {
        let (number, length) = match &mut self.packing {
            Some(packing) if packing.is_on() => {
                packing.check(bytes)?;
                // A message that has to wait for room is packed when there is some.
                if !self.node.has_room() {
                    return Err(Refusal::Full);
                }
                let framed = packing.frame(bytes);
                (self.node.publish(framed)?, framed.len())
            }
            _ => (self.node.publish(bytes)?, bytes.len()),
        };
        self.published += 1;
        if let Some(publisher) = self.echo {
            self.inbox.push_message(publisher, number, 0, bytes);
        }
        let is_batch = self.node.chunks_waiting() >= self.batch_size;
        // What is cut shares no datagram with what follows.
        let is_cut = self.node.is_cut(length);
        if !is_batch && !is_cut && self.queued_at.is_some() && self.unclocked < MESSAGES_PER_CLOCK {
            self.unclocked += 1;
            return Ok(number);
        }
        let now = self.socket.now();
        let begins = self.queued_at.is_none();
        if begins {
            self.began_alone = now.since(self.left_at) >= BURST_GAP;
        }
        let since = *self.queued_at.get_or_insert(now);
        let is_alone = more == More::Unknown && begins && self.began_alone;
        if is_alone || is_cut || now.since(since) >= self.flush_interval {
            self.take_acks(now);
            self.flush(now);
            // A clock read beside a system call: what sending took must not look like a pause.
            self.saw(self.socket.now());
        } else if is_batch {
            self.take_acks(now);
            self.transmit(now);
            self.queued_at = self.node.is_open().then_some(now);
            self.saw(self.socket.now());
        } else {
            self.saw(now);
        }
        Ok(number)
    }

    /// Takes in what came while many reliable chunks were on their way: who publishes and never receives
    /// would find acks when the window is full alone. A part at a time: whoever floods the socket does not
    /// keep a publisher from going on.
    fn take_acks(&mut self, now: Timestamp) {
        if self.is_reliable && self.node.unacknowledged() > UNACKNOWLEDGED_MANY {
            self.has_looked = true;
            if self.receive(now, false) {
                self.look_at_events();
            }
        }
    }

    /// Whether publishing looked at the socket since this was asked last.
    pub(crate) const fn take_looked(&mut self) -> bool {
        std::mem::replace(&mut self.has_looked, false)
    }

    /// The clock was looked at, with the last message.
    const fn saw(&mut self, now: Timestamp) {
        self.left_at = now;
        self.unclocked = 0;
    }

    /// The last of many messages was published: they leave now, unless they belong to a burst of such,
    /// which gathers until a batch is full.
    pub(crate) fn end_of_many(&mut self) {
        if self.queued_at.is_none() {
            return;
        }
        let now = self.socket.now();
        if self.began_alone {
            self.flush(now);
            self.saw(self.socket.now());
        } else {
            self.saw(now);
        }
    }

    /// Sends all that waits for company.
    pub(crate) fn flush(&mut self, now: Timestamp) {
        self.node.flush();
        self.queued_at = None;
        self.transmit(now);
    }

    /// Sends what the machine has to say.
    pub(crate) fn transmit(&mut self, now: Timestamp) {
        let credits = !self.inbox.is_full();
        let mut length = 0;
        loop {
            if self.socket.is_full() && !self.send() {
                return;
            }
            let room = self.socket.room();
            let Some(sent) = self.node.poll_transmit_to(now, room, credits) else { break };
            self.socket.push(sent.to, sent.bytes);
            // A shorter one than before ends a train, as the last of a long message does: from half a
            // batch on it leaves with that, so that the next message is not torn by the end of a batch.
            let ends_train = sent.bytes < std::mem::replace(&mut length, sent.bytes);
            if ends_train && 2 * self.socket.waiting() >= self.batch_size && !self.send() {
                return;
            }
        }
        self.send();
    }

    /// Whether all that was written has left.
    fn send(&mut self) -> bool {
        if self.socket.waiting() == 0 {
            return true;
        }
        match self.socket.send() {
            Ok(all) => all,
            Err(error) => {
                self.broken.get_or_insert(error);
                false
            }
        }
    }

    /// Sends and looks at what is due, and takes in what came: all of it, or until a message is
    /// there. Says whether anything came.
    pub(crate) fn drive(&mut self, takes_all: bool) -> bool {
        let now = self.socket.now();
        if self.queued_at.is_some() {
            self.node.flush();
            self.queued_at = None;
            self.transmit(now);
        }
        let is_due = self.node.poll_timeout() <= now;
        if is_due {
            self.node.handle_timeout(now);
        }
        let came = self.receive(now, takes_all);
        if came || is_due || self.socket.waiting() > 0 {
            self.transmit(now);
            self.look_at_events();
        }
        came
    }

    /// Takes the oldest message, and looks for one where none is here.
    #[inline]
    pub(crate) fn take(&mut self, room: &mut (impl Room + ?Sized)) -> Option<Taken> {
        if self.inbox.is_empty() {
            self.drive(false);
        }
        let was_full = self.inbox.is_full();
        let packing = &mut self.packing;
        let found = self.inbox.take_by(|message, is_packed| match packing {
            _ if !is_packed => copy_to(message, room),
            Some(packing) => packing.take(message, room),
            None => None,
        });
        if was_full && self.is_reliable && !self.inbox.is_full() {
            // Those who were held back may go on.
            let now = self.socket.now();
            self.transmit(now);
        }
        found
    }

    /// Whether somebody may not have got all that was published, and may still get it.
    pub(crate) fn is_owed(&self) -> bool {
        self.is_reliable && self.broken.is_none() && self.node.unacknowledged() > 0
    }

    /// Says goodbye; nothing is published or taken in after it.
    pub(crate) fn close(&mut self) {
        let now = self.socket.now();
        self.node.close(now);
        self.transmit(now);
    }

    /// Only what is due, without a look at the socket; when the next is.
    pub(crate) fn settle(&mut self) -> Timestamp {
        let now = self.socket.now();
        if self.queued_at.is_some() {
            self.flush(now);
        }
        if self.node.poll_timeout() <= now {
            self.node.handle_timeout(now);
            self.transmit(now);
            self.look_at_events();
        }
        self.node.poll_timeout()
    }

    fn receive(&mut self, now: Timestamp, takes_all: bool) -> bool {
        // What is not acknowledged waits where it is until it is asked for; credit bounds what is.
        let takes_more = takes_all || self.is_reliable;
        let mut left = if takes_all { usize::MAX } else { PART_DATAGRAMS };
        let mut came = false;
        loop {
            if self.socket.is_taken() {
                match self.socket.receive() {
                    Ok(true) => {}
                    Ok(false) => return came,
                    Err(error) => {
                        self.broken.get_or_insert(error);
                        return came;
                    }
                }
            }
            came = true;
            while left > 0 && (takes_more || self.inbox.is_empty()) {
                let Some((from, bytes)) = self.socket.take_next() else { break };
                left -= 1;
                let is_dropped =
                    self.loss.as_mut().is_some_and(|(share, draws)| draws.chance(*share));
                if !is_dropped {
                    self.node.handle_datagram(now, from, bytes, &mut self.inbox);
                }
            }
            if takes_more || left == 0 || !self.inbox.is_empty() {
                return came;
            }
        }
    }

    /// Whether something that came is not taken.
    pub(super) fn has_more(&self) -> bool {
        !self.inbox.is_empty() || !self.socket.is_taken()
    }

    /// Whether the socket becomes readable with whatever comes from now on, and nothing is left that
    /// came.
    pub(super) fn may_wait(&mut self) -> bool {
        self.socket.may_wait().unwrap_or_else(|error| {
            self.broken.get_or_insert(error);
            true
        })
    }

    /// Keeps the first answer of an address.
    pub(super) fn await_answer(&mut self, address: SocketAddr) {
        if !self.awaited.iter().any(|(awaited, _)| *awaited == address) {
            self.awaited.push((address, None));
        }
    }

    /// Others come and are refused too: each answer is kept for its own address.
    fn on_answer(&mut self, address: SocketAddr, met: Met) {
        if let Some((_, place)) = self.awaited.iter_mut().find(|(awaited, _)| *awaited == address) {
            *place = Some(met);
        }
    }

    fn look_at_events(&mut self) {
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Joined { address, .. } => self.on_answer(address, Met::Joined),
                Event::Refused { address, why } => {
                    self.declined = Some(Declined { address: Some(address), why: why.clone() });
                    self.on_answer(address, Met::Refused(why));
                }
                Event::Declined { address, why } => {
                    self.declined = Some(Declined { address: Some(address), why });
                }
                Event::Ended(Ended { publisher, reason, expected, .. }) => {
                    // Nothing is published between the end and this look.
                    let published = Some(self.node.published());
                    let reason = Some(reason);
                    self.ends.note(PairEnd { peer: publisher, reason, expected, published });
                }
                _ => {}
            }
        }
    }

    /// What is left to somebody else where the thread that published does not come back.
    pub(crate) fn left(&self) -> Left {
        if self.queued_at.is_some() {
            Left::Queued
        } else if self.is_reliable && self.node.unacknowledged() > UNACKNOWLEDGED_CALM {
            Left::Acks
        } else {
            Left::Nothing
        }
    }

    /// What compression did, where there is any.
    pub(crate) fn compression(&self) -> Option<CompressionStats> {
        self.packing.as_ref().map(Packing::stats)
    }

    /// Why nothing can be published any more.
    pub(crate) fn check(&self) -> Result<(), PublishError> {
        match &self.broken {
            Some(error) => Err(PublishError::Broken(error.to_string())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
