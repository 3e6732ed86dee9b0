//! Which client addresses a server answers: a table of fixed size, filled by what the server sends.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use twinspan_core::random::mix;
use twinspan_core::time::Timestamp;

/// Places in one bucket: three cache lines.
const WAYS: usize = 8;
/// The most links that a table may be made for.
pub const LINKS_LIMIT: usize = 1 << 22;

/// A client's address, in words.
#[derive(Clone, Copy, Debug)]
struct Client {
    high: u64,
    low: u64,
    port: u16,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let bits = ip.to_bits();
        Self { high: (bits >> 64) as u64, low: bits as u64, port: address.port() }
    }
}

/// A link, or an empty place: no client has port 0.
#[derive(Clone, Copy, Debug)]
struct Link {
    high: u64,
    low: u64,
    /// When the server last sent to it, in whole seconds.
    answered_s: u32,
    port: u16,
}

// So that a bucket is three cache lines.
const _: () = assert!(size_of::<Link>() == 24);

impl Link {
    const EMPTY: Self = Self { high: 0, low: 0, answered_s: 0, port: 0 };

    const fn is_of(&self, client: &Client) -> bool {
        self.high == client.high && self.low == client.low && self.port == client.port
    }

    const fn is_live(&self, now_s: u32, idle_s: u32) -> bool {
        self.port != 0 && now_s.saturating_sub(self.answered_s) < idle_s
    }
}

/// What [`Links::answer`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The link was there.
    Known,
    /// It is new, in an empty place.
    New,
    /// It is new, and the longest unanswered one of its bucket was forgotten for it.
    Instead,
}

/// Addresses that a server answered lately.
///
/// A table that forgets: with twice as many places as links it is made for, fewer than one link in
/// a hundred is ever without one, and a forgotten link costs its client nothing but a place in the
/// queue of strangers until the server's next datagram to it.
pub(crate) struct Links {
    /// `WAYS` places a bucket.
    places: Box<[Link]>,
    /// Buckets minus one; a power of two minus one.
    mask: u64,
    /// Keeps who does not know it from choosing addresses that meet in one bucket.
    key: u64,
    idle_s: u32,
}

impl Links {
    /// A table for `links_max` links, each kept for `idle` after the server's last datagram.
    pub(crate) fn new(links_max: usize, idle: Duration, key: u64) -> Self {
        let buckets = (links_max.clamp(1, LINKS_LIMIT) * 2).div_ceil(WAYS).next_power_of_two();
        let places = vec![Link::EMPTY; buckets * WAYS].into_boxed_slice();
        let idle_s = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX).max(1);
        Self { places, mask: buckets as u64 - 1, key, idle_s }
    }

    /// Whether the server answered `client` lately.
    pub(crate) fn contains(&self, now: Timestamp, client: SocketAddr) -> bool {
        let client = Client::new(client);
        let now_s = seconds(now);
        let bucket = self.places.get(self.bucket(client)).unwrap_or_default();
        bucket.iter().any(|link| link.is_of(&client) && link.is_live(now_s, self.idle_s))
    }

    /// The server answered `client`.
    pub(crate) fn answer(&mut self, now: Timestamp, client: SocketAddr) -> Answered {
        let client = Client::new(client);
        let (now_s, idle_s) = (seconds(now), self.idle_s);
        let range = self.bucket(client);
        let bucket = self.places.get_mut(range).unwrap_or_default();
        let own = bucket.iter_mut().find(|link| link.is_of(&client));
        if let Some(link) = own {
            let was_live = link.is_live(now_s, idle_s);
            // Once a second at most: the line stays clean otherwise.
            if link.answered_s != now_s {
                link.answered_s = now_s;
            }
            return if was_live { Answered::Known } else { Answered::New };
        }
        let rank = |link: &&mut Link| (link.is_live(now_s, idle_s), link.answered_s);
        let Some(place) = bucket.iter_mut().min_by_key(rank) else { return Answered::Known };
        let instead = place.is_live(now_s, idle_s);
        let Client { high, low, port } = client;
        *place = Link { high, low, answered_s: now_s, port };
        if instead { Answered::Instead } else { Answered::New }
    }

    /// How many links there are. Looks at the whole table.
    pub(crate) fn count(&self, now: Timestamp) -> usize {
        let now_s = seconds(now);
        self.places.iter().filter(|link| link.is_live(now_s, self.idle_s)).count()
    }

    /// Bytes of the table, which never change.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    fn bucket(&self, client: Client) -> core::ops::Range<usize> {
        let hash = hash(self.key, client.high, client.low ^ u64::from(client.port) << 48);
        let at = (hash & self.mask) as usize * WAYS;
        at..at + WAYS
    }
}

/// A keyed hash of two words.
pub(crate) const fn hash(key: u64, high: u64, low: u64) -> u64 {
    mix(mix(key ^ low) ^ high)
}

const fn seconds(now: Timestamp) -> u32 {
    // A run of 136 years.
    (now.as_nanos() / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_secs(seconds))
    }

    fn client(number: u16) -> SocketAddr {
        if number.is_multiple_of(2) {
            ([10, 0, (number >> 8) as u8, number as u8], 5_000 + number).into()
        } else {
            (std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number), 443).into()
        }
    }

    proptest! {
        /// While no bucket overflows the table is a map of last answers.
        #[test]
        fn it_is_a_map_that_forgets_the_idle(
            steps in proptest::collection::vec((0_u16..40, any::<bool>(), 0_u64..4), 1..200),
        ) {
            let mut links = Links::new(4_096, Duration::from_secs(10), 7);
            let mut model = HashMap::<SocketAddr, u64>::new();
            let mut now_s = 0;
            for (number, answers, pause) in steps {
                now_s += pause;
                let client = client(number);
                let known = model.get(&client).is_some_and(|at| now_s - at < 10);
                prop_assert_eq!(links.contains(at(now_s), client), known);
                if answers {
                    let told = links.answer(at(now_s), client);
                    prop_assert_eq!(told == Answered::Known, known);
                    model.insert(client, now_s);
                }
                let live = model.values().filter(|at| now_s - **at < 10).count();
                prop_assert_eq!(links.count(at(now_s)), live);
            }
        }
    }

    #[test]
    fn the_table_never_grows_and_the_longest_unanswered_gives_way() {
        let mut links = Links::new(4, Duration::from_secs(100_000), 1);
        let bytes = links.bytes();
        let mut instead = 0;
        for number in 0..2_000_u16 {
            let told = links.answer(at(u64::from(number)), client(number));
            instead += usize::from(told == Answered::Instead);
            assert!(links.contains(at(u64::from(number)), client(number)));
        }
        assert_eq!(links.bytes(), bytes);
        let count = links.count(at(2_000));
        assert_eq!(count, WAYS, "one bucket, and it is full");
        assert_eq!(instead, 2_000 - count);
        assert!((1_992..2_000).all(|number| links.contains(at(2_000), client(number))));
    }

    #[test]
    fn as_many_links_as_it_is_made_for_nearly_all_fit() {
        let mut links = Links::new(10_000, Duration::from_secs(60), 3);
        let told = (0..10_000).map(|number| links.answer(at(0), client(number)));
        let instead = told.filter(|told| *told == Answered::Instead).count();
        assert!(instead < 100, "{instead} of 10,000");
    }

    #[test]
    fn another_port_is_another_link() {
        let mut links = Links::new(16, Duration::from_secs(60), 3);
        links.answer(at(0), "10.0.0.1:5000".parse().unwrap());
        assert!(links.contains(at(0), "10.0.0.1:5000".parse().unwrap()));
        assert!(!links.contains(at(0), "10.0.0.1:5001".parse().unwrap()));
        assert!(!links.contains(at(0), "10.0.0.2:5000".parse().unwrap()));
    }
}
