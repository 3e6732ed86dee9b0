//! Which frames each packet carried: lists in one table of recycled nodes.

use super::outbox::Taken;
use super::store::Key;
use crate::buffers::make_room;

/// The end of a list.
pub(crate) const NONE: u32 = u32::MAX;
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
    nodes: Vec<Node>,
    free: u32,
}

impl Frames {
    pub(crate) const fn new() -> Self {
        Self { nodes: Vec::new(), free: NONE }
    }

    /// Puts a frame before the list that begins at `head`; returns the new head.
    pub(crate) fn push(&mut self, head: u32, taken: Taken) -> u32 {
        let Taken { key, fragment, counted, .. } = taken;
        let node = Node { key, next: head, fragment, counted };
        if let Some(old) = self.nodes.get_mut(self.free as usize) {
            let index = self.free;
            self.free = old.next;
            *old = node;
            return index;
        }
        make_room(&mut self.nodes, NODES_FIRST);
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// The node at `index` and the index after it.
    pub(crate) fn get(&self, index: u32) -> Option<(Node, u32)> {
        self.nodes.get(index as usize).map(|node| (*node, node.next))
    }

    /// Frees the list that begins at `head`.
    pub(crate) fn release(&mut self, head: u32) {
        let mut index = head;
        while let Some(node) = self.nodes.get_mut(index as usize) {
            let next = node.next;
            node.next = self.free;
            self.free = index;
            index = next;
        }
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }
}
