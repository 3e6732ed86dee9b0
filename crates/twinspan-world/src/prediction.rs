//! A client's guess of its own player: walk at once, let the server correct.

use std::collections::VecDeque;

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
    /// Inputs that the server has not answered, oldest first.
    pending: VecDeque<Input>,
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
            pending: VecDeque::with_capacity(INPUTS_PENDING_MAX),
            sequence: 0,
            acked: 0,
            is_placed: false,
            dropped: 0,
        }
    }

    /// Walks one tick by `input` and returns it with the next sequence and the claim filled in.
    pub fn predict(&mut self, input: Input) -> Input {
        if self.pending.len() == INPUTS_PENDING_MAX {
            // The server has been silent for long: its next word will move us anyway.
            self.pending.pop_front();
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
        self.pending.push_back(input);
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
        while self.pending.front().is_some_and(|input| input.sequence <= last_input) {
            self.pending.pop_front();
        }
        let OwnState { position, flags, side_m, .. } = own;
        self.side = f64::from(side_m);
        self.flags = flags;
        self.is_placed = true;
        // How it moves and where it faces is its inputs' doing, and the last one is its own.
        let start = Body { position, ..self.body };
        let body = self
            .pending
            .iter()
            .fold(start, |body, input| movement::step(body, input, flags, self.side));
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
        self.pending.iter().copied()
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
