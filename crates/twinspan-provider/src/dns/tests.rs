//! Look-ups over real sockets, from a server that behaves badly on purpose.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use super::*;
use crate::{TaskProvider, TcpListener, TokioEnv};

const MS: Duration = Duration::from_millis(1);

/// What the server does with questions that come in datagrams, in order; then it answers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Answer,
    Silence,
    /// Another id, and then an answer.
    Forge,
    /// Says that the answer did not fit.
    Cut,
    Fail,
    Unknown,
}

fn here() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn ips() -> [IpAddr; 2] {
    ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]
}

fn reply(query: DnsQuery, mood: Mood) -> Vec<DnsReply> {
    let known = |query: DnsQuery| DnsReply::known(query, &ips(), Duration::from_secs(60));
    match mood {
        Mood::Answer => vec![known(query)],
        Mood::Silence => Vec::new(),
        Mood::Forge => {
            let other = DnsQuery { id: !query.id, ..query.clone() };
            vec![DnsReply::without(other, Verdict::Unknown), known(query)]
        }
        Mood::Cut => vec![DnsReply { is_cut: true, ..known(query) }],
        Mood::Fail => vec![DnsReply::without(query, Verdict::Failed(SERVFAIL))],
        Mood::Unknown => vec![DnsReply::without(query, Verdict::Unknown)],
    }
}

async fn by_datagrams(env: TokioEnv, mut socket: crate::TokioUdp, moods: Rc<RefCell<Vec<Mood>>>) {
    let mut received = DatagramBatch::new(8);
    loop {
        poll_fn(|cx| socket.poll_recv(cx, &mut received)).await.unwrap();
        while let Some(datagram) = received.pop() {
            let query = DnsQuery::parse(&datagram.packet).unwrap();
            let mood = moods.borrow_mut().pop().unwrap_or(Mood::Answer);
            let messages: Vec<_> =
                reply(query, mood).iter().map(|it| it.to_bytes(DNS_DATAGRAM_BYTES_MAX)).collect();
            send(&env, &mut socket, datagram.peer, &messages).await.unwrap();
        }
    }
}

async fn by_streams(mut listener: crate::TokioListener) {
    loop {
        let mut stream = listener.accept().await.unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).await.unwrap();
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).await.unwrap();
        let query = DnsQuery::parse(&message).unwrap();
        for reply in reply(query, Mood::Answer) {
            let bytes = reply.to_bytes(DNS_MESSAGE_BYTES_MAX);
            let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
            framed.extend(bytes);
            stream.write_all(&framed).await.unwrap();
        }
    }
}

/// Asks a server of these moods, the last one first; without `serves_streams` it has no stream.
fn ask_one(moods: &[Mood], serves_streams: bool) -> DnsLookup {
    let attempt_wait = if moods.contains(&Mood::Silence) { 20 * MS } else { 60_000 * MS };
    ask_waiting(moods, serves_streams, attempt_wait)
}

fn ask_waiting(moods: &[Mood], serves_streams: bool, attempt_wait: Duration) -> DnsLookup {
    let env = TokioEnv::new(Some(1)).unwrap();
    let moods = Rc::new(RefCell::new(moods.to_vec()));
    env.block_on(async {
        // One port for both, which another program may have: then another.
        let (socket, listener) = loop {
            let listener = env.listen(here(), &TcpOptions::default()).await.unwrap();
            let local = crate::TcpListener::local_addr(&listener);
            if let Ok(socket) = env.bind_udp(local, &UdpOptions::default()).await {
                break (socket, listener);
            }
        };
        let server = socket.local_addr();
        let mut tasks = vec![env.spawn("names", by_datagrams(env.clone(), socket, moods))];
        if serves_streams {
            tasks.push(env.spawn("names by streams", by_streams(listener)));
        } else {
            drop(listener);
        }
        // Long where nothing is to be sent again, so that a busy machine changes no outcome.
        let config = DnsConfig { attempt_wait, timeout: 600_000 * MS, ..DnsConfig::new(server) };
        let lookup = resolve_by_dns(&env, &config, "Server.Example.", 80).await;
        drop(tasks);
        lookup
    })
}

fn both() -> Vec<SocketAddr> {
    ips().into_iter().map(|ip| SocketAddr::new(ip, 80)).collect()
}

#[test]
fn both_kinds_of_addresses_come_from_a_real_server() {
    let lookup = ask_one(&[], true);
    let found = lookup.answer.unwrap();
    assert_eq!((found.addresses, found.ttl), (both(), Some(Duration::from_secs(60))));
    assert_eq!(lookup.over_stream, 0);
}

#[test]
fn a_question_without_an_answer_is_asked_again() {
    let lookup = ask_one(&[Mood::Silence, Mood::Silence], true);
    let found = lookup.answer.unwrap().addresses;
    assert!(found.iter().all(|address| both().contains(address)) && !found.is_empty());
    assert!(lookup.resent >= 2, "{}", lookup.resent);
}

#[test]
fn a_forged_answer_is_passed_over() {
    let lookup = ask_one(&[Mood::Forge, Mood::Forge], true);
    assert_eq!(lookup.answer.unwrap().addresses, both());
    assert!(lookup.ignored >= 2, "{}", lookup.ignored);
}

#[test]
fn an_answer_that_did_not_fit_comes_over_a_stream_or_the_server_has_failed() {
    let lookup = ask_one(&[Mood::Cut, Mood::Cut], true);
    assert_eq!(lookup.answer.unwrap().addresses, both());
    assert_eq!(lookup.over_stream, 2);
    let lookup = ask_one(&[Mood::Cut, Mood::Cut], false);
    assert!(matches!(lookup.answer, Err(ResolveError::ServerFailure { .. })));
}

#[test]
fn what_the_server_says_is_told_apart() {
    let failed = ask_one(&[Mood::Fail, Mood::Fail], true).answer;
    assert!(matches!(failed, Err(ResolveError::ServerFailure { .. })), "{failed:?}");
    let unknown = ask_one(&[Mood::Answer, Mood::Unknown], true).answer;
    assert!(matches!(unknown, Err(ResolveError::NotFound { .. })), "{unknown:?}");
    let half = ask_one(&[Mood::Answer, Mood::Fail], true).answer;
    assert_eq!(half.unwrap().addresses.len(), 1, "one kind is better than none");
}

#[test]
fn a_cut_answer_and_silence_for_the_other_kind_lead_to_the_stream() {
    // The first question is answered; the other kind's is not, however often it is sent.
    let mut moods = vec![Mood::Silence; 10];
    moods.push(Mood::Cut);
    let lookup = ask_one(&moods, true);
    assert_eq!(lookup.answer.unwrap().addresses, both()[..1]);
    assert_eq!(lookup.over_stream, 1);
}

#[test]
fn patience_without_end_is_no_fault() {
    let lookup = ask_waiting(&[], true, Duration::MAX);
    assert_eq!(lookup.answer.unwrap().addresses, both());
}
