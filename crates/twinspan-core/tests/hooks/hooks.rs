//! Two functions that differ in their marks, and in a number so that they are not made one.

#[path = "../../src/chaos.rs"]
pub mod chaos;

/// With marks.
#[inline(never)]
pub fn function_with_marks(queue: &mut [u64; 8], len: usize) -> u64 {
    if len > 7 || buggify!("queue full") {
        reachable!("turned away");
        return 1_111;
    }
    queue[len] += 1;
    sometimes!(len == 7, "the queue is full");
    always!(queue[len] > 0, "counted");
    queue.iter().sum()
}

/// Without.
#[inline(never)]
pub fn function_without_marks(queue: &mut [u64; 8], len: usize) -> u64 {
    if len > 7 {
        return 2_222;
    }
    queue[len] += 1;
    queue.iter().sum()
}
