//! What a relay and a server's port counted.

/// What a relay counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Datagrams handed to the server.
    pub to_server: u64,
    /// Their bytes, without trailers and padding.
    pub to_server_bytes: u64,
    /// Datagrams handed to clients.
    pub to_clients: u64,
    /// Their bytes.
    pub to_clients_bytes: u64,
    /// Of `to_server`: handshake datagrams.
    pub hellos: u64,
    /// Of `to_server`: sealed datagrams from addresses that the server had not answered.
    pub strays: u64,
    /// Addresses that the server began to answer.
    pub links_begun: u64,
    /// Links forgotten for others before their time.
    pub links_crowded_out: u64,
    /// Links there are; counted when the stats are asked for.
    pub links: u64,
    /// Times that a shard of the server that was spoken to fell silent.
    pub silences: u64,
    /// What was dropped, by cause.
    pub drops: RelayDrops,
}

/// Datagrams that a relay dropped, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayDrops {
    /// Shorter than any session datagram.
    pub short: u64,
    /// Longer than any session datagram.
    pub too_long: u64,
    /// Handshake form, but not of a HELLO's flags and length.
    pub bad_hello: u64,
    /// The client's address cannot be named on the trunk.
    pub bad_client: u64,
    /// Handshakes beyond the limit of their network.
    pub hellos_source: u64,
    /// Handshakes beyond the limit of all.
    pub hellos_total: u64,
    /// Strangers' sealed datagrams beyond the limit of their network.
    pub strays_source: u64,
    /// Strangers' sealed datagrams beyond the limit of all.
    pub strays_total: u64,
    /// From the trunk, with a wrong tag.
    pub bad_tag: u64,
    /// From the trunk, and no trunk datagram for another reason.
    pub bad_frame: u64,
    /// No room in the queue to the server.
    pub to_server_full: u64,
    /// No room in the queue to the clients.
    pub to_clients_full: u64,
}

impl RelayDrops {
    /// The causes and their counts, under the names of the fields.
    pub const fn by_cause(&self) -> [(&'static str, u64); 12] {
        [
            ("short", self.short),
            ("too_long", self.too_long),
            ("bad_hello", self.bad_hello),
            ("bad_client", self.bad_client),
            ("hellos_source", self.hellos_source),
            ("hellos_total", self.hellos_total),
            ("strays_source", self.strays_source),
            ("strays_total", self.strays_total),
            ("bad_tag", self.bad_tag),
            ("bad_frame", self.bad_frame),
            ("to_server_full", self.to_server_full),
            ("to_clients_full", self.to_clients_full),
        ]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_cause().iter().map(|(_, count)| count).sum()
    }
}
