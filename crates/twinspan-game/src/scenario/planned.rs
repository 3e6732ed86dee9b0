//! The world under planned faults, for sweeps and shrinking.

use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_sim::Sim;
use twinspan_sim::scenario::{Case, Scenario, Verdict, Watch};

use super::{Protection, WorldScenario};

/// Virtual time under faults after all clients have connected.
const FAULT_TIME: Duration = Duration::from_secs(2);

/// The world server, its clients and bots, with the promises of [`WorldScenario`].
#[derive(Clone, Copy, Debug)]
pub struct PlannedWorld;

impl Scenario for PlannedWorld {
    fn name(&self) -> &'static str {
        "world"
    }

    /// What a link may do to datagrams, what a kernel may do to sockets, and keys that change in the
    /// middle of it. A session ends when its
    /// peer is silent for long, so hosts and links that are gone for seconds are other scenarios'.
    fn kinds(&self) -> Vec<FaultKind> {
        use FaultKind as K;
        vec![
            K::Loss,
            K::LossBurst,
            K::Duplicate,
            K::DuplicateLate,
            K::Reorder,
            K::DelaySpike,
            K::BitFlip,
            K::ByteRun,
            K::Truncate,
            K::Unreachable,
            K::Spoof,
            K::Replay,
            K::ShortSend,
            K::SendStall,
            K::NoBuffers,
            K::SpuriousWake,
            K::Rekey,
        ]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[]
    }

    fn play_watched(&self, case: &Case, watch: &mut dyn Watch) -> Verdict {
        let Conditions { delay, jitter, .. } = case.options.config().conditions;
        let scenario = WorldScenario {
            // Twelve at most.
            clients: case.options.size("clients", 4, 1..=12) as u32,
            duration: FAULT_TIME,
            seed: case.options.seed,
            conditions: Conditions { delay, jitter, ..Conditions::CLEAN },
            protection: Protection::Tag,
            ..WorldScenario::default()
        };
        scenario.run_planned(case, watch).unwrap_or_else(|error| {
            let sim = Sim::new(case.options.config());
            Verdict::of(&sim, case, Duration::ZERO, vec![error.to_string()])
        })
    }
}
