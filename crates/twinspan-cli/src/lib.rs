//! What the `twinspan` command is made of, as a library so that tests can use its parts.
#![forbid(unsafe_code)]

pub mod args;
pub mod bench;
pub mod bots;
pub mod decode;
pub mod demo;
pub mod error;
pub mod grid;
pub mod http;
#[cfg(target_os = "linux")]
pub mod hub;
pub mod keys;
mod output;
pub mod plan;
pub mod proxy;
pub mod relay;
pub mod serve;
pub mod settings_file;
mod signals;
pub mod sim;
pub mod viewer;
