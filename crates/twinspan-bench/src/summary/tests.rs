//! What counts as held.

use twinspan_core::time::Timestamp;

use super::*;
use crate::plan::{GeneratorReport, ServerEnd, ServerReady, ServerReport, Spread, Window};

/// A window of ten seconds with ten players, in which nothing was lost of `states_hz` states a
/// second of two messages each.
fn part(states_hz: u64) -> Part {
    let states = 10 * 10 * states_hz;
    Part {
        window: Window { from_nanos: 0, to_nanos: 10_000_000_000 },
        server: ServerReport {
            counted: Window { from_nanos: 500_000_000, to_nanos: 10_500_000_000 },
            ticks_per_state_max: 3,
            inputs: 10 * 10 * 60,
            states_scheduled: 2 * states,
            states,
            ..ServerReport::default()
        },
        generator: GeneratorReport { joined: 10, states: 2 * states, ..GeneratorReport::default() },
        flood: None,
    }
}

fn summary(part: Part) -> Summary {
    summary_of(part, false)
}

fn summary_of(part: Part, relay: bool) -> Summary {
    let options = Options {
        players: 10,
        seconds: 10,
        world: true,
        scenario: Scenario::Uniform,
        flows: 1,
        cipher: None,
        state_bytes: 0,
        relay,
        floor: relay,
        realtime: false,
    };
    let ready = ServerReady {
        address: ([127, 0, 0, 1], 1).into(),
        epoch_nanos: 0,
        io_path: String::new(),
        gro: false,
        priority: String::new(),
        tokens: Vec::new(),
        resident_bytes: 0,
    };
    let end = ServerEnd::default();
    let world = World { ready, parts: vec![part], end, stolen_ms: 0, late_ticks_stolen: 0 };
    Summary::new(&Facts {
        options: &options,
        cores: 2,
        world: &world,
        floor: None,
        idle_bytes: None,
        assembly: None,
        relay_ratio: None,
    })
}

#[test]
fn twenty_states_a_second_are_held() {
    let summary = summary(part(20));
    assert_eq!(summary.states_per_client_second, 20.0);
    assert_eq!((summary.stretch_factor_mean, summary.stretch_factor_max), (1.0, Some(1.0)));
    assert!(summary.held && summary.broken.is_empty(), "{summary:?}");
    assert!(summary.text().contains("held       yes\npromises   all kept\n"), "{}", summary.text());
}

#[test]
fn states_made_less_often_are_not_held_though_all_of_them_came() {
    let mut part = part(10);
    part.server.ticks_per_state_max = 9;
    let summary = summary(part);
    assert_eq!(summary.state_delivered_ratio, 1.0);
    assert_eq!(summary.states_per_client_second, 10.0);
    assert_eq!((summary.stretch_factor_mean, summary.stretch_factor_max), (2.0, Some(3.0)));
    assert!(!summary.held, "{summary:?}");
    let text = summary.text();
    let wanted =
        "held       no: 10.00 states a second and player, not 20; made 2.00 times less often\n";
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("10.00 of them a second and player, made up to 3.00 times less often"));
}

/// 400 states that come for visitors, who come late: 380 of them while the server counts.
fn late_visits() -> Spread {
    let mut visits = Spread::over(Window { from_nanos: 0, to_nanos: 11_000_000_000 });
    for (count, at_millis) in [(15, 400), (5, 499), (100, 500), (100, 7_000), (180, 10_490)] {
        let at = Timestamp::from_nanos(at_millis * 1_000_000);
        (0..count).for_each(|_| visits.note(at));
    }
    visits
}

#[test]
fn states_of_visitors_who_left_are_nobodys_loss() {
    let mut part = part(20);
    // A tenth more, most of it at the end.
    part.generator.visitor_states = late_visits();
    part.server.states_scheduled += 380;
    part.server.states += 190;
    let summary = summary(part);
    assert_eq!(summary.state_delivered_ratio, 1.0);
    assert_eq!((summary.states_per_client_second, summary.stretch_factor_mean), (20.0, 1.0));
    assert!(summary.held && summary.broken.is_empty(), "{summary:?}");
}

#[test]
fn a_state_that_a_player_lost_is_lost_whoever_visits() {
    let mut part = part(20);
    part.generator.visitor_states = late_visits();
    part.server.states_scheduled += 380;
    part.generator.states -= 100;
    let summary = summary(part);
    assert_eq!(summary.state_delivered_ratio, 0.975);
    assert!(!summary.held);
}

#[test]
fn a_name_is_said_once() {
    let json = serde_json::to_value(summary(part(20))).unwrap();
    for (name, is_there) in
        [("players_requested", true), ("players", false), ("steal_ms", true), ("stolen_ms", false)]
    {
        assert_eq!(json.get(name).is_some(), is_there, "{name}");
    }
}

#[test]
fn a_long_wait_is_no_kept_promise() {
    let mut part = part(20);
    part.server.up.p99_ms = 50.0;
    let summary = summary(part);
    assert!(!summary.held, "{summary:?}");
    assert!(!summary.text().contains("all kept"), "{}", summary.text());
    assert!(summary.text().contains("held       no: p99 50.0 ms, not under 50\n"));
}

#[test]
fn behind_relays_it_is_said_why_there_is_no_floor() {
    let behind = summary_of(part(20), true);
    assert!(
        behind.floor_missing.is_some() && behind.text().contains("floor      none: what a bare")
    );
    let direct = summary(part(20));
    assert!(direct.floor_missing.is_none() && !direct.text().contains("none:"));
}
