//! Marks in code that a simulator listens to: fault points, and points that a sweep must reach.
//!
//! ```
//! use twinspan_core::{always, buggify, reachable, sometimes};
//!
//! fn take(queue: &mut Vec<u32>, item: u32) -> bool {
//!     if queue.len() == 4 || buggify!("queue full") {
//!         reachable!("an item was turned away");
//!         return false;
//!     }
//!     queue.push(item);
//!     sometimes!(queue.len() == 4, "the queue is full");
//!     always!(queue.len() <= 4, "the queue keeps its limit");
//!     true
//! }
//!
//! // Outside a simulation no fault point says yes.
//! assert!(take(&mut Vec::new(), 1));
//! ```
//!
//! Without the feature `chaos`, which the simulator switches on, the marks are no code at all: a
//! test compares the machine code. With it, outside a simulation, each costs a look at a variable of
//! the thread. There is no table of all marks: a mark reports to the run in which it is met, and a
//! sweep is told by name which ones it must meet.

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SiteKind {
    /// Here something may go wrong.
    Buggify,
    /// This holds whenever it is met.
    Always,
    /// This holds at least once in a sweep.
    Sometimes,
    /// This is met at least once in a sweep.
    Reachable,
}

/// One mark in the code, made by the macros.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// What it says.
    pub kind: SiteKind,
    /// Its name, of its own within a system.
    pub name: &'static str,
    /// The source file.
    pub file: &'static str,
    /// The line there, from 1.
    pub line: u32,
}

/// Who listens to the marks: a simulation.
pub trait Judge {
    /// Whether the fault point says yes this time.
    fn buggify(&self, site: &'static Site) -> bool;

    /// A mark of another kind was met, and what it says did or did not hold.
    fn met(&self, site: &'static Site, holds: bool);
}

#[cfg(feature = "chaos")]
mod listening {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::{Judge, Site};

    thread_local! {
        static JUDGE: RefCell<Option<Rc<dyn Judge>>> = const { RefCell::new(None) };
    }

    /// Lets `judge` hear the marks that `work` meets on this thread.
    pub fn under<T>(judge: Rc<dyn Judge>, work: impl FnOnce() -> T) -> T {
        // Put back also when `work` panics.
        let _former = Former(JUDGE.replace(Some(judge)));
        work()
    }

    struct Former(Option<Rc<dyn Judge>>);

    impl Drop for Former {
        fn drop(&mut self) {
            drop(JUDGE.replace(self.0.take()));
        }
    }

    /// What `buggify!` asks.
    #[doc(hidden)]
    pub fn ask(site: &'static Site) -> bool {
        // Cloned, so that the judge may let further work be heard.
        JUDGE.with_borrow(Clone::clone).is_some_and(|judge| judge.buggify(site))
    }

    /// What the other marks tell.
    #[doc(hidden)]
    pub fn tell(site: &'static Site, holds: bool) {
        if let Some(judge) = JUDGE.with_borrow(Clone::clone) {
            judge.met(site, holds);
        }
    }
}

#[cfg(feature = "chaos")]
pub use listening::{ask, tell, under};

/// The site of a mark.
#[cfg(feature = "chaos")]
#[doc(hidden)]
#[macro_export]
macro_rules! chaos_site {
    ($kind:ident, $name:literal) => {{
        static SITE: $crate::chaos::Site = $crate::chaos::Site {
            kind: $crate::chaos::SiteKind::$kind,
            name: $name,
            file: file!(),
            line: line!(),
        };
        &SITE
    }};
}

/// A fault point: in a simulation whose faults include it, it says yes now and then; elsewhere it
/// is `false`. A name that begins with `rekey` counts as
/// [`FaultKind::Rekey`](crate::link::FaultKind::Rekey).
#[cfg(feature = "chaos")]
#[macro_export]
macro_rules! buggify {
    ($name:literal) => {
        $crate::chaos::ask($crate::chaos_site!(Buggify, $name))
    };
}

/// Says that something holds whenever this is met; a simulation reports where it does not.
#[cfg(feature = "chaos")]
#[macro_export]
macro_rules! always {
    ($holds:expr, $name:literal) => {
        $crate::chaos::tell($crate::chaos_site!(Always, $name), $holds)
    };
}

/// Says that something holds at least once in a sweep.
#[cfg(feature = "chaos")]
#[macro_export]
macro_rules! sometimes {
    ($holds:expr, $name:literal) => {
        $crate::chaos::tell($crate::chaos_site!(Sometimes, $name), $holds)
    };
}

/// Says that this is met at least once in a sweep.
#[cfg(feature = "chaos")]
#[macro_export]
macro_rules! reachable {
    ($name:literal) => {
        $crate::chaos::tell($crate::chaos_site!(Reachable, $name), true)
    };
}

/// A fault point: in a simulation whose faults include it, it says yes now and then; elsewhere it
/// is `false`. A name that begins with `rekey` counts as
/// [`FaultKind::Rekey`](crate::link::FaultKind::Rekey).
#[cfg(not(feature = "chaos"))]
#[macro_export]
macro_rules! buggify {
    ($name:literal) => {
        false
    };
}

/// Says that something holds whenever this is met; a simulation reports where it does not.
#[cfg(not(feature = "chaos"))]
#[macro_export]
macro_rules! always {
    ($holds:expr, $name:literal) => {
        if false {
            let _: bool = $holds;
        }
    };
}

/// Says that something holds at least once in a sweep.
#[cfg(not(feature = "chaos"))]
#[macro_export]
macro_rules! sometimes {
    ($holds:expr, $name:literal) => {
        if false {
            let _: bool = $holds;
        }
    };
}

/// Says that this is met at least once in a sweep.
#[cfg(not(feature = "chaos"))]
#[macro_export]
macro_rules! reachable {
    ($name:literal) => {};
}
