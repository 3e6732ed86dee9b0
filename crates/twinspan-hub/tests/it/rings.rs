//! Hubs on completion rings: what is left of those that ended, and who chose the road.

use std::process::Command;
use std::time::Duration;

use twinspan_hub::{BuildError, Hub, Transport};

use crate::udp_endpoint;

const PATIENCE: Duration = Duration::from_secs(30);

/// Ends a test early for lack of what it needs, unless `TWINSPAN_REQUIRE_PEERS` is 1: then it fails.
fn has_rings() -> bool {
    let built = Hub::<u8>::builder(udp_endpoint()).transport(Transport::IoUring).build();
    let Err(error) = built else { return true };
    assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{error}");
    println!("skipped: {error}");
    false
}

/// Completion rings that this process has open.
fn rings() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().contains("io_uring")).count()
}

/// The tests of one process share its descriptors, so this one counts in a process of its own.
#[test]
fn hubs_that_ended_leave_no_ring() {
    if !has_rings() {
        return;
    }
    if std::env::var_os("TWINSPAN_TEST_ALONE").is_none() {
        let program = std::env::current_exe().unwrap();
        let alone = Command::new(program)
            .args(["--exact", "rings::hubs_that_ended_leave_no_ring", "--nocapture"])
            .env("TWINSPAN_TEST_ALONE", "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&alone.stdout);
        assert!(alone.status.success() && told.contains("no ring is left"), "{told}");
        return;
    }
    for round in 0..5_u64 {
        let endpoint = udp_endpoint();
        let hub = || Hub::<u64>::builder(&endpoint).transport(Transport::IoUring).reliable();
        let here = hub().listen().build().unwrap();
        let there = hub().connect().build().unwrap();
        assert!(rings() >= 2);
        assert!(here.wait_for_subscribers(1, PATIENCE));
        here.publish(&round).unwrap();
        assert_eq!(there.recv_timeout(PATIENCE), Ok(Some(round)));
        drop((here, there));
        assert_eq!(rings(), 0, "round {round}");
    }
    println!("no ring is left");
}

#[test]
fn who_names_no_road_is_told_what_was_measured() {
    let hub = Hub::<u64>::new(udp_endpoint()).unwrap();
    let report = hub.transport();
    assert!(matches!(report.transport, Transport::BatchUdp | Transport::IoUring));
    assert!(report.reason.starts_with("the endpoint begins with udp://; "), "{report}");
    assert!(report.reason.contains("io_uring"), "{report}");
    // Measured once, and said the same.
    let again = Hub::<u64>::new(udp_endpoint()).unwrap();
    assert_eq!(again.transport().reason, report.reason);
}

#[test]
fn a_named_ring_reports_its_figures_and_what_was_declined() {
    if !has_rings() {
        return;
    }
    let hub = Hub::<u64>::builder(udp_endpoint()).transport(Transport::IoUring);
    let hub = hub.sqpoll(Duration::from_millis(5)).build().unwrap();
    let text = hub.transport().to_string();
    assert!(text.starts_with("io_uring: it was asked for; "), "{text}");
    for part in ["a lone datagram", "multishot receive", "SendZc", "SQPOLL"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let settings = hub.settings();
    let it = settings.iter().find(|it| it.name == "sqpoll").unwrap();
    assert_eq!(it.asked, "5ms on any core");
    assert!(it.effective == "none" || it.figure.contains(" without"), "{it}");
    let hub = || Hub::<u64>::builder(udp_endpoint()).transport(Transport::IoUring);
    let error = hub().sqpoll(Duration::from_secs(60)).build().unwrap_err();
    assert!(error.to_string().contains("sqpoll is 60s: set it to 1 ms to 10 s"), "{error}");
    let error = hub().sqpoll_core(100_000).build().unwrap_err();
    assert!(matches!(error, BuildError::Setting { setting: "sqpoll_core", .. }), "{error}");
    let hub = Hub::<u64>::builder(udp_endpoint()).transport(Transport::BatchUdp);
    let text = hub.sqpoll_core(0).build().unwrap().transport().to_string();
    assert!(text.contains("sqpoll has no effect without a completion ring"), "{text}");
}

#[test]
fn a_ring_follows_the_thread_that_receives() {
    if !has_rings() {
        return;
    }
    let endpoint = udp_endpoint();
    let hub = || Hub::<u64>::builder(&endpoint).transport(Transport::IoUring).reliable();
    let here = hub().listen().build().unwrap();
    let mut there = Some(hub().connect().build().unwrap());
    assert!(here.wait_for_subscribers(1, PATIENCE));
    // Built by one thread, used by others in turn, each of which ends.
    for round in 0..4 {
        let hub = there.take().unwrap();
        let thread = std::thread::spawn(move || {
            for value in 0..300 {
                assert_eq!(hub.recv_timeout(PATIENCE), Ok(Some(round * 1_000 + value)));
            }
            hub
        });
        for value in 0..300 {
            here.publish(&(round * 1_000 + value)).unwrap();
        }
        here.flush().unwrap();
        there = Some(thread.join().unwrap());
    }
}
