//! The one call that makes a tun device, which no safe crate offers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::outcome;

/// Bytes of a device's name, its end included.
pub(crate) const NAME_BYTES: usize = libc::IFNAMSIZ;

/// Makes an open `/dev/net/tun` the other side of the device `name`, which appears in the network
/// namespace of the calling thread. Packets come without a header of the driver's.
pub(crate) fn attach(file: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() >= NAME_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut request = libc::ifreq {
        ifr_name: [0; NAME_BYTES],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
        },
    };
    for (room, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *room = byte.cast_signed();
    }
    let request: *mut libc::ifreq = &raw mut request;
    // SAFETY: `request` points to a live ifreq for the whole call, whose name ends with a zero and
    // whose flags are set; the kernel reads it and may write the name. `file` is borrowed, so the
    // descriptor stays open.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request) };
    outcome(status).map(|_| ())
}
