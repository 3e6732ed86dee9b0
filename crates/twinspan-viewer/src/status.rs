//! Where a client is in its life: one table of transitions.

use std::fmt;

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkStatus {
    /// It was never connected.
    #[default]
    Idle,
    /// The grid is asked to let it in.
    Authenticating,
    /// The grid let it in; its first region has not yet.
    Connecting,
    /// It is in a region.
    Connected,
    /// It lost its region and tries to come back, by a new login.
    Reconnecting,
    /// It says goodbye.
    Disconnecting,
    /// It was connected, or tried to be, and is no more.
    Disconnected,
}

/// What moves a client from one status to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The user asks for a connection.
    Login,
    /// The grid let the avatar in.
    LoginAccepted,
    /// The first region let it in.
    Arrived,
    /// The connection was lost or refused and will be tried again.
    Lost,
    /// It is over, and nothing will be tried again.
    Ended,
    /// The user asks for the end.
    Logout,
}

impl NetworkStatus {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Authenticating,
        Self::Connecting,
        Self::Connected,
        Self::Reconnecting,
        Self::Disconnecting,
        Self::Disconnected,
    ];

    /// The whole lifecycle in one table; what is not listed is refused.
    pub const fn after(self, cause: Cause) -> Option<Self> {
        use NetworkStatus::{
            Authenticating, Connected, Connecting, Disconnected, Disconnecting, Idle, Reconnecting,
        };
        Some(match (self, cause) {
            (Idle | Disconnected, Cause::Login) => Authenticating,
            (Authenticating, Cause::LoginAccepted) => Connecting,
            // Coming back is one status, from the loss to the arrival.
            (Reconnecting, Cause::LoginAccepted | Cause::Lost) => Reconnecting,
            (Connecting | Reconnecting, Cause::Arrived) => Connected,
            (Connecting | Connected, Cause::Lost) => Reconnecting,
            // Nobody has to be told goodbye before somebody let the avatar in.
            (Authenticating, Cause::Logout | Cause::Ended) => Disconnected,
            (Connecting | Connected | Reconnecting, Cause::Logout) => Disconnecting,
            (Connecting | Connected | Reconnecting | Disconnecting, Cause::Ended) => Disconnected,
            _ => return None,
        })
    }

    /// Whether a connection is there or on its way.
    pub const fn is_active(self) -> bool {
        !matches!(self, Self::Idle | Self::Disconnected)
    }
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Login, Self::LoginAccepted, Self::Arrived, Self::Lost, Self::Ended, Self::Logout];
}

impl fmt::Display for NetworkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Authenticating => "authenticating",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Disconnecting => "disconnecting",
            Self::Disconnected => "disconnected",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair that is allowed; all others are refused.
    const TABLE: &str = "\
Idle Login Authenticating
Authenticating LoginAccepted Connecting
Authenticating Ended Disconnected
Authenticating Logout Disconnected
Connecting Arrived Connected
Connecting Lost Reconnecting
Connecting Ended Disconnected
Connecting Logout Disconnecting
Connected Lost Reconnecting
Connected Ended Disconnected
Connected Logout Disconnecting
Reconnecting LoginAccepted Reconnecting
Reconnecting Arrived Connected
Reconnecting Lost Reconnecting
Reconnecting Ended Disconnected
Reconnecting Logout Disconnecting
Disconnecting Ended Disconnected
Disconnected Login Authenticating
";

    #[test]
    fn the_table_is_as_written_here() {
        let mut table = String::new();
        for status in NetworkStatus::ALL {
            for cause in Cause::ALL {
                if let Some(next) = status.after(cause) {
                    table += &format!("{status:?} {cause:?} {next:?}\n");
                }
            }
        }
        assert_eq!(table, TABLE);
    }

    #[test]
    fn every_status_but_the_first_can_end() {
        for status in NetworkStatus::ALL.into_iter().filter(|status| status.is_active()) {
            assert_eq!(status.after(Cause::Ended), Some(NetworkStatus::Disconnected));
        }
    }
}
