//! Asking a name server over the network: datagrams first, a stream where an answer does not fit.
//!
//! [`resolve_by_dns`] runs over any side of the seam. Whoever has a system's resolver uses that one,
//! which knows hosts files and search domains; this is for hosts that have none, and for simulations
//! in which what a resolver meets is to be met.

#[cfg(test)]
mod tests;
mod wire;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;

use crate::{
    NetworkProvider, RESOLVE_TIMEOUT, RandomProvider, ResolveError, Resolved, TcpOptions,
    TimeProvider, Timer, UdpOptions, UdpSocket, resolve_special,
};
pub use wire::{
    DNS_DATAGRAM_BYTES_MAX, DNS_MESSAGE_BYTES_MAX, DnsFormatError, DnsQuery, DnsReply, RecordKind,
    SERVFAIL, Verdict, fuzz_dns,
};

/// Where name servers listen, for datagrams and for streams.
pub const DNS_PORT: u16 = 53;
/// How long an answer is waited for before the question is sent again, doubled each time.
pub const DNS_ATTEMPT_WAIT: Duration = Duration::from_secs(1);

/// Whom to ask, and with how much patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The name server.
    pub server: SocketAddr,
    /// How long an answer is waited for before the question is sent again; doubled each time, from
    /// 1 ms up.
    pub attempt_wait: Duration,
    /// How long all of it may take.
    pub timeout: Duration,
}

impl DnsConfig {
    /// The usual patience with a server.
    pub const fn new(server: SocketAddr) -> Self {
        Self { server, attempt_wait: DNS_ATTEMPT_WAIT, timeout: RESOLVE_TIMEOUT }
    }
}

/// How a look-up went.
#[derive(Debug)]
pub struct DnsLookup {
    /// What came of it.
    pub answer: Result<Resolved, ResolveError>,
    /// Questions that were sent again.
    pub resent: u32,
    /// Datagrams from the server's address that answered another question, or none: forged, late or
    /// damaged. They count for nothing.
    pub ignored: u32,
    /// Answers that did not fit a datagram and were asked for over a stream.
    pub over_stream: u32,
}

/// What is known of one kind of addresses.
#[derive(Debug)]
enum Part {
    Open,
    /// To be asked for over a stream.
    Cut,
    Known(Vec<IpAddr>, Option<Duration>),
    Unknown,
    Failed,
}

/// One look-up in progress: a question for each kind of addresses.
struct Asking {
    queries: [DnsQuery; 2],
    parts: [Part; 2],
    resent: u32,
    ignored: u32,
    over_stream: u32,
}

impl Asking {
    fn new(name: &str, ids: [u16; 2]) -> Self {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let [one, other] = ids;
        let a = DnsQuery { id: one, name: name.clone(), kind: RecordKind::A };
        let aaaa = DnsQuery { id: other, name, kind: RecordKind::Aaaa };
        let parts = [Part::Open, Part::Open];
        Self { queries: [a, aaaa], parts, resent: 0, ignored: 0, over_stream: 0 }
    }

    /// What to send now.
    fn open(&self) -> impl Iterator<Item = &DnsQuery> {
        let open = self.parts.iter().zip(&self.queries);
        open.filter(|(part, _)| matches!(part, Part::Open)).map(|(_, query)| query)
    }

    /// Whether a name that there is not, or an answer to each question, makes an end.
    fn is_done(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Unknown))
            || self.parts.iter().all(|part| !matches!(part, Part::Open))
    }

    /// Whether there is enough to go on with where the rest does not come soon.
    fn has_any(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Known(ips, _) => !ips.is_empty(),
            // The server has them, for who asks over a stream.
            Part::Cut => true,
            Part::Open | Part::Unknown | Part::Failed => false,
        })
    }

    /// Takes a message from the server; one over a stream is never cut.
    fn take(&mut self, message: &[u8]) {
        let Ok(reply) = DnsReply::parse(message) else {
            self.ignored += 1;
            return;
        };
        let index = self.queries.iter().position(|query| *query == reply.query);
        let Some(part) = index.and_then(|index| self.parts.get_mut(index)) else {
            self.ignored += 1;
            return;
        };
        // What came first stands.
        if matches!(part, Part::Open | Part::Cut) {
            *part = match reply.verdict {
                Verdict::Known if reply.is_cut => Part::Cut,
                Verdict::Known => Part::Known(reply.addresses, reply.ttl),
                Verdict::Unknown => Part::Unknown,
                Verdict::Failed(_) => Part::Failed,
            };
        }
    }

    fn answer(&self, name: &str, port: u16) -> Result<Resolved, ResolveError> {
        let (mut ips, mut ttl) = (Vec::new(), None);
        let (mut has_failed, mut is_open) = (false, false);
        for part in &self.parts {
            match part {
                Part::Known(known, holds) => {
                    ips.extend_from_slice(known);
                    ttl = [ttl, *holds].into_iter().flatten().min();
                }
                Part::Unknown => {
                    return Err(ResolveError::NotFound { name: name.to_owned() });
                }
                Part::Failed => has_failed = true,
                Part::Open | Part::Cut => is_open = true,
            }
        }
        match () {
            () if !ips.is_empty() => Resolved::new(name, ips, port, ttl),
            () if has_failed => Err(ResolveError::ServerFailure { name: name.to_owned() }),
            () if is_open => Err(ResolveError::TimedOut { name: name.to_owned() }),
            () => Err(ResolveError::NotFound { name: name.to_owned() }),
        }
    }
}

/// Asks a name server for the addresses of a name, of both kinds, IPv4 first.
///
/// Answers count only where they come from the server's address, bear the id that was drawn for the
/// question, and repeat the question. Where one kind of addresses has come, or is to be asked for
/// over a stream, the other is waited for no longer than until it would be asked for again. Failures are typed as
/// [`NetworkProvider::resolve`] has them: a server that says that it cannot is a
/// [`ResolveError::ServerFailure`], one that says nothing a [`ResolveError::TimedOut`].
///
/// # Cancel safety
/// Dropping the future forgets the answer.
pub async fn resolve_by_dns<E>(env: &E, config: &DnsConfig, name: &str, port: u16) -> DnsLookup
where
    E: NetworkProvider + TimeProvider + RandomProvider,
{
    if let Some(answer) = resolve_special(name, port) {
        return DnsLookup { answer, resent: 0, ignored: 0, over_stream: 0 };
    }
    let mut ids = [0; 4];
    env.secrets().fill(&mut ids);
    let [a, b, c, d] = ids;
    let (first, second) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    // Two questions with one id could take one another's answers, but for their kind.
    let mut asking = Asking::new(name, [first, if first == second { !first } else { second }]);
    let outcome = ask(env, config, &mut asking).await;
    let answer = match outcome {
        Ok(()) => asking.answer(name, port),
        Err(source) => Err(ResolveError::Os { name: name.to_owned(), source }),
    };
    let Asking { resent, ignored, over_stream, .. } = asking;
    DnsLookup { answer, resent, ignored, over_stream }
}

/// Asks until all is known, or time is up.
async fn ask<E>(env: &E, config: &DnsConfig, asking: &mut Asking) -> io::Result<()>
where
    E: NetworkProvider + TimeProvider,
{
    let end = env.now().after(config.timeout);
    let local: IpAddr = match config.server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of its own for each look-up: who forges answers has to guess it beside the ids.
    let options = UdpOptions {
        receive_buffer_bytes: 64 << 10,
        send_buffer_bytes: 16 << 10,
        pool_packets: 8,
        ..UdpOptions::default()
    };
    let bound = env.bind_udp(SocketAddr::new(local, 0), &options).await;
    let mut socket = bound.map_err(io::Error::other)?;
    let mut wait = config.attempt_wait.max(Duration::from_millis(1));
    let mut is_first = true;
    while (is_first || !asking.has_any()) && !asking.is_done() && env.now() < end {
        let open: Vec<_> = asking.open().map(DnsQuery::to_bytes).collect();
        asking.resent += if is_first { 0 } else { open.len() as u32 };
        is_first = false;
        send(env, &mut socket, config.server, &open).await?;
        receive(env, &mut socket, config.server, env.now().after(wait).min(end), asking).await?;
        wait = wait.saturating_mul(2);
    }
    drop(socket);
    for index in 0..asking.parts.len() {
        let cut = asking.parts.get(index).is_some_and(|part| matches!(part, Part::Cut));
        let query = asking.queries.get(index).filter(|_| cut).map(DnsQuery::to_bytes);
        let Some(query) = query else { continue };
        asking.over_stream += 1;
        match until(env, end, ask_by_stream(env, config.server, end, &query)).await {
            Some(Ok(message)) => asking.take(&message),
            // There is an answer, and the server does not hand it over.
            Some(Err(_)) => {
                if let Some(part) = asking.parts.get_mut(index) {
                    *part = Part::Failed;
                }
            }
            None => {}
        }
        if let Some(part @ Part::Cut) = asking.parts.get_mut(index) {
            *part = Part::Open;
        }
    }
    Ok(())
}

async fn send<E>(
    env: &E,
    socket: &mut E::Udp,
    server: SocketAddr,
    messages: &[Vec<u8>],
) -> io::Result<()>
where
    E: NetworkProvider + TimeProvider,
{
    let mut out = DatagramBatch::new(messages.len().max(1));
    for message in messages {
        // The pool is larger than the batch; what finds no buffer is sent again later, as if lost.
        if let Some(mut packet) = socket.pool().take()
            && packet.fill(message)
        {
            // The batch has room for all of them.
            let _ = out.push(Datagram { peer: server, at: env.now(), packet });
        }
    }
    while !out.is_empty() {
        poll_fn(|cx| socket.poll_send(cx, &mut out)).await.map_err(io::Error::other)?;
    }
    Ok(())
}

/// Takes what comes until all is known or it is `until`.
async fn receive<E>(
    env: &E,
    socket: &mut E::Udp,
    server: SocketAddr,
    until: Timestamp,
    asking: &mut Asking,
) -> io::Result<()>
where
    E: NetworkProvider + TimeProvider,
{
    let mut received = DatagramBatch::new(4);
    let mut timer = env.timer();
    timer.set(Some(until));
    while !asking.is_done() {
        let came = poll_fn(|cx| match socket.poll_recv(cx, &mut received) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => timer.poll_expired(cx).map(|()| None),
        });
        let Some(outcome) = came.await else { return Ok(()) };
        outcome.map_err(io::Error::other)?;
        while let Some(datagram) = received.pop() {
            if datagram.peer == server {
                asking.take(&datagram.packet);
            }
        }
    }
    Ok(())
}

/// Asks over a stream, where each message has its length before it (RFC 1035, section 4.2.2).
async fn ask_by_stream<E>(
    env: &E,
    server: SocketAddr,
    end: Timestamp,
    query: &[u8],
) -> io::Result<Vec<u8>>
where
    E: NetworkProvider + TimeProvider,
{
    let options = TcpOptions { connect_timeout: end.since(env.now()), ..TcpOptions::default() };
    let mut stream = env.connect(server, &options).await.map_err(io::Error::other)?;
    // A question is far shorter than 64 KiB.
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// What `work` ends with, unless time is up before.
async fn until<E: TimeProvider, T>(
    env: &E,
    end: Timestamp,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut timer = env.timer();
    timer.set(Some(end));
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => timer.poll_expired(cx).map(|()| None),
    })
    .await
}
