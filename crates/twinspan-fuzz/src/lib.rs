//! Every fuzz body in one table; tests replay the seeds at every alignment, and mutations of them.
//!
//! The bodies stand in the libraries, behind their features `fuzz`. The programs that libFuzzer
//! runs are five lines each, in the workspace `fuzz/`; the seeds are in `fuzz/seeds`, a folder for
//! each target. `cargo fuzz run session-frames fuzz/corpus/session-frames fuzz/seeds/session-frames`
//! goes on from them, on a nightly compiler.
#![forbid(unsafe_code)]

use twinspan_core::fuzz::{Body, digest};
use twinspan_provider::dns::{DnsQuery, DnsReply, fuzz_dns};
use twinspan_relay::{Direction, TrunkKey, TrunkTags};

/// The key whose tags the seeds of the relay's frames have.
pub const TRUNK_KEY: [u8; 32] = [7; 32];

#[cfg(target_os = "linux")]
const HUB: &[(&str, Body)] = twinspan_hub::fuzz::TARGETS;
/// The hub is Linux's alone.
#[cfg(not(target_os = "linux"))]
const HUB: &[(&str, Body)] = &[];

const RELAY: &[(&str, Body)] = &[("relay-frame", fuzz_relay_frame)];

const DNS: &[(&str, Body)] = &[("dns-message", fuzz_dns_message)];

/// Every target by its name.
pub fn targets() -> impl Iterator<Item = (&'static str, Body)> {
    [
        twinspan_session::fuzz::TARGETS,
        twinspan_reliable::fuzz::TARGETS,
        twinspan_world::fuzz::TARGETS,
        twinspan_messages::fuzz::TARGETS,
        twinspan_lludp::fuzz::TARGETS,
        twinspan_llsd::fuzz::TARGETS,
        twinspan_xmlrpc::fuzz::TARGETS,
        twinspan_circuit::fuzz::TARGETS,
        twinspan_http::fuzz::TARGETS,
        twinspan_viewer::fuzz::TARGETS,
        twinspan_admission::fuzz::TARGETS,
        twinspan_record::fuzz::TARGETS,
        HUB,
        RELAY,
        DNS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Runs the body of one target; an unknown name runs none and returns `None`.
pub fn run(name: &str, data: &[u8]) -> Option<u64> {
    let (_, body) = targets().find(|(target, _)| *target == name)?;
    Some(body(data))
}

/// Any bytes are messages of DNS or name a reason; those that were read are written the same.
fn fuzz_dns_message(data: &[u8]) -> u64 {
    fuzz_dns(data);
    digest(&(DnsQuery::parse(data), DnsReply::parse(data)))
}

/// Any bytes are a datagram of the trunk or name a reason; one that was read is written the same.
fn fuzz_relay_frame(data: &[u8]) -> u64 {
    twinspan_relay::fuzz(data);
    let tags = TrunkTags::new(&TrunkKey::from_bytes(TRUNK_KEY), None, Direction::ToServer);
    digest(&twinspan_relay::decode(data, &tags))
}
