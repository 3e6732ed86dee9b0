//! What users of hubs do: they publish in bursts, and take what comes, some of them slowly.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_provider::{TaskProvider, TimeProvider, Timer};
use twinspan_sim::{SimEnv, SimTask};

use super::ledger::{Came, Truth, write_message};
use super::road::{FLUSH_INTERVAL, Message};
use super::shape::Shape;
use super::{Hub, sleep};
use crate::road::More;

/// How often a user who has published all says something all the same.
const BEACON_INTERVAL: Duration = Duration::from_millis(150);
/// How long who found no room waits.
const ROOM_WAIT: Duration = Duration::from_millis(5);
/// Messages that are taken in a row.
const TAKES_MAX: usize = 64;
/// A user that sleeps looks at least so often, as one whose wait has a limit.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The tasks of one hub's user.
pub(super) fn spawn(
    env: &SimEnv,
    shape: &Rc<Shape>,
    truth: &Rc<RefCell<Truth>>,
    host: usize,
    hub: &Rc<Hub>,
) -> [SimTask; 2] {
    let user = |hub| User {
        env: env.clone(),
        shape: Rc::clone(shape),
        truth: Rc::clone(truth),
        host,
        hub: Rc::clone(hub),
    };
    [env.spawn("publish", user(hub).publish()), env.spawn("take", user(hub).take())]
}

/// Looks at what a hub's road is like.
pub(super) fn look(hub: &Hub) {
    let facts = hub.road.facts();
    twinspan_core::always!(facts.is_bounded, "queues of hubs keep their limits");
    twinspan_core::sometimes!(facts.resumed > 0, "a link went on where one had broken");
    twinspan_core::sometimes!(facts.packed > 0, "a message left packed");
    if hub.is_stranger {
        let (is_refused, has_key) = (facts.refused > 0, hub.has_right_key);
        twinspan_core::sometimes!(is_refused && has_key, "a hub of another type was refused");
        twinspan_core::sometimes!(is_refused && !has_key, "a hub without the key was refused");
    }
}

struct User {
    env: SimEnv,
    shape: Rc<Shape>,
    truth: Rc<RefCell<Truth>>,
    host: usize,
    hub: Rc<Hub>,
}

impl User {
    /// Publishes bursts until all is said, and then now and then one more.
    async fn publish(self) {
        let mut message = Vec::new();
        while !self.hub.is_stopping.get() {
            let said = self.truth.borrow().progress(self.hub.topic, self.host);
            let is_done = said >= self.shape.messages || self.hub.is_stranger;
            let (count, pause) = if is_done {
                (1, BEACON_INTERVAL)
            } else {
                (self.shape.burst.min(self.shape.messages - said), self.shape.interval)
            };
            for left in (0..count).rev() {
                let more = if left > 0 { More::Follows } else { More::Unknown };
                while !self.publish_one(&mut message, more) && !self.hub.is_stopping.get() {
                    twinspan_core::reachable!("publishing found no room");
                    sleep(&self.env, ROOM_WAIT).await;
                }
            }
            sleep(&self.env, FLUSH_INTERVAL).await;
            self.hub.road.flush();
            look(&self.hub);
            sleep(&self.env, pause).await;
        }
    }

    fn publish_one(&self, message: &mut Vec<u8>, more: More) -> bool {
        let publisher = self.hub.publisher;
        let number = self.truth.borrow().next_of(publisher);
        let wall = self.env.wall().unix_nanos();
        write_message(message, (publisher, number), wall, self.shape.bytes_max());
        let Some(number) = self.hub.road.publish(message, more) else { return false };
        self.truth.borrow_mut().on_published(publisher, number);
        look(&self.hub);
        true
    }

    /// Takes what comes.
    async fn take(self) {
        let mut message = Vec::new();
        let is_slow = self.host == self.shape.slow_host;
        let takes_max = if is_slow { 4 } else { TAKES_MAX };
        loop {
            for _ in 0..takes_max {
                if !self.take_one(&mut message) {
                    break;
                }
            }
            if is_slow {
                sleep(&self.env, self.shape.slow).await;
            } else {
                self.wait().await;
            }
        }
    }

    fn take_one(&self, message: &mut Vec<u8>) -> bool {
        let Some(taken) = self.hub.road.take(message) else { return false };
        look(&self.hub);
        let Message { publisher, number, lost } = taken;
        // How old it is by two clocks that need not agree.
        let sent = message.get(16..).and_then(|rest| rest.first_chunk::<8>());
        let sent = sent.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let age = self.env.wall().unix_nanos().wrapping_sub(sent);
        self.env.note("taken", &[self.hub.publisher, publisher, number, lost, age]);
        let came = Came { publisher, number, lost, body: message };
        let mut truth = self.truth.borrow_mut();
        if self.hub.is_stranger {
            let line = format!("a hub of another type took message {number} of {publisher:x}");
            truth.break_promise(line);
        } else {
            truth.on_taken(self.hub.publisher, came);
        }
        true
    }

    /// Waits for the next message.
    async fn wait(&self) {
        let mut timer = self.env.timer();
        timer.set(Some(self.env.now().after(LOOK_INTERVAL)));
        let mut is_left = false;
        poll_fn(|cx| {
            if is_left {
                // Woken, or the time is over.
                return Poll::Ready(());
            }
            is_left = true;
            self.hub.road.wait(cx.waker());
            timer.poll_expired(cx)
        })
        .await;
    }
}
