//! Cookies: proof that an address receives, without a byte kept for it.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;

use crate::identity::MacKey;

/// How long a secret makes cookies; it verifies them for as long again.
const EPOCH: Duration = Duration::from_secs(60);

/// The two live cookie secrets, session 3.5.
#[derive(Debug)]
pub(crate) struct Cookies {
    epoch: u64,
    present: MacKey,
    before: Option<MacKey>,
}

/// What a cookie is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CookieSubject<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) nonce: &'a [u8; 16],
    pub(crate) token_id: &'a [u8; 16],
}

impl Cookies {
    pub(crate) fn new(now: Timestamp, secrets: &mut dyn SecretSource) -> Self {
        Self { epoch: epoch_of(now), present: fresh(secrets), before: None }
    }

    /// Changes the secrets when their time has come. Called before a cookie is made or looked at.
    pub(crate) fn advance(&mut self, now: Timestamp, secrets: &mut dyn SecretSource) {
        let epoch = epoch_of(now);
        if epoch <= self.epoch {
            return;
        }
        let present = core::mem::replace(&mut self.present, fresh(secrets));
        self.before = (epoch == self.epoch + 1).then_some(present);
        self.epoch = epoch;
    }

    pub(crate) fn make(&self, subject: CookieSubject<'_>) -> [u8; 16] {
        cookie(&self.present, self.epoch, subject)
    }

    pub(crate) fn verify(&self, subject: CookieSubject<'_>, cookie: &[u8; 16]) -> bool {
        let verify = |key: &MacKey, epoch: u64| {
            with_parts(epoch, subject, |parts| key.verify(parts, cookie))
        };
        verify(&self.present, self.epoch)
            || self.before.as_ref().is_some_and(|key| verify(key, self.epoch.wrapping_sub(1)))
    }
}

fn fresh(secrets: &mut dyn SecretSource) -> MacKey {
    let mut secret = zeroize::Zeroizing::new([0; 32]);
    secrets.fill(secret.as_mut_slice());
    MacKey::new(secret.as_slice())
}

const fn epoch_of(now: Timestamp) -> u64 {
    now.as_nanos() / EPOCH.as_nanos() as u64
}

pub(crate) fn cookie(key: &MacKey, epoch: u64, subject: CookieSubject<'_>) -> [u8; 16] {
    with_parts(epoch, subject, |parts| key.tag(parts))
}

fn with_parts<R>(
    epoch: u64,
    CookieSubject { peer, nonce, token_id }: CookieSubject<'_>,
    work: impl FnOnce(&[&[u8]]) -> R,
) -> R {
    let address = match peer.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    work(&[&epoch.to_le_bytes(), &address, &peer.port().to_le_bytes(), nonce, token_id])
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::random::Stream;

    const NONCE: [u8; 16] = [1; 16];
    const TOKEN: [u8; 16] = [2; 16];

    fn subject(peer: &str) -> CookieSubject<'static> {
        CookieSubject { peer: peer.parse().unwrap(), nonce: &NONCE, token_id: &TOKEN }
    }

    fn seconds(seconds: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_cookie_is_bound_to_address_port_nonce_and_token() {
        let mut secrets = Stream::new(1, "secrets", 0);
        let cookies = Cookies::new(seconds(0), &mut secrets);
        let own = subject("10.0.0.1:5000");
        let cookie = cookies.make(own);
        assert!(cookies.verify(own, &cookie));
        assert!(!cookies.verify(subject("10.0.0.2:5000"), &cookie));
        assert!(!cookies.verify(subject("10.0.0.1:5001"), &cookie));
        assert!(!cookies.verify(CookieSubject { nonce: &[3; 16], ..own }, &cookie));
        assert!(!cookies.verify(CookieSubject { token_id: &[3; 16], ..own }, &cookie));
        assert!(!cookies.verify(own, &[0; 16]));
    }

    #[test]
    fn a_cookie_lives_through_its_epoch_and_the_next() {
        let mut secrets = Stream::new(1, "secrets", 0);
        let mut cookies = Cookies::new(seconds(0), &mut secrets);
        let own = subject("[::1]:5000");
        let cookie = cookies.make(own);
        cookies.advance(seconds(119), &mut secrets);
        assert!(cookies.verify(own, &cookie));
        cookies.advance(seconds(120), &mut secrets);
        assert!(!cookies.verify(own, &cookie));
    }

    #[test]
    fn secrets_from_before_a_pause_are_forgotten() {
        let mut secrets = Stream::new(1, "secrets", 0);
        let mut cookies = Cookies::new(seconds(0), &mut secrets);
        let own = subject("[::1]:5000");
        let cookie = cookies.make(own);
        cookies.advance(seconds(600), &mut secrets);
        assert!(!cookies.verify(own, &cookie));
    }
}
