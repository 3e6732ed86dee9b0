//! `twinspan demo`: a world server, bots in a process of their own, a live page, and a summary.

mod console;
mod crew;
mod show;
mod summary;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use twinspan_core::link::Conditions;
use twinspan_game::{ServeOptions, ServerConfig, ServerHandle, serve_with};
use twinspan_provider::IoPath;
use twinspan_session::UserId;

use crate::args::DemoArgs;
use crate::error::CommandError;
use crate::http::{Board, HttpServer};
use crate::output::print;
use crate::plan::{Network, Order, Plan};
use crate::signals::Signals;
use console::{Beginning, Console};
use crew::{Crew, Orders};
use show::Show;
use summary::{Facts, Summary};
use twinspan_bench::process;
use twinspan_bench::stolen::StolenLog;

pub use summary::{LATE_TICKS_RATIO_MAX, Summary as DemoSummary};

/// How often the page gets a new world and the signals are looked at.
const TURN: Duration = Duration::from_millis(100);
/// How long the end waits for the last answers before it counts them as lost.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the end waits for the last second's measurements.
const LAST_SECOND_GRACE: Duration = Duration::from_millis(300);

/// Runs the demo and returns the exit status.
///
/// # Errors
/// [`CommandError`] when it cannot start or cannot tell its result.
pub fn run(args: &DemoArgs) -> Result<u8, CommandError> {
    let signals = Signals::catch()?;
    let run_time = args.run_time(io::stdin().is_terminal() && io::stdout().is_terminal());
    let cpu_before = process::cpu_time();
    let began = Instant::now();
    let mut config = ServerConfig::for_players(args.bots);
    config.session_rows_max = show::SESSION_ROWS_MAX;
    let options = ServeOptions::new(args.listen, config);
    // Not the measured path: figures of one run shall compare with those of the next.
    let io_path = IoPath::Usual;
    let server = serve_with(ServeOptions { cores: usize::from(args.cores), io_path, ..options })
        .map_err(CommandError::Serve)?;
    let conditions = Conditions::preset(args.conditions.name()).unwrap_or_default();
    let board = Arc::new(Board::new());
    // A preset is within every range.
    let _ = board.set_conditions(conditions);
    let orders = Orders::default();
    // The page comes before the bots: a taken port is found out before anything was started.
    let http = match args.no_http {
        true => None,
        false => Some(start_http(args, &board, orders.clone())?),
    };
    let address = http.as_ref().map(|http| http.local_addr().to_string());
    let plan = plan(&server, args.bots, conditions.into());
    let mut demo = Demo {
        crew: Crew::start(&plan, orders).map_err(CommandError::Bots)?,
        show: Show::new(Arc::clone(&board), Console::new(args.json), began),
        stolen: StolenLog::new(server.epoch_nanos()),
        began,
        turn_at: began,
        cpu_before,
        player_seconds: 0.0,
        server,
    };
    // Somebody may have turned a knob of the page before there were bots to hear of it.
    demo.crew.orders().send(Order::Network(board.conditions().into()));
    let beginning = Beginning {
        server: &demo.server,
        bots: args.bots,
        conditions: args.conditions.name(),
        http: address.as_deref(),
        run_time,
    };
    demo.show.console().begin(&beginning).map_err(CommandError::Output)?;
    demo.serve_until(&signals, run_time)?;
    let summary = demo.finish(args.bots, address);
    if let Some(http) = http {
        http.stop();
    }
    print(&summary, args.json, Summary::text)?;
    tell_broken(&summary, args.strict);
    Ok(summary.status(args.strict))
}

fn start_http(
    args: &DemoArgs,
    board: &Arc<Board>,
    orders: Orders,
) -> Result<HttpServer, CommandError> {
    HttpServer::start(
        args.http,
        Arc::clone(board),
        Box::new(move |conditions| orders.send(Order::Network(conditions.into()))),
    )
    .map_err(CommandError::Http)
}

/// Says what was promised and not kept.
fn tell_broken(summary: &Summary, strict: bool) {
    // With standard error closed the exit status still tells.
    let tell = |line: String| _ = writeln!(io::stderr(), "twinspan: {line}");
    for line in summary.broken_promises() {
        tell(format!("broken promise: {line}"));
    }
    if let Some(line) = summary.late_ticks_warning() {
        tell(format!("{}: {line}", if strict { "error" } else { "warning" }));
    }
}

/// What the bots are told first.
fn plan(server: &ServerHandle, bots: u32, conditions: Network) -> Plan {
    let tokens = (1..=u64::from(bots)).map(|user| server.token(UserId(user)).to_text());
    Plan {
        server: server.address(),
        epoch_nanos: server.epoch_nanos(),
        tokens: tokens.collect(),
        conditions,
    }
}

/// A running demo.
struct Demo {
    server: ServerHandle,
    crew: Crew,
    show: Show,
    stolen: StolenLog,
    /// Just before the server began.
    began: Instant,
    /// When the last turn was scheduled.
    turn_at: Instant,
    cpu_before: Duration,
    /// Sum over time of connected players: what CPU time is divided by.
    player_seconds: f64,
}

impl Demo {
    /// Serves until the time is over, somebody interrupts, or a process ends by itself.
    fn serve_until(
        &mut self,
        signals: &Signals,
        run_time: Option<Duration>,
    ) -> Result<(), CommandError> {
        loop {
            self.turn();
            if signals.caught() {
                return self.show.console().interrupted().map_err(CommandError::Output);
            }
            if self.server.has_ended() || self.crew.has_ended() {
                return self.show.console().abandoned().map_err(CommandError::Output);
            }
            let latest = self.crew.latest();
            let shown = self.show.second(&self.server, &latest).map_err(CommandError::Output)?;
            let over = |time| self.began.elapsed() >= time;
            if run_time.is_some_and(|time| over(time + LAST_SECOND_GRACE) || (shown && over(time)))
            {
                return Ok(());
            }
        }
    }

    /// Waits for the next turn and shows the world as it is then.
    fn turn(&mut self) {
        let before = self.turn_at;
        self.turn_at += TURN;
        let now = Instant::now();
        match self.turn_at.checked_duration_since(now) {
            Some(left) => thread::sleep(left),
            // Whole turns that a busy machine swallowed are not made up for.
            None => self.turn_at = now,
        }
        let players = self.server.with_world(|world| world.interests.len());
        self.player_seconds += players as f64 * (self.turn_at - before).as_secs_f64();
        self.stolen.sample();
        self.show.world(&self.server);
    }

    /// Lets what is under way arrive, drains, and sums up.
    fn finish(&mut self, bots: u32, http: Option<String>) -> Summary {
        self.crew.orders().send(Order::Rest);
        let until = Instant::now() + SETTLE_TIME_MAX;
        while !self.is_settled() && !self.crew.has_ended() && Instant::now() < until {
            self.turn();
        }
        let player_seconds = self.player_seconds;
        let cpu = process::cpu_time().saturating_sub(self.cpu_before);
        self.server.begin_drain();
        // The server's own drain waits for every acknowledgement and has a deadline.
        let drained = self.server.join();
        let seconds = self.began.elapsed();
        let report = self.crew.finish(SETTLE_TIME_MAX);
        Summary::new(&Facts {
            bots,
            http,
            seconds,
            player_seconds,
            cpu,
            server: &self.server,
            report,
            stolen: &self.stolen,
            socket_failed: drained.is_err(),
        })
    }

    /// Whether the bots rest and every action of theirs was answered.
    fn is_settled(&self) -> bool {
        let report = self.crew.latest().report;
        report.resting && report.settled >= report.connected.saturating_sub(report.ended)
    }
}
