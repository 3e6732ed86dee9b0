//! `twinspan grid`: a small Second Life grid until it is told to stop.

mod config;

use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use serde_json::{Value, json};
use twinspan_core::time::Timestamp;
use twinspan_grid::{CircuitStats, GridEvent, GridServer, GridServerError, RegionId};
use twinspan_provider::{TimeProvider, Timer, TokioEnv};

use crate::args::GridArgs;
use crate::error::CommandError;
use crate::settings_file::SettingsFileError;
use crate::signals::Signals;

/// How often signals and events are looked at.
const TURN: Duration = Duration::from_millis(50);

/// Why a grid cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GridCommandError {
    /// Its file cannot be used.
    #[error(transparent)]
    File(#[from] SettingsFileError),
    /// Nobody could log in.
    #[error("nobody may log in: give --user \"NAME:PASSWORD\", or a --config with [[user]]")]
    NoUsers,
    /// A user on the command line cannot be one. What was given is not repeated: it has a password.
    #[error("--user number {number} is no name with a password: give \"Ruth Tester:sesame\" or so")]
    User {
        /// Which of them, counted from 1.
        number: u32,
    },
    /// The grid cannot start, or failed.
    #[error(transparent)]
    Server(#[from] GridServerError),
    /// There is no runtime for it.
    #[error("cannot wait for sockets: {0}")]
    Runtime(io::Error),
}

impl GridCommandError {
    /// The exit status: 2 for what another command line can mend.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Runtime(_)
            | Self::Server(GridServerError::Region { .. } | GridServerError::Http(_)) => 1,
            Self::File(_) | Self::NoUsers | Self::User { .. } | Self::Server(_) => 2,
        }
    }
}

/// Runs a grid and returns the exit status.
///
/// # Errors
/// [`CommandError`] when it cannot start, cannot say what happens, or failed.
pub fn run(args: &GridArgs) -> Result<u8, CommandError> {
    let config = config::of_args(args)?;
    let signals = Signals::catch()?;
    let env = TokioEnv::new(None).map_err(GridCommandError::Runtime)?;
    env.block_on(async {
        let users = config.accounts.len();
        let started = GridServer::start(env.clone(), config).await;
        let server = started.map_err(GridCommandError::from)?;
        let told = Told { json: args.json };
        told.ready(&server, users)?;
        let outcome = run_until(args, &env, &server, &signals, &told).await;
        told.events(&server)?;
        told.summary(&server)?;
        server.stop("The grid is closing.").await;
        outcome.map(|()| 0)
    })
}

/// Runs until somebody asks for the end, its time is over, or a socket fails.
async fn run_until(
    args: &GridArgs,
    env: &TokioEnv,
    server: &GridServer<TokioEnv>,
    signals: &Signals,
    told: &Told,
) -> Result<(), CommandError> {
    let end = args
        .seconds
        .map_or(Timestamp::NEVER, |seconds| env.now().after(Duration::from_secs(seconds)));
    let mut timer = env.timer();
    let mut failed = pin!(server.failed());
    while !signals.caught() && env.now() < end {
        timer.set(Some(env.now().after(TURN).min(end)));
        let failure = poll_fn(|cx| match failed.as_mut().poll(cx) {
            Poll::Ready(error) => Poll::Ready(Some(error)),
            Poll::Pending => timer.poll_expired(cx).map(|()| None),
        });
        if let Some(error) = failure.await {
            return Err(GridCommandError::from(error).into());
        }
        told.events(server)?;
    }
    Ok(())
}

/// Says what happens, for people or as JSON.
struct Told {
    json: bool,
}

impl Told {
    fn say(&self, value: &Value, text: &str) -> Result<(), CommandError> {
        let mut out = io::stdout().lock();
        let written = if self.json { writeln!(out, "{value}") } else { writeln!(out, "{text}") };
        written.and_then(|()| out.flush()).map_err(CommandError::Output)
    }

    fn ready(&self, server: &GridServer<TokioEnv>, users: usize) -> Result<(), CommandError> {
        let url = server.login_url();
        let regions: Vec<Value> = server
            .regions()
            .iter()
            .map(|(_, at)| json!({"name": at.name, "x": at.x, "y": at.y, "addr": at.addr}))
            .collect();
        let mut text = format!("login at {url} for {users} users");
        for (_, at) in server.regions() {
            text += &format!("\nregion {} at {},{} hears at {}", at.name, at.x, at.y, at.addr);
        }
        let value = json!({"event": "ready", "login_uri": url, "users": users, "regions": regions});
        self.say(&value, &text)
    }

    fn events(&self, server: &GridServer<TokioEnv>) -> Result<(), CommandError> {
        while let Some(event) = server.poll_event() {
            let region = |id: RegionId| {
                server.with_grid(|grid| grid.region(id).map(|config| config.name.clone()))
            };
            let name = |code: u32| {
                server.with_grid(|grid| {
                    let guest = grid.guest(code);
                    guest.map(|guest| format!("{} {}", guest.first_name, guest.last_name))
                })
            };
            let called = |name: &Option<String>| name.clone().unwrap_or_else(|| "Somebody".into());
            let (value, text) = match event {
                GridEvent::Arrived { code, region: to, from } => {
                    let (who, to, from) = (name(code), region(to), from.and_then(region));
                    let text = format!("{} is in {}", called(&who), called(&to));
                    (json!({"event": "arrived", "name": who, "region": to, "from": from}), text)
                }
                GridEvent::Chat { code, region: at, text, channel } => {
                    let (who, at) = (name(code), region(at));
                    let line = format!("{} in {}: {text}", called(&who), called(&at));
                    let value = json!({
                        "event": "chat", "name": who, "region": at, "text": text,
                        "channel": channel,
                    });
                    (value, line)
                }
                GridEvent::TravelFailed { code, to } => {
                    let (who, to) = (name(code), region(to));
                    let text = format!("{} did not come to {}", called(&who), called(&to));
                    (json!({"event": "travel_failed", "name": who, "region": to}), text)
                }
                GridEvent::Left { name: who, asked, .. } => {
                    let text =
                        format!("{who} is gone{}", if asked { "" } else { ", without a word" });
                    (json!({"event": "left", "name": who, "asked": asked}), text)
                }
                _ => continue,
            };
            self.say(&value, &text)?;
        }
        Ok(())
    }

    fn summary(&self, server: &GridServer<TokioEnv>) -> Result<(), CommandError> {
        let (http, login) = (server.http_stats(), server.login_stats());
        let (mut circuits, mut refused) = (CircuitStats::default(), 0);
        let (grid, present) = server.with_grid(|grid| (*grid.stats(), grid.len()));
        for (id, _) in server.regions() {
            if let Some((stats, strangers)) = server.with_grid(|grid| grid.circuit_stats(id)) {
                circuits.add(&stats);
                refused += strangers.refused;
            }
        }
        let value = json!({
            "event": "summary",
            "logins": login.let_in,
            "logins_refused": login.refused,
            "wrong_passwords": login.wrong_keys,
            "present": present,
            "requests": http.requests,
            "seeds": http.seeds,
            "polls_answered": http.polls_answered,
            "polls_empty": http.polls_empty,
            "queue_events": http.events_told,
            "not_found": http.not_found,
            "messages_in": circuits.messages_in,
            "messages_out": circuits.messages_out,
            "reliable_in": circuits.reliable_in,
            "reliable_out": circuits.reliable_out,
            "resends_out": circuits.resends_out,
            "duplicates_in": circuits.duplicates_in,
            "circuits_refused": refused,
            "messages_unused": grid.unused,
            "dropped": grid.dropped + http.events_dropped,
        });
        let text = format!(
            "ended: {} logins and {} refused, {} requests, {} messages in and {} out, {} resent",
            login.let_in,
            login.refused,
            http.requests,
            circuits.messages_in,
            circuits.messages_out,
            circuits.resends_out,
        );
        self.say(&value, &text)
    }
}
