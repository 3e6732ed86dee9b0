//! Two machines on one cable, each known by its link-local address alone: two network namespaces with a
//! veth pair between, and a process in each.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use twinspan_hub::{Bytes, Hub, HubBuilder, Transport};

use crate::{LONG, met, there_and_back};

/// Says which end of the cable a process has.
const END: &str = "TWINSPAN_TEST_CABLE";
const TEST: &str = "cable::hubs_on_one_cable_meet_by_its_addresses_on_every_road";
const PORTS: [(&str, u16); 4] = [("udp", 9_001), ("tcp", 9_002), ("quic", 9_003), ("hub", 9_004)];

fn ip(words: &str) {
    let ended = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(ended.status.success(), "ip {words}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// This test in a network of its own.
fn end_of_cable(end: &str) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--net").arg(std::env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture"]).env(END, end);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The cable's end has an address that nobody else has, at once.
fn take(device: &str, address: &str) {
    ip("link set lo up");
    ip(&format!("link set {device} up"));
    ip(&format!("addr add {address}/64 dev {device} nodad"));
}

fn hub(host: &str, scheme: &str, port: u16) -> HubBuilder<u64> {
    Hub::builder(format!("{scheme}://{host}:{port}/cable"))
}

/// Hubs at the first end, which nobody told that they listen. They go when the other process says so.
fn first() {
    let mut lines = std::io::stdin().lines();
    lines.next().unwrap().unwrap();
    take("c1", "fe80::1");
    let build = |(scheme, port)| hub("[fe80::1%c1]", scheme, port).build().unwrap();
    let hubs: Vec<Hub<u64>> = PORTS.into_iter().map(build).collect();
    let loose = Hub::<Bytes>::builder("quic://[fe80::1%c1]:9005/long").build().unwrap();
    println!("\nthey listen");
    std::thread::scope(|scope| {
        for hub in &hubs {
            scope.spawn(|| {
                for _ in 0..50 {
                    hub.publish(&(hub.recv().unwrap() + 1)).unwrap();
                }
            });
        }
        scope.spawn(|| loose.publish(&loose.recv().unwrap()).unwrap());
    });
    lines.next().unwrap().unwrap();
}

/// Hubs at the second end, which go there.
fn second() {
    ip("link add c0 type veth peer name c1");
    take("c0", "fe80::2");
    let mut other = end_of_cable("first").spawn().unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    let mut tell = other.stdin.take().unwrap();
    // It has its network when it runs the test.
    assert!(lines.any(|line| line.unwrap().starts_with("running ")));
    ip(&format!("link set c1 netns {}", other.id()));
    writeln!(tell, "here it is").unwrap();
    assert!(lines.any(|line| line.unwrap() == "they listen"));
    for (scheme, port) in PORTS {
        let there = hub("[fe80::1%c0]", scheme, port).build().unwrap();
        let text = there.transport().to_string();
        assert!(text.contains("it connects: the host is another machine"), "{text}");
        met(&there, 1);
        for number in 0..50 {
            there.publish(&number).unwrap();
            assert_eq!(there.recv_timeout(LONG).unwrap(), Some(number + 1), "{scheme}");
        }
    }
    let long = Hub::<Bytes>::builder("quic://[fe80::1%c0]:9005/long").build().unwrap();
    met(&long, 1);
    long.publish(&Bytes(vec![7; 60_000])).unwrap();
    assert_eq!(long.recv_timeout(LONG).unwrap(), Some(Bytes(vec![7; 60_000])));
    writeln!(tell, "it is over").unwrap();
    assert!(other.wait().unwrap().success());
    println!("they met");
}

#[test]
fn hubs_on_one_cable_meet_by_its_addresses_on_every_road() {
    match std::env::var(END).as_deref() {
        Ok("first") => return first(),
        Ok(_) => return second(),
        Err(_) => {}
    }
    let probe = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output();
    if !probe.is_ok_and(|ended| ended.status.success()) {
        let reason = "no network can be had here: run as root, with util-linux and iproute2";
        assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
        println!("skipped: {reason}");
        return;
    }
    let ended = end_of_cable("second").stdin(Stdio::null()).output().unwrap();
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(ended.status.success() && told.contains("they met"), "{told}");
}

#[test]
fn hub_behind_a_cable_s_address_takes_quic_where_that_is_asked_for() {
    let Some(host) = crate::roads::link_local() else {
        println!("skipped: no interface here has a link-local address");
        return;
    };
    let port = crate::free().port();
    let here = hub(&host, "hub", port).listen().build().unwrap();
    let there = hub(&host, "hub", port).connect().transport(Transport::Quic).build().unwrap();
    met(&here, 1);
    met(&there, 1);
    assert_eq!(there.road(), Transport::Quic);
    there_and_back(&here, there);
}
