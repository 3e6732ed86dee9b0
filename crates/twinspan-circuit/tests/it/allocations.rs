//! What circuits cost in memory, and that a warm exchange asks for none.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_circuit::{Circuits, Config, Rates, SendOptions};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::UseCircuitCode;

use crate::counting::{calls, held_bytes};
use crate::pair::{CODE, Inbox, SIMULATOR, VIEWER, addr, chat_down, chat_up};

/// Counts and keeps nothing.
fn drop_all(_: Timestamp, _: twinspan_circuit::Received<'_>) -> twinspan_circuit::Taken {
    twinspan_circuit::Taken::Yes
}

/// Moves everything that both ends have to send, and lets time pass.
fn exchange(ends: &mut [Circuits; 2], now: Timestamp, out: &mut [u8; 1_500]) {
    for _ in 0..3 {
        for end in [VIEWER, SIMULATOR] {
            ends[end].handle_timeout(now, &mut drop_all);
            while let Some((_, len)) = ends[end].poll_transmit(now, out) {
                ends[1 - end].handle_datagram(now, addr(end), &out[..len], &mut drop_all);
            }
            while ends[end].poll_event().is_some() {}
        }
    }
}

#[test]
fn a_warm_exchange_allocates_nothing() {
    let configs = [Config::default(), Config { rates: Rates::UNLIMITED, ..Config::simulator() }];
    let mut pair = crate::pair::Pair::connected(configs, crate::pair::CLEAN, 1);
    let (up, down) = (chat_up(1, 100), chat_down(2, 500));
    let mut out = [0; 1_500];
    let start = pair.now;
    let mut turn = |number: u64, ends: &mut [Circuits; 2]| {
        let now = start.after(Duration::from_millis(20 * number));
        for _ in 0..3 {
            ends[VIEWER].send(now, addr(SIMULATOR), &up, SendOptions::RELIABLE).unwrap();
            ends[SIMULATOR].send(now, addr(VIEWER), &down, SendOptions::RELIABLE).unwrap();
            ends[SIMULATOR].send(now, addr(VIEWER), &down, SendOptions::UNRELIABLE).unwrap();
        }
        exchange(ends, now, &mut out);
    };
    (0..600).for_each(|number| turn(number, &mut pair.ends));
    let before = calls();
    (600..1_200).for_each(|number| turn(number, &mut pair.ends));
    assert_eq!(calls() - before, 0);
    assert!(pair.ends[VIEWER].total().reliable_in >= 3_000);
}

/// Addresses of many simulators.
fn simulator(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, (index / 250) as u8, (index % 250) as u8], 9_000))
}

#[test]
fn an_idle_circuit_takes_at_most_8_kb() {
    const CIRCUITS: usize = 300;
    let config = Config { circuits_max: CIRCUITS, ..Config::default() };
    let mut viewer = Circuits::new(config, Stream::new(1, "viewer", 0)).unwrap();
    let mut out = [0; 1_500];
    for index in 0..CIRCUITS {
        let stream = Stream::new(1, "simulator", index as u64);
        let mut far = Circuits::new(Config::simulator(), stream).unwrap();
        let mut inbox = Inbox::default();
        let start = Timestamp::START.after(Duration::from_millis(10 * index as u64));
        viewer.open(start, simulator(index)).unwrap();
        let mut hello = UseCircuitCode::default();
        hello.circuit_code.code = CODE;
        viewer.send(start, simulator(index), &hello, SendOptions::CRITICAL).unwrap();
        // Forty messages each way, then silence.
        for step in 0..60 {
            let now = start.after(Duration::from_millis(10 * step));
            if (1..=40).contains(&step) {
                let (up, down) = (chat_up(1, 200), chat_down(2, 400));
                viewer.send(now, simulator(index), &up, SendOptions::RELIABLE).unwrap();
                far.send(now, addr(VIEWER), &down, SendOptions::RELIABLE).unwrap();
            }
            viewer.handle_timeout(now, &mut drop_all);
            while let Some((to, len)) = viewer.poll_transmit(now, &mut out) {
                if to == simulator(index) {
                    far.handle_datagram(now, addr(VIEWER), &out[..len], &mut inbox);
                }
            }
            far.handle_timeout(now, &mut inbox);
            while let Some((_, len)) = far.poll_transmit(now, &mut out) {
                viewer.handle_datagram(now, simulator(index), &out[..len], &mut drop_all);
            }
            while viewer.poll_event().is_some() {}
        }
        assert_eq!(inbox.order.len(), 40);
        assert_eq!(viewer.unacknowledged(simulator(index)), 0);
    }
    assert_eq!(viewer.len(), CIRCUITS);
    let before = held_bytes();
    drop(viewer);
    let each = (before - held_bytes()) / CIRCUITS as i64;
    println!("{each} bytes for each idle circuit");
    assert!((3_000..=8_192).contains(&each), "{each}");
}
