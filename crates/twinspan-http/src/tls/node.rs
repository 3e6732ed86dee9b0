//! Lends a node's clock and secrets to a library that knows only of global ones.

use std::cell::RefCell;

use twinspan_core::random::SecretSource;
use twinspan_provider::{Env, WallTime};

thread_local! {
    /// What is lent at the moment. A call into the library does not leave its thread.
    static LENT: RefCell<Option<Lent>> = const { RefCell::new(None) };
}

struct Lent {
    secrets: Box<dyn SecretSource>,
    wall: WallTime,
}

/// A node's clock, and secrets of one connection.
pub(super) struct Node<E> {
    env: E,
    /// `None` while they are lent.
    secrets: Option<Box<dyn SecretSource>>,
}

/// Nothing of it is pinned.
impl<E> Unpin for Node<E> {}

impl<E: Env> Node<E> {
    pub(super) fn new(env: &E) -> Self {
        Self { env: env.clone(), secrets: Some(env.secrets()) }
    }

    /// Calls `library`, which may use [`fill`] and [`wall`] meanwhile.
    pub(super) fn lend<R>(&mut self, library: impl FnOnce() -> R) -> R {
        let wall = self.env.wall();
        let lent = self.secrets.take().map(|secrets| Lent { secrets, wall });
        let outer = LENT.replace(lent);
        let _back = Back { secrets: &mut self.secrets, outer };
        library()
    }
}

/// Takes back what was lent, also when the library panicked.
struct Back<'a> {
    secrets: &'a mut Option<Box<dyn SecretSource>>,
    outer: Option<Lent>,
}

impl Drop for Back<'_> {
    fn drop(&mut self) {
        let lent = LENT.replace(self.outer.take());
        *self.secrets = lent.map(|lent| lent.secrets);
    }
}

/// Fills `out` with secrets of the node that lends; false where none does.
#[must_use]
pub(super) fn fill(out: &mut [u8]) -> bool {
    LENT.with_borrow_mut(|lent| {
        let Some(lent) = lent else { return false };
        lent.secrets.fill(out);
        true
    })
}

/// The wall clock of the node that lends.
pub(super) fn wall() -> Option<WallTime> {
    LENT.with_borrow(|lent| lent.as_ref().map(|lent| lent.wall))
}

#[cfg(test)]
mod tests {
    use twinspan_provider::{RandomProvider, TimeProvider, TokioEnv};

    use super::*;

    #[test]
    fn nothing_is_there_unless_it_is_lent() {
        assert!(!fill(&mut [0; 4]));
        assert_eq!(wall(), None);
        let env = TokioEnv::new(Some(1)).unwrap();
        let mut node = Node::new(&env);
        for _ in 0..2 {
            let mut bytes = [0; 32];
            let wall = node.lend(|| {
                assert!(fill(&mut bytes));
                wall()
            });
            assert_ne!(bytes, [0; 32]);
            assert!(wall.unwrap() <= env.wall());
        }
        assert!(!fill(&mut [0; 4]), "it was taken back");
        assert!(node.secrets.is_some());
        drop(env.secrets());
    }

    #[test]
    fn it_is_taken_back_when_the_library_panics() {
        let env = TokioEnv::new(Some(1)).unwrap();
        let mut node = Node::new(&env);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            node.lend(|| panic!("on purpose"));
        }));
        assert!(outcome.is_err());
        assert!(node.secrets.is_some() && wall().is_none());
    }
}
