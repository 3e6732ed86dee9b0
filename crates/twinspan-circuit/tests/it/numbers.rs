//! Packet numbers at the ends of their range, and of who comes from another address.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_circuit::{Admission, Circuits, Config, Received, SendOptions, Sink, Taken};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::UseCircuitCode;

use crate::pair::{CODE, Inbox, SIMULATOR, VIEWER, addr, chat_down, chat_up};

const WRAP: u64 = 1 << 24;

/// A region that knows who comes, or does not.
#[derive(Default)]
struct Door {
    inbox: Inbox,
    former: Option<SocketAddr>,
}

impl Sink for Door {
    fn on_message(&mut self, now: Timestamp, message: Received<'_>) -> Taken {
        self.inbox.on_message(now, message)
    }

    fn on_stranger(&mut self, _: Timestamp, _: SocketAddr, _: &UseCircuitCode) -> Admission {
        self.former.map_or(Admission::Open, |former| Admission::Continue { former })
    }
}

/// A viewer's circuit to a region, whose datagrams come from wherever a box on the way says.
struct Line {
    now: Timestamp,
    viewer: Circuits,
    region: Circuits,
    heard: Inbox,
    door: Door,
    /// Where the viewer's datagrams come from.
    from: SocketAddr,
}

impl Line {
    fn new(viewer: u64, region: u64) -> Self {
        let config = |usual: Config, first_number| Config { first_number, ..usual };
        let ends = |config, name| Circuits::new(config, Stream::new(1, name, 0)).unwrap();
        let mut line = Self {
            now: Timestamp::START,
            viewer: ends(config(Config::default(), viewer), "viewer"),
            region: ends(config(Config::simulator(), region), "region"),
            heard: Inbox::default(),
            door: Door::default(),
            from: addr(VIEWER),
        };
        line.viewer.open(line.now, addr(SIMULATOR)).unwrap();
        line.say_hello();
        line
    }

    fn say_hello(&mut self) {
        let mut hello = UseCircuitCode::default();
        hello.circuit_code.code = CODE;
        self.viewer.send(self.now, addr(SIMULATOR), &hello, SendOptions::CRITICAL).unwrap();
        self.up();
    }

    fn up(&mut self) {
        let mut out = [0; 1_500];
        while let Some((_, len)) = self.viewer.poll_transmit(self.now, &mut out) {
            self.region.handle_datagram(self.now, self.from, &out[..len], &mut self.door);
        }
    }

    /// What the region sends to an address.
    fn sent_to(&mut self, to: SocketAddr) -> Vec<Vec<u8>> {
        let mut out = [0; 1_500];
        let mut sent = Vec::new();
        while let Some((at, len)) = self.region.poll_transmit(self.now, &mut out) {
            if at == to {
                sent.push(out[..len].to_vec());
            }
        }
        sent
    }

    fn down(&mut self, datagram: &[u8]) {
        self.viewer.handle_datagram(self.now, addr(SIMULATOR), datagram, &mut self.heard);
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.viewer.handle_timeout(self.now, &mut self.heard);
        self.region.handle_timeout(self.now, &mut self.door);
    }
}

#[test]
fn what_was_sent_before_the_numbers_began_anew_may_come_first_behind_that() {
    for late in 1..=4 {
        let mut line = Line::new(1, WRAP - 3);
        for number in 0..8 {
            let chat = chat_down(number, 10);
            line.region.send(line.now, line.from, &chat, SendOptions::RELIABLE).unwrap();
        }
        let mut datagrams = line.sent_to(line.from);
        assert!(datagrams.len() >= 8);
        datagrams.rotate_left(late);
        for datagram in datagrams.iter().chain(&datagrams) {
            line.down(datagram);
        }
        let heard: Vec<_> =
            line.heard.numbers.iter().map(|(number, times)| (*number, *times)).collect();
        assert_eq!(heard, (0..8).map(|number| (number, 1)).collect::<Vec<_>>(), "{late} late");
        assert_eq!(line.viewer.total().far_jumps, 0);
    }
}

/// A viewer gets another address; what it then hears, and how often the region heard its word that
/// was heard before, but not acknowledged.
fn moved(knows: bool) -> (usize, u32) {
    let mut line = Line::new(1, 1);
    let here = line.from;
    for number in 0..5 {
        line.region.send(line.now, here, &chat_down(number, 10), SendOptions::RELIABLE).unwrap();
    }
    for datagram in line.sent_to(here) {
        line.down(&datagram);
    }
    assert_eq!(line.heard.numbers.len(), 5);
    // Its ack does not arrive.
    line.viewer.send(line.now, addr(SIMULATOR), &chat_up(77, 10), SendOptions::RELIABLE).unwrap();
    line.up();
    assert_eq!(line.door.inbox.numbers[&77], 1);

    line.from = SocketAddr::from(([10, 9, 9, 9], 40_000));
    line.door.former = knows.then_some(here);
    line.say_hello();
    for number in 5..8 {
        let chat = chat_down(number, 10);
        line.region.send(line.now, line.from, &chat, SendOptions::RELIABLE).unwrap();
    }
    for datagram in line.sent_to(line.from) {
        line.down(&datagram);
    }
    // Unacknowledged words leave again, from there.
    for _ in 0..4 {
        line.wait(Duration::from_millis(700));
        line.up();
    }
    (line.heard.numbers.len(), line.door.inbox.numbers[&77])
}

#[test]
fn who_comes_from_another_address_goes_on_with_his_numbers() {
    assert_eq!(moved(true), (8, 1));
    // Begun anew, the region's words would be repeats, and his word news.
    let (heard, times) = moved(false);
    assert!(heard < 8 && times == 2, "{heard} heard, {times} times");
}
