//! Bots that somebody lets play on a server of its own: with tokens, or with keys to make them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_net::ReactorEnv;
use twinspan_provider::{OsSecrets, TimeProvider};
use twinspan_session::{CloseReason, ConnectToken, UserId};
use zeroize::Zeroizing;

use super::{Afloat, TURN, Tally, add, assemble, sleep_until};
use crate::args::{BOTS_MAX, BotsArgs};
use crate::error::CommandError;
use crate::keys::{KeyFile, expiry};
use crate::plan::{Network, Plan, Report};
use crate::signals::Signals;

/// Bots when nobody says how many.
const BOTS: u32 = 10;
/// The longest file of tokens that is read, in bytes: as many as bots can be, and some space.
const TOKEN_FILE_BYTES_MAX: u64 = 16 << 20;
/// How long tokens made here can be used.
const TOKEN_LIFETIME: Duration = Duration::from_secs(600);
/// How long bots that were told to leave may take to say good-bye.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(2);

/// Lets bots play and returns the exit status: 0 when all of them played and none was thrown out.
///
/// # Errors
/// [`CommandError`] when there are no tokens, or nothing can be told.
pub(super) fn run(args: &BotsArgs) -> Result<u8, CommandError> {
    let plan = plan(args)?;
    let signals = Signals::catch()?;
    let reactor = ReactorEnv::new(None).map_err(CommandError::Bots)?;
    let seconds = args.seconds.map(Duration::from_secs);
    reactor.clone().block_on(async move {
        let began = reactor.now();
        let fleets = assemble(&reactor, &plan).await?;
        let visit = Visit { began, bots: plan.tokens.len(), fleets: &fleets };
        visit.attend(&reactor, &signals, seconds).await
    })
}

fn plan(args: &BotsArgs) -> Result<Plan, CommandError> {
    let (server, tokens) = match (&args.keys, args.server, &args.token_file) {
        (Some(keys), Some(server), _) => {
            let issuer = KeyFile::read(keys)?.issuer();
            let (first, count) = (args.first_user.unwrap_or(1), args.bots.unwrap_or(BOTS));
            let expires_at = expiry(TOKEN_LIFETIME);
            let token = |user| issuer.issue(&mut OsSecrets, UserId(user), server, expires_at);
            (server, (first..).take(count as usize).map(|user| token(user).to_text()).collect())
        }
        (_, _, Some(file)) => read_tokens(&file.to_string_lossy())?,
        _ => return Err(CommandError::Plan("it is not asked for".into())),
    };
    // Of this server's clock nothing is known; without it no latency is told.
    Ok(Plan { server, epoch_nanos: 0, tokens, conditions: Network::default() })
}

/// The tokens of a file, which are all for one server.
fn read_tokens(file: &str) -> Result<(std::net::SocketAddr, Vec<String>), CommandError> {
    let refuse = |what: String| CommandError::Tokens { file: file.to_owned(), what };
    let mut text = Zeroizing::new(String::new());
    let read = match file {
        "-" => io::stdin().take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text),
        _ => File::open(file)
            .and_then(|opened| opened.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text)),
    };
    read.map_err(|error| refuse(error.to_string()))?;
    let mut tokens = Vec::new();
    let mut server = None;
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let token = ConnectToken::from_text(line)
            .map_err(|error| refuse(format!("line {number}: {error}")))?;
        if *server.get_or_insert(token.server_addr()) != token.server_addr() {
            return Err(refuse(format!("line {number}: the token is for another server")));
        }
        tokens.push(line.trim().to_owned());
    }
    match server {
        Some(server) if tokens.len() <= BOTS_MAX as usize => Ok((server, tokens)),
        _ => Err(refuse(format!("it has {} tokens, not 1 to {BOTS_MAX}", tokens.len()))),
    }
}

/// A visit of bots to a server.
struct Visit<'a> {
    began: Timestamp,
    bots: usize,
    fleets: &'a [Afloat],
}

impl Visit<'_> {
    /// Tells a line a second until the bots have ended or were told to leave.
    async fn attend(
        &self,
        env: &ReactorEnv,
        signals: &Signals,
        seconds: Option<Duration>,
    ) -> Result<u8, CommandError> {
        let mut timer = env.timer();
        let mut second = 0;
        let mut leave_until = None;
        let mut states = 0;
        loop {
            sleep_until(&mut timer, env.now().after(TURN)).await;
            let now = env.now();
            let report = self.report();
            let ended = report.ended as usize == self.bots;
            if ended || leave_until.is_some_and(|until| now >= until) {
                return self.tell_end(&report);
            }
            let since = now.since(self.began);
            if since.as_secs() > second {
                second = since.as_secs();
                tell(&format!(
                    "{second} s: {} of {} bots in the world, {} states",
                    report.connected - report.ended.min(report.connected),
                    self.bots,
                    report.states_applied - states
                ))?;
                states = report.states_applied;
            }
            let is_over = signals.caught() || seconds.is_some_and(|time| since >= time);
            if is_over && leave_until.is_none() {
                leave_until = Some(now.after(LEAVE_TIME_MAX));
                self.fleets.iter().for_each(|fleet| fleet.bots.borrow_mut().close(now));
            }
        }
    }

    fn report(&self) -> Report {
        let mut report = Report::default();
        let tally = Tally { began: self.began, ..Tally::default() };
        for fleet in self.fleets {
            fleet.bots.borrow().bots().iter().for_each(|bot| add(&mut report, bot, tally.began));
        }
        report
    }

    fn tell_end(&self, report: &Report) -> Result<u8, CommandError> {
        let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
        let mut bad = 0;
        for fleet in self.fleets {
            for bot in fleet.bots.borrow().bots() {
                let reason = bot.client().closed();
                let fine =
                    matches!(reason, Some(CloseReason::Normal | CloseReason::ServerDraining));
                bad += u32::from(!fine);
                let name = reason.map_or("still there".into(), |reason| reason.to_string());
                *reasons.entry(name).or_default() += 1;
            }
        }
        let reasons: Vec<_> =
            reasons.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
        tell(&format!(
            "ended: {} of {} bots played, {} reliable messages sent, {} received; {}",
            report.connected,
            self.bots,
            report.reliable_sent,
            report.reliable_received,
            reasons.join(", ")
        ))?;
        Ok(u8::from(bad > 0 || (report.connected as usize) < self.bots))
    }
}

fn tell(line: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(CommandError::Output)
}
