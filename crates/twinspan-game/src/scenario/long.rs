//! The world for hours: faults strike all the time, and somebody looks in each virtual minute.

use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_sim::scenario::Scenario;
use twinspan_sim::{FaultPlan, Rates};

use super::{PlannedWorld, Run, ScenarioError, WorldReport, WorldScenario};

/// Faults that are written down: nobody gives those of hours back to a run.
const FAULTS_KEPT: usize = 1_024;
/// How often the caller may look.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);
/// How often each kind of planned fault strikes a datagram or a call, besides what links do anyway.
const RATE: f64 = 0.000_5;
/// The same of what holds a whole flow for up to three seconds: one in a minute and a half.
const SPIKE_RATE: f64 = 0.000_2;

impl WorldScenario {
    /// Runs for [`duration`](Self::duration) under the conditions of every link and, besides, under
    /// every planned fault that [`PlannedWorld`] keeps its promises under; `each_minute` is told
    /// after each virtual minute how much time has passed. Then all is healed and everything must
    /// settle, as in the other runs.
    ///
    /// # Errors
    /// [`ScenarioError`] when the settings cannot be.
    pub fn run_long(
        &self,
        mut each_minute: impl FnMut(Duration),
    ) -> Result<WorldReport, ScenarioError> {
        let rates = PlannedWorld.kinds().into_iter().fold(Rates::new(), |rates, kind| {
            rates.with(kind, if kind == FaultKind::DelaySpike { SPIKE_RATE } else { RATE })
        });
        let mut run = Run::new(self, |sim| {
            sim.keep_faults(FAULTS_KEPT);
            sim.plan_faults(FaultPlan::Drawn(rates));
        })?;
        // A planned fault may befall what another has lost.
        run.faults_expected = false;
        run.under_faults(Duration::ZERO);
        let mut passed = Duration::ZERO;
        while passed < self.duration {
            let step = LOOK_INTERVAL.min(self.duration - passed);
            run.run_for(step);
            passed += step;
            each_minute(passed);
        }
        run.play_end();
        Ok(run.report())
    }
}
