//! What players are shown: what their states are made of, and how long those may be.

use twinspan_core::prefetch;
use twinspan_session::{FlowStats, SessionKey};
use twinspan_world::{StateHeader, World};

use super::Players;
use crate::server::sight::{OUTLOOK_BYTES_USED, Outlook, Sight};

impl Players {
    /// Lets `plan` make a state for a session out of what its player sees now, and charges it the
    /// bytes that `plan` returns; false when there is nobody to make it for.
    pub(in crate::server) fn plan_state(
        &mut self,
        session: SessionKey,
        world: &World,
        plan: impl FnOnce(Sight<'_>) -> usize,
    ) -> bool {
        let Some(outlook) = outlook_mut(&mut self.outlooks, session) else { return false };
        let Outlook { entity, subscriptions, baselines, allowance, flow, .. } = outlook;
        let Some(state) = world.entity(*entity) else { return false };
        subscriptions.update(world.tick(), state.position, world.grid());
        let Some(header) = StateHeader::of(world, *entity, subscriptions) else { return false };
        let budget = allowance.at(world.tick(), flow.limit());
        let spent = plan(Sight { header, subscriptions, baselines, budget });
        allowance.spend(spent);
        true
    }

    /// Whether somebody should look how a session's packets fare, before its state of this tick.
    pub(in crate::server) fn is_look_due(&self, session: SessionKey, tick: u32) -> bool {
        let outlook = self.outlooks.get(session.index()).and_then(Option::as_ref);
        outlook.is_some_and(|outlook| outlook.session == session && outlook.flow.is_due(tick))
    }

    /// How a session's packets fared: its states shall be as long as they arrive in time.
    pub(in crate::server) fn look(&mut self, session: SessionKey, tick: u32, seen: &FlowStats) {
        if let Some(outlook) = outlook_mut(&mut self.outlooks, session) {
            outlook.flow.look(tick, seen, outlook.allowance.per_second);
        }
    }

    /// A session's packets go another way from now on.
    pub(in crate::server) fn on_moved(&mut self, session: SessionKey) {
        if let Some(outlook) = outlook_mut(&mut self.outlooks, session) {
            outlook.flow.forget();
        }
    }

    /// The client has the packet that was sent with this tag.
    pub(in crate::server) fn on_acked(&mut self, session: SessionKey, tag: u32) {
        if let Some(outlook) = outlook_mut(&mut self.outlooks, session) {
            outlook.baselines.on_acked(tag);
        }
    }

    /// Wishes for what the next state of a session is made of.
    pub(in crate::server) fn prefetch_outlook(&self, session: SessionKey) {
        if let Some(place) = self.outlooks.get(session.index()) {
            prefetch::bytes(core::ptr::from_ref(place).cast(), OUTLOOK_BYTES_USED);
        }
    }

    /// Wishes for what the state tells of the player itself; after
    /// [`Players::prefetch_outlook`].
    pub(in crate::server) fn prefetch_body(&self, session: SessionKey, world: &World) {
        if let Some(Some(outlook)) = self.outlooks.get(session.index()) {
            world.prefetch_state(outlook.entity);
        }
    }

    pub(in crate::server) fn set_budget(
        &mut self,
        session: SessionKey,
        bytes_per_second: u32,
    ) -> bool {
        outlook_mut(&mut self.outlooks, session).is_some_and(|outlook| {
            outlook.allowance.per_second = bytes_per_second;
            true
        })
    }
}

/// What the states of a session are made of, to be changed.
pub(super) fn outlook_mut(
    outlooks: &mut [Option<Outlook>],
    session: SessionKey,
) -> Option<&mut Outlook> {
    outlooks.get_mut(session.index())?.as_mut().filter(|outlook| outlook.session == session)
}
