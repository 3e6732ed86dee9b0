//! Which topic a datagram is of, where several have one port: bits of its token say so.
//!
//! //= hub 8.15

use aws_lc_rs::digest::{SHA256, digest};

use crate::wire::{KINDS_WITH_TOKEN_FIRST, QUIC_BIT, TOKEN_AT, TOKEN_AT_FIRST};

/// The bits of a token that are its topic's; all others are drawn.
const DOOR_BITS: u64 = 0xff_ffff;
/// Bits of a word of 32 that the filter reads, in the order of the network, which are a door's.
const WORD_BITS: u32 = 0xffff_ff00;

/// What all tokens of a topic have in common, of 24 bits: who has none of its topic's name knows it
/// too.
///
/// Two topics in 17 million have the same one, and then cannot have one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Door(u32);

impl Door {
    /// The door of a topic: the first three bytes of the SHA-256 of its name.
    pub fn of(topic: &str) -> Self {
        let hash = digest(&SHA256, topic.as_bytes());
        let [a, b, c] = hash.as_ref().first_chunk().copied().unwrap_or_default();
        Self(u32::from_le_bytes([a, b, c, 0]))
    }

    /// A token of this topic.
    pub(crate) fn token(self, drawn: u64) -> u64 {
        drawn & !DOOR_BITS | u64::from(self.0)
    }

    /// What a filter reads where the token begins: its bytes in the order of the network.
    const fn word(self) -> u32 {
        self.0.swap_bytes()
    }
}

/// Two tokens in one: the first with what was drawn for the second. Said twice it gives the first
/// back.
pub(crate) const fn both(token: u64, other: u64) -> u64 {
    token ^ other & !DOOR_BITS
}

/// Where the datagrams of a port go: to sockets by their places in the order in which they were
/// bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places<'a> {
    /// The topics, and where each is.
    pub doors: &'a [(Door, u32)],
    /// Where packets of QUIC go, which have the bit of 64 in their first byte.
    pub quic: u32,
    /// Where everything else goes.
    pub other: u32,
}

/// The rule as a classic packet filter over a datagram's payload, one instruction each as code, jump
/// if true, jump if false, operand. It returns a place; a datagram that ends before what is read goes
/// to place 0.
pub fn steering_program(places: &Places<'_>) -> Vec<(u16, u8, u8, u32)> {
    // The classic filter's words, as `linux/bpf_common.h` names them.
    const LOAD_WORD: u16 = 0x20;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP: u16 = 0x05;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_SET: u16 = 0x45;
    const AND: u16 = 0x54;
    const RETURN: u16 = 0x06;
    let mut program = vec![
        (LOAD_BYTE, 0, 0, 0),
        (JUMP_IF_SET, 0, 1, u32::from(QUIC_BIT)),
        (RETURN, 0, 0, places.quic),
    ];
    for (at, kind) in (1..=KINDS_WITH_TOKEN_FIRST.len() as u8).rev().zip(KINDS_WITH_TOKEN_FIRST) {
        // Over those that are left, and the two for other kinds.
        program.push((JUMP_IF_EQUAL, at + 1, 0, u32::from(kind)));
    }
    program.extend([
        (LOAD_WORD, 0, 0, TOKEN_AT as u32),
        (JUMP, 0, 0, 1),
        (LOAD_WORD, 0, 0, TOKEN_AT_FIRST as u32),
        (AND, 0, 0, WORD_BITS),
    ]);
    for (door, place) in places.doors {
        program.extend([(JUMP_IF_EQUAL, 0, 1, door.word()), (RETURN, 0, 0, *place)]);
    }
    program.push((RETURN, 0, 0, places.other));
    program
}

#[cfg(test)]
mod tests {
    use twinspan_core::aead::Cipher;

    use super::*;
    use crate::greet::Sealing;
    use crate::probe::Offer;
    use crate::wire::{COOKIE_BYTES, DataWriter, EndReason, Packet};

    /// What the kernel does with the instructions above.
    fn run(program: &[(u16, u8, u8, u32)], datagram: &[u8]) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let (code, jump_true, jump_false, operand) = program[at];
            let from = operand as usize;
            let jump = |is: bool| usize::from(if is { jump_true } else { jump_false });
            at += 1;
            match code {
                0x20 => match datagram.get(from..from + 4) {
                    Some(bytes) => word = u32::from_be_bytes(bytes.try_into().unwrap()),
                    None => return 0,
                },
                0x30 => match datagram.get(from) {
                    Some(byte) => word = u32::from(*byte),
                    None => return 0,
                },
                0x05 => at += from,
                0x15 => at += jump(word == operand),
                0x45 => at += jump(word & operand != 0),
                0x54 => word &= operand,
                0x06 => return operand,
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn each_datagram_of_a_topic_goes_to_its_place() {
        let topics = ["sensor/imu", "sensor/camera", "arm/joints"];
        let doors: Vec<_> = topics.iter().map(|topic| Door::of(topic)).collect();
        let doors: Vec<_> = doors.into_iter().zip([3, 1, 4]).collect();
        let program = steering_program(&Places { doors: &doors, quic: 2, other: 7 });
        for drawn in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            for (door, place) in
                doors.iter().copied().chain([(Door::of("another"), 7), (Door(0), 7)])
            {
                let token = door.token(drawn);
                let (own_token, cookie) = (both(token, door.token(99 << 40)), [7; COOKIE_BYTES]);
                let message = &[5; 60];
                let datagrams = [
                    Packet::Cookie { token, cookie },
                    Packet::End { token, reason: EndReason::Closed, next: 9 },
                    Packet::Reset { token: own_token },
                    Packet::SealedHello {
                        token,
                        cookie,
                        cipher: Cipher::ChaCha20Poly1305,
                        message,
                    },
                    Packet::SealedWelcome { token, message },
                    Packet::Probe { token },
                    Packet::Here { token, offer: Offer::NONE },
                    Packet::Mismatch { token, what: Sealing::Key },
                ];
                for packet in datagrams {
                    let mut bytes = Vec::new();
                    packet.write(&mut bytes);
                    assert_eq!(run(&program, &bytes), place, "{packet:?}");
                }
                let (mut clear, mut sealed) = ([0; 64], [0; 64]);
                assert!(DataWriter::begin(&mut clear, own_token, 5).is_some());
                assert!(DataWriter::begin_sealed(&mut sealed, own_token).is_some());
                assert_eq!([clear, sealed].map(|bytes| run(&program, &bytes)), [place; 2]);
            }
        }
        for short in [&[][..], &[5, 0, 1, 2, 3], &[1; 11]] {
            assert_eq!(run(&program, short), 0, "{short:?}");
        }
        for byte in 64..128 {
            assert_eq!(run(&program, &[byte, 1]), 2);
            assert_eq!(run(&program, &[byte | 128; 1_200]), 2);
        }
        assert_eq!(run(&program, &[63; 16]), 7);
    }

    #[test]
    fn doors_are_those_of_the_specification_and_draws_stay_secret() {
        // `printf sensor/imu | sha256sum`
        let door = Door::of("sensor/imu");
        let (first, second) = (door.token(u64::MAX), door.token(0x1234_5678 << 24));
        assert_eq!(first & DOOR_BITS, second & DOOR_BITS);
        assert_eq!(first >> 24, u64::MAX >> 24);
        assert_eq!(both(both(first, second), second), first);
        assert_eq!(both(first, second) & DOOR_BITS, first & DOOR_BITS);
        assert_ne!(both(first, second) >> 24, first >> 24);
        assert_eq!(door.0.to_le_bytes()[..3], [0x44, 0xc5, 0x27]);
    }
}
