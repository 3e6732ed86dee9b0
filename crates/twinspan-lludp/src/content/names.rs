//! Lines with names and values, which tell an avatar's name and what an attachment is.

use core::fmt;

use super::ContentError;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named as its word")]
pub enum ValueKind {
    String,
    F32,
    S32,
    Vector3,
    U32,
    Camera,
    Asset,
    U64,
}

/// Who may change a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `R`: nobody.
    Read,
    /// `RW`.
    ReadWrite,
    /// `CB`: nobody, and changes are told.
    Callback,
}

/// Who is told of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendTo {
    /// `S`: simulators.
    Simulator,
    /// `DS`: simulators and the data server.
    Data,
    /// `SV`: simulators and viewers.
    Viewer,
    /// `DSV`: all.
    All,
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal $(| $other:literal)*,)* }) => {
        impl $type {
            /// What a word means, if it means one.
            pub fn from_word(word: &str) -> Option<Self> {
                Some(match word {
                    $($word $(| $other)* => Self::$variant,)*
                    _ => return None,
                })
            }

            /// Its word.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

words! {
    ValueKind {
        String = "STRING",
        F32 = "F32",
        S32 = "S32",
        Vector3 = "VEC3",
        U32 = "U32",
        Camera = "CAMERA",
        Asset = "ASSET",
        U64 = "U64",
    }
}
words! {
    Access {
        Read = "R" | "READ_ONLY",
        ReadWrite = "RW" | "READ_WRITE",
        Callback = "CB" | "CALLBACK",
    }
}
words! {
    SendTo {
        Simulator = "S" | "SIM",
        Data = "DS",
        Viewer = "SV" | "SIM_VIEWER",
        All = "DSV",
    }
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameValue<'a> {
    /// `FirstName`, `LastName`, `Title`, `AttachItemID` and others.
    pub name: &'a str,
    /// The type of the value.
    pub kind: ValueKind,
    /// Who may change it; `R` where the line does not say.
    pub access: Access,
    /// Who is told of it; `S` where the line does not say.
    pub send_to: SendTo,
    /// The value, as text.
    pub value: &'a str,
}

impl<'a> NameValue<'a> {
    /// Reads a line: name, type, access, who is told, value. The third and fourth may be missing.
    ///
    /// # Errors
    /// [`ContentError::Invalid`] when it has no name, or no type that is known.
    pub fn read(line: &'a str) -> Result<Self, ContentError> {
        let invalid = ContentError::Invalid { what: "a name-value line" };
        let (name, rest) = word(line).ok_or(invalid)?;
        let (kind, mut rest) = word(rest).ok_or(invalid)?;
        let kind = ValueKind::from_word(kind).ok_or(invalid)?;
        let (mut access, mut send_to) = (Access::Read, SendTo::Simulator);
        if let Some((found, behind)) = word(rest)
            && let Some(found) = Access::from_word(found)
        {
            (access, rest) = (found, behind);
        }
        if let Some((found, behind)) = word(rest)
            && let Some(found) = SendTo::from_word(found)
        {
            (send_to, rest) = (found, behind);
        }
        Ok(Self { name, kind, access, send_to, value: rest.trim_start_matches([' ', '\t']) })
    }
}

impl fmt::Display for NameValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, access, send_to) = (self.kind.word(), self.access.word(), self.send_to.word());
        write!(f, "{} {kind} {access} {send_to} {}", self.name, self.value)
    }
}

/// The first word and what is behind the space after it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (!word.is_empty()).then(|| (word, rest.get(1..).unwrap_or_default()))
}

/// The lines of an object.
#[derive(Clone, Debug)]
pub struct NameValues<'a>(core::str::Lines<'a>);

impl<'a> NameValues<'a> {
    /// Reads lines; the zero that ends them may be there.
    ///
    /// # Errors
    /// [`ContentError::Invalid`] when they are not UTF-8. What is wrong with one line comes when
    /// that is read.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ContentError> {
        let text = crate::field::text_of(bytes);
        let text = text.map_err(|_| ContentError::Invalid { what: "name-value text" })?;
        Ok(Self(text.lines()))
    }

    /// The value of this name; the first of several, as readers take it.
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.flatten().find(|line| line.name == name).map(|line| line.value)
    }
}

impl<'a> Iterator for NameValues<'a> {
    type Item = Result<NameValue<'a>, ContentError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.find(|line| !line.trim().is_empty()).map(NameValue::read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_avatars_lines_are_read() {
        let text = "FirstName STRING RW SV Test\nLastName STRING RW SV User\n\
                    Title STRING RW SV A  title\nAttachItemID STRING 5 x\nN U32\n\0";
        let lines: Vec<_> =
            NameValues::new(text.as_bytes()).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(lines[0].to_string(), "FirstName STRING RW SV Test");
        assert_eq!(lines[2].value, "A  title");
        assert_eq!((lines[3].access, lines[3].value), (Access::Read, "5 x"));
        assert_eq!(lines[4].value, "");
        let names = NameValues::new(text.as_bytes()).unwrap();
        assert_eq!(names.clone().value("LastName"), Some("User"));
        assert_eq!(names.value("Nothing"), None);
        assert!(NameValue::read("Name WORD R S x").is_err());
        assert!(NameValue::read("Name").is_err());
        assert!(NameValues::new(b"\xFF").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_lines_or_name_a_reason(bytes: Vec<u8>) {
            if let Ok(lines) = NameValues::new(&bytes) {
                prop_assert!(lines.count() <= bytes.len());
            }
        }

        #[test]
        fn a_line_comes_back(name in "[A-Za-z]{1,9}", value in "[a-z0-9<>,]{0,9}( [ -~]{0,9})?") {
            let line = NameValue {
                name: &name,
                kind: ValueKind::String,
                access: Access::Callback,
                send_to: SendTo::All,
                value: &value,
            };
            let text = line.to_string();
            // Space before a value belongs to none.
            let again = NameValue::read(&text).unwrap();
            prop_assert_eq!(again.value, value.trim_start());
            prop_assert_eq!((again.name, again.access), (name.as_str(), Access::Callback));
        }
    }
}
