//! Associations over IPv6, and with peers of both families and by name behind them.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use twinspan_core::packet::{DatagramBatch, PACKET_BYTES_MAX};
use twinspan_http::socks5::{HEADER_BYTES_MAX, Socks5Config, Socks5Udp};
use twinspan_http::{Credentials, Target};
use twinspan_provider::{Env, UdpOptions, UdpSocket};

use crate::datagrams::{receive, send};
use crate::hand_proxy::{HandProxy, Seen, has_ipv6};
use crate::tools::SECOND;

/// Sends back what comes, until the task is dropped.
async fn echo<E: Env>(env: &E, ip: IpAddr) -> (SocketAddr, E::Task) {
    let options = UdpOptions { pool_packets: 64, ..UdpOptions::default() };
    let mut socket = env.bind_udp(SocketAddr::new(ip, 0), &options).await.unwrap();
    let address = socket.local_addr();
    let task = env.spawn("echo", async move {
        let mut batch = DatagramBatch::new(16);
        while poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.is_ok() {
            while !batch.is_empty() {
                if poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.is_err() {
                    return;
                }
            }
        }
    });
    (address, task)
}

/// Talks to peers of both families and by name through a proxy at an address; what that saw.
async fn talk<E: Env>(env: E, local: IpAddr) -> Seen {
    let proxy = HandProxy::start(&env, local, Some(("user", "secret"))).await;
    let (four, _one) = echo(&env, Ipv4Addr::LOCALHOST.into()).await;
    let (six, _other) = echo(&env, Ipv6Addr::LOCALHOST.into()).await;
    let mut config = Socks5Config::new(proxy.address.into());
    config.auth = Some(Credentials::new("user", "secret"));
    let options = UdpOptions { pool_packets: 64, ..UdpOptions::default() };
    let socket = Socks5Udp::associate_anywhere(env.clone(), &config, &options).await;
    let mut socket = socket.unwrap();
    assert_eq!(socket.relay().ip(), local);
    assert_eq!(socket.local_addr().is_ipv4(), local.is_ipv4());
    for far in [four, six] {
        for len in [0, 1, 1_200, PACKET_BYTES_MAX - HEADER_BYTES_MAX] {
            let bytes = vec![len as u8; len];
            send(&mut socket, far, &bytes).await;
            let back = receive(&env, &mut socket, 10 * SECOND).await.unwrap();
            assert_eq!(back, Some((far, bytes)), "{len} bytes by way of {local}");
        }
    }
    // By name; the answer comes from where the name leads.
    let named = socket.name(&Target::new("localhost", four.port())).unwrap();
    send(&mut socket, named, b"by name").await;
    let back = receive(&env, &mut socket, 10 * SECOND).await.unwrap();
    assert_eq!(back, Some((four, b"by name".to_vec())));
    let report = socket.socks5_report();
    assert_eq!((report.strangers, report.garbled, report.too_long), (0, 0, 0));
    assert_eq!(socket.pool().outstanding(), 0);
    proxy.seen()
}

const WANTED: Seen = Seen {
    connections: 0,
    associations: 1,
    unauthorized: 0,
    to_ipv4: 4,
    to_ipv6: 4,
    to_names: 1,
    back: 9,
};

#[test]
fn a_proxy_at_either_family_relays_to_both_and_to_names() {
    for local in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let seen = twinspan_sim::run(7, move |env| talk(env, local)).unwrap();
        assert_eq!(seen, WANTED, "simulated, at {local}");
        if has_ipv6() {
            let seen = twinspan_provider::run(move |env| talk(env, local)).unwrap();
            assert_eq!(seen, WANTED, "on this machine, at {local}");
        }
    }
}
