//! Streams of a QUIC connection: how they open, what they read and write, how they end.
//!
//! //= hub 11.1

use bytes::Bytes;
use quinn_proto::{Dir, Side, StreamId, VarInt, WriteError};

use super::carrier::QuicCarrier;
use super::parts::{CLOSING_TIMEOUT, Slot, Stage, read_door, read_link};
use crate::stream::core::Seats;
use crate::stream::loose;
use crate::stream::open::{self, Told};
use crate::stream::wire::{Frame, Opened as Opening, Standing};

impl QuicCarrier {
    pub(super) fn slot(&mut self, index: usize, id: StreamId) -> Option<&mut Slot> {
        self.conns.get_mut(&index)?.slots.iter_mut().find(|slot| slot.id == id)
    }

    pub(super) fn remove_slot(&mut self, index: usize, id: StreamId) {
        let now = self.now;
        if let Some(conn) = self.conns.get_mut(&index) {
            conn.slots.retain(|slot| slot.id != id);
        }
        let Some(connector) = self.connector.as_mut().filter(|it| it.conn == Some(index)) else {
            return;
        };
        for wanted in connector.wanted.iter_mut().filter(|it| it.stream == Some(id)) {
            wanted.stream = None;
            wanted.next_at = now.after(wanted.backoff.next_delay(&mut self.random));
        }
    }

    /// Reads a stream as far as it goes.
    pub(super) fn read(&mut self, index: usize, id: StreamId, seats: &mut Seats) {
        let Some(conn) = self.conns.get_mut(&index) else { return };
        let Some(at) = conn.slots.iter().position(|slot| slot.id == id) else { return };
        conn.is_dirty = true;
        let Some(slot) = conn.slots.get_mut(at) else { return };
        match &mut slot.stage {
            Stage::Greeting { door, said, .. } => match read_door(&mut conn.connection, id, door) {
                Ok(Some(opening)) => {
                    let said = *said;
                    self.on_opening(index, id, said, opening, seats);
                }
                Ok(None) => {}
                Err(()) => self.break_stream(index, id),
            },
            Stage::Up { seat, link } => {
                let (seat, link) = (*seat, *link);
                let Some(place) = seats.get(seat) else { return };
                let is_over = read_link(&mut conn.connection, id, place, link, self.now);
                if is_over {
                    self.write(index, id, seats);
                    self.close_slot(index, id, seats);
                }
            }
            Stage::Closing { .. } => {}
        }
    }

    /// The first frame came.
    fn on_opening(
        &mut self,
        index: usize,
        id: StreamId,
        said: Option<(usize, Standing)>,
        opening: Opening,
        seats: &mut Seats,
    ) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&index) else { return };
        let is_early = conn.connection.is_handshaking();
        let Some(slot) = conn.slots.iter_mut().find(|slot| slot.id == id) else { return };
        let mut is_up = false;
        match (said, opening) {
            (None, Opening::Hello(theirs)) => {
                let seat = seats.named(&theirs.greeting.topic).map(|(seat, _)| seat);
                if is_early && seat.is_some_and(|seat| !self.idempotent.contains(&seat)) {
                    // Who may not say so early is not heard.
                    return self.break_stream(index, id);
                }
                if let Some((seat, link)) = open::welcome(now, &theirs, seats, &mut slot.out) {
                    slot.stage = Stage::Up { seat, link };
                    is_up = true;
                }
            }
            (Some((seat, said)), opening) => {
                let Some(connector) = &mut self.connector else { return };
                let wanted = connector.wanted.iter_mut().find(|it| it.seat == seat);
                let (Some(wanted), Some(topic)) = (wanted, seats.topic(seat)) else { return };
                let told = match opening {
                    Opening::End(reason) => Told::Refused(reason),
                    Opening::Hello(theirs) => match topic.admit(now, &theirs, &said) {
                        Ok(link) => {
                            wanted.last_peer = Some(theirs.greeting.id);
                            wanted.backoff.reset();
                            slot.stage = Stage::Up { seat, link };
                            is_up = true;
                            Told::Welcome
                        }
                        Err(refusal) => {
                            wanted.last_peer = Some(theirs.greeting.id);
                            Frame::End(refusal.reason()).write(&mut slot.out);
                            Told::Disagrees(refusal)
                        }
                    },
                };
                wanted.told.get_or_insert(told);
            }
            (None, Opening::End(_)) => {}
        }
        if is_up {
            self.read(index, id, seats);
        } else {
            self.close_slot(index, id, seats);
        }
    }

    /// Ends a stream of a peer that does not keep the rules.
    pub(super) fn break_stream(&mut self, index: usize, id: StreamId) {
        if let Some(conn) = self.conns.get_mut(&index) {
            // One that is closed already is as good.
            let _ = conn.connection.recv_stream(id).stop(VarInt::from_u32(1));
            let _ = conn.connection.send_stream(id).reset(VarInt::from_u32(1));
        }
        self.remove_slot(index, id);
    }

    /// A stream's link ends, and its last words leave.
    fn close_slot(&mut self, index: usize, id: StreamId, seats: &mut Seats) {
        let (now, until) = (self.now, self.now.after(CLOSING_TIMEOUT));
        let Some(slot) = self.slot(index, id) else { return };
        if let Stage::Up { seat, link } = slot.stage
            && let Some(topic) = seats.topic(seat)
        {
            topic.broke(now, link);
        }
        if !matches!(slot.stage, Stage::Closing { .. }) {
            slot.stage = Stage::Closing { until, is_finished: false };
        }
    }

    pub(super) fn write_all(&mut self, index: usize, seats: &mut Seats) {
        if let Some(conn) = self.conns.get_mut(&index) {
            (conn.is_crowded, conn.is_held) = (false, false);
        }
        let mut at = 0;
        while let Some(id) = self.conns.get(&index).and_then(|conn| Some(conn.slots.get(at)?.id)) {
            self.write_beside(index, id, seats);
            self.write(index, id, seats);
            at += 1;
        }
    }

    /// Writes what goes beside a stream, as far as there is room.
    fn write_beside(&mut self, index: usize, id: StreamId, seats: &mut Seats) {
        let Self { conns, datagram, now, .. } = self;
        let Some(conn) = conns.get_mut(&index).filter(|conn| !conn.is_lost) else { return };
        let Some(slot) = conn.slots.iter().find(|slot| slot.id == id) else { return };
        let Stage::Up { seat, link } = slot.stage else { return };
        let Some(topic) = seats.topic(seat) else { return };
        // Streams beyond that number have nothing beside them.
        let Ok(stream) = u32::try_from(id.index()) else { return };
        let mut beside = conn.connection.datagrams();
        let Some(max) = beside.max_size() else { return };
        loop {
            if beside.send_buffer_space() < max {
                conn.is_crowded = true;
                return;
            }
            loose::begin(stream, datagram);
            if !topic.loosen(*now, link, max, datagram) {
                return;
            }
            // It fits, and there is room; else it were lost as on the way.
            let _ = beside.send(Bytes::copy_from_slice(datagram), false);
        }
    }

    /// Takes in what came beside the streams of a connection; gives back what came before the first
    /// word of its stream was read.
    pub(super) fn read_beside(&mut self, index: usize, seats: &mut Seats) -> Vec<Bytes> {
        let mut early = Vec::new();
        while let Some(conn) = self.conns.get_mut(&index) {
            let Some(datagram) = conn.connection.datagrams().recv() else { break };
            if !self.take_beside(index, &datagram, seats) {
                // At most what the machine holds of them.
                early.push(datagram);
            }
        }
        early
    }

    /// Takes in one datagram; false where its stream has not said where it begins.
    pub(super) fn take_beside(&mut self, index: usize, datagram: &[u8], seats: &mut Seats) -> bool {
        let Some(conn) = self.conns.get_mut(&index) else { return true };
        // What belongs to no stream is missed, as if it were lost.
        let Ok((stream, rest)) = loose::split(datagram) else { return true };
        let id = StreamId::new(Side::Client, Dir::Bi, stream.into());
        let slot = conn.slots.iter().find(|slot| slot.id == id);
        let Some(Slot { stage: Stage::Up { seat, link }, .. }) = slot else { return false };
        let (seat, link) = (*seat, *link);
        let Some(place) = seats.get(seat) else { return true };
        if !place.topic.has_begun(link) {
            return false;
        }
        let outcome = place.topic.take_loose(self.now, link, rest);
        place.has_news |= place.topic.has_messages();
        if outcome.is_err() {
            // The last word says so.
            self.write(index, id, seats);
            self.close_slot(index, id, seats);
        }
        true
    }

    /// Writes what a stream has to say, as far as there is room.
    pub(super) fn write(&mut self, index: usize, id: StreamId, seats: &mut Seats) {
        let now = self.now;
        loop {
            let Some(conn) = self.conns.get_mut(&index) else { return };
            if conn.is_lost {
                return;
            }
            let has_waiting = conn.has_waiting_beside();
            let Some(slot) = conn.slots.iter_mut().find(|slot| slot.id == id) else { return };
            if slot.is_blocked {
                return;
            }
            let mut stream = conn.connection.send_stream(id);
            let first = slot.out.get(slot.out_sent..).unwrap_or_default();
            if !first.is_empty() {
                match stream.write(first) {
                    Ok(count) => slot.out_sent += count,
                    Err(error) => {
                        slot.is_blocked = true;
                        return self.on_write_error(index, id, &error, seats);
                    }
                }
                continue;
            }
            match &mut slot.stage {
                Stage::Up { seat, link } => {
                    let (seat, link) = (*seat, *link);
                    let Some(topic) = seats.topic(seat) else { return };
                    if has_waiting && !topic.config().is_reliable {
                        // A packet may have room for a message and none for a datagram before it.
                        conn.is_held = true;
                        return;
                    }
                    let pieces = topic.transmit(now, link);
                    let Some(piece) = pieces.iter().find(|piece| !piece.is_empty()) else {
                        if topic.over(link).is_some() {
                            self.close_slot(index, id, seats);
                            continue;
                        }
                        return;
                    };
                    match stream.write(piece) {
                        Ok(count) => topic.sent(now, link, count),
                        Err(error) => {
                            slot.is_blocked = true;
                            return self.on_write_error(index, id, &error, seats);
                        }
                    }
                }
                Stage::Closing { is_finished, .. } => {
                    if !*is_finished {
                        *is_finished = true;
                        // One that was stopped needs no end.
                        let _ = stream.finish();
                    }
                    return;
                }
                Stage::Greeting { .. } => return,
            }
        }
    }

    fn on_write_error(
        &mut self,
        index: usize,
        id: StreamId,
        error: &WriteError,
        seats: &mut Seats,
    ) {
        // A peer that hears no more may still say its last words, which are longer than one read.
        if matches!(error, WriteError::Blocked | WriteError::Stopped(_)) {
            return;
        }
        // It is gone.
        if let Some(slot) = self.slot(index, id)
            && let Stage::Up { seat, link } = slot.stage
            && let Some(topic) = seats.topic(seat)
        {
            topic.broke(self.now, link);
        }
        self.remove_slot(index, id);
    }
}
