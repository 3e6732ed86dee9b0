//! Many bots behind one socket: datagrams find their bot by connection id or handshake nonce.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_session::{connection_id, handshake_nonce};

use crate::bot::Bot;
use crate::measure::Latency;

/// A wake-up of one bot.
type Wake = Reverse<(Timestamp, usize)>;

/// Bots that share a socket, each with its own sealed session.
///
/// A [`Machine`] that ends when all of its bots have ended.
pub struct Fleet {
    bots: Vec<Bot>,
    by_connection: BTreeMap<u32, usize>,
    by_nonce: BTreeMap<[u8; 16], usize>,
    /// Wake-ups, outdated ones among them: one counts only while it equals the bot's in `wake_at`.
    wakes: BinaryHeap<Wake>,
    wake_at: Vec<Option<Timestamp>>,
    /// Bots that may have something to send.
    busy: Vec<usize>,
    is_busy: Vec<bool>,
    ended: usize,
    has_ended: Vec<bool>,
    /// Datagrams that belong to no bot.
    strays: u64,
    /// One datagram on its way to its bot.
    one: DatagramBatch,
    ages: Ages,
}

/// How old states were when the bots applied them.
#[derive(Clone, Debug, Default)]
pub struct Ages {
    /// One-way latency, from the slot that a state was scheduled for.
    pub down: Latency,
    /// From the tick that made the state.
    pub state_age: Latency,
}

impl Fleet {
    /// A fleet of these bots; each starts at its own moment of `start_at`.
    pub fn new(bots: Vec<Bot>, start_at: impl Fn(usize) -> Timestamp) -> Self {
        let count = bots.len();
        let mut by_connection = BTreeMap::new();
        let mut by_nonce = BTreeMap::new();
        for (index, bot) in bots.iter().enumerate() {
            by_connection.insert(bot.client().session().connection_id(), index);
            by_nonce.insert(bot.client().session().handshake_nonce(), index);
        }
        let wake_at: Vec<_> = (0..count).map(|index| Some(start_at(index))).collect();
        let wakes = wake_at.iter().enumerate();
        Self {
            wakes: wakes.filter_map(|(index, at)| Some(Reverse(((*at)?, index)))).collect(),
            wake_at,
            by_connection,
            by_nonce,
            busy: Vec::with_capacity(count),
            is_busy: vec![false; count],
            ended: 0,
            has_ended: vec![false; count],
            bots,
            strays: 0,
            one: DatagramBatch::new(1),
            ages: Ages::default(),
        }
    }

    /// The bots.
    pub fn bots(&self) -> &[Bot] {
        &self.bots
    }

    /// Datagrams that belonged to no bot.
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// How old states were when the bots applied them, since [`Fleet::forget_ages`].
    pub const fn ages(&self) -> &Ages {
        &self.ages
    }

    /// Forgets the ages measured so far.
    pub fn forget_ages(&mut self) {
        self.ages.down.clear();
        self.ages.state_age.clear();
    }

    /// All bots stand still and start nothing new.
    pub fn rest(&mut self) {
        self.bots.iter_mut().for_each(Bot::rest);
    }

    /// All bots leave the world.
    pub fn close(&mut self, now: Timestamp) {
        for index in 0..self.bots.len() {
            if let Some(bot) = self.bots.get_mut(index) {
                bot.client_mut().close(now);
            }
            self.touch(index);
        }
    }

    fn route(&self, datagram: &Datagram) -> Option<usize> {
        match connection_id(&datagram.packet)? {
            0 => self.by_nonce.get(&handshake_nonce(&datagram.packet)?).copied(),
            id => self.by_connection.get(&id).copied(),
        }
    }

    /// After a bot was called: it may want to send, to be woken at another time, or to end.
    fn touch(&mut self, index: usize) {
        let Some(bot) = self.bots.get(index) else { return };
        if let Some(ended) = self.has_ended.get_mut(index)
            && bot.is_done()
            && !*ended
        {
            *ended = true;
            self.ended += 1;
        }
        if let Some(busy) = self.is_busy.get_mut(index)
            && !*busy
        {
            *busy = true;
            self.busy.push(index);
        }
    }

    /// Notes when the bot wants to be woken next.
    fn schedule(&mut self, index: usize) {
        let Some(bot) = self.bots.get(index) else { return };
        let at = if bot.is_done() { None } else { bot.poll_timeout() };
        let Some(known) = self.wake_at.get_mut(index) else { return };
        if *known != at {
            *known = at;
            if let Some(at) = at {
                self.wakes.push(Reverse((at, index)));
            }
        }
        if self.wakes.len() > 8 * self.bots.len() + 64 {
            self.compact();
        }
    }

    /// Drops the outdated wake-ups.
    fn compact(&mut self) {
        let current = self.wake_at.iter().enumerate();
        let current: Vec<Wake> =
            current.filter_map(|(index, at)| Some(Reverse(((*at)?, index)))).collect();
        self.wakes = current.into();
    }
}

impl Machine for Fleet {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        while let Some(datagram) = received.pop() {
            let Some(index) = self.route(&datagram) else {
                self.strays += 1;
                continue;
            };
            let Self { bots, one, ages, .. } = self;
            if let Some(bot) = bots.get_mut(index)
                && one.push(datagram).is_ok()
            {
                bot.handle_datagrams(now, one);
                while let Some(sample) = bot.client_mut().poll_sample() {
                    ages.down.record(sample.down);
                    ages.state_age.record(sample.age);
                }
            }
            one.clear();
            self.touch(index);
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(Reverse((at, index))) = self.wakes.peek().copied() {
            if at > now {
                return;
            }
            self.wakes.pop();
            let current = self.wake_at.get_mut(index);
            let Some(current) = current.filter(|current| **current == Some(at)) else { continue };
            *current = None;
            if let Some(bot) = self.bots.get_mut(index) {
                bot.handle_timeout(now);
            }
            self.touch(index);
        }
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        while out.room() > 0
            && let Some(index) = self.busy.last().copied()
        {
            if let Some(bot) = self.bots.get_mut(index) {
                bot.poll_transmit(now, pool, out);
            }
            if out.room() > 0 {
                self.busy.pop();
                if let Some(busy) = self.is_busy.get_mut(index) {
                    *busy = false;
                }
                self.schedule(index);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        // An outdated wake-up on top only wakes the loop once too often.
        self.wakes.peek().map(|Reverse((at, _))| *at)
    }

    fn is_done(&self) -> bool {
        self.ended == self.bots.len()
    }
}

#[cfg(test)]
mod tests;
