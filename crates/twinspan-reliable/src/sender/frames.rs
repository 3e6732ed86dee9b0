//! Which frames each packet carried: lists in one table of recycled nodes.

use super::outbox::Taken;
use super::store::Key;
pub(crate) use crate::table::NONE;
use crate::table::{Slot, Table};

/// Frames for which there is room from the first one on.
const NODES_FIRST: usize = 4;

/// One reliable frame in a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) key: Key,
    next: u32,
    pub(crate) fragment: u8,
    pub(crate) counted: bool,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Frames {
    nodes: Table<Node>,
}

impl Slot for Node {
    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, link: u32) {
        self.next = link;
    }
}

impl Frames {
    pub(crate) const fn new() -> Self {
        Self { nodes: Table::new() }
    }

    /// Puts a frame before the list that begins at `head`; returns the new head.
    pub(crate) fn push(&mut self, head: u32, taken: Taken) -> u32 {
        let Taken { key, fragment, counted, .. } = taken;
        self.nodes.put(Node { key, next: head, fragment, counted }, NODES_FIRST)
    }

    /// The node at `index` and the index after it.
    pub(crate) fn get(&self, index: u32) -> Option<(Node, u32)> {
        self.nodes.get(index).map(|node| (*node, node.next))
    }

    /// Frees the list that begins at `head`.
    pub(crate) fn release(&mut self, head: u32) {
        let mut index = head;
        while let Some(node) = self.nodes.get(index) {
            let next = node.next;
            self.nodes.release(index);
            index = next;
        }
    }

    /// A period ended: see [`Table::fit`].
    pub(crate) fn fit(&mut self) {
        self.nodes.fit(NODES_FIRST);
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.nodes.heap_bytes()
    }
}
