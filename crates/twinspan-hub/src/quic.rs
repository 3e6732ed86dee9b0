//! The QUIC road: one connection between two processes, one ordered stream for each topic.
//!
//! //= hub 11

mod carrier;
mod parts;
mod socket;
mod streams;
mod trust;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::crypto::aws_lc_rs as provider;

use crate::error::BuildError;
use crate::measure::at_port;
use crate::port::{self, Tenant};
use crate::road::{Opened, Reliability, RoadConfig, Side};
use crate::stream::core::Carrier;
use crate::stream::node::{Member, Node};
use crate::stream::open;
use crate::stream::topic::Topic;
use crate::system::any_like;
use carrier::QuicCarrier;
use parts::{Beside, Connector, STREAMS_MAX, ZeroRtt};
use socket::Socket;
pub use trust::{CertificateError, Fingerprint, FingerprintError, Trust};
use trust::{Own, Verifier, authorities};

/// A connection that hears nothing for so long is dead.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A connection that has nothing to say says so this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes that a peer may send on one stream, and on all, before they are read: they are read at once.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes that wait to be acknowledged.
const SEND_WINDOW: u64 = 8 << 20;
/// Bytes of datagrams that came and wait to be looked at, which they do not: they are at once.
const DATAGRAMS_IN_MAX: usize = 1 << 20;
/// Bytes of datagrams that wait for room on the way. What does not fit waits with its topic.
const DATAGRAMS_OUT_MAX: usize = 256 << 10;
/// Bytes of packets that came before their connection was let in.
const INCOMING_BYTES_MAX: u64 = 1 << 20;
/// What both ends must mean.
const PROTOCOL: &[u8] = b"twinspan-hub/1";
/// Listeners whose sessions and pins a process remembers.
const CLIENTS_MAX: usize = 64;

/// What a hub is told about QUIC.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuicOptions {
    pub(crate) trust: Trust,
    /// Chain and key, in PEM.
    pub(crate) certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// Where a certificate of one's own and the pins of others are kept.
    pub(crate) state_folder: Option<PathBuf>,
    /// First words may leave before the handshake ended.
    pub(crate) is_idempotent: bool,
}

/// Messages that do no harm when they come twice: what [`HubBuilder::zero_rtt`] asks of a type.
///
/// The first words of a connection may leave before its handshake ended, and somebody on the way can
/// send those again. A hub sends its greeting early, and no message; yet a topic says by its type
/// that it would bear it.
///
/// [`HubBuilder::zero_rtt`]: crate::HubBuilder::zero_rtt
pub trait Idempotent {}

impl<T: Idempotent> Idempotent for crate::Serde<T> {}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok())
        .keep_alive_interval(Some(KEEPALIVE_INTERVAL))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAMS_IN_MAX))
        .datagram_send_buffer_size(DATAGRAMS_OUT_MAX);
    Arc::new(transport)
}

fn tls_failed(error: impl std::fmt::Display) -> BuildError {
    BuildError::Certificate(CertificateError::Tls(error.to_string()))
}

fn server(own: Own) -> Result<Arc<ServerConfig>, BuildError> {
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_failed)?;
    let tls = tls.with_no_client_auth().with_single_cert(own.chain, own.key);
    let mut tls = tls.map_err(tls_failed)?;
    tls.alpn_protocols = vec![PROTOCOL.to_vec()];
    // QUIC knows all or nothing. Which topics are heard early is decided for each.
    tls.max_early_data_size = u32::MAX;
    let crypto = QuicServerConfig::try_from(tls).map_err(tls_failed)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport())
        .migration(true)
        .max_incoming(STREAMS_MAX as usize)
        .incoming_buffer_size(INCOMING_BYTES_MAX / 16)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX);
    Ok(Arc::new(config))
}

/// What connectors to one listener share: sessions, address tokens, and whom they believe.
#[derive(Clone)]
struct Client {
    config: ClientConfig,
    verifier: Option<Arc<Verifier>>,
}

/// Which connectors share: address, host's name, trust and folder.
type ClientKey = (SocketAddr, String, Trust, Option<PathBuf>);

static CLIENTS: Mutex<Vec<(ClientKey, Client)>> = Mutex::new(Vec::new());

fn client_of(key: &ClientKey) -> Result<Client, BuildError> {
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = clients.iter().position(|(known, _)| known == key) {
        // What was used longest ago stands first, and gives way first.
        let found = clients.remove(at);
        let client = found.1.clone();
        clients.push(found);
        return Ok(client);
    }
    let (address, _, trust, folder) = key;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_failed)?;
    let (mut tls, verifier) = match trust {
        Trust::Authorities(pem) => {
            (tls.with_root_certificates(authorities(pem)?).with_no_client_auth(), None)
        }
        _ => {
            let verifier = Verifier::new(trust, &address.to_string(), folder.as_deref())?;
            let verifier = Arc::new(verifier);
            let believed = Arc::clone(&verifier) as Arc<_>;
            let tls = tls.dangerous().with_custom_certificate_verifier(believed);
            (tls.with_no_client_auth(), Some(verifier))
        }
    };
    tls.alpn_protocols = vec![PROTOCOL.to_vec()];
    tls.enable_early_data = true;
    let crypto = QuicClientConfig::try_from(tls).map_err(tls_failed)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    let client = Client { config, verifier };
    if clients.len() >= CLIENTS_MAX {
        clients.remove(0);
    }
    clients.push((key.clone(), client.clone()));
    Ok(client)
}

/// Listeners of this process, which several topics share.
static LISTENERS: Mutex<Vec<(SocketAddr, Weak<Node<QuicCarrier>>)>> = Mutex::new(Vec::new());
/// Connections of this process, which several topics share.
static CONNECTIONS: Mutex<Vec<(ClientKey, Weak<Node<QuicCarrier>>)>> = Mutex::new(Vec::new());

/// Opens the QUIC road.
pub(crate) fn open(config: &RoadConfig) -> Result<Opened, BuildError> {
    let topic = open::topic(config)?;
    match config.side {
        Side::Listen => listen(config, topic),
        Side::Connect => connect(config, topic),
    }
}

/// How messages of a best-effort topic go; `None` where they are reliable.
fn beside_note(config: &RoadConfig, beside: Option<Beside>) -> Option<String> {
    if config.reliability != Some(Reliability::BestEffort) {
        return None;
    }
    Some(match beside {
        None => "best effort goes by datagrams where the other end takes them".to_owned(),
        Some(Beside::UpTo(bytes)) => {
            format!("best effort goes by datagrams, messages above {bytes} bytes by the stream")
        }
        Some(Beside::Nothing) => {
            "best effort goes by the stream: the other end takes no datagrams".to_owned()
        }
    })
}

fn bind(config: &RoadConfig, address: SocketAddr) -> Result<(Socket, String), BuildError> {
    let asked = config.net.socket_buffer_bytes;
    prepared(Socket::bind(address, asked), address, asked)
}

/// Binds the socket of a listener, which may have its port beside others of this process.
fn bind_listener(
    config: &RoadConfig,
    address: SocketAddr,
) -> Result<(Socket, String, usize), BuildError> {
    let asked = config.net.socket_buffer_bytes;
    let open = |given| match given {
        Some(socket) => prepared(Socket::around(socket, asked), address, asked),
        None => bind(config, address),
    };
    let opened = port::bind(address, Tenant::Quic, open, |(socket, _)| socket.as_fd());
    let ((mut socket, note), place) = opened?;
    let others = place.others();
    socket.hold(place);
    Ok((socket, note, others))
}

fn prepared(
    bound: io::Result<(Socket, [usize; 2])>,
    address: SocketAddr,
    asked: usize,
) -> Result<(Socket, String), BuildError> {
    let (socket, [receive, send]) = bound.map_err(|source| BuildError::Bind { address, source })?;
    let note = format!(
        "socket buffers of {asked} bytes asked for, {receive} to receive and {send} to send in effect"
    );
    Ok((socket, note))
}

fn node(
    config: &RoadConfig,
    socket: Socket,
    server: Option<Arc<ServerConfig>>,
) -> Result<Arc<Node<QuicCarrier>>, BuildError> {
    let started = Instant::now();
    let carrier = carrier(config, socket, server, started)?;
    Node::start(carrier, started, config.net.flush_interval, config.net.core)
        .map_err(BuildError::Os)
}

fn carrier(
    config: &RoadConfig,
    socket: Socket,
    server: Option<Arc<ServerConfig>>,
    started: Instant,
) -> Result<QuicCarrier, BuildError> {
    let seed = crate::road::publisher_of(config.id);
    QuicCarrier::new(socket, server, seed, started, config.net.socket_buffer_bytes)
        .map_err(BuildError::Os)
}

fn member_of(
    node: &Arc<Node<QuicCarrier>>,
    topic: Topic,
) -> Result<Arc<Member<QuicCarrier>>, BuildError> {
    let joined = node.join(topic).map_err(BuildError::Os)?;
    joined.map_err(|_| BuildError::Os(io::ErrorKind::NotConnected.into()))
}

fn listen(config: &RoadConfig, mut topic: Topic) -> Result<Opened, BuildError> {
    let address = config.first_address()?;
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|(_, node)| node.strong_count() > 0);
    let known = listeners.iter().find(|(known, _)| *known == address && address.port() != 0);
    if let Some(node) = known.and_then(|(_, node)| node.upgrade()) {
        match open::share(config, &node, address, topic)? {
            Ok(member) => {
                allow_early(config, &node, &member);
                let mut notes = vec!["it shares a listener, and its certificate".to_owned()];
                notes.extend(beside_note(config, None));
                return Ok(open::opened(config, &member, notes));
            }
            // It was left by its last topic just now: its port is free.
            Err(back) => topic = back,
        }
    }
    let own = own(config)?;
    let fingerprint = own.fingerprint();
    let server = server(own)?;
    let (socket, buffers, others) = bind_listener(config, address)?;
    let bound = socket.local_addr().map_err(BuildError::Os)?;
    let node = node(config, socket, Some(server))?;
    let member = member_of(&node, topic)?;
    allow_early(config, &node, &member);
    listeners.retain(|(known, _)| *known != bound);
    listeners.push((bound, Arc::downgrade(&node)));
    let mut notes = vec![format!("it listens at {bound}"), buffers];
    notes.extend(port::shared(others));
    notes.extend(beside_note(config, None));
    if let Some(fingerprint) = fingerprint {
        notes.push(format!("its certificate has the fingerprint {fingerprint}"));
    }
    Ok(open::opened(config, &member, notes))
}

/// A carrier that listens.
pub(crate) struct Listening {
    pub(crate) carrier: QuicCarrier,
    /// Where it does.
    pub(crate) bound: SocketAddr,
    /// What stands for its certificate.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Why it has a port of its own, where it was to have that of a UDP socket.
    pub(crate) apart: Option<io::Error>,
}

/// A carrier that listens. Beside a UDP socket it has that one's port, or a free one where it cannot.
pub(crate) fn listening(
    config: &RoadConfig,
    started: Instant,
    beside: Option<SocketAddr>,
) -> Result<Listening, BuildError> {
    let own = own(config)?;
    let fingerprint = own.fingerprint();
    let server = server(own)?;
    let (socket, apart) = match beside {
        None => (bind_listener(config, config.first_address()?)?.0, None),
        Some(address) => match bind_listener(config, address) {
            Ok((socket, ..)) => (socket, None),
            Err(BuildError::Bind { source, .. }) => {
                (bind_listener(config, at_port(address, 0))?.0, Some(source))
            }
            Err(other) => return Err(other),
        },
    };
    let bound = socket.local_addr().map_err(BuildError::Os)?;
    let carrier = carrier(config, socket, Some(server), started)?;
    Ok(Listening { carrier, bound, fingerprint, apart })
}

/// A carrier that goes to an address for a topic, believing whom `trust` says; and who was met there
/// in place of that.
pub(crate) fn calling(
    config: &RoadConfig,
    started: Instant,
    (address, seat): (SocketAddr, usize),
    trust: &Trust,
) -> Result<(QuicCarrier, Stranger), BuildError> {
    let host = match config.host.as_str() {
        "" => address.ip().to_string(),
        host => host.to_owned(),
    };
    let key = (address, host.clone(), trust.clone(), config.quic.state_folder.clone());
    let client = client_of(&key)?;
    let (socket, _) = bind(config, any_like(address))?;
    let mut carrier = carrier(config, socket, None, started)?;
    carrier.connector = Some(Connector::new(client.config, host, vec![address]));
    carrier.want(seat, config.quic.is_idempotent);
    Ok((carrier, Stranger(client.verifier)))
}

/// Who was met in place of who is believed.
pub(crate) struct Stranger(Option<Arc<Verifier>>);

impl Stranger {
    pub(crate) fn seen(&self) -> Option<Fingerprint> {
        self.0.as_ref().and_then(|it| *twinspan_net::lock(&it.stranger))
    }
}

/// The certificate of a listener.
fn own(config: &RoadConfig) -> Result<Own, BuildError> {
    Ok(match (&config.quic.certificate, &config.quic.state_folder) {
        (Some((chain, key)), _) => Own::from_pem(chain, key)?,
        (None, Some(folder)) => Own::kept(folder)?,
        (None, None) => Own::new()?,
    })
}

/// Lets first words for the topic come before the handshake ended.
fn allow_early(config: &RoadConfig, node: &Node<QuicCarrier>, member: &Member<QuicCarrier>) {
    if config.quic.is_idempotent {
        let seat = member.seat();
        node.with(|_, carrier, _| carrier.idempotent.push(seat));
    }
}

fn connect(config: &RoadConfig, topic: Topic) -> Result<Opened, BuildError> {
    let address = config.first_address()?;
    let quic = &config.quic;
    let key = (address, config.host.clone(), quic.trust.clone(), quic.state_folder.clone());
    let client = client_of(&key)?;
    let (node, member, notes) = connection(config, topic, &key, &client)?;
    let seat = member.seat();
    let is_idempotent = config.quic.is_idempotent;
    node.with(|_, carrier, _| carrier.want(seat, is_idempotent));
    let stranger = || client.verifier.as_ref().and_then(|it| *twinspan_net::lock(&it.stranger));
    node.drive_until(open::ANSWER_TIMEOUT, |core| {
        core.carrier.told(seat).is_some() || stranger().is_some()
    });
    if let Some(seen) = stranger() {
        return Err(BuildError::Stranger { address, seen });
    }
    let (told, lost, zero_rtt, beside) = node.with(|_, carrier, _| {
        let beside = carrier.beside();
        let connector = carrier.connector.as_ref();
        let lost = connector.and_then(|it| it.lost.clone());
        let zero_rtt = connector.map_or(ZeroRtt::Unused, |it| it.zero_rtt);
        (carrier.told(seat), lost, zero_rtt, beside)
    });
    let mut all = vec![open::judge(config, address, told)?];
    all.extend(notes);
    all.extend(beside_note(config, beside));
    all.extend(lost.map(|why| format!("the last connection was lost: {why}")));
    if is_idempotent {
        let what = match zero_rtt {
            ZeroRtt::Unused => "no session is known yet, so nothing was said before the handshake",
            ZeroRtt::Sent => "it spoke before the handshake, which goes on",
            ZeroRtt::Taken => "it spoke before the handshake, and was heard",
            ZeroRtt::Refused => "it spoke before the handshake, and had to say it again",
        };
        all.push(what.to_owned());
    }
    if let Some(pin) = client.verifier.as_ref().and_then(|it| it.pin()) {
        all.push(format!("the listener has the fingerprint {pin}"));
    }
    Ok(open::opened(config, &member, all))
}

type Joined = (Arc<Node<QuicCarrier>>, Arc<Member<QuicCarrier>>, Vec<String>);

/// The connection to a listener: one that there is, or a new one.
fn connection(
    config: &RoadConfig,
    mut topic: Topic,
    key: &ClientKey,
    client: &Client,
) -> Result<Joined, BuildError> {
    let mut connections = CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    connections.retain(|(_, node)| node.strong_count() > 0);
    let known = connections.iter().filter(|(known, _)| known == key);
    for node in known.filter_map(|(_, node)| node.upgrade()) {
        let name = config.topic.as_str();
        let is_taken = node.with(|_, _, seats| {
            seats.named(name).is_some() || seats.each().count() >= STREAMS_MAX as usize
        });
        if is_taken {
            continue;
        }
        match node.join(topic).map_err(BuildError::Os)? {
            Ok(member) => {
                return Ok((node, member, vec!["it shares a connection".to_owned()]));
            }
            Err(back) => topic = back,
        }
    }
    let (socket, buffers) = bind(config, any_like(key.0))?;
    let node = node(config, socket, None)?;
    let connector =
        Connector::new(client.config.clone(), config.host.clone(), config.addresses.clone());
    node.with(|_, carrier, _| carrier.connector = Some(connector));
    let member = member_of(&node, topic)?;
    connections.push((key.clone(), Arc::downgrade(&node)));
    Ok((node, member, vec![buffers]))
}

#[cfg(test)]
pub(crate) mod tests;
