use proptest::prelude::*;

use super::*;
use crate::bits::{BitWriter, Packed};
use crate::content::{id_bits, slip_bits};
use crate::crowd::{SECTION_NEAR, SECTION_PRIVATE, SECTION_SPAN};
use crate::encode::{COUNT_BITS, FORM_BITS, FORM_FULL};
use crate::entity::{Flags, Kind, Position, Velocity};
use crate::header::{Digest, Status, Statuses, push_varint};

const WEST: CellId = CellId { x: 2, z: 2 };
const EAST: CellId = CellId { x: 3, z: 2 };
const ALL: u32 = u32::MAX >> 12;

fn id(slot: u32) -> EntityId {
    EntityId::from_bits(slot << 12 | 1).unwrap()
}

fn content(cell: CellId) -> Content {
    let corner = Position::ground(f64::from(cell.x) * 32.0, f64::from(cell.z) * 32.0);
    let entity = EntityState {
        id: id(0),
        kind: Kind::Npc,
        position: Position { x: corner.x + 1.0, y: 2.0, z: corner.z + 3.0 },
        velocity: Velocity::ZERO,
        yaw: 0.0,
        pitch: 0.0,
        flags: Flags::NONE,
        health: 100,
    };
    Content::of(&entity, cell, 32, 0)
}

/// A header for a client that sees these cells.
fn header(tick: u32, cells: &[CellId]) -> StateHeader {
    let own = OwnState {
        id: id(0),
        position: Position::ground(80.0, 80.0),
        flags: Flags::NONE,
        health: 100,
        side_m: 512,
    };
    let base = CellId { x: -1, z: -1 };
    let bit = |cell: &CellId| (cell.z - base.z) * 7 + cell.x - base.x;
    let mask = cells.iter().fold(0, |mask, cell| mask | 1_u64 << bit(cell));
    StateHeader {
        tick,
        made_us: 0,
        slot_us: 0,
        last_input: 0,
        own,
        cell_m: 32,
        ticks_per_state: 3,
        base,
        mask,
        part: 0,
        parts: 1,
        digest: None,
    }
}

fn bit_of(header: &StateHeader, cell: CellId) -> u32 {
    ((cell.z - header.base.z) * 7 + cell.x - header.base.x) as u32
}

fn push(bits: &mut BitWriter<'_>, packed: Packed) {
    bits.push_wide(packed.bits, packed.count);
}

fn push_whole(bits: &mut BitWriter<'_>, id: EntityId, content: &Content) {
    push(bits, id_bits(id, 20));
    push(bits, content.trait_bits());
    push(bits, content.path_bits(32));
    push(bits, slip_bits(0));
}

/// A full record that lists these slots.
fn full(cell: CellId, slots: &[u32]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut bits = BitWriter::new(&mut text);
    bits.push(slots.len() as u64, COUNT_BITS);
    for slot in slots {
        bits.push(1, 1);
        push_whole(&mut bits, id(*slot), &content(cell));
    }
    bits.push(0, 1);
    bits.finish();
    let mut out = Vec::new();
    push_varint(&mut out, (text.len() as u64) << FORM_BITS | u64::from(FORM_FULL));
    out.push(0);
    [out, text].concat()
}

fn section(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    push_varint(&mut out, payload.len() as u64);
    [&out[..], payload].concat()
}

/// A section about a span of slots.
fn span(header: &StateHeader, cell: CellId, first: u32, last: u32, slots: &[u32]) -> Vec<u8> {
    let mut payload = vec![bit_of(header, cell) as u8];
    payload.extend((first << 12).to_le_bytes());
    payload.extend((last << 12 | 0xfff).to_le_bytes());
    let mut bits = BitWriter::new(&mut payload);
    for slot in slots {
        bits.push(1, 1);
        push_whole(&mut bits, id(*slot), &content(cell));
    }
    bits.push(0, 1);
    bits.finish();
    section(SECTION_SPAN, &payload)
}

/// A section of single entities.
fn singles(header: &StateHeader, kind: u8, slots: &[(CellId, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut bits = BitWriter::new(&mut payload);
    for (cell, slot) in slots {
        bits.push(1 | u64::from(bit_of(header, *cell)) << 1, 7);
        push_whole(&mut bits, id(*slot), &content(*cell));
    }
    bits.push(0, 1);
    bits.finish();
    section(kind, &payload)
}

/// A state message with full records for some cells and sections after them.
fn message(header: StateHeader, records: &[(CellId, &[u32])], sections: &[Vec<u8>]) -> Vec<u8> {
    let mut statuses = Statuses::default();
    for (cell, slots) in records {
        let status = if slots.is_empty() { Status::Empty } else { Status::Record };
        statuses.set(bit_of(&header, *cell), status);
    }
    let mut out = Vec::new();
    header.encode(Some(20), statuses, &mut out);
    let mut records: Vec<_> = records.iter().filter(|(_, slots)| !slots.is_empty()).collect();
    records.sort_by_key(|(cell, _)| *cell);
    records.iter().for_each(|(cell, slots)| out.extend(full(*cell, slots)));
    sections.iter().for_each(|section| out.extend(section));
    out
}

fn slots(replica: &Replica) -> Vec<(usize, CellId)> {
    replica.entities.iter().map(|entry| (entry.id.index(), entry.cell)).collect()
}

#[test]
fn an_entity_is_where_the_newest_word_puts_it() {
    let mut replica = Replica::new();
    let mut apply = |tick, records: &[(CellId, &[u32])]| {
        let applied = replica.apply(&message(header(tick, &[WEST, EAST]), records, &[])).unwrap();
        (matches!(applied, Applied::New { .. }), slots(&replica))
    };
    assert_eq!(apply(10, &[(WEST, &[1, 2])]), (true, vec![(1, WEST), (2, WEST)]));
    // It went east, and nothing was heard of the west yet.
    assert_eq!(apply(12, &[(EAST, &[2])]), (true, vec![(1, WEST), (2, EAST)]));
    // An older word about the west comes late: it is news, but not about who went east.
    assert_eq!(apply(11, &[(WEST, &[1, 2])]), (true, vec![(1, WEST), (2, EAST)]));
    // Who is not listed where it was is gone; who was listed elsewhere since is not.
    assert_eq!(apply(12, &[(WEST, &[])]), (true, vec![(2, EAST)]));
    // Nothing older brings anybody back.
    assert_eq!(apply(11, &[(WEST, &[1])]), (false, vec![(2, EAST)]));
    assert_eq!(apply(12, &[(EAST, &[2])]), (false, vec![(2, EAST)]));
}

#[test]
fn replicas_that_share_keyframes_are_as_those_that_do_not() {
    let states = || {
        let cells: [(CellId, &[u32]); 2] = [(WEST, &[1, 2]), (EAST, &[3])];
        let whole = message(header(10, &[WEST, EAST]), &cells, &[]);
        // The west is as at its keyframe, and the east went out of sight and came back.
        let mut statuses = Statuses::default();
        statuses.set(bit_of(&header(11, &[WEST]), WEST), Status::Same);
        let mut same = Vec::new();
        header(11, &[WEST]).encode(None, statuses, &mut same);
        [whole, same, message(header(12, &[WEST, EAST]), &[(EAST, &[3, 4])], &[])]
    };
    let played = |replica: &mut Replica| {
        states().map(|state| {
            replica.apply(&state).unwrap();
            (slots(replica), replica.entities().collect::<Vec<_>>())
        })
    };
    let mut alone = Replica::new();
    let wanted = played(&mut alone);
    let keyframes = SharedKeyframes::begin(2);
    let (mut one, mut other) = (Replica::new(), Replica::new());
    assert_eq!(played(&mut one), wanted);
    assert_eq!(played(&mut other), wanted);
    assert_eq!((alone.views.shared(), one.views.shared(), other.views.shared()), (0, 2, 2));
    drop(keyframes);
    let before = seen(&other);
    assert!(one.spoil(), "what is spoilt in one");
    assert_eq!(seen(&other), before, "is not in the other");
    assert_eq!(one.views.shared(), 0);
}

#[test]
fn a_span_says_nothing_about_ids_outside_it() {
    let mut replica = Replica::new();
    let mut apply = |tick, spans: &[(u32, u32, &[u32])]| {
        let header = header(tick, &[WEST]);
        let sections: Vec<_> = spans
            .iter()
            .map(|(first, last, slots)| span(&header, WEST, *first, *last, slots))
            .collect();
        replica.apply(&message(header, &[], &sections)).unwrap();
        slots(&replica).into_iter().map(|(slot, _)| slot).collect::<Vec<_>>()
    };
    assert_eq!(apply(10, &[(0, 4, &[1, 4]), (5, ALL, &[5, 9])]), [1, 4, 5, 9]);
    // The second half of tick 11 is lost; of tick 12 the first.
    assert_eq!(apply(11, &[(0, 4, &[1])]), [1, 5, 9]);
    assert_eq!(apply(12, &[(3, ALL, &[9])]), [1, 9]);
    // The lost half comes late: it counts for none of its ids any more.
    assert_eq!(apply(11, &[(5, ALL, &[5, 9])]), [1, 9]);
    // A late word that is news for a few of its ids counts for those.
    assert_eq!(apply(12, &[(0, ALL, &[2, 4, 9])]), [2, 9]);
}

#[test]
fn a_near_entity_is_news_about_itself_alone() {
    let mut replica = Replica::new();
    let first = header(10, &[WEST, EAST]);
    let whole = span(&first, WEST, 0, ALL, &[1, 2]);
    replica.apply(&message(first, &[], &[whole])).unwrap();
    let next = header(11, &[WEST, EAST]);
    let near = singles(&next, SECTION_NEAR, &[(EAST, 2), (WEST, 3)]);
    replica.apply(&message(next, &[], &[near])).unwrap();
    assert_eq!(slots(&replica), [(1, WEST), (2, EAST), (3, WEST)]);
    assert_eq!(replica.cells_with_ticks().collect::<Vec<_>>(), [(WEST, Some(10)), (EAST, None)]);
}

#[test]
fn private_entities_stay_as_long_as_they_are_listed() {
    let mut replica = Replica::new();
    let mut apply = |tick, private: &[(CellId, u32)], records: &[(CellId, &[u32])]| {
        let header = header(tick, &[WEST, EAST]);
        let list = (!private.is_empty()).then(|| singles(&header, SECTION_PRIVATE, private));
        let list: Vec<_> = list.into_iter().collect();
        replica.apply(&message(header, records, &list)).unwrap();
        slots(&replica)
    };
    assert_eq!(apply(10, &[(WEST, 7)], &[(WEST, &[1])]), [(1, WEST), (7, WEST)]);
    // The cell's own record says nothing about them.
    assert_eq!(apply(11, &[(WEST, 7)], &[(WEST, &[1])]), [(1, WEST), (7, WEST)]);
    assert_eq!(apply(12, &[(EAST, 8)], &[]), [(1, WEST), (8, EAST)]);
    // A late list brings nobody back.
    assert_eq!(apply(11, &[(WEST, 7)], &[]), [(1, WEST), (8, EAST)]);
    assert_eq!(apply(13, &[], &[]), [(1, WEST)]);
}

#[test]
fn cells_that_left_the_window_are_forgotten_at_once() {
    let mut replica = Replica::new();
    let both = message(header(10, &[WEST, EAST]), &[(WEST, &[1]), (EAST, &[2])], &[]);
    replica.apply(&both).unwrap();
    replica.apply(&message(header(20, &[EAST]), &[], &[])).unwrap();
    assert_eq!(slots(&replica), [(2, EAST)]);
    assert_eq!(replica.cells().collect::<Vec<_>>(), [EAST]);
    // Seen again later: an old word from before does not count.
    replica.apply(&message(header(30, &[WEST, EAST]), &[], &[])).unwrap();
    let late = message(header(12, &[WEST, EAST]), &[(WEST, &[1])], &[]);
    assert!(matches!(replica.apply(&late), Ok(Applied::Stale { .. })));
    assert_eq!(slots(&replica), [(2, EAST)]);
    assert!(!replica.is_complete() && replica.tick() == 30);
    let new = message(header(30, &[WEST, EAST]), &[(WEST, &[1]), (EAST, &[])], &[]);
    assert!(matches!(replica.apply(&new), Ok(Applied::New { .. })));
    assert!(replica.is_complete());
    assert_eq!(slots(&replica), [(1, WEST)]);
}

#[test]
fn what_is_no_state_is_named_and_changes_nothing() {
    let mut replica = Replica::new();
    replica.apply(&message(header(10, &[WEST]), &[(WEST, &[1, 2])], &[])).unwrap();
    let before = seen(&replica);
    let mut refused = |message: &[u8]| {
        let error = replica.apply(message).unwrap_err();
        assert_eq!(seen(&replica), before, "{error}");
        error
    };
    let next = header(11, &[WEST]);
    let good = |section: Vec<u8>| message(next, &[(WEST, &[7])], &[section]);
    let unseen = good(span(&next, EAST, 0, ALL, &[]));
    assert_eq!(refused(&unseen), ReplicaError::Unsubscribed { x: 3, z: 2 });
    let unseen = good(singles(&next, SECTION_NEAR, &[(EAST, 3)]));
    assert_eq!(refused(&unseen), ReplicaError::Unsubscribed { x: 3, z: 2 });
    let twice = message(next, &[(WEST, &[7, 7])], &[]);
    assert_eq!(refused(&twice), ReplicaError::Order { id: id(7) });
    let unsorted = good(span(&next, WEST, 0, ALL, &[8, 7]));
    assert_eq!(refused(&unsorted), ReplicaError::Order { id: id(7) });
    let outside = good(span(&next, WEST, 3, 6, &[7]));
    assert_eq!(refused(&outside), ReplicaError::Order { id: id(7) });
    let backwards = good(span(&next, WEST, 6, 3, &[]));
    assert_eq!(refused(&backwards), ReplicaError::Malformed(StateError::Span));
    let unknown = good(section(9, &[]));
    assert_eq!(refused(&unknown), ReplicaError::Malformed(StateError::Section { number: 9 }));
    let short = message(next, &[(WEST, &[7, 8])], &[]);
    let cut = &short[..short.len() - 1];
    assert!(matches!(refused(cut), ReplicaError::Malformed(StateError::Short(_))));
    assert!(matches!(refused(&[]), ReplicaError::Malformed(StateError::Short(_))));
    let mut form = short.clone();
    let at = short.len() - full(WEST, &[7, 8]).len();
    form[at] |= 3;
    let error = ReplicaError::Malformed(StateError::Form { number: 3 });
    assert_eq!(refused(&form), error);
    let mut age = short.clone();
    age[at + 1..at + 3].copy_from_slice(&[0xff, 0x7f]);
    assert_eq!(refused(&age), ReplicaError::Malformed(StateError::Age));
}

#[test]
fn a_wrong_digest_asks_for_keyframes_once() {
    let mut replica = Replica::new();
    let cells = 1 << bit_of(&header(10, &[WEST]), WEST);
    let sum = content(WEST).digest(id(1), 32);
    let mut apply = |tick, sum| {
        let digest = Some(Digest { cells, sum });
        let header = StateHeader { digest, ..header(tick, &[WEST, EAST]) };
        replica.apply(&message(header, &[(WEST, &[1])], &[])).unwrap();
        (replica.take_keyframe_wish(), replica.mismatches())
    };
    assert_eq!(apply(10, sum), (false, 0));
    assert_eq!(apply(12, sum ^ 1), (true, 1));
    assert_eq!(apply(14, sum), (false, 1));
    // A late word cannot be compared.
    assert_eq!(apply(13, sum ^ 1), (false, 1));
}

#[test]
fn entities_are_bounded() {
    let mut replica = Replica::new();
    let mut slot = 0;
    let mut refused = None;
    for tick in 10..1_000 {
        let header = header(tick, &[WEST]);
        let lists: Vec<Vec<u32>> =
            (0..50).map(|list| (slot + list * 40..slot + list * 40 + 40).collect()).collect();
        let sections: Vec<_> =
            lists.iter().map(|list| span(&header, WEST, list[0], list[39], list)).collect();
        slot += 2_000;
        if let Err(error) = replica.apply(&message(header, &[], &sections)) {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(ReplicaError::TooManyEntities));
    assert_eq!(replica.len(), 16_000);
    // Those that are known already are told as before.
    let header = header(2_000, &[WEST]);
    let known: Vec<u32> = (0..40).collect();
    let again = message(header, &[], &[span(&header, WEST, 0, 39, &known)]);
    assert!(replica.apply(&again).is_ok());
}

/// All that a replica shows and remembers.
fn seen(replica: &Replica) -> String {
    let Replica { entities, coverage, views, context, newest, private_at, .. } = replica;
    format!("{entities:?} {coverage:?} {views:?} {context:?} {newest:?} {private_at}")
}

proptest! {
    #[test]
    fn any_bytes_are_applied_or_change_nothing(
        offset in 0_usize..160, value: u8, cut in 0_usize..220,
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut replica = Replica::new();
        let known: [(CellId, &[u32]); 2] = [(WEST, &[1, 2]), (EAST, &[3])];
        replica.apply(&message(header(10, &[WEST, EAST]), &known, &[])).unwrap();
        let before = seen(&replica);
        let next = header(11, &[WEST, EAST]);
        let sections = [span(&next, WEST, 0, 40, &[1]), singles(&next, SECTION_NEAR, &[(WEST, 9)])];
        let mut changed = message(next, &[(EAST, &[3, 5])], &sections);
        if let Some(byte) = changed.get_mut(offset) {
            *byte = value;
        }
        changed.truncate(cut);
        // Records that build on the keyframes of tick 10.
        let mut statuses = Statuses::default();
        statuses.set(bit_of(&next, WEST), Status::Record);
        statuses.set(bit_of(&next, EAST), Status::Same);
        let mut delta = Vec::new();
        next.encode(None, statuses, &mut delta);
        for form in 0..2 {
            let mut noisy = delta.clone();
            noisy.extend([(noise.len() as u8) << 2 | form, 1 - form, 1][..2 + usize::from(form)].iter());
            noisy.extend(&noise);
            let mut replica = replica.clone();
            if replica.apply(&noisy).is_err() {
                prop_assert_eq!(seen(&replica), before.clone());
            }
        }
        let noisy = [&message(next, &[], &[])[..], &noise].concat();
        for message in [changed, noisy, noise] {
            let mut replica = replica.clone();
            if replica.apply(&message).is_err() {
                prop_assert_eq!(seen(&replica), before.clone());
            }
            prop_assert!(replica.len() <= REPLICA_ENTITIES_MAX);
            let ids: Vec<_> = replica.entities().map(|entity| entity.id).collect();
            prop_assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }

    #[test]
    fn a_message_reads_the_same_at_every_alignment(shift in 0_usize..16) {
        let header = header(10, &[WEST, EAST]);
        let sections = [span(&header, WEST, 0, 40, &[1]), singles(&header, SECTION_NEAR, &[(WEST, 9)])];
        let message = message(header, &[(EAST, &[3, 5])], &sections);
        let mut room = vec![0xaa; shift];
        room.extend_from_slice(&message);
        let (mut shifted, mut plain) = (Replica::new(), Replica::new());
        prop_assert_eq!(shifted.apply(&room[shift..]), plain.apply(&message));
        prop_assert_eq!(seen(&shifted), seen(&plain));
    }
}
