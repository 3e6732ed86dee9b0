//! XML-RPC, and the login of Second Life in XML-RPC and in LLSD.
//!
//! Both ends use it: a viewer writes requests and reads replies, a grid reads requests and writes
//! replies.
//!
//! ```
//! use twinspan_xmlrpc::login::{AccountName, LoginReply, LoginRequest, Password, Refusal};
//! use twinspan_xmlrpc::{LoginForm, Limits};
//!
//! let name = AccountName::parse("Ruth Resident")?;
//! let request = LoginRequest::new(name, Password::new("secret"), "Twinspan", "0.1.0");
//! let body = request.write(LoginForm::XmlRpc)?;
//! let seen = LoginRequest::read(&body, LoginForm::XmlRpc, &Limits::DEFAULT)?;
//! assert_eq!(seen.name.first, "Ruth");
//!
//! let reply = LoginReply::Refused(Refusal::new("key", "Could not authenticate"));
//! let body = reply.write(LoginForm::XmlRpc)?;
//! assert_eq!(LoginReply::read(&body, LoginForm::XmlRpc, &Limits::DEFAULT)?, reply);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod login;
mod read;
mod write;

pub use login::LoginForm;
pub use read::{ReadError, parse_call, parse_response};
pub use twinspan_llsd::{Date, Limits, Map, ParseError, Reason, Uri, Uuid, Value};
pub use write::{XmlRpcWriteError, write_call, write_response};

/// What HTTP calls a request and a reply.
pub const CONTENT_TYPE: &str = "text/xml";

/// A call of a method.
///
/// Values are those of LLSD, which has all types of XML-RPC and more: ids and URIs travel as
/// strings.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The name of the method.
    pub method: String,
    /// What it is given.
    pub params: Vec<Value>,
}

/// What a server says when a call fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's fault {code}: {message}")]
pub struct Fault {
    /// Its number.
    pub code: i32,
    /// Its text.
    pub message: String,
}
