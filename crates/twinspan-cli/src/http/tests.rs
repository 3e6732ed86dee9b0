//! The web side over real sockets, asked as browsers and as attackers ask.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use twinspan_core::link::Conditions;

use super::*;

/// Long enough for any machine; only a test that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A board with two players, one NPC and a running server before it.
struct Subject {
    board: Arc<Board>,
    server: HttpServer,
    asked: Arc<Mutex<Vec<Conditions>>>,
}

impl Subject {
    fn start() -> Self {
        let board = Arc::new(Board::new());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        board.publish_world(world(60));
        let server = HttpServer::start(
            "127.0.0.1:0".parse().unwrap(),
            Arc::clone(&board),
            Box::new(move |conditions| told.lock().unwrap().push(conditions)),
        )
        .unwrap();
        Self { board, server, asked }
    }

    fn addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    fn asked(&self) -> Vec<Conditions> {
        self.asked.lock().unwrap().clone()
    }

    /// Sends raw bytes and reads the reply to its end.
    fn talk(&self, request: &str) -> Reply {
        let mut stream = dial(self.addr());
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Reply::parse(&text)
    }

    fn get(&self, path: &str) -> Reply {
        let host = self.addr();
        self.talk(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    }

    fn post(&self, headers: &str, body: &str) -> Reply {
        let (host, length) = (self.addr(), body.len());
        self.talk(&format!(
            "POST /api/conditions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        ))
    }

    fn post_json(&self, body: &str) -> Reply {
        self.post("Content-Type: application/json\r\n", body)
    }

    fn follow(&self) -> Feed {
        Feed::open(dial(self.addr())).unwrap()
    }
}

fn dial(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn world(tick: u32) -> WorldFrame {
    let dot = |id, kind, x, z| EntityDot { id, kind, x, z, yaw: 0.0, flags: 0, health: 100 };
    WorldFrame {
        tick,
        side: 128.0,
        cell: 32.0,
        entities: vec![dot(7, 0, 10.0, 10.0), dot(8, 0, 100.0, 100.0), dot(9, 1, 40.0, 10.0)],
        // Player 7 is subscribed to the cells (0, 0) and (1, 0).
        interests: vec![InterestRow { id: 7, base_x: 0, base_z: 0, mask: 0b11 }],
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a body in JSON")
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().expect("a reason").to_owned()
    }
}

/// A reader of `/events`; speaks HTTP/1.0, so that no chunks stand between the lines.
struct Feed {
    lines: BufReader<TcpStream>,
}

impl Feed {
    /// Opens the feed, or gives the refusal's status line.
    fn open(mut stream: TcpStream) -> Result<Self, String> {
        stream.write_all(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut status = String::new();
        lines.read_line(&mut status).unwrap();
        if !status.contains(" 200 ") {
            return Err(status);
        }
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the head ended early");
        }
        Ok(Self { lines })
    }

    /// The next event, or nothing when the feed ends.
    fn next(&mut self) -> Option<(String, Value)> {
        let (mut name, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(word) = line.strip_prefix("event: ") {
                name = word.trim_end().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).unwrap()));
            }
        }
    }

    fn next_of(&mut self, wanted: &str) -> Value {
        loop {
            let (name, data) = self.next().expect("the feed goes on");
            if name == wanted {
                return data;
            }
        }
    }
}

#[test]
fn the_page_is_one_document_under_a_strict_policy() {
    let reply = Subject::start().get("/");
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("content-type: text/html; charset=utf-8"));
    assert!(
        reply.head.contains("content-security-policy: default-src 'none'; script-src 'sha256-")
    );
    assert_eq!(reply.body, page::DOCUMENT);
}

#[test]
fn every_reply_carries_the_protective_headers() {
    let subject = Subject::start();
    let foreign = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let replies =
        [subject.get("/"), subject.get("/nothing"), subject.post("", ""), subject.talk(foreign)];
    for reply in replies {
        for header in [
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
            "frame-ancestors 'none'",
        ] {
            assert!(reply.head.contains(header), "{header} is not in {}", reply.head);
        }
        assert!(!reply.head.contains("access-control-"), "{}", reply.head);
    }
}

#[test]
fn an_ordinary_client_is_served_too() {
    let subject = Subject::start();
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    let url = format!("http://{}/healthz", subject.addr());
    let body = agent.get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    assert_eq!(body, "ok\n");
}

#[test]
fn the_snapshot_counts_what_the_board_holds() {
    let subject = Subject::start();
    subject.board.publish_metrics(MetricsFrame { second: 3, ..MetricsFrame::default() });
    let row = SessionRow { cipher: "Test", ..SessionRow::default() };
    subject.board.publish_sessions(vec![row]);
    let snapshot = subject.get("/api/snapshot").json();
    for (key, value) in [
        ("tick", json!(60)),
        ("entities", json!(3)),
        ("players", json!(2)),
        ("npcs", json!(1)),
        ("projectiles", json!(0)),
        ("sessions", json!(1)),
        ("cipher", json!("Test")),
        ("event_readers", json!(0)),
    ] {
        assert_eq!(snapshot[key], value, "{key}");
    }
    assert_eq!(snapshot["metrics"]["second"], 3);
    assert_eq!(snapshot["conditions"]["preset"], "clean");
}

#[test]
fn an_area_of_interest_is_its_cells_and_the_others_in_them() {
    let reply = Subject::start().get("/api/aoi/7");
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({ "id": 7, "kind": 0, "tick": 60, "cells": [[0, 0], [1, 0]], "visible": [9] })
    );
}

#[test]
fn an_area_nobody_has_is_explained() {
    let subject = Subject::start();
    for (path, status, said) in [
        ("/api/aoi/5", 404, "there is no entity 5"),
        ("/api/aoi/9", 404, "entity 9 has no area of interest: only players have one"),
        ("/api/aoi/seven", 400, "an entity's id is a number below 2^32"),
        ("/api/aoi/4294967296", 400, "an entity's id is a number below 2^32"),
        ("/api/aoi/-1", 400, "an entity's id is a number below 2^32"),
    ] {
        let reply = subject.get(path);
        assert_eq!((reply.status, reply.error().as_str()), (status, said), "{path}");
    }
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    let subject = Subject::start();
    assert_eq!(subject.get("/index.html").status, 404);
    assert_eq!(subject.get("/api/conditions").status, 405);
    let host = subject.addr();
    let delete =
        subject.talk(&format!("DELETE / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    assert_eq!(delete.status, 405);
}

#[test]
fn a_request_for_another_host_is_refused() {
    let subject = Subject::start();
    let ask = |hosts: &str| {
        subject.talk(&format!("GET /api/snapshot HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n"))
    };
    for host in ["evil.example", "evil.example:7777", "localhost.evil.example", "192.0.2.1"] {
        assert_eq!(ask(&format!("Host: {host}\r\n")).status, 403, "{host}");
    }
    for host in ["localhost", "localhost:7777", "127.0.0.1", "[::1]:7777"] {
        assert_eq!(ask(&format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    assert_eq!(ask("").status, 400);
    assert_eq!(ask("Host: localhost\r\nHost: evil.example\r\n").status, 400);
}

#[test]
fn conditions_reach_the_demo_and_the_board() {
    let subject = Subject::start();
    let body = r#"{"loss":0.25,"delay_ms":40,"jitter_ms":10,"duplicate":0,"reorder":0}"#;
    let reply = subject.post_json(body);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["now"]["loss"], 0.25);
    let wanted = Conditions {
        loss: 0.25,
        delay: Duration::from_millis(40),
        jitter: Duration::from_millis(10),
        ..Conditions::CLEAN
    };
    assert_eq!(subject.asked(), [wanted]);
    assert_eq!(subject.board.conditions(), wanted);
}

#[test]
fn a_preset_reaches_the_demo_whole() {
    let subject = Subject::start();
    let reply = subject.post_json(r#"{"preset":"mobile"}"#);
    assert_eq!(reply.json()["preset"], "mobile");
    assert_eq!(subject.asked(), [Conditions::MOBILE]);
}

#[test]
fn refused_conditions_change_nothing() {
    let subject = Subject::start();
    for (body, said) in [
        ("{", "the body is not JSON"),
        (r#"{"preset":"moon"}"#, "unknown preset"),
        (r#"{"loss":0.1}"#, "delay_ms is missing"),
        (
            r#"{"loss":-0.1,"delay_ms":0,"jitter_ms":0,"duplicate":0,"reorder":0}"#,
            "loss must be between 0 and 1, got -0.1",
        ),
    ] {
        let reply = subject.post_json(body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.error().contains(said), "{}", reply.error());
    }
    assert_eq!(subject.asked(), []);
    assert_eq!(subject.board.conditions(), Conditions::CLEAN);
}

#[test]
fn a_form_that_another_page_could_send_is_refused() {
    let subject = Subject::start();
    let body = r#"{"preset":"mobile"}"#;
    assert_eq!(subject.post("", body).status, 415);
    assert_eq!(subject.post("Content-Type: text/plain\r\n", body).status, 415);
    let json = "Content-Type: application/json\r\n";
    for origin in ["http://evil.example", "null", "http://localhost:1"] {
        let reply = subject.post(&format!("{json}Origin: {origin}\r\n"), body);
        assert_eq!(reply.status, 403, "{origin}");
    }
    assert_eq!(subject.asked(), []);
    let own = format!("{json}Origin: http://{}\r\n", subject.addr());
    assert_eq!(subject.post(&own, body).status, 200);
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let subject = Subject::start();
    let fits = format!("{{\"preset\":\"wifi\"}}{}", " ".repeat(BODY_BYTES_MAX - 17));
    assert_eq!(fits.len(), BODY_BYTES_MAX);
    assert_eq!(subject.post_json(&fits).status, 200);
    assert_eq!(subject.post_json(&format!("{fits} ")).status, 413);
    assert_eq!(subject.asked().len(), 1);
}

#[test]
fn a_new_reader_gets_everything_there_is() {
    let subject = Subject::start();
    for second in 0..3 {
        subject.board.publish_metrics(MetricsFrame { second, ..MetricsFrame::default() });
    }
    let mut feed = subject.follow();
    let mut seen: Vec<(String, Value)> = (0..4).map(|_| feed.next().unwrap()).collect();
    seen.sort_by(|left, right| left.0.cmp(&right.0));
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["conditions", "metrics", "sessions", "world"]);
    assert_eq!(seen[0].1["preset"], "clean");
    assert_eq!(seen[1].1.as_array().unwrap().len(), 3);
    assert_eq!(seen[2].1["rows"], json!([]));
    assert_eq!(seen[3].1["tick"], 60);
    assert_eq!(seen[3].1["e"].as_array().unwrap().len(), 3 * 7);
}

#[test]
fn a_reader_hears_of_each_second_once() {
    let subject = Subject::start();
    let mut feed = subject.follow();
    assert_eq!(feed.next_of("metrics"), json!([]));
    for second in 0..5 {
        subject.board.publish_metrics(MetricsFrame { second, ..MetricsFrame::default() });
    }
    let mut seconds = Vec::new();
    while seconds.len() < 5 {
        let frames = feed.next_of("metrics");
        seconds.extend(frames.as_array().unwrap().iter().map(|frame| frame["second"].clone()));
    }
    assert_eq!(seconds, [0, 1, 2, 3, 4].map(|second| json!(second)));
}

#[test]
fn a_change_of_conditions_is_told_to_every_page() {
    let subject = Subject::start();
    let mut feeds = [subject.follow(), subject.follow()];
    for feed in &mut feeds {
        assert_eq!(feed.next_of("conditions")["preset"], "clean");
    }
    subject.post_json(r#"{"preset":"wifi"}"#);
    for feed in &mut feeds {
        assert_eq!(feed.next_of("conditions")["preset"], "wifi");
    }
}

#[test]
fn one_reader_too_many_is_turned_away_until_another_leaves() {
    let subject = Subject::start();
    let mut feeds: Vec<Feed> = (0..EVENT_READERS_MAX).map(|_| subject.follow()).collect();
    let refused = Feed::open(dial(subject.addr()));
    assert!(refused.is_err_and(|status| status.contains(" 503 ")));
    assert_eq!(subject.get("/healthz").status, 200);
    feeds.pop();
    // The server learns of the loss when it next writes: publish until it has.
    for tick in 0.. {
        subject.board.publish_world(world(tick));
        if let Ok(mut feed) = Feed::open(dial(subject.addr())) {
            feed.next_of("world");
            break;
        }
    }
}

#[test]
fn a_slow_reader_skips_frames_and_ends_with_the_newest() {
    const FRAMES: u32 = 400;
    let subject = Subject::start();
    let dot = EntityDot { x: 1234.56, z: 6543.21, yaw: 270.0, health: 100, ..EntityDot::default() };
    let large = |tick| WorldFrame { tick, entities: vec![dot; 1_500], ..WorldFrame::default() };
    // A small window of its own, so that the kernels hold little between the two.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(&subject.addr().into()).unwrap();
    let slow = TcpStream::from(socket);
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut slow = Feed::open(slow).unwrap();
    let mut quick = subject.follow();
    for tick in 1..=FRAMES {
        subject.board.publish_world(large(tick));
        while quick.next_of("world")["tick"] != tick {}
    }
    let mut count = 0;
    while slow.next_of("world")["tick"] != FRAMES {
        count += 1;
    }
    assert!(count < FRAMES / 4, "the slow reader was sent {count} old frames");
}

#[test]
fn a_taken_port_is_one_clear_line() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = other.local_addr().unwrap();
    let error = HttpServer::start(addr, Arc::default(), Box::new(|_| ())).unwrap_err();
    assert_eq!(error.to_string(), format!("http address {addr} is taken by another program"));
}

#[test]
fn an_address_elsewhere_is_one_clear_line() {
    let addr = "192.0.2.1:7777".parse().unwrap();
    let error = HttpServer::start(addr, Arc::default(), Box::new(|_| ())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "http address 192.0.2.1:7777 is not an address of this machine, as 127.0.0.1 always is"
    );
}

#[test]
fn stop_ends_open_feeds_and_frees_the_port() {
    let subject = Subject::start();
    let addr = subject.addr();
    let mut feed = subject.follow();
    feed.next_of("world");
    // An idle connection must not hold the stop up either.
    let idle = dial(addr);
    subject.server.stop();
    while feed.next().is_some() {}
    drop(idle);
    let again = HttpServer::start(addr, Arc::default(), Box::new(|_| ())).unwrap();
    assert_eq!(again.local_addr(), addr);
}

#[test]
fn noise_on_the_wire_harms_nobody() {
    let subject = Subject::start();
    for noise in ["\r\n\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}\0", "GET / HTTP/9.9\r\n\r\n", "POST"] {
        let mut stream = dial(subject.addr());
        stream.write_all(noise.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        // The server may answer or hang up; both are its right.
        let _ = stream.read_to_end(&mut reply);
    }
    assert_eq!(subject.get("/healthz").body, "ok\n");
}
