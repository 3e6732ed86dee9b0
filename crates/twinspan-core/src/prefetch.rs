//! The wish to have memory in the cache before it is used; where a machine has no such wish, nothing.

/// Bytes that a cache holds together.
pub const LINE_BYTES: usize = 64;

/// Wishes for the `count` bytes from `start` on. Nothing is read as far as a program can tell: any
/// address is allowed, one that is nobody's too.
#[inline]
pub fn bytes(start: *const u8, count: usize) {
    let mut offset = 0;
    while offset < count {
        line(start.wrapping_add(offset));
        offset += LINE_BYTES;
    }
}

/// Wishes for `value`.
#[inline]
pub fn value<T: ?Sized>(value: &T) {
    bytes(core::ptr::from_ref(value).cast(), size_of_val(value));
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line(at: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing architecturally and never faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_: *const u8) {}

#[cfg(test)]
mod tests {
    #[test]
    fn any_address_may_be_wished_for() {
        super::bytes(core::ptr::null(), 4_096);
        super::bytes(core::ptr::without_provenance(usize::MAX), 1);
        super::value(&[1u8; 200][..]);
        super::value(&());
    }
}
