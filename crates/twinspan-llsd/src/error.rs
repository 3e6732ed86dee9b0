//! What can be wrong with a document, and with what shall become one.

/// Why bytes are not LLSD, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
pub struct ParseError {
    /// The byte at which it was noticed, counted from 0.
    pub offset: usize,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The document ends within a value.
    #[error("the document ends within {within}")]
    Short {
        /// What it ends within.
        within: &'static str,
    },
    /// More bytes than the limit.
    #[error("{have} bytes where {max} are the most; raise the limit or refuse the sender")]
    TooLong {
        /// Bytes of the document.
        have: usize,
        /// The limit.
        max: usize,
    },
    /// More containers in one another than the limit.
    #[error("more than {max} containers in one another")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// More values than the limit.
    #[error("more than {max} values")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A count or a length of more than is there.
    #[error("a count of {count} where {have} bytes are left")]
    Count {
        /// The count.
        count: u64,
        /// Bytes that are left.
        have: usize,
    },
    /// Something else was expected.
    #[error("`{found}` where {wanted} is expected")]
    Unexpected {
        /// What was found: a letter, or the name of an element.
        found: String,
        /// What can stand here.
        wanted: &'static str,
    },
    /// A text is not the value that it should be.
    #[error("`{text}` is not {wanted}")]
    Text {
        /// The beginning of the text.
        text: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A text is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
    /// Something follows the value.
    #[error("bytes behind the end of the document")]
    Trailing,
    /// The markup itself is broken.
    #[error("broken XML: {what}")]
    Markup {
        /// What the reader of XML said.
        what: String,
    },
    /// A declaration of types or entities, which can make a document grow without end.
    #[error("a declaration of a document type, which is refused")]
    DocType,
    /// A reference to an entity that XML itself does not have.
    #[error("a reference to the unknown entity `{name}`")]
    Entity {
        /// The beginning of its name.
        name: String,
    },
}

/// The most characters of a document that an error quotes.
const QUOTED_MAX: usize = 32;

/// The beginning of a text, for an error.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_MAX).collect()
}

/// Why a value cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A character that XML cannot hold.
    #[error("the character {found:?}, which XML cannot hold; send it as binary")]
    Character {
        /// The character.
        found: char,
    },
    /// A date that has no text.
    #[error("a date of {seconds} s, outside of the years 0 to 9999")]
    Date {
        /// Its seconds since 1970, as text.
        seconds: String,
    },
    /// More containers in one another than any reader takes.
    #[error("more than {max} containers in one another")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// More than 2^32 - 1 bytes or entries.
    #[error("{count} bytes or entries where {max} are the most", max = u32::MAX)]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A key where there is no map, or a value without its key.
    #[error("keys and values do not alternate")]
    Order,
}
