//! LLSD, the structured values of Second Life: XML, binary and notation, as values and for serde.
//!
//! A document is read into a [`Value`], or straight into a type of the user's own:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use twinspan_llsd::{Form, Limits, Value};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Ack {
//!     id: i32,
//!     done: bool,
//! }
//!
//! let text = b"<llsd><map><key>id</key><integer>7</integer><key>done</key><boolean/></map></llsd>";
//! let value = twinspan_llsd::parse(text, Form::Xml, &Limits::DEFAULT)?;
//! assert_eq!(value.get("id"), Some(&Value::Integer(7)));
//! let ack: Ack = twinspan_llsd::from_slice(text, Form::Xml, &Limits::DEFAULT)?;
//! assert_eq!(ack, Ack { id: 7, done: false });
//! assert_eq!(twinspan_llsd::to_vec(&ack, Form::Notation)?, b"{'id':i7,'done':0}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is tolerated
//!
//! Headers may be there or missing, in any case of letters. XML may lack its declaration and even
//! the element `llsd`; comments, processing instructions and CDATA are read; white space between
//! elements is skipped; an empty element is the type's zero. Binary lengths are checked against what
//! is there. Maps keep the last of two equal keys. Declarations of types and entities are refused.
//!
//! A field that serde asks for is converted as LLSD converts: see [`Value::to_i64`] and its
//! siblings. Undef is the zero of what is asked for, and `None` of an option.
#![forbid(unsafe_code)]

mod binary;
mod convert;
mod cursor;
mod date;
mod de;
mod error;
mod form;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod limits;
pub mod markup;
mod notation;
mod quoted;
mod ser;
mod texts;
mod token;
mod value;
pub mod with;
mod xml;

pub use date::{DATE_SECONDS_MAX, DATE_SECONDS_MIN, Date};
pub use de::{FromError, from_slice, from_value};
pub use error::{ParseError, Reason, WriteError};
pub use form::{Form, parse, parse_any};
pub use limits::{DEPTH_MAX, Limits};
pub use ser::{ToError, to_value, to_vec};
pub use texts::{TextError, base16, base64, base85, from_base16, from_base64, from_base85};
pub use uuid::Uuid;
pub use value::{Map, Uri, Value};
