//! Logging in: every answer of a grid has its type, and every wait its limit.

mod attempt;
#[cfg(feature = "fuzz")]
mod fuzz;
mod mfa;

use std::cell::RefCell;
use std::time::Duration;

use twinspan_http::{ClientError, HttpClient, HttpError, Request, StatusCode, Url};
use twinspan_llsd::Limits;
use twinspan_provider::{Env, OffloadError};
use twinspan_xmlrpc::LoginForm;
use twinspan_xmlrpc::login::{LoginReadError, LoginReply, LoginWriteError};

#[cfg(feature = "fuzz")]
pub(crate) use fuzz::fuzz_login;
pub use mfa::{MFA_HASHES_MAX, MfaStore, MfaStoreError};

use crate::credentials::{CredentialsError, LoginCredentials};
use crate::session_info::SessionInfo;
use crate::wait::{sleep, within};
use crate::xmlrpc::read_off;
use attempt::{Attempt, Next};

/// Redirects of one login that are followed.
pub const REDIRECTS_MAX: u32 = 5;
/// Bytes of a grid's answer to a login: a large inventory has tens of thousands of folders.
pub const LOGIN_REPLY_BYTES_MAX: usize = 16 << 20;
/// How long a redirect may ask to wait.
pub const REDIRECT_WAIT_MAX: Duration = Duration::from_secs(30);
/// Characters of a grid's text for the user that are kept.
pub const MESSAGE_CHARS_MAX: usize = 32_768;

/// How logins are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginConfig {
    /// How long to wait before the one more attempt after a refusal because the avatar is still in:
    /// that refusal itself made the grid end the old session.
    pub presence_retry_after: Duration,
    /// How long a login may take in all, redirects and waits included.
    pub total_timeout: Duration,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self {
            presence_retry_after: Duration::from_secs(5),
            total_timeout: Duration::from_secs(240),
        }
    }
}

/// Why nobody was let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The configuration of HTTP cannot be used.
    #[error("the configuration of HTTP cannot be used: {0}")]
    Client(#[from] ClientError),
    /// The request cannot be written.
    #[error("the request cannot be written: {0}")]
    Write(#[from] LoginWriteError),
    /// The grid could not be reached, or did not answer.
    #[error("the grid did not answer: {0}")]
    Http(#[from] HttpError),
    /// The grid answered with a status of failure.
    #[error("the login answered with status {status}; check the address of the grid")]
    Status {
        /// What it answered with.
        status: StatusCode,
    },
    /// The answer is no answer to a login: a page for people, a fault, a field that is missing.
    #[error("the answer of the grid cannot be used: {0}")]
    Reply(#[from] LoginReadError),
    /// The answer could not be read off the thread.
    #[error("the answer of the grid could not be read: {0}")]
    Offload(#[from] OffloadError),
    /// A field of a success is there and of no use.
    #[error("the grid let the avatar in, but its field `{field}` is of no use")]
    Unusable {
        /// The field.
        field: &'static str,
    },
    /// The name or the password is wrong, or the grid has trouble.
    #[error("the name or the password is wrong, or the grid has trouble: {message}")]
    BadCredentials {
        /// The grid's text.
        message: String,
    },
    /// The avatar is still in, also after one more attempt.
    #[error("the avatar is still in; try again in some minutes: {message}")]
    Present {
        /// The grid's text.
        message: String,
    },
    /// The user must agree to the terms of service.
    #[error("the terms of service have to be agreed to first (`with_terms_accepted`)")]
    TermsOfService {
        /// The terms.
        message: String,
    },
    /// The user must read a message.
    #[error("a message has to be read first (`with_critical_message_read`)")]
    CriticalMessage {
        /// The message.
        message: String,
    },
    /// The viewer is too old, or unknown to the grid.
    #[error("the grid wants another viewer: {message}")]
    UpdateRequired {
        /// The grid's text.
        message: String,
    },
    /// There is a newer viewer, and the grid stopped the login to say so.
    #[error("the grid offers another viewer and let nobody in: {message}")]
    UpdateOffered {
        /// The grid's text.
        message: String,
    },
    /// The login could not reach the grid.
    #[error("the login could not reach the grid, try later: {message}")]
    GridUnreachable {
        /// The grid's text.
        message: String,
    },
    /// The account is disabled.
    #[error("the account is disabled: {message}")]
    Disabled {
        /// The grid's text.
        message: String,
    },
    /// A code of the second factor is asked for.
    #[error("a code of the second factor is asked for (`with_mfa_token`): {message}")]
    MfaChallenge {
        /// The grid's text.
        message: String,
    },
    /// A reason that this library does not know.
    #[error("refused for the reason `{reason}`: {message}")]
    Refused {
        /// The grid's word for it.
        reason: String,
        /// The grid's text.
        message: String,
    },
    /// One redirect after another.
    #[error("more than {REDIRECTS_MAX} redirects, the last one to {host}")]
    TooManyRedirects {
        /// Where the last one led.
        host: String,
    },
    /// A redirect to something that is no address of a login.
    #[error("a redirect to what is no address of a login")]
    RedirectAddress,
    /// A redirect that would send the password in the clear after it had been protected.
    #[error("a redirect from https to http at {host}, which would show the password to others")]
    Downgrade {
        /// Where it leads.
        host: String,
    },
    /// It took too long in all.
    #[error("the login took longer than {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
}

impl LoginError {
    /// Whether another attempt with the same credentials may go better: the grid was out of reach or
    /// in trouble, or the avatar was still in.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Http(_)
            | Self::Status { .. }
            | Self::Offload(_)
            | Self::Present { .. }
            | Self::GridUnreachable { .. }
            | Self::TimedOut { .. } => true,
            // A page or a fault is what servers in trouble answer with.
            Self::Reply(LoginReadError::XmlRpc(_) | LoginReadError::Fault(_)) => true,
            _ => false,
        }
    }
}

/// Asks grids to let avatars in.
///
/// It follows redirects, tries once more where the avatar was still in, and keeps what a second
/// factor left for the next login.
#[derive(Debug)]
pub struct AuthenticationService<E: Env> {
    env: E,
    http: HttpClient<E>,
    config: LoginConfig,
    mfa: RefCell<MfaStore>,
}

impl<E: Env> AuthenticationService<E> {
    /// A service that shares the connections of `http`.
    pub fn new(env: E, http: HttpClient<E>, config: LoginConfig, mfa: MfaStore) -> Self {
        Self { env, http, config, mfa: RefCell::new(mfa) }
    }

    /// Logs in.
    ///
    /// # Errors
    /// [`LoginError`]
    ///
    /// # Cancel safety
    /// Dropping the future gives up; the grid may have let the avatar in, and refuses the next login
    /// for a moment then.
    pub async fn login(&self, credentials: &LoginCredentials) -> Result<SessionInfo, LoginError> {
        let after = self.config.total_timeout;
        let outcome = within(&self.env, after, self.attempt(credentials)).await;
        outcome.unwrap_or(Err(LoginError::TimedOut { after }))
    }

    async fn attempt(&self, credentials: &LoginCredentials) -> Result<SessionInfo, LoginError> {
        let mut request = credentials.request()?;
        let url = credentials.grid().login_uri().map_err(CredentialsError::Grid)?;
        let key = mfa::key(&url, &request.name);
        if request.mfa_hash.is_empty()
            && let Some(hash) = self.mfa.borrow().get(&key)
        {
            request.mfa_hash = hash.clone();
        }
        let form = credentials.grid().form();
        let timeout = credentials.grid().login_timeout();
        let mut attempt = Attempt::new(url, form, request, self.config.presence_retry_after);
        loop {
            let (url, body) = attempt.post()?;
            let answer = self.post(url, body, form, timeout).await?;
            match attempt.after(answer)? {
                Next::Again { after } => sleep(&self.env, after).await,
                Next::Done(success) => {
                    if !success.mfa_hash.is_empty() {
                        self.mfa.borrow_mut().keep(key, success.mfa_hash.clone());
                    }
                    return SessionInfo::of(*success);
                }
            }
        }
    }

    async fn post(
        &self,
        url: Url,
        body: Vec<u8>,
        form: LoginForm,
        timeout: Duration,
    ) -> Result<Answer, LoginError> {
        let request = Request::post(url, form.content_type(), body)
            .with_timeout(timeout)
            .with_response_bytes_max(LOGIN_REPLY_BYTES_MAX);
        let response = self.http.send(request).await?;
        if matches!(
            response.status,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        ) {
            let to = response.headers.get(twinspan_http::header::LOCATION);
            let to = to.and_then(|to| to.to_str().ok()).unwrap_or_default().to_owned();
            return Ok(Answer::Moved(to));
        }
        if !response.status.is_success() {
            return Err(LoginError::Status { status: response.status });
        }
        let body = response.body;
        let read = move |bytes: &[u8]| LoginReply::read(bytes, form, &Limits::DEFAULT);
        let bytes = body.len();
        Ok(Answer::Reply(read_off(&self.env, bytes, move || read(&body)).await??))
    }

    /// What is known of second factors, to be saved.
    pub fn mfa(&self) -> MfaStore {
        self.mfa.borrow().clone()
    }
}

/// What came back.
#[derive(Debug)]
enum Answer {
    Reply(LoginReply),
    /// The same request belongs elsewhere, HTTP says.
    Moved(String),
}

/// The beginning of a grid's text.
fn short(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}
