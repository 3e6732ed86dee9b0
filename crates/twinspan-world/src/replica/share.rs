//! Keyframes that the replicas of one thread have in common.
//!
//! Of thousands of clients in one simulation some forty see each cell, and all of them keep the same
//! keyframes of it. Kept by each for itself these are two thirds of what a client takes, and at each
//! of its turns they have left the caches; kept once they are small, and the client before has just
//! looked at them.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use twinspan_core::random::draw;

use super::view::Member;
use crate::grid::CellId;

/// Places at which a keyframe may be found.
const WAYS: usize = 4;
/// The fewest keyframes that a thread's table has room for.
const KEYFRAMES_MIN: usize = 256;
/// The most: beyond it some replicas keep their own.
const KEYFRAMES_MAX: usize = 1 << 17;
const _: () = assert!(KEYFRAMES_MIN.is_power_of_two() && KEYFRAMES_MIN >= WAYS);

thread_local! {
    static TABLE: RefCell<Option<Table>> = const { RefCell::new(None) };
}

/// While it lives, replicas of this thread keep equal keyframes once; for who has many of them on one
/// thread, as a simulation does.
///
/// A replica holds, shows and refuses the same with it and without, and may go to another thread. What
/// is shared stays until the last replica has let go of it.
#[derive(Debug)]
#[must_use = "dropping it ends the sharing"]
pub struct SharedKeyframes {
    /// It belongs to the thread that made it.
    thread: PhantomData<*const ()>,
}

impl SharedKeyframes {
    /// Begins to share, with room for the keyframes that so many replicas of one world have between
    /// them. Where a sharing is under way on this thread it goes on, until all are dropped.
    pub fn begin(replicas: usize) -> Self {
        TABLE.with_borrow_mut(|table| match table {
            Some(table) => table.holders += 1,
            None => *table = Some(Table::new(replicas)),
        });
        Self { thread: PhantomData }
    }
}

impl Drop for SharedKeyframes {
    fn drop(&mut self) {
        let last = TABLE.with_borrow_mut(|table| {
            let held = table.as_mut()?;
            held.holders -= 1;
            if held.holders == 0 { table.take() } else { None }
        });
        drop(last);
    }
}

/// What was seen of late, by cell and tick.
struct Table {
    /// A keyframe may be at any of [`WAYS`] neighbours. The length is a power of two.
    slots: Vec<Option<Arc<[Member]>>>,
    /// Which neighbour gives way next where none is idle.
    turn: usize,
    holders: usize,
}

impl Table {
    fn new(replicas: usize) -> Self {
        // A replica has three keyframes of some twelve cells, and shares each with some forty others.
        let room = replicas.next_power_of_two().clamp(KEYFRAMES_MIN, KEYFRAMES_MAX);
        Self { slots: vec![None; room], turn: 0, holders: 1 }
    }

    /// The one keyframe that lists these members, made now where there is none.
    fn find(&mut self, cell: CellId, tick: u32, members: &[Member]) -> Arc<[Member]> {
        let place = draw(u64::from(tick), &[cell.x as u64, cell.z as u64, members.len() as u64]);
        let first = place as usize & (self.slots.len() - 1);
        let mut chosen = None;
        for way in 0..WAYS {
            match self.slots.get(first ^ way).and_then(Option::as_ref) {
                // Nothing is ever taken out alone, so nothing is behind an empty place either.
                None => {
                    chosen = Some(first ^ way);
                    break;
                }
                Some(known) if **known == *members => return Arc::clone(known),
                Some(idle) if Arc::strong_count(idle) == 1 => chosen = Some(first ^ way),
                Some(_) => {}
            }
        }
        self.turn += 1;
        let chosen = chosen.unwrap_or(first ^ (self.turn % WAYS));
        let shared: Arc<[Member]> = Arc::from(members);
        if let Some(slot) = self.slots.get_mut(chosen) {
            *slot = Some(Arc::clone(&shared));
        }
        shared
    }
}

/// The shared memory of a keyframe; `None` where nothing is shared.
pub(super) fn find(cell: CellId, tick: u32, members: &[Member]) -> Option<Arc<[Member]>> {
    if members.is_empty() {
        return None;
    }
    TABLE.with_borrow_mut(|table| Some(table.as_mut()?.find(cell, tick, members)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: CellId = CellId { x: 3, z: 4 };

    fn nobody(count: usize) -> Vec<Member> {
        vec![None; count]
    }

    #[test]
    fn equal_keyframes_are_one_while_somebody_shares() {
        assert!(find(HERE, 1, &nobody(2)).is_none(), "nobody shares");
        let outer = SharedKeyframes::begin(1);
        let inner = SharedKeyframes::begin(1);
        let one = find(HERE, 1, &nobody(2)).unwrap();
        assert!(Arc::ptr_eq(&one, &find(HERE, 1, &nobody(2)).unwrap()));
        let other = find(HERE, 1, &nobody(3)).unwrap();
        assert_eq!((one.len(), other.len()), (2, 3));
        assert!(find(HERE, 1, &[]).is_none(), "nothing needs no memory");
        drop(outer);
        assert!(Arc::ptr_eq(&one, &find(HERE, 1, &nobody(2)).unwrap()));
        drop(inner);
        assert!(find(HERE, 1, &nobody(2)).is_none());
        assert_eq!(Arc::strong_count(&one), 1, "the table has let go of it");
    }

    #[test]
    fn a_full_table_gives_up_what_nobody_holds_first() {
        let mut table = Table::new(0);
        let held = table.find(HERE, 0, &nobody(1));
        for tick in 1..20_000 {
            drop(table.find(HERE, tick, &nobody(1 + tick as usize % 7)));
        }
        assert_eq!(table.slots.len(), KEYFRAMES_MIN);
        assert!(Arc::ptr_eq(&held, &table.find(HERE, 0, &nobody(1))));
        let all: Vec<_> = (0..20_000)
            .map(|tick| table.find(HERE, tick, &nobody(1 + tick as usize % 7)))
            .collect();
        assert!(all.iter().zip(0..).all(|(one, tick)| one.len() == 1 + tick % 7), "none is wrong");
    }
}
