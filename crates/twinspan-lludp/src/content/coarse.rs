//! Where avatars are, roughly: the map of a region.

use uuid::Uuid;

use super::ContentError;
use crate::messages::{CoarseLocationUpdate, CoarseLocationUpdateLocation};

/// Metres of a step of heights.
pub const COARSE_Z_STEP: u16 = 4;

/// An avatar on the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoarseLocation {
    /// Who it is; nil where the simulator does not tell.
    pub agent_id: Uuid,
    /// Metres from the west, 0 to 255.
    pub x: u8,
    /// Metres from the south, 0 to 255.
    pub y: u8,
    /// Metres of height, in steps of [`COARSE_Z_STEP`]; `None` when it is 1,020 or more, or not
    /// known.
    pub z: Option<u16>,
    /// Whether it is the receiver.
    pub is_you: bool,
    /// Whether it is who the receiver tracks.
    pub is_prey: bool,
}

impl CoarseLocation {
    /// The block of the message; heights are rounded down to their steps.
    pub fn to_block(self) -> CoarseLocationUpdateLocation {
        let steps = |z: u16| u8::try_from(z / COARSE_Z_STEP).unwrap_or(u8::MAX);
        CoarseLocationUpdateLocation { x: self.x, y: self.y, z: self.z.map_or(u8::MAX, steps) }
    }
}

/// The avatars of a message. Ids stand in blocks of their own, in the same order; there may be fewer
/// of them.
///
/// # Errors
/// [`ContentError::Invalid`] when there are more ids than places.
pub fn coarse_locations(
    message: &CoarseLocationUpdate,
) -> Result<impl ExactSizeIterator<Item = CoarseLocation>, ContentError> {
    if message.agent_data.len() > message.location.len() {
        return Err(ContentError::Invalid { what: "an avatar on the map without a place" });
    }
    let is = |index: usize, named: i16| usize::try_from(named) == Ok(index);
    Ok(message.location.iter().enumerate().map(move |(index, place)| CoarseLocation {
        agent_id: message.agent_data.get(index).map_or(Uuid::nil(), |agent| agent.agent_id),
        x: place.x,
        y: place.y,
        z: (place.z < u8::MAX).then(|| u16::from(place.z) * COARSE_Z_STEP),
        is_you: is(index, message.index.you),
        is_prey: is(index, message.index.prey),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{CoarseLocationUpdateAgentData, CoarseLocationUpdateIndex};

    #[test]
    fn places_come_with_their_avatars() {
        let you = CoarseLocation {
            agent_id: Uuid::from_u128(1),
            x: 128,
            y: 5,
            z: Some(24),
            is_you: true,
            is_prey: false,
        };
        let high = CoarseLocation { agent_id: Uuid::nil(), z: None, is_you: false, ..you };
        let message = CoarseLocationUpdate {
            location: vec![you.to_block(), high.to_block()],
            index: CoarseLocationUpdateIndex { you: 0, prey: -1 },
            agent_data: vec![CoarseLocationUpdateAgentData { agent_id: you.agent_id }],
        };
        assert_eq!(message.location[0].z, 6);
        let all: Vec<_> = coarse_locations(&message).unwrap().collect();
        assert_eq!(all, [you, high]);
        let none = CoarseLocationUpdate { location: Vec::new(), ..message };
        assert!(coarse_locations(&none).is_err());
    }
}
