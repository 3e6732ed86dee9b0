//! One stream between two ends that have greeted each other: what goes out, and whether it lives.
//!
//! //= hub 9.3

use std::time::Duration;

use twinspan_core::time::Timestamp;

use super::log::Log;
use super::loose::{self, TAIL_DELAY};
use super::wire::{CONTROL_BYTES_MAX, Credit, EndReason, Frame, FrameError};

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// A link that said nothing for so long says a ping.
    pub(crate) keepalive_interval: Duration,
    /// A link that heard nothing for so long is dead.
    pub(crate) silence_max: Duration,
    /// How long a publisher keeps messages for a subscriber whose stream broke.
    pub(crate) resume_timeout: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            keepalive_interval: Duration::from_secs(5),
            silence_max: Duration::from_secs(15),
            resume_timeout: Duration::from_secs(30),
        }
    }
}

/// What a link writes next: at most three pieces.
pub(crate) type Pieces<'a> = [&'a [u8]; 3];

/// One end of a stream.
#[derive(Debug)]
pub(super) struct Link {
    /// What the peer takes: `None` for one that does not receive.
    out: Option<Out>,
    /// Frames that are no messages, and how much of them left.
    control: Vec<u8>,
    control_sent: usize,
    wants_credit: bool,
    pong: Option<u64>,
    ping: Option<u64>,
    /// It ends when all is said.
    end: Option<EndReason>,
    end_said: bool,
    heard_at: Timestamp,
    spoke_at: Timestamp,
    times: Times,
    /// When what was received is told at the latest.
    pub(super) ack_at: Timestamp,
    over: Option<EndReason>,
}

/// The way of messages to the peer.
#[derive(Debug)]
struct Out {
    /// What it allowed, and what it has.
    credit: Credit,
    /// The longest message that it takes; the greatest number where it takes all.
    longest: usize,
    /// The number that the peer thinks comes next; `None` before it was told one.
    expected: Option<u64>,
    /// The message that leaves next, or is leaving.
    number: u64,
    /// Where its frame begins in the log.
    frame: u64,
    /// What left up to here.
    place: u64,
    /// Whole messages that left, and their bytes.
    messages: u64,
    bytes: u64,
    /// The rest of a message that was forgotten while it left, and how much of that left.
    remainder: Vec<u8>,
    remainder_sent: usize,
    /// Where messages go beside the stream too.
    beside: Beside,
}

/// The way beside the stream: datagrams of its connection.
#[derive(Debug)]
struct Beside {
    /// The longest body that goes there; `None` where there is no such way.
    body_max: Option<usize>,
    /// The number behind the last message that went by the stream.
    streamed: u64,
    /// The number behind the last one that did not.
    loosed: u64,
    /// When the stream says how far the others came.
    tell_at: Timestamp,
    is_told: bool,
}

impl Beside {
    const NONE: Self =
        Self { body_max: None, streamed: 0, loosed: 0, tell_at: Timestamp::NEVER, is_told: false };
}

impl Out {
    /// Whether the next message goes beside the stream. None overtakes what went by it.
    fn is_loose(&self, log: &Log) -> bool {
        let Some(body_max) = self.beside.body_max else { return false };
        self.expected.is_some()
            && !self.is_inside_frame()
            && self.credit.received >= self.beside.streamed
            && log
                .message(self.number)
                .is_some_and(|it| it.len() <= body_max && loose::fits(it.len()))
    }

    /// Whether the stream has to say which message comes next, before it goes on or ends.
    fn must_say_next(&self, log: &Log, is_ending: bool) -> bool {
        if self.expected == Some(self.number) {
            return false;
        }
        self.expected.is_none()
            || self.beside.body_max.is_none()
            || self.beside.is_told
            || is_ending
            || (self.number < log.next() && !self.is_loose(log))
    }

    /// Appends what goes beside the stream next, as far as it fits `max` bytes.
    fn loosen(&mut self, now: Timestamp, log: &Log, max: usize, chunk: &mut Vec<u8>) -> bool {
        self.beside.body_max = max.checked_sub(loose::HEAD_BYTES + loose::LENGTH_BYTES);
        let mut has_any = false;
        loop {
            self.skip_long(log);
            if !self.is_loose(log) {
                break;
            }
            let Some(message) = log.message(self.number) else { break };
            if !has_any {
                loose::write_head(self.number, chunk);
            }
            if has_any && loose::LENGTH_BYTES + message.len() > max.saturating_sub(chunk.len()) {
                break;
            }
            // What was left out for being too long is not passed over in silence.
            if self.beside.loosed != self.number && has_any {
                break;
            }
            has_any = true;
            loose::write_message(message.is_packed, message.body, chunk);
            self.number += 1;
            self.beside.loosed = self.number;
            self.frame = log.place(self.number);
            self.place = self.frame;
        }
        if has_any {
            self.beside.is_told = false;
            self.beside.tell_at = now.after(TAIL_DELAY);
        }
        has_any
    }

    fn is_inside_frame(&self) -> bool {
        self.place > self.frame || self.remainder_sent < self.remainder.len()
    }

    /// How far messages may leave now.
    fn limit(&self, log: &Log) -> u64 {
        if self.expected != Some(self.number) || self.is_loose(log) {
            // The number comes first, or it goes beside the stream.
            return self.frame;
        }
        let may_send = self.credit.messages.saturating_sub(self.messages);
        let mut below = self.number.saturating_add(may_send);
        if self.longest < usize::MAX {
            below = below.min(log.longer(self.number, self.longest));
        }
        log.limit(self.frame, below, self.credit.bytes.saturating_sub(self.bytes))
    }

    /// Leaves out messages that the peer does not take.
    fn skip_long(&mut self, log: &Log) {
        while self.longest < usize::MAX
            && !self.is_inside_frame()
            && self.number < log.next()
            && log.longer(self.number, self.longest) == self.number
        {
            self.number += 1;
            self.frame = log.place(self.number);
            self.place = self.frame;
        }
    }

    /// So many bytes of the log left.
    fn advance(&mut self, log: &Log, count: u64) {
        self.place += count;
        let (number, frame) = log.at(self.place);
        if number > self.number {
            self.messages += number - self.number;
            self.bytes += frame - self.frame;
            (self.number, self.frame) = (number, frame);
            self.expected = Some(number);
            self.beside.streamed = number;
        }
    }

    /// The oldest message of the log is about to be forgotten.
    fn forget_oldest(&mut self, log: &Log) {
        if self.number != log.first() || log.is_empty() {
            return;
        }
        let ends = log.place(self.number + 1);
        if self.place > self.frame {
            // What began must end: the peer waits for the rest of it.
            let [front, back] = log.bytes(self.place, ends);
            self.remainder.clear();
            self.remainder_sent = 0;
            self.remainder.extend_from_slice(front);
            self.remainder.extend_from_slice(back);
            self.messages += 1;
            self.bytes += ends - self.frame;
            self.expected = Some(self.number + 1);
            self.beside.streamed = self.number + 1;
        }
        self.number += 1;
        (self.frame, self.place) = (ends, ends);
    }
}

/// Where a link's messages begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub(super) credit: Credit,
    pub(super) longest: usize,
    pub(super) expected: Option<u64>,
    pub(super) number: u64,
}

impl Link {
    /// A link whose peer takes messages as `begin` says, or none.
    pub(super) fn new(now: Timestamp, begin: Option<Begin>, log: &Log, times: Times) -> Self {
        let out = begin.map(|Begin { credit, longest, expected, number }| {
            let frame = log.place(number);
            Out {
                credit,
                longest,
                expected,
                number,
                frame,
                place: frame,
                messages: 0,
                bytes: 0,
                remainder: Vec::new(),
                remainder_sent: 0,
                beside: Beside::NONE,
            }
        });
        Self {
            out,
            control: Vec::with_capacity(8 * CONTROL_BYTES_MAX),
            control_sent: 0,
            wants_credit: false,
            pong: None,
            ping: None,
            end: None,
            end_said: false,
            heard_at: now,
            spoke_at: now,
            times,
            ack_at: Timestamp::NEVER,
            over: None,
        }
    }

    /// Why it is over; the stream is of no more use then.
    pub(super) const fn over(&self) -> Option<EndReason> {
        self.over
    }

    /// The number that all messages before were received by the peer; `None` for one that takes none.
    pub(super) fn acked(&self) -> Option<u64> {
        self.out.as_ref().map(|out| out.credit.received)
    }

    /// Whether the peer takes messages.
    pub(super) const fn is_receiving(&self) -> bool {
        self.out.is_some()
    }

    /// Something came.
    pub(super) fn on_bytes(&mut self, now: Timestamp) {
        self.heard_at = now;
    }

    /// A frame came that is no message.
    ///
    /// # Errors
    /// [`FrameError`] where the peer breaks the rules.
    pub(super) fn on_frame(&mut self, frame: &Frame) -> Result<(), FrameError> {
        match *frame {
            Frame::Credit(credit) => self.on_credit(credit)?,
            // One answer stands for all pings before it: a flood of them costs no memory.
            Frame::Ping(number) => self.pong = Some(number),
            Frame::Pong(_) => {}
            Frame::End(reason) => self.over = Some(reason),
            // The inbound side keeps these for itself.
            Frame::Next(_) => return Err(FrameError::Place("next")),
        }
        Ok(())
    }

    fn on_credit(&mut self, credit: Credit) -> Result<(), FrameError> {
        let out = self.out.as_mut().ok_or(FrameError::Place("credit"))?;
        if credit.received > out.expected.unwrap_or(0).max(out.beside.loosed) {
            return Err(FrameError::Number);
        }
        out.credit.received = out.credit.received.max(credit.received);
        out.credit.messages = out.credit.messages.max(credit.messages);
        out.credit.bytes = out.credit.bytes.max(credit.bytes);
        Ok(())
    }

    /// Tells the peer what was received with the next write.
    pub(super) fn tell_credit(&mut self) {
        self.wants_credit = true;
    }

    /// Ends it when all that may leave has left.
    pub(super) fn finish(&mut self, reason: EndReason) {
        self.end.get_or_insert(reason);
    }

    /// It is of no more use.
    pub(super) fn break_off(&mut self, reason: EndReason) {
        self.over.get_or_insert(reason);
    }

    /// Whether the last word left.
    pub(super) fn is_finished(&self) -> bool {
        self.end_said && self.control_sent == self.control.len()
    }

    /// The oldest message of the log is about to be forgotten.
    pub(super) fn forget_oldest(&mut self, log: &Log) {
        if let Some(out) = &mut self.out {
            out.forget_oldest(log);
        }
    }

    /// Pings, and finds out that nobody is there.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        if now >= self.heard_at.after(self.times.silence_max) {
            self.break_off(EndReason::Silent);
        } else if now >= self.spoke_at.after(self.times.keepalive_interval) {
            self.ping = Some(now.as_nanos());
        }
        if now >= self.ack_at {
            self.wants_credit = true;
        }
        if let Some(Out { beside, .. }) = &mut self.out
            && now >= beside.tell_at
        {
            (beside.tell_at, beside.is_told) = (Timestamp::NEVER, true);
        }
    }

    /// When the stream says how far messages beside it came.
    pub(super) fn tail_at(&self) -> Timestamp {
        self.out.as_ref().map_or(Timestamp::NEVER, |out| out.beside.tell_at)
    }

    /// Appends what goes beside the stream next, as far as it fits `max` bytes; false for nothing.
    pub(super) fn loosen(
        &mut self,
        now: Timestamp,
        log: &Log,
        max: usize,
        chunk: &mut Vec<u8>,
    ) -> bool {
        if self.end_said {
            return false;
        }
        let has_any = self.out.as_mut().is_some_and(|out| out.loosen(now, log, max, chunk));
        if has_any {
            self.spoke_at = now;
        }
        has_any
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        if self.over.is_some() {
            return Timestamp::NEVER;
        }
        // What waits to be written has no time of its own any more.
        let mut next = self.heard_at.after(self.times.silence_max);
        if self.ping.is_none() {
            next = next.min(self.spoke_at.after(self.times.keepalive_interval));
        }
        next = next.min(self.tail_at());
        if self.wants_credit { next } else { next.min(self.ack_at) }
    }

    /// Puts the words that are due in front of the messages. `credit` is what may be told.
    fn say(&mut self, now: Timestamp, log: &Log, credit: impl FnOnce() -> Credit) {
        if self.control_sent < self.control.len() || self.end_said {
            return;
        }
        self.control.clear();
        self.control_sent = 0;
        if let Some(out) = &mut self.out {
            out.skip_long(log);
        }
        let may_end = self.end.is_some_and(|reason| self.may_end(reason, log));
        if let Some(out) = &mut self.out
            && out.must_say_next(log, may_end)
        {
            Frame::Next(out.number).write(&mut self.control);
            out.expected = Some(out.number);
            (out.beside.tell_at, out.beside.is_told) = (Timestamp::NEVER, false);
        }
        if self.wants_credit {
            self.wants_credit = false;
            self.ack_at = Timestamp::NEVER;
            Frame::Credit(credit()).write(&mut self.control);
        }
        if let Some(number) = self.ping.take() {
            Frame::Ping(number).write(&mut self.control);
        }
        if let Some(number) = self.pong.take() {
            Frame::Pong(number).write(&mut self.control);
        }
        if let Some(reason) = self.end.filter(|_| may_end) {
            Frame::End(reason).write(&mut self.control);
            self.end_said = true;
        }
        if !self.control.is_empty() {
            self.spoke_at = now;
        }
    }

    /// Whether the last word may be said.
    fn may_end(&self, reason: EndReason, log: &Log) -> bool {
        self.out.as_ref().is_none_or(|out| {
            // Who leaves says all that it published before; who is cut off hears no more.
            let has_all_left = out.place == log.place(log.next());
            !out.is_inside_frame() && (has_all_left || reason != EndReason::Left)
        })
    }

    /// What to write now; all empty when there is nothing.
    pub(super) fn transmit<'a>(
        &'a mut self,
        now: Timestamp,
        log: &'a Log,
        credit: impl FnOnce() -> Credit,
    ) -> Pieces<'a> {
        self.say(now, log, credit);
        self.pieces(log)
    }

    fn pieces<'a>(&'a self, log: &'a Log) -> Pieces<'a> {
        let control = self.control.get(self.control_sent..).unwrap_or_default();
        let Some(out) = &self.out else { return [control, &[], &[]] };
        if self.control_sent == 0 && out.is_inside_frame() {
            let remainder = out.remainder.get(out.remainder_sent..).unwrap_or_default();
            if !remainder.is_empty() {
                return [remainder, control, &[]];
            }
            let [front, back] = log.bytes(out.place, log.place(out.number + 1));
            return [front, back, control];
        }
        if self.end_said {
            return [control, &[], &[]];
        }
        let [front, back] = log.bytes(out.place, out.limit(log));
        [control, front, back]
    }

    /// So many bytes of these pieces were written.
    pub(super) fn sent(&mut self, now: Timestamp, log: &Log, count: usize) {
        if count > 0 {
            self.spoke_at = now;
        }
        let control = self.control.len() - self.control_sent;
        let is_inside =
            self.control_sent == 0 && self.out.as_ref().is_some_and(Out::is_inside_frame);
        let Some(out) = &mut self.out else {
            self.control_sent += count.min(control);
            return;
        };
        if !is_inside {
            let of_control = count.min(control);
            self.control_sent += of_control;
            out.advance(log, (count - of_control) as u64);
            return;
        }
        let remainder = out.remainder.len() - out.remainder_sent;
        let first = if remainder > 0 {
            let of_remainder = count.min(remainder);
            out.remainder_sent += of_remainder;
            of_remainder
        } else {
            let rest = (log.place(out.number + 1) - out.place) as usize;
            let of_frame = count.min(rest);
            out.advance(log, of_frame as u64);
            of_frame
        };
        self.control_sent += (count - first).min(control);
    }
}
