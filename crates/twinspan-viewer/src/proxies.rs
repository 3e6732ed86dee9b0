//! Proxies: which a client goes through, and what became of its associations.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use twinspan_http::socks5::Socks5Config;
use twinspan_http::{ClientConfig, ClientError, HttpClient, Proxy, ProxyUrlError};
use twinspan_provider::Env;

/// HTTP clients that are kept, one for each proxy that was used.
pub const HTTP_CLIENTS_MAX: usize = 4;

/// Which proxies a client goes through. `Debug` shows no password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// For datagrams: to simulators.
    pub datagrams: Option<Socks5Config>,
    /// For login, capabilities and event queues.
    pub http: Option<Proxy>,
}

impl ProxySettings {
    /// No proxy.
    pub const NONE: Self = Self { datagrams: None, http: None };

    /// One proxy for all that it can carry: datagrams go directly where it speaks HTTP alone.
    pub fn of(proxy: Proxy) -> Self {
        let datagrams = match &proxy {
            Proxy::Socks5 { config, .. } => Some(config.clone()),
            Proxy::Http { .. } => None,
        };
        Self { datagrams, http: Some(proxy) }
    }

    /// As [`of`](Self::of), from an address like `socks5h://user:password@host:1080`.
    ///
    /// # Errors
    /// [`ProxyUrlError`]
    pub fn parse(url: &str) -> Result<Self, ProxyUrlError> {
        Ok(Self::of(url.parse()?))
    }
}

/// What became of associations with proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyReport {
    /// Associations that were made.
    pub associations: u64,
    /// Of these, those that the proxy ended.
    pub lost: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Where the present one takes datagrams.
    pub relay: Option<SocketAddr>,
}

#[derive(Debug, Default)]
struct Inner {
    settings: ProxySettings,
    report: ProxyReport,
}

/// Which proxies a client goes through, and what became of its associations. Clones are the same.
///
/// The client's core keeps HTTP clients, one for each proxy, with their connections, and one
/// association for the session; one that the proxy ends is made again by itself, and told
/// ([`NetworkError::ProxyLost`](crate::NetworkError::ProxyLost),
/// [`NetworkEvent::ProxyRestored`](crate::NetworkEvent::ProxyRestored)).
#[derive(Clone, Default)]
pub struct ProxyManager(Arc<Mutex<Inner>>);

impl ProxyManager {
    pub(crate) fn new(settings: ProxySettings) -> Self {
        Self(Arc::new(Mutex::new(Inner { settings, report: ProxyReport::default() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes through these proxies with the next login.
    ///
    /// # Errors
    /// [`ProxyUrlError`] when one was put together wrongly; nothing changes then.
    pub fn set(&self, settings: ProxySettings) -> Result<(), ProxyUrlError> {
        settings.http.iter().try_for_each(Proxy::check)?;
        self.inner().settings = settings;
        Ok(())
    }

    /// Which proxies the next login goes through.
    pub fn settings(&self) -> ProxySettings {
        self.inner().settings.clone()
    }

    /// What became of associations.
    pub fn report(&self) -> ProxyReport {
        self.inner().report.clone()
    }

    pub(crate) fn on_associated(&self, relay: SocketAddr) {
        let report = &mut self.inner().report;
        report.associations += 1;
        report.relay = Some(relay);
    }

    pub(crate) fn on_lost(&self) {
        let report = &mut self.inner().report;
        report.lost += 1;
        report.relay = None;
    }

    pub(crate) fn on_failed(&self) {
        self.inner().report.failed += 1;
    }

    pub(crate) fn on_closed(&self) {
        self.inner().report.relay = None;
    }
}

impl fmt::Debug for ProxyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        f.debug_struct("ProxyManager")
            .field("settings", &inner.settings)
            .field("report", &inner.report)
            .finish()
    }
}

/// HTTP clients by the proxy that they go through; the oldest gives way to another.
#[derive(Debug)]
pub(crate) struct HttpClients<E: Env> {
    env: E,
    config: ClientConfig,
    clients: Vec<(Option<Proxy>, HttpClient<E>)>,
}

impl<E: Env> HttpClients<E> {
    pub(crate) const fn new(env: E, config: ClientConfig) -> Self {
        Self { env, config, clients: Vec::new() }
    }

    pub(crate) fn through(&mut self, proxy: Option<&Proxy>) -> Result<HttpClient<E>, ClientError> {
        if let Some((_, client)) = self.clients.iter().find(|(known, _)| known.as_ref() == proxy) {
            return Ok(client.clone());
        }
        let mut config = self.config.clone();
        if proxy.is_some() {
            config.proxy = proxy.cloned();
        }
        let client = HttpClient::new(self.env.clone(), config)?;
        if self.clients.len() >= HTTP_CLIENTS_MAX {
            self.clients.remove(0);
        }
        self.clients.push((proxy.cloned(), client.clone()));
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socks_proxy_carries_all_and_an_http_proxy_no_datagrams() {
        let socks = ProxySettings::parse("socks5h://me:secret@localhost:1080").unwrap();
        assert!(socks.datagrams.is_some() && socks.http.is_some());
        let http = ProxySettings::parse("http://localhost:8888").unwrap();
        assert!(http.datagrams.is_none() && http.http.is_some());
        assert!(ProxySettings::parse("ftp://localhost").is_err());
        let manager = ProxyManager::new(socks);
        assert!(!format!("{manager:?}").contains("secret"));
    }

    #[test]
    fn the_report_follows_associations() {
        let manager = ProxyManager::default();
        let relay = ([10, 0, 0, 9], 4_000).into();
        manager.on_associated(relay);
        assert_eq!(manager.report().relay, Some(relay));
        manager.on_lost();
        manager.on_failed();
        let wanted = ProxyReport { associations: 1, lost: 1, failed: 1, relay: None };
        assert_eq!(manager.report(), wanted);
    }
}
