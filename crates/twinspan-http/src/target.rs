//! Where a connection goes, and who asks for it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

/// A host by name or in digits, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// A name, or an address in digits; of version 6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Target {
    /// A host and a port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// The address, where the host is one.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip().to_string(), address.port())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// User and password for a proxy. The password shows nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

impl Credentials {
    /// A user and its password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Zeroizing::new(password.into()) }
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_written_as_hosts_are() {
        assert_eq!(Target::new("a.example", 80).to_string(), "a.example:80");
        let six: SocketAddr = "[::1]:9".parse().unwrap();
        assert_eq!(Target::from(six).to_string(), "[::1]:9");
        assert_eq!(Target::from(six).address(), Some(six));
        assert_eq!(Target::new("a.example", 80).address(), None);
    }

    #[test]
    fn debug_output_shows_no_password() {
        let shown = format!("{:?}", Credentials::new("user", "secret"));
        assert!(shown.contains("user") && !shown.contains("secret"), "{shown}");
    }
}
