//! Byte buffers that are used again, in four sizes for each doubling.

use twinspan_core::need::{Need, fit_list};

/// Least bytes of a buffer: below it, size classes save nothing.
const LEAST: usize = 64;

/// Most idle buffers; with few of them, looking through all is quicker than keeping order.
const IDLE_MAX: usize = 64;

/// Channels for which either half has room from the first one on: credit has one, and what it is for
/// another.
pub(crate) const CHANNELS_FIRST: usize = 2;

/// Makes room for one more item and doubles as a vector does, but begins with `first`: of what most
/// of ten thousand sessions have but one, the four that a vector begins with are three too many.
pub(crate) fn make_room<T>(items: &mut Vec<T>, first: usize) {
    if items.len() == items.capacity() {
        items.reserve_exact(items.len().max(first));
    }
}

/// Idle buffers within a limit of bytes. What would go past it is given back to the allocator.
#[derive(Debug)]
pub(crate) struct Buffers {
    idle: Vec<Vec<u8>>,
    /// So many of the first ones have lain there for the whole of the present period.
    untouched: u16,
    need: Need,
    idle_bytes: u32,
    idle_bytes_max: u32,
}

impl Buffers {
    pub(crate) fn new(idle_bytes_max: usize) -> Self {
        let idle_bytes_max = u32::try_from(idle_bytes_max).unwrap_or(u32::MAX);
        Self { idle: Vec::new(), untouched: 0, need: Need::new(), idle_bytes: 0, idle_bytes_max }
    }

    /// An empty buffer with room for `len` bytes. A buffer far larger is left alone: were short
    /// messages to take the long buffers, long messages would find none.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        if len == 0 {
            return Vec::new();
        }
        let size = class(len);
        let mut best: Option<(usize, usize)> = None;
        for (index, buffer) in self.idle.iter().enumerate().rev() {
            let capacity = buffer.capacity();
            if capacity == size {
                best = Some((capacity, index));
                break;
            }
            if capacity > size && capacity <= 2 * size && best.is_none() {
                best = Some((capacity, index));
            }
        }
        let Some((capacity, index)) = best else {
            return Vec::with_capacity(size);
        };
        self.idle_bytes -= capacity as u32;
        let mut index = index;
        if index < usize::from(self.untouched) {
            // The last of the untouched ones takes its place, and what came last that one's.
            self.untouched -= 1;
            self.idle.swap(index, usize::from(self.untouched));
            index = usize::from(self.untouched);
        }
        self.idle.swap_remove(index)
    }

    /// A buffer with a copy of `bytes`.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.take(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes a buffer back.
    pub(crate) fn put(&mut self, mut buffer: Vec<u8>) {
        let bytes = u64::from(self.idle_bytes) + buffer.capacity() as u64;
        if buffer.capacity() > 0
            && self.idle.len() < IDLE_MAX
            && bytes <= u64::from(self.idle_bytes_max)
        {
            buffer.clear();
            self.idle_bytes = bytes as u32;
            make_room(&mut self.idle, 1);
            self.idle.push(buffer);
            self.need.note(self.idle.len());
        }
    }

    /// A period ended: those that nobody took in it are given back.
    pub(crate) fn fit(&mut self) {
        for buffer in self.idle.drain(..usize::from(self.untouched)) {
            self.idle_bytes -= buffer.capacity() as u32;
        }
        // There are IDLE_MAX at most.
        self.untouched = self.idle.len() as u16;
        fit_list(&mut self.idle, &mut self.need, 1);
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.idle.capacity() * size_of::<Vec<u8>>() + self.idle_bytes as usize
    }
}

/// The size of the buffer for `len` bytes: at most a quarter more.
fn class(len: usize) -> usize {
    let len = len.max(LEAST);
    len.next_multiple_of((len.next_power_of_two() / 8).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_for_its_size() {
        let mut buffers = Buffers::new(8_192);
        let (short, long) = (buffers.copy(&[1; 60]), buffers.copy(&[2; 1_100]));
        assert_eq!((short.capacity(), long.capacity()), (64, 1_280));
        let (short_at, long_at) = (short.as_ptr(), long.as_ptr());
        buffers.put(long);
        buffers.put(short);
        let again = buffers.copy(&[3; 64]);
        assert_eq!((again.as_ptr(), &again[..]), (short_at, &[3; 64][..]));
        assert_eq!(buffers.copy(&[3; 64]).capacity(), 64);
        let again = buffers.take(1_000);
        assert_eq!(again.as_ptr(), long_at);
    }

    #[test]
    fn a_class_wastes_at_most_a_quarter() {
        for (len, size) in [
            (1, 64),
            (64, 64),
            (65, 80),
            (129, 160),
            (1_024, 1_024),
            (1_100, 1_280),
            (2_500, 2_560),
        ] {
            assert_eq!(class(len), size);
        }
        for len in 64..70_000 {
            assert!((len..=len + len / 4).contains(&class(len)));
        }
    }

    #[test]
    fn a_buffer_that_nobody_takes_for_a_period_is_given_back() {
        let mut buffers = Buffers::new(8_192);
        let many: Vec<_> = (1..=10).map(|byte| buffers.copy(&[byte; 100])).collect();
        let long = buffers.copy(&[0; 1_000]);
        buffers.put(long);
        many.into_iter().for_each(|buffer| buffers.put(buffer));
        buffers.fit();
        assert_eq!(buffers.idle.len(), 11, "all came in this period");
        for _ in 0..3 {
            // Two are needed at once, and the long one.
            let three = [100, 100, 1_000].map(|len| buffers.take(len));
            assert_eq!(three.each_ref().map(Vec::capacity), [112, 112, 1_024]);
            three.into_iter().for_each(|buffer| buffers.put(buffer));
            buffers.fit();
        }
        let mut sizes: Vec<_> = buffers.idle.iter().map(Vec::capacity).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [112, 112, 1_024]);
        assert_eq!(buffers.idle_bytes, 112 + 112 + 1_024);
        (0..3).for_each(|_| buffers.fit());
        assert_eq!((buffers.idle.len(), buffers.idle_bytes), (0, 0));
        assert!(buffers.heap_bytes() <= 24, "{}", buffers.heap_bytes());
    }

    #[test]
    fn idle_buffers_stay_within_their_limits() {
        let mut buffers = Buffers::new(8_192);
        for len in [1, 64, 5_000, 3_000] {
            buffers.put(Vec::with_capacity(len));
        }
        assert_eq!(buffers.idle_bytes, 8_065);
        buffers.put(Vec::with_capacity(128));
        assert_eq!(buffers.idle_bytes, 8_065);
        for _ in 0..200 {
            buffers.put(Vec::with_capacity(1));
        }
        assert_eq!(buffers.idle.len(), IDLE_MAX);
        buffers.put(Vec::new());
        assert!(buffers.take(0).capacity() == 0);
    }
}
