//! Asking over datagrams: each request again and again until its answer has come.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_provider::{NetworkProvider, TimeProvider, Timer, UdpOptions, UdpSocket};

use super::{DATAGRAM_PORT, Ledger, Progress, RETRY, SERVER, Shape, Way, sleep, tag};
use crate::env::SimEnv;
use crate::udp::SimUdp;

/// Requests of one client that wait for their answers at the same time.
const WINDOW: u64 = 4;
/// Bytes before the padding, and of the tag after it.
const HEAD_BYTES: usize = 40;
const TAG_BYTES: usize = 8;
/// Bytes of padding at most.
const PADDING_MAX: u64 = 400;

/// A request or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    /// 1 for an answer.
    answer: u64,
    client: u64,
    number: u64,
    /// Changes the tag.
    epoch: u64,
    /// The sender's wall clock.
    wall: u64,
}

impl Message {
    fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        for word in [self.answer, self.client, self.number, self.epoch, self.wall] {
            out.extend(word.to_le_bytes());
        }
        let padding = self.number * 37 % PADDING_MAX;
        out.extend((0..padding).map(|byte| byte as u8));
        let tag = tag(self.epoch, out);
        out.extend(tag);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (body, seen) = bytes.split_last_chunk::<TAG_BYTES>()?;
        let (head, _) = body.split_first_chunk::<HEAD_BYTES>()?;
        let mut words = head.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next();
        let message = Self {
            answer: next()?,
            client: next()?,
            number: next()?,
            epoch: next()?,
            wall: next()?,
        };
        (*seen == tag(message.epoch, body)).then_some(message)
    }
}

/// Binds, however often that fails.
async fn bind(env: &SimEnv, port: u16, shape: Shape) -> SimUdp {
    let local = SocketAddr::new(env.ip(), port);
    // The range of the pool is that of the option.
    let options = UdpOptions { pool_packets: shape.pool as usize, ..UdpOptions::default() };
    loop {
        if let Ok(socket) = env.bind_udp(local, &options).await {
            return socket;
        }
        sleep(env, RETRY).await;
    }
}

/// Puts a message into a batch; false when there is no room or no buffer.
fn push(
    socket: &SimUdp,
    out: &mut DatagramBatch,
    (peer, at): (SocketAddr, Timestamp),
    bytes: &[u8],
) -> bool {
    if out.room() == 0 {
        return false;
    }
    let Some(mut packet) = socket.pool().take() else { return false };
    packet.fill(bytes) && out.push(Datagram { peer, at, packet }).is_ok()
}

/// Sends a batch whole; an error ends the host's part in it.
async fn send(env: &SimEnv, socket: &mut SimUdp, out: &mut DatagramBatch) -> bool {
    while !out.is_empty() {
        if poll_fn(|cx| socket.poll_send(cx, out)).await.is_err() {
            return false;
        }
        if !out.is_empty() {
            env.note("some are left to send", &[out.len() as u64]);
        }
    }
    true
}

/// The server: answers what it can read.
pub(super) async fn serve(env: SimEnv, shape: Shape, ledger: Rc<RefCell<Ledger>>) {
    let mut socket = bind(&env, DATAGRAM_PORT, shape).await;
    let (mut received, mut out) = (DatagramBatch::new(16), DatagramBatch::new(32));
    let mut bytes = Vec::new();
    loop {
        if poll_fn(|cx| socket.poll_recv(cx, &mut received)).await.is_err() {
            return;
        }
        while let Some(datagram) = received.pop() {
            let Some(message) =
                Message::read(&datagram.packet).filter(|message| message.answer == 0)
            else {
                crate::reachable!("a datagram was not as it was sent");
                continue;
            };
            let wall = env.wall().unix_nanos();
            env.note("skew", &[wall.wrapping_sub(message.wall)]);
            ledger.borrow_mut().carry_out((Way::Datagram, message.client, message.number));
            let answer = Message { answer: 1, wall, ..message };
            answer.write(&mut bytes);
            let peer = datagram.peer;
            // The request's buffer is the answer's where the pool has but one.
            drop(datagram);
            let times = 1 + u8::from(crate::buggify!("answer twice"));
            for _ in 0..times {
                // One that finds no buffer is asked for again.
                let _ = push(&socket, &mut out, (peer, env.now()), &bytes);
            }
        }
        if !send(&env, &mut socket, &mut out).await {
            return;
        }
    }
}

/// A client: asks for all that it does not know to be answered.
pub(super) async fn ask(env: SimEnv, shape: Shape, client: u64, progress: Rc<RefCell<Progress>>) {
    let window = env.knob("window", WINDOW, 1..=32);
    // There is no more than four times the spacing.
    let spacing = shape.spacing * env.knob("pace", 1, 0..=4) as u32;
    let mut socket = bind(&env, 0, shape).await;
    let server = SocketAddr::new(SERVER, DATAGRAM_PORT);
    let (mut received, mut out) = (DatagramBatch::new(16), DatagramBatch::new(16));
    let mut timer = env.timer();
    let (mut bytes, mut epoch) = (Vec::new(), 1);
    // When each of those that wait is due again.
    let mut waiting: std::collections::BTreeMap<u64, Timestamp> = Default::default();
    let (mut next, mut next_at) = (0, Timestamp::START);
    loop {
        let now = env.now();
        while (waiting.len() as u64) < window && next < shape.datagrams && now >= next_at {
            if !progress.borrow().datagrams.contains(&next) {
                waiting.insert(next, Timestamp::START);
                next_at = now.after(spacing);
            }
            next += 1;
        }
        if waiting.is_empty() && next >= shape.datagrams {
            return;
        }
        if crate::buggify!("rekey early") {
            epoch += 1;
        }
        for (number, due) in &mut waiting {
            if *due > now {
                continue;
            }
            crate::sometimes!(*due > Timestamp::START, "a request was sent again");
            let wall = env.wall().unix_nanos();
            Message { answer: 0, client, number: *number, epoch, wall }.write(&mut bytes);
            // One that finds no buffer waits like one that is lost.
            let _ = push(&socket, &mut out, (server, now), &bytes);
            *due = now.after(shape.interval);
        }
        if !send(&env, &mut socket, &mut out).await {
            return;
        }
        let has_room = (waiting.len() as u64) < window && next < shape.datagrams;
        let next_due = has_room.then_some(next_at);
        timer.set(waiting.values().copied().chain(next_due).min());
        let alive = poll_fn(|cx| match socket.poll_recv(cx, &mut received) {
            Poll::Ready(outcome) => Poll::Ready(outcome.is_ok()),
            Poll::Pending => timer.poll_expired(cx).map(|()| true),
        });
        if !alive.await {
            return;
        }
        while let Some(datagram) = received.pop() {
            // Who sent it does not count: the tag does.
            let Some(message) = Message::read(&datagram.packet) else { continue };
            let is_asked = message.client == client && message.number < shape.datagrams;
            let mut progress = progress.borrow_mut();
            if message.answer != 1 || !is_asked {
                progress.wrong += 1;
            } else if waiting.remove(&message.number).is_some() {
                progress.datagrams.insert(message.number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_not_as_it_was_sent_is_none() {
        let message = Message { answer: 1, client: 2, number: 3, epoch: 4, wall: 5 };
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        assert_eq!(Message::read(&bytes), Some(message));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(Message::read(&other), None, "{at}");
            assert_eq!(Message::read(&bytes[..at]), None, "{at}");
        }
    }
}
