//! Random bodies of a message, from its layout.

use twinspan_core::random::Stream;
use twinspan_lludp::{FieldKind, MessageLayout, Quantity};

/// The most variable blocks of one name in a short body, and of those beside what grows.
const BLOCKS_MAX: u64 = 4;
/// The longest variable field in a short body, and of those beside what grows.
const FIELD_BYTES_MAX: u64 = 40;

/// What is as large as there is room for in a long body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// The number of the blocks at this place.
    Blocks(usize),
    /// The field at this place of the first of the blocks.
    Field(usize, usize),
}

/// Everything in a message that can grow: its variable blocks and its variable fields.
pub(crate) fn growths(layout: &MessageLayout) -> Vec<Growth> {
    let mut found = Vec::new();
    for (place, block) in layout.blocks.iter().enumerate() {
        found.extend((block.quantity == Quantity::Variable).then_some(Growth::Blocks(place)));
        for (number, field) in block.fields.iter().enumerate() {
            found.extend(bytes_max(field.kind).map(|_| Growth::Field(place, number)));
        }
    }
    found
}

/// The most bytes of a variable field.
pub(crate) fn bytes_max(kind: FieldKind) -> Option<usize> {
    match kind {
        FieldKind::Variable1 => Some(255),
        FieldKind::Variable2 => Some(65_535),
        _ => None,
    }
}

/// A random body of `room` bytes at most, in which `growth` is as large as it can be. The number of
/// blocks, or the bytes of the field, that it came to stand beside it.
pub(crate) fn long_body(
    layout: &MessageLayout,
    growth: Growth,
    room: usize,
    random: &mut Stream,
) -> (Vec<u8>, usize) {
    let fewest = |place: usize| match layout.blocks[place].quantity {
        Quantity::Single | Quantity::Optional => 1,
        Quantity::Multiple(count) => count.into(),
        // A field grows where its block is.
        Quantity::Variable => {
            usize::from(matches!(growth, Growth::Field(grown, _) if grown == place))
        }
    };
    let mut counts: Vec<usize> = (0..layout.blocks.len()).map(fewest).collect();
    let taken = |place: usize, counts: &[usize]| {
        let block = &layout.blocks[place];
        counts[place] * block.bytes_min() + usize::from(block.quantity == Quantity::Variable)
    };
    let least: usize = (0..counts.len()).map(|place| taken(place, &counts)).sum();
    let mut left = room.checked_sub(least).expect("room for the shortest body");
    let mut grown = 0;
    match growth {
        Growth::Blocks(place) => {
            grown = (left / layout.blocks[place].bytes_min()).min(255);
            counts[place] = grown;
            left -= grown * layout.blocks[place].bytes_min();
        }
        Growth::Field(place, number) => {
            let kind = layout.blocks[place].fields[number].kind;
            grown += bytes_max(kind).expect("a field that grows").min(left);
            left -= grown;
        }
    }
    for (place, block) in layout.blocks.iter().enumerate() {
        if block.quantity == Quantity::Variable && growth != Growth::Blocks(place) {
            let more = (left / block.bytes_min()) as u64;
            let more = random.below(more.min(BLOCKS_MAX) + 1) as usize;
            counts[place] += more;
            left -= more * block.bytes_min();
        }
    }

    let mut out = Vec::with_capacity(room);
    for (place, (block, count)) in layout.blocks.iter().zip(&counts).enumerate() {
        if block.quantity == Quantity::Variable {
            out.push(*count as u8);
        }
        for item in 0..*count {
            for (number, field) in block.fields.iter().enumerate() {
                if item == 0 && growth == Growth::Field(place, number) {
                    counted(field.kind, grown, random, &mut out);
                } else if bytes_max(field.kind).is_some() {
                    let len = random.below((left as u64).min(FIELD_BYTES_MAX) + 1) as usize;
                    left -= len;
                    counted(field.kind, len, random, &mut out);
                } else {
                    value(field.kind, random, &mut out);
                }
            }
        }
    }
    assert!(out.len() <= room, "{}: {} bytes where {room} are room", layout.name, out.len());
    (out, grown)
}

/// A random body that a sender with this layout could send.
pub(crate) fn body(layout: &MessageLayout, random: &mut Stream) -> Vec<u8> {
    let mut out = Vec::new();
    for block in layout.blocks.iter() {
        let count = match block.quantity {
            Quantity::Single | Quantity::Optional => 1,
            Quantity::Multiple(count) => count.into(),
            Quantity::Variable => {
                let count = random.below(BLOCKS_MAX + 1);
                out.push(count as u8);
                count
            }
        };
        for _ in 0..count {
            for field in block.fields.iter() {
                value(field.kind, random, &mut out);
            }
        }
    }
    out
}

fn value(kind: FieldKind, random: &mut Stream, out: &mut Vec<u8>) {
    match kind {
        // Many fields are 0 or empty, so that zero-coding is worth it.
        kind if random.below(3) == 0 => out.resize(out.len() + kind.bytes_min(), 0),
        FieldKind::Bool => out.push((random.next_u64() & 1) as u8),
        // Numbers, not the many that are none: programs may change the bits of those.
        FieldKind::F32 => float(random, out),
        FieldKind::F64 => out.extend((random.next_u64() as i32 as f64 / 1e3).to_le_bytes()),
        FieldKind::Vector3 => (0..3).for_each(|_| float(random, out)),
        FieldKind::Vector4 => (0..4).for_each(|_| float(random, out)),
        FieldKind::Vector3d => {
            (0..3).for_each(|_| value(FieldKind::F64, random, out));
        }
        FieldKind::Quaternion => {
            // Short enough for a fourth part.
            for _ in 0..3 {
                let part = (random.next_u64() as i16) as f32 / 65_536.0;
                out.extend(part.to_le_bytes());
            }
        }
        FieldKind::Variable1 | FieldKind::Variable2 => {
            counted(kind, random.below(FIELD_BYTES_MAX) as usize, random, out);
        }
        kind => bytes(kind.bytes_min(), random, out),
    }
}

/// A variable field of `len` bytes.
fn counted(kind: FieldKind, len: usize, random: &mut Stream, out: &mut Vec<u8>) {
    match kind {
        FieldKind::Variable1 => out.push(len as u8),
        _ => out.extend((len as u16).to_le_bytes()),
    }
    bytes(len, random, out);
    // One 0 ends a text; peers that read text drop further ones.
    if let [.., before, 0] = out.as_mut_slice()
        && len > 1
    {
        *before |= 1;
    }
}

fn float(random: &mut Stream, out: &mut Vec<u8>) {
    out.extend((random.next_u64() as i32 as f32 / 1e3).to_le_bytes());
}

/// Random bytes with zeros among them.
fn bytes(count: usize, random: &mut Stream, out: &mut Vec<u8>) {
    for _ in 0..count {
        let draw = random.next_u64();
        out.push(if draw & 0x300 == 0 { 0 } else { draw as u8 });
    }
}
