//! Why a measurement could not be made.

use std::io;

use twinspan_game::{ClientError, ServeError};
use twinspan_provider::BindError;
use twinspan_session::TokenError;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A process of the measurement could not be started or spoken to.
    #[error("cannot run the {name} process: {error}")]
    Child {
        /// Which one.
        name: &'static str,
        /// What the operating system says.
        error: io::Error,
    },
    /// A process of the measurement ended without its report; it said why on standard error.
    #[error("the {name} process ended without its report")]
    Ended {
        /// Which one.
        name: &'static str,
    },
    /// A process of the measurement was given something that it cannot read.
    #[error("what came on standard input cannot be used: {0}; `twinspan bench` writes it")]
    Plan(String),
    /// The server could not start.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A socket cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A token cannot be read.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Players behind relays were asked for where there are none.
    #[error("relays carry players of the world alone: leave out --relay, --world or --scenario")]
    Relay,
    /// More flows than a server knows relays.
    #[error(
        "{flows} flows would be as many relays, and a server knows {max} at most: give --flows {max}"
    )]
    Relays {
        /// Flows asked for.
        flows: u32,
        /// The most that can be.
        max: u32,
    },
    /// More clients than the simulator takes.
    #[error("the simulator takes 1 to {max} players, not {players}: give --players {max}")]
    Clients {
        /// Players asked for.
        players: u32,
        /// The most that can be.
        max: u32,
    },
    /// This system cannot pin processes and count what they do.
    #[error("there is no bench world on this system: it pins processes as Linux does")]
    NotHere,
    /// Nobody came in.
    #[error("no player could log in to the server")]
    NoLogin,
    /// The cipher is not one of this machine's.
    #[error("this machine has no cipher {0}; choose another with --cipher")]
    Cipher(String),
    /// A hub cannot be had.
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Hub(#[from] twinspan_hub::BuildError),
    /// A hub does not publish.
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Publish(#[from] twinspan_hub::PublishError),
    /// A hub does not receive.
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Recv(#[from] twinspan_hub::RecvError),
    /// A hub gave another message than was written.
    #[error("message {number} is not what was written: this is a fault of the hub")]
    Spoilt {
        /// The number in its first word.
        number: u64,
    },
    /// There can be no network namespaces here.
    #[error("cannot have two network namespaces: {0}; run as root where `unshare` and `ip` are")]
    Namespaces(String),
    /// The floor of QUIC cannot be had.
    #[error("bare quinn: {0}")]
    Quinn(String),
    /// The operating system refused something else.
    #[error("cannot measure: {0}")]
    Os(#[from] io::Error),
}
