//! A client's guess of its own player: walk at once, let the server correct.

use std::collections::VecDeque;

use twinspan_core::prefetch;

use crate::entity::{Flags, Position};
use crate::header::OwnState;
use crate::input::{ClaimedPosition, Input};
use crate::movement::{self, Body};

/// Inputs kept until the server has answered them: two seconds.
pub const INPUTS_PENDING_MAX: usize = 128;

/// With more inputs unanswered than this, a second's worth, a client cannot know where it is and
/// makes no claim: what happened to it since is longer ago than the server's allowance.
const CLAIM_PENDING_MAX: usize = 60;

/// A player's own movement, ahead of the server's word by one round trip.
///
/// Each tick, [`Prediction::predict`] an input and send it with the few before it
/// ([`InputBundle::of`](crate::InputBundle::of)); with each new state,
/// [`Prediction::reconcile`]. Both ends step by [`movement::step`], so that nothing jumps unless an
/// input was lost or something happened that the client did not know of.
#[derive(Clone, Debug)]
pub struct Prediction {
    body: Body,
    flags: Flags,
    /// Side of the world in metres; no edge before the first word of the server.
    side: f64,
    /// Inputs that the server has not answered, oldest first, each with where it led.
    pending: VecDeque<(Input, Position)>,
    /// From where these go on.
    start: Position,
    /// The last sequence given to an input.
    sequence: u32,
    /// The last sequence that the server answered.
    acked: u32,
    is_placed: bool,
    dropped: u64,
}

impl Default for Prediction {
    fn default() -> Self {
        Self::new()
    }
}

impl Prediction {
    /// A player that does not know where it is yet.
    pub fn new() -> Self {
        Self {
            body: Body::default(),
            flags: Flags::NONE,
            side: f64::INFINITY,
            // Room for a round trip's worth comes with the first ones.
            pending: VecDeque::new(),
            start: Position::default(),
            sequence: 0,
            acked: 0,
            is_placed: false,
            dropped: 0,
        }
    }

    /// Wishes for the inputs that the server has not answered.
    pub fn prefetch(&self) {
        let (older, newer) = self.pending.as_slices();
        prefetch::value(older);
        prefetch::value(newer);
    }

    /// Walks one tick by `input` and returns it with the next sequence and the claim filled in.
    pub fn predict(&mut self, input: Input) -> Input {
        if self.pending.len() == INPUTS_PENDING_MAX {
            // The server has been silent for long: its next word will move us anyway.
            self.start = self.pending.pop_front().map_or(self.start, |(_, led_to)| led_to);
            self.dropped += 1;
        }
        self.sequence = self.sequence.saturating_add(1);
        self.body = movement::step(self.body, &input, self.flags, self.side);
        let knows_place = self.is_placed && self.pending.len() < CLAIM_PENDING_MAX;
        let claimed = if knows_place {
            ClaimedPosition::of(self.body.position)
        } else {
            ClaimedPosition::NONE
        };
        let input = Input { sequence: self.sequence, claimed, ..input };
        self.pending.push_back((input, self.body.position));
        input
    }

    /// Takes the server's word: the player's state after the input `last_input`, then walks the
    /// inputs that it has not answered again. Returns by how many metres that moved the player, or
    /// `None` for a word older than one taken before.
    pub fn reconcile(&mut self, last_input: u32, own: OwnState) -> Option<f64> {
        // The server cannot have answered what was never sent.
        if last_input < self.acked || last_input > self.sequence {
            return None;
        }
        self.acked = last_input;
        while let Some((_, led_to)) =
            self.pending.pop_front_if(|(input, _)| input.sequence <= last_input)
        {
            self.start = led_to;
        }
        let OwnState { position, flags, side_m, .. } = own;
        let side = f64::from(side_m);
        // A position is the sum of its steps, so from where it was thought to be all further steps
        // lead where they led.
        let is_as_thought =
            self.is_placed && position == self.start && (flags, side) == (self.flags, self.side);
        (self.side, self.flags, self.start) = (side, flags, position);
        self.is_placed = true;
        if is_as_thought {
            return Some(0.0);
        }
        // How it moves and where it faces is its inputs' doing, and the last one is its own.
        let mut body = Body { position, ..self.body };
        for (input, led_to) in &mut self.pending {
            body = movement::step(body, input, flags, side);
            *led_to = body.position;
        }
        let moved = body.position.distance(self.body.position);
        self.body = body;
        Some(moved)
    }

    /// Where the player is, as far as the client can tell.
    pub const fn position(&self) -> Position {
        self.body.position
    }

    /// The player's predicted motion.
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// Whether the server has said where the player is.
    pub const fn is_placed(&self) -> bool {
        self.is_placed
    }

    /// The inputs that the server has not answered, oldest first; at most [`INPUTS_PENDING_MAX`].
    pub fn pending(&self) -> impl DoubleEndedIterator<Item = Input> + ExactSizeIterator {
        self.pending.iter().map(|(input, _)| *input)
    }

    /// The last sequence given to an input; 0 before the first.
    pub const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Inputs given up because the server answered none for two seconds.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::EntityId;

    fn own(position: Position, flags: Flags) -> OwnState {
        OwnState { id: EntityId::from_bits(1).unwrap(), position, flags, health: 100, side_m: 100 }
    }

    fn placed(at: Position) -> Prediction {
        let mut prediction = Prediction::new();
        assert!(prediction.reconcile(0, own(at, Flags::NONE)).is_some());
        prediction
    }

    #[test]
    fn a_confirmed_prediction_does_not_move() {
        let start = Position::ground(10.0, 10.0);
        let mut prediction = placed(start);
        let mut server = Body { position: start, ..Body::default() };
        for tick in 0..600_u32 {
            let wish = Input::toward(1.0, 0.3, tick as f32, 0.0);
            let input = prediction.predict(wish);
            assert_eq!(input.sequence, tick + 1);
            // The server is always eleven inputs behind.
            if let Some(applied) = tick.checked_sub(10) {
                let wish = Input::toward(1.0, 0.3, applied as f32, 0.0);
                server = movement::step(server, &wish, Flags::NONE, 100.0);
                let word = own(server.position, Flags::NONE);
                assert_eq!(prediction.reconcile(applied + 1, word), Some(0.0));
                assert_eq!(prediction.pending().len(), 10);
            }
        }
    }

    #[test]
    fn a_correction_keeps_the_inputs_that_are_under_way() {
        let mut prediction = placed(Position::ground(10.0, 10.0));
        for _ in 0..6 {
            prediction.predict(Input::toward(1.0, 0.0, 0.0, 0.0));
        }
        let moved = prediction.reconcile(4, own(Position::ground(20.0, 20.0), Flags::NONE));
        assert!(moved.is_some_and(|metres| metres > 10.0));
        let two_steps = 20.0 + 2.0 * 5.0 / 60.0;
        assert!(prediction.position().distance(Position::ground(20.0, two_steps)) < 1e-6);
        assert_eq!(prediction.reconcile(3, own(Position::default(), Flags::NONE)), None);
        assert_eq!(prediction.reconcile(7, own(Position::default(), Flags::NONE)), None);
    }

    #[test]
    fn claims_are_made_only_by_who_knows_where_it_is() {
        let mut prediction = Prediction::new();
        assert_eq!(prediction.predict(Input::default()).claimed, ClaimedPosition::NONE);
        prediction.reconcile(1, own(Position::ground(7.0, 8.5), Flags::NONE));
        for _ in 0..CLAIM_PENDING_MAX {
            let claimed = prediction.predict(Input::default()).claimed;
            assert_eq!(claimed, ClaimedPosition { x_cm: 700, z_cm: 850 });
        }
        assert_eq!(prediction.predict(Input::default()).claimed, ClaimedPosition::NONE);
    }

    proptest! {
        /// Against walking every input again at each word of the server.
        #[test]
        fn what_was_thought_is_what_all_inputs_lead_to(
            calls in proptest::collection::vec((0_u8..6, -127_i8..=127, any::<u8>()), 1..400),
        ) {
            let mut prediction = Prediction::new();
            let mut body = Body::default();
            let (mut flags, mut side) = (Flags::NONE, f64::INFINITY);
            let mut pending: VecDeque<Input> = VecDeque::new();
            // Where the server's own walk is: after `applied` inputs.
            let (mut server, mut applied) = (Body::default(), 0);
            let mut inputs = Vec::new();
            for (call, forward, number) in calls {
                if call < 4 {
                    if pending.len() == INPUTS_PENDING_MAX {
                        pending.pop_front();
                    }
                    let wish = Input { forward, yaw: u16::from(number) << 8, ..Input::default() };
                    let input = prediction.predict(wish);
                    body = movement::step(body, &input, flags, side);
                    pending.push_back(input);
                    inputs.push(input);
                } else {
                    let more = usize::from(number % 8).min(inputs.len() - applied);
                    if call == 5 && number > 200 {
                        server.position.x += 1.0;
                        flags = if forward > 0 { Flags::HASTE } else { Flags::NONE };
                    }
                    side = 100.0;
                    for input in &inputs[applied..applied + more] {
                        server = movement::step(server, input, flags, side);
                    }
                    applied += more;
                    pending.retain(|input| input.sequence > applied as u32);
                    let start = Body { position: server.position, ..body };
                    let walk = |body, input| movement::step(body, input, flags, side);
                    let before = body.position;
                    body = pending.iter().fold(start, walk);
                    let moved = prediction.reconcile(applied as u32, own(server.position, flags));
                    prop_assert_eq!(moved, Some(body.position.distance(before)));
                }
                prop_assert_eq!(prediction.body(), &body);
                prop_assert!(prediction.pending().eq(pending.iter().copied()));
            }
        }
    }

    #[test]
    fn pending_inputs_are_bounded() {
        let mut prediction = placed(Position::ground(7.0, 8.0));
        for _ in 0..1_000 {
            prediction.predict(Input::default());
        }
        assert_eq!(prediction.pending().len(), INPUTS_PENDING_MAX);
        assert_eq!(prediction.dropped(), 1_000 - INPUTS_PENDING_MAX as u64);
        assert_eq!(prediction.sequence(), 1_000);
    }
}
