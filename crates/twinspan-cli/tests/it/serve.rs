//! `twinspan serve` with `keys`, `token` and `bots`, as somebody with several terminals runs them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use prometheus_parse::{Scrape, Value};
use rustix::process::Signal;
use twinspan_admission::DEFAULT_RULES;

use crate::command::{Running, run};
use crate::demo::has_two_cores;

/// A folder of a test's own, which is gone when the test is over.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("twinspan-serve-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The name of a file in it.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let file = self.file(name);
        fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans up temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server with keys and rules of its own.
struct Service {
    folder: Folder,
    server: Running,
    address: String,
    figures: String,
}

impl Service {
    fn start(more: &str) -> Self {
        let folder = Folder::new();
        let keys = folder.file("keys.toml");
        assert_eq!(run(&["keys", "new", &keys]).code(), Some(0));
        assert_eq!(run(&["keys", "new", &folder.file("before.toml")]).code(), Some(0));
        folder.write("rules.toml", DEFAULT_RULES);
        let config = folder.write(
            "serve.toml",
            &format!(
                "listen = \"127.0.0.1:0\"\nkeys = \"keys.toml\"\nrules = \"rules.toml\"\n\
                 metrics = \"127.0.0.1:0\"\nmetrics_hosts = [\"game.internal\"]\n{more}\n\
                 [session]\nplayers_max = 40\n"
            ),
        );
        let mut server = Running::start(&["serve", "--config", &config]);
        let ready = server.line(|line| line.starts_with("serving "));
        let address = ready.split(' ').nth(1).unwrap().to_owned();
        let (_, figures) = ready.trim().split_once("figures at http://").unwrap();
        let figures = figures.strip_suffix("/metrics").unwrap().to_owned();
        Self { folder, server, address, figures }
    }

    fn bots(&self, more: &[&str]) -> Running {
        let keys = self.folder.file("keys.toml");
        let mut args = vec!["bots", "--keys", &keys, "--server", &self.address];
        args.extend(more);
        Running::start(&args)
    }

    /// The reply to a request for the figures, as it came.
    fn get(&self, path: &str, host: &str) -> String {
        let mut stream = TcpStream::connect(&self.figures).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    fn scrape(&self) -> Scrape {
        let reply = self.get("/metrics", &self.figures);
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert!(reply.contains("content-type: text/plain; version=0.0.4"), "{reply}");
        let (_, body) = reply.split_once("\r\n\r\n").unwrap();
        Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).unwrap()
    }

    /// Scrapes until a value is as wanted: figures are published once a second.
    fn wait_for(&self, name: &str, label: &str, wanted: impl Fn(f64) -> bool) {
        while !wanted(value(&self.scrape(), name, label)) {
            std::thread::yield_now();
        }
    }
}

/// A counter or gauge, the one with a label of this text where there are several.
fn value(scrape: &Scrape, name: &str, label: &str) -> f64 {
    let has_label = |labels: &prometheus_parse::Labels| {
        label.is_empty() || labels.values().any(|text| text == label)
    };
    let mut found = scrape.samples.iter().filter(|s| s.metric == name && has_label(&s.labels));
    match found.next().map(|sample| &sample.value) {
        Some(Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value)) => *value,
        Some(Value::Histogram(buckets)) => buckets.last().map_or(0.0, |bucket| bucket.count),
        other => panic!("{name} {label} is {other:?}"),
    }
}

/// The number before a word of a line.
pub(crate) fn number(line: &str, word: &str) -> u64 {
    let (before, _) = line.split_once(word).unwrap_or_else(|| panic!("no {word:?} in {line:?}"));
    before.trim().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn bots_play_figures_are_read_and_the_end_loses_no_reliable_message() {
    let mut service = Service::start("");
    let mut bots = service.bots(&["--bots", "20"]);
    bots.line(|line| line.contains("20 of 20 bots in the world"));
    service.wait_for("twinspan_sessions", "", |sessions| sessions == 20.0);
    service.wait_for("twinspan_reliable_messages_total", "in", |messages| messages > 20.0);
    let scrape = service.scrape();
    assert_eq!(value(&scrape, "twinspan_handshakes_total", "accept"), 20.0);
    for (name, label) in [
        ("twinspan_datagrams_received_total", ""),
        ("twinspan_sent_bytes_total", ""),
        ("twinspan_ticks_total", ""),
        ("twinspan_state_period_ticks", ""),
        ("twinspan_tick_seconds", ""),
        ("twinspan_input_latency_seconds", ""),
        ("twinspan_inputs_total", ""),
        ("process_resident_memory_bytes", ""),
        ("process_cpu_seconds_total", ""),
        ("twinspan_socket_info", "clients"),
    ] {
        assert!(value(&scrape, name, label) > 0.0, "{name}");
    }
    for (name, label) in [
        ("twinspan_draining", ""),
        ("twinspan_datagrams_dropped_total", "not_authentic"),
        ("twinspan_rule_actions_total", "handshakes-v4-address"),
        ("twinspan_rule_actions_total", "movement"),
        ("twinspan_messages_malformed_total", "kind"),
    ] {
        assert_eq!(value(&scrape, name, label), 0.0, "{name} {label}");
    }
    service.server.signal(Signal::TERM);
    service.server.line(|line| line.starts_with("draining 20 players"));
    let ended = bots.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let told = ended.stdout.lines().last().unwrap();
    assert!(told.ends_with("; server draining 20"), "{told}");
    let server = service.server.end();
    assert_eq!(server.code(), Some(0), "{server:?}");
    let line = server.stdout.lines().last().unwrap();
    assert_eq!(number(line, "not acknowledged"), 0, "{line}");
    let (sent, received) = (" reliable messages sent", " received");
    assert!(number(line, sent) > 0 && number(line, received) > 0, "{line}");
    assert_eq!(number(line, sent), number(told, received), "{line} {told}");
    assert_eq!(number(line, received), number(told, sent), "{line} {told}");
}

#[test]
fn a_server_on_two_cores_is_told_apart_by_its_figures_alone() {
    if !has_two_cores() {
        return;
    }
    let mut service = Service::start("cores = 2");
    let mut bots = service.bots(&["--bots", "20"]);
    bots.line(|line| line.contains("20 of 20 bots in the world"));
    service.wait_for("twinspan_sessions", "", |sessions| sessions == 20.0);
    let scrape = service.scrape();
    assert!(value(&scrape, "twinspan_links_strays_total", "") >= 0.0);
    for name in ["strays_dropped", "inputs_dropped", "words_dropped"] {
        assert_eq!(value(&scrape, &format!("twinspan_links_{name}_total"), ""), 0.0, "{name}");
    }
    // Rules reach both cores.
    let banned = DEFAULT_RULES.replace("banned_users = []", "banned_users = [2, 3, 4, 5, 6]");
    service.folder.write("rules.toml", &banned);
    service.server.signal(Signal::HUP);
    service.server.line(|line| line.starts_with("rules of ") && line.contains("in force"));
    service.wait_for("twinspan_sessions", "", |sessions| sessions == 15.0);
    service.server.signal(Signal::TERM);
    service.server.line(|line| line.starts_with("draining 15 players"));
    let told = bots.end().stdout;
    assert!(told.contains("server draining 15"), "{told}");
    let server = service.server.end();
    assert_eq!(server.code(), Some(0), "{server:?}");
    let line = server.stdout.lines().last().unwrap();
    assert_eq!(number(line, "not acknowledged"), 0, "{line}");
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let mut service = Service::start("drain_s = 3600");
    let mut bots = service.bots(&["--bots", "3"]);
    bots.line(|line| line.contains("3 of 3 bots in the world"));
    // Bots that neither hear nor answer: without the second signal this would take an hour.
    bots.signal(Signal::STOP);
    service.wait_for("twinspan_sessions", "", |sessions| sessions == 3.0);
    service.server.signal(Signal::INT);
    service.server.line(|line| line.starts_with("draining 3 players"));
    service.wait_for("twinspan_draining", "", |draining| draining == 1.0);
    service.server.signal(Signal::TERM);
    assert_eq!(service.server.end().code(), Some(128 + 15));
}

#[test]
fn rules_are_read_again_and_wrong_ones_leave_the_old_in_force() {
    let mut service = Service::start("");
    let banned = DEFAULT_RULES.replace("banned_users = []", "banned_users = [2]");
    service.folder.write("rules.toml", &banned);
    service.server.signal(Signal::HUP);
    service.server.line(|line| line.starts_with("rules of ") && line.contains("in force"));
    service.wait_for("twinspan_rules_replaced_total", "", |count| count == 1.0);
    let ended = service.bots(&["--bots", "3", "--seconds", "1"]).end();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stdout.contains("2 of 3 bots played"), "{ended:?}");
    assert!(ended.stdout.contains("refused: banned 1"), "{ended:?}");
    service.folder.write("rules.toml", &banned.replacen("[[message]]", "[[mesage]]", 1));
    service.server.signal(Signal::HUP);
    let told = service.server.error_line(|line| line.contains("the rules in force stay"));
    assert!(told.contains("unknown key `mesage`; did you mean `message`?"), "{told}");
    assert!(told.contains("rules.toml line "), "{told}");
    service.wait_for("twinspan_reloads_refused_total", "", |count| count == 1.0);
    service.wait_for("twinspan_handshakes_total", "refused_banned", |count| count == 1.0);
    service.wait_for("twinspan_rule_actions_total", "banned-users", |count| count == 1.0);
    service.server.signal(Signal::TERM);
    assert_eq!(service.server.end().code(), Some(0));
}

/// A token for user `user` under the keys of `file`.
fn token(service: &Service, file: &str, user: &str) -> String {
    let keys = service.folder.file(file);
    let args = ["token", "--server", &service.address, "--user", user, "--key-file", &keys];
    let made = run(&args);
    assert_eq!(made.code(), Some(0), "{made:?}");
    made.stdout
}

#[test]
fn keys_rotate_while_players_play_and_old_tokens_last_until_the_next_time() {
    let mut service = Service::start("");
    let keys = service.folder.file("keys.toml");
    let mut bots = service.bots(&["--bots", "2"]);
    bots.line(|line| line.contains("2 of 2 bots in the world"));
    let old: String = ["50", "51"].map(|user| token(&service, "keys.toml", user)).concat();
    let (first, second) = old.split_at(old.len() / 2);
    for (number, old_works) in [(1, true), (2, false)] {
        fs::rename(&keys, service.folder.file(&format!("old-{number}.toml"))).unwrap();
        assert_eq!(run(&["keys", "new", &keys]).code(), Some(0));
        service.server.signal(Signal::HUP);
        service.server.line(|line| line.starts_with("keys of ") && line.contains("are in use"));
        // The new ones are taken within a tick, but the figures tell of it only by what they do.
        let fresh = service.folder.write("fresh", &token(&service, "keys.toml", "60"));
        let visit = |file: &str| run(&["bots", "--token-file", file, "--seconds", "1"]);
        let played = visit(&fresh);
        assert_eq!(played.code(), Some(0), "{played:?}");
        let with_old = service.folder.write("old", if number == 1 { first } else { second });
        let played = visit(&with_old);
        let wanted = if old_works { "1 of 1 bots played" } else { "0 of 1 bots played" };
        assert!(played.stdout.contains(wanted), "{number}: {played:?}");
    }
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    service.server.signal(Signal::HUP);
    let told = service.server.error_line(|line| line.contains("the keys in use stay"));
    assert!(told.contains("can be read by others"), "{told}");
    // Those who played all the time did not notice.
    bots.signal(Signal::INT);
    let ended = bots.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[test]
fn keys_retire_at_a_signal_and_bans_come_from_their_file() {
    let folder = Folder::new();
    let bans = folder.write("bans", "9 99999999999\n8 1\n10 9999");
    let mut service =
        Service::start(&format!("previous_keys = \"before.toml\"\nbans_file = \"{bans}\""));
    assert_eq!(fs::read_to_string(&bans).unwrap(), "9 99999999999\n8 1\n", "the torn line is gone");
    let visit = |keys: &str, user: &str| {
        let file = service.folder.write("token", &token(&service, keys, user));
        let played = run(&["bots", "--token-file", &file, "--seconds", "1"]);
        played.stdout.contains("1 of 1 bots played")
    };
    assert!(visit("before.toml", "7"));
    assert!(visit("keys.toml", "8"), "its ban is over");
    assert!(!visit("keys.toml", "9"), "it is banned");
    service.server.signal(Signal::USR1);
    service.server.line(|line| line.starts_with("tokens under the keys before the present ones"));
    let visit = |keys: &str, user: &str| {
        let file = service.folder.write("token", &token(&service, keys, user));
        let played = run(&["bots", "--token-file", &file, "--seconds", "1"]);
        played.stdout.contains("1 of 1 bots played")
    };
    // It is taken within a tick, and a token under the present keys proves that one has passed.
    assert!(visit("keys.toml", "11"));
    assert!(!visit("before.toml", "12"));
}

#[test]
fn a_server_that_starts_with_new_keys_takes_tokens_under_the_previous_ones() {
    let service = Service::start("previous_keys = \"before.toml\"");
    let file = service.folder.write("token", &token(&service, "before.toml", "7"));
    let played = run(&["bots", "--token-file", &file, "--seconds", "1"]);
    assert_eq!(played.code(), Some(0), "{played:?}");
}

#[test]
fn figures_are_told_under_own_names_alone() {
    let service = Service::start("");
    assert!(service.get("/metrics", "game.internal:9100").starts_with("HTTP/1.1 200"));
    assert!(service.get("/metrics", "evil.example").starts_with("HTTP/1.1 403"));
    assert!(service.get("/", &service.figures).starts_with("HTTP/1.1 404"));
    assert!(service.get("/healthz", &service.figures).ends_with("\r\n\r\nok\n"));
}

#[test]
fn tokens_let_their_users_in_once() {
    let service = Service::start("");
    let keys = service.folder.file("keys.toml");
    let login = service.folder.file("login.toml");
    assert_eq!(run(&["keys", "login", &keys, &login]).code(), Some(0));
    let args = ["token", "--server", &service.address, "--user", "5", "--count", "3"];
    let made = run(&[&args[..], &["--key-file", &login]].concat());
    assert_eq!((made.code(), made.stdout.lines().count()), (Some(0), 3), "{}", made.stderr);
    let file = service.folder.write("tokens", &made.stdout);
    let played = run(&["bots", "--token-file", &file, "--seconds", "1"]);
    assert_eq!(played.code(), Some(0), "{played:?}");
    assert!(played.stdout.contains("3 of 3 bots played"), "{played:?}");
    let again = run(&["bots", "--token-file", &file, "--seconds", "1"]);
    assert_eq!(again.code(), Some(1), "{again:?}");
    assert!(again.stdout.contains("refused: token spent 3"), "{again:?}");
    let cut = service.folder.write("cut", &made.stdout[..100]);
    run(&["bots", "--token-file", &cut]).assert_refusal(&[&cut, "line 1", "50 bytes where 218"]);
    let empty = service.folder.write("empty", "");
    run(&["bots", "--token-file", &empty]).assert_refusal(&["0 tokens, not 1 to 20000"]);
}

#[test]
fn key_files_are_their_owner_s_and_never_written_over() {
    let folder = Folder::new();
    let keys = folder.file("keys.toml");
    let made = run(&["keys", "new", &keys]);
    assert_eq!(made.code(), Some(0), "{made:?}");
    let mode = |file: &str| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&keys), 0o600);
    let text = fs::read_to_string(&keys).unwrap();
    for line in text.lines().filter(|line| line.contains('"')) {
        let secret = line.split('"').nth(1).unwrap();
        assert!(!made.stdout.contains(secret), "{}", made.stdout);
    }
    run(&["keys", "new", &keys]).assert_refusal(&["is there already", "never written over"]);
    assert_eq!(fs::read_to_string(&keys).unwrap(), text);
    assert_eq!(run(&["keys", "show", &keys]).code(), Some(0));
    let token = ["token", "--server", "127.0.0.1:1", "--user", "1", "--key-file", &keys];
    for open in [0o640, 0o604, 0o622] {
        fs::set_permissions(&keys, fs::Permissions::from_mode(open)).unwrap();
        let words = ["can be read by others", "chmod 600", &format!("{open:04o}")];
        run(&token).assert_refusal(&words);
    }
    let missing = folder.file("none.toml");
    run(&["keys", "show", &missing]).assert_refusal(&["no key file", "twinspan keys new"]);
}

#[test]
fn a_configuration_that_cannot_be_used_is_explained() {
    let folder = Folder::new();
    let keys = folder.file("keys.toml");
    assert_eq!(run(&["keys", "new", &keys]).code(), Some(0));
    assert_eq!(run(&["keys", "login", &keys, &folder.file("login.toml")]).code(), Some(0));
    let least = "listen = \"127.0.0.1:0\"\nkeys = \"keys.toml\"\n";
    for (text, words) in [
        (
            "listn = \"127.0.0.1:0\"\n".to_owned(),
            &["line 1", "`listn`", "did you mean `listen`?"][..],
        ),
        (format!("{least}drain_s = 5000\n"), &["line 3", "`drain_s` is 5000", "from 0 to 3600"]),
        (format!("{least}rules = \"none.toml\"\n"), &["cannot read", "none.toml"]),
        (format!("{least}[world]\nside_m = 1e9\n"), &["1000000000", "choose"]),
        (least.replace("keys.toml", "gone.toml"), &["no key file", "twinspan keys new"]),
        (least.replace("keys.toml", "login.toml"), &["is for a login service"]),
        (least.replace("127.0.0.1:0", "192.0.2.1:0"), &["192.0.2.1:0", "`listen`"]),
        (format!("{least}metrics = \"192.0.2.1:0\"\n"), &["192.0.2.1:0", "`metrics`"]),
    ] {
        let config = folder.write("serve.toml", &text);
        let ended = run(&["serve", "--config", &config]);
        ended.assert_refusal(words);
    }
    run(&["serve", "--config", &folder.file("no.toml")])
        .assert_refusal(&["cannot read", "no.toml"]);
    let config = folder.write("serve.toml", least);
    let printed = run(&["serve", "--config", &config, "--print-config"]);
    assert_eq!(printed.code(), Some(0));
    assert!(printed.stdout.contains("players_max = 1000"), "{}", printed.stdout);
    let again = Path::new(&folder.file("serve.toml")).with_file_name("again.toml");
    fs::write(&again, &printed.stdout).unwrap();
    let same = run(&["serve", "--config", again.to_str().unwrap(), "--print-config"]);
    assert_eq!(same.stdout, printed.stdout);
}
