//! A good grid with somebody in between, and one that says what must not be said over UDP.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_lludp::messages::{
    CloseCircuit, CrossedRegion, DisableSimulator, EnableSimulator, KickUser, TeleportFinish,
};
use twinspan_lludp::{AnyMessage, Encoder, Flags, Sequence};
use twinspan_provider::{NetworkProvider, TimeProvider, UdpOptions, UdpSocket};
use twinspan_viewer::{NetworkStatus, ViewerConfig};

use crate::rig::{
    GRID_IP, USER, VIEWER_IP, World, credentials, grid_config, sleep, start_grid, start_viewer,
};

#[test]
fn what_must_not_come_over_udp_moves_nothing() {
    let mut world = World::new(31, Conditions::CLEAN);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let started = start_viewer(&viewer, ViewerConfig::default());
        let manager = started.handle.network_manager.clone();
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        sleep(&viewer, Duration::from_secs(5)).await;
        let before = manager.summary().await.unwrap();
        let elsewhere = Ipv4Addr::new(10, 0, 0, 66);
        let mut enable = EnableSimulator::default();
        enable.simulator_info.ip = elsewhere;
        enable.simulator_info.handle = 7;
        let mut crossed = CrossedRegion::default();
        crossed.region_data.sim_ip = elsewhere;
        let mut finish = TeleportFinish::default();
        finish.info.sim_ip = elsewhere;
        let forbidden: [AnyMessage; 3] = [enable.into(), crossed.into(), finish.into()];
        server.act(|grid, now| {
            let codes: Vec<u32> = grid.codes().collect();
            for code in codes {
                grid.send_reliable(now, code, &forbidden).expect("sent");
            }
        });
        sleep(&viewer, Duration::from_secs(5)).await;
        let after = manager.summary().await.unwrap();
        assert_eq!(after.stats.refused - before.stats.refused, 3);
        assert_eq!((after.circuits, after.teleports), (before.circuits, 0));
        assert_eq!(manager.region().unwrap().name, "Alpha");
        manager.disconnect().await;
    });
}

#[test]
fn who_has_no_circuit_is_not_heard_whatever_it_says() {
    let mut world = World::new(32, Conditions::CLEAN);
    let stranger = world.sim.host("stranger", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 66)));
    // Whoever is in between knows where the viewer hears.
    let seen: Rc<RefCell<Option<SocketAddr>>> = Rc::default();
    let told = Rc::clone(&seen);
    world.sim.set_tape(move |datagram| {
        if datagram.from.ip() == VIEWER_IP {
            told.borrow_mut().get_or_insert(datagram.from);
        }
    });
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let started = start_viewer(&viewer, ViewerConfig::default());
        let manager = started.handle.network_manager.clone();
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        let to = seen.borrow().expect("datagrams were sent");
        let any = (Ipv4Addr::UNSPECIFIED, 0).into();
        let mut socket = stranger.bind_udp(any, &UdpOptions::default()).await.unwrap();
        let mut encoder = Encoder::default();
        let forged: [AnyMessage; 3] = [
            KickUser::default().into(),
            DisableSimulator::default().into(),
            CloseCircuit::default().into(),
        ];
        for (number, message) in (1..).zip(forged.iter().cycle().take(300)) {
            let mut packet = socket.pool().take().expect("a buffer");
            let number = Sequence::of(number);
            let len = encoder.any(packet.room_mut(), Flags::RELIABLE, number, message).unwrap();
            packet.set_len(len);
            let mut batch = DatagramBatch::new(1);
            batch.push(Datagram { peer: to, at: stranger.now(), packet }).unwrap();
            std::future::poll_fn(|cx| match socket.poll_send(cx, &mut batch) {
                Poll::Ready(sent) => Poll::Ready(sent.map(|_| ())),
                Poll::Pending => Poll::Pending,
            })
            .await
            .unwrap();
        }
        sleep(&viewer, Duration::from_secs(5)).await;
        assert_eq!(manager.status(), NetworkStatus::Connected);
        let summary = manager.summary().await.unwrap();
        assert_eq!(summary.strangers.unknown, 300);
        assert_eq!(socket.report().packets_in, 0, "nobody is answered");
        manager.disconnect().await;
    });
}
