//! What a demo tells at its end, and which of its promises it broke.

use std::time::Duration;

use serde::Serialize;
use twinspan_core::aead::Cipher;
use twinspan_game::ServerHandle;

use crate::plan::Report;
use twinspan_bench::process;
use twinspan_bench::stolen::StolenLog;

/// Share of late ticks, beyond those hit by stolen time, above which a demo warns.
pub const LATE_TICKS_RATIO_MAX: f64 = 0.01;

/// Bytes in a MiB.
const MEBIBYTE: f64 = 1_048_576.0;

/// What a summary is made from.
pub(super) struct Facts<'a> {
    pub(super) bots: u32,
    pub(super) http: Option<String>,
    pub(super) seconds: Duration,
    pub(super) player_seconds: f64,
    pub(super) cpu: Duration,
    pub(super) server: &'a ServerHandle,
    pub(super) report: Report,
    pub(super) stolen: &'a StolenLog,
    pub(super) socket_failed: bool,
}

/// The summary of a demo, as `--json` prints it.
///
/// Latencies count one way, from the slot that a send was scheduled for to the application that
/// received it, on an open-loop schedule; ages of states from the tick that made them.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Bots asked for.
    pub players_requested: u32,
    /// Bots that came to stand in the world.
    pub players_connected: u32,
    /// From the start of the first bot until the last of them stood there, in milliseconds.
    pub connect_ms_max: f64,
    /// Whether packets were encrypted.
    pub encrypted: bool,
    /// The cipher that client and server agreed on.
    pub cipher: &'static str,
    /// How long the server ran, its drain included: what all totals count over.
    pub seconds: f64,
    /// Simulation ticks run.
    pub ticks: u64,
    /// Ticks that ended after the next one should have begun.
    pub late_ticks: u64,
    /// Ticks left out after a stall; late as well.
    pub skipped_ticks: u64,
    /// Late ticks in whose time the host had taken the processor away.
    pub late_ticks_stolen: u64,
    /// Median time of a tick, in microseconds.
    pub tick_p50_us: f64,
    /// 99th percentile of it.
    pub tick_p99_us: f64,
    /// Datagrams that the server received.
    pub packets_in: u64,
    /// Datagrams that it sent.
    pub packets_out: u64,
    /// Their payload bytes at the socket.
    pub bytes_in: u64,
    /// Payload bytes sent.
    pub bytes_out: u64,
    /// One-way latency of inputs.
    pub up_p50_ms: f64,
    /// 99th percentile of it.
    pub up_p99_ms: f64,
    /// 99.9th percentile of it.
    pub up_p999_ms: f64,
    /// One-way latency of states.
    pub down_p50_ms: f64,
    /// 99th percentile of it.
    pub down_p99_ms: f64,
    /// 99.9th percentile of it.
    pub down_p999_ms: f64,
    /// Reliable messages sent, both ways together.
    pub reliable_sent: u64,
    /// Reliable messages delivered to the application, both ways together.
    pub reliable_delivered: u64,
    /// States applied by the bots per state scheduled by the server.
    pub state_delivered_ratio: f64,
    /// Entities that the mean bot sees, itself left out.
    pub visible_entities_mean: f64,
    /// Median age of a state when it was applied.
    pub state_age_p50_ms: f64,
    /// 99th percentile of it.
    pub state_age_p99_ms: f64,
    /// Processor time that the host took away, on all processors together.
    pub stolen_ms: u64,
    /// Processor time of the whole server process per player and second, in microseconds.
    pub server_cpu_us_per_client_second: f64,
    /// Most memory that the server process had resident, in MiB.
    pub server_rss_mb: f64,
    /// Where the page was served.
    pub http: Option<String>,
    #[serde(skip)]
    broken: Vec<String>,
}

impl Summary {
    pub(super) fn new(facts: &Facts<'_>) -> Self {
        let Facts { report, server, stolen, .. } = facts;
        let traffic = server.traffic();
        let mut summary = server.with_stats(|last| {
            let up = last.players.up.percentiles();
            let late_at = last.stats.late_at.iter();
            Self {
                players_requested: facts.bots,
                players_connected: report.connected,
                connect_ms_max: rounded(report.connect_ms_max),
                encrypted: last.cipher.is_some_and(Cipher::encrypts),
                cipher: last.cipher.map_or("none", |cipher| cipher.name()),
                seconds: rounded(facts.seconds.as_secs_f64()),
                ticks: last.stats.ticks,
                late_ticks: last.stats.late_ticks,
                skipped_ticks: last.stats.skipped_ticks,
                late_ticks_stolen: late_at.filter(|at| stolen.covers(**at)).count() as u64,
                tick_p50_us: rounded(last.stats.tick_time.micros_at(0.5)),
                tick_p99_us: rounded(last.stats.tick_time.micros_at(0.99)),
                packets_in: traffic.packets_in,
                packets_out: traffic.packets_out,
                bytes_in: traffic.bytes_in,
                bytes_out: traffic.bytes_out,
                up_p50_ms: rounded(up.p50_ms),
                up_p99_ms: rounded(up.p99_ms),
                up_p999_ms: rounded(up.p999_ms),
                down_p50_ms: rounded(report.down.p50_ms),
                down_p99_ms: rounded(report.down.p99_ms),
                down_p999_ms: rounded(report.down.p999_ms),
                reliable_sent: last.players.reliable_sent + report.reliable_sent,
                reliable_delivered: last.players.reliable_received + report.reliable_received,
                state_delivered_ratio: ratio(report.states_applied, last.stats.states_scheduled),
                visible_entities_mean: rounded(report.visible_mean),
                state_age_p50_ms: rounded(report.state_age.p50_ms),
                state_age_p99_ms: rounded(report.state_age.p99_ms),
                stolen_ms: stolen.total_ms(),
                server_cpu_us_per_client_second: rounded(
                    facts.cpu.as_secs_f64() * 1e6 / facts.player_seconds.max(1.0),
                ),
                server_rss_mb: rounded(
                    process::resident_bytes_max().unwrap_or(0) as f64 / MEBIBYTE,
                ),
                http: facts.http.clone(),
                broken: Vec::new(),
            }
        });
        summary.broken = summary.look_for_broken(facts);
        summary
    }

    fn look_for_broken(&self, facts: &Facts<'_>) -> Vec<String> {
        let report = &facts.report;
        let mut broken = Vec::new();
        if self.players_connected < self.players_requested {
            let missing = self.players_requested - self.players_connected;
            broken.push(format!("{missing} of {} bots did not connect", self.players_requested));
        }
        if self.reliable_delivered != self.reliable_sent {
            let (sent, delivered) = (self.reliable_sent, self.reliable_delivered);
            broken.push(format!("{delivered} reliable messages delivered of {sent} sent"));
        }
        let out_of_order = report.out_of_order
            + facts.server.with_stats(|stats| stats.players.actions_out_of_order);
        if out_of_order > 0 {
            broken.push(format!("{out_of_order} reliable messages out of order or twice"));
        }
        if report.ended_badly > 0 {
            broken.push(format!("{} sessions ended before the drain", report.ended_badly));
        }
        if !report.last {
            broken.push("the bots' process ended without its last report".into());
        }
        if report.malformed > 0 {
            broken.push(format!("{} messages could not be decoded", report.malformed));
        }
        if facts.socket_failed {
            broken.push("the server's socket failed".into());
        }
        let invariants = facts.server.with_stats(|stats| stats.stats.invariants_broken);
        if invariants > 0 {
            broken.push(format!("{invariants} checks of the world failed"));
        }
        broken
    }

    /// What was promised and not kept, a line each.
    pub fn broken_promises(&self) -> &[String] {
        &self.broken
    }

    /// What to say of late ticks when there were too many beyond stolen time.
    pub fn late_ticks_warning(&self) -> Option<String> {
        let own = self.late_ticks.saturating_sub(self.late_ticks_stolen);
        let due = self.ticks + self.skipped_ticks;
        let share = ratio(own, due);
        (share > LATE_TICKS_RATIO_MAX)
            .then(|| format!("{own} of {due} ticks were late ({:.1} %)", share * 100.0))
    }

    /// The exit status: 1 when a promise was broken or, if that is asked for, when too many ticks
    /// were late.
    pub fn status(&self, strict: bool) -> u8 {
        u8::from(!self.broken.is_empty() || (strict && self.late_ticks_warning().is_some()))
    }

    pub(crate) fn text(&self) -> String {
        let lines = [
            ("players", self.players_text()),
            ("ticks", self.ticks_text()),
            ("up", self.up_text()),
            ("down", self.down_text()),
            ("state age", self.state_text()),
            ("reliable", self.reliable_text()),
            ("datagrams", self.datagrams_text()),
            ("server", self.server_text()),
            ("promises", self.promises_text()),
        ];
        let mut text = String::from("\n");
        for (name, line) in lines {
            text += &format!("{name:<10} {line}\n");
        }
        text
    }

    fn players_text(&self) -> String {
        let Self { players_connected, players_requested, connect_ms_max, .. } = self;
        let sealed = match self.encrypted {
            true => format!("sealed with {}", self.cipher),
            false => format!("not encrypted ({})", self.cipher),
        };
        format!(
            "{players_connected} of {players_requested} connected, the last after \
             {connect_ms_max:.0} ms; {sealed}; ran {:.1} s",
            self.seconds,
        )
    }

    fn ticks_text(&self) -> String {
        let late = match (self.late_ticks, self.late_ticks_stolen) {
            (0, _) => "none late".to_owned(),
            (late, 0) => format!("{late} late"),
            (late, stolen) => format!("{late} late, {stolen} of them while the host stole time"),
        };
        let Self { ticks, tick_p50_us, tick_p99_us, .. } = self;
        format!("{ticks}, {late}; p50 {tick_p50_us:.0} us, p99 {tick_p99_us:.0} us")
    }

    fn up_text(&self) -> String {
        percentiles(self.up_p50_ms, self.up_p99_ms, self.up_p999_ms) + ", one way to the server"
    }

    fn down_text(&self) -> String {
        percentiles(self.down_p50_ms, self.down_p99_ms, self.down_p999_ms)
            + ", one way to the players"
    }

    fn state_text(&self) -> String {
        format!(
            "p50 {:.2} ms, p99 {:.2} ms; {:.3} % delivered; {:.1} entities in sight",
            self.state_age_p50_ms,
            self.state_age_p99_ms,
            self.state_delivered_ratio * 100.0,
            self.visible_entities_mean,
        )
    }

    fn reliable_text(&self) -> String {
        format!("{} messages sent, {} delivered", self.reliable_sent, self.reliable_delivered)
    }

    fn datagrams_text(&self) -> String {
        format!(
            "{} in ({:.1} MiB), {} out ({:.1} MiB)",
            self.packets_in,
            self.bytes_in as f64 / MEBIBYTE,
            self.packets_out,
            self.bytes_out as f64 / MEBIBYTE,
        )
    }

    fn server_text(&self) -> String {
        format!(
            "{:.0} us of CPU per player and second, {:.1} MiB of memory at most; \
             {} ms stolen by the host",
            self.server_cpu_us_per_client_second, self.server_rss_mb, self.stolen_ms,
        )
    }

    fn promises_text(&self) -> String {
        match self.broken.len() {
            0 => "all kept".to_owned(),
            count => format!("{count} broken"),
        }
    }
}

fn percentiles(p50_ms: f64, p99_ms: f64, p999_ms: f64) -> String {
    format!("p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, p99.9 {p999_ms:.2} ms")
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// `value` to three decimals: beyond them a measurement of milliseconds says nothing.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            players_requested: 200,
            players_connected: 200,
            connect_ms_max: 305.291,
            encrypted: true,
            cipher: "AES-128-GCM",
            seconds: 20.6,
            ticks: 1_200,
            late_ticks: 0,
            skipped_ticks: 0,
            late_ticks_stolen: 0,
            tick_p50_us: 107.1,
            tick_p99_us: 199.4,
            packets_in: 96_485,
            packets_out: 35_420,
            bytes_in: 7_759_462,
            bytes_out: 22_334_668,
            up_p50_ms: 0.04,
            up_p99_ms: 0.15,
            up_p999_ms: 1.5,
            down_p50_ms: 0.08,
            down_p99_ms: 0.21,
            down_p999_ms: 1.48,
            reliable_sent: 3_748,
            reliable_delivered: 3_748,
            state_delivered_ratio: 0.999_88,
            visible_entities_mean: 30.5,
            state_age_p50_ms: 7.37,
            state_age_p99_ms: 15.71,
            stolen_ms: 10,
            server_cpu_us_per_client_second: 884.2,
            server_rss_mb: 9.04,
            http: None,
            broken: Vec::new(),
        }
    }

    #[test]
    fn late_ticks_of_our_own_beyond_one_per_cent_are_a_warning() {
        let late = |late_ticks, late_ticks_stolen| {
            Summary { late_ticks, late_ticks_stolen, ..summary() }.late_ticks_warning()
        };
        assert_eq!(late(12, 0), None);
        assert_eq!(late(13, 0).unwrap(), "13 of 1200 ticks were late (1.1 %)");
        assert_eq!(late(600, 588), None);
        assert_eq!(late(600, 580).unwrap(), "20 of 1200 ticks were late (1.7 %)");
        // After a stall most of the late ticks were not run at all.
        let stalled = Summary { late_ticks: 475, skipped_ticks: 470, ticks: 313, ..summary() };
        let text = "475 of 783 ticks were late (60.7 %)";
        assert_eq!(stalled.late_ticks_warning().unwrap(), text);
    }

    #[test]
    fn late_ticks_fail_a_strict_run_alone_and_broken_promises_every_run() {
        let late = Summary { late_ticks: 600, ..summary() };
        assert_eq!((late.status(false), late.status(true)), (0, 1));
        let broken = Summary { broken: vec!["one".into()], ..summary() };
        assert_eq!((broken.status(false), broken.status(true)), (1, 1));
        assert_eq!((summary().status(false), summary().status(true)), (0, 0));
    }

    #[test]
    fn the_summary_for_people_fits_a_terminal_and_names_units() {
        let text = summary().text();
        assert!(text.lines().all(|line| line.len() <= 110), "{text}");
        for line in [
            "players    200 of 200 connected, the last after 305 ms; sealed with AES-128-GCM; \
             ran 20.6 s",
            "ticks      1200, none late; p50 107 us, p99 199 us",
            "up         p50 0.04 ms, p99 0.15 ms, p99.9 1.50 ms, one way to the server",
            "reliable   3748 messages sent, 3748 delivered",
            "datagrams  96485 in (7.4 MiB), 35420 out (21.3 MiB)",
            "promises   all kept",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is not in {text}");
        }
    }

    #[test]
    fn broken_promises_are_counted_in_the_text_and_not_part_of_the_object() {
        let summary = Summary { broken: vec!["one".into(), "two".into()], ..summary() };
        assert!(summary.text().ends_with("promises   2 broken\n"));
        assert!(serde_json::to_value(&summary).unwrap().get("broken").is_none());
    }

    #[test]
    fn an_unencrypted_run_says_so() {
        let text = Summary { encrypted: false, cipher: "none", ..summary() }.text();
        assert!(text.contains("not encrypted (none)"), "{text}");
    }
}
