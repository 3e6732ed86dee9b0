//! What must go on behind the fence.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use twinspan_fence::{ENFORCEMENT, Enforcement, FenceError, guard, is_up};

#[test]
fn memory_locks_and_output_pass() {
    assert_eq!(ENFORCEMENT, Enforcement::Kernel);
    let shared = Arc::new(Mutex::new(0_u64));
    let inside = Arc::clone(&shared);
    let sum = guard(move || {
        let mut map = BTreeMap::new();
        for number in 0..100_000_u64 {
            map.insert(number, vec![number; 16]);
        }
        // Above what an allocator keeps, so that the kernel is asked and given back to.
        drop(vec![1_u8; 256 << 20]);
        *inside.lock().unwrap() += 1;
        println!("output");
        eprintln!("output");
        map.values().map(|values| values.iter().sum::<u64>()).sum::<u64>()
    });
    assert_eq!(sum.unwrap(), (0..100_000_u64).sum::<u64>() * 16);
    assert_eq!(*shared.lock().unwrap(), 1);
}

#[test]
fn the_fence_stands_around_one_thread_and_goes_with_it() {
    assert!(!is_up());
    assert!(guard(is_up).unwrap());
    assert!(!is_up());
    assert!(std::time::Instant::now().elapsed().as_secs() < 60, "clocks tick outside");
}

#[test]
fn borrowed_values_go_in_and_results_come_out() {
    let words = ["a".to_owned(), "b".to_owned()];
    let mut seen = 0;
    let joined = guard(|| {
        seen += words.len();
        words.join("-")
    });
    assert_eq!((joined.unwrap().as_str(), seen), ("a-b", 2));
}

#[test]
fn a_panic_comes_out_as_it_was() {
    let panic = catch_unwind(|| guard(|| -> u8 { panic!("on purpose") })).unwrap_err();
    assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "on purpose");
    // Also one that was caught inside, whose message looked for names of functions.
    let value = guard(|| {
        let caught = catch_unwind(AssertUnwindSafe(|| panic!("inside"))).is_err();
        if caught { 7 } else { 0 }
    });
    assert_eq!(value.unwrap(), 7);
}

#[test]
fn a_panic_after_a_leak_is_a_leak() {
    let error = guard(|| {
        let _ = std::process::id();
        panic!("because of it");
    });
    let Err(FenceError::Leaked { leaks, count: 1 }) = error else { panic!("{error:?}") };
    assert_eq!(leaks[0].call, "getpid");
}
