//! Socket options that no safe crate offers.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::outcome;

/// Sets an option whose value is an int.
fn set_int(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = mem::size_of::<libc::c_int>() as libc::socklen_t;
    let value: *const libc::c_int = &raw const value;
    // SAFETY: `value` points to a live int for the whole call and `length` is its size; the kernel
    // only reads it. `socket` is borrowed, so the descriptor stays open.
    let status =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), length) };
    outcome(status).map(|_| ())
}

/// Whether the kernel knows how to split sent runs: sets the socket's own segment length to none,
/// which it is anyway.
pub(crate) fn can_segment(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0)
}

/// Lets the kernel join received datagrams of one peer.
pub(crate) fn coalesce(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}
