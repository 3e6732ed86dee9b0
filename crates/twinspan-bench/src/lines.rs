//! One JSON value a line, as processes of one run speak with each other.

use std::io::{self, BufRead, BufReader, Read, Stdin, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BenchError;

/// The longest line that either side reads, in bytes: a plan with its tokens is the longest.
pub const LINE_BYTES_MAX: u64 = 64 << 20;

/// Reads the next line into `line`, which loses what it held; false at the end of the input.
///
/// # Errors
/// What the operating system says, or `InvalidData` for a line that is no text, is longer than
/// [`LINE_BYTES_MAX`] or breaks off before its end.
pub fn read_line(input: &mut impl BufRead, line: &mut String) -> io::Result<bool> {
    line.clear();
    let bytes = input.take(LINE_BYTES_MAX).read_line(line)?;
    if bytes == 0 || line.ends_with('\n') {
        return Ok(bytes > 0);
    }
    let reason = if bytes as u64 == LINE_BYTES_MAX {
        format!("its line is longer than {} MiB", LINE_BYTES_MAX >> 20)
    } else {
        format!("its line breaks off after {bytes} bytes")
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// Writes one value as one line.
///
/// # Errors
/// What the operating system says.
pub fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    out.write_all(&bytes)?;
    out.flush()
}

/// Standard input and output of a process that a parent measures with.
#[derive(Debug)]
pub struct Parent {
    input: BufReader<Stdin>,
    line: String,
}

impl Default for Parent {
    fn default() -> Self {
        Self { input: BufReader::new(io::stdin()), line: String::new() }
    }
}

impl Parent {
    /// Waits for the parent's next word.
    ///
    /// # Errors
    /// [`BenchError::Plan`] when it is not to be understood, or nothing more comes.
    pub fn hear<T: DeserializeOwned>(&mut self) -> Result<T, BenchError> {
        match read_line(&mut self.input, &mut self.line) {
            Ok(true) => {}
            Ok(false) => return Err(BenchError::Plan("it has ended".into())),
            Err(error) => return Err(BenchError::Plan(error.to_string())),
        }
        serde_json::from_str(&self.line).map_err(|error| BenchError::Plan(error.to_string()))
    }

    /// Tells the parent something.
    ///
    /// # Errors
    /// What the operating system says of standard output.
    pub fn tell(&mut self, value: &impl Serialize) -> Result<(), BenchError> {
        Ok(write_line(&mut io::stdout().lock(), value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_or_refused() {
        let mut input = &b"one\ntwo\nthr"[..];
        let mut line = String::new();
        assert!(read_line(&mut input, &mut line).unwrap());
        assert_eq!(line, "one\n");
        assert!(read_line(&mut input, &mut line).unwrap());
        assert_eq!(line, "two\n");
        let error = read_line(&mut input, &mut line).unwrap_err();
        assert_eq!(error.to_string(), "its line breaks off after 3 bytes");
        assert!(!read_line(&mut input, &mut line).unwrap());
    }

    #[test]
    fn a_line_that_is_no_text_is_refused() {
        let error = read_line(&mut &b"\xff\n"[..], &mut String::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_limit() {
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        let error = read_line(&mut endless, &mut String::new()).unwrap_err();
        assert_eq!(error.to_string(), "its line is longer than 64 MiB");
    }
}
