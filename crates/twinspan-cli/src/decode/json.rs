//! Packets as JSON objects.

use serde_json::{Map, Value, json};
use twinspan_lludp::{AnyMessage, Frame, Payload, Tail, ValueRef};

use super::capture::Datagram;

/// What is told of each packet, whatever is in it.
pub(super) fn head(datagram: &Datagram<'_>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("number".into(), datagram.number.into());
    object.insert("time".into(), datagram.time.into());
    object.insert("from".into(), datagram.from.as_str().into());
    object.insert("to".into(), datagram.to.as_str().into());
    if datagram.relayed {
        object.insert("socks5".into(), true.into());
    }
    object
}

/// What the packet itself says.
pub(super) fn frame(object: &mut Map<String, Value>, frame: &Frame<'_>) {
    object.insert("flags".into(), frame.flags.to_string().into());
    object.insert("sequence".into(), frame.sequence.0.into());
    let acks: Vec<u32> = frame.acks.iter().map(|ack| ack.0).collect();
    object.insert("acks".into(), acks.into());
}

/// The message with all its fields.
pub(super) fn message(
    object: &mut Map<String, Value>,
    payload: &Payload<'_>,
    message: &AnyMessage,
    tail: Tail<'_>,
) {
    if !payload.extra.is_empty() {
        object.insert("extra".into(), hex(payload.extra).into());
    }
    object.insert("message".into(), message.layout().name.as_ref().into());
    object.insert("id".into(), payload.id.to_string().into());
    let names = message.layout().blocks.iter().map(|block| block.name.to_string());
    let mut blocks: Map<String, Value> = names.map(|name| (name, json!([]))).collect();
    message.visit(&mut |name, block| {
        let mut fields = Map::new();
        block.visit(&mut |field, value| {
            fields.insert(field.to_owned(), json_of(value));
        });
        if let Some(Value::Array(items)) = blocks.get_mut(name) {
            items.push(fields.into());
        }
    });
    object.insert("blocks".into(), blocks.into());
    match tail {
        Tail::Exact => {}
        Tail::Extra(bytes) => {
            object.insert("more_bytes".into(), hex(bytes).into());
        }
        Tail::Absent(count) => {
            object.insert("absent_blocks".into(), count.into());
        }
    }
}

/// Numbers of 64 bits are text, since many readers of JSON round them; so are floats that are no
/// numbers. Text that ends with its zero is text, all else is hex.
fn json_of(value: ValueRef<'_>) -> Value {
    let floats = |parts: &[f64]| parts.iter().copied().map(float).collect::<Vec<_>>().into();
    match value {
        ValueRef::U8(value) => value.into(),
        ValueRef::S8(value) => value.into(),
        ValueRef::Bool(value) => value.into(),
        ValueRef::U16(value) => value.into(),
        ValueRef::S16(value) => value.into(),
        ValueRef::U32(value) => value.into(),
        ValueRef::S32(value) => value.into(),
        ValueRef::U64(value) => value.to_string().into(),
        ValueRef::F32(value) => float(value.into()),
        ValueRef::F64(value) => float(value),
        ValueRef::Uuid(value) => value.to_string().into(),
        ValueRef::Vector3(v) => floats(&[v.x, v.y, v.z].map(f64::from)),
        ValueRef::Vector3d(v) => floats(&[v.x, v.y, v.z]),
        ValueRef::Vector4(v) => floats(&[v.x, v.y, v.z, v.w].map(f64::from)),
        ValueRef::Quaternion(q) => floats(&[q.x, q.y, q.z, q.w()].map(f64::from)),
        ValueRef::Ip(value) => value.to_string().into(),
        ValueRef::Port(value) => value.0.into(),
        ValueRef::Bytes(bytes) => match text(bytes) {
            Some(text) => text.into(),
            None => json!({ "hex": hex(bytes) }),
        },
        other => format!("{other:?}").into(),
    }
}

fn float(value: f64) -> Value {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}

/// The text before the one zero at the end.
fn text(bytes: &[u8]) -> Option<&str> {
    let [text @ .., 0] = bytes else { return None };
    let text = std::str::from_utf8(text).ok()?;
    let shown = |letter: char| !letter.is_control() || letter == '\n';
    text.chars().all(shown).then_some(text)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_without_loss() {
        assert_eq!(json_of(ValueRef::Bytes(b"Alpha\0")), json!("Alpha"));
        assert_eq!(json_of(ValueRef::Bytes(b"Alpha")), json!({"hex": "416c706861"}));
        assert_eq!(json_of(ValueRef::Bytes(b"\0\0")), json!({"hex": "0000"}));
        assert_eq!(json_of(ValueRef::U64(u64::MAX)), json!("18446744073709551615"));
        assert_eq!(json_of(ValueRef::F32(f32::NAN)), json!("NaN"));
        assert_eq!(json_of(ValueRef::F32(0.5)), json!(0.5));
    }
}
