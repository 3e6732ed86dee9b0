//! Tests that look behind the road.

use twinspan_net::shm::{Echo, Form, Identity, Policy, Roles};

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use quinn_proto::{ConnectionStats, Transmit};

use super::*;
use crate::report::Compression;
use crate::road::{More, NetOptions};

pub(crate) fn config(side: Side, port: u16, id: u8) -> RoadConfig {
    let identity =
        Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name: "bytes".into() };
    RoadConfig {
        topic: "t".into(),
        identity,
        addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))],
        side,
        message_bytes_max: 1_000,
        depth: 16,
        history: 0,
        policy: Policy::default(),
        publish_timeout: Duration::from_secs(5),
        roles: Roles::default(),
        echo: Echo::default(),
        reliability: None,
        compression: Compression::None,
        dictionary: None,
        host: "127.0.0.1".into(),
        quic: QuicOptions::default(),
        batch_size: None,
        net: NetOptions::default(),
        seal: None,
        multicast: crate::road::MulticastOptions::default(),
        id: [id; 16],
    }
}

/// The connector's node, by the port that it goes to.
fn node_to(port: u16) -> Arc<Node<QuicCarrier>> {
    let connections = CONNECTIONS.lock().unwrap();
    let mut to = connections.iter().filter(|((address, ..), _)| address.port() == port);
    to.find_map(|(_, node)| node.upgrade()).unwrap()
}

/// What quinn's machine counted of the connection to a port, and the runs that the kernel refused.
fn counted(port: u16) -> (ConnectionStats, u64) {
    node_to(port).with(|_, carrier, _| {
        let stats = carrier.conns.values().next().unwrap().connection.stats();
        (stats, carrier.socket.refused())
    })
}

/// A listener and a connector that have met, and the listener's port.
fn met(change: impl Fn(&mut RoadConfig)) -> (Opened, Opened, u16) {
    let mut ours = config(Side::Listen, 0, 1);
    change(&mut ours);
    let here = open(&ours).unwrap();
    let port = port_of(&here);
    let mut ours = config(Side::Connect, port, 2);
    change(&mut ours);
    let mut there = open(&ours).unwrap();
    wait_for_both(&here, &mut there);
    (here, there, port)
}

fn port_of(listener: &Opened) -> u16 {
    let note = listener.notes.iter().find_map(|it| it.strip_prefix("it listens at 127.0.0.1:"));
    note.unwrap().parse().unwrap()
}

fn wait_for_both(here: &Opened, there: &mut Opened) {
    while here.peers.subscribers() + there.peers.subscribers() < 2 {
        there.inlet.as_mut().unwrap().sleep(Some(Duration::from_millis(1)));
    }
}

fn exchange(from: &mut Opened, to: &mut Opened, text: &[u8]) {
    from.out.as_mut().unwrap().publish(text, More::Unknown).unwrap();
    let (inlet, mut room) = (to.inlet.as_mut().unwrap(), Vec::new());
    while inlet.try_take(&mut room).is_none() {
        inlet.sleep(None);
    }
    assert_eq!(room, text);
}

#[test]
fn a_connector_goes_on_from_another_socket() {
    let (mut here, mut there, port) = met(|_| {});
    exchange(&mut there, &mut here, b"from the first socket");
    node_to(port).with(|_, carrier, _| carrier.rebind()).unwrap();
    exchange(&mut there, &mut here, b"from the second");
    exchange(&mut here, &mut there, b"to the second");
    assert_eq!(here.peers.ended() + there.peers.ended(), 0, "it is one connection");
}

#[test]
fn a_run_is_never_longer_than_the_kernel_takes() {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (from, _) = Socket::bind(loopback, 1 << 20).unwrap();
    let (mut to, _) = Socket::bind(loopback, 1 << 20).unwrap();
    for datagram in [1_200_u16, 1_452, 9_000, 60_000, u16::MAX] {
        let count = from.run_max(datagram);
        assert!((1..=64).contains(&count), "{count}");
        assert!(count == 1 || count * usize::from(datagram) <= 65_507, "{count} of {datagram}");
        if datagram > 60_000 {
            continue;
        }
        let size = count * usize::from(datagram);
        let transmit = Transmit {
            destination: to.local_addr().unwrap(),
            ecn: None,
            size,
            segment_size: (count > 1).then_some(datagram.into()),
            src_ip: None,
        };
        assert!(from.send(&transmit, &vec![7; size]));
        assert_eq!(from.refused(), 0, "{count} of {datagram}");
        let mut came = 0;
        while came < size {
            to.receive(|datagram| came += datagram.bytes.len()).unwrap();
        }
        assert_eq!(came, size);
    }
    // What is too long is refused as a whole, and counted: this is what the limit is for.
    let size = 64 * 1_200;
    let transmit = Transmit {
        destination: to.local_addr().unwrap(),
        ecn: None,
        size,
        segment_size: Some(1_200),
        src_ip: None,
    };
    assert!(from.send(&transmit, &vec![7; size]));
    assert_eq!(from.refused(), 1);
}

#[test]
fn long_messages_leave_in_runs_of_which_none_is_refused() {
    const COUNT: u8 = 100;
    let (mut here, mut there, port) = met(|config| config.message_bytes_max = 64 << 10);
    let publisher = thread::spawn(move || {
        for number in 0..COUNT {
            there.out.as_mut().unwrap().publish(&[number; 64 << 10], More::Unknown).unwrap();
        }
        there
    });
    let (inlet, mut room) = (here.inlet.as_mut().unwrap(), Vec::new());
    for number in 0..COUNT {
        while inlet.try_take(&mut room).is_none() {
            inlet.sleep(None);
        }
        assert!(room == [number; 64 << 10], "message {number}");
    }
    let _there = publisher.join().unwrap();
    let (stats, refused) = counted(port);
    assert_eq!(refused, 0, "{stats:?}");
    assert!(stats.udp_tx.ios < stats.udp_tx.datagrams, "they left in runs: {stats:?}");
}

#[test]
fn best_effort_goes_by_datagrams_and_reliable_messages_do_not() {
    for (reliability, is_beside) in
        [(Reliability::BestEffort, true), (Reliability::Reliable, false)]
    {
        let (mut here, mut there, port) = met(|config| config.reliability = Some(reliability));
        for text in [&b"one"[..], b"two", &[3; 1_000]] {
            exchange(&mut there, &mut here, text);
        }
        let (stats, _) = counted(port);
        assert_eq!(stats.frame_tx.datagram >= 3, is_beside, "{stats:?}");
        assert_eq!(stats.frame_tx.datagram == 0, !is_beside, "{stats:?}");
    }
}

/// Passes datagrams on; from a moment on those of the first who came are gone, both ways.
struct Mapping {
    port: u16,
    is_gone: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

impl Mapping {
    fn new(to: u16) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = front.local_addr().unwrap().port();
        let (is_gone, is_over) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (gone, over) = (Arc::clone(&is_gone), Arc::clone(&is_over));
        thread::spawn(move || {
            let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            front.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            back.set_nonblocking(true).unwrap();
            let (mut first, mut last) = (None, None);
            let mut bytes = [0; 65_536];
            let is_lost = |it: Option<SocketAddr>, first: Option<SocketAddr>| {
                it == first && gone.load(Ordering::SeqCst)
            };
            while !over.load(Ordering::SeqCst) {
                if let Ok((length, from)) = front.recv_from(&mut bytes) {
                    first = first.or(Some(from));
                    if !is_lost(Some(from), first) {
                        last = Some(from);
                        let _ = back.send_to(&bytes[..length], (Ipv4Addr::LOCALHOST, to));
                    }
                }
                while let Ok((length, _)) = back.recv_from(&mut bytes) {
                    if !is_lost(last, first)
                        && let Some(last) = last
                    {
                        let _ = front.send_to(&bytes[..length], last);
                    }
                }
            }
        });
        Self { port, is_gone, is_over }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_connector_whose_way_is_gone_finds_another_by_itself() {
    let mut here = open(&config(Side::Listen, 0, 1)).unwrap();
    let mapping = Mapping::new(port_of(&here));
    let mut there = open(&config(Side::Connect, mapping.port, 2)).unwrap();
    wait_for_both(&here, &mut there);
    exchange(&mut there, &mut here, b"by the first way");
    let node = node_to(mapping.port);
    let before = node.with(|_, carrier, _| {
        carrier.rebind_after = Duration::from_millis(300);
        carrier.socket.local_addr().unwrap()
    });
    mapping.is_gone.store(true, Ordering::SeqCst);
    exchange(&mut there, &mut here, b"by another");
    exchange(&mut here, &mut there, b"and back");
    let after = node.with(|_, carrier, _| carrier.socket.local_addr().unwrap());
    assert_ne!(before, after, "it speaks from another socket");
    assert_eq!(here.peers.ended() + there.peers.ended(), 0, "it is one connection");
}

#[test]
fn sessions_are_shared_by_hubs_that_believe_the_same_and_by_no_others() {
    let mut ours = config(Side::Listen, 0, 1);
    ours.quic.is_idempotent = true;
    let mut here = open(&ours).unwrap();
    let port = port_of(&here);
    let pin =
        here.notes.iter().find_map(|it| it.strip_prefix("its certificate has the fingerprint "));
    let pin: Fingerprint = pin.unwrap().parse().unwrap();
    let mut meet = |id: u8, trust: Trust| {
        let mut ours = config(Side::Connect, port, id);
        ours.quic = QuicOptions { trust, is_idempotent: true, ..QuicOptions::default() };
        let mut there = open(&ours).unwrap();
        while there.peers.subscribers() < 1 {
            there.inlet.as_mut().unwrap().sleep(Some(Duration::from_millis(1)));
        }
        exchange(&mut there, &mut here, b"a word");
        there.notes.iter().any(|it| it.contains("it spoke before the handshake"))
    };
    assert!(!meet(2, Trust::FirstUse), "nobody was here before");
    assert!(meet(3, Trust::FirstUse), "another hub of the process");
    assert!(!meet(4, Trust::Pinned(pin)), "who believes something else looks for itself");
    assert!(meet(5, Trust::Pinned(pin)));
}
