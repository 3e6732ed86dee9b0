//! Random bodies of a message, from its layout.

use twinspan_core::random::Stream;
use twinspan_lludp::{FieldKind, MessageLayout, Quantity};

/// The most variable blocks of one name.
const BLOCKS_MAX: u64 = 4;

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
            let len = random.below(40) as u8;
            out.push(len);
            if kind == FieldKind::Variable2 {
                out.push(0);
            }
            bytes(len.into(), random, out);
            // One 0 ends a text; peers that read text drop further ones.
            if let [.., before, 0] = out.as_mut_slice()
                && len > 1
            {
                *before |= 1;
            }
        }
        kind => bytes(kind.bytes_min(), random, out),
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
