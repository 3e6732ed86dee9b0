use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;

use twinspan_circuit::QueueEvent;
use twinspan_core::random::Stream;
use twinspan_lludp::Vector3;

use crate::assets;
use crate::config::{GridConfig, Guest, RegionConfig};
use crate::login::Addresses;

const CODE: u32 = 100_001;

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Bench {
    grid: Grid,
    desk: Desk,
    region: RegionId,
    bell: Arc<Bell>,
}

fn bench() -> Bench {
    let secrets = |n| Box::new(Stream::new(1, "secrets", n));
    let config = GridConfig { caps_url: "http://g".into(), ..GridConfig::default() };
    let mut grid = Grid::new(config, Stream::new(1, "grid", 0), secrets(0)).unwrap();
    let addr = ([10, 0, 0, 1], 9_000).into();
    let region = RegionConfig { name: "Alpha".into(), x: 1, y: 1, addr };
    let region = grid.add_region(region).unwrap();
    let guest = Guest::example(1);
    let middle = Vector3::new(128.0, 128.0, 22.0);
    grid.admit(Timestamp::START, guest, region, middle).unwrap();
    let login_url = "http://g/".into();
    let addresses = Addresses { ip: [10, 0, 0, 1].into(), http_port: 80, login_url };
    let login = LoginDesk::new(Vec::new(), addresses, secrets(1));
    Bench { grid, desk: Desk::new(login, "A & B".into()), region, bell: Arc::default() }
}

impl Bench {
    fn path(&mut self) -> String {
        let seed = self.grid.seed(self.region, CODE).unwrap();
        seed.url().strip_prefix("http://g").unwrap().to_owned()
    }

    fn answer(&mut self, request: &ServerRequest) -> Answer {
        self.desk.request(&mut self.grid, (Timestamp::START, 0), request)
    }

    fn ask(&mut self, method: Method, path: &str, body: &str) -> ServerResponse {
        match self.answer(&request_of(method, path, body.into())) {
            Answer::Now(response) => response,
            Answer::Later(_) => panic!("{path} waits"),
        }
    }

    fn post(&mut self, path: &str, body: &str) -> Value {
        let response = self.ask(Method::POST, path, body);
        assert_eq!(response.status, StatusCode::OK, "{path}");
        parse_any(&response.body, &LIMITS).unwrap()
    }

    fn poll(&mut self, ack: &str) -> Waiting {
        let path = format!("{}/EventQueueGet", self.path());
        let body = format!("{{'ack':{ack},'done':0}}");
        match self.answer(&request_of(Method::POST, &path, body.into())) {
            Answer::Later(waiting) => waiting,
            Answer::Now(response) => panic!("{response:?}"),
        }
    }

    fn look(&mut self, waiting: Waiting) -> Option<ServerResponse> {
        let waker = Arc::clone(&self.bell).into();
        self.desk.poll_answer(waiting, &waker)
    }

    fn tell(&mut self) {
        let addr = ([10, 0, 0, 2], 9_000).into();
        self.grid.enqueue(CODE, self.region, QueueEvent::EnableSimulator { addr, handle: 1 });
        self.desk.collect(&mut self.grid);
    }

    fn woken(&self) -> u32 {
        self.bell.0.load(Ordering::Relaxed)
    }
}

fn events(response: &ServerResponse) -> usize {
    assert_eq!(response.status, StatusCode::OK);
    let value = parse_any(&response.body, &LIMITS).unwrap();
    value.get("events").unwrap().as_array().unwrap().len()
}

#[test]
fn the_seed_tells_the_capabilities_that_there_are() {
    let mut bench = bench();
    let path = bench.path();
    let known = bench.post(&path, "['EventQueueGet','GetTexture','MadeUp',i7]");
    let map = known.as_map().unwrap();
    assert_eq!(map.keys().collect::<Vec<_>>(), ["EventQueueGet", "GetTexture"]);
    assert_eq!(map["GetTexture"], format!("http://g{path}/GetTexture").into());
    for body in ["{}", "'", "<llsd>"] {
        let status = bench.ask(Method::POST, &path, body).status;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(bench.ask(Method::GET, &path, "").status, StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn who_does_not_know_the_path_gets_nothing() {
    let mut bench = bench();
    let path = bench.path();
    let cut = &path[..path.len() - 1];
    for wrong in [
        "/cap/",
        "/cap/00000000000000000000000000000000",
        cut,
        "/nothing",
        "/cap/../",
        &format!("{path}/MadeUp"),
    ] {
        assert_eq!(bench.ask(Method::POST, wrong, "[]").status, StatusCode::NOT_FOUND, "{wrong}");
    }
    assert_eq!(bench.desk.stats.not_found, 6);
    bench.grid.kick(Timestamp::START, CODE, "out");
    assert_eq!(bench.ask(Method::POST, &path, "[]").status, StatusCode::NOT_FOUND);
}

#[test]
fn a_poll_waits_for_events_and_is_woken_by_them() {
    let mut bench = bench();
    let waiting = bench.poll("!");
    assert!(bench.look(waiting).is_none());
    assert_eq!(bench.woken(), 0);
    bench.tell();
    assert_eq!(bench.woken(), 1);
    assert_eq!(events(&bench.look(waiting).unwrap()), 1);
    let next = bench.poll("i1");
    assert!(bench.look(next).is_none());
    assert_eq!(bench.desk.poll_empty().status, StatusCode::BAD_GATEWAY);
    assert_eq!((bench.desk.stats.polls_answered, bench.desk.stats.polls_empty), (1, 1));
}

#[test]
fn events_whose_answer_was_lost_come_again() {
    let mut bench = bench();
    bench.path();
    bench.tell();
    let lost = bench.poll("!");
    assert_eq!(events(&bench.look(lost).unwrap()), 1);
    let again = bench.poll("!");
    assert_eq!(events(&bench.look(again).unwrap()), 1);
    let after = bench.poll("i1");
    assert!(bench.look(after).is_none());
}

#[test]
fn a_second_poll_ends_the_first_and_done_ends_all() {
    let mut bench = bench();
    let first = bench.poll("!");
    assert!(bench.look(first).is_none());
    let second = bench.poll("!");
    assert_eq!(bench.woken(), 1);
    assert_eq!(bench.look(first).unwrap().status, StatusCode::BAD_GATEWAY);
    assert!(bench.look(second).is_none());
    let path = format!("{}/EventQueueGet", bench.path());
    let done = bench.post(&path, "{'ack':!,'done':1}");
    assert_eq!(done.get("events"), Some(&Value::Array(Vec::new())));
    assert_eq!(bench.look(second).unwrap().status, StatusCode::BAD_GATEWAY);
}

#[test]
fn a_queue_is_gone_with_the_region_that_was_left() {
    let mut bench = bench();
    let waiting = bench.poll("!");
    assert!(bench.look(waiting).is_none());
    bench.grid.kick(Timestamp::START, CODE, "out");
    bench.desk.collect(&mut bench.grid);
    assert_eq!(bench.woken(), 1);
    assert_eq!(bench.look(waiting).unwrap().status, StatusCode::NOT_FOUND);
    assert!(bench.desk.lines.is_empty());
}

#[test]
fn assets_come_whole_and_in_parts() {
    let mut bench = bench();
    let path = bench.path();
    let whole = format!("{path}/GetTexture/?texture_id={}", assets::TEXTURE);
    let whole = bench.ask(Method::GET, &whole, "");
    assert_eq!((whole.status, &whole.body[..2]), (StatusCode::OK, &[0xFF, 0x4F][..]));
    let len = whole.body.len();
    let mut range = |text: &str| {
        let path = format!("{path}/ViewerAsset?texture_id={}", assets::TEXTURE);
        let mut request = request_of(Method::GET, &path, Vec::new());
        request.headers.insert(header::RANGE, HeaderValue::from_str(text).unwrap());
        let Answer::Now(response) = bench.answer(&request) else { panic!("it waits") };
        let range = response.headers.get(header::CONTENT_RANGE);
        let range = range.map(|range| range.to_str().unwrap().to_owned());
        (response.status.as_u16(), response.body.to_vec(), range)
    };
    let part = |from: usize, to: usize| {
        let told = Some(format!("bytes {from}-{}/{len}", to - 1));
        (206, whole.body[from..to].to_vec(), told)
    };
    assert_eq!(range("bytes=0-99"), part(0, 100));
    assert_eq!(range("bytes=100-"), part(100, len));
    assert_eq!(range("bytes=-10"), part(len - 10, len));
    assert_eq!(range("bytes=10-999999"), part(10, len));
    assert_eq!(range(&format!("bytes={len}-")), (416, Vec::new(), Some(format!("bytes */{len}"))));
    for all in ["bytes=0-1,5-6", "bytes=9-1", "lines=0-1", "bytes=x-", "bytes=-"] {
        assert_eq!(range(all), (200, whole.body.to_vec(), None), "{all}");
    }
}

#[test]
fn a_mesh_and_a_notecard_are_there_and_others_are_not() {
    let mut bench = bench();
    let path = bench.path();
    for (ask, status) in [
        (format!("GetMesh?mesh_id={}", assets::MESH), 200),
        (format!("GetMesh2/?mesh_id={}", assets::MESH), 200),
        (format!("ViewerAsset/?notecard_id={}", assets::NOTECARD), 200),
        (format!("GetTexture/?texture_id={}", assets::MESH), 404),
        ("GetTexture/?texture_id=rubbish".into(), 404),
        ("GetTexture".into(), 404),
    ] {
        let got = bench.ask(Method::GET, &format!("{path}/{ask}"), "").status.as_u16();
        assert_eq!(got, status, "{ask}");
    }
    let post = bench.ask(Method::POST, &format!("{path}/GetTexture"), "").status;
    assert_eq!(post, StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn the_inventory_and_the_features_are_told() {
    let mut bench = bench();
    let path = bench.path();
    let owner = Guest::example(1).ids.agent_id;
    let body = format!("{{'folders':[{{'folder_id':u{}}}]}}", inventory::root(owner));
    let reply = bench.post(&format!("{path}/FetchInventoryDescendents2"), &body);
    assert_eq!(reply.get("folders").unwrap().as_array().unwrap().len(), 1);
    let wrong = bench.ask(Method::POST, &format!("{path}/FetchInventory2"), "[]").status;
    assert_eq!(wrong, StatusCode::BAD_REQUEST);
    let features = bench.ask(Method::GET, &format!("{path}/SimulatorFeatures"), "");
    let features = parse_any(&features.body, &LIMITS).unwrap();
    assert_eq!(features.get("OpenSimExtras").unwrap().get("GridName"), Some(&"A & B".into()));
}

#[test]
fn a_viewer_learns_where_to_log_in_and_logs_in_by_post_alone() {
    let mut bench = bench();
    let info = bench.ask(Method::GET, "/get_grid_info", "");
    let text = String::from_utf8(info.body.to_vec()).unwrap();
    assert!(text.contains("<login>http://g/</login>"), "{text}");
    assert!(text.contains("<gridname>A &amp; B</gridname>"), "{text}");
    assert_eq!(bench.ask(Method::GET, "/", "").status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(bench.ask(Method::POST, "/", "").status, StatusCode::OK);
    assert_eq!(bench.desk.login.stats.unreadable, 1);
}
