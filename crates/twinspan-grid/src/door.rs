//! Who may come into a region, and what of their messages the grid acts on.

use std::net::SocketAddr;

use twinspan_circuit::{Admission, Rates, Received, Sink, Taken};
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{
    AgentDataUpdateRequest, AgentPause, AgentRequestSit, AgentResume, AgentSit, AgentThrottle,
    AgentUpdate, AgentWearablesRequest, ChatFromViewer, CompleteAgentMovement,
    ImprovedInstantMessage, LogoutRequest, MapBlockRequest, MapNameRequest, RegionHandleRequest,
    RegionHandshakeReply, RequestMultipleObjects, RequestRegionInfo, SetAlwaysRun, TeleportCancel,
    TeleportLocationRequest, UUIDNameRequest, UseCircuitCode,
};
use twinspan_lludp::{Message, Quaternion, Uuid, Vector3};

use crate::config::RegionId;
use crate::files::FileWord;
use crate::grid::Sessions;
use crate::lures::TripWord;
use crate::seats::Seats;

/// Longest text of a chat that is passed on.
const CHAT_CHARS_MAX: usize = 1_023;

/// What a viewer said that the grid acts on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Hello,
    Arrive {
        code: u32,
    },
    Throttle(Rates),
    Chat {
        text: String,
        kind: u8,
        channel: i32,
    },
    Teleport {
        handle: u64,
        position: Vector3,
        look_at: Vector3,
    },
    Trip(TripWord),
    File(FileWord),
    Cancel,
    Logout,
    Pause(bool),
    /// He is ready for what the region shows.
    Ready,
    Stance {
        rotation: Quaternion,
        flags: u32,
        /// How far his viewer shows things, in metres.
        far: f32,
    },
    Run(bool),
    AskSeat(Uuid),
    Sit,
    Message(Box<ImprovedInstantMessage>),
    MapName {
        name: String,
        flags: u32,
    },
    MapBlock {
        area: [u16; 4],
        flags: u32,
    },
    Names(Vec<Uuid>),
    Objects(Vec<u32>),
    Region(Uuid),
    Myself,
    /// What the avatar wears.
    Clothes,
    /// What this region is like.
    Here,
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
            _ => return Self::read_more(message, who),
        };
        (speaker == who).then_some(word)
    }

    /// Words about bodies, things and the map.
    fn read_more(message: &Received<'_>, who: (Uuid, Uuid)) -> Option<Self> {
        let body = message.body;
        let (speaker, word) = match message.id {
            AgentUpdate::ID => {
                let data = AgentUpdate::decode(body).ok()?.0.agent_data;
                let (rotation, flags, far) = (data.body_rotation, data.control_flags, data.far);
                ((data.agent_id, data.session_id), Self::Stance { rotation, flags, far })
            }
            RegionHandshakeReply::ID => {
                let data = RegionHandshakeReply::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Ready)
            }
            SetAlwaysRun::ID => {
                let data = SetAlwaysRun::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Run(data.always_run))
            }
            AgentRequestSit::ID => {
                let (read, _) = AgentRequestSit::decode(body).ok()?;
                let data = read.agent_data;
                let word = Self::AskSeat(read.target_object.target_id);
                ((data.agent_id, data.session_id), word)
            }
            AgentSit::ID => {
                let data = AgentSit::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Sit)
            }
            ImprovedInstantMessage::ID => {
                let (read, _) = ImprovedInstantMessage::decode(body).ok()?;
                let data = read.agent_data;
                ((data.agent_id, data.session_id), Self::Message(Box::new(read)))
            }
            AgentDataUpdateRequest::ID => {
                let data = AgentDataUpdateRequest::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Myself)
            }
            AgentWearablesRequest::ID => {
                let data = AgentWearablesRequest::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Clothes)
            }
            RequestRegionInfo::ID => {
                let data = RequestRegionInfo::decode(body).ok()?.0.agent_data;
                ((data.agent_id, data.session_id), Self::Here)
            }
            RequestMultipleObjects::ID => {
                let (read, _) = RequestMultipleObjects::decode(body).ok()?;
                let ids = read.object_data.iter().map(|object| object.id).collect();
                let data = read.agent_data;
                ((data.agent_id, data.session_id), Self::Objects(ids))
            }
            MapNameRequest::ID => {
                let (read, _) = MapNameRequest::decode(body).ok()?;
                let (data, name) = (read.agent_data, read.name_data.name.to_text());
                ((data.agent_id, data.session_id), Self::MapName { name, flags: data.flags })
            }
            MapBlockRequest::ID => {
                let (read, _) = MapBlockRequest::decode(body).ok()?;
                let (data, at) = (read.agent_data, read.position_data);
                let area = [at.min_x, at.max_x, at.min_y, at.max_y];
                ((data.agent_id, data.session_id), Self::MapBlock { area, flags: data.flags })
            }
            // These name no speaker: they are his whose circuit it is.
            UUIDNameRequest::ID => {
                let (read, _) = UUIDNameRequest::decode(body).ok()?;
                (who, Self::Names(read.uuid_name_block.iter().map(|block| block.id).collect()))
            }
            RegionHandleRequest::ID => {
                let (read, _) = RegionHandleRequest::decode(body).ok()?;
                (who, Self::Region(read.request_block.region_id))
            }
            _ => {
                let trip = || TripWord::read(message, who).map(Self::Trip);
                return FileWord::read(message, who).map(Self::File).or_else(trip);
            }
        };
        (speaker == who).then_some(word)
    }
}

/// The door of one region.
pub(crate) struct Door<'a> {
    pub(crate) region: RegionId,
    pub(crate) sessions: &'a Sessions,
    pub(crate) seats: &'a mut Seats,
    pub(crate) words: &'a mut Vec<(SocketAddr, Word)>,
    /// Messages that the grid does not act on.
    pub(crate) unused: &'a mut u64,
}

impl Sink for Door<'_> {
    fn on_message(&mut self, _now: Timestamp, message: Received<'_>) -> Taken {
        let session = self.seats.code_of(message.from).and_then(|code| self.sessions.get(&code));
        let who = session.map(|session| (session.guest.ids.agent_id, session.guest.ids.session_id));
        match who.and_then(|who| Word::read(&message, who)) {
            Some(word) => self.words.push((message.from, word)),
            None => *self.unused += 1,
        }
        Taken::Yes
    }

    fn on_stranger(&mut self, now: Timestamp, from: SocketAddr, ask: &UseCircuitCode) -> Admission {
        let ask = &ask.circuit_code;
        let known = self.sessions.get(&ask.code).is_some_and(|session| {
            session.guest.ids.agent_id == ask.id
                && session.guest.ids.session_id == ask.session_id
                && session.may_enter(self.region)
        });
        let former = self.seats.former(ask.code);
        match former {
            _ if !known || !self.seats.open(now, from, ask.code) => Admission::Refuse,
            Some(former) => Admission::Continue { former },
            None => Admission::Open,
        }
    }
}
