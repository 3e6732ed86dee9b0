//! Patches both ways, and what is lost on the way.

use proptest::prelude::*;

use super::*;

/// Writes patches and reads them again.
fn both_ways(size: PatchSize, is_large: bool, patches: &[(PatchPlace, Vec<f32>)]) -> Vec<Vec<f32>> {
    let mut writer = LayerWriter::new(LayerKind::Land, size, is_large);
    for (place, heights) in patches {
        writer.push(*place, heights).unwrap();
    }
    let len = writer.len();
    let bytes = writer.finish();
    assert!(bytes.len() <= len + 2);
    let mut reader = LayerReader::new(&bytes).unwrap();
    assert_eq!(
        (reader.kind(), reader.size(), reader.is_large()),
        (LayerKind::Land, size, is_large)
    );
    let mut heights = [0.0; PatchSize::HEIGHTS_MAX];
    let read = patches.iter().map(|(place, _)| {
        assert_eq!(reader.next_patch(&mut heights), Ok(Some(*place)));
        heights[..size.heights()].to_vec()
    });
    let read = read.collect();
    assert_eq!(reader.next_patch(&mut heights), Ok(None));
    assert_eq!(reader.next_patch(&mut heights), Ok(None));
    read
}

/// The largest difference, as a part of the range.
fn loss(one: &[f32], other: &[f32]) -> f32 {
    let (_, range) = span(one).unwrap();
    let differences = one.iter().zip(other).map(|(one, other)| (one - other).abs());
    differences.fold(0.0, f32::max) / range as f32
}

fn patch(size: PatchSize, height: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let side = size.side();
    (0..side * side).map(|at| height((at % side) as f32, (at / side) as f32)).collect()
}

#[test]
fn plain_ground_is_all_but_exact() {
    for size in [PatchSize::P16, PatchSize::P32] {
        let flat = patch(size, |_, _| 21.25);
        let read = both_ways(size, false, &[(PatchPlace { x: 3, y: 31 }, flat.clone())]);
        assert!(loss(&flat, &read[0]) <= 1.0 / 2_048.0, "{}", loss(&flat, &read[0]));
    }
}

#[test]
fn smooth_hills_lose_a_hundredth_of_their_range() {
    for size in [PatchSize::P16, PatchSize::P32] {
        for (steep, span) in [(0.5_f32, 1.0), (2.0, 40.0), (10.0, 300.0)] {
            let side = size.side() as f32;
            let hill = patch(size, |x, y| {
                let wave = libm::sinf(x / side * 3.0) + libm::cosf(y / side * 2.0);
                20.0 + wave * span + x * steep
            });
            let places = [(PatchPlace { x: 0, y: 0 }, hill.clone())];
            let read = both_ways(size, true, &places);
            assert!(loss(&hill, &read[0]) <= 0.01, "{size:?} {span}: {}", loss(&hill, &read[0]));
        }
    }
}

#[test]
fn a_region_travels_in_order() {
    let places = (0..32).map(|at| {
        let heights = patch(PatchSize::P16, |x, y| at as f32 + (x - y) * 0.1);
        (PatchPlace { x: at % 16, y: at / 16 }, heights)
    });
    let places: Vec<_> = places.collect();
    let read = both_ways(PatchSize::P16, false, &places);
    for ((_, one), other) in places.iter().zip(&read) {
        assert!(loss(one, other) <= 0.01);
    }
    let far = [(PatchPlace { x: 300, y: 65_535 }, places[0].1.clone())];
    both_ways(PatchSize::P16, true, &far);
}

#[test]
fn a_flat_patch_has_its_golden_bytes() {
    let mut writer = LayerWriter::new(LayerKind::Land, PatchSize::P16, false);
    // A height of 0 m, of a range of 1 m: the middle is half a metre, so that one value is left.
    writer.push(PatchPlace { x: 1, y: 2 }, &[0.0; 256]).unwrap();
    let bytes = writer.finish();
    assert_eq!(bytes[..4], [8, 1, 16, b'L']);
    // 14 bits for -8192, ten bits of range; the lowest height; the range.
    assert_eq!(bytes[4..11], [0x8C, 0, 0, 0, 0, 1, 0]);
    // Ten bits of the place, low byte first: 0x22, 0b00; 111 and 14 bits of 8192, low byte first;
    // 10; 97.
    let bits = [0x22, 0b0011_1000, 0b0000_0100, 0b0001_0011, 0b0000_1000];
    assert_eq!(bytes[11..], bits, "{:02x?}", &bytes[11..]);
}

#[test]
fn what_cannot_be_told_is_refused() {
    let mut writer = LayerWriter::new(LayerKind::Wind, PatchSize::P16, false);
    let place = PatchPlace::default();
    let count = TerrainWriteError::Count { have: 3, need: 256 };
    assert_eq!(writer.push(place, &[0.0; 3]), Err(count));
    let mut heights = [0.0; 256];
    for height in [f32::NAN, f32::INFINITY, 70_000.0] {
        heights[9] = height;
        assert_eq!(writer.push(place, &heights), Err(TerrainWriteError::Height));
    }
    let far = TerrainWriteError::Place { x: 32, y: 0, max: 31 };
    assert_eq!(writer.push(PatchPlace { x: 32, y: 0 }, &[0.0; 256]), Err(far));
    assert!(writer.is_empty());
    for _ in 0..PATCHES_MAX {
        writer.push(place, &[0.0; 256]).unwrap();
    }
    assert_eq!(writer.push(place, &[0.0; 256]), Err(TerrainWriteError::TooMany));
}

#[test]
fn broken_layers_name_what_is_wrong() {
    let mut heights = [0.0; PatchSize::HEIGHTS_MAX];
    assert!(matches!(LayerReader::new(&[8, 1, 16]), Err(TerrainError::Short { .. })));
    let kind = LayerReader::new(&[8, 1, 16, b'Q']).unwrap_err();
    assert_eq!(kind, TerrainError::Kind { code: b'Q' });
    let size = LayerReader::new(&[8, 1, 17, b'L']).unwrap_err();
    assert_eq!(size, TerrainError::Size { side: 17 });
    let not_a_number = [8, 1, 16, b'L', 0x88, 0, 0, 0xC0, 0x7F, 1, 0, 0, 0, 0];
    let mut reader = LayerReader::new(&not_a_number).unwrap();
    assert_eq!(reader.next_patch(&mut heights), Err(TerrainError::Height));
    assert_eq!(reader.next_patch(&mut heights), Ok(None));
    let mut reader = LayerReader::new(&[8, 1, 16, b'L', 0x88, 0]).unwrap();
    assert!(matches!(reader.next_patch(&mut heights), Err(TerrainError::Short { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_patches_or_name_a_reason(mut bytes: Vec<u8>, large: bool) {
        let head = [8, 1, if large { 32 } else { 16 }, b'L'];
        bytes.splice(0..0, head);
        let mut reader = LayerReader::new(&bytes).unwrap();
        let mut heights = [0.0; PatchSize::HEIGHTS_MAX];
        let mut count = 0;
        while let Ok(Some(_)) = reader.next_patch(&mut heights) {
            count += 1;
        }
        // A patch has 68 bits at least.
        prop_assert!(count <= bytes.len() / 8);
    }

    #[test]
    fn noise_loses_a_quarter_of_its_range(
        heights in prop::collection::vec(-100.0_f32..100.0, 256),
    ) {
        let read = both_ways(PatchSize::P16, false, &[(PatchPlace::default(), heights.clone())]);
        prop_assert!(loss(&heights, &read[0]) <= 0.25, "{}", loss(&heights, &read[0]));
    }
}
