//! The two ends in two network namespaces with a veth pair between, which go when the ends do.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use super::options::HubOptions;
use super::peer::Net;
use super::summary::HubSummary;
use crate::child::Child;
use crate::error::BenchError;
use crate::lines::Parent;

/// The hidden command of the first end in its namespace.
const INSIDE: &str = "hub-inside";
/// What runs a process in a namespace of its own.
pub(super) const UNSHARE: [&str; 3] = ["unshare", "--net", "--"];
/// The addresses of the pair.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The pair's devices; the namespaces are new, so that the names are free.
const DEVICES: [&str; 2] = ["hub0", "hub1"];

/// Why there can be no namespaces here, if so.
fn unavailable() -> Option<String> {
    let [program, args @ ..] = UNSHARE;
    let mut command = Command::new(program);
    command.args(args).args(["ip", "link", "add", "hub0", "type", "veth", "peer", "name", "hub1"]);
    match command.stdin(Stdio::null()).output() {
        Err(error) => Some(format!("{program}: {error}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(said.lines().next().unwrap_or("not permitted").to_owned())
        }
        Ok(_) => None,
    }
}

/// Runs `ip`; what it says is told when it fails.
fn ip(words: &[&str]) -> Result<(), BenchError> {
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::other(format!("ip: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("it failed");
    Err(io::Error::other(format!("ip {}: {said}", words.join(" "))).into())
}

/// Gives the device of this namespace its address.
pub(super) fn take_device(device: &str, address: IpAddr) -> Result<(), BenchError> {
    ip(&["addr", "add", &format!("{address}/30"), "dev", device])?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "set", device, "up"])
}

/// Makes the pair, and has this end of it; the other one waits for the other process.
pub(super) fn make_pair() -> Result<Net, BenchError> {
    let [first, second] = DEVICES;
    ip(&["link", "add", first, "type", "veth", "peer", "name", second])?;
    let net = Net { first: FIRST.into(), second: SECOND.into(), device: Some(second.to_owned()) };
    take_device(first, net.first)?;
    Ok(net)
}

/// Gives the other end of the pair to a process.
pub(super) fn give_device(device: &str, pid: u32) -> Result<(), BenchError> {
    ip(&["link", "set", device, "netns", &pid.to_string()])
}

/// Measures between two namespaces.
pub(super) fn run(options: &HubOptions) -> Result<HubSummary, BenchError> {
    if let Some(why) = unavailable() {
        return Err(BenchError::Namespaces(why));
    }
    let mut child = Child::start_in(INSIDE, &UNSHARE)?;
    child.tell(options)?;
    child.hear()
}

/// The first end in its namespace, as the parent says.
///
/// # Errors
/// [`BenchError`] says what could not be had.
pub fn run_inside() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let options: HubOptions = parent.hear()?;
    let net = make_pair()?;
    parent.tell(&super::measure_between(&options, net)?)
}
