//! What a schema says of a message's bytes, as tables that generated code fills in.
//!
//! The types here are what `twinspan-messages-build` writes; nobody needs to write them by hand.

/// A table that may be the root of a message, with all tables of its schema.
#[derive(Debug)]
pub struct Schema {
    /// The root's full name.
    pub name: &'static str,
    /// All tables of the schema's files.
    pub tables: &'static [Table],
    /// Which of them is the root.
    pub root: usize,
}

/// One table.
#[derive(Debug)]
pub struct Table {
    /// Its full name.
    pub name: &'static str,
    /// Its fields, deprecated ones left out.
    pub fields: &'static [Field],
}

/// One field of a table.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its place in the vtable; a union's tag stands here and its value one place on.
    pub slot: u16,
    /// What it holds.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
}

/// What a field holds.
#[derive(Debug)]
pub enum Kind {
    /// A number, a truth value, an enum or a struct, in the table itself.
    Inline(Inline),
    /// UTF-8 text elsewhere.
    String,
    /// The table with this index, elsewhere.
    Table(usize),
    /// A vector elsewhere.
    Vector(Element),
    /// One of these tables or strings, by tags from 1.
    Union(&'static [Variant]),
}

/// What a vector holds.
#[derive(Debug)]
pub enum Element {
    /// Values one behind the other.
    Inline(Inline),
    /// Offsets to strings.
    String,
    /// Offsets to tables with this index.
    Table(usize),
}

/// What a union's tag may stand for.
#[derive(Debug)]
pub enum Variant {
    /// Text.
    String,
    /// The table with this index.
    Table(usize),
}

/// A value of fixed size.
#[derive(Debug)]
pub struct Inline {
    /// Its size in bytes.
    pub size: u16,
    /// The enums in it.
    pub enums: &'static [EnumAt],
    /// The floating-point numbers in it: where, and whether they have eight bytes (else four).
    pub floats: &'static [(u16, bool)],
}

/// An enum within a value.
#[derive(Debug)]
pub struct EnumAt {
    /// Where in the value.
    pub offset: u16,
    /// Its size, 1, 2, 4 or 8 bytes.
    pub size: u16,
    /// The values it may have, as the bits of its size, ascending.
    pub values: &'static [u64],
}
