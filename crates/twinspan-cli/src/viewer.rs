//! `twinspan viewer`: an avatar on a grid, from the command line.

mod info;
mod show;
mod work;

use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use twinspan_provider::{TimeProvider, Timer, TokioEnv};
use twinspan_viewer::http::{ClientConfig, ClientError, ProxyUrlError, TlsError, Trust};
use twinspan_viewer::lludp::Vector3;
use twinspan_viewer::{
    Bot, BotError, CONTROL_AHEAD, ClientHandle, CoreError, CredentialsError, GridInfoError,
    LoginCredentials, MfaStore, MfaStoreError, PASSWORD_VARIABLE, ProxySettings, ReconnectPolicy,
    ViewerConfig, ViewerCore,
};

use crate::args::{ViewerArgs, ViewerCommand, ViewerLoginArgs};
use crate::error::CommandError;
use crate::signals::Signals;
use show::Show;
use work::Work;

/// How often signals are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long an avatar that walks about goes one way.
const LEG: Duration = Duration::from_secs(4);

/// Why a viewer cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewerError {
    /// Who logs in is nobody.
    #[error("--user: {0}")]
    User(CredentialsError),
    /// The file with the password cannot be used.
    #[error("--password-file: {0}")]
    PasswordFile(CredentialsError),
    /// There is no password.
    #[error("there is no password: give --password-file, or set {PASSWORD_VARIABLE}")]
    NoPassword,
    /// The proxy cannot be used.
    #[error("--proxy: {0}")]
    Proxy(#[from] ProxyUrlError),
    /// The certificates cannot be used.
    #[error("--ca: {0}")]
    Certificates(#[from] TlsError),
    /// A file cannot be read.
    #[error("--ca: {0}")]
    CertificateFile(io::Error),
    /// What second factors left cannot be read or kept.
    #[error("--mfa-file: {0}")]
    Mfa(#[from] MfaStoreError),
    /// The viewer cannot be started.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The configuration of HTTP cannot be used.
    #[error(transparent)]
    Http(ClientError),
    /// A grid told nothing about itself.
    #[error(transparent)]
    Info(#[from] GridInfoError),
    /// There is no runtime for it.
    #[error("cannot wait for sockets: {0}")]
    Runtime(io::Error),
}

impl ViewerError {
    /// The exit status: 2 for what another command line can mend.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Runtime(_) | Self::Core(_) | Self::Http(_) | Self::Info(_) => 1,
            _ => 2,
        }
    }
}

/// Runs a viewer; the status is 1 when it was not let in, lost its connection, or did not do all
/// that was asked for.
///
/// # Errors
/// [`CommandError`]
pub fn run(args: &ViewerArgs) -> Result<u8, CommandError> {
    let args = match &args.command {
        ViewerCommand::Login(args) => args,
        ViewerCommand::Info(args) => return info::run(args),
    };
    let credentials = credentials(args)?;
    let config = config(args)?;
    let signals = Signals::catch()?;
    let env = TokioEnv::new(None).map_err(ViewerError::Runtime)?;
    env.block_on(login(env.clone(), args, credentials, config, signals))
}

fn credentials(args: &ViewerLoginArgs) -> Result<LoginCredentials, ViewerError> {
    let password = match &args.password_file {
        Some(file) => {
            LoginCredentials::password_from_file(file).map_err(ViewerError::PasswordFile)?
        }
        None => match std::env::var(PASSWORD_VARIABLE) {
            Ok(password) if !password.is_empty() => twinspan_viewer::Secret::new(password),
            _ => return Err(ViewerError::NoPassword),
        },
    };
    let mut credentials = LoginCredentials::new(&args.user, password.reveal())
        .with_grid(args.grid.clone())
        .with_start(args.start.clone());
    if let Some(code) = &args.mfa_code {
        credentials = credentials.with_mfa_token(code);
    }
    if args.accept_terms {
        credentials = credentials.with_terms_accepted();
    }
    if args.message_read {
        credentials = credentials.with_critical_message_read();
    }
    // There is a password, and the grid has been read: what is left to be wrong is the name.
    credentials.check().map_err(ViewerError::User)?;
    Ok(credentials)
}

/// Whose certificates are taken.
fn trust(ca: Option<&Path>, without_checks: bool) -> Result<Trust, ViewerError> {
    if without_checks {
        return Ok(Trust::without_checks());
    }
    let Some(file) = ca else { return Ok(Trust::system()) };
    let pem = std::fs::read(file).map_err(ViewerError::CertificateFile)?;
    Ok(Trust::system().with_certificates(&pem)?)
}

fn config(args: &ViewerLoginArgs) -> Result<ViewerConfig, ViewerError> {
    let trust = trust(args.ca.as_deref(), args.no_certificate_checks)?;
    let proxies = match &args.proxy {
        Some(url) => ProxySettings::parse(url)?,
        None => ProxySettings::NONE,
    };
    let mfa = match &args.mfa_file {
        Some(file) => MfaStore::load(file)?,
        None => MfaStore::default(),
    };
    let reconnect =
        if args.no_reconnect { ReconnectPolicy::NEVER } else { ReconnectPolicy::default() };
    let http = ClientConfig { trust, ..ClientConfig::default() };
    Ok(ViewerConfig { http, proxies, mfa, reconnect, ..ViewerConfig::default() })
}

async fn login(
    env: TokioEnv,
    args: &ViewerLoginArgs,
    credentials: LoginCredentials,
    config: ViewerConfig,
    signals: Signals,
) -> Result<u8, CommandError> {
    let (core, handle) = ViewerCore::new(env.clone(), config).map_err(ViewerError::Core)?;
    let mut show = Show::new(args, &handle, env.now());
    let work = async {
        let mut run = pin!(core.run());
        let mut session = pin!(session(&env, args, &handle, credentials, &signals, &mut show));
        // The core does not end while there is a handle.
        poll_fn(|cx| {
            let ended = run.as_mut().poll(cx).is_ready();
            match session.as_mut().poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    let outcome = work.await;
    let is_well = outcome.transpose()?.unwrap_or(false);
    if let Some(file) = &args.mfa_file {
        handle.network_manager.mfa().save(file).map_err(ViewerError::Mfa)?;
    }
    Ok(u8::from(!is_well))
}

/// One session; whether all went well.
async fn session(
    env: &TokioEnv,
    args: &ViewerLoginArgs,
    handle: &ClientHandle,
    credentials: LoginCredentials,
    signals: &Signals,
    show: &mut Show,
) -> Result<bool, CommandError> {
    let manager = &handle.network_manager;
    let connected = until(env, signals, show, manager.connect(credentials), None).await?;
    let Some(connected) = connected else {
        manager.disconnect().await;
        show.drain(env.now())?;
        show.summary(env.now())?;
        return Ok(false);
    };
    let mut is_well = connected.is_ok();
    if is_well {
        let bot = handle.bot();
        let began = env.now();
        let limit = args.seconds.map(|seconds| began.after(Duration::from_secs(seconds)));
        let work = show.work();
        if until(env, signals, show, act(env, args, &bot, &work), limit).await?.is_none() {
            work.end();
        }
        // Nothing ends it but the time, a signal, or the end of the connection.
        let lost = until(env, signals, show, over(env, handle), limit).await?;
        is_well = lost.is_none() && work.is_well();
        manager.disconnect().await;
    }
    show.drain(env.now())?;
    show.summary(env.now())?;
    Ok(is_well)
}

/// Waits until the client is connected no more and does not try to be.
async fn over(env: &TokioEnv, handle: &ClientHandle) {
    while handle.network_manager.status().is_active() {
        sleep(env, LOOK).await;
    }
}

/// Does what was asked for.
async fn act(env: &TokioEnv, args: &ViewerLoginArgs, bot: &Bot, work: &Work) {
    for text in &args.say {
        work.done(bot.say(text).await);
    }
    for place in &args.teleport {
        let [x, y, z] = place.position;
        work.done(bot.teleport_to(&place.region, Vector3::new(x, y, z)).await.map(drop));
    }
    if args.walk
        && let Err(error) = walk_about(env, bot).await
    {
        work.fail("walk", &error);
    }
}

/// Walks in a square until it is stopped.
async fn walk_about(env: &TokioEnv, bot: &Bot) -> Result<(), BotError> {
    let ways = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)];
    for (dx, dy) in ways.into_iter().cycle() {
        let here = bot.position().await?;
        bot.turn_to(Vector3::new(here.x + dx, here.y + dy, here.z)).await?;
        bot.press(CONTROL_AHEAD).await?;
        sleep(env, LEG).await;
        bot.stop().await?;
    }
    Ok(())
}

async fn sleep(env: &TokioEnv, duration: Duration) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(duration)));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// What a future gives, unless a signal or the time comes first; what happens is shown meanwhile.
async fn until<F: Future>(
    env: &TokioEnv,
    signals: &Signals,
    show: &mut Show,
    future: F,
    limit: Option<twinspan_core::time::Timestamp>,
) -> Result<Option<F::Output>, CommandError> {
    let mut future = pin!(future);
    let mut timer = env.timer();
    loop {
        timer.set(Some(env.now().after(LOOK)));
        let turn = poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            timer.poll_expired(cx).map(|()| None)
        });
        let output = turn.await;
        show.drain(env.now())?;
        if output.is_some() {
            return Ok(output);
        }
        if signals.caught() || limit.is_some_and(|limit| limit <= env.now()) {
            return Ok(None);
        }
    }
}
