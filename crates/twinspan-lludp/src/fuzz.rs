//! Fuzz bodies: what holds for any bytes.

use twinspan_core::fuzz::{Body, digest};

use crate::content::{
    EXTRA_PARAMS_MAX, ExtraParams, GroupInvitation, GroupNotice, InventoryOffer, LayerReader,
    Motion, NameValues, OBJECT_BYTES_MAX, ObjectView, PARTICLES_BYTES_MAX, PATCHES_MAX,
    ParticleSystem, PatchSize, TerseUpdate, TextureAnimation, TextureEntry, object_updates,
};
use crate::{
    AnyMessage, DecodeError, Frame, MessageId, MessageRef, PAYLOAD_BYTES_MAX, Tail, Template,
    Writer, compress, expand, messages,
};

/// Room beside a body to write it again: counts of blocks that were absent are written before they
/// are taken back.
const ABSENT_BYTES_MAX: usize = u8::MAX as usize;
/// Room to write any payload again.
const WRITTEN_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + ABSENT_BYTES_MAX;

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("lludp-frame", fuzz_frame),
    ("lludp-zero", fuzz_zero),
    ("lludp-message", fuzz_message),
    ("lludp-template", fuzz_template),
    ("lludp-object", fuzz_object),
    ("lludp-content", fuzz_content),
    ("lludp-terrain", fuzz_terrain),
];

/// Any bytes are a packet with a message or name a reason.
pub fn fuzz_frame(data: &[u8]) -> u64 {
    let frame = match Frame::parse(data) {
        Ok(frame) => frame,
        Err(error) => return digest(&error),
    };
    assert!(frame.payload.len() < data.len(), "a payload without a header");
    let mut space = [0; PAYLOAD_BYTES_MAX];
    match frame.open(&mut space) {
        Ok(payload) => {
            assert_eq!(frame.id(), Ok(payload.id), "two message numbers");
            digest(&(frame.acks, payload, message(payload.id, payload.body)))
        }
        Err(error) => digest(&(frame.acks, error)),
    }
}

/// Any bytes expand within the bound or name a reason, and are the same once compressed again.
pub fn fuzz_zero(data: &[u8]) -> u64 {
    let mut space = [0; PAYLOAD_BYTES_MAX];
    let plain = match expand(data, &mut space) {
        Ok(plain) => plain,
        Err(error) => return digest(&error),
    };
    let mut coded = [0; 2 * PAYLOAD_BYTES_MAX];
    let len = compress(plain, &mut coded).unwrap_or_default();
    let mut again = [0; PAYLOAD_BYTES_MAX];
    let coded = coded.get(..len).unwrap_or_default();
    assert_eq!(expand(coded, &mut again), Ok(plain), "compressed to something else");
    digest(&plain)
}

/// Any bytes behind a message number are that message or name a reason.
pub fn fuzz_message(data: &[u8]) -> u64 {
    match MessageId::parse(data) {
        Ok((id, body)) => message(id, body),
        Err(error) => digest(&error),
    }
}

/// Any text before the first byte 0 is a template or names a reason; any bytes behind it are each of
/// its messages or name a reason.
pub fn fuzz_template(data: &[u8]) -> u64 {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let text = String::from_utf8_lossy(halves.next().unwrap_or_default());
    let template = match Template::parse(&text) {
        Ok(template) => template,
        Err(error) => return digest(&error),
    };
    let body = halves.next().unwrap_or_default();
    let mut result = digest(&template);
    for layout in template.messages() {
        let decoded = template.decode(layout.id, body);
        if let Ok((message, tail)) = &decoded {
            let mut out = vec![0; body.len() + ABSENT_BYTES_MAX];
            let written = template.encode(message, *tail, &mut out);
            assert_eq!(written, Ok(body.len()), "{message:?}");
        }
        result = digest(&(result, decoded));
    }
    result
}

/// Any bytes are a compressed object or name a reason; one that was read is written and read as the
/// same, in both forms that tell all of it.
pub fn fuzz_object(data: &[u8]) -> u64 {
    let object = match ObjectView::read_compressed_parts(7, data) {
        Ok(object) => object,
        Err(error) => return digest(&error),
    };
    let text = format!("{object:?}");
    let mut space = vec![0; OBJECT_BYTES_MAX];
    let mut writer = Writer::new(&mut space);
    if object.write_compressed(&mut writer).is_ok() {
        let len = writer.len();
        let again = ObjectView::read_compressed_parts(7, space.get(..len).unwrap_or_default());
        let again = again.map(|again| format!("{again:?}"));
        assert_eq!(again.as_ref(), Ok(&text), "a compressed object became another");
    }
    if let Ok(block) = object.to_full() {
        let message = messages::ObjectUpdate { object_data: vec![block], ..Default::default() };
        let mut body = vec![0; 2 * OBJECT_BYTES_MAX];
        let len = crate::Message::encode(&message, &mut body).unwrap_or_default();
        let body = body.get(..len).unwrap_or_default();
        let mut seen = 0;
        let done = object_updates(<messages::ObjectUpdate as crate::Message>::ID, body, |_, _| {
            seen += 1;
        });
        assert_eq!((done, seen), (Some(Ok(())), 1), "a full object is not read");
    }
    digest(&text)
}

/// Any bytes behind a byte that says what they are, are that or name a reason.
pub fn fuzz_content(data: &[u8]) -> u64 {
    let Some((kind, bytes)) = data.split_first() else { return 0 };
    match kind % 8 {
        0 => {
            let entry = TextureEntry::read(bytes);
            if let Ok(entry) = &entry {
                let again = TextureEntry::read(&entry.write());
                assert_eq!(digest(&again), digest(&Ok::<_, ()>(entry)), "another entry");
            }
            digest(&entry)
        }
        1 => {
            let system = ParticleSystem::read(bytes);
            if let Ok(Some(system)) = &system {
                let mut space = [0; PARTICLES_BYTES_MAX];
                let mut writer = Writer::new(&mut space);
                assert_eq!(system.write(&mut writer), Ok(()), "particles do not fit");
                let len = writer.len();
                let again = ParticleSystem::read(space.get(..len).unwrap_or_default());
                assert_eq!(again, Ok(Some(*system)), "other particles");
            }
            digest(&system)
        }
        2 => match ExtraParams::new(bytes) {
            Ok(list) => {
                let all: Vec<_> = list.collect();
                assert!(all.len() <= EXTRA_PARAMS_MAX, "more parameters than counted");
                digest(&all)
            }
            Err(error) => digest(&error),
        },
        3 => digest(&NameValues::new(bytes).map(Iterator::collect::<Vec<_>>)),
        4 => {
            let half = bytes.len() / 2;
            digest(&TerseUpdate::read_parts(
                bytes.get(..half).unwrap_or_default(),
                bytes.get(half..).unwrap_or_default(),
            ))
        }
        5 => digest(&(Motion::read_full(bytes), TextureAnimation::read(bytes))),
        6 => digest(&(GroupInvitation::read(bytes), GroupNotice::read(bytes))),
        _ => digest(&InventoryOffer::read_all(bytes).map(Iterator::collect::<Vec<_>>)),
    }
}

/// Any bytes are patches or name a reason, and no more than the limit.
pub fn fuzz_terrain(data: &[u8]) -> u64 {
    let mut reader = match LayerReader::new(data) {
        Ok(reader) => reader,
        Err(error) => return digest(&error),
    };
    let mut heights = [0.0; PatchSize::HEIGHTS_MAX];
    let mut result = digest(&(reader.kind(), reader.size(), reader.is_large()));
    let mut count = 0;
    loop {
        match reader.next_patch(&mut heights) {
            Ok(Some(place)) => {
                count += 1;
                assert!(count <= PATCHES_MAX, "more patches than the limit");
                let heights = heights.get(..reader.size().heights()).unwrap_or_default();
                let bits: u64 = heights.iter().map(|height| u64::from(height.to_bits())).sum();
                result = digest(&(result, place, bits));
            }
            Ok(None) => return result,
            Err(error) => return digest(&(result, error)),
        }
    }
}

/// Decodes, encodes, decodes: the second message is the first, to the byte.
fn message(id: MessageId, body: &[u8]) -> u64 {
    let body = body.get(..PAYLOAD_BYTES_MAX).unwrap_or(body);
    borrowed(id, body);
    let (message, tail) = match AnyMessage::decode(id, body) {
        Ok(decoded) => decoded,
        Err(error) => {
            assert!(
                !matches!(&error, DecodeError::Short(short) if short.have >= short.need),
                "{error}"
            );
            return digest(&error);
        }
    };
    let mut first = [0; WRITTEN_BYTES_MAX];
    // Nothing becomes longer by being read.
    let written = message.encode_with(tail, &mut first);
    assert!(written.is_ok(), "what was read cannot be written: {written:?}, {message:?}");
    let len = written.unwrap_or_default();
    let first = first.get(..len).unwrap_or_default();
    assert_eq!(len, body.len(), "written to another length: {message:?}");
    // Bodies differ where a true is not 1; what is written does not.
    let again = AnyMessage::decode(id, first);
    let mut second = [0; WRITTEN_BYTES_MAX];
    if let Ok((again, Tail::Exact | Tail::Extra(_) | Tail::Absent(_))) = &again {
        let len = again.encode_with(tail, &mut second).unwrap_or_default();
        assert_eq!(second.get(..len), Some(first), "{message:?}");
    }
    assert!(again.is_ok(), "what was written cannot be read: {message:?}");
    digest(&message)
}

/// A message that borrows is the same as one that does not.
fn borrowed(id: MessageId, body: &[u8]) {
    fn same<'a, M: MessageRef<'a>>(id: MessageId, body: &'a [u8])
    where
        M::Owned: Into<AnyMessage>,
    {
        if id != <M::Owned as crate::Message>::ID {
            return;
        }
        let theirs = AnyMessage::decode(id, body).map(|(message, tail)| (bytes(&message), tail));
        let ours =
            M::decode_ref(body).map(|(message, tail)| (bytes(&message.owned().into()), tail));
        assert_eq!(ours, theirs, "borrowed and owned differ");
    }
    same::<messages::ImprovedTerseObjectUpdateRef<'_>>(id, body);
    same::<messages::LayerDataRef<'_>>(id, body);
    same::<messages::ObjectUpdateRef<'_>>(id, body);
    same::<messages::ObjectUpdateCachedRef<'_>>(id, body);
    same::<messages::ObjectUpdateCompressedRef<'_>>(id, body);
    same::<messages::PacketAckRef<'_>>(id, body);
}

fn bytes(message: &AnyMessage) -> Vec<u8> {
    let mut out = vec![0; WRITTEN_BYTES_MAX];
    let len = message.encode(&mut out);
    out.truncate(len.unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, Var2};

    #[test]
    fn bodies_without_their_last_blocks_have_room_to_be_written_again() {
        let text = "version 1 { Bare High 5 Trusted Unencoded { A Variable { X U32 } } \
                    { B Variable { Y U8 } } }";
        for body in [&[][..], &[1, 7, 0, 0, 0]] {
            fuzz_template(&[text.as_bytes(), &[0], body].concat());
        }
        let mut im = messages::ImprovedInstantMessage {
            estate_block: Some(Default::default()),
            ..Default::default()
        };
        let mut out = vec![0; WRITTEN_BYTES_MAX];
        let fewest = im.encode_with(Tail::Absent(1), &mut out).unwrap();
        im.message_block.binary_bucket = Var2::new(vec![7; PAYLOAD_BYTES_MAX - fewest]).unwrap();
        let len = im.encode_with(Tail::Absent(1), &mut out).unwrap();
        assert_eq!(len, PAYLOAD_BYTES_MAX);
        let number = messages::ImprovedInstantMessage::ID.wire().to_be_bytes();
        fuzz_message(&[&number[..], &out[..len]].concat());
    }
}
