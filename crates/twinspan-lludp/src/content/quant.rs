//! Numbers that travel in fewer bits than they have.

use crate::field::{Quaternion, Vector3};

/// A number of 16 bits for one between two ends. What is closer to zero than one step is zero, as
/// the viewer has it, so that what stands still does not creep.
pub(super) fn from_u16(value: u16, low: f32, high: f32) -> f32 {
    let step = (high - low) / f32::from(u16::MAX);
    let value = f32::from(value) * step + low;
    if value.abs() < step { 0.0 } else { value }
}

/// The nearest number of 16 bits: off by half a step, that is (high - low) / 131,070, at most.
pub(super) fn to_u16(value: f32, low: f32, high: f32) -> u16 {
    let part = (value.clamp(low, high) - low) / (high - low);
    // What is no number is the lower end, by the rules of `as`.
    (part * f32::from(u16::MAX)).round() as u16
}

/// As [`from_u16`], of 8 bits.
pub(super) fn from_u8(value: u8, low: f32, high: f32) -> f32 {
    let step = (high - low) / f32::from(u8::MAX);
    let value = f32::from(value) * step + low;
    if value.abs() < step { 0.0 } else { value }
}

/// The same quantisation for the three parts of a vector.
pub(super) fn vector_u16(bytes: &[u8; 6], low: f32, high: f32) -> Vector3 {
    let [a, b, c, d, e, f] = *bytes;
    let part = |bytes| from_u16(u16::from_le_bytes(bytes), low, high);
    Vector3::new(part([a, b]), part([c, d]), part([e, f]))
}

/// The bytes of [`vector_u16`].
pub(super) fn vector_to_u16(vector: Vector3, low: f32, high: f32) -> [u8; 6] {
    let part = |value| to_u16(value, low, high).to_le_bytes();
    let [[a, b], [c, d], [e, f]] = [part(vector.x), part(vector.y), part(vector.z)];
    [a, b, c, d, e, f]
}

/// A rotation whose four parts have 16 bits each.
pub(super) fn rotation_u16(bytes: &[u8; 8]) -> Quaternion {
    let [a, b, c, d, e, f, g, h] = *bytes;
    let part = |bytes| from_u16(u16::from_le_bytes(bytes), -1.0, 1.0);
    Quaternion::from_parts(part([a, b]), part([c, d]), part([e, f]), part([g, h]))
}

/// The bytes of [`rotation_u16`].
pub(super) fn rotation_to_u16(rotation: Quaternion) -> [u8; 8] {
    let part = |value| to_u16(value, -1.0, 1.0).to_le_bytes();
    let parts = [rotation.x, rotation.y, rotation.z, rotation.w()].map(part);
    let [[a, b], [c, d], [e, f], [g, h]] = parts;
    [a, b, c, d, e, f, g, h]
}

/// A number with 8 bits behind the point, or another count of them: exact.
pub(super) fn from_fixed(value: u16, bits: u32) -> f32 {
    f32::from(value) / (1_u32 << bits) as f32
}

/// The nearest number with so many bits behind the point, between 0 and `max` of its steps.
pub(super) fn to_fixed(value: f32, bits: u32, max: u16) -> u16 {
    ((value * (1_u32 << bits) as f32).round() as u16).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_off_by_half_a_step_at_most() {
        let step = 256.0 / 65_535.0;
        for part in 0..1_000 {
            let value = part as f32 * 0.25 - 125.0;
            let again = from_u16(to_u16(value, -128.0, 128.0), -128.0, 128.0);
            assert!((again - value).abs() <= step * 0.51, "{value} {again}");
        }
        assert_eq!(from_u16(to_u16(0.0, -64.0, 64.0), -64.0, 64.0), 0.0);
        assert_eq!(to_u16(1e9, -1.0, 1.0), u16::MAX);
        assert_eq!(to_u16(f32::NAN, -1.0, 1.0), 0);
        assert_eq!(from_u8(255, -1.0, 1.0), 1.0);
    }

    #[test]
    fn every_wire_number_comes_back() {
        for value in 0..=u16::MAX {
            let again = to_u16(from_u16(value, -64.0, 64.0), -64.0, 64.0);
            // The two in the middle are both zero.
            assert!(again == value || value.abs_diff(again) == 1 && value.abs_diff(32_767) <= 1);
            assert_eq!(to_fixed(from_fixed(value, 8), 8, u16::MAX), value);
        }
    }

    #[test]
    fn rotations_keep_four_parts() {
        let rotation = Quaternion::from_parts(0.5, -0.5, 0.5, 0.5);
        let again = rotation_u16(&rotation_to_u16(rotation));
        for (one, other) in [(again.x, 0.5), (again.y, -0.5), (again.z, 0.5), (again.w(), 0.5)] {
            assert!((one - other).abs() < 1e-4, "{again:?}");
        }
    }
}
