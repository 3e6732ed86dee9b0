use proptest::prelude::*;
use twinspan_core::bytes::Writer;

use super::*;
use crate::entity::{Flags, Kind, Position, Velocity};
use crate::state::STATE_HEADER_BYTES;

const WEST: CellId = CellId { x: 2, z: 2 };
const EAST: CellId = CellId { x: 3, z: 2 };

fn id(index: u32) -> EntityId {
    EntityId::from_bits(index << 12 | 1).unwrap()
}

fn entity(index: u32, cell: CellId) -> EntityState {
    let corner = Position::ground(f64::from(cell.x) * 32.0, f64::from(cell.z) * 32.0);
    EntityState {
        id: id(index),
        kind: Kind::Npc,
        position: Position { x: corner.x + 1.0, y: 2.0, z: corner.z + 3.0 },
        velocity: Velocity::ZERO,
        yaw: 0.0,
        pitch: 0.0,
        flags: Flags::NONE,
        health: 100,
    }
}

/// A header for a client that sees these cells.
fn header(tick: u32, cells: &[CellId]) -> StateHeader {
    let own = OwnState {
        id: id(0),
        position: Position::ground(80.0, 80.0),
        velocity: Velocity::ZERO,
        yaw: 0.0,
        pitch: 0.0,
        flags: Flags::NONE,
        health: 100,
        side_m: 512,
    };
    let mask = cells.iter().fold(0, |mask, cell| mask | 1_u64 << (cell.z * 7 + cell.x));
    let base = CellId::default();
    StateHeader {
        tick,
        made_us: 0,
        slot_us: 0,
        last_input: 0,
        own,
        cell_m: 32,
        base,
        mask,
        part: 0,
        parts: 1,
    }
}

/// A state message; each record is a cell, a span of slots and the slots listed.
fn message(header: StateHeader, records: &[(CellId, u32, u32, &[u32])]) -> Vec<u8> {
    let mut bytes = [0; 60_000];
    let mut out = Writer::new(&mut bytes);
    header.encode(&mut out).unwrap();
    for (cell, first, last, slots) in records {
        out.varint(twinspan_core::bytes::zigzag(i64::from(cell.x))).unwrap();
        out.varint(twinspan_core::bytes::zigzag(i64::from(cell.z))).unwrap();
        out.u8(3).unwrap();
        out.u32(first << 12).unwrap();
        out.u32(last << 12 | 0xfff).unwrap();
        out.put(&[0, slots.len() as u8]).unwrap();
        for slot in *slots {
            out.put(&quantise::encode(&entity(*slot, *cell), *cell, 32)).unwrap();
        }
    }
    out.written().to_vec()
}

const ALL: u32 = 0xf_ffff;

fn slots(replica: &Replica) -> Vec<(usize, CellId)> {
    replica.entities.iter().map(|entry| (entry.state.id.index(), entry.cell)).collect()
}

#[test]
fn an_entity_is_where_the_newest_word_puts_it() {
    let mut replica = Replica::new();
    let cells = [WEST, EAST];
    let mut apply = |tick, records: &[(CellId, u32, u32, &[u32])]| {
        let applied = replica.apply(&message(header(tick, &cells), records)).unwrap();
        (matches!(applied, Applied::New { .. }), slots(&replica))
    };
    assert_eq!(apply(10, &[(WEST, 0, ALL, &[1, 2])]), (true, vec![(1, WEST), (2, WEST)]));
    // It went east, and nothing was heard of the west yet.
    assert_eq!(apply(12, &[(EAST, 0, ALL, &[2])]), (true, vec![(1, WEST), (2, EAST)]));
    // An older word about the west comes late: it is news, but not about who went east.
    assert_eq!(apply(11, &[(WEST, 0, ALL, &[1, 2])]), (true, vec![(1, WEST), (2, EAST)]));
    // Who is not listed where it was is gone; who was listed elsewhere since is not.
    assert_eq!(apply(12, &[(WEST, 0, ALL, &[])]), (true, vec![(2, EAST)]));
    // Nothing older brings anybody back.
    assert_eq!(apply(11, &[(WEST, 0, ALL, &[1])]), (false, vec![(2, EAST)]));
    assert_eq!(apply(12, &[(EAST, 0, ALL, &[2])]), (false, vec![(2, EAST)]));
}

#[test]
fn a_record_says_nothing_about_ids_outside_its_span() {
    let mut replica = Replica::new();
    let mut apply = |tick, records: &[(CellId, u32, u32, &[u32])]| {
        replica.apply(&message(header(tick, &[WEST]), records)).unwrap();
        slots(&replica).into_iter().map(|(slot, _)| slot).collect::<Vec<_>>()
    };
    assert_eq!(apply(10, &[(WEST, 0, 4, &[1, 4]), (WEST, 5, ALL, &[5, 9])]), [1, 4, 5, 9]);
    // The second half of tick 11 is lost; of tick 12 the first.
    assert_eq!(apply(11, &[(WEST, 0, 4, &[1])]), [1, 5, 9]);
    assert_eq!(apply(12, &[(WEST, 3, ALL, &[9])]), [1, 9]);
    // The lost half comes late: it counts for none of its ids any more.
    assert_eq!(apply(11, &[(WEST, 5, ALL, &[5, 9])]), [1, 9]);
    // A late word that is news for a few of its ids counts for those.
    assert_eq!(apply(12, &[(WEST, 0, ALL, &[2, 4, 9])]), [2, 9]);
}

#[test]
fn cells_that_left_the_window_are_forgotten_at_once() {
    let mut replica = Replica::new();
    let both = message(header(10, &[WEST, EAST]), &[(WEST, 0, ALL, &[1]), (EAST, 0, ALL, &[2])]);
    replica.apply(&both).unwrap();
    replica.apply(&message(header(20, &[EAST]), &[])).unwrap();
    assert_eq!(slots(&replica), [(2, EAST)]);
    assert_eq!(replica.cells().collect::<Vec<_>>(), [EAST]);
    // Seen again later: an old word from before does not count.
    replica.apply(&message(header(30, &[WEST, EAST]), &[])).unwrap();
    let late = message(header(12, &[WEST, EAST]), &[(WEST, 0, ALL, &[1])]);
    assert!(matches!(replica.apply(&late), Ok(Applied::Stale { .. })));
    assert_eq!(slots(&replica), [(2, EAST)]);
    assert!(!replica.is_complete() && replica.tick() == 30);
    let new = message(header(30, &[WEST, EAST]), &[(WEST, 0, ALL, &[1]), (EAST, 0, ALL, &[])]);
    assert!(matches!(replica.apply(&new), Ok(Applied::New { .. })));
    assert!(replica.is_complete());
    assert_eq!(slots(&replica), [(1, WEST)]);
}

#[test]
fn what_is_no_state_is_named_and_changes_nothing() {
    let mut replica = Replica::new();
    replica.apply(&message(header(10, &[WEST]), &[(WEST, 0, ALL, &[1, 2])])).unwrap();
    let before = format!("{replica:?}");
    let mut refused = |message: &[u8]| {
        let error = replica.apply(message).unwrap_err();
        assert_eq!(format!("{replica:?}"), before, "{error}");
        error
    };
    let good = |records: &[(CellId, u32, u32, &[u32])]| message(header(11, &[WEST]), records);
    let unseen = good(&[(WEST, 0, ALL, &[7]), (EAST, 0, ALL, &[])]);
    assert_eq!(refused(&unseen), ReplicaError::Unsubscribed { x: 3, z: 2 });
    let twice = good(&[(WEST, 0, ALL, &[7, 7])]);
    assert_eq!(refused(&twice), ReplicaError::Order { id: id(7) });
    let outside = good(&[(WEST, 3, 6, &[7])]);
    assert_eq!(refused(&outside), ReplicaError::Order { id: id(7) });
    let short = good(&[(WEST, 0, ALL, &[7, 8])]);
    let cut = &short[..short.len() - 1];
    assert!(matches!(refused(cut), ReplicaError::Malformed(StateError::Short(_))));
    assert!(matches!(refused(&[]), ReplicaError::Malformed(StateError::Short(_))));
    let mut odd = short.clone();
    odd[STATE_HEADER_BYTES + 11] = 9;
    assert_eq!(refused(&odd), ReplicaError::Malformed(StateError::Variant { number: 9 }));
}

#[test]
fn entities_are_bounded() {
    let mut replica = Replica::new();
    let forty = |from: u32| (from..from + 40).collect::<Vec<u32>>();
    let mut slot = 0;
    let mut refused = None;
    for tick in 10..1_000 {
        let lists: Vec<_> = (0..50).map(|list| forty(slot + list * 40)).collect();
        let records: Vec<_> =
            lists.iter().map(|list| (WEST, list[0], list[39], list.as_slice())).collect();
        slot += 2_000;
        if let Err(error) = replica.apply(&message(header(tick, &[WEST]), &records)) {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(ReplicaError::TooManyEntities));
    assert_eq!(replica.len(), 16_000);
    // Those that are known already are told as before.
    let known = forty(0);
    let again = message(header(2_000, &[WEST]), &[(WEST, 0, 39, &known)]);
    assert!(replica.apply(&again).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_applied_or_change_nothing(
        offset in 0_usize..140, value: u8, cut in 0_usize..200,
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut replica = Replica::new();
        let known: [(CellId, u32, u32, &[u32]); 2] =
            [(WEST, 0, ALL, &[1, 2]), (EAST, 0, 9, &[3])];
        replica.apply(&message(header(10, &[WEST, EAST]), &known)).unwrap();
        let before = format!("{replica:?}");
        let next = header(11, &[WEST, EAST]);
        let mut changed = message(next, &[(EAST, 0, 20, &[3]), (WEST, 0, ALL, &[1])]);
        if let Some(byte) = changed.get_mut(offset) {
            *byte = value;
        }
        changed.truncate(cut);
        let noisy = [&message(next, &[])[..], &noise].concat();
        for message in [changed, noisy, noise] {
            let mut replica = replica.clone();
            if replica.apply(&message).is_err() {
                prop_assert_eq!(format!("{replica:?}"), before.clone());
            }
            prop_assert!(replica.len() <= REPLICA_ENTITIES_MAX);
            let ids: Vec<_> = replica.entities().map(|entity| entity.id).collect();
            prop_assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }

    #[test]
    fn a_message_reads_the_same_at_every_alignment(shift in 0_usize..16) {
        let message = message(header(10, &[WEST]), &[(WEST, 0, ALL, &[1, 2])]);
        let mut room = vec![0xaa; shift];
        room.extend_from_slice(&message);
        let (mut shifted, mut plain) = (Replica::new(), Replica::new());
        prop_assert_eq!(shifted.apply(&room[shift..]), plain.apply(&message));
        prop_assert_eq!(format!("{shifted:?}"), format!("{plain:?}"));
    }
}
