//! Fuzz bodies: what holds for any bytes.

use twinspan_core::fuzz::{Body, digest};

use crate::schema::{Element, EnumAt, Field, Inline, Kind, Schema, Table, Variant};
use crate::{Limits, verify};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[("messages-verify", fuzz_verify)];

const fn field(name: &'static str, slot: u16, kind: Kind) -> Field {
    Field { name, slot, kind, required: false }
}

const MOOD: &[EnumAt] = &[EnumAt { offset: 0, size: 1, values: &[0, 1, 9] }];
const SPOT: Inline = Inline { size: 8, enums: &[], floats: &[(0, false), (4, false)] };
const NUMBER: Inline = Inline { size: 8, enums: &[], floats: &[(0, true)] };

/// Two tables that hold each other, with every kind of field.
static TABLES: [Table; 2] = [
    Table {
        name: "a",
        fields: &[
            Field { name: "text", slot: 0, kind: Kind::String, required: true },
            field("mood", 1, Kind::Inline(Inline { size: 1, enums: MOOD, floats: &[] })),
            field("spots", 2, Kind::Vector(Element::Inline(SPOT))),
            field("more", 3, Kind::Vector(Element::Table(1))),
        ],
    },
    Table {
        name: "b",
        fields: &[
            field("number", 0, Kind::Inline(NUMBER)),
            field("tags", 1, Kind::Vector(Element::String)),
            field("content", 2, Kind::Union(&[Variant::Table(0), Variant::String])),
            field("next", 4, Kind::Table(1)),
        ],
    },
];

/// The schemas whose roots are the two tables.
pub static SCHEMAS: [Schema; 2] = [
    Schema { name: "a", tables: &TABLES, root: 0 },
    Schema { name: "b", tables: &TABLES, root: 1 },
];

/// Any bytes are a message of each schema or name a reason; looser limits refuse no more.
pub fn fuzz_verify(data: &[u8]) -> u64 {
    let loose = Limits::default();
    let tight = Limits {
        bytes_max: 256,
        depth_max: 2,
        tables_max: 3,
        unfolded_bytes_max: 64,
        finite_floats: true,
    };
    digest(&SCHEMAS.each_ref().map(|schema| {
        let (within, at_all) = (verify(schema, &tight, data), verify(schema, &loose, data));
        assert!(within.is_err() || at_all.is_ok(), "looser limits refuse more");
        (within, at_all)
    }))
}
