//! Fuzz bodies of the session's decoders: what holds for any bytes.

use core::fmt::Debug;

use twinspan_core::fuzz::{Body, digest};

use crate::bulk::Scratch;
use crate::frames::{Control, Text};
use crate::header::{Form, HEADER_BYTES, Header, PACKET_BYTES_LIMIT, flag, parse};
use crate::identity::PublicKey;
use crate::messages::{self, Accept, Hello, PublicMacs};
use crate::token::{ConnectToken, TOKEN_BYTES};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("session-header", fuzz_header),
    ("session-handshake", fuzz_handshake),
    ("session-token", fuzz_token),
    ("session-frames", fuzz_frames),
    ("session-bulk", fuzz_bulk),
];

/// Any bytes have a header or name a cause; a header that was read is written the same.
pub fn fuzz_header(data: &[u8]) -> u64 {
    let parsed = parse(data);
    if let Ok(Form::Sealed(header)) = &parsed {
        assert!(data.len() <= PACKET_BYTES_LIMIT, "a packet over the limit was read");
        assert_eq!(data.first_chunk::<HEADER_BYTES>(), Some(&header.to_bytes()));
    }
    digest(&parsed)
}

/// Any bytes are a handshake message of each kind, or name a cause.
pub fn fuzz_handshake(data: &[u8]) -> u64 {
    let macs = PublicMacs::new(&PublicKey::from_bytes([7; 32]));
    let nonce = messages::handshake_nonce(data).unwrap_or_default();
    let cookie = [3; 16];
    let accept = messages::parse_accept(data, &nonce);
    let payload = data.first_chunk().map(|payload| {
        Accept::parse_payload(payload).map(|(accept, ticket)| (accept, ticket.public))
    });
    let parts: [&dyn Debug; 6] = [
        &Hello::read(data),
        &Hello::parse(data).and_then(|hello| hello.verify(&macs).map(|()| hello.nonce)),
        &messages::parse_retry(data, &nonce, &macs),
        &messages::parse_refuse(data, &nonce, &cookie, &macs),
        &accept,
        &payload,
    ];
    digest(&parts)
}

/// Any bytes are a token or name a reason; one that was read is written the same.
pub fn fuzz_token(data: &[u8]) -> u64 {
    let from_bytes = ConnectToken::from_bytes(data);
    if let Ok(token) = &from_bytes {
        assert_eq!(&data[..TOKEN_BYTES], token.to_bytes().as_slice(), "a token was read anew");
    }
    let text = core::str::from_utf8(data).unwrap_or_default();
    let from_text = ConnectToken::from_text(text);
    if let Ok(token) = &from_text {
        let again = ConnectToken::from_text(&token.to_text()).map(|token| token.to_bytes());
        assert_eq!(again.as_deref(), Ok(&*token.to_bytes()), "a token's text was read anew");
    }
    // `Debug` of a token shows no secret, and so little to compare: errors and addresses.
    digest(&(
        from_bytes.map(|token| token.server_addr()),
        from_text.map(|token| token.server_addr()),
    ))
}

/// The first two bytes as channel and flags, the rest as the text of an authentic packet: frames
/// that lie inside it, or a violation.
pub fn fuzz_frames(data: &[u8]) -> u64 {
    let Some(([channel, flags], text)) = data.split_first_chunk::<2>() else { return 0 };
    let flags = flags & (flag::ACK | flag::FRAG | flag::BUNDLE | flag::PROBE);
    let header = Header { connection: 1, channel: *channel, flags, number: 1 };
    let Ok((ack, mut frames)) = Text::parse(&header, text) else { return 1 };
    let mut result = digest(&ack);
    let mut bytes = 0;
    loop {
        let frame = frames.next_frame();
        result = digest(&(result, &frame));
        let Ok(Some(frame)) = frame else { return result };
        bytes += frame.body.len();
        assert!(bytes <= text.len(), "frames hold more than their packet");
        let control = Control::parse(frame.channel, frame.body);
        if let Ok(Control::Ticket(renewal)) = control {
            let key = renewal.read().map(|(ticket, key)| (ticket.public, key));
            assert!(key.is_ok(), "a ticket's frame of the right length has all its parts");
            result = digest(&(result, key.ok()));
        }
        result = digest(&(result, control));
    }
}

/// The longest bulk message that [`fuzz_bulk`] takes.
const BULK_BYTES_MAX: usize = 65_536;

/// Any bytes are a bulk message of at most the bound, or a violation; one that was unpacked packs
/// to bytes that unpack to the same.
pub fn fuzz_bulk(data: &[u8]) -> u64 {
    let mut message = Vec::new();
    let unpacked =
        Scratch::default().unpack(data, BULK_BYTES_MAX, |bytes| message.extend_from_slice(bytes));
    if unpacked.is_ok() && message.len() <= BULK_BYTES_MAX {
        let packed = Scratch::default().pack(&message, <[u8]>::to_vec);
        let again = Scratch::default().unpack(&packed, BULK_BYTES_MAX, |bytes| {
            assert_eq!(bytes, message, "a message was packed to another");
        });
        assert_eq!(again, Ok(()), "what was packed does not unpack");
    } else if unpacked.is_ok() {
        assert!(message.len() <= data.len(), "more than the bound was unpacked");
    }
    digest(&(unpacked, message))
}
