//! `twinspan sim sweep`, `shrink`, `faults` and scenario files as people and scripts use them.

use crate::command::run;

#[test]
fn the_faults_are_listed_each_with_its_victim() {
    let ended = run(&["sim", "faults", "--json"]);
    // A task that panics on purpose says so on standard error.
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let outcome = ended.json();
    let faults = outcome["faults"].as_array().unwrap();
    assert!(faults.len() >= 80);
    assert_eq!(outcome["count"], faults.len());
    for fault in faults {
        for key in ["name", "family", "description", "victim"] {
            assert!(!fault[key].as_str().unwrap().is_empty(), "{key} in {fault}");
        }
        assert!(fault["effect"].as_u64().unwrap() > 0, "{fault}");
        assert_eq!(fault["absent"], 0, "{fault}");
        assert_eq!(fault["changed"], true, "{fault}");
    }
}

#[test]
fn a_sweep_that_fails_prints_the_command_that_shows_it_again() {
    let ended = run(&["sim", "sweep", "--scenario", "planted", "--seeds", "30", "--json"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let outcome = ended.json();
    assert_eq!(outcome["seeds"], 30);
    let failure = &outcome["failures"][0];
    let replay = failure["replay"].as_str().unwrap();
    let start = "twinspan sim run --scenario planted --options \"";
    let options = replay.strip_prefix(start).unwrap().strip_suffix('"').unwrap();
    let again = run(&["sim", "run", "--scenario", "planted", "--options", options, "--json"]);
    assert_eq!(again.code(), Some(1), "{again:?}");
    assert_eq!(again.json()["broken"], failure["broken"]);
    let seed = failure["seed"].to_string();
    let shrunk = run(&["sim", "shrink", "--scenario", "planted", "--seed", &seed, "--json"]);
    assert_eq!(shrunk.code(), Some(1), "{shrunk:?}");
    let shrunk = shrunk.json();
    assert_eq!(shrunk["faults_after"], 2, "{shrunk}");
    assert_eq!(shrunk["is_least"], true);
    assert!(shrunk["regression_test"].as_str().unwrap().starts_with("#[test]\nfn planted_seed_"));
}

#[test]
fn each_scenario_keeps_its_promises_in_a_short_sweep() {
    for scenario in ["echo", "partition", "vault", "board", "world", "circuit", "hub"] {
        let ended = run(&["sim", "sweep", "--scenario", scenario, "--seeds", "20"]);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(ended.stdout.contains("failed     0 runs: 0.000 %, between 0.000 % and 16.1"));
        let told = "what was not seen is a failure from 1000 seeds on";
        assert_eq!(ended.stdout.contains(told), ended.stdout.contains("unseen "), "{ended:?}");
    }
}

#[test]
fn a_scenario_file_is_a_run() {
    let folder = std::env::temp_dir().join(format!("twinspan-scenario-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("echo.toml");
    let file = path.to_str().unwrap();
    let text = "scenario = \"echo\"\nseed = 7\n[sizes]\nclients = 1\n[faults]\nloss = 0.2\n";
    std::fs::write(&path, text).unwrap();
    let ended = run(&["sim", "run", "--file", file, "--json"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let outcome = ended.json();
    assert!(outcome["faults"]["loss"]["effect"].as_u64().unwrap() > 0, "{outcome}");
    std::fs::write(&path, text.replace("loss", "los")).unwrap();
    let ended = run(&["sim", "run", "--file", file]);
    ended.assert_refusal(&["line 6", "`los`", "`loss`"]);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_run_or_shrunk_says_why() {
    for (arguments, words) in [
        (&["sim", "run", "--scenario", "echo", "--options", "loss=1"][..], &["no seed"][..]),
        (&["sim", "run", "--scenario", "echo", "--cores", "2"], &["--cores", "planned"]),
        (&["sim", "run", "--file", "no/such.toml"], &["no/such.toml"]),
        (&["sim", "shrink", "--scenario", "echo", "--seed", "1"], &["nothing to shrink"]),
        (&["sim", "sweep", "--seeds", "0"], &["'0'", "--seeds"]),
    ] {
        run(arguments).assert_refusal(words);
    }
}
