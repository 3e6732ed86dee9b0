//! A sealed session beside TCP: neither pushes the other away.

use std::time::Duration;

use twinspan_game::scenario::fairness::{FairnessConfig, FairnessReport, share};
use twinspan_sim::topology::Queue;

/// The shares of the session with a deep queue, a shallow one, and CoDel.
fn shares(delay: Duration) -> [f64; 3] {
    let base = FairnessConfig { delay, ..FairnessConfig::default() };
    let shallow = Queue { bytes_max: 50_000, ..base.queue };
    let shares = [base.queue, shallow, Queue::codel(100_000)].map(|queue| {
        let report = shared(FairnessConfig { queue, ..base });
        assert!(report.used > 0.9, "{report:?}");
        let [session, tcp] = report.payload_bytes;
        assert!(session * 10 > report.session_bytes * 9 && tcp * 10 > report.tcp_bytes * 9);
        report.session_share()
    });
    println!("{delay:?} one way: {shares:.3?}");
    shares
}

fn shared(config: FairnessConfig) -> FairnessReport {
    share(&config).unwrap()
}

#[test]
fn a_session_and_a_tcp_flow_get_forty_to_sixty_per_cent_of_a_bottleneck_each() {
    for share in shares(Duration::from_millis(20)) {
        assert!((0.4..0.6).contains(&share), "{share}");
    }
}

#[test]
fn on_shorter_and_longer_ways_neither_gets_less_than_three_tenths() {
    for delay in [10, 40].map(Duration::from_millis) {
        for share in shares(delay) {
            assert!((0.3..0.7).contains(&share), "{delay:?}: {share}");
        }
    }
}

#[test]
fn under_codel_they_wait_less() {
    let report =
        shared(FairnessConfig { queue: Queue::codel(100_000), ..FairnessConfig::default() });
    let deep = shared(FairnessConfig::default());
    let waited =
        |report: &FairnessReport| report.link.waited / u32::try_from(report.link.sent).unwrap();
    assert!(report.link.queue_early > 10 && deep.link.queue_early == 0);
    assert!(waited(&report) < Duration::from_millis(20), "{report:?}");
    assert!(waited(&deep) > 2 * waited(&report), "{deep:?}");
}

#[test]
fn a_shared_bottleneck_is_a_function_of_the_seed() {
    let config = FairnessConfig { measured: Duration::from_secs(5), ..FairnessConfig::default() };
    let report = shared(config);
    assert_eq!(shared(config), report);
    assert_ne!(shared(FairnessConfig { seed: 2, ..config }).hash, report.hash);
}
