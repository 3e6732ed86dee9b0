//! Roads made of streams of bytes: one protocol for TCP and for the streams of QUIC.
//!
//! The protocol is a machine, [`topic::Topic`]. [`carrier`] brings its streams over sockets, [`core`]
//! moves both on; [`node`] gives them threads and waits, [`tcp`] the machine's sockets and
//! [`memory`] its pipes.
//!
//! //= hub 9

pub(crate) mod carrier;
pub(crate) mod chooser;
pub(crate) mod core;
pub(crate) mod datagrams;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
pub(crate) mod inbound;
pub(crate) mod link;
pub(crate) mod log;
pub(crate) mod loose;
pub(crate) mod memory;
pub(crate) mod mix;
pub(crate) mod node;
pub(crate) mod open;
pub(crate) mod roads;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod switched;
pub(crate) mod tcp;
#[cfg(test)]
mod testing;
pub(crate) mod topic;
pub(crate) mod wire;

/// The longest message on a stream.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 << 20;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn test_greeting(id: u8, topic: &str) -> twinspan_topic::Greeting {
    twinspan_topic::Greeting {
        id: [id; 16],
        publishes: true,
        receives: true,
        reliable: true,
        message_bytes_max: 1_000,
        history: 0,
        compressions: twinspan_topic::Compressions(3),
        packs: twinspan_topic::Compressions::NONE,
        dictionary: 0,
        topic: topic.to_owned(),
        identity: twinspan_topic::Identity {
            form: twinspan_topic::Form::Bytes,
            bytes: 0,
            align: 1,
            version: 0,
            name: "bytes".to_owned(),
        },
    }
}

#[cfg(any(test, feature = "fuzz"))]
fn test_hello(id: u8, topic: &str) -> wire::Hello {
    let credit = wire::Credit { received: 5, messages: 300, bytes: 1 << 20 };
    let standing = wire::Standing { dictionary: 7, depth: 256, publisher: [0xbb; 16], credit };
    wire::Hello { greeting: test_greeting(id, topic), standing }
}
