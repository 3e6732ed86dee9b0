//! The login: what a viewer asks for, and everything that a grid can answer.

mod fields;
mod names;
mod reply;
mod request;
mod secret;
mod success;

use twinspan_llsd::{Form, ParseError, WriteError};

use crate::{Fault, ReadError, XmlRpcWriteError};

pub use names::{AccountName, NameError, StartLocation};
pub use reply::{LoginReply, Redirect, Refusal, RefusalReason};
pub use request::{HardwareIds, LoginRequest, OPTIONS, OPTIONS_MAX, Platform};
pub use secret::{PASSWORD_CHARS, Password, PasswordError, Secret, combined_id};
pub use success::{Buddy, Gesture, Home, InventoryFolder, LoginSuccess};

/// The method that a viewer calls at first.
pub const LOGIN_METHOD: &str = "login_to_simulator";

/// How a login is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LoginForm {
    /// XML-RPC, which all grids know.
    #[default]
    XmlRpc,
    /// LLSD in XML, which OpenSimulator knows as well.
    Llsd,
}

impl LoginForm {
    /// What HTTP calls it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::XmlRpc => crate::CONTENT_TYPE,
            Self::Llsd => Form::Xml.content_type(),
        }
    }

    /// The form of a request by what HTTP calls it; anything that is not LLSD is XML-RPC.
    pub fn of_content_type(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let is_llsd = kind.eq_ignore_ascii_case(Form::Xml.content_type());
        if is_llsd { Self::Llsd } else { Self::XmlRpc }
    }
}

/// Why bytes are no request, or no reply, to log in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginReadError {
    /// They are no XML-RPC.
    #[error(transparent)]
    XmlRpc(#[from] ReadError),
    /// They are no LLSD.
    #[error(transparent)]
    Llsd(#[from] ParseError),
    /// The grid failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A call of another method.
    #[error("a call of `{method}`, not of `{LOGIN_METHOD}`")]
    Method {
        /// The beginning of the method's name.
        method: String,
    },
    /// They are no map with fields.
    #[error("no map of fields")]
    NotAMap,
    /// A field that must be there is not.
    #[error("the field `{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field is not what it must be.
    #[error("the field `{field}` is not {wanted}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// More of something than its limit.
    #[error("more than {max} of `{field}`")]
    TooMany {
        /// The field.
        field: &'static str,
        /// The limit.
        max: usize,
    },
}

/// Why a request or a reply cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginWriteError {
    /// Not in XML-RPC.
    #[error(transparent)]
    XmlRpc(#[from] XmlRpcWriteError),
    /// Not in LLSD.
    #[error(transparent)]
    Llsd(#[from] WriteError),
}

#[cfg(test)]
mod tests;
