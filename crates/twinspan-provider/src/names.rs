//! Names of hosts: what is a name, what every side answers alike, and the system's resolver.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use dns_lookup::{LookupErrorKind, getaddrinfo};

use crate::{ResolveError, TaskProvider, TimeProvider, Timer};

/// Addresses of one name that are handed on; a name with more has those that came first.
pub const ADDRESSES_PER_NAME_MAX: usize = 32;
/// How long the system's resolver is waited for.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a name, and of each part between its dots.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Where to connect, best first; at least one and at most [`ADDRESSES_PER_NAME_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// How long it holds, where that is known. The system's resolver does not tell.
    pub ttl: Option<Duration>,
}

impl Resolved {
    /// The addresses `ips` with `port`.
    ///
    /// # Errors
    /// [`ResolveError::NotFound`] when there is none.
    pub fn new(
        name: &str,
        ips: impl IntoIterator<Item = IpAddr>,
        port: u16,
        ttl: Option<Duration>,
    ) -> Result<Self, ResolveError> {
        let mut addresses = Vec::new();
        for ip in ips {
            let address = SocketAddr::new(ip, port);
            if addresses.len() < ADDRESSES_PER_NAME_MAX && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(ResolveError::NotFound { name: name.to_owned() });
        }
        Ok(Self { addresses, ttl })
    }
}

/// Answers what needs no resolver and is answered alike on every side: addresses in digits,
/// `localhost` and names under it, names under `invalid`, and what is no name at all. `None` means
/// that somebody has to be asked.
///
/// Source: RFC 6761, sections 6.3 and 6.4.
pub fn resolve_special(name: &str, port: u16) -> Option<Result<Resolved, ResolveError>> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Some(Resolved::new(name, [ip], port, None));
    }
    let plain = name.strip_suffix('.').unwrap_or(name);
    if !is_name(plain) {
        let name = name.chars().take(NAME_BYTES_MAX).collect();
        return Some(Err(ResolveError::NoName { name }));
    }
    let last = plain.rsplit('.').next().unwrap_or(plain);
    if last.eq_ignore_ascii_case("localhost") {
        let ips = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Some(Resolved::new(name, ips, port, None));
    }
    if last.eq_ignore_ascii_case("invalid") {
        return Some(Err(ResolveError::NotFound { name: name.to_owned() }));
    }
    None
}

/// Whether this may be the name of a host: labels of letters, digits, `-` and `_`.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.split('.').all(|label| {
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
}

/// Asks the operating system's resolver, off the thread and for [`RESOLVE_TIMEOUT`] at most.
///
/// That resolver has one answer for "the server failed" and "no server answered": it is a
/// [`ResolveError::ServerFailure`] before the time is up.
///
/// # Errors
/// [`ResolveError`] names the name and why it stands for nothing.
///
/// # Cancel safety
/// Dropping the future forgets the answer.
pub async fn resolve_by_system<E: TaskProvider + TimeProvider>(
    env: &E,
    name: &str,
    port: u16,
) -> Result<Resolved, ResolveError> {
    if let Some(answer) = resolve_special(name, port) {
        return answer;
    }
    let asked = name.to_owned();
    let mut lookup = pin!(env.offload("resolve", move || ask_system(&asked, port)));
    let mut timer = env.timer();
    timer.set(Some(env.now().after(RESOLVE_TIMEOUT)));
    poll_fn(|cx| {
        if let Poll::Ready(answer) = lookup.as_mut().poll(cx) {
            return Poll::Ready(match answer {
                Ok(answer) => answer,
                Err(source) => Err(ResolveError::Offload { name: name.to_owned(), source }),
            });
        }
        if timer.poll_expired(cx).is_ready() {
            return Poll::Ready(Err(ResolveError::TimedOut { name: name.to_owned() }));
        }
        Poll::Pending
    })
    .await
}

/// Asks the operating system's resolver and waits for it.
fn ask_system(name: &str, port: u16) -> Result<Resolved, ResolveError> {
    let found = getaddrinfo(Some(name), None, None).map_err(|error| match error.kind() {
        LookupErrorKind::NoName | LookupErrorKind::NoData => {
            ResolveError::NotFound { name: name.to_owned() }
        }
        LookupErrorKind::Again | LookupErrorKind::Fail => {
            ResolveError::ServerFailure { name: name.to_owned() }
        }
        _ => ResolveError::Os { name: name.to_owned(), source: error.into() },
    })?;
    let ips = found.filter_map(Result::ok).map(|info| info.sockaddr.ip());
    Resolved::new(name, ips, port, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_addresses() {
        for (name, wanted) in [("10.1.2.3", "10.1.2.3:80"), ("::1", "[::1]:80")] {
            let answer = resolve_special(name, 80).unwrap().unwrap();
            assert_eq!(answer.addresses, [wanted.parse().unwrap()]);
        }
    }

    #[test]
    fn names_with_a_meaning_of_their_own_ask_nobody() {
        for name in ["localhost", "LOCALHOST.", "a.localhost"] {
            let answer = resolve_special(name, 1).unwrap().unwrap();
            assert!(answer.addresses.iter().all(|address| address.ip().is_loopback()));
        }
        let answer = resolve_special("a.b.invalid", 1).unwrap();
        assert!(matches!(answer, Err(ResolveError::NotFound { .. })));
        assert!(resolve_special("example.org", 1).is_none());
        assert!(resolve_special("invalid.example", 1).is_none());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}.org", "a".repeat(64));
        let longest = vec!["a".repeat(63); 4].join(".");
        for name in ["", ".", "a..b", "a b", "a\0b", "a/b", "ä.org", &long, &longest] {
            let answer = resolve_special(name, 1);
            assert!(matches!(answer, Some(Err(ResolveError::NoName { .. }))), "{name:?}");
        }
    }

    #[test]
    fn a_name_has_a_bounded_number_of_addresses_and_each_once() {
        let ips = (0..100_u8).chain(0..100).map(|last| IpAddr::from([10, 0, 0, last]));
        let answer = Resolved::new("many", ips, 1, None).unwrap();
        assert_eq!(answer.addresses.len(), ADDRESSES_PER_NAME_MAX);
        assert!(answer.addresses.is_sorted());
        assert!(Resolved::new("none", [], 1, None).is_err());
    }
}
