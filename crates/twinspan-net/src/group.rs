//! Sockets that share one address, one for each core, and the filter in the kernel that gives every
//! datagram to the core its connection lives on.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{SockRef, Socket};
use twinspan_core::steer::{ID_OFFSET, MULTIPLIERS, SHIFTS, Steering, TOKEN_OFFSET};
use twinspan_provider::{BindError, UdpOptions};

use crate::port::{open, take_both, unbound};
use crate::sys;

/// One bound socket of a group, on its way to the thread of its core.
///
/// [`ReactorEnv::adopt`](crate::ReactorEnv::adopt) makes it a socket of a reactor. Members are
/// known to the kernel by their place: close one and the last takes its place, so a group lives and
/// ends together.
#[derive(Debug)]
pub struct GroupMember {
    socket: Socket,
    local: SocketAddr,
    shard: u16,
    options: UdpOptions,
    /// Why the kernel does not steer; `None` when it does.
    unsteered: Option<io::ErrorKind>,
}

impl GroupMember {
    /// The address that all members share.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Which shard's datagrams it gets.
    pub const fn shard(&self) -> u16 {
        self.shard
    }

    /// Whether the kernel gives every member its own datagrams. Where it refused the filter, or was not
    /// asked, it spreads them by addresses, and the shards hand on what is not theirs.
    pub const fn is_steered(&self) -> bool {
        self.unsteered.is_none()
    }

    /// Why the kernel does not steer, where it refused.
    pub const fn refusal(&self) -> Option<io::ErrorKind> {
        self.unsteered
    }

    pub(crate) fn into_parts(self) -> (Socket, SocketAddr, UdpOptions) {
        (self.socket, self.local, self.options)
    }
}

/// Binds one socket for each shard of `steering` to `local` and lets the kernel steer: member `i`
/// gets the datagrams of which [`Steering::shard_of_packet`] says `i`, whatever address they come
/// from. Port 0 picks a free port for all of them.
///
/// The address must be free, as for a single socket. Until the last member is bound and the filter
/// attached, a moment at the start, datagrams may reach another member; and runs that a sender's
/// kernel joined and that travel unsplit, as over the loopback interface, go where their first
/// datagram belongs. So a shard hands on, or drops and counts, what is not its own; with a kernel
/// that refuses the filter it does so more often, see [`GroupMember::is_steered`].
///
/// # Errors
/// [`BindError`] names the address and why it cannot be had.
pub fn bind_group(
    local: SocketAddr,
    steering: Steering,
    options: &UdpOptions,
) -> Result<Vec<GroupMember>, BindError> {
    let mut members = bind_unsteered_group(local, steering, options)?;
    let steered = match members.first() {
        Some(first) if steering.shards() > 1 => {
            sys::attach_steering(first.socket.as_fd(), &steering_program(steering))
        }
        _ => Ok(()),
    };
    for member in &mut members {
        member.unsteered = steered.as_ref().err().map(io::Error::kind);
    }
    Ok(members)
}

/// The same without a filter in the kernel: it spreads datagrams by addresses alone, and the shards
/// must hand them on.
///
/// # Errors
/// [`BindError`] names the address and why it cannot be had.
pub fn bind_unsteered_group(
    local: SocketAddr,
    steering: Steering,
    options: &UdpOptions,
) -> Result<Vec<GroupMember>, BindError> {
    let bind = || -> io::Result<Vec<GroupMember>> {
        // The first one without sharing: else a port that another group has would be shared too.
        let (first, local) = open(local, options)?;
        let unsteered = Some(io::ErrorKind::Unsupported);
        let options = *options;
        let member = |socket, shard| GroupMember { socket, local, shard, options, unsteered };
        let mut members = vec![member(first, 0)];
        for shard in 1..steering.shards() {
            if let Some(first) = members.first() {
                first.socket.set_reuse_port(true)?;
            }
            let socket = unbound(local, &options)?;
            socket.set_reuse_port(true)?;
            socket.bind(&local.into())?;
            members.push(member(socket, shard));
        }
        Ok(members)
    };
    bind().map_err(|error| BindError::from_io(local, error))
}

/// Binds another socket to the address of one that is bound, and has the kernel give each datagram to
/// the one that `program` names, by its place in the order in which they were bound, from 0: see
/// [`steer`]. So several protocols have one port, and none sees what another is sent. Where the first has
/// both families of addresses, so have the others.
///
/// The filter knows them by their places: close one and the last takes its place, so they live and end
/// together. Until it is attached, a moment at the start, a datagram may reach any of them.
///
/// # Errors
/// What the operating system says; those that are there are then as they were.
pub fn bind_beside(first: BorrowedFd<'_>, program: &[(u16, u8, u8, u32)]) -> io::Result<UdpSocket> {
    let known = SockRef::from(&first);
    let local = known.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    let is_alone = !known.reuse_port()?;
    // Only now: bound without sharing, the port was nobody else's.
    known.set_reuse_port(true)?;
    let bind = || -> io::Result<Socket> {
        let socket = unbound(local, &UdpOptions::default())?;
        if local.is_ipv6() && !known.only_v6()? {
            take_both(&socket)?;
        }
        socket.set_reuse_port(true)?;
        socket.bind(&local.into())?;
        sys::attach_steering(socket.as_fd(), program)?;
        Ok(socket)
    };
    match bind() {
        Ok(socket) => Ok(socket.into()),
        Err(error) => {
            if is_alone {
                known.set_reuse_port(false)?;
            }
            Err(error)
        }
    }
}

/// Says anew which of the sockets of an address a datagram goes to. The program is a classic packet
/// filter over a datagram's payload, one instruction each as code, jump if true, jump if false,
/// operand, which returns a place. `member` is any of those that [`bind_beside`] bound.
///
/// # Errors
/// What the operating system says; the former filter stays.
pub fn steer(member: BorrowedFd<'_>, program: &[(u16, u8, u8, u32)]) -> io::Result<()> {
    sys::attach_steering(member, program)
}

/// The steering rule as a classic packet filter over a datagram's payload, one instruction each as
/// code, jump if true, jump if false, operand. It returns the shard; a load past the end of the
/// datagram ends it with 0.
pub fn steering_program(steering: Steering) -> Vec<(u16, u8, u8, u32)> {
    // The classic filter's words, as `linux/bpf_common.h` names them.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const XOR_OPERAND: u16 = 0xa4;
    const XOR_X: u16 = 0xac;
    const MULTIPLY: u16 = 0x24;
    const SHIFT_RIGHT: u16 = 0x74;
    const COPY_TO_X: u16 = 0x07;
    const RETURN_A: u16 = 0x16;
    let mut program = vec![
        (LOAD_WORD, 0, 0, ID_OFFSET as u32),
        // An id: over the next instruction.
        (JUMP_IF_EQUAL, 0, 1, 0),
        (LOAD_WORD, 0, 0, TOKEN_OFFSET as u32),
        (XOR_OPERAND, 0, 0, steering.key()),
    ];
    for (step, shift) in SHIFTS.iter().enumerate() {
        program.extend([(COPY_TO_X, 0, 0, 0), (SHIFT_RIGHT, 0, 0, *shift), (XOR_X, 0, 0, 0)]);
        if let Some(multiplier) = MULTIPLIERS.get(step) {
            program.push((MULTIPLY, 0, 0, *multiplier));
        }
    }
    program.extend([
        (SHIFT_RIGHT, 0, 0, 16),
        (MULTIPLY, 0, 0, u32::from(steering.shards())),
        (SHIFT_RIGHT, 0, 0, 16),
        (RETURN_A, 0, 0, 0),
    ]);
    program
}
