//! What commands print: one JSON object, or text for people.

use std::io::{self, Write};

use serde::Serialize;

use crate::error::CommandError;

/// Prints what was found as one JSON object in a line, or as text for people.
pub(crate) fn print<T: Serialize + ?Sized>(
    found: &T,
    as_json: bool,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let written = if as_json {
        serde_json::to_writer(&mut out, found).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        out.write_all(text(found).as_bytes())
    };
    written.and_then(|()| out.flush()).map_err(CommandError::Output)
}
