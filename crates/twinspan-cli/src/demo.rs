//! `twinspan demo`: a world server, bots in a process of their own, a live page, and a summary.

mod crew;
mod show;
mod stolen;
mod summary;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use twinspan_core::link::Conditions;
use twinspan_game::{ServerConfig, ServerHandle, serve};
use twinspan_session::UserId;

use crate::args::DemoArgs;
use crate::error::CommandError;
use crate::http::{Board, HttpServer};
use crate::plan::{Network, Order, Plan, Report};
use crate::process;
use crew::Crew;
use show::Show;
use stolen::StolenLog;
use summary::{Facts, Summary};

pub use summary::{LATE_TICKS_RATIO_MAX, Summary as DemoSummary};

/// How often the page gets a new world and the signals are looked at.
const TURN: Duration = Duration::from_millis(100);
/// How long the end waits for the last answers before it counts them as lost.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);

/// Runs the demo and returns the exit status.
///
/// # Errors
/// [`CommandError`] when it cannot start or cannot tell its result.
pub fn run(args: &DemoArgs) -> Result<u8, CommandError> {
    let signals = Signals::catch()?;
    let run_time = args.run_time(io::stdin().is_terminal() && io::stdout().is_terminal());
    let server =
        serve(args.listen, ServerConfig::for_players(args.bots)).map_err(CommandError::Serve)?;
    let conditions = Conditions::preset(args.conditions.name()).unwrap_or_default();
    let board = Arc::new(Board::new());
    let mut demo = Demo {
        crew: Crew::start(&plan(&server, args.bots, conditions.into()))
            .map_err(CommandError::Bots)?,
        show: Show::new(Arc::clone(&board), args.json),
        stolen: StolenLog::new(server.epoch_nanos()),
        began: Instant::now(),
        cpu_before: process::cpu_time(),
        player_seconds: 0.0,
        server,
    };
    let http = match args.no_http {
        true => None,
        false => Some(demo.start_http(args, &board, conditions)?),
    };
    let address = http.as_ref().map(|http| http.local_addr().to_string());
    demo.show.start(&demo.server, args.bots, address.as_deref()).map_err(CommandError::Output)?;
    demo.serve_until(&signals, run_time)?;
    let summary = demo.finish(args.bots, address);
    if let Some(http) = http {
        http.stop();
    }
    summary.print(args.json).map_err(CommandError::Output)?;
    Ok(report_broken(&summary, args.strict))
}

/// Says what was promised and not kept, and returns the exit status.
fn report_broken(summary: &Summary, strict: bool) -> u8 {
    let broken = summary.broken_promises();
    let late = summary.late_ticks_warning();
    for line in broken {
        // With standard error closed the exit status still tells.
        let _ = writeln!(io::stderr(), "twinspan: broken promise: {line}");
    }
    if let Some(line) = &late {
        let word = if strict { "error" } else { "warning" };
        let _ = writeln!(io::stderr(), "twinspan: {word}: {line}");
    }
    u8::from(!broken.is_empty() || (strict && late.is_some()))
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
    began: Instant,
    cpu_before: Duration,
    /// Sum over time of connected players: what CPU time is divided by.
    player_seconds: f64,
}

impl Demo {
    fn start_http(
        &self,
        args: &DemoArgs,
        board: &Arc<Board>,
        conditions: Conditions,
    ) -> Result<HttpServer, CommandError> {
        let orders = self.crew.orders();
        // A preset is within every range.
        let _ = board.set_conditions(conditions);
        HttpServer::start(
            args.http,
            Arc::clone(board),
            Box::new(move |conditions| orders.send(Order::Network(conditions.into()))),
        )
        .map_err(CommandError::Http)
    }

    /// Serves until the time is over, somebody interrupts, or a process ends by itself.
    fn serve_until(
        &mut self,
        signals: &Signals,
        run_time: Option<Duration>,
    ) -> Result<(), CommandError> {
        let mut next_second = self.began + Duration::from_secs(1);
        while !signals.caught() && !self.server.has_ended() && !self.crew.has_ended() {
            thread::sleep(TURN);
            self.turn();
            if Instant::now() >= next_second {
                next_second += Duration::from_secs(1);
                self.show
                    .second(&self.server, &self.crew.report())
                    .map_err(CommandError::Output)?;
            }
            if run_time.is_some_and(|time| self.began.elapsed() >= time) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn turn(&mut self) {
        let players = self.server.with_world(|world| world.interests.len());
        self.player_seconds += players as f64 * TURN.as_secs_f64();
        self.stolen.sample();
        self.show.world(&self.server);
    }

    /// Lets what is under way arrive, drains, and sums up.
    fn finish(&mut self, bots: u32, http: Option<String>) -> Summary {
        let seconds = self.began.elapsed();
        self.crew.orders().send(Order::Rest);
        let mut patience = Patience::new(SETTLE_TIME_MAX);
        while patience.wait() && !self.is_settled() {
            self.turn();
        }
        let player_seconds = self.player_seconds;
        let cpu = process::cpu_time().saturating_sub(self.cpu_before);
        self.server.begin_drain();
        // The server's own drain has a deadline, so this wait ends.
        let drained = self.server.join();
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

    /// Whether every action was answered and every answer acknowledged.
    fn is_settled(&self) -> bool {
        let report = self.crew.report();
        report.settled >= report.connected.saturating_sub(report.ended)
            && self.server.with_stats(|stats| stats.unacknowledged) == 0
    }
}

/// A wait in short steps with an end.
struct Patience {
    until: Instant,
}

impl Patience {
    fn new(time_max: Duration) -> Self {
        Self { until: Instant::now() + time_max }
    }

    /// Waits a step; false when the time is over.
    fn wait(&mut self) -> bool {
        thread::sleep(TURN);
        Instant::now() < self.until
    }
}

/// Interrupts: the first one asks for a drain, a second one ends the program at once.
struct Signals {
    caught: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> Result<Self, CommandError> {
        let caught = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the second registration sets what the first one looks at.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&caught))
                .and_then(|_| flag::register(signal, Arc::clone(&caught)))
                .map_err(CommandError::Signals)?;
        }
        Ok(Self { caught })
    }

    fn caught(&self) -> bool {
        self.caught.load(Ordering::Relaxed)
    }
}
