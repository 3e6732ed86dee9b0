//! The monotonic clock that all processes of a machine share, in nanoseconds.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Now.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Processor time of this process so far, in microseconds.
pub fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Sleeps until `moment`.
pub fn sleep_until(moment: u64) {
    if let Some(left) = moment.checked_sub(now()) {
        std::thread::sleep(Duration::from_nanos(left));
    }
}

/// Messages that are due at fixed distances, player after player: the open loop of both ends.
pub struct Schedule {
    begin: u64,
    players: u64,
    per_second: u64,
    next: u64,
}

impl Schedule {
    /// `hz` messages a second for each of `players`, spread evenly, from `begin` on.
    pub fn new(begin: u64, players: usize, hz: u64) -> Self {
        let players = players as u64;
        Self { begin, players, per_second: players * hz, next: 0 }
    }

    /// The next message that is due by `now`: for whom and since when.
    pub fn due(&mut self, now: u64) -> Option<(usize, u64)> {
        let slot = self.begin
            + (u128::from(self.next) * 1_000_000_000 / u128::from(self.per_second)) as u64;
        (slot <= now).then(|| {
            let player = (self.next % self.players) as usize;
            self.next += 1;
            (player, slot)
        })
    }
}
