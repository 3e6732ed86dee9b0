//! An application's say in who is let in: asked in time, and about proven addresses alone.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use twinspan_core::time::Timestamp;

use super::rig::*;
use crate::{
    ClientState, CloseReason, Gate, HandshakeFault, RefuseReason, TokenIssuer, TokenKey, UserId,
};

/// A gate that notes what it is asked and says what a test wants.
#[derive(Clone, Default)]
struct Note(Rc<RefCell<Noted>>);

#[derive(Default)]
struct Noted {
    shut: bool,
    banned: Option<UserId>,
    handshakes: Vec<IpAddr>,
    failures: Vec<HandshakeFault>,
    /// Room for so many sessions more; any number when it is not said.
    room: Option<usize>,
    /// Whether each that took room took the place of another.
    took: Vec<bool>,
}

impl Gate for Note {
    fn allow_handshake(&mut self, _: Timestamp, source: IpAddr) -> bool {
        let mut noted = self.0.borrow_mut();
        noted.handshakes.push(source);
        !noted.shut
    }

    fn allow_user(&mut self, _: Timestamp, user: UserId) -> bool {
        self.0.borrow().banned != Some(user)
    }

    fn has_room(&self) -> bool {
        self.0.borrow().room != Some(0)
    }

    fn take_room(&mut self, replaces: bool) -> bool {
        let mut noted = self.0.borrow_mut();
        let has = replaces || noted.room != Some(0);
        if has {
            noted.took.push(replaces);
            let taken = usize::from(!replaces);
            noted.room = noted.room.map(|room| room - taken);
        }
        has
    }

    fn on_failure(&mut self, _: Timestamp, _: IpAddr, fault: HandshakeFault) {
        self.0.borrow_mut().failures.push(fault);
    }
}

fn rig() -> (Rig, Note) {
    let note = Note::default();
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.gate = Box::new(note.clone());
    (rig, note)
}

#[test]
fn it_is_asked_once_for_a_handshake_and_after_the_cookie() {
    let (mut rig, note) = rig();
    rig.add_client();
    rig.flush();
    rig.run_for(ms(25));
    assert_eq!(rig.endpoint.stats().cookie_missing, 1);
    assert!(note.0.borrow().handshakes.is_empty(), "the address is not proven yet");
    rig.connect();
    assert_eq!(note.0.borrow().handshakes, [client_addr(0).ip()]);
    assert!(note.0.borrow().failures.is_empty());
}

#[test]
fn a_handshake_that_it_does_not_want_costs_no_key_exchange_and_gets_no_answer() {
    let (mut rig, note) = rig();
    note.0.borrow_mut().shut = true;
    rig.add_client();
    rig.run_for(ms(2_000));
    let stats = *rig.endpoint.stats();
    assert!(stats.drops.throttled > 2, "{stats:?}");
    assert_eq!((stats.accepted, stats.token_bad), (0, 0));
    // Once it may, the client gets in by itself.
    note.0.borrow_mut().shut = false;
    rig.connect();
}

#[test]
fn a_banned_user_is_refused_and_told_so() {
    let (mut rig, note) = rig();
    note.0.borrow_mut().banned = Some(UserId(100));
    (0..2).for_each(|_| {
        rig.add_client();
    });
    rig.run_for(ms(2_000));
    let reason = CloseReason::Refused(RefuseReason::Banned);
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason });
    assert_eq!(rig.clients[1].state(), ClientState::Connected);
    assert_eq!(rig.endpoint.stats().banned, 1);
    assert!(note.0.borrow().failures.is_empty(), "a ban is no failure of the address");
}

#[test]
fn failures_are_told_when_they_are_the_client_s() {
    let (mut rig, note) = rig();
    let stranger = TokenIssuer::new(TokenKey::from_bytes([1; 32]), rig.token().server_key());
    let mut secrets = twinspan_core::random::Stream::new(5, "secrets", 0);
    let token = stranger.issue(&mut secrets, UserId(9), server_addr(), EXPIRES);
    rig.add_client_with(&token, aes());
    rig.run_for(ms(2_000));
    let refused = HandshakeFault::Token(RefuseReason::TokenInvalid);
    assert_eq!(note.0.borrow().failures, [refused]);
    rig.endpoint.close_all(rig.now, CloseReason::ServerDraining);
    rig.add_client();
    rig.run_for(ms(2_000));
    assert_eq!(rig.endpoint.stats().draining, 1);
    assert_eq!(note.0.borrow().failures.len(), 1, "the server's own affairs are nobody's fault");
}

#[test]
fn a_user_who_is_banned_between_hello_and_confirmation_gets_no_session() {
    let (mut rig, note) = rig();
    rig.add_client();
    assert!(rig.run_until(ms(5_000), |rig| rig.endpoint.stats().accepted == 1));
    note.0.borrow_mut().banned = Some(UserId(100));
    rig.run_for(ms(2_000));
    assert_eq!(rig.endpoint.stats().established, 0);
    assert_eq!(rig.endpoint.stats().banned, 1);
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 0), "the handshake is over");
    let reason = CloseReason::Refused(RefuseReason::Banned);
    assert_eq!(rig.client_told[0].last(), Some(&ClientTold::Closed(reason)));
}

#[test]
fn without_room_nobody_gets_a_key_exchange_and_the_token_stays_good() {
    let (mut rig, note) = rig();
    note.0.borrow_mut().room = Some(0);
    let token = rig.token();
    rig.add_client_with(&token, aes());
    rig.run_for(ms(2_000));
    let full = CloseReason::Refused(RefuseReason::Full);
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason: full });
    let stats = *rig.endpoint.stats();
    assert_eq!((stats.full, stats.accepted), (1, 0));
    note.0.borrow_mut().room = Some(1);
    rig.add_client_with(&token, aes());
    rig.run_for(ms(2_000));
    assert_eq!(rig.clients[1].state(), ClientState::Connected);
    assert_eq!(note.0.borrow().took, [false]);
}

#[test]
fn room_that_went_to_another_meanwhile_costs_no_token() {
    let (mut rig, note) = rig();
    note.0.borrow_mut().room = Some(1);
    let token = rig.token();
    rig.add_client_with(&token, aes());
    assert!(rig.run_until(ms(5_000), |rig| rig.endpoint.stats().accepted == 1));
    note.0.borrow_mut().room = Some(0);
    rig.run_for(ms(2_000));
    let full = CloseReason::Refused(RefuseReason::Full);
    assert_eq!(rig.client_told[0].last(), Some(&ClientTold::Closed(full)));
    assert_eq!((rig.endpoint.stats().full, rig.endpoint.stats().established), (1, 0));
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 0), "the handshake is over");
    note.0.borrow_mut().room = Some(1);
    rig.add_client_with(&token, aes());
    rig.run_for(ms(2_000));
    assert_eq!(rig.clients[1].state(), ClientState::Connected, "its token was not spent");
}
