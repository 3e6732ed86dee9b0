//! Packets of uploads, and what is kept of them.

use super::*;

fn coming(intake: &mut Intake, transaction: u128) -> (u32, Uuid) {
    let key = (7, Uuid::from_u128(transaction));
    let stage = Stage::Coming { xfer: 9, bytes: Vec::new(), size: None, next: 0 };
    let (kind, asset_id) = (AssetKind::Sound, Uuid::from_u128(5));
    let (until, over) = (Timestamp::START, Timestamp::NEVER);
    intake.0.insert(key, Upload { region: RegionId(0), kind, asset_id, stage, until, over });
    key
}

fn first(size: u32, data: &[u8]) -> Vec<u8> {
    [&size.to_le_bytes()[..], data].concat()
}

/// What comes of packets, one after the other: their data, and whether each is the last.
fn after(packets: &[(&[u8], bool)]) -> Option<Vec<u8>> {
    let mut intake = Intake::default();
    let key = coming(&mut intake, 1);
    let mut all = None;
    for (number, (data, last)) in packets.iter().enumerate() {
        assert!(all.is_none());
        match intake.put(key, number as u32, *last, data, 1_000) {
            Step::More => {}
            Step::All(bytes) => all = Some(bytes.to_vec()),
            Step::Broken => return None,
        }
    }
    all
}

#[test]
fn an_upload_has_the_length_that_it_says() {
    assert_eq!(after(&[(&first(3, b"abc"), true)]), Some(b"abc".to_vec()));
    assert_eq!(after(&[(&first(5, b"abc"), false), (b"de", true)]), Some(b"abcde".to_vec()));
    for broken in [
        &[(&first(5, b"abc")[..], true)][..],
        &[(&first(2, b"abc"), true)],
        &[(&first(3, b"abc"), false)],
        &[(&first(0, b""), true)],
        &[(&first(3, b""), false)],
        &[(&first(1_001, b"abc"), false)],
        &[(&first(u32::MAX, b"abc"), false)],
        &[(b"abc", true)],
        &[(&first(5, b"abc"), false), (b"", false)],
        &[(&first(5, b"abc"), false), (b"def", true)],
    ] {
        assert_eq!(after(broken), None, "{broken:?}");
    }
}

#[test]
fn who_leaves_a_region_leaves_what_came_there_and_who_leaves_the_grid_all() {
    let mut intake = Intake::default();
    let [one, other] = [1, 2].map(|number| coming(&mut intake, number));
    intake.0.get_mut(&other).unwrap().stage = Stage::Ready(b"abc".as_slice().into());
    assert_eq!(intake.count(7), (1, 1));
    intake.leave(RegionId(1), 7);
    intake.leave(RegionId(0), 8);
    assert_eq!(intake.count(7), (1, 1));
    intake.leave(RegionId(0), 7);
    assert_eq!(intake.count(7), (0, 1));
    assert!(!intake.0.contains_key(&one));
    intake.forget(7);
    assert_eq!(intake.count(7), (0, 0));
}
