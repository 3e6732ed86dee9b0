//! The suite that every side of the seam passes.

use std::net::IpAddr;
use std::time::Duration;

use twinspan_provider::conformance;
use twinspan_sim::{Sim, SimConfig};

fn run(config: SimConfig, ip: &str) {
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
