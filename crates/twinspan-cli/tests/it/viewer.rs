//! `twinspan viewer login` as a user runs it, on the grid that `twinspan grid` is.

use std::path::PathBuf;

use serde_json::Value;

use crate::command::{Running, run};

/// A file with a password that nobody else may read.
pub(crate) struct PasswordFile(PathBuf);

impl PasswordFile {
    pub(crate) fn new(name: &str, password: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("twinspan-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, password).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Starts a grid for one and returns it with the address of its login.
pub(crate) fn grid() -> (Running, String) {
    let args = ["grid", "--listen", "127.0.0.1:0", "--user", "Ruth Tester:sesame", "--json"];
    let mut grid = Running::start(&args);
    let line = grid.line(|line| line.contains("\"ready\""));
    let ready: Value = serde_json::from_str(&line).unwrap();
    (grid, ready["login_uri"].as_str().unwrap().to_owned())
}

pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_avatar_talks_travels_and_leaves_with_a_summary() {
    let ((_grid, uri), password) = (grid(), PasswordFile::new("viewer-a", "sesame\n"));
    let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--json"];
    let more = ["--password-file", password.path(), "--say", "good day", "--for", "4"];
    let ended = run(&[&args[..], &more, &["--teleport", "Gamma/100/100/25"]].concat());
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let told = lines(&ended.stdout);
    let of = |event: &str| told.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    assert_eq!(of("connected")[0]["first_name"], "Ruth");
    assert!(of("chat").iter().any(|chat| chat["text"] == "good day"), "{told:?}");
    let summary = told.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["disconnect_reason"], "logged out");
    for (field, wanted) in [("teleports", 1), ("decode_errors", 0), ("unknown_messages", 0)] {
        assert_eq!(summary[field], wanted, "{field}: {summary}");
    }
    assert!(summary["handshake_ms"].is_u64(), "{summary}");
    for field in ["circuits", "messages_in", "messages_out", "reliable_in", "reliable_out"] {
        assert!(summary[field].as_u64().unwrap() > 0, "{field}: {summary}");
    }
    for field in ["caps", "events", "acks_piggybacked"] {
        assert!(summary[field].as_u64().unwrap() > 0, "{field}: {summary}");
    }
    for field in ["resends_out", "duplicates_in", "packet_acks_out", "crossings"] {
        assert!(summary[field].is_u64(), "{field}: {summary}");
    }
    // The circuit is closed, and how far away its region was is known still.
    assert!(summary["rtt_ms"].as_f64().unwrap() > 0.0, "{summary}");
    let regions = summary["regions"].as_array().unwrap();
    assert!(regions.contains(&"Alpha".into()) && regions.contains(&"Gamma".into()), "{summary}");
    // What was told line by line is what the summary counts.
    let count = |event: &str| u64::try_from(of(event).len()).unwrap();
    assert_eq!(summary["circuits"], count("circuit_connected"), "{summary}");
    assert_eq!(summary["events"], count("queue_message"), "{summary}");
    let caps = of("capabilities")[0]["names"].as_array().unwrap().len();
    assert_eq!(summary["caps"], caps, "{summary}");
}

#[test]
fn what_fails_is_told_while_an_avatar_walks_on() {
    let ((_grid, uri), password) = (grid(), PasswordFile::new("viewer-e", "sesame"));
    let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--json", "--walk"];
    let more =
        ["--password-file", password.path(), "--teleport", "Nowhere/1/2/3", "--no-reconnect"];
    // Nothing ends the walk but the signal: the failure is told before.
    let mut viewer = Running::start(&[&args[..], &more].concat());
    let line = viewer.line(|line| line.contains("\"failed\""));
    let failed: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(failed["what"], "teleport", "{failed}");
    viewer.signal(rustix::process::Signal::INT);
    let ended = viewer.end();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert_eq!(lines(&ended.stdout).last().unwrap()["event"], "summary");
}

#[test]
fn what_is_not_done_at_the_limit_failed() {
    let ((_grid, uri), password) = (grid(), PasswordFile::new("viewer-f", "sesame"));
    let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--json", "--walk"];
    let more = ["--password-file", password.path(), "--teleport", "Nowhere/1/2/3", "--for", "2"];
    let ended = run(&[&args[..], &more].concat());
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let told = lines(&ended.stdout);
    let failed: Vec<_> = told.iter().filter(|line| line["event"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{told:?}");
    assert_eq!(failed[0]["what"], "teleport");
    assert!(!failed[0]["error"].as_str().unwrap().is_empty(), "{failed:?}");
}

#[test]
fn a_walk_alone_is_done_at_the_limit() {
    let ((_grid, uri), password) = (grid(), PasswordFile::new("viewer-g", "sesame"));
    let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--json", "--walk"];
    let ended = run(&[&args[..], &["--password-file", password.path(), "--for", "2"]].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(lines(&ended.stdout).iter().all(|line| line["event"] != "failed"), "{ended:?}");
}

#[test]
fn people_are_told_in_words() {
    let ((_grid, uri), password) = (grid(), PasswordFile::new("viewer-b", "sesame"));
    let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--for", "6"];
    let ended = run(&[&args[..], &["--password-file", password.path()]].concat());
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    for words in ["welcome, Ruth Tester", "there is the region Alpha", "logged out"] {
        assert!(ended.stdout.contains(words), "no {words:?} in {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("sesame"));
    // Every five seconds: where, what is around, and how much was heard.
    let traffic = ended.stdout.lines().find_map(|line| {
        let (around, heard) = line.split_once("in Alpha, neighbours: ")?.1.rsplit_once("; ")?;
        Some((around, heard.strip_suffix(" messages heard")?.parse::<u64>().ok()?))
    });
    let (around, heard) = traffic.unwrap_or_else(|| panic!("no traffic in {}", ended.stdout));
    assert!(around.contains("Beta") && !around.contains("Alpha"), "{around}");
    assert!(heard > 0, "{}", ended.stdout);
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let ((_grid, uri), password) = (grid(), PasswordFile::new("viewer-c", "wrong"));
    let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--json"];
    let ended = run(&[&args[..], &["--password-file", password.path()]].concat());
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let told = lines(&ended.stdout);
    let reason = told.last().unwrap()["disconnect_reason"].as_str().unwrap();
    assert!(reason.contains("the name or the password is wrong"), "{reason}");
}

#[test]
fn a_grid_tells_about_itself() {
    let (_grid, uri) = grid();
    let ended = run(&["viewer", "info", "--grid", &uri, "--json"]);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&told["platform"], &told["login"]), (&"Twinspan".into(), &uri.as_str().into()));
    let ended = run(&["viewer", "info", "--grid", &uri]);
    assert!(ended.stdout.contains(&format!("login      {uri}\n")), "{ended:?}");
    let ended = run(&["viewer", "info", "--grid", "main"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("Second Life tells nothing about itself"), "{ended:?}");
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let password = PasswordFile::new("viewer-d", "sesame");
    let file = ["--password-file", password.path()];
    run(&["viewer"]).assert_refusal(&["viewer login"]);
    for (args, words) in [
        (&["viewer", "login"][..], &["--grid", "--user"][..]),
        (&["viewer", "login", "--grid", "ftp://a", "--user", "A"], &["http and https"]),
        (&["viewer", "login", "--grid", "main", "--user", "A", "--teleport", "B"], &["Alpha/128"]),
    ] {
        run(&[args, &file[..]].concat()).assert_refusal(words);
    }
    run(&["viewer", "login", "--grid", "main", "--user", "a b c", file[0], file[1]])
        .assert_refusal(&["one or two words"]);
    run(&["viewer", "login", "--grid", "main", "--user", "a", "--password-file", "/nowhere"])
        .assert_refusal(&["cannot be read"]);
    let proxy = ["--proxy", "gopher://a"];
    let args = ["viewer", "login", "--grid", "main", "--user", "a", file[0], file[1]];
    run(&[&args[..], &proxy].concat()).assert_refusal(&["--proxy"]);
}
