//! `twinspan bots`: the bots of a demo, in a process of their own, or visitors of a server.

mod visit;

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::time::Timestamp;
use twinspan_game::{Ages, Bot, BotConfig, Client, ClientConfig, Fleet, measured_suite};
use twinspan_net::ReactorEnv;
use twinspan_provider::{
    ConditionedEnv, LinkControl, NetworkProvider, RandomProvider, TaskProvider, TimeProvider,
    Timer, UdpOptions, drive,
};
use twinspan_session::{CloseReason, ConnectToken};

use crate::args::{BOTS_MAX, BotsArgs};
use crate::error::CommandError;
use crate::plan::{Network, Order, Plan, Report, read_line};

/// Bots that share one socket.
const BOTS_PER_SOCKET: usize = 64;
/// Time over which bots start, per bot: the server does one handshake at a time between ticks.
const START_SPACING: Duration = Duration::from_micros(1_500);
/// How often orders are looked at.
const TURN: Duration = Duration::from_millis(20);
/// Time from one report to the next, on the server's clock.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The same while the bots rest and somebody waits for their last answers.
const REPORT_INTERVAL_RESTING: Duration = Duration::from_millis(100);
/// Orders that wait; more are waited for.
const ORDERS_WAITING_MAX: usize = 64;

/// The environment of the bots: the real one, with the demo's network conditions in between.
type BotEnv = ConditionedEnv<ReactorEnv>;
type SharedFleet = Rc<RefCell<Fleet>>;

/// Runs the bots and returns the exit status.
///
/// # Errors
/// [`CommandError`] when the plan or the tokens cannot be used or nothing can be reported.
pub fn run(args: &BotsArgs) -> Result<u8, CommandError> {
    if args.is_visit() {
        return visit::run(args);
    }
    if io::stdin().is_terminal() {
        let hint = "a terminal is no plan, give --keys and --server or --token-file";
        return Err(CommandError::Plan(hint.into()));
    }
    let mut input = BufReader::new(io::stdin());
    let plan = read_plan(&mut input)?;
    let orders = listen(input).map_err(CommandError::Bots)?;
    let reactor = ReactorEnv::with_epoch(None, plan.epoch_nanos).map_err(CommandError::Bots)?;
    reactor.clone().block_on(async move {
        let began = reactor.now();
        let fleets = assemble(&reactor, &plan).await?;
        attend(&reactor, began, &fleets, &orders).await
    })
}

/// Puts all bots of a plan to work.
async fn assemble(reactor: &ReactorEnv, plan: &Plan) -> Result<Vec<Afloat>, CommandError> {
    let mut fleets = Vec::new();
    for (index, tokens) in plan.tokens.chunks(BOTS_PER_SOCKET).enumerate() {
        let env = ConditionedEnv::new(reactor.clone(), LinkControl::new());
        set_network(env.control(), plan.conditions, tokens.len());
        let bots = Rc::new(RefCell::new(muster(&env, plan, index, tokens)?));
        let task = launch(&env, plan.server, Rc::clone(&bots)).await?;
        fleets.push(Afloat { bots, link: env.control().clone(), _task: task });
    }
    Ok(fleets)
}

/// A fleet at work.
struct Afloat {
    bots: SharedFleet,
    /// What rules its network.
    link: LinkControl,
    /// What drives it; dropping it would stop it.
    _task: <BotEnv as TaskProvider>::Task,
}

fn set_network(link: &LinkControl, network: Network, bots: usize) {
    // Conditions of a network are held to their ranges when they are made, so none is refused.
    let _ = link.set(network.conditions(bots));
}

fn read_plan(input: &mut impl BufRead) -> Result<Plan, CommandError> {
    let unusable = |reason: String| CommandError::Plan(reason);
    let mut line = String::new();
    if !read_line(input, &mut line).map_err(|error| unusable(error.to_string()))? {
        return Err(unusable("it is empty".into()));
    }
    let plan: Plan = serde_json::from_str(&line).map_err(|error| unusable(error.to_string()))?;
    if plan.tokens.is_empty() || plan.tokens.len() > BOTS_MAX as usize {
        let count = plan.tokens.len();
        return Err(unusable(format!("it has {count} tokens, not 1 to {BOTS_MAX}")));
    }
    Ok(plan)
}

/// Reads orders on a thread of its own; the channel closes with standard input.
fn listen(mut input: BufReader<io::Stdin>) -> io::Result<Receiver<Order>> {
    let (tx, rx) = sync_channel(ORDERS_WAITING_MAX);
    thread::Builder::new().name("orders".into()).spawn(move || {
        let mut line = String::new();
        while let Ok(true) = read_line(&mut input, &mut line) {
            if let Ok(order) = serde_json::from_str(&line)
                && tx.send(order).is_err()
            {
                return;
            }
        }
    })?;
    Ok(rx)
}

/// Makes the bots that share one socket.
fn muster(
    env: &BotEnv,
    plan: &Plan,
    socket: usize,
    tokens: &[String],
) -> Result<Fleet, CommandError> {
    let suites: Arc<dyn AeadSuite> = Arc::new(measured_suite());
    let first = socket * BOTS_PER_SOCKET;
    let mut bots = Vec::with_capacity(tokens.len());
    for (index, token) in tokens.iter().enumerate() {
        let number = (first + index) as u64;
        let token = ConnectToken::from_text(token)
            .map_err(|error| CommandError::Plan(error.to_string()))?;
        let client = Client::new(
            ClientConfig::default(),
            Arc::clone(&suites),
            &token,
            plan.server,
            env.secrets(),
            env.stream("client", number),
        )
        .map_err(|error| CommandError::Plan(error.to_string()))?;
        bots.push(Bot::new(client, BotConfig::default(), env.stream("bot", number)));
    }
    let began = env.now();
    Ok(Fleet::new(bots, |index| began.after(START_SPACING * (first + index) as u32)))
}

/// Binds a socket and drives the fleet over it.
async fn launch(
    env: &BotEnv,
    server: SocketAddr,
    fleet: SharedFleet,
) -> Result<<BotEnv as TaskProvider>::Task, CommandError> {
    let local: IpAddr = match (server.ip().is_loopback(), server) {
        (true, _) => server.ip(),
        (false, SocketAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (false, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let options = UdpOptions { pool_packets: 64 * BOTS_PER_SOCKET, ..UdpOptions::default() };
    let mut socket = env
        .bind_udp((local, 0).into(), &options)
        .await
        .map_err(|error| CommandError::Bots(io::Error::other(error)))?;
    let task_env = env.clone();
    Ok(env.spawn("fleet", async move {
        let mut machine = fleet;
        // A socket that fails leaves its bots without a connection, which the report shows.
        let _ = drive(&task_env, &mut socket, &mut machine).await;
    }))
}

/// Obeys orders and reports until all bots have ended or nobody gives orders any more.
async fn attend(
    env: &ReactorEnv,
    began: Timestamp,
    fleets: &[Afloat],
    orders: &Receiver<Order>,
) -> Result<u8, CommandError> {
    let mut timer = env.timer();
    let mut tally = Tally { began, ..Tally::default() };
    let mut report_at = next_report(env.now(), REPORT_INTERVAL);
    loop {
        sleep_until(&mut timer, env.now().after(TURN).min(report_at)).await;
        match obey(fleets, orders) {
            Mood::Active => {}
            Mood::Resting => {
                tally.resting = true;
                report_at = env.now();
            }
            // Whoever would read a report is gone.
            Mood::Abandoned => return Ok(1),
        }
        let ended = fleets.iter().all(|fleet| {
            let fleet = fleet.bots.borrow();
            fleet.bots().iter().all(|bot| bot.client().closed().is_some())
        });
        if env.now() >= report_at || ended {
            report(fleets, &mut tally, ended).map_err(CommandError::Output)?;
            let interval = if tally.resting { REPORT_INTERVAL_RESTING } else { REPORT_INTERVAL };
            report_at = next_report(env.now(), interval);
        }
        if ended {
            return Ok(0);
        }
    }
}

/// The next whole multiple of `interval`: both processes count the same seconds.
fn next_report(now: Timestamp, interval: Duration) -> Timestamp {
    let interval = interval.as_nanos() as u64;
    Timestamp::from_nanos((now.as_nanos() / interval + 1) * interval)
}

async fn sleep_until(timer: &mut <ReactorEnv as TimeProvider>::Timer, at: Timestamp) {
    timer.set(Some(at));
    std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// What the last orders make of the bots.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// They go on as they are.
    Active,
    /// They were just told to rest.
    Resting,
    /// Whoever gave orders is gone.
    Abandoned,
}

/// Takes the orders that came.
fn obey(fleets: &[Afloat], orders: &Receiver<Order>) -> Mood {
    let mut mood = Mood::Active;
    loop {
        match orders.try_recv() {
            Ok(Order::Network(network)) => {
                for fleet in fleets {
                    set_network(&fleet.link, network, fleet.bots.borrow().bots().len());
                }
            }
            Ok(Order::Rest) => {
                fleets.iter().for_each(|fleet| fleet.bots.borrow_mut().rest());
                mood = Mood::Resting;
            }
            Err(TryRecvError::Empty) => return mood,
            Err(TryRecvError::Disconnected) => return Mood::Abandoned,
        }
    }
}

/// What is summed up from report to report.
#[derive(Default)]
struct Tally {
    /// When the first bot could start.
    began: Timestamp,
    ages: Ages,
    /// Entities in sight of all bots, summed over all reports, and how many bots that were.
    visible: usize,
    observers: usize,
    /// Whether the bots were told to rest; what they see then is no sample of the run.
    resting: bool,
}

/// Prints what the bots did and saw.
fn report(fleets: &[Afloat], tally: &mut Tally, last: bool) -> io::Result<()> {
    let mut report = Report { last, resting: tally.resting, ..Report::default() };
    let mut recent = Ages::default();
    for fleet in fleets {
        let mut fleet = fleet.bots.borrow_mut();
        recent.down.add(&fleet.ages().down);
        recent.state_age.add(&fleet.ages().state_age);
        fleet.forget_ages();
        for bot in fleet.bots() {
            add(&mut report, bot, tally.began);
            let stands = bot.client().own().is_some() && bot.client().closed().is_none();
            if stands && !tally.resting {
                tally.visible += bot.client().replica().len().saturating_sub(1);
                tally.observers += 1;
            }
        }
    }
    tally.ages.down.add(&recent.down);
    tally.ages.state_age.add(&recent.state_age);
    report.visible_mean = tally.visible as f64 / tally.observers.max(1) as f64;
    report.down = tally.ages.down.percentiles().into();
    report.down_recent = (recent.down.count() > 0).then(|| recent.down.percentiles().into());
    report.state_age = tally.ages.state_age.percentiles().into();
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    writeln!(out)?;
    out.flush()
}

fn add(report: &mut Report, bot: &Bot, began: Timestamp) {
    if let Some(at) = bot.connected_at() {
        report.connected += 1;
        let after = at.since(began).as_secs_f64() * 1_000.0;
        report.connect_ms_max = report.connect_ms_max.max(after);
    }
    if let Some(reason) = bot.client().closed() {
        report.ended += 1;
        report.ended_badly += u32::from(reason != CloseReason::ServerDraining);
    }
    report.settled += u32::from(bot.is_settled() && bot.client().closed().is_none());
    let stats = bot.client().stats();
    report.inputs_sent += stats.inputs_sent;
    report.states_applied += stats.states_applied;
    report.states_stale += stats.states_stale;
    report.states_expected += stats.states_expected;
    report.malformed += stats.states_malformed + stats.events_malformed;
    report.reliable_sent += stats.reliable_sent;
    report.reliable_received += stats.reliable_received;
    report.out_of_order += stats.results_out_of_order;
}
