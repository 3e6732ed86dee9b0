//! The kernel calls that no safe crate offers: datagram batches and an epoll wait in nanoseconds.
#![expect(unsafe_code, reason = "the crate's only unsafe: system calls on raw pointers")]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use twinspan_core::packet::{Datagram, PacketBuf};

/// Datagrams moved by one system call at most.
pub(crate) const CALL_DATAGRAMS_MAX: usize = 64;

/// Bytes of the larger of the two internet socket addresses, `sockaddr_in6`.
const NAME_BYTES: usize = 28;
/// Bytes of `sockaddr_in`.
const NAME_V4_BYTES: usize = 16;

/// A socket address as the kernel lays it out, read and written byte by byte so that no pointer has
/// to change its type: family (native), port (network order), then what the family says.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Name([u8; NAME_BYTES]);

impl Name {
    const EMPTY: Self = Self([0; NAME_BYTES]);

    /// Writes `address` and returns how many bytes of the name it takes.
    fn set(&mut self, address: SocketAddr) -> usize {
        let mut name = [0_u8; NAME_BYTES];
        let (family, length) = match address {
            SocketAddr::V4(address) => {
                name[4..8].copy_from_slice(&address.ip().octets());
                (libc::AF_INET, NAME_V4_BYTES)
            }
            SocketAddr::V6(address) => {
                name[4..8].copy_from_slice(&address.flowinfo().to_ne_bytes());
                name[8..24].copy_from_slice(&address.ip().octets());
                name[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                (libc::AF_INET6, NAME_BYTES)
            }
        };
        name[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
        name[2..4].copy_from_slice(&address.port().to_be_bytes());
        self.0 = name;
        length
    }

    /// The address in the first `length` bytes; `None` for another family or too few bytes.
    fn get(&self, length: usize) -> Option<SocketAddr> {
        let [f0, f1, p0, p1, a0, a1, a2, a3, ..] = self.0;
        let port = u16::from_be_bytes([p0, p1]);
        match i32::from(u16::from_ne_bytes([f0, f1])) {
            libc::AF_INET if length >= NAME_V4_BYTES => {
                let ip = Ipv4Addr::new(a0, a1, a2, a3);
                Some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
            }
            libc::AF_INET6 if length >= NAME_BYTES => {
                let (octets, rest) = self.0.get(8..)?.split_first_chunk::<16>()?;
                let scope = rest.first_chunk::<4>()?;
                let ip = Ipv6Addr::from(*octets);
                let flow = u32::from_ne_bytes([a0, a1, a2, a3]);
                let scope = u32::from_ne_bytes(*scope);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
            }
            _ => None,
        }
    }
}

/// What the kernel says about one received datagram.
pub(crate) struct Received {
    /// Bytes that were written to the packet.
    pub(crate) length: usize,
    /// Whom it came from; `None` when the kernel named no internet address.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether it was longer than the packet and lost its end.
    pub(crate) cut: bool,
}

/// The header arrays of batched calls: allocated once, shared by all sockets of a thread.
pub(crate) struct Headers {
    messages: Vec<libc::mmsghdr>,
    slices: Vec<libc::iovec>,
    names: Vec<Name>,
}

impl Headers {
    pub(crate) fn new() -> Self {
        // SAFETY: `mmsghdr` is a plain C struct of integers and pointers; all zeroes is a value of
        // it (null pointers with zero lengths), on C libraries with padding fields too.
        let message: libc::mmsghdr = unsafe { mem::zeroed() };
        let slice = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self {
            messages: vec![message; CALL_DATAGRAMS_MAX],
            slices: vec![slice; CALL_DATAGRAMS_MAX],
            names: vec![Name::EMPTY; CALL_DATAGRAMS_MAX],
        }
    }

    /// Receives datagrams into `packets`, front first, without waiting, and returns how many came.
    /// Packets past [`CALL_DATAGRAMS_MAX`] are left alone; lengths are set by the caller from
    /// [`received`](Self::received).
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        packets: &mut [PacketBuf],
    ) -> io::Result<usize> {
        let mut count = 0;
        let rows = self.messages.iter_mut().zip(&mut self.slices).zip(&mut self.names);
        for (((message, slice), name), packet) in rows.zip(packets) {
            let room = packet.room_mut();
            slice.iov_base = room.as_mut_ptr().cast();
            slice.iov_len = room.len();
            *name = Name::EMPTY;
            point(message, slice, name, NAME_BYTES);
            count += 1;
        }
        let messages = self.messages.as_mut_ptr();
        // SAFETY: the first `count` headers were just pointed at rows of `self.slices` and
        // `self.names`, which nothing touches until the call returns, and each slice covers the
        // room of one distinct packet, borrowed mutably for the whole call. `count` is at most
        // CALL_DATAGRAMS_MAX, the length of all three arrays. `socket` is borrowed, so the
        // descriptor stays open. A null timeout is allowed.
        let status = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages,
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        outcome(status)
    }

    /// What the last [`receive`](Self::receive) says about packet `index` of those that came.
    pub(crate) fn received(&self, index: usize) -> Option<Received> {
        let message = self.messages.get(index)?;
        let length = message.msg_len as usize;
        let peer = self.names.get(index)?.get(message.msg_hdr.msg_namelen as usize);
        let cut = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        Some(Received { length, peer, cut })
    }

    /// Sends the first of `datagrams` without waiting and returns how many the kernel took; an
    /// error is about the very first one.
    pub(crate) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: impl Iterator<Item = &'a Datagram>,
    ) -> io::Result<usize> {
        let mut count = 0;
        let rows = self.messages.iter_mut().zip(&mut self.slices).zip(&mut self.names);
        for (((message, slice), name), datagram) in rows.zip(datagrams) {
            slice.iov_base = datagram.packet.as_ptr().cast_mut().cast();
            slice.iov_len = datagram.packet.len();
            let length = name.set(datagram.peer);
            point(message, slice, name, length);
            count += 1;
        }
        let messages = self.messages.as_mut_ptr();
        // SAFETY: the first `count` headers were just pointed at rows of `self.slices` and
        // `self.names`, which nothing touches until the call returns. Each slice covers the bytes
        // of a packet borrowed for 'a, which outlives this call, and the kernel only reads them.
        // `count` is at most CALL_DATAGRAMS_MAX, the length of all three arrays. `socket` is
        // borrowed, so the descriptor stays open.
        let status = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                messages,
                count as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        outcome(status)
    }
}

/// Points a message header at its one slice and its name.
fn point(
    message: &mut libc::mmsghdr,
    slice: &mut libc::iovec,
    name: &mut Name,
    name_length: usize,
) {
    message.msg_len = 0;
    message.msg_hdr.msg_flags = 0;
    message.msg_hdr.msg_iov = slice;
    message.msg_hdr.msg_iovlen = 1;
    message.msg_hdr.msg_name = ptr::from_mut(name).cast();
    message.msg_hdr.msg_namelen = name_length as libc::socklen_t;
}

/// The kernel's answer as a result: a negative one means that `errno` says why.
fn outcome(status: libc::c_int) -> io::Result<usize> {
    usize::try_from(status).map_err(|_| io::Error::last_os_error())
}

/// One event of an epoll set.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    /// What was registered with the source.
    pub(crate) token: u64,
    /// There may be something to receive, or an error to read.
    pub(crate) readable: bool,
    /// There may be room to send, or an error to read.
    pub(crate) writable: bool,
}

/// Room for the events of one wait, and how the wait is done.
pub(crate) struct EventRoom {
    events: Vec<libc::epoll_event>,
    /// Whether the kernel has `epoll_pwait2` (Linux 5.11) and lets this process call it.
    precise: bool,
}

/// `struct __kernel_timespec`: 64 bits for both fields on every architecture.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanos: i64,
}

impl EventRoom {
    pub(crate) fn new(events_max: usize) -> Self {
        let event = libc::epoll_event { events: 0, u64: 0 };
        Self { events: vec![event; events_max], precise: true }
    }

    /// Waits on `epoll` for at most `timeout` (`None`: for ever) and returns how many events came.
    pub(crate) fn wait(
        &mut self,
        epoll: BorrowedFd<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        if self.precise {
            match self.wait_precisely(epoll, timeout) {
                // A kernel before 5.11, or a sandbox that does not know the call.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.precise = false;
                }
                outcome => return outcome,
            }
        }
        self.wait_in_two_calls(epoll, timeout)
    }

    fn wait_precisely(
        &mut self,
        epoll: BorrowedFd<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: i64::from(timeout.subsec_nanos()),
        });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let (events, count) = (self.events.as_mut_ptr(), self.events.len());
        // SAFETY: `events` points to `count` events, borrowed mutably for the call; `timeout` is
        // null or points to a live timespec of the kernel's layout; no signal mask is given, so its
        // size is not looked at. `epoll` is borrowed, so the descriptor stays open.
        let status = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll.as_raw_fd(),
                events,
                count as libc::c_int,
                timeout,
                ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        usize::try_from(status).map_err(|_| io::Error::last_os_error())
    }

    /// The same with older calls: `ppoll` on the epoll descriptor has the nanoseconds.
    fn wait_in_two_calls(
        &mut self,
        epoll: BorrowedFd<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        if timeout != Some(Duration::ZERO) {
            let timeout = timeout.map(rustix::event::Timespec::try_from).and_then(Result::ok);
            let mut wanted = [PollFd::from_borrowed_fd(epoll, PollFlags::IN)];
            rustix::event::poll(&mut wanted, timeout.as_ref())?;
        }
        let (events, count) = (self.events.as_mut_ptr(), self.events.len());
        // SAFETY: `events` points to `count` events, borrowed mutably for the call. `epoll` is
        // borrowed, so the descriptor stays open.
        let status =
            unsafe { libc::epoll_wait(epoll.as_raw_fd(), events, count as libc::c_int, 0) };
        outcome(status)
    }

    /// Event `index` of those that the last wait returned.
    pub(crate) fn event(&self, index: usize) -> Option<Event> {
        let event = self.events.get(index)?;
        let bits = event.events as libc::c_int;
        let broken = bits & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
        Some(Event {
            token: event.u64,
            readable: broken || bits & libc::EPOLLIN != 0,
            writable: broken || bits & libc::EPOLLOUT != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernel_layout() {
        for (text, length) in [
            ("127.0.0.1:7777", NAME_V4_BYTES),
            ("255.254.253.252:65535", NAME_V4_BYTES),
            ("[::1]:1", NAME_BYTES),
            ("[fe80::1:2%7]:443", NAME_BYTES),
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = Name::EMPTY;
            assert_eq!(name.set(address), length, "{text}");
            assert_eq!(name.get(length), Some(address));
            assert_eq!(name.get(length - 1), None, "a cut name is no address");
        }
        assert_eq!(Name::EMPTY.get(NAME_BYTES), None);
    }

    /// The older pair of calls stands in where `epoll_pwait2` is missing.
    #[test]
    fn both_ways_of_waiting_see_the_same_event() {
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC);
        let epoll = epoll.unwrap();
        let event = rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        rustix::event::epoll::add(
            &epoll,
            &event,
            rustix::event::epoll::EventData::new_u64(42),
            rustix::event::epoll::EventFlags::IN,
        )
        .unwrap();
        for precise in [true, false] {
            let mut room = EventRoom::new(4);
            room.precise = precise;
            let borrowed = std::os::fd::AsFd::as_fd(&epoll);
            assert_eq!(room.wait(borrowed, Some(Duration::ZERO)).unwrap(), 1);
            assert_eq!(room.wait(borrowed, None).unwrap(), 1);
            let event = room.event(0).unwrap();
            assert_eq!((event.token, event.readable, event.writable), (42, true, false));
        }
    }
}
