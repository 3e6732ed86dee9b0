//! `twinspan viewer info`: what a grid tells about itself before anybody logs in.

use std::collections::BTreeMap;

use serde::Serialize;
use twinspan_provider::TokioEnv;
use twinspan_viewer::http::{ClientConfig, HttpClient, Proxy, Url};
use twinspan_viewer::{GridInfo, GridInfoService};

use super::{ViewerError, trust};
use crate::args::ViewerInfoArgs;
use crate::error::CommandError;
use crate::output::print;

/// What is printed.
#[derive(Debug, Serialize)]
struct Outcome {
    grid: String,
    platform: Option<String>,
    name: Option<String>,
    nick: Option<String>,
    login: Option<String>,
    welcome: Option<String>,
    economy: Option<String>,
    about: Option<String>,
    register: Option<String>,
    help: Option<String>,
    password: Option<String>,
    search: Option<String>,
    message: Option<String>,
    rest: BTreeMap<String, String>,
}

impl Outcome {
    fn of(grid: String, info: &GridInfo) -> Self {
        let text = |url: &Option<Url>| url.as_ref().map(ToString::to_string);
        Self {
            grid,
            platform: info.platform.clone(),
            name: info.name.clone(),
            nick: info.nick.clone(),
            login: text(&info.login),
            welcome: text(&info.welcome),
            economy: text(&info.economy),
            about: text(&info.about),
            register: text(&info.register),
            help: text(&info.help),
            password: text(&info.password),
            search: text(&info.search),
            message: info.message.clone(),
            rest: info.rest.clone(),
        }
    }

    /// For people; what a grid wrote takes no control of a terminal.
    fn text(&self) -> String {
        let Self { platform, name, nick, login, welcome, economy, about, .. } = self;
        let Self { register, help, password, search, message, .. } = self;
        let known = [
            ("platform", platform),
            ("name", name),
            ("nick", nick),
            ("login", login),
            ("welcome", welcome),
            ("economy", economy),
            ("about", about),
            ("register", register),
            ("help", help),
            ("password", password),
            ("search", search),
            ("message", message),
        ];
        let known = known.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
        let rest = self.rest.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        known.chain(rest).map(line).collect()
    }
}

/// A line without what controls a terminal.
fn line((key, value): (&str, &str)) -> String {
    let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
    format!("{key:<10} {value}").chars().map(shown).chain(['\n']).collect()
}

/// Asks a grid and prints what it tells.
///
/// # Errors
/// [`CommandError`]
pub(super) fn run(args: &ViewerInfoArgs) -> Result<u8, CommandError> {
    let proxy: Option<Proxy> = match &args.proxy {
        Some(url) => Some(url.parse().map_err(ViewerError::Proxy)?),
        None => None,
    };
    let trust = trust(args.ca.as_deref(), args.no_certificate_checks)?;
    let config = ClientConfig { proxy, trust, ..ClientConfig::default() };
    let env = TokioEnv::new(None).map_err(ViewerError::Runtime)?;
    let http = HttpClient::new(env.clone(), config).map_err(ViewerError::Http)?;
    let service = GridInfoService::new(env.clone());
    let info = env.block_on(service.get(&http, &args.grid)).map_err(ViewerError::Info)?;
    print(&Outcome::of(args.grid.to_string(), &info), args.json, Outcome::text)?;
    Ok(0)
}
