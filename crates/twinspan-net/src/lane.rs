//! A bounded lock-free lane from one thread to another, between the reactors of one node.
//!
//! ```
//! use std::future::poll_fn;
//! use twinspan_net::{ReactorEnv, lane};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut out, mut inbox) = lane(64);
//! let other = std::thread::spawn(move || {
//!     for number in 0..3 {
//!         // A full lane gives the value back.
//!         if out.push(number).is_err() {
//!             break;
//!         }
//!     }
//!     out.wake();
//! });
//! let sum = ReactorEnv::new(None)?.block_on(async {
//!     let mut sum = 0;
//!     while let Some(number) = poll_fn(|cx| inbox.poll_pop(cx)).await {
//!         sum += number;
//!     }
//!     sum
//! });
//! assert_eq!(sum, 3);
//! # other.join().map_err(|_| "the thread panicked")?;
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use rtrb::{Consumer, Producer, RingBuffer};

/// A lane of at most `capacity` values on their way; 0 counts as 1.
pub fn lane<T: Send>(capacity: usize) -> (LaneSender<T>, LaneReceiver<T>) {
    let (producer, consumer) = RingBuffer::new(capacity.max(1));
    let waker = Arc::new(AtomicWaker::new());
    let sender = LaneSender { producer, bell: Bell(Arc::clone(&waker)) };
    (sender, LaneReceiver { consumer, waker })
}

/// Wakes the receiver, the last time when the sender is gone.
struct Bell(Arc<AtomicWaker>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// The end of a lane that values go in at.
pub struct LaneSender<T> {
    // Dropped first, so that the last wake finds the lane abandoned.
    producer: Producer<T>,
    bell: Bell,
}

impl<T: Send> LaneSender<T> {
    /// Appends a value; the receiver is not woken until [`wake`](Self::wake).
    ///
    /// # Errors
    /// The value itself when the lane is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.producer.push(value).map_err(|rtrb::PushError::Full(value)| value)
    }

    /// Wakes the receiver if it waits. Once after many values: waking a thread that sleeps is a
    /// system call.
    pub fn wake(&self) {
        self.bell.0.wake();
    }

    /// Values that still fit.
    pub fn room(&self) -> usize {
        self.producer.slots()
    }

    /// Whether the receiver is gone.
    pub fn is_abandoned(&self) -> bool {
        self.producer.is_abandoned()
    }
}

impl<T> fmt::Debug for LaneSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSender").field("room", &self.producer.slots()).finish_non_exhaustive()
    }
}

/// The end of a lane that values come out of.
pub struct LaneReceiver<T> {
    consumer: Consumer<T>,
    waker: Arc<AtomicWaker>,
}

impl<T: Send> LaneReceiver<T> {
    /// Takes the first value, without waiting.
    pub fn pop(&mut self) -> Option<T> {
        self.consumer.pop().ok()
    }

    /// Takes the first value; pending while there is none, and ready with `None` for ever once the
    /// sender is gone and all was taken.
    pub fn poll_pop(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.pop() {
            return Poll::Ready(Some(value));
        }
        self.waker.register(cx.waker());
        // Looked at again, in this order: who pushed before the waker stood there woke nobody, and
        // who is gone has pushed its last before it went.
        let abandoned = self.consumer.is_abandoned();
        match self.pop() {
            None if !abandoned => Poll::Pending,
            value => Poll::Ready(value),
        }
    }

    /// Whether there is something to take, or never will be again because the sender is gone; pending
    /// while there is not.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_empty() {
            self.waker.register(cx.waker());
            // Looked at again, in this order, as above.
            let abandoned = self.consumer.is_abandoned();
            if self.is_empty() && !abandoned {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Whether the sender is gone; what it pushed before can still be taken.
    pub fn is_abandoned(&self) -> bool {
        self.consumer.is_abandoned()
    }

    /// Values that can be taken now.
    pub fn len(&self) -> usize {
        self.consumer.slots()
    }

    /// Whether there is nothing to take now.
    pub fn is_empty(&self) -> bool {
        self.consumer.is_empty()
    }
}

impl<T> fmt::Debug for LaneReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneReceiver").field("len", &self.consumer.slots()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::thread;

    use super::*;
    use crate::ReactorEnv;

    #[test]
    fn a_full_lane_gives_the_value_back() {
        let (mut sender, mut receiver) = lane(2);
        assert_eq!((sender.push(1), sender.push(2), sender.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((sender.room(), receiver.len()), (0, 2));
        assert_eq!((receiver.pop(), receiver.pop(), receiver.pop()), (Some(1), Some(2), None));
        assert_eq!(sender.push(4), Ok(()));
        let (mut sender, _receiver) = lane(0);
        assert_eq!((sender.push(1), sender.push(2)), (Ok(()), Err(2)));
    }

    #[test]
    fn values_reach_another_reactor_in_order_and_end_with_the_sender() {
        const COUNT: u32 = 20_000;
        let (mut there, mut inbox) = lane(16);
        let (mut back, mut answers) = lane(16);
        let echo = thread::spawn(move || {
            ReactorEnv::new(Some(1)).unwrap().block_on(async {
                while let Some(value) = poll_fn(|cx| inbox.poll_pop(cx)).await {
                    let _: u32 = value;
                    back.push(value).expect("no more are on the way than fit");
                    back.wake();
                }
            });
        });
        ReactorEnv::new(Some(2)).unwrap().block_on(async {
            let (mut sent, mut seen) = (0, 0);
            while seen < COUNT {
                while sent < COUNT && sent - seen < 16 && there.push(sent).is_ok() {
                    sent += 1;
                }
                there.wake();
                let value = poll_fn(|cx| answers.poll_pop(cx)).await;
                assert_eq!(value, Some(seen));
                seen += 1;
            }
            drop(there);
            assert_eq!(poll_fn(|cx| answers.poll_pop(cx)).await, None);
        });
        echo.join().unwrap();
    }

    #[test]
    fn a_receiver_that_waits_without_taking_is_woken() {
        let (mut there, mut inbox) = lane(4);
        let (mut back, mut answers) = lane(4);
        let echo = thread::spawn(move || {
            ReactorEnv::new(Some(1)).unwrap().block_on(async {
                while !inbox.is_abandoned() || !inbox.is_empty() {
                    poll_fn(|cx| inbox.poll_ready(cx)).await;
                    while let Some(value) = inbox.pop() {
                        let _: u32 = value;
                        back.push(value).expect("one is on the way at a time");
                        back.wake();
                    }
                }
            });
        });
        ReactorEnv::new(Some(2)).unwrap().block_on(async {
            for number in 0..5_000 {
                there.push(number).unwrap();
                there.wake();
                poll_fn(|cx| answers.poll_ready(cx)).await;
                assert_eq!(answers.pop(), Some(number));
            }
            drop(there);
        });
        echo.join().unwrap();
    }

    #[test]
    fn what_was_pushed_before_the_sender_went_is_still_taken() {
        let (mut sender, mut receiver) = lane(4);
        sender.push(7).unwrap();
        drop(sender);
        ReactorEnv::new(Some(1)).unwrap().block_on(async {
            assert_eq!(poll_fn(|cx| receiver.poll_pop(cx)).await, Some(7));
            assert_eq!(poll_fn(|cx| receiver.poll_pop(cx)).await, None);
        });
    }
}
