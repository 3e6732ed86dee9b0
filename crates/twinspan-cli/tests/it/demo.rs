//! `twinspan demo` as people and scripts run it.

use std::fs;
use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;

use crate::command::{Running, run, second_of, signal_to, tells_second};

/// What every summary has, and of which type.
const NUMBERS: [&str; 26] = [
    "players_requested",
    "players_connected",
    "seconds",
    "ticks",
    "late_ticks",
    "tick_p50_us",
    "tick_p99_us",
    "packets_in",
    "packets_out",
    "bytes_in",
    "bytes_out",
    "up_p50_ms",
    "up_p99_ms",
    "up_p999_ms",
    "down_p50_ms",
    "down_p99_ms",
    "down_p999_ms",
    "reliable_sent",
    "reliable_delivered",
    "state_delivered_ratio",
    "visible_entities_mean",
    "state_age_p50_ms",
    "state_age_p99_ms",
    "stolen_ms",
    "server_cpu_us_per_client_second",
    "server_rss_mb",
];

/// Asserts that the summary has every promised key and that its promises were kept.
fn assert_kept(summary: &Value, bots: u32) {
    for key in NUMBERS {
        assert!(summary[key].is_number(), "{key} is no number in {summary}");
    }
    assert_eq!(summary["encrypted"], true, "{summary}");
    assert!(summary["cipher"].is_string(), "{summary}");
    assert!(summary.as_object().unwrap().contains_key("http"), "{summary}");
    assert_eq!(summary["players_requested"], bots);
    assert_eq!(summary["players_connected"], bots);
    assert!(summary["reliable_sent"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(summary["reliable_sent"], summary["reliable_delivered"]);
}

fn number(summary: &Value, key: &str) -> f64 {
    summary[key].as_f64().unwrap()
}

#[test]
fn the_summary_is_one_json_object_with_what_was_promised() {
    let ended = run(&["demo", "--bots", "20", "--seconds", "3", "--json", "--no-http"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let summary = ended.json();
    assert_kept(&summary, 20);
    assert_eq!(summary["http"], Value::Null);
    // Counters and seconds are of the same span: sixty ticks in each, those left out included.
    let rate = number(&summary, "ticks") / number(&summary, "seconds");
    assert!(rate < 62.0, "{rate} ticks a second");
    assert!(number(&summary, "seconds") >= 3.0);
    for pair in [["up_p50_ms", "up_p99_ms"], ["up_p99_ms", "up_p999_ms"]] {
        assert!(number(&summary, pair[0]) <= number(&summary, pair[1]), "{pair:?}");
    }
    for key in ["tick_p50_us", "bytes_in", "bytes_out", "server_rss_mb", "visible_entities_mean"] {
        assert!(number(&summary, key) > 0.0, "{key}");
    }
}

/// Whether this process may use two cores. Where it may not, a test of them says so, or fails when
/// `TWINSPAN_REQUIRE_PEERS` is 1.
pub(crate) fn has_two_cores() -> bool {
    let has = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    if !has {
        let reason = "this process may use one core alone";
        assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
        println!("skipped: {reason}");
    }
    has
}

#[test]
fn on_two_cores_the_same_is_promised() {
    if !has_two_cores() {
        return;
    }
    let arguments = ["demo", "--bots", "24", "--seconds", "3", "--cores", "2", "--json"];
    let ended = run(&[&arguments[..], &["--no-http"]].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_kept(&ended.json(), 24);
}

#[test]
fn more_cores_than_there_are_is_an_error_with_both_numbers() {
    let ended = run(&["demo", "--cores", "256", "--seconds", "1", "--no-http"]);
    assert_ne!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("asked for 256 cores, and this process may use"), "{ended:?}");
}

#[test]
fn with_a_page_the_summary_names_its_address() {
    let arguments = ["demo", "--bots", "3", "--seconds", "1", "--json", "--http", "127.0.0.1:0"];
    let ended = run(&arguments);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let address: SocketAddr = ended.json()["http"].as_str().unwrap().parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() > 0, "{address}");
    assert!(ended.stderr.contains(&format!("http://{address}\n")), "{ended:?}");
}

#[test]
fn each_second_has_a_line_and_the_end_a_summary() {
    let mut demo = Running::start(&["demo", "--bots", "5", "--seconds", "600", "--no-http"]);
    demo.line(tells_second(3));
    demo.signal(Signal::INT);
    let ended = demo.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr.lines().filter(|line| !line.contains("warning")).count(), 0);
    let seconds: Vec<_> = ended.stdout.lines().filter_map(second_of).collect();
    assert!(seconds.len() > 1 && seconds.is_sorted_by(|one, next| one < next), "{seconds:?}");
    // What the columns are stands over them once; nothing is wider than a terminal may be.
    assert_eq!(ended.stdout.lines().filter(|line| line.contains("time  players")).count(), 1);
    assert!(ended.stdout.lines().all(|line| line.chars().count() <= 120), "{}", ended.stdout);
    let last: Vec<_> = ended.stdout.lines().rev().take(9).collect();
    assert_eq!(last[0], "promises   all kept");
    assert!(last[8].starts_with("players    5 of 5 connected"), "{}", ended.stdout);
}

#[test]
fn an_interrupt_drains_and_the_summary_is_told() {
    for signal in [Signal::INT, Signal::TERM] {
        let arguments = ["demo", "--bots", "5", "--seconds", "600", "--json", "--no-http"];
        let mut demo = Running::start(&arguments);
        demo.error_line(tells_second(2));
        demo.signal(signal);
        let ended = demo.end();
        assert_eq!(ended.code(), Some(0), "{signal:?}: {ended:?}");
        assert_kept(&ended.json(), 5);
    }
}

#[test]
fn a_bad_network_breaks_no_promise() {
    let arguments =
        ["demo", "--bots", "20", "--seconds", "3", "--json", "--no-http", "--conditions", "mobile"];
    let ended = run(&arguments);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let summary = ended.json();
    assert_kept(&summary, 20);
    // The delay of that network, each way.
    assert!(number(&summary, "up_p50_ms") >= 50.0, "{summary}");
    assert!(number(&summary, "down_p50_ms") >= 50.0, "{summary}");
}

/// The processes whose parent is `parent`; `None` where the kernel does not list them.
fn children(parent: u32) -> Option<Vec<u32>> {
    let parent_of = |process: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name before it may hold anything, a closing bracket too.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Some(processes.filter(|process| parent_of(*process) == Some(parent)).collect())
}

/// The bots' process of a demo, or `None` with a printed reason.
fn bots_of(demo: &Running) -> Option<u32> {
    let found = children(demo.id());
    let Some(&[bots]) = found.as_deref() else {
        assert!(found.is_none_or(|found| found.is_empty()), "more than one process");
        println!("skipped: this machine does not list processes under /proc");
        return None;
    };
    Some(bots)
}

#[test]
fn bots_that_die_are_a_broken_promise_and_still_a_summary() {
    let arguments = ["demo", "--bots", "5", "--seconds", "600", "--json", "--no-http"];
    let mut demo = Running::start(&arguments);
    demo.error_line(tells_second(2));
    let Some(bots) = bots_of(&demo) else { return };
    signal_to(bots, Signal::KILL);
    let ended = demo.end();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert_eq!(ended.json()["players_connected"], 5);
    let told = "twinspan: broken promise: the bots' process ended without its last report\n";
    assert!(ended.stderr.contains(told), "{ended:?}");
}

#[test]
fn bots_do_not_outlive_their_demo() {
    let arguments = ["demo", "--bots", "5", "--seconds", "600", "--json", "--no-http"];
    let mut demo = Running::start(&arguments);
    demo.error_line(tells_second(1));
    demo.signal(Signal::KILL);
    // The bots hold the demo's standard error: its end comes when they have ended too.
    let ended = demo.end();
    assert_eq!(ended.code(), None);
    assert_eq!(ended.stdout, "");
    assert!(!ended.stderr.contains("twinspan:"), "{ended:?}");
}

#[test]
fn a_reader_that_leaves_ends_the_demo_without_a_word() {
    let mut demo = Running::start(&["demo", "--bots", "3", "--seconds", "600", "--no-http"]);
    demo.line(tells_second(1));
    demo.close_stdout();
    let ended = demo.end();
    // As if the signal for a broken pipe had ended it.
    assert_eq!(ended.code(), Some(141), "{ended:?}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_page_s_port_is_free_for_the_next_demo() {
    let start = |http: &str| {
        let arguments = ["demo", "--bots", "1", "--seconds", "600", "--json", "--http", http];
        let mut demo = Running::start(&arguments);
        let line = demo.error_line(|line| line.starts_with("live page"));
        let address = line.trim_end().rsplit_once('/').unwrap().1.to_owned();
        (demo, address)
    };
    let (first, address) = start("127.0.0.1:0");
    // A connection that the server has closed lingers in the kernel, port and all.
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    let url = format!("http://{address}/healthz");
    assert_eq!(agent.get(&url).call().unwrap().body_mut().read_to_string().unwrap(), "ok\n");
    first.signal(Signal::INT);
    assert_eq!(first.end().json()["http"], address.as_str());
    let (second, again) = start(&address);
    assert_eq!(again, address);
    second.signal(Signal::INT);
    second.end();
}
