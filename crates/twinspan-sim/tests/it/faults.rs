//! Links do what their conditions say, and every fault that is counted was seen.

use std::time::Duration;

use twinspan_core::link::{Conditions, FaultCounters, FaultKind};
use twinspan_core::time::Timestamp;
use twinspan_sim::SimConfig;

use crate::echo::{MS, World, ip, rough};

fn config(conditions: Conditions) -> SimConfig {
    SimConfig { seed: 5, conditions, short_send: 0.0, ..SimConfig::default() }
}

fn run(config: SimConfig) -> FaultCounters {
    let faults = twinspan_fence::guard(|| {
        let mut world = World::new(config, 4, 200);
        world.sim.run_for(Duration::from_secs(4));
        world.sim.faults()
    });
    faults.unwrap()
}

#[test]
fn each_fault_alone_has_an_effect_and_no_other_fault_does() {
    let clean = Conditions { delay: 5 * MS, ..Conditions::CLEAN };
    let alone = [
        (FaultKind::Loss, config(Conditions { loss: 0.1, ..clean })),
        (FaultKind::Delay, config(Conditions { jitter: 30 * MS, ..clean })),
        (FaultKind::Duplicate, config(Conditions { duplicate: 0.1, ..clean })),
        (FaultKind::Reorder, config(Conditions { reorder: 0.1, ..clean })),
        (FaultKind::Rate, config(Conditions { rate_bytes_per_s: 20_000, ..clean })),
        (FaultKind::SendStall, SimConfig { send_stall: 0.1, ..config(clean) }),
    ];
    assert_eq!(run(config(clean)), FaultCounters::default());
    for (wanted, config) in alone {
        for (kind, injected, effect) in run(config).iter() {
            let there = kind == wanted;
            assert_eq!(injected > 0, there, "{} under {wanted:?}", kind.name());
            assert_eq!(effect > 0, there, "{} under {wanted:?}", kind.name());
        }
    }
}

#[test]
fn all_faults_together_have_an_effect_each() {
    let faults = run(SimConfig { short_send: 0.2, send_stall: 0.1, ..config(rough()) });
    let kinds = [FaultKind::Loss, FaultKind::Delay, FaultKind::Duplicate, FaultKind::Reorder];
    for kind in kinds.into_iter().chain([FaultKind::Rate, FaultKind::SendStall]) {
        assert!(faults.effect(kind) > 0, "{}", kind.name());
        assert!(faults.effect(kind) <= faults.injected(kind), "{}", kind.name());
    }
}

#[test]
fn a_clean_link_takes_its_delay_to_the_nanosecond() {
    let delay = Duration::from_nanos(12_345_678);
    let mut world = World::new(config(Conditions { delay, ..Conditions::CLEAN }), 1, 3);
    world.sim.run_for(Duration::from_secs(1));
    let expected: Vec<_> = (0..3_u32)
        .map(|number| {
            (u64::from(number), Timestamp::START.after(10 * MS * (number + 1) + delay * 2))
        })
        .collect();
    assert_eq!(world.received(0), expected);
}

#[test]
fn a_partition_stops_traffic_and_heals() {
    let mut world = World::new(config(Conditions { delay: 5 * MS, ..Conditions::CLEAN }), 2, 300);
    world.sim.run_for(500 * MS);
    let before = world.received(0).len();
    assert!(before > 40);
    world.sim.partition(ip(1), ip(2));
    world.sim.run_for(Duration::from_secs(1));
    assert_eq!(world.received(0).len(), before);
    let other = world.received(1).len();
    assert!(other > 140, "the other client is not cut off: {other}");
    assert_eq!(world.sim.faults().injected(FaultKind::Partition), 2);
    assert!(world.sim.faults().effect(FaultKind::Partition) >= 100);
    world.sim.heal_all();
    world.sim.run_for(500 * MS);
    assert!(world.received(0).len() > before + 40);
}

#[test]
fn a_one_way_partition_stops_one_way() {
    let mut world = World::new(config(Conditions::CLEAN), 1, 50);
    world.sim.partition_one_way(ip(1), ip(2));
    world.sim.run_for(Duration::from_secs(1));
    assert_eq!(world.server.borrow().echoed, 50);
    assert_eq!(world.received(0), []);
    assert_eq!(world.sim.faults().effect(FaultKind::Partition), 50);
}

#[test]
fn a_partition_that_meets_no_traffic_has_no_effect() {
    let mut world = World::new(config(Conditions::CLEAN), 1, 50);
    world.sim.partition(ip(8), ip(9));
    world.sim.run_for(Duration::from_secs(1));
    let faults = world.sim.faults();
    let kind = FaultKind::Partition;
    assert_eq!((faults.injected(kind), faults.effect(kind)), (2, 0));
}

#[test]
fn a_partition_stops_what_is_on_its_way() {
    let conditions = Conditions { delay: 100 * MS, ..Conditions::CLEAN };
    let mut world = World::new(config(conditions), 1, 1);
    world.sim.run_for(50 * MS);
    assert_eq!(world.sim.in_flight(), 1);
    world.sim.partition(ip(1), ip(2));
    world.sim.run_for(Duration::from_secs(1));
    assert_eq!(world.server.borrow().echoed, 0);
    assert_eq!(world.sim.in_flight(), 0);
}

#[test]
fn one_link_can_be_unlike_the_others() {
    let mut world = World::new(config(Conditions::CLEAN), 2, 50);
    world.sim.set_link(ip(2), ip(1), Conditions { loss: 1.0, ..Conditions::CLEAN });
    world.sim.run_for(300 * MS);
    assert_eq!(world.received(0), []);
    assert!(world.received(1).len() > 25);
    world.sim.set_conditions(Conditions::CLEAN);
    world.sim.run_for(300 * MS);
    assert!(!world.received(0).is_empty());
}

#[test]
fn another_client_does_not_change_what_befalls_the_first() {
    let times = |clients| {
        let conditions = Conditions { rate_bytes_per_s: 0, ..rough() };
        let mut world = World::new(config(conditions), clients, 200);
        world.sim.run_for(Duration::from_secs(4));
        world.received(0)
    };
    let alone = times(1);
    assert!(alone.len() > 100);
    assert_eq!(alone, times(2));
    assert_eq!(alone, times(9));
}

#[test]
fn too_much_in_flight_is_dropped_and_counted() {
    let conditions = Conditions { delay: 1_000 * MS, ..Conditions::CLEAN };
    let mut world = World::new(SimConfig { in_flight_max: 10, ..config(conditions) }, 1, 50);
    world.sim.run_for(900 * MS);
    assert_eq!(world.sim.in_flight(), 10);
    assert_eq!(world.sim.faults().effect(FaultKind::QueueDrop), 40);
}

#[test]
fn no_limit_in_flight_is_a_limit_too() {
    let mut world = World::new(SimConfig { in_flight_max: usize::MAX, ..config(rough()) }, 1, 5);
    world.sim.run_for(Duration::from_secs(1));
    assert!(world.server.borrow().echoed > 0);
}
