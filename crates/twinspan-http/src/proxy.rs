//! Which proxy a client goes through, and how an HTTP proxy is asked for a tunnel.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use twinspan_provider::{AsyncReadExt, AsyncWriteExt, TcpStream};
use url::Url;

use crate::connect_head::{Head, connect_head};
use crate::socks5::{SOCKS5_PORT, Socks5Config};
use crate::target::{Credentials, Target};
use crate::transport::Prefixed;
use crate::{ProxyError, StatusCode};

/// Bytes that the head of a proxy's answer may have.
pub const PROXY_HEAD_BYTES_MAX: usize = 8 << 10;
/// Bytes that are read of it at once.
const READ_BYTES: usize = 1 << 10;
/// The port of HTTP proxies that are given without one.
const HTTP_PORT: u16 = 80;

/// A proxy that all connections of a client go through.
///
/// Read from an address: `http://user:password@host:port`, `socks5://..` (names are resolved here),
/// `socks5h://..` (names are resolved there). Percent signs stand for bytes, as in all addresses.
///
/// ```
/// use twinspan_http::Proxy;
///
/// let proxy: Proxy = "socks5h://me:secret@proxy.example".parse()?;
/// assert_eq!(proxy.to_string(), "socks5h://proxy.example:1080");
/// assert!("gopher://proxy.example".parse::<Proxy>().is_err());
/// # Ok::<(), twinspan_http::ProxyUrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// An HTTP proxy: `http` requests are handed to it, `https` goes through tunnels (CONNECT).
    Http {
        /// Where it is.
        server: Target,
        /// User and password, for Basic authentication.
        auth: Option<Credentials>,
    },
    /// A SOCKS5 proxy.
    Socks5 {
        /// Where it is, and user and password.
        config: Socks5Config,
        /// Who resolves the names of servers.
        names: Names,
    },
}

/// Who resolves the names of servers behind a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// This node: the proxy is told addresses.
    Here,
    /// The proxy: it is told names.
    #[default]
    AtProxy,
}

/// Why a text is no proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// It is no address.
    #[error("the proxy's address cannot be read ({0}); write scheme://host:port")]
    Unreadable(String),
    /// Its scheme is none of a proxy.
    #[error("a proxy with {0:?} is not known here; use http, socks5 or socks5h")]
    Scheme(String),
    /// It names no host.
    #[error("the proxy's address names no host; write scheme://host:port")]
    NoHost,
    /// It names no port that can be connected to.
    #[error("port 0 is no port of a proxy")]
    NoPort,
    /// Something follows the port.
    #[error("a proxy has no path; write scheme://host:port")]
    Path,
    /// User or password are no text, or such as the proxy's protocol cannot say.
    #[error("user and password are not such as can be sent: {0}")]
    Credentials(&'static str),
}

impl Proxy {
    /// Where it is.
    pub fn server(&self) -> &Target {
        match self {
            Self::Http { server, .. } => server,
            Self::Socks5 { config, .. } => &config.server,
        }
    }

    /// Checks what was put together by hand.
    ///
    /// # Errors
    /// [`ProxyUrlError`] as for one that was read.
    pub fn check(&self) -> Result<(), ProxyUrlError> {
        let server = self.server();
        if server.host.is_empty() {
            return Err(ProxyUrlError::NoHost);
        }
        if server.port == 0 {
            return Err(ProxyUrlError::NoPort);
        }
        match self {
            Self::Http { auth: Some(auth), .. } if auth.user().contains(':') => {
                Err(ProxyUrlError::Credentials("a user of an HTTP proxy has no colon"))
            }
            Self::Socks5 { config: Socks5Config { auth: Some(auth), .. }, .. }
                if !(1..=255).contains(&auth.user().len())
                    || !(1..=255).contains(&auth.password().len()) =>
            {
                Err(ProxyUrlError::Credentials("SOCKS5 has 1 to 255 bytes for each"))
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for Proxy {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let url = Url::parse(text).map_err(|error| ProxyUrlError::Unreadable(error.to_string()))?;
        let default_port = match url.scheme() {
            "http" => HTTP_PORT,
            "socks5" | "socks5h" => SOCKS5_PORT,
            other => return Err(ProxyUrlError::Scheme(other.to_owned())),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(ProxyUrlError::NoHost)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyUrlError::Path);
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let server = Target::new(host, url.port().unwrap_or(default_port));
        let auth = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                Some(Credentials::new(decoded(user)?, decoded(password.unwrap_or_default())?))
            }
        };
        let proxy = match url.scheme() {
            "http" => Self::Http { server, auth },
            scheme => {
                let names = if scheme == "socks5h" { Names::AtProxy } else { Names::Here };
                let config = Socks5Config { auth, ..Socks5Config::new(server) };
                Self::Socks5 { config, names }
            }
        };
        proxy.check()?;
        Ok(proxy)
    }
}

fn decoded(text: &str) -> Result<String, ProxyUrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| ProxyUrlError::Credentials("they are no text"))?.into_owned())
}

impl fmt::Display for Proxy {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self {
            Self::Http { .. } => "http",
            Self::Socks5 { names: Names::Here, .. } => "socks5",
            Self::Socks5 { names: Names::AtProxy, .. } => "socks5h",
        };
        write!(f, "{scheme}://{}", self.server())
    }
}

/// What tells an HTTP proxy who asks.
pub(crate) fn basic(auth: &Credentials) -> Option<HeaderValue> {
    let pair = zeroize::Zeroizing::new(format!("{}:{}", auth.user(), auth.password()));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(&*pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Asks an HTTP proxy for a tunnel to `target`. What the proxy sent behind its answer belongs to the
/// tunnel.
pub(crate) async fn tunnel<S: TcpStream>(
    mut stream: S,
    target: &Target,
    auth: Option<&Credentials>,
) -> Result<Prefixed<S>, ProxyError> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(auth) = auth {
        let value = basic(auth).ok_or(ProxyError::Credentials)?;
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(|_| ProxyError::Closed)?;
    let mut came = BytesMut::with_capacity(READ_BYTES);
    loop {
        match connect_head(&came, PROXY_HEAD_BYTES_MAX)? {
            Head::Whole { status, bytes } if status.is_informational() => {
                // It says that it is at work.
                drop(came.split_to(bytes));
                continue;
            }
            Head::Whole { status, bytes } if status.is_success() => {
                drop(came.split_to(bytes));
                return Ok(Prefixed::new(came.freeze(), stream));
            }
            // Some answer wrong credentials with 401, though they are no server.
            Head::Whole {
                status: StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED,
                ..
            } => return Err(ProxyError::Credentials),
            Head::Whole { status, .. } => {
                return Err(ProxyError::Refused { status: status.as_u16() });
            }
            Head::Part => {}
        }
        let mut part = [0; READ_BYTES];
        match stream.read(&mut part).await {
            Ok(len @ 1..) => came.extend_from_slice(part.get(..len).unwrap_or_default()),
            Ok(0) | Err(_) => return Err(ProxyError::Closed),
        }
    }
}

/// Whether a response is the HTTP proxy's own, which wants credentials.
pub(crate) fn is_refused_for_credentials(proxy: Option<&Proxy>, status: StatusCode) -> bool {
    matches!(proxy, Some(Proxy::Http { .. })) && status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Proxy, ProxyUrlError> {
        text.parse()
    }

    #[test]
    fn addresses_are_read() {
        let auth = Some(Credentials::new("a b", "c:d"));
        let server = Target::new("proxy.example", 3_128);
        let wanted = Proxy::Http { server, auth: auth.clone() };
        assert_eq!(read("http://a%20b:c%3Ad@proxy.example:3128"), Ok(wanted));
        let config = Socks5Config { auth, ..Socks5Config::new(Target::new("::1", 1_080)) };
        let wanted = Proxy::Socks5 { config, names: Names::Here };
        assert_eq!(read("socks5://a%20b:c%3Ad@[::1]"), Ok(wanted));
        let config = Socks5Config::new(Target::new("10.0.0.9", 9));
        let wanted = Proxy::Socks5 { config, names: Names::AtProxy };
        assert_eq!(read("socks5h://10.0.0.9:9/"), Ok(wanted));
        assert_eq!(read("http://proxy.example").unwrap().server().port, 80);
    }

    #[test]
    fn what_is_no_proxy_is_named() {
        assert!(matches!(read("proxy"), Err(ProxyUrlError::Unreadable(_))));
        assert_eq!(read("https://a"), Err(ProxyUrlError::Scheme("https".into())));
        assert_eq!(read("socks5://"), Err(ProxyUrlError::NoHost));
        assert_eq!(read("http://a:0"), Err(ProxyUrlError::NoPort));
        assert_eq!(read("http://a/b"), Err(ProxyUrlError::Path));
        assert_eq!(read("socks5://a?b"), Err(ProxyUrlError::Path));
        assert!(matches!(read("socks5://user@a"), Err(ProxyUrlError::Credentials(_))));
        assert!(matches!(read("http://a%3Ab:c@d"), Err(ProxyUrlError::Credentials(_))));
        assert!(matches!(read("http://%ff:c@d"), Err(ProxyUrlError::Credentials(_))));
    }

    #[test]
    fn neither_debug_nor_display_show_the_password() {
        for text in ["http://user:secret@a:1", "socks5://user:secret@a:1"] {
            let proxy = read(text).unwrap();
            let shown = format!("{proxy} {proxy:?}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn credentials_are_sent_as_basic() {
        let value = basic(&Credentials::new("Aladdin", "open sesame")).unwrap();
        // The example of RFC 7617.
        assert_eq!(value.as_bytes(), b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(value.is_sensitive());
    }
}
