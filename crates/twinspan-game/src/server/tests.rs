use core::time::Duration;

use twinspan_core::packet::Datagram;
use twinspan_session::CryptoSuite;
use twinspan_world::SpoiltPart;

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

/// Runs the server for `ticks`, each with sixteen calls of `datagrams` that nobody knows.
fn run_with_calls(server: &mut Server, ticks: u32, datagrams: usize) {
    let pool = PacketPool::new(8);
    let mut batch = DatagramBatch::new(4);
    for _ in 0..ticks {
        let mut now = server.poll_timeout().unwrap();
        for _ in 0..16 {
            for _ in 0..datagrams {
                let peer = std::net::SocketAddr::from(([192, 0, 2, 1], 9));
                let packet = pool.take().unwrap();
                batch.push(Datagram { peer, at: now, packet }).ok().unwrap();
            }
            server.handle_datagrams(now, &mut batch);
            now = now.after(Duration::from_millis(1));
        }
        server.handle_timeout(now);
    }
}

#[test]
fn states_are_made_less_often_while_more_comes_than_is_taken() {
    let mut server = server_with(ServerConfig::default()).unwrap();
    server.handle_timeout(Timestamp::START);
    run_with_calls(&mut server, 120, 3);
    assert_eq!(server.ticks_per_state(), 3, "calls with room left");
    run_with_calls(&mut server, 70, 4);
    assert_eq!(server.ticks_per_state(), 6, "every call was full for more than a second");
    run_with_calls(&mut server, 480, 3);
    assert_eq!(server.ticks_per_state(), 3, "and then no more");
}

#[test]
fn a_world_that_is_broken_is_counted_every_ten_seconds() {
    let mut server = server_with(ServerConfig::default()).unwrap();
    let run = |server: &mut Server, ticks: u32| {
        for _ in 0..ticks {
            let now = server.poll_timeout().unwrap();
            server.handle_timeout(now);
        }
        let mut told = StatsSnapshot::default();
        server.snapshot_stats(Timestamp::START, &mut told);
        told.stats.invariants_broken
    };
    assert_eq!(run(&mut server, 700), 0);
    server.host.spoil(SpoiltPart::Store);
    assert_eq!(run(&mut server, 600), 1);
    assert_eq!(run(&mut server, 600), 2);
}
