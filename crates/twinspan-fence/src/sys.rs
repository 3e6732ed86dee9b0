//! What the fence asks of the kernel and of signal handlers: the filter, the time stamp counter, and
//! the notes of calls that were refused.
#![expect(unsafe_code, reason = "signal handlers, and settings of a thread, are the kernel's")]

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::thread;

use seccompiler::BpfProgramRef;

use crate::calls::{TIME_STAMP_COUNTER, describe};
use crate::{EXIT_STATUS, FRAMES_MAX, LEAKS_MAX, LEAKS_TOLD_MAX};

/// `si_code` of a call that a filter trapped.
const SECCOMP_TRAP: c_int = 1;
/// `si_code` of a fault that the kernel found itself, as it does for an instruction switched off.
const FAULT_OF_INSTRUCTION: c_int = 0x80;
/// The handlers run here: the filter may trap deep in a stack.
const HANDLER_STACK_BYTES: usize = 256 << 10;

/// A leak as the handler notes it.
#[derive(Clone, Copy)]
pub(crate) struct RawLeak {
    /// The number of the call, or [`TIME_STAMP_COUNTER`].
    pub(crate) call: i64,
    /// Where the thread was.
    pub(crate) at: usize,
    /// The handler's own frames, the frame that called, and its callers.
    pub(crate) frames: [usize; FRAMES_MAX],
    pub(crate) frames_len: usize,
}

impl RawLeak {
    const NONE: Self = Self { call: 0, at: 0, frames: [0; FRAMES_MAX], frames_len: 0 };
}

struct Notes {
    leaks: [RawLeak; LEAKS_TOLD_MAX],
    count: u64,
}

/// What one thread behind a fence was refused.
pub(crate) struct Ledger(UnsafeCell<Notes>);

// SAFETY: the notes are written by the handlers of the one thread that `within` made for this
// ledger, and read by `read`, which takes the ledger by value after that thread was joined.
unsafe impl Sync for Ledger {}

thread_local! {
    /// The ledger of this thread; null outside a fence.
    static LEDGER: Cell<*mut Notes> = const { Cell::new(ptr::null_mut()) };
}

/// What handled the two signals before.
struct Former {
    call: libc::sigaction,
    fault: libc::sigaction,
}

static FORMER: OnceLock<Result<Former, i32>> = OnceLock::new();

/// Whether the calling thread is behind a fence.
pub(crate) fn is_up() -> bool {
    !LEDGER.get().is_null()
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self(UnsafeCell::new(Notes { leaks: [RawLeak::NONE; LEAKS_TOLD_MAX], count: 0 }))
    }

    /// The first leaks, and how many there were.
    pub(crate) fn read(self) -> (Vec<RawLeak>, u64) {
        let notes = self.0.into_inner();
        let kept = usize::try_from(notes.count).unwrap_or(usize::MAX).min(LEAKS_TOLD_MAX);
        (notes.leaks.into_iter().take(kept).collect(), notes.count)
    }
}

/// Runs `body` on a thread of its own, which is behind the fence from then to its end, and waits for
/// that end. What went wrong before `body` began is told in words.
pub(crate) fn within<T: Send>(
    ledger: &Ledger,
    filter: BpfProgramRef<'_>,
    stack_bytes: usize,
    body: impl FnOnce() -> T + Send,
) -> io::Result<thread::Result<Result<T, String>>> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("fenced".into()).stack_size(stack_bytes);
        let thread = builder.spawn_scoped(scope, move || {
            // Both are there until the thread has ended: the ledger outlives the scope, and the stack
            // for handlers is put away only after the former one was set again.
            let mut stack = vec![0_u8; HANDLER_STACK_BYTES];
            let former = use_handler_stack(&mut stack)?;
            warm_up();
            keep_heaps();
            raise(ledger, filter)?;
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: `former` is what the kernel gave; the stack that it names is the thread's own.
            unsafe { libc::sigaltstack(&raw const former, ptr::null_mut()) };
            drop(stack);
            match outcome {
                Ok(value) => Ok(value),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        Ok(thread.join())
    })
}

/// Lets handlers of this thread run on `stack`; returns where they ran before.
fn use_handler_stack(stack: &mut [u8]) -> Result<libc::stack_t, String> {
    let wanted =
        libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: all zeros is a value of this plain structure.
    let mut former: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: both point to values that live through the call, and the caller keeps the stack.
    let result = unsafe { libc::sigaltstack(&raw const wanted, &raw mut former) };
    told(result, "sigaltstack").map(|()| former)
}

/// Does once what would otherwise call out when the handlers do it first.
fn warm_up() {
    // The allocator's part for this thread. That of the C library also reads a setting of the kernel
    // before it shrinks such a part for the first time, which giving back two megabytes calls for.
    let blocks: Vec<Vec<u8>> = (0..64).map(|_| Vec::with_capacity(32 << 10)).collect();
    drop(std::hint::black_box(blocks));
    // The unwinder's tables, the thread's own values.
    let mut frames = 0_usize;
    backtrace::trace(|_| {
        frames += 1;
        frames < FRAMES_MAX
    });
    let _ = thread::panicking();
}

/// Makes the C library keep what its heaps have, for as long as the process lives.
///
/// Libraries in C take their memory from it, whatever the program's own allocator is. Before it gives
/// the end of a thread's heap back for the first time it reads a file of the kernel's, and the fence
/// would tell that as a leak.
#[cfg(target_env = "gnu")]
fn keep_heaps() {
    // SAFETY: a setting of the allocator, which takes its own lock.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, c_int::MAX) };
}

/// Other C libraries are not known to read files for their heaps.
#[cfg(not(target_env = "gnu"))]
const fn keep_heaps() {}

/// Puts the fence up around the calling thread for the rest of its life.
fn raise(ledger: &Ledger, filter: BpfProgramRef<'_>) -> Result<(), String> {
    if let Err(errno) = FORMER.get_or_init(handle_signals) {
        let error = io::Error::from_raw_os_error(*errno);
        return Err(format!("handlers of signals: {error}"));
    }
    LEDGER.set(ledger.0.get());
    // SAFETY: a setting of the calling thread without pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV, 0, 0, 0) };
    let raised = told(result, "the time stamp counter").and_then(|()| {
        seccompiler::apply_filter(filter).map_err(|error| format!("the filter: {error}"))
    });
    if raised.is_err() {
        LEDGER.set(ptr::null_mut());
    }
    raised
}

fn told(result: c_int, what: &str) -> Result<(), String> {
    match result {
        0 => Ok(()),
        _ => Err(format!("{what}: {}", io::Error::last_os_error())),
    }
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Sets the handlers of this process, once.
fn handle_signals() -> Result<Former, i32> {
    let set = |signal: c_int, handler: Handler| {
        // SAFETY: all zeros is a value of this plain structure: no flags and an empty mask.
        let (mut wanted, mut former): (libc::sigaction, libc::sigaction) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        wanted.sa_sigaction = handler as *const () as usize;
        wanted.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both point to values that live through the call; the handler has the signature
        // that the flag promises and does only what a handler may.
        match unsafe { libc::sigaction(signal, &raw const wanted, &raw mut former) } {
            0 => Ok(former),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)),
        }
    };
    Ok(Former { call: set(libc::SIGSYS, on_call)?, fault: set(libc::SIGSEGV, on_fault)? })
}

/// A call that the filter did not let through: it fails, and is noted.
extern "C" fn on_call(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let notes = LEDGER.get();
    // SAFETY: the kernel gives a handler with `SA_SIGINFO` a valid description.
    let code = unsafe { (*info).si_code };
    if notes.is_null() || code != SECCOMP_TRAP {
        return pass_on(signal, info, context);
    }
    // SAFETY: likewise a valid context, of this thread and of nobody else while the handler runs.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let registers = &mut context.uc_mcontext.gregs;
    // The kernel has put the number of the call back to where it came from.
    let (call, at) = (register(registers, libc::REG_RAX), register(registers, libc::REG_RIP));
    if call == libc::SYS_rt_sigprocmask {
        let result = block_signals(registers, &mut context.uc_sigmask);
        return set_register(registers, libc::REG_RAX, result);
    }
    note(notes, call, at);
    set_register(registers, libc::REG_RAX, -i64::from(libc::EPERM));
}

/// Does what `rt_sigprocmask` does, by the mask that the kernel takes back when the handler returns,
/// but leaves the two signals open that the fence is told by: the C library blocks all of them before
/// it makes a thread, and a trapped call would then end the process without a word.
fn block_signals(registers: &[i64], mask: &mut libc::sigset_t) -> i64 {
    let argument = |name| register(registers, name);
    // The kernel's set is one word, and the C library's begins with it.
    let (set, former) =
        (argument(libc::REG_RSI) as *const u64, argument(libc::REG_RDX) as *mut u64);
    let mask = (&raw mut *mask).cast::<u64>();
    // SAFETY: the mask is the beginning of a set in the context of this signal.
    let now = unsafe { mask.read() };
    if !set.is_null() {
        // SAFETY: what the caller gave to the kernel as a set to be read.
        let wanted = unsafe { set.read_unaligned() };
        let next = match c_int::try_from(argument(libc::REG_RDI)) {
            Ok(libc::SIG_BLOCK) => now | wanted,
            Ok(libc::SIG_UNBLOCK) => now & !wanted,
            Ok(libc::SIG_SETMASK) => wanted,
            _ => return -i64::from(libc::EINVAL),
        };
        let kept_open = [libc::SIGSYS, libc::SIGSEGV].map(|signal| 1_u64 << (signal - 1));
        // SAFETY: as for reading it.
        unsafe { mask.write(next & !kept_open[0] & !kept_open[1]) };
    }
    if !former.is_null() {
        // SAFETY: what the caller gave to the kernel as a place for a set.
        unsafe { former.write_unaligned(now) };
    }
    0
}

/// A fault: reading the time stamp counter, which then is 0, or somebody else's.
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let notes = LEDGER.get();
    // SAFETY: the kernel gives a handler with `SA_SIGINFO` a valid description.
    let code = unsafe { (*info).si_code };
    if notes.is_null() || code != FAULT_OF_INSTRUCTION {
        return pass_on(signal, info, context);
    }
    // SAFETY: likewise a valid context, of this thread and of nobody else while the handler runs.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let at = register(registers, libc::REG_RIP);
    let bytes = at as *const u8;
    // SAFETY: a fault of this kind is one of an instruction that the processor has read here, and
    // every instruction that faults so has two bytes at least; the third is read only where the
    // first two say that the instruction has it.
    let length = match unsafe { [bytes.read(), bytes.add(1).read()] } {
        [0x0f, 0x31] => 2,
        // SAFETY: as above.
        [0x0f, 0x01] if unsafe { bytes.add(2).read() } == 0xf9 => {
            set_register(registers, libc::REG_RCX, 0);
            3
        }
        _ => return pass_on(signal, info, context),
    };
    note(notes, TIME_STAMP_COUNTER, at);
    set_register(registers, libc::REG_RAX, 0);
    set_register(registers, libc::REG_RDX, 0);
    set_register(registers, libc::REG_RIP, at.wrapping_add(length));
}

fn register(registers: &[i64], name: c_int) -> i64 {
    registers.get(name.unsigned_abs() as usize).copied().unwrap_or(0)
}

fn set_register(registers: &mut [i64], name: c_int, value: i64) {
    if let Some(register) = registers.get_mut(name.unsigned_abs() as usize) {
        *register = value;
    }
}

/// Notes a leak. One while the thread panics is not: the message of a panic looks for names of
/// functions in files, and finds none.
fn note(notes: *mut Notes, call: i64, at: i64) {
    if thread::panicking() {
        return;
    }
    // SAFETY: the pointer is that of this thread's ledger, which outlives the thread; only this
    // thread's handlers use it, one at a time: a handler itself makes no call that is refused.
    let notes = unsafe { &mut *notes };
    let kept = usize::try_from(notes.count).ok().and_then(|index| notes.leaks.get_mut(index));
    notes.count += 1;
    if let Some(leak) = kept {
        leak.call = call;
        leak.at = at.cast_unsigned() as usize;
        // SAFETY: no other thread's tracing is disturbed by one that only reads tables; the lock
        // that is left out is about the names of functions, which are not looked up here.
        unsafe {
            backtrace::trace_unsynchronized(|frame| {
                if let Some(slot) = leak.frames.get_mut(leak.frames_len) {
                    *slot = frame.ip() as usize;
                    leak.frames_len += 1;
                }
                leak.frames_len < FRAMES_MAX
            });
        }
    }
    if notes.count == 1 {
        // Said at once: what follows may never end.
        let (name, what) = describe(call);
        say(&["twinspan-fence: ", name.unwrap_or("a call"), " refused: ", what, "\n"]);
    }
    if notes.count >= LEAKS_MAX {
        say(&["twinspan-fence: it goes on calling out; the process ends\n"]);
        // SAFETY: ends the process without running anything else.
        unsafe { libc::_exit(EXIT_STATUS) };
    }
}

/// Writes to standard error without taking a lock.
fn say(parts: &[&str]) {
    for part in parts {
        // SAFETY: the bytes are there through the call. What cannot be written is not.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
}

/// Leaves a signal to what handled it before.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let former = match FORMER.get() {
        Some(Ok(former)) if signal == libc::SIGSYS => Some(&former.call),
        Some(Ok(former)) => Some(&former.fault),
        _ => None,
    };
    let handler = former.map_or(libc::SIG_DFL, |former| former.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // SAFETY: two calls that a handler may make. The signal comes again and ends the process, as
        // it would have without this handler; to ignore a fault would repeat it for ever.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        return;
    }
    if former.is_some_and(|former| former.sa_flags & libc::SA_SIGINFO != 0) {
        // SAFETY: with this flag, what was set is a function of this signature.
        let handler: Handler = unsafe { mem::transmute::<usize, Handler>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without the flag, it is a function of this one.
        let handler = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
        handler(signal);
    }
}
