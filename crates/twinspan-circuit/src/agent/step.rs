//! Messages that move an agent's state, picked out of what comes.

use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{
    AgentMovementComplete, DisableSimulator, KickUser, LogoutReply, RegionHandshake,
    TeleportFailed, TeleportLocal, TeleportProgress, TeleportStart,
};
use twinspan_lludp::{Message, Uuid, Vector3};

use crate::message::{Received, Sink, Taken};

/// Text of a peer that is kept.
const TEXT_CHARS_MAX: usize = 1_024;

/// One such message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Handshake { name: String, region_id: Uuid, flags: u32 },
    MovementComplete { agent_id: Uuid, session_id: Uuid, handle: u64, position: Vector3 },
    TeleportStart,
    TeleportProgress { text: String },
    TeleportLocal { position: Vector3 },
    TeleportFailed { reason: String },
    Disable,
    Kick { reason: String },
    LogoutReply,
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

impl Step {
    /// Reads a message if it is one of these; a broken one is none.
    pub(crate) fn read(message: &Received<'_>) -> Option<Self> {
        let body = message.body;
        Some(match message.id {
            RegionHandshake::ID => {
                let (read, _) = RegionHandshake::decode(body).ok()?;
                Self::Handshake {
                    name: short(&read.region_info.sim_name.to_text()),
                    region_id: read.region_info2.region_id,
                    flags: read.region_info.region_flags,
                }
            }
            AgentMovementComplete::ID => {
                let (read, _) = AgentMovementComplete::decode(body).ok()?;
                Self::MovementComplete {
                    agent_id: read.agent_data.agent_id,
                    session_id: read.agent_data.session_id,
                    handle: read.data.region_handle,
                    position: read.data.position,
                }
            }
            TeleportStart::ID => Self::TeleportStart,
            TeleportProgress::ID => {
                let (read, _) = TeleportProgress::decode(body).ok()?;
                Self::TeleportProgress { text: short(&read.info.message.to_text()) }
            }
            TeleportLocal::ID => {
                let (read, _) = TeleportLocal::decode(body).ok()?;
                Self::TeleportLocal { position: read.info.position }
            }
            TeleportFailed::ID => {
                let (read, _) = TeleportFailed::decode(body).ok()?;
                Self::TeleportFailed { reason: short(&read.info.reason.to_text()) }
            }
            DisableSimulator::ID => Self::Disable,
            KickUser::ID => {
                let (read, _) = KickUser::decode(body).ok()?;
                Self::Kick { reason: short(&read.user_info.reason.to_text()) }
            }
            LogoutReply::ID => Self::LogoutReply,
            _ => return None,
        })
    }
}

/// Stands before the user's sink. What the agent needs it takes even where the user has no room.
pub(crate) struct Intercept<'a> {
    pub(crate) user: &'a mut dyn Sink,
    pub(crate) steps: &'a mut Vec<(core::net::SocketAddr, Step)>,
}

impl Sink for Intercept<'_> {
    fn on_message(&mut self, now: Timestamp, message: Received<'_>) -> Taken {
        let taken = self.user.on_message(now, message);
        match Step::read(&message) {
            Some(step) => {
                self.steps.push((message.from, step));
                Taken::Yes
            }
            None => taken,
        }
    }
}
