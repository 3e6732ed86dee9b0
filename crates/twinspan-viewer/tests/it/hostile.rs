//! Grids that mean no good, or are broken: every login ends with a typed reason, and nothing grows.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_http::{ServerConfig, ServerRequest, ServerResponse, Service, StatusCode, serve};
use twinspan_llsd::{Form, Value};
use twinspan_lludp::Uuid;
use twinspan_provider::{NetworkProvider, TaskProvider, TcpListener, TcpOptions, TimeProvider};
use twinspan_viewer::{
    ConnectError, EVENT_BYTES_KEPT, LoginError, NetworkEvent, NetworkStatus, ReconnectPolicy,
    ViewerConfig,
};
use twinspan_xmlrpc::login::{
    LoginReadError, LoginReply, LoginRequest, LoginSuccess, Redirect, Refusal,
};
use twinspan_xmlrpc::{Fault, Limits, LoginForm, ReadError};

use crate::rig::{GRID_IP, USER, World, credentials, next, start_viewer};

/// What a grid answers to its first, second, .. login.
type Answer = Box<dyn Fn(u32, &LoginRequest) -> Option<ServerResponse>>;

struct Script {
    answer: Answer,
    asked: Rc<Cell<u32>>,
}

impl Service for Script {
    async fn call(self: Rc<Self>, request: ServerRequest) -> ServerResponse {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        let login = LoginRequest::read(&request.body, LoginForm::XmlRpc, &Limits::DEFAULT);
        match login.ok().and_then(|login| (self.answer)(number, &login)) {
            Some(response) => response,
            None => pending().await,
        }
    }
}

fn xml(body: impl Into<Vec<u8>>) -> ServerResponse {
    ServerResponse::new(StatusCode::OK, "text/xml", body.into())
}

fn reply(reply: &LoginReply) -> ServerResponse {
    xml(reply.write(LoginForm::XmlRpc).expect("it can be written"))
}

fn refusal(reason: &str) -> ServerResponse {
    reply(&LoginReply::Refused(Refusal::new(reason, "because")))
}

/// Logs in at a grid that answers so; what came of it, and how often the grid was asked.
fn login_at(
    answer: impl Fn(u32, &LoginRequest) -> Option<ServerResponse> + 'static,
) -> (Result<(), ConnectError>, u32) {
    let mut world = World::new(11, Conditions::CLEAN);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    let asked = Rc::new(Cell::new(0));
    let script = Rc::new(Script { answer: Box::new(answer), asked: Rc::clone(&asked) });
    let outcome = world.run(async move {
        let listener = grid.listen((GRID_IP, 0).into(), &TcpOptions::default()).await.unwrap();
        let url = format!("http://{}/", listener.local_addr());
        let serving = serve(grid.clone(), listener, script, ServerConfig::default());
        let _server = grid.spawn("grid", async move {
            // It ends with the test.
            let _ = serving.await;
        });
        let config = ViewerConfig { reconnect: ReconnectPolicy::NEVER, ..ViewerConfig::default() };
        let mut started = start_viewer(&viewer, config);
        let manager = started.handle.network_manager.clone();
        let outcome = manager.connect(credentials(USER, &url)).await;
        assert_eq!(manager.status(), NetworkStatus::Disconnected);
        next(&mut started.events, |event| {
            matches!(event, NetworkEvent::Disconnected { .. }).then_some(())
        })
        .await;
        outcome.map(|_| ())
    });
    (outcome, asked.get())
}

/// The reason for which a login was refused.
fn login_error(outcome: Result<(), ConnectError>) -> String {
    match outcome {
        Err(ConnectError::Login(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn endless_redirects_end() {
    let (outcome, asked) = login_at(|number, _| {
        let next_url = format!("/again{number}");
        Some(reply(&LoginReply::Indeterminate(Redirect { next_url, ..Redirect::default() })))
    });
    assert!(login_error(outcome).contains("more than 5 redirects"));
    assert_eq!(asked, 6);
}

#[test]
fn a_huge_answer_is_not_taken() {
    let (outcome, _) = login_at(|_, _| Some(xml(vec![b' '; (16 << 20) + 1])));
    let Err(ConnectError::Login(error)) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(&*error, LoginError::Http(http) if !http.is_timeout()), "{error}");
}

#[test]
fn pages_faults_and_missing_fields_are_named() {
    let page = login_at(|_, _| {
        let page = "<!DOCTYPE html><html><body>Down for maintenance</body></html>";
        Some(ServerResponse::new(StatusCode::OK, "text/html", page))
    });
    let Err(ConnectError::Login(error)) = page.0 else { panic!("{page:?}") };
    let html = LoginReadError::XmlRpc(ReadError::Html { wanted: "methodResponse" });
    assert!(matches!(&*error, LoginError::Reply(read) if *read == html), "{error:?}");
    let fault = login_at(|_, _| {
        let fault = Fault { code: -32_603, message: "object reference".into() };
        Some(xml(LoginReply::write_fault(&fault, LoginForm::XmlRpc).unwrap()))
    });
    assert!(login_error(fault.0).contains("-32603"));
    let short = login_at(|_, _| {
        let body = "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct>\
            <member><name>login</name><value><string>true</string></value></member>\
            </struct></value></param></params></methodResponse>";
        Some(xml(body))
    });
    assert!(login_error(short.0).contains("agent_id"));
    let status = login_at(|_, _| Some(ServerResponse::status(StatusCode::SERVICE_UNAVAILABLE)));
    assert!(login_error(status.0).contains("503"));
}

#[test]
fn a_silent_grid_is_waited_for_no_longer_than_the_limit() {
    let (outcome, asked) = login_at(|_, _| None);
    let Err(ConnectError::Login(error)) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(&*error, LoginError::Http(http) if http.is_timeout()), "{error}");
    assert_eq!(asked, 1, "a login is not repeated behind the user's back");
}

#[test]
fn who_is_still_in_is_tried_once_more() {
    let (outcome, asked) = login_at(|_, _| Some(refusal("presence")));
    assert!(login_error(outcome).contains("still in"));
    assert_eq!(asked, 2);
}

#[test]
fn a_code_that_was_wrong_is_not_sent_again() {
    let (outcome, asked) = login_at(|_, login| {
        assert!(login.token.is_empty());
        Some(refusal("mfa_challenge"))
    });
    assert!(login_error(outcome).contains("second factor"));
    assert_eq!(asked, 1);
}

#[test]
fn a_simulator_that_is_not_there_ends_the_login() {
    let (outcome, _) = login_at(|_, _| {
        let ids = [1, 2, 3].map(Uuid::from_u128);
        let simulator = (Ipv4Addr::new(10, 0, 0, 77), 9_000);
        let seed = "http://10.0.0.77:1/seed";
        let success = LoginSuccess::new(ids[0], ids[1], ids[2], 5, simulator, seed);
        Some(reply(&LoginReply::Success(success.into())))
    });
    assert!(matches!(outcome, Err(ConnectError::Region(_))), "{outcome:?}");
}

#[test]
fn a_login_can_be_given_up() {
    let mut world = World::new(12, Conditions::CLEAN);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let listener = grid.listen((GRID_IP, 0).into(), &TcpOptions::default()).await.unwrap();
        let url = format!("http://{}/", listener.local_addr());
        let started = start_viewer(&viewer, ViewerConfig::default());
        let manager = started.handle.network_manager.clone();
        let outcome = Rc::new(RefCell::new(None));
        let (connecting, filled) = (manager.clone(), Rc::clone(&outcome));
        let _task = viewer.spawn("connect", async move {
            let connected = connecting.connect(credentials(USER, &url)).await;
            *filled.borrow_mut() = Some(connected.map(|_| ()));
        });
        crate::rig::sleep(&viewer, Duration::from_secs(5)).await;
        assert_eq!(manager.status(), NetworkStatus::Authenticating);
        let began = viewer.now();
        manager.disconnect().await;
        assert_eq!(viewer.now(), began, "nobody is waited for");
        assert_eq!(manager.status(), NetworkStatus::Disconnected);
        crate::rig::sleep(&viewer, Duration::from_millis(1)).await;
        let outcome = outcome.borrow_mut().take();
        assert!(matches!(outcome, Some(Err(ConnectError::Cancelled))), "{outcome:?}");
        drop(listener);
    });
}

/// A grid that lets everybody in, and whose event queue has something long to tell at all times.
struct Talker {
    url: RefCell<String>,
    polls: Cell<u32>,
}

/// Bytes of a text of the talker's.
const LONG: usize = 512 << 10;

impl Talker {
    fn queue(&self) -> Value {
        let body = Value::map([("text", "x".repeat(LONG).into())]);
        let event = Value::map([("message", "Talk".into()), ("body", body)]);
        Value::map([("events", Value::Array(vec![event])), ("id", 1.into())])
    }
}

impl Service for Talker {
    async fn call(self: Rc<Self>, request: ServerRequest) -> ServerResponse {
        let url = self.url.borrow().clone();
        let llsd = |value: &Value| {
            let body = Form::Xml.write(value).expect("it can be written");
            ServerResponse::new(StatusCode::OK, "application/llsd+xml", body)
        };
        match request.path.as_str() {
            "/seed" => llsd(&Value::map([("EventQueueGet", format!("{url}queue").into())])),
            "/queue" => {
                self.polls.set(self.polls.get() + 1);
                llsd(&self.queue())
            }
            _ => {
                let ids = [1, 2, 3].map(Uuid::from_u128);
                let simulator = (Ipv4Addr::new(10, 0, 0, 77), 9_000);
                let seed = format!("{url}seed");
                let success = LoginSuccess::new(ids[0], ids[1], ids[2], 5, simulator, &seed);
                reply(&LoginReply::Success(success.into()))
            }
        }
    }
}

#[test]
fn what_an_event_queue_tells_is_kept_by_its_bytes_and_asked_for_at_a_pace() {
    let mut world = World::new(13, Conditions::CLEAN);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let listener = grid.listen((GRID_IP, 0).into(), &TcpOptions::default()).await.unwrap();
        let url = format!("http://{}/", listener.local_addr());
        let talker = Rc::new(Talker { url: RefCell::new(url.clone()), polls: Cell::new(0) });
        let serving = serve(grid.clone(), listener, Rc::clone(&talker), ServerConfig::default());
        let _server = grid.spawn("grid", async move {
            // It ends with the test.
            let _ = serving.await;
        });
        let config = ViewerConfig { reconnect: ReconnectPolicy::NEVER, ..ViewerConfig::default() };
        let mut started = start_viewer(&viewer, config);
        let manager = started.handle.network_manager.clone();
        let _task = viewer.spawn("connect", async move {
            // Its simulator never answers; the queue is polled meanwhile.
            let _ = manager.connect(credentials(USER, &url)).await;
        });
        let seconds = 5;
        crate::rig::sleep(&viewer, Duration::from_secs(seconds)).await;
        let polls = u64::from(talker.polls.get());
        assert!((40..=20 * seconds + 1).contains(&polls), "{polls} polls in {seconds} s");
        // Nobody took anything: what is kept is bounded, and what went is told.
        let (mut kept, mut missed) = (0, 0);
        for event in std::iter::from_fn(|| started.events.try_recv()) {
            match event {
                NetworkEvent::QueueMessage { body, .. } => {
                    kept += body.get("text").and_then(Value::as_text).map_or(0, str::len);
                }
                NetworkEvent::Lagged { missed: more } => missed += more,
                _ => {}
            }
        }
        assert!((EVENT_BYTES_KEPT / 4..=EVENT_BYTES_KEPT).contains(&kept), "{kept} bytes");
        let all = (kept / LONG) as u64 + missed;
        assert!(missed > 0 && all + 2 >= polls, "{missed} missed of {polls}, {all} told");
    });
}
