//! What a grid answers.

use twinspan_llsd::{Form, Limits, Map, Value, parse_any};

use super::fields::{Fields, filled, text};
use super::{LoginForm, LoginReadError, LoginSuccess, LoginWriteError};
use crate::{Fault, ReadError, parse_response, write_response};

/// What a grid answers to a request to log in.
#[derive(Clone, Debug, PartialEq)]
pub enum LoginReply {
    /// The avatar is in.
    Success(Box<LoginSuccess>),
    /// Ask somebody else.
    Indeterminate(Redirect),
    /// It is not.
    Refused(Refusal),
}

/// Whom to ask next, with the same request. How many of these are followed is up to the caller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Redirect {
    /// Where to post the request.
    pub next_url: String,
    /// The method to call.
    pub next_method: Option<String>,
    /// Seconds to wait before.
    pub next_duration: Option<f64>,
    /// A text for the user.
    pub message: Option<String>,
}

/// Why an avatar is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// `key`: a wrong name or password, or trouble in the grid.
    Key,
    /// `presence`: it is still in; the attempt may have ended that, so that another succeeds.
    Presence,
    /// `tos`: the user must agree to the terms of service, which the message has.
    TermsOfService,
    /// `critical`: the user must read the message.
    CriticalMessage,
    /// `update`: the viewer is too old.
    Update,
    /// `optional`: there is a newer viewer.
    OptionalUpdate,
    /// `connect`: the grid cannot be reached from the login.
    Connect,
    /// `disabled`: the account is.
    Disabled,
    /// `mfa_challenge`: a code of the second factor is asked for.
    MfaChallenge,
    /// Another one.
    Other(String),
}

impl RefusalReason {
    /// What a word means.
    pub fn from_word(word: &str) -> Self {
        match word {
            "key" => Self::Key,
            "presence" => Self::Presence,
            "tos" => Self::TermsOfService,
            "critical" => Self::CriticalMessage,
            "update" => Self::Update,
            "optional" => Self::OptionalUpdate,
            "connect" => Self::Connect,
            "disabled" => Self::Disabled,
            "mfa_challenge" => Self::MfaChallenge,
            word => Self::Other(word.to_owned()),
        }
    }

    /// Its word.
    pub fn word(&self) -> &str {
        match self {
            Self::Key => "key",
            Self::Presence => "presence",
            Self::TermsOfService => "tos",
            Self::CriticalMessage => "critical",
            Self::Update => "update",
            Self::OptionalUpdate => "optional",
            Self::Connect => "connect",
            Self::Disabled => "disabled",
            Self::MfaChallenge => "mfa_challenge",
            Self::Other(word) => word,
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// A text for the user.
    pub message: String,
    /// The id of that text, for viewers that translate it.
    pub message_id: Option<String>,
    /// What stands in the text's gaps.
    pub message_args: Map,
}

impl Refusal {
    /// A refusal by a word and with a text for the user.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: RefusalReason::from_word(reason),
            message: message.into(),
            message_id: None,
            message_args: Map::new(),
        }
    }
}

/// What the field `login` says.
enum Outcome {
    Yes,
    No,
    Unsure,
}

impl Outcome {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text.trim().eq_ignore_ascii_case("indeterminate") => {
                Some(Self::Unsure)
            }
            Value::String(text) if text.trim().is_empty() => None,
            value => value.to_bool().map(|yes| if yes { Self::Yes } else { Self::No }),
        }
    }
}

impl LoginReply {
    /// The map of its fields.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Success(success) => success.to_value(),
            Self::Indeterminate(redirect) => {
                let mut map = Map::from([
                    ("login".to_owned(), "indeterminate".into()),
                    ("next_url".to_owned(), redirect.next_url.as_str().into()),
                ]);
                let text = |text: &Option<String>| text.as_deref().map(Value::from);
                for (key, value) in [
                    ("next_method", text(&redirect.next_method)),
                    ("next_duration", redirect.next_duration.map(Value::Real)),
                    ("message", text(&redirect.message)),
                ] {
                    map.extend(value.map(|value| (key.to_owned(), value)));
                }
                Value::Map(map)
            }
            Self::Refused(refusal) => {
                let mut map = Map::from([
                    ("login".to_owned(), "false".into()),
                    ("reason".to_owned(), refusal.reason.word().into()),
                    ("message".to_owned(), refusal.message.as_str().into()),
                ]);
                if let Some(id) = &refusal.message_id {
                    map.insert("message_id".into(), id.as_str().into());
                }
                if !refusal.message_args.is_empty() {
                    map.insert("message_args".into(), refusal.message_args.clone().into());
                }
                Value::Map(map)
            }
        }
    }

    /// Reads the map of its fields.
    ///
    /// # Errors
    /// [`LoginReadError::Missing`] and [`LoginReadError::Field`] name the field.
    pub fn from_value(value: Value) -> Result<Self, LoginReadError> {
        let mut fields = Fields::of(value)?;
        let wanted = "`true`, `false` or `indeterminate`";
        match fields.required("login", wanted, Outcome::of)? {
            Outcome::Yes => LoginSuccess::take(fields).map(|success| Self::Success(success.into())),
            Outcome::Unsure => Ok(Self::Indeterminate(Redirect {
                next_url: fields.required("next_url", "an address", filled)?,
                next_method: fields.optional("next_method", filled),
                next_duration: fields.optional("next_duration", |value| {
                    value.to_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
                }),
                message: fields.optional("message", filled),
            })),
            Outcome::No => Ok(Self::Refused(Refusal {
                reason: RefusalReason::from_word(&fields.required("reason", "a text", text)?),
                message: fields.text("message"),
                message_id: fields.optional("message_id", filled),
                message_args: match fields.take("message_args") {
                    Some(Value::Map(args)) => args,
                    _ => Map::new(),
                },
            })),
        }
    }

    /// Writes it as the body of a reply.
    ///
    /// # Errors
    /// [`LoginWriteError`]
    pub fn write(&self, form: LoginForm) -> Result<Vec<u8>, LoginWriteError> {
        Ok(match form {
            LoginForm::XmlRpc => write_response(Ok(&self.to_value()))?,
            LoginForm::Llsd => Form::Xml.write_with_header(&self.to_value())?,
        })
    }

    /// The body of a reply that says that the grid failed. LLSD has none: there it is a refusal
    /// for the reason `key`.
    ///
    /// # Errors
    /// [`LoginWriteError`]
    pub fn write_fault(fault: &Fault, form: LoginForm) -> Result<Vec<u8>, LoginWriteError> {
        match form {
            LoginForm::XmlRpc => Ok(write_response(Err(fault))?),
            LoginForm::Llsd => Self::Refused(Refusal::new("key", &fault.message)).write(form),
        }
    }

    /// Reads the body of a reply.
    ///
    /// # Errors
    /// [`LoginReadError`]
    pub fn read(bytes: &[u8], form: LoginForm, limits: &Limits) -> Result<Self, LoginReadError> {
        match form {
            LoginForm::XmlRpc => Self::from_value(parse_response(bytes, limits)??),
            LoginForm::Llsd => {
                let begin = bytes.trim_ascii_start();
                let is_page = ["<!doctype html", "<html"].iter().any(|page| {
                    let begin = begin.get(..page.len());
                    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(page.as_bytes()))
                });
                if is_page {
                    return Err(ReadError::Html { wanted: "llsd" }.into());
                }
                Self::from_value(parse_any(bytes, limits)?)
            }
        }
    }
}
