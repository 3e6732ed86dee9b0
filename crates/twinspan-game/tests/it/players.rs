//! Players that stall, flood, lie or talk nonsense: each is limited, corrected or closed with its
//! reason and counted by cause, and the honest ones do not notice.

use std::time::Duration;

use twinspan_core::bytes::Writer;
use twinspan_game::{EVENTS, INPUT, STATE};
use twinspan_reliable::{Channel, Delivery, StreamId};
use twinspan_session::{CloseReason, SessionConfig};
use twinspan_world::event::{ActionOutcome, ClientEvent};
use twinspan_world::movement::{HASTE_FACTOR, WALK_SPEED};
use twinspan_world::{
    ClaimedPosition, INPUT_BUNDLE_BYTES_MAX, Input, InputBundle, Position, Prediction, Verdict,
};

use crate::rig::{BOTS, LIMIT, Rig, Shared, address, shared};
use crate::rogue::{Rogue, Turn};

/// The number of the host and the user that misbehaves.
const ROGUE: u32 = BOTS + 1;
/// The most that a server keeps for one session, in reliable messages.
const QUEUE_MAX: usize = 1_024;
/// Messages over a limit that are forgiven at once.
const OFFENCES_FORGIVEN: u64 = 100;

/// Puts a rogue into the world that calls `act` so often per second.
fn add(rig: &mut Rig, per_second: u32, act: impl FnMut(&mut Turn<'_>) + 'static) -> Shared<Rogue> {
    let session = rig.session(ROGUE, SessionConfig::default());
    let rogue = shared(Rogue::new(session, per_second, act));
    rig.launch(address(ROGUE), rogue.clone());
    let waited = rogue.clone();
    rig.wait("the rogue to enter", move |_| waited.borrow().own().is_some());
    rogue
}

/// Waits until the server has closed the rogue, and asserts that it was told why and that nothing of
/// it is left.
fn assert_closed(rig: &mut Rig, rogue: &Shared<Rogue>, reason: CloseReason) {
    let own = rogue.borrow().own().unwrap();
    rig.wait("the rogue to be told its end", |_| rogue.borrow().closed().is_some());
    assert_eq!(rogue.borrow().closed(), Some(reason));
    assert_gone(rig, own);
}

fn assert_gone(rig: &Rig, own: twinspan_world::EntityId) {
    let server = rig.server.borrow();
    assert!(!server.world().contains(own), "its entity is gone");
    assert_eq!(server.sessions(), BOTS as usize);
    assert_eq!(server.player_stats().left, 1);
}

/// Walks honestly: what an honest client would send, to be changed or not.
#[derive(Default)]
struct Walk {
    prediction: Prediction,
    yaw: f32,
}

impl Walk {
    fn step(&mut self, turn: &Turn<'_>) {
        if let Some(newest) = turn.replica.newest() {
            self.prediction.reconcile(newest.last_input, newest.own);
        }
        // In a small circle, so that no wall is met.
        self.yaw += 3.0;
        self.prediction.predict(Input::toward(1.0, 0.0, self.yaw, 0.0));
    }

    /// The newest inputs, each with its claim changed by `lie`.
    fn bundle(&self, lie: impl Fn(Input) -> Input) -> Vec<u8> {
        let newest = self.prediction.pending().rev().take(4).map(lie);
        let mut newest: Vec<_> = newest.collect();
        newest.reverse();
        encoded(&InputBundle::new(0, newest.into_iter()).unwrap())
    }
}

fn encoded(bundle: &InputBundle) -> Vec<u8> {
    let mut bytes = [0; INPUT_BUNDLE_BYTES_MAX];
    let mut out = Writer::new(&mut bytes);
    bundle.encode(&mut out).unwrap();
    out.written().to_vec()
}

fn moved(claim: ClaimedPosition, metres: f64) -> ClaimedPosition {
    let Position { x, z, .. } = claim.position();
    ClaimedPosition::of(Position::ground(x + metres, z))
}

/// An action on itself.
fn action(turn: &Turn<'_>, action: u32) -> Vec<u8> {
    let mut bytes = [0; 64];
    let event = ClientEvent::ApplyEffect { action, target: turn.own };
    let len = event.encode(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

#[test]
fn a_player_that_stalls_is_let_go_after_the_idle_time_out() {
    let mut rig = Rig::new(|config| {
        config.session.idle_timeout = Duration::from_secs(2);
        config.session.keepalive_interval = Duration::from_millis(500);
        config.session.resume.window = Duration::from_secs(1);
    });
    let rogue = add(&mut rig, 60, |_| {});
    let own = rogue.borrow().own().unwrap();
    rig.run_for(Duration::from_secs(3));
    assert!(rig.server.borrow().world().contains(own), "keep-alives keep an idle player");
    rogue.borrow_mut().stalled = true;
    // What it sent last may be a keep-alive's time ago.
    rig.run_for(Duration::from_millis(1_300));
    assert!(rig.server.borrow().world().contains(own), "a short stall is borne");
    rig.run_for(Duration::from_millis(1_000));
    assert_eq!(rig.server.borrow().endpoint_stats().idle_timeouts, 1);
    assert!(rig.server.borrow().world().contains(own), "it may come back");
    rig.run_for(Duration::from_millis(1_100));
    assert_gone(&rig, own);
    rig.assert_honest_unharmed();
}

#[test]
fn a_player_that_never_reads_costs_a_bounded_queue_until_it_is_given_up() {
    // So small a world that everybody sees it and acts on it now and then.
    let mut rig = Rig::new(|config| config.world.side = config.world.cell);
    let mut walk = Walk::default();
    let rogue = add(&mut rig, 60, move |turn| {
        walk.step(turn);
        turn.send_once(INPUT, &walk.bundle(|input| input));
    });
    let own = rogue.borrow().own().unwrap();
    rogue.borrow_mut().deaf = true;
    let mut unacknowledged_max = 0;
    let until = rig.now().after(Duration::from_secs(150));
    while rig.server.borrow().world().contains(own) {
        assert!(rig.now() < until, "still served");
        rig.run_for(Duration::from_millis(500));
        unacknowledged_max = unacknowledged_max.max(rig.server.borrow().unacknowledged());
    }
    assert!(unacknowledged_max > 20, "the effects on it were told all the time");
    assert!(unacknowledged_max <= QUEUE_MAX, "{unacknowledged_max} messages waited");
    rig.assert_honest_unharmed();
}

#[test]
fn ten_times_as_many_inputs_are_limited_and_then_closed_as_flooding() {
    let mut rig = Rig::new(|_| {});
    let mut walk = Walk::default();
    let rogue = add(&mut rig, 600, move |turn| {
        if turn.number.is_multiple_of(10) {
            walk.step(turn);
        }
        turn.send_once(INPUT, &walk.bundle(|input| input));
    });
    assert_closed(&mut rig, &rogue, CloseReason::Flooding);
    assert!(rogue.borrow().turns() < 600, "closed within a second");
    let flooding = rig.server.borrow().player_stats().inputs_flooding;
    assert!((OFFENCES_FORGIVEN..400).contains(&flooding), "{flooding} were over the limit");
    rig.assert_honest_unharmed();
}

#[test]
fn a_burst_of_inputs_after_a_stall_is_forgiven() {
    let mut rig = Rig::new(|_| {});
    let mut walk = Walk::default();
    // A second of silence, then all of its inputs at once, again and again.
    let rogue = add(&mut rig, 60, move |turn| {
        walk.step(turn);
        if turn.number % 60 == 59 {
            for _ in 0..60 {
                turn.send_once(INPUT, &walk.bundle(|input| input));
            }
        }
    });
    rig.run_for(Duration::from_secs(8));
    assert_eq!(rogue.borrow().closed(), None);
    assert_eq!(rig.server.borrow().player_stats().inputs_flooding, 0);
    rig.assert_honest_unharmed();
}

#[test]
fn ten_times_as_many_actions_are_refused_and_then_closed_as_flooding() {
    let mut rig = Rig::new(|_| {});
    let rogue = add(&mut rig, 300, |turn| {
        let bytes = action(turn, turn.number as u32 + 1);
        turn.queue(EVENTS, &bytes);
    });
    assert_closed(&mut rig, &rogue, CloseReason::Flooding);
    let rogue = rogue.borrow();
    assert!(rogue.turns() < 450, "closed within one and a half seconds");
    let too_fast = rogue.outcomes().iter().filter(|told| **told == ActionOutcome::TooFast).count();
    assert!(too_fast > 0, "it was told so before: {:?}", rogue.outcomes());
    {
        let server = rig.server.borrow();
        let stats = server.player_stats();
        assert!(stats.actions_flooding > OFFENCES_FORGIVEN, "{stats:?}");
        assert_eq!(stats.actions_out_of_order, 0);
    }
    rig.assert_honest_unharmed();
}

#[test]
fn a_claim_to_be_elsewhere_moves_nobody_and_is_closed_as_a_lie() {
    let mut rig = Rig::new(|_| {});
    let mut walk = Walk::default();
    let rogue = add(&mut rig, 60, move |turn| {
        walk.step(turn);
        let far = if turn.number < 300 { 0.0 } else { 500.0 };
        let lie = |input: Input| Input { claimed: moved(input.claimed, far), ..input };
        turn.send_once(INPUT, &walk.bundle(lie));
    });
    let own = rogue.borrow().own().unwrap();
    rig.run_for(Duration::from_millis(4_500));
    assert_eq!(rig.server.borrow().world().standing(own).unwrap().score, 0, "honest so far");
    let mut before = rig.server.borrow().world().entity(own).unwrap().position;
    let mut corrected = false;
    while let Some(entity) = { rig.server.borrow().world().entity(own) } {
        // Four inputs can be caught up with in a tick.
        let step_max = 4.0 * WALK_SPEED * HASTE_FACTOR / 60.0 + 0.001;
        assert!(entity.position.distance(before) <= step_max, "it was moved by its claim");
        before = entity.position;
        corrected |= rig.server.borrow().world().verdict(own) == Verdict::Corrected;
        rig.run_for(Duration::from_millis(10));
        assert!(rig.now().as_nanos() < LIMIT.as_nanos() as u64, "still believed");
    }
    assert!(corrected, "it was corrected before it was closed");
    assert_closed(&mut rig, &rogue, CloseReason::PositionLie);
    assert_eq!(rig.server.borrow().player_stats().lying, 1);
    rig.assert_honest_unharmed();
}

#[test]
fn a_claim_to_be_three_times_as_fast_is_closed_as_a_lie() {
    let mut rig = Rig::new(|_| {});
    let mut walk = Walk::default();
    let rogue = add(&mut rig, 60, move |turn| {
        walk.step(turn);
        let ahead = turn.number.saturating_sub(180) as f64 * 2.0 * WALK_SPEED / 60.0;
        let lie = |input: Input| Input { claimed: moved(input.claimed, ahead), ..input };
        turn.send_once(INPUT, &walk.bundle(lie));
    });
    assert_closed(&mut rig, &rogue, CloseReason::PositionLie);
    assert_eq!(rig.server.borrow().player_stats().lying, 1);
    rig.assert_honest_unharmed();
}

#[test]
fn inputs_that_run_ahead_of_time_are_closed_as_a_lie_and_carry_no_further() {
    let mut rig = Rig::new(|_| {});
    let mut walk = Walk::default();
    // Half as many again: under the limit of messages, over that of time.
    let rogue = add(&mut rig, 90, move |turn| {
        walk.step(turn);
        turn.send_once(INPUT, &walk.bundle(|input| input));
    });
    let own = rogue.borrow().own().unwrap();
    let (tick, applied) = {
        let server = rig.server.borrow();
        (server.world().tick(), server.world().standing(own).unwrap().applied)
    };
    while let Some(standing) = { rig.server.borrow().world().standing(own) } {
        let ticks = u64::from(rig.server.borrow().world().tick() - tick);
        // One an elapsed tick, 1/64 more, and the second's half that may be caught up with.
        assert!(standing.applied - applied <= ticks * 65 / 64 + 31, "after {ticks}: {standing:?}");
        rig.run_for(Duration::from_millis(10));
        assert!(rig.now().as_nanos() < LIMIT.as_nanos() as u64, "still tolerated");
    }
    assert_closed(&mut rig, &rogue, CloseReason::PositionLie);
    rig.assert_honest_unharmed();
}

#[test]
fn a_false_claim_now_and_then_is_corrected_and_borne() {
    let mut rig = Rig::new(|_| {});
    let mut walk = Walk::default();
    let rogue = add(&mut rig, 60, move |turn| {
        walk.step(turn);
        let lie = |input: Input| {
            let far = if input.sequence.is_multiple_of(60) { 50.0 } else { 0.0 };
            Input { claimed: moved(input.claimed, far), ..input }
        };
        turn.send_once(INPUT, &walk.bundle(lie));
    });
    rig.run_for(Duration::from_secs(10));
    assert_eq!(rogue.borrow().closed(), None);
    assert!(rig.server.borrow().player_stats().corrected >= 5);
    rig.assert_honest_unharmed();
}

#[test]
fn numbers_from_the_end_of_time_spoil_no_count() {
    let mut rig = Rig::new(|_| {});
    let rogue = add(&mut rig, 60, |turn| {
        let sequence = u32::MAX - turn.number as u32 % 2;
        let last = Input { sequence, claimed: ClaimedPosition::NONE, ..Input::default() };
        turn.send_once(INPUT, &encoded(&InputBundle::new(0, [last].into_iter()).unwrap()));
    });
    let before = rig.server.borrow().player_stats().clone();
    rig.run_for(Duration::from_secs(1));
    let after = rig.server.borrow().player_stats().clone();
    let lost = (after.inputs_expected - before.inputs_expected)
        .saturating_sub(after.inputs - before.inputs);
    assert!(lost < 2_000, "{lost} inputs count as lost");
    assert_eq!(rogue.borrow().closed(), None);
    rig.assert_honest_unharmed();
}

/// Lets a rogue send what `nonsense` sends a few times, which is borne, and then without end, which
/// is closed as a violation.
fn assert_nonsense_is_closed(nonsense: impl Fn(&mut Turn<'_>) + Copy + 'static) {
    const FEW: u64 = OFFENCES_FORGIVEN / 2;
    const PAUSE: u64 = 600;
    let mut rig = Rig::new(|_| {});
    let rogue = add(&mut rig, 200, move |turn| {
        if !(FEW..PAUSE).contains(&turn.number) {
            nonsense(turn);
        }
    });
    rig.run_for(Duration::from_millis(2_500));
    assert_eq!(rogue.borrow().closed(), None, "a few are forgiven");
    let malformed = rig.server.borrow().player_stats().malformed;
    assert!((FEW / 2..=FEW).contains(&malformed), "{malformed} of {FEW} were counted");
    assert_closed(&mut rig, &rogue, CloseReason::ProtocolViolation);
    let malformed = rig.server.borrow().player_stats().malformed;
    assert!(malformed > FEW + OFFENCES_FORGIVEN, "{malformed} were counted");
    rig.assert_honest_unharmed();
}

#[test]
fn malformed_inputs_are_closed_as_a_violation() {
    assert_nonsense_is_closed(|turn| {
        let bytes = [turn.number as u8; 100];
        turn.send_once(INPUT, &bytes[..turn.number as usize % 100]);
    });
}

#[test]
fn malformed_events_are_closed_as_a_violation() {
    assert_nonsense_is_closed(|turn| {
        let mut bytes = action(turn, 1);
        match turn.number % 4 {
            0 => bytes.truncate(turn.number as usize % bytes.len()),
            1 => bytes.push(0),
            2 => bytes[0] = 200,
            // An entity id without a generation.
            _ => bytes[5..9].fill(0),
        }
        turn.queue(EVENTS, &bytes);
    });
}

#[test]
fn messages_on_channels_of_others_are_closed_as_a_violation() {
    assert_nonsense_is_closed(|turn| {
        let sequenced = Channel { delivery: Delivery::Sequenced, ..INPUT };
        let unordered = Channel { delivery: Delivery::Unordered, ..EVENTS };
        let sure_input = Channel { delivery: Delivery::Ordered, ..INPUT };
        let bulk = Channel { delivery: Delivery::Ordered, stream: StreamId::BULK };
        let bytes = action(turn, 1);
        match turn.number % 5 {
            0 => turn.send_once(STATE, &bytes),
            1 => turn.send_once(sequenced, &bytes),
            2 => turn.queue(unordered, &bytes),
            3 => turn.queue(sure_input, &bytes),
            _ => turn.queue(bulk, &bytes),
        }
    });
}

#[test]
fn messages_of_64_kib_are_malformed_events_like_any_others() {
    let mut rig = Rig::new(|_| {});
    let rogue = add(&mut rig, 20, |turn| turn.queue(EVENTS, &[1; 65_536]));
    rig.run_for(Duration::from_secs(5));
    assert_eq!(rogue.borrow().closed(), None, "fewer than are forgiven");
    let malformed = rig.server.borrow().player_stats().malformed;
    assert!(malformed > 5, "{malformed} arrived");
    rig.assert_honest_unharmed();
}
