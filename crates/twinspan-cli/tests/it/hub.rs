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

/// A run of the ruler, with all that it tells at every road.
fn run(args: &[&str]) -> Value {
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
        "wake_cost_us",
        "foreign_cpu",
        "floor_messages_per_second",
        "ratio_to_floor",
    ] {
        assert!(!summary[key].is_null(), "{key} is missing: {summary}");
    }
    if summary["mode"] == "latency" {
        for key in ["one_way_p50_ns", "one_way_p99_ns", "one_way_p999_ns", "floor_one_way_p50_ns"] {
            assert!(summary[key].as_u64().unwrap() > 0, "{key}: {summary}");
        }
    } else {
        assert!(summary["messages_per_second"].as_f64().unwrap() > 0.0, "{summary}");
        assert!(summary["floor_messages_per_second"].as_f64().unwrap() > 0.0, "{summary}");
    }
    let has_datagrams = summary["transport"] != "shm" && summary["transport"] != "tcp";
    assert_eq!(summary["datagram_bytes"].is_u64(), has_datagrams, "{summary}");
    summary
}

#[test]
fn the_ruler_tells_all_that_it_promises_of_shared_memory() {
    for args in [
        &["--size", "48"][..],
        &["--size", "65536", "--loan", "--touch", "first"],
        // Both ways are written and read whole: an answer that was not is an error.
        &["--size", "65536", "--loan"],
        &["--mode", "throughput", "--size", "64", "--batch", "16"],
        &["--mode", "throughput", "--size", "65536", "--loan"],
        &["--mode", "throughput", "--size", "65536", "--loan", "--touch", "written"],
        &["--wait", "async", "--gap-us", "10"],
        &["--wait", "block", "--guard"],
        &["--wait", "adaptive", "--gap-us", "50"],
    ] {
        let summary = run(args);
        assert_eq!(summary["lost"], 0, "{summary}");
        // Tasks get bytes of their own with each message; nobody else's memory grows.
        if summary["wait"] != "async" {
            assert_eq!(summary["allocations_in_steady_state"], 0, "{summary}");
        }
        assert!(summary["floor_parts_ns"].as_f64().unwrap() > 0.0, "{summary}");
        assert!(summary["floor_defective"].is_boolean(), "{summary}");
    }
}

#[test]
fn the_ruler_tells_all_that_it_promises_of_networks() {
    for args in [
        &["--transport", "udp", "--size", "64"][..],
        &["--transport", "udp", "--wait", "block", "--guard"],
        &["--transport", "udp", "--wait", "async", "--reliable"],
        &["--transport", "udp", "--mode", "throughput", "--reliable", "--loss", "1"],
        &["--transport", "udp", "--mode", "throughput", "--reliable", "--batch", "16"],
        &["--transport", "udp", "--mode", "throughput", "--reliable", "--size", "65536"],
        &["--transport", "udp", "--size", "64", "--seal", "aes"],
        &["--transport", "udp", "--mode", "throughput", "--reliable", "--seal", "chacha"],
        &["--transport", "tcp", "--size", "64"],
        &["--transport", "tcp", "--wait", "adaptive", "--size", "1024"],
        &["--transport", "tcp", "--mode", "throughput", "--wait", "block", "--batch", "16"],
        &["--transport", "quic", "--wait", "async", "--size", "64"],
        &["--transport", "quic", "--mode", "throughput", "--size", "16384"],
    ] {
        let summary = run(args);
        assert_eq!(summary["lost"], 0, "{summary}");
        // Whatever has a runtime of its own is more than its system calls.
        let is_judged = summary["transport"] != "quic" && summary["wait"] != "async";
        assert_eq!(summary["floor_defective"].is_boolean(), is_judged, "{summary}");
    }
}

#[test]
fn datagrams_to_many_addresses_are_counted_where_they_arrive() {
    let args =
        ["--transport", "udp", "--mode", "throughput", "--destinations", "8", "--size", "64"];
    let summary = run(&args);
    assert_eq!(summary["destinations"], 8, "{summary}");
    assert!(summary["floor_defective"].is_boolean(), "{summary}");
    // Best effort: what was lost is told, and what came is counted at all eight.
    assert!(summary["lost"].is_u64(), "{summary}");
}

#[test]
fn datagrams_of_quic_are_measured_beside_bare_ones() {
    let road = ["--transport", "quic", "--best-effort", "--size", "64"];
    for more in [&["--wait", "block"][..], &["--wait", "async"], &["--mode", "throughput"]] {
        let summary = run(&[&road[..], more].concat());
        assert_eq!(summary["reliable"], false, "{summary}");
        // What is lost is told; a ping-pong leaves nothing to be lost.
        assert!(summary["mode"] == "throughput" || summary["lost"] == 0, "{summary}");
    }
}

#[test]
fn a_completion_ring_is_measured_or_it_is_told_why_not() {
    let args = ["bench", "hub", "--transport", "uring", "--size", "64", "--time-ms", "100"];
    let output = twinspan(&args);
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && told.contains("io_uring") {
        println!("skipped: {told}");
        return;
    }
    let summary = run(&args[2..6]);
    assert_eq!((&summary["transport"], &summary["lost"]), (&"uring".into(), &0.into()));
}

#[test]
fn ends_in_two_namespaces_are_measured_or_it_is_told_why_not() {
    let args = ["bench", "hub", "--time-ms", "300", "--json", "--transport", "udp", "--netns"];
    let output = twinspan(&args);
    let told = String::from_utf8_lossy(&output.stderr);
    if told.contains("cannot have two network namespaces") {
        assert_ne!(
            std::env::var_os("TWINSPAN_REQUIRE_PEERS").as_deref(),
            Some("1".as_ref()),
            "{told}"
        );
        assert_eq!(output.status.code(), Some(1), "{told}");
        println!("skipped: {told}");
        return;
    }
    let summary = object(&args);
    assert_eq!((&summary["netns"], &summary["lost"]), (&true.into(), &0.into()), "{summary}");
    assert!(summary["one_way_p50_ns"].as_u64().unwrap() > 0, "{summary}");
    assert!(summary["floor_one_way_p50_ns"].as_u64().unwrap() > 0, "{summary}");
}

#[test]
fn a_session_saves_a_round_trip() {
    let args = ["bench", "hub", "--transport", "quic", "--zero-rtt", "--json"];
    let output = twinspan(&args);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(summary["heard_early"], summary["rounds"], "{summary}");
    // The link delays each way by at least 10 ms: no answer can be earlier than that there and back.
    for key in ["first_answer_ms", "first_answer_zero_rtt_ms", "floor_first_answer_zero_rtt_ms"] {
        assert!(summary[key].as_f64().unwrap() >= 20.0, "{key}: {summary}");
    }
}

#[test]
fn a_subscriber_that_hears_nothing_sleeps() {
    for transport in ["shm", "udp", "tcp", "quic"] {
        let args = ["bench", "hub", "--idle", "--wait", "adaptive", "--time-ms", "1000", "--json"];
        let summary = object(&[&args[..], &["--transport", transport]].concat());
        assert_eq!((&summary["mode"], &summary["lost"]), (&"idle".into(), &0.into()), "{summary}");
        assert_eq!(summary["floor_one_way_p50_ns"], Value::Null, "{summary}");
        // A tenth of a percent is the aim; one that spins has a hundred.
        assert!(summary["cpu_subscriber"].as_f64().unwrap() < 0.1, "{summary}");
    }
}

/// Whether a run of the ruler with these is refused in such words.
fn is_refused(args: &[&str], words: &str) {
    let output = twinspan(&[&["bench", "hub"], args].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
    assert!(told.contains(words), "{args:?}: {told}");
}

#[test]
fn what_a_road_cannot_do_is_refused_by_name() {
    for unused in [
        &["--reliable"][..],
        &["--netns"],
        &["--destinations", "2"],
        &["--transport", "udp", "--destinations", "2"],
        &["--transport", "udp", "--loan"],
        &["--transport", "tcp", "--loss", "1"],
        &["--transport", "tcp", "--seal", "aes"],
        &["--transport", "quic", "--reliable"],
        &["--transport", "quic", "--best-effort", "--size", "1001"],
        &["--transport", "quic", "--best-effort", "--zero-rtt"],
        &["--transport", "udp", "--best-effort"],
        &["--transport", "tcp", "--best-effort"],
        &["--best-effort"],
        &["--transport", "tcp", "--zero-rtt"],
        &["--transport", "udp", "--touch", "written"],
        &["--mode", "throughput", "--touch", "first"],
        &["--mode", "throughput", "--gap-us", "1"],
        &["--batch", "2"],
        &["--seed", "1"],
    ] {
        is_refused(unused, "leave it out");
    }
}

#[test]
fn what_a_run_of_another_kind_does_not_heed_is_refused_even_where_it_is_the_default() {
    let settings: &[&[&str]] = &[
        &["--transport", "shm"],
        &["--size", "48"],
        &["--wait", "spin"],
        &["--guard"],
        &["--reliable"],
        &["--seal", "aes"],
        &["--netns"],
        &["--time-ms", "4000"],
        &["--mode", "latency"],
        &["--gap-us", "0"],
        &["--batch", "1"],
        &["--loss", "0"],
        &["--loan"],
        &["--touch", "all"],
        &["--destinations", "1"],
    ];
    for setting in settings {
        is_refused(&[&["--kill", "1"], *setting].concat(), "cannot be used with");
    }
    for setting in settings.iter().skip(1) {
        let zero_rtt = ["--transport", "quic", "--zero-rtt"];
        is_refused(&[&zero_rtt, *setting].concat(), "cannot be used with");
    }
    // A subscriber that hears nothing has a road, a wait and a length of messages.
    for setting in settings.iter().skip(8) {
        is_refused(&[&["--idle"], *setting].concat(), "cannot be used with");
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
