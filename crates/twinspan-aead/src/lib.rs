//! Packet keys over AWS-LC, each in whole cache lines of its own that can be fetched ahead of use.
//!
//! With ten thousand sessions a packet's key has left the caches by the time that its next packet
//! comes, and waiting for it costs three times what opening the packet does. The safe binding keeps
//! keys where nobody can ask for them, so this crate holds the library's own context, in place;
//! see decision 0009. No primitive is implemented here.

mod sys;

pub use sys::LibraryKey;

#[cfg(test)]
mod tests;
