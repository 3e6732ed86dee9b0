//! Streams of bytes between two processes of one user, through memory: what TCP carries between machines.
//!
//! Each end has a ring in a memory file of its own, which it alone can write, and looks into the other
//! one's. A local socket introduces them, wakes who sleeps, and ends with its process. What the other end
//! wrote is treated as hostile: it can make up bytes, and nothing else.
//!
//! //= hub 16.5
#![expect(unsafe_code, reason = "bytes of a ring that the protocol gives to one end at a time")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, bind, connect, listen};

use super::line::{Look, Word};
use super::map::{Segment, View};
use super::meet::{self, Access, BACKLOG, Packet};

/// Bytes on their way in one direction at most.
pub const PIPE_BYTES: usize = 256 << 10;
/// Bytes before them, and of all.
const HEAD_BYTES: usize = 4_096;
const SEGMENT_BYTES: usize = HEAD_BYTES + PIPE_BYTES;
/// Words before the ring, two lines from each other: bytes written into the own ring, bytes taken out of
/// the other one's, what this end is to be woken for, and whether nothing more is written.
const WORDS: usize = 64;
const WRITTEN: usize = 0;
const TAKEN: usize = 16;
const ASKED: usize = 32;
const ENDED: usize = 48;
/// What an end is to be woken for, below the number of its question.
const FOR_BYTES: u64 = 1;
const FOR_ROOM: u64 = 2;
/// Packets taken in a row: who sends without an end keeps nobody else from the road.
const HEARS_MAX: usize = 64;
/// What is said at first, with the memory file.
const HELLO: [u8; 8] = *b"TwPi\x01\0\0\0";

/// Makes something known, and gives what the other end is to be woken for.
///
/// Either this sees the question, or who [asked](ask) sees what is new: both fences stand in one order.
fn tell<W: Word, L: Look>(word: &W, value: u64, asked: &L) -> u64 {
    word.store(value, Ordering::Release);
    W::fence(Ordering::SeqCst);
    asked.load(Ordering::Relaxed)
}

/// Asks to be woken, and gives what is known behind that.
fn ask<W: Word, L: Look>(asked: &W, question: u64, word: &L) -> u64 {
    asked.store(question, Ordering::Relaxed);
    W::fence(Ordering::SeqCst);
    word.load(Ordering::Acquire)
}

fn name(of: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new_abstract_name(format!("twinspan.pipe/{of}").as_bytes())?)
}

/// Where pipes of a name begin: a socket with an abstract name, which vanishes with its process.
#[derive(Debug)]
pub struct PipeListener(OwnedFd);

impl PipeListener {
    /// Listens under a name of 90 bytes at most, in this network namespace.
    ///
    /// # Errors
    /// `AddrInUse` where somebody has the name; else what the operating system says.
    pub fn bind(of: &str) -> io::Result<Self> {
        let socket = meet::socket()?;
        bind(&socket, &name(of)?)?;
        listen(&socket, BACKLOG)?;
        Ok(Self(socket))
    }

    /// Takes a pipe that somebody began.
    ///
    /// # Errors
    /// `WouldBlock` where nobody did, `ConnectionAborted` where it was another user or is gone already,
    /// else what the operating system says.
    pub fn accept(&self) -> io::Result<Pipe> {
        let socket = accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let owner = meet::owner(socket.as_fd(), Access::User);
        if !owner.is_ok_and(|owner| owner.is_welcome) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Pipe::around(socket).map_err(|error| match error.kind() {
            // Memory that is missing is no trouble of this one's alone.
            io::ErrorKind::BrokenPipe => io::ErrorKind::ConnectionAborted.into(),
            _ => error,
        })
    }
}

impl AsFd for PipeListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One end of a stream of bytes each way. It never waits: what cannot be done now is `WouldBlock`.
///
/// Who is about to sleep calls [`arm`](Self::arm) first, and [`hear`](Self::hear) when the descriptor
/// is readable. One thread at a time reads, writes and arms.
pub struct Pipe {
    socket: OwnedFd,
    own: Segment,
    theirs: OnceLock<View>,
    /// The last question of this end, and whether it stands.
    question: AtomicU64,
    is_asking: AtomicBool,
    /// The last question of the other end that it was woken for.
    answered: AtomicU64,
    wants_room: AtomicBool,
    is_gone: AtomicBool,
}

impl Pipe {
    /// Begins a pipe to who listens under a name; it is [made](Self::is_made) when that one answers.
    ///
    /// # Errors
    /// `ConnectionRefused` where nobody listens, `PermissionDenied` where another user does, else what the
    /// operating system says.
    pub fn begin(of: &str) -> io::Result<Self> {
        let socket = meet::socket()?;
        connect(&socket, &name(of)?)?;
        let owner = meet::owner(socket.as_fd(), Access::User)?;
        if !owner.is_welcome {
            let why = format!("it is that of user {}", owner.uid);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Self::around(socket)
    }

    fn around(socket: OwnedFd) -> io::Result<Self> {
        let own = Segment::create("twinspan-pipe", SEGMENT_BYTES)?;
        meet::send_bytes(socket.as_fd(), &HELLO, &[own.file()])?;
        Ok(Self {
            socket,
            own,
            theirs: OnceLock::new(),
            question: AtomicU64::new(0),
            is_asking: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            wants_room: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        })
    }

    fn own(&self, word: usize) -> io::Result<&AtomicU64> {
        self.own.words(WORDS).get(word).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn theirs(&self, word: usize) -> io::Result<&impl Look> {
        let view = self.theirs.get().ok_or(io::ErrorKind::WouldBlock)?;
        view.words(WORDS).get(word).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Takes in what the socket says: the other end's memory, that it woke this one, or that it is gone. What
    /// is left leaves the descriptor readable.
    pub fn hear(&self) {
        // One byte more than is ever said.
        let mut bytes = [0; HELLO.len() + 1];
        for _ in 0..HEARS_MAX {
            let Some(packet) = meet::receive_bytes(self.socket.as_fd(), &mut bytes) else { return };
            let is_right = match packet {
                Packet::Gone | Packet::Cut => false,
                Packet::Whole(length, files) if self.theirs.get().is_none() => {
                    let view = files.first().filter(|_| bytes.get(..length) == Some(&HELLO));
                    let view =
                        view.and_then(|it| View::open(it.as_fd(), SEGMENT_BYTES as u64).ok());
                    view.is_some_and(|view| self.theirs.set(view).is_ok())
                }
                Packet::Whole(..) => true,
            };
            if !is_right {
                self.is_gone.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Whether the other end has answered.
    ///
    /// # Errors
    /// `ConnectionReset` where it is gone.
    pub fn is_made(&self) -> io::Result<bool> {
        match (self.theirs.get(), self.is_gone.load(Ordering::Relaxed)) {
            (Some(_), _) => Ok(true),
            (None, false) => Ok(false),
            (None, true) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Bytes between two counts of them; an end that says more than a ring holds is none to go on with.
    fn between(written: u64, taken: u64) -> io::Result<usize> {
        let bytes = usize::try_from(written.wrapping_sub(taken)).unwrap_or(usize::MAX);
        if bytes > PIPE_BYTES { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes) }
    }

    /// Bytes that came and were not read.
    fn waiting(&self) -> io::Result<usize> {
        let taken = self.own(TAKEN)?.load(Ordering::Relaxed);
        Self::between(self.theirs(WRITTEN)?.load(Ordering::Acquire), taken)
    }

    /// Bytes that can be written.
    fn room(&self) -> io::Result<usize> {
        let written = self.own(WRITTEN)?.load(Ordering::Relaxed);
        let used = Self::between(written, self.theirs(TAKEN)?.load(Ordering::Acquire))?;
        Ok(PIPE_BYTES - used)
    }

    /// Whether reading gives anything, an end or an error included, or writing does where room is wanted.
    pub fn has_news(&self) -> bool {
        let is_over = |count: io::Result<usize>| match count {
            Ok(count) => count > 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.is_gone.load(Ordering::Relaxed)
            || is_over(self.waiting())
            || (self.wants_room.load(Ordering::Relaxed) && is_over(self.room()))
            || self.theirs(ENDED).is_ok_and(|it| it.load(Ordering::Acquire) != 0)
    }

    /// Reads what came; 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` where nothing came; `InvalidData` where the other end breaks the rules.
    pub fn read(&self, space: &mut [u8]) -> io::Result<usize> {
        let is_ended = self.is_gone.load(Ordering::Relaxed)
            || self.theirs(ENDED).is_ok_and(|it| it.load(Ordering::Acquire) != 0);
        // Behind that: what was written before the end is still read.
        let waiting = match self.waiting() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_ended => 0,
            waiting => waiting?,
        };
        let count = waiting.min(space.len());
        if count == 0 {
            return if is_ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let view = self.theirs.get().ok_or(io::ErrorKind::WouldBlock)?;
        let taken = self.own(TAKEN)?;
        let at = taken.load(Ordering::Relaxed);
        let from = (at % PIPE_BYTES as u64) as usize;
        let first = count.min(PIPE_BYTES - from);
        for (offset, part) in [(from, 0..first), (0, first..count)] {
            let Some(part) = space.get_mut(part) else { continue };
            // SAFETY: the other end wrote these bytes before it said so, which was acquired, and does not
            // write there before it was told that they are taken, which is below.
            let bytes = unsafe { view.slice(HEAD_BYTES + offset, part.len()) };
            part.copy_from_slice(bytes.ok_or(io::ErrorKind::InvalidData)?);
        }
        let asked = tell(taken, at.wrapping_add(count as u64), self.theirs(ASKED)?);
        self.wake(asked, FOR_ROOM);
        self.disarm();
        Ok(count)
    }

    /// Writes pieces behind each other, as far as there is room.
    ///
    /// # Errors
    /// `WouldBlock` where there is none, `BrokenPipe` where the other end is gone; `InvalidData` where it
    /// breaks the rules.
    pub fn write(&self, pieces: &[&[u8]]) -> io::Result<usize> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut room = self.room()?;
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = self.own(WRITTEN)?;
        let before = written.load(Ordering::Relaxed);
        let mut at = before;
        for piece in pieces {
            let piece = piece.get(..room.min(piece.len())).unwrap_or_default();
            let to = (at % PIPE_BYTES as u64) as usize;
            let (first, second) = piece.split_at(piece.len().min(PIPE_BYTES - to));
            for (offset, part) in [(to, first), (0, second)] {
                // SAFETY: these bytes are behind what was written and before what is to be taken, so the
                // other end does not look at them, and no slice of them lives here: one thread writes.
                let place = unsafe { self.own.slice_mut(HEAD_BYTES + offset, part.len()) };
                place.ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(part);
            }
            at = at.wrapping_add(piece.len() as u64);
            room -= piece.len();
        }
        let asked = tell(written, at, self.theirs(ASKED)?);
        self.wake(asked, FOR_BYTES);
        Ok((at - before) as usize)
    }

    /// Wakes the other end, if it asked for that and was not woken since.
    fn wake(&self, asked: u64, what: u64) {
        if asked & what != 0 && self.answered.load(Ordering::Relaxed) != asked {
            self.answered.store(asked, Ordering::Relaxed);
            self.ring();
        }
    }

    fn ring(&self) {
        // One that cannot be told has been told already, or is gone.
        let _ = meet::send_bytes(self.socket.as_fd(), &[0], &[]);
    }

    /// Says that nothing more is written.
    pub fn shut(&self) {
        if let Ok(ended) = self.own(ENDED) {
            ended.store(1, Ordering::Release);
            self.ring();
        }
    }

    /// Whether room is waited for, besides what comes.
    pub fn want_room(&self, is_wanted: bool) {
        self.wants_room.store(is_wanted, Ordering::Relaxed);
    }

    /// Makes the descriptor readable with the next thing that happens; false where it has happened.
    pub fn arm(&self) -> bool {
        let (Ok(asked), Ok(theirs)) = (self.own(ASKED), self.theirs(WRITTEN)) else {
            // What is waited for is the other end's memory, which the socket brings.
            return true;
        };
        let room = if self.wants_room.load(Ordering::Relaxed) { FOR_ROOM } else { 0 };
        let number = self.question.load(Ordering::Relaxed).wrapping_add(4);
        self.question.store(number, Ordering::Relaxed);
        self.is_asking.store(true, Ordering::Relaxed);
        ask(asked, number | FOR_BYTES | room, theirs);
        !self.has_news()
    }

    fn disarm(&self) {
        if self.is_asking.swap(false, Ordering::Relaxed)
            && let Ok(asked) = self.own(ASKED)
        {
            asked.store(0, Ordering::Relaxed);
        }
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::shm::sleep_on_either;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn unique() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("test/{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn pair() -> (Pipe, Pipe) {
        let name = unique();
        let listener = PipeListener::bind(&name).unwrap();
        let here = Pipe::begin(&name).unwrap();
        let there = listener.accept().unwrap();
        here.hear();
        there.hear();
        assert!(here.is_made().unwrap() && there.is_made().unwrap());
        (here, there)
    }

    fn is_woken(pipe: &Pipe) -> bool {
        sleep_on_either([pipe.as_fd(), pipe.as_fd()], Some(PATIENCE))[0]
    }

    fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn bytes_come_in_order_whatever_the_pieces() {
        let (here, there) = pair();
        let mut space = vec![0; 70_000];
        assert_eq!(kind(there.read(&mut space)), Some(io::ErrorKind::WouldBlock));
        let (mut sent, mut came) = (0_usize, 0_usize);
        let byte = |at: usize| (at % 251) as u8;
        let mut step = 1;
        while came < 8 * PIPE_BYTES {
            let bytes: Vec<u8> = (sent..sent + step).map(byte).collect();
            let (first, rest) = bytes.split_at(step / 3);
            let (second, third) = rest.split_at(rest.len() / 2);
            match here.write(&[first, second, third]) {
                Ok(count) => sent += count,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            step = step * 7 % 90_001 + 1;
            let part = step % space.len() + 1;
            if let Some(space) = space.get_mut(..part)
                && let Ok(count) = there.read(space)
            {
                assert!(space[..count].iter().enumerate().all(|(at, it)| *it == byte(came + at)));
                came += count;
            }
        }
        while let Ok(count) = there.read(&mut space) {
            came += count;
        }
        assert_eq!(came, sent, "what is read was written, and all of it");
        let full = vec![7; PIPE_BYTES + 1];
        assert_eq!(here.write(&[&full]).unwrap(), PIPE_BYTES);
        assert_eq!(kind(here.write(&[b"x"])), Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn who_sleeps_is_woken_for_bytes_and_for_room_and_once() {
        let (here, there) = pair();
        let total = 64 * PIPE_BYTES;
        let wait = |pipe: &Pipe| {
            if pipe.arm() {
                assert!(is_woken(pipe), "nobody wakes it");
                pipe.hear();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                let (bytes, mut sent) = (vec![3; 50_000], 0);
                while sent < total {
                    let left = bytes.len().min(total - sent);
                    match here.write(&[bytes.get(..left).unwrap_or_default()]) {
                        Ok(count) => sent += count,
                        Err(_) => {
                            here.want_room(true);
                            wait(&here);
                            here.want_room(false);
                        }
                    }
                }
                here.shut();
            });
            let (mut space, mut came) = (vec![0; 30_000], 0);
            loop {
                match there.read(&mut space) {
                    Ok(0) => break,
                    Ok(count) => came += count,
                    Err(_) => wait(&there),
                }
            }
            assert_eq!(came, total);
        });
        // A question is answered by one ring, whatever is written behind it.
        let (here, there) = pair();
        assert!(there.arm());
        for _ in 0..10 {
            here.write(&[b"more"]).unwrap();
        }
        let mut bytes = [0; 8];
        let rings = || meet::receive_bytes(there.as_fd(), &mut [0; 8]).is_some();
        assert!(meet::receive_bytes(there.as_fd(), &mut bytes).is_some() && !rings());
        assert!(!there.arm(), "something is there");
    }

    #[test]
    fn who_rings_without_an_end_is_heard_for_a_while_and_again() {
        let (here, there) = pair();
        let mut rings = 0;
        while meet::send_bytes(here.as_fd(), &[0], &[]).is_ok() {
            rings += 1;
        }
        assert!(rings > HEARS_MAX, "the system keeps more of them");
        let mut turns = 0;
        while sleep_on_either([there.as_fd(); 2], Some(Duration::ZERO))[0] {
            there.hear();
            turns += 1;
        }
        assert_eq!(turns, rings.div_ceil(HEARS_MAX));
        here.write(&[b"on"]).unwrap();
        assert_eq!(there.read(&mut [0; 8]).unwrap(), 2);
    }

    #[test]
    fn what_was_written_before_the_end_is_read() {
        for is_shut in [true, false] {
            let (here, there) = pair();
            here.write(&[b"last ", b"words"]).unwrap();
            assert!(there.arm() || there.has_news());
            if is_shut {
                here.shut();
            }
            drop(here);
            assert!(is_woken(&there));
            there.hear();
            let mut space = [0; 64];
            assert_eq!(there.read(&mut space).unwrap(), 10);
            assert_eq!(&space[..10], b"last words");
            assert_eq!(there.read(&mut space).unwrap(), 0);
            there.hear();
            assert_eq!(kind(there.write(&[b"x"])), Some(io::ErrorKind::BrokenPipe));
        }
    }

    #[test]
    fn who_listens_has_the_name_and_who_says_nonsense_is_cut_off() {
        let name = unique();
        assert_eq!(kind(Pipe::begin(&name)), Some(io::ErrorKind::ConnectionRefused));
        let listener = PipeListener::bind(&name).unwrap();
        assert_eq!(kind(PipeListener::bind(&name)), Some(io::ErrorKind::AddrInUse));
        assert_eq!(kind(listener.accept()), Some(io::ErrorKind::WouldBlock));
        let segment = Segment::create("test", SEGMENT_BYTES).unwrap();
        let short = Segment::create("test", 8_192).unwrap();
        let another = Segment::create("test", SEGMENT_BYTES).unwrap();
        let mut version = HELLO;
        version[4] = 2;
        let files: [&[BorrowedFd<'_>]; 3] =
            [&[], &[short.file()], &[segment.file(), another.file()]];
        let wrong = files.map(|files| (&HELLO[..], files));
        let file = [segment.file()];
        let texts =
            [(&version[..], &file[..]), (b"TwPi".as_slice(), &file[..]), (&[7; 64][..], &[])];
        for (text, files) in wrong.into_iter().take(2).chain(texts) {
            let socket = meet::socket().unwrap();
            connect(&socket, &super::name(&name).unwrap()).unwrap();
            let pipe = listener.accept().unwrap();
            assert!(!pipe.is_made().unwrap());
            meet::send_bytes(socket.as_fd(), text, files).unwrap();
            pipe.hear();
            assert_eq!(kind(pipe.is_made()), Some(io::ErrorKind::ConnectionReset), "{text:?}");
            assert_eq!(pipe.read(&mut [0; 8]).unwrap(), 0);
        }
    }

    #[test]
    fn counts_that_cannot_be_are_an_error_and_nothing_else() {
        for (word, value) in [(WRITTEN, PIPE_BYTES as u64 + 1), (WRITTEN, u64::MAX), (TAKEN, 1)] {
            let (here, there) = pair();
            here.own(word).unwrap().store(value, Ordering::Release);
            assert!(there.has_news() || word == TAKEN);
            let failed = match word {
                WRITTEN => kind(there.read(&mut [0; 64])),
                _ => kind(there.write(&[b"x"])),
            };
            assert_eq!(failed, Some(io::ErrorKind::InvalidData), "{word} {value}");
        }
    }
}

#[cfg(all(test, twinspan_loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64 as Modelled;
    use loom::thread;

    use super::{ask, tell};

    #[test]
    fn who_sleeps_is_woken_or_sees_what_is_new_under_loom() {
        loom::model(|| {
            let words = Arc::new((Modelled::new(0), Modelled::new(0)));
            let writer = {
                let words = Arc::clone(&words);
                thread::spawn(move || tell(&words.0, 1, &words.1) != 0)
            };
            let seen = ask(&words.1, 5, &words.0);
            let rings = writer.join().unwrap();
            assert!(rings || seen == 1, "it would sleep for ever");
        });
    }
}
