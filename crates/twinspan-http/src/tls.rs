//! TLS with a clock and randomness of the seam: whom a client trusts, who a server is.

mod node;
mod provider;
mod stream;
mod verify;

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) use stream::{SecureStream, accept, connect};
use verify::{Known, Unchecked, Verifier};

/// The protocol that is spoken inside.
const PROTOCOL: &[u8] = b"http/1.1";
/// Certificates that one text may hold.
const CERTIFICATES_MAX: usize = 1_024;

/// Why there is no TLS with the other end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A text with certificates or a key cannot be read.
    #[error("cannot read {what}: {reason}; give it in PEM")]
    Pem {
        /// What it was to be.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// This machine has no certificates to trust and none were given.
    #[error(
        "there is no certificate to trust ({reason}); install the system's (ca-certificates) or \
         give some"
    )]
    NoRoots {
        /// What was found.
        reason: String,
    },
    /// The server's name cannot stand in a certificate.
    #[error("{0:?} cannot be a server's name")]
    Name(String),
    /// The server's certificate is not trusted, or not for that name, or not now.
    #[error("the certificate of {host} is refused: {reason}")]
    Certificate {
        /// The server.
        host: String,
        /// Why.
        reason: String,
    },
    /// The two ends do not come to terms.
    #[error("the TLS handshake with {host} failed: {reason}")]
    Handshake {
        /// The other end.
        host: String,
        /// Why.
        reason: String,
    },
    /// The connection ended within the handshake.
    #[error("the connection to {host} ended within the TLS handshake: {reason}")]
    Interrupted {
        /// The other end.
        host: String,
        /// How.
        reason: String,
    },
    /// What came after the handshake is broken, or says that the other end gave up.
    #[error("the TLS session was broken: {0}")]
    Session(String),
    /// A certificate and its key cannot be used.
    #[error("the certificate and the key cannot be used: {0}")]
    Identity(String),
}

impl TlsError {
    /// Whether a request may have left before.
    pub(crate) fn is_after_handshake(&self) -> bool {
        matches!(self, Self::Session(_))
    }

    /// Sorts why a handshake with `host` failed.
    fn of_handshake(host: &str, error: &io::Error) -> Self {
        let host = host.to_owned();
        match rustls_error(error) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                Self::Certificate { host, reason: reason.to_string() }
            }
            Some(reason) => Self::Handshake { host, reason: reason.to_string() },
            None => Self::Interrupted { host, reason: error.kind().to_string() },
        }
    }

    /// What broke a session, where it was TLS and not the network.
    pub(crate) fn of_session(error: &io::Error) -> Option<Self> {
        rustls_error(error).map(|error| Self::Session(error.to_string()))
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whom a client trusts.
///
/// Everybody that this machine trusts, at first; certificates of one's own may be added or stand
/// alone. They are a CA's or a server's own, whoever signed that; its names and its time count even
/// then.
#[derive(Clone)]
pub struct Trust {
    with_system: bool,
    extra: Vec<CertificateDer<'static>>,
    is_checked: bool,
}

impl Trust {
    /// Trusts whom this machine trusts: the certificates of its operating system, read when TLS is
    /// first needed.
    pub fn system() -> Self {
        Self { with_system: true, extra: Vec::new(), is_checked: true }
    }

    /// Trusts nobody; for [`with_certificates`](Self::with_certificates) to add to.
    pub fn nobody() -> Self {
        Self { with_system: false, ..Self::system() }
    }

    /// Trusts everybody: **certificates are not looked at, and anyone on the way may be the
    /// server.** A client that is made with it says so on standard error.
    pub fn without_checks() -> Self {
        Self { is_checked: false, ..Self::nobody() }
    }

    /// Trusts these certificates too: one or more in PEM.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when there is none, too many, or one that cannot be read.
    pub fn with_certificates(mut self, pem: &[u8]) -> Result<Self, TlsError> {
        self.extra.extend(certificates(pem)?);
        if self.extra.len() > CERTIFICATES_MAX {
            let reason = format!("more than {CERTIFICATES_MAX}");
            return Err(TlsError::Pem { what: "certificates", reason });
        }
        Ok(self)
    }

    /// Whether certificates are checked.
    pub fn is_checked(&self) -> bool {
        self.is_checked
    }

    /// Whether the certificates of this machine are needed.
    pub(crate) fn wants_system(&self) -> bool {
        self.with_system && self.is_checked
    }

    /// What a client's connections are made with; `system` has the certificates of this machine.
    pub(crate) fn config(&self, system: System) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        let provider = provider::provider();
        let builder = rustls::ClientConfig::builder_with_details(
            Arc::clone(&provider),
            Arc::new(provider::NodeTime),
        )
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Identity(error.to_string()))?;
        let mut config = if self.is_checked {
            let mut roots = RootCertStore::empty();
            // Among those of a system there may be some that nobody can read any more.
            let (_, _) = roots.add_parsable_certificates(system.certificates);
            for certificate in &self.extra {
                roots.add(certificate.clone()).map_err(|error| TlsError::Pem {
                    what: "a certificate",
                    reason: error.to_string(),
                })?;
            }
            if roots.is_empty() {
                return Err(TlsError::NoRoots { reason: system.reason });
            }
            let authorities =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let authorities = authorities
                .build()
                .map_err(|error| TlsError::NoRoots { reason: error.to_string() })?;
            let policy = Known { authorities, certificates: self.extra.clone() };
            let verifier = Arc::new(Verifier { policy, provider });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            let verifier = Arc::new(Verifier { policy: Unchecked, provider });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("with_system", &self.with_system)
            .field("extra", &self.extra.len())
            .field("is_checked", &self.is_checked)
            .finish()
    }
}

/// The certificates that this machine trusts.
pub(crate) struct System {
    certificates: Vec<CertificateDer<'static>>,
    /// Why there is none, if so.
    reason: String,
}

impl System {
    /// None, because nobody asked for them.
    pub(crate) fn unused() -> Self {
        Self { certificates: Vec::new(), reason: "none were asked for".to_owned() }
    }

    /// Reads them: files, so it may take a while.
    pub(crate) fn read() -> Self {
        let found = rustls_native_certs::load_native_certs();
        let reason = match found.errors.first() {
            Some(error) => error.to_string(),
            None => "this machine has none".to_owned(),
        };
        Self { certificates: found.certs, reason }
    }
}

/// Reads certificates.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::Pem { what: "certificates", reason };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is none".to_owned()));
    }
    Ok(found)
}

/// Who a server is: a chain of certificates and the key of the first.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<rustls::ServerConfig>,
}

impl ServerTls {
    /// From certificates and a key in PEM; the server's own certificate is the first.
    ///
    /// In a simulation whose trace is compared, take an Ed25519 key: other signatures are random.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when one cannot be read, [`TlsError::Identity`] when they do not belong
    /// together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsError::Pem { what: "a key", reason: error.to_string() })?;
        let wrong = |error: rustls::Error| TlsError::Identity(error.to_string());
        let mut config = rustls::ServerConfig::builder_with_details(
            provider::provider(),
            Arc::new(provider::NodeTime),
        )
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(wrong)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    pub(crate) fn config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.config)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        for text in [&b""[..], b"certificate", b"-----BEGIN CERTIFICATE-----\n!\n"] {
            let outcome = Trust::nobody().with_certificates(text);
            assert!(matches!(outcome, Err(TlsError::Pem { .. })), "{outcome:?}");
        }
        assert!(matches!(ServerTls::from_pem(b"", b""), Err(TlsError::Pem { .. })));
    }

    #[test]
    fn who_trusts_nobody_is_told() {
        let outcome = Trust::nobody().config(System::unused());
        assert!(matches!(outcome, Err(TlsError::NoRoots { .. })));
    }

    #[test]
    fn only_the_explicit_call_leaves_checks_out() {
        assert!(Trust::default().is_checked() && Trust::nobody().is_checked());
        assert!(Trust::default().wants_system() && !Trust::nobody().wants_system());
        let trust = Trust::without_checks();
        assert!(!trust.is_checked() && !trust.wants_system());
        assert!(format!("{trust:?}").contains("is_checked: false"));
    }
}
