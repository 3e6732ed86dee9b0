//! What each flag of `twinspan viewer login` changes; how it gets to a grid is in `viewer_roads`.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};
use twinspan_lludp::messages::DisableSimulator;
use twinspan_lludp::{Encoder, Flags, Sequence};

use crate::command::{Ended, Running, run, run_in};
use crate::grid;
use crate::viewer::{PasswordFile, lines};

/// A file that goes with this.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A place in the folder for such things; nothing is there yet.
    pub(crate) fn place(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("twinspan-{}-{name}", std::process::id()));
        // One may be left of a run that was cut short.
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    pub(crate) fn with(name: &str, text: &str) -> Self {
        let scratch = Self::place(name);
        std::fs::write(&scratch.0, text).unwrap();
        scratch
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A grid with Ruth as this text of its file describes her; its address.
fn grid_of(name: &str, ruth: &str) -> (Running, String) {
    let user = "[[user]]\nname = \"Ruth Tester\"\npassword = \"sesame\"\n";
    let file = Scratch::with(name, &format!("{user}{ruth}"));
    let (grid, ready) = grid::start(&["--config", file.path()]);
    (grid, ready["login_uri"].as_str().unwrap().to_owned())
}

/// A short session of Ruth.
fn login(uri: &str, file: &PasswordFile, more: &[&str]) -> Ended {
    let args = ["viewer", "login", "--grid", uri, "--user", "Ruth Tester", "--json"];
    run(&[&args[..], &["--password-file", file.path(), "--for", "1"], more].concat())
}

fn told<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

/// Asserts that somebody was in, and returns what was told of it.
fn was_in(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let lines = lines(&ended.stdout);
    assert_eq!(told(&lines, "connected").len(), 1, "{ended:?}");
    lines
}

/// Asserts that nobody was let in, and was shown this.
fn was_shown(ended: &Ended, text: &str) {
    was_refused(ended, "first");
    let lines = lines(&ended.stdout);
    assert_eq!(told(&lines, "error")[0]["shown"], text, "{ended:?}");
}

/// Asserts that nobody was let in, for a reason with these words.
fn was_refused(ended: &Ended, words: &str) {
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let lines = lines(&ended.stdout);
    assert!(told(&lines, "connected").is_empty(), "{ended:?}");
    let reason = lines.last().unwrap()["disconnect_reason"].as_str().unwrap();
    assert!(reason.contains(words), "no {words:?} in {reason:?}");
}

/// The regions in which a grid saw somebody arrive.
fn arrivals(grid: Running) -> Vec<Value> {
    grid.signal(Signal::TERM);
    let ended = grid.end();
    let arrived = lines(&ended.stdout).into_iter().filter(|line| line["event"] == "arrived");
    arrived.map(|line| json!([line["name"], line["region"]])).collect()
}

#[test]
fn who_comes_is_who_the_flag_says() {
    let users = ["--user", "Ruth Tester:sesame", "--user", "Max Tester:sesame"];
    let (grid, ready) = grid::start(&users);
    let (uri, password) =
        (ready["login_uri"].as_str().unwrap(), PasswordFile::new("flag-a", "sesame"));
    let args = ["viewer", "login", "--grid", uri, "--user", "max.tester", "--json", "--for", "1"];
    let ended = run(&[&args[..], &["--password-file", password.path()]].concat());
    assert_eq!(told(&was_in(&ended), "connected")[0]["first_name"], "Max");
    assert_eq!(arrivals(grid), [json!(["Max Tester", "Alpha"])]);
}

#[test]
fn a_password_is_that_of_its_file_and_else_of_the_environment() {
    let (_grid, uri) = grid_of("flag-b.toml", "");
    let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--json", "--for", "1"];
    let variable = "TWINSPAN_PASSWORD";
    was_in(&run_in((variable, Some("sesame")), &args));
    let [right, wrong] = ["sesame", "wrong"].map(|word| PasswordFile::new(word, word));
    let with = |file: &PasswordFile, value| {
        run_in((variable, Some(value)), &[&args[..], &["--password-file", file.path()]].concat())
    };
    was_in(&with(&right, "wrong"));
    was_refused(&with(&wrong, "sesame"), "the name or the password is wrong");
    for value in [None, Some("")] {
        run_in((variable, value), &args).assert_refusal(&["--password-file", variable]);
    }
}

#[test]
fn an_avatar_begins_where_it_is_told() {
    let ((grid, uri), password) =
        (grid_of("flag-c.toml", ""), PasswordFile::new("flag-c", "sesame"));
    let lines = was_in(&login(&uri, &password, &["--start", "Beta/10/20/30"]));
    let entered = told(&lines, "region_entered");
    let place = entered[0]["position"].as_array().unwrap();
    assert_eq!(place[..2], [json!(10.0), json!(20.0)], "{entered:?}");
    // Where it was last, unless it is told otherwise.
    was_in(&login(&uri, &password, &[]));
    was_in(&login(&uri, &password, &["--start", "home"]));
    was_in(&login(&uri, &password, &["--start", "Beta/1/2/30"]));
    was_in(&login(&uri, &password, &["--start", "last"]));
    let regions = ["Beta", "Beta", "Alpha", "Beta", "Beta"];
    assert_eq!(arrivals(grid), regions.map(|region| json!(["Ruth Tester", region])));
}

#[test]
fn terms_are_agreed_to_and_messages_read_by_their_flags_alone() {
    let password = PasswordFile::new("flag-d", "sesame");
    let (_grid, uri) = grid_of("flag-d.toml", "terms = \"Be kind.\"\n");
    was_shown(&login(&uri, &password, &[]), "Be kind.");
    was_shown(&login(&uri, &password, &["--message-read"]), "Be kind.");
    was_in(&login(&uri, &password, &["--accept-terms"]));
    let (_grid, uri) = grid_of("flag-e.toml", "critical = \"We close at noon.\"\n");
    was_shown(&login(&uri, &password, &[]), "We close at noon.");
    was_shown(&login(&uri, &password, &["--accept-terms"]), "We close at noon.");
    was_in(&login(&uri, &password, &["--message-read"]));
}

#[test]
fn a_second_factor_is_asked_for_once() {
    let password = PasswordFile::new("flag-f", "sesame");
    let (_grid, uri) = grid_of("flag-f.toml", "second_factor = \"123456\"\n");
    let kept = Scratch::place("flag-f.mfa");
    was_refused(&login(&uri, &password, &[]), "second factor");
    was_refused(&login(&uri, &password, &["--mfa-code", "654321"]), "second factor");
    // Without a file nothing is left for the next login.
    was_in(&login(&uri, &password, &["--mfa-code", "123456"]));
    was_refused(&login(&uri, &password, &["--mfa-file", kept.path()]), "second factor");
    was_in(&login(&uri, &password, &["--mfa-code", "123456", "--mfa-file", kept.path()]));
    was_in(&login(&uri, &password, &["--mfa-file", kept.path()]));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(kept.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others may read it");
    }
}

#[test]
fn words_and_journeys_follow_each_other_in_the_order_of_their_flags() {
    let ((grid, uri), password) =
        (grid_of("flag-g.toml", ""), PasswordFile::new("flag-g", "sesame"));
    let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--json"];
    let say = ["--say", "one", "--say", "two"];
    let go = ["--teleport", "Gamma/100/100/25", "--teleport", "Beta/9/8/25", "--for", "8"];
    let file = ["--password-file", password.path()];
    let lines = was_in(&run(&[&args[..], &file, &say, &go].concat()));
    let own = told(&lines, "chat").into_iter().filter(|chat| chat["from"] == "Ruth Tester");
    let said: Vec<_> = own.map(|chat| &chat["text"]).filter(|text| **text != "").collect();
    assert_eq!(said, ["one", "two"]);
    let journeys: Vec<_> =
        told(&lines, "region_entered").iter().map(|line| line["journey"].clone()).collect();
    assert_eq!(journeys, ["login", "teleport", "teleport"]);
    assert_eq!(lines.last().unwrap()["teleports"], 2);
    let regions = ["Alpha", "Gamma", "Beta"];
    assert_eq!(arrivals(grid), regions.map(|region| json!(["Ruth Tester", region])));
}

#[test]
fn who_walks_leaves_the_place_and_who_does_not_stays() {
    // A metre from the border, which the first leg crosses.
    let start = ["--start", "Alpha/254/128/25", "--for", "4"];
    let password = PasswordFile::new("flag-h", "sesame");
    for (more, crossings) in [(&["--walk"][..], 1), (&[], 0)] {
        let (_grid, uri) = grid_of("flag-h.toml", "");
        let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--json"];
        let file = ["--password-file", password.path()];
        let lines = was_in(&run(&[&args[..], &file, &start, more].concat()));
        assert_eq!(lines.last().unwrap()["crossings"], crossings, "{more:?}: {lines:?}");
    }
}

#[test]
fn a_session_lasts_as_long_as_it_is_told() {
    let ((_grid, uri), password) =
        (grid_of("flag-i.toml", ""), PasswordFile::new("flag-i", "sesame"));
    let args = ["viewer", "login", "--grid", &uri, "--user", "Ruth Tester", "--json"];
    let args = [&args[..], &["--password-file", password.path()]].concat();
    let stay = |lines: &[Value]| {
        let at = |line: &Value| line["ms"].as_u64().unwrap();
        at(lines.last().unwrap()) - at(told(lines, "connected")[0])
    };
    let lines = was_in(&run(&[&args[..], &["--for", "3"]].concat()));
    assert!(stay(&lines) >= 3_000, "{lines:?}");
    assert_eq!(lines.last().unwrap()["disconnect_reason"], "logged out");
    // Without it nothing but a signal ends it.
    let mut viewer = Running::start(&args);
    viewer.line(|line| line.contains("\"connected\""));
    viewer.signal(Signal::TERM);
    was_in_at_the_end(&viewer.end());
}

/// Asserts that a session ended well of which the beginning was read already.
fn was_in_at_the_end(ended: &Ended) {
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(lines(&ended.stdout).last().unwrap()["disconnect_reason"], "logged out");
}

#[test]
fn names_of_messages_are_told_to_who_asks() {
    let ((_grid, uri), password) =
        (grid_of("flag-j.toml", ""), PasswordFile::new("flag-j", "sesame"));
    assert!(told(&was_in(&login(&uri, &password, &[])), "message").is_empty());
    let lines = was_in(&login(&uri, &password, &["--messages"]));
    let messages = told(&lines, "message");
    assert!(messages.iter().any(|line| line["name"] == "RegionHandshake"), "{messages:?}");
    let summary = lines.last().unwrap();
    assert!(summary["messages_in"].as_u64().unwrap() >= messages.len() as u64, "{summary}");
}

/// A region that is gone sends an avatar away in its last words: from its address, so that the
/// viewer believes it.
fn send_away(region: SocketAddr, viewer: SocketAddr) {
    let socket = UdpSocket::bind(region).unwrap();
    let mut out = [0; 64];
    for number in 2_000..2_003 {
        let (flags, number) = (Flags::NONE, Sequence(number));
        let message = DisableSimulator::default();
        let len = Encoder::default().packet(&mut out, flags, number, &message).unwrap();
        socket.send_to(&out[..len], viewer).unwrap();
    }
}

#[test]
fn who_loses_the_region_tries_again_unless_told_not_to() {
    let password = PasswordFile::new("flag-k", "sesame");
    for again in [true, false] {
        let (grid, ready) = grid::start(&["--user", "Ruth Tester:sesame"]);
        let uri = ready["login_uri"].as_str().unwrap();
        let region: SocketAddr = ready["regions"][0]["addr"].as_str().unwrap().parse().unwrap();
        let args = ["viewer", "login", "--grid", uri, "--user", "Ruth Tester", "--json"];
        let more = if again { &[][..] } else { &["--no-reconnect"] };
        let file = ["--password-file", password.path()];
        let mut viewer = Running::start(&[&args[..], &file, more].concat());
        let opened = viewer.line(|line| line.contains("\"socket_opened\""));
        let opened: Value = serde_json::from_str(&opened).unwrap();
        let local: SocketAddr = opened["local"].as_str().unwrap().parse().unwrap();
        let local = SocketAddr::from(([127, 0, 0, 1], local.port()));
        viewer.line(|line| line.contains("\"connected\""));
        grid.signal(Signal::KILL);
        grid.end();
        send_away(region, local);
        if again {
            let planned = viewer.line(|line| line.contains("\"reconnect_planned\""));
            let planned: Value = serde_json::from_str(&planned).unwrap();
            assert_eq!(planned["attempt"], 1, "{planned}");
            viewer.signal(Signal::INT);
        }
        let ended = viewer.end();
        assert_eq!(ended.code(), Some(u8::from(!again).into()), "{ended:?}");
        let planned = ended.stdout.contains("\"reconnect_planned\"");
        assert_eq!(planned, again, "{ended:?}");
    }
}

#[test]
fn values_that_cannot_be_are_refused_with_their_flag() {
    let password = PasswordFile::new("flag-l", "sesame");
    let open = Scratch::with("flag-l.open", "sesame");
    let broken = Scratch::with("flag-l.mfa", "no tab in this line\n");
    let args = ["viewer", "login", "--grid", "127.0.0.1:9", "--user", "Ruth Tester"];
    let file = ["--password-file", password.path()];
    for (more, words) in [
        (&["--grid", "ftp://a"][..], &["--grid", "http and https"][..]),
        (&["--user", "a b c"], &["--user", "one or two words"]),
        (&["--password-file", "/nowhere"], &["--password-file", "cannot be read"]),
        (&["--start", "Alpha/1/2"], &["--start", "Alpha/128/128/25"]),
        (&["--start", "nowhere"], &["--start", "`home`"]),
        (&["--proxy", "gopher://a"], &["--proxy", "gopher"]),
        (&["--proxy", "socks5://"], &["--proxy"]),
        (&["--ca", "/nowhere"], &["--ca"]),
        (&["--ca", broken.path()], &["--ca"]),
        (&["--ca", "a", "--no-certificate-checks"], &["--ca", "--no-certificate-checks"]),
        (&["--mfa-code", ""], &["--mfa-code"]),
        (&["--mfa-file", broken.path()], &["--mfa-file", "line 1"]),
        (&["--teleport", "Alpha/1/2/x"], &["--teleport", "Alpha/128/128/25"]),
        (&["--for", "0"], &["--for", "1..=31536000"]),
        (&["--for", "soon"], &["--for", "soon"]),
        (&["--messages"], &["--json"]),
        (&["--say"], &["--say"]),
        (&["--walk=fast"], &["--walk"]),
        (&["--capture", "a"], &["--capture"]),
    ] {
        // Most flags may come once: the good value of one goes where its bad one comes.
        let good = |pair: &&[&str]| pair[0] != more[0];
        let kept = args[2..].chunks(2).chain([&file[..]]).filter(good).flatten();
        let kept: Vec<&str> = args[..2].iter().chain(kept).copied().collect();
        run(&[&kept[..], more].concat()).assert_refusal(words);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let others = ["--password-file", open.path()];
        run(&[&args[..], &others].concat()).assert_refusal(&["--password-file", "chmod 600"]);
    }
}
