//! The description of the messages, read.

use std::collections::{BTreeMap, BTreeSet};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Description {
    pub(super) shared: BTreeMap<String, Block>,
    /// In the order of their numbers as they travel.
    pub(super) messages: Vec<Message>,
}

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) frequency: String,
    /// As it is written.
    pub(super) number: String,
    /// As it travels.
    pub(super) wire: u32,
    pub(super) name: String,
    pub(super) flags: Vec<String>,
    pub(super) blocks: Vec<Block>,
}

/// One block; without fields it is a shared one.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) name: String,
    /// Nothing, `?`, `*`, or `x` and a number.
    pub(super) quantity: String,
    pub(super) fields: Vec<(String, Kind)>,
}

impl Block {
    /// Whether there is something in it to borrow.
    pub(super) fn borrows(&self) -> bool {
        self.fields.iter().any(|(_, kind)| kind.borrowed() != kind.rust())
    }
}

/// The type of a field.
#[derive(Clone, Debug)]
pub(super) struct Kind(String);

/// Name, Rust, bytes in memory.
const KINDS: &[(&str, &str, usize)] = &[
    ("u8", "u8", 1),
    ("s8", "i8", 1),
    ("bool", "bool", 1),
    ("u16", "u16", 2),
    ("s16", "i16", 2),
    ("u32", "u32", 4),
    ("s32", "i32", 4),
    ("u64", "u64", 8),
    ("f32", "f32", 4),
    ("f64", "f64", 8),
    ("uuid", "Uuid", 16),
    ("v3", "Vector3", 12),
    ("v3d", "Vector3d", 24),
    ("v4", "Vector4", 16),
    ("quat", "Quaternion", 12),
    ("ip", "Ipv4Addr", 4),
    ("port", "Port", 2),
    ("var1", "Var1", 24),
    ("var2", "Var2", 24),
];

impl Kind {
    fn new(name: &str) -> Option<Self> {
        let fixed = name.strip_prefix("fix").and_then(|bytes| bytes.parse::<u8>().ok());
        let known = KINDS.iter().any(|(known, ..)| *known == name);
        (known || fixed.is_some_and(|bytes| bytes > 0)).then(|| Self(name.to_owned()))
    }

    pub(super) fn rust(&self) -> String {
        match self.0.strip_prefix("fix") {
            Some(bytes) => format!("[u8; {bytes}]"),
            None => self.entry().map_or_else(String::new, |(_, rust, _)| rust.to_owned()),
        }
    }

    pub(super) fn borrowed(&self) -> String {
        if self.0.starts_with("var") { format!("{}Ref<'a>", self.rust()) } else { self.rust() }
    }

    pub(super) fn bytes(&self) -> usize {
        let fixed = self.0.strip_prefix("fix").and_then(|bytes| bytes.parse().ok());
        fixed.or_else(|| self.entry().map(|(_, _, bytes)| bytes)).unwrap_or_default()
    }

    fn entry(&self) -> Option<(&'static str, &'static str, usize)> {
        KINDS.iter().find(|(name, ..)| *name == self.0).copied()
    }
}

const FLAGS: &[&str] =
    &["trusted", "zero", "deprecated", "udp-deprecated", "udp-refused", "borrowed"];

/// Reads a description; an error has its line.
pub(super) fn parse(text: &str) -> Result<Description, (usize, String)> {
    let mut description = Description::default();
    for (number, line) in joined(text) {
        let refuse = |what: String| (number, what);
        if let Some(block) = line.strip_prefix("shared ") {
            let block = block_of(block).map_err(refuse)?;
            description.shared.insert(block.name.clone(), block);
        } else if line.starts_with("  ") {
            let block = block_of(line.trim()).map_err(refuse)?;
            if block.fields.is_empty() && !description.shared.contains_key(&block.name) {
                return Err(refuse(format!("no shared block `{}`", block.name)));
            }
            let Some(message) = description.messages.last_mut() else {
                return Err(refuse("a block before the first message".to_owned()));
            };
            if message.blocks.iter().any(|other| other.name == block.name) {
                return Err(refuse(format!("a second block `{}`", block.name)));
            }
            message.blocks.push(block);
        } else {
            let message = message_of(&line).map_err(refuse)?;
            let last = description.messages.last();
            if last.is_some_and(|last| last.wire >= message.wire) {
                return Err(refuse(format!("`{}` is not in the order of numbers", message.name)));
            }
            description.messages.push(message);
        }
    }
    let mut names = BTreeSet::new();
    match description.messages.iter().find(|message| !names.insert(&message.name)) {
        Some(twice) => Err((1, format!("two messages `{}`", twice.name))),
        None => Ok(description),
    }
}

/// The lines without comments and with what goes on on the next one, each with its number.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, last)) if line.starts_with("      ") => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push((at + 1, line.trim_end().to_owned())),
        }
    }
    lines
}

fn message_of(line: &str) -> Result<Message, String> {
    let mut words = line.split(' ');
    let (Some(frequency), Some(number), Some(name)) = (words.next(), words.next(), words.next())
    else {
        return Err("a message is a frequency, a number and a name".to_owned());
    };
    let value = match number.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => number.parse(),
    };
    let value = value.map_err(|_| format!("`{number}` is no number"))?;
    let wire = match (frequency, value) {
        ("high", 1..=254) => value,
        ("medium", 1..=254) => 0xFF00 | value,
        ("low", 1..=0xFFF9) => 0xFFFF_0000 | value,
        ("fixed", 0xFFFF_FFFA..) => value,
        _ => return Err(format!("no frequency `{frequency}` has a number {number}")),
    };
    let flags: Vec<String> = words.map(str::to_owned).collect();
    if let Some(unknown) = flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
        return Err(format!("unknown word `{unknown}`"));
    }
    let (frequency, number, name) = (frequency.to_owned(), number.to_owned(), name.to_owned());
    Ok(Message { frequency, number, wire, name, flags, blocks: Vec::new() })
}

fn block_of(text: &str) -> Result<Block, String> {
    let (head, fields) =
        text.split_once(':').map_or((text, None), |(head, rest)| (head, Some(rest)));
    let mut words = head.split(' ');
    let name = words.next().filter(|name| !name.is_empty()).ok_or("a block without a name")?;
    let quantity = words.next().unwrap_or_default();
    let times = quantity.strip_prefix('x').is_some_and(|times| times.parse::<u8>().is_ok());
    if words.next().is_some() || !(matches!(quantity, "" | "?" | "*") || times) {
        return Err(format!("`{head}` is no name with `*`, `?`, `xN` or nothing behind it"));
    }
    let mut read = Vec::new();
    for field in fields.into_iter().flat_map(|fields| fields.split(',')) {
        let Some((name, kind)) = field.trim().split_once(' ') else {
            return Err(format!("`{}` is no name and type", field.trim()));
        };
        let kind = Kind::new(kind).ok_or_else(|| format!("unknown type `{kind}`"))?;
        if read.iter().any(|(other, _)| other == name) {
            return Err(format!("a second field `{name}`"));
        }
        read.push((name.to_owned(), kind));
    }
    Ok(Block { name: name.to_owned(), quantity: quantity.to_owned(), fields: read })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, what) in [
            ("high 255 A", 1, "no frequency `high` has a number 255"),
            ("high x A", 1, "`x` is no number"),
            ("high 1", 1, "a message is"),
            ("high 1 A slow", 1, "unknown word `slow`"),
            ("# x\n\n  B: C u8", 3, "a block before"),
            ("high 1 A\n  B: C u9", 2, "unknown type `u9`"),
            ("high 1 A\n  B: C fix0", 2, "unknown type `fix0`"),
            ("high 1 A\n  B: C", 2, "`C` is no name and type"),
            ("high 1 A\n  B: C u8,\n      C u8", 2, "a second field `C`"),
            ("high 1 A\n  B +: C u8", 2, "`B +` is no name"),
            ("high 1 A\n  B", 2, "no shared block `B`"),
            ("high 1 A\n  B: C u8\n  B: C u8", 3, "a second block `B`"),
            ("high 2 A\nhigh 1 B", 2, "not in the order"),
            ("high 1 A\nhigh 2 A", 1, "two messages `A`"),
        ] {
            let (at, found) = parse(text).unwrap_err();
            assert!(at == line && found.contains(what), "{text}: {at}: {found}");
        }
    }
}
