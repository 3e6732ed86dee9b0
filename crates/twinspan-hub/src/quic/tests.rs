//! Tests that look behind the road.

use twinspan_net::shm::{Echo, Form, Identity, Policy, Roles};

use std::net::Ipv4Addr;

use super::*;
use crate::report::Compression;
use crate::road::{More, NetOptions};

fn config(side: Side, port: u16, id: u8) -> RoadConfig {
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
    let mut here = open(&config(Side::Listen, 0, 1)).unwrap();
    let note = here.notes.iter().find_map(|it| it.strip_prefix("it listens at 127.0.0.1:"));
    let port: u16 = note.unwrap().parse().unwrap();
    let mut there = open(&config(Side::Connect, port, 2)).unwrap();
    while here.peers.subscribers() + there.peers.subscribers() < 2 {
        there.inlet.as_mut().unwrap().sleep(Some(Duration::from_millis(1)));
    }
    exchange(&mut there, &mut here, b"from the first socket");
    let node = CONNECTIONS.lock().unwrap().iter().find_map(|((address, ..), node)| {
        if address.port() == port { node.upgrade() } else { None }
    });
    node.unwrap().with(|_, carrier, _| carrier.rebind()).unwrap();
    exchange(&mut there, &mut here, b"from the second");
    exchange(&mut here, &mut there, b"to the second");
    assert_eq!(here.peers.ended() + there.peers.ended(), 0, "it is one connection");
}
