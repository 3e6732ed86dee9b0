//! Streams under latency, limited rates, loss, partitions, crashes and injected faults.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ConnectError, NetworkProvider, ReadBuf,
    TaskProvider, TcpListener, TcpOptions, TcpStream, TimeProvider,
};
use twinspan_sim::{FullBacklog, Sim, SimConfig, SimEnv, SimTask, TcpMode};

use crate::echo::{MS, ip};

const HOUR: Duration = Duration::from_secs(3_600);

fn at(last: u8) -> SocketAddr {
    SocketAddr::new(ip(last), 7)
}

/// Echoes every connection until it ends.
async fn echo_server(env: SimEnv) {
    let local = SocketAddr::new(env.ip(), 7);
    let mut listener = env.listen(local, &TcpOptions::default()).await.unwrap();
    let mut tasks = Vec::new();
    while let Ok(mut stream) = listener.accept().await {
        tasks.push(env.spawn("echo", async move {
            let mut bytes = [0; 4_096];
            while let Ok(len @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..len]).await.is_err() {
                    return;
                }
            }
        }));
    }
}

/// A simulation with an echo server on host 1, and the environment of host 2.
fn world(config: SimConfig) -> (Sim, SimEnv, SimTask) {
    let mut sim = Sim::new(config);
    let server = sim.host("server", ip(1));
    let task = server.spawn("server", echo_server(server.clone()));
    let client = sim.host("client", ip(2));
    // It listens.
    sim.run_for(MS);
    (sim, client, task)
}

/// Both ways in which streams travel: what holds for one holds for the other.
const MODES: [TcpMode; 2] = [TcpMode::Streams, TcpMode::Segments];

fn slow(tcp: TcpMode) -> SimConfig {
    let conditions = Conditions { delay: 50 * MS, ..Conditions::CLEAN };
    SimConfig { seed: 3, conditions, short_stream: 0.0, tcp, ..SimConfig::default() }
}

/// Runs a client's future to its end.
fn run<F: Future + 'static>(sim: &mut Sim, env: &SimEnv, future: F) -> F::Output {
    sim.block_on(env, HOUR, future).expect("it ends within an hour")
}

async fn connect(env: &SimEnv) -> impl TcpStream + use<> {
    env.connect(at(1), &TcpOptions::default()).await.unwrap()
}

/// Sends `len` bytes through the echo and checks them; the error of either way if there is one.
async fn echoed(stream: &mut (impl TcpStream + ?Sized), len: usize) -> Result<(), ErrorKind> {
    let sent: Vec<u8> = (0..len).map(|at| (at ^ at >> 8) as u8).collect();
    let (mut back, mut written) = (vec![0; len], 0);
    // In parts that fit the buffers, as nobody reads meanwhile.
    while written < len {
        let part = written..len.min(written + 50_000);
        written = part.end;
        stream.write_all(&sent[part.clone()]).await.map_err(|error| error.kind())?;
        stream.read_exact(&mut back[part]).await.map_err(|error| error.kind())?;
    }
    assert!(back == sent);
    Ok(())
}

fn millis(since: Timestamp, until: Timestamp) -> u128 {
    until.since(since).as_millis()
}

#[test]
fn connecting_takes_a_round_trip_and_an_echo_another() {
    for tcp in MODES {
        let (mut sim, env, _task) = world(slow(tcp));
        let inner = env.clone();
        let (connected, answered) = run(&mut sim, &env, async move {
            let began = inner.now();
            let mut stream = connect(&inner).await;
            let connected = inner.now();
            echoed(&mut stream, 100).await.unwrap();
            (millis(began, connected), millis(connected, inner.now()))
        });
        assert_eq!((connected, answered), (100, 100));
    }
}

#[test]
fn a_transfer_takes_what_the_rate_and_the_window_allow() {
    for tcp in MODES {
        let took = |conditions, window| {
            let (mut sim, env, _task) = world(SimConfig { conditions, ..slow(tcp) });
            let inner = env.clone();
            run(&mut sim, &env, async move {
                let options = TcpOptions { receive_buffer_bytes: window, ..TcpOptions::default() };
                let began = inner.now();
                let mut stream = inner.connect(at(1), &options).await.unwrap();
                let mut back = 0;
                let mut buffer = [0; 65_536];
                let mut sent = 0;
                // Both ways at once, by hand.
                while back < 1_000_000 {
                    let moved = poll_fn(|cx| {
                        let mut moved = false;
                        while sent < 1_000_000 {
                            let part = &buffer[..buffer.len().min(1_000_000 - sent)];
                            let Poll::Ready(len) = Pin::new(&mut stream).poll_write(cx, part)
                            else {
                                break;
                            };
                            sent += len.unwrap();
                            moved = true;
                        }
                        let mut room = ReadBuf::new(&mut buffer);
                        if Pin::new(&mut stream).poll_read(cx, &mut room).is_ready() {
                            assert!(!room.filled().is_empty());
                            back += room.filled().len();
                            moved = true;
                        }
                        if moved { Poll::Ready(()) } else { Poll::Pending }
                    });
                    moved.await;
                }
                assert_eq!((sent, back), (1_000_000, 1_000_000));
                millis(began, inner.now())
            })
        };
        let clean = Conditions { delay: 50 * MS, ..Conditions::CLEAN };
        // A megabyte at 100 kB/s is 10 s one way; the echo follows it.
        let narrow = took(Conditions { rate_bytes_per_s: 100_000, ..clean }, 0);
        assert!((10_000..12_500).contains(&narrow), "{narrow} ms");
        // A window of 16 kB each 100 ms is 160 kB/s.
        let windowed = took(clean, 16 << 10);
        assert!((5_800..8_500).contains(&windowed), "{windowed} ms");
        let wide = took(clean, 0);
        assert!(wide < 2_000, "{wide} ms");
    }
}

#[test]
fn loss_makes_a_stream_late_and_breaks_nothing() {
    for tcp in MODES {
        let took = |loss| {
            let conditions = Conditions { loss, ..slow(tcp).conditions };
            let (mut sim, env, _task) = world(SimConfig { conditions, ..slow(tcp) });
            let inner = env.clone();
            let took = run(&mut sim, &env, async move {
                let mut stream = connect(&inner).await;
                let began = inner.now();
                for _ in 0..50 {
                    echoed(&mut stream, 1_000).await.unwrap();
                }
                millis(began, inner.now())
            });
            (took, sim.faults().effect(FaultKind::Loss))
        };
        assert_eq!(took(0.0), (5_000, 0));
        let (late, losses) = took(0.1);
        assert!(late > 5_500 && losses > 5, "{late} ms, {losses} losses");
    }
}

#[test]
fn a_short_partition_delays_and_a_long_one_times_out() {
    for tcp in MODES {
        for (cut, wanted) in [(5, Ok(())), (40, Ok(())), (200, Err(ErrorKind::TimedOut))] {
            let (mut sim, env, _task) = world(slow(tcp));
            let inner = env.clone();
            let mut stream = run(&mut sim, &env, async move { connect(&inner).await });
            sim.partition(ip(1), ip(2));
            let outcome = Rc::new(RefCell::new(None));
            let told = Rc::clone(&outcome);
            let _client = env.spawn("client", async move {
                *told.borrow_mut() = Some(echoed(&mut stream, 10_000).await);
            });
            sim.run_for(Duration::from_secs(cut));
            assert_eq!(outcome.borrow().is_none(), cut < 60, "{cut} s");
            sim.heal_all();
            sim.run_for(Duration::from_secs(120));
            assert_eq!(*outcome.borrow(), Some(wanted), "{cut} s");
            assert!(sim.faults().effect(FaultKind::Partition) > 0);
        }
    }
}

#[test]
fn a_one_way_partition_that_swallows_acknowledgements_heals() {
    for tcp in MODES {
        let (mut sim, env, _task) = world(slow(tcp));
        let inner = env.clone();
        let mut stream = run(&mut sim, &env, async move { connect(&inner).await });
        sim.partition_one_way(ip(1), ip(2));
        let outcome = Rc::new(RefCell::new(None));
        let told = Rc::clone(&outcome);
        let _client = env.spawn("client", async move {
            *told.borrow_mut() = Some(echoed(&mut stream, 40_000).await);
        });
        sim.run_for(Duration::from_secs(20));
        assert!(outcome.borrow().is_none());
        sim.heal_all();
        sim.run_for(Duration::from_secs(60));
        assert_eq!(*outcome.borrow(), Some(Ok(())));
    }
}

#[test]
fn connecting_to_a_stopped_or_cut_off_host_times_out_and_to_nobody_is_unreachable() {
    for tcp in MODES {
        let (mut sim, env, _task) = world(slow(tcp));
        let kind = |sim: &mut Sim, peer| {
            let inner = env.clone();
            run(sim, &env, async move {
                let began = inner.now();
                let outcome = inner.connect(peer, &TcpOptions::default()).await;
                (outcome.map(|_| ()).map_err(|error| error.kind()), millis(began, inner.now()))
            })
        };
        assert_eq!(kind(&mut sim, SocketAddr::new(ip(1), 8)).0, Err(ErrorKind::ConnectionRefused));
        assert_eq!(kind(&mut sim, at(99)).0, Err(ErrorKind::HostUnreachable));
        let other_family = "[fd00::1]:7".parse().unwrap();
        assert_eq!(kind(&mut sim, other_family).0, Err(ErrorKind::NetworkUnreachable));
        sim.partition(ip(1), ip(2));
        assert_eq!(kind(&mut sim, at(1)), (Err(ErrorKind::TimedOut), 10_000));
        sim.heal_all();
        assert_eq!(kind(&mut sim, at(1)).0, Ok(()));
        sim.stop_host(ip(1));
        assert_eq!(kind(&mut sim, at(1)), (Err(ErrorKind::TimedOut), 10_000));
    }
}

#[test]
fn a_connect_that_began_in_a_partition_succeeds_when_it_heals() {
    for tcp in MODES {
        let (mut sim, env, _task) = world(slow(tcp));
        sim.partition(ip(1), ip(2));
        let inner = env.clone();
        let done = Rc::new(RefCell::new(None));
        let told = Rc::clone(&done);
        let _client = env.spawn("client", async move {
            let outcome = inner.connect(at(1), &TcpOptions::default()).await;
            *told.borrow_mut() = Some(outcome.map(|_| ()).map_err(|error| error.kind()));
        });
        sim.run_for(Duration::from_secs(4));
        assert!(done.borrow().is_none());
        sim.heal_all();
        sim.run_for(Duration::from_secs(5));
        assert_eq!(*done.borrow(), Some(Ok(())));
    }
}

#[test]
fn the_peer_of_a_crashed_host_is_half_open_until_it_sends() {
    for tcp in MODES {
        for restarts in [false, true] {
            let (mut sim, env, _task) = world(slow(tcp));
            let inner = env.clone();
            let mut stream = run(&mut sim, &env, async move {
                let mut stream = connect(&inner).await;
                echoed(&mut stream, 10).await.unwrap();
                stream
            });
            // Acknowledgements, too, have arrived.
            sim.run_for(Duration::from_secs(1));
            sim.stop_host(ip(1));
            if restarts {
                sim.host("server", ip(1));
            }
            let outcome = Rc::new(RefCell::new(None));
            let told = Rc::clone(&outcome);
            let reader = env.spawn("client", async move {
                let read = stream.read(&mut [0]).await.map_err(|error| error.kind());
                *told.borrow_mut() = Some((read, stream));
            });
            // Nothing is sent, so nothing is learnt.
            sim.run_for(HOUR);
            assert!(outcome.borrow().is_none());
            drop(reader);
        }
        for (restarts, wanted) in [(false, ErrorKind::TimedOut), (true, ErrorKind::ConnectionReset)]
        {
            let (mut sim, env, _task) = world(slow(tcp));
            let inner = env.clone();
            let mut stream = run(&mut sim, &env, async move { connect(&inner).await });
            sim.stop_host(ip(1));
            if restarts {
                sim.host("server", ip(1));
            }
            let outcome = run(&mut sim, &env, async move { echoed(&mut stream, 10).await });
            assert_eq!(outcome, Err(wanted));
        }
    }
}

#[test]
fn what_a_host_sent_before_its_crash_arrives() {
    for tcp in MODES {
        let (mut sim, env, _task) = world(slow(tcp));
        let inner = env.clone();
        let mut stream = run(&mut sim, &env, async move {
            let mut stream = connect(&inner).await;
            stream.write_all(b"there and back").await.unwrap();
            stream
        });
        // It is on its way back.
        sim.run_for(75 * MS);
        sim.stop_host(ip(1));
        let back = run(&mut sim, &env, async move {
            let mut back = [0; 14];
            stream.read_exact(&mut back).await.map(|_| back)
        });
        assert_eq!(&back.unwrap(), b"there and back");
        assert!(sim.faults().effect(FaultKind::HostStop) >= 3, "two tasks, listener, connection");
    }
}

#[test]
fn a_full_backlog_hangs_or_refuses() {
    for tcp in MODES {
        for (full_backlog, wanted) in [
            (FullBacklog::Hang, ErrorKind::TimedOut),
            (FullBacklog::Refuse, ErrorKind::ConnectionRefused),
        ] {
            let mut sim = Sim::new(SimConfig { full_backlog, ..slow(tcp) });
            let server = sim.host("server", ip(1));
            let inner = server.clone();
            let mut listener = run(&mut sim, &server, async move {
                let options = TcpOptions { backlog: 2, ..TcpOptions::default() };
                inner.listen(at(1), &options).await.unwrap()
            });
            let env = sim.host("client", ip(2));
            let inner = env.clone();
            let (streams, third) = run(&mut sim, &env, async move {
                let streams = (connect(&inner).await, connect(&inner).await);
                let third = inner.connect(at(1), &TcpOptions::default()).await;
                (streams, third.map(|_| ()).map_err(|error| error.kind()))
            });
            assert_eq!(third, Err(wanted));
            assert!(sim.faults().effect(FaultKind::BacklogFull) > 0);
            // Room again.
            let inner = env.clone();
            run(&mut sim, &server, async move { listener.accept().await.map(|_| listener) })
                .unwrap();
            drop((streams, inner));
        }
    }
}

#[test]
fn each_stream_fault_alone_has_an_effect_and_no_other_does() {
    for tcp in MODES {
        let alone = [
            (None, slow(tcp)),
            (Some(FaultKind::ShortRead), SimConfig { short_stream: 0.5, ..slow(tcp) }),
            (Some(FaultKind::ShortWrite), SimConfig { short_stream: 0.5, ..slow(tcp) }),
            (Some(FaultKind::ConnectRefuse), SimConfig { connect_refuse: 0.5, ..slow(tcp) }),
            (Some(FaultKind::StreamReset), SimConfig { stream_reset: 0.2, ..slow(tcp) }),
        ];
        for (kind, config) in alone {
            let (mut sim, env, _task) = world(config);
            let inner = env.clone();
            let failures = run(&mut sim, &env, async move {
                let mut failures = Vec::new();
                for _ in 0..30 {
                    match inner.connect(at(1), &TcpOptions::default()).await {
                        Ok(mut stream) => failures.extend(echoed(&mut stream, 5_000).await.err()),
                        Err(ConnectError::Refused(_)) => {
                            failures.push(ErrorKind::ConnectionRefused);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                failures
            });
            let wanted = match kind {
                Some(FaultKind::ConnectRefuse) => Some(ErrorKind::ConnectionRefused),
                Some(FaultKind::StreamReset) => Some(ErrorKind::ConnectionReset),
                _ => None,
            };
            assert_eq!(failures.is_empty(), wanted.is_none(), "{kind:?}");
            assert!(
                failures.iter().all(|failure| Some(*failure) == wanted),
                "{kind:?} {failures:?}"
            );
            let both = [FaultKind::ShortRead, FaultKind::ShortWrite];
            for (other, injected, effect) in sim.faults().iter() {
                let there = kind == Some(other)
                    || kind.is_some_and(|kind| both.contains(&kind) && both.contains(&other));
                assert_eq!(
                    (injected > 0, effect > 0),
                    (there, there),
                    "{} in {kind:?}",
                    other.name()
                );
            }
        }
    }
}

/// Connections with everything that can befall them, and a crash.
fn rough_run(tcp: TcpMode, seed: u64, others: u8) -> (u64, Vec<(u128, bool)>) {
    let conditions = Conditions { loss: 0.05, ..Conditions::WIFI };
    let config = SimConfig {
        seed,
        conditions,
        short_stream: 0.3,
        connect_refuse: 0.1,
        stream_reset: 0.02,
        tcp,
        ..SimConfig::default()
    };
    let (mut sim, env, _task) = world(config);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let client = |env: SimEnv, seen: Rc<RefCell<Vec<_>>>| async move {
        for _ in 0..20 {
            let outcome = match env.connect(at(1), &TcpOptions::default()).await {
                Ok(mut stream) => echoed(&mut stream, 3_000).await.is_ok(),
                Err(_) => false,
            };
            seen.borrow_mut().push((env.now().as_nanos().into(), outcome));
        }
    };
    let mut tasks = vec![env.spawn("client", client(env.clone(), Rc::clone(&seen)))];
    for other in 0..others {
        let env = sim.host("other", ip(10 + other));
        tasks.push(env.spawn("client", client(env.clone(), Rc::default())));
    }
    sim.run_for(Duration::from_secs(2));
    sim.partition(ip(1), ip(2));
    sim.run_for(Duration::from_secs(2));
    sim.heal_all();
    sim.run_for(Duration::from_secs(100));
    assert_eq!(seen.borrow().len(), 20);
    drop(tasks);
    (sim.trace_hash(), seen.take())
}

#[test]
fn a_run_with_streams_twice_has_one_hash_and_another_seed_another() {
    for tcp in MODES {
        let mut hashes = Vec::new();
        for seed in 0..10 {
            let run = rough_run(tcp, seed, 3);
            assert_eq!(run, rough_run(tcp, seed, 3), "seed {seed}");
            hashes.push(run.0);
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 10);
    }
}

#[test]
fn other_clients_do_not_change_what_befalls_the_first() {
    for tcp in MODES {
        let alone = rough_run(tcp, 1, 0).1;
        assert!(alone.iter().any(|(_, went_well)| *went_well));
        assert!(alone.iter().any(|(_, went_well)| !went_well));
        assert_eq!(alone, rough_run(tcp, 1, 5).1);
    }
}

#[test]
fn ends_that_are_gone_leave_nothing_behind() {
    for tcp in MODES {
        let (mut sim, env, task) = world(slow(tcp));
        let inner = env.clone();
        run(&mut sim, &env, async move {
            for round in 0..50 {
                let mut stream = connect(&inner).await;
                stream.write_all(&[round; 20_000]).await.unwrap();
                if round % 2 == 0 {
                    stream.abort();
                }
            }
        });
        assert!(sim.stream_ends() > 0);
        sim.run_for(Duration::from_secs(200));
        assert_eq!(sim.stream_ends(), 0);
        drop(task);
    }
}
