//! Settings in TOML, read so that every error names its line and, for a wrong word, the nearest right one.
//!
//! ```
//! use twinspan_admission::settings::Document;
//!
//! let document = Document::parse("drain_secs = 5\n").expect("TOML");
//! let error = document.root().allow(&["drain_s", "listen"]).unwrap_err();
//! assert_eq!(error.to_string(), "line 1: unknown key `drain_secs`; did you mean `drain_s`?");
//! ```

use core::fmt::Display;
use core::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The longest text that is read, in bytes.
pub const SETTINGS_BYTES_MAX: usize = 256 * 1024;

/// How much of a word may be wrong for a right one to be called near: one letter in two.
const NEAR_MIN: f64 = 0.5;

/// What is wrong with settings, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SettingsError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub what: String,
}

/// Settings that are TOML; what they mean is not judged yet.
#[derive(Debug)]
pub struct Document<'t> {
    text: &'t str,
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    /// Reads a text.
    ///
    /// # Errors
    /// [`SettingsError`] names the line at which it stops being TOML.
    pub fn parse(text: &'t str) -> Result<Self, SettingsError> {
        if text.len() > SETTINGS_BYTES_MAX {
            let what = format!("the text is longer than {SETTINGS_BYTES_MAX} bytes; shorten it");
            return Err(SettingsError { line: 1, what });
        }
        match DeTable::parse(text) {
            Ok(root) => Ok(Self { text, root: root.into_inner() }),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let what = error.message().replace('\n', "; ");
                Err(SettingsError { line: line_of(text, at), what })
            }
        }
    }

    /// The table that holds all others.
    pub const fn root(&self) -> Table<'_, 't> {
        Table { text: self.text, at: 0, table: &self.root }
    }
}

/// The line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// The word among `words` that is most like `word`, if any is like it at all.
pub fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let mut best = (NEAR_MIN, None);
    for known in words {
        let likeness = strsim::normalized_damerau_levenshtein(word, known);
        if likeness >= best.0 {
            best = (likeness, Some(known));
        }
    }
    best.1
}

/// The end of an error about a word: the nearest right one, else all of them.
fn advice(word: &str, words: &[&str]) -> String {
    match nearest(word, words.iter().copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("there are {}", listed(words)),
    }
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// One table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Table<'d, 't> {
    text: &'t str,
    /// The byte at which it begins.
    at: usize,
    table: &'d DeTable<'t>,
}

impl<'d, 't> Table<'d, 't> {
    /// The line on which it begins, from 1.
    pub fn line(&self) -> usize {
        line_of(self.text, self.at)
    }

    /// An error about the table as a whole.
    pub fn error(&self, what: impl Into<String>) -> SettingsError {
        SettingsError { line: self.line(), what: what.into() }
    }

    /// An error about the value of a key, or about the table when the key is not there.
    pub fn error_at(&self, key: &str, what: impl Into<String>) -> SettingsError {
        let at = self.table.get(key).map_or(self.at, |value| value.span().start);
        SettingsError { line: line_of(self.text, at), what: what.into() }
    }

    /// Refuses keys that are not among `known`.
    ///
    /// # Errors
    /// [`SettingsError`] names the first unknown key in the text and the nearest known one.
    pub fn allow(&self, known: &[&str]) -> Result<(), SettingsError> {
        let unknown = self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else { return Ok(()) };
        let (word, line) = (key.get_ref(), line_of(self.text, key.span().start));
        let what = format!("unknown key `{}`; {}", word.escape_debug(), advice(word, known));
        Err(SettingsError { line, what })
    }

    fn get(&self, key: &str) -> Option<(&'d DeValue<'t>, Range<usize>)> {
        self.table.get(key).map(|value| (value.get_ref(), value.span()))
    }

    fn wrong(&self, key: &str, wanted: &str, value: &DeValue<'_>) -> SettingsError {
        self.error_at(key, format!("`{key}` is {}; write {wanted}", described(value)))
    }

    /// Turns "not there" into an error.
    ///
    /// # Errors
    /// [`SettingsError`] names the key that is missing.
    pub fn require<T>(&self, key: &str, value: Option<T>) -> Result<T, SettingsError> {
        value.ok_or_else(|| self.error(format!("key `{key}` is missing here; add it")))
    }

    /// True or false; `None` when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] when it is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, SettingsError> {
        match self.get(key) {
            None => Ok(None),
            Some((DeValue::Boolean(value), _)) => Ok(Some(*value)),
            Some((other, _)) => Err(self.wrong(key, "true or false", other)),
        }
    }

    /// A whole number in a range; `None` when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] when it is something else or out of the range.
    pub fn whole(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, SettingsError> {
        let Some((value, _)) = self.get(key) else { return Ok(None) };
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(digits) = value else { return Err(self.wrong(key, &wanted, value)) };
        let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok();
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, &wanted, value)),
        }
    }

    /// A number in a range, with or without a point; `None` when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] when it is something else or out of the range.
    pub fn number(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, SettingsError> {
        let Some((value, _)) = self.get(key) else { return Ok(None) };
        let number = match value {
            DeValue::Integer(digits) => {
                i64::from_str_radix(digits.as_str(), digits.radix()).ok().map(|whole| whole as f64)
            }
            DeValue::Float(digits) => digits.as_str().parse().ok(),
            _ => None,
        };
        let wanted = || format!("a number from {} to {}", range.start(), range.end());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, &wanted(), value)),
        }
    }

    /// A text; `None` when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] when it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&'d str>, SettingsError> {
        match self.get(key) {
            None => Ok(None),
            Some((DeValue::String(value), _)) => Ok(Some(value.as_ref())),
            Some((other, _)) => Err(self.wrong(key, "a text in quotes", other)),
        }
    }

    /// A text that `parse` understands; `None` when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] with what `parse` says.
    pub fn parsed<T, E: Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let wrong = |error: E| {
            self.error_at(key, format!("`{key}` is \"{}\": {error}", text.escape_debug()))
        };
        parse(text).map(Some).map_err(wrong)
    }

    /// One of several words; `None` when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] names the nearest word.
    pub fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, SettingsError> {
        let Some(word) = self.text(key)? else { return Ok(None) };
        if let Some((_, value)) = choices.iter().find(|(known, _)| *known == word) {
            return Ok(Some(*value));
        }
        let words: Vec<_> = choices.iter().map(|(known, _)| *known).collect();
        let what = format!("`{key}` is \"{}\"; {}", word.escape_debug(), advice(word, &words));
        Err(self.error_at(key, what))
    }

    /// A list of texts, none when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] when it is something else or has more than `most`.
    pub fn texts(&self, key: &str, most: usize) -> Result<Vec<&'d str>, SettingsError> {
        let wanted = format!("a list of at most {most} texts");
        let items = self.items(key, most, &wanted)?;
        let text = |item: &'d Spanned<DeValue<'t>>| match item.get_ref() {
            DeValue::String(value) => Ok(value.as_ref()),
            other => Err(self.wrong_item(key, item, &wanted, other)),
        };
        items.iter().map(text).collect()
    }

    /// A list of whole numbers, none when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] when it is something else or has more than `most`.
    pub fn wholes(&self, key: &str, most: usize) -> Result<Vec<u64>, SettingsError> {
        let wanted = format!("a list of at most {most} whole numbers from 0");
        let items = self.items(key, most, &wanted)?;
        let number = |item: &'d Spanned<DeValue<'t>>| {
            let read = match item.get_ref() {
                DeValue::Integer(digits) => {
                    u64::from_str_radix(digits.as_str(), digits.radix()).ok()
                }
                _ => None,
            };
            read.ok_or_else(|| self.wrong_item(key, item, &wanted, item.get_ref()))
        };
        items.iter().map(number).collect()
    }

    fn items(
        &self,
        key: &str,
        most: usize,
        wanted: &str,
    ) -> Result<&'d [Spanned<DeValue<'t>>], SettingsError> {
        match self.get(key) {
            None => Ok(&[]),
            Some((DeValue::Array(items), _)) if items.len() <= most => Ok(items),
            Some((DeValue::Array(items), _)) => {
                let what = format!("`{key}` has {} entries; write {wanted}", items.len());
                Err(self.error_at(key, what))
            }
            Some((other, _)) => Err(self.wrong(key, wanted, other)),
        }
    }

    fn wrong_item(
        &self,
        key: &str,
        item: &Spanned<DeValue<'_>>,
        wanted: &str,
        value: &DeValue<'_>,
    ) -> SettingsError {
        let what = format!("`{key}` has an entry that is {}; write {wanted}", described(value));
        SettingsError { line: line_of(self.text, item.span().start), what }
    }

    /// A table within this one; `None` when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] when it is something else.
    pub fn table(&self, key: &str) -> Result<Option<Self>, SettingsError> {
        match self.get(key) {
            None => Ok(None),
            Some((DeValue::Table(table), span)) => {
                Ok(Some(Self { text: self.text, at: span.start, table }))
            }
            Some((other, _)) => Err(self.wrong(key, &format!("a table, [{key}]"), other)),
        }
    }

    /// A list of tables, none when the key is not there.
    ///
    /// # Errors
    /// [`SettingsError`] when it is something else or has more than `most`.
    pub fn tables(&self, key: &str, most: usize) -> Result<Vec<Self>, SettingsError> {
        let wanted = format!("at most {most} tables, each [[{key}]]");
        let items = self.items(key, most, &wanted)?;
        let table = |item: &'d Spanned<DeValue<'t>>| match item.get_ref() {
            DeValue::Table(table) => Ok(Self { text: self.text, at: item.span().start, table }),
            other => Err(self.wrong_item(key, item, &wanted, other)),
        };
        items.iter().map(table).collect()
    }
}

/// A value as an error shows it.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(digits) => digits.as_str().to_owned(),
        DeValue::Float(digits) => digits.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, read: impl Fn(&Table<'_, '_>) -> Result<(), SettingsError>) -> String {
        match Document::parse(text) {
            Ok(document) => read(&document.root()).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_wrong_key_is_told_with_its_line_and_the_nearest_right_one() {
        let known = ["per_second", "burst", "action"];
        let text = "burst = 1\nper_secnd = 2\n";
        assert_eq!(
            error(text, |table| table.allow(&known)),
            "line 2: unknown key `per_secnd`; did you mean `per_second`?"
        );
        assert_eq!(
            error("xyzzy = 2\n", |table| table.allow(&known)),
            "line 1: unknown key `xyzzy`; there are `per_second`, `burst`, `action`"
        );
    }

    #[test]
    fn the_first_unknown_key_of_the_text_is_the_one_that_is_told() {
        assert!(error("z = 1\na = 2\n", |table| table.allow(&[])).starts_with("line 1"));
    }

    #[test]
    fn values_of_another_type_or_range_are_told_with_what_to_write() {
        let text = "a = 7\nb = \"x\"\nc = [1, \"y\"]\nd = -3\ne = nan\n[f]\n";
        for (key, wanted) in [
            ("a", "line 1: `a` is 7; write a whole number from 1 to 5"),
            ("b", "line 2: `b` is \"x\"; write a whole number from 1 to 5"),
            ("d", "line 4: `d` is -3; write a whole number from 1 to 5"),
            ("f", "line 6: `f` is a table; write a whole number from 1 to 5"),
        ] {
            assert_eq!(error(text, |table| table.whole(key, 1..=5).map(|_| ())), wanted);
        }
        assert_eq!(
            error(text, |table| table.number("e", 0.0..=1.0).map(|_| ())),
            "line 5: `e` is nan; write a number from 0 to 1"
        );
        assert_eq!(
            error(text, |table| table.texts("c", 2).map(|_| ())),
            "line 3: `c` has an entry that is 1; write a list of at most 2 texts"
        );
        assert_eq!(
            error(text, |table| table.texts("c", 1).map(|_| ())),
            "line 3: `c` has 2 entries; write a list of at most 1 texts"
        );
        assert_eq!(
            error(text, |table| table.tables("c", 2).map(|_| ())),
            "line 3: `c` has an entry that is 1; write at most 2 tables, each [[c]]"
        );
        assert_eq!(
            error(text, |table| table.require("g", None::<u8>).map(|_| ())),
            "line 1: key `g` is missing here; add it"
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let told = error("a = 1\nb = = 2\n", |_| Ok(()));
        assert!(told.starts_with("line 2: "), "{told}");
        let deep = format!("a = {}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(error(&deep, |_| Ok(())).starts_with("line 1: "));
        let long = "#".repeat(SETTINGS_BYTES_MAX + 1);
        assert!(error(&long, |_| Ok(())).contains("longer than 262144 bytes"));
    }
}
