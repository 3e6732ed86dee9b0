//! Runs of datagrams that a kernel splits and joins, and marks of congestion.

use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::packet::Ecn;
use twinspan_provider::{Offload, UdpOptions, UdpSocket};
use twinspan_sim::topology::{LinkSpec, Queue, Topology};
use twinspan_sim::{FaultPlan, Rates, Sim, SimConfig};

use crate::echo::{MS, ip};
use crate::sockets::{bind, queue, receive, send};

fn config() -> SimConfig {
    SimConfig { seed: 3, short_send: 0.0, ..SimConfig::default() }
}

/// Four datagrams that make a run, one to another peer, a pair, and what fits no run.
const LENGTHS: [usize; 10] = [100, 100, 100, 40, 100, 70, 70, 90, 0, 0];
/// The first four, and the pair.
const IN_RUNS: u64 = 6;

/// What a socket with these options says after it has sent them, by how many calls, with the
/// simulation.
fn sent(
    options: UdpOptions,
    plan: FaultPlan,
) -> (Sim, twinspan_provider::SocketReport, Vec<usize>) {
    let mut sim = Sim::new(config());
    sim.plan_faults(plan);
    let env = sim.host("node", ip(1));
    let sender = bind(&mut sim, &env, "10.0.0.1:0", options).unwrap();
    let others =
        ["10.0.0.1:1", "10.0.0.1:2"].map(|local| bind(&mut sim, &env, local, options).unwrap());
    let bytes = [7; 100];
    let all: Vec<&[u8]> = LENGTHS.iter().map(|len| &bytes[..*len]).collect();
    let mut batch = queue(&sender, others[0].local_addr(), &all);
    if let Some(fifth) = batch.iter_mut().nth(4) {
        fifth.peer = others[1].local_addr();
    }
    let (sender, taken) = send(&mut sim, &env, sender, batch);
    sim.run_for(MS);
    // Whatever becomes of runs, datagrams come as they were sent.
    let [one, other] = others;
    let (one, received) = receive(&mut sim, &env, one, 64);
    let lengths: Vec<_> = received.iter().map(|datagram| datagram.packet.len()).collect();
    drop(received);
    assert_eq!(lengths, [100, 100, 100, 40, 70, 70, 90, 0, 0]);
    assert_eq!(receive(&mut sim, &env, other, 64).1.len(), 1);
    let report = sender.report();
    drop((one, sender));
    (sim, report, taken)
}

#[test]
fn runs_are_split_by_the_kernel_where_that_is_asked_for() {
    let (_, report, taken) = sent(UdpOptions::default(), FaultPlan::None);
    assert_eq!((report.segmentation, report.packets_segmented), (Offload::On, IN_RUNS));
    assert_eq!(taken, [LENGTHS.len()]);
    let alone = UdpOptions { segment_sends: false, ..UdpOptions::default() };
    let (_, report, _) = sent(alone, FaultPlan::None);
    assert_eq!((report.segmentation, report.packets_segmented), (Offload::Off, 0));
}

#[test]
fn a_refused_run_goes_one_by_one_and_the_report_says_so() {
    let plan = || FaultPlan::Drawn(Rates::new().with(FaultKind::RunRefused, 1.0));
    let (sim, report, taken) = sent(UdpOptions::default(), plan());
    assert_eq!((report.segmentation, report.packets_segmented), (Offload::Refused, 0));
    // The refusal takes the first datagram alone, and there is none to refuse after it.
    assert_eq!(taken, [1, LENGTHS.len() - 1]);
    let faults = sim.faults();
    assert_eq!(
        (faults.injected(FaultKind::RunRefused), faults.effect(FaultKind::RunRefused)),
        (1, 1)
    );
    // Given as a list it is the same run, and another one than without.
    let again = sent(UdpOptions::default(), FaultPlan::Listed(sim.struck())).0;
    assert_eq!(again.trace_hash(), sim.trace_hash());
    let clean = sent(UdpOptions::default(), FaultPlan::None).0;
    assert_ne!(clean.trace_hash(), sim.trace_hash());
    // Who leaves no runs to the kernel has none refused.
    let alone = UdpOptions { segment_sends: false, ..UdpOptions::default() };
    let (sim, report, _) = sent(alone, plan());
    assert_eq!(
        (report.segmentation, sim.faults().injected(FaultKind::RunRefused)),
        (Offload::Off, 0)
    );
}

/// How many of `lengths` are received when they come together where four have room: twice, because
/// what was taken leaves its places.
fn kept(coalesce_receives: bool, lengths: &[usize]) -> [usize; 2] {
    let mut sim = Sim::new(SimConfig { receive_queue_datagrams_max: 4, ..config() });
    let env = sim.host("node", ip(1));
    let mut sender = bind(&mut sim, &env, "10.0.0.1:0", UdpOptions::default()).unwrap();
    let options = UdpOptions { coalesce_receives, ..UdpOptions::default() };
    let mut receiver = bind(&mut sim, &env, "10.0.0.1:0", options).unwrap();
    let wanted = if coalesce_receives { Offload::On } else { Offload::Off };
    assert_eq!(receiver.report().coalescing, wanted);
    let (bytes, mut dropped) = ([1; 1_500], 0);
    [(); 2].map(|()| {
        let all: Vec<&[u8]> = lengths.iter().map(|len| &bytes[..*len]).collect();
        let batch = queue(&sender, receiver.local_addr(), &all);
        let spare = bind(&mut sim, &env, "10.0.0.1:0", options).unwrap();
        sender = send(&mut sim, &env, std::mem::replace(&mut sender, spare), batch).0;
        sim.run_for(MS);
        let spare = bind(&mut sim, &env, "10.0.0.1:0", options).unwrap();
        let (socket, received) =
            receive(&mut sim, &env, std::mem::replace(&mut receiver, spare), 256);
        receiver = socket;
        let came: Vec<_> = received.iter().map(|datagram| datagram.packet.len()).collect();
        let lost = sim.faults().effect(FaultKind::ReceiveDrop) as usize - dropped;
        dropped += lost;
        assert_eq!((came.len() + lost, &came[..]), (lengths.len(), &lengths[..came.len()]));
        came.len()
    })
}

#[test]
fn datagrams_that_come_together_are_joined_where_that_is_asked_for() {
    assert_eq!(kept(false, &[100; 20]), [4; 2]);
    // Twenty of one length are one run, and so is a shorter one at the end of each.
    assert_eq!(kept(true, &[100; 20]), [20; 2]);
    assert_eq!(kept(true, &[100, 100, 60, 100, 100, 60, 9, 9, 9, 9]), [10; 2]);
    // What is longer begins another run, and an empty one is no part of any.
    assert_eq!(kept(true, &[10, 20, 30, 40, 50]), [4; 2]);
    assert_eq!(kept(true, &[0; 8]), [4; 2]);
    // A run has so many datagrams and bytes at most.
    assert_eq!(kept(true, &[10; 64 * 4 + 1]), [64 * 4; 2]);
    assert_eq!(kept(true, &[1_500; 43 * 4 + 1]), [43 * 4; 2]);
}

/// What came over a line that takes too little for half a second, by marks, and what its queue did.
fn over_a_slow_line(ecn: bool, reads: bool) -> ([usize; 4], Sim) {
    let mut sim = Sim::new(config());
    let line = LinkSpec { queue: Queue::codel(1 << 20), ..LinkSpec::rated(100_000, MS) };
    let topology = Topology::new().host("near", ip(1)).host("far", ip(2));
    let back = LinkSpec::CLEAN;
    let topology = topology.link("line", "near", "far", line).link("back", "far", "near", back);
    sim.set_topology(topology).unwrap();
    let options = |ecn| UdpOptions { ecn, pool_packets: 2_048, ..UdpOptions::default() };
    let (near, far) = (sim.host("near", ip(1)), sim.host("far", ip(2)));
    let mut sender = bind(&mut sim, &near, "10.0.0.1:5", options(ecn)).unwrap();
    let receiver = bind(&mut sim, &far, "10.0.0.2:5", options(reads)).unwrap();
    assert_eq!((sender.report().ecn, receiver.report().ecn), (ecn, reads));
    for number in 0..600 {
        let batch = queue(&sender, receiver.local_addr(), &[&[1; 1_000][..]]);
        let spare = bind(&mut sim, &near, "10.0.0.1:0", options(false)).unwrap();
        sender = send(&mut sim, &near, std::mem::replace(&mut sender, spare), batch).0;
        // A tenth too much, and then none.
        sim.run_for(Duration::from_micros(if number < 599 { 9_000 } else { 5_000_000 }));
    }
    let (_receiver, received) = receive(&mut sim, &far, receiver, 2_048);
    let mut counts = [0; 4];
    received.iter().for_each(|one| counts[usize::from(one.packet.ecn().bits())] += 1);
    (counts, sim)
}

#[test]
fn a_queue_marks_datagrams_that_may_be_marked_and_drops_others() {
    let ([plain, _, capable, marked], sim) = over_a_slow_line(true, true);
    let report = sim.link_report("line").unwrap();
    assert_eq!((plain, plain + capable + marked), (0, 600));
    assert_eq!((report.queue_early, report.marked), (0, marked as u64));
    assert!(marked > 20 && capable > 100, "{marked} of {capable}");
    // Who does not ask for it hears of no mark, and who does not ask for it loses some instead.
    assert_eq!(over_a_slow_line(true, false).0, [600, 0, 0, 0]);
    let ([plain, capable1, capable, marked], sim) = over_a_slow_line(false, true);
    let report = sim.link_report("line").unwrap();
    assert_eq!((capable1, capable, marked, report.marked), (0, 0, 0, 0));
    assert!(report.queue_early > 10, "{report:?}");
    assert_eq!(plain as u64 + report.queue_early, 600);
}

#[test]
fn a_planned_mark_befalls_datagrams_that_may_be_marked_alone() {
    let run = |ecn, plan| {
        let mut sim = Sim::new(config());
        sim.plan_faults(plan);
        let (near, far) = (sim.host("near", ip(1)), sim.host("far", ip(2)));
        let options = UdpOptions { ecn, ..UdpOptions::default() };
        let sender = bind(&mut sim, &near, "10.0.0.1:5", options).unwrap();
        let receiver = bind(&mut sim, &far, "10.0.0.2:5", options).unwrap();
        let batch = queue(&sender, receiver.local_addr(), &[&[1; 9][..]; 40]);
        let _sender = send(&mut sim, &near, sender, batch);
        sim.run_for(100 * MS);
        let (_receiver, received) = receive(&mut sim, &far, receiver, 64);
        assert_eq!(received.len(), 40);
        let marked = received.iter().filter(|one| one.packet.ecn() == Ecn::Congested).count();
        drop(received);
        let (hash, faults, struck) = (sim.trace_hash(), sim.faults(), sim.struck());
        (marked as u64, hash, faults, struck)
    };
    let plan = || FaultPlan::Drawn(Rates::new().with(FaultKind::EcnMark, 0.3));
    let (marked, hash, faults, struck) = run(true, plan());
    assert!((4..30).contains(&marked), "{marked}");
    assert_eq!(faults.effect(FaultKind::EcnMark), marked);
    assert_eq!(struck.len() as u64, marked);
    let (again, same, ..) = run(true, FaultPlan::Listed(struck));
    assert_eq!((again, same), (marked, hash));
    assert_ne!(run(true, FaultPlan::None).1, hash, "who comes marked is part of the trace");
    let (marked, _, faults, _) = run(false, plan());
    assert_eq!((marked, faults.injected(FaultKind::EcnMark)), (0, 0));
}
