//! What client and server tell each other reliably: actions, their results, arrival and departure.

use twinspan_core::bytes::{NoRoom, ReadError, Reader, Writer};

use crate::id::EntityId;

/// Bytes of the longest encoded event.
pub const EVENT_BYTES_MAX: usize = 33;

const APPLY_EFFECT: u8 = 1;
const WANT_KEYFRAMES: u8 = 2;
const WELCOME: u8 = 1;
const ACTION_RESULT: u8 = 2;
const EFFECT_ON: u8 = 3;
const DRAINING: u8 = 4;

const OUTCOME_APPLIED: u8 = 0;
const OUTCOME_REFUSED: u8 = 1;
const OUTCOME_TOO_FAST: u8 = 2;

/// The timed effect was put on its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectApplied {
    /// The first tick at which it no longer holds.
    pub until_tick: u32,
}

/// Which rule refused an action. The number is the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
#[non_exhaustive]
pub enum ActionRefused {
    /// Who acts does not live.
    #[error("actor is gone")]
    NoActor = 1,
    /// The target does not live.
    #[error("target is gone")]
    NoTarget = 2,
    /// The target is too far away.
    #[error("target is out of range: come nearer")]
    OutOfRange = 3,
    /// The actor acted a moment ago.
    #[error("actor is cooling down: wait")]
    CoolingDown = 4,
    /// Nothing of the target's kind feels the effect.
    #[error("target cannot be affected")]
    NotAffected = 5,
}

impl ActionRefused {
    /// The rule with this number on the wire.
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::NoActor,
            2 => Self::NoTarget,
            3 => Self::OutOfRange,
            4 => Self::CoolingDown,
            5 => Self::NotAffected,
            _ => return None,
        })
    }
}

/// What became of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActionOutcome {
    /// It took effect.
    Applied {
        /// The first tick at which the effect no longer holds.
        until_tick: u32,
    },
    /// A rule of the world refused it.
    Refused(ActionRefused),
    /// The client acts more often than the server allows.
    TooFast,
}

/// What a client tells the server. In bytes: kind u8, then the fields, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Kind 1: put the timed effect on somebody.
    ApplyEffect {
        /// The client's number for this action, u32.
        action: u32,
        /// On whom, u32.
        target: EntityId,
    },
    /// Kind 2: the replica is not what the server believes it is; everything is wanted anew.
    WantKeyframes {
        /// The tick of the state that showed it, u32.
        tick: u32,
    },
}

/// What the server tells a client. In bytes: kind u8, then the fields, little-endian.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ServerEvent {
    /// Kind 1: the player stands in the world.
    Welcome {
        /// Its entity, u32.
        own: EntityId,
        /// The world's tick, u32.
        tick: u32,
        /// Ticks per second, u32, at least 1.
        tick_hz: u32,
        /// States per second, u32, at least 1.
        state_hz: u32,
        /// The side of the world in metres, f64.
        side: f64,
        /// The side of a cell in metres, f64.
        cell: f64,
    },
    /// Kind 2: what became of an action: number u32, outcome u8, then the tick u32 or the rule u8.
    ActionResult {
        /// The client's number for the action.
        action: u32,
        /// What became of it.
        outcome: ActionOutcome,
    },
    /// Kind 3: somebody put the effect on this client's player.
    EffectOn {
        /// Who did, u32.
        actor: EntityId,
        /// The first tick at which it no longer holds, u32.
        until_tick: u32,
    },
    /// Kind 4: the server will end soon and takes nobody new.
    Draining,
}

/// Why bytes are no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The bytes end too soon.
    #[error("event cut short: {0}")]
    Short(#[from] ReadError),
    /// Bytes follow the event.
    #[error("{bytes} bytes after the event")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// No event has this number.
    #[error("event kind {number} is unknown")]
    Kind {
        /// The number.
        number: u8,
    },
    /// An id has generation 0.
    #[error("entity id {bits:#x} has no generation")]
    EntityId {
        /// The id.
        bits: u32,
    },
    /// No outcome or rule has this number.
    #[error("action outcome {number} is unknown")]
    Outcome {
        /// The number.
        number: u8,
    },
    /// A rate is zero, or a length no positive number.
    #[error("welcome with a rate or a length that cannot be")]
    Measure,
}

impl ClientEvent {
    /// Writes the event to the front of `out` and returns its length, at most [`EVENT_BYTES_MAX`].
    ///
    /// # Errors
    /// [`NoRoom`] when it does not fit.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut out = Writer::new(out);
        match self {
            Self::ApplyEffect { action, target } => {
                out.u8(APPLY_EFFECT)?;
                out.u32(*action)?;
                out.u32(target.to_bits())?;
            }
            Self::WantKeyframes { tick } => {
                out.u8(WANT_KEYFRAMES)?;
                out.u32(*tick)?;
            }
        }
        Ok(out.len())
    }

    /// Reads an event that fills `bytes`.
    ///
    /// # Errors
    /// The [`EventError`] that names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, EventError> {
        let mut reader = Reader::new(bytes);
        let event = match reader.u8()? {
            APPLY_EFFECT => {
                Self::ApplyEffect { action: reader.u32()?, target: read_id(&mut reader)? }
            }
            WANT_KEYFRAMES => Self::WantKeyframes { tick: reader.u32()? },
            number => return Err(EventError::Kind { number }),
        };
        finish(&reader)?;
        Ok(event)
    }
}

impl ServerEvent {
    /// Writes the event to the front of `out` and returns its length, at most [`EVENT_BYTES_MAX`].
    ///
    /// # Errors
    /// [`NoRoom`] when it does not fit.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut out = Writer::new(out);
        match *self {
            Self::Welcome { own, tick, tick_hz, state_hz, side, cell } => {
                out.u8(WELCOME)?;
                out.u32(own.to_bits())?;
                out.u32(tick)?;
                out.u32(tick_hz)?;
                out.u32(state_hz)?;
                out.u64(side.to_bits())?;
                out.u64(cell.to_bits())?;
            }
            Self::ActionResult { action, outcome } => {
                out.u8(ACTION_RESULT)?;
                out.u32(action)?;
                match outcome {
                    ActionOutcome::Applied { until_tick } => {
                        out.u8(OUTCOME_APPLIED)?;
                        out.u32(until_tick)?;
                    }
                    ActionOutcome::Refused(rule) => {
                        out.put(&[OUTCOME_REFUSED, rule as u8])?;
                    }
                    ActionOutcome::TooFast => out.u8(OUTCOME_TOO_FAST)?,
                }
            }
            Self::EffectOn { actor, until_tick } => {
                out.u8(EFFECT_ON)?;
                out.u32(actor.to_bits())?;
                out.u32(until_tick)?;
            }
            Self::Draining => out.u8(DRAINING)?,
        }
        Ok(out.len())
    }

    /// Reads an event that fills `bytes`.
    ///
    /// # Errors
    /// The [`EventError`] that names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, EventError> {
        let mut reader = Reader::new(bytes);
        let event = match reader.u8()? {
            WELCOME => read_welcome(&mut reader)?,
            ACTION_RESULT => {
                let action = reader.u32()?;
                Self::ActionResult { action, outcome: read_outcome(&mut reader)? }
            }
            EFFECT_ON => Self::EffectOn { actor: read_id(&mut reader)?, until_tick: reader.u32()? },
            DRAINING => Self::Draining,
            number => return Err(EventError::Kind { number }),
        };
        finish(&reader)?;
        Ok(event)
    }
}

fn read_welcome(reader: &mut Reader<'_>) -> Result<ServerEvent, EventError> {
    let own = read_id(reader)?;
    let (tick, tick_hz, state_hz) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let (side, cell) = (f64::from_bits(reader.u64()?), f64::from_bits(reader.u64()?));
    let is_length = |metres: f64| metres.is_finite() && metres > 0.0;
    if tick_hz == 0 || state_hz == 0 || !is_length(side) || !is_length(cell) {
        return Err(EventError::Measure);
    }
    Ok(ServerEvent::Welcome { own, tick, tick_hz, state_hz, side, cell })
}

fn read_outcome(reader: &mut Reader<'_>) -> Result<ActionOutcome, EventError> {
    Ok(match reader.u8()? {
        OUTCOME_APPLIED => ActionOutcome::Applied { until_tick: reader.u32()? },
        OUTCOME_REFUSED => {
            let number = reader.u8()?;
            let rule = ActionRefused::from_wire(number).ok_or(EventError::Outcome { number })?;
            ActionOutcome::Refused(rule)
        }
        OUTCOME_TOO_FAST => ActionOutcome::TooFast,
        number => return Err(EventError::Outcome { number }),
    })
}

fn read_id(reader: &mut Reader<'_>) -> Result<EntityId, EventError> {
    let bits = reader.u32()?;
    EntityId::from_bits(bits).ok_or(EventError::EntityId { bits })
}

fn finish(reader: &Reader<'_>) -> Result<(), EventError> {
    if reader.is_empty() {
        Ok(())
    } else {
        Err(EventError::Trailing { bytes: reader.rest().len() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(bits: u32) -> EntityId {
        EntityId::from_bits(bits).unwrap()
    }

    fn server_bytes(event: ServerEvent) -> Vec<u8> {
        let mut bytes = [0; EVENT_BYTES_MAX];
        let len = event.encode(&mut bytes).unwrap();
        bytes[..len].to_vec()
    }

    #[test]
    fn a_client_event_has_these_bytes() {
        let event = ClientEvent::ApplyEffect { action: 0x0102_0304, target: id(0x0506_7008) };
        let golden = [1, 4, 3, 2, 1, 0x08, 0x70, 0x06, 0x05];
        let mut bytes = [0; EVENT_BYTES_MAX];
        assert_eq!(event.encode(&mut bytes), Ok(9));
        assert_eq!(bytes[..9], golden);
        assert_eq!(ClientEvent::decode(&golden), Ok(event));
        assert_eq!(event.encode(&mut [0; 8]), Err(NoRoom));
    }

    #[test]
    fn server_events_have_these_bytes() {
        let applied = ActionOutcome::Applied { until_tick: 258 };
        let welcome = ServerEvent::Welcome {
            own: id(7),
            tick: 258,
            tick_hz: 60,
            state_hz: 20,
            side: 512.0,
            cell: 32.0,
        };
        let mut welcome_bytes = vec![1, 7, 0, 0, 0, 2, 1, 0, 0, 60, 0, 0, 0, 20, 0, 0, 0];
        welcome_bytes.extend([0, 0, 0, 0, 0, 0, 0x80, 0x40, 0, 0, 0, 0, 0, 0, 0x40, 0x40]);
        assert_eq!(welcome_bytes.len(), EVENT_BYTES_MAX);
        let refused = ActionOutcome::Refused(ActionRefused::OutOfRange);
        let golden = [
            (welcome, welcome_bytes),
            (
                ServerEvent::ActionResult { action: 9, outcome: applied },
                vec![2, 9, 0, 0, 0, 0, 2, 1, 0, 0],
            ),
            (ServerEvent::ActionResult { action: 9, outcome: refused }, vec![2, 9, 0, 0, 0, 1, 3]),
            (
                ServerEvent::ActionResult { action: 9, outcome: ActionOutcome::TooFast },
                vec![2, 9, 0, 0, 0, 2],
            ),
            (
                ServerEvent::EffectOn { actor: id(0x1001), until_tick: 3 },
                vec![3, 1, 0x10, 0, 0, 3, 0, 0, 0],
            ),
            (ServerEvent::Draining, vec![4]),
        ];
        for (event, bytes) in golden {
            assert_eq!(server_bytes(event), bytes);
            assert_eq!(ServerEvent::decode(&bytes), Ok(event));
        }
    }

    #[test]
    fn what_is_no_event_is_named() {
        assert_eq!(ServerEvent::decode(&[4, 0]), Err(EventError::Trailing { bytes: 1 }));
        assert_eq!(ServerEvent::decode(&[9]), Err(EventError::Kind { number: 9 }));
        assert_eq!(ClientEvent::decode(&[0]), Err(EventError::Kind { number: 0 }));
        let no_target = [1, 0, 0, 0, 0, 0, 0x10, 0, 0];
        assert_eq!(ClientEvent::decode(&no_target), Err(EventError::EntityId { bits: 0x1000 }));
        let no_rule = [2, 0, 0, 0, 0, 1, 6];
        assert_eq!(ServerEvent::decode(&no_rule), Err(EventError::Outcome { number: 6 }));
        let no_outcome = [2, 0, 0, 0, 0, 3];
        assert_eq!(ServerEvent::decode(&no_outcome), Err(EventError::Outcome { number: 3 }));
        let nowhere = ServerEvent::Welcome {
            own: id(1),
            tick: 0,
            tick_hz: 60,
            state_hz: 20,
            side: f64::NAN,
            cell: 32.0,
        };
        assert_eq!(ServerEvent::decode(&server_bytes(nowhere)), Err(EventError::Measure));
        assert!(matches!(ServerEvent::decode(&[]), Err(EventError::Short(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_name_a_reason(
            kind in 0_u8..6, rest in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let bytes = [&[kind], rest.as_slice()].concat();
            if let Ok(event) = ServerEvent::decode(&bytes) {
                prop_assert_eq!(server_bytes(event), bytes.clone());
            }
            if let Ok(event) = ClientEvent::decode(&bytes) {
                let mut again = [0; EVENT_BYTES_MAX];
                let len = event.encode(&mut again).unwrap();
                prop_assert_eq!(&again[..len], bytes.as_slice());
            }
        }
    }
}
