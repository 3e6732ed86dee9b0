//! How messages of a topic are taken: where each is copied to, and what is known of it.

/// Where a message is copied to.
pub trait Room {
    /// Room for a message of `length` bytes; `None` when it cannot be one. What was there is
    /// overwritten, and means something only when a message was taken.
    fn room(&mut self, length: usize) -> Option<&mut [u8]>;
}

impl Room for Vec<u8> {
    fn room(&mut self, length: usize) -> Option<&mut [u8]> {
        self.resize(length, 0);
        Some(self)
    }
}

/// What is known of a message that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// A number that stands for its publisher, drawn when that joined.
    pub publisher: u64,
    /// Its number among the messages of that publisher, from 0.
    pub number: u64,
    /// Messages of that publisher that were missed between the one before and this one.
    pub lost: u64,
    /// Bytes of the message.
    pub bytes: usize,
}
