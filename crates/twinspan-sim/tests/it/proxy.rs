//! A SOCKS5 proxy as its clients see it.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TaskProvider, TcpListener, TcpOptions, TcpStream,
    TimeProvider, UdpOptions, UdpSocket,
};
use twinspan_sim::proxy::{SocksConfig, SocksProxy, SocksReply};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask, SimTcp, SimUdp};

use crate::echo::{Echo, MS, PORT, ip, start};

const HOUR: Duration = Duration::from_secs(3_600);

/// A client (1), a server that echoes streams and datagrams (2), a proxy (9).
struct World {
    sim: Sim,
    client: SimEnv,
    proxy: SocksProxy,
    _tasks: Vec<SimTask>,
}

fn world(config: SocksConfig) -> World {
    let mut sim = Sim::new(SimConfig { seed: 3, ..SimConfig::default() });
    let server = sim.host("server", ip(2));
    let echo = std::rc::Rc::default();
    let inner = server.clone();
    let streams = server.spawn("echo", async move {
        let local = SocketAddr::new(ip(2), PORT);
        let mut listener = inner.listen(local, &TcpOptions::default()).await.unwrap();
        let mut tasks = Vec::new();
        while let Ok(mut stream) = listener.accept().await {
            tasks.push(inner.spawn("echo", async move {
                let mut bytes = [0; 1_000];
                while let Ok(len @ 1..) = stream.read(&mut bytes).await {
                    stream.write_all(&bytes[..len]).await.unwrap();
                }
            }));
        }
    });
    let tasks = vec![start::<Echo>(&server, PORT, &echo), streams];
    sim.set_name("server.example", &[ip(2)], HOUR);
    let proxy = SocksProxy::start(&sim.host("proxy", ip(9)), config);
    let client = sim.host("client", ip(1));
    sim.run_for(MS);
    World { sim, client, proxy, _tasks: tasks }
}

impl World {
    fn run<F: Future + 'static>(&mut self, future: F) -> F::Output {
        self.sim.block_on(&self.client, HOUR, future).expect("it ends")
    }

    /// Connects and is greeted without a password.
    fn greeted(&mut self) -> SimTcp {
        let (env, address) = (self.client.clone(), self.proxy.address());
        self.run(async move {
            let mut stream = env.connect(address, &TcpOptions::default()).await.unwrap();
            stream.write_all(&[5, 2, 1, 0]).await.unwrap();
            let mut method = [9; 2];
            stream.read_exact(&mut method).await.unwrap();
            assert_eq!(method, [5, 0]);
            stream
        })
    }

    /// Asks for something; the code of the answer, and the address in it.
    fn ask(&mut self, mut stream: SimTcp, request: &[u8]) -> (SimTcp, u8, SocketAddr) {
        let request = request.to_vec();
        self.run(async move {
            stream.write_all(&request).await.unwrap();
            let mut reply = [9; 10];
            stream.read_exact(&mut reply).await.unwrap();
            let [5, code, 0, 1, a, b, c, d, p, q] = reply else { panic!("{reply:?}") };
            (stream, code, SocketAddr::from(([a, b, c, d], u16::from_be_bytes([p, q]))))
        })
    }

    fn code(&mut self, request: &[u8]) -> u8 {
        let stream = self.greeted();
        self.ask(stream, request).1
    }

    fn socket(&mut self) -> SimUdp {
        let env = self.client.clone();
        let local = SocketAddr::new(ip(1), 0);
        self.run(async move { env.bind_udp(local, &UdpOptions::default()).await.unwrap() })
    }

    /// An association: its connection, and where its datagrams go.
    fn associated(&mut self) -> (SimTcp, SocketAddr) {
        let stream = self.greeted();
        let (stream, code, relay) = self.ask(stream, &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!((code, relay.ip()), (0, ip(9)));
        (stream, relay)
    }
}

fn request(command: u8, last: u8, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![5, command, 0, 1, 10, 0, 0, last, high, low]
}

/// Sends through the relay and waits a while for an answer.
async fn exchange(
    env: SimEnv,
    mut socket: SimUdp,
    relay: SocketAddr,
    bytes: Vec<u8>,
) -> (SimUdp, Option<Vec<u8>>) {
    let mut batch = DatagramBatch::new(4);
    let mut packet = socket.pool().take().unwrap();
    assert!(packet.fill(&bytes));
    batch.push(Datagram { peer: relay, at: env.now(), packet }).unwrap();
    poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.unwrap();
    let mut timer = env.timer();
    twinspan_provider::Timer::set(&mut timer, Some(env.now().after(100 * MS)));
    let got = poll_fn(|cx| {
        if socket.poll_recv(cx, &mut batch).is_ready() {
            return std::task::Poll::Ready(true);
        }
        twinspan_provider::Timer::poll_expired(&mut timer, cx).map(|()| false)
    });
    let answer = got.await.then(|| batch.pop().unwrap().packet.to_vec());
    (socket, answer)
}

#[test]
fn bytes_go_both_ways_through_a_connection_and_its_ends_are_passed_on() {
    let mut world = world(SocksConfig::default());
    for wanted in [request(1, 2, PORT), {
        let mut named = vec![5, 1, 0, 3, 14];
        named.extend(b"server.example");
        named.extend(PORT.to_be_bytes());
        named
    }] {
        let stream = world.greeted();
        let (mut stream, code, bound) = world.ask(stream, &wanted);
        assert_eq!((code, bound.ip()), (0, ip(9)));
        let back = world.run(async move {
            stream.write_all(b"there and back").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut back = String::new();
            stream.read_to_string(&mut back).await.unwrap();
            back
        });
        assert_eq!(back, "there and back");
    }
    assert_eq!(world.proxy.report().connected, 2);
}

#[test]
fn what_cannot_be_done_has_its_code() {
    let mut world = world(SocksConfig { relays_datagrams: false, ..SocksConfig::default() });
    let unknown = [&[5, 1, 0, 3, 6][..], b"nobody", &[0, 80]].concat();
    let cases = [
        (request(1, 2, 81), SocksReply::ConnectionRefused),
        (request(1, 77, 80), SocksReply::HostUnreachable),
        (unknown, SocksReply::HostUnreachable),
        (request(2, 2, 80), SocksReply::CommandNotSupported),
        (request(3, 0, 0), SocksReply::CommandNotSupported),
        (vec![5, 1, 0, 9], SocksReply::AddressNotSupported),
    ];
    let count = cases.len() as u64;
    for (request, wanted) in cases {
        assert_eq!(world.code(&request), wanted as u8, "{request:?}");
    }
    assert_eq!(world.proxy.report().refused, count);
}

#[test]
fn it_refuses_on_command_with_each_code() {
    let mut world = world(SocksConfig::default());
    for code in [
        SocksReply::GeneralFailure,
        SocksReply::NotAllowed,
        SocksReply::NetworkUnreachable,
        SocksReply::HostUnreachable,
        SocksReply::ConnectionRefused,
        SocksReply::TtlExpired,
        SocksReply::CommandNotSupported,
        SocksReply::AddressNotSupported,
    ] {
        world.proxy.refuse(Some(code));
        assert_eq!(world.code(&request(1, 2, PORT)), code as u8);
    }
    world.proxy.refuse(None);
    assert_eq!(world.code(&request(1, 2, PORT)), 0);
}

#[test]
fn a_password_is_wanted_where_there_is_one() {
    let credentials = Some(("user".to_owned(), "secret".to_owned()));
    let mut world = world(SocksConfig { credentials, ..SocksConfig::default() });
    assert!(
        !format!(
            "{:?}",
            SocksConfig {
                credentials: Some(("user".into(), "secret".into())),
                ..SocksConfig::default()
            }
        )
        .contains("secret")
    );
    let mut try_with = |hello: &[u8], login: &[u8]| {
        let (hello, login) = (hello.to_vec(), login.to_vec());
        let (env, address) = (world.client.clone(), world.proxy.address());
        world.run(async move {
            let mut stream = env.connect(address, &TcpOptions::default()).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            let mut answer = [9; 2];
            stream.read_exact(&mut answer).await.unwrap();
            if answer == [5, 2] {
                stream.write_all(&login).await.unwrap();
                stream.read_exact(&mut answer).await.unwrap();
            }
            let rest = if answer[1] == 0 { 0 } else { stream.read(&mut [0; 9]).await.unwrap() };
            assert_eq!(rest, 0, "a refused client's connection ends");
            answer
        })
    };
    assert_eq!(try_with(&[5, 1, 0], &[]), [5, 0xff]);
    assert_eq!(try_with(&[5, 2, 0, 2], b"\x01\x04user\x06secret"), [1, 0]);
    assert_ne!(try_with(&[5, 1, 2], b"\x01\x04user\x06Secret")[1], 0);
    assert_ne!(try_with(&[5, 1, 2], b"\x01\x04used\x06secret")[1], 0);
    assert_eq!(world.proxy.report().unauthorized, 3);
}

#[test]
fn datagrams_go_both_ways_through_an_association() {
    let mut world = world(SocksConfig::default());
    let (stream, relay) = world.associated();
    let mut socket = world.socket();
    let [high, low] = PORT.to_be_bytes();
    let by_digits = vec![0, 0, 0, 1, 10, 0, 0, 2, high, low, b'h', b'i'];
    let by_name = [&[0, 0, 0, 3, 14][..], b"server.example", &[high, low], b"hi"].concat();
    for bytes in [by_digits.clone(), by_name] {
        let env = world.client.clone();
        let answer;
        (socket, answer) = world.run(exchange(env, socket, relay, bytes));
        assert_eq!(answer, Some(by_digits.clone()), "from whom it is, in digits");
    }
    // A fragment, and what has no header.
    for bytes in [vec![0, 0, 1, 1, 10, 0, 0, 2, high, low, b'h'], b"hi".to_vec()] {
        let env = world.client.clone();
        let answer;
        (socket, answer) = world.run(exchange(env, socket, relay, bytes));
        assert_eq!(answer, None);
    }
    // A stranger's datagram is not relayed, to another socket of the client's neither.
    let stranger = world.socket();
    let env = world.client.clone();
    let (_, answer) = world.run(exchange(env, stranger, relay, by_digits.clone()));
    assert_eq!(answer, None);
    let report = world.proxy.report();
    assert_eq!((report.datagrams_out, report.datagrams_in, report.datagrams_dropped), (2, 2, 3));
    drop((stream, socket));
}

#[test]
fn an_association_ends_with_its_connection_and_on_command() {
    for on_command in [true, false] {
        let mut world = world(SocksConfig::default());
        let (stream, relay) = world.associated();
        let [high, low] = PORT.to_be_bytes();
        let bytes = vec![0, 0, 0, 1, 10, 0, 0, 2, high, low, b'h', b'i'];
        let socket = world.socket();
        let env = world.client.clone();
        let (socket, answer) = world.run(exchange(env, socket, relay, bytes.clone()));
        assert!(answer.is_some());
        if on_command {
            world.proxy.drop_associations();
            let mut stream = stream;
            let end =
                world.run(async move { stream.read(&mut [0; 9]).await.map_err(|e| e.kind()) });
            assert_eq!(end, Ok::<_, ErrorKind>(0), "the client is told");
        } else {
            drop(stream);
        }
        world.sim.run_for(10 * MS);
        let env = world.client.clone();
        let (_, answer) = world.run(exchange(env, socket, relay, bytes));
        assert_eq!(answer, None);
        assert_eq!(world.proxy.report().dropped, u64::from(on_command));
        assert_eq!(world.proxy.report().datagrams_in, 1);
    }
}

#[test]
fn who_says_nothing_or_nonsense_is_let_go_and_places_are_bounded() {
    let mut world = world(SocksConfig { connections_max: 2, ..SocksConfig::default() });
    let (env, address) = (world.client.clone(), world.proxy.address());
    let silent = world.run(async move {
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(env.connect(address, &TcpOptions::default()).await.unwrap());
        }
        let mut third = env.connect(address, &TcpOptions::default()).await.unwrap();
        assert_eq!(third.read(&mut [0; 9]).await.unwrap(), 0, "there is no place");
        silent
    });
    assert_eq!(world.proxy.report().too_many, 1);
    world.sim.run_for(Duration::from_secs(11));
    assert_eq!(world.proxy.report().garbled, 2);
    let env = world.client.clone();
    world.run(async move {
        let mut stream = env.connect(address, &TcpOptions::default()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        // Unread bytes make it a reset.
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
        assert_eq!(stream.peer_addr(), address);
    });
    assert_eq!(world.proxy.report().garbled, 3);
    drop(silent);
}
