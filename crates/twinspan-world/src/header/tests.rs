use proptest::prelude::*;

use super::*;

pub(crate) fn header() -> StateHeader {
    StateHeader {
        tick: 0x0102_0304,
        made_us: 500,
        slot_us: 600,
        last_input: 0x0001_0007,
        own: OwnState {
            id: EntityId::from_bits(0x1001).unwrap(),
            position: Position { x: 16.5, y: 0.0, z: 160.25 },
            flags: Flags::HASTE,
            health: 100,
            side_m: 70_000,
        },
        cell_m: 32,
        ticks_per_state: TICKS_PER_STATE,
        base: CellId { x: -3, z: 2 },
        mask: 1 << 24 | 1 << 25,
        part: 0,
        parts: 1,
        digest: None,
    }
}

fn statuses() -> Statuses {
    let mut statuses = Statuses::default();
    statuses.set(24, Status::Record);
    statuses.set(25, Status::Empty);
    statuses
}

fn encoded(header: &StateHeader, slot_bits: Option<u32>) -> Vec<u8> {
    let mut out = Vec::new();
    header.encode(slot_bits, statuses(), &mut out);
    assert!(out.len() <= STATE_HEADER_BYTES_MAX);
    out
}

fn context() -> Context {
    Context {
        own: EntityId::from_bits(0x1001).unwrap(),
        side_m: 70_000,
        cell_m: 32,
        slot_bits: 14,
        tick: 0x0102_0000,
        last_input: 0x0000_ffff,
    }
}

fn decode(bytes: &[u8], known: Option<Context>) -> Result<StateHeader, StateError> {
    StateHeader::decode(bytes, known).map(|(header, ..)| header)
}

#[test]
fn a_header_has_these_bytes() {
    let mut whole = vec![0x0a, 4, 3, 2, 1, 7, 0, 1, 0, 1, 0x10, 0, 0, 0x70, 0x11, 1, 0, 32, 14];
    let times = [0xf4, 1, 0, 0, 0xc8, 1, 0, 10];
    whole.extend(times);
    assert_eq!(encoded(&header(), Some(14))[..27], whole);
    let mut short = vec![2, 4, 3, 7, 0];
    short.extend(times);
    assert_eq!(encoded(&header(), None)[..13], short);
    let own = &encoded(&header(), None)[13..];
    assert_eq!(own, OWN);
    for (bytes, known) in
        [(encoded(&header(), Some(14)), None), (encoded(&header(), None), Some(context()))]
    {
        let bytes = [&bytes[..], b"rest"].concat();
        let (read, read_statuses, known, rest) = StateHeader::decode(&bytes, known).unwrap();
        assert_eq!((read, read_statuses, rest), (header(), statuses(), &b"rest"[..]));
        assert_eq!((known.tick, known.last_input), (0x0102_0304, 0x0001_0007));
    }
}

#[test]
fn everything_rare_travels_too() {
    let own = OwnState {
        position: Position { y: 299.5, ..header().own.position },
        health: 3,
        flags: Flags::ALL,
        ..header().own
    };
    let digest = Some(Digest { cells: 1 << 25, sum: 0x0a0b_0c0d });
    let rare = StateHeader {
        own,
        digest,
        part: 1,
        parts: 3,
        ticks_per_state: 9,
        slot_us: 400,
        mask: 1 << 24 | 1 << 25 | 1 << 48,
        ..header()
    };
    assert_eq!(decode(&encoded(&rare, Some(14)), None), Ok(rare));
    assert_eq!(decode(&encoded(&rare, None), Some(context())), Ok(rare));
}

#[test]
fn low_bits_are_widened_to_the_nearest_value() {
    let near = |tick, known| {
        let bytes = encoded(&StateHeader { tick, ..header() }, None);
        decode(&bytes, Some(Context { tick: known, ..context() })).unwrap().tick
    };
    assert_eq!(near(0x0001_0002, 0x0000_fff0), 0x0001_0002);
    assert_eq!(near(0x0000_fff0, 0x0001_0002), 0x0000_fff0);
}

#[test]
fn the_own_place_is_exact_ten_thousand_kilometres_from_the_origin() {
    let x = 312_499.0 * 32.0 + 31.999_999_046_325_684;
    let position = Position { x, y: 0.0, z: 1.0 / 1_048_576.0 };
    let own = OwnState { position, ..header().own };
    let far = StateHeader { own, base: CellId { x: 312_496, z: -3 }, ..header() };
    assert_eq!(decode(&encoded(&far, Some(20)), None).unwrap().own.position, position);
}

#[test]
fn what_is_no_header_is_named() {
    let change = |offset: usize, bytes: &[u8]| {
        let mut header = encoded(&header(), Some(14));
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
        decode(&header, None).unwrap_err()
    };
    assert_eq!(change(0, &[1]), StateError::Version { version: 1 });
    assert_eq!(change(0, &[0x8a]), StateError::Version { version: 0x8a });
    assert_eq!(change(0, &[2]), StateError::NoContext);
    assert_eq!(change(9, &[0, 0x10]), StateError::EntityId { bits: 0x1000 });
    assert_eq!(change(13, &[0; 4]), StateError::WorldSide);
    assert_eq!(change(17, &[7]), StateError::CellSide { metres: 7 });
    assert_eq!(change(18, &[21]), StateError::SlotBits { bits: 21 });
    assert_eq!(change(25, &[1]), StateError::Window);
    let with = |change: fn(&mut StateHeader)| {
        let mut header = header();
        change(&mut header);
        decode(&encoded(&header, Some(14)), None)
    };
    assert_eq!(with(|h| (h.part, h.parts) = (2, 2)), Err(StateError::Part { part: 2, parts: 2 }));
    assert_eq!(with(|h| h.ticks_per_state = 61), Err(StateError::Pace { ticks_per_state: 61 }));
    let whole = encoded(&header(), Some(14));
    for len in 0..whole.len() {
        assert!(matches!(decode(&whole[..len], None), Err(StateError::Short(_))), "{len}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_header_or_name_a_reason(
        bytes in proptest::collection::vec(any::<u8>(), 0..120), knows: bool,
    ) {
        let known = knows.then_some(context());
        if let Ok(header) = decode(&bytes, known) {
            // What was read can be written and read again.
            let mut out = Vec::new();
            header.encode(Some(14), Statuses::default(), &mut out);
            let read = decode(&out, None).unwrap();
            prop_assert_eq!(read.own.position, header.own.position);
        }
    }
}

/// Place, flags, mask and statuses.
const OWN: [u8; 11] = [0, 0, 8, 1, 0, 8, 8, 0, 0x18, 0, 0x0b];
