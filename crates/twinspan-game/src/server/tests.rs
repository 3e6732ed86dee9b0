use core::time::Duration;

use twinspan_session::CryptoSuite;

use super::*;

fn server_with(config: ServerConfig) -> Result<Server, ServerError> {
    let mut secrets = Stream::new(1, "secrets", 0);
    let identity = ServerIdentity::new(&mut secrets);
    let keys = ServerKeys { identity, tokens: TokenKey::new(&mut secrets) };
    let random = &mut |name| Stream::new(1, name, 0);
    let suites = Arc::new(CryptoSuite::CHACHA_FIRST);
    Server::new(config, suites, keys, Box::new(secrets), random)
}

#[test]
fn a_server_drains_before_its_ticks_run_out() {
    let mut server = server_with(ServerConfig::default()).unwrap();
    server.handle_timeout(Timestamp::START);
    assert_eq!(server.shard.phase, Phase::Serving);
    server.clock.skip_to_the_end();
    for _ in 0..3 {
        let now = server.poll_timeout().unwrap();
        server.handle_timeout(now);
    }
    assert!(server.is_done());
}

/// A copy of the counters is taken on the thread that runs the ticks.
#[test]
fn a_copy_of_the_counters_uses_its_room_again() {
    let mut stats = ServerStats { ticks: 7, states_unsent: 3, ..ServerStats::default() };
    stats.tick_time.record(Duration::from_millis(5));
    stats.late_at.extend([Timestamp::START; 100]);
    let mut copy = stats.clone();
    let before = copy.late_at.as_slices().0.as_ptr();
    stats.ticks += 1;
    stats.tick_time.record(Duration::from_millis(5));
    copy.clone_from(&stats);
    assert_eq!(copy.late_at.as_slices().0.as_ptr(), before);
    assert_eq!((copy.ticks, copy.states_unsent), (8, 3));
    assert_eq!((copy.tick_time.count(), copy.late_at.len()), (2, 100));
    let mut players = PlayerStats { actions_refused: 4, ..PlayerStats::default() };
    players.up.record(Duration::from_millis(5));
    let copy = players.clone();
    assert_eq!((copy.actions_refused, copy.up.count()), (4, 1));
}
