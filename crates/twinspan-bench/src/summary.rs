//! What a measurement tells at its end.

use std::fmt::Write as _;

use serde::Serialize;

use crate::assembly::AssemblyReport;
use crate::plan::{FloorReport, Quantiles};
use crate::world::{Floor, Options, Part, Scenario, World};

/// Inputs of one player in a second.
const INPUT_HZ: f64 = 60.0;
/// States of one player in a second, of a server that makes them as often as it should.
pub(crate) const STATE_HZ: f64 = 20.0;
/// Ticks from one state of a player to its next, of such a server.
const TICKS_PER_STATE: f64 = 3.0;
/// A floor does what any server has to do. Behind relays that depends on how they pad and sort: a bare
/// server would need their trailers, tags and runs, and be as good as the relay that it is measured by.
const NO_FLOOR_BEHIND_RELAYS: &str = "what a bare server costs behind relays depends on theirs; relay_ratio_to_bare_forwarder compares \
     the relay with a bare forwarder";
/// Bytes in a MiB.
const MEBIBYTE: f64 = 1_048_576.0;
/// Bytes of a visible entity as floats: three of position, of velocity, of rotation, of the rest.
const F32_ENTITY_BYTES: f64 = 48.0;
/// A floor that costs more than this times the sum of its parts is itself defective.
const FLOOR_TO_PARTS_MAX: f64 = 1.25;
/// Longest 99th percentile of a load that counts as held, in milliseconds.
const HELD_P99_MS: f64 = 50.0;
/// Share of what was sent that must arrive for a load to count as held.
const HELD_SHARE: f64 = 0.99;

/// What a summary is made from.
pub(crate) struct Facts<'a> {
    pub(crate) options: &'a Options,
    pub(crate) cores: usize,
    pub(crate) world: &'a World,
    pub(crate) floor: Option<&'a Floor>,
    pub(crate) idle_bytes: Option<f64>,
    pub(crate) assembly: Option<AssemblyReport>,
    pub(crate) relay_ratio: Option<f64>,
}

/// The summary of a measurement, as `--json` prints it.
///
/// Latencies count one way, from the slot that a send was scheduled for to the application that
/// received it, on an open-loop schedule; ages of states from the tick that made them. All counts
/// are of the window, but for reliable messages, which count from the first login to the end.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Players asked for.
    pub players_requested: u32,
    /// Players that came in.
    pub players_connected: u32,
    /// From the first HELLO until the last player was in, in milliseconds.
    pub connect_ms_max: f64,
    /// Whether packets were encrypted.
    pub encrypted: bool,
    /// The cipher of the sessions.
    pub cipher: String,
    /// Length of the window.
    pub seconds: f64,
    /// Simulation ticks run.
    pub ticks: u64,
    /// Ticks that ended after the next one should have begun.
    pub late_ticks: u64,
    /// Ticks left out after a stall; late as well.
    pub skipped_ticks: u64,
    /// Late ticks in whose time the host had taken a processor away.
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
    /// One-way latency of states, at the full clients.
    pub down_p50_ms: f64,
    /// 99th percentile of it.
    pub down_p99_ms: f64,
    /// 99.9th percentile of it.
    pub down_p999_ms: f64,
    /// Reliable messages sent, both ways together.
    pub reliable_sent: u64,
    /// Reliable messages delivered, both ways together.
    pub reliable_delivered: u64,
    /// Inputs that reached the server's application per input of the schedule.
    pub input_delivered_ratio: f64,
    /// States received per state scheduled by the server.
    pub state_delivered_ratio: f64,
    /// States, of one message or several, that reached the mean player in a second: 20 where the
    /// server made none less often.
    pub states_per_client_second: f64,
    /// How much less often than 20 times a second the server made states, on average: 1 when it was
    /// not strained.
    pub stretch_factor_mean: f64,
    /// The most of it, looked at once a second; `None` without a world.
    pub stretch_factor_max: Option<f64>,
    /// Entities that the mean player sees, itself left out.
    pub visible_entities_mean: f64,
    /// Median age of a state when it was applied.
    pub state_age_p50_ms: f64,
    /// 99th percentile of it.
    pub state_age_p99_ms: f64,
    /// Median round trip of a reliable action to its result, through the application.
    pub action_rtt_p50_ms: f64,
    /// 99th percentile of it.
    pub action_rtt_p99_ms: f64,
    /// Processor time of the server process per player and second, in microseconds.
    pub server_cpu_us_per_client_second: f64,
    /// Share of its core that the server used.
    pub server_cpu_share: f64,
    /// Most memory that the server process had resident, in MiB.
    pub server_rss_mb: f64,
    /// How much the server's resident memory grew from the end of the first minute to the end, as a
    /// share; in windows longer than that.
    pub rss_growth_after_minute_one: Option<f64>,
    /// Where a page was served: never.
    pub http: Option<String>,
    /// Processor time of the floor per player and second, in microseconds.
    pub floor_cpu_us_per_client_second: Option<f64>,
    /// The server's over the floor's.
    pub ratio_to_floor: Option<f64>,
    /// Why there is no floor, where one was asked for.
    pub floor_missing: Option<&'static str>,
    /// The sum of the floor's system calls, sleeps and AEAD, in the same unit.
    pub floor_parts_us_per_client_second: Option<f64>,
    /// What the floor is made of.
    pub floor_parts: Option<FloorParts>,
    /// Whether the floor cost over 1.25 times that sum.
    pub floor_defective: Option<bool>,
    /// Bytes of a state's plaintext, with its headers.
    pub mean_state_bytes: f64,
    /// Those per entity in sight.
    pub bytes_per_visible_entity: f64,
    /// How much less that is than 48 bytes, as a share.
    pub reduction_vs_f32: f64,
    /// Time to put one state together, what is encoded for all included, in nanoseconds; measured
    /// alone.
    pub assembly_ns_per_state: Option<f64>,
    /// Time of one simulation step with its grid, in microseconds; measured alone.
    pub step_us: Option<f64>,
    /// Bytes of an input's plaintext.
    pub input_bytes: u64,
    /// Bytes from the allocator per player: replication, session, queues and histories.
    pub memory_per_connection_bytes: f64,
    /// Bytes from the allocator per session that says nothing, without a world.
    pub memory_idle_connection_bytes: Option<f64>,
    /// Times that the server process took memory from the allocator in the window, its counters
    /// being read once a second.
    pub allocations_in_steady_state: Option<u64>,
    /// What the scenario adds.
    #[serde(flatten)]
    pub scenario: Extras,
    /// Whether there was a world, or sessions alone.
    pub world: bool,
    /// How the server's socket moves datagrams.
    pub io_path: String,
    /// Processors of the machine; with one the server and the generator share it.
    pub cores: usize,
    /// Sockets that the players share.
    pub flows: u32,
    /// Whether the players are behind relays.
    pub relay: bool,
    /// What a relay forwards over what a bare forwarder does, per processor time, in a run of its
    /// own; measured when the players are behind relays.
    pub relay_ratio_to_bare_forwarder: Option<f64>,
    /// Whether the server's socket coalesces received datagrams.
    pub gro: bool,
    /// Scheduling class of the server, and of the generator when it differs.
    pub priority: String,
    /// Share of states that the generator decrypted.
    pub opened_share: f64,
    /// Share of its core that the generator used.
    pub generator_cpu_share: f64,
    /// The same against the floor.
    pub floor_generator_cpu_share: Option<f64>,
    /// The latest that one of the generator's slots began, in milliseconds.
    pub generator_late_ms_max: f64,
    /// Processor time that the host took away in the whole run, on all processors together.
    pub steal_ms: u64,
    /// Time in which the server was ready to run and something else had its core, in milliseconds.
    pub server_waited_ms: f64,
    /// The same of the generator.
    pub generator_waited_ms: f64,
    /// The same of the floor.
    pub floor_waited_ms: Option<f64>,
    /// Datagrams that the server's sessions dropped.
    pub dropped: u64,
    /// Datagrams that belonged to no player, came twice or did not authenticate.
    pub strays: u64,
    /// States that the server did not send, being late.
    pub states_unsent: u64,
    /// Inputs that the generator handed to the kernel.
    pub inputs_sent: u64,
    /// Whether all players came in, at least 99 % of inputs and of 20 states a second each were
    /// delivered, and 99 % of each within 50 ms.
    pub held: bool,
    /// Who broke first when something was not delivered: "nobody", "server", "generator".
    pub broke_first: &'static str,
    /// What a run must not show, a line each.
    pub broken: Vec<String>,
}

/// What scenarios add to a summary.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Extras {
    /// Which scenario it was.
    pub scenario: &'static str,
    #[serde(skip)]
    visitors: u64,
    /// Visitors that logged in and left.
    pub logins: Option<u64>,
    /// Processor time of the server per login, in microseconds: what it spent beyond the window
    /// without logins.
    pub login_cpu_us: Option<f64>,
    /// 99th percentile of the time from a visitor's HELLO until it was in, in milliseconds.
    pub login_p99_ms: Option<f64>,
    /// 99th percentile of the latency of inputs in the window without, in milliseconds.
    pub up_p99_ms_before: Option<f64>,
    /// The same of states.
    pub down_p99_ms_before: Option<f64>,
    /// HELLOs of the flood, a second.
    pub hellos_per_second: Option<f64>,
    /// Share of them that the server answered.
    pub hellos_answered_ratio: Option<f64>,
    /// Bytes of the answers over the bytes of the HELLOs.
    pub reply_ratio: Option<f64>,
    /// Bytes from the allocator that were out after the flood and not before it.
    pub retained_bytes: Option<i64>,
    /// Processor time of the server per HELLO that was sent, answered or not, in microseconds.
    pub hello_cpu_us: Option<f64>,
    /// 99th percentile of the time until a reliable event was acknowledged, in round trips: of the
    /// scenario `loss` alone, whose summary is another.
    pub reliable_event_p99_rtt: Option<f64>,
}

/// Bytes of the answer to a HELLO without a cookie, session 3.4.
const RETRY_BYTES: f64 = 62.0;

impl Extras {
    fn new(options: &Options, world: &World) -> Self {
        let scenario = match options.scenario {
            Scenario::Uniform => "uniform",
            Scenario::Login => "login",
            Scenario::Flood => "flood",
        };
        let visitors = options.scenario.visitors().into();
        let mut extras = Self { scenario, visitors, ..Self::default() };
        let [before, during] = world.parts.as_slice() else { return extras };
        let spent = |part: &Part| part.server.cpu_nanos as f64 / 1e3 / part.window.seconds();
        let more_us = (spent(during) - spent(before)) * during.window.seconds();
        extras.up_p99_ms_before = Some(rounded(before.server.up.p99_ms));
        extras.down_p99_ms_before = Some(rounded(before.generator.down.p99_ms));
        let visits = during.generator.visits;
        extras.logins = Some(visits);
        extras.login_p99_ms = Some(rounded(during.generator.visit.p99_ms));
        if options.scenario == Scenario::Login {
            extras.login_cpu_us = Some(rounded(more_us / visits.max(1) as f64));
        }
        if let Some(flood) = during.flood {
            let retries = during.server.retries;
            extras.hellos_per_second = Some(rounded(flood.sent as f64 / during.window.seconds()));
            extras.hellos_answered_ratio = Some(rounded5(per(retries, flood.sent)));
            let replied = retries as f64 * RETRY_BYTES;
            let asked = (flood.sent * flood.hello_bytes).max(1) as f64;
            extras.reply_ratio = Some(rounded5(replied / asked));
            extras.hello_cpu_us = Some(rounded(more_us / flood.sent.max(1) as f64));
            let live = |part: &Part| part.server.live_bytes;
            extras.retained_bytes =
                live(during).zip(live(before)).map(|(after, before)| after - before);
        }
        extras
    }

    fn text(&self) -> Option<String> {
        let before = format!(
            "p99 before it {:.2} ms up, {:.2} ms down",
            self.up_p99_ms_before?, self.down_p99_ms_before?
        );
        if let (Some(logins), Some(cpu), Some(p99)) =
            (self.logins, self.login_cpu_us, self.login_p99_ms)
        {
            return Some(format!(
                "{logins} logins, {cpu:.1} us of CPU each, p99 {p99:.1} ms; {before}"
            ));
        }
        Some(format!(
            "{:.0} hellos a second, {:.1} % answered with {:.2} % of their bytes, {:.2} us of CPU \
             each, {} bytes retained; {} newcomers in, p99 {:.1} ms; {before}",
            self.hellos_per_second?,
            self.hellos_answered_ratio? * 100.0,
            self.reply_ratio? * 100.0,
            self.hello_cpu_us?,
            self.retained_bytes.unwrap_or(0),
            self.logins?,
            self.login_p99_ms?,
        ))
    }
}

/// What a floor spends, in nanoseconds a datagram and microseconds per player and second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FloorParts {
    /// Receive calls, per datagram.
    pub receive_ns: f64,
    /// Send calls, per datagram.
    pub send_ns: f64,
    /// Lookup, window and opening, per datagram.
    pub open_ns: f64,
    /// Sealing, per datagram.
    pub seal_ns: f64,
    /// Sleeping and waking, per player and second.
    pub sleep_us: f64,
    /// Inputs opened or states received, the worse of them, of those that the schedule sent.
    pub delivered_ratio: f64,
}

impl Summary {
    pub(crate) fn new(facts: &Facts<'_>) -> Self {
        let Facts { options, cores, world, floor, idle_bytes, .. } = facts;
        let Facts { assembly, relay_ratio, .. } = facts;
        let World { ready, end, .. } = world;
        let nothing = Part::default();
        let part = world.parts.last().unwrap_or(&nothing);
        let Part { server, generator, .. } = part;
        let players = f64::from(generator.joined.max(1));
        let seconds = part.window.seconds();
        let client_seconds = players * seconds;
        let cpu_us = server.cpu_nanos as f64 / 1e3 / client_seconds;
        let visible = per(server.visible_entities, server.states);
        let parts_per_state = per(server.states_scheduled, server.states);
        let state_bytes =
            per(generator.states_applied_bytes, generator.states_applied) * parts_per_state;
        let per_entity = if visible > 0.0 { state_bytes / visible } else { 0.0 };
        let floor_us = floor.map(|floor| floor.cpu_us(generator.joined));
        let grown = server.resident_bytes.saturating_sub(ready.resident_bytes) as f64 / players;
        let rate =
            |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let counted = server.counted.seconds();
        let stayed = part.share_of_players();
        let states_per_second = rate(server.states_scheduled, counted) * stayed;
        let states_made = rate(server.states, counted) * stayed / players;
        let states_seen = rate(generator.states, seconds) / players / parts_per_state.max(1e-9);
        let inputs_per_second = rate(server.inputs, counted);
        let mut summary = Self {
            players_requested: options.players,
            players_connected: generator.joined,
            connect_ms_max: rounded(generator.connect_ms_max),
            encrypted: server.encrypted,
            cipher: server.cipher.clone(),
            seconds: rounded(seconds),
            ticks: server.ticks,
            late_ticks: server.late_ticks,
            skipped_ticks: server.skipped_ticks,
            late_ticks_stolen: world.late_ticks_stolen,
            tick_p50_us: rounded(server.tick_p50_us),
            tick_p99_us: rounded(server.tick_p99_us),
            packets_in: server.packets_in,
            packets_out: server.packets_out,
            bytes_in: server.bytes_in,
            bytes_out: server.bytes_out,
            up_p50_ms: rounded(server.up.p50_ms),
            up_p99_ms: rounded(server.up.p99_ms),
            up_p999_ms: rounded(server.up.p999_ms),
            down_p50_ms: rounded(generator.down.p50_ms),
            down_p99_ms: rounded(generator.down.p99_ms),
            down_p999_ms: rounded(generator.down.p999_ms),
            reliable_sent: end.reliable_sent + generator.reliable_sent,
            reliable_delivered: end.reliable_received
                + generator.reliable_received
                // Visitors got their welcome.
                + world.parts.iter().map(|part| part.generator.visits).sum::<u64>(),
            input_delivered_ratio: rounded5(inputs_per_second / (players * INPUT_HZ)),
            state_delivered_ratio: rounded5(
                rate(generator.states, seconds) / states_per_second.max(players * 1e-3),
            ),
            states_per_client_second: rounded(states_seen),
            stretch_factor_mean: rounded(STATE_HZ / states_made.max(1e-3)),
            stretch_factor_max: (server.ticks_per_state_max > 0)
                .then(|| rounded(f64::from(server.ticks_per_state_max) / TICKS_PER_STATE)),
            visible_entities_mean: rounded(visible),
            state_age_p50_ms: rounded(generator.state_age.p50_ms),
            state_age_p99_ms: rounded(generator.state_age.p99_ms),
            action_rtt_p50_ms: rounded(generator.reliable_rtt.p50_ms),
            action_rtt_p99_ms: rounded(generator.reliable_rtt.p99_ms),
            server_cpu_us_per_client_second: rounded(cpu_us),
            server_cpu_share: rounded(server.cpu_nanos as f64 / 1e9 / seconds),
            server_rss_mb: rounded(server.resident_bytes_max as f64 / MEBIBYTE),
            rss_growth_after_minute_one: server
                .resident_bytes_after_minute_one
                .map(|before| rounded5(server.resident_bytes as f64 / before.max(1) as f64 - 1.0)),
            http: None,
            floor_cpu_us_per_client_second: floor_us.map(rounded),
            ratio_to_floor: floor_us.map(|floor| rounded(cpu_us / floor.max(1e-9))),
            floor_missing: (options.floor && options.relay).then_some(NO_FLOOR_BEHIND_RELAYS),
            floor_parts_us_per_client_second: floor
                .map(|floor| rounded(floor.parts_us(generator.joined))),
            floor_parts: floor.map(|floor| floor.parts(generator.joined)),
            floor_defective: floor.map(|floor| {
                floor.cpu_us(generator.joined)
                    > FLOOR_TO_PARTS_MAX * floor.parts_us(generator.joined)
            }),
            mean_state_bytes: rounded(state_bytes),
            bytes_per_visible_entity: rounded(per_entity),
            reduction_vs_f32: rounded5(1.0 - per_entity / F32_ENTITY_BYTES),
            assembly_ns_per_state: assembly.map(|seen| rounded(seen.ns_per_state)),
            step_us: assembly.map(|seen| rounded(seen.step_us)),
            input_bytes: generator.input_bytes,
            memory_per_connection_bytes: rounded(
                server.taken_bytes().map_or(grown, |bytes| bytes as f64 / players),
            ),
            memory_idle_connection_bytes: idle_bytes.map(rounded),
            allocations_in_steady_state: server.allocations,
            scenario: Extras::new(options, world),
            world: options.world,
            io_path: ready.io_path.clone(),
            cores: *cores,
            flows: options.flows,
            relay: options.relay,
            relay_ratio_to_bare_forwarder: relay_ratio.map(rounded),
            gro: ready.gro,
            priority: priority(&ready.priority, &generator.priority),
            opened_share: rounded5(per(generator.states_opened, generator.states)),
            generator_cpu_share: rounded(generator.cpu_nanos as f64 / 1e9 / seconds),
            floor_generator_cpu_share: floor.map(|floor| {
                rounded(floor.generator_cpu_nanos as f64 / 1e9 / floor.window.seconds())
            }),
            generator_late_ms_max: rounded(generator.slot_late_ms_max),
            steal_ms: world.stolen_ms,
            server_waited_ms: rounded(server.waited_nanos as f64 / 1e6),
            generator_waited_ms: rounded(generator.waited_nanos as f64 / 1e6),
            floor_waited_ms: floor.map(|floor| rounded(floor.report.waited_nanos as f64 / 1e6)),
            dropped: server.dropped,
            strays: generator.strays,
            states_unsent: server.states_unsent,
            inputs_sent: generator.inputs_sent,
            held: false,
            broke_first: "nobody",
            broken: Vec::new(),
        };
        summary.held = summary.is_held();
        summary.look_for_broken(world, part, *floor);
        summary
    }

    fn is_delivered(&self) -> bool {
        self.input_delivered_ratio >= HELD_SHARE && self.state_delivered_ratio >= HELD_SHARE
    }

    fn is_held(&self) -> bool {
        self.is_delivered()
            && self.states_per_client_second >= HELD_SHARE * STATE_HZ
            && self.players_connected == self.players_requested
            && self.up_p99_ms.max(self.down_p99_ms) < HELD_P99_MS
    }

    fn look_for_broken(&mut self, world: &World, part: &Part, floor: Option<&Floor>) {
        let (generator, server) = (&part.generator, &part.server);
        if !self.is_delivered() {
            self.broke_first = who_broke_first(part);
            self.broken.push(format!(
                "{:.2} % of inputs and {:.2} % of states were delivered",
                self.input_delivered_ratio * 100.0,
                self.state_delivered_ratio * 100.0
            ));
        }
        let p99 = self.up_p99_ms.max(self.down_p99_ms);
        if p99 >= HELD_P99_MS {
            self.broken.push(format!("p99 was {p99:.1} ms, not under {HELD_P99_MS}"));
        }
        if generator.joined < self.players_requested {
            let missing = self.players_requested - generator.joined;
            self.broke_first = who_broke_first(part);
            self.broken.push(format!("{missing} players could not log in"));
        }
        if generator.closed > 0 {
            self.broken.push(format!("{} sessions were closed by the server", generator.closed));
        }
        if self.world && self.reliable_delivered != self.reliable_sent {
            let (sent, delivered) = (self.reliable_sent, self.reliable_delivered);
            self.broken.push(format!("{delivered} reliable messages delivered of {sent} sent"));
        }
        let out_of_order = generator.out_of_order + world.end.out_of_order;
        if out_of_order > 0 {
            self.broken.push(format!("{out_of_order} reliable messages out of order or twice"));
        }
        if generator.malformed > 0 {
            self.broken.push(format!("{} messages could not be decoded", generator.malformed));
        }
        if server.invariants_broken > 0 {
            self.broken.push(format!("{} checks of the world failed", server.invariants_broken));
        }
        if let (Some(logins), wanted) = (self.scenario.logins, self.scenario.visitors)
            && logins < wanted
        {
            self.broken.push(format!("{logins} of {wanted} visitors came in"));
        }
        if generator.inputs_unsent > 0 {
            self.broken.push(format!("{} inputs found no room to leave", generator.inputs_unsent));
        }
        if self.floor_defective == Some(true) {
            self.broken.push("the floor costs more than 1.25 times the sum of its parts".into());
        }
        let floor_delivered = floor.map(|floor| floor.delivered_ratio(self.players_connected));
        if floor_delivered.is_some_and(|share| share < HELD_SHARE) {
            self.broken.push("the floor itself did not keep up".into());
        }
    }

    /// The summary as a table for people.
    pub fn text(&self) -> String {
        let mut text = String::from("\n");
        for (name, line) in self.rows() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:<11}{line}");
        }
        text
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let ms = |seen: [f64; 3]| {
            format!("p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms", seen[0], seen[1], seen[2])
        };
        let mut rows = vec![
            (
                "players",
                format!(
                    "{} of {} in after {:.0} ms; {}; {:.1} s measured",
                    self.players_connected,
                    self.players_requested,
                    self.connect_ms_max,
                    self.cipher,
                    self.seconds
                ),
            ),
            (
                "delivered",
                format!(
                    "{:.3} % of inputs, {:.3} % of states, {:.2} of them a second and player{}; {} of \
                     {} reliable messages",
                    self.input_delivered_ratio * 100.0,
                    self.state_delivered_ratio * 100.0,
                    self.states_per_client_second,
                    self.stretch_text(),
                    self.reliable_delivered,
                    self.reliable_sent
                ),
            ),
            ("up", ms([self.up_p50_ms, self.up_p99_ms, self.up_p999_ms])),
            ("down", ms([self.down_p50_ms, self.down_p99_ms, self.down_p999_ms])),
            (
                "state age",
                format!("p50 {:.2} ms, p99 {:.2} ms", self.state_age_p50_ms, self.state_age_p99_ms),
            ),
            (
                "ticks",
                format!(
                    "{}, {} late, {} of them while the host stole time; p50 {:.0} us, p99 {:.0} us",
                    self.ticks,
                    self.late_ticks,
                    self.late_ticks_stolen,
                    self.tick_p50_us,
                    self.tick_p99_us
                ),
            ),
            (
                "server",
                format!(
                    "{:.1} us of CPU per player and second ({:.1} % of a core), {:.1} MiB, {} as in \
                     every run{}",
                    self.server_cpu_us_per_client_second,
                    self.server_cpu_share * 100.0,
                    self.server_rss_mb,
                    self.io_path,
                    if self.relay { ", behind relays" } else { "" }
                ),
            ),
        ];
        if let (Some(floor), Some(ratio), Some(sum), Some(parts)) = (
            self.floor_cpu_us_per_client_second,
            self.ratio_to_floor,
            self.floor_parts_us_per_client_second,
            self.floor_parts,
        ) {
            rows.push((
                "floor",
                format!(
                    "{floor:.1} us ({sum:.1} us of calls and AEAD); the server costs {ratio:.2} of it"
                ),
            ));
            rows.push((
                "",
                format!(
                    "receive {:.0} ns, open {:.0} ns, seal {:.0} ns, send {:.0} ns a datagram, \
                     sleep {:.1} us",
                    parts.receive_ns, parts.open_ns, parts.seal_ns, parts.send_ns, parts.sleep_us
                ),
            ));
        }
        if let Some(why) = self.floor_missing {
            rows.push(("floor", format!("none: {why}")));
        }
        rows.push((
            "states",
            format!(
                "{:.1} bytes of {:.1} entities: {:.2} bytes each, {:.1} % less than as floats{}",
                self.mean_state_bytes,
                self.visible_entities_mean,
                self.bytes_per_visible_entity,
                self.reduction_vs_f32 * 100.0,
                self.assembly_ns_per_state
                    .map_or_else(String::new, |nanos| format!("; {nanos:.0} ns to make")),
            ),
        ));
        if let Some(text) = self.scenario.text() {
            rows.push((self.scenario.scenario, text));
        }
        let idle = self
            .memory_idle_connection_bytes
            .map_or_else(String::new, |bytes| format!(", {bytes:.0} bytes while it says nothing"));
        let allocations = self
            .allocations_in_steady_state
            .map_or_else(String::new, |count| format!("; {count} allocations in the window"));
        rows.push((
            "memory",
            format!("{:.0} bytes a player{idle}{allocations}", self.memory_per_connection_bytes),
        ));
        if let Some(ratio) = self.relay_ratio_to_bare_forwarder {
            rows.push(("relay", format!("forwards {ratio:.2} times what a bare forwarder does")));
        }
        rows.push((
            "generator",
            format!(
                "{:.1} % of a core, {} flows, {:.1} % of states opened, at most {:.1} ms late; {}",
                self.generator_cpu_share * 100.0,
                self.flows,
                self.opened_share * 100.0,
                self.generator_late_ms_max,
                self.priority
            ),
        ));
        rows.push((
            "stolen",
            format!(
                "{} ms on {} cores; other programs held up the server for {:.0} ms, the generator \
                 for {:.0} ms, the floor for {:.0} ms",
                self.steal_ms,
                self.cores,
                self.server_waited_ms,
                self.generator_waited_ms,
                self.floor_waited_ms.unwrap_or(0.0)
            ),
        ));
        rows.push(("held", self.held_text()));
        let promises = match self.broken.is_empty() {
            true => "all kept".to_owned(),
            false => format!("{}; first broke: {}", self.broken.join("; "), self.broke_first),
        };
        rows.push(("promises", promises));
        rows
    }

    /// How much less often states were made at the worst; nothing where they were not.
    fn stretch_text(&self) -> String {
        match self.stretch_factor_max {
            Some(most) if most > 1.0 => format!(", made up to {most:.2} times less often"),
            _ => String::new(),
        }
    }

    /// Whether the load was held, and what of it was not.
    fn held_text(&self) -> String {
        if self.held {
            return "yes".to_owned();
        }
        let mut missed = Vec::new();
        if self.players_connected < self.players_requested {
            missed.push("players stayed outside".to_owned());
        }
        if !self.is_delivered() {
            missed.push("inputs or states were lost".to_owned());
        }
        if self.states_per_client_second < HELD_SHARE * STATE_HZ {
            missed.push(format!(
                "{:.2} states a second and player, not {STATE_HZ}; made {:.2} times less often",
                self.states_per_client_second, self.stretch_factor_mean
            ));
        }
        let p99 = self.up_p99_ms.max(self.down_p99_ms);
        if p99 >= HELD_P99_MS {
            missed.push(format!("p99 {p99:.1} ms, not under {HELD_P99_MS}"));
        }
        format!("no: {}", missed.join("; "))
    }
}

impl Part {
    /// Share of the state messages of the server's count that were for players, not for visitors,
    /// who do not come evenly: on a busy machine the last ones are late.
    fn share_of_players(&self) -> f64 {
        let Self { server, generator, .. } = self;
        let visitors = generator.visitor_states.within(server.counted) as f64;
        (1.0 - visitors / server.states_scheduled.max(1) as f64).max(0.0)
    }
}

impl Floor {
    fn client_seconds(&self, players: u32) -> f64 {
        f64::from(players) * self.window.seconds()
    }

    fn cpu_us(&self, players: u32) -> f64 {
        self.report.cpu_nanos as f64 / 1e3 / self.client_seconds(players)
    }

    fn parts_us(&self, players: u32) -> f64 {
        let FloorReport { receive_nanos, send_nanos, open_nanos, seal_nanos, sleep_nanos, .. } =
            self.report;
        let sum = receive_nanos + send_nanos + open_nanos + seal_nanos + sleep_nanos;
        sum as f64 / 1e3 / self.client_seconds(players)
    }

    fn delivered_ratio(&self, players: u32) -> f64 {
        let inputs = self.report.opened as f64 / (self.client_seconds(players) * INPUT_HZ);
        let states = per(self.states, self.report.sent);
        inputs.min(states)
    }

    fn parts(&self, players: u32) -> FloorParts {
        let report = &self.report;
        FloorParts {
            receive_ns: rounded(per(report.receive_nanos, report.received)),
            send_ns: rounded(per(report.send_nanos, report.sent)),
            open_ns: rounded(per(report.open_nanos, report.received)),
            seal_ns: rounded(per(report.seal_nanos, report.sent)),
            sleep_us: rounded(report.sleep_nanos as f64 / 1e3 / self.client_seconds(players)),
            delivered_ratio: rounded5(self.delivered_ratio(players)),
        }
    }
}

/// By the first moment at which each was late, and else by who was busier.
fn who_broke_first(part: &Part) -> &'static str {
    let server_late = part.server.late_at_nanos.first().copied();
    match (server_late, part.generator.late_at_nanos) {
        (Some(server), Some(generator)) if server <= generator => "server",
        (_, Some(_)) => "generator",
        (Some(_), None) => "server",
        (None, None) if part.generator.cpu_nanos > part.server.cpu_nanos => "generator",
        (None, None) => "server",
    }
}

fn priority(server: &str, generator: &str) -> String {
    if server == generator {
        return server.to_owned();
    }
    format!("{server} (generator: {generator})")
}

fn per(sum: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}

/// To three decimals: beyond them a measurement of milliseconds says nothing.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn rounded5(value: f64) -> f64 {
    (value * 1e5).round() / 1e5
}

impl From<Quantiles> for [f64; 3] {
    fn from(seen: Quantiles) -> Self {
        [seen.p50_ms, seen.p99_ms, seen.p999_ms]
    }
}

#[cfg(test)]
mod tests;
