//! Fuzz bodies: what holds for any bytes.

use twinspan_core::fuzz::{Body, digest};

use crate::{
    AnyMessage, DecodeError, Frame, MessageId, MessageRef, PAYLOAD_BYTES_MAX, Tail, Template,
    compress, expand, messages,
};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("lludp-frame", fuzz_frame),
    ("lludp-zero", fuzz_zero),
    ("lludp-message", fuzz_message),
    ("lludp-template", fuzz_template),
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
            let mut out = vec![0; body.len()];
            let written = template.encode(message, *tail, &mut out);
            assert_eq!(written, Ok(body.len()), "{message:?}");
        }
        result = digest(&(result, decoded));
    }
    result
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
    let mut first = [0; PAYLOAD_BYTES_MAX];
    // Nothing becomes longer by being read.
    let written = message.encode_with(tail, &mut first);
    assert!(written.is_ok(), "what was read cannot be written: {written:?}, {message:?}");
    let len = written.unwrap_or_default();
    let first = first.get(..len).unwrap_or_default();
    assert_eq!(len, body.len(), "written to another length: {message:?}");
    // Bodies differ where a true is not 1; what is written does not.
    let again = AnyMessage::decode(id, first);
    let mut second = [0; PAYLOAD_BYTES_MAX];
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
    let mut out = vec![0; PAYLOAD_BYTES_MAX];
    let len = message.encode(&mut out);
    out.truncate(len.unwrap_or_default());
    out
}
