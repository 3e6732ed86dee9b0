//! What one end counts within the measured seconds, and the line that it prints at the end.

use std::io::BufRead;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::json;

use crate::{Plan, clock, process};

/// Messages and their latency within a window of time.
pub struct Window {
    begin: u64,
    end: u64,
    sent: u64,
    messages: u64,
    latency: Histogram<u64>,
    cpu_began: Option<u64>,
    cpu_ended: Option<u64>,
    resident_before: u64,
}

impl Window {
    /// Waits for the moment at which the measured seconds begin, said by the parent.
    pub fn ask(plan: &Plan, resident_before: u64) -> Result<Self> {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        Self::new(plan, line.trim().parse().context("no moment to begin at")?, resident_before)
    }

    /// A window from `begin` on.
    pub fn new(plan: &Plan, begin: u64, resident_before: u64) -> Result<Self> {
        Ok(Self {
            begin,
            end: begin + plan.seconds * 1_000_000_000,
            sent: 0,
            messages: 0,
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            cpu_began: None,
            cpu_ended: None,
            resident_before,
        })
    }

    /// Whether everything was counted, half a second for what was on its way included.
    pub fn is_over(&mut self, now: u64) -> bool {
        if now >= self.begin && self.cpu_began.is_none() {
            self.cpu_began = Some(clock::cpu_us());
        }
        if now >= self.end && self.cpu_ended.is_none() {
            self.cpu_ended = Some(clock::cpu_us());
        }
        now >= self.end + 500_000_000
    }

    /// Counts a message that was scheduled for `slot` as sent.
    pub fn on_sent(&mut self, slot: u64) {
        self.sent += u64::from((self.begin..self.end).contains(&slot));
    }

    /// Counts a message that arrived: its first eight bytes say for when it was scheduled.
    pub fn on_message(&mut self, now: u64, bytes: &[u8]) {
        let Some(slot) = bytes.first_chunk().map(|slot| u64::from_le_bytes(*slot)) else { return };
        if (self.begin..self.end).contains(&slot) {
            self.messages += 1;
            self.latency.saturating_record(now.saturating_sub(slot));
        }
    }

    /// Prints what was counted.
    pub fn report(&self) {
        let ms = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e6;
        let cpu = self.cpu_ended.unwrap_or(0).saturating_sub(self.cpu_began.unwrap_or(0));
        let resident = process::resident_bytes().saturating_sub(self.resident_before);
        println!(
            "{}",
            json!({
                "sent": self.sent, "messages": self.messages, "p50_ms": ms(0.5), "p99_ms": ms(0.99),
                "cpu_us": cpu, "resident_bytes": resident,
            })
        );
    }
}

/// A message of `bytes` that says for when it was scheduled.
pub fn stamp(bytes: &mut [u8], slot: u64) {
    if let Some(front) = bytes.first_chunk_mut() {
        *front = slot.to_le_bytes();
    }
}
