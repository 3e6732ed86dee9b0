//! One login as a machine: what to post, and what an answer means.

use std::time::Duration;

use twinspan_http::Url;
use twinspan_xmlrpc::LoginForm;
use twinspan_xmlrpc::login::{
    LOGIN_METHOD, LoginReply, LoginRequest, LoginSuccess, Redirect, Refusal, RefusalReason,
};

use super::{Answer, LoginError, REDIRECT_WAIT_MAX, REDIRECTS_MAX, short};

/// What is next.
#[derive(Debug)]
pub(super) enum Next {
    /// Post again, but not before this.
    Again {
        after: Duration,
    },
    Done(Box<LoginSuccess>),
}

/// One login.
#[derive(Debug)]
pub(super) struct Attempt {
    url: Url,
    method: String,
    form: LoginForm,
    request: LoginRequest,
    redirects: u32,
    presence_retry: Option<Duration>,
}

impl Attempt {
    pub(super) fn new(
        url: Url,
        form: LoginForm,
        request: LoginRequest,
        presence_retry_after: Duration,
    ) -> Self {
        Self {
            url,
            method: LOGIN_METHOD.to_owned(),
            form,
            request,
            redirects: 0,
            presence_retry: Some(presence_retry_after),
        }
    }

    /// Where to post, and what.
    pub(super) fn post(&self) -> Result<(Url, Vec<u8>), LoginError> {
        Ok((self.url.clone(), self.request.write_for(self.form, &self.method)?))
    }

    pub(super) fn after(&mut self, answer: Answer) -> Result<Next, LoginError> {
        match answer {
            Answer::Reply(LoginReply::Success(success)) => Ok(Next::Done(success)),
            Answer::Reply(LoginReply::Indeterminate(redirect)) => self.on_redirect(redirect),
            Answer::Reply(LoginReply::Refused(refusal)) => self.on_refusal(&refusal),
            Answer::Moved(to) => {
                self.go_to(&to)?;
                Ok(Next::Again { after: Duration::ZERO })
            }
        }
    }

    fn on_redirect(&mut self, redirect: Redirect) -> Result<Next, LoginError> {
        self.go_to(&redirect.next_url)?;
        if let Some(method) = redirect.next_method {
            self.method = method;
        }
        // It is finite and not negative, or it would not be there.
        let wait = redirect.next_duration.unwrap_or_default();
        let after = Duration::try_from_secs_f64(wait).unwrap_or(REDIRECT_WAIT_MAX);
        Ok(Next::Again { after: after.min(REDIRECT_WAIT_MAX) })
    }

    fn go_to(&mut self, to: &str) -> Result<(), LoginError> {
        let to = self.url.join(to).map_err(|_| LoginError::RedirectAddress)?;
        let known = matches!(to.scheme(), "http" | "https");
        let Some(host) = to.host_str().filter(|_| known).map(str::to_owned) else {
            return Err(LoginError::RedirectAddress);
        };
        self.redirects += 1;
        if self.redirects > REDIRECTS_MAX {
            return Err(LoginError::TooManyRedirects { host });
        }
        if self.url.scheme() == "https" && to.scheme() == "http" {
            return Err(LoginError::Downgrade { host });
        }
        self.url = to;
        Ok(())
    }

    fn on_refusal(&mut self, refusal: &Refusal) -> Result<Next, LoginError> {
        let message = short(&refusal.message);
        Err(match &refusal.reason {
            RefusalReason::Presence => {
                if let Some(after) = self.presence_retry.take() {
                    return Ok(Next::Again { after });
                }
                LoginError::Present { message }
            }
            RefusalReason::Key => LoginError::BadCredentials { message },
            RefusalReason::TermsOfService => LoginError::TermsOfService { message },
            RefusalReason::CriticalMessage => LoginError::CriticalMessage { message },
            RefusalReason::Update => LoginError::UpdateRequired { message },
            RefusalReason::OptionalUpdate => LoginError::UpdateOffered { message },
            RefusalReason::Connect => LoginError::GridUnreachable { message },
            RefusalReason::Disabled => LoginError::Disabled { message },
            RefusalReason::MfaChallenge => LoginError::MfaChallenge { message },
            other => LoginError::Refused { reason: short(other.word()), message },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_xmlrpc::login::{AccountName, Password};

    fn attempt(url: &str) -> Attempt {
        let name = AccountName::new("Ruth", "Resident");
        let request = LoginRequest::new(name, Password::new("x"), "Twinspan", "0");
        let url = Url::parse(url).unwrap();
        Attempt::new(url, LoginForm::XmlRpc, request, Duration::from_secs(5))
    }

    fn redirect(to: &str) -> Answer {
        let next_url = to.to_owned();
        Answer::Reply(LoginReply::Indeterminate(Redirect { next_url, ..Redirect::default() }))
    }

    fn refused(reason: &str) -> Answer {
        Answer::Reply(LoginReply::Refused(Refusal::new(reason, "because")))
    }

    #[test]
    fn five_redirects_are_followed_and_no_more() {
        let mut login = attempt("http://a/login");
        for hop in 1..=5 {
            let next = login.after(redirect(&format!("http://h{hop}/login"))).unwrap();
            assert!(matches!(next, Next::Again { after: Duration::ZERO }));
            let host = format!("h{hop}");
            assert_eq!(login.post().unwrap().0.host_str(), Some(host.as_str()));
        }
        let end = login.after(redirect("http://h6/"));
        assert!(matches!(end, Err(LoginError::TooManyRedirects { host }) if host == "h6"));
    }

    #[test]
    fn a_redirect_names_its_method_and_its_wait_within_a_limit() {
        let mut login = attempt("http://a/login");
        let answer = Answer::Reply(LoginReply::Indeterminate(Redirect {
            next_url: "/other".into(),
            next_method: Some("login_here".into()),
            next_duration: Some(1e30),
            message: None,
        }));
        let next = login.after(answer).unwrap();
        assert!(matches!(next, Next::Again { after: REDIRECT_WAIT_MAX }));
        let (url, body) = login.post().unwrap();
        assert_eq!(url.as_str(), "http://a/other");
        assert!(String::from_utf8(body).unwrap().contains("login_here"));
    }

    #[test]
    fn what_was_protected_stays_so() {
        let mut login = attempt("https://a/login");
        let end = login.after(redirect("http://b/login"));
        assert!(matches!(end, Err(LoginError::Downgrade { host }) if host == "b"));
        let moved = attempt("https://a/login").after(Answer::Moved("http://b/".into()));
        assert!(matches!(moved, Err(LoginError::Downgrade { .. })));
    }

    #[test]
    fn a_redirect_leads_to_an_address() {
        for to in ["ftp://a/", "mailto:a@b", "http://"] {
            let end = attempt("http://a/").after(redirect(to));
            assert!(matches!(end, Err(LoginError::RedirectAddress)), "{to}");
        }
    }

    #[test]
    fn who_is_still_in_is_tried_once_more() {
        let mut login = attempt("http://a/");
        let next = login.after(refused("presence")).unwrap();
        assert!(matches!(next, Next::Again { after } if after == Duration::from_secs(5)));
        let end = login.after(refused("presence"));
        assert!(matches!(end, Err(LoginError::Present { message }) if message == "because"));
    }

    #[test]
    fn every_refusal_has_its_type() {
        let kind = |reason: &str| attempt("http://a/").after(refused(reason)).unwrap_err();
        assert!(matches!(kind("key"), LoginError::BadCredentials { .. }));
        assert!(matches!(kind("tos"), LoginError::TermsOfService { .. }));
        assert!(matches!(kind("critical"), LoginError::CriticalMessage { .. }));
        assert!(matches!(kind("update"), LoginError::UpdateRequired { .. }));
        assert!(matches!(kind("optional"), LoginError::UpdateOffered { .. }));
        assert!(matches!(kind("connect"), LoginError::GridUnreachable { .. }));
        assert!(matches!(kind("disabled"), LoginError::Disabled { .. }));
        assert!(matches!(kind("mfa_challenge"), LoginError::MfaChallenge { .. }));
        let LoginError::Refused { reason, .. } = kind("weather") else { panic!("a new reason") };
        assert_eq!(reason, "weather");
    }

    #[test]
    fn only_what_passes_is_worth_another_attempt() {
        let kind = |reason: &str| attempt("http://a/").after(refused(reason)).unwrap_err();
        assert!(kind("connect").is_passing());
        assert!(!kind("key").is_passing() && !kind("mfa_challenge").is_passing());
    }
}
