//! Arrivals, teleports and crossings, as the grid decides them.

use twinspan_circuit::{QueueEvent, Seed, SendOptions};
use twinspan_core::time::Timestamp;
use twinspan_lludp::Vector3;
use twinspan_lludp::messages::TeleportStart;

use crate::config::{RegionConfig, RegionId};
use crate::event::GridEvent;
use crate::grid::Grid;
use crate::reply;

/// Somebody who is to come into a region.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Coming {
    to: RegionId,
    kind: Kind,
    until: Timestamp,
    position: Vector3,
    look_at: Vector3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Login,
    Teleport,
    Crossing,
    /// The region that he was in lost him, and he was on his way to none.
    Nowhere,
}

impl Coming {
    pub(crate) const fn login(to: RegionId, until: Timestamp, position: Vector3) -> Self {
        let look_at = Vector3::new(1.0, 0.0, 0.0);
        Self { to, kind: Kind::Login, until, position, look_at }
    }

    pub(crate) const fn nowhere(of: RegionId, until: Timestamp) -> Self {
        let nil = Vector3::new(0.0, 0.0, 0.0);
        Self { to: of, kind: Kind::Nowhere, until, position: nil, look_at: nil }
    }

    pub(crate) const fn until(&self) -> Timestamp {
        self.until
    }
}

impl Grid {
    /// Whether two regions touch, at a side or a corner.
    fn are_neighbours(&self, one: RegionId, other: RegionId) -> bool {
        let (Some(one), Some(other)) = (self.region(one), self.region(other)) else {
            return false;
        };
        let near = one.x.abs_diff(other.x) <= 1 && one.y.abs_diff(other.y) <= 1;
        near && one.handle() != other.handle()
    }

    /// Somebody says that he is there.
    pub(crate) fn on_arrive(&mut self, now: Timestamp, region: RegionId, code: u32) {
        let handle = self.region(region).map_or(0, RegionConfig::handle);
        let Some(session) = self.sessions.get_mut(&code) else { return };
        let from = session.home;
        let expected =
            session.coming.take_if(|coming| coming.to == region && coming.kind != Kind::Nowhere);
        if expected.is_none() && from != Some(region) {
            self.stats.stale += 1;
            return;
        }
        let look_at = expected.map_or(Vector3::new(1.0, 0.0, 0.0), |coming| coming.look_at);
        if let Some(coming) = expected {
            session.home = Some(region);
            session.avatar.put(coming.position);
        }
        let (ids, position) = (session.guest.ids, session.avatar.position());
        let complete = reply::movement_complete(&ids, handle, (position, look_at));
        let options = SendOptions::CRITICAL.within(self.config.arrival_timeout);
        let sent = self.addr_of(region, code).and_then(|addr| {
            let place = self.regions.get_mut(region.0)?;
            place.circuits.send_tracked(now, addr, &complete, options).ok()
        });
        self.stats.dropped += u64::from(sent.is_none());
        if let Some(session) = self.sessions.get_mut(&code) {
            session.let_in = sent.map(|id| (region, id));
        }
        if let Some(from) = from.filter(|from| *from != region) {
            self.hide(now, from, code);
        }
        if let Some(avatar) = self.avatar_update(region, code) {
            self.send_to(now, region, code, &avatar, SendOptions::RELIABLE);
            self.broadcast(now, region, &avatar, SendOptions::RELIABLE, Some(code));
        }
        if let Some(session) = self.sessions.get_mut(&code) {
            session.avatar.on_shown();
        }
        if expected.is_some() {
            self.tell(GridEvent::Arrived { code, region, from });
            self.tidy_circuits(now, region, code);
        }
    }

    /// Regions that are no longer in sight are left, those that came into sight are told of.
    fn tidy_circuits(&mut self, now: Timestamp, home: RegionId, code: u32) {
        let Some(session) = self.sessions.get(&code) else { return };
        let left: Vec<RegionId> = session
            .allowed
            .iter()
            .copied()
            .filter(|region| *region != home && !self.are_neighbours(home, *region))
            .collect();
        for region in left {
            self.disable(now, region, code);
        }
        let near: Vec<RegionId> = self
            .regions()
            .map(|(region, _)| region)
            .filter(|region| self.are_neighbours(home, *region))
            .collect();
        for region in near {
            let known = self.addr_of(region, code).is_some();
            let Some(config) = self.region(region) else { continue };
            let (addr, handle) = (config.addr, config.handle());
            if let Some(session) = self.sessions.get_mut(&code) {
                session.allowed.insert(region);
            }
            if known {
                continue;
            }
            self.enqueue(code, home, QueueEvent::EnableSimulator { addr, handle });
            if let Some(seed) = self.seed(region, code) {
                self.enqueue(code, home, QueueEvent::EstablishAgentCommunication { addr, seed });
            }
        }
    }

    /// The first capability that somebody has at a region; it is drawn when there is none yet.
    /// `None` when he is not on the grid.
    pub fn seed(&mut self, region: RegionId, code: u32) -> Option<Seed> {
        let known = self.region(region).is_some() && self.sessions.contains_key(&code);
        let path = known.then(|| self.seeds.path(code, region))?;
        Seed::new(format!("{}{path}", self.config.caps_url))
    }

    /// Where somebody comes to, and looks at, when he is on his way.
    pub(crate) fn destination(&self, code: u32) -> Option<(Vector3, Vector3)> {
        let coming = self.sessions.get(&code)?.coming?;
        Some((coming.position, coming.look_at))
    }

    pub(crate) fn on_teleport(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        (handle, position, look_at): (u64, Vector3, Vector3),
    ) {
        let to = self.region_at(handle).map(|to| (to, position, look_at));
        self.travel(now, region, code, to.ok_or("there is no such region"));
    }

    /// Somebody asks to go somewhere, or for what is nowhere: then this is told. Whether he goes.
    pub(crate) fn travel(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        to: Result<(RegionId, Vector3, Vector3), &str>,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&code) else { return false };
        if session.home != Some(region) {
            self.stats.stale += 1;
            return false;
        }
        let ids = session.guest.ids;
        if session.coming.is_some() {
            self.refuse(now, region, code, "you are on your way already");
            return false;
        }
        match to {
            Err(reason) => {
                self.refuse(now, region, code, reason);
                false
            }
            Ok((to, position, look_at)) if to == region => {
                session.avatar.put(position);
                let position = session.avatar.position();
                let message = reply::teleport_local(&ids, (position, look_at));
                self.send_to(now, region, code, &message, SendOptions::CRITICAL);
                self.show(now, region, code, None);
                true
            }
            Ok((to, position, look_at)) => {
                self.send_to(now, region, code, &TeleportStart::default(), SendOptions::RELIABLE);
                let message = reply::teleport_progress(&ids, "sending you there");
                self.send_to(now, region, code, &message, SendOptions::RELIABLE);
                self.send_off(now, code, (to, Kind::Teleport), (position, look_at));
                self.sessions.get(&code).is_some_and(|session| session.coming.is_some())
            }
        }
    }

    fn refuse(&mut self, now: Timestamp, region: RegionId, code: u32, reason: &str) {
        let Some(session) = self.sessions.get(&code) else { return };
        let message = reply::teleport_failed(&session.guest.ids, reason);
        self.send_to(now, region, code, &message, SendOptions::CRITICAL);
    }

    /// Expects somebody in a region and tells him so.
    fn send_off(
        &mut self,
        now: Timestamp,
        code: u32,
        (to, kind): (RegionId, Kind),
        (position, look_at): (Vector3, Vector3),
    ) {
        let until = now.after(self.config.arrival_timeout);
        let seed = self.seed(to, code);
        let Some(config) = self.region(to) else { return };
        let (addr, handle) = (config.addr, config.handle());
        let Some(session) = self.sessions.get_mut(&code) else { return };
        let Some(home) = session.home else { return };
        session.allowed.insert(to);
        session.coming = Some(Coming { to, kind, until, position, look_at });
        let event = match kind {
            Kind::Crossing => QueueEvent::CrossedRegion { addr, handle, seed },
            _ => QueueEvent::TeleportFinish { addr, handle, seed },
        };
        self.enqueue(code, home, event);
    }

    /// Somebody walked over the border to a neighbour; false when he is in no region that touches
    /// it, or on his way already.
    pub fn cross(&mut self, now: Timestamp, code: u32, to: RegionId, position: Vector3) -> bool {
        let Some(session) = self.sessions.get(&code) else { return false };
        let Some(home) = session.home.filter(|_| session.coming.is_none()) else { return false };
        if !self.are_neighbours(home, to) {
            return false;
        }
        self.send_off(now, code, (to, Kind::Crossing), (position, Vector3::new(1.0, 0.0, 0.0)));
        true
    }

    pub(crate) fn on_cancel(&mut self, now: Timestamp, region: RegionId, code: u32) {
        let Some(session) = self.sessions.get_mut(&code) else { return };
        if session.home != Some(region) {
            self.stats.stale += 1;
            return;
        }
        let cancelled = session.coming.take_if(|coming| coming.kind == Kind::Teleport);
        match cancelled {
            Some(coming) => self.on_travel_failed(now, code, coming, "cancelled"),
            None => self.stats.stale += 1,
        }
    }

    /// Somebody does not go where he was to go.
    fn on_travel_failed(&mut self, now: Timestamp, code: u32, coming: Coming, reason: &str) {
        let to = coming.to;
        let home = self.home(code);
        if home.is_none_or(|home| !self.are_neighbours(home, to)) {
            self.disable(now, to, code);
        }
        self.tell(GridEvent::TravelFailed { code, to });
        match home {
            Some(home) => self.refuse(now, home, code, reason),
            None => self.remove(now, code, None, false),
        }
    }

    /// Gives up those who did not arrive.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let overdue: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.coming.is_some_and(|coming| coming.until <= now))
            .map(|(code, _)| *code)
            .collect();
        for code in overdue {
            let session = self.sessions.get_mut(&code);
            let Some(coming) = session.and_then(|session| session.coming.take()) else { continue };
            match coming.kind {
                Kind::Login | Kind::Nowhere => self.remove(now, code, None, false),
                Kind::Teleport | Kind::Crossing => {
                    self.on_travel_failed(now, code, coming, "the destination was not reached");
                }
            }
        }
    }
}
