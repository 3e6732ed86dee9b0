//! Bytes as text: bases 16, 64 and 85.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Padding is written, and read where it is there.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why a text is not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A text that base 16 does not write.
    #[error("not a text of base 16")]
    Base16,
    /// A text that base 64 does not write.
    #[error("not a text of base 64")]
    Base64,
    /// A text that base 85 does not write.
    #[error("not a text of base 85")]
    Base85,
}

/// Two lower-case digits a byte.
pub fn base16(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads base 16 in any case; white space is skipped.
///
/// # Errors
/// [`TextError::Base16`]
pub fn from_base16(text: &[u8]) -> Result<Vec<u8>, TextError> {
    let mut digits = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let nibble = |byte: &u8| char::from(*byte).to_digit(16).ok_or(TextError::Base16);
    while let Some(high) = digits.next() {
        let low = digits.next().ok_or(TextError::Base16)?;
        bytes.push((nibble(high)? << 4 | nibble(low)?) as u8);
    }
    Ok(bytes)
}

/// Base 64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Reads base 64, padded or not; white space is skipped.
///
/// # Errors
/// [`TextError::Base64`]
pub fn from_base64(text: &[u8]) -> Result<Vec<u8>, TextError> {
    let decoded = if text.iter().any(u8::is_ascii_whitespace) {
        let dense: Vec<u8> =
            text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        BASE64.decode(dense)
    } else {
        BASE64.decode(text)
    };
    decoded.map_err(|_| TextError::Base64)
}

/// Base 85 with the digits `!` to `u`: five a group of four bytes, `z` for four zeros.
pub fn base85(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 4 * 5 + 5);
    for chunk in bytes.chunks(4) {
        let mut group = [0; 4];
        group.iter_mut().zip(chunk).for_each(|(out, byte)| *out = *byte);
        let mut number = u32::from_be_bytes(group);
        if number == 0 && chunk.len() == 4 {
            text.push('z');
            continue;
        }
        let mut digits = [0_u8; 5];
        for digit in digits.iter_mut().rev() {
            *digit = (number % 85) as u8 + b'!';
            number /= 85;
        }
        text.extend(digits.iter().take(chunk.len() + 1).map(|digit| char::from(*digit)));
    }
    text
}

/// Reads base 85, with `<~` and `~>` around it or not; white space is skipped.
///
/// # Errors
/// [`TextError::Base85`]
pub fn from_base85(text: &[u8]) -> Result<Vec<u8>, TextError> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"<~").unwrap_or(text);
    let text = text.strip_suffix(b"~>").unwrap_or(text);
    // A `z` is four bytes; the caller's limit on the text bounds what it unfolds to.
    let mut bytes = Vec::with_capacity(text.len() / 5 * 4 + 4);
    let (mut group, mut count) = (0_u64, 0_usize);
    for digit in text.iter().filter(|byte| !byte.is_ascii_whitespace()) {
        match digit {
            b'z' if count == 0 => bytes.extend_from_slice(&[0; 4]),
            b'!'..=b'u' => {
                group = group * 85 + u64::from(digit - b'!');
                count += 1;
                if count == 5 {
                    let whole = u32::try_from(group).map_err(|_| TextError::Base85)?;
                    bytes.extend_from_slice(&whole.to_be_bytes());
                    (group, count) = (0, 0);
                }
            }
            _ => return Err(TextError::Base85),
        }
    }
    if count == 1 {
        return Err(TextError::Base85);
    }
    if count > 1 {
        // The missing digits are the highest, so that the bytes that count are not rounded down.
        let group = (count..5).fold(group, |sum, _| sum * 85 + 84);
        let whole = u32::try_from(group).map_err(|_| TextError::Base85)?.to_be_bytes();
        bytes.extend(whole.iter().take(count - 1));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_those_of_the_standards() {
        assert_eq!(base16(b"\x00\xAFz"), "00af7a");
        assert_eq!(from_base16(b"00 Af\n7A"), Ok(b"\x00\xAFz".to_vec()));
        assert_eq!(base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
        assert_eq!(from_base64(b"YW55IGNhcm5h\n bCBwbGVhcw"), Ok(b"any carnal pleas".to_vec()));
        assert_eq!(base85(b"Man is d"), "9jqo^BlbD-");
        assert_eq!(base85(b"\0\0\0\0\0"), "z!!");
        assert_eq!(from_base85(b"<~9jqo^ BlbD-~>"), Ok(b"Man is d".to_vec()));
    }

    #[test]
    fn what_is_no_text_of_a_base_is_refused() {
        assert_eq!(from_base16(b"0"), Err(TextError::Base16));
        assert_eq!(from_base16(b"0g"), Err(TextError::Base16));
        assert_eq!(from_base64(b"A"), Err(TextError::Base64));
        assert_eq!(from_base64(b"&&&&"), Err(TextError::Base64));
        assert_eq!(from_base85(b"!"), Err(TextError::Base85));
        assert_eq!(from_base85(b"!z"), Err(TextError::Base85));
        assert_eq!(from_base85(b"uuuuu"), Err(TextError::Base85));
        assert_eq!(from_base85(b"v"), Err(TextError::Base85));
    }

    proptest! {
        #[test]
        fn bytes_come_back_from_each_base(bytes: Vec<u8>) {
            prop_assert_eq!(from_base16(base16(&bytes).as_bytes()), Ok(bytes.clone()));
            prop_assert_eq!(from_base64(base64(&bytes).as_bytes()), Ok(bytes.clone()));
            prop_assert_eq!(from_base85(base85(&bytes).as_bytes()), Ok(bytes));
        }

        #[test]
        fn any_text_is_bytes_or_names_a_reason(text: Vec<u8>) {
            let _ = (from_base16(&text), from_base64(&text), from_base85(&text));
        }
    }
}
