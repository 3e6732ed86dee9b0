//! What is kept of a receiver that waits for nothing, so that idle connections cost little.

use super::{Receiver, RxChannel};
use crate::bits::DoneSet;
use crate::{Channel, Config};

/// A [`Receiver`] without its tables: which messages were delivered, and credit. Counters
/// are not kept.
#[derive(Debug)]
pub struct ParkedReceiver {
    wanted: Box<[(Channel, u64)]>,
    consumed: u64,
    credit_total: u64,
}

impl ParkedReceiver {
    /// A receiver to which nothing has come, see [`Receiver::new`].
    pub fn new(config: &Config) -> Self {
        Self { wanted: Box::default(), consumed: 0, credit_total: config.credit_bytes }
    }
}

impl Receiver {
    /// Whether nothing is held and no message is missing of which a later one came:
    /// [`park`](Self::park) would lose nothing.
    pub fn is_quiet(&self) -> bool {
        self.partials.is_empty()
            && self.channels.iter().all(|rx| rx.held.is_empty() && rx.done.is_closed())
    }

    /// What must be kept of a receiver that [`is_quiet`](Self::is_quiet).
    pub fn park(&self) -> ParkedReceiver {
        ParkedReceiver {
            wanted: self.channels.iter().map(|rx| (rx.channel, rx.done.base())).collect(),
            consumed: self.consumed,
            credit_total: self.credit_total,
        }
    }

    /// Goes on where a parked receiver stopped. `config` is the one that it was made with.
    pub fn resume(config: &Config, parked: &ParkedReceiver) -> Self {
        let mut receiver = Self::new(config);
        receiver.channels.extend(parked.wanted.iter().map(|(channel, base)| {
            let mut done = DoneSet::default();
            done.raise(*base);
            RxChannel::new(*channel, done)
        }));
        // Nothing was held, so all that arrived was consumed.
        receiver.arrived = parked.consumed;
        receiver.consumed = parked.consumed;
        receiver.credit_total = parked.credit_total;
        receiver
    }
}
