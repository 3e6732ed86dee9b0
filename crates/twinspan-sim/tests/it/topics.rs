//! Topics in the memory of simulated hosts.

use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_provider::{
    TopicInbox, TopicJoinError, TopicOptions, TopicOutbox, TopicPolicy, TopicProvider,
    TopicPublishError, TopicTakeError, conformance,
};
use twinspan_sim::scenario::{Board, Scenario};
use twinspan_sim::sweep::sweep;
use twinspan_sim::{FaultPlan, Rates, Sim, SimConfig, SimEnv, TOPICS_MAX};

use crate::echo::ip;

const MINUTE: Duration = Duration::from_secs(60);

fn host() -> (Sim, SimEnv) {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    (sim, env)
}

fn strike(sim: &mut Sim, kind: FaultKind) {
    sim.plan_faults(FaultPlan::Drawn(Rates::new().with(kind, 1.0)));
}

#[test]
fn the_simulated_topics_conform() {
    let (mut sim, env) = host();
    let inner = env.clone();
    let ended = sim.block_on(&env, MINUTE, async move {
        conformance::topics::all(&inner, &inner, "conformance").await;
    });
    assert_eq!(ended, Some(()));
}

#[test]
fn a_topic_ends_at_its_host_and_with_it() {
    let (mut sim, env) = host();
    let other = sim.host("other", ip(2));
    let options = TopicOptions::new(8);
    let mut out = env.publish_to("topic", &options).unwrap();
    let mut here = env.subscribe_to("topic", &options).unwrap();
    let mut elsewhere = other.subscribe_to("topic", &options).unwrap();
    out.try_publish(b"here").unwrap();
    let mut room = Vec::new();
    assert!(here.try_take(&mut room).unwrap().is_some());
    assert!(elsewhere.try_take(&mut room).unwrap().is_none());
    sim.stop_host(ip(1));
    assert_eq!(out.try_publish(b"gone"), Err(TopicPublishError::Gone));
    assert_eq!(here.try_take(&mut room), Err(TopicTakeError::Gone));
    let refused = env.subscribe_to("topic", &options).map(|_| ());
    assert!(matches!(refused, Err(TopicJoinError::HostStopped)));
    let again = sim.host("node", ip(1));
    let mut anew = again.subscribe_to("topic", &options).unwrap();
    assert!(anew.try_take(&mut room).unwrap().is_none(), "memory is gone with its host");
}

#[test]
fn a_publisher_that_is_killed_while_it_writes_leaves_all_that_was_complete() {
    let (mut sim, env) = host();
    let options = TopicOptions::new(8);
    let mut inbox = env.subscribe_to("topic", &options).unwrap();
    let mut out = env.publish_to("topic", &options).unwrap();
    out.try_publish(b"one").unwrap();
    strike(&mut sim, FaultKind::TopicTorn);
    assert_eq!(out.try_publish(b"two"), Err(TopicPublishError::Gone));
    assert_eq!(out.try_publish(b"three"), Err(TopicPublishError::Gone));
    assert_eq!(sim.faults().effect(FaultKind::TopicTorn), 1);
    let mut room = Vec::new();
    assert!(inbox.try_take(&mut room).unwrap().is_some());
    assert_eq!(room, b"one");
    assert_eq!(inbox.try_take(&mut room).unwrap(), None, "half of a message is none");
}

#[test]
fn a_holder_that_is_killed_gives_its_blocks_back() {
    let (mut sim, env) = host();
    let options =
        TopicOptions { blocks: 2, policy: TopicPolicy::Block, ..TopicOptions::new(5_000) };
    let mut out = env.publish_to("topic", &options).unwrap();
    let mut inbox = env.subscribe_to("topic", &options).unwrap();
    let (long, mut room) = (vec![7; 5_000], Vec::new());
    out.try_publish(&long).unwrap();
    let held = inbox.try_hold(&mut room).unwrap();
    out.try_publish(&long).unwrap();
    assert_eq!(out.try_publish(&long), Err(TopicPublishError::Full));
    strike(&mut sim, FaultKind::TopicHolder);
    assert_eq!(inbox.try_hold(&mut room).map(|_| ()), Err(TopicTakeError::Gone));
    assert_eq!(sim.faults().effect(FaultKind::TopicHolder), 1);
    sim.plan_faults(FaultPlan::None);
    for _ in 0..5 {
        out.try_publish(&long).unwrap();
    }
    drop(held);
    out.try_publish(&long).unwrap();
}

#[test]
fn a_sample_that_outlives_its_topic_is_none_of_the_next_one() {
    let (_sim, env) = host();
    let options =
        TopicOptions { blocks: 2, policy: TopicPolicy::Block, ..TopicOptions::new(5_000) };
    let join = || {
        (env.publish_to("topic", &options).unwrap(), env.subscribe_to("topic", &options).unwrap())
    };
    let (long, mut room) = (vec![7; 5_000], Vec::new());
    let (mut out, mut inbox) = join();
    out.try_publish(&long).unwrap();
    let first = inbox.try_hold(&mut room).unwrap().unwrap();
    drop((out, inbox));
    let (mut out, mut inbox) = join();
    out.try_publish(&long).unwrap();
    let held = inbox.try_hold(&mut room).unwrap().unwrap();
    assert_ne!(first.0.publisher, held.0.publisher, "another publisher");
    out.try_publish(&long).unwrap();
    assert_eq!(out.try_publish(&long), Err(TopicPublishError::Full));
    drop(first);
    assert_eq!(out.try_publish(&long), Err(TopicPublishError::Full), "nothing of it is free");
    drop(held);
    out.try_publish(&long).unwrap();
}

#[test]
fn a_join_that_is_refused_leaves_no_topic_behind() {
    let (mut sim, env) = host();
    strike(&mut sim, FaultKind::TopicMemory);
    for number in 0..=TOPICS_MAX {
        let topic = number.to_string();
        let refused = env.publish_to(&topic, &TopicOptions::new(8)).map(|_| ());
        assert!(matches!(refused, Err(TopicJoinError::Memory(_))), "{number}: {refused:?}");
    }
}

#[test]
fn memory_may_be_refused_and_asked_for_again() {
    let (mut sim, env) = host();
    strike(&mut sim, FaultKind::TopicMemory);
    let refused = env.publish_to("topic", &TopicOptions::new(8)).map(|_| ());
    assert!(matches!(refused, Err(TopicJoinError::Memory(_))), "{refused:?}");
    sim.heal_faults();
    assert!(env.publish_to("topic", &TopicOptions::new(8)).is_ok());
}

#[test]
fn a_subscriber_that_stalls_misses_what_is_overwritten_and_is_woken_after() {
    let (mut sim, env) = host();
    let options = TopicOptions { slots: 4, ..TopicOptions::new(8) };
    let mut out = env.publish_to("topic", &options).unwrap();
    let mut inbox = env.subscribe_to("topic", &options).unwrap();
    strike(&mut sim, FaultKind::TopicStall);
    let mut room = Vec::new();
    assert_eq!(inbox.try_take(&mut room), Ok(None));
    sim.plan_faults(FaultPlan::None);
    for number in 0..10_u64 {
        out.try_publish(&number.to_le_bytes()).unwrap();
    }
    assert_eq!(inbox.try_take(&mut room), Ok(None), "it stalls");
    assert_eq!(sim.faults().effect(FaultKind::TopicStall), 1);
    let taken = sim.block_on(&env, MINUTE, async move {
        std::future::poll_fn(|cx| inbox.poll_take(cx, &mut room)).await
    });
    let taken = taken.unwrap().unwrap();
    assert_eq!((taken.number, taken.lost), (7, 7));
}

#[test]
fn promises_of_the_board_are_kept_with_every_seed() {
    let report = sweep(&Board, 0..150, |_, _| true);
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
    assert!(!Board.marks().is_empty());
}
