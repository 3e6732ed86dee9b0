//! The table descriptions that messages are verified by, and the `impl Message` of each table.

use std::collections::BTreeMap;
use std::fmt::Write;

use planus_types::ast::{FloatType, IntegerType};
use planus_types::intermediate::{
    AbsolutePath, AssignMode, DeclarationIndex, DeclarationKind, Declarations, SimpleType,
    TableField, TypeKind,
};

use crate::GenerateError;

/// Writes both for every table.
pub(crate) fn describe(
    declarations: &Declarations,
    runtime: &str,
) -> Result<String, GenerateError> {
    let mut indices = BTreeMap::new();
    for (index, _, declaration) in declarations.iter_declarations() {
        if matches!(declaration.kind, DeclarationKind::Table(_)) {
            indices.insert(index, indices.len());
        }
    }
    let describer = Describer { declarations, indices, runtime };
    let (mut tables, mut impls) = (String::new(), String::new());
    for (index, path, declaration) in declarations.iter_declarations() {
        if let DeclarationKind::Table(table) = &declaration.kind {
            let mut fields = String::new();
            for (name, field) in &table.fields {
                if !field.deprecated {
                    fields.push_str(&describer.field(path, name, field)?);
                }
            }
            let line = format!(
                "        schema::Table {{ name: \"{path}\", fields: &[\n{fields}        ] }},\n"
            );
            tables.push_str(&line);
            impls.push_str(&describer.message(index, path));
        }
    }
    let count = describer.indices.len();
    Ok(format!(
        "\n/// What messages are verified by.\nmod described {{\n    use {runtime}::schema;\n\n    \
         pub(super) static TABLES: [schema::Table; {count}] = [\n{tables}    ];\n}}\n{impls}"
    ))
}

struct Describer<'a> {
    declarations: &'a Declarations,
    /// Each table's place in the list of tables.
    indices: BTreeMap<DeclarationIndex, usize>,
    runtime: &'a str,
}

impl Describer<'_> {
    fn table(&self, index: DeclarationIndex) -> usize {
        self.indices.get(&index).copied().unwrap_or(usize::MAX)
    }

    fn message(&self, index: DeclarationIndex, path: &AbsolutePath) -> String {
        let runtime = self.runtime;
        let rust = rust_path(path);
        let root = self.table(index);
        format!(
            "\nimpl {runtime}::Message for {rust} {{\n    \
             type Ref<'a> = {rust}Ref<'a>;\n\n    \
             const SCHEMA: &'static {runtime}::schema::Schema = &{runtime}::schema::Schema {{\n        \
             name: \"{path}\",\n        tables: &described::TABLES,\n        root: {root},\n    }};\n\n    \
             fn read(bytes: &[u8]) -> Option<Self::Ref<'_>> {{\n        \
             {runtime}::planus::ReadAsRoot::read_as_root(bytes).ok()\n    }}\n\n    \
             fn write<'b>(&self, builder: &'b mut {runtime}::planus::Builder) -> &'b [u8] {{\n        \
             builder.finish(self, None)\n    }}\n}}\n"
        )
    }

    fn field(
        &self,
        path: &AbsolutePath,
        name: &str,
        field: &TableField,
    ) -> Result<String, GenerateError> {
        let unsupported = |what| GenerateError::Unsupported {
            table: path.to_string(),
            field: name.to_owned(),
            what,
        };
        let kind = match &field.type_.kind {
            TypeKind::SimpleType(simple) => format!("Inline({})", self.inline(*simple)),
            TypeKind::String => "String".to_owned(),
            TypeKind::Table(index) => format!("Table({})", self.table(*index)),
            TypeKind::Union(index) => format!("Union(&[{}])", self.variants(*index, &unsupported)?),
            TypeKind::Vector(of) => match &of.kind {
                TypeKind::SimpleType(simple) => {
                    format!("Vector(schema::Element::Inline({}))", self.inline(*simple))
                }
                TypeKind::String => "Vector(schema::Element::String)".to_owned(),
                TypeKind::Table(index) => {
                    format!("Vector(schema::Element::Table({}))", self.table(*index))
                }
                TypeKind::Union(_) => return Err(unsupported("vectors of unions")),
                TypeKind::Vector(_) | TypeKind::Array(..) => {
                    return Err(unsupported("vectors of vectors"));
                }
            },
            TypeKind::Array(..) => return Err(unsupported("arrays")),
        };
        let slot = field.vtable_index;
        let required = matches!(field.assign_mode, AssignMode::Required);
        Ok(format!(
            "            schema::Field {{ name: \"{name}\", slot: {slot}, \
             kind: schema::Kind::{kind}, required: {required} }},\n"
        ))
    }

    fn variants(
        &self,
        index: DeclarationIndex,
        unsupported: &dyn Fn(&'static str) -> GenerateError,
    ) -> Result<String, GenerateError> {
        let (_, declaration) = self.declarations.get_declaration(index);
        let DeclarationKind::Union(union) = &declaration.kind else {
            return Err(unsupported("unions that are none"));
        };
        let mut variants = String::new();
        for variant in union.variants.values() {
            let kind = match &variant.type_.kind {
                TypeKind::Table(index) => format!("Table({})", self.table(*index)),
                TypeKind::String => "String".to_owned(),
                _ => return Err(unsupported("unions of structs")),
            };
            // Writing to a string cannot fail.
            let _ = write!(variants, "schema::Variant::{kind}, ");
        }
        Ok(variants)
    }

    /// A value of fixed size, with the enums and the floating-point numbers in it.
    fn inline(&self, simple: SimpleType) -> String {
        let (mut enums, mut floats) = (String::new(), String::new());
        let size = self.parts(simple, 0, &mut enums, &mut floats);
        format!("schema::Inline {{ size: {size}, enums: &[{enums}], floats: &[{floats}] }}")
    }

    fn parts(
        &self,
        simple: SimpleType,
        offset: u32,
        enums: &mut String,
        floats: &mut String,
    ) -> u32 {
        match simple {
            SimpleType::Bool => 1,
            SimpleType::Integer(integer) => integer_size(integer),
            SimpleType::Float(float) => {
                let is_double = matches!(float, FloatType::F64);
                // Writing to a string cannot fail.
                let _ = write!(floats, "({offset}, {is_double}), ");
                if is_double { 8 } else { 4 }
            }
            SimpleType::Enum(index) => {
                let (_, declaration) = self.declarations.get_declaration(index);
                let DeclarationKind::Enum(of) = &declaration.kind else { return 0 };
                let size = integer_size(of.type_);
                let mask = u64::MAX >> (64 - 8 * size);
                let mut values: Vec<u64> =
                    of.variants.keys().map(|value| value.to_u64() & mask).collect();
                values.sort_unstable();
                let _ = write!(
                    enums,
                    "schema::EnumAt {{ offset: {offset}, size: {size}, values: &{values:?} }}, "
                );
                size
            }
            SimpleType::Struct(index) => {
                let (_, declaration) = self.declarations.get_declaration(index);
                let DeclarationKind::Struct(of) = &declaration.kind else { return 0 };
                for field in of.fields.values() {
                    self.parts(field.type_, offset + field.offset, enums, floats);
                }
                of.size
            }
        }
    }
}

const fn integer_size(integer: IntegerType) -> u32 {
    match integer {
        IntegerType::U8 | IntegerType::I8 => 1,
        IntegerType::U16 | IntegerType::I16 => 2,
        IntegerType::U32 | IntegerType::I32 => 4,
        IntegerType::U64 | IntegerType::I64 => 8,
    }
}

/// The path of a type in the generated code: namespaces become modules in lower case.
fn rust_path(path: &AbsolutePath) -> String {
    let mut parts = path.0.clone();
    let last = parts.pop().unwrap_or_default();
    let mut out: String = parts.iter().map(|part| format!("{}::", snake(part))).collect();
    out.push_str(&last);
    out
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}
