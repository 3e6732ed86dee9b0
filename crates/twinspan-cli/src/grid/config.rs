//! A grid's file: its regions, its users, and what befalls these when they log in.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use twinspan_admission::settings::{Document, SettingsError, Table};
use twinspan_grid::{
    Account, GridServerConfig, LoginScript, REGION_PLACE_MAX, REGIONS_MAX, RegionPlan,
    ScriptedAnswer,
};
use twinspan_xmlrpc::login::{AccountName, Password, Refusal, Secret};

use super::GridCommandError;
use crate::args::{GridArgs, parse_address};
use crate::settings_file;

/// Users of one file.
const USERS_MAX: usize = 4_096;
/// Refusals of one user.
const REFUSALS_MAX: usize = 32;
/// Where a grid listens unless it is told otherwise.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9_000);

/// What the command line and the file that it names say together; the command line wins.
pub(super) fn of_args(args: &GridArgs) -> Result<GridServerConfig, GridCommandError> {
    let listen = SocketAddr::from(LISTEN);
    let mut config = GridServerConfig { listen, ..GridServerConfig::default() };
    if let Some(path) = &args.config {
        config = settings_file::read(path, |text| parse(text, config))?;
    }
    config.listen = args.listen.unwrap_or(config.listen);
    config.public_ip = args.public_ip.or(config.public_ip);
    if !args.regions.is_empty() {
        config.regions.clone_from(&args.regions);
    }
    for (user, number) in args.users.iter().zip(1..) {
        config.accounts.push(user.account().ok_or(GridCommandError::User { number })?);
    }
    if config.accounts.is_empty() {
        return Err(GridCommandError::NoUsers);
    }
    Ok(config)
}

fn parse(text: &str, mut config: GridServerConfig) -> Result<GridServerConfig, SettingsError> {
    let document = Document::parse(text)?;
    let root = document.root();
    root.allow(&["name", "listen", "public_ip", "poll_hold_s", "region", "user"])?;
    if let Some(name) = root.text("name")? {
        config.name = name.to_owned();
    }
    config.listen = root.parsed("listen", parse_address)?.unwrap_or(config.listen);
    config.public_ip = root.parsed("public_ip", str::parse)?;
    if let Some(seconds) = root.whole("poll_hold_s", 1..=60)? {
        config.poll_hold = Duration::from_secs(seconds);
    }
    let regions = root.tables("region", REGIONS_MAX)?;
    if !regions.is_empty() {
        config.regions = regions.iter().map(region).collect::<Result<_, _>>()?;
    }
    for table in root.tables("user", USERS_MAX)? {
        config.accounts.push(user(&table)?);
    }
    Ok(config)
}

fn region(table: &Table<'_, '_>) -> Result<RegionPlan, SettingsError> {
    table.allow(&["name", "x", "y", "port"])?;
    let place = |key| {
        let place = table.require(key, table.whole(key, 0..=REGION_PLACE_MAX.into())?)?;
        // It is in range.
        Ok(place as u32)
    };
    Ok(RegionPlan {
        name: table.require("name", table.text("name")?)?.to_owned(),
        x: place("x")?,
        y: place("y")?,
        port: table.whole("port", 0..=65_535)?.unwrap_or(0) as u16,
    })
}

fn user(table: &Table<'_, '_>) -> Result<Account, SettingsError> {
    table.allow(&[
        "name",
        "password",
        "password_hash",
        "agent_id",
        "terms",
        "critical",
        "second_factor",
        "redirects",
        "refuse",
    ])?;
    let name = table.require("name", table.parsed("name", AccountName::parse)?)?;
    let (password, hash) = (table.text("password")?, table.text("password_hash")?);
    let password = match (password, hash) {
        (Some(password), None) => Password::new(password),
        (None, Some(hash)) => Password::from_hash(hash)
            .map_err(|error| table.error_at("password_hash", error.to_string()))?,
        _ => return Err(table.error("a user has a `password` or a `password_hash`; give one")),
    };
    let mut account = Account { password, ..Account::new(name, "") };
    account.agent_id = table.parsed("agent_id", str::parse)?.unwrap_or(account.agent_id);
    let text = |key| Ok(table.text(key)?.map(str::to_owned));
    let refusals = table.texts("refuse", REFUSALS_MAX)?;
    let refusal = |word: &str| {
        ScriptedAnswer::Refusal(Refusal::new(word, "The grid was told to refuse this login."))
    };
    account.script = LoginScript {
        answers: refusals.into_iter().map(refusal).collect(),
        terms: text("terms")?,
        critical: text("critical")?,
        second_factor: table.text("second_factor")?.map(Secret::new),
        redirects: table.whole("redirects", 0..=u32::MAX.into())?.unwrap_or(0) as u32,
    };
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<GridServerConfig, SettingsError> {
        parse(text, GridServerConfig::default())
    }

    #[test]
    fn a_file_says_regions_and_users_and_what_befalls_them() {
        let config = parsed(
            "name = \"Test\"\nlisten = \"127.0.0.1:9000\"\npublic_ip = \"192.0.2.1\"\n\
             poll_hold_s = 5\n[[region]]\nname = \"One\"\nx = 7\ny = 8\nport = 9001\n\
             [[user]]\nname = \"Ruth Tester\"\npassword = \"sesame\"\nterms = \"Be kind.\"\n\
             second_factor = \"123456\"\nredirects = 2\nrefuse = [\"update\"]\n\
             [[user]]\nname = \"Max\"\npassword_hash = \"$1$5f4dcc3b5aa765d61d8327deb882cf99\"\n\
             agent_id = \"00000000-0000-0000-0000-000000000007\"\n",
        )
        .unwrap();
        assert_eq!(config.regions, [RegionPlan { port: 9_001, ..RegionPlan::new("One", 7, 8) }]);
        assert_eq!((config.name.as_str(), config.poll_hold), ("Test", Duration::from_secs(5)));
        let [ruth, max] = &config.accounts[..] else { panic!("two users") };
        assert_eq!(ruth.password, Password::new("sesame"));
        assert_eq!((ruth.script.redirects, ruth.script.answers.len()), (2, 1));
        assert_eq!(max.password, Password::new("password"));
        assert_eq!(max.agent_id.as_u128(), 7);
        assert!(config.check().is_ok());
        assert_eq!(parsed("").unwrap().regions.len(), 3);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_passwords() {
        let user = "[[user]]\nname = \"A\"\n";
        for (text, line, word) in [
            ("nam = \"x\"\n".to_owned(), 1, "name"),
            ("[[region]]\nname = \"One\"\nx = 7\n".into(), 1, "`y`"),
            ("[[region]]\nname = \"One\"\nx = 70000\ny = 1\n".into(), 3, "65535"),
            (format!("{user}password = \"sesame\"\npassword_hash = \"x\"\n"), 1, "give one"),
            (format!("{user}password_hash = \"sesame\"\n"), 3, "32 hexadecimal digits"),
            (format!("{user}password = \"x\"\nagent_id = \"y\"\n"), 4, "agent_id"),
            ("[[user]]\nname = \"a b c\"\npassword = \"x\"\n".into(), 2, "one or two words"),
        ] {
            let error = parsed(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}")) && error.contains(word), "{error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
