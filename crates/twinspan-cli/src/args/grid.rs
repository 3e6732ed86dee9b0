//! The command that runs a small Second Life grid.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use twinspan_grid::{Account, RegionPlan};
use twinspan_xmlrpc::login::{AccountName, Secret};

use super::address;

/// `twinspan grid`.
#[derive(Clone, Debug, Args)]
pub struct GridArgs {
    /// Regions, users and what befalls them at login, in TOML
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where login and capabilities listen; regions hear at the same address. 127.0.0.1:9000 unless
    /// given
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// The address that viewers are told, if it is another one
    #[arg(long, value_name = "IP")]
    pub public_ip: Option<Ipv4Addr>,
    /// Regions, each as NAME@X,Y or NAME@X,Y:PORT; Alpha@1000,1000 Beta@1001,1000 Gamma@1010,1000
    /// unless given
    #[arg(long, value_name = "REGION", num_args = 1.., value_parser = region)]
    pub regions: Vec<RegionPlan>,
    /// Somebody who may log in, as "NAME:PASSWORD"; again for others
    #[arg(long = "user", value_name = "USER", value_parser = GivenUser::take)]
    pub users: Vec<GivenUser>,
    /// Seconds to run; without it until it is told to stop
    #[arg(long = "for", value_name = "S", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub seconds: Option<u64>,
    /// Print one JSON object a line for what happens, and a summary at the end
    #[arg(long)]
    pub json: bool,
}

fn region(text: &str) -> Result<RegionPlan, &'static str> {
    let plan = || {
        let (name, place) = text.rsplit_once('@')?;
        let (place, port) = match place.split_once(':') {
            Some((place, port)) => (place, port.parse().ok()?),
            None => (place, 0),
        };
        let (x, y) = place.split_once(',')?;
        let (x, y) = (x.trim().parse().ok()?, y.trim().parse().ok()?);
        Some(RegionPlan { name: name.to_owned(), x, y, port })
    };
    plan().ok_or("give a name and a place, as in Alpha@1000,1000 or Alpha@1000,1000:9001")
}

/// A name and a password as they were given. They are read later: what refuses a command line
/// repeats it, and a password belongs on no screen.
#[derive(Clone)]
pub struct GivenUser(Secret);

impl GivenUser {
    /// What is never refused needs no message.
    fn take(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Secret::new(text)))
    }

    /// The account that it stands for; the name ends at the first colon. `None` when it is no name
    /// of one or two words with a password.
    pub fn account(&self) -> Option<Account> {
        let (name, password) = self.0.reveal().split_once(':')?;
        let name = AccountName::parse(name).ok()?;
        (!password.is_empty()).then(|| Account::new(name, password))
    }
}

impl fmt::Debug for GivenUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenUser")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_and_users_are_read() {
        assert_eq!(region("Alpha@1000,1001"), Ok(RegionPlan::new("Alpha", 1_000, 1_001)));
        let plan = RegionPlan { port: 9_001, ..RegionPlan::new("Old @ Town", 1, 2) };
        assert_eq!(region("Old @ Town@1,2:9001"), Ok(plan));
        for wrong in ["Alpha", "Alpha@1000", "Alpha@x,y", "Alpha@1,2:x", "Alpha@1,2:70000"] {
            assert!(region(wrong).is_err(), "{wrong}");
        }
        let user = |text| GivenUser::take(text).unwrap().account();
        let name = AccountName::new("Ruth", "Tester");
        assert_eq!(user("Ruth Tester:se:same"), Some(Account::new(name, "se:same")));
        for wrong in ["Ruth", "Ruth:", ":x", "a b c:x"] {
            assert_eq!(user(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{:?}", GivenUser::take("Ruth:sesame")), "Ok(GivenUser)");
    }
}
