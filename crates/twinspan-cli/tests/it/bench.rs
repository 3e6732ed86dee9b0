//! `twinspan bench world` and `bench viewer` as a user runs them, at a size that any machine bears.

use std::process::Command;

use serde_json::Value;

/// Runs the ruler and returns its object. Whether everything was delivered depends on what else the
/// machine does, so the status is not looked at.
fn measure(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_twinspan"))
        .args(["bench", "world", "--players", "20", "--seconds", "1"])
        .args(["--no-realtime", "--json"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{told}"))
}

#[test]
fn the_ruler_tells_all_that_it_promises() {
    let summary = measure(&[]);
    for key in [
        "players_connected",
        "up_p99_ms",
        "up_p999_ms",
        "down_p99_ms",
        "state_age_p99_ms",
        "late_ticks",
        "states_per_client_second",
        "stretch_factor_mean",
        "held",
        "server_cpu_us_per_client_second",
        "floor_cpu_us_per_client_second",
        "floor_parts_us_per_client_second",
        "ratio_to_floor",
        "floor_defective",
        "allocations_in_steady_state",
        "mean_state_bytes",
        "bytes_per_visible_entity",
        "reduction_vs_f32",
        "memory_per_connection_bytes",
        "memory_idle_connection_bytes",
        "assembly_ns_per_state",
        "io_path",
        "cores",
        "flows",
        "gro",
        "priority",
        "opened_share",
        "generator_cpu_share",
        "steal_ms",
        "stretch_factor_max",
        "broke_first",
    ] {
        assert!(!summary[key].is_null(), "{key} is missing: {summary}");
    }
    assert_eq!(summary["players_connected"], 20);
    assert_eq!(summary["encrypted"], true);
    // Two of twenty are full clients; on a busy machine single states come late.
    assert!(summary["opened_share"].as_f64().unwrap() >= 1.0 / 16.0, "{summary}");
}

#[test]
fn sessions_are_measured_without_a_world_and_the_world_behind_relays() {
    let summary = measure(&["--world", "off", "--no-floor", "--cipher", "chacha20"]);
    assert_eq!(summary["players_connected"], 20);
    assert_eq!(summary["cipher"], "ChaCha20-Poly1305");
    assert_eq!(summary["world"], false);
    let summary = measure(&["--relay", "--flows", "2"]);
    assert_eq!(summary["players_connected"], 20);
    assert_eq!(summary["relay"], true);
    assert!(summary["ratio_to_floor"].is_null());
}

#[test]
fn the_simulated_scenario_is_a_function_of_its_seed() {
    let run = || measure(&["--scenario", "loss", "--seed", "5"]);
    let first = run();
    assert!(first["reliable_event_p99_rtt"].as_f64().unwrap() > 0.5, "{first}");
    assert_eq!(first, run());
}

#[test]
fn a_viewer_keeps_its_figures() {
    let output = Command::new(env!("CARGO_BIN_EXE_twinspan"))
        .args(["bench", "viewer", "--runs", "20", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (key, most) in [
        ("packet_acks_per_100_reliable", 15.0),
        ("first_object_update_p95_ms", 3_000.0),
        ("memory_per_idle_circuit_bytes", 8_192.0),
    ] {
        let figure = summary[key].as_f64().unwrap();
        assert!(figure > 0.0 && figure <= most, "{key}: {summary}");
    }
}
