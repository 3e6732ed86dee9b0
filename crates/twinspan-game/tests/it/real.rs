//! Servers and clients on threads of their own, over UDP on the loopback interface.
//!
//! Times given to `wait_for` are only for a test that would otherwise hang: all wait for what
//! happens.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use twinspan_game::{
    ClientConfig, ClientHandle, ConnectError, Notice, ServeError, ServerConfig, ServerHandle,
    ServerKeys, View, connect, connect_with, serve,
};
use twinspan_provider::OsSecrets;
use twinspan_session::{
    CloseReason, ConnectToken, RefuseReason, ServerIdentity, TOKEN_BYTES, TokenKey, UserId,
};
use twinspan_world::event::ActionOutcome;
use twinspan_world::{EntityId, EntityState, Flags};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where a token's public part keeps its expiry, session 2.2 and 2.4.
const TOKEN_EXPIRY: usize = 4 + 1 + 1 + 16 + 2 + 32 + 32 + 8 + 16;

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A server whose world is one cell: everybody sees and reaches everybody.
fn start() -> ServerHandle {
    let mut config = ServerConfig { npcs: 2, projectiles: 2, ..ServerConfig::default() };
    config.world.side = config.world.cell;
    config.world.effect_range = 100.0;
    serve(loopback(), config).unwrap()
}

fn enter(server: &ServerHandle, user: u64) -> ClientHandle {
    connect(&server.token(UserId(user))).unwrap()
}

fn find(view: &View, id: EntityId) -> Option<EntityState> {
    view.entities.iter().find(|entity| entity.id == id).copied()
}

/// Waits until the view holds what is asked for, and fails when it never does.
fn wait(client: &ClientHandle, what: &str, fits: impl Fn(&View) -> bool) -> View {
    let view = client.wait_for(PATIENCE, &fits);
    assert!(fits(&view), "waited in vain for {what}: {view:?}");
    view
}

/// Waits for the notice for which `wanted` returns something.
fn wait_notice<T>(client: &ClientHandle, wanted: impl Fn(&Notice) -> Option<T>) -> T {
    let tick = client.view().tick;
    let mut last = tick;
    loop {
        while let Some(notice) = client.poll_notice() {
            if let Some(found) = wanted(&notice) {
                return found;
            }
        }
        let view = client.wait_for(PATIENCE, |view| view.tick > last);
        assert_eq!(view.closed, None, "the session ended first");
        assert!(view.tick < tick + 60 * 60, "a minute of the world went by without the notice");
        last = view.tick;
    }
}

/// The token with its bytes changed by `change` and its checksum made right again.
fn changed(token: &ConnectToken, change: impl FnOnce(&mut [u8])) -> ConnectToken {
    let mut bytes = token.to_bytes();
    change(&mut bytes[..]);
    let checked = TOKEN_BYTES - 10;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes[..checked]);
    bytes[checked..].copy_from_slice(&digest.as_ref()[..10]);
    ConnectToken::from_bytes(&bytes[..]).unwrap()
}

fn refusal(token: &ConnectToken) -> RefuseReason {
    match connect(token) {
        Err(ConnectError::Closed { reason: CloseReason::Refused(reason), .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[test]
fn two_players_see_each_other_walk_act_and_leave() {
    let server = start();
    let (ann, bob) = (enter(&server, 1), enter(&server, 2));
    let (ann_id, bob_id) = (ann.view().own.unwrap(), bob.view().own.unwrap());
    assert_ne!(ann_id, bob_id);
    let seen = wait(&ann, "bob", |view| find(view, bob_id).is_some());
    wait(&bob, "ann", |view| find(view, ann_id).is_some());
    assert!(seen.entities.is_sorted_by_key(|entity| entity.id));

    let before = find(&seen, bob_id).unwrap().position;
    // Towards the middle, so that no wall is in the way.
    let (dx, dz) = (16.0 - before.x, 16.0 - before.z);
    bob.walk(dx.atan2(dz).to_degrees() as f32);
    wait(&ann, "bob to have walked two metres", |view| {
        find(view, bob_id).is_some_and(|bob| bob.position.distance(before) > 2.0)
    });

    assert!(ann.apply_effect(bob_id));
    let (actor, until) = wait_notice(&bob, |notice| match notice {
        Notice::EffectOn { actor, until_tick } => Some((*actor, *until_tick)),
        _ => None,
    });
    assert_eq!(actor, ann_id);
    let outcome = wait_notice(&ann, |notice| match notice {
        Notice::ActionResult { action: 1, outcome } => Some(*outcome),
        _ => None,
    });
    assert_eq!(outcome, ActionOutcome::Applied { until_tick: until });
    wait(&ann, "the effect to show", |view| {
        view.tick >= until || find(view, bob_id).is_some_and(|bob| bob.flags.contains(Flags::HASTE))
    });

    bob.leave().unwrap();
    wait(&ann, "bob to be gone", |view| find(view, bob_id).is_none());
    assert_eq!(ann.view().closed, None);
    let traffic = server.traffic();
    assert!(traffic.packets_in > 10 && traffic.bytes_out > traffic.packets_out * 30);
    drop(ann);
    server.drain().unwrap();
}

#[test]
fn a_drain_tells_the_clients_and_leaves_the_last_counters() {
    let mut server = start();
    let clients = [enter(&server, 1), enter(&server, 2)];
    server.begin_drain();
    for client in &clients {
        let view = wait(client, "the end", |view| view.closed.is_some());
        assert_eq!(view.closed, Some(CloseReason::ServerDraining));
        let notices: Vec<_> = std::iter::from_fn(|| client.poll_notice()).collect();
        assert!(notices.contains(&Notice::Draining), "{notices:?}");
    }
    server.join().unwrap();
    assert!(server.has_ended());
    server.with_stats(|stats| {
        assert_eq!((stats.players.joined, stats.players.left), (2, 2));
        assert_eq!((stats.endpoint.established, stats.endpoint.closed), (2, 2));
        assert_eq!(stats.endpoint.drops.not_authentic, 0);
        assert!(stats.sessions.is_empty());
    });
    for client in clients {
        client.leave().unwrap();
    }
}

#[test]
fn a_server_that_is_dropped_tells_its_clients() {
    let server = start();
    let client = enter(&server, 1);
    drop(server);
    let view = wait(&client, "the end", |view| view.closed.is_some());
    assert_eq!(view.closed, Some(CloseReason::ServerDraining));
    assert!(client.wait_for(Duration::MAX, |_| false).closed.is_some(), "an ended client returns");
}

#[test]
fn a_client_that_is_dropped_leaves_the_world() {
    let server = start();
    let (ann, bob) = (enter(&server, 1), enter(&server, 2));
    let bob_id = bob.view().own.unwrap();
    wait(&ann, "bob", |view| find(view, bob_id).is_some());
    drop(bob);
    wait(&ann, "bob to be gone", |view| find(view, bob_id).is_none());
}

#[test]
fn tokens_that_are_expired_changed_or_spent_are_refused_with_the_reason() {
    let server = start();
    let token = server.token(UserId(1));
    let expired = changed(&token, |bytes| bytes[TOKEN_EXPIRY..][..8].fill(0));
    assert_eq!(expired.expires_at_unix_s(), 0);
    assert_eq!(refusal(&expired), RefuseReason::TokenExpired);
    let prolonged = changed(&token, |bytes| bytes[TOKEN_EXPIRY] ^= 1);
    assert_eq!(refusal(&prolonged), RefuseReason::TokenInvalid);
    let other_private_part = changed(&token, |bytes| bytes[TOKEN_BYTES - 20] ^= 1);
    assert_eq!(refusal(&other_private_part), RefuseReason::TokenInvalid);
    let client = connect(&token).unwrap();
    assert_eq!(refusal(&token), RefuseReason::TokenSpent);
    assert_eq!(client.view().closed, None, "whoever came first stays");
    let told = connect(&expired).map(drop).unwrap_err().to_string();
    assert!(told.contains(&server.address().to_string()), "{told}");
}

#[test]
fn tokens_of_the_handle_follow_the_rotation_of_keys() {
    let server = start();
    let mut secrets = OsSecrets;
    let mut fresh = || ServerKeys {
        identity: ServerIdentity::new(&mut secrets),
        tokens: TokenKey::new(&mut secrets),
    };
    for user in 1..=3 {
        let keys = fresh();
        server.rotate_keys(&keys);
        assert_eq!(server.public_key(), keys.identity.public_key());
        wait(&enter(&server, user), "the world", |view| view.own.is_some());
    }
    server.retire_old_keys();
    wait(&enter(&server, 9), "the world", |view| view.own.is_some());
}

#[test]
fn a_taken_port_is_named_with_what_to_do() {
    let holder = UdpSocket::bind(loopback()).unwrap();
    let taken = holder.local_addr().unwrap();
    let error = serve(taken, ServerConfig::default()).map(drop).unwrap_err();
    assert!(matches!(error, ServeError::Bind(_)));
    assert_eq!(
        error.to_string(),
        format!("address {taken} is taken; stop what listens there or choose another port")
    );
    // Also when a server of ours has it.
    let server = start();
    let error = serve(server.address(), ServerConfig::default()).map(drop).unwrap_err();
    assert!(error.to_string().contains("is taken"), "{error}");
}

#[test]
fn a_setting_that_cannot_be_is_named() {
    let mut config = ServerConfig::default();
    config.world.side = 1.0;
    let error = serve(loopback(), config).map(drop).unwrap_err();
    assert!(matches!(error, ServeError::Config(_)));
    assert_eq!(error.to_string(), "world side of 1 m: choose whole metres from 32 to 33554432");
}

#[test]
fn garbage_at_a_real_socket_is_counted_and_not_answered() {
    let mut server = start();
    let client = enter(&server, 1);
    let stranger = UdpSocket::bind(loopback()).unwrap();
    stranger.set_nonblocking(true).unwrap();
    // Connected, so that it hears the server alone: others on this machine may know its port.
    stranger.connect(server.address()).unwrap();
    for len in [0_usize, 1, 14, 29, 30, 100, 1_452, 1_453, 2_048, 9_000] {
        stranger.send(&vec![0xa5; len]).unwrap();
    }
    let own = client.view().own.unwrap();
    let tick = client.view().tick;
    wait(&client, "a second of the world", |view| view.tick > tick + 60);
    assert!(find(&client.view(), own).is_some());
    let mut answer = [0; 2_048];
    assert!(stranger.recv(&mut answer).is_err(), "a stranger got an answer");
    server.begin_drain();
    server.join().unwrap();
    server.with_stats(|stats| {
        let drops = stats.endpoint.drops;
        // One longer than any buffer may be dropped before it is counted here.
        assert!(drops.short >= 2 && drops.bad_long_form >= 5 && drops.too_long >= 2, "{drops:?}");
    });
}

#[test]
fn handles_may_be_used_from_other_threads() {
    let server = start();
    let client = enter(&server, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            client.walk(90.0);
            let tick = client.view().tick;
            wait(&client, "a state", |view| view.tick > tick);
        });
        scope.spawn(|| {
            server.with_world(|world| {
                // Before the first publication it is empty.
                assert!([0.0, 32.0].contains(&world.side));
            });
        });
    });
}

/// Somebody reads figures and does not let go of them: the world goes on.
#[test]
fn a_slow_reader_of_figures_holds_up_no_tick() {
    let server = start();
    let figures = server.figures();
    figures.with_stats(|_| {
        let tick = || server.with_world(|world| world.tick);
        let before = tick();
        while tick() < before + 120 {
            thread::yield_now();
        }
    });
    server.drain().unwrap();
    // The last word was published when the reader was gone.
    assert!(figures.with_stats(|stats| stats.stats.ticks) >= 120);
}

/// Passes datagrams on between one client and a server, until it is told to let none through.
struct Gate {
    address: SocketAddr,
    is_shut: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Gate {
    fn new(server: SocketAddr) -> Self {
        let inside = UdpSocket::bind(loopback()).unwrap();
        let outside = UdpSocket::bind(loopback()).unwrap();
        inside.connect(server).unwrap();
        let address = outside.local_addr().unwrap();
        let [is_shut, is_over] = [0; 2].map(|_| Arc::new(AtomicBool::new(false)));
        for socket in [&inside, &outside] {
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        }
        let thread = thread::spawn({
            let (is_shut, is_over) = (Arc::clone(&is_shut), Arc::clone(&is_over));
            move || {
                let (mut client, mut bytes) = (None, [0; 2_048]);
                while !is_over.load(Ordering::Relaxed) {
                    let open = !is_shut.load(Ordering::Relaxed);
                    if let Ok((len, from)) = outside.recv_from(&mut bytes) {
                        client = Some(from);
                        let _ = open.then(|| inside.send(&bytes[..len]));
                    }
                    while let Ok(len) = inside.recv(&mut bytes) {
                        let _ =
                            client.filter(|_| open).map(|to| outside.send_to(&bytes[..len], to));
                    }
                }
            }
        });
        Self { address, is_shut, is_over, thread: Some(thread) }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_client_that_is_cut_off_comes_back_to_its_entity() {
    let impatient = |session: &mut twinspan_session::SessionConfig| {
        session.idle_timeout = Duration::from_secs(1);
        session.keepalive_interval = Duration::from_millis(200);
        session.handshake_deadline = Duration::from_secs(2);
    };
    let mut config = ServerConfig { npcs: 2, projectiles: 2, ..ServerConfig::default() };
    config.world.side = config.world.cell;
    impatient(&mut config.session);
    let server = serve(loopback(), config).unwrap();
    let gate = Gate::new(server.address());
    let mut config = ClientConfig::default();
    impatient(&mut config.session);
    let client = connect_with(&server.token_at(UserId(1), gate.address), config).unwrap();
    let own = client.view().own.unwrap();
    gate.is_shut.store(true, Ordering::Relaxed);
    wait(&client, "the loss", |view| view.away);
    while server.with_stats(|stats| stats.players.left) == 0 {
        thread::yield_now();
    }
    gate.is_shut.store(false, Ordering::Relaxed);
    wait(&client, "the return", |view| !view.away && view.own == Some(own));
    let told: Vec<_> = std::iter::from_fn(|| client.poll_notice()).collect();
    let lost = Notice::Reconnecting { reason: CloseReason::IdleTimeout };
    let lost = told.iter().position(|notice| *notice == lost);
    let back = told.iter().position(|notice| *notice == Notice::Resumed { own });
    assert!(lost.is_some() && lost < back, "{told:?}");
    wait(&client, "the world", |view| find(view, own).is_some());
    client.leave().unwrap();
    server.drain().unwrap();
}

#[test]
fn a_client_goes_on_from_another_address_when_it_is_told_to() {
    let server = start();
    let client = enter(&server, 1);
    let own = client.view().own.unwrap();
    client.walk(90.0);
    let tick = client.view().tick;
    wait(&client, "ids in reserve", |view| view.tick > tick + 60);
    let peer = |server: &ServerHandle| server.with_stats(|stats| stats.sessions[0].stats.peer);
    let before = peer(&server);
    client.rebind();
    while peer(&server) == before {
        assert_eq!(client.view().closed, None);
        thread::yield_now();
    }
    let tick = client.view().tick;
    let view = wait(&client, "states at the new address", |view| view.tick > tick + 30);
    assert_eq!((view.own, view.away), (Some(own), false));
    let moves = server.with_stats(|stats| (stats.endpoint.moves_done, stats.endpoint.moves_failed));
    assert_eq!(moves, (1, 0));
    client.leave().unwrap();
    server.drain().unwrap();
}
