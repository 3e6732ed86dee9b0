//! How connections end and stand still: half open, half closed, without a window, with no room.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TaskProvider, TcpListener, TcpOptions,
    TimeProvider,
};
use twinspan_sim::victims::prove_over;
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask, SimTcp, TcpMode};

use crate::echo::{MS, ip};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// Both ways in which streams travel: what holds for one holds for the other.
const MODES: [TcpMode; 2] = [TcpMode::Streams, TcpMode::Segments];

/// Small buffers, so that a window shuts soon.
fn small() -> TcpOptions {
    TcpOptions {
        receive_buffer_bytes: 16 << 10,
        send_buffer_bytes: 16 << 10,
        ..TcpOptions::default()
    }
}

/// Two ends of a connection, on hosts 1 and 2 that are 20 ms apart.
struct Pair {
    sim: Sim,
    envs: [SimEnv; 2],
    /// Of host 1, which accepted.
    server: SimTcp,
    /// Of host 2, which connected.
    client: SimTcp,
}

fn pair(tcp: TcpMode, options: TcpOptions) -> Pair {
    let conditions = Conditions { delay: 20 * MS, ..Conditions::CLEAN };
    let config = SimConfig { seed: 7, conditions, short_stream: 0.0, tcp, ..SimConfig::default() };
    let mut sim = Sim::new(config);
    let envs = [1, 2].map(|last| sim.host("node", ip(last)));
    let accepted = Rc::new(RefCell::new(None));
    let (told, inner) = (Rc::clone(&accepted), envs[0].clone());
    let accepting = envs[0].spawn("accept", async move {
        let mut listener = inner.listen(at(1), &options).await.unwrap();
        *told.borrow_mut() = Some((listener.accept().await.unwrap(), listener));
    });
    sim.run_for(MS);
    let inner = envs[1].clone();
    let connecting = async move { inner.connect(at(1), &options).await.unwrap() };
    let client = sim.block_on(&envs[1].clone(), HOUR, connecting).unwrap();
    sim.run_for(SECOND);
    drop(accepting);
    let (server, _listener) = accepted.take().expect("it was accepted");
    Pair { sim, envs, server, client }
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::new(ip(last), 7)
}

/// What a task ended with, once it has.
type Told<T> = Rc<RefCell<Option<T>>>;

/// Reads a byte; what came of it, once something did.
fn read_one(env: &SimEnv, mut stream: SimTcp) -> (Told<Result<usize, ErrorKind>>, SimTask) {
    let told = Told::default();
    let kept = Rc::clone(&told);
    let task = env.spawn("reads", async move {
        let read = stream.read(&mut [0]).await.map_err(|error| error.kind());
        *kept.borrow_mut() = Some(read);
        // Kept open.
        std::future::pending::<()>().await;
    });
    (told, task)
}

#[test]
fn who_asks_after_a_silent_peer_finds_out_that_it_crashed_and_who_does_not_never_does() {
    for tcp in MODES {
        for (keepalive, wanted) in
            [(Some(60 * SECOND), Some(Err(ErrorKind::TimedOut))), (None, None)]
        {
            let options = TcpOptions { keepalive, ..TcpOptions::default() };
            let Pair { mut sim, envs, server, client } = pair(tcp, options);
            let (told, _reading) = read_one(&envs[1], client);
            // An hour in which the peer has nothing to say, and is there.
            let held = Rc::new(server);
            sim.run_for(HOUR);
            assert_eq!(*told.borrow(), None, "{tcp:?}: the peer answers");
            sim.stop_host(ip(1));
            sim.run_for(55 * SECOND);
            assert_eq!(*told.borrow(), None, "{tcp:?}: it is still asked");
            sim.run_for(70 * SECOND);
            assert_eq!(*told.borrow(), wanted, "{tcp:?}");
            drop(held);
        }
    }
}

#[test]
fn who_asks_after_a_peer_that_started_again_hears_a_reset() {
    for tcp in MODES {
        let options = TcpOptions { keepalive: Some(60 * SECOND), ..TcpOptions::default() };
        let Pair { mut sim, envs, server, client } = pair(tcp, options);
        let (told, _reading) = read_one(&envs[1], client);
        sim.stop_host(ip(1));
        sim.host("node", ip(1));
        sim.run_for(50 * SECOND);
        assert_eq!(*told.borrow(), None, "nothing was sent, so nothing is learnt");
        sim.run_for(15 * SECOND);
        assert_eq!(*told.borrow(), Some(Err(ErrorKind::ConnectionReset)), "{tcp:?}");
        drop(server);
    }
}

#[test]
fn a_connection_gives_up_when_its_options_say() {
    for tcp in MODES {
        for (give_up, range) in [(Some(3 * SECOND), 3..6), (None, 60..75)] {
            let options = TcpOptions { give_up, ..TcpOptions::default() };
            let Pair { mut sim, envs, server, mut client } = pair(tcp, options);
            sim.stop_host(ip(1));
            let inner = envs[1].clone();
            let took = sim.block_on(&envs[1], HOUR, async move {
                let began = inner.now();
                client.write_all(b"is anybody there?").await.unwrap();
                let error = client.read(&mut [0]).await.unwrap_err();
                (error.kind(), inner.now().since(began).as_secs())
            });
            let (kind, seconds) = took.unwrap();
            assert_eq!(kind, ErrorKind::TimedOut);
            assert!(range.contains(&seconds), "{tcp:?}, {give_up:?}: {seconds} s");
            drop(server);
        }
    }
}

/// Writes until the peer has no window left, and then as long as it takes.
fn pour(env: &SimEnv, mut stream: SimTcp, bytes: usize) -> (Told<Result<(), ErrorKind>>, SimTask) {
    let told = Told::default();
    let kept = Rc::clone(&told);
    let task = env.spawn("pours", async move {
        let written = stream.write_all(&vec![7; bytes]).await.map_err(|error| error.kind());
        let written = match written {
            Ok(()) => stream.shutdown().await.map_err(|error| error.kind()),
            error => error,
        };
        *kept.borrow_mut() = Some(written);
        std::future::pending::<()>().await;
    });
    (told, task)
}

#[test]
fn a_window_that_is_shut_for_an_hour_is_asked_after_and_opens_again() {
    for tcp in MODES {
        let Pair { mut sim, envs, mut server, client } = pair(tcp, small());
        let (told, _pouring) = pour(&envs[1], client, 200_000);
        sim.run_for(HOUR);
        assert_eq!(*told.borrow(), None, "{tcp:?}: a peer that answers is not given up");
        if tcp == TcpMode::Segments {
            assert!(sim.tcp_report().probes > 30, "{:?}", sim.tcp_report());
            assert_eq!(sim.tcp_report().timeouts, 0, "nothing was lost");
        }
        let read = sim.block_on(&envs[0], HOUR, async move {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.map(|_| all.len())
        });
        assert_eq!(read.unwrap().unwrap(), 200_000, "{tcp:?}");
        assert_eq!(*told.borrow(), Some(Ok(())));
    }
}

#[test]
fn a_peer_that_dies_with_its_window_shut_is_given_up() {
    for tcp in MODES {
        let Pair { mut sim, envs, server, client } = pair(tcp, small());
        let (told, _pouring) = pour(&envs[1], client, 200_000);
        sim.run_for(HOUR);
        sim.stop_host(ip(1));
        sim.run_for(40 * SECOND);
        assert_eq!(*told.borrow(), None, "{tcp:?}: it may come back");
        sim.run_for(140 * SECOND);
        assert_eq!(*told.borrow(), Some(Err(ErrorKind::TimedOut)), "{tcp:?}");
        drop(server);
    }
}

#[test]
fn a_way_that_was_closed_an_hour_ago_does_not_hold_up_the_other() {
    for tcp in MODES {
        let Pair { mut sim, envs, mut server, mut client } = pair(tcp, TcpOptions::default());
        let closing = async move {
            client.shutdown().await.unwrap();
            client
        };
        let mut client = sim.block_on(&envs[1], HOUR, closing).unwrap();
        sim.run_for(HOUR);
        let (told, _pouring) = {
            let told = Told::default();
            let kept = Rc::clone(&told);
            let task = envs[0].spawn("answers", async move {
                let end = server.read(&mut [0]).await.map_err(|error| error.kind());
                server.write_all(&[9; 300_000]).await.unwrap();
                server.shutdown().await.unwrap();
                *kept.borrow_mut() = Some(end);
                std::future::pending::<()>().await;
            });
            (told, task)
        };
        let read = sim.block_on(&envs[1], HOUR, async move {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.map(|_| all.len())
        });
        assert_eq!(read.unwrap().unwrap(), 300_000, "{tcp:?}");
        assert_eq!(*told.borrow(), Some(Ok(0)));
    }
}

#[test]
fn ends_that_close_at_the_same_moment_both_find_the_end_and_nothing_stays() {
    for tcp in MODES {
        let Pair { mut sim, envs, server, client } = pair(tcp, TcpOptions::default());
        let mut kept = Vec::new();
        let mut tasks = Vec::new();
        for (env, mut stream) in envs.iter().zip([server, client]) {
            let told = Told::default();
            kept.push(Rc::clone(&told));
            tasks.push(env.spawn("closes", async move {
                stream.write_all(b"bye").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut all = Vec::new();
                let read = stream.read_to_end(&mut all).await.map_err(|error| error.kind());
                *told.borrow_mut() = Some((read, all));
            }));
        }
        sim.run_for(SECOND);
        for told in kept {
            assert_eq!(*told.borrow(), Some((Ok(3), b"bye".to_vec())), "{tcp:?}");
        }
        drop(tasks);
        sim.run_for(200 * SECOND);
        assert_eq!(sim.stream_ends(), 0, "{tcp:?}");
    }
}

#[test]
fn what_befalls_streams_befalls_those_by_segments_too() {
    use FaultKind as K;
    let kinds = [
        K::ConnectHang,
        K::ConnectRefuse,
        K::BacklogFull,
        K::AcceptExhausted,
        K::StreamReset,
        K::EarlyEnd,
        K::HalfOpen,
        K::HalfClose,
        K::ZeroWindow,
        K::ShortRead,
        K::ShortWrite,
        K::PartitionSplit,
        K::PartitionPair,
        K::ClogSend,
        K::ClogReceive,
        K::ClogSwizzle,
        K::Bandwidth,
        K::Bufferbloat,
        K::Flap,
    ];
    let proofs = kinds.map(|kind| prove_over(kind, TcpMode::Segments));
    let failing: Vec<_> = proofs.into_iter().filter(|proof| !proof.holds()).collect();
    assert!(failing.is_empty(), "{failing:#?}");
}
