//! The kernel calls that no safe crate offers: datagram batches here, the others below.
#![expect(unsafe_code, reason = "the crate's only unsafe: system calls on raw pointers")]

mod control;
mod events;
mod lent;
mod option;
mod outbox;
mod sched;
mod stream_ring;
mod train_ring;
mod tun;
mod uring;

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use twinspan_core::packet::{Datagram, Ecn};

pub(crate) use events::EventRoom;
pub(crate) use option::{
    attach_steering, busy_poll, can_segment, coalesce, multicast_by, napi_id, queue, tell_of_marks,
};
pub(crate) use outbox::Outbox;
pub(crate) use sched::{ask_for_fifo, class};
pub(crate) use stream_ring::{Done, OpKey, StreamRing};
pub(crate) use train_ring::{RingShape, TrainRing};
pub(crate) use tun::attach as attach_tun;
pub(crate) use uring::Ring;

/// Messages moved by one system call at most: datagrams, or runs of them.
pub(crate) const CALL_MESSAGES_MAX: usize = 64;
/// Datagrams sent by one system call at most, those of runs included.
pub(crate) const CALL_SLICES_MAX: usize = 1_024;
/// Datagrams of one run: the least limit that a kernel with segmentation has.
pub(crate) const RUN_DATAGRAMS_MAX: usize = 64;
/// Bytes of one run: what a length field of 16 bits holds, less room for headers.
pub(crate) const RUN_BYTES_MAX: usize = 65_000;

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

    /// Writes `address`.
    fn set(&mut self, address: SocketAddr) {
        let mut name = [0_u8; NAME_BYTES];
        let family = match address {
            SocketAddr::V4(address) => {
                name[4..8].copy_from_slice(&address.ip().octets());
                libc::AF_INET
            }
            SocketAddr::V6(address) => {
                name[4..8].copy_from_slice(&address.flowinfo().to_ne_bytes());
                name[8..24].copy_from_slice(&address.ip().octets());
                name[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                libc::AF_INET6
            }
        };
        name[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
        name[2..4].copy_from_slice(&address.port().to_be_bytes());
        self.0 = name;
    }

    /// How many bytes the address takes.
    fn length(&self) -> usize {
        let [f0, f1, ..] = self.0;
        let v4 = i32::from(u16::from_ne_bytes([f0, f1])) == libc::AF_INET;
        if v4 { NAME_V4_BYTES } else { NAME_BYTES }
    }

    /// The address in the first `length` bytes, a mapped one as the IPv4 address that it stands for;
    /// `None` for another family or too few bytes.
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
                if let Some(ip) = ip.to_ipv4_mapped() {
                    return Some(SocketAddr::V4(SocketAddrV4::new(ip, port)));
                }
                let flow = u32::from_ne_bytes([a0, a1, a2, a3]);
                let scope = u32::from_ne_bytes(*scope);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
            }
            _ => None,
        }
    }
}

/// Room for one control message: the header as the C library lays it out, then its data.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    data: [u8; 8],
}

/// Bytes of a control message's header with `data` bytes behind it, without padding.
const fn control_bytes(data: usize) -> usize {
    mem::size_of::<libc::cmsghdr>() + data
}

impl Control {
    /// Asks for the kernel to split the message into datagrams of `bytes`.
    fn set_segment(&mut self, bytes: u16) {
        self.header.cmsg_len = control_bytes(2) as _;
        self.header.cmsg_level = libc::SOL_UDP;
        self.header.cmsg_type = libc::UDP_SEGMENT;
        self.data = [0; 8];
        self.data[..2].copy_from_slice(&bytes.to_ne_bytes());
    }
}

/// What the kernel says about one received message.
pub(crate) struct Received {
    /// Bytes that were written.
    pub(crate) length: usize,
    /// The length of each of the datagrams it consists of, but for the last one, which may be
    /// shorter; `None` when it is one datagram.
    pub(crate) segment: Option<usize>,
    /// Whom it came from; `None` when the kernel named no internet address.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether it was longer than the room and lost its end.
    pub(crate) cut: bool,
    /// What its header says about congestion, where the socket asks.
    pub(crate) ecn: Ecn,
}

/// Whether a send call may join datagrams into runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    Joined,
    Single,
}

/// A message of a send call while it is put together.
#[derive(Clone, Copy)]
struct Run {
    first: usize,
    count: usize,
    segment: usize,
    bytes: usize,
}

impl Run {
    const EMPTY: Self = Self { first: 0, count: 0, segment: 0, bytes: 0 };

    /// Whether a datagram of `bytes` may follow: all but the last have one length, and an empty
    /// one cannot be told from none.
    fn takes(&self, bytes: usize) -> bool {
        bytes > 0
            && bytes <= self.segment
            && self.bytes == self.segment * self.count
            && self.count < RUN_DATAGRAMS_MAX
            && self.bytes + bytes <= RUN_BYTES_MAX
    }
}

/// Datagrams to one address that lie behind each other in memory, all but the last of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Train {
    pub(crate) to: SocketAddr,
    /// Where they begin.
    pub(crate) from: usize,
    /// Bytes of all of them.
    pub(crate) bytes: usize,
    /// Bytes of each but the last.
    pub(crate) segment: usize,
}

impl Train {
    /// How many datagrams it is made of.
    pub(crate) fn datagrams(&self) -> u64 {
        self.bytes.div_ceil(self.segment.max(1)).max(1) as u64
    }

    /// Its datagrams, each a train of its own.
    pub(crate) fn singles(self) -> impl Iterator<Item = Self> {
        let end = self.from + self.bytes;
        (self.from..end).step_by(self.segment.max(1)).map(move |from| {
            let bytes = self.segment.min(end - from);
            Self { to: self.to, from, bytes, segment: bytes }
        })
    }
}

/// Whether a send call names where datagrams go; a connected socket knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Each,
    /// The same for a socket of both families: it knows IPv4 by mapped addresses.
    Mapped,
    None,
}

impl Names {
    /// The name of where a datagram goes.
    fn of(self, to: SocketAddr) -> Option<SocketAddr> {
        match (self, to) {
            (Self::None, _) => None,
            (Self::Mapped, SocketAddr::V4(to)) => {
                Some((to.ip().to_ipv6_mapped(), to.port()).into())
            }
            _ => Some(to),
        }
    }
}

/// The header arrays of batched calls: allocated once, shared by all sockets of a thread.
pub(crate) struct Headers {
    messages: Vec<libc::mmsghdr>,
    slices: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<Control>,
    /// What comes with received messages.
    said: Vec<control::Room>,
    runs: Vec<Run>,
}

// SAFETY: the pointers in the arrays are of use inside one call of a method alone, each of which
// sets those that it hands to the kernel anew; between calls nobody follows them. All else is plain
// data.
unsafe impl Send for Headers {}

impl Headers {
    pub(crate) fn new() -> Self {
        // SAFETY: `mmsghdr` is a plain C struct of integers and pointers; all zeroes is a value of
        // it (null pointers with zero lengths), on C libraries with padding fields too.
        let message: libc::mmsghdr = unsafe { mem::zeroed() };
        // SAFETY: `cmsghdr` is a plain C struct of integers; all zeroes is a value of it.
        let header: libc::cmsghdr = unsafe { mem::zeroed() };
        let slice = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self {
            messages: vec![message; CALL_MESSAGES_MAX],
            slices: vec![slice; CALL_SLICES_MAX],
            names: vec![Name::EMPTY; CALL_MESSAGES_MAX],
            controls: vec![Control { header, data: [0; 8] }; CALL_MESSAGES_MAX],
            said: vec![control::Room([0; control::ROOM_BYTES]); CALL_MESSAGES_MAX],
            runs: vec![Run::EMPTY; CALL_MESSAGES_MAX],
        }
    }

    /// Receives messages into `rooms`, front first, without waiting, and returns how many came.
    /// Rooms past [`CALL_MESSAGES_MAX`] are left alone; what came in each is told by
    /// [`received`](Self::received).
    pub(crate) fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        rooms: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        let mut count = 0;
        let rows = self.messages.iter_mut().zip(&mut self.slices).zip(&mut self.names);
        let rows = rows.zip(&mut self.said);
        for ((((message, slice), name), said), room) in rows.zip(rooms) {
            slice.iov_base = room.as_mut_ptr().cast();
            slice.iov_len = room.len();
            message.msg_len = 0;
            let header = &mut message.msg_hdr;
            header.msg_flags = 0;
            header.msg_iov = slice;
            header.msg_iovlen = 1;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = NAME_BYTES as libc::socklen_t;
            header.msg_control = ptr::from_mut(said).cast();
            header.msg_controllen = mem::size_of::<control::Room>() as _;
            count += 1;
        }
        let messages = self.messages.as_mut_ptr();
        // SAFETY: the first `count` headers were just pointed at rows of `self.slices`,
        // `self.names` and `self.said`, which nothing touches until the call returns, and each
        // slice covers one room, borrowed mutably and apart from the others for 'a, which outlives
        // the call. `count` is at most CALL_MESSAGES_MAX, the length of the shortest arrays.
        // `socket` is borrowed, so the descriptor stays open. A null timeout is allowed.
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

    /// What the last [`receive`](Self::receive) says about message `index` of those that came.
    pub(crate) fn received(&self, index: usize) -> Option<Received> {
        let message = self.messages.get(index)?;
        let length = message.msg_len as usize;
        let header = &message.msg_hdr;
        let peer = self.names.get(index)?.get(header.msg_namelen as usize);
        let room = &self.said.get(index)?.0;
        let written = room.get(..header.msg_controllen as _).unwrap_or(room);
        let control::Said { segment, ecn } = control::read(written);
        let cut = header.msg_flags & libc::MSG_TRUNC != 0;
        Some(Received { length, segment: segment.filter(|bytes| *bytes < length), peer, cut, ecn })
    }

    /// Sends the first of `datagrams` without waiting and returns how many the kernel took; an
    /// error is about the first message, [`first_run`](Self::first_run) datagrams.
    pub(crate) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: impl Iterator<Item = &'a Datagram>,
        runs: Runs,
    ) -> io::Result<usize> {
        let count = self.gather(datagrams, runs);
        self.point(count);
        let messages = self.messages.as_mut_ptr();
        // SAFETY: `point` has just pointed the first `count` headers at rows of `self.slices`,
        // `self.names` and `self.controls`, which nothing touches until the call returns; `gather`
        // filled those rows, and each slice covers the bytes of a packet borrowed for 'a, which
        // outlives this call; the kernel only reads them. `count` is at most CALL_MESSAGES_MAX, the
        // length of the array of headers. `socket` is borrowed, so the descriptor stays open.
        let status = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                messages,
                count as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        let taken = outcome(status)?;
        Ok(self.runs.iter().take(taken).map(|run| run.count).sum())
    }

    /// Sends the first of `trains`, which lie in `memory`, without waiting, and returns how many the
    /// kernel took; an error is about the first.
    pub(crate) fn send_trains(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &[u8],
        trains: &[Train],
        names: Names,
    ) -> io::Result<usize> {
        let mut count = 0;
        let rows = self.messages.iter_mut().zip(&mut self.slices).zip(&mut self.names);
        let rows = rows.zip(&mut self.controls);
        for ((((message, slice), name), control), train) in rows.zip(trains) {
            let bytes = memory.get(train.from..train.from + train.bytes).unwrap_or_default();
            slice.iov_base = bytes.as_ptr().cast_mut().cast();
            slice.iov_len = bytes.len();
            message.msg_len = 0;
            let header = &mut message.msg_hdr;
            header.msg_flags = 0;
            header.msg_iov = slice;
            header.msg_iovlen = 1;
            header.msg_name = ptr::null_mut();
            header.msg_namelen = 0;
            if let Some(to) = names.of(train.to) {
                name.set(to);
                header.msg_namelen = name.length() as libc::socklen_t;
                header.msg_name = ptr::from_mut(name).cast();
            }
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
            if train.bytes > train.segment {
                // Segments are shorter than RUN_BYTES_MAX, which fits 16 bits.
                control.set_segment(train.segment as u16);
                header.msg_control = ptr::from_mut(control).cast();
                header.msg_controllen = mem::size_of::<Control>() as _;
            }
            count += 1;
        }
        let messages = self.messages.as_mut_ptr();
        // SAFETY: the first `count` headers were just pointed at rows of `self.slices`,
        // `self.names` and `self.controls`, which nothing touches until the call returns; each slice
        // covers bytes of `memory`, borrowed for the whole call, and the kernel only reads them.
        // `count` is at most CALL_MESSAGES_MAX, the length of the shortest arrays. `socket` is
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

    /// Datagrams of the first message of the last [`send`](Self::send).
    pub(crate) fn first_run(&self) -> usize {
        self.runs.first().map_or(0, |run| run.count)
    }

    /// Datagrams among the first `taken` of the last [`send`](Self::send) that went in runs.
    pub(crate) fn segmented(&self, taken: usize) -> usize {
        let runs = self.runs.iter().take_while(|run| run.first < taken);
        runs.filter(|run| run.count > 1).map(|run| run.count).sum()
    }

    /// Fills slices, names and runs from `datagrams` and returns how many messages they make.
    fn gather<'a>(&mut self, datagrams: impl Iterator<Item = &'a Datagram>, runs: Runs) -> usize {
        let mut count = 0_usize;
        let mut before: Option<SocketAddr> = None;
        for ((at, slice), datagram) in self.slices.iter_mut().enumerate().zip(datagrams) {
            let bytes = datagram.packet.len();
            let open = self.runs.get_mut(count.wrapping_sub(1)).filter(|run| {
                runs == Runs::Joined && before == Some(datagram.peer) && run.takes(bytes)
            });
            match open {
                Some(run) => {
                    run.count += 1;
                    run.bytes += bytes;
                }
                None => {
                    let (Some(run), Some(name)) =
                        (self.runs.get_mut(count), self.names.get_mut(count))
                    else {
                        break;
                    };
                    *run = Run { first: at, count: 1, segment: bytes, bytes };
                    // The length of the name follows from its family: read again in `point`.
                    name.set(datagram.peer);
                    before = Some(datagram.peer);
                    count += 1;
                }
            }
            slice.iov_base = datagram.packet.as_ptr().cast_mut().cast();
            slice.iov_len = bytes;
        }
        // A shorter call must not see the runs of a longer one before it.
        if let Some(run) = self.runs.get_mut(count) {
            *run = Run { first: usize::MAX, ..Run::EMPTY };
        }
        count
    }

    /// Points the first `count` headers at what [`gather`](Self::gather) filled in.
    fn point(&mut self, count: usize) {
        let slices = self.slices.as_mut_ptr();
        let rows = self.messages.iter_mut().zip(&mut self.names).zip(&mut self.controls);
        for (((message, name), control), run) in rows.zip(&self.runs).take(count) {
            message.msg_len = 0;
            let header = &mut message.msg_hdr;
            header.msg_flags = 0;
            header.msg_iov = slices.wrapping_add(run.first);
            header.msg_iovlen = run.count as _;
            header.msg_namelen = name.length() as libc::socklen_t;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
            if run.count > 1 {
                // A run's datagrams are shorter than RUN_BYTES_MAX, which fits 16 bits.
                control.set_segment(run.segment as u16);
                header.msg_control = ptr::from_mut(control).cast();
                header.msg_controllen = mem::size_of::<Control>() as _;
            }
        }
    }
}

/// The kernel's answer as a result: a negative one means that `errno` says why.
fn outcome(status: libc::c_int) -> io::Result<usize> {
    usize::try_from(status).map_err(|_| io::Error::last_os_error())
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
            name.set(address);
            assert_eq!(name.length(), length, "{text}");
            assert_eq!(name.get(length), Some(address));
            assert_eq!(name.get(length - 1), None, "a cut name is no address");
        }
        assert_eq!(Name::EMPTY.get(NAME_BYTES), None);
    }
}
