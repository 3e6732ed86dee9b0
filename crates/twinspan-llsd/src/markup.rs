//! XML as LLSD and XML-RPC use it: elements, texts, and nothing that grows.
//!
//! Declarations of document types are refused, and so are references to entities other than the
//! five that XML has and characters by their numbers: nothing stands for more than itself.

use std::borrow::Cow;

use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::error::{ParseError, Reason, quoted};

/// The beginning of an element.
#[derive(Clone, Debug)]
pub struct Tag<'a>(BytesStart<'a>);

impl Tag<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.0.name().into_inner()
    }

    /// The value of an attribute; `None` when there is none of this name, or the tag is broken.
    pub fn attribute(&self, name: &str) -> Option<String> {
        // The check for doubles would keep a table.
        let mut attributes = self.0.attributes();
        let found = attributes.with_checks(false).find_map(|attribute| {
            attribute.ok().filter(|attribute| attribute.key.into_inner() == name)
        })?;
        let value = found.normalized_value(XmlVersion::Implicit1_0).ok()?;
        Some(value.into_owned())
    }
}

/// Reads a document element by element.
#[derive(Debug)]
pub struct Markup<'a> {
    reader: Reader<&'a [u8]>,
    /// Elements that are open.
    depth: usize,
    /// Bytes before the first that the reader has.
    skipped: usize,
}

impl<'a> Markup<'a> {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Reason::Utf8`] when it is not UTF-8, whatever encoding it declares.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let text = core::str::from_utf8(bytes)
            .map_err(|error| ParseError { offset: error.valid_up_to(), reason: Reason::Utf8 })?;
        let body = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let mut reader = Reader::from_str(body);
        reader.config_mut().expand_empty_elements = true;
        Ok(Self { reader, depth: 0, skipped: text.len() - body.len() })
    }

    /// The next byte to read, counted from 0.
    pub fn offset(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX) + self.skipped
    }

    /// An error at the present place.
    pub fn error(&self, reason: Reason) -> ParseError {
        ParseError { offset: self.offset(), reason }
    }

    /// An element that may not stand here.
    pub fn unexpected(&self, tag: &Tag<'_>, wanted: &'static str) -> ParseError {
        self.error(Reason::Unexpected { found: quoted(tag.name()), wanted })
    }

    /// A text that is not what it should be.
    pub fn not_text(&self, text: &str, wanted: &'static str) -> ParseError {
        self.error(Reason::Text { text: quoted(text), wanted })
    }

    fn event(&mut self) -> Result<Event<'a>, ParseError> {
        let event = match self.reader.read_event() {
            Ok(event) => event,
            Err(error) => {
                return Err(self.error(Reason::Markup { what: error.to_string() }));
            }
        };
        match &event {
            Event::Start(_) => self.depth += 1,
            Event::End(_) => self.depth = self.depth.saturating_sub(1),
            Event::DocType(_) => return Err(self.error(Reason::DocType)),
            Event::Eof if self.depth > 0 => {
                return Err(self.error(Reason::Short { within: "an element" }));
            }
            _ => {}
        }
        Ok(event)
    }

    /// The next element within the present one, or `None` behind its end, or the document's.
    ///
    /// # Errors
    /// [`ParseError`] when the document is broken, or text stands before the element.
    pub fn child(&mut self) -> Result<Option<Tag<'a>>, ParseError> {
        loop {
            match self.event()? {
                Event::Start(start) => return Ok(Some(Tag(start))),
                Event::End(_) | Event::Eof => return Ok(None),
                Event::Text(text) if is_space(&text) => {}
                Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => {
                    let found = "text".into();
                    return Err(self.error(Reason::Unexpected { found, wanted: "an element" }));
                }
                _ => {}
            }
        }
    }

    /// The text of the present element, which ends with it.
    ///
    /// # Errors
    /// [`ParseError`] when the document is broken, or an element stands in the text.
    pub fn text(&mut self) -> Result<Cow<'a, str>, ParseError> {
        match self.content()? {
            Content::Text(text) => Ok(text),
            Content::Element(tag) => Err(self.unexpected(&tag, "text")),
        }
    }

    /// The first element within the present one, or its text when it has none. What stands before
    /// the element must be white space.
    ///
    /// # Errors
    /// [`ParseError`] when the document is broken, or text stands before an element.
    pub fn content(&mut self) -> Result<Content<'a>, ParseError> {
        let mut whole: Option<Cow<'a, str>> = None;
        loop {
            let piece = match self.event()? {
                Event::Start(start) => {
                    let tag = Tag(start);
                    if whole.is_some_and(|text| !is_space(&text)) {
                        return Err(self.unexpected(&tag, "text"));
                    }
                    return Ok(Content::Element(tag));
                }
                Event::End(_) | Event::Eof => {
                    return Ok(Content::Text(whole.unwrap_or_default()));
                }
                Event::Text(text) => lines(text.into_inner()),
                Event::CData(text) => lines(text.into_inner()),
                Event::GeneralRef(reference) => {
                    let character = self.resolve(&reference)?;
                    Cow::Owned(character.into())
                }
                _ => continue,
            };
            match &mut whole {
                None => whole = Some(piece),
                Some(whole) => whole.to_mut().push_str(&piece),
            }
        }
    }

    /// Steps over the rest of the present element, children and all.
    ///
    /// # Errors
    /// [`ParseError`] when the document is broken.
    pub fn skip(&mut self) -> Result<(), ParseError> {
        let around = self.depth.saturating_sub(1);
        while self.depth > around {
            self.event()?;
        }
        Ok(())
    }

    /// What comes behind the root element must be nothing but comments and white space.
    ///
    /// # Errors
    /// [`Reason::Trailing`], and others when the rest is broken.
    pub fn finish(&mut self) -> Result<(), ParseError> {
        loop {
            match self.event()? {
                Event::Eof => return Ok(()),
                Event::Text(text) if is_space(text.trim_matches('\0')) => {}
                Event::Comment(_) | Event::PI(_) => {}
                _ => return Err(self.error(Reason::Trailing)),
            }
        }
    }

    fn resolve(&self, reference: &BytesRef<'_>) -> Result<char, ParseError> {
        if let Ok(Some(character)) = reference.resolve_char_ref() {
            return Ok(character);
        }
        let name: &str = reference;
        Ok(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            name => return Err(self.error(Reason::Entity { name: quoted(name) })),
        })
    }
}

/// What an element has in it.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// Another element, which is open now.
    Element(Tag<'a>),
    /// Text; the element is over.
    Text(Cow<'a, str>),
}

fn is_space(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_whitespace())
}

/// Ends of lines are one character, as XML wants it.
fn lines(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n").into() } else { text }
}

/// Writes a text so that XML reads it as it is.
///
/// # Errors
/// The first character that XML cannot hold: zero, and most others below the space.
pub fn escape(text: &str, out: &mut Vec<u8>) -> Result<(), char> {
    for character in text.chars() {
        match character {
            '&' => out.extend_from_slice(b"&amp;"),
            '<' => out.extend_from_slice(b"&lt;"),
            '>' => out.extend_from_slice(b"&gt;"),
            // A reader would make a line feed of it.
            '\r' => out.extend_from_slice(b"&#13;"),
            '\t' | '\n' => out.push(character as u8),
            '\0'..='\x1F' | '\u{FFFE}' | '\u{FFFF}' => return Err(character),
            character => {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(text: &str) -> Reason {
        let mut markup = Markup::new(text.as_bytes()).unwrap();
        loop {
            match markup.child() {
                Ok(Some(_)) => {
                    if let Err(error) = markup.text() {
                        return error.reason;
                    }
                }
                Ok(None) => panic!("{text} is no error"),
                Err(error) => return error.reason,
            }
        }
    }

    #[test]
    fn texts_come_with_their_references_resolved() {
        let text = "<?xml version='1.0'?><!-- a --><a> x&amp;y<![CDATA[<&>]]>&#x41;&#10;\r\nz</a>";
        let mut markup = Markup::new(text.as_bytes()).unwrap();
        assert_eq!(markup.child().unwrap().unwrap().name(), "a");
        assert_eq!(markup.text().unwrap(), " x&y<&>A\n\nz");
        markup.finish().unwrap();
    }

    #[test]
    fn a_plain_text_is_borrowed() {
        let mut markup = Markup::new(b"\xEF\xBB\xBF<a b='1' c='&lt;'>x</a>").unwrap();
        let tag = markup.child().unwrap().unwrap();
        assert_eq!(tag.attribute("c").as_deref(), Some("<"));
        assert_eq!(tag.attribute("d"), None);
        assert!(matches!(markup.text().unwrap(), Cow::Borrowed("x")));
        assert_eq!(markup.offset(), 26);
    }

    #[test]
    fn what_could_grow_or_is_broken_is_refused() {
        assert_eq!(reason("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"), Reason::DocType);
        assert_eq!(reason("<a>&b;</a>"), Reason::Entity { name: "b".into() });
        assert_eq!(reason("<a>x"), Reason::Short { within: "an element" });
        assert!(matches!(reason("<a></b>"), Reason::Markup { .. }));
        assert!(matches!(reason("<a>&#xFFFFFFFF;</a>"), Reason::Entity { .. }));
        assert!(matches!(reason("<a>1<b/></a>"), Reason::Unexpected { .. }));
        assert!(matches!(Markup::new(b"<a>\xFF</a>"), Err(ParseError { offset: 3, .. })));
    }

    #[test]
    fn characters_that_xml_lacks_are_not_written() {
        let mut out = Vec::new();
        assert_eq!(escape("a\0", &mut out), Err('\0'));
        assert_eq!(escape("\u{FFFE}", &mut out), Err('\u{FFFE}'));
    }

    proptest! {
        #[test]
        fn escaped_text_is_read_as_it_was(text in "[\\t\\n\\r -\u{D7FF}\u{10000}-\u{10FFFF}]{0,20}") {
            let mut document = b"<a>".to_vec();
            escape(&text, &mut document).unwrap();
            document.extend_from_slice(b"</a>");
            let mut markup = Markup::new(&document).unwrap();
            markup.child().unwrap().unwrap();
            prop_assert_eq!(markup.text().unwrap(), text);
        }
    }
}
