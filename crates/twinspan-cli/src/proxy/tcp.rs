//! Streams: each connection is carried in pieces, which are late where a network would lose them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use twinspan_core::link::Arrival;
use twinspan_core::random::draw;

use super::Counters;
use super::config::Way;
use super::link::{Clock, SharedLink, until};

/// Connections of one way that are carried at the same time.
pub(super) const CONNECTIONS_MAX: usize = 4_096;
/// The most bytes of a piece.
const PIECE_BYTES_MAX: usize = 16 << 10;
/// Pieces on the way in one direction of a connection; its sender waits when there are so many.
const PIECES_MAX: usize = 256;
/// How long to wait after the system gave no connection, for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A piece on its way; the end of the stream where there are no bytes.
struct Piece {
    arrival: Arrival,
    bytes: Vec<u8>,
}

/// Carries connections until the future is dropped.
pub(super) async fn carry(
    way: Rc<Way>,
    listener: TcpListener,
    links: (SharedLink, SharedLink),
    (clock, counters): (Clock, Counters),
) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if connections.len() >= CONNECTIONS_MAX {
            counters.refuse();
            continue;
        }
        number += 1;
        counters.begin();
        let flow = draw(0, &[number]);
        connections.spawn_local(connection(Rc::clone(&way), stream, links.clone(), clock, flow));
    }
}

/// Carries one connection to its end. A client whose connection leads nowhere is reset.
async fn connection(
    way: Rc<Way>,
    client: TcpStream,
    (up, down): (SharedLink, SharedLink),
    clock: Clock,
    flow: u64,
) {
    if let Ok(server) = TcpStream::connect(way.to).await {
        // Small pieces go at once: what they wait for is the link's to say.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        let broken = Rc::new(RefCell::new(false));
        let there = direction((client_in, server_out), &up, clock, flow, &broken);
        let back = direction((server_in, client_out), &down, clock, flow, &broken);
        // A direction that breaks ends both.
        tokio::pin!(there, back);
        tokio::select! {
            () = &mut there => if !*broken.borrow() { back.await },
            () = &mut back => if !*broken.borrow() { there.await },
        }
    }
    up.forget(flow);
    down.forget(flow);
}

/// Carries one direction until its end has arrived, or it breaks.
async fn direction(
    (from, to): (OwnedReadHalf, OwnedWriteHalf),
    link: &SharedLink,
    clock: Clock,
    flow: u64,
    broken: &Rc<RefCell<bool>>,
) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let (read, written) =
        tokio::join!(read(from, link, clock, flow, sender), write(to, link, clock, flow, pieces));
    if read.is_none() || written.is_none() {
        *broken.borrow_mut() = true;
    }
}

async fn read(
    mut from: OwnedReadHalf,
    link: &SharedLink,
    clock: Clock,
    flow: u64,
    pieces: mpsc::Sender<Piece>,
) -> Option<()> {
    let mut bytes = vec![0; PIECE_BYTES_MAX];
    loop {
        let room = pieces.reserve().await.ok()?;
        let len = from.read(&mut bytes).await.ok()?;
        let arrival = link.admit_piece(clock.now(), flow, len)?;
        room.send(Piece { arrival, bytes: bytes.get(..len).unwrap_or_default().to_vec() });
        if len == 0 {
            return Some(());
        }
    }
}

async fn write(
    mut to: OwnedWriteHalf,
    link: &SharedLink,
    clock: Clock,
    flow: u64,
    mut pieces: mpsc::Receiver<Piece>,
) -> Option<()> {
    while let Some(Piece { arrival, bytes }) = pieces.recv().await {
        until(clock, Some(arrival.at)).await;
        link.arrived(flow, &arrival);
        if bytes.is_empty() {
            return to.shutdown().await.ok();
        }
        to.write_all(&bytes).await.ok()?;
    }
    None
}
