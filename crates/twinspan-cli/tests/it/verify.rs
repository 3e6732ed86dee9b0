//! `twinspan sim verify`, `sim trace` and `bench sim` as people and scripts run them.

use std::fs;
use std::path::PathBuf;

use crate::command::run;
use crate::webdriver::Browser;

#[test]
fn seeds_come_to_the_same_in_every_variant() {
    // The same program stands for the other build; `.ci/run` has a real one.
    let other = env!("CARGO_BIN_EXE_twinspan");
    let arguments = ["sim", "verify", "--seeds", "4", "--clients", "2", "--other", other, "--json"];
    let ended = run(&arguments);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let verified = ended.json();
    assert_eq!((&verified["seeds"], &verified["differing"]), (&4.into(), &0.into()), "{verified}");
    assert!(verified["events"].as_u64().unwrap() > 4 * 1_000, "{verified}");
    let variants = verified["variants"].as_array().unwrap();
    let names: Vec<_> = variants.iter().map(|variant| variant["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "elsewhere", "heap", "build"]);
    let fence =
        if cfg!(all(target_os = "linux", target_arch = "x86_64")) { "kernel" } else { "lints" };
    assert_eq!(verified["fence"], fence);
}

#[test]
fn a_planted_difference_is_found_to_the_event() {
    // A build that happens to lie beside this one may be of another version.
    let other = env!("CARGO_BIN_EXE_twinspan");
    let seeds = ["--seeds", "3", "--first-seed", "5", "--clients", "2"];
    let arguments = [&["sim", "verify", "--other", other][..], &seeds].concat();
    let ended = run(&[&arguments[..], &["--plant", "6", "--json"]].concat());
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let verified = ended.json();
    assert_eq!(verified["differing"], 1, "{verified}");
    let difference = &verified["differences"][0];
    assert_eq!((&difference["seed"], &difference["variant"]), (&6.into(), &"elsewhere".into()));
    assert!(difference["first_event"].as_u64().is_some(), "{difference}");
    let line = |side: &str| difference[side][0].as_str().unwrap().to_owned();
    for side in ["first", "other"] {
        // The datagram that was changed, by the addresses of its ends.
        assert!(line(side).contains(" send flow=10.1.0.1:"), "{difference}");
    }
    assert_ne!(line("first"), line("other"));
    assert!(difference["before"].as_array().unwrap().len() > 3, "{difference}");
    let told = run(&[&arguments[..], &["--plant", "6"]].concat()).stdout;
    assert!(told.contains("is the first to differ"), "{told}");
    assert!(told.lines().any(|line| line.starts_with("- ")), "{told}");
}

#[test]
fn planned_faults_come_to_the_same_in_every_variant_and_a_planted_difference_is_found() {
    let other = env!("CARGO_BIN_EXE_twinspan");
    for (scenario, seeds) in
        [("echo", "6"), ("partition", "6"), ("vault", "4"), ("circuit", "2"), ("hub", "20")]
    {
        let arguments = ["sim", "verify", "--scenario", scenario, "--seeds", seeds];
        let ended = run(&[&arguments[..], &["--other", other, "--json"]].concat());
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let verified = ended.json();
        assert_eq!((&verified["scenario"], &verified["differing"]), (&scenario.into(), &0.into()));
        assert!(verified["clients"].is_null(), "{verified}");
        assert!(verified["events"].as_u64().unwrap() > 1_000, "{verified}");
    }
    let arguments = ["sim", "verify", "--scenario", "echo", "--seeds", "2", "--first-seed", "5"];
    let ended = run(&[&arguments[..], &["--other", other, "--plant", "6", "--json"]].concat());
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let verified = ended.json();
    assert_eq!(verified["differing"], 1, "{verified}");
    let difference = &verified["differences"][0];
    assert_eq!((&difference["seed"], &difference["variant"]), (&6.into(), &"elsewhere".into()));
    assert!(difference["first_event"].as_u64().is_some(), "{difference}");
    let arguments = ["sim", "verify", "--scenario", "echo", "--clients", "2"];
    run(&arguments).assert_refusal(&["--clients", "planned"]);
}

#[test]
fn another_build_that_is_not_there_is_refused() {
    let ended = run(&["sim", "verify", "--seeds", "1", "--other", "no/such/build"]);
    ended.assert_refusal(&["no/such/build", "--other"]);
}

/// A file of this test that is removed when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("twinspan-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_run_becomes_a_page_and_a_capture() {
    let (page, capture) = (Scratch::new("trace.html"), Scratch::new("trace.pcapng"));
    let arguments =
        ["sim", "trace", "--seed", "3", "--clients", "2", "--seconds", "1", "--events", "2000"];
    let files = ["--html", page.path(), "--pcap", capture.path()];
    let ended = run(&[&arguments[..], &files].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("2000 of them shown"), "{ended:?}");
    let text = fs::read_to_string(&page.0).unwrap();
    for foreign in ["src=", "href=\"http", "url(", "@import", "fetch(", "XMLHttpRequest"] {
        assert!(!text.contains(foreign), "{foreign} in the page");
    }
    let data = text.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["events"].as_array().unwrap().len(), 2_000);
    assert_eq!(data["hosts"].as_array().unwrap().len(), 4, "the server, two clients, the cheat");
    assert!(data["states"].as_array().unwrap().len() > 10);
    let sent = data["sent"].as_array().unwrap().len();
    // The run is the one that `sim run` and `sim verify` know by this hash.
    let arguments = ["sim", "run", "--seed", "3", "--clients", "2", "--seconds", "1", "--json"];
    assert_eq!(run(&arguments).json()["trace_hash"], data["hash"]);
    // A capture of as many packets: each block begins with its type and its length.
    let bytes = fs::read(&capture.0).unwrap();
    let (mut at, mut packets, mut lost) = (0, 0, 0);
    while at < bytes.len() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let length = word(at + 4) as usize;
        assert_eq!(word(at + length - 4) as usize, length, "at {at}");
        packets += usize::from(word(at) == 6);
        let block = &bytes[at..at + length];
        lost += usize::from(word(at) == 6 && block.windows(4).any(|bytes| bytes == b"loss"));
        at += length;
    }
    assert_eq!(packets, sent);
    assert!(lost > 10 && lost < packets, "{lost} of {packets} are marked as lost");
}

#[test]
fn a_run_of_a_sweep_becomes_a_page_with_what_each_host_is_like() {
    let page = Scratch::new("planned.html");
    let options = "seed=7 loss=0.1 crash=0.02 clients=2";
    for scenario in ["echo", "vault"] {
        let arguments = ["sim", "trace", "--scenario", scenario, "--options", options];
        let ended = run(&[&arguments[..], &["--html", page.path()]].concat());
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let text = fs::read_to_string(&page.0).unwrap();
        let data = text.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        let about = data["about"].as_str().unwrap();
        assert!(about.starts_with(&format!("{scenario}, seed=7 loss=0.1 crash=0.02")), "{about}");
        assert!(data["states"].as_array().unwrap().len() > 10, "{about}");
        let arguments = ["sim", "run", "--scenario", scenario, "--options", options, "--json"];
        assert_eq!(run(&arguments).json()["trace_hash"], data["hash"]);
    }
}

#[test]
fn the_page_of_a_run_steps_forward_and_back() {
    let Some(browser) = Browser::open() else { return };
    let page = Scratch::new("steps.html");
    let options = "seed=7 loss=0.1 crash=0.02 clients=2";
    let arguments = ["sim", "trace", "--scenario", "echo", "--options", options];
    let ended = run(&[&arguments[..], &["--html", page.path()]].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    // What the page says of a moment: the event, and each host with its counts and its machine.
    let moment = || {
        let told = browser.run(
            "return ['where', 'clock', 'event', 'hosts'].map((id) => document.getElementById(id).innerText)",
        );
        let text = |at: usize| told[at].as_str().unwrap().to_owned();
        let number: u64 = text(0).split(' ').nth(1).unwrap().parse().unwrap();
        (number, [text(1), text(2), text(3)])
    };
    browser.go(&format!("file://{}#event=600", page.path()));
    let start = moment();
    assert_eq!(start.0, 600);
    let mut passed = vec![start.clone()];
    for _ in 0..40 {
        browser.click("#forward");
        passed.push(moment());
    }
    let numbers: Vec<_> = passed.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (600..=640).collect::<Vec<_>>());
    let states = |at: usize| &passed[at].1[2];
    assert_ne!(states(0), states(40), "hosts change as time goes on");
    // Each step back shows what was there, to the letter.
    for former in passed.iter().rev().skip(1) {
        browser.click("#back");
        assert_eq!(moment(), *former);
    }
    // The keys do the same, and a long way comes to the same as many steps.
    browser.keys("#list", "\u{e014}\u{e014}\u{e012}");
    assert_eq!(moment(), passed[1]);
    browser.keys("#list", "\u{e010}");
    let (last, _) = moment();
    assert!(last > 640, "{last}");
    browser.keys("#list", "\u{e011}");
    assert_eq!(moment().0, 0);
    browser.click("#lost");
    let (number, [_, event, _]) = moment();
    assert!(number > 0 && event.contains("drop") && event.contains("Lost"), "{event}");
    browser.go("about:blank");
    browser.go(&format!("file://{}#event=640", page.path()));
    assert_eq!(moment(), passed[40]);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn events_beyond_the_end_are_refused() {
    let page = Scratch::new("none.html");
    let arguments = ["sim", "trace", "--clients", "1", "--seconds", "1", "--from", "90000000"];
    run(&[&arguments[..], &["--html", page.path()]].concat()).assert_refusal(&["--from", "events"]);
    run(&["sim", "trace"]).assert_refusal(&["--html"]);
}

#[cfg(target_os = "linux")]
#[test]
fn the_simulator_s_ruler_tells_what_it_promises() {
    let arguments = ["bench", "sim", "--clients", "20", "--seconds", "1", "--echo-seconds", "1"];
    let ended = run(&[&arguments[..], &["--json"]].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let summary = ended.json();
    for key in [
        "machine_events_per_cpu_second",
        "async_events_per_cpu_second",
        "async_messages_per_cpu_second",
        "world_times_real_time",
        "world_times_real_time_aead",
        "world_events_per_cpu_second",
        "world_rss_mb",
    ] {
        assert!(summary[key].as_f64().unwrap() > 0.0, "{key} in {summary}");
    }
    assert_eq!((&summary["world_clients"], &summary["world_connected"]), (&20.into(), &20.into()));
    assert!(run(&arguments).stdout.contains("20 of 20 clients in"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_session_and_tcp_share_a_bottleneck_and_the_ruler_says_how() {
    let ended = run(&["bench", "sim", "--fairness", "--json"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let summary = ended.json();
    let share = summary["session_share"].as_f64().unwrap();
    assert!((0.4..0.6).contains(&share), "{summary}");
    assert_eq!(summary["bottlenecks"].as_array().unwrap().len(), 9);
    let bounds =
        ["session_share_min", "session_share_max"].map(|key| summary[key].as_f64().unwrap());
    assert!(bounds[0] <= share && share <= bounds[1], "{summary}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_simulator_is_compared_with_two_namespaces() {
    let arguments = ["bench", "sim", "--realism", "--realism-seconds", "2", "--json"];
    let ended = run(&arguments);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let summary = ended.json();
    assert!(summary["simulated"]["goodput_bytes_per_s"].as_f64().unwrap() > 1e5, "{summary}");
    if let Some(why) = summary["skipped"].as_str() {
        // A machine that has the device has the rest of it, too, once `.ci/run` has prepared it.
        let is_required = std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() == Ok("1");
        assert!(!is_required || !std::path::Path::new("/dev/net/tun").exists(), "{why}");
        println!("skipped: {why}");
        assert!(summary["ratios"].is_null());
        return;
    }
    let mut worlds = vec!["real"];
    match summary["control_skipped"].as_str() {
        Some(why) => println!("no control: {why}"),
        None => worlds.push("control"),
    }
    for world in worlds {
        let measured = &summary[world];
        // The delay of both ways is the least that a request takes.
        assert!(measured["p50_ms"].as_f64().unwrap() >= 40.0, "{summary}");
        assert!(measured["answered"].as_u64().unwrap() > 100, "{summary}");
        assert!(measured["goodput_bytes_per_s"].as_f64().unwrap() > 0.0, "{summary}");
    }
    assert!(summary["ratios"]["p50"].as_f64().unwrap() > 0.0, "{summary}");
}
