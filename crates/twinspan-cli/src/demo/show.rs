//! What a demo shows while it runs: the page's board and a line a second.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use twinspan_core::time::Timestamp;
use twinspan_game::{Latency, ServerHandle, StatsSnapshot, Traffic};

use super::console::Console;
use super::crew::Latest;
use crate::http::{Board, EntityDot, InterestRow, MetricsFrame, SessionRow, WorldFrame};

/// Sessions in the page's table.
pub(super) const SESSION_ROWS_MAX: usize = 2_000;
/// How long a second may wait for one of the two ends to tell of it.
const SECOND_TIME_MAX: Duration = Duration::from_millis(1_500);

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

/// Writes the board and the console.
pub(super) struct Show {
    board: Arc<Board>,
    console: Console,
    began: Instant,
    /// The last second that was shown, and when.
    second: u32,
    shown_at: Instant,
    /// When its counters were taken by the server, and which report was the bots' newest.
    stats_at: Timestamp,
    reports: u64,
    before: Totals,
}

impl Show {
    /// Shows a demo that began at `began`.
    pub(super) fn new(board: Arc<Board>, console: Console, began: Instant) -> Self {
        Self {
            board,
            console,
            began,
            second: 0,
            shown_at: began,
            stats_at: Timestamp::START,
            reports: 0,
            before: Totals::default(),
        }
    }

    pub(super) const fn console(&self) -> &Console {
        &self.console
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

    /// Shows what the last second was like, once both ends have told of it; whether it did.
    ///
    /// Each end counts its own seconds. To wait for both means that none is shown twice and none is
    /// left out, however their clocks run.
    pub(super) fn second(&mut self, server: &ServerHandle, latest: &Latest) -> io::Result<bool> {
        let elapsed = self.shown_at.elapsed();
        let stats_at = server.with_stats(|stats| stats.at);
        let is_told = stats_at > self.stats_at && latest.count > self.reports;
        if !is_told && elapsed < SECOND_TIME_MAX {
            return Ok(false);
        }
        self.shown_at += elapsed;
        // By the clock, so that a stall shows as a gap.
        let second = (self.shown_at - self.began).as_secs_f64().round() as u32;
        self.second = second.max(self.second + 1);
        let metrics = self.metrics(server, latest, elapsed);
        self.stats_at = stats_at;
        self.reports = latest.count;
        self.board.publish_metrics(metrics);
        self.board.publish_sessions(sessions(server));
        self.console.second(&metrics)?;
        Ok(true)
    }

    fn metrics(
        &mut self,
        server: &ServerHandle,
        latest: &Latest,
        elapsed: Duration,
    ) -> MetricsFrame {
        let (players, entities) =
            server.with_world(|world| (world.interests.len(), world.entities.len()));
        let before = self.before;
        let now = totals(server, latest);
        self.before = now;
        let a_second = |now: u64, before: u64| {
            now.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(0.001)
        };
        let bytes_in = a_second(now.traffic.bytes_in, before.traffic.bytes_in);
        let bytes_out = a_second(now.traffic.bytes_out, before.traffic.bytes_out);
        // What was shown already says nothing of this second.
        let has_report = latest.count > self.reports;
        let down = latest.report.down_recent.filter(|_| has_report);
        server.with_stats(|stats: &StatsSnapshot| {
            let has_stats = stats.at > self.stats_at;
            let recent = |latency: &Latency, quantile| match has_stats && latency.count() > 0 {
                true => latency.micros_at(quantile),
                false => f64::NAN,
            };
            let loss = |is_told, arrived, expected| match is_told {
                true => loss(arrived, expected, players),
                false => f64::NAN,
            };
            MetricsFrame {
                second: self.second,
                tick_p50_us: recent(&stats.tick_recent, 0.5),
                tick_p99_us: recent(&stats.tick_recent, 0.99),
                packets_in: a_second(now.traffic.packets_in, before.traffic.packets_in),
                packets_out: a_second(now.traffic.packets_out, before.traffic.packets_out),
                bytes_per_player_in: share(bytes_in, players),
                bytes_per_player_out: share(bytes_out, players),
                up_p50_ms: recent(&stats.up_recent, 0.5) / 1_000.0,
                up_p99_ms: recent(&stats.up_recent, 0.99) / 1_000.0,
                down_p50_ms: down.map_or(f64::NAN, |down| down.p50_ms),
                down_p99_ms: down.map_or(f64::NAN, |down| down.p99_ms),
                loss_up: loss(
                    has_stats,
                    (before.inputs, now.inputs),
                    (before.inputs_expected, now.inputs_expected),
                ),
                loss_down: loss(
                    has_report,
                    (before.states, now.states),
                    (before.states_expected, now.states_expected),
                ),
                players: u32::try_from(players).unwrap_or(u32::MAX),
                entities: u32::try_from(entities).unwrap_or(u32::MAX),
            }
        })
    }
}

fn totals(server: &ServerHandle, latest: &Latest) -> Totals {
    let report = &latest.report;
    server.with_stats(|stats| Totals {
        traffic: server.traffic(),
        inputs: stats.players.inputs,
        inputs_expected: stats.players.inputs_expected,
        states: report.states_applied + report.states_stale,
        states_expected: report.states_expected,
    })
}

/// What falls to each player; nothing where there are none.
fn share(whole: f64, players: usize) -> f64 {
    if players == 0 { f64::NAN } else { whole / players as f64 }
}

/// Share of what should have arrived that did not, by both totals before and after; duplicates
/// are dropped below, so they do not hide losses. Not a number when nothing is known.
fn loss(arrived: (u64, u64), expected: (u64, u64), players: usize) -> f64 {
    let count = |(before, after): (u64, u64)| after.saturating_sub(before);
    match count(expected) {
        // What arrives tells what should have come before it. When nothing arrives of the players
        // who are there and were heard before, all is lost.
        0 if players > 0 && expected.0 > 0 => 1.0,
        0 => f64::NAN,
        wanted => (1.0 - count(arrived) as f64 / wanted as f64).clamp(0.0, 1.0),
    }
}

fn dot(row: &twinspan_game::EntityRow) -> EntityDot {
    let twinspan_game::EntityRow { id, kind, x, z, yaw, flags, health } = *row;
    EntityDot { id, kind, x, z, yaw, flags, health }
}

fn interest(row: &twinspan_game::InterestRow) -> InterestRow {
    let twinspan_game::InterestRow { id, base_x, base_z, mask } = *row;
    InterestRow { id, base_x, base_z, mask }
}

/// A round trip in milliseconds; not a number before the first one was measured.
fn rtt_ms(rtt: Duration) -> f64 {
    if rtt.is_zero() { f64::NAN } else { rtt.as_secs_f64() * 1_000.0 }
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
            rtt_ms: rtt_ms(row.stats.rtt),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_the_share_that_did_not_arrive() {
        assert_eq!(loss((0, 75), (0, 100), 1), 0.25);
        assert_eq!(loss((75, 175), (100, 200), 1), 0.0);
        // What lagged from the second before comes on top.
        assert_eq!(loss((75, 178), (100, 200), 1), 0.0);
    }

    #[test]
    fn when_nothing_more_arrives_all_is_lost() {
        assert_eq!(loss((75, 75), (100, 100), 1), 1.0);
    }

    #[test]
    fn of_nobody_and_of_those_never_heard_no_loss_is_known() {
        assert!(loss((0, 0), (0, 0), 5).is_nan());
        assert!(loss((75, 75), (100, 100), 0).is_nan());
    }
}
