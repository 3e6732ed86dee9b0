//! Sockets take and give batches, and refuse what a kernel refuses.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    BindError, NetworkProvider, TaskProvider, TimeProvider, Timer, UdpOptions, UdpSocket,
};
use twinspan_sim::{LOOPBACK_DELAY, Sim, SimConfig, SimEnv, SimUdp, WIRE_DELAY_MIN};

use crate::echo::{Client, Echo, MS, PORT, ip, start};

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn bind(
    sim: &mut Sim,
    env: &SimEnv,
    local: &str,
    options: UdpOptions,
) -> Result<SimUdp, BindError> {
    let (inner, local) = (env.clone(), local.parse().unwrap());
    sim.block_on(env, LIMIT, async move { inner.bind_udp(local, &options).await }).unwrap()
}

pub(crate) fn queue(socket: &SimUdp, to: SocketAddr, bytes: &[&[u8]]) -> DatagramBatch {
    let mut batch = DatagramBatch::new(bytes.len());
    for bytes in bytes {
        let mut packet = socket.pool().take().unwrap();
        assert!(packet.fill(bytes));
        batch.push(Datagram { peer: to, at: Timestamp::START, packet }).unwrap();
    }
    batch
}

/// Sends all and returns how many each call took.
pub(crate) fn send(
    sim: &mut Sim,
    env: &SimEnv,
    mut socket: SimUdp,
    batch: DatagramBatch,
) -> (SimUdp, Vec<usize>) {
    let mut batch = batch;
    let sending = async move {
        let mut taken = Vec::new();
        while !batch.is_empty() {
            taken.push(poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.unwrap());
        }
        (socket, taken)
    };
    sim.block_on(env, LIMIT, sending).unwrap()
}

/// What one call receives, or nothing when it would wait.
pub(crate) fn receive(
    sim: &mut Sim,
    env: &SimEnv,
    mut socket: SimUdp,
    room: usize,
) -> (SimUdp, DatagramBatch) {
    let receiving = async move {
        let mut batch = DatagramBatch::new(room);
        let outcome = poll_fn(|cx| Poll::Ready(socket.poll_recv(cx, &mut batch))).await;
        match outcome {
            Poll::Ready(count) => assert_eq!(count.unwrap(), batch.len()),
            Poll::Pending => assert!(batch.is_empty()),
        }
        (socket, batch)
    };
    sim.block_on(env, LIMIT, receiving).unwrap()
}

#[test]
fn ports_are_taken_by_address_family_and_wildcard() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let mut held = Vec::new();
    let mut try_bind = |local: &str| match bind(&mut sim, &env, local, UdpOptions::default()) {
        Ok(socket) => {
            held.push(socket);
            "bound"
        }
        Err(BindError::Taken(_)) => "taken",
        Err(BindError::NotLocal(_)) => "not local",
        Err(_) => "another error",
    };
    assert_eq!(try_bind("10.0.0.1:5000"), "bound");
    assert_eq!(try_bind("10.0.0.1:5000"), "taken");
    assert_eq!(try_bind("0.0.0.0:5000"), "taken");
    assert_eq!(try_bind("127.0.0.1:5000"), "bound");
    assert_eq!(try_bind("[::]:5000"), "bound");
    assert_eq!(try_bind("[::1]:5000"), "taken");
    assert_eq!(try_bind("0.0.0.0:5001"), "bound");
    assert_eq!(try_bind("10.0.0.1:5001"), "taken");
    assert_eq!(try_bind("10.0.0.2:5002"), "not local");
}

#[test]
fn free_ports_differ_until_none_is_left() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let options = UdpOptions { pool_packets: 0, ..UdpOptions::default() };
    let mut sockets = Vec::new();
    loop {
        match bind(&mut sim, &env, "10.0.0.1:0", options) {
            Ok(socket) => sockets.push(socket),
            Err(BindError::Taken(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let mut ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().port()).collect();
    ports.sort_unstable();
    assert!(ports.into_iter().eq(49_152..=65_535));
    sockets.swap_remove(77);
    assert!(bind(&mut sim, &env, "10.0.0.1:0", options).is_ok());
}

#[test]
fn a_socket_sometimes_takes_only_a_part_of_a_batch() {
    let config = SimConfig { short_send: 1.0, ..SimConfig::default() };
    let mut sim = Sim::new(config);
    let env = sim.host("node", ip(1));
    let sender = bind(&mut sim, &env, "10.0.0.1:0", UdpOptions::default()).unwrap();
    let receiver = bind(&mut sim, &env, "10.0.0.1:0", UdpOptions::default()).unwrap();
    let batch = queue(&sender, receiver.local_addr(), &[&[1; 9][..]; 20]);
    let (sender, taken) = send(&mut sim, &env, sender, batch);
    assert!(taken.len() > 1);
    assert_eq!(taken.iter().sum::<usize>(), 20);
    assert!(taken.iter().all(|count| *count > 0));
    assert_eq!(sim.faults().effect(FaultKind::ShortSend), taken.len() as u64 - 1);
    assert_eq!(sender.report().packets_out, 20);
    sim.run_for(MS);
    let (_receiver, received) = receive(&mut sim, &env, receiver, 64);
    assert_eq!(received.len(), 20);
}

#[test]
fn no_more_is_received_than_batch_and_pool_have_room_for() {
    let mut sim = Sim::new(SimConfig { short_send: 0.0, ..SimConfig::default() });
    let env = sim.host("node", ip(1));
    let sender = bind(&mut sim, &env, "10.0.0.1:0", UdpOptions::default()).unwrap();
    let options = UdpOptions { pool_packets: 5, ..UdpOptions::default() };
    let receiver = bind(&mut sim, &env, "10.0.0.1:0", options).unwrap();
    let batch = queue(&sender, receiver.local_addr(), &[&[1; 9][..]; 12]);
    let (_sender, taken) = send(&mut sim, &env, sender, batch);
    assert_eq!(taken, [12]);
    sim.run_for(MS);
    let (receiver, three) = receive(&mut sim, &env, receiver, 3);
    assert_eq!(three.len(), 3);
    let (receiver, two) = receive(&mut sim, &env, receiver, 64);
    assert_eq!(two.len(), 2);
    let (receiver, none) = receive(&mut sim, &env, receiver, 64);
    assert_eq!(none.len(), 0);
    drop((three, two));
    let (_receiver, five) = receive(&mut sim, &env, receiver, 64);
    assert_eq!(five.len(), 5);
}

#[test]
fn a_task_that_waits_with_an_empty_pool_goes_on_when_a_buffer_comes_back() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let sender = bind(&mut sim, &env, "10.0.0.1:0", UdpOptions::default()).unwrap();
    let options = UdpOptions { pool_packets: 1, ..UdpOptions::default() };
    let mut receiver = bind(&mut sim, &env, "10.0.0.1:0", options).unwrap();
    let held = Rc::new(RefCell::new(receiver.pool().take()));
    let batch = queue(&sender, receiver.local_addr(), &[&[1; 9]]);
    send(&mut sim, &env, sender, batch);
    let waiting = async move {
        let mut batch = DatagramBatch::new(1);
        poll_fn(|cx| receiver.poll_recv(cx, &mut batch)).await.unwrap()
    };
    let outcome = Rc::new(RefCell::new(None));
    let told = Rc::clone(&outcome);
    let _task = twinspan_provider::TaskProvider::spawn(&env, "waits", async move {
        let received = waiting.await;
        *told.borrow_mut() = Some(received);
    });
    sim.run_for(MS);
    assert_eq!(*outcome.borrow(), None);
    held.take();
    sim.run_for(MS);
    assert_eq!(*outcome.borrow(), Some(1));
}

#[test]
fn a_full_receive_queue_drops_and_counts() {
    let config = SimConfig { receive_queue_datagrams_max: 10, ..SimConfig::default() };
    let mut sim = Sim::new(config);
    let env = sim.host("node", ip(1));
    let sender = bind(&mut sim, &env, "10.0.0.1:0", UdpOptions::default()).unwrap();
    let receiver = bind(&mut sim, &env, "10.0.0.1:0", UdpOptions::default()).unwrap();
    let batch = queue(&sender, receiver.local_addr(), &[&[1; 9][..]; 25]);
    let (_sender, _) = send(&mut sim, &env, sender, batch);
    sim.run_for(MS);
    assert_eq!(sim.faults().effect(FaultKind::ReceiveDrop), 15);
    assert_eq!(receive(&mut sim, &env, receiver, 64).1.len(), 10);
}

#[test]
fn the_granted_receive_buffer_limits_the_bytes_that_wait() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let sender = bind(&mut sim, &env, "10.0.0.1:0", UdpOptions::default()).unwrap();
    let options = UdpOptions { receive_buffer_bytes: 5_000, ..UdpOptions::default() };
    let receiver = bind(&mut sim, &env, "10.0.0.1:0", options).unwrap();
    assert_eq!(receiver.report().receive_buffer_bytes, 5_000);
    assert_eq!(receiver.report().path, "simulated");
    let batch = queue(&sender, receiver.local_addr(), &[&[1; 1_000][..]; 8]);
    let (_sender, _) = send(&mut sim, &env, sender, batch);
    sim.run_for(MS);
    assert_eq!(receive(&mut sim, &env, receiver, 64).1.len(), 5);
}

#[test]
fn what_a_kernel_would_not_send_is_counted_and_dropped() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    for (local, to) in [
        ("10.0.0.1:0", "[::1]:5000"),
        ("127.0.0.1:0", "10.0.0.2:5000"),
        ("10.0.0.1:0", "10.0.0.2:0"),
        ("10.0.0.1:0", "0.0.0.0:5000"),
        ("[::]:0", "[2001:db8::1]:5000"),
    ] {
        let sender = bind(&mut sim, &env, local, UdpOptions::default()).unwrap();
        let batch = queue(&sender, to.parse().unwrap(), &[&[1]]);
        let (sender, taken) = send(&mut sim, &env, sender, batch);
        assert_eq!(taken, [1]);
        let report = sender.report();
        assert_eq!((report.send_errors, report.packets_out), (1, 0), "{local} to {to}");
        assert_eq!(sender.pool().outstanding(), 0);
    }
}

#[test]
fn what_nobody_listens_for_is_counted() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    sim.host("other", ip(2));
    let sender = bind(&mut sim, &env, "0.0.0.0:0", UdpOptions::default()).unwrap();
    let mut batch = queue(&sender, "10.0.0.2:5000".parse().unwrap(), &[&[1]]);
    let mut nowhere = queue(&sender, "10.9.9.9:5000".parse().unwrap(), &[&[1]]);
    let mut both = DatagramBatch::new(2);
    both.push(batch.pop().unwrap()).unwrap();
    both.push(nowhere.pop().unwrap()).unwrap();
    let (sender, _) = send(&mut sim, &env, sender, both);
    sim.run_for(MS);
    assert_eq!(sender.report().packets_out, 2);
    assert_eq!(sim.faults().effect(FaultKind::Unbound), 2);
}

#[test]
fn a_wildcard_socket_hears_and_answers_by_the_address_asked() {
    let mut sim = Sim::new(SimConfig::default());
    let (near, far) = (sim.host("near", ip(1)), sim.host("far", ip(2)));
    let server = bind(&mut sim, &near, "0.0.0.0:5000", UdpOptions::default()).unwrap();
    assert_eq!(server.local_addr(), "0.0.0.0:5000".parse().unwrap());
    let local = bind(&mut sim, &near, "127.0.0.1:6000", UdpOptions::default()).unwrap();
    let remote = bind(&mut sim, &far, "0.0.0.0:6000", UdpOptions::default()).unwrap();
    let batch = queue(&local, "127.0.0.1:5000".parse().unwrap(), &[b"local"]);
    let (local, _) = send(&mut sim, &near, local, batch);
    let batch = queue(&remote, "10.0.0.1:5000".parse().unwrap(), &[b"remote"]);
    let (remote, _) = send(&mut sim, &far, remote, batch);
    sim.run_for(MS);
    let (server, received) = receive(&mut sim, &near, server, 2);
    let peers: Vec<_> = received.iter().map(|datagram| datagram.peer.to_string()).collect();
    assert_eq!(peers, ["10.0.0.2:6000", "127.0.0.1:6000"]);
    send(&mut sim, &near, server, received);
    sim.run_for(MS);
    for (env, socket, from) in [(&near, local, "127.0.0.1:5000"), (&far, remote, "10.0.0.1:5000")] {
        let (_socket, received) = receive(&mut sim, env, socket, 2);
        let peers: Vec<_> = received.iter().map(|datagram| datagram.peer.to_string()).collect();
        assert_eq!(peers, [from]);
    }
}

#[test]
fn the_way_to_oneself_is_short_and_clean() {
    let conditions = Conditions { loss: 1.0, delay: 500 * MS, ..Conditions::CLEAN };
    let mut sim = Sim::new(SimConfig { conditions, ..SimConfig::default() });
    let env = sim.host("node", ip(1));
    let server = Rc::new(RefCell::new(Echo::default()));
    let client = Client::new(SocketAddr::new(ip(1), PORT), 10 * MS, 5);
    let client = Rc::new(RefCell::new(client));
    let _tasks = [start(&env, PORT, &server), start(&env, 0, &client)];
    sim.run_for(100 * MS);
    let received = client.borrow().received.clone();
    let first = Timestamp::START.after(10 * MS + 2 * LOOPBACK_DELAY);
    assert_eq!(received.first(), Some(&(0, first)));
    assert_eq!(received.len(), 5);
}

#[test]
fn even_a_link_without_delay_takes_a_moment() {
    let mut sim = Sim::new(SimConfig::default());
    let server = Rc::new(RefCell::new(Echo::default()));
    let client = Client::new(SocketAddr::new(ip(1), PORT), 10 * MS, 1);
    let client = Rc::new(RefCell::new(client));
    let _server = start(&sim.host("server", ip(1)), PORT, &server);
    let _client = start(&sim.host("client", ip(2)), 0, &client);
    sim.run_for(100 * MS);
    let at = Timestamp::START.after(10 * MS + 2 * WIRE_DELAY_MIN);
    assert_eq!(client.borrow().received, [(0, at)]);
}

#[test]
fn a_burst_arrives_as_a_batch() {
    let conditions = Conditions { delay: 5 * MS, ..Conditions::CLEAN };
    let mut sim = Sim::new(SimConfig { conditions, short_send: 0.0, ..SimConfig::default() });
    let server = Rc::new(RefCell::new(Echo::default()));
    let mut client = Client::new(SocketAddr::new(ip(1), PORT), 10 * MS, 40);
    client.burst = 40;
    let client = Rc::new(RefCell::new(client));
    let _server = start(&sim.host("server", ip(1)), PORT, &server);
    let _client = start(&sim.host("client", ip(2)), 0, &client);
    sim.run_for(100 * MS);
    assert_eq!(server.borrow().batch_max, 40);
    assert_eq!(client.borrow().received.len(), 40);
}

/// When each datagram of `sent_at_us` is taken, with how many others, by who lets datagrams gather
/// for a millisecond and is woken by a deadline of its own at `deadline_us`.
fn gathered(sent_at_us: &'static [u64], deadline_us: u64) -> Vec<(u64, usize)> {
    let mut sim = Sim::new(SimConfig { short_send: 0.0, ..SimConfig::default() });
    let (sender, receiver) = (sim.host("sender", ip(1)), sim.host("receiver", ip(2)));
    let to = SocketAddr::new(ip(2), PORT);
    let options = UdpOptions { gather: MS, ..UdpOptions::default() };
    let mut socket = bind(&mut sim, &receiver, &to.to_string(), options).unwrap();
    assert_eq!(socket.report().gather, MS);
    let began = sim.now();
    let taken = Rc::new(RefCell::new(Vec::new()));
    let (told, inner) = (Rc::clone(&taken), receiver.clone());
    let receiving = receiver.spawn("receive", async move {
        let mut timer = inner.timer();
        timer.set(Some(began.after(Duration::from_micros(deadline_us))));
        let mut batch = DatagramBatch::new(64);
        loop {
            poll_fn(|cx| {
                if timer.poll_expired(cx).is_ready() {
                    timer.set(None);
                }
                socket.poll_recv(cx, &mut batch)
            })
            .await
            .unwrap();
            let at = inner.now().since(began).as_micros() as u64;
            told.borrow_mut().push((at, batch.len()));
            batch.clear();
        }
    });
    let local = SocketAddr::new(ip(1), PORT).to_string();
    let mut socket = bind(&mut sim, &sender, &local, UdpOptions::default()).unwrap();
    let inner = sender.clone();
    let sending = sender.spawn("send", async move {
        let mut timer = inner.timer();
        for at in sent_at_us {
            timer.set(Some(began.after(Duration::from_micros(*at))));
            poll_fn(|cx| timer.poll_expired(cx)).await;
            let mut batch = queue(&socket, to, &[b"tick"]);
            poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.unwrap();
        }
    });
    sim.run_for(LIMIT);
    drop((receiving, sending));
    taken.take()
}

#[test]
fn datagrams_gather_after_a_receive_and_a_quiet_socket_hears_at_once() {
    // Each is a microsecond on its way.
    let taken = gathered(&[100, 200, 500, 900, 5_000], 100_000);
    assert_eq!(taken, [(101, 1), (1_101, 3), (5_001, 1)]);
}

#[test]
fn who_is_awake_anyway_takes_what_has_gathered() {
    assert_eq!(gathered(&[100, 200, 500, 900], 600), [(101, 1), (600, 2), (1_600, 1)]);
}
