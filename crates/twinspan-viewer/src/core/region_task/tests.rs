//! Capabilities and event queues against scripted servers, in virtual time.

use std::cell::Cell;
use std::future::pending;
use std::net::Ipv4Addr;

use twinspan_core::time::Timestamp;
use twinspan_http::{
    ClientConfig, ServerConfig, ServerRequest, ServerResponse, Service, StatusCode, serve,
};
use twinspan_llsd::Limits;
use twinspan_provider::{NetworkProvider, TaskProvider, TcpListener, TcpOptions, TimeProvider};
use twinspan_sim::{Sim, SimConfig, SimEnv};

use super::*;

/// What the server does with a request to its event queue.
enum Act {
    /// Answers with this status after this many seconds.
    Status(u16, u64),
    /// Answers with this message and id.
    Message(&'static str, i32),
    /// Says nothing, ever.
    Silence,
    /// Answers with something else.
    Garbage,
}

type Script = Box<dyn Fn(u32) -> Act>;

struct Server {
    env: SimEnv,
    seeds_refused: u32,
    seeds: Cell<u32>,
    polls: Cell<u32>,
    in_flight: Cell<u32>,
    acks: RefCell<Vec<Value>>,
    dones: Cell<u32>,
    script: Script,
}

impl Server {
    async fn poll(&self, request: &ServerRequest) -> ServerResponse {
        let body = twinspan_llsd::parse_any(&request.body, &Limits::DEFAULT).unwrap();
        self.acks.borrow_mut().push(body.get("ack").unwrap().clone());
        if body.get("done").unwrap().to_bool() == Some(true) {
            self.dones.set(self.dones.get() + 1);
            return ServerResponse::status(StatusCode::OK);
        }
        let number = self.polls.get() + 1;
        self.polls.set(number);
        match (self.script)(number) {
            Act::Status(status, after) => {
                sleep(&self.env, Duration::from_secs(after)).await;
                ServerResponse::status(StatusCode::from_u16(status).unwrap())
            }
            Act::Message(name, id) => {
                let event = Value::map([("message", name.into()), ("body", Value::Undef)]);
                let events = Value::Array(vec![event]);
                let answer = Value::map([("events", events), ("id", id.into())]);
                // Real servers name wrong types.
                ServerResponse::new(StatusCode::OK, "text/html", Form::Xml.write(&answer).unwrap())
            }
            Act::Silence => pending().await,
            Act::Garbage => ServerResponse::new(StatusCode::OK, "text/html", "<html>oops"),
        }
    }
}

impl Service for Server {
    async fn call(self: Rc<Self>, request: ServerRequest) -> ServerResponse {
        if request.path != "/seed" {
            assert_eq!(self.in_flight.replace(1), 0, "one poll at a time");
            let _over = Over(&self.in_flight);
            return self.poll(&request).await;
        }
        self.seeds.set(self.seeds.get() + 1);
        if self.seeds.get() <= self.seeds_refused {
            return ServerResponse::status(StatusCode::SERVICE_UNAVAILABLE);
        }
        let caps = Value::map([(EVENT_QUEUE, "http://10.0.0.9:80/queue".into())]);
        ServerResponse::new(StatusCode::OK, "application/xml", Form::Xml.write(&caps).unwrap())
    }
}

/// Notes that a poll is over, answered or not.
struct Over<'a>(&'a Cell<u32>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

/// When notes came, in seconds, and what they say.
type Told = Vec<(u64, String)>;

fn shown(note: &Note) -> String {
    match note {
        Note::Caps(caps) => format!("{} caps", caps.len()),
        Note::CapsFailed(_) => "no caps".into(),
        Note::Message(message) => message.name.clone(),
        Note::Broken(count) => format!("{count} broken"),
        Note::Failed(_) => "failed".into(),
        Note::Gone => "gone".into(),
        Note::GivenUp(_) => "given up".into(),
    }
}

/// Runs a region's task against a server for so many virtual seconds.
fn play(
    seconds: u64,
    seeds_refused: u32,
    script: impl Fn(u32) -> Act + 'static,
) -> (Told, Rc<Server>) {
    let mut sim = Sim::new(SimConfig::default());
    let at = Ipv4Addr::new(10, 0, 0, 9);
    let env = sim.host("server", at.into());
    let server = Rc::new(Server {
        env: env.clone(),
        seeds_refused,
        seeds: Cell::new(0),
        polls: Cell::new(0),
        in_flight: Cell::new(0),
        acks: RefCell::default(),
        dones: Cell::new(0),
        script: Box::new(script),
    });
    let (service, serving) = (Rc::clone(&server), env.clone());
    let _server = env.spawn("server", async move {
        let listener = serving.listen((at, 80).into(), &TcpOptions::default()).await.unwrap();
        assert_eq!(listener.local_addr().port(), 80);
        // It ends with the test.
        let _ = serve(serving.clone(), listener, service, ServerConfig::default()).await;
    });
    let viewer = sim.host("viewer", Ipv4Addr::new(10, 0, 0, 1).into());
    let http = HttpClient::new(viewer.clone(), ClientConfig::default()).unwrap();
    let (notes, mut told) = mpsc::channel(8);
    let state = Rc::new(RefCell::new(QueueState::default()));
    let seed = Seed::new("http://10.0.0.9:80/seed").unwrap();
    let address = ([10, 0, 0, 9], 9_000).into();
    let task = run(viewer.clone(), http.clone(), (address, seed), notes, Rc::clone(&state));
    let task = viewer.spawn("region", task);
    let written = Rc::new(RefCell::new(Told::new()));
    let (log, clock) = (Rc::clone(&written), viewer.clone());
    let _reader = viewer.spawn("reader", async move {
        while let Some((_, note)) = told.recv().await {
            let seconds = clock.now().since(Timestamp::START).as_secs();
            log.borrow_mut().push((seconds, shown(&note)));
        }
    });
    sim.run_for(Duration::from_secs(seconds));
    drop(task);
    let last = viewer.spawn("done", say_done(viewer.clone(), http, state));
    sim.run_for(Duration::from_secs(10));
    drop(last);
    let told = written.borrow().clone();
    (told, server)
}

fn words(told: &Told) -> Vec<&str> {
    told.iter().map(|(_, word)| word.as_str()).collect()
}

#[test]
fn events_come_once_and_are_acknowledged_with_the_next_poll() {
    let (told, server) = play(100, 0, |number| match number {
        1 => Act::Message("EnableSimulator", 77),
        2 => Act::Message("ParcelProperties", -5),
        _ => Act::Status(502, 30),
    });
    assert_eq!(words(&told), ["1 caps", "EnableSimulator", "ParcelProperties"]);
    let acks = server.acks.borrow();
    assert_eq!(acks[0], Value::Undef);
    assert_eq!(acks[1], Value::Integer(77));
    assert!(acks[2..].iter().all(|ack| *ack == Value::Integer(-5)));
    // Held for 30 s each: the next poll follows at once, and no failure is told.
    assert_eq!((server.polls.get(), server.dones.get()), (6, 1));
}

#[test]
fn a_queue_that_is_gone_ends_without_an_error() {
    let (told, server) = play(300, 0, |_| Act::Status(404, 0));
    assert_eq!(words(&told), ["1 caps", "gone"]);
    assert_eq!((server.polls.get(), server.dones.get()), (1, 0));
}

#[test]
fn a_queue_that_fails_is_given_up_after_ten_waits_that_grow() {
    let (told, server) = play(2_000, 0, |_| Act::Garbage);
    let wanted = [vec!["1 caps"], vec!["failed"; 10], vec!["given up"]].concat();
    assert_eq!(words(&told), wanted);
    // 20 + 25 + .. + 65 s.
    let end = told.last().map(|(at, _)| *at);
    assert_eq!((end, server.polls.get()), (Some(425), 11));
}

#[test]
fn a_server_that_is_silent_is_asked_again_after_the_longest_wait() {
    let (told, server) = play(200, 0, |_| Act::Silence);
    assert_eq!(words(&told), ["1 caps"]);
    // At 0, 90 and 180 s.
    assert_eq!(server.polls.get(), 3);
}

#[test]
fn a_seed_is_asked_until_it_answers() {
    let (told, server) = play(60, 3, |_| Act::Status(502, 60));
    // 1 + 2 + 4 s.
    assert_eq!(told, [(7, "1 caps".to_owned())]);
    assert_eq!(server.seeds.get(), 4);
}

#[test]
fn a_seed_that_never_answers_is_given_up() {
    let (told, server) = play(1_000, 100, |_| Act::Silence);
    assert_eq!((words(&told), server.seeds.get()), (vec!["no caps"], 30));
}

#[test]
fn an_answer_is_handed_on_before_the_next_poll() {
    let (told, server) = play(60, 0, |number| match number {
        1..=500 => Act::Message("Flood", 1),
        _ => Act::Status(502, 60),
    });
    let floods = words(&told).into_iter().filter(|word| *word == "Flood").count();
    assert!(floods > 100, "{floods}");
    assert_eq!(u32::try_from(floods), Ok(server.polls.get() - 1));
}
