//! `twinspan relay` between bots and a server that has no other way in.

use std::net::UdpSocket;

use rustix::process::Signal;

use crate::command::{Running, run};
use crate::serve::{Folder, number};

/// An address that is free now; another process may take it, which then shows as an error.
fn free() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

struct Site {
    folder: Folder,
    server: Running,
    /// Where the server takes relays.
    port: String,
    trunk: String,
}

impl Site {
    fn new() -> Self {
        let folder = Folder::new();
        assert_eq!(run(&["keys", "new", &folder.file("keys.toml")]).code(), Some(0));
        assert_eq!(run(&["keys", "trunk", &folder.file("trunk.toml")]).code(), Some(0));
        let trunk = free();
        let config = folder.write(
            "serve.toml",
            &format!(
                "listen = \"127.0.0.1:0\"\nkeys = \"keys.toml\"\n[session]\nplayers_max = 20\n\
                 [relay]\nlisten = \"127.0.0.1:0\"\nrelays = [\"{trunk}\"]\nkey = \"trunk.toml\"\n\
                 only = true\n"
            ),
        );
        let mut server = Running::start(&["serve", "--config", &config]);
        let ready = server.line(|line| line.starts_with("serving "));
        let (_, port) = ready.trim().split_once(", relays at ").unwrap();
        let port = port.to_owned();
        Self { folder, server, port, trunk }
    }

    fn relay(&self, listen: &str, more: &[&str]) -> Running {
        let key = self.folder.file("trunk.toml");
        let mut args = vec!["relay", "--listen", listen, "--trunk", &self.trunk];
        args.extend(["--server", &self.port, "--key-file", &key]);
        args.extend(more);
        Running::start(&args)
    }
}

#[test]
fn bots_play_through_a_relay_that_is_replaced_under_them() {
    let site = Site::new();
    let mut relay = site.relay("127.0.0.1:0", &[]);
    let ready = relay.line(|line| line.starts_with("relaying for clients at "));
    assert!(ready.contains(", datagrams of clients by ") && ready.contains(" ("), "{ready}");
    let address = ready.split(' ').nth(4).unwrap().to_owned();
    let keys = site.folder.file("keys.toml");
    let mut bots = Running::start(&["bots", "--keys", &keys, "--server", &address, "--bots", "8"]);
    bots.line(|line| line.contains("8 of 8 bots in the world"));
    relay.signal(Signal::HUP);
    relay.line(|line| line.contains("the trunk key in use stays"));
    relay.signal(Signal::TERM);
    let ended = relay.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let told = ended.stdout.lines().last().unwrap();
    assert!(number(told, " datagrams to the server") > 0, "{told}");
    assert!(!told.contains("dropped"), "{told}");

    let relay = site.relay(&address, &["--json"]);
    // They go on with the relay that knows nothing of them: the drain reaches all.
    site.server.signal(Signal::TERM);
    let ended = bots.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let server = site.server.end();
    assert_eq!(server.code(), Some(0), "{server:?}");
    let line = server.stdout.lines().last().unwrap();
    assert_eq!(number(line, " players came"), 8, "{line}");
    assert_eq!(number(line, "not acknowledged"), 0, "{line}");
    relay.signal(Signal::TERM);
    let ended = relay.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["hellos"], 0, "{report}");
    assert!(report["to_clients"].as_u64() > Some(0), "{report}");
    assert_eq!(report["drops"]["bad_tag"], 0, "{report}");
}

#[test]
fn a_relay_and_a_server_with_a_new_key_take_the_one_before_too() {
    let folder = Folder::new();
    for name in ["keys.toml", "old.toml", "new.toml"] {
        let kind = if name == "keys.toml" { "new" } else { "trunk" };
        assert_eq!(run(&["keys", kind, &folder.file(name)]).code(), Some(0));
    }
    let (listen, trunk) = (free(), free());
    let config = folder.write(
        "serve.toml",
        &format!(
            "listen = \"127.0.0.1:0\"\nkeys = \"keys.toml\"\n[relay]\nlisten = \"127.0.0.1:0\"\n\
             relays = [\"{trunk}\"]\nkey = \"new.toml\"\nprevious_key = \"old.toml\"\n"
        ),
    );
    let mut server = Running::start(&["serve", "--config", &config]);
    let ready = server.line(|line| line.starts_with("serving "));
    let port = ready.trim().split_once(", relays at ").unwrap().1.to_owned();
    let [old, new] = ["old.toml", "new.toml"].map(|name| folder.file(name));
    // The relay still sends with the old key, and hears the new one.
    let mut relay = Running::start(&[
        "relay",
        "--listen",
        &listen,
        "--trunk",
        &trunk,
        "--server",
        &port,
        "--key-file",
        &old,
        "--previous-key-file",
        &new,
    ]);
    relay.line(|line| line.starts_with("relaying for clients at "));
    let keys = folder.file("keys.toml");
    let mut bots = Running::start(&["bots", "--keys", &keys, "--server", &listen, "--bots", "2"]);
    bots.line(|line| line.contains("2 of 2 bots in the world"));
    server.signal(Signal::TERM);
    assert_eq!(bots.end().code(), Some(0));
    assert_eq!(server.end().code(), Some(0));
    relay.signal(Signal::TERM);
    assert_eq!(relay.end().code(), Some(0));
}

#[test]
fn the_trunk_key_changes_under_players_without_a_gap() {
    let folder = Folder::new();
    for name in ["keys.toml", "first.toml", "second.toml"] {
        let kind = if name == "keys.toml" { "new" } else { "trunk" };
        assert_eq!(run(&["keys", kind, &folder.file(name)]).code(), Some(0));
    }
    let put = |from: &str, to: &str| {
        // The mode goes with the bytes: only the owner reads it.
        std::fs::copy(folder.file(from), folder.file(to)).unwrap();
    };
    let (listen, trunk) = (free(), free());
    let names = ["server", "relay"];
    for name in names {
        put("first.toml", &format!("{name}.toml"));
        put("first.toml", &format!("{name}-before.toml"));
    }
    let config = folder.write(
        "serve.toml",
        &format!(
            "listen = \"127.0.0.1:0\"\nkeys = \"keys.toml\"\n[relay]\nlisten = \"127.0.0.1:0\"\n\
             relays = [\"{trunk}\"]\nkey = \"server.toml\"\nprevious_key = \"server-before.toml\"\n\
             only = true\n"
        ),
    );
    let mut server = Running::start(&["serve", "--config", &config]);
    let ready = server.line(|line| line.starts_with("serving "));
    let port = ready.trim().split_once(", relays at ").unwrap().1.to_owned();
    let [key, before] = ["relay.toml", "relay-before.toml"].map(|name| folder.file(name));
    let mut args = vec!["relay", "--listen", &listen, "--trunk", &trunk, "--server", &port];
    args.extend(["--key-file", &key, "--previous-key-file", &before]);
    let mut relay = Running::start(&args);
    relay.line(|line| line.starts_with("relaying for clients at "));
    let keys = folder.file("keys.toml");
    let mut bots = Running::start(&["bots", "--keys", &keys, "--server", &listen, "--bots", "4"]);
    bots.line(|line| line.contains("4 of 4 bots in the world"));
    // First both ends take the new key beside the old one, then both send with it.
    for (file, other) in [("-before", ""), ("", "-before")] {
        for (name, process) in [("server", &mut server), ("relay", &mut relay)] {
            put("second.toml", &format!("{name}{file}.toml"));
            put("first.toml", &format!("{name}{other}.toml"));
            process.signal(Signal::HUP);
            process.line(|line| line.starts_with("the trunk key of ") && line.contains("in use"));
        }
    }
    // What cannot be read changes nothing.
    std::fs::write(folder.file("server.toml"), "layout = 2\n").unwrap();
    server.signal(Signal::HUP);
    server.error_line(|line| line.contains("the trunk key in use stays"));
    bots.signal(Signal::INT);
    assert_eq!(bots.end().code(), Some(0));
    relay.signal(Signal::TERM);
    let ended = relay.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let told = ended.stdout.lines().last().unwrap();
    assert!(!told.contains("dropped"), "{told}");
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn what_a_relay_lacks_is_told_in_one_line() {
    let folder = Folder::new();
    let missing = folder.file("none.toml");
    let base = ["relay", "--listen", "127.0.0.1:0", "--trunk", "127.0.0.1:0", "--server"];
    let ended = run(&[&base[..], &["127.0.0.1:1", "--key-file", &missing]].concat());
    assert_eq!(ended.code(), Some(2));
    assert!(ended.stderr.contains("make one with `twinspan keys trunk"), "{ended:?}");
    let key = folder.file("trunk.toml");
    assert_eq!(run(&["keys", "trunk", &key]).code(), Some(0));
    let ended = run(&[&base[..], &["0.0.0.0:0", "--key-file", &key]].concat());
    assert_eq!(ended.code(), Some(2));
    assert!(ended.stderr.contains("0.0.0.0:0 is no address of one host and port"), "{ended:?}");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["relay", "--listen", &address, "--trunk", "127.0.0.1:0", "--server", "127.0.0.1:1"];
    let ended = run(&[&args[..], &["--key-file", &key]].concat());
    assert_eq!(ended.code(), Some(2));
    let wanted = format!("for clients: address {address} is taken");
    assert!(ended.stderr.contains(&wanted), "{ended:?}");
    for ended in [run(&[&base[..], &["nowhere"]].concat()), run(&["relay"])] {
        assert_eq!((ended.code(), ended.stderr.lines().count()), (Some(2), 1), "{ended:?}");
    }
}

#[test]
fn a_measurement_prints_its_ratio_as_json() {
    let ended = run(&[
        "bench",
        "relay",
        "--rounds",
        "1",
        "--window",
        "50",
        "--rate",
        "100000",
        "--no-realtime",
        "--json",
    ]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    for (part, key) in [
        ("/relay_ratio_to_bare_forwarder", "the ratio"),
        ("/relay_ratio_to_bare_forwarder_with_runs", "the other ratio"),
        ("/relay/cpu_ns_per_datagram", "the relay's cost"),
        ("/bare_forwarder/datagrams_per_second", "the bare forwarder's rate"),
    ] {
        assert!(report.pointer(part).and_then(serde_json::Value::as_f64) > Some(0.0), "{key}");
    }
    assert_eq!(ended.stderr.lines().count(), 3, "one line a turn: {ended:?}");
}
