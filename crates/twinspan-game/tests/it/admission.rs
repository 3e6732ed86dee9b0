//! The admission filter at work: rules of a file rule over players who earn it, and the honest ones
//! do not notice.

use std::time::Duration;

use twinspan_admission::{DEFAULT_RULES, Rules};
use twinspan_game::EVENTS;
use twinspan_session::{CloseReason, RefuseReason, SessionConfig};
use twinspan_world::Flags;
use twinspan_world::event::{ActionOutcome, ClientEvent};

use crate::rig::{BOTS, Rig, Shared, address, shared};
use crate::rogue::{Rogue, Turn};

const ROGUE: u32 = BOTS + 1;

fn rules(change: impl Fn(&str) -> String) -> Rules {
    Rules::parse(&change(DEFAULT_RULES)).unwrap()
}

fn rig(rules: Rules) -> Rig {
    Rig::new(|config| config.admission.rules = rules)
}

fn launch(rig: &mut Rig, host: u32, act: impl FnMut(&mut Turn<'_>) + 'static) -> Shared<Rogue> {
    let session = rig.session(host, SessionConfig::default());
    let rogue = shared(Rogue::new(session, 200, act));
    rig.launch(address(host), rogue.clone());
    rogue
}

/// Sends what nobody can decode.
fn nonsense(turn: &mut Turn<'_>) {
    turn.queue(EVENTS, &[200]);
}

/// A rule's hits and how often it acted.
fn count(rig: &Rig, rule: &str) -> (u64, u64) {
    let stats = rig.stats();
    let rows = stats.admission.rules.iter().filter(|row| &*row.rule == rule);
    rows.fold((0, 0), |(hits, acted), row| (hits + row.hits, acted + row.acted))
}

#[test]
fn who_is_banned_comes_back_only_when_the_time_is_over() {
    let ban = |text: &str| {
        let (before, after) = text.split_once("name = \"malformed\"").unwrap();
        let after = after.replacen("\"disconnect\"", "\"ban\", ban_s = 30", 1);
        format!("{before}name = \"malformed\"{after}")
    };
    let mut rig = rig(rules(ban));
    let rogue = launch(&mut rig, ROGUE, nonsense);
    rig.wait("the rogue to be closed", |_| rogue.borrow().closed().is_some());
    assert_eq!(rogue.borrow().closed(), Some(CloseReason::ProtocolViolation));
    assert_eq!(count(&rig, "malformed"), (1, 1));
    let kinds = rig.stats().players.malformed_by;
    assert!(kinds.kind > 100 && kinds.short + kinds.trailing + kinds.value == 0, "{kinds:?}");
    // A new token is of no use to it.
    let session = rig.session(ROGUE, SessionConfig::default());
    let again = shared(Rogue::new(session, 1, |_| {}));
    rig.launch(std::net::SocketAddr::from((address(ROGUE).ip(), 5_001)), again.clone());
    rig.wait("the rogue to be refused", |_| again.borrow().closed().is_some());
    let refused = CloseReason::Refused(RefuseReason::Banned);
    assert_eq!(again.borrow().closed(), Some(refused));
    rig.run_for(Duration::from_secs(30));
    let session = rig.session(ROGUE, SessionConfig::default());
    let late = shared(Rogue::new(session, 1, |_| {}));
    rig.launch(std::net::SocketAddr::from((address(ROGUE).ip(), 5_002)), late.clone());
    rig.wait("the rogue to be let in", |_| late.borrow().own().is_some());
    assert_eq!(count(&rig, "banned-users"), (1, 1));
    rig.assert_honest_unharmed();
}

#[test]
fn a_dry_run_closes_nobody_and_counts_what_it_would_have_done() {
    let mut rig = rig(rules(|text| text.replace("dry_run = false", "dry_run = true")));
    let rogue = launch(&mut rig, ROGUE, |turn| {
        nonsense(turn);
        let mut bytes = [0; 64];
        let event = ClientEvent::ApplyEffect { action: turn.number as u32 + 1, target: turn.own };
        let len = event.encode(&mut bytes).unwrap();
        turn.queue(EVENTS, &bytes[..len]);
    });
    rig.wait("the rogue to enter", |_| rogue.borrow().own().is_some());
    rig.run_for(Duration::from_secs(5));
    assert_eq!(rogue.borrow().closed(), None);
    for rule in ["malformed", "flooding", "events"] {
        let (hits, acted) = count(&rig, rule);
        assert!(hits > 0 && acted == 0, "{rule}: {hits}, {acted}");
    }
    // The same rules, in earnest.
    let now = rig.now();
    rig.server.borrow_mut().replace_rules(now, &Rules::default());
    rig.wait("the rogue to be closed", |_| rogue.borrow().closed().is_some());
    rig.assert_honest_unharmed();
}

#[test]
fn a_shadowed_player_sees_its_actions_and_nobody_else_does() {
    let shadow = "\n[[message]]\nname = \"acts\"\nstream = \"events\"\nper_second = 0.001\nburst = 1\n\
                  points = 0\naction = \"shadow\"\n";
    let only = "[[source]]\nname = \"s\"\ncounts = \"failures\"\nnetwork = \"v4/32\"\nper_second = 1\n\
                burst = 9\naction = \"throttle\"\n";
    let mut rig = Rig::new(|config| {
        config.admission.rules = Rules::none();
        // Bots act as well: the honest ones are not to be shadowed.
        config.world.effect_cooldown_ticks = 1;
    });
    let mut target = None;
    let rogue = launch(&mut rig, ROGUE, move |turn| {
        let own = turn.own;
        let others = turn.replica.entities();
        let found = others.map(|entity| entity.id).find(|id| *id != own);
        let Some(chosen) = target.or(found) else { return };
        target = Some(chosen);
        if turn.number.is_multiple_of(100) {
            let mut bytes = [0; 64];
            let action = (turn.number / 100) as u32 + 1;
            let event = ClientEvent::ApplyEffect { action, target: own };
            let len = event.encode(&mut bytes).unwrap();
            turn.queue(EVENTS, &bytes[..len]);
        }
    });
    rig.wait("the rogue's first action", |_| rogue.borrow().outcomes().len() == 1);
    let own = rogue.borrow().own().unwrap();
    let has_effect =
        |rig: &Rig| rig.server.borrow().world().entity(own).unwrap().flags.contains(Flags::HASTE);
    assert!(has_effect(&rig), "the first one counts");
    let now = rig.now();
    let text = format!("{only}{shadow}");
    rig.server.borrow_mut().replace_rules(now, &Rules::parse(&text).unwrap());
    rig.bots.iter().for_each(|bot| bot.borrow_mut().rest());
    let before = rig.stats().players.actions_applied;
    rig.wait("further actions", |_| rogue.borrow().outcomes().len() >= 12);
    let told = rogue.borrow().outcomes().to_vec();
    assert!(
        told.iter().all(|told| matches!(told, ActionOutcome::Applied { .. })),
        "it is told that they had effect: {told:?}"
    );
    let applied = rig.stats().players.actions_applied - before;
    assert!(applied < 8, "{applied} had effect: its burst, and what the bots had under way");
    assert_eq!(rogue.borrow().closed(), None);
    assert!(!has_effect(&rig), "it is over and was not renewed");
}

#[test]
fn users_that_new_rules_ban_are_closed_at_once() {
    let mut rig = rig(Rules::default());
    let rogue = launch(&mut rig, ROGUE, |_| {});
    rig.wait("the rogue to enter", |_| rogue.borrow().own().is_some());
    let ban = format!("banned_users = [{ROGUE}]");
    let rules = rules(|text| text.replace("banned_users = []", &ban));
    let now = rig.now();
    rig.server.borrow_mut().replace_rules(now, &rules);
    rig.wait("the rogue to be closed", |_| rogue.borrow().closed().is_some());
    assert_eq!(rogue.borrow().closed(), Some(CloseReason::Kicked));
    assert_eq!(rig.stats().endpoint.closings.of(CloseReason::Kicked), 1);
    rig.assert_honest_unharmed();
}

#[test]
fn an_address_that_makes_too_many_handshakes_waits_and_gets_in_later() {
    let text = "[[source]]\nname = \"hosts\"\ncounts = \"handshakes\"\nnetwork = \"v4/24\"\n\
                per_second = 1\nburst = 8\naction = \"throttle\"\n";
    let mut rig = rig(Rules::parse(text).unwrap());
    // Six honest ones were let in at once; two of these four are, and the others wait their turn.
    let crowd: Vec<_> = (0..4).map(|number| launch(&mut rig, ROGUE + number, |_| {})).collect();
    let entered = |crowd: &[Shared<Rogue>]| {
        crowd.iter().filter(|rogue| rogue.borrow().own().is_some()).count()
    };
    rig.wait("all of them", |_| entered(&crowd) == 4);
    let stats = rig.stats();
    assert!(stats.endpoint.drops.throttled > 0);
    assert_eq!(
        count(&rig, "hosts"),
        (stats.endpoint.drops.throttled, stats.endpoint.drops.throttled)
    );
    rig.assert_honest_unharmed();
}
