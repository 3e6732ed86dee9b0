//! How much a client may send: packets and control frames are counted whatever is in them, because
//! an application sees messages alone.

use core::time::Duration;

use twinspan_core::time::Timestamp;

use crate::config::IntakeCosts;

/// So much of either rate may come at once.
const BURST: Duration = Duration::from_secs(5);

/// Until when what came has used up its rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Intake {
    packets: Timestamp,
    control: Timestamp,
}

impl Intake {
    /// A packet came; false when it is one too many.
    pub(super) fn takes_packet(&mut self, now: Timestamp, costs: &IntakeCosts) -> bool {
        take(&mut self.packets, now, costs.packet)
    }

    /// So many control frames came; false when that is too many.
    pub(super) fn takes_control(
        &mut self,
        now: Timestamp,
        costs: &IntakeCosts,
        frames: u32,
    ) -> bool {
        frames == 0 || take(&mut self.control, now, costs.control * frames)
    }
}

fn take(until: &mut Timestamp, now: Timestamp, cost: Duration) -> bool {
    *until = (*until).max(now).after(cost);
    *until <= now.after(BURST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_millis(millis))
    }

    #[test]
    fn five_seconds_of_the_rate_may_come_at_once_and_the_rate_for_ever() {
        let costs = IntakeCosts::new(1_000, 100);
        let mut intake = Intake::default();
        let came = (0..9_999).take_while(|_| intake.takes_packet(at(0), &costs)).count();
        assert_eq!(came, 5_000);
        let mut intake = Intake::default();
        assert!((0..20_000).all(|millis| intake.takes_packet(at(millis), &costs)));
        assert!(intake.takes_control(at(0), &costs, 500));
        assert!(!intake.takes_control(at(0), &costs, 1));
        assert!(intake.takes_control(at(20), &costs, 0));
    }
}
