//! Planted names in machines, and what must pass.

use super::*;

/// What is found in `text` as a file of the session crate.
fn found(text: &str) -> Vec<String> {
    let tree = Tree::of(&[("crates/twinspan-session/src/a.rs", text)]);
    check(&tree).iter().map(ToString::to_string).collect()
}

/// Each of `texts` must be caught exactly once, on its last line.
fn each_caught(texts: &[&str]) {
    for text in texts {
        let lines = found(text);
        assert_eq!(lines.len(), 1, "{text}: {lines:?}");
        let place = format!("crates/twinspan-session/src/a.rs:{}:", text.lines().count());
        assert!(lines[0].starts_with(&place), "{text}: {lines:?}");
    }
}

fn none_caught(texts: &[&str]) {
    for text in texts {
        assert_eq!(found(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn clocks_are_caught() {
    each_caught(&[
        "\nuse std::time::Instant;",
        "use std::time::{Duration, SystemTime};",
        "use std::{fmt, time};",
        "fn f() { let a = std::time::Instant::now(); }",
        "fn f() { let a = time::SystemTime::now(); }",
        "use std::time::*;",
    ]);
    none_caught(&["use std::time::Duration;", "fn f() { std::time::Duration::from_secs(1); }"]);
}

#[test]
fn threads_and_sockets_are_caught() {
    each_caught(&[
        "use std::thread;",
        "fn f() { std::thread::spawn(g); }",
        "use std::net::{IpAddr, UdpSocket};",
        "fn f() { std::net::TcpStream::connect(a); }",
        "use std::net::*;",
        "use std::net;",
        "use std::{net::{self}};",
    ]);
    none_caught(&["use std::net::{IpAddr, SocketAddr};", "use twinspan_provider::UdpSocket;"]);
}

#[test]
fn runtimes_files_and_foreign_randomness_are_caught() {
    each_caught(&[
        "use tokio::time::sleep;",
        "async fn f() { tokio::task::yield_now().await; }",
        "use rand::Rng;",
        "fn f() { rand::random::<u8>(); }",
        "use std::fs;",
        "fn f() { std::env::var(a); }",
        "use std::hash::RandomState;",
        "fn f(out: &mut [u8]) { getrandom::fill(out); }",
        "use ahash::AHashMap;",
        "use hashbrown::HashSet as Set;",
        "fn f() { core::arch::x86_64::_rdtsc(); }",
        "use futures_util::select;",
    ]);
    none_caught(&["fn f(rand: u8) { g(rand); }", "use crate::rand_like::a;"]);
}

#[test]
fn platform_float_functions_are_caught() {
    each_caught(&[
        "fn f(a: f64) { a.sin(); }",
        "fn f(a: f64) { a\n.sin_cos(); }",
        "fn f(a: f32) { f32::powf(a, 2.0); }",
        "fn f(a: f32) { std::primitive::f32::atan2(a, 2.0); }",
    ]);
    none_caught(&[
        "fn f(a: f64) { libm::sin(a); a.sqrt(); a.pow(2); }",
        "struct S { sin: u8 } fn f(s: S) { s.sin; }",
    ]);
}

#[test]
fn unordered_maps_without_a_reason_are_caught() {
    each_caught(&[
        "struct S { a: HashMap<u8, u8> }",
        "// iterated\nstruct S { a: std::collections::HashSet<u8> }",
        "use std::collections::HashMap as Map;",
        "use std::collections::*;",
        "let a = HashMap::new();",
    ]);
    none_caught(&[
        "use std::collections::HashMap;",
        "struct S {\n // not iterated: looked up by id alone\n a: HashMap<u8, u8> }",
        "struct S { a: HashMap<u8, u8>, // not iterated: looked up by id alone\n }",
        "// not iterated: looked up by id alone\ntype A = HashMap<u8, u8>;\n\nS { a: HashMap::new() }",
    ]);
}

#[test]
fn a_map_that_is_iterated_is_caught_whatever_the_comment_says() {
    let reason = "// not iterated: so it says\n";
    each_caught(&[
        &format!("{reason}fn f(a: &mut HashMap<u8, u8>) {{\n a.keys(); }}"),
        &format!("{reason}fn f(a: HashSet<u8>) {{\n for b in &a {{}} }}"),
        &format!("{reason}struct S {{ a: std::collections::HashMap<u8, u8> }}\nself.a.retain(f);"),
        &format!("{reason}let mut a = HashMap::new();\nfor b in &mut self.a {{}}"),
    ]);
    none_caught(&[&format!("{reason}fn f(a: HashMap<u8, u8>) {{ a.get(1); b.iter(); }}")]);
}

#[test]
fn comments_strings_and_tests_may_say_anything() {
    none_caught(&[
        "// std::time::Instant\nfn f() { g(\"tokio::spawn\"); }",
        "/// [`std::time::Instant`] stays in drivers.\nfn f() {}",
        "#[cfg(test)]\nmod tests { use std::time::Instant; fn f(a: f64) { a.sin(); } }",
    ]);
    let tree = Tree::of(&[
        ("crates/twinspan-core/src/lib.rs", "#[cfg(test)] mod tests;"),
        ("crates/twinspan-core/src/tests.rs", "use std::time::Instant;"),
        ("crates/twinspan-core/tests/it/main.rs", "use std::time::Instant;"),
    ]);
    assert_eq!(check(&tree), []);
}

#[test]
fn only_machine_crates_are_read() {
    let text = "use std::time::Instant;";
    let tree = Tree::of(&[
        ("crates/twinspan-net/src/a.rs", text),
        ("crates/twinspan-provider/src/tokio.rs", text),
        ("crates/twinspan-cli/src/main.rs", text),
    ]);
    assert_eq!(check(&tree), []);
    for name in MACHINES {
        let path = format!("crates/{name}/src/deep/a.rs");
        assert_eq!(check(&Tree::of(&[(&path, text)])).len(), 1, "{name}");
    }
}

#[test]
fn drivers_are_not_read_and_stale_entries_are_caught() {
    let tree = Tree::of(&[("crates/twinspan-game/src/real/a.rs", "use std::time::Instant;")]);
    assert_eq!(check(&tree), []);
    assert_eq!(stale(&tree, &["crates/twinspan-game/src/real/"]), []);
    let lines = stale(&tree, &["crates/twinspan-game/src/gone.rs"]);
    assert!(lines[0].what.contains("lists `crates/twinspan-game/src/gone.rs`"), "{lines:?}");
}
