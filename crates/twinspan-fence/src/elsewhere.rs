//! Where there is no fence: the closure just runs, on a thread of its own as it would behind one.

use std::panic::resume_unwind;
use std::thread;

use crate::{FenceError, STACK_BYTES};

pub(crate) fn guard<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, FenceError> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("unfenced".into()).stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, body).map_err(FenceError::Thread)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => resume_unwind(panic),
        }
    })
}
