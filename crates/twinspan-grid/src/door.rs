//! Who may come into a region, and what of their messages the grid acts on.

use std::net::SocketAddr;

use twinspan_circuit::{Admission, Rates, Received, Sink, Taken};
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{
    AgentPause, AgentResume, AgentThrottle, ChatFromViewer, CompleteAgentMovement, LogoutRequest,
    TeleportCancel, TeleportLocationRequest, UseCircuitCode,
};
use twinspan_lludp::{Message, Uuid, Vector3};

use crate::grid::{RegionId, Sessions};

/// Longest text of a chat that is passed on.
const CHAT_CHARS_MAX: usize = 1_023;

/// What a viewer said that the grid acts on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Hello,
    Arrive { code: u32 },
    Throttle(Rates),
    Chat { text: String, kind: u8, channel: i32 },
    Teleport { handle: u64, position: Vector3, look_at: Vector3 },
    Cancel,
    Logout,
    Pause(bool),
}

impl Word {
    /// Reads a message; `None` for others, and for those that speak for somebody else.
    fn read(message: &Received<'_>, who: (Uuid, Uuid)) -> Option<Self> {
        let body = message.body;
        let (speaker, word) = match message.id {
            UseCircuitCode::ID => {
                let (read, _) = UseCircuitCode::decode(body).ok()?;
                ((read.circuit_code.id, read.circuit_code.session_id), Self::Hello)
            }
            CompleteAgentMovement::ID => {
                let data = CompleteAgentMovement::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Arrive { code: data.circuit_code })
            }
            AgentThrottle::ID => {
                let (read, _) = AgentThrottle::decode(body).ok()?;
                let rates = Rates::from_bytes(read.throttle.throttles.bytes())?;
                let data = read.agent_data;
                ((data.agent_id, data.session_id), Self::Throttle(rates))
            }
            ChatFromViewer::ID => {
                let (read, _) = ChatFromViewer::decode(body).ok()?;
                let text = read.chat_data.message.to_text().chars().take(CHAT_CHARS_MAX).collect();
                let (kind, channel) = (read.chat_data.r#type, read.chat_data.channel);
                let data = read.agent_data;
                ((data.agent_id, data.session_id), Self::Chat { text, kind, channel })
            }
            TeleportLocationRequest::ID => {
                let (read, _) = TeleportLocationRequest::decode(body).ok()?;
                let (data, info) = (read.agent_data, read.info);
                let (handle, position) = (info.region_handle, info.position);
                let to = Self::Teleport { handle, position, look_at: info.look_at };
                ((data.agent_id, data.session_id), to)
            }
            TeleportCancel::ID => {
                let info = TeleportCancel::decode(body).ok()?.0.info;
                ((info.agent_id, info.session_id), Self::Cancel)
            }
            LogoutRequest::ID => {
                let data = LogoutRequest::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Logout)
            }
            AgentPause::ID => {
                let data = AgentPause::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Pause(true))
            }
            AgentResume::ID => {
                let data = AgentResume::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Pause(false))
            }
            _ => return None,
        };
        (speaker == who).then_some(word)
    }
}

/// The door of one region.
pub(crate) struct Door<'a> {
    pub(crate) region: RegionId,
    pub(crate) sessions: &'a Sessions,
    /// Circuit codes of the peers that came in.
    pub(crate) peers: &'a mut std::collections::BTreeMap<SocketAddr, u32>,
    pub(crate) words: &'a mut Vec<(SocketAddr, Word)>,
    /// Messages that the grid does not act on.
    pub(crate) unused: &'a mut u64,
}

impl Sink for Door<'_> {
    fn on_message(&mut self, _now: Timestamp, message: Received<'_>) -> Taken {
        let session = self.peers.get(&message.from).and_then(|code| self.sessions.get(code));
        let who = session.map(|session| (session.guest.ids.agent_id, session.guest.ids.session_id));
        match who.and_then(|who| Word::read(&message, who)) {
            Some(word) => self.words.push((message.from, word)),
            None => *self.unused += 1,
        }
        Taken::Yes
    }

    fn on_stranger(&mut self, _: Timestamp, from: SocketAddr, ask: &UseCircuitCode) -> Admission {
        let ask = &ask.circuit_code;
        let known = self.sessions.get(&ask.code).is_some_and(|session| {
            session.guest.ids.agent_id == ask.id
                && session.guest.ids.session_id == ask.session_id
                && session.may_enter(self.region)
        });
        if !known {
            return Admission::Refuse;
        }
        self.peers.insert(from, ask.code);
        Admission::Open
    }
}
