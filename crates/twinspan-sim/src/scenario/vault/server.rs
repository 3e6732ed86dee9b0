//! The server: it acknowledges what the journal has.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, Ecn};
use twinspan_provider::{
    AcceptError, AsyncReadExt, AsyncWriteExt, NetworkProvider, TaskProvider, TcpListener,
    TcpOptions, TimeProvider, UdpOptions, UdpSocket,
};

use super::super::echo::{sleep, within};
use super::journal::{Journal, commit};
use super::{DATAGRAM_PORT, ENTRY_BYTES, Entry, RETRY, STREAM_PORT, Within};
use crate::env::SimEnv;
use crate::executor::SimTask;
use crate::tcp::SimTcp;

/// How long the server waits for the next request of a stream.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Connections at the same time; further ones are closed.
const CONNECTIONS_MAX: u64 = 64;
/// Datagrams that are taken at once.
const BATCH: u64 = 16;

/// Acknowledges payments over datagrams.
pub(super) async fn datagrams(env: SimEnv, journal: Rc<RefCell<Journal>>) {
    let local = SocketAddr::new(env.ip(), DATAGRAM_PORT);
    let mut socket = loop {
        match env.bind_udp(local, &UdpOptions { ecn: true, ..UdpOptions::default() }).await {
            Ok(socket) => break socket,
            Err(_) => sleep(&env, RETRY).await,
        }
    };
    let batch = env.knob("batch", BATCH, 1..=BATCH) as usize;
    let (mut received, mut out) = (DatagramBatch::new(batch), DatagramBatch::new(batch));
    loop {
        if poll_fn(|cx| socket.poll_recv(cx, &mut received)).await.is_err() {
            return;
        }
        let mut asked = Vec::new();
        while let Some(datagram) = received.pop() {
            let is_marked = datagram.packet.ecn() == Ecn::Congested;
            crate::sometimes!(is_marked, "a payment met a queue on its way");
            let entry = Entry::read(&datagram.packet, Within::Request);
            asked.extend(entry.map(|entry| (datagram.peer, entry)));
        }
        let entries: Vec<_> = asked.iter().map(|(_, entry)| *entry).collect();
        commit(&journal, &entries).await;
        for (peer, entry) in asked {
            if let Some(mut packet) = socket.pool().take()
                && packet.fill(&entry.write(Within::Answer))
            {
                // As large as what was received; one without a buffer is asked for again.
                let _ = out.push(Datagram { peer, at: env.now(), packet });
            }
        }
        while !out.is_empty() {
            if poll_fn(|cx| socket.poll_send(cx, &mut out)).await.is_err() {
                return;
            }
        }
    }
}

/// Acknowledges payments over streams.
pub(super) async fn streams(env: SimEnv, journal: Rc<RefCell<Journal>>) {
    let local = SocketAddr::new(env.ip(), STREAM_PORT);
    let mut listener = loop {
        match env.listen(local, &TcpOptions::default()).await {
            Ok(listener) => break listener,
            Err(_) => sleep(&env, RETRY).await,
        }
    };
    let connections_max =
        env.knob("connections_max", CONNECTIONS_MAX, 1..=CONNECTIONS_MAX) as usize;
    let mut tasks: Vec<SimTask> = Vec::new();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                tasks.retain(|task| !task.is_finished());
                if tasks.len() < connections_max {
                    let connection = connection(env.clone(), stream, Rc::clone(&journal));
                    tasks.push(env.spawn("connection", connection));
                }
            }
            Err(AcceptError::HostStopped) => return,
            Err(_) => sleep(&env, RETRY).await,
        }
    }
}

async fn connection(env: SimEnv, mut stream: SimTcp, journal: Rc<RefCell<Journal>>) {
    loop {
        let mut bytes = [0; ENTRY_BYTES];
        let asked = within(&env, IDLE_TIME, stream.read_exact(&mut bytes)).await;
        let (Some(Ok(_)), Some(entry)) = (asked, Entry::read(&bytes, Within::Request)) else {
            return;
        };
        commit(&journal, &[entry]).await;
        let answer = entry.write(Within::Answer);
        let answered = within(&env, IDLE_TIME, stream.write_all(&answer)).await;
        if !matches!(answered, Some(Ok(()))) {
            return;
        }
    }
}
