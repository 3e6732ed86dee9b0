//! Messages that go beside their stream, in datagrams of its connection: what such a datagram holds.
//!
//! //= hub 11.5

use std::time::Duration;

use super::wire::FrameError;

/// Bytes in front of the messages: which stream, and the number of the first message.
pub(crate) const HEAD_BYTES: usize = INDEX_BYTES + NUMBER_BYTES;
/// Bytes in front of each message.
pub(crate) const LENGTH_BYTES: usize = 2;
/// How long after the last message beside it a stream says how far they came.
pub(super) const TAIL_DELAY: Duration = Duration::from_millis(20);

const INDEX_BYTES: usize = 4;
const NUMBER_BYTES: usize = 8;
/// In the length of a message: it is packed.
const PACKED: u16 = 1 << 15;

/// Begins a datagram: messages of the stream with this index are in it.
pub(crate) fn begin(index: u32, datagram: &mut Vec<u8>) {
    datagram.clear();
    datagram.extend_from_slice(&index.to_le_bytes());
}

/// Appends the number of the first message.
pub(super) fn write_head(number: u64, datagram: &mut Vec<u8>) {
    datagram.extend_from_slice(&number.to_le_bytes());
}

/// Whether a body of so many bytes can be said at all.
pub(super) const fn fits(body: usize) -> bool {
    body < PACKED as usize
}

/// Appends a message, whose body must [fit](fits).
pub(super) fn write_message(is_packed: bool, body: [&[u8]; 2], datagram: &mut Vec<u8>) {
    let [front, back] = body;
    let length = (front.len() + back.len()) as u16 & !PACKED;
    let word = if is_packed { length | PACKED } else { length };
    datagram.extend_from_slice(&word.to_le_bytes());
    datagram.extend_from_slice(front);
    datagram.extend_from_slice(back);
}

/// The index of the stream that a datagram belongs to, and the rest.
///
/// # Errors
/// [`FrameError::Length`] where it is too short.
pub(crate) fn split(datagram: &[u8]) -> Result<(u32, &[u8]), FrameError> {
    let Some((index, rest)) = datagram.split_first_chunk::<INDEX_BYTES>() else {
        return Err(FrameError::Length("datagram"));
    };
    Ok((u32::from_le_bytes(*index), rest))
}

/// A message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loose<'a> {
    pub(super) number: u64,
    pub(super) is_packed: bool,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram, behind its index.
///
/// # Errors
/// [`FrameError`] where there is none, where a number is too great, or where the last one is not whole:
/// nothing of such a datagram counts.
pub(super) fn messages(rest: &[u8]) -> Result<impl Iterator<Item = Loose<'_>>, FrameError> {
    let Some((number, bytes)) = rest.split_first_chunk::<NUMBER_BYTES>() else {
        return Err(FrameError::Length("datagram"));
    };
    let first = u64::from_le_bytes(*number);
    // So large a number would leave none for what follows.
    if first > u64::MAX / 2 {
        return Err(FrameError::Number);
    }
    let mut left = bytes;
    loop {
        let (.., after) = message(left).ok_or(FrameError::Length("datagram"))?;
        left = after;
        if left.is_empty() {
            break;
        }
    }
    let mut left = bytes;
    let bodies = std::iter::from_fn(move || {
        let (is_packed, body, after) = message(left)?;
        left = after;
        Some((is_packed, body))
    });
    let numbered = (first..).zip(bodies);
    Ok(numbered.map(|(number, (is_packed, body))| Loose { number, is_packed, body }))
}

/// The first message of some bytes: whether it is packed, its body, and what follows it.
fn message(bytes: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let word = u16::from_le_bytes(*word);
    let (body, after) = rest.split_at_checked(usize::from(word & !PACKED))?;
    Some((word & PACKED != 0, body, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(rest: &[u8]) -> Result<Vec<(u64, bool, Vec<u8>)>, FrameError> {
        let messages = messages(rest)?;
        Ok(messages.map(|it| (it.number, it.is_packed, it.body.to_vec())).collect())
    }

    #[test]
    fn a_datagram_has_its_golden_bytes() {
        let mut datagram = vec![9; 40];
        begin(0x0102_0304, &mut datagram);
        write_head(7, &mut datagram);
        write_message(false, [b"ab", b"c"], &mut datagram);
        write_message(true, [b"", b"d"], &mut datagram);
        write_message(false, [b"", b""], &mut datagram);
        let golden =
            [4, 3, 2, 1, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, b'a', b'b', b'c', 1, 0x80, b'd', 0, 0];
        assert_eq!(datagram, golden);
        let (index, rest) = split(&golden).unwrap();
        assert_eq!(index, 0x0102_0304);
        let messages = all(rest).unwrap();
        assert_eq!(
            messages,
            [(7, false, b"abc".to_vec()), (8, true, b"d".to_vec()), (9, false, vec![])]
        );
        assert!(fits(32_767) && !fits(32_768));
    }

    #[test]
    fn what_is_no_datagram_of_messages_is_named() {
        assert_eq!(split(&[0; 3]).unwrap_err(), FrameError::Length("datagram"));
        for short in [&[][..], &[0; 7], &[0; 8], &[0; 9], &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0]] {
            assert_eq!(all(short).unwrap_err(), FrameError::Length("datagram"), "{short:?}");
        }
        // A whole one, and one that is not: neither counts.
        let broken = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'a', 2, 0, b'b'];
        assert_eq!(all(&broken).unwrap_err(), FrameError::Length("datagram"));
        let mut far = (u64::MAX / 2 + 1).to_le_bytes().to_vec();
        far.extend_from_slice(&[0, 0]);
        assert_eq!(all(&far).unwrap_err(), FrameError::Number);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_datagram_or_name_a_reason(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            bodies in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 1..8),
            number in 0..1_000_000_u64,
        ) {
            if let Ok((_, rest)) = split(&bytes)
                && let Ok(messages) = all(rest)
            {
                prop_assert!(!messages.is_empty());
            }
            let mut datagram = Vec::new();
            begin(3, &mut datagram);
            write_head(number, &mut datagram);
            for (is_packed, body) in &bodies {
                write_message(*is_packed, [body, &[]], &mut datagram);
            }
            let (index, rest) = split(&datagram).unwrap();
            prop_assert_eq!(index, 3);
            let numbered = (number..).zip(bodies);
            let expected: Vec<_> = numbered.map(|(number, (packed, body))| (number, packed, body)).collect();
            prop_assert_eq!(all(rest).unwrap(), expected);
        }
    }
}
