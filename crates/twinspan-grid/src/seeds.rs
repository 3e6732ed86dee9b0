//! The unguessable paths of capabilities: one for each session and region.

use core::fmt;
use std::collections::BTreeMap;

use twinspan_core::random::SecretSource;

use crate::config::RegionId;

/// What the path of every capability begins with.
pub(crate) const PATH: &str = "/cap/";
/// Random bytes of a token: nobody guesses 128 bits.
const TOKEN_BYTES: usize = 16;

/// What proves that somebody may use the capabilities that a session has at a region. It is a
/// secret: `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token([u8; TOKEN_BYTES]);

impl Token {
    /// Reads 32 hexadecimal digits in lower case, as they were given out.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        if text.len() != 2 * TOKEN_BYTES {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let [high, low] = pair.map(digit);
            *byte = high? << 4 | low?;
        }
        Some(Self(bytes))
    }

    fn to_text(self) -> String {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The tokens that are in use. As many as there are sessions and regions that these may enter.
pub(crate) struct Seeds {
    secrets: Box<dyn SecretSource>,
    owners: BTreeMap<Token, (u32, RegionId)>,
    tokens: BTreeMap<(u32, RegionId), Token>,
    /// Grows whenever one ends.
    ended: u64,
}

impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seeds").field("len", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Seeds {
    pub(crate) const fn new(secrets: Box<dyn SecretSource>) -> Self {
        Self { secrets, owners: BTreeMap::new(), tokens: BTreeMap::new(), ended: 0 }
    }

    /// The path of the seed that a session has at a region; it is drawn when there is none yet.
    pub(crate) fn path(&mut self, code: u32, region: RegionId) -> String {
        let token = self.tokens.get(&(code, region)).copied().unwrap_or_else(|| {
            let mut bytes = [0; TOKEN_BYTES];
            self.secrets.fill(&mut bytes);
            let token = Token(bytes);
            // One that is in use comes once in an eternity; its former owner loses it.
            if let Some(former) = self.owners.insert(token, (code, region)) {
                self.tokens.remove(&former);
            }
            self.tokens.insert((code, region), token);
            token
        });
        format!("{PATH}{}", token.to_text())
    }

    /// Whose a token is, and where.
    pub(crate) fn owner(&self, token: Token) -> Option<(u32, RegionId)> {
        self.owners.get(&token).copied()
    }

    /// Whether a session has capabilities at a region.
    pub(crate) fn has(&self, code: u32, region: RegionId) -> bool {
        self.tokens.contains_key(&(code, region))
    }

    /// Ends the capabilities that a session has at a region.
    pub(crate) fn end(&mut self, code: u32, region: RegionId) {
        if let Some(token) = self.tokens.remove(&(code, region)) {
            self.owners.remove(&token);
            self.ended += 1;
        }
    }

    /// How many have ended.
    pub(crate) const fn ended(&self) -> u64 {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::random::Stream;

    fn seeds() -> Seeds {
        Seeds::new(Box::new(Stream::new(1, "secrets", 0)))
    }

    fn token(path: &str) -> Token {
        Token::parse(path.strip_prefix(PATH).unwrap()).unwrap()
    }

    #[test]
    fn each_session_has_a_path_of_its_own_at_each_region_until_it_ends() {
        let mut seeds = seeds();
        let paths = [(1, 0), (1, 1), (2, 0)].map(|(code, at)| seeds.path(code, RegionId(at)));
        assert_eq!(paths[0], seeds.path(1, RegionId(0)));
        assert!(paths[0] != paths[1] && paths[1] != paths[2] && paths[0] != paths[2]);
        assert_eq!(seeds.owner(token(&paths[2])), Some((2, RegionId(0))));
        seeds.end(2, RegionId(0));
        assert_eq!(seeds.owner(token(&paths[2])), None);
        assert!(!seeds.has(2, RegionId(0)) && seeds.has(1, RegionId(0)));
        assert_ne!(seeds.path(2, RegionId(0)), paths[2]);
        assert_eq!(seeds.ended(), 1);
    }

    #[test]
    fn only_what_was_written_is_read() {
        let text = "00ff10abcdef0123456789abcdef0123";
        assert_eq!(Token::parse(text).unwrap().to_text(), text);
        for wrong in ["", "00", &text.to_uppercase(), &text[1..], &format!("{text}0")] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Token::parse(&format!("{}ä", &text[2..])), None);
    }

    #[test]
    fn secrets_appear_in_no_debug_output() {
        let mut seeds = seeds();
        let path = seeds.path(1, RegionId(0));
        let shown = format!("{seeds:?} {:?}", token(&path));
        assert_eq!(shown, "Seeds { len: 1, .. } Token");
    }
}
