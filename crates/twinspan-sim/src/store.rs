//! Buffers for datagrams on their way, reused.

use std::collections::VecDeque;

use twinspan_core::need::Idle;
use twinspan_core::packet::PACKET_BYTES_MAX;

/// Sizes of buffers, none much larger than what is in it: most of what is on its way in a large world
/// are inputs and states of a hundred to three hundred bytes.
const SIZES: [usize; 9] = [64, 128, 192, 256, 384, 512, 768, 1_280, PACKET_BYTES_MAX];

/// `len` bytes from `start` on, in the two slices in which they lie; `None` where there are not so many.
pub(crate) fn part_of(bytes: &VecDeque<u8>, start: usize, len: usize) -> Option<[&[u8]; 2]> {
    let end = start.checked_add(len).filter(|end| *end <= bytes.len())?;
    let (front, back) = bytes.as_slices();
    let first = front.get(start.min(front.len())..end.min(front.len()))?;
    let second = back.get(start.saturating_sub(front.len())..end.saturating_sub(front.len()))?;
    Some([first, second])
}

/// Free buffers by size. How many exist is bounded by the datagrams in flight and in sockets.
#[derive(Default)]
pub(crate) struct Store {
    free: [Idle<Box<[u8]>>; SIZES.len()],
    #[cfg(test)]
    made: usize,
}

/// The bytes of one datagram on its way.
pub(crate) struct Payload {
    bytes: Box<[u8]>,
    len: usize,
}

impl Payload {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Turns one of its bits, if it has any.
    pub(crate) fn turn_bit(&mut self, drawn: u64) {
        let bits = self.len as u64 * 8;
        if bits == 0 {
            return;
        }
        let bit = drawn % bits;
        if let Some(byte) = self.bytes.get_mut((bit / 8) as usize) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

impl Store {
    /// A copy of `bytes`, of which there are [`PACKET_BYTES_MAX`] at most.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Payload {
        let sizes = SIZES.iter().zip(&mut self.free);
        let fitting = sizes.into_iter().find(|(size, _)| bytes.len() <= **size);
        let size = fitting.as_ref().map_or(PACKET_BYTES_MAX, |(size, _)| **size);
        let mut buffer = fitting.and_then(|(_, free)| free.take()).unwrap_or_else(|| {
            #[cfg(test)]
            {
                self.made += 1;
            }
            vec![0; size].into_boxed_slice()
        });
        let len = bytes.len().min(size);
        if let (Some(out), Some(bytes)) = (buffer.get_mut(..len), bytes.get(..len)) {
            out.copy_from_slice(bytes);
        }
        Payload { bytes: buffer, len }
    }

    /// Takes a buffer back.
    pub(crate) fn give(&mut self, payload: Payload) {
        let sizes = SIZES.iter().zip(&mut self.free);
        if let Some((_, free)) = sizes.into_iter().find(|(size, _)| payload.bytes.len() <= **size) {
            free.give(payload.bytes);
        }
    }

    /// A period ended: buffers that nobody took in it are given back.
    pub(crate) fn fit(&mut self) {
        #[cfg(test)]
        let before = self.idle();
        self.free.iter_mut().for_each(Idle::fit);
        #[cfg(test)]
        {
            self.made -= before - self.idle();
        }
    }

    #[cfg(test)]
    fn idle(&self) -> usize {
        self.free.iter().map(Idle::len).sum()
    }

    /// Buffers that were made and not given back, and those of them that are out.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.made, self.made - self.idle())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_wherever_the_bytes_wrap() {
        let mut bytes: VecDeque<u8> = VecDeque::with_capacity(8);
        for turn in 0..20_u8 {
            bytes.extend([turn, turn + 1, turn + 2]);
            let all: Vec<u8> = bytes.iter().copied().collect();
            for start in 0..=all.len() + 1 {
                for len in 0..=all.len() + 1 {
                    let part = part_of(&bytes, start, len).map(|part| part.concat());
                    assert_eq!(part.as_deref(), all.get(start..start + len));
                }
            }
            bytes.drain(..bytes.len() - 4.min(bytes.len()));
        }
    }

    #[test]
    fn buffers_are_reused_by_size() {
        let mut store = Store::default();
        for bytes in [&[1; 3][..], &[2; 128], &[3; 129], &[4; 1_300], &[5; 2_048], &[]] {
            let payload = store.copy(bytes);
            assert_eq!(payload.as_slice(), bytes);
            store.give(payload);
        }
        assert_eq!(store.counts(), (4, 0));
    }

    #[test]
    fn buffers_that_nobody_needs_are_given_back() {
        let mut store = Store::default();
        let many: Vec<_> = (0..50).map(|byte| store.copy(&[byte; 100])).collect();
        many.into_iter().for_each(|payload| store.give(payload));
        store.fit();
        let few = [store.copy(&[1; 100]), store.copy(&[2; 100])];
        few.into_iter().for_each(|payload| store.give(payload));
        store.fit();
        assert_eq!(store.counts(), (2, 0));
    }
}
