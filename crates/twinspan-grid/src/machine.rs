//! Drives one region over a socket.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;

use crate::config::RegionId;
use crate::grid::Grid;

/// A region turns at least so often: what another region or a caller left for it waits no longer.
const TURN: Duration = Duration::from_millis(25);

/// One region of a grid that several tasks of a thread share.
#[derive(Debug)]
pub struct RegionMachine {
    grid: Rc<RefCell<Grid>>,
    region: RegionId,
    turn_at: Timestamp,
    stopped: Rc<std::cell::Cell<bool>>,
}

impl RegionMachine {
    /// Drives `region` of `grid` until `stopped` says true.
    pub fn new(
        grid: Rc<RefCell<Grid>>,
        region: RegionId,
        stopped: Rc<std::cell::Cell<bool>>,
    ) -> Self {
        Self { grid, region, turn_at: Timestamp::START, stopped }
    }
}

impl Machine for RegionMachine {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        let mut grid = self.grid.borrow_mut();
        while let Some(datagram) = received.pop() {
            grid.handle_datagram(now, self.region, datagram.peer, &datagram.packet);
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.turn_at = now.after(TURN);
        self.grid.borrow_mut().handle_timeout(now, self.region);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        let mut grid = self.grid.borrow_mut();
        while out.room() > 0 {
            let Some(mut packet) = pool.take() else { return };
            let Some((peer, len)) = grid.poll_transmit(now, self.region, packet.room_mut()) else {
                return;
            };
            packet.set_len(len);
            // There is room.
            drop(out.push(Datagram { peer, at: now, packet }));
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let due = self.grid.borrow().poll_timeout(self.region);
        // Where no buffer was free, something waits still: it is looked after with the next turn.
        Some(if due == Timestamp::START { self.turn_at } else { due.min(self.turn_at) })
    }

    fn is_done(&self) -> bool {
        self.stopped.get()
    }
}
