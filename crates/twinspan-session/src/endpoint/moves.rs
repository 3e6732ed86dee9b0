//! Sessions that move to another address, and the ids that they have in reserve for it.

use std::net::SocketAddr;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;

use super::{Endpoint, EndpointEvent, SessionKey, Target};
use crate::connection::CHALLENGE_BYTES;
use crate::frames::{IdPair, SPARE_IDS};
use crate::reason::CloseReason;
use crate::route::{Outcome, Token};

/// What the frames of a packet said of paths and ids.
#[derive(Debug, Default)]
pub(super) struct PathNews {
    pub(super) response: Option<Token>,
    pub(super) retired: [u32; SPARE_IDS],
    pub(super) pairs: Vec<IdPair>,
}

impl Endpoint {
    /// An authentic packet came by another address or under another id than the last.
    pub(super) fn on_path(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        from: SocketAddr,
        (id, bytes): (u32, usize),
        on_event: &mut dyn FnMut(EndpointEvent<'_>),
    ) {
        let place = self.slots.get_mut(key.index());
        let Some(session) = place.and_then(|place| place.session.as_deref_mut()) else { return };
        let newest = session.connection.is_newest();
        let deliberate = id != session.id;
        if deliberate
            && newest
            && let Some(spare) = session.spare.iter_mut().find(|spare| spare.server == id)
        {
            // The id so far stays known until the client retires it.
            core::mem::swap(&mut spare.server, &mut session.id);
            core::mem::swap(&mut spare.client, &mut session.client_id);
        }
        let client_id = session.client_id;
        let secrets = self.door.secrets.as_mut();
        let said = (newest, deliberate);
        let outcome = session.route.on_packet(now, from, bytes, said, client_id, secrets);
        self.on_outcome(now, key, outcome, on_event);
        self.after(now, key.slot(), None);
    }

    /// What a packet said of paths and ids.
    pub(super) fn on_path_news(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        news: &PathNews,
        on_event: &mut dyn FnMut(EndpointEvent<'_>),
    ) {
        if let Some(token) = news.response
            && let Some(session) = self.find_mut(key)
        {
            let outcome = session.route.on_response(now, token);
            self.on_outcome(now, key, outcome, on_event);
        }
        self.on_own_ids(key, &news.pairs);
        for id in news.retired.into_iter().filter(|id| *id != 0) {
            self.on_retired(now, key, id);
        }
    }

    pub(super) fn on_outcome(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        outcome: Option<Outcome>,
        on_event: &mut dyn FnMut(EndpointEvent<'_>),
    ) {
        let Some(outcome) = outcome else { return };
        *match outcome {
            Outcome::Begun => &mut self.stats.moves_begun,
            Outcome::Done => &mut self.stats.moves_done,
            Outcome::Failed => &mut self.stats.moves_failed,
        } += 1;
        let Some(session) = self.find_mut(key) else { return };
        if outcome == Outcome::Done {
            session.connection.on_path_changed(now);
            let peer = session.route.peer();
            on_event(EndpointEvent::Moved { session: key, peer });
        }
    }

    /// The client said which ids of its go with those that it has in reserve. Of one that it has not
    /// any more it said so too late.
    fn on_own_ids(&mut self, key: SessionKey, pairs: &[IdPair]) {
        let Some(session) = self.find_mut(key) else { return };
        for IdPair { server, client } in pairs.iter().filter(|pair| pair.client != 0) {
            if *server == session.id && session.client_id == 0 {
                session.client_id = *client;
                session.route.readdress(*client);
            }
            let spare = session.spare.iter_mut().find(|spare| spare.server == *server);
            if let Some(spare) = spare.filter(|spare| spare.server != 0 && spare.client == 0) {
                spare.client = *client;
            }
        }
    }

    /// The client will not use an id any more, and gets another.
    fn on_retired(&mut self, now: Timestamp, key: SessionKey, id: u32) {
        let Some(session) = self.find_mut(key) else { return };
        let Some(place) = session.spare.iter().position(|spare| spare.server == id) else {
            // The id in use, or none of its own.
            return session.connection.close(now, CloseReason::ProtocolViolation);
        };
        self.targets.remove(id);
        let new = self.draw_id();
        let Some(session) = self.find_mut(key) else { return };
        let told = session.connection.send_ids(now, [new, 0, 0]);
        if let Some(spare) = session.spare.get_mut(place) {
            *spare = IdPair { server: if told { new } else { 0 }, client: 0 };
        }
        if told {
            self.targets.insert(new, Target::Session(key.slot()));
        }
    }

    /// Gives a session its ids in reserve, once it is in use: a session that nobody uses costs
    /// nothing for them.
    pub(super) fn give_ids(&mut self, now: Timestamp, key: SessionKey) {
        let mut ids = [0; SPARE_IDS];
        for id in &mut ids {
            *id = self.draw_id();
            self.targets.insert(*id, Target::Session(key.slot()));
        }
        if let Some(session) = self.find_mut(key) {
            session.spare = ids.map(|server| IdPair { server, client: 0 });
            session.has_ids = true;
            // The queue of control messages has room: nothing but credit was in it so far.
            session.connection.send_ids(now, ids);
        }
    }

    /// Sends the challenges that are due; false when there was no room for all of them but `spared`.
    pub(super) fn transmit_challenges(
        &mut self,
        now: Timestamp,
        slot: u32,
        pool: &PacketPool,
        out: &mut DatagramBatch,
        spared: usize,
    ) -> bool {
        let place = self.slots.get_mut(slot as usize);
        let Some(session) = place.and_then(|place| place.session.as_deref_mut()) else {
            return true;
        };
        while session.route.wants_challenge(now) {
            let Some(mut packet) = pool.take().filter(|_| out.room() > spared) else {
                return false;
            };
            let rtt = session.connection.smoothed_rtt();
            let Some((peer, token)) = session.route.poll_challenge(now, CHALLENGE_BYTES, rtt)
            else {
                break;
            };
            session.connection.aim(session.route.aim_at(peer));
            let Some(len) = session.connection.build_challenge(now, token, packet.room_mut())
            else {
                break;
            };
            packet.set_len(len);
            self.stats.packets_out += 1;
            self.stats.bytes_out += len as u64;
            if out.push(Datagram { peer, at: now, packet }).is_err() {
                return false;
            }
        }
        true
    }
}
