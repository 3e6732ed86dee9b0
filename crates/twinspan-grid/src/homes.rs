//! Homes: where a journey home leads to, and a login that asks for it.

use std::collections::BTreeMap;

use twinspan_circuit::SendOptions;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{AlertMessage, AlertMessageAlertInfo, SetStartLocationRequest};
use twinspan_lludp::{Uuid, Var1, Vector3};

use crate::account::ACCOUNTS_MAX;
use crate::avatar::GROUND;
use crate::config::{REGION_METRES, RegionId};
use crate::grid::Grid;

/// Where home is in the first region, for those who set none.
const HOME: Vector3 = Vector3::new(128.0, 128.0, GROUND + 1.0);
/// Where who is teleported looks: east.
pub(crate) const LOOK_AT: Vector3 = Vector3::new(1.0, 0.0, 0.0);
/// Among the places where one may begin, the number of home.
const HOME_ID: u32 = 1;
/// Metres above which nobody lives.
const HEIGHT_MAX: f32 = 4_096.0;

/// A region, a place in it and a direction to look in.
pub(crate) type Place = (RegionId, Vector3, Vector3);

/// The homes that agents set, while the grid runs: one for each account.
#[derive(Debug, Default)]
pub(crate) struct Homes(BTreeMap<Uuid, Place>);

/// A viewer's word on where somebody wants to begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HomeAsk {
    id: u32,
    position: Vector3,
    look_at: Vector3,
}

impl HomeAsk {
    pub(crate) const fn of(read: &SetStartLocationRequest) -> Self {
        let data = &read.start_location_data;
        let (position, look_at) = (data.location_pos, data.location_look_at);
        Self { id: data.location_id, position, look_at }
    }

    /// The place in a region and the direction, where these can be some.
    fn place(&self) -> Option<(Vector3, Vector3)> {
        let Vector3 { x, y, z } = self.position;
        let inside = 0.0..=REGION_METRES as f32;
        let is_place =
            inside.contains(&x) && inside.contains(&y) && (0.0..=HEIGHT_MAX).contains(&z);
        let Vector3 { x, y, z } = self.look_at;
        let square = x * x + y * y + z * z;
        let is_direction = square.is_finite() && square > f32::EPSILON;
        is_place.then_some((self.position, if is_direction { self.look_at } else { LOOK_AT }))
    }
}

impl Homes {
    /// False where there is no room for another.
    fn set(&mut self, agent_id: Uuid, home: Place) -> bool {
        let has_room = self.0.len() < ACCOUNTS_MAX || self.0.contains_key(&agent_id);
        if has_room {
            self.0.insert(agent_id, home);
        }
        has_room
    }
}

impl Grid {
    /// Where an agent is at home: what he set, else the middle of the first region; and where he
    /// looks there.
    pub fn home_of(&self, agent_id: Uuid) -> (RegionId, Vector3, Vector3) {
        self.homes.0.get(&agent_id).copied().unwrap_or((RegionId(0), HOME, LOOK_AT))
    }

    /// Somebody wants to be at home where he is.
    pub(crate) fn on_home_set(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        ask: HomeAsk,
    ) {
        let Some(session) = self.sessions.get(&code) else { return };
        // His last place is not his to tell.
        if session.home != Some(region) || ask.id != HOME_ID {
            self.stats.stale += 1;
            return;
        }
        let agent_id = session.guest.ids.agent_id;
        let set = ask.place().is_some_and(|(position, look_at)| {
            self.homes.set(agent_id, (region, position, look_at))
        });
        if set {
            return self.alert(now, region, code, "Home position set.", "HomePositionSet");
        }
        self.alert(now, region, code, "Your home was not set: nobody lives there.", "");
    }

    /// Tells somebody something; the second text is its name for viewers that have words of their
    /// own for it.
    pub(crate) fn alert(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        text: &str,
        name: &str,
    ) {
        let mut alert = AlertMessage::default();
        alert.alert_data.message = Var1::text(text).unwrap_or_default();
        if let Ok(message) = Var1::text(name)
            && !name.is_empty()
        {
            alert.alert_info = vec![AlertMessageAlertInfo { message, ..Default::default() }];
        }
        self.send_to(now, region, code, &alert, SendOptions::RELIABLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_inside_its_region_and_looks_somewhere() {
        let at = |x, y, z| Vector3::new(x, y, z);
        let ask = |position, look_at| HomeAsk { id: HOME_ID, position, look_at };
        let (here, north) = (at(10.0, 256.0, 30.0), at(0.0, 1.0, 0.0));
        assert_eq!(ask(here, north).place(), Some((here, north)));
        for nowhere in [at(0.0, 0.0, 0.0), at(f32::NAN, 0.0, 1.0), at(f32::INFINITY, 0.0, 0.0)] {
            assert_eq!(ask(here, nowhere).place(), Some((here, LOOK_AT)));
        }
        for outside in [
            at(-1.0, 5.0, 30.0),
            at(5.0, 256.1, 30.0),
            at(5.0, 5.0, 5_000.0),
            at(5.0, 5.0, -1.0),
            at(f32::NAN, 5.0, 30.0),
        ] {
            assert_eq!(ask(outside, north).place(), None, "{outside:?}");
        }
    }

    #[test]
    fn homes_are_bounded_and_may_change() {
        let mut homes = Homes::default();
        let home = (RegionId(0), HOME, LOOK_AT);
        for number in 0..ACCOUNTS_MAX as u128 {
            assert!(homes.set(Uuid::from_u128(number), home));
        }
        assert!(!homes.set(Uuid::from_u128(u128::MAX), home));
        assert!(homes.set(Uuid::nil(), (RegionId(1), HOME, LOOK_AT)));
        assert_eq!(homes.0.len(), ACCOUNTS_MAX);
    }
}
