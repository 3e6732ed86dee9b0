//! Circuits under planned faults, for sweeps and shrinking.

use std::net::IpAddr;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_sim::Sim;
use twinspan_sim::scenario::{Case, Scenario, Verdict, Watch};

use super::proxy::{Associations, PROXY_IP, RESTORED};
use super::{CircuitScenario, FirstNumbers, PLAYERS_TO_WRAP, Run, WRAPPED, client_ip};

/// Virtual time under faults: enough for journeys, and for one of them to fail.
const FAULT_TIME: Duration = Duration::from_secs(12);

/// Agents on a small grid, with the promises of [`CircuitScenario`], some of them behind a proxy.
/// Nobody is cut off by hand: what happens to links, and to the proxy, is planned.
#[derive(Clone, Copy, Debug)]
pub struct PlannedCircuit;

impl Scenario for PlannedCircuit {
    fn name(&self) -> &'static str {
        "circuit"
    }

    /// What happens to datagrams, links and sockets, to the proxy and to the connections that keep
    /// its associations. Second Life's packets have neither a tag nor a checksum of their own, so
    /// that bytes that changed on their way, which UDP drops, would be taken for what was said. No
    /// other host stops: a region that is gone is gone with its agents.
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
            K::ProxyRefuse,
            K::ProxyDrop,
            K::Crash,
            K::GracefulStop,
            K::ConnectRefuse,
            K::ConnectHang,
            K::StreamReset,
            K::HalfOpen,
        ]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[WRAPPED, RESTORED]
    }

    fn play_watched(&self, case: &Case, watch: &mut dyn Watch) -> Verdict {
        let options = &case.options;
        let Conditions { delay, jitter, .. } = options.config().conditions;
        let players = options.size("players_to_wrap", PLAYERS_TO_WRAP, 0..=2_000);
        let regions = options.size("regions_to_wrap", 0, 0..=2_000);
        let scenario = CircuitScenario {
            // Six at most.
            clients: options.size("clients", 3, 1..=6) as u32,
            duration: FAULT_TIME,
            seed: options.seed,
            conditions: Some(Conditions { delay, jitter, ..Conditions::CLEAN }),
            proxied: Some(options.size("proxied", 0, 0..=6) as u32),
            numbers: Some(FirstNumbers::before_wrap(players, regions)),
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
        let Associations { made, lost, failed } = self.associations.get();
        let text = format!("{made} associations made, {lost} lost, {failed} that were not made");
        let proxy = self.proxy.as_ref().map(|_| (PROXY_IP, text));
        players.chain(regions).chain(proxy)
    }
}
