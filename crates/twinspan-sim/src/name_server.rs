//! A name server on a simulated host: it answers from the simulation's names, by messages of DNS.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_provider::dns::{
    DNS_DATAGRAM_BYTES_MAX, DNS_MESSAGE_BYTES_MAX, DNS_PORT, DnsLookup, DnsQuery, DnsReply,
    SERVFAIL, Verdict,
};
use twinspan_provider::{
    AcceptError, AsyncReadExt, AsyncWriteExt, NetworkProvider, TaskProvider, TcpListener,
    TcpOptions, TcpStream, TimeProvider, UdpOptions, UdpSocket,
};

use crate::env::SimEnv;
use crate::executor::SimTask;
use crate::names::NameFailure;
use crate::scenario::{sleep, within};
use crate::tcp::SimTcp;
use crate::udp::SimUdp;

/// Streams that a name server answers on at the same time; further ones end at once.
pub const NAME_STREAMS_MAX: usize = 64;
/// How long a stream may stay without a question.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// How long a name server waits where its host lets it have no socket.
const RETRY: Duration = Duration::from_millis(100);
/// What a forged answer has in place of the id: the id of no question.
const NOT_THE_ID: u16 = 0x5a5a;

/// Answers questions for the simulation's names at the host's port 53, over datagrams and over
/// streams, until the tasks are dropped. [`Sim::set_name_server`](crate::Sim::set_name_server) sends
/// the hosts' questions there.
///
/// ```
/// use std::net::IpAddr;
/// use std::time::Duration;
/// use twinspan_provider::NetworkProvider;
/// use twinspan_sim::{Sim, SimConfig, serve_names};
///
/// let mut sim = Sim::new(SimConfig::default());
/// let [names, here] = [53, 1].map(|last| IpAddr::from([10, 0, 0, last]));
/// sim.boot("names", names, |env, _| serve_names(&env));
/// sim.set_name_server(Some(names));
/// sim.set_name("here.test", &[here], Duration::from_secs(60));
/// let env = sim.host("here", here);
/// let inner = env.clone();
/// let found = sim.block_on(&env, Duration::from_secs(9), async move {
///     inner.resolve("here.test", 80).await
/// });
/// assert_eq!(found.unwrap().unwrap().addresses, [(here, 80).into()]);
/// assert!(sim.events() > 4); // questions and answers travelled
/// ```
pub fn serve_names(env: &SimEnv) -> Vec<SimTask> {
    vec![
        env.spawn("names by datagrams", by_datagrams(env.clone())),
        env.spawn("names by streams", by_streams(env.clone())),
    ]
}

async fn by_datagrams(env: SimEnv) {
    let local = SocketAddr::new(env.ip(), DNS_PORT);
    let options = UdpOptions { pool_packets: 64, ..UdpOptions::default() };
    loop {
        if let Ok(mut socket) = env.bind_udp(local, &options).await
            && answer_datagrams(&env, &mut socket).await.is_err()
        {
            return;
        }
        // Planned faults may leave a host without descriptors for a while.
        sleep(&env, RETRY).await;
    }
}

async fn answer_datagrams(env: &SimEnv, socket: &mut SimUdp) -> io::Result<()> {
    let mut received = DatagramBatch::new(16);
    let mut out = DatagramBatch::new(32);
    loop {
        poll_fn(|cx| socket.poll_recv(cx, &mut received)).await.map_err(io::Error::other)?;
        while let Some(datagram) = received.pop() {
            let peer = datagram.peer;
            let Ok(query) = DnsQuery::parse(&datagram.packet) else { continue };
            drop(datagram);
            let judged = env.judge(query, (peer, socket.local_addr()), false);
            for message in judged.messages(DNS_DATAGRAM_BYTES_MAX) {
                if let Some(mut packet) = socket.pool().take()
                    && packet.fill(&message)
                {
                    // Of very many questions at once some stay without an answer.
                    let _ = out.push(Datagram { peer, at: env.now(), packet });
                }
            }
        }
        while !out.is_empty() {
            poll_fn(|cx| socket.poll_send(cx, &mut out)).await.map_err(io::Error::other)?;
        }
    }
}

async fn by_streams(env: SimEnv) {
    let local = SocketAddr::new(env.ip(), DNS_PORT);
    let mut tasks: Vec<SimTask> = Vec::new();
    loop {
        let Ok(mut listener) = env.listen(local, &TcpOptions::default()).await else {
            sleep(&env, RETRY).await;
            continue;
        };
        loop {
            let accepted = listener.accept().await;
            tasks.retain(|task| !task.is_finished());
            match accepted {
                Ok(stream) if tasks.len() < NAME_STREAMS_MAX => {
                    tasks.push(env.spawn("names of a stream", answer_stream(env.clone(), stream)));
                }
                Ok(_) => {}
                Err(AcceptError::Exhausted(_)) => sleep(&env, RETRY).await,
                Err(_) => break,
            }
        }
        sleep(&env, RETRY).await;
    }
}

async fn answer_stream(env: SimEnv, mut stream: SimTcp) {
    let ends = (stream.peer_addr(), stream.local_addr());
    loop {
        let asked = within(&env, IDLE_TIME, read_framed(&mut stream)).await;
        let Some(Ok(message)) = asked else { return };
        let Ok(query) = DnsQuery::parse(&message) else { return };
        let judged = env.judge(query, ends, true);
        for message in judged.messages(DNS_MESSAGE_BYTES_MAX) {
            // An answer is never longer than its bound.
            let mut framed = (message.len() as u16).to_be_bytes().to_vec();
            framed.extend_from_slice(&message);
            let told = within(&env, IDLE_TIME, stream.write_all(&framed)).await;
            if !matches!(told, Some(Ok(()))) {
                return;
            }
        }
    }
}

async fn read_framed(stream: &mut SimTcp) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// What a name server says to one question.
#[derive(Default)]
struct Judged {
    /// What somebody else says first, by another id.
    forged: Option<DnsReply>,
    reply: Option<DnsReply>,
}

impl Judged {
    fn messages(&self, bytes_max: usize) -> impl Iterator<Item = Vec<u8>> {
        let all = [&self.forged, &self.reply];
        all.into_iter().flatten().map(move |reply| reply.to_bytes(bytes_max))
    }
}

impl SimEnv {
    /// What comes of a question, with all that may go wrong. `ends` are the client's and the server's
    /// addresses as the server sees them.
    fn judge(&self, query: DnsQuery, ends: (SocketAddr, SocketAddr), is_stream: bool) -> Judged {
        let (world, host, _) = self.parts();
        // One question has one number, however often it is sent.
        let number = u64::from(query.id) << 1 | u64::from(is_stream);
        let asked = (number, is_stream);
        let (answer, may) = world.answer_by_wire(host, &query.name, ends, asked);
        let mut judged = Judged::default();
        let reply = match answer {
            Ok(Some((ips, ttl))) => DnsReply::known(query, &ips, ttl),
            Ok(None) => DnsReply::without(query, Verdict::Unknown),
            Err(NameFailure::Unknown) => DnsReply::without(query, Verdict::Unknown),
            Err(NameFailure::ServerFailure) => DnsReply::without(query, Verdict::Failed(SERVFAIL)),
            Err(NameFailure::Timeout) => return judged,
        };
        if may.is_forged {
            let mut forged = reply.clone();
            forged.query.id ^= NOT_THE_ID;
            forged.addresses.clear();
            forged.verdict = Verdict::Unknown;
            judged.forged = Some(forged);
        }
        judged.reply = Some(DnsReply { is_cut: may.is_cut, ..reply });
        judged
    }

    /// Counts what a look-up met, as far as faults were behind it.
    pub(crate) fn note_lookup(&self, lookup: &DnsLookup) {
        let (world, _, _) = self.parts();
        let faults = &mut world.state.borrow_mut().faults;
        let met = [
            (FaultKind::NameForged, lookup.ignored),
            (FaultKind::NameTruncated, lookup.over_stream),
        ];
        for (kind, times) in met {
            // Damage on the way, and answers that are really too long, look the same.
            let open = faults.injected(kind).saturating_sub(faults.effect(kind));
            (0..u64::from(times).min(open)).for_each(|_| faults.observe(kind));
        }
    }
}
