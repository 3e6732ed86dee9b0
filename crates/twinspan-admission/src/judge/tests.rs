use super::*;
use proptest::prelude::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn judge(text: &str) -> Judge {
    Judge::new(&Rules::parse(text).unwrap())
}

fn hits(judge: &Judge) -> Vec<(&str, Action, u64, u64)> {
    judge.rows().iter().map(|row| (&*row.rule, row.action, row.hits, row.acted)).collect()
}

const MESSAGES: &str = r#"
[[message]]
name = "all"
stream = 9
per_second = 10
burst = 10
points = 2
action = "throttle"
[[message]]
name = "jumps"
stream = 9
kind = 4
bytes_max = 20
per_second = 1
burst = 1
points = 0
action = "shadow"
"#;

const SCORES: &str = r#"
[[score]]
name = "floods"
signal = "flooding"
decay_per_second = 10
steps = [
    { above = 9, action = "throttle" },
    { above = 19, action = "shadow" },
    { above = 29, action = "disconnect" },
    { above = 39, action = "ban", ban_s = 60 },
]
"#;

#[test]
fn a_message_obeys_every_rule_about_it() {
    let mut judge = judge(MESSAGES);
    let mut conduct = Conduct::default();
    assert_eq!(judge.on_message(at(0), &mut conduct, 9, 4, 20), Ruling::Pass);
    assert_eq!(judge.on_message(at(0), &mut conduct, 9, 4, 20), Ruling::Shadow);
    assert_eq!(
        judge.on_message(at(5_000), &mut conduct, 9, 4, 21),
        Ruling::Drop { cause: Signal::Malformed },
        "too long"
    );
    let passed =
        (0..20).filter(|_| judge.on_message(at(5_000), &mut conduct, 9, 5, 1) == Ruling::Pass);
    assert_eq!(passed.count(), 9);
    assert_eq!(judge.on_message(at(5_000), &mut conduct, 10, 4, 99), Ruling::Pass, "no rule");
    let rows = [("all", Action::Throttle, 11, 11), ("jumps", Action::Shadow, 2, 2)];
    assert_eq!(hits(&judge), rows);
}

#[test]
fn connections_do_not_share_their_rates() {
    let mut judge = judge(MESSAGES);
    let (mut a, mut b) = (Conduct::default(), Conduct::default());
    for _ in 0..20 {
        judge.on_message(at(0), &mut a, 9, 0, 1);
    }
    assert_eq!(judge.on_message(at(0), &mut b, 9, 0, 1), Ruling::Pass);
}

#[test]
fn a_score_climbs_its_steps_and_comes_down_again() {
    let mut judge = judge(&format!("{MESSAGES}{SCORES}"));
    let mut conduct = Conduct::default();
    let mut seen = Vec::new();
    for _ in 0..60 {
        let ruling = judge.on_message(at(0), &mut conduct, 9, 0, 1);
        if seen.last() != Some(&ruling) {
            seen.push(ruling);
        }
    }
    let (cause, length) = (Signal::Flooding, Duration::from_secs(60));
    let wanted = [
        Ruling::Pass,
        Ruling::Drop { cause },
        Ruling::Disconnect { cause },
        Ruling::Ban { cause, length },
    ];
    assert_eq!(seen, wanted);
    let floods: Vec<_> = hits(&judge).into_iter().filter(|row| row.0 == "floods").collect();
    assert!(floods.iter().all(|row| row.2 == 1), "each step once: {floods:?}");
    // Two points a message, ended at twice the highest step: 79, and ten decay in a second.
    assert!((judge.points(at(0), &conduct, cause) - 79.0).abs() < 0.01);
    assert!((judge.points(at(6_500), &conduct, cause) - 14.0).abs() < 0.01);
    // Above nine it is throttled: four for one.
    let passed = |judge: &mut Judge, conduct: &mut Conduct, ms| {
        (0..8).filter(|_| judge.on_message(at(ms), conduct, 9, 0, 1) == Ruling::Pass).count()
    };
    let mut other = conduct.clone();
    assert_eq!(passed(&mut judge, &mut other, 6_500), 2);
    assert_eq!(passed(&mut judge, &mut conduct, 7_000), 8, "below every step");
}

#[test]
fn a_shadowed_sender_is_not_slowed_down() {
    let mut judge = judge(&format!("{MESSAGES}{SCORES}"));
    let mut conduct = Conduct::default();
    judge.on_signal(at(0), &mut conduct, Signal::Flooding, 25);
    let rulings: Vec<_> = (0..10).map(|_| judge.on_message(at(0), &mut conduct, 9, 0, 1)).collect();
    assert_eq!(rulings, [Ruling::Shadow; 10]);
}

#[test]
fn movement_has_the_points_that_the_world_says() {
    let mut judge = judge(
        "[[score]]\nname = \"m\"\nsignal = \"movement\"\n\
         steps = [{ above = 59, action = \"shadow\" }, { above = 119, action = \"disconnect\" }]\n",
    );
    let mut conduct = Conduct::default();
    assert_eq!(judge.on_movement(&mut conduct, 59), Ruling::Pass);
    assert_eq!(judge.on_message(at(0), &mut conduct, 1, 0, 1), Ruling::Pass);
    assert_eq!(judge.on_movement(&mut conduct, 60), Ruling::Pass);
    assert_eq!(judge.on_message(at(0), &mut conduct, 1, 0, 1), Ruling::Shadow);
    let cause = Signal::Movement;
    assert_eq!(judge.on_movement(&mut conduct, 120), Ruling::Disconnect { cause });
    assert_eq!(judge.on_movement(&mut conduct, 121), Ruling::Disconnect { cause });
    assert_eq!(judge.on_movement(&mut conduct, 0), Ruling::Pass);
    assert_eq!(judge.on_message(at(0), &mut conduct, 1, 0, 1), Ruling::Pass);
    let rows = [("m", Action::Shadow, 1, 1), ("m", Action::Disconnect, 1, 1)];
    assert_eq!(hits(&judge), rows);
}

#[test]
fn a_dry_run_counts_what_it_would_have_done() {
    let mut judge = judge(&format!("dry_run = true\n{MESSAGES}{SCORES}"));
    let mut conduct = Conduct::default();
    for _ in 0..60 {
        assert_eq!(judge.on_message(at(0), &mut conduct, 9, 4, 99), Ruling::Pass);
    }
    for (rule, action, hits, acted) in hits(&judge) {
        // Too long is no flood, so that score stays where it was but for the general rule's share.
        assert!(hits > 0, "{rule} {action:?}");
        assert_eq!(acted, 0);
    }
}

#[test]
fn a_rule_that_stays_keeps_what_is_owed_and_a_new_one_owes_nothing() {
    let mut judge = judge(MESSAGES);
    let mut conduct = Conduct::default();
    for _ in 0..20 {
        judge.on_message(at(0), &mut conduct, 9, 4, 1);
    }
    let renamed = MESSAGES.replace("\"jumps\"", "\"leaps\"");
    judge.replace(&Rules::parse(&renamed).unwrap());
    assert_eq!(
        judge.on_message(at(0), &mut conduct, 9, 0, 1),
        Ruling::Drop { cause: Signal::Flooding },
        "still owed"
    );
    assert_eq!(judge.on_message(at(200), &mut conduct, 9, 4, 1), Ruling::Pass, "a new rule");
    judge.replace(&Rules::parse(MESSAGES).unwrap());
    assert_eq!(judge.on_message(at(400), &mut conduct, 9, 4, 1), Ruling::Pass, "new once more");
    judge.replace(&Rules::none());
    assert_eq!(judge.on_message(at(400), &mut conduct, 9, 4, 1), Ruling::Pass);
    assert!(judge.rows().is_empty());
}

#[test]
fn the_default_rules_forgive_a_second_s_worth_of_offences() {
    let mut judge = Judge::new(&Rules::default());
    let mut conduct = Conduct::default();
    let cause = Signal::Malformed;
    for offence in 1..=101 {
        let ruling = judge.on_signal(at(0), &mut conduct, cause, 1);
        let wanted = if offence > 100 { Ruling::Disconnect { cause } } else { Ruling::Pass };
        assert_eq!(ruling, wanted, "{offence}");
    }
    let mut conduct = Conduct::default();
    for second in 0..60 {
        for _ in 0..100 {
            let ruling = judge.on_signal(at(second * 1_000), &mut conduct, cause, 1);
            assert_eq!(ruling, Ruling::Pass, "a hundred a second are borne for ever");
        }
    }
}

proptest! {
    #[test]
    fn the_default_rules_never_rule_against_who_keeps_its_rates(
        jitter in prop::collection::vec(0_u64..500, 600),
    ) {
        let mut judge = Judge::new(&Rules::default());
        let mut conduct = Conduct::default();
        // Sixty inputs a second, each late by up to half a second, in the order of arrival.
        let mut arrivals: Vec<_> =
            (0_u64..).zip(jitter).map(|(number, late)| number * 1_000 / 60 + late).collect();
        arrivals.sort_unstable();
        for ms in arrivals {
            prop_assert_eq!(judge.on_message(at(ms), &mut conduct, 1, 0, 100), Ruling::Pass);
        }
    }

    #[test]
    fn anything_can_be_asked(
        steps in prop::collection::vec((any::<u64>(), any::<u8>(), any::<u8>(), 0_usize..70_000), 1..200),
    ) {
        let mut judge = judge(&format!("{MESSAGES}{SCORES}"));
        let mut conduct = Conduct::default();
        for (nanos, stream, kind, bytes) in steps {
            let now = Timestamp::from_nanos(nanos);
            let _ = judge.on_message(now, &mut conduct, stream, kind, bytes);
            let _ = judge.on_signal(now, &mut conduct, Signal::Action, u32::from(kind));
            let _ = judge.on_movement(&mut conduct, bytes as u32);
        }
    }
}
