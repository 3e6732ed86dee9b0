//! What a hub tells other processes of its machine: who it is, what it carries, and where it listens.
//!
//! //= hub 15.2

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use twinspan_topic::{GREETING_BYTES_MAX, Greeting, GreetingError};

use super::host::Host;
use crate::quic::Fingerprint;
use crate::report::Transport;

const MAGIC: [u8; 4] = *b"TwAn";
const VERSION: u8 = 1;
/// Bytes before the greeting.
const FIXED_BYTES: usize = 40;
/// Bytes of a road without a fingerprint.
const ROAD_BYTES: usize = 20;
const FINGERPRINT_BYTES: usize = 32;
/// Roads that one hub announces at most.
const ROADS_MAX: usize = 8;
/// The longest announcement.
pub(super) const ANNOUNCEMENT_BYTES_MAX: usize =
    FIXED_BYTES + GREETING_BYTES_MAX + ROADS_MAX * (ROAD_BYTES + FINGERPRINT_BYTES);

const HAS_FINGERPRINT: u8 = 1;
/// Roads by their numbers, from 1.
const ROADS: [Transport; 3] = [Transport::BatchUdp, Transport::Tcp, Transport::Quic];

/// Where a hub listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfferedRoad {
    pub(crate) road: Transport,
    pub(crate) address: SocketAddr,
    /// What stands for its certificate.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// What a hub tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) host: Host,
    pub(crate) user: u32,
    pub(crate) greeting: Greeting,
    pub(crate) roads: Vec<OfferedRoad>,
}

/// Why an announcement is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnnouncementError {
    /// It has another length than it says.
    #[error("an announcement has another length than it says")]
    Length,
    /// It is of another protocol.
    #[error("an announcement is of another protocol")]
    Magic,
    /// It is of another version.
    #[error("an announcement has version {0}, this program {VERSION}: use one version")]
    Version(u8),
    /// A field has a value without a meaning.
    #[error("an announcement's {0} means nothing")]
    Field(&'static str),
    /// Its greeting is none.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
}

fn number_of(road: Transport) -> Option<u8> {
    // One wire format for both.
    let road = if road == Transport::IoUring { Transport::BatchUdp } else { road };
    ROADS.iter().position(|other| *other == road).map(|at| at as u8 + 1)
}

impl OfferedRoad {
    fn write(&self, number: u8, out: &mut Vec<u8>) {
        let flags = if self.fingerprint.is_some() { HAS_FINGERPRINT } else { 0 };
        out.extend_from_slice(&[number, flags]);
        out.extend_from_slice(&self.address.port().to_le_bytes());
        let ip = match self.address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        out.extend_from_slice(&ip.octets());
        if let Some(Fingerprint(bytes)) = self.fingerprint {
            out.extend_from_slice(&bytes);
        }
    }

    fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), AnnouncementError> {
        let Some((&[number, flags, p0, p1, ref ip @ ..], mut rest)) =
            bytes.split_first_chunk::<ROAD_BYTES>()
        else {
            return Err(AnnouncementError::Length);
        };
        let road = ROADS.get(usize::from(number).wrapping_sub(1)).copied();
        let road = road.ok_or(AnnouncementError::Field("road"))?;
        if flags & !HAS_FINGERPRINT != 0 {
            return Err(AnnouncementError::Field("flag"));
        }
        let ip = <[u8; 16]>::try_from(&ip[..]).map_err(|_| AnnouncementError::Length)?;
        let ip = Ipv6Addr::from(ip).to_canonical();
        let address = SocketAddr::new(ip, u16::from_le_bytes([p0, p1]));
        if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(AnnouncementError::Field("address"));
        }
        let mut fingerprint = None;
        if flags & HAS_FINGERPRINT != 0 {
            let (bytes, behind) =
                rest.split_first_chunk::<FINGERPRINT_BYTES>().ok_or(AnnouncementError::Length)?;
            (fingerprint, rest) = (Some(Fingerprint(*bytes)), behind);
        }
        Ok((Self { road, address, fingerprint }, rest))
    }
}

impl Announcement {
    /// Appends the announcement. Roads that nobody can be told of are left out, and those above eight.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let roads = self.roads.iter().filter_map(|it| Some((number_of(it.road)?, it)));
        let roads: Vec<_> = roads.take(ROADS_MAX).collect();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, roads.len() as u8, 0, 0]);
        out.extend_from_slice(&self.host.boot);
        out.extend_from_slice(&self.host.space.to_le_bytes());
        out.extend_from_slice(&self.user.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        self.greeting.write(out);
        for (number, road) in roads {
            road.write(number, out);
        }
    }

    /// Reads an announcement.
    ///
    /// # Errors
    /// [`AnnouncementError`] names what is wrong.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, AnnouncementError> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
            return Err(AnnouncementError::Length);
        };
        let [m0, m1, m2, m3, version, count, z0, z1, ..] = *fixed;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(AnnouncementError::Magic);
        }
        if version != VERSION {
            return Err(AnnouncementError::Version(version));
        }
        let [.., u0, u1, u2, u3, z2, z3, z4, z5] = *fixed;
        if [z0, z1, z2, z3, z4, z5] != [0; 6] {
            return Err(AnnouncementError::Field("reserved byte"));
        }
        if usize::from(count) > ROADS_MAX {
            return Err(AnnouncementError::Field("count of roads"));
        }
        let (mut boot, mut space) = ([0; 16], [0; 8]);
        for (place, byte) in boot.iter_mut().chain(&mut space).zip(fixed.iter().skip(8)) {
            *place = *byte;
        }
        let host = Host { boot, space: u64::from_le_bytes(space) };
        let (greeting, mut rest) = Greeting::parse(rest)?;
        let mut roads = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let (road, behind) = OfferedRoad::parse(rest)?;
            roads.push(road);
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(AnnouncementError::Length);
        }
        let user = u32::from_le_bytes([u0, u1, u2, u3]);
        Ok(Self { host, user, greeting, roads })
    }

    /// Where it listens for a road.
    pub(crate) fn offered(&self, road: Transport) -> Option<&OfferedRoad> {
        let wanted = number_of(road);
        self.roads.iter().find(|it| wanted.is_some() && number_of(it.road) == wanted)
    }
}

/// Any bytes are an announcement or name a reason; one that was read is written the same.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(data: &[u8]) -> Result<Announcement, AnnouncementError> {
    let read = Announcement::parse(data);
    if let Ok(read) = &read {
        let mut again = Vec::new();
        read.write(&mut again);
        assert_eq!(again, data, "something else was written than read");
    }
    read
}

/// Good announcements.
#[cfg(feature = "fuzz")]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let roads = example().roads.into_iter().take(1).collect();
    let short = Announcement { user: 0, roads, ..example() };
    let written = |announcement: Announcement| {
        let mut bytes = Vec::new();
        announcement.write(&mut bytes);
        bytes
    };
    [example(), short].map(written).into()
}

#[cfg(any(test, feature = "fuzz"))]
pub(super) fn example() -> Announcement {
    let road = |road, address: SocketAddr, fingerprint| OfferedRoad { road, address, fingerprint };
    Announcement {
        host: Host { boot: *b"a boot identity.", space: 0x0102 },
        user: 1_000,
        greeting: crate::stream::test_greeting(3, "sensor/imu"),
        roads: vec![
            road(Transport::BatchUdp, ([127, 0, 0, 1], 0x1234).into(), None),
            road(Transport::Tcp, (Ipv6Addr::LOCALHOST, 2).into(), None),
            road(Transport::Quic, ([10, 0, 0, 9], 3).into(), Some(Fingerprint([0xab; 32]))),
        ],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        example().write(&mut bytes);
        bytes
    }

    #[test]
    fn an_announcement_has_its_golden_bytes() {
        let mut greeting = Vec::new();
        example().greeting.write(&mut greeting);
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let golden: [&[u8]; 14] = [
            b"TwAn\x01\x03\0\0",
            b"a boot identity.",
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[0xe8, 3, 0, 0, 0, 0, 0, 0],
            &greeting,
            &[1, 0, 0x34, 0x12],
            &mapped,
            &[127, 0, 0, 1],
            &[2, 0, 2, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[3, 1, 3, 0],
            &mapped,
            &[10, 0, 0, 9],
            &[0xab; 32],
        ];
        assert_eq!(written(), golden.concat());
        assert_eq!(Announcement::parse(&golden.concat()), Ok(example()));
        assert!(written().len() <= ANNOUNCEMENT_BYTES_MAX);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = written();
        let roads_at = good.len() - 3 * ROAD_BYTES - FINGERPRINT_BYTES;
        for (at, value, error) in [
            (0, 0, AnnouncementError::Magic),
            (4, 2, AnnouncementError::Version(2)),
            (5, 9, AnnouncementError::Field("count of roads")),
            (5, 2, AnnouncementError::Length),
            (5, 4, AnnouncementError::Length),
            (6, 1, AnnouncementError::Field("reserved byte")),
            (39, 1, AnnouncementError::Field("reserved byte")),
            (FIXED_BYTES, 0, AnnouncementError::Greeting(GreetingError::Magic)),
            (roads_at, 0, AnnouncementError::Field("road")),
            (roads_at, 4, AnnouncementError::Field("road")),
            (roads_at + 1, 2, AnnouncementError::Field("flag")),
            (roads_at + 16, 224, AnnouncementError::Field("address")),
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(Announcement::parse(&bytes), Err(error), "byte {at}");
        }
        assert_eq!(Announcement::parse(&good[..30]), Err(AnnouncementError::Length));
    }

    #[test]
    fn a_road_is_found_by_what_is_spoken_on_it() {
        let example = example();
        let address = |road| example.offered(road).map(|it| it.address.port());
        assert_eq!(address(Transport::IoUring), Some(0x1234), "one wire format");
        assert_eq!(address(Transport::Tcp), Some(2));
        assert_eq!(address(Transport::SharedMemory), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_announcement_or_name_a_reason(
            noise in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
            cut in 0_usize..400,
        ) {
            let mut bytes = written();
            for (at, value) in noise {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(bytes.len().max(cut) - cut / 2);
            if let Ok(read) = Announcement::parse(&bytes) {
                let mut again = Vec::new();
                read.write(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
