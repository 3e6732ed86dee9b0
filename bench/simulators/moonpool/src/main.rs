//! The echo on moonpool-sim: `moonpool-echo SECONDS`.
//!
//! Its world and its executor alone, without the runner that checks invariants after each event, and
//! with its chaos off.

#![forbid(unsafe_code)]

use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use meter::{CLIENTS, Count, DELAY_MAX, DELAY_MIN, MESSAGE_BYTES, Meter, Outcome, SEED, WARM_UP};
use moonpool_sim::executor::{Executor, spawn, until_stalled};
use moonpool_sim::{
    ChaosConfiguration, LatencyDistribution, NetworkConfiguration, NetworkProvider,
    SimNetworkProvider, SimWorld, TcpListenerTrait,
};

const SERVER: &str = "10.0.1.0:4000";
/// One connection at a time may wait to be accepted at an address, so clients do not come at once.
const CONNECT_SPACING: Duration = Duration::from_millis(5);

/// Takes connections and sends back what they say, each in a task of its own.
async fn serve(network: SimNetworkProvider) {
    let Ok(listener) = network.bind(SERVER).await else { return };
    while let Ok((mut stream, _)) = listener.accept().await {
        drop(spawn("connection", async move {
            let mut message = [0; MESSAGE_BYTES];
            while stream.read_exact(&mut message).await.is_ok()
                && stream.write_all(&message).await.is_ok()
            {}
        }));
    }
}

/// Says something and waits until it is back, for ever.
async fn talk(network: SimNetworkProvider, begins: Duration, count: Count) {
    let Ok(sleep) = network.sleep(begins) else { return };
    if sleep.await.is_err() {
        return;
    }
    let Ok(mut stream) = network.connect(SERVER).await else { return };
    let mut message = [7; MESSAGE_BYTES];
    while stream.write_all(&message).await.is_ok() && stream.read_exact(&mut message).await.is_ok()
    {
        count.add_round_trip();
    }
}

fn main() -> Outcome {
    let seconds = meter::seconds()?;
    let at_once = || LatencyDistribution::Uniform { start: Duration::ZERO, end: Duration::ZERO };
    // A write takes effect at the other end after its latency.
    let config = NetworkConfiguration {
        bind_latency: at_once(),
        accept_latency: at_once(),
        connect_latency: at_once(),
        read_latency: at_once(),
        write_latency: LatencyDistribution::Uniform { start: DELAY_MIN, end: DELAY_MAX },
        chaos: ChaosConfiguration::disabled(),
    };
    let mut sim = SimWorld::new_with_network_config_and_seed(config, SEED);
    let network = sim.network_provider();
    let count = Count::default();
    Executor::new(SEED).block_on(async {
        drop(spawn("serve", serve(network.clone())));
        for number in 1..=CLIENTS {
            let begins = CONNECT_SPACING * u32::from(number);
            drop(spawn("talk", talk(network.clone(), begins, count.clone())));
        }
        until_stalled().await;
        run(&mut sim, WARM_UP).await;
        let meter = Meter::begin(&count);
        run(&mut sim, seconds).await;
        meter.end("moonpool-sim 0.8.0", seconds)
    })
}

/// Lets the simulation run for `time`.
async fn run(sim: &mut SimWorld, time: Duration) {
    let until = sim.current_time() + time;
    while sim.current_time() < until {
        let more = sim.step();
        until_stalled().await;
        if !more && !sim.has_pending_events() {
            return;
        }
    }
}
