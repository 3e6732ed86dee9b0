//! What a shard asks of the world: answered at once where the world is on the same thread, later
//! where it is on another.

use twinspan_core::time::Timestamp;
use twinspan_messages::Incoming;
use twinspan_reliable::Channel;
use twinspan_session::{SessionKey, UserId};
use twinspan_world::event::ActionOutcome;
use twinspan_world::{CellEncodings, EntityId, InputBundle, World};

/// An answer of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// This is it.
    Now(T),
}

/// Who asks to be let into the world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    pub(super) session: SessionKey,
    pub(super) user: UserId,
    /// It came with the ticket of a session that was lost.
    pub(super) has_resumed: bool,
}

/// A newcomer's entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) entity: EntityId,
    /// It had waited for the newcomer.
    pub(super) has_waited: bool,
}

/// Who leaves the world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaver {
    pub(super) session: SessionKey,
    pub(super) user: UserId,
    pub(super) entity: EntityId,
    /// It may come back: its entity waits.
    pub(super) may_resume: bool,
}

/// Whose message or action it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct From {
    pub(super) session: SessionKey,
    pub(super) user: UserId,
    pub(super) entity: EntityId,
}

/// The world as a shard has it.
pub(super) trait Realm {
    /// The world as of the last tick that the shard knows of.
    fn world(&self) -> &World;

    /// The same and its cells, for states.
    fn sight(&mut self) -> (&World, &mut CellEncodings);

    /// Lets a player in: gives it the entity that waited for it, or a new one; none when the world
    /// has no room.
    fn join(&mut self, newcomer: Newcomer) -> Answer<Option<Place>>;

    /// Takes a player out.
    fn leave(&mut self, now: Timestamp, leaver: Leaver);

    /// Hands a player's inputs over; what of them is known already does nothing.
    fn submit(&mut self, from: From, bundle: &InputBundle);

    /// A player's action on `target`.
    fn act(&mut self, from: From, target: EntityId) -> Answer<ActionOutcome>;

    /// Hands a typed message that was checked to its handler.
    fn receive(&mut self, now: Timestamp, from: From, incoming: &Incoming<'_>);

    /// What handlers sent to players of this shard, in order.
    fn deliver(&mut self, send: &mut dyn FnMut(SessionKey, Channel, &[u8]));

    /// Wishes for the memory that an input of this player needs.
    fn prefetch(&self, entity: EntityId);
}
