use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::{TokioEnv, WallTime};

const MS: Duration = Duration::from_millis(1);
const POOL_PACKETS: usize = 64;
const DELAYED_MAX: usize = 16;

/// A clock that stands still until told otherwise.
#[derive(Clone, Default)]
struct Clock {
    now: Rc<Cell<Timestamp>>,
    /// What its last timer waits for.
    waits_for: Rc<Cell<Option<Timestamp>>>,
}

impl Clock {
    fn advance(&self, by: Duration) {
        self.now.set(self.now.get().after(by));
    }
}

impl TimeProvider for Clock {
    type Timer = ClockTimer;

    fn now(&self) -> Timestamp {
        self.now.get()
    }

    fn wall(&self) -> WallTime {
        WallTime::EPOCH
    }

    fn timer(&self) -> ClockTimer {
        ClockTimer(self.clone())
    }
}

struct ClockTimer(Clock);

impl Timer for ClockTimer {
    fn set(&mut self, at: Option<Timestamp>) {
        self.0.waits_for.set(at);
    }

    fn poll_expired(&mut self, _: &mut Context<'_>) -> Poll<()> {
        match self.0.waits_for.get() {
            Some(at) if at <= self.0.now() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

/// A socket whose network is a pair of queues.
struct Wire {
    pool: PacketPool,
    ends: Rc<Ends>,
}

#[derive(Default)]
struct Ends {
    incoming: RefCell<VecDeque<Datagram>>,
    sent: RefCell<Vec<Vec<u8>>>,
    blocked: Cell<bool>,
}

impl UdpSocket for Wire {
    fn local_addr(&self) -> SocketAddr {
        peer(1)
    }

    fn pool(&self) -> &PacketPool {
        &self.pool
    }

    fn poll_recv(
        &mut self,
        _: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let before = batch.len();
        while batch.room() > 0 {
            let Some(datagram) = self.ends.incoming.borrow_mut().pop_front() else { break };
            batch.push(datagram).unwrap();
        }
        match batch.len() - before {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        if self.ends.blocked.get() {
            return Poll::Pending;
        }
        let sent = std::iter::from_fn(|| batch.pop()).map(|datagram| datagram.packet.to_vec());
        let before = self.ends.sent.borrow().len();
        self.ends.sent.borrow_mut().extend(sent);
        Poll::Ready(Ok(self.ends.sent.borrow().len() - before))
    }

    fn report(&self) -> SocketReport {
        SocketReport::default()
    }
}

/// A conditioned socket and all that its test pulls at.
struct Bench {
    clock: Clock,
    control: LinkControl,
    ends: Rc<Ends>,
    pool: PacketPool,
    socket: Conditioned<Wire, Clock>,
}

impl Bench {
    fn new(conditions: Conditions) -> Self {
        let clock = Clock::default();
        let control = LinkControl::new();
        control.set(conditions).unwrap();
        let ends = Rc::new(Ends::default());
        let pool = PacketPool::new(POOL_PACKETS);
        let wire = Wire { pool: pool.clone(), ends: Rc::clone(&ends) };
        let socket = Conditioned::new(wire, clock.clone(), control.clone(), 7, DELAYED_MAX);
        Self { clock, control, ends, pool, socket }
    }

    fn datagram(&self, text: &str) -> Datagram {
        let mut packet = self.pool.take().unwrap();
        assert!(packet.fill(text.as_bytes()));
        Datagram { peer: peer(2), at: self.clock.now(), packet }
    }

    /// Sends each text, and returns how many the socket took.
    fn send(&mut self, texts: &[&str]) -> usize {
        self.send_to(peer(2), texts)
    }

    fn send_to(&mut self, peer: SocketAddr, texts: &[&str]) -> usize {
        let mut batch = DatagramBatch::new(texts.len());
        for text in texts {
            batch.push(Datagram { peer, ..self.datagram(text) }).unwrap();
        }
        match self.socket.poll_send(&mut Context::from_waker(Waker::noop()), &mut batch) {
            Poll::Ready(count) => count.unwrap(),
            Poll::Pending => 0,
        }
    }

    fn comes(&self, texts: &[&str]) {
        let datagrams = texts.iter().map(|text| self.datagram(text));
        self.ends.incoming.borrow_mut().extend(datagrams);
    }

    /// Polls for receiving once, as a waiting driver does.
    fn receive(&mut self) -> Vec<String> {
        let mut batch = DatagramBatch::new(64);
        let polled = self.socket.poll_recv(&mut Context::from_waker(Waker::noop()), &mut batch);
        if let Poll::Ready(count) = polled {
            assert_eq!(count.unwrap(), batch.len());
        } else {
            assert!(batch.is_empty());
        }
        batch.iter().map(|datagram| text(&datagram.packet)).collect()
    }

    fn sent(&self) -> Vec<String> {
        self.ends.sent.borrow().iter().map(|bytes| text(bytes)).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn a_clean_socket_passes_everything_straight_through() {
    let mut bench = Bench::new(Conditions::CLEAN);
    assert_eq!(bench.send(&["a", "b"]), 2);
    assert_eq!(bench.sent(), ["a", "b"]);
    bench.comes(&["c", "d"]);
    assert_eq!(bench.receive(), ["c", "d"]);
    assert_eq!(bench.receive(), [""; 0]);
    assert_eq!(bench.clock.waits_for.get(), None);
    assert_eq!(bench.control.faults(), FaultCounters::default());
    assert_eq!(bench.pool.outstanding(), 0);
}

#[test]
fn full_loss_drops_everything_both_ways() {
    let mut bench = Bench::new(Conditions { loss: 1.0, ..Conditions::CLEAN });
    assert_eq!(bench.send(&["a", "b", "c"]), 3);
    bench.comes(&["d", "e"]);
    assert_eq!(bench.receive(), [""; 0]);
    assert_eq!(bench.sent(), [""; 0]);
    assert_eq!(bench.control.faults().effect(FaultKind::Loss), 5);
    assert_eq!(bench.pool.outstanding(), 0);
}

#[test]
fn delay_shifts_both_directions_and_keeps_the_order() {
    let mut bench = Bench::new(Conditions { delay: 20 * MS, ..Conditions::CLEAN });
    assert_eq!(bench.send(&["a", "b"]), 2);
    bench.clock.advance(5 * MS);
    bench.comes(&["c", "d"]);
    assert_eq!(bench.receive(), [""; 0]);
    assert_eq!(bench.socket.delayed(), 4);
    // The four buffers themselves wait: nothing was copied.
    assert_eq!(bench.pool.outstanding(), 4);
    assert_eq!(bench.clock.waits_for.get(), Some(Timestamp::START.after(20 * MS)));
    bench.clock.advance(14 * MS);
    assert_eq!(bench.receive(), [""; 0]);
    assert_eq!(bench.sent(), [""; 0]);
    bench.clock.advance(MS);
    assert_eq!(bench.receive(), [""; 0]);
    assert_eq!(bench.sent(), ["a", "b"]);
    assert_eq!(bench.clock.waits_for.get(), Some(Timestamp::START.after(25 * MS)));
    bench.clock.advance(5 * MS);
    assert_eq!(bench.receive(), ["c", "d"]);
    assert_eq!((bench.socket.delayed(), bench.pool.outstanding()), (0, 0));
}

#[test]
fn a_received_datagram_carries_the_moment_it_left_the_link() {
    let mut bench = Bench::new(Conditions { delay: 20 * MS, ..Conditions::CLEAN });
    bench.comes(&["a"]);
    assert_eq!(bench.receive(), [""; 0]);
    bench.clock.advance(21 * MS);
    let mut batch = DatagramBatch::new(1);
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(bench.socket.poll_recv(cx, &mut batch).is_ready());
    assert_eq!(batch.pop().unwrap().at, Timestamp::START.after(21 * MS));
}

#[test]
fn changed_conditions_act_on_the_next_datagram() {
    let mut bench = Bench::new(Conditions::CLEAN);
    bench.send(&["a"]);
    bench.control.set(Conditions { loss: 1.0, ..Conditions::CLEAN }).unwrap();
    bench.send(&["b"]);
    bench.control.set(Conditions::CLEAN).unwrap();
    bench.send(&["c"]);
    assert_eq!(bench.sent(), ["a", "c"]);
}

#[test]
fn what_is_on_the_way_is_not_overtaken_when_delay_ends() {
    let mut bench = Bench::new(Conditions { delay: 20 * MS, ..Conditions::CLEAN });
    bench.send(&["a"]);
    bench.comes(&["b"]);
    assert_eq!(bench.receive(), [""; 0]);
    bench.control.set(Conditions::CLEAN).unwrap();
    bench.send(&["c"]);
    bench.comes(&["d"]);
    assert_eq!(bench.receive(), [""; 0]);
    bench.clock.advance(20 * MS);
    assert_eq!(bench.receive(), ["b", "d"]);
    assert_eq!(bench.sent(), ["a", "c"]);
    bench.send(&["e"]);
    assert_eq!(bench.sent(), ["a", "c", "e"]);
}

#[test]
fn what_the_queue_cannot_hold_is_dropped_and_counted() {
    let mut bench = Bench::new(Conditions { delay: 20 * MS, ..Conditions::CLEAN });
    assert_eq!(bench.send(&["x"; DELAYED_MAX + 3]), DELAYED_MAX + 3);
    assert_eq!(bench.socket.delayed(), DELAYED_MAX);
    assert_eq!(bench.control.faults().effect(FaultKind::QueueDrop), 3);
    bench.clock.advance(20 * MS);
    bench.receive();
    assert_eq!(bench.sent().len(), DELAYED_MAX);
    assert_eq!(bench.pool.outstanding(), 0);
}

#[test]
fn a_duplicate_comes_twice() {
    let mut bench = Bench::new(Conditions { duplicate: 1.0, ..Conditions::CLEAN });
    bench.send(&["a"]);
    bench.comes(&["b"]);
    assert_eq!(bench.receive(), ["b"]);
    assert_eq!(bench.sent(), ["a"]);
    bench.clock.advance(100 * MS);
    assert_eq!(bench.receive(), ["b"]);
    assert_eq!(bench.sent(), ["a", "a"]);
    assert_eq!(bench.control.faults().effect(FaultKind::Duplicate), 2);
}

#[test]
fn a_blocked_inner_socket_gets_its_datagrams_later() {
    let mut bench = Bench::new(Conditions { delay: MS, ..Conditions::CLEAN });
    bench.ends.blocked.set(true);
    bench.send(&["a", "b"]);
    bench.clock.advance(MS);
    assert_eq!(bench.receive(), [""; 0]);
    assert_eq!(bench.sent(), [""; 0]);
    assert_eq!(bench.socket.delayed(), 2);
    // Clean by now, but those that wait go first.
    bench.control.set(Conditions::CLEAN).unwrap();
    bench.send(&["c"]);
    bench.ends.blocked.set(false);
    assert_eq!(bench.receive(), [""; 0]);
    assert_eq!(bench.sent(), ["a", "b", "c"]);
}

#[test]
fn two_sockets_of_one_control_draw_different_fates() {
    let conditions = Conditions { loss: 0.5, ..Conditions::CLEAN };
    let mut first = Bench::new(conditions);
    let wire = Wire { pool: first.pool.clone(), ends: Rc::default() };
    let other = Rc::clone(&wire.ends);
    let second = Conditioned::new(wire, first.clock.clone(), first.control.clone(), 7, DELAYED_MAX);
    let texts: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    first.send(&texts);
    let sent = first.sent();
    first.socket = second;
    first.ends = other;
    first.send(&texts);
    assert_ne!(sent, first.sent());
    assert!(!sent.is_empty() && sent.len() < texts.len());
}

#[test]
fn another_peer_does_not_change_what_befalls_the_first() {
    let sent_to_first = |others: usize| {
        let mut bench = Bench::new(Conditions { loss: 0.5, ..Conditions::CLEAN });
        for number in 0..40 {
            bench.send_to(peer(3), &vec!["other"; others]);
            bench.send_to(peer(2), &[&number.to_string()]);
        }
        let mut sent = bench.sent();
        sent.retain(|text| text != "other");
        sent
    };
    let alone = sent_to_first(0);
    assert!(!alone.is_empty() && alone.len() < 40);
    assert_eq!(alone, sent_to_first(1));
    assert_eq!(alone, sent_to_first(3));
}

#[test]
fn conditions_out_of_range_are_refused() {
    let control = LinkControl::new();
    let wrong = Conditions { loss: 2.0, ..Conditions::CLEAN };
    assert!(control.set(wrong).is_err());
    assert_eq!(control.conditions(), Conditions::CLEAN);
}

/// Over real sockets: a round trip takes twice the delay at least.
#[test]
fn a_conditioned_environment_delays_real_datagrams() {
    let control = LinkControl::new();
    control.set(Conditions { delay: 10 * MS, ..Conditions::CLEAN }).unwrap();
    let plain = TokioEnv::new(Some(1)).unwrap();
    let env = ConditionedEnv::new(plain.clone(), control.clone());
    plain.block_on(async {
        let options = UdpOptions { pool_packets: 8, ..UdpOptions::default() };
        let mut near = env.bind_udp(peer(0), &options).await.unwrap();
        let mut far = plain.bind_udp(peer(0), &options).await.unwrap();
        let began = env.now();
        let mut batch = DatagramBatch::new(4);
        let mut packet = near.pool().take().unwrap();
        assert!(packet.fill(b"there and back"));
        batch.push(Datagram { peer: far.local_addr(), at: began, packet }).unwrap();
        let send = |cx: &mut Context<'_>| near.poll_send(cx, &mut batch);
        assert_eq!(std::future::poll_fn(send).await.unwrap(), 1);
        let mut answer = DatagramBatch::new(4);
        let mut back = DatagramBatch::new(4);
        std::future::poll_fn(|cx| {
            if far.poll_recv(cx, &mut answer).is_ready() {
                assert_eq!(answer.len(), 1);
                assert!(far.poll_send(cx, &mut answer).is_ready());
                assert!(far.poll_recv(cx, &mut answer).is_pending());
            }
            near.poll_recv(cx, &mut back)
        })
        .await
        .unwrap();
        assert_eq!(&*back.pop().unwrap().packet, b"there and back");
        assert!(env.now().since(began) >= 20 * MS);
    });
}
