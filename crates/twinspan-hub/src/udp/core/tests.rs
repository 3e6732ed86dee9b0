//! The driver over a socket that keeps what it is given.

use std::cell::Cell;
use std::collections::VecDeque;

use twinspan_topic::{
    Compressions, Form, Greeting, Identity, InboxLimits, NodeConfig, NodeSide, Overflow,
};

use super::*;
use crate::report::Compression;

const INTERVAL: Duration = Duration::from_micros(100);

/// A socket whose time is set, and that keeps what it is given.
struct Kept {
    now: Cell<Timestamp>,
    /// Looks at the clock.
    looks: Cell<u32>,
    room: [u8; 1_200],
    waiting: Vec<Vec<u8>>,
    /// Datagrams of each call that sent.
    calls: Vec<Vec<Vec<u8>>>,
    came: VecDeque<Vec<u8>>,
    current: Vec<u8>,
}

impl Kept {
    fn new() -> Self {
        Self {
            now: Cell::new(Timestamp::START.after(Duration::from_secs(1))),
            looks: Cell::new(0),
            room: [0; 1_200],
            waiting: Vec::new(),
            calls: Vec::new(),
            came: VecDeque::new(),
            current: Vec::new(),
        }
    }
}

impl Wire for Kept {
    fn now(&self) -> Timestamp {
        self.looks.set(self.looks.get() + 1);
        self.now.get()
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= 64
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.room
    }

    fn push(&mut self, _: SocketAddr, bytes: usize) {
        self.waiting.push(self.room[..bytes].to_vec());
    }

    fn send(&mut self) -> io::Result<bool> {
        self.calls.push(std::mem::take(&mut self.waiting));
        Ok(true)
    }

    fn receive(&mut self) -> io::Result<bool> {
        Ok(!self.came.is_empty())
    }

    fn is_taken(&self) -> bool {
        self.came.is_empty()
    }

    fn may_wait(&mut self) -> io::Result<bool> {
        Ok(self.came.is_empty())
    }

    fn take_next(&mut self) -> Option<(SocketAddr, &[u8])> {
        self.current = self.came.pop_front()?;
        Some((address(1), &self.current))
    }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 9_000))
}

fn core(id: u8, side: NodeSide, reliable: bool) -> Core<Kept> {
    let identity = Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name: "b".into() };
    let greeting = Greeting {
        id: [id; 16],
        publishes: true,
        receives: true,
        reliable,
        message_bytes_max: 20_000,
        history: 0,
        compressions: Compressions::NONE,
        packs: Compressions::NONE,
        dictionary: 0,
        topic: "t".into(),
        identity,
    };
    let config = NodeConfig::new(greeting, side);
    let socket = Kept::new();
    let inbox = InboxLimits { messages_max: 1 << 20, bytes_max: 1 << 24, overflow: Overflow::Keep };
    Core::new(CoreParts {
        node: Node::new(config, socket.now.get(), &mut Stream::new(1, "secrets", u64::from(id))),
        inbox: Inbox::new(inbox),
        socket,
        is_reliable: reliable,
        echo: None,
        batch_size: 64,
        flush_interval: INTERVAL,
        loss: None,
        packing: None,
    })
}

/// A member of a group, which publishes to whoever is there.
fn alone() -> Core<Kept> {
    let group = SocketAddr::from(([239, 1, 2, 3], 9_000));
    let mut core = core(1, NodeSide::Group(group), false);
    core.transmit(core.socket.now());
    wait(&mut core, Duration::from_millis(1));
    core.socket.calls.clear();
    core
}

fn wait(core: &mut Core<Kept>, time: Duration) {
    core.socket.now.set(core.socket.now.get().after(time));
}

#[test]
fn what_comes_alone_leaves_at_once_and_a_burst_gathers() {
    let mut core = alone();
    core.publish(&[1; 64], More::Unknown).unwrap();
    assert_eq!(core.socket.calls.len(), 1);
    for _ in 0..100 {
        core.publish(&[2; 64], More::Unknown).unwrap();
    }
    assert_eq!(core.socket.calls.len(), 1, "they follow each other");
    wait(&mut core, INTERVAL);
    for _ in 0..=MESSAGES_PER_CLOCK {
        core.publish(&[3; 64], More::Unknown).unwrap();
    }
    assert_eq!(core.socket.calls.len(), 2, "no message waits longer than the interval");
    // A train is full: 17 messages of 64 bytes are in a datagram.
    for _ in 0..64 * 17 + 1 {
        core.publish(&[4; 64], More::Unknown).unwrap();
    }
    assert_eq!(core.socket.calls.iter().map(Vec::len).collect::<Vec<_>>(), [1, 7, 64]);
}

#[test]
fn many_that_come_alone_leave_at_once_and_a_burst_of_such_gathers() {
    let mut core = alone();
    let many = |core: &mut Core<Kept>| {
        for _ in 0..34 {
            core.publish(&[1; 64], More::Follows).unwrap();
        }
        core.end_of_many();
        core.socket.calls.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(many(&mut core), [2]);
    assert_eq!(many(&mut core), [2], "the next ones follow at once");
    assert_eq!((many(&mut core), core.queued_at.is_some()), (vec![2], true));
    core.flush(core.socket.now());
    assert_eq!(core.socket.calls.len(), 2);
    wait(&mut core, Duration::from_micros(3));
    assert_eq!(many(&mut core), [2, 4, 2], "there was a pause");
}

#[test]
fn a_burst_looks_at_the_clock_now_and_then() {
    let mut core = alone();
    core.publish(&[1; 64], More::Unknown).unwrap();
    let before = core.socket.looks.get();
    for _ in 0..170 {
        core.publish(&[2; 64], More::Unknown).unwrap();
    }
    assert_eq!(core.socket.looks.get() - before, 10);
}

#[test]
fn what_is_cut_leaves_at_once_in_a_burst_too() {
    let mut core = alone();
    for _ in 0..5 {
        core.publish(&[1; 64], More::Unknown).unwrap();
    }
    assert_eq!((core.socket.calls.len(), core.left()), (1, Left::Queued));
    core.publish(&[2; 12_000], More::Unknown).unwrap();
    let calls: Vec<_> = core.socket.calls.iter().map(Vec::len).collect();
    assert_eq!((calls, core.left()), (vec![1, 12], Left::Nothing), "with what waited before it");
}

#[test]
fn what_packing_makes_short_waits_for_company() {
    let mut core = alone();
    let packing = Packing::new(Compression::Lz4, None, || Duration::ZERO, 20_000);
    core.packing = Some(packing.unwrap());
    for _ in 0..3 {
        core.publish(&[7; 12_000], More::Unknown).unwrap();
    }
    assert_eq!((core.socket.calls.len(), core.left()), (1, Left::Queued));
}

/// Brings all that one sent to the other.
fn carry(from: &mut Core<Kept>, to: &mut Core<Kept>) {
    to.socket.came.extend(from.socket.calls.drain(..).flatten());
}

/// Two ends of a reliable topic that have met: one that hears, and one that publishes.
fn met() -> [Core<Kept>; 2] {
    let mut here = core(1, NodeSide::Listen, true);
    let mut there = core(2, NodeSide::Connect(address(1)), true);
    for _ in 0..4 {
        there.drive(true);
        carry(&mut there, &mut here);
        here.drive(true);
        carry(&mut here, &mut there);
    }
    assert_eq!(there.node.subscribers(), 1);
    [here, there]
}

#[test]
fn who_only_publishes_takes_acks_in_behind_two_trains() {
    let [mut here, mut there] = met();
    let mut room = Vec::new();
    let (mut looks, mut most) = (0, 0);
    for number in 0..400 {
        for end in [&mut here, &mut there] {
            wait(end, Duration::from_millis(1));
        }
        there.publish(&[1; 12_000], More::Unknown).unwrap();
        looks += u32::from(there.take_looked());
        if number >= 200 {
            // The pace of the beginning is over.
            most = most.max(there.node.unacknowledged());
        }
        if number == 0 {
            assert_eq!((looks, there.left()), (0, Left::Acks), "what leaves first is few");
        }
        carry(&mut there, &mut here);
        while here.take(&mut room).is_some() {}
        carry(&mut here, &mut there);
    }
    assert!(looks > 20, "{looks}");
    // Those of the message that was queued before the look are on top.
    assert!(most <= UNACKNOWLEDGED_MANY + 24, "{most}");
    there.drive(true);
    assert_eq!(there.left(), Left::Nothing);
}

#[test]
fn a_flood_keeps_no_publisher_from_going_on() {
    let [_here, mut there] = met();
    for _ in 0..40 {
        wait(&mut there, Duration::from_millis(1));
        there.publish(&[1; 12_000], More::Unknown).unwrap();
    }
    there.socket.came.extend((0..200).map(|_| vec![0xff; 20]));
    there.publish(&[1; 12_000], More::Unknown).unwrap();
    assert!(there.take_looked());
    assert_eq!(there.socket.came.len(), 200 - PART_DATAGRAMS);
}

#[test]
fn a_flood_on_a_reliable_topic_is_taken_in_by_parts_and_each_is_acknowledged() {
    let [mut here, mut there] = met();
    // Some rounds open the window.
    let mut room = Vec::new();
    for round in 0..16 {
        // The pace lets them go bit by bit, and so does the room for those that wait.
        for _ in 0..100 {
            for end in [&mut here, &mut there] {
                wait(end, Duration::from_micros(50));
            }
            for _ in 0..4 * 17 {
                if there.publish(&[1; 64], More::Unknown).is_err() {
                    break;
                }
            }
            there.drive(true);
        }
        carry(&mut there, &mut here);
        let came = here.socket.came.len();
        if round == 15 {
            assert!(came > PART_DATAGRAMS, "{came}");
            assert!(here.take(&mut room).is_some());
            assert_eq!(here.socket.came.len(), came - PART_DATAGRAMS);
            assert_eq!(here.socket.calls.len(), 1, "an ack leaves before the rest is looked at");
        }
        while here.take(&mut room).is_some() {}
        carry(&mut here, &mut there);
        there.drive(true);
    }
}
