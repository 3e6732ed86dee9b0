//! Who logs in, and where.

use std::fmt;

/// The last name of accounts that have only one name.
const RESIDENT: &str = "Resident";

/// The name of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountName {
    /// The first name.
    pub first: String,
    /// The last name; `Resident` for accounts with one name.
    pub last: String,
}

/// Why a text is no name of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no name of an account: one or two words are expected")]
pub struct NameError;

impl AccountName {
    /// A name of two parts, which are not looked at.
    pub fn new(first: impl Into<String>, last: impl Into<String>) -> Self {
        Self { first: first.into(), last: last.into() }
    }

    /// Reads `First Last`, `first.last`, or a single name, which stands for `First Resident`.
    ///
    /// # Errors
    /// [`NameError`] unless there are one or two words.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let words = |text: &str, at: &[char]| -> Vec<String> {
            text.split(at).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let mut parts = words(text.trim(), &[' ', '\t']);
        if let [single] = parts.as_slice() {
            parts = words(single, &['.']);
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(first), last, None) => {
                Ok(Self { first, last: last.unwrap_or_else(|| RESIDENT.into()) })
            }
            _ => Err(NameError),
        }
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.first, self.last)
    }
}

/// Where a login begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum StartLocation {
    /// Where the last session ended.
    #[default]
    Last,
    /// At home.
    Home,
    /// In a region.
    Region {
        /// Its name.
        name: String,
        /// Metres from its west, its south, and of height.
        position: [u16; 3],
    },
    /// Something else that a grid may know.
    Other(String),
}

impl StartLocation {
    /// The text of it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Last => "last".into(),
            Self::Home => "home".into(),
            Self::Region { name, position: [x, y, z] } => format!("uri:{name}&{x}&{y}&{z}"),
            Self::Other(text) => text.clone(),
        }
    }

    /// What a text means.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let region = || {
            // From the end: a name may have the separator in it.
            let mut parts = text.strip_prefix("uri:")?.rsplitn(4, '&');
            let mut metres = || parts.next()?.trim().parse::<u16>().ok();
            let [z, y, x] = [metres()?, metres()?, metres()?];
            let position = [x, y, z];
            let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
            Some(Self::Region { name, position })
        };
        match text {
            "last" | "" => Self::Last,
            "home" => Self::Home,
            text => region().unwrap_or_else(|| Self::Other(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_or_two_words() {
        for (text, first, last) in [
            ("Ruth", "Ruth", "Resident"),
            (" Test  User ", "Test", "User"),
            ("test.user", "test", "user"),
            ("Mr. Smith", "Mr.", "Smith"),
        ] {
            assert_eq!(AccountName::parse(text), Ok(AccountName::new(first, last)), "{text}");
        }
        for text in ["", " ", "a b c", "a.b.c", "."] {
            assert_eq!(AccountName::parse(text), Err(NameError), "{text}");
        }
    }

    #[test]
    fn places_come_back_from_their_texts() {
        let region =
            StartLocation::Region { name: "Alpha & Beta".into(), position: [128, 0, 4_000] };
        assert_eq!(region.to_text(), "uri:Alpha & Beta&128&0&4000");
        for place in
            [region, StartLocation::Last, StartLocation::Home, StartLocation::Other("x".into())]
        {
            assert_eq!(StartLocation::parse(&place.to_text()), place);
        }
        let odd = StartLocation::parse("uri:Alpha&1&2");
        assert_eq!(odd, StartLocation::Other("uri:Alpha&1&2".into()));
    }
}
