//! Environments that are another one but for its network.

use std::future::Future;

use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;

use crate::{Env, OffloadError, RandomProvider, TaskProvider, TimeProvider, WallTime};

/// An environment that has the time, the randomness and the tasks of another one, and a network of
/// its own: whoever implements this and [`NetworkProvider`](crate::NetworkProvider) has an [`Env`].
pub trait Around {
    /// The other one.
    type Inner: Env;

    /// The one underneath.
    fn env(&self) -> &Self::Inner;
}

impl<A: Around> TimeProvider for A {
    type Timer = <A::Inner as TimeProvider>::Timer;

    fn now(&self) -> Timestamp {
        self.env().now()
    }

    fn wall(&self) -> WallTime {
        self.env().wall()
    }

    fn timer(&self) -> Self::Timer {
        self.env().timer()
    }
}

impl<A: Around> RandomProvider for A {
    fn stream(&self, name: &'static str, instance: u64) -> Stream {
        self.env().stream(name, instance)
    }

    fn secrets(&self) -> Box<dyn SecretSource> {
        self.env().secrets()
    }
}

impl<A: Around> TaskProvider for A {
    type Task = <A::Inner as TaskProvider>::Task;

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Self::Task {
        self.env().spawn(name, future)
    }

    async fn offload<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OffloadError> {
        self.env().offload(name, work).await
    }
}
