//! The `twinspan` command.
fn main() {}
