//! What threads need that share values: locks that outlive a panic, and the time that each used.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Locks a value that is replaced whole by whoever writes it: it is good even where a holder of the
/// lock panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Processor time that the calling thread has used, in user and kernel mode.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_lock_outlives_a_panic_of_its_holder() {
        let shared = Mutex::new(7);
        let panicked = thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let _held = lock(&shared);
                panic!("on purpose");
            });
            holder.join().is_err()
        });
        assert!(panicked && shared.is_poisoned());
        *lock(&shared) += 1;
        assert_eq!(*lock(&shared), 8);
    }

    #[test]
    fn each_thread_has_its_own_time() {
        let much = Duration::from_millis(50);
        while thread_cpu_time() < much {}
        // What this one used is none of a fresh one's.
        assert!(thread::spawn(thread_cpu_time).join().unwrap() < much);
    }
}
