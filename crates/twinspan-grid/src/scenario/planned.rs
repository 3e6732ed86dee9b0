//! Circuits under planned faults, for sweeps and shrinking.

use std::net::IpAddr;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_sim::Sim;
use twinspan_sim::scenario::{Case, Scenario, Verdict, Watch};

use super::{CircuitScenario, Run, client_ip};

/// Virtual time under faults: enough for journeys, and for one of them to fail.
const FAULT_TIME: Duration = Duration::from_secs(12);

/// Agents on a small grid, with the promises of [`CircuitScenario`]. Nobody is cut off by hand: what
/// happens to links is planned.
#[derive(Clone, Copy, Debug)]
pub struct PlannedCircuit;

impl Scenario for PlannedCircuit {
    fn name(&self) -> &'static str {
        "circuit"
    }

    /// What happens to datagrams, links and sockets. Second Life's packets have neither a tag nor a
    /// checksum of their own, so that bytes that changed on their way, which UDP drops, would be
    /// taken for what was said. No host stops: a region that is gone is gone with its agents.
    fn kinds(&self) -> Vec<FaultKind> {
        use FaultKind as K;
        vec![
            K::Loss,
            K::LossBurst,
            K::Duplicate,
            K::Reorder,
            K::DelaySpike,
            K::Unreachable,
            K::Spoof,
            K::Replay,
            K::PartitionOneWay,
            K::PartitionPair,
            K::ClogSend,
            K::ClogReceive,
            K::Bandwidth,
            K::Flap,
            K::ShortSend,
            K::SendStall,
            K::NoBuffers,
            K::SpuriousWake,
            K::SlowConsumer,
        ]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[]
    }

    fn play_watched(&self, case: &Case, watch: &mut dyn Watch) -> Verdict {
        let Conditions { delay, jitter, .. } = case.options.config().conditions;
        let scenario = CircuitScenario {
            // Six at most.
            clients: case.options.size("clients", 3, 1..=6) as u32,
            duration: FAULT_TIME,
            seed: case.options.seed,
            conditions: Some(Conditions { delay, jitter, ..Conditions::CLEAN }),
        };
        let mut run = match Run::new(&scenario, |sim| watch.begin(sim)) {
            Ok(run) => run,
            Err(error) => {
                let sim = Sim::new(case.options.config());
                return Verdict::of(&sim, case, Duration::ZERO, vec![error.to_string()]);
            }
        };
        run.is_cutting = false;
        run.sim.plan_faults(case.plan());
        let mut look = |run: &Run| {
            if watch.looks() {
                watch.look(&mut run.states());
            }
        };
        run.under_faults(FAULT_TIME, &mut look);
        let settled_after = run.heal(&mut look);
        run.judge();
        watch.end(&run.sim);
        Verdict::of(&run.sim, case, settled_after, std::mem::take(&mut run.broken))
    }
}

impl Run {
    /// What each player and each region is like, in words.
    fn states(&self) -> impl Iterator<Item = (IpAddr, String)> {
        let players = self.players.iter().enumerate().map(|(index, seat)| {
            let player = seat.player.borrow();
            let home = self.grid.borrow().home(player.code());
            (client_ip(index), format!("{}, at home in {home:?}", player.describe()))
        });
        let regions = self.regions.iter().filter_map(|(id, addr)| {
            let (stats, _) = self.grid.borrow().circuit_stats(*id)?;
            let text = format!(
                "{} messages in, {} out, {} sent again",
                stats.messages_in, stats.messages_out, stats.resends_out
            );
            Some((addr.ip(), text))
        });
        players.chain(regions)
    }
}
