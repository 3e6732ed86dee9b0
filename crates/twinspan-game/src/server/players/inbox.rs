//! What players send: inputs, actions, wishes and the application's own messages, judged and handed on.

use twinspan_admission::{Conduct, Judge, Ruling, Signal};
use twinspan_core::time::Timestamp;
use twinspan_messages::Registry;
use twinspan_reliable::Channel;
use twinspan_session::SessionKey;
use twinspan_world::event::{ActionOutcome, ClientEvent, ServerEvent};
use twinspan_world::{EntityId, InputBundle, TICK_HZ};

use super::outlooks::outlook_mut;
use super::{Players, slot_mut};
use crate::measure::elapsed_since_wire;
use crate::server::admission::Fault;
use crate::server::messages::TypedGate;
use crate::server::realm::{Answer, Asked, Realm};
use crate::wire::{EVENTS, INPUT};

/// Inputs that a client may leave out before it counts as new: 20 seconds of them, in which a
/// silent session ends. Without it one false number would spoil what is counted as expected.
const INPUT_GAP_MAX: u32 = 20 * TICK_HZ;

/// A message of a client.
#[derive(Clone, Copy)]
pub(in crate::server) struct Message<'a> {
    pub(in crate::server) channel: Channel,
    pub(in crate::server) bytes: &'a [u8],
}

impl Message<'_> {
    /// What the rules say of it.
    fn judged(self, now: Timestamp, kind: u8, conduct: &mut Conduct, judge: &mut Judge) -> Ruling {
        let stream = self.channel.to_byte() & STREAM_BITS;
        judge.on_message(now, conduct, stream, kind, self.bytes.len())
    }
}

/// The bits of a channel's byte that name its stream.
const STREAM_BITS: u8 = 0x3f;

impl Players {
    pub(in crate::server) fn handle_message(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        message: Message<'_>,
        realm: &mut impl Realm,
        (judge, typed): (&mut Judge, Option<&mut TypedGate>),
    ) {
        let taken = match message.channel {
            INPUT => self.handle_input(now, session, message, realm, judge),
            EVENTS => self.handle_event(now, session, message, realm, judge),
            _ => self.handle_typed(now, session, message, realm, (judge, typed)),
        };
        if let Err(fault) = taken {
            self.stats.malformed += 1;
            self.stats.malformed_by.count(fault);
            self.hold_against(now, session, Signal::Malformed, judge);
        }
    }

    fn handle_input(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        message: Message<'_>,
        realm: &mut impl Realm,
        judge: &mut Judge,
    ) -> Result<(), Fault> {
        let Some(player) = slot_mut(&mut self.slots, session) else { return Ok(()) };
        match message.judged(now, 0, &mut player.conduct, judge) {
            // What a shadowed player does to itself is its own affair.
            Ruling::Pass | Ruling::Shadow => {}
            ruling => {
                self.stats.inputs_flooding += 1;
                self.obey(session, ruling);
                return Ok(());
            }
        }
        let bundle = InputBundle::decode(message.bytes)?;
        self.stats.inputs += 1;
        let newest = bundle.newest();
        let gap = newest.saturating_sub(player.newest_input).min(INPUT_GAP_MAX);
        self.stats.inputs_expected += u64::from(gap);
        player.newest_input = player.newest_input.max(newest);
        if let Some(latency) = elapsed_since_wire(now, bundle.slot_us) {
            self.stats.up.record(latency);
            self.up_recent.record(latency);
        }
        realm.submit(player.origin(), &bundle);
        Ok(())
    }

    fn handle_event(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        message: Message<'_>,
        realm: &mut impl Realm,
        judge: &mut Judge,
    ) -> Result<(), Fault> {
        self.stats.reliable_received += 1;
        let Some(player) = slot_mut(&mut self.slots, session) else { return Ok(()) };
        player.reliable.received += 1;
        let (action, target) = match ClientEvent::decode(message.bytes)? {
            ClientEvent::ApplyEffect { action, target } => (action, target),
            ClientEvent::WantKeyframes { .. } => {
                return self.handle_wish(now, session, message, judge);
            }
            _ => return Err(Fault::Kind),
        };
        if action != player.last_action.wrapping_add(1) {
            self.stats.actions_out_of_order += 1;
        }
        player.last_action = action;
        let from = player.origin();
        let kind = message.bytes.first().copied().unwrap_or(0);
        let ruling = message.judged(now, kind, &mut player.conduct, judge);
        let asked = match ruling {
            Ruling::Pass => Asked::Effect(target),
            // It sees what it would see had it acted, and nobody else sees anything.
            Ruling::Shadow => {
                let until_tick = realm.world().tick().saturating_add(self.effect_ticks);
                Asked::Known(ActionOutcome::Applied { until_tick })
            }
            _ => {
                self.stats.actions_flooding += 1;
                Asked::Known(ActionOutcome::TooFast)
            }
        };
        match realm.act(from, action, asked) {
            Answer::Now(outcome) => {
                if let (Asked::Effect(_), ActionOutcome::Applied { until_tick }, Some(actor)) =
                    (asked, outcome, from.entity)
                {
                    self.tell_target(target, actor, until_tick);
                }
                let was_asked = matches!(asked, Asked::Effect(_));
                self.answer_action(session, (action, outcome), was_asked);
                self.obey(session, ruling);
                self.hold_refusal_against(now, session, outcome, judge);
            }
            Answer::Later => self.obey(session, ruling),
            Answer::Full => self.give_up(session),
        }
        Ok(())
    }

    /// Tells a player what came of its action; `was_asked` when the world had a say in it.
    pub(in crate::server) fn answer_action(
        &mut self,
        session: SessionKey,
        (action, outcome): (u32, ActionOutcome),
        was_asked: bool,
    ) {
        if was_asked {
            *match outcome {
                ActionOutcome::Applied { .. } => &mut self.stats.actions_applied,
                _ => &mut self.stats.actions_refused,
            } += 1;
        }
        self.tell(session, ServerEvent::ActionResult { action, outcome });
    }

    /// An action that the rules of the world refused is held against who tried it.
    pub(in crate::server) fn hold_refusal_against(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        outcome: ActionOutcome,
        judge: &mut Judge,
    ) {
        if let ActionOutcome::Refused(_) = outcome {
            self.hold_against(now, session, Signal::Action, judge);
        }
    }

    /// A player did something to another.
    pub(in crate::server) fn tell_effect(
        &mut self,
        session: SessionKey,
        actor: EntityId,
        until_tick: u32,
    ) {
        if self.player(session).is_some() {
            self.tell(session, ServerEvent::EffectOn { actor, until_tick });
        }
    }

    /// A client whose replica is not what it should be: everything is told anew, as often as the
    /// rules let it ask.
    fn handle_wish(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        message: Message<'_>,
        judge: &mut Judge,
    ) -> Result<(), Fault> {
        let Some(player) = slot_mut(&mut self.slots, session) else { return Ok(()) };
        let kind = message.bytes.first().copied().unwrap_or(0);
        let ruling = message.judged(now, kind, &mut player.conduct, judge);
        if ruling == Ruling::Pass
            && let Some(outlook) = outlook_mut(&mut self.outlooks, session)
        {
            outlook.baselines.forget();
            self.stats.keyframes_wanted += 1;
        }
        self.obey(session, ruling);
        Ok(())
    }

    /// A message that is the application's; bad ones cost themselves and an offence (messages 5).
    fn handle_typed(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        message: Message<'_>,
        realm: &mut impl Realm,
        (judge, typed): (&mut Judge, Option<&mut TypedGate>),
    ) -> Result<(), Fault> {
        let is_users = Registry::is_user_stream(message.channel.stream);
        let typed = typed.filter(|_| is_users).ok_or(Fault::Channel)?;
        let Some(player) = slot_mut(&mut self.slots, session) else { return Ok(()) };
        let kind = message.bytes.first().copied().unwrap_or(0);
        match message.judged(now, kind, &mut player.conduct, judge) {
            Ruling::Pass => {}
            // It has an effect on others or none at all.
            Ruling::Shadow => {
                typed.count_shadowed();
                return Ok(());
            }
            ruling => {
                typed.count_flooding();
                self.obey(session, ruling);
                return Ok(());
            }
        }
        if !typed.allows(now, &mut player.used, message.bytes.len()) {
            self.hold_against(now, session, Signal::Flooding, judge);
            return Ok(());
        }
        let incoming = typed.check(message.channel, message.bytes)?;
        let from = player.origin();
        if !realm.receive(now, from, &incoming, (message.channel, message.bytes)) {
            self.give_up(session);
        }
        Ok(())
    }
}
