//! Once warm, a relay asks the allocator for nothing.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_relay::{Direction, Relay, RelayConfig, TrunkTags, encode};

use crate::counting::calls;
use crate::rig::{PORT, at, key};

#[test]
fn a_warm_relay_allocates_nothing() {
    let pool = PacketPool::new(256);
    let mut batch = DatagramBatch::new(64);
    let mut out = DatagramBatch::new(64);
    let config = RelayConfig::new(PORT, key());
    let mut relay = Relay::new(config, &mut Stream::new(1, "secrets", 0)).unwrap();
    let tag = TrunkTags::new(&key(), None, Direction::ToRelay).present();
    let mut round = |number: u64, relay: &mut Relay| {
        let now = Timestamp::START.after(Duration::from_millis(number));
        for index in 0..64_u64 {
            let mut packet = pool.take().unwrap();
            packet.set_len(40 + (index * number % 500) as usize);
            packet.fill_with_id();
            let client: SocketAddr = at((index * 7 + number) as u8 | 1, 5_000);
            let is_down = index % 3 == 0;
            let peer = if is_down { PORT } else { client };
            assert!(!is_down || encode(&mut packet, client, 32, tag));
            assert!(batch.push(Datagram { peer, at: now, packet }).is_ok());
        }
        relay.handle_datagrams(now, &mut batch);
        relay.handle_timeout(now);
        let mut sent = 0;
        loop {
            relay.poll_transmit(now, &pool, &mut out);
            if out.is_empty() {
                return sent;
            }
            sent += out.len();
            out.clear();
        }
    };
    let warm: usize = (0..200).map(|number| round(number, &mut relay)).sum();
    assert_eq!(warm, 200 * 64);
    let before = calls();
    let sent: usize = (200..2_000).map(|number| round(number, &mut relay)).sum();
    assert_eq!(calls() - before, 0);
    assert_eq!(sent, 1_800 * 64);
}

trait FillWithId {
    /// Makes it look sealed.
    fn fill_with_id(&mut self);
}

impl FillWithId for twinspan_core::packet::PacketBuf {
    fn fill_with_id(&mut self) {
        self.iter_mut().take(14).for_each(|byte| *byte = 5);
    }
}
