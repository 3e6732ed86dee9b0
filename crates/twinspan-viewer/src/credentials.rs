//! Who logs in, with what, and where: given by hand, from a file or from the environment.

use std::fmt;
use std::path::Path;

use twinspan_xmlrpc::login::{
    AccountName, HardwareIds, LoginRequest, NameError, Password, Secret, StartLocation,
};

use crate::files::{platform, read_secret_file, variable};
use crate::grid::{Grid, PasswordRule};

/// Bytes of a file with a password, or with credentials.
pub const CREDENTIALS_BYTES_MAX: u64 = 4_096;
/// The variable of the environment with the name of the account.
pub const USER_VARIABLE: &str = "TWINSPAN_USER";
/// The variable of the environment with its password.
pub const PASSWORD_VARIABLE: &str = "TWINSPAN_PASSWORD";
/// The variable of the environment with the grid.
pub const GRID_VARIABLE: &str = "TWINSPAN_GRID";

/// A password before the grid's rule is applied to it, or one that is hashed already.
#[derive(Clone, PartialEq, Eq)]
enum Given {
    Plain(Secret),
    Hashed(Password),
}

/// Who logs in, with what, and where. `Debug` shows no secret, and nothing logs any.
#[derive(Clone, PartialEq)]
pub struct LoginCredentials {
    name: String,
    password: Given,
    grid: Grid,
    start: StartLocation,
    channel: String,
    version: String,
    hardware: HardwareIds,
    agree_to_tos: bool,
    read_critical: bool,
    token: Secret,
    mfa_hash: Secret,
    options: Option<Vec<String>>,
}

/// Why credentials could not be read or cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The name is none.
    #[error("{0}, like `Ruth Resident` or `ruth`")]
    Name(#[from] NameError),
    /// The password is empty.
    #[error("the password is empty, give one")]
    NoPassword,
    /// A variable of the environment is not there.
    #[error("the variable {variable} is not set, set it or give the value by other means")]
    NoVariable {
        /// Which.
        variable: &'static str,
    },
    /// A file cannot be read.
    #[error("the file with the credentials cannot be read: {0}")]
    File(#[from] std::io::Error),
    /// A file is longer than one with credentials is.
    #[error(
        "the file is longer than {CREDENTIALS_BYTES_MAX} bytes, which none with credentials is"
    )]
    TooLong,
    /// A file is no text.
    #[error("the file is not UTF-8")]
    NotText,
    /// A line of a file is not `key = value` with a key that is known.
    #[error("line {line} is not `user = ..`, `password = ..`, `grid = ..` or `start = ..`")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// A file does not name what is needed.
    #[error("the file has no line `{key} = ..`")]
    Missing {
        /// What is missing.
        key: &'static str,
    },
    /// The grid's address cannot be used.
    #[error(transparent)]
    Grid(#[from] crate::grid::GridUriError),
    /// Somebody else may read the file.
    #[error("others may read the file with the password, take that away from them (chmod 600)")]
    Readable,
}

impl LoginCredentials {
    /// Somebody on Second Life's main grid, at the last place. The name has one or two words:
    /// `Ruth Resident`, `ruth.resident` and `ruth` are the same.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self::of(username.into(), Given::Plain(Secret::new(password)))
    }

    /// The same with a password that is hashed already, as it travels.
    pub fn with_hashed_password(username: impl Into<String>, password: Password) -> Self {
        Self::of(username.into(), Given::Hashed(password))
    }

    fn of(name: String, password: Given) -> Self {
        Self {
            name,
            password,
            grid: Grid::SecondLifeMain,
            start: StartLocation::Last,
            channel: "Twinspan".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            hardware: HardwareIds::default(),
            agree_to_tos: false,
            read_critical: false,
            token: Secret::default(),
            mfa_hash: Secret::default(),
            options: None,
        }
    }

    /// From the environment: [`USER_VARIABLE`], [`PASSWORD_VARIABLE`], and, where it is set,
    /// [`GRID_VARIABLE`].
    ///
    /// # Errors
    /// [`CredentialsError`]
    pub fn from_env() -> Result<Self, CredentialsError> {
        Self::from_variables(variable)
    }

    fn from_variables(
        get: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, CredentialsError> {
        let need = |variable| get(variable).ok_or(CredentialsError::NoVariable { variable });
        let mut credentials = Self::new(need(USER_VARIABLE)?, need(PASSWORD_VARIABLE)?);
        if let Some(grid) = get(GRID_VARIABLE) {
            credentials.grid = Grid::parse(&grid)?;
        }
        credentials.check()?;
        Ok(credentials)
    }

    /// From a file of lines `user = ..`, `password = ..` and, if wanted, `grid = ..` and
    /// `start = ..`; empty lines and those that begin with `#` are nothing. On Unix a file that
    /// others may read is refused.
    ///
    /// # Errors
    /// [`CredentialsError`]
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, CredentialsError> {
        let text = read_secret_file(path.as_ref())?;
        Self::from_text(&text)
    }

    fn from_text(text: &str) -> Result<Self, CredentialsError> {
        let (mut user, mut password, mut grid, mut start) = (None, None, None, None);
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = CredentialsError::Line { line: index + 1 };
            let Some((key, value)) = line.split_once('=') else { return Err(wrong) };
            let value = value.trim();
            match key.trim() {
                "user" => user = Some(value),
                "password" => password = Some(value),
                "grid" => grid = Some(value),
                "start" => start = Some(value),
                _ => return Err(wrong),
            }
        }
        let user = user.ok_or(CredentialsError::Missing { key: "user" })?;
        let password = password.ok_or(CredentialsError::Missing { key: "password" })?;
        let mut credentials = Self::new(user, password);
        if let Some(grid) = grid {
            credentials.grid = Grid::parse(grid)?;
        }
        if let Some(start) = start {
            credentials.start = StartLocation::parse(start);
        }
        credentials.check()?;
        Ok(credentials)
    }

    /// A password from a file: its first line, without the end of it. On Unix a file that others
    /// may read is refused.
    ///
    /// # Errors
    /// [`CredentialsError`]
    pub fn password_from_file(path: impl AsRef<Path>) -> Result<Secret, CredentialsError> {
        let text = read_secret_file(path.as_ref())?;
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() { Err(CredentialsError::NoPassword) } else { Ok(Secret::new(line)) }
    }

    /// On this grid.
    #[must_use]
    pub fn with_grid(mut self, grid: Grid) -> Self {
        self.grid = grid;
        self
    }

    /// At this place.
    #[must_use]
    pub fn with_start(mut self, start: StartLocation) -> Self {
        self.start = start;
        self
    }

    /// As this viewer; the main grid knows registered names.
    #[must_use]
    pub fn with_viewer(mut self, channel: impl Into<String>, version: impl Into<String>) -> Self {
        (self.channel, self.version) = (channel.into(), version.into());
        self
    }

    /// From a machine with these ids.
    #[must_use]
    pub fn with_hardware(mut self, hardware: HardwareIds) -> Self {
        self.hardware = hardware;
        self
    }

    /// The user agrees to the terms of service, which a refused login showed.
    #[must_use]
    pub const fn with_terms_accepted(mut self) -> Self {
        self.agree_to_tos = true;
        self
    }

    /// The user has read the critical message, which a refused login showed.
    #[must_use]
    pub const fn with_critical_message_read(mut self) -> Self {
        self.read_critical = true;
        self
    }

    /// With a code of the second factor. It is good for one login.
    #[must_use]
    pub fn with_mfa_token(mut self, token: impl Into<String>) -> Self {
        self.token = Secret::new(token);
        self
    }

    /// With what an earlier login with a second factor left
    /// ([`SessionInfo::mfa_hash`](crate::SessionInfo::mfa_hash)).
    #[must_use]
    pub fn with_mfa_hash(mut self, hash: impl Into<String>) -> Self {
        self.mfa_hash = Secret::new(hash);
        self
    }

    /// Asks the grid to tell these things alone, instead of all that viewers ask for. Without the
    /// inventory a login is faster.
    #[must_use]
    pub fn with_options(mut self, options: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options = Some(options.into_iter().map(Into::into).collect());
        self
    }

    /// Which grid.
    pub const fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The name as it was given.
    pub fn username(&self) -> &str {
        &self.name
    }

    /// Whether there is a code of the second factor.
    pub fn has_mfa_token(&self) -> bool {
        !self.token.is_empty()
    }

    /// Whether there is something of an earlier login with a second factor.
    pub fn has_mfa_hash(&self) -> bool {
        !self.mfa_hash.is_empty()
    }

    /// For another login of the same user: a code is good for one only.
    pub(crate) fn for_another_login(&mut self) {
        self.token = Secret::default();
    }

    /// Checks everything that can be checked without asking the grid.
    ///
    /// # Errors
    /// [`CredentialsError`] names what is wrong.
    pub fn check(&self) -> Result<(), CredentialsError> {
        AccountName::parse(&self.name)?;
        self.grid.login_uri()?;
        match &self.password {
            Given::Plain(plain) if plain.is_empty() => Err(CredentialsError::NoPassword),
            Given::Plain(_) | Given::Hashed(_) => Ok(()),
        }
    }

    /// The request that these make.
    ///
    /// # Errors
    /// [`CredentialsError`] names what is wrong.
    pub fn request(&self) -> Result<LoginRequest, CredentialsError> {
        self.check()?;
        let name = AccountName::parse(&self.name)?;
        let password = match (&self.password, self.grid.password_rule()) {
            (Given::Plain(plain), PasswordRule::First16) => Password::new(plain.reveal()),
            (Given::Plain(plain), PasswordRule::Whole) => Password::whole(plain.reveal()),
            (Given::Hashed(hashed), _) => hashed.clone(),
        };
        let mut request = LoginRequest::new(name, password, &self.channel, &self.version);
        request.start = self.start.clone();
        request.platform = platform();
        request.hardware = self.hardware.clone();
        request.agree_to_tos = self.agree_to_tos;
        request.read_critical = self.read_critical;
        request.token = self.token.clone();
        request.mfa_hash = self.mfa_hash.clone();
        if let Some(options) = &self.options {
            request.options.clone_from(options);
        }
        Ok(request)
    }
}

impl fmt::Debug for LoginCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginCredentials")
            .field("name", &self.name)
            .field("grid", &self.grid)
            .field("start", &self.start)
            .field("channel", &self.channel)
            .field("version", &self.version)
            .field("token", &self.token)
            .field("mfa_hash", &self.mfa_hash)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_appear_in_no_debug_output() {
        let credentials = LoginCredentials::new("Ruth Resident", "hunter2")
            .with_mfa_token("123456")
            .with_mfa_hash("cafe0001");
        let request = credentials.request().unwrap();
        let shown = format!("{credentials:?} {request:?}");
        for secret in ["hunter2", "123456", "cafe0001", request.password.reveal()] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn a_file_has_lines_with_keys() {
        let text =
            "# mine\nuser = Ruth\npassword = a = b \n\ngrid = localhost:9000\nstart = home\n";
        let credentials = LoginCredentials::from_text(text).unwrap();
        let request = credentials.request().unwrap();
        assert_eq!((request.name.first.as_str(), request.start), ("Ruth", StartLocation::Home));
        assert_eq!(request.password, Password::new("a = b"));
        assert_eq!(credentials.grid(), &Grid::OpenSim("localhost:9000".into()));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named_and_not_shown() {
        for (text, wanted) in [
            ("user = Ruth", "`password = ..`"),
            ("password = hunter2", "`user = ..`"),
            ("user = Ruth\nhunter2", "line 2 "),
            ("user = Ruth\npassword =", "empty"),
            ("user = a b c\npassword = hunter2", "one or two words"),
            ("user = a\npassword = hunter2\ngrid = ftp://a/", "no address"),
        ] {
            let error = LoginCredentials::from_text(text).unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_environment_names_user_and_password() {
        let get = |name: &'static str| match name {
            USER_VARIABLE => Some("ruth.resident".to_owned()),
            PASSWORD_VARIABLE => Some("x".to_owned()),
            _ => None,
        };
        let credentials = LoginCredentials::from_variables(get).unwrap();
        assert_eq!(credentials.grid(), &Grid::SecondLifeMain);
        let none = LoginCredentials::from_variables(|_| None).unwrap_err();
        assert!(none.to_string().contains(USER_VARIABLE));
    }

    #[test]
    fn a_grid_may_count_all_of_a_password() {
        let long = "12345678901234567890";
        let mut grid = Grid::custom("own", "http://own/");
        let first = LoginCredentials::new("a", long).with_grid(grid.clone()).request().unwrap();
        assert_eq!(first.password, Password::new(&long[..16]));
        if let Grid::Custom(custom) = &mut grid {
            custom.password = PasswordRule::Whole;
        }
        let whole = LoginCredentials::new("a", long).with_grid(grid).request().unwrap();
        assert_eq!(whole.password, Password::whole(long));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("twinspan-pw-{}", std::process::id()));
        std::fs::write(&path, "secret\n").unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            LoginCredentials::password_from_file(&path)
        };
        let open = mode(0o644);
        let closed = mode(0o600);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(open, Err(CredentialsError::Readable)));
        assert_eq!(closed.unwrap().reveal(), "secret");
    }
}
