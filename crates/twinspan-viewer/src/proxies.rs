//! Proxies: which a client goes through, and what became of its associations.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use twinspan_http::socks5::Socks5Config;
use twinspan_http::{ClientConfig, ClientError, HttpClient, Proxy, ProxyUrlError};
use twinspan_provider::Env;

/// HTTP clients that are kept, one for each proxy that was used.
pub const HTTP_CLIENTS_MAX: usize = 4;
/// Associations of all clients behind one manager at a time; a session beyond does not begin.
pub const ASSOCIATIONS_MAX: usize = 256;

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
    /// Associations that are open or being made.
    pub open: usize,
    /// Where the one that was made last takes datagrams; `None` when it is over.
    pub relay: Option<SocketAddr>,
}

#[derive(Debug, Default)]
struct Inner {
    settings: ProxySettings,
    report: ProxyReport,
}

/// Which proxies clients go through, and what became of their associations. Clones are the same.
///
/// Several clients may be behind one manager: [`Client::behind`](crate::Client::behind) for those
/// with threads of their own, [`ProxyPool`] for those on one thread, which share HTTP clients and
/// their connections too. Each session has an association of its own: a simulator knows an avatar
/// by the address that the association gives it, so one that was used is of no use to another
/// session. One that the proxy ends is made again by itself, and told
/// ([`NetworkError::ProxyLost`](crate::NetworkError::ProxyLost),
/// [`NetworkEvent::ProxyRestored`](crate::NetworkEvent::ProxyRestored)). All of them together are
/// [`ASSOCIATIONS_MAX`] at most.
#[derive(Clone, Default)]
pub struct ProxyManager(Arc<Mutex<Inner>>);

/// A session's right to one association at a time.
#[derive(Debug)]
pub(crate) struct AssociationPlace(ProxyManager);

impl Drop for AssociationPlace {
    fn drop(&mut self) {
        self.0.inner().report.open -= 1;
    }
}

impl ProxyManager {
    /// A manager whose clients go through these proxies.
    pub fn new(settings: ProxySettings) -> Self {
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

    /// A place for one association; `None` when all are taken.
    pub(crate) fn place(&self) -> Option<AssociationPlace> {
        let report = &mut self.inner().report;
        if report.open >= ASSOCIATIONS_MAX {
            return None;
        }
        report.open += 1;
        Some(AssociationPlace(self.clone()))
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

/// What clients on one thread share: a [`ProxyManager`], and HTTP clients with their connections,
/// one for each proxy; the oldest gives way to another. Clones are the same.
///
/// Give it to [`ViewerCore::pooled`](crate::ViewerCore::pooled).
pub struct ProxyPool<E: Env>(Rc<Pooled<E>>);

struct Pooled<E: Env> {
    env: E,
    manager: ProxyManager,
    config: ClientConfig,
    clients: RefCell<Vec<(Option<Proxy>, HttpClient<E>)>>,
}

impl<E: Env> ProxyPool<E> {
    /// A pool of one node. What `http` says counts for all of its clients; its proxy where the
    /// manager names none.
    pub fn new(env: E, manager: ProxyManager, http: ClientConfig) -> Self {
        Self(Rc::new(Pooled { env, manager, config: http, clients: RefCell::default() }))
    }

    /// Which proxies its clients go through.
    pub fn manager(&self) -> &ProxyManager {
        &self.0.manager
    }

    pub(crate) fn checks_certificates(&self) -> bool {
        self.0.config.trust.is_checked()
    }

    /// HTTP clients that it keeps, [`HTTP_CLIENTS_MAX`] at most.
    pub fn http_clients(&self) -> usize {
        self.0.clients.borrow().len()
    }

    /// Connections of all its HTTP clients.
    pub fn http_connections(&self) -> usize {
        self.0.clients.borrow().iter().map(|(_, client)| client.connections()).sum()
    }

    /// The HTTP client that goes through a proxy.
    pub(crate) fn through(&self, proxy: Option<&Proxy>) -> Result<HttpClient<E>, ClientError> {
        let mut clients = self.0.clients.borrow_mut();
        if let Some((_, client)) = clients.iter().find(|(known, _)| known.as_ref() == proxy) {
            return Ok(client.clone());
        }
        let mut config = self.0.config.clone();
        if proxy.is_some() {
            config.proxy = proxy.cloned();
        }
        let client = HttpClient::new(self.0.env.clone(), config)?;
        if clients.len() >= HTTP_CLIENTS_MAX {
            clients.remove(0);
        }
        clients.push((proxy.cloned(), client.clone()));
        Ok(client)
    }
}

impl<E: Env> Clone for ProxyPool<E> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<E: Env> fmt::Debug for ProxyPool<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyPool")
            .field("manager", &self.0.manager)
            .field("http_clients", &self.http_clients())
            .finish_non_exhaustive()
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
        let wanted = ProxyReport { associations: 1, lost: 1, failed: 1, open: 0, relay: None };
        assert_eq!(manager.report(), wanted);
    }

    #[test]
    fn places_for_associations_are_bounded_and_come_back() {
        let manager = ProxyManager::default();
        let mut places: Vec<AssociationPlace> = Vec::new();
        while let Some(place) = manager.place() {
            places.push(place);
        }
        assert_eq!((places.len(), manager.report().open), (ASSOCIATIONS_MAX, ASSOCIATIONS_MAX));
        places.pop();
        assert!(manager.place().is_some());
        drop(places);
        assert_eq!(manager.report().open, 0);
    }
}
