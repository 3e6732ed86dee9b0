use super::*;
use crate::entity::Position;

const RULES: Rules = Rules { side: 4_096.0, claim_tolerance_mm: 250 };

/// A player's controls and body on a wide plain, and the walk that an honest client would make.
struct Player {
    controls: Controls,
    body: Body,
    flags: Flags,
    /// What the client believes.
    client: Body,
    sequence: u32,
}

impl Player {
    fn new() -> Self {
        let body = Body { position: Position::ground(2_000.0, 2_000.0), ..Body::default() };
        Self { controls: Controls::default(), body, flags: Flags::NONE, client: body, sequence: 0 }
    }

    /// One who has walked honestly past its grace.
    fn known() -> Self {
        let mut player = Self::new();
        for _ in 0..GRACE_TICKS + 30 {
            let input = player.walk();
            assert_eq!(player.controls.submit(input), Ok(Verdict::Honest));
            player.tick();
        }
        player
    }

    fn walk(&mut self) -> Input {
        self.sequence += 1;
        let input =
            Input { sequence: self.sequence, forward: 127, yaw: 0x3000, ..Input::default() };
        self.client = movement::step(self.client, &input, Flags::NONE, RULES.side);
        Input { claimed: ClaimedPosition::of(self.client.position), ..input }
    }

    fn tick(&mut self) -> Verdict {
        self.controls.tick(&mut self.body, self.flags, RULES);
        self.controls.verdict()
    }

    fn walked(&self) -> f64 {
        self.body.position.distance(Position::ground(2_000.0, 2_000.0))
    }

    /// Ticks until `input` makes a liar of it; at most ten seconds.
    fn ticks_to_lying(&mut self, mut input: impl FnMut(&mut Self)) -> Option<u32> {
        (1..=10 * TICK_HZ).find(|_| {
            input(self);
            self.tick() == Verdict::Lying
        })
    }
}

#[test]
fn an_input_per_tick_is_a_step_per_tick() {
    let player = Player::known();
    assert_eq!(player.body, player.client);
    let ticks = u64::from(GRACE_TICKS + 30);
    let expected = Standing { last_input: ticks as u32, applied: ticks, ..Standing::default() };
    assert_eq!(player.controls.standing(), expected);
}

#[test]
fn a_burst_is_caught_up_with_four_a_tick() {
    let mut player = Player::known();
    (0..12).for_each(|_| assert_eq!(player.tick(), Verdict::Honest));
    for _ in 0..12 {
        let input = player.walk();
        assert!(player.controls.submit(input).is_ok());
    }
    (0..2).for_each(|_| assert_eq!(player.tick(), Verdict::Honest));
    assert_ne!(player.body, player.client, "eight of twelve");
    player.tick();
    assert_eq!(player.body, player.client);
}

#[test]
fn a_missing_input_is_waited_for_and_then_skipped() {
    let mut player = Player::known();
    let missing = player.walk();
    let next = player.walk();
    assert!(player.controls.submit(next).is_ok());
    (0..GAP_TICKS_MAX).for_each(|_| {
        player.tick();
    });
    assert_eq!(player.controls.standing().last_input, missing.sequence - 1);
    assert_eq!(player.tick(), Verdict::Honest, "one step is within the tolerance");
    let standing = player.controls.standing();
    assert_eq!((standing.last_input, standing.skipped), (next.sequence, 1));
    assert_eq!(player.controls.submit(missing), Err(SubmitError::Old));
}

#[test]
fn a_late_input_is_applied_in_its_place() {
    let mut player = Player::known();
    let (first, second) = (player.walk(), player.walk());
    assert!(player.controls.submit(second).is_ok());
    player.tick();
    assert!(player.controls.submit(first).is_ok());
    player.tick();
    assert_eq!(player.body, player.client);
    assert_eq!(player.controls.standing().skipped, 0);
}

#[test]
fn a_repeated_input_counts_once() {
    let mut player = Player::known();
    let input = player.walk();
    assert!(player.controls.submit(input).is_ok());
    assert_eq!(player.controls.submit(input), Err(SubmitError::Old));
    player.tick();
    assert_eq!(player.controls.submit(input), Err(SubmitError::Old));
    player.tick();
    assert_eq!(player.body.position, player.client.position);
    assert_eq!(player.controls.standing().score, 0);
}

#[test]
fn without_input_a_player_stands_and_soon_looks_like_it() {
    let mut player = Player::known();
    let (at, velocity) = (player.body.position, player.body.velocity);
    (1..COAST_TICKS).for_each(|_| {
        player.tick();
    });
    assert_eq!((player.body.position, player.body.velocity), (at, velocity));
    player.tick();
    assert_eq!((player.body.position, player.body.velocity), (at, Velocity::ZERO));
}

#[test]
fn who_sends_twice_as_many_inputs_gains_nothing_and_is_caught() {
    let mut player = Player::known();
    let (before, start) = (player.controls.standing().applied, player.walked());
    let caught = player.ticks_to_lying(|player| {
        for _ in 0..2 {
            let input = player.walk();
            // Refused or not: the flooder does not care.
            let _ = player.controls.submit(input);
        }
    });
    let ticks = caught.expect("a flooder is caught");
    assert!(ticks < 5 * TICK_HZ, "caught after {ticks} ticks");
    let applied = player.controls.standing().applied - before;
    assert!(applied <= u64::from(ticks * 65 / 64 + INPUT_CREDIT_MAX + 1));
    assert!(player.walked() - start <= applied as f64 * 5.0 / 60.0 + 0.001);
}

#[test]
fn a_clock_that_runs_a_little_fast_is_no_flood() {
    let mut player = Player::known();
    for tick in 0..60 * TICK_HZ {
        // One per cent fast.
        for _ in 0..1 + u32::from(tick % 100 == 0) {
            let input = player.walk();
            assert!(player.controls.submit(input).is_ok());
        }
        assert_eq!(player.tick(), Verdict::Honest);
    }
}

#[test]
fn repeating_refused_inputs_scores_once() {
    let mut player = Player::known();
    // It was never silent and its first input came at once.
    player.controls.sequence_credit = 0;
    let inputs: Vec<_> = (0..INPUT_WINDOW + 10).map(|_| player.walk()).collect();
    for _ in 0..8 {
        inputs.iter().for_each(|input| {
            let _ = player.controls.submit(*input);
        });
    }
    let standing = player.controls.standing();
    assert_eq!((standing.flooded, standing.score), (80, 10 * POINT));
}

#[test]
fn a_teleporter_is_never_believed_and_soon_caught() {
    let mut player = Player::known();
    let caught = player.ticks_to_lying(|player| {
        let mut input = player.walk();
        input.claimed.x_cm += 2_000;
        assert!(player.controls.submit(input).is_ok());
    });
    assert!(caught.is_some_and(|ticks| ticks <= 31), "caught after {caught:?} ticks");
    assert_eq!(player.body, player.client, "the server goes where inputs lead");
}

#[test]
fn who_claims_twice_the_speed_is_caught() {
    let mut player = Player::known();
    let mut lead_cm = 0.0;
    let caught = player.ticks_to_lying(|player| {
        lead_cm += 500.0 / 60.0;
        let mut input = player.walk();
        input.claimed.x_cm += lead_cm as i32;
        assert!(player.controls.submit(input).is_ok());
    });
    assert!(caught.is_some_and(|ticks| ticks <= 3 * TICK_HZ), "caught after {caught:?} ticks");
}

#[test]
fn a_teleporter_that_hides_behind_lost_inputs_is_caught() {
    let mut player = Player::known();
    let caught = player.ticks_to_lying(|player| {
        // Every other input is left out, as if it had been lost.
        player.walk();
        let mut input = player.walk();
        input.claimed.x_cm += 20_000;
        let _ = player.controls.submit(input);
    });
    assert!(caught.is_some(), "the allowance does not grow without bound");
}

#[test]
fn a_second_of_claims_that_nothing_explains_is_forgiven() {
    let mut player = Player::known();
    for _ in 0..TICK_HZ {
        let mut input = player.walk();
        input.claimed.x_cm += 100;
        assert!(player.controls.submit(input).is_ok());
        assert_eq!(player.tick(), Verdict::Corrected);
    }
    let input = player.walk();
    assert!(player.controls.submit(input).is_ok());
    assert_eq!(player.tick(), Verdict::Honest);
}

#[test]
fn an_effect_that_the_client_has_not_heard_of_scores_nothing() {
    let mut player = Player::known();
    player.flags = Flags::HASTE;
    player.controls.on_effect_changed();
    for _ in 0..TICK_HZ {
        let input = player.walk();
        assert!(player.controls.submit(input).is_ok());
        player.tick();
    }
    let standing = player.controls.standing();
    assert!(standing.corrected > 0);
    assert_eq!(standing.score, 0);
}

#[test]
fn a_long_silence_explains_a_long_walk() {
    let mut player = Player::known();
    for _ in 0..10 * TICK_HZ {
        player.walk();
        player.tick();
    }
    for _ in 0..TICK_HZ {
        let input = player.walk();
        assert!(player.controls.submit(input).is_ok());
        player.tick();
    }
    let standing = player.controls.standing();
    assert!(standing.skipped >= 10 * 60);
    assert_eq!(standing.score, 0, "50 m off, all of them explained");
}

#[test]
fn no_claim_is_no_lie() {
    let mut player = Player::known();
    for _ in 0..TICK_HZ {
        let input = Input { claimed: ClaimedPosition::NONE, ..player.walk() };
        assert_eq!(player.controls.submit(input), Ok(Verdict::Honest));
        assert_eq!(player.tick(), Verdict::Honest);
    }
}

#[test]
fn hostile_sequences_harm_only_their_sender() {
    let mut player = Player::known();
    let input = player.walk();
    assert_eq!(player.controls.submit(Input { sequence: 0, ..input }), Err(SubmitError::Old));
    for sequence in [u32::MAX - 5, u32::MAX, u32::MAX, 1, 1 << 31] {
        // Whatever comes of it, nothing overflows.
        let _ = player.controls.submit(Input { sequence, ..input });
        (0..20).for_each(|_| {
            player.tick();
        });
    }
    assert_eq!(player.controls.submit(input), Err(SubmitError::Old));
    let walked = player.walked();
    let steps = player.controls.standing().applied;
    assert!(walked <= steps as f64 * 5.0 / 60.0 + 0.001);
}

/// Wireless networks do this.
#[test]
fn inputs_that_a_network_held_back_and_brought_at_once_are_no_flood() {
    for stall in [60, 120, 240, 900] {
        let mut player = Player::known();
        for _ in 0..4 {
            let held_back: Vec<_> = (0..stall)
                .map(|_| {
                    player.tick();
                    Input { claimed: ClaimedPosition::NONE, ..player.walk() }
                })
                .collect();
            for input in held_back {
                // What finds no place is refused.
                let _ = player.controls.submit(input);
            }
            for _ in 0..120 {
                assert_eq!(player.tick(), Verdict::Honest, "after {stall} ticks");
                let input = Input { claimed: ClaimedPosition::NONE, ..player.walk() };
                let _ = player.controls.submit(input);
            }
        }
        let standing = player.controls.standing();
        assert_eq!(standing.score, 0);
        assert!(standing.flooded > 0);
    }
}
