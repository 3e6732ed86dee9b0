//! Who a QUIC listener is: certificates, fingerprints, and whom a connector believes.
//!
//! //= hub 11.2

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use twinspan_net::lock;

/// The name in certificates that are nobody's in particular.
const OWN_NAME: &str = "twinspan-hub";
/// Names of files in the folder for what is kept.
const CERTIFICATE_FILE: &str = "quic.crt";
const KEY_FILE: &str = "quic.key";
const PINS_FILE: &str = "quic.pins";
/// The largest of these files that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Listeners that a file of pins remembers.
const PINS_MAX: usize = 4_096;

/// What stands for a certificate: SHA-256 of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut bytes = [0; 32];
        let digest = digest::digest(&digest::SHA256, certificate);
        for (place, byte) in bytes.iter_mut().zip(digest.as_ref()) {
            *place = *byte;
        }
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A text is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 digits of base 16, as a listener's report shows it")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(FingerprintError);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let digits = str::from_utf8(pair).map_err(|_| FingerprintError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| FingerprintError)?;
        }
        Ok(Self(bytes))
    }
}

/// Whom a QUIC connector believes to be the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// Whoever answers first at an address; from then on nobody else. What was seen is kept in the
    /// state folder where there is one, else as long as the process lives.
    #[default]
    FirstUse,
    /// Who has the certificate with this fingerprint; the listener's report shows it.
    Pinned(Fingerprint),
    /// Who has a certificate for the endpoint's host that one of these, in PEM, signed.
    Authorities(Vec<u8>),
}

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The PEM has no certificate, or no key, or is none.
    #[error("{0} cannot be read: give PEM, a certificate chain or a private key")]
    Pem(&'static str),
    /// Certificate and key cannot be used by TLS.
    #[error("certificate and key cannot be used: {0}; check that they belong together")]
    Tls(String),
    /// A file of the state folder cannot be read or written.
    #[error("cannot use {path}: {source}; give another state folder, or mend its rights")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A certificate of one's own cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

/// A listener's certificate and key.
pub(super) struct Own {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Own {
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.chain.first().map(Fingerprint::of)
    }

    pub(super) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|_| CertificateError::Pem("the certificate"))?;
        if chain.is_empty() {
            return Err(CertificateError::Pem("the certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(key);
        Ok(Self { chain, key: key.map_err(|_| CertificateError::Pem("the key"))? })
    }

    /// A new one that is signed by itself.
    pub(super) fn new() -> Result<Self, CertificateError> {
        let made = rcgen::generate_simple_self_signed([OWN_NAME.to_owned()]);
        let made = made.map_err(|error| CertificateError::Make(error.to_string()))?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Ok(Self { chain: vec![made.cert.der().clone()], key: key.into() })
    }

    /// The one in a folder, which is made if there is none.
    pub(super) fn kept(folder: &Path) -> Result<Self, CertificateError> {
        let (chain, key) = (folder.join(CERTIFICATE_FILE), folder.join(KEY_FILE));
        if let (Some(chain), Some(key)) = (read(&chain)?, read(&key)?) {
            let key = PrivateKeyDer::try_from(key).map_err(|_| CertificateError::Pem("the key"))?;
            return Ok(Self { chain: vec![chain.into()], key });
        }
        let own = Self::new()?;
        fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        write(&key, own.key.secret_der())?;
        write(&chain, own.chain.first().map_or(&[], |it| it.as_ref()))?;
        Ok(own)
    }
}

fn failed(path: &Path, source: io::Error) -> CertificateError {
    CertificateError::File { path: path.to_owned(), source }
}

/// A file's bytes; `None` where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, CertificateError> {
    match fs::metadata(path) {
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            Err(failed(path, io::ErrorKind::FileTooLarge.into()))
        }
        Ok(_) => fs::read(path).map(Some).map_err(|source| failed(path, source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(path, source)),
    }
}

/// Writes a file that nobody else may read: whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CertificateError> {
    let part = path.with_extension(format!("part{}", std::process::id()));
    let written = (|| {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    })();
    written.map_err(|source| failed(path, source))
}

/// The pins of a folder: lines of an address and a fingerprint.
fn pins(folder: &Path) -> Result<Vec<(String, Fingerprint)>, CertificateError> {
    let path = folder.join(PINS_FILE);
    let bytes = read(&path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let pins = text.lines().filter_map(|line| {
        let (address, pin) = line.split_once(' ')?;
        Some((address.to_owned(), pin.trim().parse().ok()?))
    });
    Ok(pins.take(PINS_MAX).collect())
}

/// What a connector knows of the listener at one address.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Who may be there; `None` before the first use.
    pin: Mutex<Option<Fingerprint>>,
    /// Where a first use is kept.
    kept: Option<(PathBuf, String)>,
    /// What was seen last, and not believed.
    pub(super) stranger: Mutex<Option<Fingerprint>>,
}

impl Verifier {
    pub(super) fn new(
        trust: &Trust,
        address: &str,
        folder: Option<&Path>,
    ) -> Result<Self, CertificateError> {
        let (pin, kept) = match (trust, folder) {
            (Trust::Pinned(pin), _) => (Some(*pin), None),
            (_, None) => (None, None),
            (_, Some(folder)) => {
                let known = pins(folder)?.into_iter().find(|(known, _)| known == address);
                let kept = Some((folder.to_owned(), address.to_owned()));
                (known.map(|(_, pin)| pin), kept)
            }
        };
        let provider = Arc::new(provider::default_provider());
        Ok(Self { provider, pin: Mutex::new(pin), kept, stranger: Mutex::new(None) })
    }

    /// Who is believed now.
    pub(super) fn pin(&self) -> Option<Fingerprint> {
        *lock(&self.pin)
    }

    fn keep(&self, pin: Fingerprint) -> Result<(), CertificateError> {
        let Some((folder, address)) = &self.kept else { return Ok(()) };
        fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        let mut pins = pins(folder)?;
        pins.retain(|(known, _)| known != address);
        // The oldest gives way.
        let over = (pins.len() + 1).saturating_sub(PINS_MAX);
        pins.drain(..over);
        pins.push((address.clone(), pin));
        let lines: String =
            pins.iter().map(|(address, pin)| format!("{address} {pin}\n")).collect();
        write(&folder.join(PINS_FILE), lines.as_bytes())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = Fingerprint::of(end_entity);
        let mut pin = lock(&self.pin);
        match *pin {
            Some(pin) if pin == seen => {}
            Some(_) => {
                *lock(&self.stranger) = Some(seen);
                return Err(rustls::CertificateError::ApplicationVerificationFailure.into());
            }
            None => {
                self.keep(seen).map_err(|error| rustls::Error::General(error.to_string()))?;
                *pin = Some(seen);
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // QUIC has no other version than 1.3.
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The authorities in PEM.
pub(super) fn authorities(pem: &[u8]) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| CertificateError::Pem("an authority"))?;
        roots.add(certificate).map_err(|error| CertificateError::Tls(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(CertificateError::Pem("an authority"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_written_and_read() {
        let own = Own::new().unwrap();
        let pin = own.fingerprint().unwrap();
        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_ne!(Own::new().unwrap().fingerprint(), Some(pin), "each key is another");
        for text in ["", "12", &"g".repeat(64), &"+1".repeat(32), &"ä".repeat(32)] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError));
        }
    }

    #[test]
    fn what_is_kept_is_found_again_and_nobody_else_may_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("twinspan-trust-{}", std::process::id()));
        let first = Own::kept(&folder).unwrap();
        assert_eq!(Own::kept(&folder).unwrap().fingerprint(), first.fingerprint());
        let rights = fs::metadata(folder.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(rights & 0o077, 0);
        let pin = first.fingerprint().unwrap();
        let verifier = |address: &str| Verifier::new(&Trust::FirstUse, address, Some(&folder));
        let one = verifier("a:1").unwrap();
        assert_eq!(one.pin(), None);
        let see = |it: &Verifier, certificate: &CertificateDer<'_>| {
            let name = ServerName::try_from(OWN_NAME).unwrap();
            it.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()).is_ok()
        };
        assert!(see(&one, &first.chain[0]), "the first is believed");
        let other = Own::new().unwrap();
        assert!(!see(&one, &other.chain[0]), "and nobody else from then on");
        assert_eq!(*one.stranger.lock().unwrap(), other.fingerprint());
        assert_eq!(verifier("a:1").unwrap().pin(), Some(pin), "another process knows");
        assert_eq!(verifier("b:1").unwrap().pin(), None, "each address has its own");
        let pinned = Verifier::new(&Trust::Pinned(pin), "c:1", None).unwrap();
        assert!(see(&pinned, &first.chain[0]) && !see(&pinned, &other.chain[0]));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        for (chain, key) in [(&b""[..], &b""[..]), (b"-----BEGIN CERTIFICATE-----", b"")] {
            let error = Own::from_pem(chain, key).err().unwrap();
            assert!(error.to_string().contains("give PEM"), "{error}");
        }
        assert!(authorities(b"nothing").is_err());
    }
}
