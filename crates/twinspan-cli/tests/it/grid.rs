//! `twinspan grid` as a user runs it, and Hippolyzer's client on it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::command::{Running, run};
use crate::viewer::lines;

/// Starts a grid; returns it and its first line.
pub(crate) fn start(args: &[&str]) -> (Running, Value) {
    let args = [&["grid", "--listen", "127.0.0.1:0", "--json"], args].concat();
    let mut grid = Running::start(&args);
    let line = grid.line(|line| line.contains("\"ready\""));
    (grid, serde_json::from_str(&line).unwrap())
}

#[test]
fn it_says_where_to_log_in_and_ends_by_itself_with_a_summary() {
    let user = "Ruth Tester:sesame";
    let (grid, ready) = start(&["--user", user, "--regions", "One@7,8", "Two@8,8", "--for", "1"]);
    assert!(ready["login_uri"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{ready}");
    assert_eq!(ready["regions"][1]["name"], "Two");
    assert_eq!((&ready["users"], &ready["regions"][0]["x"]), (&1.into(), &7.into()));
    let ended = grid.end();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let told = lines(&ended.stdout);
    assert_eq!(told.last().unwrap()["event"], "summary");
    assert_eq!(told.last().unwrap()["logins"], 0);
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    for (args, words) in [
        (&["grid"][..], &["--user", "--config"][..]),
        (&["grid", "--user", "Ruth"], &["--user number 1", "Ruth Tester:sesame"]),
        (&["grid", "--user", "A:x", "--regions", "One"], &["Alpha@1000,1000"]),
        (&["grid", "--user", "A:x", "--listen", "[::1]:0"], &["IPv4"]),
        (&["grid", "--user", "A:x", "--user", "a:y"], &["two accounts"]),
        (&["grid", "--config", "/nowhere/grid.toml"], &["/nowhere/grid.toml"]),
    ] {
        run(args).assert_refusal(words);
    }
}

#[test]
fn its_manual_is_its_file() {
    // The example of the documentation, with other ports.
    let text = include_str!("../../../../docs/grid.toml").replace(":9000", ":0");
    let path = std::env::temp_dir().join(format!("twinspan-{}-grid.toml", std::process::id()));
    std::fs::write(&path, text.replace("port = 9001", "port = 0")).unwrap();
    let (grid, ready) = start(&["--config", path.to_str().unwrap()]);
    let _ = std::fs::remove_file(&path);
    assert_eq!(ready["regions"][0]["name"], "Harbour");
    assert_eq!(ready["users"], 3);
    grid.signal(Signal::TERM);
    assert_eq!(grid.end().code(), Some(0));
}

#[test]
fn a_wrong_password_is_refused_over_http_and_counted() {
    let (grid, ready) = start(&["--user", "Ruth Tester:sesame"]);
    let uri = ready["login_uri"].as_str().unwrap();
    let host = uri.trim_start_matches("http://").trim_end_matches('/');
    let member = |name: &str, value: &str| {
        format!("<member><name>{name}</name><value><string>{value}</string></value></member>")
    };
    let members = [
        member("first", "Ruth"),
        member("last", "Tester"),
        member("passwd", "$1$5f4dcc3b5aa765d61d8327deb882cf99"),
    ];
    let body = format!(
        "<?xml version=\"1.0\"?><methodCall><methodName>login_to_simulator</methodName><params>\
         <param><value><struct>{}</struct></value></param></params></methodCall>",
        members.concat()
    );
    let addr: SocketAddr = host.parse().unwrap();
    let mut stream = TcpStream::connect(addr).unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains(">key<"), "{reply}");
    grid.signal(Signal::INT);
    let ended = grid.end();
    let summary = lines(&ended.stdout).pop().unwrap();
    assert_eq!((&summary["logins_refused"], &summary["wrong_passwords"]), (&1.into(), &1.into()));
}

/// Where a peer is: at the place that a variable names, or in the target folder. Without it the
/// caller's test is over, unless `TWINSPAN_REQUIRE_PEERS` is 1: then the test fails.
fn peer(variable: &str, place: &str, what: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let peer = std::env::var_os(variable).map_or(target.join("peers").join(place), PathBuf::from);
    if peer.exists() {
        return Some(peer);
    }
    let reason =
        format!("skipped: this test needs {what} in target/peers, as .ci/run puts it there");
    assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
    println!("{reason}");
    None
}

/// What a peer that was run tells.
fn told_by(command: &mut Command) -> Value {
    let peer = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    // What comes before the last line is what its library prints.
    let text = String::from_utf8(peer.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap()
}

/// How often somebody arrived in a region.
fn arrivals(told: &[Value], region: &str) -> usize {
    let arrived = |event: &&Value| event["event"] == "arrived" && event["region"] == region;
    told.iter().filter(arrived).count()
}

#[test]
fn hippolyzer_logs_in_talks_walks_and_travels() {
    let python = peer("TWINSPAN_HIPPOLYZER", "hippolyzer/bin/python", "hippolyzer 0.15.6");
    let Some(python) = python else { return };
    let (grid, ready) =
        start(&["--user", "Ruth Tester:sesame", "--user", "Max Tester:sesame", "--for", "300"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/grid_peer.py");
    let done = told_by(Command::new(python).arg(script).arg(ready["login_uri"].as_str().unwrap()));
    assert_eq!(done["error"], Value::Null, "{done}");
    assert_eq!(done["regions"], serde_json::json!(["Alpha", "Alpha"]), "{done}");
    assert_eq!(done["heard"], serde_json::json!(["a secret", "good day"]), "{done}");
    assert_eq!((&done["walked"], &done["arrived"]), (&true.into(), &"Gamma".into()), "{done}");
    assert_eq!((&done["part"][0], &done["part"][1]), (&206.into(), &100.into()), "{done}");
    assert!(done["texture"][1].as_u64().unwrap() > 3_000, "{done}");
    assert_eq!(done["folders"], 15, "{done}");
    assert_eq!(done["caps"].as_array().unwrap().len(), 9, "{done}");
    grid.signal(Signal::TERM);
    let ended = grid.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let told = lines(&ended.stdout);
    assert_eq!((arrivals(&told, "Alpha"), arrivals(&told, "Gamma")), (2, 1), "{told:?}");
    let summary = told.last().unwrap();
    assert_eq!((&summary["logins"], &summary["dropped"]), (&2.into(), &0.into()), "{summary}");
}

#[test]
fn node_metaverse_logs_in_talks_walks_and_travels() {
    let modules = peer(
        "TWINSPAN_NODE_METAVERSE",
        "node-metaverse/node_modules",
        "@caspertech/node-metaverse 0.8.16",
    );
    let Some(modules) = modules else { return };
    let (grid, ready) =
        start(&["--user", "Ruth Tester:sesame", "--user", "Max Tester:sesame", "--for", "300"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/grid_peer.cjs");
    let uri = ready["login_uri"].as_str().unwrap();
    let done = told_by(Command::new("node").arg(script).arg(uri).env("NODE_PATH", modules));
    assert_eq!(done["error"], Value::Null, "{done}");
    assert_eq!(done["regions"], serde_json::json!(["Alpha", "Alpha"]), "{done}");
    assert_eq!(done["heard"], serde_json::json!(["a secret", "good day"]), "{done}");
    assert_eq!((&done["walked"], &done["arrived"]), (&true.into(), &"Gamma".into()), "{done}");
    assert!(done["texture"].as_u64().unwrap() > 3_000, "{done}");
    assert_eq!((&done["folders"], &done["left"]), (&16.into(), &true.into()), "{done}");
    grid.signal(Signal::TERM);
    let ended = grid.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let told = lines(&ended.stdout);
    assert_eq!((arrivals(&told, "Alpha"), arrivals(&told, "Gamma")), (2, 1), "{told:?}");
    let summary = told.last().unwrap();
    assert_eq!((&summary["logins"], &summary["dropped"]), (&2.into(), &0.into()), "{summary}");
}
