//! One link: what goes to another hub and what comes from it.
//!
//! //= hub 8.5

use std::collections::VecDeque;
use std::net::SocketAddr;

use twinspan_core::number::widen;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_reliable::{AckTracker, Channel, Delivery, InFrame, Receiver, Sender, StreamId};
use twinspan_session::link::{LinkKeys, OVERHEAD_BYTES};

use crate::chunk::{Assembly, Chunk, next_record, number_of};
use crate::config::{CHUNKS_UNACKNOWLEDGED_MAX, NodeConfig};
use crate::greet::Greeting;
use crate::inbox::Inbox;
use crate::wire::{Body, Data, DataWriter, EndReason, Frame, Packet, end_to_seal, next_frame};

/// Chunks of messages travel here on a reliable topic.
const CHUNKS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
/// Credit travels here.
const CREDIT: Channel = Channel::new(Delivery::Ordered, StreamId::CONTROL);

/// Room that an ack leaves for the start.
const START_BYTES: usize = 8;

/// Less room than this in a datagram is not asked for another frame: hardly any is so short, and asking
/// costs as much as for one that is there.
const FRAME_ROOM_MIN: usize = 32;

/// Half intervals between signs of life for which a sealed link that is said to be forgotten waits for
/// one: three of them must be lost, and half an interval is for how long the last may take.
const DOUBT_HALF_INTERVALS: u32 = 7;

/// What one link did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkStats {
    /// Chunks that came late or twice.
    pub(crate) stale: u64,
    /// Pieces of messages longer than this side takes.
    pub(crate) too_long: u64,
}

/// What came of chunks.
#[derive(Debug)]
pub(crate) struct Incoming {
    publisher: u64,
    /// Whether its messages begin with a byte that says how they are packed.
    is_packed: bool,
    /// The number of the next message; `None` until the other end said where it starts.
    expected: Option<u64>,
    assembly: Assembly,
    message_bytes_max: usize,
    stats: LinkStats,
}

/// The reliability engine of a link.
#[derive(Debug)]
struct Engine {
    sender: Sender,
    receiver: Receiver,
    tracker: AckTracker,
}

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    /// What the other end puts into its datagrams.
    pub(crate) token_in: u64,
    /// What we put into ours.
    pub(crate) token_out: u64,
    pub(crate) peer: Greeting,
    /// Whether our messages go there.
    pub(crate) is_heard: bool,
    /// Messages from this number on go there.
    pub(crate) from: u64,
    /// The number of the next chunk that is for this link alone.
    piped: u64,
    /// Where what goes there starts, history included.
    start: u64,
    peer_knows_start: bool,
    next_packet: u64,
    largest_in: u64,
    heard_at: Timestamp,
    said_at: Timestamp,
    /// When the number of the last message is to be said once more.
    tail_at: Timestamp,
    /// Chunks of history, that go before all others.
    pub(crate) backlog: VecDeque<Vec<u8>>,
    /// Which of the chunks of all links is next; for best effort.
    pub(crate) cursor: usize,
    incoming: Incoming,
    /// What was expected when the other end said that it goes, and up to where it had published.
    ended_at: Option<u64>,
    engine: Option<Box<Engine>>,
    keys: Option<Box<LinkKeys>>,
    /// The keys may seal no more.
    is_worn: bool,
    /// When somebody said that the other end forgot the link; nothing came since.
    doubted_at: Timestamp,
    keepalive_interval: core::time::Duration,
    silence_max: core::time::Duration,
    tail_interval: core::time::Duration,
}

/// Who is at the other end, and what its datagrams are sealed with.
pub(crate) struct Proved {
    pub(crate) peer: Greeting,
    pub(crate) keys: Option<Box<LinkKeys>>,
}

/// What a link is made of.
pub(crate) struct LinkParts {
    pub(crate) address: SocketAddr,
    pub(crate) token_in: u64,
    pub(crate) token_out: u64,
    pub(crate) proved: Proved,
    /// The number of the next message.
    pub(crate) next: u64,
    /// Chunks of messages before it, and the number of the first.
    pub(crate) backlog: VecDeque<Vec<u8>>,
    pub(crate) start: u64,
}

impl Link {
    pub(crate) fn new(config: &NodeConfig, parts: LinkParts, now: Timestamp) -> Self {
        let LinkParts { address, token_in, token_out, proved, next, backlog, start } = parts;
        let Proved { peer, keys } = proved;
        let engine = config.greeting.reliable.then(|| {
            // The spread of resends need not be secret.
            let jitter = Stream::new(token_out, "hub link", token_in);
            Box::new(Engine::new(config, jitter))
        });
        let is_packed = peer.is_packed();
        let message_bytes_max = config.greeting.longest(is_packed);
        let incoming = Incoming::new((peer.publisher(), is_packed), message_bytes_max);
        Self {
            address,
            token_in,
            token_out,
            is_heard: peer.receives && config.greeting.publishes,
            peer,
            from: next,
            piped: next,
            start,
            peer_knows_start: false,
            next_packet: keys.as_ref().map_or(0, |keys| keys.next_number()),
            largest_in: 0,
            heard_at: now,
            // Never yet: what the first datagram says is waited for.
            said_at: Timestamp::NEVER,
            tail_at: Timestamp::NEVER,
            backlog,
            cursor: 0,
            incoming,
            ended_at: None,
            engine,
            keys,
            is_worn: false,
            doubted_at: Timestamp::NEVER,
            keepalive_interval: config.keepalive_interval,
            silence_max: config.silence_max,
            tail_interval: config.tail_interval,
        }
    }

    pub(crate) const fn is_sealed(&self) -> bool {
        self.keys.is_some()
    }

    /// Opens a datagram in place: its number and its text.
    pub(crate) fn open<'a>(
        &mut self,
        now: Timestamp,
        packet: &'a mut [u8],
    ) -> Option<(u64, &'a [u8])> {
        self.keys.as_mut()?.open(now, packet).ok()
    }

    /// Somebody says that the other end forgot the link.
    pub(crate) fn doubt(&mut self, now: Timestamp) {
        self.doubted_at = self.doubted_at.min(now);
    }

    /// The last words, sealed where the link is; `None` where its keys may seal no more.
    pub(crate) fn goodbye(
        &mut self,
        now: Timestamp,
        reason: EndReason,
        next: u64,
    ) -> Option<Vec<u8>> {
        let Some(keys) = &mut self.keys else {
            let mut bytes = Vec::new();
            Packet::End { token: self.token_out, reason, next }.write(&mut bytes);
            return Some(bytes);
        };
        let mut bytes = end_to_seal(self.token_out, reason, next);
        keys.seal(now, &mut bytes)?;
        Some(bytes)
    }

    /// A sealed datagram with any text.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn seal_text(&mut self, now: Timestamp, text: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 16 + OVERHEAD_BYTES];
        DataWriter::begin_sealed(&mut bytes, self.token_out)?.finish();
        bytes.truncate(14);
        bytes.extend_from_slice(text);
        bytes.extend_from_slice(&[0; OVERHEAD_BYTES]);
        let keys = self.keys.as_mut()?;
        keys.seal(now, &mut bytes)?;
        self.next_packet = keys.next_number();
        Some(bytes)
    }

    /// Begins a datagram.
    fn begin<'a>(&self, out: &'a mut [u8]) -> Option<DataWriter<'a>> {
        match &self.keys {
            None => DataWriter::begin(out, self.token_out, self.next_packet),
            Some(_) => DataWriter::begin_sealed(out, self.token_out),
        }
    }

    /// Ends a datagram of so many bytes: its length; `None` where it must not leave.
    fn close(&mut self, now: Timestamp, out: &mut [u8], bytes: usize) -> Option<usize> {
        let Some(keys) = &mut self.keys else {
            self.next_packet += 1;
            return Some(bytes);
        };
        let end = bytes + OVERHEAD_BYTES;
        let sealed = out.get_mut(..end).and_then(|packet| keys.seal(now, packet));
        self.is_worn |= sealed.is_none();
        self.next_packet = keys.next_number();
        sealed.map(|_| end)
    }

    pub(crate) const fn stats(&self) -> LinkStats {
        self.incoming.stats
    }

    /// The number that stands for the other end, and the one of its next message.
    pub(crate) const fn expects(&self) -> Option<(u64, u64)> {
        match self.incoming.expected {
            Some(expected) => Some((self.incoming.publisher, expected)),
            None => None,
        }
    }

    /// The number of the next message when the last datagram with one had come.
    pub(crate) const fn ended_at(&self) -> Option<u64> {
        match self.ended_at {
            Some(ended_at) => Some(ended_at),
            None => self.incoming.expected,
        }
    }

    /// Reliable chunks that wait or are in flight.
    pub(crate) fn unacknowledged(&self) -> usize {
        let waiting = self.engine.as_ref().map_or(0, |engine| engine.sender.unacknowledged());
        waiting + self.backlog.len()
    }

    /// Whether one more reliable chunk finds room.
    pub(crate) fn has_room(&self) -> bool {
        self.backlog.is_empty() && self.unacknowledged() < CHUNKS_UNACKNOWLEDGED_MAX
    }

    /// The number of the next chunk that is for this link alone.
    pub(crate) const fn next_piped(&mut self) -> u64 {
        let number = self.piped;
        self.piped += 1;
        number
    }

    /// Queues a copy of a reliable chunk, for which there is room.
    pub(crate) fn queue(&mut self, now: Timestamp, chunk: &[u8]) {
        if number_of(chunk) < self.from {
            return;
        }
        if let Some(engine) = &mut self.engine {
            // Where the engine is dead the link ends with its next timeout.
            let _ = engine.sender.send(now, CHUNKS, chunk);
        }
    }

    /// Queues a reliable chunk itself, for which there is room; its memory where it is not kept.
    pub(crate) fn queue_given(&mut self, now: Timestamp, chunk: Vec<u8>) -> Option<Vec<u8>> {
        if number_of(&chunk) < self.from {
            return Some(chunk);
        }
        let Some(engine) = &mut self.engine else { return Some(chunk) };
        // Where the engine is dead the link ends with its next timeout.
        engine.sender.send_given(now, CHUNKS, chunk).err().map(|(_, chunk)| chunk)
    }

    /// The memory of a chunk that the other end has.
    pub(crate) fn take_back(&mut self) -> Option<Vec<u8>> {
        self.engine.as_mut()?.sender.take_back()
    }

    /// Moves history into the engine.
    pub(crate) fn queue_backlog(&mut self, now: Timestamp) {
        let Some(engine) = &mut self.engine else { return };
        while engine.sender.unacknowledged() < CHUNKS_UNACKNOWLEDGED_MAX
            && let Some(chunk) = self.backlog.pop_front()
        {
            let _ = engine.sender.send(now, CHUNKS, &chunk);
        }
    }

    /// Writes the next datagram; `None` when there is none. `chunks` are those of all links, `next`
    /// the number of the next message, and `credits` whether the inbox takes more.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Timestamp,
        chunks: &VecDeque<Vec<u8>>,
        next: u64,
        credits: bool,
        out: &mut [u8],
    ) -> Option<usize> {
        if self.engine.is_some() {
            return self.transmit_reliable(now, credits, out);
        }
        while chunks.get(self.cursor).is_some_and(|chunk| number_of(chunk) < self.from) {
            self.cursor += 1;
        }
        let chunk = if !self.is_heard {
            None
        } else if let Some(chunk) = self.backlog.front() {
            Some(chunk.as_slice())
        } else {
            chunks.get(self.cursor).map(Vec::as_slice)
        };
        if chunk.is_none() && !self.must_speak(now) {
            return None;
        }
        let mut writer = self.begin(out)?;
        if !self.peer_knows_start {
            writer.start(self.start);
        }
        if self.incoming.expected.is_some() {
            writer.knows_start();
        }
        match chunk {
            Some(chunk) => {
                writer.chunk(chunk);
                if self.backlog.pop_front().is_none() {
                    self.cursor += 1;
                }
                self.tail_at = now.after(self.tail_interval);
            }
            None => {
                writer.next(next.max(self.start));
                self.tail_at = Timestamp::NEVER;
            }
        }
        self.said_at = now;
        let bytes = writer.finish();
        self.close(now, out, bytes)
    }

    /// Whether a sign of life is due, or the number behind the last message.
    fn must_speak(&self, now: Timestamp) -> bool {
        now >= self.speak_at()
    }

    fn speak_at(&self) -> Timestamp {
        let regular = if self.said_at == Timestamp::NEVER {
            Timestamp::START
        } else {
            self.said_at.after(self.keepalive_interval)
        };
        regular.min(self.tail_at)
    }

    fn transmit_reliable(
        &mut self,
        now: Timestamp,
        credits: bool,
        out: &mut [u8],
    ) -> Option<usize> {
        let must_speak = self.must_speak(now);
        let whole = out.len() as u64;
        let engine = self.engine.as_mut()?;
        if credits && let Some(credit) = engine.receiver.poll_credit() {
            let _ = engine.sender.send(now, CREDIT, &credit.to_le_bytes());
        }
        let ack_due = engine.tracker.ack_due();
        let is_due = ack_due.is_some_and(|due| due <= now);
        if !is_due && !must_speak && !engine.sender.wants_to_send(now) {
            return None;
        }
        let number = self.next_packet;
        let mut writer = match &self.keys {
            None => DataWriter::begin(out, self.token_out, number),
            Some(_) => DataWriter::begin_sealed(out, self.token_out),
        }?;
        let mut says = must_speak;
        // What waits for an ack gets it with whatever leaves.
        let ack = ack_due.and_then(|_| engine.tracker.build(now));
        if let Some(ack) = ack
            && writer.ack(&ack, START_BYTES)
        {
            says = true;
            engine.tracker.on_ack_sent(now);
        }
        if !self.peer_knows_start {
            writer.start(self.start);
        }
        if self.incoming.expected.is_some() {
            writer.knows_start();
        }
        let mut has_frames = false;
        while writer.room() >= FRAME_ROOM_MIN
            && let Some(frame) = engine.sender.poll_frame(now, writer.room())
        {
            let channel = frame.channel.to_byte();
            let number = frame.number.unwrap_or(0) as u16;
            has_frames |= writer.frame(Frame { channel, number, body: frame.body });
        }
        if !says && !has_frames {
            return None;
        }
        // Behind what fills the window nothing leaves before an ack comes: it is waited for.
        let is_full = engine.sender.send_window() < 2 * whole;
        if has_frames && (engine.sender.take_ask(now) || is_full) {
            writer.asks();
        }
        let bytes = writer.finish();
        engine.sender.on_sent(now, number, 0, bytes, false);
        self.said_at = now;
        self.close(now, out, bytes)
    }

    /// Takes in data that has the right token.
    ///
    /// # Errors
    /// The other end breaks the protocol.
    pub(crate) fn handle_data(
        &mut self,
        now: Timestamp,
        data: &Data<'_>,
        departed: &mut VecDeque<(u64, u64)>,
        inbox: &mut Inbox,
    ) -> Result<(), EndReason> {
        self.heard_at = now;
        self.doubted_at = Timestamp::NEVER;
        self.peer_knows_start |= data.knows_start;
        let number = widen(u64::from(data.number), 32, self.largest_in);
        self.largest_in = self.largest_in.max(number);
        if let (Some(start), None) = (data.start, self.incoming.expected) {
            self.incoming.begin(start, departed, inbox)?;
        }
        if let Some(engine) = &mut self.engine {
            if let Some(ack) = data.ack {
                let next = self.next_packet;
                let largest = widen(ack.largest, 32, next);
                let ack = twinspan_reliable::Ack { largest, ..ack };
                let taken = engine.sender.handle_ack(now, &ack, &mut |_, _| {});
                taken.map_err(|_| EndReason::Violation)?;
            }
            // Frames before the start are not taken, so they are not acknowledged.
            let (Body::Frames(frames), Some(_)) = (data.body, self.incoming.expected) else {
                return Ok(());
            };
            engine.handle_frames(now, frames, &mut self.incoming, inbox)?;
            engine.note(now, number, data.asks);
            return Ok(());
        }
        if let Body::Chunk(chunk) = data.body {
            self.incoming.handle_chunk(chunk, inbox)?;
        }
        if let Some(next) = data.next {
            self.incoming.handle_next(next, inbox);
        }
        Ok(())
    }

    /// The other end has gone, and says the number behind its last message.
    pub(crate) fn handle_end(&mut self, next: u64, inbox: &mut Inbox) {
        self.ended_at = self.incoming.expected;
        self.incoming.handle_next(next, inbox);
    }

    /// Looks at what is overdue.
    ///
    /// # Errors
    /// The link is over.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Result<(), EndReason> {
        if let Some(engine) = &mut self.engine {
            if engine.sender.poll_timeout().is_some_and(|at| at <= now) {
                engine.sender.handle_timeout(now);
            }
            if engine.sender.is_dead() {
                return Err(EndReason::Silent);
            }
        }
        if let Some(keys) = &mut self.keys {
            keys.handle_timeout(now);
        }
        if now >= self.doubted_until() {
            return Err(EndReason::Forgotten);
        }
        let is_silent = self.is_worn || now >= self.heard_at.after(self.silence_max);
        if is_silent { Err(EndReason::Silent) } else { Ok(()) }
    }

    /// When a link that is said to be forgotten is.
    fn doubted_until(&self) -> Timestamp {
        if self.doubted_at == Timestamp::NEVER {
            return Timestamp::NEVER;
        }
        self.doubted_at.after(self.keepalive_interval * DOUBT_HALF_INTERVALS / 2)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, or a datagram may be due.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        if self.is_worn {
            return Timestamp::START;
        }
        let mut at = self.heard_at.after(self.silence_max).min(self.speak_at());
        at = at.min(self.doubted_until());
        if let Some(keys) = &self.keys {
            at = at.min(keys.poll_timeout());
        }
        if let Some(engine) = &self.engine {
            let due = engine.sender.poll_timeout().unwrap_or(Timestamp::NEVER);
            let ack = engine.tracker.ack_due().unwrap_or(Timestamp::NEVER);
            at = at.min(due).min(ack);
        }
        at
    }
}

impl Engine {
    fn new(config: &NodeConfig, jitter: Stream) -> Self {
        let engine = config.engine();
        Self {
            sender: Sender::new(&engine, jitter),
            receiver: Receiver::new(&engine),
            tracker: AckTracker::new(&engine),
        }
    }

    /// A packet that was taken in is to be acknowledged: at once where it asks for that, or where
    /// others are missing, of which the other end learns no sooner.
    fn note(&mut self, now: Timestamp, number: u64, asks: bool) {
        let in_turn = self.tracker.largest().is_none_or(|largest| number == largest + 1);
        self.tracker.on_packet(now, number, true, asks || !in_turn);
    }

    fn handle_frames(
        &mut self,
        now: Timestamp,
        mut frames: &[u8],
        incoming: &mut Incoming,
        inbox: &mut Inbox,
    ) -> Result<(), EndReason> {
        let Self { sender, receiver, .. } = self;
        while !frames.is_empty() {
            let (frame, rest) = next_frame(frames).map_err(|_| EndReason::Violation)?;
            frames = rest;
            let channel = Channel::from_byte(frame.channel);
            if channel != CHUNKS && channel != CREDIT {
                return Err(EndReason::Violation);
            }
            let mut outcome = Ok(());
            let frame = InFrame { channel, number: frame.number, fragment: None, body: frame.body };
            let handled = receiver.handle_frame(now, frame, &mut |channel, bytes| {
                let done = if channel == CREDIT {
                    let credit = bytes.try_into().map(u64::from_le_bytes);
                    credit.map(|credit| sender.handle_credit(credit)).map_err(|_| ())
                } else {
                    incoming.handle_chunk(bytes, inbox).map_err(|_| ())
                };
                if done.is_err() {
                    outcome = Err(EndReason::Violation);
                }
            });
            handled.map_err(|_| EndReason::Violation)?;
            outcome?;
        }
        Ok(())
    }
}

impl Incoming {
    /// Messages of a publisher, packed ones if the second of the pair says so.
    pub(crate) fn new((publisher, is_packed): (u64, bool), message_bytes_max: usize) -> Self {
        Self {
            publisher,
            is_packed,
            expected: None,
            assembly: Assembly::default(),
            message_bytes_max,
            stats: LinkStats::default(),
        }
    }

    /// The number of the next message, where anything is known.
    pub(crate) const fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// The other end says where its messages start.
    pub(crate) fn begin(
        &mut self,
        start: u64,
        departed: &mut VecDeque<(u64, u64)>,
        inbox: &mut Inbox,
    ) -> Result<(), EndReason> {
        if start >= crate::chunk::NUMBER_MAX {
            return Err(EndReason::Violation);
        }
        let known = departed.iter().position(|(publisher, _)| *publisher == self.publisher);
        let heard = known.and_then(|at| departed.remove(at)).map_or(start, |(_, next)| next);
        // Who was heard before goes on where it was left: what is between is missed, and what comes
        // again is known.
        if start > heard {
            inbox.push_lost(self.publisher, start - heard);
        }
        self.expected = Some(start.max(heard));
        Ok(())
    }

    pub(crate) fn handle_chunk(
        &mut self,
        chunk: &[u8],
        inbox: &mut Inbox,
    ) -> Result<(), EndReason> {
        let Some(expected) = self.expected else { return Ok(()) };
        match Chunk::parse(chunk).map_err(|_| EndReason::Violation)? {
            Chunk::Messages { first, count, .. } if first + count <= expected => {
                self.stats.stale += 1;
            }
            Chunk::Messages { first, count, mut records } => {
                self.assembly.drop_it();
                // History begins with what was heard before, perhaps, and what is behind that is new.
                for _ in first..expected {
                    (_, records) = next_record(records).unwrap_or_default();
                }
                let (begin, end) = (first.max(expected), first + count);
                let of = (self.publisher, self.is_packed);
                inbox.push_records(of, begin - expected, (begin, end - begin), records);
                self.expected = Some(end);
            }
            Chunk::Piece(piece) => {
                let number = piece.number;
                let is_late = self.assembly.number().is_some_and(|other| other > number);
                if number < expected || is_late {
                    self.stats.stale += 1;
                    return Ok(());
                }
                if piece.total > self.message_bytes_max {
                    // It is missed, as the next message tells.
                    self.stats.too_long += 1;
                    return Ok(());
                }
                if !self.assembly.takes(&piece) {
                    if self.assembly.number() == Some(number) {
                        return Err(EndReason::Violation);
                    }
                    self.assembly.begin(&piece, || inbox.spare(piece.total));
                }
                if let Some(bytes) = self.assembly.add(&piece) {
                    let of = (self.publisher, self.is_packed);
                    inbox.push_assembled(of, number, number - expected, bytes);
                    self.expected = Some(number + 1);
                }
            }
        }
        Ok(())
    }

    /// All messages below `next` were sent.
    pub(crate) fn handle_next(&mut self, next: u64, inbox: &mut Inbox) {
        if let Some(expected) = self.expected
            && next > expected
            && next < crate::chunk::NUMBER_MAX
        {
            self.assembly.drop_it();
            inbox.push_lost(self.publisher, next - expected);
            self.expected = Some(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Packer;
    use crate::inbox::{InboxLimits, Overflow};

    #[test]
    fn what_history_says_again_is_left_out_and_what_is_behind_it_is_taken() {
        let mut packer = Packer::default();
        for number in 5..9_u8 {
            assert!(packer.push(number.into(), &[number], 1_000));
        }
        let chunk = packer.seal(Vec::new()).unwrap();
        let limits = InboxLimits { messages_max: 9, bytes_max: 99, overflow: Overflow::Keep };
        for (heard, numbers, lost) in
            [(5, vec![5, 6, 7, 8], 0), (7, vec![7, 8], 0), (9, vec![], 0), (2, vec![5, 6, 7, 8], 3)]
        {
            let (mut inbox, mut incoming) = (Inbox::new(limits), Incoming::new((1, false), 1_000));
            incoming.begin(heard, &mut VecDeque::new(), &mut inbox).unwrap();
            incoming.handle_chunk(&chunk, &mut inbox).unwrap();
            let mut taken = Vec::new();
            let mut bytes = Vec::new();
            while let Some(it) = inbox.take(&mut bytes) {
                assert_eq!(bytes, [it.number as u8], "its own bytes");
                taken.push(it.number);
            }
            assert_eq!((taken, inbox.stats().lost), (numbers, lost));
            assert_eq!(incoming.expected(), Some(9));
            // What comes once more is known.
            incoming.handle_chunk(&chunk, &mut inbox).unwrap();
            assert!(inbox.is_empty() && incoming.stats.stale >= 1);
        }
    }
}
