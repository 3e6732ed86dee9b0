//! What shards and the world say to each other, and how much of it may be under way.

use core::time::Duration;

use twinspan_admission::BANS_MAX;
use twinspan_reliable::Channel;
use twinspan_session::{CloseReason, SessionKey, UserId};
use twinspan_world::event::ActionOutcome;
use twinspan_world::{EntityId, InputBundle};

use super::super::players::Movement;
use super::super::realm::{Asked, Newcomer, Place};

/// Calls on their way from one shard to the world.
pub(super) const CALLS_MAX: usize = 4_096;
/// Words on their way from the world to one shard.
pub(super) const WORDS_MAX: usize = 8_192;
/// Calls, or words, that wait for a full lane. A session's end is kept beyond it: there are no more
/// of them than sessions. So are bans, to their own limit.
pub(super) const HELD_MAX: usize = 65_536;
/// Bans among what waits for a full lane: as many as a shard remembers at all.
pub(super) const HELD_BANS_MAX: usize = BANS_MAX;
/// Bytes of typed messages among them.
pub(super) const HELD_BYTES_MAX: usize = 4 << 20;
/// Letter buffers that one side keeps for the next letters.
pub(super) const SPARE_MAX: usize = 256;
/// Bytes of the longest buffer that is kept.
pub(super) const SPARE_BYTES_MAX: usize = 4_096;

/// Input messages on their way from one shard with so many sessions at most: those of four ticks.
pub(super) fn inputs_max(sessions: usize) -> usize {
    sessions.saturating_mul(4).clamp(1_024, 65_536)
}

/// What a shard says to the world.
#[derive(Debug)]
pub(super) enum Call {
    Join(Newcomer),
    Leave {
        session: SessionKey,
        may_resume: bool,
    },
    Act {
        session: SessionKey,
        action: u32,
        asked: Asked,
    },
    Typed {
        session: SessionKey,
        channel: Channel,
        letter: Vec<u8>,
    },
    Ban {
        user: UserId,
        length: Duration,
    },
    /// The buffer of a letter that was read.
    Back(Vec<u8>),
}

/// What the world says to a shard.
#[derive(Debug)]
pub(super) enum Word {
    Seated {
        session: SessionKey,
        /// None when the world is full.
        place: Option<Place>,
    },
    Acted {
        session: SessionKey,
        action: u32,
        outcome: ActionOutcome,
        was_asked: bool,
    },
    Effect {
        session: SessionKey,
        actor: EntityId,
        until_tick: u32,
    },
    Moved {
        session: SessionKey,
        movement: Movement,
    },
    Typed {
        /// None for all players of the shard.
        to: Option<SessionKey>,
        channel: Channel,
        letter: Vec<u8>,
    },
    Ban {
        user: UserId,
        length: Duration,
    },
    /// The world has let a player go that the shard still has: its session is to be closed.
    End {
        session: SessionKey,
        reason: CloseReason,
    },
    Back(Vec<u8>),
    /// The numbers of ticks run out.
    Drain,
}

/// A client's inputs.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) session: SessionKey,
    pub(super) bundle: InputBundle,
}

/// A letter with these bytes, in a buffer that was used before if there is one.
pub(super) fn letter(spare: &mut Vec<Vec<u8>>, bytes: &[u8]) -> Vec<u8> {
    let mut letter = spare.pop().unwrap_or_default();
    letter.clear();
    letter.extend_from_slice(bytes);
    letter
}

/// Keeps a letter's buffer for the next one.
pub(super) fn keep(spare: &mut Vec<Vec<u8>>, letter: Vec<u8>) {
    if spare.len() < SPARE_MAX && letter.capacity() <= SPARE_BYTES_MAX {
        spare.push(letter);
    }
}

/// What went between the cores of a server, and what of it was lost or had to wait; all zero for a
/// server on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Datagrams that came to another shard than their own, and were handed on.
    pub strays: u64,
    /// The same that were dropped because the lane was full.
    pub strays_dropped: u64,
    /// Input messages that were dropped because the world's core was behind. Clients repeat inputs.
    pub inputs_dropped: u64,
    /// Times that a join, a leave, an action, a typed message or an answer had to wait for a full
    /// lane.
    pub held: u64,
    /// Words to a shard that was so far behind that they were dropped: typed messages of others and
    /// looks at movement.
    pub words_dropped: u64,
    /// Bans that did not reach all cores, because too many waited for one that was far behind.
    pub bans_dropped: u64,
    /// Sessions that were closed because their core was so far behind that there was no room left for
    /// what their players had to be told.
    pub sessions_given_up: u64,
    /// Ticks whose image a shard did not read, because it was late and there was a newer one.
    pub images_missed: u64,
    /// Ticks of which no image was made, because all were being read.
    pub images_refused: u64,
}

impl LinkStats {
    /// Adds what others counted.
    pub const fn add(&mut self, other: &Self) {
        let Self { strays, strays_dropped, inputs_dropped, held, .. } = *other;
        let Self { words_dropped, images_missed, images_refused, .. } = *other;
        let Self { bans_dropped, sessions_given_up, .. } = *other;
        self.strays += strays;
        self.strays_dropped += strays_dropped;
        self.inputs_dropped += inputs_dropped;
        self.held += held;
        self.words_dropped += words_dropped;
        self.bans_dropped += bans_dropped;
        self.sessions_given_up += sessions_given_up;
        self.images_missed += images_missed;
        self.images_refused += images_refused;
    }
}
