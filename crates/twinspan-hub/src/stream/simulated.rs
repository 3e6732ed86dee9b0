//! Topics over simulated TCP: delays, streams in pieces, resets, refusals and a partition.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_provider::{Env, ReadBuf, TaskProvider, TcpListener, TcpOptions, TcpStream, Timer};
use twinspan_sim::{Sim, SimConfig, TcpMode};

use super::testing::{Setup, body};
use super::topic::{LinkId, Topic};
use super::wire::{Door, Opened, Standing};
use crate::report::Compression;

const MESSAGES: u64 = 300;
const TICK: Duration = Duration::from_millis(2);
const SECOND: Duration = Duration::from_secs(1);

/// A topic, who it met last, and what it took.
struct End {
    topic: Topic,
    last: Option<[u8; 16]>,
    published: u64,
    taken: Vec<(u64, u64)>,
}

type Shared = Rc<RefCell<End>>;

/// An end. Who has not met yet gets all of it.
fn end(id: u8) -> Shared {
    let setup = Setup {
        id,
        is_reliable: true,
        depth: 16,
        history: 16,
        longest: 1_000,
        compression: Compression::Lz4,
    };
    let topic = setup.topic();
    Rc::new(RefCell::new(End { topic, last: None, published: 0, taken: Vec::new() }))
}

impl End {
    /// Publishes one more where there is room and a peer, and takes what came.
    fn work(&mut self) {
        let has_met = self.topic.stats().ended + self.topic.subscribers() as u64 > 0;
        if has_met && self.published < MESSAGES && self.topic.publish(&body(self.published)).is_ok()
        {
            self.published += 1;
        }
        let mut room = Vec::new();
        if let Some(taken) = self.topic.take(&mut room) {
            assert_eq!(room, body(taken.number), "what comes is what was published");
            self.taken.push((taken.number, taken.lost));
        }
    }

    fn is_done(&self) -> bool {
        self.published == MESSAGES && self.taken.len() as u64 == MESSAGES
    }
}

/// Does one stream's part: the first frames, then everything else. `said` is what a connector said.
async fn carry<E: Env>(
    env: E,
    mut stream: impl TcpStream,
    end: Shared,
    mut said: Option<Standing>,
) {
    let (mut door, mut first, mut link) = (Door::default(), Vec::new(), None);
    if said.is_some() {
        let end = end.borrow();
        let hello = end.topic.hello(end.last);
        said = Some(hello.standing);
        hello.write(&mut first);
    }
    let mut timer = env.timer();
    timer.set(Some(env.now()));
    poll_fn(|cx| {
        loop {
            let mut moved = false;
            match (link, &mut door) {
                (None, door) => match poll_door(cx, &mut stream, door) {
                    Poll::Ready(Ok(None)) => moved = true,
                    Poll::Ready(Ok(Some(Opened::Hello(theirs)))) => {
                        let mut end = end.borrow_mut();
                        let ours = said.unwrap_or_else(|| {
                            let ours = end.topic.hello(Some(theirs.greeting.id));
                            ours.write(&mut first);
                            ours.standing
                        });
                        link = end.topic.admit(env.now(), &theirs, &ours).ok();
                        end.last = Some(theirs.greeting.id);
                        moved = true;
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => {}
                },
                (Some(link), _) => {
                    let read = poll_link(cx, &env, &mut stream, &mut end.borrow_mut(), link);
                    match read {
                        Poll::Ready(true) => moved = true,
                        Poll::Ready(false) => {
                            end.borrow_mut().topic.broke(env.now(), link);
                            return Poll::Ready(());
                        }
                        Poll::Pending => {}
                    }
                }
            }
            if !first.is_empty() {
                match Pin::new(&mut stream).poll_write(cx, &first) {
                    Poll::Ready(Ok(count)) => {
                        first.drain(..count);
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            } else if let Some(link) = link {
                let written = poll_write(cx, &env, &mut stream, &mut end.borrow_mut(), link);
                match written {
                    Poll::Ready(Ok(count)) => moved |= count > 0,
                    Poll::Ready(Err(_)) => {
                        end.borrow_mut().topic.broke(env.now(), link);
                        return Poll::Ready(());
                    }
                    Poll::Pending => {}
                }
            }
            if timer.poll_expired(cx).is_ready() {
                timer.set(Some(env.now().after(TICK)));
                moved = true;
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await;
}

fn poll_door(
    cx: &mut Context<'_>,
    stream: &mut impl TcpStream,
    door: &mut Door,
) -> Poll<io::Result<Option<Opened>>> {
    let Ok(space) = door.space() else { panic!("a good peer greets") };
    let mut buffer = ReadBuf::new(space);
    match Pin::new(stream).poll_read(cx, &mut buffer) {
        Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
            Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
        }
        Poll::Ready(Ok(())) => {
            let count = buffer.filled().len();
            Poll::Ready(Ok(door.filled(count).expect("a good peer greets")))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}

/// Reads; false when the stream is of no more use.
fn poll_link<E: Env>(
    cx: &mut Context<'_>,
    env: &E,
    stream: &mut impl TcpStream,
    end: &mut End,
    link: LinkId,
) -> Poll<bool> {
    if end.topic.over(link).is_some() {
        return Poll::Ready(false);
    }
    let Some(space) = end.topic.space(link) else { return Poll::Ready(false) };
    let mut buffer = ReadBuf::new(space);
    match Pin::new(stream).poll_read(cx, &mut buffer) {
        Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
            let count = buffer.filled().len();
            end.topic.filled(env.now(), link, count).expect("a good peer keeps the rules");
            Poll::Ready(true)
        }
        Poll::Ready(_) => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    }
}

fn poll_write<E: Env>(
    cx: &mut Context<'_>,
    env: &E,
    stream: &mut impl TcpStream,
    end: &mut End,
    link: LinkId,
) -> Poll<io::Result<usize>> {
    let now = env.now();
    let pieces = end.topic.transmit(now, link);
    let Some(piece) = pieces.iter().find(|piece| !piece.is_empty()) else {
        return Poll::Ready(Ok(0));
    };
    let written = Pin::new(stream).poll_write(cx, piece);
    if let Poll::Ready(Ok(count)) = written {
        end.topic.sent(now, link, count);
    }
    written
}

async fn listen<E: Env>(env: E, local: SocketAddr, end: Shared) {
    let mut listener = env.listen(local, &TcpOptions::default()).await.unwrap();
    let mut tasks = Vec::new();
    while let Ok(stream) = listener.accept().await {
        tasks.push(env.spawn("carry", carry(env.clone(), stream, Rc::clone(&end), None)));
    }
}

async fn connect<E: Env>(env: E, to: SocketAddr, end: Shared) {
    let options = TcpOptions { connect_timeout: SECOND, ..TcpOptions::default() };
    loop {
        if let Ok(stream) = env.connect(to, &options).await {
            let said = Some(Standing::default());
            carry(env.clone(), stream, Rc::clone(&end), said).await;
        }
        pause(&env, 20 * TICK).await;
    }
}

async fn pause<E: Env>(env: &E, time: Duration) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(time)));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

async fn work<E: Env>(env: E, end: Shared) {
    loop {
        pause(&env, TICK).await;
        let now = env.now();
        let mut end = end.borrow_mut();
        end.topic.handle_timeout(now);
        end.work();
    }
}

/// Runs two ends; the resets that struck, and the trace hash.
fn run(seed: u64, tcp: TcpMode) -> (u64, u64, u64) {
    let conditions = Conditions { delay: Duration::from_millis(15), ..Conditions::CLEAN };
    let mut sim = Sim::new(SimConfig {
        seed,
        conditions,
        short_stream: 0.3,
        connect_refuse: 0.2,
        stream_reset: 0.01,
        tcp,
        ..SimConfig::default()
    });
    let [one, two] = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 7)));
    let (here, there) = (end(1), end(2));
    let (server, client) = (sim.host("listener", one.ip()), sim.host("connector", two.ip()));
    let _tasks = [
        server.spawn("listen", listen(server.clone(), one, Rc::clone(&here))),
        server.spawn("work", work(server.clone(), Rc::clone(&here))),
        client.spawn("connect", connect(client.clone(), one, Rc::clone(&there))),
        client.spawn("work", work(client.clone(), Rc::clone(&there))),
    ];
    sim.run_for(SECOND);
    sim.partition(one.ip(), two.ip());
    // Longer than a link may be silent, and shorter than a subscriber is waited for.
    sim.run_for(17 * SECOND);
    sim.heal_all();
    for _ in 0..240 {
        sim.run_for(SECOND);
        if here.borrow().is_done() && there.borrow().is_done() {
            break;
        }
    }
    for end in [&here, &there] {
        let end = end.borrow();
        let expected: Vec<_> = (0..MESSAGES).map(|number| (number, 0)).collect();
        assert_eq!(end.taken, expected, "seed {seed}: each message once and in order");
    }
    let resumed = here.borrow().topic.stats().resumed;
    (sim.faults().effect(FaultKind::StreamReset), resumed, sim.trace_hash())
}

#[test]
fn reliable_messages_are_neither_lost_nor_doubled_over_streams_that_fail() {
    let (mut resets, mut resumed) = (0, 0);
    for seed in 0..12 {
        for tcp in [TcpMode::Streams, TcpMode::Segments] {
            let (struck, again, _) = run(seed, tcp);
            resets += struck;
            resumed += again;
        }
    }
    assert!(resets >= 12, "resets struck {resets} times");
    assert!(resumed >= 24, "streams were resumed {resumed} times");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    assert_eq!(run(5, TcpMode::Streams), run(5, TcpMode::Streams));
}
