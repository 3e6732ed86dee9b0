//! Players who were lost come back to their entities, in time and with their tickets.

use std::time::Duration;

use twinspan_game::{Client, Intent, Notice};
use twinspan_session::{CloseReason, RefuseReason, ResumeTicket};
use twinspan_world::EntityId;

use crate::rig::{NETWORK, Rig, SERVER, Shared, address, shared};

/// A player on host 1 whom the server lost, with what it needs to come back.
fn lost() -> (Rig, EntityId, ResumeTicket) {
    let mut rig = Rig::empty(NETWORK, |_| {});
    rig.come_back = false;
    let client = enter(&mut rig, 1, None);
    let (own, ticket) = (client.borrow().own(), client.borrow().ticket().cloned());
    rig.sim.partition(SERVER.ip(), address(1).ip());
    rig.wait_for(Duration::from_secs(30), "the server to lose the player", |rig| {
        rig.server.borrow().player_stats().left == 1
    });
    (rig, own.unwrap(), ticket.unwrap())
}

/// Lets a client in from host `number` and waits until it stands in the world, or was refused.
fn enter(rig: &mut Rig, number: u32, ticket: Option<&ResumeTicket>) -> Shared<Client> {
    let client = match ticket {
        Some(ticket) => rig.resumed_client(number, ticket),
        None => rig.client(number, SERVER),
    };
    let client = shared(client);
    rig.launch(address(number), client.clone());
    let waited = client.clone();
    rig.wait("an answer", move |_| {
        let client = waited.borrow();
        client.own().is_some() || client.closed().is_some()
    });
    client
}

fn stands(rig: &Rig, entity: EntityId) -> bool {
    rig.server.borrow().world().entity(entity).is_some()
}

#[test]
fn who_is_back_within_30_s_finds_the_entity_where_it_was() {
    let (mut rig, own, ticket) = lost();
    let place = rig.server.borrow().world().entity(own).unwrap().position;
    rig.run_for(Duration::from_secs(28));
    let client = enter(&mut rig, 2, Some(&ticket));
    assert_eq!(client.borrow().own(), Some(own));
    assert_eq!(rig.server.borrow().world().entity(own).unwrap().position, place);
    let stats = rig.server.borrow().player_stats().clone();
    assert_eq!((stats.joined, stats.left, stats.returned), (2, 1, 1));
    rig.run_for(Duration::from_secs(40));
    assert!(stands(&rig, own) && client.borrow().closed().is_none(), "it plays on");
    assert_eq!(rig.server.borrow().stats().invariants_broken, 0);
}

#[test]
fn a_client_comes_back_by_itself_and_plays_on() {
    let mut rig = Rig::empty(NETWORK, |_| {});
    let client = enter(&mut rig, 1, None);
    client.borrow_mut().set_intent(Intent { forward: 0.2, ..Intent::default() });
    rig.run_for(Duration::from_secs(5));
    let own = client.borrow().own().unwrap();
    let notices = || {
        let mut client = client.borrow_mut();
        std::iter::from_fn(|| client.poll_notice()).collect::<Vec<_>>()
    };
    notices();
    rig.sim.partition(SERVER.ip(), address(1).ip());
    // What it sees is as it was.
    rig.run_unchecked_for(Duration::from_secs(22));
    assert!(client.borrow().is_away());
    // One handshake finds nobody, the next one does.
    rig.run_unchecked_for(Duration::from_secs(22));
    assert!(client.borrow().is_away());
    rig.sim.heal_all();
    rig.run_unchecked_for(Duration::from_secs(3));
    assert!(!client.borrow().is_away());
    let told = notices();
    let lost = Notice::Reconnecting { reason: CloseReason::IdleTimeout };
    assert_eq!((told.first(), told.last()), (Some(&lost), Some(&Notice::Resumed { own })));
    let before = rig.server.borrow().world().entity(own).unwrap().position;
    rig.run_for(Duration::from_secs(5));
    let after = rig.server.borrow().world().entity(own).unwrap().position;
    let walked = after.ground_distance_squared(before).sqrt();
    assert!((4.0..6.0).contains(&walked), "its inputs count again: {walked} m");
    let stats = rig.server.borrow().player_stats().clone();
    assert_eq!((stats.joined, stats.left, stats.returned), (2, 1, 1));
    assert_eq!((stats.corrected, stats.malformed, stats.actions_out_of_order), (0, 0, 0));
}

#[test]
fn a_client_comes_back_from_a_session_that_outlived_its_first_ticket_twice() {
    let lifetime = Duration::from_secs(100);
    let mut rig = Rig::empty(NETWORK, |config| config.session.resume.lifetime = lifetime);
    let client = enter(&mut rig, 1, None);
    let own = client.borrow().own().unwrap();
    let first = client.borrow().ticket().unwrap().expires_at_unix_s();
    rig.run_unchecked_for(Duration::from_secs(210));
    assert!(client.borrow().ticket().unwrap().expires_at_unix_s() >= first + 150);
    rig.sim.partition(SERVER.ip(), address(1).ip());
    rig.run_unchecked_for(Duration::from_secs(40));
    assert!(client.borrow().is_away());
    rig.sim.heal_all();
    rig.run_unchecked_for(Duration::from_secs(3));
    assert!(!client.borrow().is_away());
    assert_eq!((client.borrow().own(), client.borrow().closed()), (Some(own), None));
    assert_eq!(rig.server.borrow().player_stats().returned, 1);
}

#[test]
fn a_client_whose_server_is_gone_ends_when_its_entity_would_be() {
    let mut rig = Rig::empty(NETWORK, |_| {});
    let client = enter(&mut rig, 1, None);
    rig.sim.partition(SERVER.ip(), address(1).ip());
    rig.run_for(Duration::from_secs(49));
    assert!(client.borrow().is_away());
    rig.run_for(Duration::from_secs(25));
    assert_eq!(client.borrow().closed(), Some(CloseReason::HandshakeTimeout));
}

#[test]
fn who_is_back_before_being_missed_takes_the_entity_over() {
    let mut rig = Rig::empty(NETWORK, |_| {});
    let first = enter(&mut rig, 1, None);
    let (own, ticket) = (first.borrow().own(), first.borrow().ticket().cloned());
    let second = enter(&mut rig, 2, ticket.as_ref());
    assert_eq!(second.borrow().own(), own);
    assert_eq!(rig.server.borrow().sessions(), 1);
    rig.run_for(Duration::from_secs(25));
    // It tried, but its ticket was used.
    let refused = CloseReason::Refused(RefuseReason::Ticket);
    assert_eq!(first.borrow().closed(), Some(refused));
    assert_eq!(second.borrow().closed(), None);
}

#[test]
fn who_is_not_back_in_time_is_gone() {
    let (mut rig, own, ticket) = lost();
    assert!(stands(&rig, own));
    rig.run_for(Duration::from_secs(31));
    assert!(!stands(&rig, own));
    let client = enter(&mut rig, 2, Some(&ticket));
    let refused = CloseReason::Refused(RefuseReason::Ticket);
    assert_eq!(client.borrow().closed(), Some(refused));
}

#[test]
fn who_comes_back_with_a_token_begins_anew() {
    let (mut rig, own, _) = lost();
    rig.sim.heal_all();
    rig.run_for(Duration::from_secs(5));
    let client = enter(&mut rig, 1, None);
    assert_ne!(client.borrow().own(), Some(own));
    assert!(!stands(&rig, own), "one user has one entity");
}
