//! Tells other threads which task is being polled, for whoever watches that it yields.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::world::HostId;

/// Pairs of a host and a task's name that are told apart; further ones have no name.
const LABELS_MAX: usize = 1 << 16;

thread_local! {
    /// Who is told by the simulations that begin on this thread.
    static CURRENT: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Says from any thread which task is being polled: a task that goes round without waiting for
/// anything holds its thread, so that nobody else can say.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use twinspan_provider::TaskProvider;
/// use twinspan_sim::{Meter, Sim, SimConfig};
///
/// let is_seen = Arc::new(AtomicBool::new(false));
/// let (meter, told) = (Meter::default(), Arc::clone(&is_seen));
/// let watched = meter.clone();
/// let watcher = std::thread::spawn(move || loop {
///     if let Some(polled) = watched.polled() {
///         told.store(true, Ordering::Relaxed);
///         return polled;
///     }
/// });
/// meter.measure(|| {
///     let mut sim = Sim::new(SimConfig::default());
///     let env = sim.host("node", [10, 0, 0, 1].into());
///     // Goes round until the watcher has seen it.
///     let task = env.spawn("spin", async move { while !is_seen.load(Ordering::Relaxed) {} });
///     sim.run_for(std::time::Duration::from_secs(1));
///     assert!(task.is_finished());
/// });
/// let polled = watcher.join().expect("it only looks");
/// assert_eq!((polled.host.as_str(), polled.task.as_str()), ("node", "spin"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Meter {
    shared: Arc<Shared>,
}

/// A task that is being polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polled {
    /// The number of the poll, counted over all simulations that the meter knows.
    pub poll: u64,
    /// The seed of the simulation that began last.
    pub seed: u64,
    /// The host's name.
    pub host: String,
    /// The task's name.
    pub task: String,
}

#[derive(Debug, Default)]
struct Shared {
    /// Polls so far, doubled; odd while one is under way. Nothing else hangs on it: who reads it a
    /// moment late looks again.
    polls: AtomicU64,
    /// The label of the task that is or was polled.
    label: AtomicU64,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    /// Simulations that are there. With the first of them the labels begin anew.
    live: u32,
    seed: u64,
    labels: Vec<(String, &'static str)>,
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter {
    /// Runs `body`; what simulations that begin in it poll on this thread is told by this meter.
    pub fn measure<T>(&self, body: impl FnOnce() -> T) -> T {
        /// Puts back who was told before, whatever the body came to.
        struct Former(Option<Meter>);
        impl Drop for Former {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _former = Former(CURRENT.replace(Some(self.clone())));
        body()
    }

    /// The task that is being polled, if one is.
    pub fn polled(&self) -> Option<Polled> {
        let polls = self.shared.polls.load(Ordering::Relaxed);
        if polls & 1 == 0 {
            return None;
        }
        let names = self.shared.names();
        let label = self.shared.label.load(Ordering::Relaxed);
        let label = usize::try_from(label).ok().and_then(|label| names.labels.get(label));
        let (host, task) = label.map_or(("", ""), |(host, task)| (host.as_str(), *task));
        let (host, task) = (host.to_owned(), task.to_owned());
        Some(Polled { poll: polls >> 1, seed: names.seed, host, task })
    }
}

/// One simulation's part in the meter of its thread.
pub(crate) struct Metered {
    shared: Arc<Shared>,
    known: BTreeMap<(HostId, &'static str), u64>,
}

impl Metered {
    /// `None` where nobody measures.
    pub(crate) fn begin(seed: u64) -> Option<Self> {
        let meter = CURRENT.with_borrow(Clone::clone)?;
        let mut names = meter.shared.names();
        if names.live == 0 {
            names.labels.clear();
        }
        names.live += 1;
        names.seed = seed;
        drop(names);
        Some(Self { shared: meter.shared, known: BTreeMap::new() })
    }

    /// What a task is known by from now on.
    pub(crate) fn label(&mut self, id: HostId, host: &str, task: &'static str) -> u64 {
        *self.known.entry((id, task)).or_insert_with(|| {
            let labels = &mut self.shared.names().labels;
            if labels.len() >= LABELS_MAX {
                return u64::MAX;
            }
            labels.push((host.to_owned(), task));
            labels.len() as u64 - 1
        })
    }

    /// A poll begins.
    pub(crate) fn enter(&self, label: u64) {
        self.shared.label.store(label, Ordering::Relaxed);
        // One thread alone polls, so that nothing is lost between the two.
        let polls = self.shared.polls.load(Ordering::Relaxed);
        self.shared.polls.store((polls | 1) + 2 * (polls & 1), Ordering::Relaxed);
    }

    /// It has ended.
    pub(crate) fn leave(&self) {
        let polls = self.shared.polls.load(Ordering::Relaxed);
        self.shared.polls.store((polls | 1) + 1, Ordering::Relaxed);
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let mut names = self.shared.names();
        names.live = names.live.saturating_sub(1);
    }
}
