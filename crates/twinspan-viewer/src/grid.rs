//! Which grid: where its login is, and what is its own.

use std::fmt;
use std::time::Duration;

use twinspan_http::Url;
use twinspan_xmlrpc::LoginForm;

/// Where a grid is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grid {
    /// Second Life's main grid.
    SecondLifeMain,
    /// Second Life's preview grid.
    SecondLifeBeta,
    /// A grid of OpenSimulator, by the address of its login, with or without `http://`.
    OpenSim(String),
    /// Any other grid.
    Custom(CustomGrid),
}

/// A grid with habits of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomGrid {
    /// A name for people.
    pub name: String,
    /// The address of its login.
    pub login_uri: String,
    /// How it wants the login written down.
    pub form: LoginForm,
    /// How much of a password it counts.
    pub password: PasswordRule,
    /// How long it may take to answer a login.
    pub login_timeout: Duration,
}

/// How much of a password counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PasswordRule {
    /// The first 16 characters, as Second Life has it.
    #[default]
    First16,
    /// All of it.
    Whole,
}

/// How long a login may take unless a grid says otherwise: big inventories take their time.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(90);

/// The address of a grid's login cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{uri}` is no address of a login: {why}; give one like http://host:9000/")]
pub struct GridUriError {
    /// What was given, without what stands before an `@`.
    pub uri: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Grid {
    /// The grid that a text names: `main`, `beta`, or the address of an OpenSimulator login.
    ///
    /// # Errors
    /// [`GridUriError`] when it is none of these.
    pub fn parse(text: &str) -> Result<Self, GridUriError> {
        let grid = match text.trim() {
            "main" | "agni" => Self::SecondLifeMain,
            "beta" | "aditi" => Self::SecondLifeBeta,
            uri => Self::OpenSim(uri.to_owned()),
        };
        grid.login_uri()?;
        Ok(grid)
    }

    /// A grid with the usual habits.
    pub fn custom(name: impl Into<String>, login_uri: impl Into<String>) -> Self {
        Self::Custom(CustomGrid {
            name: name.into(),
            login_uri: login_uri.into(),
            form: LoginForm::XmlRpc,
            password: PasswordRule::First16,
            login_timeout: LOGIN_TIMEOUT,
        })
    }

    /// The address of its login.
    ///
    /// # Errors
    /// [`GridUriError`] when what the user gave is no address.
    pub fn login_uri(&self) -> Result<Url, GridUriError> {
        let text = match self {
            Self::SecondLifeMain => "https://login.agni.lindenlab.com/cgi-bin/login.cgi",
            Self::SecondLifeBeta => "https://login.aditi.lindenlab.com/cgi-bin/login.cgi",
            Self::OpenSim(uri) => uri,
            Self::Custom(grid) => &grid.login_uri,
        };
        let text = text.trim();
        let with_scheme;
        let text = if text.contains("://") {
            text
        } else {
            with_scheme = format!("http://{text}");
            &with_scheme
        };
        let shown = || {
            let behind = text.rsplit('@').next().unwrap_or_default();
            behind.chars().take(128).collect::<String>()
        };
        let wrong = |why| GridUriError { uri: shown(), why };
        let url = Url::parse(text).map_err(|_| wrong("it cannot be read"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("only http and https are spoken"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it names no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it has a user or a password in it, which a login does not take"));
        }
        Ok(url)
    }

    /// Where it tells about itself, beside its login; `None` for Second Life's grids, which do not.
    ///
    /// # Errors
    /// As [`login_uri`](Self::login_uri).
    pub fn info_uri(&self) -> Result<Option<Url>, GridUriError> {
        let login = self.login_uri()?;
        let is_told = matches!(self, Self::OpenSim(_) | Self::Custom(_));
        // A login has a path, so that a name can be put in the place of its end.
        Ok(login.join("get_grid_info").ok().filter(|_| is_told))
    }

    /// How it wants the login written down.
    pub const fn form(&self) -> LoginForm {
        match self {
            Self::Custom(grid) => grid.form,
            _ => LoginForm::XmlRpc,
        }
    }

    /// How much of a password it counts.
    pub const fn password_rule(&self) -> PasswordRule {
        match self {
            Self::Custom(grid) => grid.password,
            // OpenSimulator hashes whatever the viewer sent when the account was made; viewers send
            // the first 16.
            _ => PasswordRule::First16,
        }
    }

    /// How long it may take to answer a login.
    pub const fn login_timeout(&self) -> Duration {
        match self {
            Self::Custom(grid) => grid.login_timeout,
            _ => LOGIN_TIMEOUT,
        }
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecondLifeMain => f.write_str("Second Life"),
            Self::SecondLifeBeta => f.write_str("Second Life Beta"),
            Self::OpenSim(_) => match self.login_uri() {
                Ok(url) => f.write_str(url.host_str().unwrap_or_default()),
                Err(_) => f.write_str("OpenSimulator"),
            },
            Self::Custom(grid) => f.write_str(&grid.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_grids() {
        assert_eq!(Grid::parse("main"), Ok(Grid::SecondLifeMain));
        assert_eq!(Grid::parse(" aditi "), Ok(Grid::SecondLifeBeta));
        let own = Grid::parse("127.0.0.1:9000").unwrap();
        assert_eq!(own.login_uri().unwrap().as_str(), "http://127.0.0.1:9000/");
        let named = Grid::parse("localhost:9000/login").unwrap();
        assert_eq!(named.login_uri().unwrap().as_str(), "http://localhost:9000/login");
    }

    #[test]
    fn a_grid_tells_about_itself_beside_its_login() {
        let uri = |grid: &str| Grid::parse(grid).unwrap().info_uri().unwrap();
        for (login, wanted) in [
            ("grid.example:8002", "http://grid.example:8002/get_grid_info"),
            ("https://grid.example/login?x=1#y", "https://grid.example/get_grid_info"),
            ("http://grid.example/a/", "http://grid.example/a/get_grid_info"),
        ] {
            assert_eq!(uri(login).unwrap().as_str(), wanted);
        }
        assert_eq!((uri("main"), uri("beta")), (None, None));
        assert!(Grid::OpenSim("ftp://a".into()).info_uri().is_err());
    }

    #[test]
    fn what_is_no_address_is_refused_without_its_secrets() {
        for text in ["", "ftp://host/", "http://", "http://user:secret@host/", "a b"] {
            let error = Grid::parse(text).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn second_life_is_asked_over_tls() {
        for grid in [Grid::SecondLifeMain, Grid::SecondLifeBeta] {
            assert_eq!(grid.login_uri().unwrap().scheme(), "https");
        }
    }
}
