//! The generated code that is checked in is what the generator makes.

use std::fs;
use std::path::Path;

use twinspan_messages_build::{GenerateError, Generator};

#[test]
fn the_checked_in_code_is_what_the_generator_makes() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let trade = "../twinspan/examples/trade";
    for (runtime, schema, code) in [
        ("::twinspan_messages", "tests/schemas/town.fbs", "tests/it/generated.rs"),
        ("::twinspan::messages", &format!("{trade}/market.fbs"), &format!("{trade}/messages.rs")),
    ] {
        let generator = Generator::new(runtime).schema(here.join(schema));
        let path = here.join(code);
        if std::env::var_os("TWINSPAN_REGENERATE").is_some() {
            generator.write(&path).unwrap();
        }
        let checked_in = fs::read_to_string(path).unwrap();
        let made = generator.generate().unwrap();
        assert!(made == checked_in, "{schema}: run with TWINSPAN_REGENERATE=1 and commit");
    }
}

#[test]
fn a_schema_that_is_not_there_is_named() {
    let error = Generator::new("x").schema("no/such.fbs").generate().unwrap_err();
    assert!(matches!(error, GenerateError::Schema { .. }));
    assert!(error.to_string().contains("no/such.fbs"), "{error}");
}
