//! A client that keeps to the session's protocol and to no rule of the game.

use std::collections::VecDeque;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_game::{EVENTS, STATE};
use twinspan_provider::Machine;
use twinspan_reliable::Channel;
use twinspan_session::{ClientEvent, ClientSession, CloseReason};
use twinspan_world::event::{ActionOutcome, ServerEvent};
use twinspan_world::{EntityId, Replica};

/// What a rogue does at one of its turns.
pub(crate) struct Turn<'a> {
    /// Counts its turns from 0.
    pub(crate) number: u64,
    pub(crate) own: EntityId,
    pub(crate) replica: &'a Replica,
    /// Messages that are sent once.
    once: &'a mut VecDeque<(Channel, Vec<u8>)>,
    /// Messages that the session queues.
    queued: &'a mut Vec<(Channel, Vec<u8>)>,
}

impl Turn<'_> {
    /// Sends a message in a packet of its own.
    pub(crate) fn send_once(&mut self, channel: Channel, bytes: &[u8]) {
        self.once.push_back((channel, bytes.to_vec()));
    }

    /// Gives the session a message.
    pub(crate) fn queue(&mut self, channel: Channel, bytes: &[u8]) {
        self.queued.push((channel, bytes.to_vec()));
    }
}

type Act = Box<dyn FnMut(&mut Turn<'_>)>;

pub(crate) struct Rogue {
    session: ClientSession,
    interval: Duration,
    act: Act,
    turns: u64,
    next_at: Option<Timestamp>,
    once: VecDeque<(Channel, Vec<u8>)>,
    replica: Replica,
    own: Option<EntityId>,
    /// Datagrams are thrown away unread.
    pub(crate) deaf: bool,
    /// It neither reads nor sends nor ends.
    pub(crate) stalled: bool,
    outcomes: Vec<ActionOutcome>,
    closed: Option<CloseReason>,
}

impl Rogue {
    /// A client that calls `act` so often per second once it stands in the world.
    pub(crate) fn new(
        session: ClientSession,
        per_second: u32,
        act: impl FnMut(&mut Turn<'_>) + 'static,
    ) -> Self {
        Self {
            session,
            interval: Duration::from_secs(1) / per_second,
            act: Box::new(act),
            turns: 0,
            next_at: None,
            once: VecDeque::new(),
            replica: Replica::new(),
            own: None,
            deaf: false,
            stalled: false,
            outcomes: Vec::new(),
            closed: None,
        }
    }

    pub(crate) const fn own(&self) -> Option<EntityId> {
        self.own
    }

    pub(crate) const fn closed(&self) -> Option<CloseReason> {
        self.closed
    }

    pub(crate) const fn turns(&self) -> u64 {
        self.turns
    }

    pub(crate) fn outcomes(&self) -> &[ActionOutcome] {
        &self.outcomes
    }

    /// Ends its session as a client does that has played enough.
    pub(crate) fn leave(&mut self, now: Timestamp) {
        self.session.close(now, CloseReason::Normal);
        self.next_at = Some(now);
    }

    fn with_session(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut ClientSession, &mut dyn FnMut(ClientEvent<'_>)),
    ) {
        let Self { session, replica, own, next_at, outcomes, closed, .. } = self;
        work(session, &mut |event| match event {
            ClientEvent::Message { channel: STATE, bytes } => {
                replica.apply(bytes).unwrap();
            }
            ClientEvent::Message { channel: EVENTS, bytes } => {
                match ServerEvent::decode(bytes).unwrap() {
                    ServerEvent::Welcome { own: entity, .. } => {
                        *own = Some(entity);
                        *next_at = Some(now);
                    }
                    ServerEvent::ActionResult { outcome, .. } => outcomes.push(outcome),
                    _ => {}
                }
            }
            ClientEvent::Closed { reason } => *closed = Some(reason),
            _ => {}
        });
    }

    fn take_turn(&mut self, now: Timestamp) {
        let Some(own) = self.own else { return };
        let mut queued = Vec::new();
        (self.act)(&mut Turn {
            number: self.turns,
            own,
            replica: &self.replica,
            once: &mut self.once,
            queued: &mut queued,
        });
        self.turns += 1;
        for (channel, bytes) in queued {
            // A full queue is the rogue's own trouble, and it is closed soon anyway.
            let _ = self.session.send(now, channel, &bytes);
        }
    }
}

impl Machine for Rogue {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        while let Some(mut datagram) = received.pop() {
            if !self.deaf && !self.stalled {
                self.with_session(now, |session, on_event| {
                    session.handle_datagram(now, &mut datagram.packet, on_event);
                });
            }
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        if self.stalled {
            return;
        }
        while let Some(at) = self.next_at.filter(|at| now >= *at) {
            self.next_at = Some(at.after(self.interval));
            self.take_turn(now);
        }
        self.with_session(now, |session, on_event| session.handle_timeout(now, on_event));
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        if self.stalled {
            return;
        }
        while out.room() > 0
            && let Some((channel, bytes)) = self.once.pop_front()
        {
            let mut packet = pool.take().unwrap();
            let written =
                self.session.write_packet(now, channel, 0, &mut packet, &mut |out| out.put(&bytes));
            if let Ok(peer) = written {
                out.push(Datagram { peer, at: now, packet }).unwrap();
            }
        }
        self.session.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        if self.stalled {
            return None;
        }
        match (self.next_at, self.session.poll_timeout()) {
            (Some(turn), Some(session)) => Some(turn.min(session)),
            (turn, session) => turn.or(session),
        }
    }

    fn is_done(&self) -> bool {
        self.closed.is_some()
    }
}
