//! Just enough JSON to read what `cargo metadata` prints.

/// Deeper nesting is refused: cargo's own goes to about ten.
const DEPTH_MAX: usize = 64;

/// A JSON value; numbers stay text, because no rule counts with them.
#[derive(Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Value {
    /// The member `name` of a map; `Null` where there is none.
    pub(crate) fn get(&self, name: &str) -> &Self {
        let Self::Map(members) = self else { return &Self::Null };
        members.iter().find(|(key, _)| key == name).map_or(&Self::Null, |(_, value)| value)
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The elements of a list; none of anything else.
    pub(crate) fn list(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { &[] }
    }
}

/// Reads one value that fills all of `text`.
///
/// # Errors
/// One line that names the byte and what was wrong there.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.at == text.len() { Ok(value) } else { Err(reader.error("more than one value")) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn error(&self, what: &str) -> String {
        format!("byte {} of the JSON: {what}", self.at)
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Takes `text` if it comes next.
    fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested too deeply"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => Ok(self.number()),
            _ if self.take("null") => Ok(Value::Null),
            _ if self.take("true") => Ok(Value::Bool(true)),
            _ if self.take("false") => Ok(Value::Bool(false)),
            _ => Err(self.error("no value begins here")),
        }
    }

    fn number(&mut self) -> Value {
        let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let len = self.rest().bytes().take_while(is_part).count();
        let number = self.rest().get(..len).unwrap_or_default().to_owned();
        self.at += len;
        Value::Number(number)
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut list = Vec::new();
        self.space();
        if self.take("]") {
            return Ok(Value::List(list));
        }
        loop {
            list.push(self.value(depth + 1)?);
            self.space();
            if self.take("]") {
                return Ok(Value::List(list));
            }
            if !self.take(",") {
                return Err(self.error("expected , or ]"));
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut map = Vec::new();
        self.space();
        if self.take("}") {
            return Ok(Value::Map(map));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            if !self.take(":") {
                return Err(self.error("expected :"));
            }
            map.push((key, self.value(depth + 1)?));
            self.space();
            if self.take("}") {
                return Ok(Value::Map(map));
            }
            if !self.take(",") {
                return Err(self.error("expected , or }"));
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        if !self.take("\"") {
            return Err(self.error("expected a string"));
        }
        let mut out = String::new();
        loop {
            let plain = self.rest().find(['"', '\\']).unwrap_or(self.rest().len());
            out.push_str(self.rest().get(..plain).unwrap_or_default());
            self.at += plain;
            if self.take("\"") {
                return Ok(out);
            }
            if !self.take("\\") {
                return Err(self.error("a string has no end"));
            }
            out.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let Some(kind) = self.rest().chars().next() else {
            return Err(self.error("a string has no end"));
        };
        self.at += kind.len_utf8();
        match kind {
            'n' => Ok('\n'),
            't' => Ok('\t'),
            'r' => Ok('\r'),
            'b' => Ok('\u{8}'),
            'f' => Ok('\u{c}'),
            '"' | '\\' | '/' => Ok(kind),
            'u' => {
                let hex = self.rest().get(..4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                let Some(unit) = hex else { return Err(self.error("expected four hex digits")) };
                self.at += 4;
                // Half of a pair stands for a rare sign in a description, which no rule reads.
                Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
            }
            _ => Err(self.error("unknown escape")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_kinds_are_read() {
        let value =
            parse(r#" {"a": [1, -2.5e3, null, true, false], "b": {"c": "d\n\"\u00e9"}} "#).unwrap();
        assert_eq!(value.get("a").list().len(), 5);
        assert_eq!(value.get("a").list()[1], Value::Number("-2.5e3".to_owned()));
        assert_eq!(value.get("b").get("c").text(), Some("d\n\"é"));
        assert_eq!(value.get("b").get("none"), &Value::Null);
        assert_eq!(parse("[]").unwrap(), Value::List(vec![]));
        assert_eq!(parse("{}").unwrap(), Value::Map(vec![]));
    }

    #[test]
    fn broken_text_is_refused_with_its_place() {
        for text in ["", "{", "[1", "[1 2]", "{\"a\" 1}", "\"a", "\"\\x\"", "1 2", "{1: 2}"] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("byte "), "{text}: {error}");
        }
        assert!(parse(&"[".repeat(100_000)).unwrap_err().contains("nested too deeply"));
    }
}
