//! A visitor: logs in, polls event queues and keeps circuits, with no more than the machines.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_circuit::{
    Agent, AgentConfig, AgentEvent, AgentIds, Body, Destination, QueueEvent, Received, Seed,
    SendOptions, Sink, Taken,
};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_http::{ClientConfig, HttpClient, Request, Response, StatusCode, Url};
use twinspan_llsd::{Form, Limits, Value, parse_any};
use twinspan_lludp::messages::{ChatFromViewer, ImprovedInstantMessage};
use twinspan_lludp::{AnyMessage, Message, Quaternion, Uuid, Var2, Vector3};
use twinspan_provider::{Env, Machine, Timer, UdpOptions, drive};
use twinspan_xmlrpc::LoginForm;
use twinspan_xmlrpc::login::{
    AccountName, LoginReply, LoginRequest, LoginSuccess, Password, StartLocation,
};

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// What the machine is looked after by at least.
const TURN: Duration = Duration::from_millis(25);

pub(crate) async fn sleep<E: Env>(env: &E, time: Duration) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(time)));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// Everything that was heard.
#[derive(Default)]
struct Ears(Vec<(SocketAddr, AnyMessage)>);

impl Sink for Ears {
    fn on_message(&mut self, _: Timestamp, message: Received<'_>) -> Taken {
        let (read, _) = AnyMessage::decode(message.id, message.body).unwrap();
        self.0.push((message.from, read));
        Taken::Yes
    }
}

struct Inner {
    agent: Agent,
    ears: Ears,
    events: Vec<AgentEvent>,
    /// Seeds whose queues are not polled yet.
    seeds: Vec<(SocketAddr, Seed)>,
    /// Queues that ended with 404.
    queues_gone: u32,
    polls_empty: u32,
    turn_at: Timestamp,
}

impl Inner {
    fn drain(&mut self) {
        while let Some(event) = self.agent.poll_event() {
            if let AgentEvent::Seed { addr, seed } = &event {
                self.seeds.push((*addr, seed.clone()));
            }
            self.events.push(event);
        }
    }
}

struct Driver {
    inner: Rc<RefCell<Inner>>,
    stopped: Rc<Cell<bool>>,
}

impl Machine for Driver {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        let Inner { agent, ears, .. } = &mut *self.inner.borrow_mut();
        while let Some(datagram) = received.pop() {
            agent.handle_datagram(now, datagram.peer, &datagram.packet, ears);
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        let Inner { agent, ears, turn_at, .. } = &mut *self.inner.borrow_mut();
        *turn_at = now.after(TURN);
        agent.handle_timeout(now, ears);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        let mut inner = self.inner.borrow_mut();
        while out.room() > 0 {
            let Some(mut packet) = pool.take() else { return };
            let Some((peer, len)) = inner.agent.poll_transmit(now, packet.room_mut()) else {
                return;
            };
            packet.set_len(len);
            // There is room.
            drop(out.push(Datagram { peer, at: now, packet }));
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let inner = self.inner.borrow();
        Some(inner.agent.poll_timeout().min(inner.turn_at))
    }

    fn is_done(&self) -> bool {
        self.stopped.get()
    }
}

/// Somebody on the grid.
pub(crate) struct Visitor<E: Env> {
    env: E,
    pub(crate) client: HttpClient<E>,
    inner: Rc<RefCell<Inner>>,
    pub(crate) login: LoginSuccess,
    stopped: Rc<Cell<bool>>,
    tasks: Vec<E::Task>,
}

pub(crate) fn request(name: &str, start: StartLocation) -> LoginRequest {
    let name = AccountName::parse(name).unwrap();
    LoginRequest { start, ..LoginRequest::new(name, Password::new("sesame"), "Test", "1") }
}

pub(crate) async fn ask_to_log_in<E: Env>(
    client: &HttpClient<E>,
    url: &str,
    request: &LoginRequest,
) -> LoginReply {
    let form = LoginForm::XmlRpc;
    let (url, body) = (Url::parse(url).unwrap(), request.write(form).unwrap());
    let response = client.send(Request::post(url, form.content_type(), body)).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    LoginReply::read(&response.body, form, &Limits::DEFAULT).unwrap()
}

impl<E: Env> Visitor<E> {
    /// Logs in and waits for the arrival.
    pub(crate) async fn enter(
        env: &E,
        local: SocketAddr,
        url: &str,
        request: &LoginRequest,
    ) -> Self {
        let client = HttpClient::new(env.clone(), ClientConfig::default()).unwrap();
        let login = match ask_to_log_in(&client, url, request).await {
            LoginReply::Success(success) => *success,
            other => panic!("not let in: {other:?}"),
        };
        let ids = AgentIds {
            agent_id: login.agent_id,
            session_id: login.session_id,
            circuit_code: login.circuit_code,
        };
        let random = env.stream("agent", u64::from(ids.circuit_code));
        let mut agent = Agent::new(ids, AgentConfig::default(), random).unwrap();
        let region = SocketAddr::from((login.sim_ip, login.sim_port));
        agent.enter(env.now(), region, login.region_handle()).unwrap();
        let inner = Inner {
            agent,
            ears: Ears::default(),
            events: Vec::new(),
            seeds: Vec::new(),
            queues_gone: 0,
            polls_empty: 0,
            turn_at: env.now(),
        };
        let inner = Rc::new(RefCell::new(inner));
        let stopped = Rc::new(Cell::new(false));
        let mut socket = env.bind_udp(local, &UdpOptions::default()).await.unwrap();
        let mut driver = Driver { inner: Rc::clone(&inner), stopped: Rc::clone(&stopped) };
        let task_env = env.clone();
        let udp = env.spawn("visitor", async move {
            drive(&task_env, &mut socket, &mut driver).await.unwrap();
        });
        let seed = Seed::new(login.seed_capability.reveal()).unwrap();
        inner.borrow_mut().seeds.push((region, seed));
        let queues = Self::spawn_queues(env, &client, &inner);
        let visitor =
            Self { env: env.clone(), client, inner, login, stopped, tasks: vec![udp, queues] };
        visitor.until("the arrival", |visitor| visitor.region().is_some()).await;
        visitor
    }

    /// Polls the event queue of every region whose seed becomes known.
    fn spawn_queues(env: &E, client: &HttpClient<E>, inner: &Rc<RefCell<Inner>>) -> E::Task {
        let (env, client, inner) = (env.clone(), client.clone(), Rc::clone(inner));
        let spawner = env.clone();
        spawner.spawn("queues", async move {
            let mut loops: Vec<E::Task> = Vec::new();
            loop {
                inner.borrow_mut().drain();
                let next = inner.borrow_mut().seeds.pop();
                match next {
                    Some((addr, seed)) => {
                        let poll =
                            poll_queue(env.clone(), client.clone(), Rc::clone(&inner), addr, seed);
                        loops.push(env.spawn("queue", poll));
                    }
                    None => sleep(&env, LOOK).await,
                }
            }
        })
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = self.env.now().after(PATIENCE);
        loop {
            self.inner.borrow_mut().drain();
            if is_so(self) {
                return;
            }
            assert!(self.env.now() < end, "{}: {what} never came", self.login.first_name);
            sleep(&self.env, LOOK).await;
        }
    }

    pub(crate) fn region(&self) -> Option<SocketAddr> {
        self.inner.borrow().agent.region()
    }

    pub(crate) fn regions(&self) -> Vec<SocketAddr> {
        self.inner.borrow().agent.regions().collect()
    }

    pub(crate) fn queues_gone(&self) -> u32 {
        self.inner.borrow().queues_gone
    }

    pub(crate) fn polls_empty(&self) -> u32 {
        self.inner.borrow().polls_empty
    }

    /// The messages of a kind that were heard, with where they came from.
    pub(crate) fn heard<M: Message>(&self) -> Vec<(SocketAddr, M)> {
        let inner = self.inner.borrow();
        let mut space = vec![0; 16_384];
        let all = inner.ears.0.iter().filter(|(_, message)| message.id() == M::ID);
        all.map(|(from, message)| {
            let len = message.encode(&mut space).unwrap();
            (*from, M::decode(&space[..len]).unwrap().0)
        })
        .collect()
    }

    pub(crate) fn events(&self) -> Vec<AgentEvent> {
        self.inner.borrow().events.clone()
    }

    pub(crate) fn ids(&self) -> (Uuid, Uuid) {
        (self.login.agent_id, self.login.session_id)
    }

    /// Stands, walks and sits as these flags have it, facing this way.
    pub(crate) fn stance(&self, rotation: Quaternion, control_flags: u32) {
        let body = Body { body_rotation: rotation, control_flags, ..Body::default() };
        self.inner.borrow_mut().agent.set_body(body);
    }

    pub(crate) fn send<M: Message>(&self, message: &M) {
        let now = self.env.now();
        let agent = &mut self.inner.borrow_mut().agent;
        // On a poor line a word has more than its usual five seconds.
        let patient = SendOptions::RELIABLE.within(Duration::from_secs(20));
        agent.send(now, message, patient).unwrap();
    }

    pub(crate) fn say(&self, text: &str, kind: u8) {
        let mut chat = ChatFromViewer::default();
        (chat.agent_data.agent_id, chat.agent_data.session_id) = self.ids();
        (chat.chat_data.r#type, chat.chat_data.message) = (kind, Var2::text(text).unwrap());
        self.send(&chat);
    }

    pub(crate) fn write_to(&self, to: Uuid, text: &str) {
        let mut message = ImprovedInstantMessage::default();
        (message.agent_data.agent_id, message.agent_data.session_id) = self.ids();
        message.message_block.to_agent_id = to;
        message.message_block.message = Var2::text(text).unwrap();
        self.send(&message);
    }

    pub(crate) fn teleport(&self, handle: u64, [x, y, z]: [f32; 3]) {
        let (position, look_at) = (Vector3::new(x, y, z), Vector3::new(1.0, 0.0, 0.0));
        let to = Destination::Location { handle, position, look_at };
        let now = self.env.now();
        self.inner.borrow_mut().agent.teleport(now, to).unwrap();
    }

    /// Says goodbye and waits for the answer.
    pub(crate) async fn leave(self) {
        let now = self.env.now();
        self.inner.borrow_mut().agent.logout(now);
        self.until("the end", |visitor| visitor.inner.borrow().agent.is_ended()).await;
        self.stopped.set(true);
        drop(self.tasks);
    }

    /// Asks a capability that is posted to.
    pub(crate) async fn post(&self, url: &str, body: &Value) -> Response {
        post(&self.client, url, body).await
    }
}

async fn post<E: Env>(client: &HttpClient<E>, url: &str, body: &Value) -> Response {
    let body = Form::Xml.write(body).unwrap();
    let request = Request::post(Url::parse(url).unwrap(), Form::Xml.content_type(), body);
    client.send(request).await.unwrap()
}

async fn poll_queue<E: Env>(
    env: E,
    client: HttpClient<E>,
    inner: Rc<RefCell<Inner>>,
    addr: SocketAddr,
    seed: Seed,
) {
    let names = Value::Array(vec!["EventQueueGet".into()]);
    let known = post(&client, seed.url(), &names).await;
    if known.status == StatusCode::NOT_FOUND {
        inner.borrow_mut().queues_gone += 1;
        return;
    }
    let known = parse_any(&known.body, &Limits::DEFAULT).unwrap();
    let url = known.get("EventQueueGet").and_then(Value::as_text).unwrap().to_owned();
    let mut ack = Value::Undef;
    loop {
        let body = Value::map([("ack", ack.clone()), ("done", Value::Boolean(false))]);
        let response = post(&client, &url, &body).await;
        match response.status {
            StatusCode::OK => {
                let answer = parse_any(&response.body, &Limits::DEFAULT).unwrap();
                ack = answer.get("id").unwrap().clone();
                for event in answer.get("events").unwrap().as_array().unwrap() {
                    let mut inner = inner.borrow_mut();
                    inner.agent.handle_event(env.now(), addr, event_of(event));
                    inner.drain();
                }
            }
            StatusCode::BAD_GATEWAY => inner.borrow_mut().polls_empty += 1,
            StatusCode::NOT_FOUND => {
                inner.borrow_mut().queues_gone += 1;
                return;
            }
            other => panic!("a poll was answered with {other}"),
        }
    }
}

fn event_of(event: &Value) -> QueueEvent {
    let body = event.get("body").unwrap();
    let block = |name: &str| body.get(name).unwrap().at(0).unwrap();
    let place = |block: &Value, ip: &str, port: &str, handle: &str| {
        let ip: [u8; 4] = block.get(ip).unwrap().as_bytes().unwrap().try_into().unwrap();
        let port = u16::try_from(block.get(port).unwrap().to_i64().unwrap()).unwrap();
        (SocketAddr::from((ip, port)), block.get(handle).unwrap().to_u64().unwrap())
    };
    let seed = |block: &Value| Seed::new(block.get("SeedCapability").unwrap().as_text().unwrap());
    match event.get("message").and_then(Value::as_text).unwrap() {
        "EnableSimulator" => {
            let (addr, handle) = place(block("SimulatorInfo"), "IP", "Port", "Handle");
            QueueEvent::EnableSimulator { addr, handle }
        }
        "EstablishAgentCommunication" => {
            let text = |key| body.get(key).and_then(Value::as_text).unwrap();
            let seed = Seed::new(text("seed-capability")).unwrap();
            let addr = text("sim-ip-and-port").parse().unwrap();
            QueueEvent::EstablishAgentCommunication { addr, seed }
        }
        "CrossedRegion" => {
            let region = block("RegionData");
            let (addr, handle) = place(region, "SimIP", "SimPort", "RegionHandle");
            QueueEvent::CrossedRegion { addr, handle, seed: seed(region) }
        }
        "TeleportFinish" => {
            let info = block("Info");
            let (addr, handle) = place(info, "SimIP", "SimPort", "RegionHandle");
            QueueEvent::TeleportFinish { addr, handle, seed: seed(info) }
        }
        other => panic!("an event {other}"),
    }
}
