//! The commands of a Second Life viewer.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use twinspan_viewer::{Grid, StartLocation};

/// `twinspan viewer`.
#[derive(Clone, Debug, Args)]
pub struct ViewerArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ViewerCommand,
}

/// What a viewer can do.
#[derive(Clone, Debug, Subcommand)]
pub enum ViewerCommand {
    /// Log an avatar in, show what happens, do what is asked for, log it out
    Login(Box<ViewerLoginArgs>),
    /// Tell what a grid of OpenSimulator says about itself before anybody logs in
    Info(ViewerInfoArgs),
}

/// A place in a region.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceArg {
    /// The region's name.
    pub region: String,
    /// Metres from its west and south, and of height.
    pub position: [f32; 3],
}

/// `twinspan viewer login`.
#[derive(Clone, Debug, Args)]
pub struct ViewerLoginArgs {
    /// The grid: `main`, `beta`, or the address of an OpenSimulator login
    #[arg(long, value_name = "URI", value_parser = grid)]
    pub grid: Grid,
    /// The account, one or two words
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// A file whose first line is the password, which nobody else may read; without it the password
    /// is that of the environment, TWINSPAN_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where to begin: `last`, `home`, or REGION/x/y/z in whole metres
    #[arg(long, value_name = "PLACE", default_value = "last", value_parser = start)]
    pub start: StartLocation,
    /// A proxy: socks5://.., socks5h://.. (names are resolved there) or http://.., with
    /// user:password@ if need be
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// A file with certificates of authorities to trust besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Check no certificates: whoever is in between can read the password
    #[arg(long, conflicts_with = "ca")]
    pub no_certificate_checks: bool,
    /// A code of the second factor
    #[arg(long, value_name = "CODE", value_parser = NonEmptyStringValueParser::new())]
    pub mfa_code: Option<String>,
    /// A file that keeps what a second factor leaves for the next login
    #[arg(long, value_name = "FILE")]
    pub mfa_file: Option<PathBuf>,
    /// Agree to the terms of service, which a refused login showed
    #[arg(long)]
    pub accept_terms: bool,
    /// The critical message, which a refused login showed, has been read
    #[arg(long)]
    pub message_read: bool,
    /// Teleport there once the avatar is in; again for one after the other
    #[arg(long, value_name = "REGION/x/y/z", value_parser = place)]
    pub teleport: Vec<PlaceArg>,
    /// Walk about
    #[arg(long)]
    pub walk: bool,
    /// Say this once the avatar is in; again for one after the other
    #[arg(long, value_name = "TEXT")]
    pub say: Vec<String>,
    /// Seconds to stay in; without it until it is told to stop
    #[arg(long = "for", value_name = "S", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub seconds: Option<u64>,
    /// Try nothing again when the connection is lost
    #[arg(long)]
    pub no_reconnect: bool,
    /// Print each event as a JSON object on a line of its own, and a summary at the end
    #[arg(long)]
    pub json: bool,
    /// With --json, print the name of each message as well
    #[arg(long, requires = "json")]
    pub messages: bool,
}

/// `twinspan viewer info`.
#[derive(Clone, Debug, Args)]
pub struct ViewerInfoArgs {
    /// The grid: the address of its login
    #[arg(long, value_name = "URI", value_parser = grid)]
    pub grid: Grid,
    /// A proxy: socks5://.., socks5h://.. (names are resolved there) or http://.., with
    /// user:password@ if need be
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// A file with certificates of authorities to trust besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Check no certificates: whoever is in between can answer in the grid's place
    #[arg(long, conflicts_with = "ca")]
    pub no_certificate_checks: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `twinspan bench viewer`.
#[derive(Clone, Debug, Args)]
pub struct BenchViewerArgs {
    /// Simulated logins over a network that loses a fifth
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    pub runs: u32,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn grid(text: &str) -> Result<Grid, String> {
    Grid::parse(text).map_err(|error| error.to_string())
}

fn start(text: &str) -> Result<StartLocation, &'static str> {
    let region = || {
        let mut parts = text.rsplitn(4, '/');
        let mut metres = || parts.next()?.trim().parse::<u16>().ok();
        let [z, y, x] = [metres()?, metres()?, metres()?];
        let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
        Some(StartLocation::Region { name, position: [x, y, z] })
    };
    match text {
        "last" => Ok(StartLocation::Last),
        "home" => Ok(StartLocation::Home),
        _ => region().ok_or("give `last`, `home`, or a place as in Alpha/128/128/25"),
    }
}

fn place(text: &str) -> Result<PlaceArg, &'static str> {
    let read = || {
        let mut parts = text.rsplitn(4, '/');
        let mut metres =
            || parts.next()?.trim().parse::<f32>().ok().filter(|part| part.is_finite());
        let [z, y, x] = [metres()?, metres()?, metres()?];
        let region = parts.next().filter(|name| !name.is_empty())?.to_owned();
        Some(PlaceArg { region, position: [x, y, z] })
    };
    read().ok_or(
        "give a region and metres from its west, its south and of height, as in Alpha/128/128/25",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_a_region_and_three_numbers() {
        let wanted = PlaceArg { region: "Da Boom".into(), position: [1.0, 2.5, 30.0] };
        assert_eq!(place("Da Boom/1/2.5/30"), Ok(wanted));
        for text in ["Alpha", "Alpha/1/2", "/1/2/3", "Alpha/1/2/x", "Alpha/1/2/inf"] {
            assert!(place(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_beginning_is_a_word_or_a_place_in_whole_metres() {
        assert_eq!(start("last"), Ok(StartLocation::Last));
        assert_eq!(start("home"), Ok(StartLocation::Home));
        let wanted = StartLocation::Region { name: "Da/Boom".into(), position: [1, 2, 30] };
        assert_eq!(start("Da/Boom/1/2/30"), Ok(wanted));
        for text in ["", "Last", "Alpha", "/1/2/3", "Alpha/1/2/x", "Alpha/1/2.5/3", "A/1/2/70000"] {
            assert!(start(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_grid_that_is_none_is_refused() {
        assert!(grid("ftp://a").is_err());
        assert_eq!(grid("main"), Ok(Grid::SecondLifeMain));
    }
}
