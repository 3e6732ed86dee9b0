//! After its first messages neither side allocates, whatever the length.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use twinspan_hub::{Bytes, Hub};

use crate::{counting, topic, udp_endpoint};

/// Wakes a thread that waits for a task.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a task on this thread.
fn block_on<F: Future>(waker: &Waker, task: F) -> F::Output {
    let mut task = pin!(task);
    loop {
        match task.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_warm_exchange_allocates_nothing() {
    let topic = topic();
    let (here, there) = (Hub::<Bytes>::new(&topic).unwrap(), Hub::<Bytes>::new(&topic).unwrap());
    let mut value = Bytes::default();
    let mut exchange = |rounds: usize| {
        for round in 0..rounds {
            for length in [8, 200, 5_000, 60_000] {
                let mut loan = here.loan_bytes(length).unwrap();
                loan.fill(round as u8);
                loan.publish().unwrap();
                there.recv_into(&mut value).unwrap();
                assert_eq!(value.len(), length);
                here.publish(&value).unwrap();
                there.recv_into(&mut value).unwrap();
            }
        }
    };
    exchange(50);
    let before = counting::calls();
    exchange(200);
    assert_eq!(counting::calls() - before, 0);
}

#[test]
fn many_at_once_allocate_nothing() {
    let topic = topic();
    let (here, there) = (Hub::<Bytes>::new(&topic).unwrap(), Hub::<Bytes>::new(&topic).unwrap());
    let batch: Vec<_> = (0..32).map(|number| Bytes(vec![number; 64])).collect();
    let mut values = vec![Bytes(Vec::with_capacity(64)); 32];
    let mut exchange = |rounds: usize| {
        for _ in 0..rounds {
            here.publish_all(&batch).unwrap();
            assert_eq!(there.recv_all(&mut values), Ok(32));
            assert_eq!(values, batch);
        }
    };
    exchange(5);
    let before = counting::calls();
    exchange(200);
    assert_eq!(counting::calls() - before, 0);
}

#[test]
fn a_warm_exchange_over_udp_allocates_nothing() {
    for (reliable, is_sealed) in [(false, false), (true, false), (false, true), (true, true)] {
        let endpoint = udp_endpoint();
        let hub = || {
            let hub = Hub::<Bytes>::builder(&endpoint);
            let key = twinspan_hub::TopicKey::from_bytes([7; 32]);
            let hub = if is_sealed { hub.seal(key) } else { hub };
            if reliable { hub.reliable() } else { hub }
        };
        let (here, there) = (hub().listen().build().unwrap(), hub().connect().build().unwrap());
        assert!(here.wait_for_subscribers(1, std::time::Duration::from_secs(30)));
        let mut value = Bytes::default();
        let mut exchange = |rounds: usize| {
            for round in 0..rounds {
                for length in [8, 200, 5_000, 30_000] {
                    here.publish_bytes(&bytes_of(round as u8)[..length]).unwrap();
                    there.recv_into(&mut value).unwrap();
                    assert_eq!(value.len(), length);
                    there.publish(&value).unwrap();
                    here.recv_into(&mut value).unwrap();
                }
            }
        };
        exchange(200);
        // Where the machine stood still more is on its way than ever before, and has its memory from then
        // on.
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let before = counting::calls();
                exchange(200);
                counting::calls() - before
            })
            .collect();
        assert!(calls.contains(&0), "reliable: {reliable}, sealed: {is_sealed}: {calls:?}");
        // One way alone, where what was not acknowledged yet is more at times: as much as there ever may
        // be has its memory once a publisher was held up.
        let message = bytes_of(1);
        let mut one_way = |lengths: &[usize], ahead: usize| {
            for length in lengths {
                for _ in 0..ahead {
                    here.publish_bytes(&message[..*length]).unwrap();
                }
                for _ in 0..ahead {
                    there.recv_into(&mut value).unwrap();
                    assert_eq!(value.len(), *length);
                }
            }
        };
        one_way(&[1_000; 40], if reliable { 1_100 } else { 1 });
        let before = counting::calls();
        one_way(&[8, 200, 5_000, 30_000].repeat(50), 1);
        // The hubs' own threads take datagrams in as well, and more at a time where the machine is busy.
        let calls = counting::calls() - before;
        let kind = format!("reliable: {reliable}, sealed: {is_sealed}");
        assert!(calls < 20, "one way, {kind}: {calls} for 200 messages");
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut by_task = |rounds: usize| {
            for round in 0..rounds {
                here.publish_bytes(&bytes_of(round as u8)[..200]).unwrap();
                block_on(&waker, there.recv_into_async(&mut value)).unwrap();
                assert_eq!(*value, bytes_of(round as u8)[..200]);
            }
        };
        by_task(200);
        let before = counting::calls();
        by_task(200);
        // The hub's own thread takes datagrams in, and more at a time where the machine is busy.
        let calls = counting::calls() - before;
        assert!(calls < 20, "by task, sealed: {is_sealed}: {calls} for 200 messages");
    }
}

const fn bytes_of(byte: u8) -> [u8; 30_000] {
    [byte; 30_000]
}
