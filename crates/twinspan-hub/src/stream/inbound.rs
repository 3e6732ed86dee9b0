//! What came from one publisher and was not taken yet: bytes as they came, and where messages lie.
//!
//! //= hub 9.5

use std::collections::VecDeque;

use super::loose::{self, Loose};
use super::wire::{Credit, Frame, FrameError, HEAD_BYTES, Kind, parse_head};

/// Bytes that are asked of a stream at once.
const READ_BYTES: usize = 64 << 10;
/// The same once it gave as much.
const READ_BYTES_MAX: usize = 512 << 10;
/// Bytes that a publisher may be ahead by, where two of the longest messages are fewer.
const WINDOW_BYTES_MIN: usize = 1 << 20;
/// Messages that may wait where they need no credit: those that came beside the stream.
pub(super) const LOOSE_MESSAGES_MAX: usize = 16_384;

/// How much a publisher may be ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Messages.
    pub(crate) messages: u64,
    /// Bytes, with the heads of frames.
    pub(crate) bytes: u64,
}

impl Window {
    /// Room for so many messages, of which the longest has `message_bytes_max` bytes.
    pub(crate) fn new(depth: u32, message_bytes_max: usize) -> Self {
        let frame = message_bytes_max + crate::compress::PACKED_HEAD_BYTES + HEAD_BYTES;
        Self { messages: u64::from(depth.max(1)), bytes: (2 * frame).max(WINDOW_BYTES_MIN) as u64 }
    }
}

/// A message that waits to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Where its body begins in the buffer.
    at: usize,
    pub(crate) bytes: usize,
    pub(crate) number: u64,
    /// Messages missed before it.
    pub(crate) lost: u64,
    pub(crate) is_packed: bool,
    /// It came beside the stream, and lies in the buffer for such.
    is_loose: bool,
}

/// What came of one publisher.
#[derive(Debug)]
pub(crate) struct Inbound {
    window: Window,
    buffer: Vec<u8>,
    /// Behind this byte are the messages that wait.
    start: usize,
    /// Behind this byte nothing was looked at yet.
    scanned: usize,
    /// Behind this byte nothing is.
    end: usize,
    waiting: VecDeque<Waiting>,
    /// Bytes of frames of the messages that wait.
    waiting_bytes: u64,
    /// How much is read at once.
    read: usize,
    /// The number of the message that is wanted next; `None` before the publisher said one.
    next: Option<u64>,
    /// The number of the message that comes next on the stream; others may have come beside it.
    stream_next: Option<u64>,
    /// Bodies that came beside the stream, and behind which byte those lie that wait.
    loose: Vec<u8>,
    loose_start: usize,
    /// Messages missed and not told with one yet.
    lost: u64,
    /// Messages missed since it was asked last.
    missed: u64,
    /// Messages of the present stream, and their bytes with their heads.
    stream_messages: u64,
    stream_bytes: u64,
    /// What was told last.
    told: Credit,
}

impl Inbound {
    pub(crate) fn new(window: Window) -> Self {
        Self {
            window,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            end: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            read: READ_BYTES,
            next: None,
            stream_next: None,
            loose: Vec::new(),
            loose_start: 0,
            lost: 0,
            missed: 0,
            stream_messages: 0,
            stream_bytes: 0,
            told: Credit::default(),
        }
    }

    /// The number of the message that is wanted next.
    pub(crate) fn wanted(&self) -> u64 {
        self.next.unwrap_or(0)
    }

    /// Whether the publisher said which message comes first.
    pub(crate) const fn has_begun(&self) -> bool {
        self.next.is_some()
    }

    /// Another stream brings what comes now, and its publisher was told this. The part of a message
    /// that the one before left is gone.
    pub(crate) fn begin(&mut self, told: Credit) {
        self.end = self.scanned;
        self.stream_next = self.next;
        (self.stream_messages, self.stream_bytes) = (0, 0);
        self.told = told;
    }

    /// How much may come now, counted from the beginning of the stream.
    pub(crate) fn credit(&self) -> Credit {
        let free = self.window.messages.saturating_sub(self.waiting.len() as u64);
        Credit {
            received: self.wanted(),
            messages: self.stream_messages + free,
            bytes: self.stream_bytes + self.window.bytes.saturating_sub(self.waiting_bytes),
        }
    }

    /// The same for a stream that is to begin.
    pub(crate) fn fresh_credit(&self) -> Credit {
        let credit = self.credit();
        Credit {
            messages: credit.messages - self.stream_messages,
            bytes: credit.bytes - self.stream_bytes,
            ..credit
        }
    }

    /// What was told last.
    pub(crate) const fn told(&self) -> Credit {
        self.told
    }

    /// The present credit is being told.
    pub(crate) fn tell(&mut self) -> Credit {
        let credit = self.credit();
        // A promise is not taken back.
        self.told = Credit {
            messages: credit.messages.max(self.told.messages),
            bytes: credit.bytes.max(self.told.bytes),
            ..credit
        };
        self.told
    }

    /// Whether so much room has come that the publisher should know.
    pub(crate) fn is_worth_telling(&self) -> bool {
        let now = self.credit();
        now.messages.saturating_sub(self.told.messages) * 2 >= self.window.messages
            || now.bytes.saturating_sub(self.told.bytes) * 2 >= self.window.bytes
    }

    /// Where the next bytes of the stream belong; never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.scanned, self.end) = (0, 0, 0);
        }
        if self.buffer.len() - self.end < self.read {
            self.close_up();
            let most = self.end + self.read;
            if self.buffer.len() < most {
                // It grows by what came, not by what was said to come.
                self.buffer.resize(most, 0);
            }
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Moves what is there to the front, where as much is gone as is left.
    fn close_up(&mut self) {
        let left = self.end - self.start;
        // So each byte is moved once on average, and the buffer is at most twice what it holds.
        if self.start == 0 || left > self.start {
            return;
        }
        let start = self.start;
        self.buffer.copy_within(start..self.end, 0);
        for message in self.waiting.iter_mut().filter(|it| !it.is_loose) {
            message.at -= start;
        }
        (self.start, self.scanned, self.end) = (0, self.scanned - start, left);
    }

    /// So many bytes were put there.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
        if count >= self.read {
            self.read = (2 * self.read).min(READ_BYTES_MAX);
        }
    }

    /// Looks through what came: messages stay, other frames are handed out and make room. True when
    /// messages came.
    ///
    /// # Errors
    /// [`FrameError`] where the publisher breaks the rules.
    pub(crate) fn scan(
        &mut self,
        mut on_frame: impl FnMut(Frame) -> Result<(), FrameError>,
    ) -> Result<bool, FrameError> {
        let before = self.waiting.len();
        // Other frames are left out by moving what follows them once.
        let (mut from, mut to) = (self.scanned, self.scanned);
        let outcome = loop {
            match self.scan_one(from, to, &mut on_frame) {
                Ok(Some((length, kept))) => (from, to) = (from + length, to + kept),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if from != to {
            self.buffer.copy_within(from..self.end, to);
        }
        self.end -= from - to;
        self.scanned = to;
        outcome.map(|()| self.waiting.len() > before)
    }

    /// One frame: its length, and how much of it stays. `None` when it is not whole.
    fn scan_one(
        &mut self,
        from: usize,
        to: usize,
        on_frame: &mut impl FnMut(Frame) -> Result<(), FrameError>,
    ) -> Result<Option<(usize, usize)>, FrameError> {
        let bytes = self.buffer.get(from..self.end).unwrap_or_default();
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let (kind, length) = parse_head(*head);
        let frame = HEAD_BYTES + length;
        let is_packed = match kind {
            Kind::Message => false,
            Kind::Packed => true,
            Kind::Hello => return Err(FrameError::Place("hello")),
            _ if frame > super::wire::CONTROL_BYTES_MAX => {
                return Err(FrameError::Length("control"));
            }
            _ => {
                let Some(body) = rest.get(..length) else { return Ok(None) };
                match Frame::parse(kind, body)? {
                    Frame::Next(number) => self.on_next(number)?,
                    other => on_frame(other)?,
                }
                return Ok(Some((frame, 0)));
            }
        };
        // Before the whole of it came: what was not allowed is not waited for.
        let number = self.stream_next.ok_or(FrameError::Place("message"))?;
        let stream_bytes = self.stream_bytes + frame as u64;
        if stream_bytes > self.told.bytes || self.stream_messages >= self.told.messages {
            return Err(FrameError::Credit);
        }
        if rest.len() < length {
            return Ok(None);
        }
        (self.stream_messages, self.stream_bytes) = (self.stream_messages + 1, stream_bytes);
        self.stream_next = Some(number + 1);
        if self.next.is_some_and(|next| number < next) {
            // A later one came beside the stream: this one was counted as missed.
            return Ok(Some((frame, 0)));
        }
        if from != to {
            self.buffer.copy_within(from..from + frame, to);
        }
        let at = to + HEAD_BYTES;
        self.keep(Waiting { at, bytes: length, number, lost: 0, is_packed, is_loose: false });
        Ok(Some((frame, frame)))
    }

    /// A message came that is not behind a later one.
    fn keep(&mut self, message: Waiting) {
        self.miss_until(message.number);
        let lost = std::mem::take(&mut self.lost);
        self.waiting_bytes += (HEAD_BYTES + message.bytes) as u64;
        self.next = Some(message.number + 1);
        self.waiting.push_back(Waiting { lost, ..message });
    }

    /// What did not come of the messages before this one was missed.
    fn miss_until(&mut self, number: u64) {
        let missed = self.next.map_or(0, |next| number.saturating_sub(next));
        self.lost = self.lost.saturating_add(missed);
        self.missed = self.missed.saturating_add(missed);
    }

    /// Messages missed since it was asked last.
    pub(crate) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// Takes in the messages of a datagram beside the stream. Where there is no room the oldest that
    /// wait are missed.
    ///
    /// # Errors
    /// [`FrameError`] where the publisher breaks the rules.
    pub(crate) fn take_loose(&mut self, rest: &[u8]) -> Result<(), FrameError> {
        if self.window.messages == 0 {
            // This side takes none.
            return Err(FrameError::Credit);
        }
        for Loose { number, is_packed, body } in loose::messages(rest)? {
            // Before the publisher said where it begins nothing counts, and nothing comes twice or
            // behind a later one.
            if self.next.is_none_or(|next| number < next) {
                continue;
            }
            self.make_room(HEAD_BYTES + body.len());
            self.close_up_loose();
            let at = self.loose.len();
            self.loose.extend_from_slice(body);
            let bytes = body.len();
            self.keep(Waiting { at, bytes, number, lost: 0, is_packed, is_loose: true });
        }
        Ok(())
    }

    /// Forgets the oldest messages until there is room for a frame of so many bytes.
    fn make_room(&mut self, frame: usize) {
        let messages_max = usize::try_from(self.window.messages).unwrap_or(usize::MAX);
        let messages_max = messages_max.max(LOOSE_MESSAGES_MAX);
        while self.waiting.len() >= messages_max
            || self.waiting_bytes + frame as u64 > self.window.bytes
        {
            let Some(lost) = self.waiting.front().map(|oldest| oldest.lost) else { return };
            self.pop();
            self.missed = self.missed.saturating_add(1);
            let told = lost.saturating_add(1);
            match self.waiting.front_mut() {
                Some(next) => next.lost = next.lost.saturating_add(told),
                None => self.lost = self.lost.saturating_add(told),
            }
        }
    }

    /// Moves bodies that came beside the stream to the front, where as much is gone as is left.
    fn close_up_loose(&mut self) {
        let (start, left) = (self.loose_start, self.loose.len() - self.loose_start);
        if start == 0 || left > start {
            return;
        }
        self.loose.copy_within(start.., 0);
        self.loose.truncate(left);
        for message in self.waiting.iter_mut().filter(|it| it.is_loose) {
            message.at -= start;
        }
        self.loose_start = 0;
    }

    /// The publisher says which message comes next.
    fn on_next(&mut self, number: u64) -> Result<(), FrameError> {
        // So large a number would leave none for what follows.
        if number > u64::MAX / 2 {
            return Err(FrameError::Number);
        }
        if self.stream_next.is_some_and(|next| number < next) {
            return Err(FrameError::Number);
        }
        self.stream_next = Some(number);
        self.miss_until(number);
        // Messages beside the stream may be further.
        self.next = self.next.max(Some(number));
        Ok(())
    }

    /// The message that has waited longest.
    pub(crate) fn front(&self) -> Option<(Waiting, &[u8])> {
        let message = *self.waiting.front()?;
        let buffer = if message.is_loose { &self.loose } else { &self.buffer };
        Some((message, buffer.get(message.at..message.at + message.bytes)?))
    }

    /// It was taken.
    pub(crate) fn pop(&mut self) {
        if let Some(message) = self.waiting.pop_front() {
            let place = if message.is_loose { &mut self.loose_start } else { &mut self.start };
            *place = message.at + message.bytes;
            self.waiting_bytes -= (HEAD_BYTES + message.bytes) as u64;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Memory that is held.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.len() + self.loose.capacity()
    }
}

#[cfg(test)]
mod tests;
