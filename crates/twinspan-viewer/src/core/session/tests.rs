//! A session without a network: what its handlers make of its circuits.

use std::future::Future;
use std::pin::pin;
use std::task::{Poll, Waker};

use twinspan_circuit::ORDERED_MESSAGES_MAX;
use twinspan_lludp::Message;
use twinspan_lludp::messages::{
    AgentAnimation, AgentRequestSit, AgentSit, AgentUpdate, AtomicPassObject, AvatarAnimation,
    AvatarSitResponse, CameraConstraint, ChatFromSimulator, ChildAgentAlive,
    ChildAgentPositionUpdate, ChildAgentUpdate, CompletePingCheck, ConfirmXferPacket,
    EdgeDataPacket, GameControlInput, GenericStreamingMessage, ImageData, ImagePacket,
    ImprovedTerseObjectUpdate, KillObject, LayerData, NeighborList, ObjectAdd, ObjectAnimation,
    ObjectUpdate, ObjectUpdateCached, ObjectUpdateCompressed, RequestImage, SendXferPacket,
    SoundTrigger, StartPingCheck, TransferPacket,
};
use twinspan_xmlrpc::login::LoginSuccess;

use super::*;
use crate::handlers::{
    HandlerError, HandlerId, HandlerRegistry, RegisterError, TypedPacketHandler,
};
use crate::proxies::ProxyManager;

/// Wants its messages in order, or does not.
struct Wants(bool);

impl<P: Message + Send + Sync + 'static> TypedPacketHandler<P> for Wants {
    fn in_order(&self) -> bool {
        self.0
    }

    async fn handle(&self, _packet: &P, _context: &HandlerContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn register<P: Message + Send + Sync + 'static>(
    registry: &HandlerRegistry,
    in_order: bool,
) -> Result<HandlerId, RegisterError> {
    now(registry.register_handler::<P, _>(Wants(in_order))).id()
}

/// Registers handlers of as many messages as can be kept in order.
fn fill(registry: &HandlerRegistry) -> Vec<(MessageId, HandlerId)> {
    macro_rules! handlers {
        ($($message:ident),* $(,)?) => {
            vec![$(($message::ID, register::<$message>(registry, true).unwrap())),*]
        };
    }
    let all = handlers![
        StartPingCheck,
        CompletePingCheck,
        NeighborList,
        AgentUpdate,
        AgentAnimation,
        AgentRequestSit,
        AgentSit,
        RequestImage,
        ImageData,
        ImagePacket,
        LayerData,
        ObjectUpdate,
        ObjectUpdateCompressed,
        ObjectUpdateCached,
        ImprovedTerseObjectUpdate,
        KillObject,
        TransferPacket,
        SendXferPacket,
        ConfirmXferPacket,
        AvatarAnimation,
        AvatarSitResponse,
        CameraConstraint,
        EdgeDataPacket,
        ChildAgentUpdate,
        ChildAgentAlive,
        ChildAgentPositionUpdate,
        AtomicPassObject,
        SoundTrigger,
        ObjectAnimation,
        GenericStreamingMessage,
        GameControlInput,
        ObjectAdd,
    ];
    assert_eq!(all.len(), ORDERED_MESSAGES_MAX);
    all
}

fn session(shared: &Arc<Shared>) -> AgentSession {
    let ids = [1, 2, 3].map(Uuid::from_u128);
    let place = ([10, 0, 0, 1].into(), 9_000);
    let login = LoginSuccess::new(ids[0], ids[1], ids[2], 7, place, "http://10.0.0.1/seed");
    let info = Arc::new(SessionInfo::of(login).unwrap());
    let commands = mpsc::channel(8).0;
    let random = ["agent", "transfers", "uploads"].map(|name| Stream::new(1, name, 0));
    let core = (Arc::clone(shared), commands.downgrade());
    let start = Timestamp::START.after(Duration::from_secs(1));
    AgentSession::begin(start, &ViewerConfig::default(), core, info, random).unwrap()
}

#[test]
fn order_is_kept_for_as_long_as_handlers_want_it() {
    let shared = Arc::new(Shared::new(ProxyManager::default()));
    let registry = &shared.registry;
    let chat = ChatFromSimulator::ID;
    let [one, other] = [true, true].map(|is| register::<ChatFromSimulator>(registry, is).unwrap());
    register::<ChatFromSimulator>(registry, false).unwrap();
    let mut session = session(&shared);
    let is_kept = |session: &AgentSession| session.agent.circuits().is_in_order(chat);
    assert!(is_kept(&session), "from the beginning");
    for (id, kept) in [(one, true), (other, false)] {
        assert!(now(registry.unregister_handler(id)));
        session.refresh_handlers();
        assert_eq!(is_kept(&session), kept);
    }
    let id = register::<ChatFromSimulator>(registry, true).unwrap();
    session.refresh_handlers();
    assert!(is_kept(&session));
    assert!(now(registry.unregister_handler(id)));
    session.refresh_handlers();
    assert!(!is_kept(&session));
}

#[test]
fn who_finds_no_room_for_its_order_is_refused_and_room_comes_back() {
    let shared = Arc::new(Shared::new(ProxyManager::default()));
    let registry = &shared.registry;
    let mut session = session(&shared);
    let is_kept = |session: &AgentSession, id| session.agent.circuits().is_in_order(id);
    // Again and again, so that what is not given back would fill the circuits.
    for _ in 0..3 {
        let all = fill(registry);
        session.refresh_handlers();
        assert!(all.iter().all(|(id, _)| is_kept(&session, *id)));
        let refused = register::<ChatFromSimulator>(registry, true);
        assert_eq!(refused, Err(RegisterError::OrderFull));
        assert!(refused.unwrap_err().to_string().contains("32 kinds of messages"));
        let as_it_comes = register::<ChatFromSimulator>(registry, false).unwrap();
        assert!(now(registry.unregister_handler(as_it_comes)));
        // In place of one there is room, and both changes may come at once.
        assert!(now(registry.unregister_handler(all[0].1)));
        let chat = register::<ChatFromSimulator>(registry, true).unwrap();
        session.refresh_handlers();
        assert!(is_kept(&session, ChatFromSimulator::ID) && !is_kept(&session, all[0].0));
        assert!(now(registry.unregister_handler(chat)));
        for (_, id) in &all[1..] {
            assert!(now(registry.unregister_handler(*id)));
        }
        session.refresh_handlers();
        assert!(all.iter().all(|(id, _)| !is_kept(&session, *id)));
    }
}
