//! What a viewer asks for.

use std::fmt;

use twinspan_llsd::{Form, Limits, Map, Uuid, Value, parse_any};

use super::fields::{Fields, filled, flag, id, text};
use super::secret::md5_hex;
use super::{
    AccountName, LOGIN_METHOD, LoginForm, LoginReadError, LoginWriteError, Password, Secret,
    StartLocation,
};
use crate::{Call, parse_call, write_call};

/// Options of a request at most.
pub const OPTIONS_MAX: usize = 256;

/// What viewers ask to be told.
pub const OPTIONS: &[&str] = &[
    "inventory-root",
    "inventory-skeleton",
    "inventory-lib-root",
    "inventory-lib-owner",
    "inventory-skel-lib",
    "initial-outfit",
    "gestures",
    "display_names",
    "event_categories",
    "event_notifications",
    "classified_categories",
    "adult_compliant",
    "buddy-list",
    "newuser-config",
    "ui-config",
    "advanced-mode",
    "max-agent-groups",
    "map-server-url",
    "voice-config",
    "tutorial_setting",
    "login-flags",
    "global-textures",
];

/// Ids of the viewer's machine, as they travel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardwareIds {
    /// Of its network: 32 hexadecimal digits, or an address like `00:11:22:33:44:55`.
    pub mac: String,
    /// Of its disk: 32 hexadecimal digits.
    pub id0: String,
    /// Of its host; may be empty.
    pub host_id: String,
}

impl HardwareIds {
    /// Ids made of texts that stay the same on this machine: their MD5, so that nobody reads them.
    pub fn hashed(network: &str, disk: &str) -> Self {
        Self { mac: md5_hex(network), id0: md5_hex(disk), host_id: String::new() }
    }
}

/// What a viewer runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `win`, `mac` or `lnx`.
    pub name: String,
    /// In words.
    pub text: String,
    /// Its version.
    pub version: String,
    /// 32 or 64.
    pub address_size: i32,
}

impl Default for Platform {
    /// Linux, 64 bits.
    fn default() -> Self {
        Self { name: "lnx".into(), text: "Linux".into(), version: String::new(), address_size: 64 }
    }
}

/// A request to log in.
#[derive(Clone, PartialEq)]
pub struct LoginRequest {
    /// Who.
    pub name: AccountName,
    /// The hashed password.
    pub password: Password,
    /// Where.
    pub start: StartLocation,
    /// The name of the viewer; the main grid knows registered ones.
    pub channel: String,
    /// Its version.
    pub version: String,
    /// What it runs on.
    pub platform: Platform,
    /// Ids of its machine.
    pub hardware: HardwareIds,
    /// Of the viewer's program; old, and sent only when it is there.
    pub viewer_digest: Option<String>,
    /// The user agrees to the terms of service.
    pub agree_to_tos: bool,
    /// The user has read the critical message.
    pub read_critical: bool,
    /// Asks for ids of messages in refusals.
    pub extended_errors: bool,
    /// How the last session ended: 0 is well.
    pub last_exec_event: i32,
    /// Seconds that it lasted.
    pub last_exec_duration: i32,
    /// Its id.
    pub last_exec_session_id: Option<Uuid>,
    /// The code of the second factor, if the grid asked for it.
    pub token: Secret,
    /// What an earlier login with a second factor left.
    pub mfa_hash: Secret,
    /// What the reply shall tell.
    pub options: Vec<String>,
    /// Fields that this library does not know.
    pub rest: Map,
}

impl fmt::Debug for LoginRequest {
    /// Everything but the values of unknown fields, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest")
            .field("name", &self.name)
            .field("password", &self.password)
            .field("start", &self.start)
            .field("channel", &self.channel)
            .field("version", &self.version)
            .field("platform", &self.platform)
            .field("agree_to_tos", &self.agree_to_tos)
            .field("read_critical", &self.read_critical)
            .field("token", &self.token)
            .field("mfa_hash", &self.mfa_hash)
            .field("options", &self.options.len())
            .field("rest", &self.rest.keys())
            .finish_non_exhaustive()
    }
}

impl LoginRequest {
    /// A request at the last place, for all [`OPTIONS`].
    pub fn new(
        name: AccountName,
        password: Password,
        channel: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        Self {
            name,
            password,
            start: StartLocation::Last,
            channel: channel.into(),
            version: version.into(),
            platform: Platform::default(),
            hardware: HardwareIds::default(),
            viewer_digest: None,
            agree_to_tos: false,
            read_critical: false,
            extended_errors: true,
            last_exec_event: 0,
            last_exec_duration: 0,
            last_exec_session_id: None,
            token: Secret::default(),
            mfa_hash: Secret::default(),
            options: OPTIONS.iter().map(|option| (*option).to_owned()).collect(),
            rest: Map::new(),
        }
    }

    /// The map of its fields.
    pub fn to_value(&self) -> Value {
        let text = |text: &str| Value::from(text);
        // Servers of all ages know numbers; not all know booleans here.
        let flag = |flag: bool| Value::Integer(flag.into());
        let last_session = self.last_exec_session_id.unwrap_or_default().to_string();
        let options = self.options.iter().map(|option| text(option)).collect::<Vec<_>>();
        let mut map = self.rest.clone();
        let known = [
            ("first", text(&self.name.first)),
            ("last", text(&self.name.last)),
            ("passwd", text(self.password.reveal())),
            ("start", self.start.to_text().into()),
            ("channel", text(&self.channel)),
            ("version", text(&self.version)),
            ("platform", text(&self.platform.name)),
            ("platform_string", text(&self.platform.text)),
            ("platform_version", text(&self.platform.version)),
            ("address_size", Value::Integer(self.platform.address_size)),
            ("mac", text(&self.hardware.mac)),
            ("id0", text(&self.hardware.id0)),
            ("host_id", text(&self.hardware.host_id)),
            ("agree_to_tos", flag(self.agree_to_tos)),
            ("read_critical", flag(self.read_critical)),
            ("extended_errors", flag(self.extended_errors)),
            ("last_exec_event", Value::Integer(self.last_exec_event)),
            ("last_exec_duration", Value::Integer(self.last_exec_duration)),
            ("last_exec_session_id", last_session.into()),
            ("token", text(self.token.reveal())),
            ("mfa_hash", text(self.mfa_hash.reveal())),
            ("options", Value::Array(options)),
        ];
        map.extend(known.map(|(key, value)| (key.to_owned(), value)));
        if let Some(digest) = &self.viewer_digest {
            map.insert("viewer_digest".into(), text(digest));
        }
        Value::Map(map)
    }

    /// Reads the map of its fields.
    ///
    /// # Errors
    /// [`LoginReadError::Missing`] without `first`, `last` or `passwd`,
    /// [`LoginReadError::Field`], [`LoginReadError::TooMany`]
    pub fn from_value(value: Value) -> Result<Self, LoginReadError> {
        let mut fields = Fields::of(value)?;
        let name = AccountName {
            first: fields.required("first", "a text", text)?,
            last: fields.required("last", "a text", text)?,
        };
        let password = |value: &Value| Password::from_hash(&value.to_text()?).ok();
        let password = fields.required("passwd", "a hashed password", password)?;
        let number = |value: &Value| value.to_i64()?.try_into().ok();
        let mut flag_of = |field| {
            let flag = fields.checked(field, "0 or 1", flag);
            flag.map(Option::unwrap_or_default)
        };
        let (agree_to_tos, read_critical) = (flag_of("agree_to_tos")?, flag_of("read_critical")?);
        let extended_errors = flag_of("extended_errors")?;
        Ok(Self {
            name,
            password,
            start: StartLocation::parse(&fields.text("start")),
            channel: fields.text("channel"),
            version: fields.text("version"),
            platform: Platform {
                name: fields.text("platform"),
                text: fields.text("platform_string"),
                version: fields.text("platform_version"),
                address_size: fields.optional("address_size", number).unwrap_or_default(),
            },
            hardware: HardwareIds {
                mac: fields.text("mac"),
                id0: fields.text("id0"),
                host_id: fields.text("host_id"),
            },
            viewer_digest: fields.optional("viewer_digest", filled),
            agree_to_tos,
            read_critical,
            extended_errors,
            last_exec_event: fields.optional("last_exec_event", number).unwrap_or_default(),
            last_exec_duration: fields.optional("last_exec_duration", number).unwrap_or_default(),
            last_exec_session_id: fields
                .take("last_exec_session_id")
                .and_then(|value| id(&value))
                .filter(|id| !id.is_nil()),
            token: fields.secret("token"),
            mfa_hash: fields.secret("mfa_hash"),
            options: options(&mut fields)?,
            rest: known_to_nobody(fields),
        })
    }

    /// Writes it as the body of a POST.
    ///
    /// # Errors
    /// [`LoginWriteError`]
    pub fn write(&self, form: LoginForm) -> Result<Vec<u8>, LoginWriteError> {
        self.write_for(form, LOGIN_METHOD)
    }

    /// Writes it for another method, which a [`Redirect`](super::Redirect) may name. LLSD has none.
    ///
    /// # Errors
    /// [`LoginWriteError`]
    pub fn write_for(&self, form: LoginForm, method: &str) -> Result<Vec<u8>, LoginWriteError> {
        Ok(match form {
            LoginForm::XmlRpc => {
                write_call(&Call { method: method.to_owned(), params: vec![self.to_value()] })?
            }
            LoginForm::Llsd => Form::Xml.write_with_header(&self.to_value())?,
        })
    }

    /// Reads the body of a POST.
    ///
    /// # Errors
    /// [`LoginReadError`]
    pub fn read(bytes: &[u8], form: LoginForm, limits: &Limits) -> Result<Self, LoginReadError> {
        match form {
            LoginForm::XmlRpc => {
                let call = parse_call(bytes, limits)?;
                if call.method != LOGIN_METHOD {
                    let method = call.method.chars().take(32).collect();
                    return Err(LoginReadError::Method { method });
                }
                Self::from_value(call.params.into_iter().next().unwrap_or_default())
            }
            LoginForm::Llsd => Self::from_value(parse_any(bytes, limits)?),
        }
    }
}

fn options(fields: &mut Fields) -> Result<Vec<String>, LoginReadError> {
    let field = "options";
    let wrong = LoginReadError::Field { field, wanted: "an array of texts" };
    match fields.take(field) {
        None => Ok(Vec::new()),
        Some(Value::Array(options)) if options.len() > OPTIONS_MAX => {
            Err(LoginReadError::TooMany { field, max: OPTIONS_MAX })
        }
        Some(Value::Array(options)) => options.iter().map(text).collect::<Option<_>>().ok_or(wrong),
        Some(_) => Err(wrong),
    }
}

/// What is left; empty secrets are nothing.
fn known_to_nobody(fields: Fields) -> Map {
    let mut rest = fields.0;
    for field in ["token", "mfa_hash", "viewer_digest"] {
        rest.remove(field);
    }
    rest
}
