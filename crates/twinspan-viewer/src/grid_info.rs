//! What grids of OpenSimulator tell about themselves before anybody logs in, kept for a while.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_http::{ClientError, HttpClient, HttpError, Request, StatusCode, Url};
use twinspan_llsd::markup::Markup;
use twinspan_llsd::{ParseError, Reason};
use twinspan_provider::Env;

use crate::caps::web_address;
use crate::grid::{Grid, GridUriError};

/// Bytes of what a grid tells.
pub const GRID_INFO_BYTES_MAX: usize = 64 << 10;
/// Fields of it.
pub const GRID_INFO_FIELDS_MAX: usize = 64;
/// Bytes of one field, and of its name.
pub const GRID_INFO_FIELD_BYTES_MAX: usize = 2_048;
/// How long a grid may take to tell it.
pub const GRID_INFO_TIMEOUT: Duration = Duration::from_secs(15);
/// Grids whose information is kept; the one that was asked first gives way to another.
pub const GRID_INFOS_MAX: usize = 32;
/// How long it is kept.
pub const GRID_INFO_KEPT: Duration = Duration::from_hours(1);

/// What a grid tells about itself before anybody logs in. Nothing of it is proved: it says what
/// whoever answered at the address wants to be taken for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GridInfo {
    /// What runs it, such as `OpenSim`.
    pub platform: Option<String>,
    /// Its name for people.
    pub name: Option<String>,
    /// Its name in short.
    pub nick: Option<String>,
    /// Where one logs in, which need not be where it was asked; see
    /// [`login_grid`](Self::login_grid).
    pub login: Option<Url>,
    /// A page to show before the login.
    pub welcome: Option<Url>,
    /// Helpers for the economy.
    pub economy: Option<Url>,
    /// A page about it.
    pub about: Option<Url>,
    /// Where one gets an account.
    pub register: Option<Url>,
    /// Where one gets help.
    pub help: Option<Url>,
    /// Where one gets another password.
    pub password: Option<Url>,
    /// Where it can be searched.
    pub search: Option<Url>,
    /// A text of the grid for people.
    pub message: Option<String>,
    /// All else, and addresses that are none of http or https, by their names.
    pub rest: BTreeMap<String, String>,
}

/// Why nothing is known of a grid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GridInfoError {
    /// It has nothing to tell at an address of its own: Second Life's grids have not.
    #[error("{grid} tells nothing about itself; ask grids of OpenSimulator")]
    NotTold {
        /// The grid.
        grid: String,
    },
    /// The grid's address cannot be used.
    #[error(transparent)]
    Address(#[from] GridUriError),
    /// The configuration of HTTP cannot be used.
    #[error("the configuration of HTTP cannot be used: {0}")]
    Client(#[from] ClientError),
    /// There was no answer.
    #[error("the grid did not tell about itself: {0}")]
    Http(#[from] HttpError),
    /// An answer without success.
    #[error("the grid answered with status {status}; check its address")]
    Status {
        /// What it answered with.
        status: StatusCode,
    },
    /// The answer is no XML.
    #[error("what the grid tells cannot be read: {0}")]
    Markup(#[from] ParseError),
    /// The answer is something else.
    #[error("the answer is `{found}`, not `gridinfo`; check the address of the grid")]
    Other {
        /// The beginning of the name of what it is.
        found: String,
    },
    /// More fields than the limit.
    #[error("the grid tells more than {GRID_INFO_FIELDS_MAX} things about itself")]
    TooMany,
    /// A field longer than the limit.
    #[error("the grid tells something of more than {GRID_INFO_FIELD_BYTES_MAX} bytes about itself")]
    TooLong,
    /// Too many are asked at the moment.
    #[error("too many grids are asked at the moment, wait for one of them")]
    Busy,
    /// The client is not running.
    #[error("the client does not run, call `initialize` first")]
    NotRunning,
}

impl GridInfo {
    /// Reads what a grid told: an element `gridinfo` with a text in each element within.
    ///
    /// # Errors
    /// [`GridInfoError`]
    pub fn read(bytes: &[u8]) -> Result<Self, GridInfoError> {
        if bytes.len() > GRID_INFO_BYTES_MAX {
            let reason = Reason::TooLong { have: bytes.len(), max: GRID_INFO_BYTES_MAX };
            return Err(ParseError { offset: GRID_INFO_BYTES_MAX, reason }.into());
        }
        let mut markup = Markup::new(bytes)?;
        let other = |found: &str| GridInfoError::Other { found: found.chars().take(64).collect() };
        match markup.child() {
            Ok(Some(tag)) if tag.name().eq_ignore_ascii_case("gridinfo") => {}
            Ok(Some(tag)) => return Err(other(tag.name())),
            Ok(None) => return Err(other("")),
            // Pages declare their type.
            Err(ParseError { reason: Reason::DocType, .. }) => return Err(other("html")),
            Err(error) => return Err(error.into()),
        }
        let mut info = Self::default();
        let mut fields = 0;
        while let Some(tag) = markup.child()? {
            fields += 1;
            if fields > GRID_INFO_FIELDS_MAX {
                return Err(GridInfoError::TooMany);
            }
            let name = tag.name().to_owned();
            let text = markup.text()?;
            let text = text.trim();
            if name.len().max(text.len()) > GRID_INFO_FIELD_BYTES_MAX {
                return Err(GridInfoError::TooLong);
            }
            // Grids leave what they do not have empty.
            if !text.is_empty() {
                info.take(name, text);
            }
        }
        markup.finish()?;
        Ok(info)
    }

    /// Takes a field; the first of two with one name stays.
    fn take(&mut self, name: String, text: &str) {
        let texts = match name.as_str() {
            "platform" => Some(&mut self.platform),
            "gridname" => Some(&mut self.name),
            "gridnick" => Some(&mut self.nick),
            "message" => Some(&mut self.message),
            _ => None,
        };
        if let Some(slot) = texts {
            slot.get_or_insert_with(|| text.to_owned());
            return;
        }
        let address = match name.as_str() {
            "login" => Some(&mut self.login),
            "welcome" => Some(&mut self.welcome),
            "economy" | "helperuri" => Some(&mut self.economy),
            "about" => Some(&mut self.about),
            "register" => Some(&mut self.register),
            "help" | "support" => Some(&mut self.help),
            "password" => Some(&mut self.password),
            "search" => Some(&mut self.search),
            _ => None,
        };
        match (address, web_address(text)) {
            (Some(slot), Some(url)) => {
                slot.get_or_insert(url);
            }
            _ => {
                self.rest.entry(name).or_insert_with(|| text.to_owned());
            }
        }
    }

    /// The grid at the address that it names for logins; `None` where it names none of use.
    ///
    /// The name and the hash of the password go there. Over http anybody on the way can have named
    /// it: show it to the user where it is another host than the one that was given.
    pub fn login_grid(&self) -> Option<Grid> {
        let grid = Grid::OpenSim(self.login.as_ref()?.as_str().to_owned());
        grid.login_uri().is_ok().then_some(grid)
    }
}

/// What grids told, each for a while.
#[derive(Debug, Default)]
struct Kept(VecDeque<(Url, Timestamp, Arc<GridInfo>)>);

impl Kept {
    fn get(&mut self, now: Timestamp, url: &Url) -> Option<Arc<GridInfo>> {
        while self.0.pop_front_if(|(_, until, _)| *until <= now).is_some() {}
        let found = self.0.iter().find(|(known, ..)| known == url);
        found.map(|(.., info)| Arc::clone(info))
    }

    /// In the order in which they are forgotten.
    fn keep(&mut self, now: Timestamp, url: Url, info: &Arc<GridInfo>) {
        self.0.retain(|(known, ..)| *known != url);
        if self.0.len() >= GRID_INFOS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((url, now.after(GRID_INFO_KEPT), Arc::clone(info)));
    }
}

/// Asks grids about themselves, and keeps what they told for [`GRID_INFO_KEPT`]. It is the one thing
/// of a grid that is kept between logins.
#[derive(Debug)]
pub struct GridInfoService<E: Env> {
    env: E,
    kept: RefCell<Kept>,
}

impl<E: Env> GridInfoService<E> {
    /// A service that knows nothing yet.
    pub fn new(env: E) -> Self {
        Self { env, kept: RefCell::default() }
    }

    /// What a grid tells about itself, asked by way of `http` unless it is known. Failures are not
    /// kept.
    ///
    /// # Errors
    /// [`GridInfoError`]
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn get(
        &self,
        http: &HttpClient<E>,
        grid: &Grid,
    ) -> Result<Arc<GridInfo>, GridInfoError> {
        let Some(url) = grid.info_uri()? else {
            return Err(GridInfoError::NotTold { grid: grid.to_string() });
        };
        let known = self.kept.borrow_mut().get(self.env.now(), &url);
        if let Some(known) = known {
            return Ok(known);
        }
        let request = Request::get(url.clone())
            .with_timeout(GRID_INFO_TIMEOUT)
            .with_response_bytes_max(GRID_INFO_BYTES_MAX);
        let response = http.send(request).await?;
        if !response.status.is_success() {
            return Err(GridInfoError::Status { status: response.status });
        }
        let info = Arc::new(GridInfo::read(&response.body)?);
        self.kept.borrow_mut().keep(self.env.now(), url, &info);
        Ok(info)
    }

    /// Forgets all that was kept.
    pub fn forget(&self) {
        self.kept.borrow_mut().0.clear();
    }
}

/// Any bytes are what a grid or a simulator tells about itself, or name a reason, and keep to the
/// limits.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz_grid_info(data: &[u8]) -> u64 {
    use crate::features::SimulatorFeatures;
    let features = SimulatorFeatures::read(data).map_err(|error| error.to_string());
    if let Ok(features) = &features {
        assert!(features.chat_ranges().iter().all(|range| range.is_finite() && *range >= 0.0));
    }
    let info = match GridInfo::read(data) {
        Ok(info) => info,
        Err(error) => return twinspan_core::fuzz::digest(&(error.to_string(), features)),
    };
    assert!(info.rest.len() <= GRID_INFO_FIELDS_MAX);
    assert!(info.rest.values().all(|text| text.len() <= GRID_INFO_FIELD_BYTES_MAX));
    assert!(info.login_grid().is_none_or(|grid| grid.info_uri().is_ok_and(|uri| uri.is_some())));
    twinspan_core::fuzz::digest(&info)
}

#[cfg(test)]
mod tests;
