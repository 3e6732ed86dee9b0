//! Errors of setting up a server and a client.

use twinspan_messages::EncodeError;
use twinspan_session::{ConfigError, SendError, TokenError, UserId};
use twinspan_world::WorldFull;

/// Why a server could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A session setting is out of its range.
    #[error(transparent)]
    Session(#[from] ConfigError),
    /// A world setting is out of its range.
    #[error(transparent)]
    World(#[from] twinspan_world::ConfigError),
    /// The area of interest does not fit the world's cells.
    #[error(transparent)]
    Interest(#[from] twinspan_world::InterestError),
    /// The world is too small for its own characters.
    #[error("the world holds too few entities for its NPCs and projectiles: {0}")]
    Full(#[from] WorldFull),
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A session setting is out of its range.
    #[error(transparent)]
    Session(#[from] ConfigError),
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Why a typed message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendMessageError {
    /// No registry was given at the start.
    #[error("no message types are known: give a registry at the start")]
    NoRegistry,
    /// The message cannot be.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The session took it not.
    #[error(transparent)]
    Session(#[from] SendError),
    /// The user has no session.
    #[error("user {user} is not here", user = user.0)]
    NotHere {
        /// The user.
        user: UserId,
    },
    /// As many messages wait as may.
    #[error("too many messages wait to be sent: send fewer, or wait")]
    Full,
}
