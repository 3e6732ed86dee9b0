//! Fuzz bodies: what holds for any bytes.

use twinspan_reliable::Channel;

use crate::schema::Schema;
use crate::{Limits, Message, Registry, verify};

/// Any bytes are a message of `schema` or name a reason, within limits of every size.
pub fn fuzz_verify(schema: &Schema, data: &[u8]) {
    let default = Limits::default();
    let tight = Limits {
        bytes_max: 256,
        depth_max: 2,
        tables_max: 3,
        unfolded_bytes_max: 64,
        finite_floats: true,
    };
    let strict = verify(schema, &tight, data);
    if strict.is_ok() {
        assert_eq!(verify(schema, &default, data), Ok(()), "looser limits refuse more");
    }
}

/// Any bytes on any channel are a message of the registry or name a reason, and what was let
/// through as a `T` is read by `read` without an error.
pub fn fuzz_check<T: Message>(
    registry: &Registry,
    channel: Channel,
    data: &[u8],
    read: impl FnOnce(T::Ref<'_>) -> bool,
) {
    if let Ok(incoming) = registry.check(channel, data)
        && let Some(message) = incoming.read::<T>()
    {
        assert!(read(message), "a verified message cannot be read");
    }
}
