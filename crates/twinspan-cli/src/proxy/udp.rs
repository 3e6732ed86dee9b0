//! Datagrams: each client gets a socket of its own towards where the way leads, as a NAT would do it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use twinspan_core::link::Arrival;
use twinspan_core::random::draw;

use super::config::Way;
use super::link::{Clock, IDLE_MAX, SharedLink, Waiting, until};
use super::{Counters, Tasks};

/// Clients of one way that are carried at the same time.
pub(super) const CLIENTS_MAX: usize = 4_096;
/// Datagrams of one client that wait, both ways together.
const WAITING_MAX: usize = 16_384;
/// Datagrams that wait for a client's task.
const HANDED_MAX: usize = 1_024;
/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What the parts of one way share.
#[derive(Clone)]
struct Shared {
    way: Rc<Way>,
    front: Rc<UdpSocket>,
    up: SharedLink,
    down: SharedLink,
    clock: Clock,
    counters: Counters,
}

/// A client, as the front knows it.
struct Client {
    datagrams: mpsc::Sender<Vec<u8>>,
    task: JoinHandle<()>,
}

/// Where a delayed datagram goes.
#[derive(Clone, Copy)]
enum Leg {
    Up,
    Down,
}

/// Carries datagrams until the future is dropped.
pub(super) async fn carry(
    way: Rc<Way>,
    front: UdpSocket,
    (up, down): (SharedLink, SharedLink),
    (clock, counters): (Clock, Counters),
) {
    let shared = Shared { way, front: Rc::new(front), up, down, clock, counters };
    let clients: Rc<RefCell<BTreeMap<SocketAddr, Client>>> = Rc::default();
    let _ended = Tasks::new({
        let clients = Rc::clone(&clients);
        move || clients.borrow().values().for_each(|client| client.task.abort())
    });
    let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error is one of an earlier datagram to a client that is gone.
        let Ok((len, client)) = shared.front.recv_from(&mut bytes).await else { continue };
        let datagram = bytes.get(..len).unwrap_or_default().to_vec();
        let known = clients.borrow().get(&client).map(|known| known.datagrams.clone());
        let sender = match known.filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => match begin(&shared, &clients, client).await {
                Some(sender) => sender,
                None => {
                    shared.counters.refuse();
                    continue;
                }
            },
        };
        if sender.try_send(datagram).is_err() {
            shared.counters.overflow();
        }
    }
}

/// Begins to carry a client; `None` when there are too many or there is no socket.
async fn begin(
    shared: &Shared,
    clients: &Rc<RefCell<BTreeMap<SocketAddr, Client>>>,
    client: SocketAddr,
) -> Option<mpsc::Sender<Vec<u8>>> {
    clients.borrow_mut().retain(|_, client| !client.task.is_finished());
    if clients.borrow().len() >= CLIENTS_MAX {
        return None;
    }
    let back = toward(shared.way.to).await.ok()?;
    shared.counters.begin();
    let (datagrams, handed) = mpsc::channel(HANDED_MAX);
    let task = tokio::task::spawn_local(serve(shared.clone(), client, back, handed));
    clients.borrow_mut().insert(client, Client { datagrams: datagrams.clone(), task });
    Some(datagrams)
}

/// A socket that speaks to one address.
async fn toward(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Carries one client until nothing came for a while.
async fn serve(
    shared: Shared,
    client: SocketAddr,
    back: UdpSocket,
    mut handed: mpsc::Receiver<Vec<u8>>,
) {
    let Shared { front, up, down, clock, counters, .. } = &shared;
    let flow = flow_of(client);
    let mut waiting: Waiting<(Leg, Arrival, Vec<u8>)> = Waiting::new(WAITING_MAX);
    let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
    let mut heard_at = clock.now();
    loop {
        let idle_at = heard_at.after(IDLE_MAX);
        let wake_at = waiting.next().map_or(idle_at, |next| next.min(idle_at));
        let came = tokio::select! {
            datagram = handed.recv() => match datagram {
                Some(datagram) => Some((Leg::Up, datagram)),
                None => break,
            },
            // An error is one of an earlier datagram: nobody listens there now.
            received = back.recv(&mut bytes) => received.ok().map(|len| {
                (Leg::Down, bytes.get(..len).unwrap_or_default().to_vec())
            }),
            () = until(*clock, Some(wake_at)) => None,
        };
        let now = clock.now();
        if let Some((leg, datagram)) = came {
            heard_at = now;
            let link = match leg {
                Leg::Up => up,
                Leg::Down => down,
            };
            for arrival in link.admit(now, flow, datagram.len()) {
                if !waiting.push(arrival.at, (leg, arrival, datagram.clone())) {
                    counters.overflow();
                }
            }
        } else if now >= idle_at {
            break;
        }
        while let Some((leg, arrival, datagram)) = waiting.pop(now) {
            // What the system does not take is lost as on any network.
            let _ = match leg {
                Leg::Up => {
                    up.arrived(flow, &arrival);
                    back.send(&datagram).await
                }
                Leg::Down => {
                    down.arrived(flow, &arrival);
                    front.send_to(&datagram, client).await
                }
            };
        }
    }
    up.forget(flow);
    down.forget(flow);
}

/// The flow of a client, the same in every run.
pub(super) fn flow_of(client: SocketAddr) -> u64 {
    let ip = match client.ip() {
        std::net::IpAddr::V4(ip) => u128::from(ip.to_bits()),
        std::net::IpAddr::V6(ip) => ip.to_bits(),
    };
    draw(u64::from(client.port()), &[ip as u64, (ip >> 64) as u64])
}
