//! Disks under crashes, failing syncs, full volumes and corrupt reads.

use std::future::Future;
use std::time::Duration;

use twinspan_core::random::Stream;
use twinspan_provider::{Disk, DiskError, DiskFile, OpenMode, TimeProvider};
use twinspan_sim::{
    DiskConditions, DiskReport, SECTOR_BYTES, Sim, SimConfig, SimDisk, SimEnv, SimFile,
};

use crate::echo::{MS, ip};

const MINUTE: Duration = Duration::from_secs(60);

fn world(seed: u64) -> (Sim, SimEnv) {
    let mut sim = Sim::new(SimConfig { seed, ..SimConfig::default() });
    let env = sim.host("node", ip(1));
    (sim, env)
}

fn run<F: Future + 'static>(sim: &mut Sim, env: &SimEnv, future: F) -> F::Output {
    sim.block_on(env, MINUTE, future).expect("it ends")
}

async fn open(disk: &SimDisk) -> SimFile {
    disk.open("state", OpenMode::Create).await.unwrap()
}

/// Stops the host and starts it again; what is in its file then.
fn crash(sim: &mut Sim) -> (SimEnv, Vec<u8>) {
    assert!(sim.stop_host(ip(1)));
    let env = sim.host("node", ip(1));
    let disk = env.disk();
    let bytes = run(sim, &env, async move {
        let file = open(&disk).await;
        file.read_at(0, 1 << 20).await.unwrap()
    });
    (env, bytes)
}

#[test]
fn what_was_synced_survives_a_crash_and_of_the_rest_whole_sectors_may() {
    let (mut some, mut torn) = (0, 0);
    for seed in 0..40 {
        let (mut sim, env) = world(seed);
        let disk = env.disk();
        run(&mut sim, &env, async move {
            let file = open(&disk).await;
            file.write_at(0, &[1; 4 * SECTOR_BYTES]).await.unwrap();
            file.sync().await.unwrap();
            // Not synced: two sectors there, and two more.
            file.write_at(2 * SECTOR_BYTES as u64, &[2; 4 * SECTOR_BYTES]).await.unwrap();
            assert_eq!(file.read_at(2_000, 1).await.unwrap(), [2], "it is read before");
        });
        let (_, bytes) = crash(&mut sim);
        let sectors: Vec<_> = bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(SECTOR_BYTES).all(|s| s.iter().all(|byte| *byte == s[0])));
        assert_eq!(sectors[..2], [1, 1], "seed {seed}");
        let kept = sectors.iter().filter(|byte| **byte == 2).count();
        let report = sim.disk_report(ip(1));
        assert_eq!(report.sectors_kept as usize, kept, "seed {seed}: {sectors:?}");
        assert_eq!(report.sectors_kept + report.sectors_lost, 4);
        some += usize::from(kept > 0);
        torn += usize::from((1..4).contains(&kept));
    }
    assert!(some > 30 && torn > 30, "{some} {torn}");
}

#[test]
fn a_failed_sync_is_told_and_what_it_failed_is_not_tried_again() {
    let (mut sim, env) = world(1);
    sim.set_disk(ip(1), DiskConditions { sync_failure: 1.0, ..DiskConditions::default() });
    let disk = env.disk();
    let file = run(&mut sim, &env, async move {
        let file = open(&disk).await;
        file.write_at(0, b"never durable").await.unwrap();
        assert!(matches!(file.sync().await, Err(DiskError::Sync { .. })));
        file
    });
    sim.set_disk(ip(1), DiskConditions::default());
    run(&mut sim, &env, async move {
        file.sync().await.unwrap();
        assert_eq!(file.read_at(0, 100).await.unwrap(), b"never durable");
    });
    assert_eq!(sim.disk_report(ip(1)).syncs_failed, 1);
    assert_eq!(crash(&mut sim).1, [0; 13], "a good sync later does not help");
}

#[test]
fn a_full_volume_refuses_and_keeps_what_it_has() {
    let (mut sim, env) = world(1);
    sim.set_disk(ip(1), DiskConditions { capacity_bytes: 1_000, ..DiskConditions::default() });
    let disk = env.disk();
    run(&mut sim, &env, async move {
        let file = open(&disk).await;
        file.write_at(0, &[1; 900]).await.unwrap();
        let other = disk.open("other", OpenMode::Create).await.unwrap();
        assert!(matches!(other.write_at(0, &[2; 101]).await, Err(DiskError::Full { .. })));
        assert!(matches!(other.truncate(101).await, Err(DiskError::Full { .. })));
        assert_eq!(other.len().await.unwrap(), 0);
        file.write_at(800, &[3; 100]).await.unwrap();
        other.write_at(0, &[2; 100]).await.unwrap();
        file.truncate(100).await.unwrap();
        other.write_at(100, &[2; 800]).await.unwrap();
    });
    let report = sim.disk_report(ip(1));
    assert_eq!((report.full, report.bytes), (2, 1_000));
}

#[test]
fn a_corrupt_read_turns_one_bit_of_what_is_read_alone() {
    let (mut sim, env) = world(1);
    sim.set_disk(ip(1), DiskConditions { corrupt_read: 0.5, ..DiskConditions::default() });
    let disk = env.disk();
    let corrupt = run(&mut sim, &env, async move {
        let file = open(&disk).await;
        file.write_at(0, &[0; 100]).await.unwrap();
        let mut corrupt = 0;
        for _ in 0..100 {
            let bytes = file.read_at(0, 100).await.unwrap();
            let bits: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
            assert!(bits <= 1);
            corrupt += u64::from(bits);
        }
        corrupt
    });
    assert!((30..70).contains(&corrupt));
    assert_eq!(sim.disk_report(ip(1)).reads_corrupted, corrupt);
}

#[test]
fn a_slow_disk_takes_its_time_and_a_stopped_host_has_none() {
    let (mut sim, env) = world(1);
    sim.set_disk(ip(1), DiskConditions { delay: 250 * MS, ..DiskConditions::default() });
    let (disk, inner) = (env.disk(), env.clone());
    let took = run(&mut sim, &env, async move {
        let began = inner.now();
        open(&disk).await.sync().await.unwrap();
        inner.now().since(began)
    });
    assert_eq!(took, 500 * MS);
    assert!(!sim.set_disk(ip(77), DiskConditions::default()));
    assert_eq!(sim.disk_report(ip(77)), DiskReport::default());
    sim.stop_host(ip(1));
    let other = sim.host("other", ip(2));
    let disk = env.disk();
    let outcome = run(&mut sim, &other, async move { disk.open("a", OpenMode::Create).await });
    assert!(matches!(outcome, Err(DiskError::Offload { .. })));
}

/// What a file reads as after random calls, crashes among them, next to a plain model of it.
#[test]
fn a_disk_without_crashes_is_a_plain_array_and_after_one_what_was_synced() {
    for seed in 0..30 {
        let mut stream = Stream::new(seed, "disk", 0);
        let (mut sim, mut env) = world(seed);
        let (mut model, mut synced) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            let (disk, at, len) = (env.disk(), stream.below(3_000), stream.below(1_500));
            match stream.below(8) {
                0 => {
                    run(&mut sim, &env, async move { open(&disk).await.sync().await.unwrap() });
                    synced.clone_from(&model);
                }
                1 => {
                    let cut = async move { open(&disk).await.truncate(at).await.unwrap() };
                    run(&mut sim, &env, cut);
                    model.resize(at as usize, 0);
                }
                2 => {
                    // Durable first, so that the model knows what is left.
                    run(&mut sim, &env, async move { open(&disk).await.sync().await.unwrap() });
                    synced.clone_from(&model);
                    let bytes;
                    (env, bytes) = crash(&mut sim);
                    assert!(bytes == synced, "seed {seed}");
                }
                _ => {
                    let bytes = vec![stream.next_u64() as u8; len as usize];
                    let end = (at + len) as usize;
                    if len > 0 {
                        model.resize(model.len().max(end), 0);
                        model[at as usize..end].copy_from_slice(&bytes);
                    }
                    let write =
                        async move { open(&disk).await.write_at(at, &bytes).await.unwrap() };
                    run(&mut sim, &env, write);
                }
            }
            let disk = env.disk();
            let read = async move { open(&disk).await.read_at(0, 10_000).await.unwrap() };
            assert!(run(&mut sim, &env, read) == model, "seed {seed}");
        }
    }
}

#[test]
fn a_crash_of_the_same_seed_leaves_the_same() {
    let left = |seed| {
        let (mut sim, env) = world(seed);
        let disk = env.disk();
        run(&mut sim, &env, async move {
            open(&disk).await.write_at(0, &[7; 20 * SECTOR_BYTES]).await.unwrap();
        });
        (crash(&mut sim).1, sim.trace_hash())
    };
    assert_eq!(left(1), left(1));
    assert_ne!(left(1).0, left(2).0);
}
