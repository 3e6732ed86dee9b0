use super::*;

const MS: Duration = Duration::from_millis(1);

/// Sends `count` datagrams of 100 bytes, one each `every`, and plays the arrivals back in order.
fn play(link: &mut Link, flow: u64, count: u64, every: Duration) -> (Vec<Fate>, FaultCounters) {
    let mut counters = FaultCounters::default();
    let mut now = Timestamp::START;
    let mut fates = Vec::new();
    for number in 0..count {
        fates.push(link.admit(now, flow, number, 100, &mut counters));
        now = now.after(every);
    }
    let mut arrivals: Vec<_> = fates.iter().flat_map(|fate| fate.arrivals()).collect();
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals.iter().for_each(|arrival| link.arrived(flow, arrival, &mut counters));
    (fates, counters)
}

fn link_with(conditions: Conditions) -> Link {
    let mut link = Link::new(1, 2);
    link.set_conditions(conditions);
    link
}

fn first_at(fate: &Fate) -> Option<Timestamp> {
    fate.arrivals().next().map(|arrival| arrival.at)
}

#[test]
fn each_fault_alone_has_an_effect_and_no_other_fault_does() {
    let alone = [
        (FaultKind::Loss, Conditions { loss: 0.1, ..Conditions::CLEAN }),
        (FaultKind::Delay, Conditions { jitter: 30 * MS, ..Conditions::CLEAN }),
        (FaultKind::Duplicate, Conditions { duplicate: 0.1, ..Conditions::CLEAN }),
        (FaultKind::Reorder, Conditions { reorder: 0.1, ..Conditions::CLEAN }),
        (FaultKind::Rate, Conditions { rate_bytes_per_s: 10_000, ..Conditions::CLEAN }),
    ];
    for (wanted, conditions) in alone {
        let (_, counters) = play(&mut link_with(conditions), 0, 1_000, 10 * MS);
        for (kind, injected, effect) in counters.iter() {
            let there = kind == wanted;
            assert_eq!(injected > 0, there, "{} under {wanted:?}", kind.name());
            assert_eq!(effect > 0, there, "{} under {wanted:?}", kind.name());
        }
    }
}

#[test]
fn a_clean_link_delivers_everything_at_once_and_counts_nothing() {
    let (fates, counters) = play(&mut link_with(Conditions::CLEAN), 0, 100, MS);
    assert_eq!(counters, FaultCounters::default());
    let mut sent_at = Timestamp::START;
    for fate in fates {
        assert_eq!(first_at(&fate), Some(sent_at));
        sent_at = sent_at.after(MS);
    }
}

#[test]
fn shares_are_roughly_as_set() {
    let conditions = Conditions { loss: 0.2, duplicate: 0.1, reorder: 0.05, ..Conditions::CLEAN };
    let (fates, counters) = play(&mut link_with(conditions), 0, 20_000, 10 * MS);
    let lost = fates.iter().filter(|fate| matches!(fate, Fate::Lost(_))).count();
    assert!((3_700..4_300).contains(&lost), "{lost} lost");
    let duplicates = counters.effect(FaultKind::Duplicate);
    assert!((1_450..1_750).contains(&duplicates), "{duplicates} duplicates of 16,000");
    let reordered = counters.injected(FaultKind::Reorder);
    assert!((700..900).contains(&reordered), "{reordered} reordered of 16,000");
    assert!(counters.effect(FaultKind::Reorder) > reordered / 2);
}

#[test]
fn jitter_is_spread_evenly_over_its_range() {
    let conditions = Conditions { delay: 50 * MS, jitter: 100 * MS, ..Conditions::CLEAN };
    // Far apart, so that no datagram waits for its predecessor.
    let (fates, _) = play(&mut link_with(conditions), 0, 10_000, 200 * MS);
    let mut quarters = [0_u32; 4];
    let mut sent_at = Timestamp::START;
    for fate in fates {
        let took = first_at(&fate).unwrap().since(sent_at);
        assert!((50 * MS..=150 * MS).contains(&took));
        let quarter = (took - 50 * MS).as_nanos() * 4 / (100 * MS + MS / 1_000).as_nanos();
        quarters[usize::try_from(quarter).unwrap()] += 1;
        sent_at = sent_at.after(200 * MS);
    }
    assert!(quarters.iter().all(|count| (2_300..2_700).contains(count)), "{quarters:?}");
}

#[test]
fn jitter_and_loss_keep_the_order_of_a_flow() {
    let conditions = Conditions { jitter: 200 * MS, loss: 0.2, ..Conditions::CLEAN };
    let (fates, counters) = play(&mut link_with(conditions), 0, 5_000, MS);
    let arrivals: Vec<_> = fates.iter().filter_map(first_at).collect();
    assert!(arrivals.is_sorted());
    assert_eq!(counters.effect(FaultKind::Reorder), 0);
}

#[test]
fn the_copy_comes_after_the_first() {
    let conditions = Conditions { duplicate: 1.0, jitter: 5 * MS, ..Conditions::CLEAN };
    let (fates, counters) = play(&mut link_with(conditions), 0, 1_000, MS);
    for fate in fates {
        let Fate::Arrives { first, copy: Some(copy) } = fate else { panic!("{fate:?}") };
        assert!(copy.at > first.at);
        assert!(copy.at.since(first.at) <= 5 * MS + DUPLICATE_LAG_MAX);
    }
    assert_eq!(counters.effect(FaultKind::Duplicate), 1_000);
}

#[test]
fn a_limited_rate_delays_and_then_drops() {
    let conditions = Conditions {
        rate_bytes_per_s: 1_000_000,
        queue_bytes_max: 10_000,
        delay: 5 * MS,
        ..Conditions::CLEAN
    };
    let mut link = link_with(conditions);
    let mut counters = FaultCounters::default();
    let now = Timestamp::START;
    // 1,000 bytes take 1 ms each; ten of them fit the queue.
    for number in 0..12 {
        let fate = link.admit(now, 0, number, 1_000, &mut counters);
        if number < 10 {
            let took = u32::try_from(number + 1).unwrap() * MS + 5 * MS;
            assert_eq!(first_at(&fate), Some(now.after(took)));
        } else {
            assert_eq!(fate, Fate::Lost(FaultKind::QueueDrop));
        }
    }
    assert_eq!(counters.effect(FaultKind::QueueDrop), 2);
    // When it has drained, there is room again.
    let later = now.after(10 * MS);
    let fate = link.admit(later, 0, 12, 1_000, &mut counters);
    assert_eq!(first_at(&fate), Some(later.after(6 * MS)));
}

#[test]
fn an_unrelated_flow_changes_nothing() {
    let conditions = Conditions {
        loss: 0.2,
        jitter: 200 * MS,
        duplicate: 0.1,
        reorder: 0.1,
        ..Conditions::CLEAN
    };
    let (alone, _) = play(&mut link_with(conditions), 7, 1_000, MS);
    let mut shared = link_with(conditions);
    let mut counters = FaultCounters::default();
    let mut now = Timestamp::START;
    let mut beside = Vec::new();
    for number in 0..1_000 {
        shared.admit(now, 8, number * 3, 50, &mut counters);
        beside.push(shared.admit(now, 7, number, 100, &mut counters));
        shared.admit(now, 9, number, 900, &mut counters);
        now = now.after(MS);
    }
    assert_eq!(alone, beside);
}

#[test]
fn key_link_and_flow_each_change_the_fates() {
    let conditions = Conditions { loss: 0.5, ..Conditions::CLEAN };
    let fates = |key, id, flow| {
        let mut link = Link::new(key, id);
        link.set_conditions(conditions);
        play(&mut link, flow, 100, MS).0
    };
    let base = fates(1, 1, 1);
    assert_eq!(base, fates(1, 1, 1));
    for other in [fates(2, 1, 1), fates(1, 2, 1), fates(1, 1, 2)] {
        assert_ne!(base, other);
    }
}

#[test]
fn too_many_busy_flows_are_still_served() {
    let conditions = Conditions { delay: 1_000 * MS, ..Conditions::CLEAN };
    let mut link = link_with(conditions);
    let mut counters = FaultCounters::default();
    let now = Timestamp::START;
    for flow in 0..FLOWS_MAX as u64 + 10 {
        let fate = link.admit(now, flow, 0, 10, &mut counters);
        assert_eq!(first_at(&fate), Some(now.after(1_000 * MS)));
    }
    assert_eq!(link.flows.len(), FLOWS_MAX);
    link.admit(now.after(2_000 * MS), u64::MAX, 0, 10, &mut counters);
    assert_eq!(link.flows.len(), 1);
}

#[test]
fn extreme_times_do_not_wrap() {
    let conditions = Conditions { rate_bytes_per_s: 1, delay: DELAY_MAX, ..Conditions::MOBILE };
    let mut link = link_with(conditions);
    let mut counters = FaultCounters::default();
    let start = Timestamp::from_nanos(u64::MAX - 5);
    for number in 0..100 {
        for arrival in link.admit(start, 0, number, 2_000, &mut counters).arrivals() {
            assert!(arrival.at >= start);
        }
    }
}

#[test]
fn check_names_the_field_that_is_wrong() {
    for (_, preset) in Conditions::PRESETS {
        assert_eq!(preset.check(), Ok(()));
    }
    let clean = Conditions::CLEAN;
    let wrong = [
        (Conditions { loss: 1.1, ..clean }, "loss is 1.1; it is a share from 0 to 1"),
        (
            Conditions { duplicate: f64::NAN, ..clean },
            "duplicate is NaN; it is a share from 0 to 1",
        ),
        (Conditions { reorder: -0.1, ..clean }, "reorder is -0.1; it is a share from 0 to 1"),
        (Conditions { delay: 61_000 * MS, ..clean }, "delay is 61s; it is 60s at most"),
        (Conditions { jitter: 61_000 * MS, ..clean }, "jitter is 61s; it is 60s at most"),
        (
            Conditions { rate_bytes_per_s: 1, queue_bytes_max: 9, ..clean },
            "queue_bytes_max is 9; with a rate it is 2048 bytes at least",
        ),
    ];
    for (conditions, message) in wrong {
        assert_eq!(conditions.check().unwrap_err().to_string(), message);
        assert_eq!(conditions.clamped().check(), Ok(()));
    }
}

#[test]
fn presets_are_found_by_name() {
    assert_eq!(Conditions::preset("wifi"), Some(Conditions::WIFI));
    assert_eq!(Conditions::preset("carrier pigeon"), None);
}

#[test]
fn every_kind_is_at_its_index_and_has_a_name_of_its_own() {
    let mut names: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
    for (index, kind) in FaultKind::ALL.into_iter().enumerate() {
        assert_eq!(kind.index(), index);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FaultKind::ALL.len());
}

/// Recorded seeds stay valid only while these fates do.
#[test]
fn fates_are_pinned() {
    let mut link = Link::new(1, 2);
    link.set_conditions(Conditions::MOBILE);
    let (fates, _) = play(&mut link, 3, 200, MS);
    let sum = fates
        .iter()
        .flat_map(|fate| fate.arrivals())
        .fold(0, |sum, arrival| draw(sum, &[arrival.number, arrival.at.as_nanos()]));
    assert_eq!(sum, PINNED);
}
const PINNED: u64 = 17178277239840127294;

#[test]
fn a_stream_is_late_where_a_datagram_is_lost_and_keeps_its_order() {
    let conditions = Conditions { loss: 0.3, ..Conditions::WIFI };
    let times = |loss| {
        let mut link = Link::new(7, 1);
        link.set_conditions(Conditions { loss, ..conditions });
        let mut counters = FaultCounters::default();
        let times: Vec<_> = (0..200)
            .map(|number| link.admit_stream(Timestamp::START, 3, number, 100, &mut counters))
            .map(|arrival| arrival.map(|arrival| arrival.at))
            .collect();
        (times, counters.effect(FaultKind::Loss))
    };
    let (clean, none) = times(0.0);
    let (lossy, some) = times(0.3);
    assert!(none == 0 && some > 30);
    assert!(clean.iter().all(Option::is_some) && clean.is_sorted());
    let arrived: Vec<_> = lossy.iter().flatten().collect();
    assert!(arrived.len() > 190 && arrived.is_sorted());
    assert!(lossy.iter().flatten().last() > clean.iter().flatten().last());
    assert!(times(1.0).0.iter().all(Option::is_none));
}

#[test]
fn a_stream_waits_for_the_rate() {
    let mut link = Link::new(7, 1);
    link.set_conditions(Conditions { rate_bytes_per_s: 1_000, ..Conditions::CLEAN });
    let mut counters = FaultCounters::default();
    let last = (0..100).map(|number| {
        link.admit_stream(Timestamp::START, 3, number, 1_000, &mut counters).unwrap().at
    });
    assert_eq!(last.last(), Some(Timestamp::from_nanos(100_000_000_000)));
}
