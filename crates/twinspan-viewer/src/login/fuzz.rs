//! The fuzz body of a login: answers one after the other.

use twinspan_core::fuzz::digest;
use twinspan_http::Url;
use twinspan_llsd::Limits;
use twinspan_xmlrpc::LoginForm;
use twinspan_xmlrpc::login::{AccountName, LoginReply, LoginRequest, Password};

use super::attempt::{Attempt, Next};
use super::{Answer, LoginConfig, REDIRECT_WAIT_MAX, REDIRECTS_MAX};
use crate::fuzz::parts;
use crate::session_info::SessionInfo;

/// Any answers lead to a session or a reason, after a bounded number of attempts; what began
/// protected stays so. The first byte is how it begins, the rest are parts.
pub(crate) fn fuzz_login(data: &[u8]) -> u64 {
    let Some((&how, script)) = data.split_first() else { return 0 };
    let form = if how & 1 == 0 { LoginForm::XmlRpc } else { LoginForm::Llsd };
    let begin = if how & 2 == 0 { "http://grid/login" } else { "https://grid/login" };
    let Ok(url) = Url::parse(begin) else { unreachable!("both are addresses") };
    let name = AccountName::new("Ruth", "Resident");
    let request = LoginRequest::new(name, Password::new("secret"), "Twinspan", "0");
    let pause = LoginConfig::default().presence_retry_after;
    let mut attempt = Attempt::new(url, form, request, pause);
    let mut attempts = 0;
    for (head, bytes) in parts(script) {
        match attempt.post() {
            Ok((url, body)) => {
                assert!(how & 2 == 0 || url.scheme() == "https", "to {url} in the clear");
                assert!(matches!(url.scheme(), "http" | "https") && !body.is_empty());
            }
            Err(error) => return digest(&error.to_string()),
        }
        attempts += 1;
        assert!(attempts <= REDIRECTS_MAX + 2, "redirects without an end");
        let answer = if head & 1 == 0 {
            match LoginReply::read(bytes, form, &Limits::DEFAULT) {
                Ok(reply) => Answer::Reply(reply),
                Err(error) => return digest(&error.to_string()),
            }
        } else {
            Answer::Moved(String::from_utf8_lossy(bytes).into_owned())
        };
        match attempt.after(answer) {
            Ok(Next::Again { after }) => assert!(after <= REDIRECT_WAIT_MAX.max(pause)),
            Ok(Next::Done(success)) => {
                let session = SessionInfo::of(*success);
                let told = session.map(|session| (session.ids(), digest(&session)));
                return digest(&told.map_err(|error| error.to_string()));
            }
            Err(error) => return digest(&(error.to_string(), error.is_passing())),
        }
    }
    u64::from(attempts)
}
