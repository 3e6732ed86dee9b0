//! A server's figures in Prometheus' text format.

use std::fmt::{Display, Write};
use std::time::Duration;

use twinspan_game::{Latency, StatsSnapshot, Traffic};

/// Upper bounds of the buckets of durations, in microseconds.
const BOUNDS_US: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 16_667, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// What the process itself has to tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProcessFigures {
    /// Memory resident now, in bytes; `None` where the kernel does not say.
    pub(super) resident_bytes: Option<u64>,
    /// Processor time used.
    pub(super) cpu: Duration,
    /// Whether a drain has begun.
    pub(super) draining: bool,
    /// Files of rules or keys that were refused when they were to be read again.
    pub(super) reloads_failed: u64,
    /// Times that bans could not be written to their file.
    pub(super) bans_unwritten: u64,
}

/// How a socket moves datagrams, as it was when it was bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketFacts {
    /// Who comes to it.
    pub(super) use_of: &'static str,
    /// Its way of moving datagrams.
    pub(super) path: &'static str,
    /// Why it is that one.
    pub(super) why: &'static str,
}

/// Everything as one text.
pub(super) fn render(
    stats: &StatsSnapshot,
    traffic: Traffic,
    process: ProcessFigures,
    sockets: &[SocketFacts],
) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    sessions(&mut page, stats);
    network(&mut page, stats, traffic);
    io_paths(&mut page, sockets);
    relay(&mut page, stats);
    links(&mut page, stats);
    admission(&mut page, stats, process.reloads_failed);
    let help = "Times that bans could not be written to their file";
    page.counter("twinspan_bans_unwritten_total", help, process.bans_unwritten);
    world(&mut page, stats);
    players(&mut page, stats);
    page.gauge("twinspan_draining", "1 while a drain goes on", u64::from(process.draining));
    if let Some(bytes) = process.resident_bytes {
        page.gauge("process_resident_memory_bytes", "Resident memory", bytes);
    }
    let cpu = process.cpu.as_secs_f64();
    page.counter("process_cpu_seconds_total", "Processor time of all threads", cpu);
    page.0
}

fn sessions(page: &mut Page, stats: &StatsSnapshot) {
    let endpoint = &stats.endpoint;
    page.gauge("twinspan_sessions", "Players in the world", stats.session_count);
    page.counter("twinspan_sessions_established_total", "Sessions set up", endpoint.established);
    page.head("twinspan_sessions_closed_total", "counter", "Sessions ended, by reason");
    for (reason, count) in endpoint.closings.iter() {
        page.row("twinspan_sessions_closed_total", &[("reason", &reason.to_string())], count);
    }
    page.head("twinspan_handshakes_total", "counter", "HELLOs that were answered, by answer");
    for (answer, count) in [
        ("retry", endpoint.cookie_missing),
        ("accept", endpoint.accepted),
        ("accept_again", endpoint.accepted_again),
        ("refused_full", endpoint.full),
        ("refused_token_expired", endpoint.token_expired),
        ("refused_token_spent", endpoint.token_spent),
        ("refused_token_invalid", endpoint.token_bad),
        ("refused_version", endpoint.version_unknown),
        ("refused_cipher", endpoint.suite_unknown),
        ("refused_draining", endpoint.draining),
        ("refused_banned", endpoint.banned),
    ] {
        page.row("twinspan_handshakes_total", &[("answer", answer)], count);
    }
    let lost = "Handshakes that were never confirmed";
    page.counter("twinspan_handshakes_lost_total", lost, endpoint.handshakes_lost);
}

fn network(page: &mut Page, stats: &StatsSnapshot, traffic: Traffic) {
    let (received, sent) = (traffic.packets_in, traffic.packets_out);
    page.counter("twinspan_datagrams_received_total", "Datagrams received", received);
    page.counter("twinspan_datagrams_sent_total", "Datagrams sent", sent);
    let (received, sent) = (traffic.bytes_in, traffic.bytes_out);
    page.counter("twinspan_received_bytes_total", "Payload bytes received", received);
    page.counter("twinspan_sent_bytes_total", "Payload bytes sent", sent);
    page.head("twinspan_datagrams_dropped_total", "counter", "Datagrams dropped, by cause");
    for (cause, count) in stats.endpoint.drops.by_name() {
        page.row("twinspan_datagrams_dropped_total", &[("cause", cause)], count);
    }
}

fn io_paths(page: &mut Page, sockets: &[SocketFacts]) {
    let name = "twinspan_socket_info";
    page.head(name, "gauge", "How each socket moves datagrams, and why; always 1");
    for (number, SocketFacts { use_of, path, why }) in sockets.iter().enumerate() {
        let number = number.to_string();
        let labels =
            [("socket", number.as_str()), ("for", use_of), ("path", path), ("reason", why)];
        page.row(name, &labels, 1);
    }
}

/// What the port towards relays counted; nothing where there is none.
fn relay(page: &mut Page, stats: &StatsSnapshot) {
    let Some(port) = &stats.relay else { return };
    page.head("twinspan_relayed_datagrams_total", "counter", "Datagrams through relays");
    for (direction, count) in [("in", port.relayed_in), ("out", port.relayed_out)] {
        page.row("twinspan_relayed_datagrams_total", &[("direction", direction)], count);
    }
    let name = "twinspan_relay_datagrams_dropped_total";
    page.head(name, "counter", "Datagrams that the port towards relays dropped, by cause");
    for (cause, count) in [
        ("bad_tag", port.bad_tag),
        ("bad_frame", port.bad_frame),
        ("unsendable", port.unsendable),
        ("forged", port.sides.forged),
        ("stranger", port.sides.strangers),
        ("unreachable", port.sides.unreachable),
    ] {
        page.row(name, &[("cause", cause)], count);
    }
}

/// What went between the cores of the server.
fn links(page: &mut Page, stats: &StatsSnapshot) {
    let links = &stats.links;
    for (name, help, count) in [
        ("twinspan_links_strays_total", "Datagrams handed on to their core", links.strays),
        (
            "twinspan_links_strays_dropped_total",
            "Datagrams for another core that found its lane full",
            links.strays_dropped,
        ),
        (
            "twinspan_links_inputs_dropped_total",
            "Inputs dropped because the world's core was behind",
            links.inputs_dropped,
        ),
        ("twinspan_links_held_total", "Messages between cores that had to wait", links.held),
        (
            "twinspan_links_words_dropped_total",
            "Messages to a core that was too far behind",
            links.words_dropped,
        ),
        (
            "twinspan_links_bans_dropped_total",
            "Bans that did not reach a core that was too far behind",
            links.bans_dropped,
        ),
        (
            "twinspan_links_sessions_given_up_total",
            "Sessions closed because their core was too far behind",
            links.sessions_given_up,
        ),
        (
            "twinspan_links_images_missed_total",
            "Ticks that a core did not read because it was late",
            links.images_missed,
        ),
        (
            "twinspan_links_images_refused_total",
            "Ticks that were not published because all images were being read",
            links.images_refused,
        ),
    ] {
        page.counter(name, help, count);
    }
}

fn admission(page: &mut Page, stats: &StatsSnapshot, reloads_failed: u64) {
    let filter = &stats.admission;
    for (name, help) in [
        ("twinspan_rule_hits_total", "What admission rules met"),
        ("twinspan_rule_actions_total", "How often they acted: dry runs are left out"),
    ] {
        page.head(name, "counter", help);
        for row in &filter.rules {
            let value = if name == "twinspan_rule_hits_total" { row.hits } else { row.acted };
            page.row(name, &[("rule", &row.rule), ("action", row.action.name())], value);
        }
    }
    page.gauge("twinspan_bans", "Bans that are remembered", filter.bans);
    let evicted = filter.networks_evicted;
    let help = "Networks that gave way in a full table";
    page.counter("twinspan_networks_evicted_total", help, evicted);
    let help = "How often rules were replaced";
    page.counter("twinspan_rules_replaced_total", help, filter.replacements);
    let help = "How often a file of rules or keys was refused when read again";
    page.counter("twinspan_reloads_refused_total", help, reloads_failed);
}

fn world(page: &mut Page, stats: &StatsSnapshot) {
    let server = &stats.stats;
    page.counter("twinspan_ticks_total", "Ticks run", server.ticks);
    page.counter("twinspan_ticks_late_total", "Ticks that ended too late", server.late_ticks);
    page.counter("twinspan_ticks_skipped_total", "Ticks left out", server.skipped_ticks);
    page.histogram("twinspan_tick_seconds", "How long ticks took", &server.tick_time);
    let help = "State messages that were due";
    page.counter("twinspan_states_scheduled_total", help, server.states_scheduled);
    let help = "State messages that were not sent";
    page.counter("twinspan_states_unsent_total", help, server.states_unsent);
    let help =
        "Ticks from one state of a client to its next, of the core that makes them least often";
    page.gauge("twinspan_state_period_ticks", help, stats.ticks_per_state);
    let help = "Sampled checks of the world that failed";
    page.counter("twinspan_invariants_broken_total", help, server.invariants_broken);
}

fn players(page: &mut Page, stats: &StatsSnapshot) {
    let players = &stats.players;
    page.counter("twinspan_players_joined_total", "Players that entered", players.joined);
    page.counter("twinspan_players_left_total", "Players that left", players.left);
    page.counter("twinspan_inputs_total", "Input messages taken", players.inputs);
    let help = "Input messages that should have come";
    page.counter("twinspan_inputs_expected_total", help, players.inputs_expected);
    let help = "One-way latency of inputs";
    page.histogram("twinspan_input_latency_seconds", help, &players.up);
    let name = "twinspan_messages_malformed_total";
    page.head(name, "counter", "Messages that could not be decoded, by cause");
    for (cause, count) in players.malformed_by.by_name() {
        page.row(name, &[("cause", cause)], count);
    }
    page.head("twinspan_messages_flooding_total", "counter", "Messages over their rate");
    for (kind, count) in [("input", players.inputs_flooding), ("action", players.actions_flooding)]
    {
        page.row("twinspan_messages_flooding_total", &[("kind", kind)], count);
    }
    page.head("twinspan_actions_total", "counter", "Actions of players, by what became of them");
    for (outcome, count) in
        [("applied", players.actions_applied), ("refused", players.actions_refused)]
    {
        page.row("twinspan_actions_total", &[("outcome", outcome)], count);
    }
    let help = "Claims of position that were corrected";
    page.counter("twinspan_positions_corrected_total", help, players.corrected);
    page.head("twinspan_reliable_messages_total", "counter", "Reliable messages");
    for (direction, count) in [("in", players.reliable_received), ("out", players.reliable_sent)] {
        page.row("twinspan_reliable_messages_total", &[("direction", direction)], count);
    }
    let help = "Reliable messages not yet acknowledged";
    page.gauge("twinspan_reliable_unacknowledged", help, stats.unacknowledged);
}

/// A text that grows line by line. Writing into a text cannot fail.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    /// One sample; labels are escaped.
    fn row(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        let mut before = '{';
        for (label, text) in labels {
            self.0.push(before);
            let _ = write!(self.0, "{label}=\"");
            for letter in text.chars() {
                match letter {
                    '"' => self.0.push_str("\\\""),
                    '\\' => self.0.push_str("\\\\"),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.row(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.row(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, latency: &Latency) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for bound in BOUNDS_US {
            let seconds = (bound as f64 / 1e6).to_string();
            let count = latency.count_up_to(Duration::from_micros(bound));
            self.row(&bucket, &[("le", &seconds)], count);
        }
        self.row(&bucket, &[("le", "+Inf")], latency.count());
        self.row(&format!("{name}_sum"), &[], latency.sum().as_secs_f64());
        self.row(&format!("{name}_count"), &[], latency.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_parse::{Scrape, Value};
    use std::collections::BTreeSet;

    fn scrape(text: &str) -> Scrape {
        Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
    }

    #[test]
    fn a_parser_of_others_reads_every_line() {
        let mut stats = StatsSnapshot::default();
        stats.endpoint.drops.cookie_bad = 3;
        stats.players.malformed_by.kind = 4;
        for ms in [1, 2, 30] {
            stats.stats.tick_time.record(Duration::from_millis(ms));
        }
        stats.relay = Some(Default::default());
        if let Some(relay) = &mut stats.relay {
            (relay.bad_tag, relay.sides.strangers) = (5, 6);
        }
        let traffic = Traffic { packets_in: 7, ..Traffic::default() };
        let cpu = Duration::from_millis(1_500);
        let process = ProcessFigures { resident_bytes: Some(9), cpu, ..Default::default() };
        let facts = SocketFacts { use_of: "clients", path: "recvmmsg/sendmmsg", why: "asked for" };
        let text = render(&stats, traffic, process, &[facts]);
        let scrape = scrape(&text);
        let value = |name: &str, label: Option<(&str, &str)>| {
            let found = scrape.samples.iter().find(|sample| {
                let has = |(key, text): (&str, &str)| sample.labels.get(key) == Some(text);
                sample.metric == name && label.is_none_or(has)
            });
            match found.map(|sample| &sample.value) {
                Some(Value::Counter(value) | Value::Gauge(value)) => *value,
                other => panic!("{name}: {other:?}"),
            }
        };
        assert_eq!(value("twinspan_datagrams_received_total", None), 7.0);
        let info = Some(("path", "recvmmsg/sendmmsg"));
        assert_eq!(value("twinspan_socket_info", info), 1.0);
        assert_eq!(value("process_cpu_seconds_total", None), 1.5);
        assert_eq!(value("process_resident_memory_bytes", None), 9.0);
        let dropped = "twinspan_datagrams_dropped_total";
        assert_eq!(value(dropped, Some(("cause", "cookie_bad"))), 3.0);
        assert_eq!(value("twinspan_messages_malformed_total", Some(("cause", "kind"))), 4.0);
        let dropped = "twinspan_relay_datagrams_dropped_total";
        assert_eq!(value(dropped, Some(("cause", "bad_tag"))), 5.0);
        assert_eq!(value(dropped, Some(("cause", "stranger"))), 6.0);
        let tick = scrape.samples.iter().find(|sample| sample.metric == "twinspan_tick_seconds");
        let Some(Value::Histogram(buckets)) = tick.map(|sample| &sample.value) else {
            panic!("no histogram in {text}")
        };
        let counts: Vec<_> = buckets.iter().map(|bucket| bucket.count).collect();
        assert!(counts.is_sorted() && counts.last() == Some(&3.0), "{counts:?}");
        assert_eq!(buckets.len(), BOUNDS_US.len() + 1);
        // Every family has one head, and its rows follow it.
        let heads = text.lines().filter(|line| line.starts_with("# TYPE"));
        let names: Vec<_> = heads.map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn labels_are_escaped() {
        let mut page = Page(String::new());
        page.row("a", &[("b", "q\"\\\n"), ("c", "d")], 1);
        assert_eq!(page.0, "a{b=\"q\\\"\\\\\\n\",c=\"d\"} 1\n");
    }
}
