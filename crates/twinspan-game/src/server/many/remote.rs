//! The world as a shard on another thread has it: what it says comes by lanes, what is seen of it in
//! images.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use twinspan_core::time::Timestamp;
use twinspan_messages::Incoming;
use twinspan_net::{LaneReceiver, LaneSender, LatestReceiver};
use twinspan_reliable::Channel;
use twinspan_session::{SessionKey, UserId};
use twinspan_world::event::ActionOutcome;
use twinspan_world::{CellEncodings, EntityId, InputBundle, World, tick_duration};

use super::super::realm::{Answer, Asked, From, Leaver, Newcomer, Place, Realm};
use super::super::shard::Shard;
use super::image::Published;
use super::letters::{
    Call, HELD_BANS_MAX, HELD_BYTES_MAX, HELD_MAX, Inputs, LinkStats, Word, keep, letter,
};

/// The ends of the lanes between a shard and the world that the shard holds.
pub(super) struct Lines {
    pub(super) calls: LaneSender<Call>,
    pub(super) inputs: LaneSender<Inputs>,
    pub(super) words: LaneReceiver<Word>,
    pub(super) images: LatestReceiver<Published>,
}

/// The world as a shard on another thread has it.
pub(super) struct Remote {
    lines: Lines,
    /// Calls that wait for room in the lane, in order.
    held: VecDeque<Call>,
    held_bytes: usize,
    /// Bans among them.
    held_bans: usize,
    /// Something was said since the world's thread was woken.
    is_unwoken: bool,
    present: Arc<Published>,
    /// A newer image that waits until the states of the present one are sent.
    next: Option<Arc<Published>>,
    /// It has waited for a turn.
    has_waited: bool,
    /// The world's thread is gone.
    is_orphan: bool,
    encodings: CellEncodings,
    spare: Vec<Vec<u8>>,
    pub(super) stats: LinkStats,
}

impl Remote {
    pub(super) fn new(lines: Lines, first: Arc<Published>) -> Self {
        let mut encodings = CellEncodings::new(first.image.world());
        encodings.follow(&first.image);
        Self {
            lines,
            held: VecDeque::new(),
            held_bytes: 0,
            held_bans: 0,
            is_unwoken: false,
            present: first,
            next: None,
            has_waited: false,
            is_orphan: false,
            encodings,
            spare: Vec::new(),
            stats: LinkStats::default(),
        }
    }

    /// Says something; false when there is no room for it.
    fn call(&mut self, call: Call) -> bool {
        let bytes = bytes_of(&call);
        let is_ban = matches!(call, Call::Ban { .. });
        let has_room = match call {
            Call::Leave { .. } => true,
            Call::Ban { .. } => self.held_bans < HELD_BANS_MAX,
            _ => self.held.len() < HELD_MAX && self.held_bytes + bytes <= HELD_BYTES_MAX,
        };
        if !has_room {
            return false;
        }
        self.is_unwoken |= !matches!(call, Call::Back(_));
        let refused = if self.held.is_empty() {
            match self.lines.calls.push(call) {
                Ok(()) => return true,
                Err(call) => call,
            }
        } else {
            call
        };
        self.stats.held += 1;
        self.held_bytes += bytes;
        self.held_bans += usize::from(is_ban);
        self.held.push_back(refused);
        true
    }

    /// Says what waited for room.
    fn retry(&mut self) {
        while let Some(call) = self.held.pop_front() {
            let (bytes, is_ban) = (bytes_of(&call), matches!(call, Call::Ban { .. }));
            if let Err(call) = self.lines.calls.push(call) {
                self.held.push_front(call);
                return;
            }
            self.held_bytes -= bytes;
            self.held_bans -= usize::from(is_ban);
        }
    }

    /// Whether calls wait for room, or for a world that is gone: nobody says when to go on.
    pub(super) fn is_held_up(&self) -> bool {
        !self.held.is_empty() || self.is_orphan
    }

    /// Takes what the world said, and its newest image once the states of the present one are sent or
    /// a turn has gone by.
    pub(super) fn absorb(&mut self, now: Timestamp, shard: &mut Shard) {
        self.retry();
        // As many as there are now: a world that goes on talking is heard in the next turn.
        for _ in 0..self.lines.words.len() {
            let Some(word) = self.lines.words.pop() else { break };
            self.hear(now, word, shard);
        }
        self.look_for_image();
        if self.next.is_some() {
            self.has_waited = shard.leaves_states() && !self.has_waited;
            if !self.has_waited
                && let Some(newest) = self.next.take()
            {
                self.change_over(now, newest, shard);
            }
        }
        shard.send_events(now, self);
    }

    /// Takes the newest image; one that nobody has looked at gives way.
    fn look_for_image(&mut self) {
        if let Some(newer) = self.lines.images.take() {
            self.next = Some(newer);
        }
    }

    /// Whether an image waits for the next turn.
    pub(super) const fn has_next(&self) -> bool {
        self.next.is_some()
    }

    fn hear(&mut self, now: Timestamp, word: Word, shard: &mut Shard) {
        match word {
            Word::Seated { session, place } => {
                shard.seat(now, session, place, self.present.image.world());
            }
            Word::Acted { session, action, outcome, was_asked } => {
                shard.on_acted(now, session, (action, outcome), was_asked);
            }
            Word::Effect { session, actor, until_tick } => {
                shard.players.tell_effect(session, actor, until_tick);
            }
            Word::Moved { session, movement } => shard.on_movement(session, movement),
            Word::Typed { to, channel, letter } => {
                shard.send_typed(now, to, channel, &letter);
                // A buffer that finds no way back is dropped.
                self.call(Call::Back(letter));
            }
            Word::Ban { user, length } => shard.ban(now, user, length),
            Word::End { session, reason } => shard.players.end(session, reason),
            Word::Back(letter) => keep(&mut self.spare, letter),
            Word::Drain => shard.drain(now, self),
        }
    }

    /// Goes over to another tick.
    fn change_over(&mut self, now: Timestamp, newest: Arc<Published>, shard: &mut Shard) {
        let Some(due) = newest.due else { return };
        let first = self.present.due.map_or(due.tick, |before| before.tick.wrapping_add(1));
        for missed in first..due.tick {
            self.stats.images_missed += 1;
            shard.skip_tick(missed);
            shard.pace.on_late();
            shard.pace.on_tick();
        }
        if now >= due.scheduled.after(tick_duration()) {
            shard.pace.on_late();
        }
        shard.pace.on_tick();
        self.encodings.follow(&newest.image);
        shard.begin_tick(newest.made_at, &due);
        self.present = newest;
    }

    /// The tick of the newest image, for tests.
    #[cfg(test)]
    pub(super) fn newest_tick(&mut self) -> u32 {
        self.look_for_image();
        if let Some(next) = self.next.take() {
            self.present = next;
        }
        self.present.image.world().tick()
    }

    /// What the world says next, for tests.
    #[cfg(test)]
    pub(super) fn next_word(&mut self) -> Option<Word> {
        self.retry();
        self.lines.words.pop()
    }

    /// Says what waited for room, for tests.
    #[cfg(test)]
    pub(super) fn retry_calls(&mut self) {
        self.retry();
    }

    /// Wakes the world's thread if something was said that it should not be late to hear.
    pub(super) fn wake(&mut self) {
        if core::mem::take(&mut self.is_unwoken) {
            self.lines.calls.wake();
        }
    }

    /// Whether the world has said something.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Of a world that is gone nothing is to be heard any more, but that once.
        if self.lines.words.is_abandoned() && self.lines.words.is_empty() {
            let knew = core::mem::replace(&mut self.is_orphan, true);
            return if knew { Poll::Pending } else { Poll::Ready(()) };
        }
        let heard = self.lines.words.poll_ready(cx);
        // After the waker stands there: an image is put in its place before the shard is woken.
        self.look_for_image();
        if self.next.is_some() { Poll::Ready(()) } else { heard }
    }
}

fn bytes_of(call: &Call) -> usize {
    match call {
        Call::Typed { letter, .. } => letter.len(),
        _ => 0,
    }
}

impl Realm for Remote {
    fn world(&self) -> &World {
        self.present.image.world()
    }

    fn sight(&mut self) -> (&World, &mut CellEncodings) {
        (self.present.image.world(), &mut self.encodings)
    }

    fn join(&mut self, newcomer: Newcomer) -> Answer<Option<Place>> {
        if self.call(Call::Join(newcomer)) { Answer::Later } else { Answer::Full }
    }

    fn leave(&mut self, _: Timestamp, leaver: Leaver) {
        let Leaver { session, may_resume, .. } = leaver;
        self.call(Call::Leave { session, may_resume });
    }

    fn submit(&mut self, from: From, bundle: &InputBundle) {
        let (session, bundle) = (from.session, *bundle);
        if self.lines.inputs.push(Inputs { session, bundle }).is_err() {
            self.stats.inputs_dropped += 1;
        }
    }

    fn act(&mut self, from: From, action: u32, asked: Asked) -> Answer<ActionOutcome> {
        let session = from.session;
        if self.call(Call::Act { session, action, asked }) { Answer::Later } else { Answer::Full }
    }

    fn receive(
        &mut self,
        _: Timestamp,
        from: From,
        _: &Incoming<'_>,
        (channel, bytes): (Channel, &[u8]),
    ) -> bool {
        let letter = letter(&mut self.spare, bytes);
        self.call(Call::Typed { session: from.session, channel, letter })
    }

    fn ban(&mut self, user: UserId, length: Duration) {
        let was_told = self.call(Call::Ban { user, length });
        self.stats.bans_dropped += u64::from(!was_told);
    }

    fn deliver(&mut self, _: &mut dyn FnMut(SessionKey, Channel, &[u8])) {}

    fn prefetch(&self, _: EntityId) {}
}
