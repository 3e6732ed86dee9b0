//! Marks for the simulator are no code at all unless the simulator is there.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The machine code of a function of `tests/hooks/hooks.rs`, an instruction to a line.
fn code_of(assembly: &str, function: &str) -> Vec<String> {
    let mut lines = assembly.lines().map(str::trim);
    let found = lines.find(|line| line.contains(function) && line.ends_with(':'));
    assert!(found.is_some(), "{function} is there");
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with(['.', '#']);
    let body = lines.take_while(|line| !line.starts_with(".size") && *line != ".cfi_endproc");
    // The number by which the two functions differ; places are called by the function's number.
    let plain = |line: &str| line.replace("1111", "2222").replace(".LBB1_", ".LBB0_");
    body.filter(is_code).map(plain).collect()
}

fn assembly(name: &str, features: &[&str]) -> std::io::Result<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hooks/hooks.rs");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-type", "lib", "-C", "opt-level=3"]);
    command.args(["-C", "debuginfo=0", "--emit", "asm", "-o"]).arg(&out).arg(source);
    for feature in features {
        command.arg("--cfg").arg(format!("feature=\"{feature}\""));
    }
    let done = command.output()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::read_to_string(out)
}

#[test]
fn marks_are_no_instruction_without_the_simulator() {
    let assembly = assembly("plain.s", &[]).unwrap();
    let with = code_of(&assembly, "function_with_marks");
    assert!(with.len() > 5, "{with:?}");
    assert_eq!(with, code_of(&assembly, "function_without_marks"));
}

#[test]
fn marks_are_instructions_with_it() {
    let assembly = assembly("chaos.s", &["chaos"]).unwrap();
    let with = code_of(&assembly, "function_with_marks");
    assert_ne!(with, code_of(&assembly, "function_without_marks"));
}
