//! Hubs in one process, as users write them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not see as such"
)]
#![cfg(target_os = "linux")]

mod allocations;
mod cable;
mod chosen;
#[path = "../../../twinspan-reliable/tests/it/counting.rs"]
mod counting;
mod discover;
mod errors;
mod multicast;
mod poor;
mod ports;
mod quic;
mod rings;
mod roads;
mod sealed;
#[cfg(feature = "scenarios")]
mod seeds;
mod tcp;
mod udp;
/// The whole UDP suite once more, over a completion ring.
#[path = "udp.rs"]
#[allow(clippy::duplicate_mod, reason = "one suite for two roads")]
mod uring;
mod values;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use twinspan_hub::{Hub, HubBuilder, Payload};

/// Long enough for a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(30);

/// A topic that no other test has.
fn topic() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test/hub/{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An address of this machine that nobody has, for TCP and UDP, and that the system gives nobody who asks
/// for any port: its own are above 32,767.
fn free() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 97 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (number % 20_000) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// An endpoint of UDP on loopback that no other test has.
fn udp_endpoint() -> String {
    format!("udp://{}/{}", free(), topic())
}

/// A listener at a free port, and its port.
fn listening<T: Payload>(
    scheme: &str,
    topic: &str,
    options: impl FnOnce(HubBuilder<T>) -> HubBuilder<T>,
) -> (Hub<T>, u16) {
    let builder = Hub::<T>::builder(format!("{scheme}://127.0.0.1:0/{topic}")).listen();
    let hub = options(builder).build().unwrap();
    let port = port_of(&hub);
    (hub, port)
}

/// Where a hub listens.
fn port_of<T: Payload>(hub: &Hub<T>) -> u16 {
    let text = hub.transport().to_string();
    let (_, rest) = text.split_once("it listens at 127.0.0.1:").unwrap();
    rest.split(|it: char| !it.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn met<T: Payload>(hub: &Hub<T>, count: usize) {
    assert!(hub.wait_for_subscribers(count, LONG), "they meet");
}

/// Fifty numbers go there, and come back with one added.
fn there_and_back(here: &Hub<u64>, there: Hub<u64>) {
    let echo = thread::spawn(move || {
        for _ in 0..50 {
            let number = there.recv().unwrap();
            there.publish(&(number + 1)).unwrap();
        }
        there
    });
    for number in 0..50 {
        here.publish(&number).unwrap();
        assert_eq!(here.recv().unwrap(), number + 1);
    }
    echo.join().unwrap();
}
