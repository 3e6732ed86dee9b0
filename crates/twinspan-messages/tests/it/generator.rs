//! The generated code that is checked in is what the generator makes.

use std::fs;
use std::path::Path;

use twinspan_messages_build::{GenerateError, Generator};

#[test]
fn the_checked_in_code_is_what_the_generator_makes() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = here.join("tests/schemas/town.fbs");
    let code = Generator::new("::twinspan_messages").schema(schema).generate().unwrap();
    let path = here.join("tests/it/generated.rs");
    if std::env::var_os("TWINSPAN_REGENERATE").is_some() {
        fs::write(&path, &code).unwrap();
    }
    let checked_in = fs::read_to_string(path).unwrap();
    assert!(code == checked_in, "run the test with TWINSPAN_REGENERATE=1 and commit");
}

#[test]
fn a_schema_that_is_not_there_is_named() {
    let error = Generator::new("x").schema("no/such.fbs").generate().unwrap_err();
    assert!(matches!(error, GenerateError::Schema { .. }));
    assert!(error.to_string().contains("no/such.fbs"), "{error}");
}
