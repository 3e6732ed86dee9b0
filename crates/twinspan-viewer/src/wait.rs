//! Waiting on the seam's clock.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use twinspan_provider::{Env, TimeProvider, Timer};

/// Waits.
pub(crate) async fn sleep<E: TimeProvider>(env: &E, duration: Duration) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(duration)));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// What a future gives, or `None` when it takes longer than that; it is dropped then.
pub(crate) async fn within<E: Env, F: Future>(
    env: &E,
    limit: Duration,
    future: F,
) -> Option<F::Output> {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(limit)));
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        timer.poll_expired(cx).map(|()| None)
    })
    .await
}
