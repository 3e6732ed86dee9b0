//! What users fetch over HTTP: a task for each, and a limit on how many.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use twinspan_provider::Env;

/// Fetches of one client at a time; further ones are refused.
pub(crate) const FETCHES_MAX: usize = 256;

/// Tasks that end by themselves, or with the session.
pub(super) struct Fetches<E: Env> {
    env: E,
    tasks: BTreeMap<u64, E::Task>,
    next: u64,
    /// Those that are done with.
    done: Rc<RefCell<Vec<u64>>>,
}

impl<E: Env> Fetches<E> {
    pub(super) fn new(env: E) -> Self {
        Self { env, tasks: BTreeMap::new(), next: 0, done: Rc::default() }
    }

    /// Whether there is room for another.
    pub(super) fn has_room(&mut self) -> bool {
        let done = std::mem::take(&mut *self.done.borrow_mut());
        for id in done {
            self.tasks.remove(&id);
        }
        self.tasks.len() < FETCHES_MAX
    }

    pub(super) fn begin(&mut self, name: &'static str, work: impl Future<Output = ()> + 'static) {
        let id = self.next;
        self.next += 1;
        let done = Rc::clone(&self.done);
        let task = self.env.spawn(name, async move {
            work.await;
            done.borrow_mut().push(id);
        });
        self.tasks.insert(id, task);
    }
}
