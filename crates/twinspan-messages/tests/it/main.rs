//! Typed messages as their users meet them.

#[cfg(test)]
mod codec;
#[cfg(test)]
#[rustfmt::skip]
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::redundant_closure_for_method_calls,
    clippy::undocumented_unsafe_blocks
)]
mod generated;
#[cfg(test)]
mod generator;
#[cfg(test)]
mod registry;
