//! Journeys that somebody else offers, and journeys home.

use std::collections::VecDeque;
use std::time::Duration;

use twinspan_circuit::{Received, SendOptions};
use twinspan_core::time::Timestamp;
use twinspan_lludp::content::Dialog;
use twinspan_lludp::messages::{
    ImprovedInstantMessage, SetStartLocationRequest, StartLure, TeleportLandmarkRequest,
    TeleportLureRequest,
};
use twinspan_lludp::{Message, Uuid, Var2, Vector3};

use crate::config::RegionId;
use crate::grid::Grid;
use crate::homes::{HomeAsk, LOOK_AT};
use crate::reply;

/// Offers of all users that are good at a time; past it the oldest are forgotten.
pub const LURES_MAX: usize = 4_096;
/// Offers of one user that are good at a time; past it his oldest is forgotten.
pub const LURES_PER_USER_MAX: usize = 16;
/// How long an offer is good.
pub const LURE_LIFETIME: Duration = Duration::from_secs(300);
/// Users that one offer goes to.
const TARGETS_MAX: usize = 16;

/// What a viewer says about journeys other than to a place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TripWord {
    /// Come to me.
    Offer { to: Vec<Uuid>, text: String },
    /// I come, as this offer has it.
    Accept(Uuid),
    /// To a landmark; nil is home.
    Landmark(Uuid),
    /// This is home from now on.
    SetHome(HomeAsk),
}

impl TripWord {
    /// Reads a message; `None` for others, and for those that speak for somebody else.
    pub(crate) fn read(message: &Received<'_>, who: (Uuid, Uuid)) -> Option<Self> {
        let body = message.body;
        let (speaker, word) = match message.id {
            StartLure::ID => {
                let (read, _) = StartLure::decode(body).ok()?;
                let targets = read.target_data.iter().take(TARGETS_MAX);
                let to = targets.map(|target| target.target_id).collect();
                let text = read.info.message.to_text();
                let data = read.agent_data;
                ((data.agent_id, data.session_id), Self::Offer { to, text })
            }
            TeleportLureRequest::ID => {
                let info = TeleportLureRequest::decode(body).ok()?.0.info;
                ((info.agent_id, info.session_id), Self::Accept(info.lure_id))
            }
            TeleportLandmarkRequest::ID => {
                let info = TeleportLandmarkRequest::decode(body).ok()?.0.info;
                ((info.agent_id, info.session_id), Self::Landmark(info.landmark_id))
            }
            SetStartLocationRequest::ID => {
                let (read, _) = SetStartLocationRequest::decode(body).ok()?;
                let data = read.agent_data;
                ((data.agent_id, data.session_id), Self::SetHome(HomeAsk::of(&read)))
            }
            _ => return None,
        };
        (speaker == who).then_some(word)
    }
}

#[derive(Clone, Copy, Debug)]
struct Lure {
    id: Uuid,
    from: Uuid,
    to: Uuid,
    place: (RegionId, Vector3),
    until: Timestamp,
}

/// Offers that are good.
#[derive(Debug, Default)]
pub(crate) struct Lures(VecDeque<Lure>);

impl Lures {
    fn expire(&mut self, now: Timestamp) {
        while self.0.pop_front_if(|lure| lure.until <= now).is_some() {}
    }

    fn push(&mut self, lure: Lure) {
        let mine = |other: &Lure| other.from == lure.from;
        if self.0.iter().filter(|other| mine(other)).count() >= LURES_PER_USER_MAX
            && let Some(oldest) = self.0.iter().position(mine)
        {
            self.0.remove(oldest);
        }
        if self.0.len() >= LURES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(lure);
    }

    /// An offer to somebody that is good.
    fn find(&mut self, now: Timestamp, id: Uuid, to: Uuid) -> Option<Lure> {
        self.expire(now);
        self.0.iter().find(|lure| (lure.id, lure.to) == (id, to)).copied()
    }

    /// An offer was taken: it is good once.
    fn use_up(&mut self, used: &Lure) {
        self.0.retain(|lure| (lure.id, lure.to) != (used.id, used.to));
    }

    /// Who made offers is gone.
    pub(crate) fn forget(&mut self, from: Uuid) {
        self.0.retain(|lure| lure.from != from);
    }
}

impl Grid {
    pub(crate) fn on_trip_word(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        word: TripWord,
    ) {
        match word {
            TripWord::Offer { to, text } => self.on_offer(now, region, code, (&to, &text)),
            TripWord::Accept(id) => {
                let me = self.guest(code).map(|guest| guest.ids.agent_id);
                let lure = me.and_then(|me| self.lures.find(now, id, me));
                let to = lure.map(|Lure { place: (to, position), .. }| (to, position, LOOK_AT));
                let to = to.ok_or("the offer is not good any more");
                // A journey that is refused leaves the offer as good as it was.
                if self.travel(now, region, code, to)
                    && let Some(lure) = lure
                {
                    self.lures.use_up(&lure);
                }
            }
            TripWord::Landmark(id) => {
                let me = self.guest(code).map(|guest| guest.ids.agent_id);
                let home = me.filter(|_| id.is_nil()).map(|me| self.home_of(me));
                self.travel(now, region, code, home.ok_or("there is no such landmark"));
            }
            TripWord::SetHome(ask) => self.on_home_set(now, region, code, ask),
        }
    }

    /// Somebody asks others to come to where he is.
    fn on_offer(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        (to, text): (&[Uuid], &str),
    ) {
        let Some(session) = self.sessions.get(&code) else { return };
        if session.home != Some(region) {
            self.stats.stale += 1;
            return;
        }
        let (from, position) = (session.guest.ids.agent_id, session.avatar.position());
        let name = reply::full_name(&session.guest);
        self.lures.expire(now);
        for to in to.iter().copied() {
            let id = self.draw_id();
            let hearer = self.code_of(to).and_then(|code| Some((code, self.home(code)?)));
            let Some((hearer, home)) = hearer else {
                let message = reply::not_here(from, to, id);
                self.send_to(now, region, code, &message, SendOptions::RELIABLE);
                continue;
            };
            let place = (region, position);
            self.lures.push(Lure { id, from, to, place, until: now.after(LURE_LIFETIME) });
            let mut message = ImprovedInstantMessage::default();
            message.agent_data.agent_id = from;
            let block = &mut message.message_block;
            (block.to_agent_id, block.id) = (to, id);
            block.dialog = Dialog::TeleportOffered.wire();
            block.from_agent_name = name.clone();
            block.message = Var2::text(text).unwrap_or_default();
            block.position = position;
            block.region_id = self.regions.get(region.0).map_or(Uuid::nil(), |place| place.id);
            (block.parent_estate_id, block.offline) = (1, 0);
            message.estate_block.get_or_insert_default().estate_id = 1;
            self.send_to(now, home, hearer, &message, SendOptions::RELIABLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use twinspan_core::random::Stream;

    use super::*;
    use crate::avatar::GROUND;
    use crate::config::{GridConfig, Guest, RegionConfig};
    use crate::travel::Coming;

    const HOME: Vector3 = Vector3::new(128.0, 128.0, GROUND + 1.0);

    fn lure(number: u128, from: u128) -> Lure {
        let [id, from, to] = [number, from, 9].map(Uuid::from_u128);
        let until = Timestamp::START.after(LURE_LIFETIME);
        Lure { id, from, to, place: (RegionId(0), HOME), until }
    }

    #[test]
    fn an_offer_is_good_once_for_whom_it_was_made_and_for_a_while() {
        let mut lures = Lures::default();
        lures.push(lure(1, 5));
        lures.push(lure(2, 5));
        let [one, two, to, other] = [1, 2, 9, 8].map(Uuid::from_u128);
        assert!(lures.find(Timestamp::START, one, other).is_none());
        let found = lures.find(Timestamp::START, one, to).unwrap();
        lures.use_up(&found);
        assert!(lures.find(Timestamp::START, one, to).is_none());
        assert!(lures.find(Timestamp::START, two, to).is_some());
        assert!(lures.find(Timestamp::START.after(LURE_LIFETIME), two, to).is_none());
        assert_eq!(lures.0.len(), 0);
    }

    #[test]
    fn a_journey_that_is_refused_leaves_the_offer_good() {
        let (random, secrets) = (Stream::new(1, "grid", 0), Stream::new(1, "secrets", 0));
        let mut grid = Grid::new(GridConfig::default(), random, Box::new(secrets)).unwrap();
        for (name, x) in [("Alpha", 1_000), ("Beta", 1_001)] {
            let addr = SocketAddr::from(([127, 0, 0, 1], 9_000 + x as u16));
            grid.add_region(RegionConfig { name: name.into(), x, y: 1_000, addr }).unwrap();
        }
        let (now, guest) = (Timestamp::START, Guest::example(1));
        let (me, code) = (guest.ids.agent_id, guest.ids.circuit_code);
        grid.admit(now, guest, RegionId(0), HOME).unwrap();
        let made = Lure { to: me, place: (RegionId(1), HOME), ..lure(7, 5) };
        grid.lures.push(made);
        let mut accept = |is_here: bool, is_going: bool| {
            let session = grid.sessions.get_mut(&code).unwrap();
            session.home = is_here.then_some(RegionId(0));
            session.coming = is_going.then(|| Coming::login(RegionId(0), made.until, HOME));
            grid.on_trip_word(now, RegionId(0), code, TripWord::Accept(made.id));
            (grid.lures.0.len(), grid.destination(code).is_some())
        };
        assert_eq!(accept(false, false), (1, false), "he is elsewhere");
        assert_eq!(accept(true, true), (1, true), "he is on his way already");
        assert_eq!(accept(true, false), (0, true), "he goes");
        assert_eq!(accept(true, false), (0, false), "it was good once");
    }

    #[test]
    fn offers_are_bounded() {
        let mut lures = Lures::default();
        for number in 0..100 {
            lures.push(lure(number, 5));
        }
        assert_eq!(lures.0.len(), LURES_PER_USER_MAX);
        assert_eq!(lures.0.front().map(|lure| lure.id.as_u128()), Some(84));
        for number in 0..2 * LURES_MAX as u128 {
            lures.push(lure(1_000 + number, 100 + number));
        }
        assert_eq!(lures.0.len(), LURES_MAX);
        lures.forget(Uuid::from_u128(100 + 2 * LURES_MAX as u128 - 1));
        assert_eq!(lures.0.len(), LURES_MAX - 1);
    }
}
