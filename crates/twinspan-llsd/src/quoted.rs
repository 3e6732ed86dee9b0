//! Texts between quotes, which both notation and binary have.

use std::borrow::Cow;

use crate::cursor::Cursor;
use crate::error::{ParseError, Reason};

/// Reads the bytes up to the quote that ends them; the one that began them is read already.
/// Borrowed where no escape stands among them.
pub(crate) fn read<'a>(cursor: &mut Cursor<'a>, quote: u8) -> Result<Cow<'a, [u8]>, ParseError> {
    let plain = cursor.take_while(|byte| byte != quote && byte != b'\\');
    if cursor.eat(quote) {
        return Ok(Cow::Borrowed(plain));
    }
    let mut bytes = plain.to_vec();
    loop {
        match cursor.byte("a quoted text")? {
            b'\\' => bytes.push(escape(cursor)?),
            byte if byte == quote => return Ok(Cow::Owned(bytes)),
            byte => bytes.push(byte),
        }
        bytes.extend_from_slice(cursor.take_while(|byte| byte != quote && byte != b'\\'));
    }
}

/// The byte that an escape stands for. Others than those below stand for themselves.
fn escape(cursor: &mut Cursor<'_>) -> Result<u8, ParseError> {
    Ok(match cursor.byte("an escape")? {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'x' => {
            let digits = cursor.array::<2>("an escape")?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let [high, low] = digits.map(digit);
            let byte = high.zip(low).map(|(high, low)| (high << 4 | low) as u8);
            byte.ok_or_else(|| cursor.not_text(digits, "an escape of two digits"))?
        }
        byte => byte,
    })
}

/// The text that the bytes are.
pub(crate) fn text<'a>(
    cursor: &Cursor<'a>,
    bytes: Cow<'a, [u8]>,
) -> Result<Cow<'a, str>, ParseError> {
    match bytes {
        Cow::Borrowed(bytes) => cursor.utf8(bytes).map(Cow::Borrowed),
        Cow::Owned(bytes) => {
            String::from_utf8(bytes).map(Cow::Owned).map_err(|_| cursor.error(Reason::Utf8))
        }
    }
}

/// Writes a text between quotes.
pub(crate) fn write(text: &str, quote: u8, out: &mut Vec<u8>) {
    out.push(quote);
    for byte in text.bytes() {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0..=31 | 127 => {
                let digit = |nibble: u8| b"0123456789abcdef".get(usize::from(nibble));
                let digits = [digit(byte >> 4), digit(byte & 15)];
                out.extend_from_slice(b"\\x");
                out.extend(digits.into_iter().flatten());
            }
            byte if byte == quote => out.extend_from_slice(&[b'\\', byte]),
            byte => out.push(byte),
        }
    }
    out.push(quote);
}
