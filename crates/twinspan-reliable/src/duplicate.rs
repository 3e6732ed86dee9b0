//! Duplicate suppression on packet numbers, for protocols that resend under the same number.

use twinspan_core::number::{Sighting, Window};

/// Numbers that the filter remembers, counted from the largest that came.
const WORDS: usize = 64;

/// Says whether a packet number was seen before: acknowledge it again, deliver it once.
///
/// It is not a replay window, though it keeps the same bits: there, a repeat is dropped in silence;
/// here, a repeat means that our ack was lost, so the peer must hear it again.
#[derive(Clone, Debug)]
pub struct DuplicateFilter {
    window: Window<WORDS>,
    suppress: bool,
    repeats: u64,
    too_old: u64,
}

impl DuplicateFilter {
    /// How many numbers are remembered.
    pub const SPAN: u64 = Window::<WORDS>::SPAN;

    /// Nothing seen yet. `knobs.suppress_duplicates` off calls everything fresh.
    pub fn new(config: &crate::Config) -> Self {
        Self {
            window: Window::default(),
            suppress: config.knobs.suppress_duplicates,
            repeats: 0,
            too_old: 0,
        }
    }

    /// Marks `number` and says what to do with its packet.
    ///
    /// [`Sighting::Fresh`]: acknowledge and deliver. [`Sighting::Repeat`]: acknowledge only.
    /// [`Sighting::TooOld`]: neither, for whether it was delivered is no longer known; the peer
    /// resends until it gives up and knows that it failed, instead of being told that all is well.
    pub fn on_packet(&mut self, number: u64) -> Sighting {
        let sighting = self.window.commit(number);
        match sighting {
            Sighting::Fresh => {}
            Sighting::Repeat => self.repeats = self.repeats.saturating_add(1),
            Sighting::TooOld => self.too_old = self.too_old.saturating_add(1),
        }
        if self.suppress { sighting } else { Sighting::Fresh }
    }

    /// Packets that came again.
    pub const fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Packets too far behind the largest to be judged.
    pub const fn too_old(&self) -> u64 {
        self.too_old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Knobs};

    #[test]
    fn a_number_is_fresh_once() {
        let mut filter = DuplicateFilter::new(&Config::default());
        assert_eq!(filter.on_packet(7), Sighting::Fresh);
        assert_eq!(filter.on_packet(7), Sighting::Repeat);
        assert_eq!(filter.on_packet(7 + DuplicateFilter::SPAN), Sighting::Fresh);
        assert_eq!(filter.on_packet(7), Sighting::TooOld);
        assert_eq!((filter.repeats(), filter.too_old()), (1, 1));
    }

    #[test]
    fn the_knob_calls_everything_fresh() {
        let knobs = Knobs { suppress_duplicates: false, ..Knobs::default() };
        let mut filter = DuplicateFilter::new(&Config { knobs, ..Config::default() });
        assert_eq!(filter.on_packet(7), Sighting::Fresh);
        assert_eq!(filter.on_packet(7), Sighting::Fresh);
    }
}
