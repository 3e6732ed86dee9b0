//! How long to spin, when to sleep, and what a wake-up costs on this machine.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
use std::sync::{Once, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::thread::{MembarrierCommand, membarrier};

use super::meet;
use crate::cores::pin_to_core;

/// How a receiver waits for a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// It looks again and again: the least latency, and a core at full load.
    Spin,
    /// It looks for twice as long as a wake-up costs on this machine, then sleeps.
    #[default]
    Adaptive,
    /// It sleeps at once.
    Block,
}

/// Looks between two looks at the clock, which cost more than these do.
const LOOKS_PER_CLOCK: u32 = 32;
/// How long an adaptive wait spins until the wake-up cost is known.
const SPIN_DEFAULT: Duration = Duration::from_micros(100);
/// The least and the most that it spins when the cost is known.
const SPIN_MIN: Duration = Duration::from_micros(10);
const SPIN_MAX: Duration = Duration::from_micros(400);
/// Waits in vain after which a confined process tries only each so many times.
const VAIN_MAX: u32 = 16;
/// Wake-ups that the measurement makes.
const WAKES_MEASURED: usize = 40;
/// Wake-ups that are compared with as many others.
const WAKES_COMPARED: usize = 5;
/// Idle time before each, so that the other core has gone to sleep.
const IDLE_BEFORE_WAKE: Duration = Duration::from_micros(250);
/// The longest sleep of a process that cannot order other processes' stores before it: it looks
/// again by itself.
const UNORDERED_NAP_MAX: Duration = Duration::from_millis(1);

/// The cost of a wake-up in nanoseconds; 0 while it is not known.
static WAKE_NS: AtomicU64 = AtomicU64::new(0);

/// What waking a sleeping thread costs, one way; `None` until the measurement, which runs in the
/// background from the first adaptive topic on for about 20 ms, has ended.
pub fn wake_cost() -> Option<Duration> {
    Some(WAKE_NS.load(Ordering::Relaxed)).filter(|ns| *ns > 0).map(Duration::from_nanos)
}

/// Measures what waking a sleeping thread costs, one way, which takes about 20 ms: a figure for a wait
/// that sleeps says little without it.
///
/// # Errors
/// What the operating system says when there is no thread or no bell to be had.
pub fn measure_wake_cost() -> io::Result<Duration> {
    measure_wake()
}

/// What waking a thread on a core costs, and one on any core: some wake-ups in turns, which take less than
/// a millisecond where they are not disturbed.
///
/// # Errors
/// What the operating system says when there is no thread or no bell to be had, or not that core.
pub fn wake_costs_on(core: usize) -> io::Result<[Duration; 2]> {
    let pinned = measure_wakes(WAKES_COMPARED, Duration::ZERO, Some(core))?;
    Ok([pinned, measure_wakes(WAKES_COMPARED, Duration::ZERO, None)?])
}

/// Measures the cost of a wake-up in the background, once for each process.
pub fn calibrate() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let measure = || {
            let cost = measure_wake().unwrap_or(SPIN_DEFAULT / 2);
            WAKE_NS.store(u64::try_from(cost.as_nanos()).unwrap_or(1).max(1), Ordering::Relaxed);
        };
        // Without a thread the default stays, which is near what machines need.
        let _ = thread::Builder::new().name("hub-wake-cost".into()).spawn(measure);
    });
}

/// How long an adaptive wait spins: twice the cost of a wake-up, for with less one late end makes
/// the other fall asleep too, and both pay for it in turn.
///
/// A process that is confined to one core of several cannot measure what it costs to wake another one,
/// and need not be alone on its own: it spins for as long as machines need, while that finds anything.
pub fn spin_limit() -> Duration {
    match place() {
        Place::Alone => Duration::ZERO,
        Place::Confined => CONFINED_SPINS.limit(),
        Place::Free => {
            wake_cost().map_or(SPIN_DEFAULT, |cost| (2 * cost).clamp(SPIN_MIN, SPIN_MAX))
        }
    }
}

/// Where this process may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the only core of the machine.
    Alone,
    /// On one core of several, where whoever is waited for may run on another.
    Confined,
    /// On several.
    Free,
}

impl Place {
    /// `own`: cores that the process may keep busy; `online`: the machine's, as the kernel lists them.
    fn of(own: usize, online: &str) -> Self {
        match (own, online.contains(['-', ','])) {
            (0 | 1, false) => Self::Alone,
            (0 | 1, true) => Self::Confined,
            _ => Self::Free,
        }
    }
}

fn place() -> Place {
    // Asked once: the questions read files.
    static PLACE: OnceLock<Place> = OnceLock::new();
    *PLACE.get_or_init(|| {
        let own = thread::available_parallelism().map_or(2, std::num::NonZero::get);
        // A system that lists no cores is taken for one that has one.
        Place::of(
            own,
            &std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default(),
        )
    })
}

/// Whether spinning finds anything, for a process that is confined to one core: where the other end
/// shares that core, spinning keeps it from running.
struct SpinRecord {
    /// Waits in a row that ended without a find.
    vain: AtomicU32,
}

static CONFINED_SPINS: SpinRecord = SpinRecord::new();

impl SpinRecord {
    const fn new() -> Self {
        Self { vain: AtomicU32::new(0) }
    }

    /// How long the next wait spins: not at all after some in vain, but for one try now and then.
    fn limit(&self) -> Duration {
        let vain = self.vain.load(Ordering::Relaxed);
        let tries = vain < VAIN_MAX || vain.is_multiple_of(VAIN_MAX);
        if tries { SPIN_DEFAULT } else { Duration::ZERO }
    }

    /// A wait ended. What was there at its beginning says nothing.
    fn note(&self, found: bool) {
        // Several threads may wait at once; a count that is off by one harms nothing.
        let vain = self.vain.load(Ordering::Relaxed);
        if found && vain > 0 {
            self.vain.store(0, Ordering::Relaxed);
        } else if !found {
            self.vain.store(vain.wrapping_add(1), Ordering::Relaxed);
        }
    }
}

/// A spin with a limit ended: a confined process learns from it whether the next one is worth it. Others
/// know that by what a wake-up costs, and write nothing that all their threads would share.
fn note_spin(found: bool) {
    if place() == Place::Confined {
        CONFINED_SPINS.note(found);
    }
}

/// The median of some wake-ups of a thread that sleeps, there and back, halved.
fn measure_wake() -> io::Result<Duration> {
    measure_wakes(WAKES_MEASURED, IDLE_BEFORE_WAKE, None)
}

/// The same of so many wake-ups of a thread, on a core if one is named.
fn measure_wakes(count: usize, idle: Duration, core: Option<usize>) -> io::Result<Duration> {
    let (there, back) = (meet::bell()?, meet::bell()?);
    let mut costs = thread::scope(|scope| {
        let echo = || {
            let pinned = core.map_or(Ok(()), pin_to_core);
            for _ in 0..count {
                sleep_on(there.as_fd(), None);
                meet::quiet(&there);
                meet::ring(&back);
            }
            pinned
        };
        let echo = thread::Builder::new().name("hub-wake-echo".into()).spawn_scoped(scope, echo)?;
        let mut costs = Vec::with_capacity(count);
        for _ in 0..count {
            thread::sleep(idle);
            let began = Instant::now();
            meet::ring(&there);
            sleep_on(back.as_fd(), None);
            meet::quiet(&back);
            costs.push(began.elapsed() / 2);
        }
        echo.join().map_err(|_| io::Error::other("the thread that answers ended"))??;
        Ok::<_, io::Error>(costs)
    })?;
    costs.sort_unstable();
    Ok(costs.get(costs.len() / 2).copied().unwrap_or(SPIN_DEFAULT))
}

/// The moment at which a wait of this length, begun now, ends; `None` for one that never does.
pub fn deadline_in(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Looks until something is found, the limit or the deadline passes.
pub fn spin<R>(
    limit: Option<Duration>,
    deadline: Option<Instant>,
    mut look: impl FnMut() -> Option<R>,
) -> Option<R> {
    let mut end: Option<Instant> = None;
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if let Some(found) = look() {
                if limit.is_some() && end.is_some() {
                    note_spin(true);
                }
                return Some(found);
            }
            std::hint::spin_loop();
        }
        if limit.is_some() || deadline.is_some() {
            let now = Instant::now();
            let own_end = *end.get_or_insert_with(|| match limit.map(|limit| now + limit) {
                Some(own) => deadline.map_or(own, |deadline| own.min(deadline)),
                None => deadline.unwrap_or(now),
            });
            if now >= own_end {
                if limit.is_some() {
                    note_spin(false);
                }
                return None;
            }
        }
    }
}

/// Sleeps until the descriptor is readable, for at most `limit`; may end early.
pub fn sleep_on(fd: BorrowedFd<'_>, limit: Option<Duration>) {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut wanted = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    // A signal ends it early, as anything else that is wrong does: the caller looks again.
    let _ = poll(&mut wanted, limit.as_ref());
}

/// The same for the first of two descriptors that is; whether each is.
pub fn sleep_on_either(fds: [BorrowedFd<'_>; 2], limit: Option<Duration>) -> [bool; 2] {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut wanted = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    match poll(&mut wanted, limit.as_ref()) {
        Ok(_) => wanted.map(|fd| !fd.revents().is_empty()),
        // A signal ended it: both are worth a look.
        Err(_) => [true; 2],
    }
}

/// A descriptor that is readable while one of those is that it [watches](watch), for an epoll that waits
/// for all of them as one.
///
/// # Errors
/// The system has no more descriptors.
pub fn watcher() -> io::Result<OwnedFd> {
    Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?)
}

/// Lets a [`watcher`] watch one more, until that is closed.
///
/// # Errors
/// The system refuses, as where the user watches too many already.
pub fn watch(watcher: impl AsFd, fd: impl AsFd) -> io::Result<()> {
    Ok(epoll::add(watcher, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?)
}

/// Orders a store of one process before its next load, in pairs: the frequent side passes
/// [`light`](Self::light), the rare one, which is about to sleep, [`heavy`](Self::heavy).
///
/// Where the kernel lets a process interrupt the others for that, the light side is free: it
/// registered, and the heavy side's call stands in for its fence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barrier {
    is_registered: bool,
}

impl Barrier {
    pub(super) fn new() -> Self {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        let register = || membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok();
        Self { is_registered: *REGISTERED.get_or_init(register) }
    }

    #[inline]
    pub(super) fn light(self) {
        if self.is_registered {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// Whether the kernel did so. Where it does not, `nap_max` ends each sleep soon.
    pub(super) fn heavy(self) -> bool {
        fence(Ordering::SeqCst);
        membarrier(MembarrierCommand::GlobalExpedited).is_ok()
    }

    /// The longest sleep behind [`heavy`](Self::heavy); `None` where there is no limit.
    pub(super) fn nap_max(self) -> Option<Duration> {
        (!self.is_registered).then_some(UNORDERED_NAP_MAX)
    }
}

/// Keeps the cores from sleeping so deeply that a wake-up takes long.
///
/// While it lives the kernel's request for the latency of processors stands at 0: idle cores wait
/// actively, which costs power on the whole machine.
#[derive(Debug)]
pub struct LatencyGuard {
    _request: File,
}

/// Why the request was not granted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// This kernel, or this container, has no such request.
    #[error(
        "this system has no /dev/cpu_dma_latency; run without the guard, or outside a container"
    )]
    Missing,
    /// The user may not make it.
    #[error("not permitted to open /dev/cpu_dma_latency for writing; ask for the right to it")]
    NotPermitted,
    /// Anything else that the operating system says.
    #[error("cannot ask for low latency: {0}")]
    Os(#[source] io::Error),
}

impl From<io::Error> for GuardError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Os(error),
        }
    }
}

impl LatencyGuard {
    /// Makes the request, which stands until this is dropped.
    ///
    /// # Errors
    /// [`GuardError`] says why it was not granted; nothing has changed then.
    pub fn request() -> Result<Self, GuardError> {
        Self::request_at(Path::new("/dev/cpu_dma_latency"))
    }

    fn request_at(device: &Path) -> Result<Self, GuardError> {
        let mut request = OpenOptions::new().write(true).open(device)?;
        request.write_all(&0_i32.to_ne_bytes())?;
        Ok(Self { _request: request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_ends_with_what_is_found_or_with_its_time() {
        let mut looks = 0;
        let found = spin(None, None, || {
            looks += 1;
            (looks == 1_000).then_some(7)
        });
        assert_eq!(found, Some(7));
        let began = Instant::now();
        let limit = Duration::from_millis(1);
        assert_eq!(spin::<()>(Some(limit), None, || None), None);
        assert!(began.elapsed() >= limit);
        let deadline = Instant::now() + limit;
        assert_eq!(spin::<()>(None, Some(deadline), || None), None);
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn a_wake_up_costs_something_and_the_spin_is_within_its_limits() {
        assert!(measure_wake().unwrap() > Duration::ZERO);
        let limit = spin_limit();
        assert!(limit.is_zero() || (SPIN_MIN..=SPIN_MAX).contains(&limit), "{limit:?}");
    }

    #[test]
    fn who_is_confined_spins_while_that_finds_anything_and_tries_again_now_and_then() {
        for (own, online, place) in [
            (1, "0\n", Place::Alone),
            (1, "", Place::Alone),
            (1, "0-1\n", Place::Confined),
            (1, "0,2\n", Place::Confined),
            (2, "0-1\n", Place::Free),
        ] {
            assert_eq!(Place::of(own, online), place, "{own} of {online:?}");
        }
        let record = SpinRecord::new();
        let spins = |waits: u32| {
            let tried = (0..waits).map(|_| {
                let tries = !record.limit().is_zero();
                record.note(false);
                u32::from(tries)
            });
            tried.sum::<u32>()
        };
        assert_eq!(spins(VAIN_MAX), VAIN_MAX, "as long as it may be chance");
        assert_eq!(spins(10 * VAIN_MAX), 10, "one of so many");
        record.note(true);
        assert_eq!(spins(VAIN_MAX), VAIN_MAX);
    }

    #[test]
    fn a_rung_bell_ends_the_sleep() {
        let bell = meet::bell().unwrap();
        meet::ring(&bell);
        sleep_on(bell.as_fd(), None);
        meet::quiet(&bell);
        sleep_on(bell.as_fd(), Some(Duration::from_micros(10)));
    }

    /// Descriptors of this process that are open on a file.
    fn open_on(file: &Path) -> usize {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
        targets.filter(|target| target == file).count()
    }

    #[test]
    fn a_guard_asks_for_no_latency_and_holds_the_request_until_it_is_dropped() {
        let name = format!("twinspan-guard-{}", std::process::id());
        let device = std::env::temp_dir().canonicalize().unwrap().join(name);
        std::fs::write(&device, [7; 6]).unwrap();
        let guard = LatencyGuard::request_at(&device).unwrap();
        assert_eq!(std::fs::read(&device).unwrap(), [0, 0, 0, 0, 7, 7], "a word of 32 bits");
        assert_eq!(open_on(&device), 1, "the kernel forgets the request with its descriptor");
        drop(guard);
        assert_eq!(open_on(&device), 0);
        std::fs::remove_file(&device).unwrap();
    }

    #[test]
    fn a_request_that_is_not_granted_says_why() {
        let folder = std::env::temp_dir();
        let missing = LatencyGuard::request_at(&folder.join("twinspan-guard-none"));
        assert!(matches!(missing, Err(GuardError::Missing)), "{missing:?}");
        let unusable = LatencyGuard::request_at(&folder);
        assert!(matches!(unusable, Err(GuardError::Os(_))), "{unusable:?}");
        let refused = GuardError::from(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(matches!(refused, GuardError::NotPermitted), "{refused:?}");
    }
}
