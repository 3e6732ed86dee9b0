//! Streams by segments over topologies: shared bottlenecks, marks, boxes, links that change.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TaskProvider, TcpListener, TcpOptions, TcpStream,
    TimeProvider,
};
use twinspan_sim::topology::{LinkSpec, LinkState, LossModel, NatConfig, Queue, Topology};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask, TcpMode};

use crate::echo::{MS, ip};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn config() -> SimConfig {
    SimConfig { seed: 5, short_stream: 0.0, ..SimConfig::default() }
}

fn at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 80)
}

/// What a server has seen: who connected, and how many bytes of each came.
type Seen = Rc<RefCell<Vec<(SocketAddr, usize, Option<ErrorKind>)>>>;

/// Reads everything that comes on every connection; answers each part with a byte when `answers`.
fn sink(env: &SimEnv, seen: &Seen, answers: bool) -> SimTask {
    let (inner, seen) = (env.clone(), Rc::clone(seen));
    env.spawn("sink", async move {
        let mut listener = inner.listen(at(inner.ip()), &TcpOptions::default()).await.unwrap();
        let mut tasks = Vec::new();
        while let Ok(mut stream) = listener.accept().await {
            let seen = Rc::clone(&seen);
            let index = seen.borrow().len();
            seen.borrow_mut().push((stream.peer_addr(), 0, None));
            tasks.push(inner.spawn("read", async move {
                let mut buffer = vec![0; 65_536];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) => return,
                        Ok(len) => seen.borrow_mut()[index].1 += len,
                        Err(error) => {
                            seen.borrow_mut()[index].2 = Some(error.kind());
                            return;
                        }
                    }
                    if answers && stream.write_all(b".").await.is_err() {
                        return;
                    }
                }
            }));
        }
    })
}

/// Writes for ever.
fn pour(env: &SimEnv, to: IpAddr) -> SimTask {
    let inner = env.clone();
    env.spawn("pour", async move {
        let mut stream = inner.connect(at(to), &TcpOptions::default()).await.unwrap();
        while stream.write_all(&[7; 32_768]).await.is_ok() {}
    })
}

/// Hosts 1 and 2 that share the link `up` to host 9, a megabyte a second and 20 ms away.
fn shared(config: SimConfig, queue: Queue) -> Sim {
    let mut sim = Sim::new(config);
    let up = LinkSpec { queue, ..LinkSpec::rated(1_000_000, 20 * MS) };
    let topology = Topology::new()
        .host("one", ip(1))
        .host("two", ip(2))
        .router("hub")
        .host("far", ip(9))
        .cable("one", "one", "hub", LinkSpec::CLEAN)
        .cable("two", "two", "hub", LinkSpec::CLEAN)
        .link("up", "hub", "far", up)
        .link("down", "far", "hub", LinkSpec::delay(20 * MS));
    sim.set_topology(topology).unwrap();
    sim
}

/// How many bytes of each of two hosts come in 30 s.
fn race(config: SimConfig, queue: Queue) -> (Sim, [usize; 2]) {
    let mut sim = shared(config, queue);
    let seen = Seen::default();
    let far = sim.host("far", ip(9));
    let mut tasks = vec![sink(&far, &seen, false)];
    sim.run_for(MS);
    for last in [1, 2] {
        let env = sim.host("pours", ip(last));
        tasks.push(pour(&env, ip(9)));
    }
    sim.run_for(30 * SECOND);
    let bytes = |last| {
        let seen = seen.borrow();
        let of_host = seen.iter().filter(|one| one.0.ip() == ip(last));
        of_host.map(|one| one.1).sum::<usize>()
    };
    let both = [bytes(1), bytes(2)];
    drop(tasks);
    (sim, both)
}

#[test]
fn two_streams_fill_a_bottleneck_and_share_it() {
    for queue in [Queue { bytes_max: 64 << 10, ..Queue::DEFAULT }, Queue::codel(256 << 10)] {
        let (sim, [one, two]) = race(config(), queue);
        let all = one + two;
        assert!((26_000_000..29_500_000).contains(&all), "{all} bytes");
        assert!(one * 10 > all * 4 && two * 10 > all * 4, "{one} and {two}");
        let (report, tcp) = (sim.link_report("up").unwrap(), sim.tcp_report());
        assert!(report.queue_full + report.queue_early > 0);
        assert!(tcp.resent >= report.queue_full + report.queue_early, "{tcp:?} {report:?}");
        assert!(tcp.resent < tcp.segments / 50, "{tcp:?}");
    }
}

#[test]
fn marks_slow_streams_down_without_a_loss() {
    let (sim, both) = race(SimConfig { tcp_ecn: true, ..config() }, Queue::codel(256 << 10));
    let (report, tcp) = (sim.link_report("up").unwrap(), sim.tcp_report());
    assert!(both.iter().sum::<usize>() > 26_000_000, "{both:?}");
    assert!(report.marked > 10 && tcp.reductions > 10, "{report:?} {tcp:?}");
    assert_eq!((report.queue_early, report.queue_full, tcp.resent), (0, 0, 0));
    assert!(report.waited_max < 250 * MS, "{report:?}");
}

#[test]
fn a_queue_without_control_is_filled_to_its_brim() {
    let deep = |queue| {
        let (sim, _) = race(config(), queue);
        let report = sim.link_report("up").unwrap();
        report.waited / u32::try_from(report.sent).unwrap()
    };
    let tail = deep(Queue::DEFAULT);
    let controlled = deep(Queue::codel(256 << 10));
    assert!(tail > 100 * MS && controlled < 40 * MS, "{tail:?} and {controlled:?}");
}

fn outer() -> IpAddr {
    [203, 0, 113, 7].into()
}

/// A desk behind a box, and a server outside.
fn home() -> Sim {
    let mut sim = Sim::new(config());
    let topology = Topology::new()
        .host("desk", ip(1))
        .nat("home", outer(), &["desk"], NatConfig::default())
        .host("server", ip(9))
        .cable("lan", "desk", "home", LinkSpec::CLEAN)
        .cable("dsl", "home", "server", LinkSpec::delay(20 * MS));
    sim.set_topology(topology).unwrap();
    sim
}

#[test]
fn a_stream_goes_out_through_a_box_and_none_comes_in() {
    let mut sim = home();
    let (desk, server) = (sim.host("desk", ip(1)), sim.host("server", ip(9)));
    let seen = Seen::default();
    let _sinks = [sink(&server, &seen, true), sink(&desk, &Seen::default(), true)];
    sim.run_for(MS);
    let inner = desk.clone();
    let local = sim.block_on(&desk, HOUR, async move {
        let mut stream = inner.connect(at(ip(9)), &TcpOptions::default()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 1);
        assert_eq!(stream.peer_addr(), at(ip(9)));
        stream.local_addr()
    });
    assert_eq!(local.unwrap().ip(), ip(1));
    let peer = seen.borrow()[0].0;
    assert_eq!(peer, SocketAddr::new(outer(), local.unwrap().port()));
    let inner = server.clone();
    let kinds = sim.block_on(&server, HOUR, async move {
        let mut kinds = Vec::new();
        for to in [outer(), ip(1)] {
            let outcome = inner.connect(at(to), &TcpOptions::default()).await;
            kinds.push(outcome.map(|_| ()).map_err(|error| error.kind()));
        }
        kinds
    });
    // The box says nothing.
    assert_eq!(kinds.unwrap(), [Err(ErrorKind::TimedOut); 2]);
    let report = sim.nat_report("home").unwrap();
    assert!(report.unsolicited > 4 && report.mappings == 1, "{report:?}");
}

#[test]
fn a_rebound_box_breaks_its_streams_when_they_speak() {
    let mut sim = home();
    let (desk, server) = (sim.host("desk", ip(1)), sim.host("server", ip(9)));
    let seen = Seen::default();
    let _sink = sink(&server, &seen, true);
    sim.run_for(MS);
    let inner = desk.clone();
    let stream = sim.block_on(&desk, HOUR, async move {
        let mut stream = inner.connect(at(ip(9)), &TcpOptions::default()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 1);
        stream
    });
    let mut stream = stream.unwrap();
    sim.run_for(SECOND);
    sim.rebind_nat("home").unwrap();
    sim.run_for(SECOND);
    // The server knows nobody with the new port.
    let outcome = sim.block_on(&desk, HOUR, async move {
        stream.write_all(b"still there?").await.unwrap();
        stream.read(&mut [0; 9]).await.map_err(|error| error.kind())
    });
    assert_eq!(outcome, Some(Err(ErrorKind::ConnectionReset)));
    assert_eq!(seen.borrow()[0].1, 5, "and nothing of it reached the old connection");
    assert!(sim.tcp_report().refused > 0);
}

#[test]
fn nobody_there_is_unreachable_and_a_cut_link_is_silence() {
    let mut sim = shared(config(), Queue::DEFAULT);
    let env = sim.host("one", ip(1));
    sim.host("far", ip(9));
    let kind = |sim: &mut Sim, to| {
        let inner = env.clone();
        let outcome = sim.block_on(&env, HOUR, async move {
            let began = inner.now();
            let outcome = inner.connect(at(to), &TcpOptions::default()).await;
            (outcome.map(|_| ()).map_err(|error| error.kind()), inner.now().since(began))
        });
        outcome.unwrap()
    };
    assert_eq!(kind(&mut sim, ip(77)).0, Err(ErrorKind::HostUnreachable));
    assert_eq!(kind(&mut sim, ip(9)).0, Err(ErrorKind::ConnectionRefused));
    sim.set_link_state("up", LinkState::Cut).unwrap();
    assert_eq!(kind(&mut sim, ip(9)), (Err(ErrorKind::TimedOut), 10 * SECOND));
    sim.set_link_state("up", LinkState::Down).unwrap();
    assert_eq!(kind(&mut sim, ip(9)).0, Err(ErrorKind::HostUnreachable));
}

#[test]
fn a_link_that_takes_less_is_noticed_and_damage_is_made_good() {
    let mut sim = shared(config(), Queue::DEFAULT);
    let seen = Seen::default();
    let far = sim.host("far", ip(9));
    let _sink = sink(&far, &seen, false);
    sim.run_for(MS);
    let one = sim.host("one", ip(1));
    let _pour = pour(&one, ip(9));
    sim.run_for(2 * SECOND);
    let before = seen.borrow()[0].1;
    assert!(before > 1_000_000);
    let narrow = LinkSpec {
        mtu: 1_000,
        corrupt: 0.01,
        loss: LossModel::Independent(0.001),
        ..LinkSpec::rated(1_000_000, 20 * MS)
    };
    sim.set_link_spec("up", narrow).unwrap();
    sim.run_for(10 * SECOND);
    let report = sim.link_report("up").unwrap();
    assert!(report.too_long > 0 && report.corrupted > 0 && report.lost > 0, "{report:?}");
    assert_eq!(sim.tcp_report().damaged, report.corrupted);
    assert!(seen.borrow()[0].1 > before + 1_000_000);
    assert_eq!(seen.borrow()[0].2, None);
}

#[test]
fn a_pair_of_hosts_may_talk_otherwise_than_all() {
    let conditions = Conditions { delay: 10 * MS, ..Conditions::CLEAN };
    let mut sim = Sim::new(SimConfig { conditions, ..config() });
    let hosts = [1, 2, 3].map(|last| sim.host("host", ip(last)));
    sim.set_tcp_mode(ip(2), ip(1), TcpMode::Segments);
    let _sink = sink(&hosts[0], &Seen::default(), true);
    sim.run_for(MS);
    let mut segments = Vec::new();
    for env in &hosts[1..] {
        let inner = env.clone();
        let done = sim.block_on(env, HOUR, async move {
            let mut stream = inner.connect(at(ip(1)), &TcpOptions::default()).await.unwrap();
            stream.write_all(&[0; 5_000]).await.unwrap();
            assert_ne!(stream.read(&mut [0; 9]).await.unwrap(), 0);
        });
        assert_eq!(done, Some(()));
        // Until all is over.
        sim.run_for(200 * SECOND);
        segments.push(sim.tcp_report().segments);
    }
    assert!(segments[0] > 6);
    assert_eq!(segments[1], segments[0]);
}

#[test]
fn a_silent_peer_is_found_out_where_keep_alives_are_wanted() {
    for (tcp_keepalive, wanted) in [(Some(60 * SECOND), Some(ErrorKind::TimedOut)), (None, None)] {
        let tcp = TcpMode::Segments;
        let mut sim = Sim::new(SimConfig { tcp, tcp_keepalive, ..config() });
        let (server, client) = (sim.host("server", ip(1)), sim.host("client", ip(2)));
        let seen = Seen::default();
        let _sink = sink(&server, &seen, false);
        sim.run_for(MS);
        let inner = client.clone();
        let stream = sim.block_on(&client, HOUR, async move {
            inner.connect(at(ip(1)), &TcpOptions::default()).await.unwrap()
        });
        sim.run_for(600 * SECOND);
        assert_eq!(seen.borrow()[0].2, None, "the peer answers");
        // It goes without a word.
        sim.stop_host(ip(2));
        sim.run_for(200 * SECOND);
        assert_eq!(seen.borrow()[0].2, wanted);
        drop(stream);
    }
}

#[test]
fn a_flood_of_openings_leaves_room_for_who_is_connected() {
    // Answers to openings never arrive: each stays half made.
    let tcp = TcpMode::Segments;
    let mut sim = Sim::new(SimConfig { tcp, ..config() });
    let (server, client) = (sim.host("server", ip(1)), sim.host("client", ip(2)));
    let seen = Seen::default();
    let inner = server.clone();
    let kept = Rc::clone(&seen);
    let _server = server.spawn("server", async move {
        let options = TcpOptions { backlog: 8, ..TcpOptions::default() };
        let mut listener = inner.listen(at(ip(1)), &options).await.unwrap();
        let mut streams = Vec::new();
        while let Ok(stream) = listener.accept().await {
            kept.borrow_mut().push((stream.peer_addr(), 0, None));
            streams.push(stream);
        }
    });
    sim.run_for(MS);
    sim.partition_one_way(ip(1), ip(2));
    let mut tasks = Vec::new();
    for _ in 0..50 {
        let inner = client.clone();
        tasks.push(client.spawn("opens", async move {
            let outcome = inner.connect(at(ip(1)), &TcpOptions::default()).await;
            assert!(outcome.is_err());
        }));
    }
    sim.run_for(20 * SECOND);
    assert!(sim.faults().effect(FaultKind::BacklogFull) > 0);
    assert_eq!(seen.borrow().len(), 0);
    // What is half made is forgotten after its last answer.
    sim.run_for(100 * SECOND);
    assert_eq!(sim.stream_ends(), 0);
    sim.heal_all();
    let inner = client.clone();
    let connected = sim.block_on(&client, HOUR, async move {
        inner.connect(at(ip(1)), &TcpOptions::default()).await.is_ok()
    });
    assert_eq!(connected, Some(true));
    drop(tasks);
}
