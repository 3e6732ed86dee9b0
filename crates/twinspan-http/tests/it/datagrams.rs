//! Datagrams through an association, and its end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PACKET_BYTES_MAX};
use twinspan_http::socks5::{NAMES_MAX, Reply, Socks5Config, Socks5Error, Socks5Udp};
use twinspan_http::{Credentials, Target};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, Env, TaskProvider, TimeProvider, Timer, UdpError, UdpOptions,
    UdpSocket,
};
use twinspan_sim::proxy::{SocksConfig, SocksProxy, SocksReply};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask};

use crate::tools::{MS, SECOND, in_both_worlds, loopback, raw};

const HOUR: Duration = Duration::from_secs(3_600);
const PORT: u16 = 7;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// Sends back what comes.
async fn echo<E: Env>(env: E, local: SocketAddr) {
    let mut socket = env.bind_udp(local, &UdpOptions::default()).await.unwrap();
    let mut batch = DatagramBatch::new(16);
    loop {
        if poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.is_err() {
            return;
        }
        while !batch.is_empty() {
            if poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.is_err() {
                return;
            }
        }
    }
}

pub(crate) async fn send(socket: &mut impl UdpSocket, peer: SocketAddr, bytes: &[u8]) {
    let mut batch = DatagramBatch::new(1);
    let mut packet = socket.pool().take().unwrap();
    assert!(packet.fill(bytes));
    let at = twinspan_core::time::Timestamp::START;
    batch.push(Datagram { peer, at, packet }).unwrap();
    while !batch.is_empty() {
        poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.unwrap();
    }
}

/// The next datagram, unless none comes for a while.
pub(crate) async fn receive<E: Env>(
    env: &E,
    socket: &mut impl UdpSocket,
    wait: Duration,
) -> Result<Option<(SocketAddr, Vec<u8>)>, UdpError> {
    let mut batch = DatagramBatch::new(1);
    let mut timer = env.timer();
    timer.set(Some(env.now().after(wait)));
    poll_fn(|cx| match socket.poll_recv(cx, &mut batch) {
        Poll::Ready(outcome) => Poll::Ready(outcome.map(drop)),
        Poll::Pending => timer.poll_expired(cx).map(Ok),
    })
    .await?;
    Ok(batch.pop().map(|datagram| (datagram.peer, datagram.packet.to_vec())))
}

/// An echo (2) with a name, a proxy (9), a client (1).
fn world(config: SocksConfig) -> (Sim, SimEnv, SocksProxy, SimTask) {
    let mut sim = Sim::new(SimConfig { seed: 4, ..SimConfig::default() });
    let server = sim.host("server", ip(2));
    let task = server.spawn("echo", echo(server.clone(), SocketAddr::new(ip(2), PORT)));
    sim.set_name("server.example", &[ip(2)], HOUR);
    let proxy = SocksProxy::start(&sim.host("proxy", ip(9)), config);
    let client = sim.host("client", ip(1));
    sim.run_for(MS);
    (sim, client, proxy, task)
}

fn config() -> Socks5Config {
    Socks5Config::new(Target::new("10.0.0.9", 1_080))
}

async fn associated(env: &SimEnv, config: &Socks5Config) -> Socks5Udp<SimEnv> {
    let options = UdpOptions { pool_packets: 64, ..UdpOptions::default() };
    let local = SocketAddr::new(ip(1), 0);
    Socks5Udp::associate(env.clone(), config, local, &options).await.unwrap()
}

#[test]
fn datagrams_go_there_and_back_with_the_addresses_of_their_peers() {
    let credentials = Some(("user".to_owned(), "secret".to_owned()));
    let (mut sim, env, proxy, _echo) = world(SocksConfig { credentials, ..SocksConfig::default() });
    let inner = env.clone();
    let outcome = sim.block_on(&env, HOUR, async move {
        let mut config = config();
        config.auth = Some(Credentials::new("user", "secret"));
        let mut socket = associated(&inner, &config).await;
        assert_eq!(socket.relay().ip(), ip(9));
        let far = SocketAddr::new(ip(2), PORT);
        for len in [0, 1, 1_200, PACKET_BYTES_MAX - 22] {
            let bytes = vec![len as u8; len];
            send(&mut socket, far, &bytes).await;
            let back = receive(&inner, &mut socket, SECOND).await.unwrap();
            assert_eq!(back, Some((far, bytes)), "{len} bytes");
        }
        // By name; the answer comes from where the name leads.
        let named = socket.name(&Target::new("server.example", PORT)).unwrap();
        assert_eq!(socket.name(&Target::new("server.example", PORT)).unwrap(), named);
        send(&mut socket, named, b"by name").await;
        let back = receive(&inner, &mut socket, SECOND).await.unwrap();
        assert_eq!(back, Some((far, b"by name".to_vec())));
        assert_eq!(socket.name(&far.into()).unwrap(), far, "digits need no name");
        // What has no room for a header is dropped and counted.
        send(&mut socket, far, &[0; PACKET_BYTES_MAX - 9]).await;
        assert_eq!(socket.socks5_report().too_long, 1);
        let report = socket.report();
        assert_eq!((report.send_errors, report.packets_out, report.packets_in), (1, 5, 5));
        assert_eq!(socket.pool().outstanding(), 0);
    });
    assert!(outcome.is_some());
    assert_eq!((proxy.report().datagrams_out, proxy.report().datagrams_in), (5, 5));
}

#[test]
fn many_datagrams_leave_in_order_though_the_kernel_stalls() {
    let config = SimConfig { seed: 2, send_stall: 0.3, short_send: 0.5, ..SimConfig::default() };
    let mut sim = Sim::new(config);
    let server = sim.host("server", ip(2));
    let _echo = server.spawn("echo", echo(server.clone(), SocketAddr::new(ip(2), PORT)));
    let _proxy = SocksProxy::start(&sim.host("proxy", ip(9)), SocksConfig::default());
    let env = sim.host("client", ip(1));
    sim.run_for(MS);
    let inner = env.clone();
    let outcome = sim.block_on(&env, HOUR, async move {
        let options = UdpOptions { pool_packets: 512, ..UdpOptions::default() };
        let local = SocketAddr::new(ip(1), 0);
        let config = self::config();
        let mut socket =
            Socks5Udp::associate(inner.clone(), &config, local, &options).await.unwrap();
        let far = SocketAddr::new(ip(2), PORT);
        let mut batch = DatagramBatch::new(200);
        for number in 0..200_u8 {
            let mut packet = socket.pool().take().unwrap();
            assert!(packet.fill(&[number; 100]));
            batch.push(Datagram { peer: far, at: inner.now(), packet }).unwrap();
        }
        while !batch.is_empty() {
            let before = batch.len();
            let sent = poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.unwrap();
            assert!(sent > 0 && batch.len() == before - sent);
        }
        // What waits in front of the kernel leaves while only receiving goes on.
        let mut back = Vec::new();
        while let Some((_, bytes)) = receive(&inner, &mut socket, SECOND).await.unwrap() {
            assert_eq!(bytes.len(), 100);
            back.push(bytes[0]);
        }
        back
    });
    assert_eq!(outcome.unwrap(), (0..200).collect::<Vec<u8>>());
}

#[test]
fn a_lost_association_is_told_and_another_can_be_had() {
    let (mut sim, env, proxy, _echo) = world(SocksConfig::default());
    let proxy = Rc::new(proxy);
    let (inner, held) = (env.clone(), Rc::clone(&proxy));
    let outcome = sim.block_on(&env, HOUR, async move {
        let far = SocketAddr::new(ip(2), PORT);
        for _ in 0..2 {
            let mut socket = associated(&inner, &config()).await;
            send(&mut socket, far, b"hi").await;
            let back = receive(&inner, &mut socket, SECOND).await.unwrap();
            assert_eq!(back, Some((far, b"hi".to_vec())));
            assert!(!socket.is_lost());
            held.drop_associations();
            let error = receive(&inner, &mut socket, SECOND).await.err().unwrap();
            let UdpError::Os(error) = error else { panic!("{error:?}") };
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
            assert!(socket.is_lost());
            let mut batch = DatagramBatch::new(1);
            let sent = poll_fn(|cx| socket.poll_send(cx, &mut batch)).await;
            assert!(sent.is_err(), "and again");
        }
    });
    assert!(outcome.is_some());
    assert_eq!((proxy.report().associated, proxy.report().dropped), (2, 2));
}

#[test]
fn an_association_is_lost_with_its_proxy_however_that_ends() {
    for by_partition in [true, false] {
        let config = SimConfig {
            seed: 4,
            tcp_keepalive: Some(10 * SECOND),
            tcp: twinspan_sim::TcpMode::Segments,
            ..SimConfig::default()
        };
        let mut sim = Sim::new(config);
        let proxy = SocksProxy::start(&sim.host("proxy", ip(9)), SocksConfig::default());
        let env = sim.host("client", ip(1));
        sim.run_for(MS);
        let lost = Rc::new(RefCell::new(None));
        let (inner, told) = (env.clone(), Rc::clone(&lost));
        let _client = env.spawn("client", async move {
            let mut socket = associated(&inner, &self::config()).await;
            let outcome = receive(&inner, &mut socket, HOUR).await;
            *told.borrow_mut() = Some((outcome.is_err(), socket.is_lost()));
        });
        sim.run_for(SECOND);
        assert_eq!(proxy.report().associated, 1);
        if by_partition {
            sim.partition(ip(1), ip(9));
        } else {
            assert!(sim.stop_host(ip(9)));
        }
        sim.run_for(Duration::from_secs(600));
        assert_eq!(*lost.borrow(), Some((true, true)), "by a partition: {by_partition}");
    }
}

#[test]
fn a_proxy_without_datagrams_says_so() {
    let (mut sim, env, proxy, _echo) =
        world(SocksConfig { relays_datagrams: false, ..SocksConfig::default() });
    proxy.refuse(Some(SocksReply::CommandNotSupported));
    let inner = env.clone();
    let outcome = sim.block_on(&env, HOUR, async move {
        let local = SocketAddr::new(ip(1), 0);
        let options = UdpOptions::default();
        Socks5Udp::associate(inner, &config(), local, &options).await.err()
    });
    let Some(Some(Socks5Error::Refused(reply))) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reply, Reply::CommandNotSupported);
}

/// A proxy made by hand that relays at `bound`, which it names as these bytes and the port.
async fn odd<E: Env>(env: &E, bound: SocketAddr, named: &'static [u8]) -> (SocketAddr, E::Task) {
    raw(env, move |_, mut stream| async move {
        stream.read_exact(&mut [0; 3]).await.unwrap();
        stream.write_all(&[5, 0]).await.unwrap();
        let mut request = [0; 10];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request, [5, 3, 0, 1, 0, 0, 0, 0, 0, 0], "where from is not told");
        let reply = [&[5, 0, 0][..], named, &bound.port().to_be_bytes()].concat();
        stream.write_all(&reply).await.unwrap();
        // Something to say though there is nothing to be said.
        stream.write_all(&[7; 5_000]).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await
}

#[test]
fn an_unspecified_relay_is_at_the_proxy_and_only_what_it_sends_is_taken() {
    async fn run<E: Env>(env: E) {
        let names: [&'static [u8]; 3] =
            [&[1, 0, 0, 0, 0], b"\x03\x09localhost", &[1, 127, 0, 0, 1]];
        for named in names {
            let options = UdpOptions { pool_packets: 64, ..UdpOptions::default() };
            let mut relay = env.bind_udp(loopback(), &options).await.unwrap();
            let mut stranger = env.bind_udp(loopback(), &options).await.unwrap();
            let (address, _task) = odd(&env, relay.local_addr(), named).await;
            let config = Socks5Config::new(address.into());
            let socket = Socks5Udp::associate(env.clone(), &config, loopback(), &options).await;
            let mut socket = socket.unwrap();
            assert_eq!(socket.relay(), relay.local_addr());
            let far = SocketAddr::from(([10, 9, 8, 7], 513));
            send(&mut socket, far, b"out").await;
            let (client, came) = receive(&env, &mut relay, SECOND).await.unwrap().unwrap();
            assert_eq!(came, [0, 0, 0, 1, 10, 9, 8, 7, 2, 1, b'o', b'u', b't']);
            let good = [0, 0, 0, 1, 10, 9, 8, 7, 2, 1, b'b', b'a', b'c', b'k'];
            send(&mut stranger, client, &good).await;
            for wrong in [&[0, 0, 1, 1, 10, 9, 8, 7, 2, 1, 0][..], &[], &[0, 0, 0, 2], b"hi there"]
            {
                send(&mut relay, client, wrong).await;
            }
            send(&mut relay, client, &good).await;
            let back = receive(&env, &mut socket, SECOND).await.unwrap();
            assert_eq!(back, Some((far, b"back".to_vec())));
            let report = socket.socks5_report();
            assert_eq!((report.fragments, report.strangers, report.garbled), (1, 1, 3));
            assert_eq!(socket.report().receive_errors, 5);
            assert_eq!(socket.pool().outstanding(), 0);
        }
    }
    in_both_worlds!(run);
}

#[test]
fn a_relay_that_the_socket_cannot_reach_is_told_and_names_are_bounded() {
    async fn run<E: Env>(env: E) {
        let six: &'static [u8] = &[4, 0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let bound = SocketAddr::from(([127, 0, 0, 1], 99));
        let (address, _task) = odd(&env, bound, six).await;
        let config = Socks5Config::new(address.into());
        let options = UdpOptions { pool_packets: 4, ..UdpOptions::default() };
        let socket = Socks5Udp::associate(env.clone(), &config, loopback(), &options).await;
        assert!(matches!(socket, Err(Socks5Error::OtherFamily { .. })), "{socket:?}");
        let (address, _task) = odd(&env, bound, &[1, 127, 0, 0, 1]).await;
        let config = Socks5Config::new(address.into());
        let socket = Socks5Udp::associate(env.clone(), &config, loopback(), &options).await;
        let mut socket = socket.unwrap();
        for number in 0..NAMES_MAX {
            let target = Target::new(format!("a{number}.example"), 1);
            let peer = socket.name(&target).unwrap();
            assert_eq!(socket.name(&target).unwrap(), peer);
        }
        let outcome = socket.name(&Target::new("b.example", 1));
        assert!(matches!(outcome, Err(Socks5Error::TooManyNames)), "{outcome:?}");
        let outcome = socket.name(&Target::new("", 1));
        assert!(matches!(outcome, Err(Socks5Error::TooManyNames | Socks5Error::Name)));
    }
    in_both_worlds!(run);
}
