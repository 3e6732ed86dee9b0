//! What a demo shows while it runs: the page's board and a line a second.

use std::io::{self, Write};
use std::sync::Arc;

use twinspan_game::{ServerHandle, Traffic};

use crate::http::{Board, EntityDot, InterestRow, MetricsFrame, SessionRow, WorldFrame};
use crate::plan::Report;

/// Sessions in the page's table.
const SESSION_ROWS_MAX: usize = 2_000;

/// Totals at the end of the last second, to be subtracted from those of this one. Each pair that a
/// ratio is made of was counted by one end at one moment.
#[derive(Clone, Copy, Default)]
struct Totals {
    traffic: Traffic,
    inputs: u64,
    inputs_expected: u64,
    states: u64,
    states_expected: u64,
}

/// Writes the board and the terminal.
pub(super) struct Show {
    board: Arc<Board>,
    /// Lines go to standard error when standard output is for the summary alone.
    json: bool,
    second: u32,
    before: Totals,
    /// The last loss up and down.
    loss: (f64, f64),
}

impl Show {
    pub(super) fn new(board: Arc<Board>, json: bool) -> Self {
        Self { board, json, second: 0, before: Totals::default(), loss: (0.0, 0.0) }
    }

    fn line(&self, line: &str) -> io::Result<()> {
        if self.json { writeln!(io::stderr(), "{line}") } else { writeln!(io::stdout(), "{line}") }
    }

    /// Says what was started.
    pub(super) fn start(
        &self,
        server: &ServerHandle,
        bots: u32,
        http: Option<&str>,
    ) -> io::Result<()> {
        let socket = server.socket();
        self.line(&format!(
            "world server on {} by {}, receive buffer {} KiB; {bots} bots in a process of their own",
            server.address(),
            socket.path,
            socket.receive_buffer_bytes / 1_024,
        ))?;
        match http {
            Some(address) => self.line(&format!("live page at http://{address}")),
            None => Ok(()),
        }
    }

    /// Shows the world as it is now.
    pub(super) fn world(&self, server: &ServerHandle) {
        let frame = server.with_world(|world| WorldFrame {
            tick: world.tick,
            side: world.side,
            cell: world.cell,
            entities: world.entities.iter().map(dot).collect(),
            interests: world.interests.iter().map(interest).collect(),
        });
        self.board.publish_world(frame);
    }

    /// Shows what the last second was like.
    pub(super) fn second(&mut self, server: &ServerHandle, report: &Report) -> io::Result<()> {
        self.second += 1;
        let players = server.with_world(|world| world.interests.len());
        let metrics = self.metrics(server, report, players);
        self.board.publish_metrics(metrics);
        self.board.publish_sessions(sessions(server));
        self.line(&format!(
            "{:>4} s  {players:>5} players  tick {:>5.0}/{:>5.0} us  in {:>6}/s  out {:>6}/s  up {:>6.2}/{:>6.2} ms  down {:>6.2}/{:>6.2} ms  loss {:>4.1}/{:>4.1} %",
            self.second,
            metrics.tick_p50_us,
            metrics.tick_p99_us,
            metrics.packets_in,
            metrics.packets_out,
            metrics.up_p50_ms,
            metrics.up_p99_ms,
            metrics.down_p50_ms,
            metrics.down_p99_ms,
            metrics.loss_up * 100.0,
            metrics.loss_down * 100.0,
        ))
    }

    fn metrics(&mut self, server: &ServerHandle, report: &Report, players: usize) -> MetricsFrame {
        let entities = server.with_world(|world| world.entities.len());
        let before = self.before;
        let (now, frame) = server.with_stats(|stats| {
            let now = Totals {
                traffic: server.traffic(),
                inputs: stats.players.inputs,
                inputs_expected: stats.players.inputs_expected,
                states: report.states_applied + report.states_stale,
                states_expected: report.states_expected,
            };
            let up = stats.up_recent.percentiles();
            let per_player = |bytes: u64| bytes as f64 / players.max(1) as f64;
            let bytes_out = now.traffic.bytes_out - before.traffic.bytes_out;
            let bytes_in = now.traffic.bytes_in - before.traffic.bytes_in;
            let frame = MetricsFrame {
                second: self.second,
                tick_p50_us: stats.tick_recent.micros_at(0.5),
                tick_p99_us: stats.tick_recent.micros_at(0.99),
                packets_in: now.traffic.packets_in - before.traffic.packets_in,
                packets_out: now.traffic.packets_out - before.traffic.packets_out,
                bytes_per_player_out: per_player(bytes_out),
                bytes_per_player_in: per_player(bytes_in),
                up_p50_ms: up.p50_ms,
                up_p99_ms: up.p99_ms,
                down_p50_ms: report.down_recent.p50_ms,
                down_p99_ms: report.down_recent.p99_ms,
                loss_up: loss(
                    now.inputs.saturating_sub(before.inputs),
                    now.inputs_expected.saturating_sub(before.inputs_expected),
                )
                .unwrap_or(self.loss.0),
                loss_down: loss(
                    now.states.saturating_sub(before.states),
                    now.states_expected.saturating_sub(before.states_expected),
                )
                .unwrap_or(self.loss.1),
                players: u32::try_from(players).unwrap_or(u32::MAX),
                entities: u32::try_from(entities).unwrap_or(u32::MAX),
            };
            (now, frame)
        });
        self.before = now;
        self.loss = (frame.loss_up, frame.loss_down);
        frame
    }
}

/// Share of what should have arrived that did not. Duplicates are dropped below, so they do not
/// hide losses. `None` when no new count came in this second.
fn loss(arrived: u64, expected: u64) -> Option<f64> {
    (expected > 0).then(|| (1.0 - arrived as f64 / expected as f64).clamp(0.0, 1.0))
}

fn dot(row: &twinspan_game::EntityRow) -> EntityDot {
    let twinspan_game::EntityRow { id, kind, x, z, yaw, flags, health } = *row;
    EntityDot { id, kind, x, z, yaw, flags, health }
}

fn interest(row: &twinspan_game::InterestRow) -> InterestRow {
    let twinspan_game::InterestRow { id, base_x, base_z, mask } = *row;
    InterestRow { id, base_x, base_z, mask }
}

fn sessions(server: &ServerHandle) -> Vec<SessionRow> {
    server.with_stats(|stats| {
        let cipher = stats.cipher.map_or("none", |cipher| cipher.name());
        let rows = stats.sessions.iter().take(SESSION_ROWS_MAX);
        rows.map(|row| SessionRow {
            id: u32::try_from(row.session.index()).unwrap_or(u32::MAX),
            entity: row.entity,
            user: row.user,
            peer: row.stats.peer.to_string(),
            cipher,
            rtt_ms: row.stats.rtt.as_secs_f64() * 1_000.0,
            loss: row.stats.loss_in,
            packets_in: row.stats.packets_in,
            packets_out: row.stats.packets_out,
            bytes_in: row.stats.bytes_in,
            bytes_out: row.stats.bytes_out,
            unacknowledged: u32::try_from(row.stats.unacknowledged).unwrap_or(u32::MAX),
        })
        .collect()
    })
}
