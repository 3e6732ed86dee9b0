//! Both ends, the same code in the simulator and on real sockets.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_game::scenario::bulk::{BulkReceiver, BulkSender};
use twinspan_provider::{Env, NetworkProvider, Timer, UdpOptions, UdpSocket, drive};
use twinspan_session::CryptoSuite;

use super::{BULK_PORT, Delivered, ECHO_PORT, Measured, SEED, address};
use crate::error::BenchError;

/// How far apart requests are.
const REQUEST_INTERVAL: Duration = Duration::from_millis(8);
/// After how long a request is sent again.
const RESEND_AFTER: Duration = Duration::from_millis(200);
/// How long answers are waited for at the end.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How long the session goes on before it counts.
const SETTLING: Duration = Duration::from_secs(3);
/// Bytes of a request and of its answer.
const REQUEST_BYTES: usize = 100;
/// Datagrams that are taken at once.
const BATCH: usize = 64;

/// Answers requests and lets the session send, until the future is dropped.
pub(super) async fn serve<E: Env>(env: &E, ip: IpAddr) -> Result<(), BenchError> {
    let mut socket = env.bind_udp(address(ip, BULK_PORT), &UdpOptions::default()).await?;
    let mut bulk = BulkSender::new(env, Arc::new(CryptoSuite::CHACHA_FIRST), SEED)
        .map_err(|error| BenchError::Plan(error.to_string()))?;
    let echo = env.bind_udp(address(ip, ECHO_PORT), &UdpOptions::default()).await?;
    let mut sending = pin!(drive(env, &mut socket, &mut bulk));
    let mut answering = pin!(answer(env, echo));
    poll_fn(|cx| {
        // Neither ends but by an error of its socket.
        let sent = sending.as_mut().poll(cx).is_ready();
        let answered = answering.as_mut().poll(cx).is_ready();
        if sent || answered { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(())
}

/// Sends back what comes.
async fn answer<E: Env>(env: &E, mut socket: <E as NetworkProvider>::Udp) {
    let (mut received, mut out) = (DatagramBatch::new(BATCH), DatagramBatch::new(BATCH));
    while poll_fn(|cx| socket.poll_recv(cx, &mut received)).await.is_ok() {
        while let Some(datagram) = received.pop() {
            // As large as the other.
            drop(out.push(Datagram { at: env.now(), ..datagram }));
        }
        while !out.is_empty() {
            if poll_fn(|cx| socket.poll_send(cx, &mut out)).await.is_err() {
                return;
            }
        }
    }
}

/// Measures: requests first, then the session, each for `seconds`.
pub(super) async fn ask<E: Env>(
    env: &E,
    ip: IpAddr,
    server: IpAddr,
    seconds: u64,
) -> Result<Measured, BenchError> {
    let time = Duration::from_secs(seconds);
    let (mut times, asked) = requests(env, ip, server, time).await?;
    let goodput_bytes_per_s = session(env, ip, server, time).await?;
    times.sort_unstable();
    let percentile = |per_mille: usize| {
        let at = (times.len() * per_mille / 1_000).min(times.len().saturating_sub(1));
        times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    Ok(Measured {
        goodput_bytes_per_s,
        p50_ms: percentile(500),
        p99_ms: percentile(990),
        answered: times.len() as u64,
        asked,
    })
}

/// A request that waits.
struct Waiting {
    first_at: Timestamp,
    due_at: Timestamp,
}

/// Sends requests at regular times, each again until it is answered: how long each took, and how many
/// there were.
async fn requests<E: Env>(
    env: &E,
    ip: IpAddr,
    server: IpAddr,
    time: Duration,
) -> Result<(Vec<Duration>, u64), BenchError> {
    let mut socket = env.bind_udp(address(ip, 0), &UdpOptions::default()).await?;
    let peer = address(server, ECHO_PORT);
    let (mut received, mut out) = (DatagramBatch::new(BATCH), DatagramBatch::new(BATCH));
    let mut timer = env.timer();
    let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
    let mut times = Vec::new();
    let began = env.now();
    let (stop_at, give_up_at) = (began.after(time), began.after(time).after(LAST_WAIT));
    let (mut next, mut next_at) = (0_u64, began);
    loop {
        let now = env.now();
        if now >= give_up_at || now >= stop_at && waiting.is_empty() {
            return Ok((times, next));
        }
        if now >= next_at && now < stop_at {
            waiting.insert(next, Waiting { first_at: now, due_at: now });
            next += 1;
            next_at = next_at.after(REQUEST_INTERVAL);
        }
        for (number, request) in waiting.iter_mut().filter(|(_, request)| request.due_at <= now) {
            let mut bytes = [0; REQUEST_BYTES];
            if let Some(room) = bytes.first_chunk_mut() {
                *room = number.to_le_bytes();
            }
            if let Some(mut packet) = socket.pool().take()
                && packet.fill(&bytes)
                && out.push(Datagram { peer, at: now, packet }).is_ok()
            {
                request.due_at = now.after(RESEND_AFTER);
            }
        }
        while !out.is_empty() {
            poll_fn(|cx| socket.poll_send(cx, &mut out)).await.map_err(udp)?;
        }
        let due = waiting.values().map(|request| request.due_at).min();
        let next_due = (next_at < stop_at).then_some(next_at);
        timer.set(due.into_iter().chain(next_due).chain([give_up_at]).min());
        let heard = poll_fn(|cx| match socket.poll_recv(cx, &mut received) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map(|_| ())),
            Poll::Pending => timer.poll_expired(cx).map(|()| Ok(())),
        });
        heard.await.map_err(udp)?;
        let now = env.now();
        while let Some(datagram) = received.pop() {
            let number = datagram.packet.first_chunk().map(|word| u64::from_le_bytes(*word));
            if let Some(request) = number.and_then(|number| waiting.remove(&number)) {
                times.push(now.since(request.first_at));
            }
        }
    }
}

fn udp(error: twinspan_provider::UdpError) -> BenchError {
    BenchError::Os(std::io::Error::other(error))
}

/// Lets a session receive all that its way lets it: bytes of messages a second.
async fn session<E: Env>(
    env: &E,
    ip: IpAddr,
    server: IpAddr,
    time: Duration,
) -> Result<f64, BenchError> {
    let mut socket = env.bind_udp(address(ip, 0), &UdpOptions::default()).await?;
    let delivered = Delivered::default();
    let suites = Arc::new(CryptoSuite::CHACHA_FIRST);
    let to = (SEED, address(server, BULK_PORT));
    let mut machine = BulkReceiver::new(env, suites, to, Rc::clone(&delivered))
        .map_err(|error| BenchError::Plan(error.to_string()))?;
    let mut driven = pin!(drive(env, &mut socket, &mut machine));
    let mut timer = env.timer();
    let mut wait = async |time: Duration| {
        timer.set(Some(env.now().after(time)));
        poll_fn(|cx| {
            // It ends but by an error of its socket.
            let is_over = driven.as_mut().poll(cx).is_ready();
            if is_over { Poll::Ready(()) } else { timer.poll_expired(cx) }
        })
        .await;
    };
    wait(SETTLING).await;
    let (began, before) = (env.now(), delivered.payload());
    wait(time).await;
    let took = env.now().since(began).as_secs_f64();
    Ok((delivered.payload() - before) as f64 / took.max(1e-3))
}
