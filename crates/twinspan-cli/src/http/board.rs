//! The board: the latest picture of the demo, written by it and read by the web side.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;
use twinspan_core::link::{Conditions, ConditionsError};

/// Seconds of metrics that the board keeps for a page that opens later.
pub const METRICS_SECONDS_MAX: usize = 300;

/// Cells along one side of the square that an [`InterestRow`] can describe.
pub const INTEREST_SPAN: u32 = 7;

/// One entity as the map shows it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EntityDot {
    /// The entity's id, unique within one frame.
    pub id: u32,
    /// 0 player, 1 NPC, 2 projectile.
    pub kind: u8,
    /// Metres east of the world's corner.
    pub x: f32,
    /// Metres along the world's other horizontal axis.
    pub z: f32,
    /// Heading in degrees.
    pub yaw: f32,
    /// Bit 0 is HASTE.
    pub flags: u8,
    /// Health, 0 to 255.
    pub health: u8,
}

/// The cells that one player is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InterestRow {
    /// The player's entity id.
    pub id: u32,
    /// Column of the square's first cell.
    pub base_x: i32,
    /// Row of the square's first cell.
    pub base_z: i32,
    /// Bit `row * 7 + column` stands for cell `(base_x + column, base_z + row)`.
    pub mask: u64,
}

impl InterestRow {
    /// The cells of the mask in row order.
    pub fn cells(&self) -> impl Iterator<Item = (i32, i32)> + '_ {
        (0..INTEREST_SPAN * INTEREST_SPAN).filter(|bit| self.mask >> bit & 1 == 1).map(|bit| {
            // Both parts are below 7, so the casts keep their values.
            let (row, column) = ((bit / INTEREST_SPAN) as i32, (bit % INTEREST_SPAN) as i32);
            (self.base_x.saturating_add(column), self.base_z.saturating_add(row))
        })
    }
}

/// The whole world at one tick.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorldFrame {
    /// The tick that this frame shows.
    pub tick: u32,
    /// Length of the world's side in metres.
    pub side: f64,
    /// Length of a cell's side in metres.
    pub cell: f64,
    /// Every entity.
    pub entities: Vec<EntityDot>,
    /// What each player is subscribed to.
    pub interests: Vec<InterestRow>,
}

impl WorldFrame {
    /// The cell that holds `dot`, by this frame's cell length; the nearest one for a place on the
    /// far edge or outside, as in the world's own grid.
    pub fn cell_of(&self, dot: &EntityDot) -> (i32, i32) {
        let cell = if self.cell > 0.0 { self.cell } else { 1.0 };
        let last = ((self.side / cell).ceil() - 1.0).max(0.0);
        // max() before min(): what is no number becomes 0.
        let axis = |at: f32| (f64::from(at) / cell).max(0.0).min(last) as i32;
        (axis(dot.x), axis(dot.z))
    }

    /// Entities of one kind.
    pub fn count_of(&self, kind: u8) -> usize {
        self.entities.iter().filter(|dot| dot.kind == kind).count()
    }
}

/// One second of measurements; what nobody measured in it is not a number, and `null` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct MetricsFrame {
    /// Seconds since the demo began.
    pub second: u32,
    /// Median time of a tick in microseconds.
    pub tick_p50_us: f64,
    /// 99th percentile of the time of a tick in microseconds.
    pub tick_p99_us: f64,
    /// Packets a second that the server received.
    pub packets_in: f64,
    /// Packets a second that the server sent.
    pub packets_out: f64,
    /// Bytes a second that the mean player was sent.
    pub bytes_per_player_out: f64,
    /// Bytes a second that the mean player sent.
    pub bytes_per_player_in: f64,
    /// Median latency from player to server in milliseconds.
    pub up_p50_ms: f64,
    /// 99th percentile of the latency from player to server in milliseconds.
    pub up_p99_ms: f64,
    /// Median latency from server to player in milliseconds.
    pub down_p50_ms: f64,
    /// 99th percentile of the latency from server to player in milliseconds.
    pub down_p99_ms: f64,
    /// Share of the inputs due at the server that never came, 0 to 1.
    pub loss_up: f64,
    /// Share of the states due at the players that never came, 0 to 1.
    pub loss_down: f64,
    /// Connected players.
    pub players: u32,
    /// Entities in the world.
    pub entities: u32,
}

/// One session as the table shows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionRow {
    /// The connection's slot.
    pub id: u32,
    /// The entity that the session steers.
    pub entity: u32,
    /// The user behind the session.
    pub user: u64,
    /// The peer's address.
    pub peer: String,
    /// Name of the cipher in use.
    pub cipher: &'static str,
    /// Smoothed round trip time in milliseconds.
    pub rtt_ms: f64,
    /// Measured loss, 0 to 1.
    pub loss: f64,
    /// Packets received from the peer.
    pub packets_in: u64,
    /// Packets sent to the peer.
    pub packets_out: u64,
    /// Bytes received from the peer.
    pub bytes_in: u64,
    /// Bytes sent to the peer.
    pub bytes_out: u64,
    /// Packets sent and not yet acknowledged.
    pub unacknowledged: u32,
}

/// The last [`METRICS_SECONDS_MAX`] seconds, and how many there ever were.
#[derive(Debug, Default)]
pub(super) struct MetricsLog {
    total: u64,
    ring: VecDeque<MetricsFrame>,
}

impl MetricsLog {
    fn push(&mut self, frame: MetricsFrame) {
        if self.ring.len() == METRICS_SECONDS_MAX {
            self.ring.pop_front();
        }
        self.ring.push_back(frame);
        self.total += 1;
    }

    /// The kept frames that a reader who has seen `seen` frames lacks, and the new count.
    pub(super) fn since(&self, seen: u64) -> (Vec<MetricsFrame>, u64) {
        let missing = usize::try_from(self.total.saturating_sub(seen)).unwrap_or(usize::MAX);
        let skip = self.ring.len().saturating_sub(missing);
        (self.ring.iter().skip(skip).copied().collect(), self.total)
    }

    fn last(&self) -> Option<MetricsFrame> {
        self.ring.back().copied()
    }
}

/// Everything that the page shows.
///
/// The demo publishes; readers take the newest picture when they are ready for it. A reader that
/// is late finds only the newest, so nothing queues here however many pages are open.
#[derive(Debug)]
pub struct Board {
    pub(super) world: watch::Sender<Arc<WorldFrame>>,
    pub(super) metrics: watch::Sender<MetricsLog>,
    pub(super) sessions: watch::Sender<Arc<Vec<SessionRow>>>,
    pub(super) conditions: watch::Sender<Conditions>,
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// An empty board under clean conditions.
    pub fn new() -> Self {
        Self {
            world: watch::Sender::default(),
            metrics: watch::Sender::default(),
            sessions: watch::Sender::default(),
            conditions: watch::Sender::default(),
        }
    }

    /// Shows a new picture of the world; made to be called ten times a second.
    pub fn publish_world(&self, frame: WorldFrame) {
        self.world.send_replace(Arc::new(frame));
    }

    /// Adds one second of measurements; the oldest leaves when [`METRICS_SECONDS_MAX`] are kept.
    pub fn publish_metrics(&self, frame: MetricsFrame) {
        self.metrics.send_modify(|log| log.push(frame));
    }

    /// Replaces the table of sessions; made to be called once a second.
    pub fn publish_sessions(&self, rows: Vec<SessionRow>) {
        self.sessions.send_replace(Arc::new(rows));
    }

    /// The conditions in force, as the pages show them.
    pub fn conditions(&self) -> Conditions {
        *self.conditions.borrow()
    }

    /// Shows other conditions, for example those given on the command line.
    ///
    /// This does not call the server's `on_conditions`: whoever calls here applies them itself.
    ///
    /// # Errors
    ///
    /// [`ConditionsError`] names the first field out of range; nothing changes then.
    pub fn set_conditions(&self, conditions: Conditions) -> Result<(), ConditionsError> {
        conditions.check()?;
        self.conditions.send_replace(conditions);
        Ok(())
    }

    pub(super) fn world(&self) -> Arc<WorldFrame> {
        Arc::clone(&self.world.borrow())
    }

    pub(super) fn sessions(&self) -> Arc<Vec<SessionRow>> {
        Arc::clone(&self.sessions.borrow())
    }

    pub(super) fn last_metrics(&self) -> Option<MetricsFrame> {
        self.metrics.borrow().last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interest_mask_names_cells_in_row_order() {
        let row = InterestRow { id: 1, base_x: 4, base_z: -1, mask: 1 | 1 << 8 | 1 << 48 };
        assert_eq!(row.cells().collect::<Vec<_>>(), [(4, -1), (5, 0), (10, 5)]);
    }

    #[test]
    fn bits_beyond_the_square_name_no_cell() {
        let row = InterestRow { mask: 1 << 49 | 1 << 63, ..InterestRow::default() };
        assert_eq!(row.cells().count(), 0);
    }

    #[test]
    fn metrics_keep_the_newest_seconds_only() {
        let board = Board::new();
        for second in 0..METRICS_SECONDS_MAX as u32 + 7 {
            board.publish_metrics(MetricsFrame { second, ..MetricsFrame::default() });
        }
        let (frames, total) = board.metrics.borrow().since(0);
        assert_eq!(frames.len(), METRICS_SECONDS_MAX);
        assert_eq!(frames.first().map(|frame| frame.second), Some(7));
        assert_eq!(total, METRICS_SECONDS_MAX as u64 + 7);
    }

    #[test]
    fn metrics_since_gives_what_a_reader_lacks() {
        let board = Board::new();
        for second in 0..5 {
            board.publish_metrics(MetricsFrame { second, ..MetricsFrame::default() });
        }
        let (frames, total) = board.metrics.borrow().since(3);
        assert_eq!(frames.iter().map(|frame| frame.second).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(board.metrics.borrow().since(total).0.len(), 0);
    }

    #[test]
    fn refused_conditions_leave_the_board_as_it_was() {
        let board = Board::new();
        assert!(board.set_conditions(Conditions { loss: 2.0, ..Conditions::CLEAN }).is_err());
        assert_eq!(board.conditions(), Conditions::CLEAN);
    }

    #[test]
    fn a_place_on_the_edge_or_outside_is_in_the_nearest_cell() {
        let frame = WorldFrame { side: 96.0, cell: 32.0, ..WorldFrame::default() };
        for (x, z, cell) in [
            (95.99, 32.0, (2, 1)),
            (96.0, 31.99, (2, 0)),
            (f32::INFINITY, -0.5, (2, 0)),
            (f32::NAN, 1e9, (0, 2)),
        ] {
            let dot = EntityDot { x, z, ..EntityDot::default() };
            assert_eq!(frame.cell_of(&dot), cell, "{x}, {z}");
        }
    }
}
