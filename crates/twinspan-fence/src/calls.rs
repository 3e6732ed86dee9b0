//! Which system calls pass, and what those that do not would have brought in.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// The processor's time stamp counter, which is no system call.
pub(crate) const TIME_STAMP_COUNTER: i64 = -1;

/// What memory, locks without a time, output and the end of a thread take. None of them tells the
/// caller anything about the outside but whether it worked; `getcpu` does, and allocators use it
/// on machines with several memory nodes. `rt_sigprocmask` is not among them because the handler of
/// calls does it itself: nobody may block the signal that the fence is told by.
const ALLOWED: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getcpu,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The operation of a futex call, without its flags.
const FUTEX_OPERATION: u64 = 0x7f;

/// The program that the kernel runs before each call of the thread.
pub(crate) fn filter() -> Result<BpfProgram, seccompiler::Error> {
    // An empty list of rules means always. `c_long` is 64 bits wide here.
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let wakes = SeccompCondition::new(
        1,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(FUTEX_OPERATION),
        u64::from(libc::FUTEX_WAKE.unsigned_abs()),
    )?;
    // Waiting with a time is a sleep.
    let waits_for_ever = SeccompCondition::new(3, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    let futex = vec![SeccompRule::new(vec![wakes])?, SeccompRule::new(vec![waits_for_ever])?];
    rules.insert(libc::SYS_futex, futex);
    // Allocators give names to what they map, which tells them nothing.
    let names_memory = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        u64::from(libc::PR_SET_VMA.unsigned_abs()),
    )?;
    rules.insert(libc::SYS_prctl, vec![SeccompRule::new(vec![names_memory])?]);
    let (refused, passes) = (SeccompAction::Trap, SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, refused, passes, TargetArch::x86_64)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// Makes the table of names of the constants that `libc` has.
macro_rules! calls {
    ($($what:literal: $($call:ident)*;)*) => {
        &[$($((libc::$call, stringify!($call), $what),)*)*]
    };
}

/// Calls that do not pass: number, name of the constant, what it brings in.
const REFUSED: &[(c_long, &str, &str)] = calls! {
    "a clock": SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_time SYS_times
        SYS_getrusage SYS_adjtimex SYS_clock_adjtime SYS_timer_create SYS_timer_settime
        SYS_timer_gettime SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_getitimer
        SYS_setitimer SYS_alarm;
    "a sleep": SYS_nanosleep SYS_clock_nanosleep SYS_pause SYS_futex;
    "entropy": SYS_getrandom;
    "a thread or process": SYS_clone SYS_clone3 SYS_fork SYS_vfork SYS_execve SYS_execveat
        SYS_wait4 SYS_waitid SYS_unshare SYS_setns;
    "the network": SYS_socket SYS_socketpair SYS_connect SYS_accept SYS_accept4 SYS_bind
        SYS_listen SYS_sendto SYS_sendmsg SYS_sendmmsg SYS_recvfrom SYS_recvmsg SYS_recvmmsg
        SYS_shutdown SYS_getsockname SYS_getpeername SYS_setsockopt SYS_getsockopt;
    "readiness from outside": SYS_epoll_create SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_wait
        SYS_epoll_pwait SYS_epoll_pwait2 SYS_poll SYS_ppoll SYS_select SYS_pselect6 SYS_eventfd
        SYS_eventfd2 SYS_signalfd SYS_signalfd4;
    "input from outside": SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_io_setup
        SYS_io_submit SYS_io_getevents SYS_read SYS_readv SYS_pread64 SYS_preadv SYS_preadv2
        SYS_pipe SYS_pipe2 SYS_inotify_init SYS_inotify_init1 SYS_process_vm_readv
        SYS_memfd_create;
    "a file": SYS_open SYS_openat SYS_openat2 SYS_creat SYS_stat SYS_lstat SYS_fstat
        SYS_newfstatat SYS_statx SYS_access SYS_faccessat SYS_faccessat2 SYS_readlink
        SYS_readlinkat SYS_getdents SYS_getdents64 SYS_getcwd SYS_chdir SYS_statfs SYS_fstatfs
        SYS_lseek SYS_unlink SYS_unlinkat SYS_rename SYS_renameat SYS_renameat2 SYS_mkdir
        SYS_mkdirat SYS_rmdir SYS_ftruncate SYS_truncate SYS_fsync SYS_fdatasync SYS_pwrite64
        SYS_pwritev SYS_fcntl SYS_flock SYS_ioctl SYS_dup SYS_dup2 SYS_dup3 SYS_sendfile
        SYS_splice;
    "the process or its user": SYS_getpid SYS_gettid SYS_getppid SYS_getpgid SYS_getsid SYS_getuid
        SYS_geteuid SYS_getgid SYS_getegid SYS_getgroups SYS_kill SYS_tkill SYS_prctl
        SYS_arch_prctl SYS_ptrace;
    "the machine": SYS_uname SYS_sysinfo SYS_sched_getaffinity SYS_sched_setaffinity
        SYS_sched_getscheduler SYS_sched_setscheduler SYS_sched_getparam SYS_getpriority
        SYS_setpriority SYS_getrlimit SYS_setrlimit SYS_prlimit64 SYS_mincore SYS_membarrier
        SYS_syslog SYS_perf_event_open SYS_bpf;
};

/// The name of a system call and what it brings in.
pub(crate) fn describe(call: i64) -> (Option<&'static str>, &'static str) {
    if call == TIME_STAMP_COUNTER {
        return (Some("rdtsc"), "a clock");
    }
    let known = REFUSED.iter().find(|(number, ..)| *number == call);
    known.map_or((None, "something from outside"), |(_, name, what)| {
        (name.strip_prefix("SYS_"), what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_a_program_and_what_it_refuses_has_a_name() {
        assert!(filter().unwrap().len() > 2 * ALLOWED.len());
        assert_eq!(describe(libc::SYS_getrandom), (Some("getrandom"), "entropy"));
        assert_eq!(describe(libc::SYS_clone3), (Some("clone3"), "a thread or process"));
        assert_eq!(describe(TIME_STAMP_COUNTER), (Some("rdtsc"), "a clock"));
        assert_eq!(describe(9_999), (None, "something from outside"));
        assert!(ALLOWED.iter().all(|call| describe(*call).0.is_none()), "it passes");
    }
}
