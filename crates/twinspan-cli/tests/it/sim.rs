//! `twinspan sim run` as people and scripts run it.

use serde_json::Value;

use crate::command::run;

fn world(seed: &str) -> Value {
    let arguments =
        ["sim", "run", "--scenario", "world", "--clients", "5", "--seconds", "2", "--seed", seed];
    let ended = run(&[&arguments[..], &["--json"]].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
    ended.json()
}

#[test]
fn the_outcome_is_one_json_object_with_what_was_promised() {
    let outcome = world("7");
    let hash = outcome["trace_hash"].as_str().unwrap();
    assert!(hash.len() == 16 && hash.chars().all(|digit| digit.is_ascii_hexdigit()), "{hash}");
    assert!(outcome["events"].as_u64().unwrap() > 0);
    assert!(outcome["virtual_seconds"].as_f64().unwrap() >= 2.0);
    assert!(outcome["cpu_seconds"].as_f64().unwrap() > 0.0);
    let faults = outcome["faults"].as_object().unwrap();
    for name in ["loss", "delay", "duplicate", "reorder"] {
        let fault = &faults[name];
        assert!(fault["injected"].as_u64().unwrap() > 0, "{name} in {outcome}");
        assert!(fault["effect"].as_u64().unwrap() > 0, "{name} in {outcome}");
    }
}

#[test]
fn the_hash_is_a_function_of_the_seed() {
    let (first, again, other) = (world("7"), world("7"), world("8"));
    for key in ["trace_hash", "events", "virtual_seconds", "faults"] {
        assert_eq!(first[key], again[key], "{key}");
    }
    assert_ne!(first["trace_hash"], other["trace_hash"]);
}

#[test]
fn people_get_the_same_in_words() {
    let arguments = ["sim", "run", "--clients", "5", "--seconds", "2", "--seed", "7"];
    let ended = run(&arguments);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
    let outcome = world("7");
    let hash = outcome["trace_hash"].as_str().unwrap();
    let injected = outcome["faults"]["loss"]["injected"].to_string();
    assert!(ended.stdout.contains(&format!("hash {hash} ")), "{}", ended.stdout);
    let line = ended.stdout.lines().find(|line| line.contains("loss")).unwrap();
    assert!(line.contains(&injected), "{line}");
    assert!(ended.stdout.lines().all(|line| line.chars().count() <= 120), "{}", ended.stdout);
}
