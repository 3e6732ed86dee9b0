//! Somebody on the way of a sealed topic, who has no key: it reads all that passes, and adds words of its
//! own in the name of the other end.

use std::net::SocketAddr;

/// Datagrams that it remembers.
const KEPT_MAX: usize = 16;
/// Kinds of datagrams, as hub 8.2 and 8.8 number them.
const DATA: u8 = 5;
const END: u8 = 6;
const RESET: u8 = 7;
const SEALED_HELLO: u8 = 8;
const SEALED: u8 = 10;
/// The bit of a sealed datagram that says which key sealed it: links begin without it.
const PHASE: u8 = 1;
/// Where what is sealed has its number.
const NUMBER_AT: usize = 10;

/// Somebody on the way to one socket.
#[derive(Debug, Default)]
pub(super) struct Forger {
    /// What came last, sealed, with whom it came from.
    came: Vec<(SocketAddr, Vec<u8>)>,
    /// The token of the last sealed datagram that left, and of the last hello.
    token_out: [u8; 8],
    hello_token: [u8; 8],
    forged: usize,
}

fn token_at(bytes: &[u8], at: usize) -> Option<[u8; 8]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The head of greetings.
fn head(kind: u8, code: u8, token: [u8; 8]) -> Vec<u8> {
    [&[kind, 1, code, 0][..], b"TwHu", &token].concat()
}

impl Forger {
    /// A datagram leaves.
    pub(super) fn see_leave(&mut self, bytes: &[u8]) {
        match bytes.first() {
            Some(&SEALED) => {
                let phase = bytes.get(1).is_some_and(|bits| bits & PHASE != 0);
                twinspan_core::sometimes!(phase, "the keys of a link changed");
                self.token_out = token_at(bytes, 2).unwrap_or(self.token_out);
            }
            Some(&SEALED_HELLO) => {
                self.hello_token = token_at(bytes, 8).unwrap_or(self.hello_token);
            }
            _ => {}
        }
    }

    /// A datagram comes.
    pub(super) fn see_come(&mut self, from: SocketAddr, bytes: &[u8]) {
        if bytes.first() == Some(&SEALED) {
            if self.came.len() >= KEPT_MAX {
                self.came.remove(0);
            }
            self.came.push((from, bytes.to_vec()));
        }
    }

    /// Something of its own, in the name of `from`.
    pub(super) fn forge(&mut self, from: SocketAddr) -> Vec<u8> {
        self.forged += 1;
        let sealed = self.came.iter().rev().find(|(of, _)| *of == from);
        let sealed = sealed.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let token_in = token_at(&sealed, 2).unwrap_or_default();
        let far = [0xff, 0xff, 0, 0, 0, 0, 0, 0];
        match self.forged % 9 {
            0 => [&[RESET, 0][..], &self.token_out].concat(),
            1 => [&[END, 0][..], &token_in, &far].concat(),
            // All below a number far ahead was sent, it says.
            2 => [&[DATA, 8][..], &token_in, &[1, 0, 0, 0], &far].concat(),
            3 => changed(sealed, usize::MAX),
            4 => changed(sealed, NUMBER_AT + 3),
            // As it was: what came once, from whomever.
            5 => self.came.first().map(|(_, bytes)| bytes.clone()).unwrap_or_default(),
            6 => head(11, 2, self.hello_token),
            7 => [&head(2, 0, self.hello_token)[..], &[0xee; 16]].concat(),
            _ => [&[END, 0][..], &self.token_out, &far].concat(),
        }
    }
}

/// With one byte changed: at a place, or the last.
fn changed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let at = at.min(bytes.len().saturating_sub(1));
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 0x40;
    }
    bytes
}
