//! The suite that every side of the seam passes.

use std::net::IpAddr;
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_provider::conformance;
use twinspan_sim::{DiskConditions, Sim, SimConfig, TcpMode};

/// Behind the fence: neither the suite nor the simulator calls out.
fn run(config: SimConfig, ip: &str) {
    twinspan_fence::guard(|| run_in_the_open(config, ip)).unwrap();
}

fn run_in_the_open(config: SimConfig, ip: &str) {
    let mut sim = Sim::new(config);
    let host: IpAddr = "10.0.0.1".parse().unwrap();
    let env = sim.host("node", host);
    let ip = ip.parse().unwrap();
    let limit = Duration::from_secs(600);
    let ended = sim.block_on(&env.clone(), limit, async move { conformance::all(&env, ip).await });
    assert_eq!(ended, Some(()));
}

#[test]
fn the_simulated_side_conforms_on_its_address() {
    for seed in 0..50 {
        run(SimConfig { seed, ..SimConfig::default() }, "10.0.0.1");
    }
}

#[test]
fn the_simulated_side_conforms_on_the_loopback_addresses() {
    run(SimConfig::default(), "127.0.0.1");
    run(SimConfig::default(), "::1");
}

#[test]
fn the_simulated_side_conforms_when_sockets_often_take_little_or_nothing() {
    for seed in 0..50 {
        let config = SimConfig { seed, short_send: 0.8, send_stall: 0.5, ..SimConfig::default() };
        run(config, "10.0.0.1");
    }
}

#[test]
fn the_simulated_disk_conforms() {
    for delay in [Duration::ZERO, Duration::from_millis(3)] {
        let mut sim = Sim::new(SimConfig::default());
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let env = sim.host("node", ip);
        assert!(sim.set_disk(ip, DiskConditions { delay, ..DiskConditions::default() }));
        let disk = env.disk();
        let limit = Duration::from_secs(60);
        let ended = sim.block_on(&env, limit, async move { conformance::disk::all(&disk).await });
        assert_eq!(ended, Some(()));
    }
}

fn by_segments(seed: u64) -> SimConfig {
    SimConfig { seed, tcp: TcpMode::Segments, ..SimConfig::default() }
}

#[test]
fn streams_by_segments_conform() {
    for seed in 0..20 {
        run(by_segments(seed), "10.0.0.1");
    }
    run(by_segments(0), "127.0.0.1");
    run(SimConfig { tcp_ecn: true, ..by_segments(0) }, "::1");
}

/// Streams and names alone, as datagrams may be lost; `rough` befalls what the host sends to itself.
fn streams_run(config: SimConfig, rough: Conditions) {
    let mut sim = Sim::new(config);
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    let env = sim.host("node", ip);
    sim.set_link(ip, ip, rough);
    let limit = Duration::from_secs(36_000);
    let inner = env.clone();
    let ended =
        sim.block_on(&env, limit, async move { conformance::streams::all(&inner, ip).await });
    assert_eq!(ended, Some(()));
}

#[test]
fn streams_by_segments_conform_where_segments_are_lost_doubled_and_late() {
    let ms = Duration::from_millis;
    let rough = Conditions {
        loss: 0.02,
        delay: ms(1),
        jitter: ms(2),
        duplicate: 0.02,
        reorder: 0.01,
        ..Conditions::CLEAN
    };
    for seed in 0..10 {
        streams_run(by_segments(seed), rough);
    }
}
