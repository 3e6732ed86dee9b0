//! Why a command could not do its work, each in one line that says what to do.

use std::io;

use twinspan_bench::BenchError;
use twinspan_game::ServeError;
use twinspan_game::scenario::ScenarioError;
use twinspan_provider::BindError;

use crate::http::HttpError;

/// What shells show of a program that the signal for a broken pipe ended.
const BROKEN_PIPE_STATUS: u8 = 128 + 13;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The world server could not start.
    #[error("{0}{advice}", advice = serve_advice(.0))]
    Serve(ServeError),
    /// The configured world server could not start.
    #[error("{0}{advice}", advice = start_advice(.0))]
    Start(ServeError),
    /// The page could not be served.
    #[error("{0}; {advice}serve no page with --no-http", advice = http_advice(.0))]
    Http(HttpError),
    /// The bots' process could not be started or spoken to.
    #[error("cannot run the bots' process: {0}; {advice}", advice = bots_advice(.0))]
    Bots(io::Error),
    /// The bots' process was given a plan that it cannot read.
    #[error("the plan on standard input cannot be used: {0}; `twinspan demo` writes such plans")]
    Plan(String),
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// A key file cannot be used.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeysError),
    /// A server's configuration cannot be used.
    #[error(transparent)]
    Configuration(#[from] crate::serve::ConfigError),
    /// The scenario's grid cannot be set up.
    #[error(transparent)]
    Grid(#[from] twinspan_grid::GridError),
    /// A grid cannot run.
    #[error(transparent)]
    GridServer(#[from] crate::grid::GridCommandError),
    /// A viewer cannot run.
    #[error(transparent)]
    Viewer(#[from] crate::viewer::ViewerError),
    /// Bans cannot be kept.
    #[error(transparent)]
    Bans(#[from] crate::serve::BansError),
    /// The server's figures cannot be served.
    #[error("{0}; choose another address for `metrics` in the configuration, or leave it out")]
    Metrics(HttpError),
    /// Tokens for bots cannot be used.
    #[error("{file}: {what}")]
    Tokens {
        /// Where they were read from.
        file: String,
        /// What is wrong with them.
        what: String,
    },
    /// The relay could not start.
    #[error(transparent)]
    Relay(#[from] twinspan_relay::RelayError),
    /// The relay's socket failed.
    #[error("the relay ended: {0}")]
    RelayEnded(twinspan_provider::UdpError),
    /// A flag was given that changes nothing.
    #[error("{flag} means nothing {with}: leave it out")]
    Unused {
        /// The flag.
        flag: &'static str,
        /// Where it means nothing.
        with: &'static str,
    },
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
    /// A scenario cannot be run.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A run cannot be recorded or replayed.
    #[error(transparent)]
    Tape(#[from] crate::sim::TapeError),
    /// A scenario file cannot be used.
    #[error(transparent)]
    ScenarioFile(#[from] crate::settings_file::SettingsFileError),
    /// The options of a run cannot be read.
    #[error("{0}")]
    Options(String),
    /// A run cannot be shrunk.
    #[error("{0}{advice}", advice = crate::sim::shrink_advice(.0))]
    Shrink(twinspan_sim::shrink::ShrinkError),
    /// A proxy cannot run.
    #[error(transparent)]
    Proxy(#[from] crate::proxy::ProxyError),
    /// A run cannot be shown.
    #[error(transparent)]
    Trace(#[from] crate::sim::TraceError),
    /// Seeds cannot be verified.
    #[error(transparent)]
    Verify(#[from] crate::sim::VerifyError),
    /// A run called out of its fence.
    #[error("{0}; with the same seed it may run otherwise")]
    Fence(#[from] twinspan_fence::FenceError),
    /// A measurement cannot be made.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The relay cannot be measured.
    #[error("{0}")]
    BenchRelay(String),
    /// The codec of Second Life UDP cannot be measured.
    #[error("{0}")]
    BenchLludp(String),
    /// What the simulator does cannot be measured.
    #[error("{0}")]
    BenchSim(String),
    /// An endpoint is none.
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Endpoint(twinspan_hub::EndpointError),
    /// A viewer cannot be measured.
    #[error("{0}")]
    BenchViewer(String),
    /// A capture cannot be decoded.
    #[error(transparent)]
    Decode(crate::decode::DecodeError),
}

/// What to do about a server that could not start.
const fn serve_advice(error: &ServeError) -> &'static str {
    match error {
        ServeError::Bind(BindError::Os { .. }) => "; choose another address with --listen",
        // These end with what to choose.
        ServeError::Bind(_) => " with --listen",
        _ => "",
    }
}

/// The same about one whose address is in a file.
const fn start_advice(error: &ServeError) -> &'static str {
    match error {
        ServeError::Bind(BindError::Os { .. }) => "; choose another `listen` in the configuration",
        // These end with what to choose.
        ServeError::Bind(_) => " as `listen` in the configuration",
        _ => "",
    }
}

/// What to do about a page that cannot be served, besides serving none.
const fn http_advice(error: &HttpError) -> &'static str {
    match error {
        HttpError::Thread { .. } => "",
        _ => "choose another address with --http, or ",
    }
}

/// What to do about bots that cannot be run.
fn bots_advice(error: &io::Error) -> &'static str {
    let errno = rustix::io::Errno::from_io_error(error);
    if matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)) {
        "raise the limit of open files with `ulimit -n`"
    } else {
        "try again with fewer --bots"
    }
}

impl CommandError {
    /// The exit status: 2 for what the caller can mend by another command line, else 1; 141, as if
    /// the signal for it had ended the program, when nobody reads standard output any more.
    pub fn status(&self) -> u8 {
        match self {
            Self::Serve(ServeError::Os(_))
            | Self::Start(ServeError::Os(_))
            | Self::Http(HttpError::Thread { .. })
            | Self::Metrics(HttpError::Thread { .. }) => 1,
            Self::Serve(_)
            | Self::Start(_)
            | Self::Http(_)
            | Self::Plan(_)
            | Self::Scenario(_)
            | Self::Grid(_)
            | Self::Tape(_) => 2,
            Self::Keys(_) | Self::Configuration(_) | Self::Metrics(_) | Self::Tokens { .. } => 2,
            Self::Bans(_) | Self::Unused { .. } => 2,
            Self::Relay(twinspan_relay::RelayError::Os(_)) | Self::RelayEnded(_) => 1,
            Self::Relay(_) => 2,
            Self::Output(_) if self.is_silent() => BROKEN_PIPE_STATUS,
            Self::Bench(
                BenchError::Plan(_)
                | BenchError::Relay
                | BenchError::Relays { .. }
                | BenchError::Clients { .. },
            ) => 2,
            Self::Bots(_)
            | Self::Output(_)
            | Self::Signals(_)
            | Self::Bench(_)
            | Self::BenchRelay(_)
            | Self::BenchLludp(_)
            | Self::BenchSim(_)
            | Self::BenchViewer(_)
            | Self::Fence(_) => 1,
            Self::GridServer(error) => error.status(),
            #[cfg(target_os = "linux")]
            Self::Endpoint(_) => 2,
            Self::Viewer(error) => error.status(),
            Self::Verify(error) => error.status(),
            Self::Proxy(crate::proxy::ProxyError::Runtime(_)) => 1,
            Self::Trace(_) | Self::Proxy(_) => 2,
            Self::Decode(_) | Self::ScenarioFile(_) | Self::Options(_) | Self::Shrink(_) => 2,
        }
    }

    /// Whether there is nothing to say: the reader of standard output has seen enough.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_one_sentence_that_names_the_flag() {
        let address = "127.0.0.1:7777".parse().unwrap();
        let error = CommandError::Serve(ServeError::Bind(BindError::Taken(address)));
        assert_eq!(
            error.to_string(),
            "address 127.0.0.1:7777 is taken; stop what listens there or choose another port with \
             --listen"
        );
        assert_eq!(error.status(), 2);
    }

    #[test]
    fn a_reader_that_left_is_no_error_to_speak_of() {
        let error = CommandError::Output(io::ErrorKind::BrokenPipe.into());
        assert!(error.is_silent());
        assert_eq!(error.status(), 141);
        let error = CommandError::Output(io::ErrorKind::StorageFull.into());
        assert!(!error.is_silent());
        assert_eq!(error.status(), 1);
    }
}
