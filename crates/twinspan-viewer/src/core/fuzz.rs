//! The fuzz body of a core's session: regions that send anything, users that want anything.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use twinspan_circuit::fuzz::{Action, peer_addr, steps, wait_of};
use twinspan_circuit::{AgentEvent, Destination, Farewell, Outcome, QueueEvent, Seed, SendOptions};
use twinspan_core::fuzz::digest;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{ChatFromSimulator, ChatFromViewer};
use twinspan_lludp::{AnyMessage, Uuid, Vector3};
use twinspan_xmlrpc::login::LoginSuccess;

use super::session::AgentSession;
use crate::bus::{EVENTS_KEPT, Event, Subscription};
use crate::core::ViewerConfig;
use crate::event::{NetworkEvent, WorldEvent};
use crate::handle::{Command, Shared};
use crate::handlers::{HandlerContext, HandlerError, Job, TypedPacketHandler};
use crate::lookup::LookupError;
use crate::pilot::{CONTROL_AHEAD, Goal, WalkError};
use crate::proxies::ProxyManager;
use crate::region::RegionInfo;
use crate::session_info::SessionInfo;
use crate::transfer::{TransferError, TransferRequest};
use crate::upload::{NewFile, UploadError, UploadKind, UploadedFile};
use crate::world::OBJECTS_MAX;

/// Times that a timer may ring within one wait.
const RINGS_MAX: u32 = 20_000;
/// Datagrams that may leave at one moment.
const BURST_MAX: u32 = 2_000;
/// How long everything may take that a user waits for.
const PATIENCE: Duration = Duration::from_secs(100);

/// What a user waits for.
enum Waits {
    Transfer(oneshot::Receiver<Result<Vec<u8>, TransferError>>),
    Lookup(oneshot::Receiver<Result<u64, LookupError>>),
    Walk(oneshot::Receiver<Result<(), WalkError>>),
    Delivery(oneshot::Receiver<Outcome>),
    Upload(oneshot::Receiver<Result<UploadedFile, UploadError>>),
}

/// Whether there is an answer, or there will be none.
fn is_over<T>(receiver: &mut oneshot::Receiver<T>) -> bool {
    !matches!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Empty))
}

struct World {
    session: AgentSession,
    now: Timestamp,
    events: Subscription<NetworkEvent>,
    around: Subscription<WorldEvent>,
    jobs: Vec<Job>,
    waits: Vec<Waits>,
    ended: bool,
    seen: u64,
    /// So that handlers have a core to speak to.
    _commands: (mpsc::Sender<Command>, mpsc::Receiver<Command>),
}

/// Hears chat.
struct Listens;

impl TypedPacketHandler<ChatFromSimulator> for Listens {
    async fn handle(
        &self,
        packet: &ChatFromSimulator,
        context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        match packet.chat_data.message.to_text().as_str() {
            "" => Err(format!("packet {} says nothing", context.number()).into()),
            _ => Ok(()),
        }
    }
}

/// Whatever regions send, what is kept is bounded, the session can be ended, and everybody who waits
/// has an answer in the end.
pub(crate) fn fuzz_region(data: &[u8]) -> u64 {
    let Some(mut world) = World::new() else { unreachable!("the session is a good one") };
    for step in steps(data) {
        world.wait(wait_of(&step));
        let addr = peer_addr(step.peer);
        match step.action {
            Action::Datagram(bytes) => world.session.handle_datagram(world.now, addr, bytes),
            Action::Wish(wish) => world.wish(step.peer, wish),
        }
        world.drain();
        assert!(world.session.ears.world.len() <= OBJECTS_MAX);
    }
    world.session.agent.logout(world.now);
    world.drain();
    world.wait(PATIENCE);
    assert!(world.ended && world.session.agent.is_ended(), "the logout has no end");
    for waits in &mut world.waits {
        let over = match waits {
            Waits::Transfer(answer) => is_over(answer),
            Waits::Lookup(answer) => is_over(answer),
            Waits::Walk(answer) => is_over(answer),
            Waits::Delivery(answer) => is_over(answer),
            Waits::Upload(answer) => is_over(answer),
        };
        assert!(over, "somebody waits for ever");
    }
    let summary = world.session.summary(world.now);
    digest(&(summary.stats, summary.decode_errors, summary.messages_unknown, world.seen))
}

impl World {
    /// A session that login has just let in, at the first peer; there are two handlers, and
    /// somebody who listens to everything.
    fn new() -> Option<Self> {
        let now = Timestamp::START.after(Duration::from_secs(1));
        let [agent, session, secure] = [1, 2, 3].map(Uuid::from_u128);
        let place = ([10, 0, 0, 1].into(), peer_addr(0).port());
        let login = LoginSuccess::new(agent, session, secure, 7, place, "http://10.0.0.1/seed");
        let info = Arc::new(SessionInfo::of(login).ok()?);
        let shared = Arc::new(Shared::new(ProxyManager::default()));
        for _ in 0..2 {
            let registered = shared.registry.register_handler::<ChatFromSimulator, _>(Listens);
            // It does not wait.
            let _ = pin!(registered).poll(&mut Context::from_waker(Waker::noop()));
        }
        let (events, around) = (shared.events.subscribe(), shared.world.subscribe());
        let commands = mpsc::channel(8);
        let random = ["agent", "transfers", "uploads"].map(|name| Stream::new(1, name, 0));
        let core = (shared, commands.0.downgrade());
        let session =
            AgentSession::begin(now, &ViewerConfig::default(), core, info, random).ok()?;
        Some(Self {
            session,
            now,
            events,
            around,
            jobs: Vec::new(),
            waits: Vec::new(),
            ended: false,
            seen: 0,
            _commands: commands,
        })
    }

    fn note(&mut self, value: &impl std::fmt::Debug) {
        self.seen = self.seen.wrapping_mul(31).wrapping_add(digest(value));
    }

    fn wish(&mut self, peer: u8, wish: u8) {
        let (now, addr) = (self.now, peer_addr(peer));
        let handle = u64::from(wish >> 4);
        let seed = Seed::new("http://10.0.0.2/seed").filter(|_| wish & 0x10 != 0);
        let from = self.session.region().unwrap_or(addr);
        let event = match wish % 16 {
            0 => QueueEvent::EnableSimulator { addr, handle },
            1 => QueueEvent::CrossedRegion { addr, handle, seed },
            2 => QueueEvent::TeleportFinish { addr, handle, seed },
            other => return self.user(other, wish >> 4),
        };
        self.session.agent.handle_event(now, from, event);
    }

    fn user(&mut self, wish: u8, bits: u8) {
        let now = self.now;
        let id = Uuid::from_u128(u128::from(bits));
        match wish {
            3 | 4 => {
                let (reply, answer) = oneshot::channel();
                let request = if wish == 3 {
                    TransferRequest::Asset { id, kind: 7 }
                } else {
                    TransferRequest::File { name: "inventory.tmp".into(), delete: bits & 1 == 0 }
                };
                // Where it is refused, the answer is that.
                let _ = self.session.transfer(now, request, reply);
                self.waits.push(Waits::Transfer(answer));
            }
            5 => {
                let (reply, answer) = oneshot::channel();
                let _ = self.session.find_region(now, "Alpha", reply);
                self.waits.push(Waits::Lookup(answer));
            }
            6 | 7 => {
                let (reply, answer) = oneshot::channel();
                let place = Vector3::new(f32::from(bits) * 16.0, 100.0, 22.0);
                let goal = if wish == 6 { Goal::Place(place) } else { Goal::Follow(id) };
                let limit = Some(Duration::from_secs(20));
                self.session.walk(now, goal, 2.0, limit, Some(reply));
                self.waits.push(Waits::Walk(answer));
            }
            8 => {
                let (reply, answer) = oneshot::channel();
                let chat = [AnyMessage::from(ChatFromViewer::default())];
                let options = SendOptions::RELIABLE;
                let _ = self.session.send_tracked(now, None, &chat, options, reply);
                self.waits.push(Waits::Delivery(answer));
            }
            9 => self.session.tap(now, CONTROL_AHEAD, Duration::from_millis(200)),
            10 => drop(self.session.agent.teleport(now, Destination::Landmark(id))),
            11 => drop(self.session.cancel_teleport(now)),
            12 => drop(self.session.set_paused(now, bits & 1 == 0)),
            13 if bits & 8 == 0 => drop(self.session.stop_walking()),
            13 => {
                let (reply, answer) = oneshot::channel();
                let (name, description) = ("Bell".into(), String::new());
                let file = NewFile { kind: UploadKind::Sound, name, description, folder: None };
                // In the request itself, or in three parts.
                let len = if bits & 1 == 0 { 10 } else { 2_500 };
                self.session.upload(now, file, vec![7; len].into(), reply);
                self.waits.push(Waits::Upload(answer));
            }
            14 => self.session.agent.logout(now),
            _ => {
                let addr = peer_addr(bits);
                self.session.agent.circuits_mut().close(addr, Farewell::CloseCircuit);
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.after(time);
        let mut rings = 0;
        while self.session.poll_timeout() <= until {
            self.now = self.now.max(self.session.poll_timeout());
            self.session.handle_timeout(self.now);
            self.drain();
            rings += 1;
            assert!(rings < RINGS_MAX, "it rings without an end");
        }
        self.now = until;
    }

    /// What a drive loop and a core do after each call.
    fn drain(&mut self) {
        self.session.send_answers(self.now);
        self.jobs.extend(self.session.ears.dispatcher.take_jobs());
        let mut cx = Context::from_waker(Waker::noop());
        self.jobs.retain_mut(|job| job.work.as_mut().poll(&mut cx).is_pending());
        while let Some(event) = self.session.agent.poll_event() {
            self.on_event(event);
        }
        let mut out = [0; 1_500];
        let mut burst = 0;
        while let Some((_, len)) = self.session.agent.poll_transmit(self.now, &mut out) {
            self.note(&len);
            burst += 1;
            assert!(burst < BURST_MAX, "it sends without an end");
        }
        let told = take(&mut self.events) + take(&mut self.around);
        assert!(told <= 2 * (EVENTS_KEPT + 1), "{told} events waited");
        self.note(&told);
    }

    fn on_event(&mut self, event: AgentEvent) {
        self.note(&event);
        match event {
            AgentEvent::Handshake { addr, name, region_id, flags } => {
                let info = RegionInfo { address: addr, handle: 0, name, id: region_id, flags };
                self.session.ears.regions.insert(addr, Arc::new(info));
            }
            AgentEvent::Arrived { position, .. } => self.session.arrived_at = position,
            AgentEvent::CircuitDown { addr, .. } => self.session.on_region_gone(addr),
            AgentEvent::Delivery { id, outcome, .. } => self.session.on_delivery(id, outcome),
            AgentEvent::Ended { .. } => self.ended = true,
            _ => {}
        }
    }
}

/// Takes what waits, and counts it.
fn take<T: Event>(events: &mut Subscription<T>) -> usize {
    std::iter::from_fn(|| events.try_recv()).count()
}
