//! Where processes meet: sockets with abstract names, which vanish with their owners.
#![expect(unsafe_code, reason = "one socket option that no safe crate offers")]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    bind, connect, listen, recvmsg, sendmsg, socket_with,
};

use super::greet::{GREETING_BYTES_MAX, Greeting, GreetingError};

/// Participants that one topic has at most on one machine.
pub const PARTICIPANTS_MAX: u8 = 64;
/// The longest topic, in bytes; its socket's name must fit 107.
pub const TOPIC_BYTES_MAX: usize = 80;
/// Greetings that wait for a participant whose thread is late.
pub(super) const BACKLOG: i32 = 512;
/// Descriptors that one packet may carry.
const DESCRIPTORS_MAX: usize = 3;
/// Groups of a process that are looked at.
const GROUPS_MAX: usize = 1_024;

/// Who may take part in a topic besides the user who runs this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    #[default]
    User,
    /// The members of a group, by its number.
    Group(u32),
}

/// Whose participants a topic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakenBy {
    /// The user who runs this process.
    User,
    /// Another user alone, by its number.
    Another(u32),
}

/// The user at the other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) is_welcome: bool,
}

/// The address of a participant's socket.
fn address(topic: &str, place: u8) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new_abstract_name(format!("twinspan.hub/{topic}#{place}").as_bytes())?)
}

/// A socket of packets with their lengths, which does not wait.
pub(super) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Takes the first free place of a topic, and listens there; `None` when all are taken.
pub(super) fn take_place(topic: &str) -> io::Result<Option<(u8, OwnedFd)>> {
    let listener = socket()?;
    for place in 0..PARTICIPANTS_MAX {
        match bind(&listener, &address(topic, place)?) {
            Ok(()) => {
                listen(&listener, BACKLOG)?;
                return Ok(Some((place, listener)));
            }
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Connects to the participant at a place; `None` when nobody is there, and an error of the kind
/// `WouldBlock` when its thread has been late for so many greetings that no more wait.
pub(super) fn visit(topic: &str, place: u8) -> io::Result<Option<OwnedFd>> {
    let socket = socket()?;
    match connect(&socket, &address(topic, place)?) {
        Ok(()) => Ok(Some(socket)),
        // Nobody, or somebody who is about to listen and will call us.
        Err(Errno::CONNREFUSED | Errno::CONNRESET) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Who is at the other end, and whether that user may take part.
pub(super) fn owner(socket: BorrowedFd<'_>, access: Access) -> io::Result<Owner> {
    let peer = socket_peercred(socket)?;
    let (uid, gid) = (peer.uid.as_raw(), peer.gid.as_raw());
    let own = rustix::process::geteuid().as_raw();
    let is_welcome = uid == own
        || match access {
            Access::User => false,
            Access::Group(group) => gid == group || groups(socket)?.contains(&group),
        };
    Ok(Owner { uid, is_welcome })
}

/// The supplementary groups of the process at the other end.
fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; GROUPS_MAX];
    let mut length = (GROUPS_MAX * mem::size_of::<u32>()) as libc::socklen_t;
    // SAFETY: `groups` has room for `length` bytes and both live for the whole call; the kernel
    // writes at most that many and says how many. `socket` is borrowed, so it stays open.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(length as usize / mem::size_of::<u32>());
    Ok(groups)
}

/// Sends a packet, without waiting.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    greeting: &Greeting,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_bytes(socket, &greeting.to_bytes(), descriptors)
}

/// The same with any bytes.
pub(super) fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// Why nothing more is to be had from a socket.
#[derive(Debug)]
pub(super) enum Heard {
    /// The other end is gone.
    Gone,
    /// What it says is no greeting.
    Nonsense(GreetingError),
    /// A greeting with its descriptors.
    Greeting(Box<Greeting>, Vec<OwnedFd>),
}

/// Receives a packet; `None` when none is there yet.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Option<Heard> {
    let mut bytes = [0; GREETING_BYTES_MAX + 1];
    let (length, descriptors) = match receive_bytes(socket, &mut bytes)? {
        Packet::Gone => return Some(Heard::Gone),
        Packet::Cut => return Some(Heard::Nonsense(GreetingError::Length)),
        Packet::Whole(length, descriptors) => (length, descriptors),
    };
    Some(match Greeting::parse(bytes.get(..length).unwrap_or_default()) {
        Ok(greeting) if descriptors.len() == greeting.kind.descriptors() => {
            Heard::Greeting(Box::new(greeting), descriptors)
        }
        Ok(_) => Heard::Nonsense(GreetingError::Field("count of descriptors")),
        Err(error) => Heard::Nonsense(error),
    })
}

/// A packet as it came.
#[derive(Debug)]
pub(super) enum Packet {
    /// None will come: the other end is gone.
    Gone,
    /// It is longer than there is room, or has too many descriptors.
    Cut,
    /// So many bytes, and descriptors.
    Whole(usize, Vec<OwnedFd>),
}

/// Receives a packet of any bytes; `None` when none is there yet.
pub(super) fn receive_bytes(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Option<Packet> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = match recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
        Ok(got) => got,
        Err(Errno::AGAIN | Errno::INTR) => return None,
        Err(_) => return Some(Packet::Gone),
    };
    // What is not taken here is closed by its owner's drop.
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Some(Packet::Gone);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Some(Packet::Cut);
    }
    Some(Packet::Whole(got.bytes, descriptors))
}

/// Whether anybody takes part in a topic.
pub(super) fn is_taken(topic: &str) -> io::Result<bool> {
    for place in 0..PARTICIPANTS_MAX {
        match visit(topic, place) {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Who has a topic: this user where somebody of it takes part, else another one who does.
pub(super) fn taken_by(topic: &str) -> io::Result<Option<TakenBy>> {
    let own = rustix::process::geteuid().as_raw();
    let mut taken = None;
    for place in 0..PARTICIPANTS_MAX {
        let socket = match visit(topic, place) {
            Ok(Some(socket)) => socket,
            Ok(None) => continue,
            // Whose it is cannot be told now.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let uid = socket_peercred(&socket)?.uid.as_raw();
        if uid == own {
            return Ok(Some(TakenBy::User));
        }
        taken = Some(TakenBy::Another(uid));
    }
    Ok(taken)
}

/// A bell: rung by other threads or processes, heard by a wait of this one.
///
/// # Errors
/// What the operating system says.
pub fn bell() -> io::Result<OwnedFd> {
    use rustix::event::{EventfdFlags, eventfd};
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Rings a bell.
pub fn ring(bell: impl AsFd) {
    // A bell that cannot be rung is one that rings already, or no bell: its owner's loss.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

/// Takes a bell's rings away.
pub fn quiet(bell: impl AsFd) {
    // A failure says that there was none.
    let _ = rustix::io::read(bell, &mut [0; 8]);
}

#[cfg(test)]
mod tests {
    use super::super::greet::{Form, Identity, Kind};
    use super::*;

    fn greeting(kind: Kind) -> Greeting {
        let name = "T".to_owned();
        Greeting::new(
            kind,
            [3; 16],
            Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name },
        )
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn a_place_is_free_again_when_its_owner_is_gone() {
        let topic = format!("test/place/{}", std::process::id());
        let (first, listener) = take_place(&topic).unwrap().unwrap();
        let (second, other) = take_place(&topic).unwrap().unwrap();
        assert_eq!((first, second), (0, 1));
        assert!(visit(&topic, 0).unwrap().is_some() && visit(&topic, 2).unwrap().is_none());
        assert!(is_taken(&topic).unwrap());
        assert_eq!(taken_by(&topic).unwrap(), Some(TakenBy::User));
        drop(listener);
        assert!(visit(&topic, 0).unwrap().is_none());
        let (again, last) = take_place(&topic).unwrap().unwrap();
        assert_eq!(again, 0);
        drop((other, last));
        assert!(!is_taken(&topic).unwrap() && taken_by(&topic).unwrap().is_none());
    }

    #[test]
    fn a_topic_has_a_greatest_number_of_participants() {
        let topic = format!("test/full/{}", std::process::id());
        let all: Vec<_> =
            (0..PARTICIPANTS_MAX).map(|_| take_place(&topic).unwrap().unwrap()).collect();
        assert!(take_place(&topic).unwrap().is_none());
        drop(all);
    }

    #[test]
    fn greetings_carry_descriptors_and_strange_packets_are_nonsense() {
        let (left, right) = pair();
        let bell = bell().unwrap();
        let sent = greeting(Kind::Welcome);
        send(left.as_fd(), &sent, &[bell.as_fd(), bell.as_fd()]).unwrap();
        let Some(Heard::Greeting(heard, descriptors)) = receive(right.as_fd()) else {
            panic!("a greeting came")
        };
        assert_eq!((*heard, descriptors.len()), (sent.clone(), 2));
        // Too few descriptors, too many, a packet too long, no packet, an end.
        send(left.as_fd(), &sent, &[bell.as_fd()]).unwrap();
        assert!(matches!(receive(right.as_fd()), Some(Heard::Nonsense(GreetingError::Field(_)))));
        send(left.as_fd(), &greeting(Kind::Done), &[bell.as_fd()]).unwrap();
        assert!(matches!(receive(right.as_fd()), Some(Heard::Nonsense(GreetingError::Field(_)))));
        rustix::net::send(&left, &[7; 999], SendFlags::empty()).unwrap();
        let heard = receive(right.as_fd());
        assert!(matches!(heard, Some(Heard::Nonsense(GreetingError::Length))), "{heard:?}");
        assert!(receive(right.as_fd()).is_none());
        drop(left);
        assert!(matches!(receive(right.as_fd()), Some(Heard::Gone)));
    }

    #[test]
    fn members_of_the_group_are_welcome() {
        let (left, _right) = pair();
        let own = rustix::process::getegid().as_raw();
        for access in [Access::User, Access::Group(own)] {
            let owner = owner(left.as_fd(), access).unwrap();
            assert_eq!((owner.uid, owner.is_welcome), (rustix::process::geteuid().as_raw(), true));
        }
        groups(left.as_fd()).unwrap();
    }
}
