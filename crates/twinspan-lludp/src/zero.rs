//! Zero-coding: a run of zero bytes travels as a zero and its length.

/// The longest run that one pair stands for.
const RUN_MAX: usize = 255;

/// Why bytes could not be expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// The last zero has no length behind it.
    #[error("a zero at the end has no run length behind it")]
    NoCount,
    /// The result would be longer than the room for it.
    #[error("expands to more than {limit} bytes")]
    TooLong {
        /// The room, in bytes.
        limit: usize,
    },
}

/// Expands zero-coded bytes into `out` and returns what was written.
///
/// `00 n` are `n` zeros. A length of 0 adds 256 and is followed by another length: no encoder is
/// known that writes it, but viewers read it.
///
/// # Errors
/// [`ExpandError`]; what `out` holds then is not specified.
//= lludp 3.1
pub fn expand<'a>(coded: &[u8], out: &'a mut [u8]) -> Result<&'a [u8], ExpandError> {
    let len = walk(coded, out)?;
    Ok(out.get(..len).unwrap_or_default())
}

fn walk(mut coded: &[u8], out: &mut [u8]) -> Result<usize, ExpandError> {
    let too_long = ExpandError::TooLong { limit: out.len() };
    let mut len = 0;
    while !coded.is_empty() {
        let plain = memchr::memchr(0, coded).unwrap_or(coded.len());
        let (head, rest) = coded.split_at(plain);
        let end = len + head.len();
        out.get_mut(len..end).ok_or(too_long)?.copy_from_slice(head);
        len = end;
        let Some((_, counted)) = rest.split_first() else { break };
        let (run, after) = run(counted).ok_or(ExpandError::NoCount)?;
        let end = len.saturating_add(run);
        out.get_mut(len..end).ok_or(too_long)?.fill(0);
        len = end;
        coded = after;
    }
    Ok(len)
}

/// Expands no more than the first bytes, as many as `out` holds.
///
/// # Errors
/// [`ExpandError::NoCount`] when it is among them.
pub(crate) fn expand_head<'a>(
    mut coded: &[u8],
    out: &'a mut [u8],
) -> Result<&'a [u8], ExpandError> {
    let mut len = 0;
    while len < out.len() {
        let Some((byte, rest)) = coded.split_first() else { break };
        let (count, rest) =
            if *byte > 0 { (1, rest) } else { run(rest).ok_or(ExpandError::NoCount)? };
        let end = len.saturating_add(count).min(out.len());
        out.get_mut(len..end).unwrap_or_default().fill(*byte);
        (len, coded) = (end, rest);
    }
    Ok(out.get(..len).unwrap_or_default())
}

/// The length of a run from its bytes, and what follows them.
fn run(mut counted: &[u8]) -> Option<(usize, &[u8])> {
    let mut run = 0_usize;
    loop {
        let (count, rest) = counted.split_first()?;
        if *count > 0 {
            return Some((run + usize::from(*count), rest));
        }
        run += 256;
        counted = rest;
    }
}

/// Zero-codes `plain` into `out` and returns the length; `None` when `out` has no room.
///
/// Give an `out` one byte shorter than `plain` to get only what is worth it.
//= lludp 3.2
pub fn compress(mut plain: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    while !plain.is_empty() {
        let literal = memchr::memchr(0, plain).unwrap_or(plain.len());
        let (head, rest) = plain.split_at(literal);
        let end = len + head.len();
        out.get_mut(len..end)?.copy_from_slice(head);
        len = end;
        plain = rest;
        if plain.is_empty() {
            break;
        }
        let run = plain.iter().take(RUN_MAX).take_while(|byte| **byte == 0).count();
        out.get_mut(len..len + 2)?.copy_from_slice(&[0, run as u8]);
        len += 2;
        plain = plain.get(run..).unwrap_or_default();
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 8_192;

    fn expanded(coded: &[u8]) -> Result<Vec<u8>, ExpandError> {
        expand(coded, &mut [0xAA; LIMIT]).map(<[u8]>::to_vec)
    }

    fn compressed(plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0xAA; 2 * plain.len()];
        let len = compress(plain, &mut out).unwrap();
        out.truncate(len);
        out
    }

    #[test]
    fn codes_have_their_golden_bytes_both_ways() {
        // A number of low frequency: its zero is coded like any other.
        let long = [0; 260];
        for (plain, coded) in [
            (&[0xFF, 0xFF, 0x00, 0x95][..], &[0xFF, 0xFF, 0x00, 0x01, 0x95][..]),
            (&[], &[]),
            (&[1, 0, 0, 0, 2, 0], &[1, 0, 3, 2, 0, 1]),
            (&long[..255], &[0, 255]),
            (&long, &[0, 255, 0, 5]),
        ] {
            assert_eq!(compressed(plain), coded);
            assert_eq!(expanded(coded).as_deref(), Ok(plain));
        }
    }

    #[test]
    fn a_run_length_of_zero_adds_256() {
        assert_eq!(expanded(&[0, 0, 5]), Ok(vec![0; 261]));
        assert_eq!(expanded(&[7, 0, 0, 0, 1, 8]).unwrap().len(), 515);
    }

    #[test]
    fn a_run_without_its_length_is_named() {
        assert_eq!(expanded(&[1, 0]), Err(ExpandError::NoCount));
        assert_eq!(expanded(&[0, 0]), Err(ExpandError::NoCount));
    }

    #[test]
    fn output_is_bounded() {
        let bomb = [0, 255].repeat(33);
        assert_eq!(expanded(&bomb), Err(ExpandError::TooLong { limit: LIMIT }));
        let mut out = [0; 3];
        assert_eq!(expand(&[1, 2, 3, 4], &mut out), Err(ExpandError::TooLong { limit: 3 }));
        assert_eq!(expand(&[0, 4], &mut out), Err(ExpandError::TooLong { limit: 3 }));
        assert_eq!(expand(&[1, 0, 2], &mut out), Ok(&[1, 0, 0][..]));
        let endless = [vec![0; 40_000], vec![1]].concat();
        assert_eq!(expanded(&endless), Err(ExpandError::TooLong { limit: LIMIT }));
    }

    #[test]
    fn what_does_not_fit_is_not_compressed() {
        assert_eq!(compress(&[1, 0, 2], &mut [0; 3]), None);
        assert_eq!(compress(&[1, 0, 0, 2], &mut [0; 3]), None);
        assert_eq!(compress(&[1, 0, 0, 0, 2], &mut [0; 4]), Some(4));
    }

    /// Bytes with runs of zeros.
    fn runs() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            (0_usize..600).prop_map(|count| vec![0; count]),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_expand_or_name_a_reason(coded in runs()) {
            if let Ok(plain) = expanded(&coded) {
                prop_assert_eq!(expanded(&compressed(&plain)), Ok(plain));
            }
        }

        #[test]
        fn what_is_compressed_expands_to_itself(plain in runs()) {
            let coded = compressed(&plain);
            prop_assert!(coded.len() <= 2 * plain.len());
            prop_assert_eq!(expanded(&coded), Ok(plain));
        }
    }
}
