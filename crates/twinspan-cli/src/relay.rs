//! `twinspan relay`: a relay until it is told to stop.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use twinspan_provider::IoPath;
use twinspan_relay::{
    Place, RelayConfig, RelayEvent, RelayHandle, RelayOptions, RelayReport, TrunkKeys, start,
};

use crate::args::RelayArgs;
use crate::error::CommandError;
use crate::keys::{read_trunk_keys, reread_trunk_keys};
use crate::serve::path_text;
use crate::signals::{Request, Signals, when_taken};

/// How often signals and events are looked at.
const TURN: Duration = Duration::from_millis(50);

/// Runs a relay and returns the exit status.
///
/// # Errors
/// [`CommandError`] when it cannot start, cannot say that it has, or its socket failed.
pub fn run(args: &RelayArgs) -> Result<u8, CommandError> {
    let keys = read_trunk_keys(&args.key_file, args.previous_key_file.as_deref())?;
    let mut config = RelayConfig::new(args.server, keys.clone());
    config.links_max = args.links as usize;
    config.hellos_per_source = args.hellos_per_source;
    let mut options = RelayOptions::new(args.listen, config);
    options.trunk = Some(args.trunk);
    options.clients_udp.path = IoPath::Measured;
    options.trunk_udp.path = IoPath::Measured;
    options.place = Place { core: args.core, fifo_priority: args.fifo };
    let signals = Signals::catch()?;
    // A terminal that is closed must not end the relay.
    let reload = Request::reload()?;
    let relay = start(options)?;
    let (clients, trunk) = relay.sockets();
    let ready = format!(
        "relaying for clients at {} to {} from {}, datagrams of clients by {}, of the server by {}",
        relay.address(),
        args.server,
        relay.trunk_address(),
        path_text(clients),
        path_text(trunk),
    );
    say(args, &ready)?;
    run_until(args, &relay, &signals, (&reload, keys))?;
    let has_failed = relay.has_ended();
    let report = relay.stop().map_err(CommandError::RelayEnded)?;
    let mut out = io::stdout().lock();
    let text = if args.json { json_of(&report) } else { summary(&report) };
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CommandError::Output)?;
    Ok(u8::from(has_failed))
}

/// Runs until somebody asks for the end, its time is over, or the relay ends by itself.
fn run_until(
    args: &RelayArgs,
    relay: &RelayHandle,
    signals: &Signals,
    (reload, mut keys): (&Request, TrunkKeys),
) -> Result<(), CommandError> {
    let until = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    while !signals.caught() && !relay.has_ended() && until.is_none_or(|end| Instant::now() < end) {
        while let Some(event) = relay.poll_event() {
            match event {
                RelayEvent::ServerSilent { server } => {
                    say(args, &format!("server {server} says nothing any more"))?;
                }
                RelayEvent::ServerBack { server } => {
                    say(args, &format!("server {server} speaks again"))?;
                }
                _ => {}
            }
        }
        if reload.take() {
            reload_keys(args, relay, &mut keys)?;
        }
        thread::sleep(TURN);
    }
    Ok(())
}

/// Reads the keys of the trunk again; keys that cannot be used change nothing.
fn reload_keys(
    args: &RelayArgs,
    relay: &RelayHandle,
    in_use: &mut TrunkKeys,
) -> Result<(), CommandError> {
    match reread_trunk_keys(in_use, &args.key_file, args.previous_key_file.as_deref()) {
        Ok(None) => say(args, "the trunk key in use stays: it is the one in its file"),
        Ok(Some(keys)) => {
            *in_use = keys.clone();
            relay.replace_keys(keys);
            let state = when_taken(|| relay.has_taken_keys());
            say(args, &format!("the trunk key of {} is {state}", args.key_file.display()))
        }
        Err(error) => {
            // With standard error closed nobody is left to tell.
            let _ = writeln!(io::stderr(), "twinspan: the trunk key in use stays: {error}");
            Ok(())
        }
    }
}

/// Tells people; with `--json` standard output belongs to the summary.
fn say(args: &RelayArgs, line: &str) -> Result<(), CommandError> {
    if args.json {
        // With standard error closed the summary still comes.
        let _ = writeln!(io::stderr(), "{line}");
        return Ok(());
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(CommandError::Output)
}

fn json_of(report: &RelayReport) -> String {
    let RelayReport { stats, sides, cpu, clients, trunk, .. } = report;
    let drops: serde_json::Map<_, _> =
        stats.drops.by_cause().iter().map(|(name, count)| ((*name).into(), json!(count))).collect();
    json!({
        "to_server": stats.to_server,
        "to_server_bytes": stats.to_server_bytes,
        "to_clients": stats.to_clients,
        "to_clients_bytes": stats.to_clients_bytes,
        "hellos": stats.hellos,
        "strays": stats.strays,
        "links": stats.links,
        "links_begun": stats.links_begun,
        "links_crowded_out": stats.links_crowded_out,
        "server_silences": stats.silences,
        "drops": drops,
        "forged": sides.forged,
        "strangers": sides.strangers,
        "send_errors": clients.send_errors + trunk.send_errors,
        "cpu_us": cpu.as_micros() as u64,
        "io_path": trunk.path,
        "io_path_reason": trunk.path_reason,
        "clients_io_path": clients.path,
        "clients_io_path_reason": clients.path_reason,
        "segmented": trunk.packets_segmented,
    })
    .to_string()
}

fn summary(report: &RelayReport) -> String {
    let stats = &report.stats;
    let mut text = format!(
        "ended: {} datagrams to the server and {} to clients, {} links, {:.1} s of processor time",
        stats.to_server,
        stats.to_clients,
        stats.links,
        report.cpu.as_secs_f64()
    );
    let RelayReport { sides, clients, trunk, .. } = report;
    let elsewhere = [
        ("forged", sides.forged),
        ("strangers", sides.strangers),
        ("send_errors", clients.send_errors + trunk.send_errors),
    ];
    for (cause, count) in stats.drops.by_cause().into_iter().chain(elsewhere) {
        if count > 0 {
            text += &format!("; {count} dropped: {cause}");
        }
    }
    text
}
