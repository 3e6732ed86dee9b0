//! What a shard asks of the world: answered at once where the world is on the same thread, later
//! where it is on another.

use core::time::Duration;

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
    /// It comes from another thread.
    Later,
    /// Too much waits for the other thread: nothing was asked.
    Full,
}

/// What an action comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What the world says to it.
    Effect(EntityId),
    /// This, whatever the world says; answers keep the order of their actions.
    Known(ActionOutcome),
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
    /// None of one that was never told its place.
    pub(super) entity: Option<EntityId>,
    /// It may come back: its entity waits.
    pub(super) may_resume: bool,
}

/// Whose message or action it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct From {
    pub(super) session: SessionKey,
    pub(super) user: UserId,
    /// None while its place is not known here.
    pub(super) entity: Option<EntityId>,
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

    /// What a player's action with this number comes to.
    fn act(&mut self, from: From, action: u32, asked: Asked) -> Answer<ActionOutcome>;

    /// Hands a typed message that was checked, and its channel and bytes, to its handler; false when
    /// too much waits for another thread.
    fn receive(
        &mut self,
        now: Timestamp,
        from: From,
        incoming: &Incoming<'_>,
        bytes: (Channel, &[u8]),
    ) -> bool;

    /// Tells other shards whom to let in no more, and for how long.
    fn ban(&mut self, user: UserId, length: Duration);

    /// What handlers sent to players of this shard, in order.
    fn deliver(&mut self, send: &mut dyn FnMut(SessionKey, Channel, &[u8]));

    /// Wishes for the memory that an input of this player needs.
    fn prefetch(&self, entity: EntityId);
}
