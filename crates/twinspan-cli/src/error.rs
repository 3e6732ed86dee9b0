//! Why a command could not do its work, each in one line that says what to do.

use std::io;

use twinspan_game::ServeError;
use twinspan_game::scenario::ScenarioError;

use crate::http::HttpError;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The world server could not start.
    #[error("{0}; choose another address with --listen")]
    Serve(ServeError),
    /// The page could not be served.
    #[error("{0} with --http, or serve no page with --no-http")]
    Http(HttpError),
    /// The bots' process could not be started or spoken to.
    #[error("cannot run the bots' process: {0}; try again with fewer --bots")]
    Bots(io::Error),
    /// The bots' process was given a plan that it cannot read.
    #[error("the plan on standard input cannot be used: {0}; `twinspan demo` writes such plans")]
    Plan(String),
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
    /// A scenario cannot be run.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
}

impl CommandError {
    /// The exit status: 2 for what the caller can mend by another command line, else 1.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Serve(_) | Self::Http(_) | Self::Plan(_) | Self::Scenario(_) => 2,
            Self::Bots(_) | Self::Output(_) | Self::Signals(_) => 1,
        }
    }
}
