//! Each way of moving datagrams passes the one suite.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use twinspan_net::{BareSocket, BatchUdp, ReactorEnv, ReactorListener, ReactorTcp};
use twinspan_provider::{
    Around, BindError, ConnectError, IoPath, NetworkProvider, ResolveError, Resolved, TcpOptions,
    UdpOptions, conformance,
};

use crate::skip;

/// A reactor whose sockets all get the path and the offloads of `options`.
#[derive(Clone)]
struct With {
    env: ReactorEnv,
    options: UdpOptions,
}

impl Around for With {
    type Inner = ReactorEnv;

    fn env(&self) -> &ReactorEnv {
        &self.env
    }
}

impl NetworkProvider for With {
    type Udp = BatchUdp;
    type Tcp = ReactorTcp;
    type Listener = ReactorListener;

    async fn bind_udp(
        &self,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<BatchUdp, BindError> {
        let options = UdpOptions {
            receive_buffer_bytes: options.receive_buffer_bytes,
            send_buffer_bytes: options.send_buffer_bytes,
            pool_packets: options.pool_packets,
            ..self.options
        };
        self.env.bind_udp(local, &options).await
    }

    async fn connect(
        &self,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<ReactorTcp, ConnectError> {
        self.env.connect(peer, options).await
    }

    async fn listen(
        &self,
        local: SocketAddr,
        options: &TcpOptions,
    ) -> Result<ReactorListener, BindError> {
        self.env.listen(local, options).await
    }

    async fn resolve(&self, name: &str, port: u16) -> Result<Resolved, ResolveError> {
        self.env.resolve(name, port).await
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn conforms(options: UdpOptions) {
    let env = ReactorEnv::new(Some(1)).unwrap();
    let with = With { env: env.clone(), options };
    env.block_on(conformance::all(&with, IpAddr::V4(Ipv4Addr::LOCALHOST)));
}

#[test]
fn one_call_per_datagram_conforms() {
    conforms(UdpOptions { path: IoPath::Plain, ..UdpOptions::default() });
}

#[test]
fn joined_receives_conform() {
    conforms(UdpOptions { coalesce_receives: true, ..UdpOptions::default() });
}

#[test]
fn sends_one_by_one_conform() {
    conforms(UdpOptions { segment_sends: false, ..UdpOptions::default() });
}

#[test]
fn gathering_conforms() {
    conforms(UdpOptions { gather: Duration::from_millis(1), ..UdpOptions::default() });
}

#[test]
fn a_completion_ring_conforms() {
    if !has_ring() {
        return;
    }
    conforms(UdpOptions { path: IoPath::Ring, ..UdpOptions::default() });
}

#[test]
fn the_measured_path_conforms_and_says_why_it_was_chosen() {
    let options = UdpOptions { path: IoPath::Measured, ..UdpOptions::default() };
    conforms(options);
    let report = BareSocket::bind(loopback(), &options).unwrap().report();
    let costs = report.path_costs;
    if report.path_reason == "the usual one: measuring took too long to choose by" {
        // Others left this test next to no time; what is chosen then is known.
        assert_eq!(report.path, "recvmmsg/sendmmsg", "{report:?}");
    } else {
        assert!(report.path_reason.starts_with("cheapest of those measured"), "{report:?}");
        assert!(costs.plain_ns.is_some() && costs.batch_ns.is_some(), "{report:?}");
    }
    assert!(has_ring() || costs.ring_ns.is_none(), "{report:?}");
    println!("{}: {}, {costs:?}", report.path, report.path_reason);
}

/// Whether the kernel has completion rings and lets this process use them.
fn has_ring() -> bool {
    let options = UdpOptions { path: IoPath::Ring, ..UdpOptions::default() };
    match BareSocket::bind(loopback(), &options) {
        Ok(_) => true,
        Err(BindError::Path { address, path: IoPath::Ring, source }) => {
            skip(&format!("no completion ring for {address}: {source}"));
            false
        }
        Err(other) => panic!("a refused path is named as such, not: {other}"),
    }
}
