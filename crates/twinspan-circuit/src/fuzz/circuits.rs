//! The fuzz body of a set of circuits, at both ends.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeSet;

use twinspan_core::fuzz::digest;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::AnyMessage;
use twinspan_lludp::messages::{ChatFromSimulator, ChatFromViewer, UseCircuitCode};

use super::script::{Action, PEERS, peer_addr, steps, wait_of};
use crate::{
    Admission, CircuitEvent, Circuits, Config, DeliveryId, Farewell, Received, Role, SendOptions,
    Sink, Taken,
};

/// The code that a simulator lets in.
const CODE: u32 = 7;
/// Circuits at a time, one less than there are peers.
const CIRCUITS: usize = 3;
/// Times that a timer may ring within one wait: pings, acks and resends of all circuits come to a
/// fraction of it.
const RINGS_MAX: u32 = 20_000;
/// Datagrams that may leave at one moment: acks of the longest script and all that can wait.
const BURST_MAX: u32 = 2_000;

/// Takes most messages and lets some in.
#[derive(Debug, Default)]
struct Taker {
    messages: u64,
    let_in: BTreeSet<SocketAddr>,
}

impl Sink for Taker {
    fn on_message(&mut self, _now: Timestamp, message: Received<'_>) -> Taken {
        self.messages += 1;
        if self.messages.is_multiple_of(5) || message.body.len() > 4_000 {
            Taken::NoRoom
        } else {
            Taken::Yes
        }
    }

    fn on_stranger(&mut self, _: Timestamp, from: SocketAddr, ask: &UseCircuitCode) -> Admission {
        if ask.circuit_code.code != CODE {
            return Admission::Refuse;
        }
        self.let_in.insert(from);
        Admission::Open
    }
}

/// One end and what it was seen to do.
#[derive(Debug)]
struct End {
    circuits: Circuits,
    taker: Taker,
    now: Timestamp,
    open: BTreeSet<DeliveryId>,
    told: u64,
    seen: u64,
}

/// Any datagrams at any time leave circuits within their limits: nothing is said to who has no
/// circuit, every outcome is told once, and when all fall silent nothing is left.
pub(super) fn fuzz_datagrams(data: &[u8]) -> u64 {
    digest(&[Role::Viewer, Role::Simulator].map(|role| end(role, data)))
}

fn end(role: Role, data: &[u8]) -> u64 {
    let base = if role == Role::Viewer { Config::default() } else { Config::simulator() };
    let config = Config { circuits_max: CIRCUITS, queued_messages_max: 64, ..base };
    let Ok(circuits) = Circuits::new(config, Stream::new(1, "fuzz", 0)) else {
        unreachable!("the configuration is in range")
    };
    let now = Timestamp::START.after(Duration::from_secs(1));
    let (open, taker) = (BTreeSet::new(), Taker::default());
    let mut end = End { circuits, taker, now, open, told: 0, seen: 0 };
    if role == Role::Viewer {
        for peer in 0..PEERS - 1 {
            assert!(end.circuits.open(now, peer_addr(peer)).is_ok(), "there is room for it");
            end.taker.let_in.insert(peer_addr(peer));
        }
    }
    for step in steps(data) {
        end.wait(wait_of(&step));
        let addr = peer_addr(step.peer);
        match step.action {
            Action::Datagram(bytes) => {
                end.circuits.handle_datagram(end.now, addr, bytes, &mut end.taker);
            }
            Action::Wish(wish) => end.wish(role, addr, wish),
        }
        end.drain();
    }
    // Deliveries time out, then the silence of each peer ends its circuit.
    end.wait(Duration::from_secs(200));
    assert!(end.circuits.is_empty(), "a circuit outlives the silence of its peer");
    assert_eq!(end.circuits.poll_timeout(), Timestamp::NEVER, "something rings for ever");
    assert!(end.open.is_empty(), "{} outcomes were never told", end.open.len());
    digest(&(end.circuits.total(), end.circuits.strangers(), end.taker.messages, end.seen))
}

impl End {
    fn wish(&mut self, role: Role, addr: SocketAddr, wish: u8) {
        let message = match role {
            Role::Viewer => AnyMessage::from(ChatFromViewer::default()),
            Role::Simulator => AnyMessage::from(ChatFromSimulator::default()),
        };
        let options = [SendOptions::RELIABLE, SendOptions::CRITICAL, SendOptions::UNRELIABLE];
        match wish % 8 {
            0 => {
                self.circuits.close(addr, Farewell::CloseCircuit);
            }
            1 => {
                self.circuits.close(addr, Farewell::Silent);
            }
            2 if role == Role::Viewer && self.taker.let_in.contains(&addr) => {
                let _ = self.circuits.open(self.now, addr);
            }
            kind => {
                let messages = vec![message; usize::from(wish >> 3) % 9];
                let options = options.get(usize::from(kind) % 3).copied();
                let options = options.unwrap_or(SendOptions::RELIABLE);
                let sent = self.circuits.send_reliable_with(self.now, addr, &messages, options);
                self.open.extend(sent.ok());
            }
        }
    }

    /// Lets time pass, ringing whenever it is asked for.
    fn wait(&mut self, time: Duration) {
        let until = self.now.after(time);
        let mut rings = 0;
        while self.circuits.poll_timeout() <= until {
            self.now = self.now.max(self.circuits.poll_timeout());
            self.circuits.handle_timeout(self.now, &mut self.taker);
            self.drain();
            rings += 1;
            assert!(rings < RINGS_MAX, "it rings without an end");
        }
        self.now = until;
    }

    fn drain(&mut self) {
        let mut out = [0; 1_500];
        let mut burst = 0;
        while let Some((to, len)) = self.circuits.poll_transmit(self.now, &mut out) {
            assert!(self.taker.let_in.contains(&to), "something for {to}, who has no circuit");
            assert!(len <= self.circuits.config().datagram_bytes_max, "a datagram of {len} bytes");
            self.seen = self.seen.wrapping_mul(31).wrapping_add(len as u64);
            burst += 1;
            assert!(burst < BURST_MAX, "it sends without an end");
        }
        while let Some(event) = self.circuits.poll_event() {
            self.told += 1;
            if let CircuitEvent::Delivery { id, .. } = event {
                assert!(self.open.remove(&id), "the outcome of {id:?} is told again");
            }
        }
        assert!(self.circuits.len() <= CIRCUITS, "more circuits than there may be");
    }
}
