//! How real the simulator is: one piece of code in the simulator and between two network namespaces of
//! this machine, with the same delay, jitter, rate and loss between.
//!
//! The namespaces are joined by two tun devices that `twinspan proxy` carries with the link model of the
//! simulator. As a control that does not use that model's draws, the loss is also made by iptables. What
//! is compared: the goodput of a sealed session that sends all it can, and the median and 99th
//! percentile of how long requests take that are sent again until they are answered.

mod ends;
mod real;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use twinspan_core::link::Conditions;
use twinspan_provider::TaskProvider;
use twinspan_sim::{Sim, SimConfig};

use crate::error::BenchError;

pub use real::run_part;

/// Everything that is drawn in the simulator is drawn from this.
const SEED: u64 = 1;
/// The addresses of the two ends, in the simulator and between namespaces.
const SERVER: [u8; 4] = [10, 77, 0, 1];
const CLIENT: [u8; 4] = [10, 77, 0, 2];
/// Where the session is, and where requests are answered.
const BULK_PORT: u16 = 7_000;
const ECHO_PORT: u16 = 7_001;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct RealismOptions {
    /// Seconds of requests, and seconds of the session.
    pub seconds: u64,
    /// The delay of either way, in milliseconds.
    pub delay_ms: u64,
    /// What comes on top at most, evenly.
    pub jitter_ms: u64,
    /// The share of datagrams that either way loses, 0 to 1.
    pub loss: f64,
    /// Bytes a second of either way.
    pub rate_bytes_per_s: u64,
}

impl RealismOptions {
    /// Either way.
    fn conditions(self) -> Conditions {
        Conditions {
            loss: self.loss,
            delay: Duration::from_millis(self.delay_ms),
            jitter: Duration::from_millis(self.jitter_ms),
            rate_bytes_per_s: self.rate_bytes_per_s,
            queue_bytes_max: QUEUE_BYTES,
            ..Conditions::CLEAN
        }
    }
}

/// The queue in front of either way's rate.
const QUEUE_BYTES: u64 = 100_000;

/// What one world came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Bytes of messages a second.
    pub goodput_bytes_per_s: f64,
    /// How long half of the requests took at most, in milliseconds.
    pub p50_ms: f64,
    /// The same of 99 in a hundred.
    pub p99_ms: f64,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were sent.
    pub asked: u64,
}

/// The simulator's figures divided by the real ones: 1 is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratios {
    /// Of goodput.
    pub goodput: f64,
    /// Of the median.
    pub p50: f64,
    /// Of the 99th percentile.
    pub p99: f64,
}

impl Ratios {
    fn of(simulated: &Measured, real: &Measured) -> Self {
        let ratio = |one: f64, other: f64| if other > 0.0 { one / other } else { f64::NAN };
        Self {
            goodput: ratio(simulated.goodput_bytes_per_s, real.goodput_bytes_per_s),
            p50: ratio(simulated.p50_ms, real.p50_ms),
            p99: ratio(simulated.p99_ms, real.p99_ms),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct RealismSummary {
    /// In the simulator.
    pub simulated: Measured,
    /// Between namespaces, with the link model of the proxy.
    pub real: Option<Measured>,
    /// The same with loss by iptables.
    pub control: Option<Measured>,
    /// The simulator against the one.
    pub ratios: Option<Ratios>,
    /// Against the other.
    pub control_ratios: Option<Ratios>,
    /// Why there is nothing to compare with, if so.
    pub skipped: Option<String>,
    /// Why there is no control, if so.
    pub control_skipped: Option<String>,
}

/// Measures both worlds.
///
/// # Errors
/// [`BenchError`] when a process cannot be run; where namespaces are not permitted, the summary says so.
pub fn run(options: RealismOptions) -> Result<RealismSummary, BenchError> {
    let simulated = simulate(options)?;
    let mut summary = RealismSummary {
        simulated,
        real: None,
        control: None,
        ratios: None,
        control_ratios: None,
        skipped: real::unavailable(),
        control_skipped: None,
    };
    if summary.skipped.is_some() {
        return Ok(summary);
    }
    let real = real::measure(options, options.conditions(), None)?;
    summary.real = Some(real);
    summary.ratios = Some(Ratios::of(&simulated, &real));
    summary.control_skipped = real::control_unavailable();
    if summary.control_skipped.is_none() {
        let conditions = Conditions { loss: 0.0, ..options.conditions() };
        let control = real::measure(options, conditions, Some(options.loss))?;
        summary.control = Some(control);
        summary.control_ratios = Some(Ratios::of(&simulated, &control));
    }
    Ok(summary)
}

/// The same ends in the simulator.
fn simulate(options: RealismOptions) -> Result<Measured, BenchError> {
    let config = SimConfig {
        seed: SEED,
        conditions: options.conditions(),
        short_send: 0.0,
        ..SimConfig::default()
    };
    let mut sim = Sim::new(config);
    let [server, client] =
        [(SERVER, "server"), (CLIENT, "client")].map(|(ip, name)| sim.host(name, ip.into()));
    let serving = server.spawn("serve", {
        let env = server.clone();
        async move {
            // It ends with the simulation; a server that cannot be is a client without answers.
            let _ = ends::serve(&env, SERVER.into()).await;
        }
    });
    let limit = Duration::from_secs(10 * options.seconds + 60);
    let env = client.clone();
    let asking =
        async move { ends::ask(&env, CLIENT.into(), SERVER.into(), options.seconds).await };
    let measured = sim.block_on(&client, limit, asking);
    drop(serving);
    measured.unwrap_or(Err(BenchError::Ended { name: "realism-part" }))
}

fn address(ip: std::net::IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Shared by both worlds: what came of the session.
type Delivered = Rc<twinspan_game::scenario::bulk::Delivered>;

impl RealismSummary {
    /// For people.
    pub fn text(&self) -> String {
        let line = |name: &str, measured: &Measured| {
            let Measured { goodput_bytes_per_s, p50_ms, p99_ms, answered, asked } = measured;
            format!(
                "{name:<10} {:.3} MB/s, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, {answered} of {asked} \
                 requests answered\n",
                goodput_bytes_per_s / 1e6
            )
        };
        let ratios = |name: &str, Ratios { goodput, p50, p99 }: &Ratios| {
            format!(
                "{name:<10} goodput {goodput:.3}, p50 {p50:.3}, p99 {p99:.3} of the real ones\n"
            )
        };
        let mut text = line("simulated", &self.simulated);
        if let (Some(real), Some(of)) = (&self.real, &self.ratios) {
            text += &line("real", real);
            text += &ratios("ratios", of);
        }
        if let (Some(control), Some(of)) = (&self.control, &self.control_ratios) {
            text += &line("control", control);
            text += &ratios("ratios", of);
        }
        for (name, why) in [("skipped", &self.skipped), ("no control", &self.control_skipped)] {
            if let Some(why) = why {
                text += &format!("{name:<10} {why}\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_ends_see_the_link_that_they_are_given() {
        let options = RealismOptions {
            seconds: 4,
            delay_ms: 20,
            jitter_ms: 4,
            loss: 0.01,
            rate_bytes_per_s: 1_000_000,
        };
        let measured = simulate(options).unwrap();
        assert_eq!(simulate(options).unwrap(), measured);
        assert!((43.0..46.0).contains(&measured.p50_ms), "{measured:?}");
        assert!((200.0..300.0).contains(&measured.p99_ms), "{measured:?}");
        let goodput = measured.goodput_bytes_per_s;
        assert!((50_000.0..1_000_000.0).contains(&goodput), "{measured:?}");
        let real = Measured { p50_ms: 50.0, ..measured };
        assert!((Ratios::of(&measured, &real).p50 - measured.p50_ms / 50.0).abs() < 1e-9);
    }
}
