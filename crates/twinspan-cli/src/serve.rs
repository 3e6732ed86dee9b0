//! `twinspan serve`: a world server until it is told to stop.

mod bans;
mod config;
mod metrics;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use twinspan_game::{ServeError, ServeOptions, ServerHandle, serve_with};
use twinspan_provider::{IoPath, SocketReport};
use twinspan_relay::TrunkKeys;

use crate::args::ServeArgs;
use crate::error::CommandError;
use crate::http::HttpServer;
use crate::keys::{KeyFile, reread_trunk_keys};
use crate::signals::{Request, Signals, when_taken};
use bans::BanFile;
use metrics::{ProcessFigures, SocketFacts};
use twinspan_bench::process;

pub use bans::BansError;
pub use config::{Config, ConfigError};

/// How often signals are looked at.
const TURN: Duration = Duration::from_millis(50);

/// What the thread that serves figures reads beside the server's own.
#[derive(Debug, Default)]
struct Mood {
    draining: AtomicBool,
    reloads_failed: AtomicU64,
    bans_unwritten: AtomicU64,
}

/// Runs a server and returns the exit status.
///
/// # Errors
/// [`CommandError`] when it cannot start, or cannot say that it has.
pub fn run(args: &ServeArgs) -> Result<u8, CommandError> {
    let mut config = Config::read(&args.config)?;
    if let Some(cores) = args.cores {
        config.cores = u64::from(cores);
    }
    let rules = config.read_rules()?;
    if args.print_config {
        let text = config.to_text();
        return io::stdout().write_all(text.as_bytes()).map_err(CommandError::Output).map(|()| 0);
    }
    let keys = KeyFile::read(&config.keys)?;
    let names = keys.names();
    let (mut bans, banned) = match &config.bans_file {
        Some(path) => BanFile::open(path).map(|(file, banned)| (Some(file), banned))?,
        None => (None, Vec::new()),
    };
    let signals = Signals::catch()?;
    let requests = Requests { reload: Request::reload()?, retire: Request::retire()? };
    let relay = config.relay_door()?;
    let trunk = relay.as_ref().map(|door| door.port.keys.clone());
    let options = ServeOptions {
        keys: Some(keys.server_keys(&config.keys)?),
        relay,
        bans: banned,
        previous_keys: match &config.previous_keys {
            Some(path) => Some(KeyFile::read(path)?.server_keys(path)?),
            None => None,
        },
        cores: usize::try_from(config.cores).unwrap_or(usize::MAX),
        io_path: IoPath::Measured,
        ciphers: config.sessions.ciphers.clone(),
        ..ServeOptions::new(config.listen, config.server(rules))
    };
    let mut server = serve_with(options).map_err(|error| failed(args, error))?;
    let mood = Arc::new(Mood::default());
    let figures = match config.metrics {
        Some(address) => Some(
            start_metrics(address, &config.metrics_hosts, &server, &mood)
                .map_err(CommandError::Metrics)?,
        ),
        None => None,
    };
    say(&ready_line(&server, &names, figures.as_ref()))?;
    let mut service = Service { config: &config, server: &server, mood: &mood, keys: names, trunk };
    let asked = service.run(&signals, &requests, &mut bans)?;
    let ended = end(&mut server, asked, &mood);
    write_bans(&mut bans, &server, &mood);
    if let Some(figures) = figures {
        figures.stop();
    }
    ended
}

/// What is told once everything stands.
fn ready_line(server: &ServerHandle, names: &str, figures: Option<&HttpServer>) -> String {
    let mut ready = format!("serving {} with {names}", server.address());
    if server.cores() > 1 {
        ready += &format!(" on {} cores", server.cores());
        if !server.is_steered() {
            ready += ", which hand on datagrams because the kernel does not steer them";
        }
    }
    ready += &format!(", datagrams by {}", paths_text(&mut server.sockets()));
    if let Some(trunk) = server.relay_socket() {
        ready += &format!(", those of relays by {}", path_text(trunk));
    }
    if let Some(relays) = server.relay_address() {
        ready += &format!(", relays at {relays}");
    }
    if let Some(figures) = figures {
        ready += &format!(", figures at http://{}/metrics", figures.local_addr());
    }
    ready
}

/// How a socket moves datagrams, and why so.
pub fn path_text(socket: &SocketReport) -> String {
    match socket.path_reason {
        "" => socket.path.to_owned(),
        reason => format!("{} ({reason})", socket.path),
    }
}

/// The same of several sockets; once where all have the same, else one by one.
fn paths_text(sockets: &mut dyn Iterator<Item = &SocketReport>) -> String {
    let texts: Vec<_> = sockets.map(path_text).collect();
    match texts.as_slice() {
        [first, rest @ ..] if rest.iter().all(|text| text == first) => first.clone(),
        _ => {
            let one = |(core, text): (usize, &String)| format!("{text} on core {core}");
            texts.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
        }
    }
}

fn failed(args: &ServeArgs, error: ServeError) -> CommandError {
    match error {
        ServeError::Config(source) => {
            ConfigError::Setting { path: args.config.clone(), source }.into()
        }
        other => CommandError::Start(other),
    }
}

fn start_metrics(
    address: std::net::SocketAddr,
    hosts: &[String],
    server: &ServerHandle,
    mood: &Arc<Mood>,
) -> Result<HttpServer, crate::http::HttpError> {
    let mood = Arc::clone(mood);
    let sockets: Vec<_> = server
        .sockets()
        .map(|socket| SocketFacts { use_of: "clients", path: socket.path, why: socket.path_reason })
        .chain(server.relay_socket().map(|socket| SocketFacts {
            use_of: "relays",
            path: socket.path,
            why: socket.path_reason,
        }))
        .collect();
    let server = server.figures();
    let render = move || {
        let process = ProcessFigures {
            resident_bytes: process::resident_bytes(),
            cpu: process::cpu_time(),
            draining: mood.draining.load(Ordering::Relaxed),
            reloads_failed: mood.reloads_failed.load(Ordering::Relaxed),
            bans_unwritten: mood.bans_unwritten.load(Ordering::Relaxed),
        };
        // The server's thread never waits for this lock: it publishes a turn later.
        server.with_stats(|stats| metrics::render(stats, server.traffic(), process, &sockets))
    };
    HttpServer::start_metrics(address, hosts.to_vec(), Box::new(render))
}

/// What a running server may be asked by signals.
struct Requests {
    reload: Request,
    retire: Request,
}

/// Writes down who was banned since the last time.
fn write_bans(bans: &mut Option<BanFile>, server: &ServerHandle, mood: &Mood) {
    let Some(file) = bans else { return };
    let written = server.with_stats(|stats| file.keep(stats.at, &stats.admission.banned));
    if let Err(error) = written {
        mood.bans_unwritten.fetch_add(1, Ordering::Relaxed);
        // With standard error closed the figures still tell.
        let _ = writeln!(io::stderr(), "twinspan: a ban lasts until the end of this run: {error}");
    }
}

/// A server at work, and the files that it is ruled by.
struct Service<'a> {
    config: &'a Config,
    server: &'a ServerHandle,
    mood: &'a Mood,
    /// The names of the keys in use.
    keys: String,
    /// The keys shared with relays, where they come.
    trunk: Option<TrunkKeys>,
}

impl Service<'_> {
    /// Serves until somebody asks for the end or the server ends by itself; true when asked.
    fn run(
        &mut self,
        signals: &Signals,
        requests: &Requests,
        bans: &mut Option<BanFile>,
    ) -> Result<bool, CommandError> {
        loop {
            write_bans(bans, self.server, self.mood);
            if signals.caught() {
                return Ok(true);
            }
            if self.server.has_ended() {
                return Ok(false);
            }
            if requests.reload.take() {
                self.reload_rules()?;
                self.reload_keys()?;
                self.reload_trunk_keys()?;
            }
            if requests.retire.take() {
                self.server.retire_old_keys();
                say("tokens under the keys before the present ones are refused")?;
            }
            thread::sleep(TURN);
        }
    }

    /// Reads the rules again; rules that cannot be used leave the ones in force as they are.
    fn reload_rules(&self) -> Result<(), CommandError> {
        let Some(path) = &self.config.rules else {
            return say("no rules file is configured: the default rules stay");
        };
        match self.config.read_rules() {
            Ok(rules) => {
                self.server.replace_rules(&rules);
                say(&format!("rules of {} are in force", path.display()))
            }
            Err(error) => {
                self.refused(&format!("the rules in force stay: {error}"));
                Ok(())
            }
        }
    }

    /// Reads the keys again. Others than before become the present ones, and tokens under those
    /// before stay good until the next change; keys that cannot be used change nothing.
    fn reload_keys(&mut self) -> Result<(), CommandError> {
        let path = &self.config.keys;
        let read = KeyFile::read(path).and_then(|file| Ok((file.names(), file.server_keys(path)?)));
        match read {
            Ok((names, _)) if names == self.keys => Ok(()),
            Ok((names, keys)) => {
                self.server.rotate_keys(&keys);
                self.keys.clone_from(&names);
                let state = when_taken(|| self.server.has_taken_changes());
                say(&format!("keys of {} are {state}: {names}", path.display()))
            }
            Err(error) => {
                self.refused(&format!("the keys in use stay: {error}"));
                Ok(())
            }
        }
    }

    /// Reads the keys that are shared with relays again; keys that cannot be used change nothing.
    fn reload_trunk_keys(&mut self) -> Result<(), CommandError> {
        let (Some(table), Some(in_use)) = (&self.config.relay, &self.trunk) else { return Ok(()) };
        match reread_trunk_keys(in_use, &table.key, table.previous_key.as_deref()) {
            Ok(None) => Ok(()),
            Ok(Some(keys)) => {
                self.server.replace_trunk_keys(&keys);
                self.trunk = Some(keys);
                let state = when_taken(|| self.server.has_taken_changes());
                say(&format!("the trunk key of {} is {state}", table.key.display()))
            }
            Err(error) => {
                self.refused(&format!("the trunk key in use stays: {error}"));
                Ok(())
            }
        }
    }

    /// A file that was read again cannot be used.
    fn refused(&self, what: &str) {
        self.mood.reloads_failed.fetch_add(1, Ordering::Relaxed);
        // With standard error closed the figures still tell.
        let _ = writeln!(io::stderr(), "twinspan: {what}");
    }
}

/// Drains, or finds out why there is nothing to drain.
fn end(server: &mut ServerHandle, asked: bool, mood: &Mood) -> Result<u8, CommandError> {
    if asked {
        mood.draining.store(true, Ordering::Relaxed);
        let players = server.with_stats(|stats| stats.session_count);
        say(&format!("draining {players} players; a second signal ends at once"))?;
        server.begin_drain();
    }
    let outcome = server.join();
    let (players, late) =
        server.with_stats(|stats| (stats.players.clone(), stats.stats.undelivered_at_end));
    say(&format!(
        "ended: {} players came, {} reliable messages sent, {} received, {late} not acknowledged",
        players.joined, players.reliable_sent, players.reliable_received
    ))?;
    if let Err(error) = outcome {
        // With standard error closed the exit status still tells.
        let _ = writeln!(io::stderr(), "twinspan: the server's socket failed: {error}");
        return Ok(1);
    }
    Ok(u8::from(!asked))
}

fn say(line: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(CommandError::Output)
}
