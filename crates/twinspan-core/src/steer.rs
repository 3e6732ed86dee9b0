//! Which shard of a node a datagram belongs to, by its connection id.
//!
//! Every datagram of a session carries the id that the server chose, so a client whose address
//! changes stays on its shard; a handshake carries a token id, so its repeats meet the shard that
//! began it. The function is small enough for a packet filter of the kernel: loads of big-endian
//! words, shifts, exclusive-ors and multiplications of 32 bits.
//!
//! ```
//! use twinspan_core::steer::Steering;
//!
//! let steering = Steering::new(0x5eed, 4);
//! let id = 77_u32;
//! let mut packet = vec![0; 30];
//! packet[..4].copy_from_slice(&id.to_le_bytes());
//! assert_eq!(steering.shard_of_packet(&packet), steering.shard_of_id(id));
//! ```

use std::fmt;

/// Where the connection id is in a packet: session 1.2.
pub const ID_OFFSET: usize = 0;
/// Where the first word of the token id is in a HELLO: session 3.3.
pub const TOKEN_OFFSET: usize = 52;
/// The two multipliers of the mixing, those of a well-known 32-bit finaliser.
pub const MULTIPLIERS: [u32; 2] = [0x85eb_ca6b, 0xc2b2_ae35];
/// The three right shifts of the mixing: before, between and after the multiplications.
pub const SHIFTS: [u32; 3] = [16, 13, 16];

/// The rule by which datagrams are spread over shards, the same in every shard and in the kernel.
///
/// The key keeps who does not know it from choosing ids that all meet in one shard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Steering {
    key: u32,
    shards: u16,
}

impl Steering {
    /// A rule for `shards` shards; 0 counts as 1.
    pub const fn new(key: u32, shards: u16) -> Self {
        Self { key, shards: if shards == 0 { 1 } else { shards } }
    }

    /// The key, a secret of the node.
    pub const fn key(self) -> u32 {
        self.key
    }

    /// How many shards there are, at least 1.
    pub const fn shards(self) -> u16 {
        self.shards
    }

    /// The shard of packets that carry connection `id`, from 0 to one less than the shards.
    pub const fn shard_of_id(self, id: u32) -> u16 {
        self.shard_of_word(u32::from_be_bytes(id.to_le_bytes()))
    }

    /// The shard that takes a packet: by its connection id, or for id 0 by the first word of the
    /// token id. A packet too short for what is looked at goes to shard 0.
    pub fn shard_of_packet(self, packet: &[u8]) -> u16 {
        match word(packet, ID_OFFSET) {
            Some(0) => word(packet, TOKEN_OFFSET).map_or(0, |token| self.shard_of_word(token)),
            Some(id) => self.shard_of_word(id),
            None => 0,
        }
    }

    /// The shard of four packet bytes read as a big-endian word, as a packet filter reads them.
    const fn shard_of_word(self, word: u32) -> u16 {
        let mut mixed = word ^ self.key;
        mixed ^= mixed >> SHIFTS[0];
        mixed = mixed.wrapping_mul(MULTIPLIERS[0]);
        mixed ^= mixed >> SHIFTS[1];
        mixed = mixed.wrapping_mul(MULTIPLIERS[1]);
        mixed ^= mixed >> SHIFTS[2];
        // The high half scaled down: no division, and no product beyond 32 bits.
        (((mixed >> 16) * self.shards as u32) >> 16) as u16
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("shards", &self.shards).finish_non_exhaustive()
    }
}

fn word(packet: &[u8], offset: usize) -> Option<u32> {
    packet.get(offset..)?.first_chunk().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn short(id: u32) -> Vec<u8> {
        let mut packet = vec![0xa5; 30];
        packet[..4].copy_from_slice(&id.to_le_bytes());
        packet
    }

    fn hello(token: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0x5a; 1_200];
        packet[..4].fill(0);
        packet[52..56].copy_from_slice(&token);
        packet
    }

    #[test]
    fn shards_have_golden_values() {
        let steering = Steering::new(0x0102_0304, 8);
        let shards = [1, 2, 3, 0x1234_5678, u32::MAX].map(|id| steering.shard_of_id(id));
        assert_eq!(shards, [1, 6, 0, 3, 7]);
    }

    #[test]
    fn ids_spread_evenly_over_shards() {
        for shards in [2_u16, 3, 7, 64] {
            let steering = Steering::new(0xdead_beef, shards);
            let mut counts = vec![0_u32; usize::from(shards)];
            for id in 1..=64_000 {
                counts[usize::from(steering.shard_of_id(id))] += 1;
            }
            let mean = 64_000 / u32::from(shards);
            let near = |count: &u32| count.abs_diff(mean) < mean / 5;
            assert!(counts.iter().all(near), "{shards} shards: {counts:?}");
        }
    }

    #[test]
    fn another_key_spreads_otherwise() {
        let (one, other) = (Steering::new(1, 16), Steering::new(2, 16));
        let same = (0..16_000).filter(|id| one.shard_of_id(*id) == other.shard_of_id(*id)).count();
        assert!((600..1_400).contains(&same), "{same} of 16,000 in the same of 16 shards");
    }

    #[test]
    fn a_handshake_goes_by_its_token() {
        let steering = Steering::new(9, 16);
        let shards: Vec<u16> =
            (0..64).map(|token| steering.shard_of_packet(&hello([token, 7, 7, 7]))).collect();
        assert!(shards.iter().any(|shard| *shard != shards[0]));
        // The token's word is mixed as an id's bytes are.
        let token = [1, 2, 3, 4];
        let as_id = steering.shard_of_id(u32::from_le_bytes(token));
        assert_eq!(steering.shard_of_packet(&hello(token)), as_id);
    }

    #[test]
    fn what_is_too_short_goes_to_shard_0() {
        let steering = Steering::new(3, 1_000);
        assert_eq!(steering.shard_of_packet(&[]), 0);
        assert_eq!(steering.shard_of_packet(&[1, 2, 3]), 0);
        assert_eq!(steering.shard_of_packet(&hello([1, 2, 3, 4])[..55]), 0);
    }

    #[test]
    fn no_shards_count_as_one() {
        let steering = Steering::new(3, 0);
        assert_eq!(steering.shards(), 1);
        assert_eq!(steering.shard_of_id(u32::MAX), 0);
    }

    #[test]
    fn debug_output_shows_no_key() {
        assert_eq!(format!("{:?}", Steering::new(4_711, 2)), "Steering { shards: 2, .. }");
    }

    proptest! {
        #[test]
        fn any_packet_has_a_shard(
            key in any::<u32>(), shards in any::<u16>(),
            packet in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let steering = Steering::new(key, shards);
            prop_assert!(steering.shard_of_packet(&packet) < steering.shards());
        }

        #[test]
        fn a_packet_goes_where_its_id_belongs(key in any::<u32>(), id in 1_u32.., n in 1_u16..) {
            let steering = Steering::new(key, n);
            prop_assert_eq!(steering.shard_of_packet(&short(id)), steering.shard_of_id(id));
        }
    }
}
