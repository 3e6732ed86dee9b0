//! What every side of the seam must do, as tests that each of them runs.
//!
//! Each test panics with what is wrong. `ip` is an address of the node that datagram sockets may be
//! bound to, such as 127.0.0.1. [`all`] runs everything, one after the other.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, only compiled for the test builds of the sides"
)]

pub mod disk;
pub mod streams;
pub mod topics;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, Ecn, PacketPool};
use twinspan_core::time::Timestamp;

use crate::{
    BindError, Env, Machine, OFFLOADS_MAX, OffloadError, Timer, UdpOptions, UdpSocket, drive,
};

/// How long anything may take before it counts as lost. It bounds how long a failure takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Calls on a machine after which nothing else will get its turn.
const CALLS_IN_VAIN: u32 = 200_000;

/// Runs every test.
pub async fn all<E: Env>(env: &E, ip: IpAddr) {
    a_bound_socket_names_its_port(env, ip).await;
    a_taken_port_is_refused(env, ip).await;
    a_foreign_address_is_refused(env).await;
    a_dropped_socket_frees_its_port(env, ip).await;
    batches_are_echoed(env, ip).await;
    an_empty_pool_takes_no_datagram(env, ip).await;
    what_cannot_be_sent_is_counted(env, ip).await;
    marks_of_congestion_are_read_where_the_report_says_so(env, ip).await;
    a_late_machine_hears_what_came(env, ip).await;
    a_late_machine_leaves_turns_to_other_tasks(env, ip).await;
    a_machine_that_always_sends_hears_what_came(env, ip).await;
    timers_expire_in_the_order_of_their_deadlines(env).await;
    a_timer_can_be_moved_and_taken_away(env).await;
    a_task_runs_and_its_handle_outlives_it(env).await;
    a_dropped_task_stops(env).await;
    streams_repeat_and_secrets_do_not(env);
    work_off_the_thread_gives_its_result(env).await;
    work_that_panics_is_an_error(env).await;
    work_off_the_thread_is_bounded_and_goes_on(env).await;
    the_wall_clock_says_a_plausible_time(env);
    streams::all(env, ip).await;
}

/// A socket that says so sends datagrams that routers may mark, and reads what they say; any other
/// one does neither.
pub async fn marks_of_congestion_are_read_where_the_report_says_so<E: Env>(env: &E, ip: IpAddr) {
    let wanted = UdpOptions { ecn: true, pool_packets: 4, ..UdpOptions::default() };
    let local = SocketAddr::new(ip, 0);
    let mut marked = env.bind_udp(local, &wanted).await.expect("a free port");
    let mut plain = bind(env, ip, 4).await;
    let says = |ecn| if ecn { Ecn::Capable } else { Ecn::Incapable };
    assert!(!plain.report().ecn, "nobody asked for it");
    let mut batch = DatagramBatch::new(4);
    // To itself, to who does not ask, and back.
    push(env, &marked, &mut batch, marked.local_addr(), b"to itself");
    send(&mut marked, &mut batch).await;
    receive(env, &mut marked, &mut batch, 1).await;
    let ecn = batch.pop().map(|datagram| datagram.packet.ecn());
    assert_eq!(ecn, Some(says(marked.report().ecn)));
    push(env, &marked, &mut batch, plain.local_addr(), b"there");
    send(&mut marked, &mut batch).await;
    receive(env, &mut plain, &mut batch, 1).await;
    let ecn = batch.iter().next().map(|datagram| datagram.packet.ecn());
    assert_eq!(ecn, Some(Ecn::Incapable));
    send(&mut plain, &mut batch).await;
    receive(env, &mut marked, &mut batch, 1).await;
    let ecn = batch.pop().map(|datagram| datagram.packet.ecn());
    assert_eq!(ecn, Some(Ecn::Incapable));
}

/// Port 0 becomes a real one, another for each socket.
pub async fn a_bound_socket_names_its_port<E: Env>(env: &E, ip: IpAddr) {
    let one = bind(env, ip, 4).await;
    let other = bind(env, ip, 4).await;
    assert_eq!(one.local_addr().ip(), ip);
    assert_ne!(one.local_addr().port(), 0);
    assert_ne!(one.local_addr(), other.local_addr());
    assert!(!one.report().path.is_empty(), "the report names a path");
    assert_eq!(one.pool().limit(), 4);
}

/// A second socket for one port is [`BindError::Taken`], and the error names the address.
pub async fn a_taken_port_is_refused<E: Env>(env: &E, ip: IpAddr) {
    let first = bind(env, ip, 4).await;
    let address = first.local_addr();
    match env.bind_udp(address, &UdpOptions::default()).await {
        Err(BindError::Taken(taken)) => assert_eq!(taken, address),
        Err(other) => panic!("a taken port is refused as taken, not: {other}"),
        Ok(_) => panic!("{address} was bound twice"),
    }
}

/// An address that belongs to another machine is [`BindError::NotLocal`].
pub async fn a_foreign_address_is_refused<E: Env>(env: &E) {
    // Reserved for documentation: nobody's.
    let address = SocketAddr::from(([192, 0, 2, 1], 0));
    match env.bind_udp(address, &UdpOptions::default()).await {
        Err(BindError::NotLocal(refused)) => assert_eq!(refused, address),
        Err(other) => panic!("a foreign address is refused as not local, not: {other}"),
        Ok(_) => panic!("{address} was bound"),
    }
}

/// The port of a dropped socket can be had again.
pub async fn a_dropped_socket_frees_its_port<E: Env>(env: &E, ip: IpAddr) {
    let first = bind(env, ip, 4).await;
    let address = first.local_addr();
    drop(first);
    let again = env.bind_udp(address, &UdpOptions::default()).await;
    assert_eq!(again.expect("the port is free again").local_addr(), address);
}

/// A batch arrives in order, byte for byte, and names its sender; the answers come back; both ends
/// count them.
pub async fn batches_are_echoed<E: Env>(env: &E, ip: IpAddr) {
    const LENGTHS: [usize; 24] = [
        1, 0, 1_400, 2, 1_200, 17, 33, 100, 0, 64, 65, 1_472, 5, 6, 7, 8, 9, 10, 11, 12, 900, 14,
        15, 1_024,
    ];
    let mut client = bind(env, ip, 64).await;
    let mut server = bind(env, ip, 64).await;
    let mut out = DatagramBatch::new(LENGTHS.len());
    for (number, len) in (0_u8..).zip(LENGTHS) {
        push(env, &client, &mut out, server.local_addr(), &vec![number; len]);
    }
    send(&mut client, &mut out).await;
    let mut received = DatagramBatch::new(LENGTHS.len());
    receive(env, &mut server, &mut received, LENGTHS.len()).await;
    for ((number, len), datagram) in (0_u8..).zip(LENGTHS).zip(received.iter()) {
        assert_eq!(&*datagram.packet, vec![number; len], "datagram {number}");
        assert_eq!(datagram.peer, client.local_addr());
        assert!(datagram.at <= env.now());
    }
    send(&mut server, &mut received).await;
    receive(env, &mut client, &mut received, LENGTHS.len()).await;
    assert!(received.iter().all(|datagram| datagram.peer == server.local_addr()));
    assert!(received.iter().map(|datagram| datagram.packet.len()).eq(LENGTHS));
    let (count, bytes) = (LENGTHS.len() as u64, LENGTHS.iter().sum::<usize>() as u64);
    for report in [client.report(), server.report()] {
        assert_eq!((report.packets_in, report.packets_out), (count, count));
        assert_eq!((report.bytes_in, report.bytes_out), (bytes, bytes));
        assert_eq!((report.send_errors, report.receive_errors), (0, 0));
    }
    received.clear();
    assert_eq!((client.pool().outstanding(), server.pool().outstanding()), (0, 0));
}

/// No more is received than there are buffers; the rest waits until one comes back.
pub async fn an_empty_pool_takes_no_datagram<E: Env>(env: &E, ip: IpAddr) {
    let mut client = bind(env, ip, 10).await;
    let mut server = bind(env, ip, 4).await;
    let mut out = DatagramBatch::new(10);
    for number in 0..10 {
        push(env, &client, &mut out, server.local_addr(), &[number]);
    }
    send(&mut client, &mut out).await;
    let mut held = DatagramBatch::new(16);
    receive(env, &mut server, &mut held, 4).await;
    assert_eq!(held.len(), 4);
    assert_eq!(server.pool().outstanding(), 4);
    let more = poll_fn(|cx| Poll::Ready(server.poll_recv(cx, &mut held))).await;
    assert!(more.is_pending(), "there was no buffer: {more:?}");
    let mut numbers = Vec::new();
    loop {
        while let Some(datagram) = held.pop() {
            numbers.extend_from_slice(&datagram.packet);
        }
        if numbers.len() >= 10 {
            break;
        }
        receive(env, &mut server, &mut held, 1).await;
    }
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(server.pool().outstanding(), 0);
}

/// A datagram that the kernel refuses for good leaves the batch and is counted; its neighbours are
/// sent.
pub async fn what_cannot_be_sent_is_counted<E: Env>(env: &E, ip: IpAddr) {
    let mut client = bind(env, ip, 4).await;
    let mut server = bind(env, ip, 4).await;
    let mut batch = DatagramBatch::new(3);
    // No datagram can be sent to port 0.
    for (peer, byte) in
        [(server.local_addr(), 1), (SocketAddr::new(ip, 0), 2), (server.local_addr(), 3)]
    {
        push(env, &client, &mut batch, peer, &[byte]);
    }
    send(&mut client, &mut batch).await;
    receive(env, &mut server, &mut batch, 2).await;
    let received: Vec<u8> = batch.iter().flat_map(|one| one.packet.iter().copied()).collect();
    assert_eq!(received, [1, 3]);
    assert_eq!((client.report().packets_out, client.report().send_errors), (2, 1));
    drop(batch);
    assert_eq!(client.pool().outstanding(), 0);
}

/// A machine whose deadline has always come, or that always has something to send, until it hears a
/// datagram or is told to stop.
struct Busy {
    always_sends_to: Option<SocketAddr>,
    stopped: Rc<Cell<bool>>,
    calls: u32,
}

impl Busy {
    fn new(always_sends_to: Option<SocketAddr>) -> Self {
        Self { always_sends_to, stopped: Rc::default(), calls: 0 }
    }

    fn call(&mut self) {
        self.calls += 1;
        assert!(self.calls < CALLS_IN_VAIN, "the driver turns to nothing else");
    }
}

impl Machine for Busy {
    fn handle_datagrams(&mut self, _now: Timestamp, received: &mut DatagramBatch) {
        assert!(!received.is_empty(), "the driver hands over datagrams and no empty batch");
        self.stopped.set(true);
    }

    fn handle_timeout(&mut self, _now: Timestamp) {
        self.call();
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        let Some(peer) = self.always_sends_to.filter(|_| !self.stopped.get()) else { return };
        self.call();
        while out.room() > 0 {
            let Some(packet) = pool.take() else { return };
            out.push(Datagram { peer, at: now, packet }).expect("the batch has room");
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.always_sends_to.is_none().then_some(Timestamp::START)
    }

    fn is_done(&self) -> bool {
        self.stopped.get()
    }
}

/// A deadline that stays in the past does not hold back datagrams that have come.
pub async fn a_late_machine_hears_what_came<E: Env>(env: &E, ip: IpAddr) {
    let mut socket = with_one_to_receive(env, ip).await;
    drive(env, &mut socket, &mut Busy::new(None)).await.expect("the socket works");
}

/// A deadline that stays in the past does not hold back the other tasks of its thread.
pub async fn a_late_machine_leaves_turns_to_other_tasks<E: Env>(env: &E, ip: IpAddr) {
    let mut socket = bind(env, ip, 4).await;
    let mut machine = Busy::new(None);
    let stopped = Rc::clone(&machine.stopped);
    let task = env.spawn("stops it", async move { stopped.set(true) });
    drive(env, &mut socket, &mut machine).await.expect("the socket works");
    drop(task);
}

/// A machine that never runs out of datagrams to send is handed those that have come.
pub async fn a_machine_that_always_sends_hears_what_came<E: Env>(env: &E, ip: IpAddr) {
    let mut socket = with_one_to_receive(env, ip).await;
    // To itself, and not read any more once it has heard one: the surplus is lost in its queue.
    let peer = socket.local_addr();
    drive(env, &mut socket, &mut Busy::new(Some(peer))).await.expect("the socket works");
}

/// A socket with a datagram that has come and waits.
async fn with_one_to_receive<E: Env>(env: &E, ip: IpAddr) -> E::Udp {
    let mut socket = bind(env, ip, 64).await;
    let mut batch = DatagramBatch::new(1);
    push(env, &socket, &mut batch, socket.local_addr(), b"waits");
    send(&mut socket, &mut batch).await;
    sleep_until(env, env.now().after(Duration::from_millis(5))).await;
    socket
}

/// Timers that were set in another order expire by their deadlines, and none too early.
pub async fn timers_expire_in_the_order_of_their_deadlines<E: Env>(env: &E) {
    let began = env.now();
    let expired = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = [60_u64, 20, 40]
        .into_iter()
        .map(|millis| {
            let (env, expired) = (env.clone(), Rc::clone(&expired));
            env.clone().spawn("timer", async move {
                let at = began.after(Duration::from_millis(millis));
                sleep_until(&env, at).await;
                assert!(env.now() >= at, "a timer of {millis} ms expired too early");
                expired.borrow_mut().push(millis);
            })
        })
        .collect();
    until(env, "three timers expire", || expired.borrow().len() == 3).await;
    assert_eq!(*expired.borrow(), [20, 40, 60]);
    drop(tasks);
}

/// A timer is pending when unset, ready from its deadline on, and can be moved both ways.
pub async fn a_timer_can_be_moved_and_taken_away<E: Env>(env: &E) {
    let mut timer = env.timer();
    assert!(!is_ready(&mut timer).await, "an unset timer is pending");
    timer.set(Some(env.now()));
    assert!(is_ready(&mut timer).await, "a deadline that has come is ready");
    assert!(is_ready(&mut timer).await, "it stays ready until it is set again");
    timer.set(Some(Timestamp::NEVER));
    assert!(!is_ready(&mut timer).await, "a deadline that never comes is pending");
    let began = env.now();
    timer.set(Some(began.after(PATIENCE * 100)));
    assert!(!is_ready(&mut timer).await);
    timer.set(Some(began.after(Duration::from_millis(5))));
    poll_fn(|cx| timer.poll_expired(cx)).await;
    let ended = env.now();
    assert!(ended >= began.after(Duration::from_millis(5)) && ended < began.after(PATIENCE * 100));
    timer.set(None);
    assert!(!is_ready(&mut timer).await, "a timer that was taken away is pending");
}

/// A task runs by itself, and dropping the handle of an ended one does nothing.
pub async fn a_task_runs_and_its_handle_outlives_it<E: Env>(env: &E) {
    let ran = Rc::new(Cell::new(false));
    let told = Rc::clone(&ran);
    let task = env.spawn("once", async move { told.set(true) });
    until(env, "a task runs", || ran.get()).await;
    drop(task);
    assert_eq!(Rc::strong_count(&ran), 1, "an ended task lets go of what it held");
}

/// A task ends when its handle is dropped, and lets go of what it holds.
pub async fn a_dropped_task_stops<E: Env>(env: &E) {
    let held = Rc::new(Cell::new(0_u32));
    let inside = Rc::clone(&held);
    let task = env.spawn("for ever", async move {
        inside.set(1);
        pending::<()>().await;
        inside.set(2);
    });
    until(env, "a task runs", || held.get() == 1).await;
    drop(task);
    until(env, "a dropped task lets go", || Rc::strong_count(&held) == 1).await;
    assert_eq!(held.get(), 1);
    drop(env.spawn("never", {
        let inside = Rc::clone(&held);
        async move { inside.set(3) }
    }));
    until(env, "a dropped task lets go", || Rc::strong_count(&held) == 1).await;
    assert_eq!(held.get(), 1, "a task that was dropped before it began never runs");
}

/// A named stream is the same each time it is asked for; secret sources are not.
pub fn streams_repeat_and_secrets_do_not<E: Env>(env: &E) {
    let first = |name, instance| env.stream(name, instance).next_u64();
    assert_eq!(first("one", 0), first("one", 0));
    assert_ne!(first("one", 0), first("one", 1));
    assert_ne!(first("one", 0), first("other", 0));
    let secret = || {
        let mut bytes = [0; 32];
        env.secrets().fill(&mut bytes);
        bytes
    };
    assert_ne!(secret(), secret());
}

/// Work is done and its result comes back, of several at once too.
pub async fn work_off_the_thread_gives_its_result<E: Env>(env: &E) {
    let text = String::from("work");
    let outcome = patiently(env, "work is done", env.offload("work", move || text + "ed")).await;
    assert_eq!(outcome.as_deref(), Ok("worked"));
    let mut two = (pin!(env.offload("one", || 1)), pin!(env.offload("two", || 2)));
    let first = patiently(env, "work is done", two.1.as_mut()).await;
    let second = patiently(env, "work is done", two.0.as_mut()).await;
    assert_eq!((first, second), (Ok(2), Ok(1)));
}

/// A panic in the work is told to who asked for it and to nobody else.
pub async fn work_that_panics_is_an_error<E: Env>(env: &E) {
    let outcome = env.offload("panics", || -> u32 { panic!("planted, to be seen in the output") });
    assert_eq!(patiently(env, "work ends", outcome).await, Err(OffloadError::Panicked));
}

/// As much as is allowed can be asked for at once; what is dropped makes room in the end.
pub async fn work_off_the_thread_is_bounded_and_goes_on<E: Env>(env: &E) {
    for _ in 0..OFFLOADS_MAX * 2 {
        let mut work = pin!(env.offload("dropped", || ()));
        poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await;
    }
    let limit = env.now().after(PATIENCE);
    while env.offload("again", || ()).await == Err(OffloadError::Full) {
        assert!(env.now() < limit, "work that ended makes no room");
        sleep_until(env, env.now().after(Duration::from_millis(1))).await;
    }
}

/// As much as is allowed is under way at a time, more is refused, and what ended makes room: for
/// sides with threads, where work goes on while it is waited for.
pub async fn more_work_than_allowed_is_refused_until_some_has_ended<E: Env>(env: &E) {
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = Arc::new(Mutex::new(stopped));
    let mut works = Vec::new();
    for _ in 0..OFFLOADS_MAX {
        let stopped = Arc::clone(&stopped);
        // Until the sender is gone.
        let wait = move || assert!(stopped.lock().is_ok_and(|it| it.recv().is_err()));
        let mut work = Box::pin(env.offload("waits", wait));
        let begun = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        assert!(begun.is_pending());
        works.push(work);
    }
    assert_eq!(env.offload("too many", || ()).await, Err(OffloadError::Full));
    drop(stop);
    for work in works {
        assert_eq!(work.await, Ok(()));
    }
    assert_eq!(env.offload("again", || 1).await, Ok(1));
}

/// The calendar's time is after this was written and before its type ends.
pub fn the_wall_clock_says_a_plausible_time<E: Env>(env: &E) {
    let seconds = env.wall().unix_seconds();
    assert!((1_700_000_000..18_000_000_000).contains(&seconds), "{seconds} s since 1970");
}

async fn bind<E: Env>(env: &E, ip: IpAddr, pool_packets: usize) -> E::Udp {
    let options = UdpOptions { pool_packets, ..UdpOptions::default() };
    env.bind_udp(SocketAddr::new(ip, 0), &options).await.expect("a free port can be bound")
}

fn push<E: Env>(
    env: &E,
    socket: &E::Udp,
    batch: &mut DatagramBatch,
    peer: SocketAddr,
    bytes: &[u8],
) {
    let mut packet = socket.pool().take().expect("the pool has a buffer");
    assert!(packet.fill(bytes));
    batch.push(Datagram { peer, at: env.now(), packet }).expect("the batch has room");
}

/// Sends all of a batch, however often it takes.
async fn send<U: UdpSocket>(socket: &mut U, batch: &mut DatagramBatch) {
    while !batch.is_empty() {
        let before = batch.len();
        let sent = poll_fn(|cx| socket.poll_send(cx, batch)).await.expect("the socket works");
        assert_eq!(before - batch.len(), sent, "the count is that of those that left");
        assert!(sent > 0, "ready means that something left");
    }
}

/// Receives until `batch` holds `wanted` datagrams.
async fn receive<E: Env>(env: &E, socket: &mut E::Udp, batch: &mut DatagramBatch, wanted: usize) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(PATIENCE)));
    while batch.len() < wanted {
        let before = batch.len();
        let received = poll_fn(|cx| {
            assert!(timer.poll_expired(cx).is_pending(), "{before} of {wanted} datagrams came");
            socket.poll_recv(cx, batch)
        });
        let received = received.await.expect("the socket works");
        assert_eq!(batch.len() - before, received, "the count is that of those that came");
    }
}

/// Whether a timer is ready now.
async fn is_ready<T: Timer>(timer: &mut T) -> bool {
    poll_fn(|cx| Poll::Ready(timer.poll_expired(cx).is_ready())).await
}

/// Waits for `future`, which must not take for ever.
async fn patiently<E: Env, F: Future>(env: &E, what: &str, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut timer = env.timer();
    timer.set(Some(env.now().after(PATIENCE)));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        assert!(timer.poll_expired(cx).is_pending(), "waited in vain: {what}");
        Poll::Pending
    })
    .await
}

async fn sleep_until<E: Env>(env: &E, at: Timestamp) {
    let mut timer = env.timer();
    timer.set(Some(at));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// Lets others run until `done`.
async fn until<E: Env>(env: &E, what: &str, done: impl Fn() -> bool) {
    let limit = env.now().after(PATIENCE);
    while !done() {
        assert!(env.now() < limit, "waited in vain: {what}");
        sleep_until(env, env.now().after(Duration::from_millis(1))).await;
    }
}
