//! Options of a hub.

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use twinspan_net::shm::{
    Access, Echo, Identity, LatencyGuard, Namesakes, Policy, Roles, TopicConfig, Wait, calibrate,
    join,
};

use crate::choose::{Choice, choose, place, topic_of};
use crate::endpoint::{Endpoint, Scheme};
use crate::error::BuildError;
use crate::hub::Hub;
use crate::payload::Payload;
use crate::quic::{Idempotent, QuicOptions, Trust};
use crate::report::{Compression, Transport, TransportReport};
use crate::road::{MulticastOptions, NetOptions, Opened, Reliability, RoadConfig, Side};
use crate::seal::{SealCipher, TopicKey, seal};
use crate::{auto, discover, quic, stream, udp};

/// The longest message of types whose length varies, unless asked for otherwise.
const MESSAGE_BYTES_DEFAULT: usize = 64 << 10;
/// The largest alignment of values in shared memory: that of a block.
const ALIGN_MAX: usize = 4_096;

/// How others are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finds {
    /// In this machine's memory.
    Memory,
    /// At a host.
    Host,
    /// By announcements, and as peers that are given.
    Announcements,
}

/// Options of a hub; [`build`](Self::build) makes it.
#[derive(Clone, Debug)]
pub struct HubBuilder<T> {
    endpoint: String,
    transport: Option<Transport>,
    message_bytes_max: usize,
    depth: u32,
    pool_blocks: Option<u32>,
    history: u32,
    policy: Policy,
    wait: Wait,
    publish_timeout: Duration,
    roles: Roles,
    echo: Echo,
    access: Access,
    namesakes: Namesakes,
    type_version: u32,
    asks_for_guard: bool,
    batch_size: Option<u32>,
    compression: Compression,
    dictionary: Option<Vec<u8>>,
    quic: QuicOptions,
    side: Option<Side>,
    peers: Vec<SocketAddr>,
    peers_only: bool,
    bind: Option<SocketAddr>,
    reliability: Option<Reliability>,
    net: NetOptions,
    seal: Option<TopicKey>,
    seal_cipher: Option<SealCipher>,
    multicast: MulticastOptions,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> HubBuilder<T> {
    pub(crate) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            transport: None,
            message_bytes_max: MESSAGE_BYTES_DEFAULT,
            depth: 256,
            pool_blocks: None,
            history: 0,
            policy: Policy::default(),
            wait: Wait::default(),
            publish_timeout: Duration::from_secs(5),
            roles: Roles::default(),
            echo: Echo::default(),
            access: Access::default(),
            namesakes: Namesakes::default(),
            type_version: 0,
            asks_for_guard: false,
            batch_size: None,
            compression: Compression::None,
            dictionary: None,
            quic: QuicOptions::default(),
            side: None,
            peers: Vec::new(),
            peers_only: false,
            bind: None,
            reliability: None,
            net: NetOptions::default(),
            seal: None,
            seal_cipher: None,
            multicast: MulticastOptions::default(),
            payload: PhantomData,
        }
    }

    /// Takes this road or none.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// The longest message of a type whose length varies; 64 KiB unless set, 256 MiB at most. Plain
    /// data has its own length.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Messages that wait for a slow subscriber: 256 unless set, rounded up to a power of two,
    /// 65,536 at most.
    #[must_use]
    pub fn depth(mut self, messages: u32) -> Self {
        self.depth = messages;
        self
    }

    /// Blocks of shared memory for messages too long for their slots; 8 MiB of them, 8 to 32, unless set;
    /// 64 at most.
    #[must_use]
    pub fn pool_blocks(mut self, blocks: u32) -> Self {
        self.pool_blocks = Some(blocks);
        self
    }

    /// Keeps so many messages for who joins late, and wants so many when joining; 0 unless set.
    #[must_use]
    pub fn history(mut self, messages: u32) -> Self {
        self.history = messages;
        self
    }

    /// What happens when this subscriber falls behind: in shared memory, and on best-effort UDP, where
    /// [`Policy::Block`] is the same as [`Policy::DropNew`], for nobody waits there.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// How to wait.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// How long publishing waits for a subscriber that blocks the topic; 5 s unless set.
    #[must_use]
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// Publishes alone, or receives alone.
    #[must_use]
    pub fn roles(mut self, roles: Roles) -> Self {
        self.roles = roles;
        self
    }

    /// Hears itself too, or not.
    #[must_use]
    pub fn echo(mut self, echo: Echo) -> Self {
        self.echo = echo;
        self
    }

    /// Lets the members of a group take part too, in shared memory; both sides must say so.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// What to do about another user's topic of the same name.
    #[must_use]
    pub fn namesakes(mut self, namesakes: Namesakes) -> Self {
        self.namesakes = namesakes;
        self
    }

    /// Tells apart versions of a type whose fields changed while its size did not; 0 unless set.
    #[must_use]
    pub fn type_version(mut self, version: u32) -> Self {
        self.type_version = version;
        self
    }

    /// Asks for a [`LatencyGuard`] for as long as the hub lives; whether it was granted stands in
    /// the report.
    #[must_use]
    pub fn latency_guard(mut self) -> Self {
        self.asks_for_guard = true;
        self
    }

    /// Datagrams sent by one system call at most on roads over the network: 64 unless set, 256 at
    /// most. It is a bound and never waited for.
    #[must_use]
    pub fn batch_size(mut self, datagrams: u32) -> Self {
        self.batch_size = Some(datagrams);
        self
    }

    /// Compression on roads over the network.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// What messages have in common, for [`Compression::Zstd`]: short messages become much shorter with
    /// a dictionary that was trained on such ones. Both ends give the same one, of at most
    /// [`DICTIONARY_BYTES_MAX`](crate::DICTIONARY_BYTES_MAX) bytes.
    #[must_use]
    pub fn dictionary(mut self, dictionary: impl Into<Vec<u8>>) -> Self {
        self.dictionary = Some(dictionary.into());
        self
    }

    /// The certificate chain and the private key of a QUIC listener, in PEM. Without them it has a
    /// certificate of its own, signed by itself: a new one for each process, or the one that is kept
    /// in the [`state_folder`](Self::state_folder). The report shows its fingerprint.
    #[must_use]
    pub fn certificate(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.quic.certificate = Some((chain.into(), key.into()));
        self
    }

    /// Whom a QUIC connector believes to be the listener: whoever is there first, unless set.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.quic.trust = trust;
        self
    }

    /// A folder for what QUIC keeps: the certificate of a listener without another one, and whom a
    /// connector met first. It is made if there is none; nobody else may read the key.
    #[must_use]
    pub fn state_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.quic.state_folder = Some(folder.into());
        self
    }

    /// Listens at the endpoint's port, whatever its host is. Unless one of the two is said, a
    /// wildcard or an address of this machine listens, if nobody does so already, and any other
    /// connects.
    #[must_use]
    pub fn listen(mut self) -> Self {
        self.side = Some(Side::Listen);
        self
    }

    /// Connects to the endpoint, whatever its host is.
    #[must_use]
    pub fn connect(mut self) -> Self {
        self.side = Some(Side::Connect);
        self
    }

    /// Goes to these addresses too, on a bare topic with a road over a network: hubs on other machines,
    /// which are not found by announcements. They have to listen at known ports, as with
    /// [`bind`](Self::bind). It is enough that one of two names the other. 64 at most.
    #[must_use]
    pub fn peers(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.peers = addresses.into_iter().collect();
        self
    }

    /// Speaks with the peers that are [given](Self::peers), and who was given this hub's address, alone:
    /// it is not announced on this machine, and hears no announcements.
    #[must_use]
    pub fn peers_only(mut self) -> Self {
        self.peers_only = true;
        self
    }

    /// Where a hub on a bare topic with a road over a network listens: at a free port of 127.0.0.1
    /// unless set, which nobody but this machine reaches. On UDP the same socket goes to
    /// [`peers`](Self::peers): with one on another machine it listens at any address of that one's family,
    /// with some of either at any of both, unless set.
    #[must_use]
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// Whether lost messages are sent again on roads over the network; both ends must say the same.
    /// Best effort on UDP unless set, reliable on TCP and QUIC.
    #[must_use]
    pub fn reliability(mut self, reliability: Reliability) -> Self {
        self.reliability = Some(reliability);
        self
    }

    /// [`Reliability::Reliable`].
    #[must_use]
    pub fn reliable(self) -> Self {
        self.reliability(Reliability::Reliable)
    }

    /// The longest that a message of a burst waits for company on roads over the network; 100 µs
    /// unless set. A message that comes alone waits for nothing.
    #[must_use]
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.net.flush_interval = interval;
        self
    }

    /// The buffers of sockets, in bytes; 4 MiB unless set. The report says what the system granted.
    #[must_use]
    pub fn socket_buffer_bytes(mut self, bytes: usize) -> Self {
        self.net.socket_buffer_bytes = bytes;
        self
    }

    /// For how long the kernel polls the network's device when a socket is empty; 50 µs unless set,
    /// zero for not at all. The report says what took effect.
    #[must_use]
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.net.busy_poll = (!time.is_zero()).then_some(time);
        self
    }

    /// The core for the thread that the hub has of its own on roads over the network; any unless
    /// set.
    #[must_use]
    pub fn core(mut self, core: usize) -> Self {
        self.net.core = Some(core);
        self
    }

    /// Lets a thread of the kernel look for the requests of [`Transport::IoUring`], so that sending is no
    /// call; it sleeps after `idle` without any, 1 ms to 10 s. It takes a core: on fewer than three the
    /// report says that it was declined, else whether it helps.
    #[must_use]
    pub fn sqpoll(mut self, idle: Duration) -> Self {
        self.net.sqpoll = Some(idle);
        self
    }

    /// The core of the thread that [`sqpoll`](Self::sqpoll) asks for; any unless set.
    #[must_use]
    pub fn sqpoll_core(mut self, core: usize) -> Self {
        self.net.sqpoll_core = Some(core);
        self
    }

    /// The longest datagram, in bytes; 1,200 unless set, 512 to 9,000.
    #[must_use]
    pub fn datagram_bytes(mut self, bytes: usize) -> Self {
        self.net.datagram_bytes = bytes;
        self
    }

    /// Seals the topic on UDP with a key that all who take part were given: nobody else reads it, changes
    /// it or takes part. Who is not sealed, or with another key, is refused, and both ends are told.
    #[must_use]
    pub fn seal(mut self, key: TopicKey) -> Self {
        self.seal = Some(key);
        self
    }

    /// How links that this hub makes are sealed; what costs this processor least unless set. Who listens
    /// takes what who connects has.
    #[must_use]
    pub fn seal_cipher(mut self, cipher: SealCipher) -> Self {
        self.seal_cipher = Some(cipher);
        self
    }

    /// The interface of a multicast group, by its name or its IPv4 address, where `udp://`'s host is such a
    /// group; the system's choice unless set.
    #[must_use]
    pub fn multicast_interface(mut self, interface: impl Into<String>) -> Self {
        self.multicast.interface = Some(interface.into());
        self
    }

    /// How many networks datagrams to a multicast group may pass, 1 to 255: 1, this one alone, unless set.
    #[must_use]
    pub fn multicast_ttl(mut self, networks: u8) -> Self {
        self.multicast.ttl = networks;
        self
    }

    /// Drops this share of the datagrams that come, 0 to 1, to see what a bad network does: for tests
    /// and benchmarks.
    #[must_use]
    pub fn injected_loss(mut self, share: f64) -> Self {
        self.net.injected_loss = share;
        self
    }

    /// Joins the topic.
    ///
    /// # Errors
    /// [`BuildError`] says what is wrong and what to do.
    pub fn build(self) -> Result<Hub<T>, BuildError> {
        let endpoint: Endpoint = self.endpoint.parse()?;
        let Choice { road, reason } = choose(&endpoint, self.transport)?;
        if self.seal.is_some() && !matches!(road, Transport::BatchUdp | Transport::IoUring) {
            return Err(BuildError::Seal { road });
        }
        if let (None, Some(cipher)) = (&self.seal, self.seal_cipher) {
            let (setting, range) = ("seal_cipher", "none, or give a key with seal");
            return Err(BuildError::Setting { setting, value: format!("{cipher:?}"), range });
        }
        let identity = T::identity(self.type_version);
        let topic = endpoint.topic.clone().unwrap_or_else(|| topic_of(&identity.name));
        if endpoint.scheme == Some(Scheme::Hub) && self.seal.is_some() {
            let (setting, value) = ("seal", "set".to_owned());
            let range = "none behind hub://, whose roads are not all sealed by a topic's key";
            return Err(BuildError::Setting { setting, value, range });
        }
        if endpoint.scheme == Some(Scheme::Hub) {
            return self.build_chosen(&endpoint, topic, identity);
        }
        if road != Transport::SharedMemory && endpoint.host.is_none() {
            return self.build_by_discovery(topic, identity, Choice { road, reason });
        }
        if road != Transport::SharedMemory {
            return self.build_on_road(&endpoint, topic, identity, Choice { road, reason });
        }
        if identity.align as usize > ALIGN_MAX {
            return Err(BuildError::Align(identity.align as usize));
        }
        let bytes = T::BYTES.unwrap_or(self.message_bytes_max);
        let config = TopicConfig {
            slots: self.depth,
            blocks: self.pool_blocks,
            history: self.history,
            policy: self.policy,
            wait: self.wait,
            room_wait: self.publish_timeout,
            roles: self.roles,
            echo: self.echo,
            access: self.access,
            namesakes: self.namesakes,
            ..TopicConfig::new(topic.clone(), identity, bytes)
        };
        let joined = join(&config)?;
        let mut notes = self.idle(road, Finds::Memory);
        if self.compression != Compression::None {
            notes.push("compression is off: nothing is sent".to_owned());
        }
        let guard = self.guard(&mut notes);
        let report = TransportReport { transport: road, reason, notes };
        Ok(Hub::assemble(topic, joined, report, guard))
    }

    fn build_on_road(
        self,
        endpoint: &Endpoint,
        topic: String,
        identity: Identity,
        Choice { road, reason }: Choice,
    ) -> Result<Hub<T>, BuildError> {
        let Choice { road, reason } = match (road, self.transport) {
            (Transport::BatchUdp, None) => udp::of_this_machine(&reason),
            _ => Choice { road, reason },
        };
        if self.has_place() {
            let (setting, value) = ("peers or bind", "set".to_owned());
            return Err(BuildError::Setting { setting, value, range: "nothing beside a host" });
        }
        let place = place(endpoint, self.side)?;
        let host = name_of(endpoint);
        let mut config = self.road_config(&topic, identity, (place.addresses, place.side), host)?;
        let mut notes = vec![place.reason];
        let opened = match open(road, &config) {
            // Somebody of this machine listens there: whoever said nothing else goes to it.
            Err(BuildError::Bind { source, .. })
                if self.side.is_none() && source.kind() == io::ErrorKind::AddrInUse =>
            {
                config.go_there(Some(road));
                notes = vec!["it connects: somebody listens there already".to_owned()];
                open(road, &config)?
            }
            opened => opened?,
        };
        if let Some(ways) = opened.ways.as_ref().filter(|_| !place.is_group) {
            notes.push(format!("it listens at {}", ways.bound().0));
        }
        notes.extend(config.families());
        notes.extend(opened.notes.iter().cloned());
        notes.extend(self.idle(road, Finds::Host));
        let guard = self.guard(&mut notes);
        let report = TransportReport { transport: road, reason, notes };
        Ok(Hub::on_road(topic, opened, self.wait, report, guard))
    }

    /// Joins a topic on the road that turns out to be the best.
    fn build_chosen(
        self,
        endpoint: &Endpoint,
        topic: String,
        identity: Identity,
    ) -> Result<Hub<T>, BuildError> {
        if !self.peers.is_empty() || self.bind.is_some() {
            let (setting, value) = ("peers or bind", "set".to_owned());
            return Err(BuildError::Setting { setting, value, range: "nothing beside a host" });
        }
        let place = place(endpoint, self.side)?;
        let host = name_of(endpoint);
        let mut config = self.road_config(&topic, identity, (place.addresses, place.side), host)?;
        let mut notes = vec![place.reason];
        let chosen = match auto::open(&config, self.transport) {
            Err(BuildError::Bind { source, .. })
                if self.side.is_none() && source.kind() == io::ErrorKind::AddrInUse =>
            {
                config.go_there(None);
                notes = vec!["it connects: somebody listens there already".to_owned()];
                auto::open(&config, self.transport)?
            }
            chosen => chosen?,
        };
        let auto::Chosen { road, reason, opened } = chosen;
        notes.extend(config.families());
        notes.extend(opened.notes.iter().cloned());
        // It may take any of them.
        notes.extend(self.idle(Transport::Quic, Finds::Host));
        let guard = self.guard(&mut notes);
        let report = TransportReport { transport: road, reason, notes };
        Ok(Hub::on_road(topic, opened, self.wait, report, guard))
    }

    /// Joins a bare topic over a network: every hub of it listens, and they find each other.
    fn build_by_discovery(
        self,
        topic: String,
        identity: Identity,
        Choice { road, reason }: Choice,
    ) -> Result<Hub<T>, BuildError> {
        if self.side.is_some() {
            let (setting, value) = ("listen or connect", "set".to_owned());
            let range = "nothing on a bare topic, where each does both";
            return Err(BuildError::Setting { setting, value, range });
        }
        let address = self.bind.unwrap_or_else(|| discover::place_for(road, &self.peers));
        let place = (vec![address], Side::Listen);
        let config = self.road_config(&topic, identity, place, String::new())?;
        let given = discover::Given { peers: &self.peers, only: self.peers_only };
        let mut opened = discover::open(road, &config, given, self.namesakes)?;
        let mut notes = std::mem::take(&mut opened.notes);
        notes.extend(config.families());
        notes.extend(self.idle(road, Finds::Announcements));
        let guard = self.guard(&mut notes);
        let report = TransportReport { transport: road, reason, notes };
        Ok(Hub::on_road(topic, opened, self.wait, report, guard))
    }

    /// What was asked for and means nothing on a road: a report that kept quiet about it would look as if
    /// it were in effect. Each road tells by itself what it does not do with settings of sockets.
    fn idle(&self, road: Transport, finds: Finds) -> Vec<String> {
        let is_memory = finds == Finds::Memory;
        let is_quic = road == Transport::Quic;
        let usual = NetOptions::default();
        let options = [
            (is_memory && self.batch_size.is_some(), "batch_size"),
            (is_memory && self.side.is_some(), "listen or connect"),
            (is_memory && self.reliability.is_some(), "reliability"),
            (is_memory && self.net != usual, "settings of sockets"),
            (is_memory && self.has_place(), "peers or bind"),
            (is_memory && self.dictionary.is_some(), "dictionary"),
            (
                road == Transport::Tcp && self.net.socket_buffer_bytes != usual.socket_buffer_bytes,
                "socket_buffer_bytes",
            ),
            (!is_memory && self.access != Access::default(), "access"),
            (!is_memory && self.pool_blocks.is_some(), "pool_blocks"),
            (finds == Finds::Host && self.namesakes != Namesakes::default(), "namesakes"),
            (!is_quic && self.quic.certificate.is_some(), "certificate"),
            (!is_quic && self.quic.trust != Trust::default(), "trust"),
            (!is_quic && self.quic.state_folder.is_some(), "state_folder"),
            (!is_quic && self.quic.is_idempotent, "zero_rtt"),
        ];
        let set = options.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name);
        let of_groups = self.multicast.named().filter(|_| is_memory);
        let place = if is_memory { "in shared memory".to_owned() } else { format!("on {road}") };
        set.chain(of_groups).map(|name| format!("{name} has no effect {place}")).collect()
    }

    /// Whether something was said that is for bare topics alone.
    fn has_place(&self) -> bool {
        !self.peers.is_empty() || self.peers_only || self.bind.is_some()
    }

    /// What a road over a network is opened with.
    fn road_config(
        &self,
        topic: &str,
        identity: Identity,
        (addresses, side): (Vec<SocketAddr>, Side),
        host: String,
    ) -> Result<RoadConfig, BuildError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| BuildError::NoRandomness)?;
        if self.wait == Wait::Adaptive {
            calibrate();
        }
        let config = RoadConfig {
            topic: topic.to_owned(),
            identity: identity.cut(),
            addresses,
            side,
            message_bytes_max: T::BYTES.unwrap_or(self.message_bytes_max),
            depth: self.depth,
            history: self.history,
            policy: self.policy,
            publish_timeout: self.publish_timeout,
            roles: self.roles,
            echo: self.echo,
            reliability: self.reliability,
            compression: self.compression,
            dictionary: self.dictionary.clone(),
            host,
            quic: self.quic.clone(),
            batch_size: self.batch_size,
            net: self.net,
            multicast: self.multicast.clone(),
            seal: self.seal.clone().map(|key| seal(key, self.seal_cipher)),
            id,
        };
        config.check()?;
        Ok(config)
    }

    /// The latency guard if it was asked for, and what became of it.
    fn guard(&self, notes: &mut Vec<String>) -> Option<LatencyGuard> {
        if !self.asks_for_guard {
            return None;
        }
        match LatencyGuard::request() {
            Ok(guard) => {
                notes.push("the latency guard was granted".to_owned());
                Some(guard)
            }
            Err(error) => {
                notes.push(format!("the latency guard was not granted: {error}"));
                None
            }
        }
    }
}

impl<T: Payload + Idempotent> HubBuilder<T> {
    /// Speaks on QUIC before the handshake ended, where an earlier connection of this process to the
    /// listener left a session: the first answer comes a round trip earlier. Both ends must say so.
    ///
    /// Somebody on the way can send such words again, so that the type must bear that:
    ///
    /// ```compile_fail
    /// use twinspan_hub::{Bytes, Hub};
    ///
    /// let _ = Hub::<Bytes>::builder("quic://host:9000/a").zero_rtt(); // Bytes are not `Idempotent`
    /// ```
    #[must_use]
    pub fn zero_rtt(mut self) -> Self {
        self.quic.is_idempotent = true;
        self
    }
}

/// The host as certificates have it: without the interface of a link-local address.
fn name_of(endpoint: &Endpoint) -> String {
    let host = endpoint.host.as_ref().map_or("", |(host, _)| host.as_str());
    host.split('%').next().unwrap_or_default().to_owned()
}

/// Opens a road over the network.
fn open(road: Transport, config: &RoadConfig) -> Result<Opened, BuildError> {
    match road {
        Transport::BatchUdp | Transport::IoUring => udp::open(config, road),
        Transport::Tcp => stream::tcp::open(config),
        Transport::Quic => quic::open(config),
        _ => Err(BuildError::NotBuilt { road }),
    }
}
