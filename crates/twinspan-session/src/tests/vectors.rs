//! The test vectors of `docs/spec/vectors`: made here, and compared with what lies there.
//!
//! `TWINSPAN_WRITE_VECTORS=1 cargo test -p twinspan-session vectors` writes them anew, after a
//! change of the protocol that is meant.

use std::net::SocketAddr;
use std::path::PathBuf;

use core::time::Duration;

use serde_json::{Value, json};
use twinspan_core::aead::{AeadSuite, Cipher, TAG_BYTES};
use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;

use crate::cookie::{CookieSubject, cookie};
use crate::header::{HEADER_BYTES, Header, flag};
use crate::header_protection::{header_key, mask};
use crate::identity::{KeyPair, MacKey, PublicKey};
use crate::messages::{
    Accept, HELLO_BYTES, HelloBytes, HelloParts, PublicMacs, accept, hello_prologue, refuse, retry,
};
use crate::noise::{Initiator, Secret, Split, respond};
use crate::protection::{DirectionKey, header_secret, key_and_iv, mixed_secret, next_secret};
use crate::suite::CryptoSuite;
use crate::ticket::{Ticket, TicketOrder};
use crate::{ConnectToken, RefuseReason, TokenIssuer, TokenKey, UserId};

const SUITES: [Cipher; 3] = [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm];
const SERVER_SECRET: [u8; 32] = [0x11; 32];
const TOKEN_KEY: [u8; 32] = [0x22; 32];
const CLIENT_EPHEMERAL: [u8; 32] = [0x33; 32];
const SERVER_EPHEMERAL: [u8; 32] = [0x44; 32];
const CLIENT_NONCE: [u8; 16] = [0x55; 16];
const COOKIE_SECRET: [u8; 32] = [0x66; 32];
const CLIENT_ID: u32 = 0x0102_0304;
const SERVER_ID: u32 = 0x0506_0708;
const EXPIRES: u64 = 2_000_000_000;

/// Draws bytes that all have one value, then of the next.
struct Steps(u8);

impl SecretSource for Steps {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(self.0);
        self.0 += 1;
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn server() -> KeyPair {
    KeyPair::from_secret(&SERVER_SECRET)
}

fn server_key() -> PublicKey {
    PublicKey::from_bytes(*server().public())
}

fn token() -> ConnectToken {
    let issuer = TokenIssuer::new(TokenKey::from_bytes(TOKEN_KEY), server_key());
    let address = SocketAddr::from(([192, 0, 2, 1], 7_700));
    issuer.issue(&mut Steps(0xa1), UserId(0x0a0b), address, EXPIRES)
}

/// The ticket that follows the token, and its ticket key.
fn ticket() -> (Ticket, TokenKey) {
    let key = TokenKey::from_bytes(TOKEN_KEY).ticket_key();
    let follows = token().public_part().id;
    let order = TicketOrder {
        key: (&key, key.key_id()),
        server_key_id: server_key().key_id(),
        follows: &follows,
        user: UserId(0x0a0b),
        run: 0x1122_3344_5566_7788,
        root: None,
        expires_at_unix_s: EXPIRES + 86_400,
    };
    (Ticket::issue(&order, &mut Steps(0xb1)).unwrap().0, key)
}

fn tokens() -> Value {
    let token = token();
    let (ticket, ticket_key) = ticket();
    json!({
        "about": "session 2: a connect token, and the resume ticket that follows it",
        "token_key": hex(TOKEN_KEY),
        "token_key_id": TokenKey::from_bytes(TOKEN_KEY).key_id(),
        "server_secret": hex(SERVER_SECRET),
        "server_public": hex(server().public()),
        "server_key_id": server_key().key_id(),
        "token_id": hex(token.public_part().id),
        "user": token.user().0,
        "expires_at_unix_s": EXPIRES,
        "server_address": token.server_addr().to_string(),
        "psk": hex(token.psk().as_slice()),
        "public_part": hex(token.public_part().to_bytes()),
        "private_part": hex(token.private_part()),
        "token": token.to_text(),
        "ticket_key": hex(ticket_key.as_bytes()),
        "ticket_key_id": ticket_key.key_id(),
        "ticket_run": 0x1122_3344_5566_7788_u64,
        "ticket_psk": hex(ticket.psk.as_slice()),
        "ticket_public_part": hex(ticket.public),
        "ticket_private_part": hex(ticket.private),
    })
}

fn handshake() -> Value {
    let token = token();
    let macs = PublicMacs::new(&server_key());
    let prologue = hello_prologue(HelloParts {
        nonce: &CLIENT_NONCE,
        connection: CLIENT_ID,
        versions: &[1],
        options: 1,
        suites: &[Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305],
        token_public: &token.public_part().to_bytes(),
        token_private: token.private_part(),
    });
    let ephemeral = KeyPair::from_secret(&CLIENT_EPHEMERAL);
    let (initiator, message_1) =
        Initiator::start(&prologue, &server_key(), token.psk().clone(), ephemeral).unwrap();
    let peer: SocketAddr = "198.51.100.7:4000".parse().unwrap();
    let subject = CookieSubject { peer, nonce: &CLIENT_NONCE, token_id: &token.public_part().id };
    let cookie = cookie(&MacKey::new(&COOKIE_SECRET), 77, subject);
    let mut hello = HelloBytes::new(&prologue, &message_1, &macs);
    let mut first = [0; HELLO_BYTES];
    assert!(hello.write(&mut first));
    hello.set_cookie(&cookie);
    let mut second = [0; HELLO_BYTES];
    assert!(hello.write(&mut second));

    let answer = Accept {
        version: 1,
        suite: Cipher::Aes128Gcm as u8,
        hidden: true,
        connection: SERVER_ID,
        server_time: Timestamp::from_nanos(123_456_789),
        idle_timeout: Duration::from_secs(20),
        resume_window: Duration::from_secs(30),
    };
    let payload = answer.to_payload(&ticket().0);
    let ephemeral = KeyPair::from_secret(&SERVER_EPHEMERAL);
    let made = respond(&prologue, &server(), &message_1, token.psk(), &ephemeral, &payload);
    let (message_2, split) = made.unwrap();
    let (read, client) = initiator.finish(&message_2).unwrap();
    assert_eq!(read[..], payload[..]);
    assert_eq!(client.client_to_server, split.client_to_server);

    json!({
        "about": "session 3: a handshake with the token of token.json; HELLO ends in zeros to 1200 bytes",
        "server_secret": hex(SERVER_SECRET),
        "client_ephemeral_secret": hex(CLIENT_EPHEMERAL),
        "server_ephemeral_secret": hex(SERVER_EPHEMERAL),
        "client_nonce": hex(CLIENT_NONCE),
        "client_connection_id": CLIENT_ID,
        "hello_without_cookie": hex(&first[..244]),
        "cookie_secret": hex(COOKIE_SECRET),
        "cookie_epoch": 77,
        "client_address": peer.to_string(),
        "cookie": hex(cookie),
        "retry": hex(retry(&CLIENT_NONCE, &cookie, &macs)),
        "hello_with_cookie": hex(&second[..244]),
        "accept_payload": hex(payload.as_slice()),
        "accept": hex(accept(&CLIENT_NONCE, &message_2)),
        "refuse_full": hex(refuse(&CLIENT_NONCE, &cookie, RefuseReason::Full, &macs)),
        "client_to_server_secret": hex(split.client_to_server.as_slice()),
        "server_to_client_secret": hex(split.server_to_client.as_slice()),
    })
}

/// The secret of phase 0 that the other vectors begin with.
fn phase_0() -> Split {
    Split { client_to_server: Secret::new([0x77; 32]), server_to_client: Secret::new([0x88; 32]) }
}

fn phase(cipher: Cipher, name: &str, secret: &Secret) -> Value {
    let (key, iv) = key_and_iv(cipher, secret).unwrap();
    let used = if cipher == Cipher::Aes128Gcm { 16 } else { 32 };
    json!({
        "phase": name,
        "secret": hex(secret.as_slice()),
        "key": hex(&key[..used]),
        "iv": hex(iv),
    })
}

fn keys() -> Value {
    let (client, server) = (KeyPair::from_secret(&[0x99; 32]), KeyPair::from_secret(&[0xaa; 32]));
    let shared = client.agree(server.public()).unwrap();
    let suites = SUITES.map(|cipher| {
        let first = phase_0().client_to_server;
        let second = next_secret(cipher, &first).unwrap();
        let plain = next_secret(cipher, &second).unwrap();
        let mixed = mixed_secret(cipher, &plain, &shared, client.public(), server.public());
        let mixed = mixed.unwrap();
        let header = header_secret(cipher, &first).unwrap();
        let used = if cipher == Cipher::Aes128Gcm { 16 } else { 32 };
        json!({
            "suite": cipher as u8,
            "name": cipher.name(),
            "header_key": hex(&header[..used]),
            "phases": [
                phase(cipher, "0", &first),
                phase(cipher, "1", &second),
                phase(cipher, "2, without an exchange", &plain),
                phase(cipher, "2, mixed", &mixed),
            ],
        })
    });
    json!({
        "about": "session 5.2 and 5.8: the keys of one direction",
        "offer_secret": hex([0x99; 32]),
        "offer": hex(client.public()),
        "answer_secret": hex([0xaa; 32]),
        "answer": hex(server.public()),
        "shared": hex(shared.as_slice()),
        "suites": suites,
    })
}

fn packets() -> Value {
    let suite = CryptoSuite::AES_FIRST;
    let texts: [(&str, u8, u8, u64, Vec<u8>); 4] = [
        ("a PING that asks for its ack at once", 0, flag::PROBE, 1, vec![1]),
        ("an input", 0x01, 0, 2, b"input".to_vec()),
        ("an ack block and a bundle", 0, flag::ACK | flag::BUNDLE, 0x0102_0304_0506, {
            vec![9, 0, 0, 0, 2, 0, 1, 0x7f, 6, 0x42, 7, 0, b's', 2, 0, 1]
        }),
        ("the longest, in an odd phase", 0x42, flag::PHASE, u64::MAX - 1, vec![0xee; 1_170]),
    ];
    let mut packets = Vec::new();
    for cipher in SUITES {
        for (about, channel, flags, number, text) in &texts {
            let first = phase_0().client_to_server;
            let odd = next_secret(cipher, &first).unwrap();
            let secret = if flags & flag::PHASE != 0 { &odd } else { &first };
            let header =
                Header { connection: SERVER_ID, channel: *channel, flags: *flags, number: *number };
            let mut packet = header.to_bytes().to_vec();
            packet.extend(text);
            packet.extend([0; TAG_BYTES]);
            DirectionKey::new(&suite, cipher, secret).unwrap().seal(*number, &mut packet);
            let mut hidden = packet.clone();
            mask(
                header_key(&suite as &dyn AeadSuite, cipher, &first).unwrap().as_ref(),
                &mut hidden,
            );
            packets.push(json!({
                "about": about,
                "suite": cipher as u8,
                "phase_secret": hex(secret.as_slice()),
                "number": number.to_string(),
                "header": hex(header.to_bytes()),
                "text": hex(text),
                "packet": hex(&packet),
                "packet_with_hidden_header": hex(hidden),
            }));
            assert_eq!(packet.len(), HEADER_BYTES + text.len() + TAG_BYTES);
        }
    }
    json!({
        "about": "session 5.3 and 5.9: packets from client to server",
        "phase_0_secret": hex(phase_0().client_to_server.as_slice()),
        "packets": packets,
    })
}

fn check(name: &str, value: &Value) {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../../docs/spec/vectors", name].iter().collect();
    let made = format!("{value:#}\n");
    if std::env::var_os("TWINSPAN_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap();
    assert!(there == made, "docs/spec/vectors/{name} is not what the code makes");
}

#[test]
fn token_vectors_are_what_the_code_makes() {
    check("token.json", &tokens());
}

#[test]
fn handshake_vectors_are_what_the_code_makes() {
    check("handshake.json", &handshake());
}

#[test]
fn key_vectors_are_what_the_code_makes() {
    check("keys.json", &keys());
}

#[test]
fn packet_vectors_are_what_the_code_makes() {
    check("packets.json", &packets());
}
