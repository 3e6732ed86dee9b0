//! What stands for this machine, between processes that can share memory.

use std::fs;
use std::os::unix::fs::MetadataExt;

use aws_lc_rs::digest::{SHA256, digest};

/// The kernel that runs, and the network in which abstract names of sockets are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Drawn by the kernel when it started.
    pub(crate) boot: [u8; 16],
    /// The network namespace.
    pub(crate) space: u64,
}

impl Host {
    /// This machine; `None` where the system does not tell.
    pub(crate) fn own() -> Option<Self> {
        let boot = boot_of(&fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?)?;
        let space = fs::metadata("/proc/self/ns/net").ok()?.ino();
        Some(Self { boot, space })
    }

    /// What is told of it to whoever asks over a network: others cannot know it from that.
    pub(crate) fn digest(&self) -> [u8; 16] {
        let mut text = b"twinspan-hub host".to_vec();
        text.extend_from_slice(&self.boot);
        text.extend_from_slice(&self.space.to_le_bytes());
        let digest = digest(&SHA256, &text);
        digest.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

/// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
fn boot_of(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
    let mut boot = [0; 16];
    if digits.len() != 2 * boot.len() {
        return None;
    }
    for (place, pair) in boot.iter_mut().zip(digits.chunks_exact(2)) {
        *place = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_the_same_while_it_runs_and_differs_by_boot_and_network() {
        let own = Host::own().unwrap();
        assert_eq!(Host::own(), Some(own));
        let elsewhere = Host { space: own.space + 1, ..own };
        let mut later = own;
        later.boot[0] ^= 1;
        assert!(own.digest() != elsewhere.digest() && own.digest() != later.digest());
        assert_ne!(own.digest(), own.boot);
    }

    #[test]
    fn the_kernel_s_text_is_read() {
        let text = "01234567-89ab-cdef-0123-456789abcdef\n";
        let boot = [1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        assert_eq!(boot_of(text), Some([boot, boot].concat().try_into().unwrap()));
        assert_eq!(boot_of("01234567"), None);
        assert_eq!(boot_of("g1234567-89ab-cdef-0123-456789abcdef"), None);
    }
}
