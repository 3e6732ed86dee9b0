//! What a demo prints while it runs: how it began, and a line a second under a header.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use twinspan_game::ServerHandle;

use crate::http::MetricsFrame;

/// Lines after which a terminal is told again what the columns are.
const HEADER_INTERVAL: u32 = 20;

/// The columns' names, set over [`row`].
const HEADER: [&str; 2] = [
    "  time  players     tick time us    packets a second    up, one-way ms  down, one-way ms       lost %",
    "                    p50      p99        in       out      p50      p99      p50      p99    up   down",
];

/// Where the lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Standard output, whose loss ends the demo.
    Output,
    /// Standard error, while standard output is for the summary alone.
    Error,
}

/// The demo's lines for people.
#[derive(Debug)]
pub(super) struct Console {
    target: Target,
    on_terminal: bool,
    seconds: u32,
}

/// What there is to say of a demo that begins.
pub(super) struct Beginning<'a> {
    pub(super) server: &'a ServerHandle,
    pub(super) bots: u32,
    pub(super) conditions: &'a str,
    pub(super) http: Option<&'a str>,
    pub(super) run_time: Option<Duration>,
}

impl Console {
    /// With `json`, standard output is left to the summary.
    pub(super) fn new(json: bool) -> Self {
        let (target, on_terminal) = match json {
            true => (Target::Error, io::stderr().is_terminal()),
            false => (Target::Output, io::stdout().is_terminal()),
        };
        Self { target, on_terminal, seconds: 0 }
    }

    fn print(&self, text: &str) -> io::Result<()> {
        match self.target {
            Target::Output => io::stdout().write_all(text.as_bytes()),
            Target::Error => {
                // These lines are a courtesy: whoever wants the summary gets it without them.
                let _ = io::stderr().write_all(text.as_bytes());
                Ok(())
            }
        }
    }

    /// Says what was started.
    pub(super) fn begin(&self, beginning: &Beginning<'_>) -> io::Result<()> {
        let Beginning { server, bots, conditions, http, run_time } = beginning;
        let socket = server.socket();
        let mut text = format!(
            "world server  {} ({}, unmeasured so that runs compare, receive buffer {} KiB)\n\
             bots          {bots} in a process of their own, network {conditions}\n",
            server.address(),
            socket.path,
            socket.receive_buffer_bytes / 1_024,
        );
        if let Some(address) = http {
            text += &format!("live page     http://{address}\n");
        }
        text += &match run_time {
            None => "runs          until Ctrl-C\n".to_owned(),
            Some(time) => format!("runs          {} s, or until Ctrl-C\n", time.as_secs()),
        };
        self.print(&text)
    }

    /// Says what the last second was like.
    pub(super) fn second(&mut self, metrics: &MetricsFrame) -> io::Result<()> {
        let mut text = String::new();
        let header_again = self.on_terminal && self.seconds.is_multiple_of(HEADER_INTERVAL);
        if self.seconds == 0 || header_again {
            for line in HEADER {
                text += line;
                text.push('\n');
            }
        }
        self.seconds += 1;
        text += &row(metrics);
        text.push('\n');
        self.print(&text)
    }

    /// Says that an interrupt was heard.
    pub(super) fn interrupted(&self) -> io::Result<()> {
        if !self.on_terminal {
            return Ok(());
        }
        // The terminal has printed ^C at the beginning of the line.
        self.print("\rending in good order; Ctrl-C again ends at once\n")
    }

    /// Says that it is over although nobody asked.
    pub(super) fn abandoned(&self) -> io::Result<()> {
        self.print("the server or the bots' process ended by itself\n")
    }
}

/// One second in columns.
fn row(metrics: &MetricsFrame) -> String {
    let whole = |value: f64| known(value, format!("{value:.0}"));
    let millis = |value: f64| known(value, format!("{value:.2}"));
    let percent = |share: f64| known(share, format!("{:.1}", share * 100.0));
    format!(
        "{:>4} s {:>8} {:>7} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>5} {:>6}",
        metrics.second,
        metrics.players,
        whole(metrics.tick_p50_us),
        whole(metrics.tick_p99_us),
        whole(metrics.packets_in),
        whole(metrics.packets_out),
        millis(metrics.up_p50_ms),
        millis(metrics.up_p99_ms),
        millis(metrics.down_p50_ms),
        millis(metrics.down_p99_ms),
        percent(metrics.loss_up),
        percent(metrics.loss_down),
    )
}

/// A number as text, or a dash for what nobody has measured.
fn known(value: f64, text: String) -> String {
    if value.is_finite() { text } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> MetricsFrame {
        MetricsFrame {
            second: 86_400,
            players: 20_000,
            tick_p50_us: 99_999.0,
            tick_p99_us: 16_666.6,
            packets_in: 1_200_000.0,
            packets_out: 400_000.0,
            up_p50_ms: 250.04,
            up_p99_ms: 1_041.5,
            down_p50_ms: f64::NAN,
            down_p99_ms: f64::NAN,
            loss_up: 1.0,
            loss_down: 0.031,
            ..MetricsFrame::default()
        }
    }

    #[test]
    fn a_row_is_as_wide_as_its_header() {
        let row = row(&MetricsFrame { second: 9_999, ..metrics() });
        assert_eq!(row.len(), HEADER[1].len(), "{row}\n{}", HEADER[1]);
        assert!(HEADER.iter().all(|line| line.len() <= row.len()));
    }

    #[test]
    fn columns_never_run_into_each_other() {
        let row = row(&metrics());
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "86400", "s", "20000", "99999", "16667", "1200000", "400000", "250.04", "1041.50",
                "-", "-", "100.0", "3.1"
            ]
        );
        assert!(row.len() <= 110);
    }
}
