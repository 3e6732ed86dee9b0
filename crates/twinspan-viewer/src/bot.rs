//! What an avatar can do, in words of every day.

use std::time::Duration;

use tokio::sync::oneshot;
use twinspan_circuit::{Body, Destination};
use twinspan_lludp::content::{ChatType, Dialog, PCode};
use twinspan_lludp::messages::{
    AgentRequestSit, AgentSit, ChatFromViewer, ImprovedInstantMessage, SetStartLocationRequest,
    StartLure, StartLureTargetData,
};
use twinspan_lludp::{AnyMessage, TooLong, Uuid, Var1, Var2, Vector3};

use crate::bus::Subscription;
use crate::core::AgentSession;
use crate::event::WorldEvent;
use crate::handle::{Arrived, CoreHandle, DeliveryError, JourneyError};
use crate::lookup::LookupError;
use crate::pilot::{
    CONTROL_FLY, CONTROL_SIT_ON_GROUND, CONTROL_STAND_UP, CONTROL_UP, Goal, WalkError, facing,
};
use crate::seat::SeatError;
use crate::transfer::{TransferError, TransferRequest};
use crate::world::{Avatar, SeenObject};

/// Bytes of one chat message; grids cut what is longer.
pub const CHAT_BYTES_MAX: usize = 1_023;
/// How long a control that is pressed once is held.
const PRESS: Duration = Duration::from_millis(300);

/// Why an avatar did not do it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BotError {
    /// There is no connection.
    #[error("the client is not connected")]
    NotConnected,
    /// It was not sent, or is not known to have arrived.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// A text is too long.
    #[error("a text of {bytes} bytes, say {CHAT_BYTES_MAX} at most at a time, 254 in an offer")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A journey was not made.
    #[error(transparent)]
    Journey(#[from] JourneyError),
    /// A region was not found.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A walk did not lead to its end.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The avatar does not sit.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// Something was not fetched.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The region told of no such object.
    #[error("there is no such object around")]
    NoObject,
    /// The place is none, or the avatar stands on it.
    #[error("no place to look at")]
    NoPlace,
}

/// An avatar's voice, feet and eyes. Clones are the same avatar's.
///
/// ```no_run
/// use twinspan_viewer::{Client, Grid, LoginCredentials, WorldEvent};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = Client::new();
/// client.initialize().await?;
/// let grid = Grid::OpenSim("http://127.0.0.1:9000/".into());
/// client.connect(LoginCredentials::new("Test User", "secret").with_grid(grid)).await?;
/// let bot = client.bot();
/// let mut heard = bot.listen();
/// bot.say("hello").await?;
/// while let Ok(event) = heard.recv().await {
///     if let WorldEvent::Chat(chat) = event {
///         println!("{}: {}", chat.from_name, chat.text);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Bot {
    core: CoreHandle,
}

impl Bot {
    pub(crate) const fn new(core: CoreHandle) -> Self {
        Self { core }
    }

    /// Hears and sees everything from now on. The subscriber is named after the place in the
    /// program that calls this.
    #[track_caller]
    pub fn listen(&self) -> Subscription<WorldEvent> {
        self.core.shared.world.subscribe()
    }

    async fn with<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut AgentSession) -> R + Send + 'static,
    ) -> Result<R, BotError> {
        self.core.with(move |session, _| work(session)).await.ok_or(BotError::NotConnected)
    }

    /// Says something that is heard 20 m away, and waits until the region has it.
    ///
    /// # Errors
    /// [`BotError`]
    pub async fn say(&self, text: &str) -> Result<(), BotError> {
        self.speak(text, ChatType::Normal, 0).await
    }

    /// Says something that is heard 10 m away.
    ///
    /// # Errors
    /// [`BotError`]
    pub async fn whisper(&self, text: &str) -> Result<(), BotError> {
        self.speak(text, ChatType::Whisper, 0).await
    }

    /// Says something that is heard 100 m away.
    ///
    /// # Errors
    /// [`BotError`]
    pub async fn shout(&self, text: &str) -> Result<(), BotError> {
        self.speak(text, ChatType::Shout, 0).await
    }

    /// Says something to scripts that listen on a channel.
    ///
    /// # Errors
    /// [`BotError`]
    pub async fn say_on(&self, channel: i32, text: &str) -> Result<(), BotError> {
        self.speak(text, ChatType::Normal, channel).await
    }

    async fn speak(&self, text: &str, kind: ChatType, channel: i32) -> Result<(), BotError> {
        let message = sendable(text)?;
        let (agent_id, session_id) =
            self.with(|session| (session.agent_id(), session.session_id())).await?;
        let mut chat = ChatFromViewer::default();
        chat.agent_data.agent_id = agent_id;
        chat.agent_data.session_id = session_id;
        chat.chat_data.message = message;
        chat.chat_data.r#type = kind.wire();
        chat.chat_data.channel = channel;
        self.deliver(chat).await
    }

    async fn deliver(&self, message: impl Into<AnyMessage>) -> Result<(), BotError> {
        self.core.main_circuit().send_reliable([message.into()]).await?;
        Ok(())
    }

    /// Sends an instant message, and waits until the region has it.
    ///
    /// # Errors
    /// [`BotError`]
    pub async fn instant_message(&self, to: Uuid, text: &str) -> Result<(), BotError> {
        let text = sendable(text)?;
        let message = self.with(move |session| {
            let mut message = ImprovedInstantMessage::default();
            message.agent_data.agent_id = session.agent_id();
            message.agent_data.session_id = session.session_id();
            // Older peers read it unasked.
            message.estate_block = Some(Default::default());
            let block = &mut message.message_block;
            block.to_agent_id = to;
            block.dialog = Dialog::Message.wire();
            block.position = session.position();
            // A talk of two has a name that both ends can make.
            block.id = Uuid::from_u128(session.agent_id().as_u128() ^ to.as_u128());
            let name = format!("{} {}", session.info().first_name, session.info().last_name);
            block.from_agent_name = Var1::text(&name).unwrap_or_default();
            block.message = text;
            block.binary_bucket = Var2::new([0]).unwrap_or_default();
            message
        });
        let message = message.await?;
        self.deliver(message).await
    }

    /// Where the avatar is in its region, in metres, as far as that is known.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn position(&self) -> Result<Vector3, BotError> {
        self.with(|session| session.position()).await
    }

    /// The avatars in the region, this one included.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn avatars(&self) -> Result<Vec<Avatar>, BotError> {
        let all = |session: &mut AgentSession| {
            session.region().map(|region| session.world().avatars(region)).unwrap_or_default()
        };
        self.with(all).await
    }

    /// The objects in the region no farther than this, in metres; nearest first. What is attached to
    /// another is not among them.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn objects_within(&self, metres: f32) -> Result<Vec<SeenObject>, BotError> {
        self.with(move |session| {
            let here = session.position();
            let distance = |object: &SeenObject| {
                let to = object.position;
                let (dx, dy, dz) = (to.x - here.x, to.y - here.y, to.z - here.z);
                (dx * dx + dy * dy + dz * dz).sqrt()
            };
            let Some(region) = session.region() else { return Vec::new() };
            let mut near: Vec<(f32, SeenObject)> = session
                .world()
                .objects(region)
                .filter(|object| object.kind != PCode::Avatar && object.parent_id == 0)
                .map(|object| (distance(object), object.clone()))
                .filter(|(distance, _)| *distance <= metres)
                .collect();
            near.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            near.into_iter().map(|(_, object)| object).collect()
        })
        .await
    }

    /// Turns to a place.
    ///
    /// # Errors
    /// [`BotError::NoPlace`] when the avatar stands on it.
    pub async fn turn_to(&self, place: Vector3) -> Result<(), BotError> {
        self.with(move |session| {
            let here = session.position();
            let way = facing(place.x - here.x, place.y - here.y).ok_or(BotError::NoPlace)?;
            session.steer(|body| {
                body.body_rotation = way;
                body.head_rotation = way;
            });
            Ok(())
        })
        .await?
    }

    /// Walks to a place in the region and waits until it is no farther than a metre, or the limit is
    /// over.
    ///
    /// # Errors
    /// [`BotError::Walk`]
    ///
    /// # Cancel safety
    /// Dropping the future lets the avatar walk on; see [`stop`](Self::stop).
    pub async fn walk_to(&self, place: Vector3, limit: Duration) -> Result<(), BotError> {
        if !(place.x.is_finite() && place.y.is_finite()) {
            return Err(WalkError::NoPlace.into());
        }
        let (reply, arrived) = oneshot::channel();
        let begun = self.core.with(move |session, now| {
            session.walk(now, Goal::Place(place), 1.0, Some(limit), Some(reply));
        });
        begun.await.ok_or(BotError::NotConnected)?;
        Ok(arrived.await.unwrap_or(Err(WalkError::NotConnected))?)
    }

    /// Follows an avatar or an object, and stays this far away, in metres, until told otherwise.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn follow(&self, id: Uuid, metres: f32) -> Result<(), BotError> {
        let begun = self.core.with(move |session, now| {
            session.walk(now, Goal::Follow(id), metres.max(0.5), None, None);
        });
        begun.await.ok_or(BotError::NotConnected)
    }

    /// Presses controls until [`stop`](Self::stop): the constants `CONTROL_*`, or'ed.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn press(&self, controls: u32) -> Result<(), BotError> {
        self.with(move |session| {
            session.stop_walking();
            session.steer(|body| body.control_flags |= controls);
        })
        .await
    }

    /// Stands still: ends walks and lets go of all controls but flying.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn stop(&self) -> Result<(), BotError> {
        self.with(|session| {
            session.stop_walking();
            session.steer(|body| body.control_flags &= CONTROL_FLY);
        })
        .await
    }

    /// Flies, or stops to.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn fly(&self, flies: bool) -> Result<(), BotError> {
        self.with(move |session| {
            session.steer(|body| {
                let others = body.control_flags & !CONTROL_FLY;
                body.control_flags = others | if flies { CONTROL_FLY } else { 0 };
            });
        })
        .await
    }

    /// Jumps.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn jump(&self) -> Result<(), BotError> {
        self.tap(CONTROL_UP).await
    }

    /// Stands up.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn stand(&self) -> Result<(), BotError> {
        self.tap(CONTROL_STAND_UP).await
    }

    /// Sits down on the ground.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn sit_on_ground(&self) -> Result<(), BotError> {
        self.tap(CONTROL_SIT_ON_GROUND).await
    }

    /// Presses controls for a moment.
    async fn tap(&self, controls: u32) -> Result<(), BotError> {
        let pressed = self.core.with(move |session, now| {
            session.stop_walking();
            session.tap(now, controls, PRESS);
        });
        pressed.await.ok_or(BotError::NotConnected)
    }

    /// Sits down on an object, and waits until the region has it.
    ///
    /// # Errors
    /// [`BotError::Seat`] when the region offers no seat there.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the avatar standing, unless it has taken the seat already.
    pub async fn sit_on(&self, object: Uuid) -> Result<(), BotError> {
        let (reply, offered) = oneshot::channel();
        let messages = self.core.with(move |session, now| {
            session.wait_for_seat(now, object, reply)?;
            let mut ask = AgentRequestSit::default();
            ask.agent_data.agent_id = session.agent_id();
            ask.agent_data.session_id = session.session_id();
            ask.target_object.target_id = object;
            let sit = AgentSit { agent_data: ask.agent_data };
            Ok::<_, SeatError>((ask, sit))
        });
        let (ask, sit) = messages.await.ok_or(BotError::NotConnected)??;
        self.deliver(ask).await?;
        offered.await.unwrap_or(Err(SeatError::NotConnected))?;
        self.deliver(sit).await
    }

    /// Fetches the list of what is in an object, as the region writes it; no bytes when nothing is
    /// in it.
    ///
    /// # Errors
    /// [`BotError::NoObject`], [`BotError::Transfer`]
    ///
    /// # Cancel safety
    /// Dropping the future lets the transfer go on until its end or its time.
    pub async fn contents(&self, object: Uuid) -> Result<Vec<u8>, BotError> {
        let seen = self.with(move |session| {
            let here = session.region()?;
            let (region, seen) = session.world().object(object)?;
            (region == here).then_some(seen.local_id)
        });
        let local_id = seen.await?.ok_or(BotError::NoObject)?;
        Ok(self.core.transfer(TransferRequest::Contents { object, local_id }).await?)
    }

    /// Offers somebody a teleport to where the avatar is, and waits until the region has the offer.
    ///
    /// # Errors
    /// [`BotError`]
    pub async fn offer_teleport(&self, to: Uuid, text: &str) -> Result<(), BotError> {
        let bytes = text.len();
        // The offer has one byte for the length of its text.
        let message = match Var1::text(text) {
            Ok(message) => message,
            Err(TooLong { .. }) => return Err(BotError::TooLong { bytes }),
        };
        let (agent_id, session_id) =
            self.with(|session| (session.agent_id(), session.session_id())).await?;
        let mut offer = StartLure::default();
        offer.agent_data.agent_id = agent_id;
        offer.agent_data.session_id = session_id;
        offer.info.message = message;
        offer.target_data = vec![StartLureTargetData { target_id: to }];
        self.deliver(offer).await
    }

    /// Teleports to a place in a region by its place on the grid, and waits until the avatar is
    /// there.
    ///
    /// # Errors
    /// [`BotError::Journey`]
    pub async fn teleport(&self, handle: u64, position: Vector3) -> Result<Arrived, BotError> {
        let look_at = Vector3::new(1.0, 0.0, 0.0);
        Ok(self.core.teleport(Destination::Location { handle, position, look_at }).await?)
    }

    /// Teleports to a place in a region by its name, and waits until the avatar is there.
    ///
    /// # Errors
    /// [`BotError`]
    pub async fn teleport_to(&self, region: &str, position: Vector3) -> Result<Arrived, BotError> {
        let handle = self.find_region(region).await?;
        self.teleport(handle, position).await
    }

    /// Teleports home.
    ///
    /// # Errors
    /// [`BotError::Journey`]
    pub async fn teleport_home(&self) -> Result<Arrived, BotError> {
        Ok(self.core.teleport(Destination::Landmark(Uuid::nil())).await?)
    }

    /// Makes the place where the avatar is its home, and waits until the region has the word. What
    /// the region says of it comes as [`WorldEvent::Alert`].
    ///
    /// # Errors
    /// [`BotError`]
    pub async fn set_home(&self) -> Result<(), BotError> {
        /// Among the places where one may begin, the number of home.
        const HOME_ID: u32 = 1;
        let mut home = SetStartLocationRequest::default();
        let (agent_id, session_id, position, look_at) = self
            .with(|session| {
                let ids = (session.agent_id(), session.session_id());
                (ids.0, ids.1, session.position(), session.looks_at())
            })
            .await?;
        home.agent_data.agent_id = agent_id;
        home.agent_data.session_id = session_id;
        let data = &mut home.start_location_data;
        data.location_id = HOME_ID;
        (data.location_pos, data.location_look_at) = (position, look_at);
        self.deliver(home).await
    }

    /// Takes somebody's offer of a teleport: the session of the instant message that it came by,
    /// whose dialog is [`Dialog::TeleportOffered`].
    ///
    /// # Errors
    /// [`BotError::Journey`]
    pub async fn accept_teleport(&self, offer: Uuid) -> Result<Arrived, BotError> {
        // As viewers answer offers that come by instant message.
        const VIA_LURE: u32 = 4;
        Ok(self.core.teleport(Destination::Lure { id: offer, flags: VIA_LURE }).await?)
    }

    /// The place on the grid of a region, by its name in any case of letters: one with a circuit, or
    /// as the grid's map has it.
    ///
    /// # Errors
    /// [`BotError::Lookup`]
    pub async fn find_region(&self, name: &str) -> Result<u64, BotError> {
        let name = name.to_owned();
        let (reply, answer) = oneshot::channel();
        let asked = self.core.with(move |session, now| session.find_region(now, &name, reply));
        asked.await.ok_or(BotError::NotConnected)??;
        Ok(answer.await.unwrap_or(Err(LookupError::NotConnected))?)
    }

    /// Sees this far, in metres, as the region is told; regions may show more.
    ///
    /// # Errors
    /// [`BotError::NotConnected`]
    pub async fn see(&self, metres: f32) -> Result<(), BotError> {
        self.with(move |session| session.steer(|body: &mut Body| body.far = metres)).await
    }
}

fn sendable(text: &str) -> Result<Var2, BotError> {
    let bytes = text.len();
    let too_long = BotError::TooLong { bytes };
    if bytes > CHAT_BYTES_MAX {
        return Err(too_long);
    }
    Var2::text(text).map_err(|TooLong { .. }| too_long)
}
