//! The hub's commands as a user runs them, at a size that any machine bears.

use std::process::{Command, Output};

use serde_json::Value;

fn twinspan(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twinspan")).args(args).output().unwrap()
}

fn object(args: &[&str]) -> Value {
    let output = twinspan(args);
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {text}{told}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{told}"))
}

#[test]
fn killed_processes_harm_nobody() {
    let report = object(&["bench", "hub", "--kill", "60", "--seed", "7", "--json"]);
    for key in ["torn", "hangs", "leaked_segments"] {
        assert_eq!(report[key], 0, "{report}");
    }
    assert!(report["kills"].as_u64().unwrap() >= 60, "{report}");
    assert!(report["checked"].as_u64().unwrap() > 1_000, "{report}");
}

#[test]
fn the_ruler_tells_all_that_it_promises() {
    for args in [
        &["--size", "48"][..],
        &["--size", "65536", "--loan", "--touch", "first"],
        &["--mode", "throughput", "--size", "64", "--batch", "16"],
        &["--mode", "throughput", "--size", "65536", "--loan"],
        &["--wait", "async", "--gap-us", "10"],
        &["--wait", "block", "--guard"],
        &["--wait", "adaptive", "--gap-us", "50"],
        &["--transport", "udp", "--size", "64"],
        &["--transport", "udp", "--wait", "block", "--guard"],
        &["--transport", "udp", "--wait", "async", "--reliable"],
        &["--transport", "udp", "--mode", "throughput", "--reliable", "--loss", "1"],
        &["--transport", "udp", "--mode", "throughput", "--reliable", "--size", "65536"],
    ] {
        let mut all = vec!["bench", "hub", "--time-ms", "300", "--json"];
        all.extend(args);
        let summary = object(&all);
        for key in [
            "transport",
            "wait",
            "size_bytes",
            "touched",
            "messages_per_second",
            "gbit_per_second",
            "lost",
            "cpu_publisher",
            "cpu_subscriber",
            "allocations_in_steady_state",
            "copies_per_message",
            "foreign_cpu",
            "floor_messages_per_second",
            "ratio_to_floor",
        ] {
            assert!(!summary[key].is_null(), "{key} is missing: {summary}");
        }
        assert_eq!(summary["lost"], 0, "{summary}");
        if summary["mode"] == "latency" {
            assert!(summary["one_way_p50_ns"].as_u64().unwrap() > 0, "{summary}");
            assert!(summary["floor_one_way_p50_ns"].as_u64().unwrap() > 0, "{summary}");
        }
    }
}

#[test]
fn the_road_to_an_endpoint_is_explained() {
    let told = object(&["hub", "explain", "shm://sensor/nobody-is-here", "--json"]);
    assert_eq!(told["transport"], "shared memory");
    assert_eq!(told["is_taken"], false);
    let told = object(&["hub", "explain", "udp://192.0.2.1:9000/a", "--json"]);
    assert_eq!(told["transport"], "batched UDP");
    let notes = told["notes"].as_array().unwrap();
    let has = |part: &str| notes.iter().any(|note| note.as_str().unwrap().contains(part));
    assert!(has("it connects: the host is another machine"), "{told}");
    assert!(has("nobody is there, or nothing gets through"), "{told}");
    assert_eq!(told["is_taken"], false);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}/a", listener.local_addr().unwrap());
    let told = object(&["hub", "explain", &endpoint, "--json"]);
    assert_eq!((&told["is_taken"], &told["measured"][0]["lost"]), (&true.into(), &0.into()));
    assert!(told["measured"][0]["rtt_median_us"].as_f64().unwrap() > 0.0, "{told}");
    let text = String::from_utf8(twinspan(&["hub", "explain", &endpoint]).stdout).unwrap();
    assert!(
        text.contains("somebody listens there") && text.contains("0 of 3 probes lost"),
        "{text}"
    );
    let output = twinspan(&["hub", "explain", "ftp://x"]);
    assert_eq!(output.status.code(), Some(2));
}
