//! Fuzz bodies of the rules file: what holds for any text.

use twinspan_core::fuzz::{Body, digest};

use crate::Rules;

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[("admission-rules", fuzz_rules)];

/// Any text is a rules file, or an error names a line that it has.
pub fn fuzz_rules(data: &[u8]) -> u64 {
    let Ok(text) = core::str::from_utf8(data) else { return 0 };
    let rules = Rules::parse(text);
    if let Err(error) = &rules {
        let lines = text.split('\n').count();
        assert!((1..=lines).contains(&error.line), "line {} of {lines}: {error}", error.line);
    }
    digest(&rules)
}
