//! Waiting with an end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use twinspan_core::time::Timestamp;
use twinspan_provider::{TimeProvider, Timer};

/// What `future` ends with; `None` when it has not ended at `deadline`.
///
/// # Cancel safety
/// As that of `future`, which is dropped at the deadline.
pub(crate) async fn until<E: TimeProvider, F: Future>(
    env: &E,
    deadline: Timestamp,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = env.timer();
    timer.set(Some(deadline));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.poll_expired(cx).map(|()| None),
    })
    .await
}
