//! What a topic carries: the type of its messages, as ends that meet tell it each other.

use std::fmt;

/// The longest name of a type, in bytes; longer ones are cut.
pub const NAME_BYTES_MAX: usize = 128;

/// How the bytes of a message stand for its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// They are the value as it lies in memory.
    Plain,
    /// Postcard's encoding of a value of serde's.
    Postcard,
    /// Bytes without a type.
    Bytes,
}

impl Form {
    /// All of them, in the order of their numbers in greetings.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Postcard, Self::Bytes];
}

/// What a topic carries; both ends must mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// How bytes stand for values.
    pub form: Form,
    /// Bytes of a value in memory; 0 where they vary.
    pub bytes: u64,
    /// What a value's address is a multiple of.
    pub align: u32,
    /// A number that the user raises when the meaning of fields changes.
    pub version: u32,
    /// The type's name.
    pub name: String,
}

impl Identity {
    /// The same with a name of at most [`NAME_BYTES_MAX`].
    #[must_use]
    pub fn cut(mut self) -> Self {
        cut(&mut self.name, NAME_BYTES_MAX);
        self
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::Plain => {
                let Self { name, bytes, align, .. } = self;
                write!(f, "{name} of {bytes} bytes aligned to {align}")?;
            }
            Form::Postcard => write!(f, "{} in postcard", self.name)?,
            Form::Bytes => f.write_str("bytes")?,
        }
        if self.version == 0 { Ok(()) } else { write!(f, ", version {}", self.version) }
    }
}

/// Cuts a text to at most so many bytes, between two letters.
pub fn cut(text: &mut String, bytes: usize) {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_between_two_letters() {
        let name = format!("{}é", "a".repeat(NAME_BYTES_MAX - 1));
        let identity = Identity { form: Form::Postcard, bytes: 0, align: 1, version: 2, name };
        let cut = identity.cut();
        assert_eq!(cut.name.len(), NAME_BYTES_MAX - 1);
        assert_eq!(cut.clone().cut(), cut);
        assert!(cut.to_string().ends_with("a in postcard, version 2"));
    }
}
