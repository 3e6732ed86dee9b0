//! Who may log in, and what befalls him when he does.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;
use twinspan_lludp::Uuid;
use twinspan_xmlrpc::Fault;
use twinspan_xmlrpc::login::{AccountName, Password, Refusal, Secret};

/// Bytes of a first name, and of a last name.
pub const NAME_BYTES_MAX: usize = 63;
/// Accounts of one grid.
pub const ACCOUNTS_MAX: usize = 65_536;
/// Wrong passwords that an address may send in [`FAILURES_WINDOW`].
pub const FAILURES_MAX: u32 = 10;
/// How long a wrong password counts.
pub const FAILURES_WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose wrong passwords are counted; past it the one that has waited longest is
/// forgotten.
const FAILING_MAX: usize = 4_096;

/// Somebody who may log in.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The name, which is the same in any case of letters.
    pub name: AccountName,
    /// The password as it travels.
    pub password: Password,
    /// The avatar.
    pub agent_id: Uuid,
    /// What befalls him when he logs in.
    pub script: LoginScript,
}

impl Account {
    /// An account with a password, whose avatar's id is made of the name: the same on every grid.
    pub fn new(name: AccountName, password: &str) -> Self {
        let agent_id = id_of(&key_of(&name));
        Self { name, password: Password::new(password), agent_id, script: LoginScript::default() }
    }
}

/// What befalls somebody who logs in with the right password, so that a viewer can be tried on it.
/// By default nothing: he is let in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoginScript {
    /// Answers before the login takes its course: each is given once, in this order.
    pub answers: VecDeque<ScriptedAnswer>,
    /// Terms of service that he must agree to.
    pub terms: Option<String>,
    /// A message that he must read.
    pub critical: Option<String>,
    /// The code of his second factor, which is asked for until a login shows what an earlier one
    /// was given for it.
    pub second_factor: Option<Secret>,
    /// How many times his viewer is sent to another address of this grid before it is answered.
    /// `u32::MAX` never ends.
    pub redirects: u32,
}

/// An answer that does not let in.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ScriptedAnswer {
    /// A refusal as the protocol has it.
    Refusal(Refusal),
    /// The grid failed.
    Fault(Fault),
    /// A status of HTTP with a page of HTML, as proxies and broken grids answer.
    Page {
        /// The status.
        status: u16,
        /// The page.
        html: String,
    },
}

/// What accounts are kept by.
pub(crate) fn key_of(name: &AccountName) -> String {
    name.to_string().to_lowercase()
}

/// An id that depends on a text alone.
pub(crate) fn id_of(text: &str) -> Uuid {
    let words = |salt: u64| -> u64 {
        text.as_bytes().chunks(8).fold(salt, |sum, chunk| {
            let word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            draw(sum, &[word, chunk.len() as u64])
        })
    };
    Uuid::from_u64_pair(words(1), words(2))
}

/// Wrong passwords by address.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// Address, since when it is counted, and how many; in the order of the second.
    counted: VecDeque<(IpAddr, Timestamp, u32)>,
}

impl Failures {
    /// Whether an address sent so many that it is not listened to for now.
    pub(crate) fn is_blocked(&mut self, now: Timestamp, from: IpAddr) -> bool {
        while self
            .counted
            .pop_front_if(|(_, since, _)| since.after(FAILURES_WINDOW) <= now)
            .is_some()
        {}
        self.counted.iter().any(|(addr, _, count)| *addr == from && *count >= FAILURES_MAX)
    }

    /// Another one.
    pub(crate) fn count(&mut self, now: Timestamp, from: IpAddr) {
        if let Some((.., count)) = self.counted.iter_mut().find(|(addr, ..)| *addr == from) {
            *count = count.saturating_add(1);
            return;
        }
        if self.counted.len() >= FAILING_MAX {
            self.counted.pop_front();
        }
        self.counted.push_back((from, now, 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_guesses_is_not_listened_to_for_a_minute() {
        let mut failures = Failures::default();
        let now = Timestamp::START;
        let [bad, good] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        for _ in 0..FAILURES_MAX {
            assert!(!failures.is_blocked(now, bad));
            failures.count(now, bad);
        }
        assert!(failures.is_blocked(now, bad) && !failures.is_blocked(now, good));
        let nearly = now.after(FAILURES_WINDOW - Duration::from_nanos(1));
        assert!(failures.is_blocked(nearly, bad));
        assert!(!failures.is_blocked(now.after(FAILURES_WINDOW), bad));
        assert!(failures.counted.is_empty());
    }

    #[test]
    fn addresses_that_guess_are_bounded() {
        let mut failures = Failures::default();
        for n in 0..FAILING_MAX as u32 + 100 {
            failures.count(Timestamp::START, IpAddr::from(n.to_be_bytes()));
        }
        assert_eq!(failures.counted.len(), FAILING_MAX);
    }

    #[test]
    fn an_avatar_is_the_same_whatever_the_case_of_its_name() {
        let account = |name| Account::new(AccountName::parse(name).unwrap(), "x").agent_id;
        assert_eq!(account("Ruth Resident"), account("ruth"));
        assert_ne!(account("Ruth"), account("Ruti"));
        assert_ne!(id_of("a\0"), id_of("a"));
    }

    #[test]
    fn secrets_appear_in_no_debug_output() {
        let mut account = Account::new(AccountName::parse("Ruth").unwrap(), "sesame");
        account.script.second_factor = Some(Secret::new("123456"));
        let shown = format!("{account:?}");
        assert!(!shown.contains("123456") && !shown.contains("$1$"), "{shown}");
    }
}
