//! What a client asks of its player in one tick, and how that travels.

use twinspan_core::bytes::{NoRoom, ReadError, Reader, Writer};

use crate::entity::{Position, wrap_degrees};
use crate::prediction::Prediction;

/// Bytes of one encoded [`Input`].
pub const INPUT_BYTES: usize = 4 + STEERING_BYTES;
/// The most inputs in one [`InputBundle`].
pub const INPUTS_PER_BUNDLE_MAX: usize = 8;
/// Bytes of the largest [`InputBundle`].
pub const INPUT_BUNDLE_BYTES_MAX: usize =
    BUNDLE_HEAD_BYTES + INPUTS_PER_BUNDLE_MAX * STEERING_BYTES;

/// Bytes of an input without its sequence.
const STEERING_BYTES: usize = 14;
/// Newest sequence, slot, count.
const BUNDLE_HEAD_BYTES: usize = 9;

/// What a client asks of its player in one tick.
///
/// On the wire, little-endian: sequence u32, forward i8, strafe i8, yaw u16, pitch i16, claimed x
/// and z i32 in centimetres.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Counts the client's ticks from 1; 0 is refused.
    pub sequence: u32,
    /// Along the heading, -127 to 127: 127 is full speed.
    pub forward: i8,
    /// To the right of the heading, -127 to 127.
    pub strafe: i8,
    /// The heading in 65,536ths of a turn, see [`angle_from_degrees`].
    pub yaw: u16,
    /// How far up the player looks: -32,767 to 32,767 for -90 to 90 degrees.
    pub pitch: i16,
    /// Where the client believes its player is after this input.
    pub claimed: ClaimedPosition,
}

/// A place over the ground that a client claims, in centimetres.
///
/// The server never adopts it; it only compares. A client that does not know where it is, because
/// no state has come yet or none for a second, sends [`ClaimedPosition::NONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimedPosition {
    /// East, in centimetres.
    pub x_cm: i32,
    /// North, in centimetres.
    pub z_cm: i32,
}

impl ClaimedPosition {
    /// No claim.
    pub const NONE: Self = Self { x_cm: i32::MIN, z_cm: i32::MIN };

    /// The claim nearest to `position`.
    pub fn of(position: Position) -> Self {
        Self {
            x_cm: (position.x * 100.0).round() as i32,
            z_cm: (position.z * 100.0).round() as i32,
        }
    }

    /// The place that is claimed.
    pub fn position(self) -> Position {
        Position::ground(f64::from(self.x_cm) * 0.01, f64::from(self.z_cm) * 0.01)
    }
}

/// The wire angle nearest to `degrees`; 0 when that is no number.
pub fn angle_from_degrees(degrees: f32) -> u16 {
    // 360 itself wraps to 0 in the cast through u32.
    (wrap_degrees(degrees) * (65_536.0 / 360.0)).round() as u32 as u16
}

/// The wire pitch nearest to `degrees`, cut to -90 to 90; 0 when that is no number.
pub fn pitch_from_degrees(degrees: f32) -> i16 {
    (degrees.clamp(-90.0, 90.0) * (32_767.0 / 90.0)).round() as i16
}

impl Input {
    /// An input that walks at these fractions of full speed, -1 to 1, with this heading and pitch
    /// in degrees. What is out of range is cut, what is no number is 0. Sequence and claim are left
    /// to [`Prediction::predict`].
    pub fn toward(forward: f32, strafe: f32, yaw: f32, pitch: f32) -> Self {
        // The cast of a NaN is 0, and the clamp keeps -128 out.
        let stride = |fraction: f32| (fraction.clamp(-1.0, 1.0) * 127.0).round() as i8;
        Self {
            sequence: 0,
            forward: stride(forward),
            strafe: stride(strafe),
            yaw: angle_from_degrees(yaw),
            pitch: pitch_from_degrees(pitch),
            claimed: ClaimedPosition::default(),
        }
    }

    /// The heading in degrees, `[0, 360)`, exactly.
    pub fn yaw_degrees(&self) -> f32 {
        f32::from(self.yaw) * (360.0 / 65_536.0)
    }

    /// How far up the player looks in degrees, `[-90, 90]`.
    pub fn pitch_degrees(&self) -> f32 {
        f32::from(self.pitch) * (90.0 / 32_767.0)
    }

    /// Appends the input.
    ///
    /// # Errors
    /// [`NoRoom`] when fewer than [`INPUT_BYTES`] are left; `out` is then unspecified past its end.
    pub fn encode(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.u32(self.sequence)?;
        self.encode_steering(out)
    }

    /// Reads an input that fills `bytes`.
    ///
    /// # Errors
    /// The [`InputError`] that names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, InputError> {
        let mut reader = Reader::new(bytes);
        let sequence = reader.u32()?;
        let input = Self::decode_steering(&mut reader, sequence)?;
        finish(&reader)?;
        Ok(input)
    }

    fn encode_steering(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.put(&self.forward.to_le_bytes())?;
        out.put(&self.strafe.to_le_bytes())?;
        out.u16(self.yaw)?;
        out.put(&self.pitch.to_le_bytes())?;
        out.put(&self.claimed.x_cm.to_le_bytes())?;
        out.put(&self.claimed.z_cm.to_le_bytes())
    }

    fn decode_steering(reader: &mut Reader<'_>, sequence: u32) -> Result<Self, InputError> {
        if sequence == 0 {
            return Err(InputError::SequenceZero);
        }
        let [forward, strafe] = reader.array::<2>()?.map(|byte| i8::from_le_bytes([byte]));
        // The most negative value has no positive twin: a step back would be faster than one ahead.
        if forward == i8::MIN || strafe == i8::MIN {
            return Err(InputError::Stride);
        }
        let yaw = reader.u16()?;
        let pitch = i16::from_le_bytes(reader.array()?);
        if pitch == i16::MIN {
            return Err(InputError::Pitch);
        }
        let x_cm = i32::from_le_bytes(reader.array()?);
        let z_cm = i32::from_le_bytes(reader.array()?);
        let claimed = ClaimedPosition { x_cm, z_cm };
        Ok(Self { sequence, forward, strafe, yaw, pitch, claimed })
    }
}

/// What a client sends each tick: its newest input and the few before it, so that a lost packet
/// loses none.
///
/// On the wire, little-endian: newest sequence u32, slot u32, count u8 (1 to 8), then the inputs,
/// oldest first, each without its sequence, because sequences follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputBundle {
    /// The low 32 bits of the microsecond for which the send was scheduled.
    pub slot_us: u32,
    inputs: [Input; INPUTS_PER_BUNDLE_MAX],
    count: usize,
}

impl InputBundle {
    /// The newest inputs of `recent`, which is oldest first: as many as follow one another without
    /// a gap up to the last, at most [`INPUTS_PER_BUNDLE_MAX`]. `None` when there is none.
    ///
    /// `slot_us` is the low 32 bits of the microsecond for which the send was scheduled.
    pub fn new(slot_us: u32, recent: impl DoubleEndedIterator<Item = Input>) -> Option<Self> {
        let mut inputs = [Input::default(); INPUTS_PER_BUNDLE_MAX];
        let mut count = 0;
        let mut wanted = None;
        for (slot, input) in inputs.iter_mut().rev().zip(recent.rev()) {
            if input.sequence == 0 || wanted.is_some_and(|wanted| wanted != input.sequence) {
                break;
            }
            *slot = input;
            count += 1;
            wanted = Some(input.sequence - 1);
        }
        inputs.rotate_left(INPUTS_PER_BUNDLE_MAX - count);
        (count > 0).then_some(Self { slot_us, inputs, count })
    }

    /// The predicted inputs up to the one `behind` before the newest; 0 is the newest itself.
    /// `None` when that one is not kept any more or was never made.
    pub fn of(prediction: &Prediction, behind: usize, slot_us: u32) -> Option<Self> {
        let pending = prediction.pending();
        let take = pending.len().checked_sub(behind)?;
        Self::new(slot_us, pending.take(take))
    }

    /// The bundle with the `most` newest of its inputs, one at least.
    #[must_use]
    pub fn newest_only(mut self, most: usize) -> Self {
        let kept = self.count.min(most.max(1));
        self.inputs.rotate_left(self.count - kept);
        self.count = kept;
        self
    }

    /// The inputs, oldest first.
    pub fn inputs(&self) -> &[Input] {
        self.inputs.get(..self.count).unwrap_or_default()
    }

    /// The sequence of the newest input.
    pub fn newest(&self) -> u32 {
        self.inputs().last().map_or(0, |input| input.sequence)
    }

    /// Appends the bundle.
    ///
    /// # Errors
    /// [`NoRoom`] when it does not fit, see [`INPUT_BUNDLE_BYTES_MAX`].
    pub fn encode(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.u32(self.newest())?;
        out.u32(self.slot_us)?;
        out.u8(self.count as u8)?;
        self.inputs().iter().try_for_each(|input| input.encode_steering(out))
    }

    /// Reads a bundle that fills `bytes`.
    ///
    /// # Errors
    /// The [`InputError`] that names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, InputError> {
        let mut reader = Reader::new(bytes);
        let newest = reader.u32()?;
        let slot_us = reader.u32()?;
        let count = usize::from(reader.u8()?);
        if !(1..=INPUTS_PER_BUNDLE_MAX).contains(&count) {
            return Err(InputError::Count { count });
        }
        let before_oldest = newest.checked_sub(count as u32).ok_or(InputError::SequenceZero)?;
        let mut inputs = [Input::default(); INPUTS_PER_BUNDLE_MAX];
        for (input, sequence) in inputs.iter_mut().take(count).zip(before_oldest + 1..=newest) {
            *input = Input::decode_steering(&mut reader, sequence)?;
        }
        finish(&reader)?;
        Ok(Self { slot_us, inputs, count })
    }
}

fn finish(reader: &Reader<'_>) -> Result<(), InputError> {
    if reader.is_empty() {
        Ok(())
    } else {
        Err(InputError::Trailing { bytes: reader.rest().len() })
    }
}

/// Why bytes are no input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The bytes end too soon.
    #[error("input cut short: {0}")]
    Short(#[from] ReadError),
    /// Bytes follow the last input.
    #[error("{bytes} bytes after the last input")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A sequence would be 0.
    #[error("input sequence 0: sequences start at 1")]
    SequenceZero,
    /// Forward or strafe is -128.
    #[error("stride of -128: send -127 to 127")]
    Stride,
    /// Pitch is -32,768.
    #[error("pitch of -32768: send -32767 to 32767")]
    Pitch,
    /// A bundle of no input or too many.
    #[error("bundle of {count} inputs: send 1 to 8")]
    Count {
        /// What it says.
        count: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WALK: Input = Input {
        sequence: 0x0102_0304,
        forward: 127,
        strafe: -2,
        yaw: 0x4000,
        pitch: -3,
        claimed: ClaimedPosition { x_cm: 12_345, z_cm: -1 },
    };
    const WALK_BYTES: [u8; 18] =
        [4, 3, 2, 1, 0x7f, 0xfe, 0x00, 0x40, 0xfd, 0xff, 0x39, 0x30, 0, 0, 0xff, 0xff, 0xff, 0xff];

    fn encoded(bundle: &InputBundle) -> Vec<u8> {
        let mut bytes = [0; INPUT_BUNDLE_BYTES_MAX];
        let mut out = Writer::new(&mut bytes);
        bundle.encode(&mut out).unwrap();
        out.written().to_vec()
    }

    #[test]
    fn an_input_has_these_bytes() {
        let mut bytes = [0; INPUT_BYTES];
        let mut out = Writer::new(&mut bytes);
        WALK.encode(&mut out).unwrap();
        assert!(out.u8(0).is_err(), "the input fills INPUT_BYTES");
        assert_eq!(bytes, WALK_BYTES);
        assert_eq!(Input::decode(&WALK_BYTES), Ok(WALK));
    }

    #[test]
    fn a_bundle_has_these_bytes() {
        let before = Input { sequence: 0x0102_0303, forward: 1, ..Input::default() };
        let bundle = InputBundle::new(0xa1b2_c3d4, [before, WALK].into_iter()).unwrap();
        let mut golden = vec![4, 3, 2, 1, 0xd4, 0xc3, 0xb2, 0xa1, 2];
        golden.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend(&WALK_BYTES[4..]);
        assert_eq!(encoded(&bundle), golden);
        assert_eq!(InputBundle::decode(&golden), Ok(bundle));
        assert_eq!(bundle.inputs(), [before, WALK]);
        assert_eq!((bundle.newest(), bundle.slot_us), (WALK.sequence, 0xa1b2_c3d4));
    }

    #[test]
    fn a_bundle_takes_the_newest_inputs_without_a_gap() {
        let input = |sequence| Input { sequence, ..Input::default() };
        let sequences = |recent: &[u32]| {
            let bundle = InputBundle::new(0, recent.iter().map(|sequence| input(*sequence)))?;
            Some(bundle.inputs().iter().map(|input| input.sequence).collect::<Vec<_>>())
        };
        assert_eq!(sequences(&[]), None);
        assert_eq!(sequences(&[1, 2, 4, 5]), Some(vec![4, 5]));
        assert_eq!(sequences(&[0, 1]), Some(vec![1]));
        let all: Vec<u32> = (1..=20).collect();
        assert_eq!(sequences(&all), Some((13..=20).collect()));
    }

    #[test]
    fn a_shorter_bundle_has_the_newest_inputs() {
        let walk = |sequence| Input { sequence, ..WALK };
        let bundle = InputBundle::new(9, (1..=5).map(walk)).unwrap();
        assert_eq!(bundle.newest_only(2).inputs(), [walk(4), walk(5)]);
        assert_eq!(bundle.newest_only(0).inputs(), [walk(5)]);
        assert_eq!(bundle.newest_only(8), bundle);
    }

    #[test]
    fn wishes_out_of_range_are_cut() {
        let input = Input::toward(2.0, -7.5, -90.0, 91.0);
        assert_eq!((input.forward, input.strafe), (127, -127));
        assert_eq!((input.yaw, input.pitch), (0xc000, 32_767));
        let nothing = Input::toward(f32::NAN, f32::NAN, f32::NAN, f32::NAN);
        assert_eq!(nothing, Input::default());
    }

    #[test]
    fn what_is_no_input_is_named() {
        let change = |offset: usize, value: u8| {
            let mut bytes = WALK_BYTES;
            bytes[offset] = value;
            bytes
        };
        assert_eq!(Input::decode(&change(4, 0x80)), Err(InputError::Stride));
        assert_eq!(Input::decode(&change(5, 0x80)), Err(InputError::Stride));
        let mut low = WALK_BYTES;
        low[8..10].copy_from_slice(&i16::MIN.to_le_bytes());
        assert_eq!(Input::decode(&low), Err(InputError::Pitch));
        let mut zero = WALK_BYTES;
        zero[..4].fill(0);
        assert_eq!(Input::decode(&zero), Err(InputError::SequenceZero));
        let trailing = [WALK_BYTES.as_slice(), &[0]].concat();
        assert_eq!(Input::decode(&trailing), Err(InputError::Trailing { bytes: 1 }));
        let empty_bundle = [1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(InputBundle::decode(&empty_bundle), Err(InputError::Count { count: 0 }));
        let mut from_zero = vec![1, 0, 0, 0, 0, 0, 0, 0, 2];
        from_zero.extend([0; 28]);
        assert_eq!(InputBundle::decode(&from_zero), Err(InputError::SequenceZero));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_bundle_or_name_a_reason(
            bytes in proptest::collection::vec(any::<u8>(), 0..150),
        ) {
            if let Ok(bundle) = InputBundle::decode(&bytes) {
                prop_assert_eq!(encoded(&bundle), bytes);
            }
        }

        #[test]
        fn any_numbers_are_a_bundle_both_ways(
            newest in 8_u32.., slot in any::<u32>(), count in 1_usize..=8,
            forward in -127_i8.., strafe in -127_i8.., yaw in any::<u16>(),
            pitch in -32_767_i16.., x_cm in any::<i32>(), z_cm in any::<i32>(),
        ) {
            let claimed = ClaimedPosition { x_cm, z_cm };
            let first = newest - count as u32 + 1;
            let inputs = (first..=newest)
                .map(|sequence| Input { sequence, forward, strafe, yaw, pitch, claimed });
            let bundle = InputBundle::new(slot, inputs).unwrap();
            prop_assert_eq!(bundle.inputs().len(), count);
            prop_assert_eq!(InputBundle::decode(&encoded(&bundle)), Ok(bundle));
        }

        #[test]
        fn angles_keep_their_degrees(yaw in 0.0_f32..360.0, pitch in -90.0_f32..=90.0) {
            let input = Input {
                yaw: angle_from_degrees(yaw),
                pitch: pitch_from_degrees(pitch),
                ..Input::default()
            };
            let turn = (input.yaw_degrees() - yaw).abs();
            prop_assert!(turn.min(360.0 - turn) < 0.01);
            prop_assert!((input.pitch_degrees() - pitch).abs() < 0.01);
        }
    }
}
