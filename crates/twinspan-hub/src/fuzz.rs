//! Fuzz bodies: what holds for any bytes.

use twinspan_core::fuzz::{Body, digest};
use twinspan_net::shm;

use crate::endpoint::Endpoint;

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("hub-endpoint", fuzz_endpoint),
    ("hub-segment", fuzz_segment),
    ("hub-greeting", fuzz_greeting),
];

/// Any text is an endpoint or names a reason; one that was read is read the same again.
pub fn fuzz_endpoint(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let endpoint = text.parse::<Endpoint>();
    if let Ok(endpoint) = &endpoint {
        let again = endpoint.to_string().parse::<Endpoint>();
        assert_eq!(again.as_ref(), Ok(endpoint), "what was written is read as something else");
    }
    digest(&endpoint)
}

/// Any bytes are the head of a segment or name a reason, and all places of a good one lie inside.
pub fn fuzz_segment(data: &[u8]) -> u64 {
    digest(&shm::fuzz_segment(data))
}

/// Any bytes are a greeting or name a reason.
pub fn fuzz_greeting(data: &[u8]) -> u64 {
    digest(&shm::fuzz_greeting(data))
}
