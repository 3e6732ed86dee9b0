//! The world under planned faults, for sweeps and shrinking.

use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_sim::scenario::{Case, Scenario, Verdict};

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

    /// What a link may do to datagrams, and what a kernel may do to sockets. A session ends when its
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
        ]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[]
    }

    fn play(&self, case: &Case) -> Verdict {
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
        let mut verdict = None;
        let plan = case.plan();
        let outcome = scenario.run_watched(
            |sim| sim.plan_faults(plan),
            |sim, settled_after, broken| {
                verdict = Some(Verdict::of(sim, case, settled_after, broken));
            },
        );
        match (verdict, outcome) {
            (Some(verdict), _) => verdict,
            (None, outcome) => {
                let sim = twinspan_sim::Sim::new(case.options.config());
                let broken = outcome.err().map(|error| error.to_string()).into_iter().collect();
                Verdict::of(&sim, case, Duration::ZERO, broken)
            }
        }
    }
}
