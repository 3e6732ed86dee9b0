//! How a session ends that nobody misused: by a drain, by a kick, for want of room.

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_game::{Client, Notice};
use twinspan_provider::Machine;
use twinspan_session::{CloseReason, RefuseReason};

use crate::rig::{BOTS, NETWORK, Rig, SERVER, Shared, address, shared};

/// How long a drain may wait for its clients in these tests.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);

/// A rig with plain clients, of which the test sees every notice.
fn with_clients(conditions: Conditions) -> (Rig, Vec<Shared<Client>>) {
    let mut rig = Rig::empty(conditions, |config| config.drain_time_max = DRAIN_TIME_MAX);
    let clients: Vec<_> = (1..=12)
        .map(|number| {
            let client = shared(rig.client(number, SERVER));
            rig.launch(address(number), client.clone());
            client
        })
        .collect();
    let waited = clients.clone();
    rig.wait("the clients to enter", move |_| {
        waited.iter().all(|client| client.borrow().own().is_some())
    });
    (rig, clients)
}

fn notices(client: &Shared<Client>) -> Vec<Notice> {
    std::iter::from_fn(|| client.borrow_mut().poll_notice()).collect()
}

#[test]
fn a_drain_under_loss_tells_every_client_and_ends_within_its_deadline() {
    let loss = Conditions { loss: 0.2, delay: Duration::from_millis(20), ..Conditions::CLEAN };
    let (mut rig, clients) = with_clients(loss);
    let now = rig.now();
    rig.server.borrow_mut().drain(now);
    assert!(!rig.server.borrow().is_done());
    rig.wait_for(2 * DRAIN_TIME_MAX, "the server to be done", |rig| rig.server.borrow().is_done());
    // Whoever lost all three CLOSEs finds out by its own idle time-out.
    rig.wait_for(Duration::from_secs(25), "the clients to end", |_| {
        clients.iter().all(|client| client.borrow().closed().is_some())
    });
    let mut closed = 0;
    for client in &clients {
        let told = notices(client);
        assert!(told.contains(&Notice::Draining), "{told:?}");
        match client.borrow().closed() {
            Some(CloseReason::ServerDraining) => closed += 1,
            reason => assert_eq!(reason, Some(CloseReason::IdleTimeout)),
        }
    }
    assert!(closed >= 10, "{closed} of 12 were told the reason");
    assert_eq!(rig.server.borrow().sessions(), 0);
}

#[test]
fn a_drain_does_not_wait_for_a_client_that_is_gone_beyond_its_deadline() {
    let (mut rig, clients) = with_clients(NETWORK);
    rig.sim.partition(SERVER.ip(), address(1).ip());
    let began = rig.now();
    rig.server.borrow_mut().drain(began);
    rig.wait_for(2 * DRAIN_TIME_MAX, "the server to be done", |rig| rig.server.borrow().is_done());
    assert!(rig.now().since(began) >= DRAIN_TIME_MAX, "it waited for the one that was gone");
    rig.run_for(Duration::from_secs(1));
    assert_eq!(clients[0].borrow().closed(), None);
    for client in &clients[1..] {
        assert_eq!(client.borrow().closed(), Some(CloseReason::ServerDraining));
    }
}

#[test]
fn a_server_without_clients_drains_at_once() {
    let mut rig = Rig::empty(NETWORK, |_| {});
    rig.run_for(Duration::from_millis(100));
    let now = rig.now();
    rig.server.borrow_mut().drain(now);
    rig.run_for(Duration::from_millis(50));
    assert!(rig.server.borrow().is_done());
}

#[test]
fn a_stop_waits_for_nobody_and_closes_all() {
    let (mut rig, clients) = with_clients(NETWORK);
    rig.sim.partition(SERVER.ip(), address(1).ip());
    let now = rig.now();
    rig.server.borrow_mut().stop(now);
    rig.wait_for(Duration::from_secs(1), "the server to be done", |rig| {
        rig.server.borrow().is_done()
    });
    for client in &clients[1..] {
        assert_eq!(client.borrow().closed(), Some(CloseReason::ServerDraining));
    }
}

#[test]
fn nobody_new_comes_in_during_a_drain() {
    let (mut rig, _clients) = with_clients(NETWORK);
    rig.sim.partition(SERVER.ip(), address(1).ip());
    let now = rig.now();
    rig.server.borrow_mut().drain(now);
    let late = shared(rig.client(50, SERVER));
    rig.launch(address(50), late.clone());
    rig.wait("the late one to be told", |_| late.borrow().closed().is_some());
    let reason = late.borrow().closed();
    assert_eq!(reason, Some(CloseReason::Refused(RefuseReason::Draining)));
    assert_eq!(late.borrow().own(), None, "it never stood in the world");
}

/// Lets a client ask for a place and returns how that ended; `None` when it stands in the world.
fn ask_for_a_place(rig: &mut Rig, number: u32) -> Option<CloseReason> {
    let client = shared(rig.client(number, SERVER));
    rig.launch(address(number), client.clone());
    rig.wait("an answer", |_| {
        let client = client.borrow();
        client.own().is_some() || client.closed().is_some()
    });
    client.borrow().closed()
}

#[test]
fn a_full_world_refuses_with_the_reason_until_somebody_leaves() {
    let mut rig = Rig::empty(NETWORK, |config| {
        (config.npcs, config.projectiles) = (2, 2);
        config.world.entities_max = 4 + BOTS as usize;
    });
    (1..=BOTS).for_each(|number| drop(rig.add_bot(number, SERVER)));
    rig.wait("the honest players to enter", Rig::all_entered);
    let full = Some(CloseReason::Refused(RefuseReason::Full));
    assert_eq!(ask_for_a_place(&mut rig, 50), full);
    assert_eq!(rig.server.borrow().player_stats().joined, u64::from(BOTS));
    let leaver = rig.bots.pop().unwrap();
    leaver.borrow_mut().client_mut().close(rig.now());
    rig.wait("the player to leave", |rig| rig.server.borrow().player_stats().left == 1);
    assert_eq!(ask_for_a_place(&mut rig, 51), None);
    assert_eq!(ask_for_a_place(&mut rig, 52), full);
    rig.assert_honest_unharmed();
}

#[test]
fn a_server_without_a_free_session_refuses_with_the_reason() {
    let mut rig = Rig::empty(NETWORK, |config| config.session.sessions_max = BOTS as usize);
    (1..=BOTS).for_each(|number| drop(rig.add_bot(number, SERVER)));
    rig.wait("the honest players to enter", Rig::all_entered);
    let full = Some(CloseReason::Refused(RefuseReason::Full));
    assert_eq!(ask_for_a_place(&mut rig, 50), full);
    assert_eq!(rig.server.borrow().sessions(), BOTS as usize);
    rig.assert_honest_unharmed();
}

#[test]
fn a_kick_closes_one_client_and_no_other() {
    let mut rig = Rig::new(|_| {});
    let kicked = rig.bots.pop().unwrap();
    let stats = rig.stats();
    let row = stats.sessions.iter().find(|row| row.user == u64::from(BOTS)).unwrap();
    let now = rig.now();
    rig.server.borrow_mut().kick(now, row.session);
    rig.wait("the kicked one to be told", |_| kicked.borrow().client().closed().is_some());
    assert_eq!(kicked.borrow().client().closed(), Some(CloseReason::Kicked));
    assert_eq!(rig.server.borrow().sessions(), BOTS as usize - 1);
    rig.assert_honest_unharmed();
}
