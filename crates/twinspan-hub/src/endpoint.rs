//! Endpoints: where a topic is, as users write it.
//!
//! //= hub 1

use std::fmt;
use std::str::FromStr;

/// The longest endpoint that is read, in bytes.
pub const ENDPOINT_BYTES_MAX: usize = 512;
/// The longest name of a host.
const HOST_BYTES_MAX: usize = 253;
/// The longest name of an interface, as Linux has them.
const INTERFACE_BYTES_MAX: usize = 15;

/// What stands before `://`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// Shared memory of this machine.
    Shm,
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// QUIC.
    Quic,
    /// Whichever of them is best, as it turns out.
    Hub,
}

impl Scheme {
    const ALL: [(&'static str, Self); 5] = [
        ("shm", Self::Shm),
        ("udp", Self::Udp),
        ("tcp", Self::Tcp),
        ("quic", Self::Quic),
        ("hub", Self::Hub),
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Hub => "hub",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a topic is: a bare topic, `shm://topic`, `udp://host:port/topic`, `tcp://`, `quic://` or
/// `hub://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The scheme; `None` for a bare topic.
    pub scheme: Option<Scheme>,
    /// Host and port, where the scheme has them. An IPv6 address stands without its brackets, and one of
    /// a cable with its interface behind a `%`.
    pub host: Option<(String, u16)>,
    /// The topic; `None` where the type's name is to be it.
    pub topic: Option<String>,
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It is empty.
    #[error("an endpoint is empty: give a topic as `sensor/imu`, or `udp://host:port/topic`")]
    Empty,
    /// It is too long.
    #[error("an endpoint of {0} bytes is too long: {ENDPOINT_BYTES_MAX} are the most")]
    Long(usize),
    /// Nobody knows the scheme.
    #[error(
        "`{0}://` is no scheme: use shm://, udp://, tcp://, quic:// or hub://, or a bare topic"
    )]
    Scheme(String),
    /// Behind a scheme of the network there is no host with a port.
    #[error("`{0}` names no host and port: write it as `{1}://192.168.1.100:9000/topic`")]
    Host(String, Scheme),
    /// The topic has letters that topics do not have.
    #[error("`{0}` is no topic: use letters, digits and _-./:")]
    Topic(String),
}

/// The text for an error message: short, and without control characters.
fn shown(text: &str) -> String {
    text.escape_default().take(60).collect()
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        if text.len() > ENDPOINT_BYTES_MAX {
            return Err(EndpointError::Long(text.len()));
        }
        let Some((name, rest)) = text.split_once("://") else {
            return Ok(Self { scheme: None, host: None, topic: Some(topic(text)?) });
        };
        let known = Scheme::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some((_, scheme)) = known else { return Err(EndpointError::Scheme(shown(name))) };
        if *scheme == Scheme::Shm {
            let topic = if rest.is_empty() { None } else { Some(topic(rest)?) };
            return Ok(Self { scheme: Some(*scheme), host: None, topic });
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host_and_port(host);
        let host = host.ok_or_else(|| EndpointError::Host(shown(rest), *scheme))?;
        let topic = if path.is_empty() { None } else { Some(topic(path)?) };
        Ok(Self { scheme: Some(*scheme), host: Some(host), topic })
    }
}

fn topic(text: &str) -> Result<String, EndpointError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_good) {
        Ok(text.to_owned())
    } else {
        Err(EndpointError::Topic(shown(text)))
    }
}

/// Whether this names an interface, or is its number: link-local addresses are those of one cable.
fn is_interface(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=INTERFACE_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_good)
}

/// `host:port`, `[v6]:port` or `[v6%interface]:port`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // Digits alone: `parse` would take a sign.
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??;
    let host = match host.strip_prefix('[') {
        Some(inner) => {
            let inner = inner.strip_suffix(']')?;
            let (address, interface) = match inner.split_once('%') {
                Some((address, interface)) => (address, Some(interface)),
                None => (inner, None),
            };
            address.parse::<std::net::Ipv6Addr>().ok()?;
            interface.is_none_or(is_interface).then_some(inner)?
        }
        None => {
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            host.bytes().all(is_good).then_some(host)?
        }
    };
    let fits = (1..=HOST_BYTES_MAX).contains(&host.len());
    fits.then(|| (host.to_owned(), port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{scheme}://")?;
        }
        if let Some((host, port)) = &self.host {
            if host.contains(':') {
                write!(f, "[{host}]:{port}")?;
            } else {
                write!(f, "{host}:{port}")?;
            }
            if self.topic.is_some() {
                f.write_str("/")?;
            }
        }
        f.write_str(self.topic.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Option<Scheme>, Option<(String, u16)>, Option<String>) {
        let Endpoint { scheme, host, topic } = text.parse().unwrap();
        (scheme, host, topic)
    }

    #[test]
    fn every_form_of_an_endpoint_is_read() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("sensor/imu"), (None, None, some("sensor/imu")));
        assert_eq!(read("shm://sensor/imu"), (Some(Scheme::Shm), None, some("sensor/imu")));
        assert_eq!(read("shm://"), (Some(Scheme::Shm), None, None));
        let host = Some(("192.168.1.100".to_owned(), 9_000));
        assert_eq!(read("udp://192.168.1.100:9000"), (Some(Scheme::Udp), host.clone(), None));
        assert_eq!(read("QUIC://192.168.1.100:9000/a/b"), (Some(Scheme::Quic), host, some("a/b")));
        let host = Some(("fe80::1".to_owned(), 7));
        assert_eq!(read("tcp://[fe80::1]:7/x"), (Some(Scheme::Tcp), host, some("x")));
        let host = Some(("fe80::1%eth0".to_owned(), 7));
        assert_eq!(read("udp://[fe80::1%eth0]:7/x"), (Some(Scheme::Udp), host, some("x")));
        let host = Some(("robot-1.local".to_owned(), 65_535));
        assert_eq!(read("udp://robot-1.local:65535/"), (Some(Scheme::Udp), host.clone(), None));
        assert_eq!(read("hub://robot-1.local:65535/"), (Some(Scheme::Hub), host, None));
    }

    #[test]
    fn what_is_no_endpoint_is_told_with_what_to_write() {
        for (text, part) in [
            ("", "is empty"),
            ("ftp://x", "`ftp://` is no scheme"),
            ("://x", "`://` is no scheme"),
            ("udp://", "names no host"),
            ("udp://host", "udp://192.168.1.100:9000/topic"),
            ("udp://:9000", "names no host"),
            ("udp://host:70000", "names no host"),
            ("udp://host:+1", "names no host"),
            ("tcp://[::1:9", "names no host"),
            ("udp://[fe80::1%]:9", "names no host"),
            ("udp://[fe80::1%a b]:9", "names no host"),
            ("udp://[fe80::1%aaaaaaaaaaaaaaaa]:9", "names no host"),
            ("udp://[eth0%fe80::1]:9", "names no host"),
            ("tcp://::1:9", "names no host"),
            ("two words", "is no topic"),
            ("shm://a#b", "is no topic"),
            ("a\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = "x".repeat(ENDPOINT_BYTES_MAX + 1);
        assert_eq!(long.parse::<Endpoint>(), Err(EndpointError::Long(513)));
    }

    proptest! {
        #[test]
        fn any_text_is_an_endpoint_or_names_a_reason(
            text in "(shm://|udp://|tcp://|quic://|hub://|x://|)(\\[?[0-9a-f:.%]{0,12}\\]?|\\PC{0,20})(:[0-9+]{0,6})?(/\\PC{0,10})?",
        ) {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }
    }
}
