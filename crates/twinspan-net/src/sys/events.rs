//! An epoll wait in nanoseconds.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::outcome;

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
