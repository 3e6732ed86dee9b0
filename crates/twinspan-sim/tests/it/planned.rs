//! Planned faults: each has an effect on its victim, their list gives the run again, sweeps find what
//! breaks and shrinking leaves what matters.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::link::{FaultFamily, FaultKind};
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    NetworkProvider, TaskProvider, TimeProvider, Timer, UdpOptions, UdpSocket,
};
use twinspan_sim::scenario::{
    Board, Case, Echo, Hosted, Partition, Planted, Running, Scenario, Vault, events_between,
    planned_kinds,
};
use twinspan_sim::shrink::shrink;
use twinspan_sim::swarm::Options;
use twinspan_sim::sweep::{COVERAGE_SEEDS_MIN, sweep};
use twinspan_sim::victims::prove;
use twinspan_sim::{FaultPlan, OnPanic, Rates, Sim, SimConfig, SimTask, Start};

#[test]
fn each_fault_alone_changes_its_victim_and_has_an_effect_and_none_when_it_is_absent() {
    let failing: Vec<_> =
        FaultKind::ALL.into_iter().map(prove).filter(|proof| !proof.holds()).collect();
    assert!(failing.is_empty(), "{failing:#?}");
}

#[test]
fn the_catalogue_has_eighty_faults_of_eight_families() {
    assert!(FaultKind::ALL.len() >= 80);
    let mut families: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.family()).collect();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), 8);
}

#[test]
fn a_run_given_its_own_faults_is_the_same_run() {
    for scenario in [&Echo as &dyn Scenario, &Partition, &Vault] {
        for seed in 0..60 {
            let drawn = scenario.play(&Case::drawn(scenario, seed));
            let lines: Vec<_> = drawn.struck.iter().map(ToString::to_string).collect();
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let listed = scenario.play(&Case::listed(&drawn.options, &lines).unwrap());
            let parted = drawn.struck.iter().zip(&listed.struck).position(|(a, b)| a != b);
            let at = parted.unwrap_or(drawn.struck.len().min(listed.struck.len()));
            assert_eq!(
                listed.struck.get(at),
                drawn.struck.get(at),
                "seed {seed} at {at}: {}",
                drawn.options
            );
            assert_eq!(listed.trace_hash, drawn.trace_hash, "seed {seed}");
            assert_eq!(listed.faults, drawn.faults, "seed {seed}");
        }
    }
}

#[test]
fn promises_are_kept_with_every_seed() {
    for scenario in [&Echo as &dyn Scenario, &Partition, &Vault] {
        let report = sweep(scenario, 0..150, |_, _| true);
        assert_eq!(report.failed, 0, "{:#?}", report.failures);
    }
}

#[test]
fn a_sweep_that_is_long_enough_shows_every_fault_and_each_pair_of_families() {
    let mut pairs = BTreeSet::new();
    for scenario in [&Echo as &dyn Scenario, &Vault] {
        let report = sweep(scenario, 0..COVERAGE_SEEDS_MIN, |_, _| true);
        assert!(report.is_good(), "{:#?} {:#?}", report.failures, report.never);
        assert!(report.pairs.values().all(|runs| *runs > 0), "{:?}", report.pairs);
        pairs.extend(report.pairs.into_keys());
    }
    let families = FaultFamily::ALL.len();
    assert_eq!(pairs.len(), families * (families - 1) / 2);
}

#[test]
fn every_planned_fault_is_in_some_scenario() {
    let scenarios = [&Echo as &dyn Scenario, &Vault, &Board];
    let kinds: BTreeSet<_> = scenarios.iter().flat_map(|scenario| scenario.kinds()).collect();
    let missing: Vec<_> =
        planned_kinds(&[]).into_iter().filter(|kind| !kinds.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A client that asks until it is answered, whose server may be deaf.
struct Answered {
    is_deaf: bool,
}

impl Hosted for Answered {
    fn name(&self) -> &'static str {
        "answered"
    }

    fn kinds(&self) -> Vec<FaultKind> {
        vec![FaultKind::Loss]
    }

    fn settle_time(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn start(&self, sim: &mut Sim, _: &Options) -> Box<dyn Running> {
        let [server, client] = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 7)));
        let is_answered = Rc::new(Cell::new(false));
        let (is_deaf, env) = (self.is_deaf, sim.host("server", server.ip()));
        let inner = env.clone();
        let answers = env.spawn("answers", async move {
            let mut socket = inner.bind_udp(server, &UdpOptions::default()).await.unwrap();
            let mut received = DatagramBatch::new(8);
            while poll_fn(|cx| socket.poll_recv(cx, &mut received)).await.is_ok() {
                while !is_deaf && !received.is_empty() {
                    poll_fn(|cx| socket.poll_send(cx, &mut received)).await.unwrap();
                }
                received.clear();
            }
        });
        let (env, told) = (sim.host("client", client.ip()), Rc::clone(&is_answered));
        let inner = env.clone();
        let asks = env.spawn("asks", async move {
            let mut socket = inner.bind_udp(client, &UdpOptions::default()).await.unwrap();
            let (mut batch, mut timer) = (DatagramBatch::new(8), inner.timer());
            while !told.get() {
                let mut packet = socket.pool().take().unwrap();
                assert!(packet.fill(b"there?"));
                batch.push(Datagram { peer: server, at: inner.now(), packet }).unwrap();
                poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.unwrap();
                timer.set(Some(inner.now().after(Duration::from_millis(100))));
                let heard = poll_fn(|cx| match socket.poll_recv(cx, &mut batch) {
                    Poll::Ready(_) => Poll::Ready(true),
                    Poll::Pending => timer.poll_expired(cx).map(|()| false),
                });
                told.set(heard.await);
                batch.clear();
            }
        });
        Box::new(Answering { is_answered, _tasks: [answers, asks] })
    }
}

struct Answering {
    is_answered: Rc<Cell<bool>>,
    _tasks: [SimTask; 2],
}

impl Running for Answering {
    fn is_settled(&self) -> bool {
        self.is_answered.get()
    }

    fn unsettled(&self) -> String {
        "the question is not answered".into()
    }

    fn broken(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn every_run_ends_healed_and_what_does_not_settle_in_time_is_a_failure() {
    let case = || Case { options: "seed=3 loss=1".parse().unwrap(), faults: None };
    let verdict = Answered { is_deaf: false }.play(&case());
    assert!(verdict.is_kept(), "{:?}", verdict.broken);
    // Nothing came through before: it is the healing that lets it settle.
    let struck = verdict.faults.effect(FaultKind::Loss);
    assert!(struck >= 29, "{struck}");
    assert!(verdict.settled_after < Duration::from_millis(200), "{:?}", verdict.settled_after);
    let verdict = Answered { is_deaf: true }.play(&case());
    assert_eq!(verdict.broken, ["the question is not answered 5s after the healing"]);
    assert_eq!(verdict.settled_after, Duration::from_secs(5));
    let report = sweep(&Answered { is_deaf: true }, 0..3, |_, _| true);
    assert_eq!((report.failed, report.is_good()), (3, false));
}

#[test]
fn a_defect_that_needs_two_of_a_thousand_faults_is_shrunk_to_them() {
    let case = |seed| {
        let rates = "loss=0.03 duplicate=0.3 reorder=0.3 spoof=0.3";
        let options = format!("seed={seed} {rates} messages=1200");
        Case { options: options.parse().unwrap(), faults: None }
    };
    let case = (1..100).map(case).find(|case| !Planted.play(case).is_kept()).unwrap();
    let shrunk = shrink(&Planted, &case).unwrap();
    assert!(shrunk.before >= 1_000, "{} faults", shrunk.before);
    assert!(shrunk.is_least);
    assert_eq!(shrunk.kinds(), [FaultKind::Loss; 2], "{:?}", shrunk.faults);
    // The test that it prints fails, and without either fault it does not.
    let lines: Vec<_> = shrunk.faults.iter().map(ToString::to_string).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let with = |lines: &[&str]| Planted.play(&Case::listed(&shrunk.options, lines).unwrap());
    assert_eq!(with(&lines).broken, shrunk.broken);
    assert!(with(&lines[..1]).is_kept());
    assert!(with(&lines[1..]).is_kept());
    let test = shrunk.regression_test("twinspan_sim::scenario::Planted");
    assert!(test.starts_with("#[test]\nfn planted_seed_"), "{test}");
    assert!(lines.iter().all(|line| test.contains(line)));
}

/// A host whose task panics when it has run for so long, and how often it was started.
fn fragile(on_panic: OnPanic) -> (Sim, Rc<Cell<u32>>) {
    let mut sim = Sim::new(SimConfig { seed: 9, on_panic, ..SimConfig::default() });
    let starts = Rc::new(Cell::new(0));
    let told = Rc::clone(&starts);
    sim.boot("fragile", IpAddr::from([10, 0, 0, 1]), move |env, _| {
        told.set(told.get() + 1);
        let first = told.get() == 1;
        let inner = env.clone();
        vec![env.spawn("worker", async move {
            let mut timer = inner.timer();
            timer.set(Some(inner.now().after(Duration::from_millis(3))));
            poll_fn(|cx| timer.poll_expired(cx)).await;
            assert!(!first, "the first start is bad");
        })]
    });
    (sim, starts)
}

#[test]
fn a_panic_is_the_crash_of_its_host_and_says_how_to_see_it_again() {
    let (mut sim, starts) = fragile(OnPanic::CrashHost);
    sim.run_for(Duration::from_secs(2));
    let panics = sim.panics();
    let [panic] = panics.as_slice() else { panic!("{panics:?}") };
    assert_eq!((panic.task, panic.host.as_str(), panic.seed), ("worker", "fragile", 9));
    assert_eq!(panic.at, Timestamp::from_nanos(3_000_000));
    let text = panic.to_string();
    let start = "task \"worker\" of host \"fragile\" (10.0.0.1) panicked at 0.003000000s: \
                 the first start is bad (seed 9, ";
    assert!(text.starts_with(start), "{text}");
    // It started again, and the simulation went on.
    assert_eq!(starts.get(), 2);
    assert_eq!(sim.now(), Timestamp::from_nanos(2_000_000_000));
}

#[test]
#[should_panic(
    expected = "task \"worker\" of host \"fragile\" (10.0.0.1) panicked at 0.003000000s"
)]
fn a_panic_that_is_raised_names_its_task_and_host() {
    fragile(OnPanic::Raise).0.run_for(Duration::from_secs(2));
}

#[test]
fn a_host_that_was_stopped_starts_again_with_what_it_is_given() {
    let mut sim = Sim::new(SimConfig::default());
    let ip = IpAddr::from([10, 0, 0, 1]);
    let starts = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&starts);
    sim.boot("node", ip, move |_, start| {
        told.borrow_mut().push(start);
        Vec::new()
    });
    assert!(!sim.start_again(ip, Start::Kept), "it runs");
    assert!(sim.stop_host(ip));
    assert!(sim.start_again(ip, Start::Old));
    assert!(!sim.start_again(IpAddr::from([10, 0, 0, 2]), Start::Kept), "nobody is there");
    assert_eq!(*starts.borrow(), [Start::First, Start::Old]);
}

#[test]
fn an_always_that_does_not_hold_is_told_with_its_host() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", IpAddr::from([10, 0, 0, 1]));
    let task = env.spawn("checks", async {
        for number in 0..3 {
            twinspan_sim::always!(number < 2, "numbers are small");
            twinspan_sim::sometimes!(number == 1, "one comes by");
        }
        assert!(!twinspan_sim::buggify!("nothing"), "no plan asks for it");
    });
    sim.run_for(Duration::from_millis(1));
    drop(task);
    let broken = sim.broken_marks();
    let [mark] = broken.as_slice() else { panic!("{broken:?}") };
    assert_eq!((mark.site.name, mark.host.as_str()), ("numbers are small", "node"));
    let counts: Vec<_> =
        sim.marks().iter().map(|mark| (mark.site.name, mark.met, mark.held)).collect();
    assert_eq!(counts, [("nothing", 1, 0), ("numbers are small", 3, 2), ("one comes by", 3, 1)]);
}

#[test]
fn what_led_to_a_moment_is_told_in_words() {
    let case = || Case { options: "seed=3 loss=1".parse().unwrap(), faults: None };
    let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
    let scenario = Answered { is_deaf: false };
    let lines = events_between(&scenario, &case(), at(200)..at(400));
    // Asked at 200 and 300 ms, and lost both times.
    let with = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    let flow = "flow=10.0.0.2:7 > 10.0.0.1:7";
    assert_eq!((with(&format!(" send {flow} number=2 ")), with(" send ")), (1, 2), "{lines:#?}");
    assert_eq!((with("cause=loss"), with(" timer fired ")), (2, 2), "{lines:#?}");
    let first = lines.first().unwrap();
    assert!(first.contains(" 0.200000000 s "), "{first}");
    assert!(lines.iter().all(|line| line.contains(" 0.2") || line.contains(" 0.3")));
    assert_eq!(events_between(&scenario, &case(), at(200)..at(400)), lines);
    assert_eq!(events_between(&scenario, &case(), at(400)..at(400)), [""; 0]);
}

#[test]
fn a_healed_simulation_has_no_further_faults() {
    let mut sim = Sim::new(Options::plain(3).config());
    let rates =
        planned_kinds(&[]).into_iter().fold(Rates::new(), |rates, kind| rates.with(kind, 0.05));
    sim.plan_faults(FaultPlan::Drawn(rates));
    let running = Echo.start(&mut sim, &Options::plain(3));
    sim.run_for(Duration::from_millis(1_500));
    sim.heal_faults();
    let struck = sim.struck();
    assert!(struck.len() > 50, "{}", struck.len());
    sim.run_for(Duration::from_secs(30));
    assert_eq!(sim.struck(), struck);
    assert!(running.is_settled(), "{}", running.unsettled());
}
