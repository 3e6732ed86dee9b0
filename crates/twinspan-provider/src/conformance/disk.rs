//! What every disk must do.

use crate::{DISK_CALL_BYTES_MAX, Disk, DiskError, DiskFile, FILE_BYTES_MAX, OpenMode};

/// Runs every test of disks on an empty one.
pub async fn all<D: Disk>(disk: &D) {
    a_file_is_made_on_request_alone(disk).await;
    what_was_written_is_read(disk).await;
    a_file_is_cut_and_grows_with_zeros(disk).await;
    a_removed_file_is_gone(disk).await;
    what_is_too_large_or_no_name_is_refused(disk).await;
}

async fn create<D: Disk>(disk: &D, name: &str) -> D::File {
    disk.open(name, OpenMode::Create).await.expect("a file can be made")
}

/// [`OpenMode::Existing`] makes none, and [`OpenMode::Create`] keeps what is there.
pub async fn a_file_is_made_on_request_alone<D: Disk>(disk: &D) {
    let missing = disk.open("made", OpenMode::Existing).await;
    assert!(matches!(missing, Err(DiskError::NotFound { name }) if name == "made"));
    let file = create(disk, "made").await;
    assert_eq!(file.len().await.expect("it works"), 0);
    file.write_at(0, b"kept").await.expect("it works");
    drop(file);
    for mode in [OpenMode::Existing, OpenMode::Create] {
        let file = disk.open("made", mode).await.expect("it is there");
        assert_eq!(file.read_at(0, 10).await.expect("it works"), b"kept");
    }
}

/// Anywhere in the file, in any order, and less at its end.
pub async fn what_was_written_is_read<D: Disk>(disk: &D) {
    let file = create(disk, "written").await;
    file.write_at(10, b"world").await.expect("it works");
    file.write_at(0, b"hello").await.expect("it works");
    file.write_at(12, b"R").await.expect("it works");
    file.write_at(15, b"").await.expect("it works");
    file.sync().await.expect("it works");
    assert_eq!(file.len().await.expect("it works"), 15);
    assert_eq!(file.read_at(0, 100).await.expect("it works"), b"hello\0\0\0\0\0woRld");
    assert_eq!(file.read_at(13, 1).await.expect("it works"), b"l");
    assert_eq!(file.read_at(15, 9).await.expect("it works"), b"");
    assert_eq!(file.read_at(1 << 30, 9).await.expect("it works"), b"");
    let large: Vec<u8> = (0..100_000_u32).map(|at| (at ^ at >> 8) as u8).collect();
    file.write_at(3, &large).await.expect("it works");
    assert!(file.read_at(3, large.len()).await.expect("it works") == large);
}

/// Shorter and longer.
pub async fn a_file_is_cut_and_grows_with_zeros<D: Disk>(disk: &D) {
    let file = create(disk, "cut").await;
    file.write_at(0, b"hello world").await.expect("it works");
    file.truncate(5).await.expect("it works");
    file.truncate(8).await.expect("it works");
    file.sync().await.expect("it works");
    assert_eq!(file.read_at(0, 100).await.expect("it works"), b"hello\0\0\0");
    assert_eq!(file.len().await.expect("it works"), 8);
}

/// And can be made anew, empty.
pub async fn a_removed_file_is_gone<D: Disk>(disk: &D) {
    let file = create(disk, "removed").await;
    file.write_at(0, b"x").await.expect("it works");
    drop(file);
    disk.remove("removed").await.expect("it is there");
    let missing = disk.open("removed", OpenMode::Existing).await;
    assert!(matches!(missing, Err(DiskError::NotFound { .. })));
    let again = disk.remove("removed").await;
    assert!(matches!(again, Err(DiskError::NotFound { name }) if name == "removed"));
    assert_eq!(create(disk, "removed").await.len().await.expect("it works"), 0);
}

/// Before anything happens.
pub async fn what_is_too_large_or_no_name_is_refused<D: Disk>(disk: &D) {
    for name in ["", "..", "a/b", ".a"] {
        let opened = disk.open(name, OpenMode::Create).await;
        assert!(matches!(opened, Err(DiskError::NoName { .. })), "{name:?}");
        assert!(matches!(disk.remove(name).await, Err(DiskError::NoName { .. })), "{name:?}");
    }
    let file = create(disk, "large").await;
    let outcomes = [
        file.read_at(0, DISK_CALL_BYTES_MAX + 1).await.map(|_| ()),
        file.write_at(u64::MAX, b"x").await,
        file.truncate(FILE_BYTES_MAX + 1).await,
    ];
    for outcome in outcomes {
        assert!(matches!(outcome, Err(DiskError::TooLarge { .. })), "{outcome:?}");
    }
    assert_eq!(file.len().await.expect("it works"), 0);
}
