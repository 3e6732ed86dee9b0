//! Fuzz bodies: what holds for any bytes.

use twinspan_core::fuzz::{Body, digest};
use twinspan_net::shm;

use crate::endpoint::Endpoint;

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("hub-endpoint", fuzz_endpoint),
    ("hub-segment", fuzz_segment),
    ("hub-greeting", fuzz_greeting),
    ("hub-meeting", twinspan_topic::fuzz::fuzz_greeting),
    ("hub-datagrams", twinspan_topic::fuzz::fuzz_datagrams),
    ("hub-sealed", twinspan_topic::fuzz::fuzz_sealed),
    ("hub-stream", fuzz_stream),
    ("hub-packed", fuzz_packed),
    ("hub-announcement", fuzz_announcement),
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

/// Any bytes from a peer are messages and frames, or a named reason to end its stream; what a hub
/// holds of them stays within its limits.
pub fn fuzz_stream(data: &[u8]) -> u64 {
    digest(&crate::stream::fuzz::run(data))
}

/// Any bytes are a packed message within its limit or name a reason.
pub fn fuzz_packed(data: &[u8]) -> u64 {
    digest(&crate::compress::fuzz(data))
}

/// Any bytes are an announcement or name a reason; one that was read is written the same.
pub fn fuzz_announcement(data: &[u8]) -> u64 {
    digest(&crate::discover::fuzz(data))
}

/// Good inputs of a target; none of one that is not here.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "hub-endpoint" => [
            "sensor/imu",
            "shm://robot-1/camera.front",
            "udp://192.168.1.100:9000/a/b",
            "tcp://[fe80::1]:65535/",
            "quic://host.example:443/x:y",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into(),
        "hub-segment" => {
            let sizes =
                [(48, 48, 256, 8), (4_096, 0, 16, 0), (100_000, 240, 64, 8), (1 << 20, 48, 4, 64)];
            let heads = sizes.iter().filter_map(|&(message, inline, slots, blocks)| {
                let geometry = shm::Geometry::new(message, inline, slots, blocks, 0x1234_5678)?;
                let mut words = geometry.to_words().to_vec();
                // The length that was announced, and words of content.
                words.extend([geometry.bytes() as u64, 48, 1 << 32 | 4_000, u64::MAX]);
                Some(words.iter().flat_map(|word| word.to_le_bytes()).collect())
            });
            heads.collect()
        }
        "hub-greeting" => shm::greeting_seeds(),
        "hub-meeting" => twinspan_topic::fuzz::greeting_seeds(),
        "hub-datagrams" => twinspan_topic::fuzz::datagram_seeds(),
        "hub-sealed" => twinspan_topic::fuzz::sealed_seeds(),
        "hub-stream" => crate::stream::fuzz::seeds(),
        "hub-packed" => crate::compress::seeds(),
        "hub-announcement" => crate::discover::seeds(),
        _ => Vec::new(),
    }
}
