//! Socket options that no safe crate offers.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use twinspan_core::packet::Ecn;

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

/// Reads an option whose value is some numbers of 32 bits, as many as the kernel has; the others are 0.
fn numbers<const COUNT: usize>(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
) -> io::Result<[u32; COUNT]> {
    let mut values = [0_u32; COUNT];
    let mut length = mem::size_of_val(&values) as libc::socklen_t;
    // SAFETY: `values` is live and mutable for the whole call and `length` is its size in bytes, beyond
    // which the kernel does not write; any bytes are values of u32. `socket` is borrowed, so the
    // descriptor stays open.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    outcome(status).map(|_| values)
}

/// Bytes of the kernel's memory that wait to be received, and datagrams that found no room there.
pub(crate) fn queue(socket: BorrowedFd<'_>) -> io::Result<[u32; 2]> {
    // The places of linux/sock_diag.h: what is taken to receive comes first, what was dropped last.
    let [taken, _, _, _, _, _, _, _, dropped] = numbers(socket, libc::SO_MEMINFO)?;
    Ok([taken, dropped])
}

/// The number of the device's queue that brought the last datagram; 0 where that has none to poll.
pub(crate) fn napi_id(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let [id] = numbers(socket, libc::SO_INCOMING_NAPI_ID)?;
    Ok(id)
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

/// Lets routers mark what is sent instead of dropping it (ECT(0)), and lets each datagram that comes
/// tell whether it was marked.
pub(crate) fn tell_of_marks(socket: BorrowedFd<'_>, is_ipv4: bool) -> io::Result<()> {
    let capable = libc::c_int::from(Ecn::Capable.bits());
    let (level, tells, class) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_RECVTOS, libc::IP_TOS)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, libc::IPV6_TCLASS)
    };
    set_int(socket, level, tells, 1)?;
    set_int(socket, level, class, capable)
}

/// Lets the kernel poll the device for so many microseconds where the socket is empty.
pub(crate) fn busy_poll(socket: BorrowedFd<'_>, micros: u32) -> io::Result<()> {
    let micros = libc::c_int::try_from(micros).map_err(|_| io::ErrorKind::InvalidInput)?;
    set_int(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, micros)
}

/// Sends to groups by the interface with this number.
pub(crate) fn multicast_by(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
    };
    let bytes = mem::size_of::<libc::ip_mreqn>() as libc::socklen_t;
    // SAFETY: `request` is a live ip_mreqn for the whole call and `bytes` is its size; the kernel only
    // reads it. `socket` is borrowed, so the descriptor stays open.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MULTICAST_IF,
            ptr::from_ref(&request).cast(),
            bytes,
        )
    };
    outcome(status).map(|_| ())
}

/// Attaches a classic filter that names the place, in binding order, of the socket of a group that
/// a datagram goes to. Each instruction is code, jump if true, jump if false, operand.
pub(crate) fn attach_steering(
    socket: BorrowedFd<'_>,
    program: &[(u16, u8, u8, u32)],
) -> io::Result<()> {
    let filter: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let length = libc::c_ushort::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    let bytes = mem::size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: `program` is a live sock_fprog for the whole call and `bytes` is its size; it points
    // to `length` instructions that live in `filter` until the end of this function. The kernel
    // copies and checks them and writes to neither. `socket` is borrowed, so the descriptor stays
    // open.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            ptr::from_ref(&program).cast(),
            bytes,
        )
    };
    outcome(status).map(|_| ())
}
