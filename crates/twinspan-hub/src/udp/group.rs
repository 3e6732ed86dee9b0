//! UDP to a multicast group: who may take part, and by which interface.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use twinspan_net::{Multicast, MulticastInterface};

use crate::error::BuildError;
use crate::report::{Compression, Transport};
use crate::road::{Reliability, RoadConfig};

/// The longest name of an interface.
const NAME_BYTES_MAX: usize = 15;

/// How the group is joined, where the address is one.
pub(super) fn of(config: &RoadConfig, host: IpAddr) -> Result<Option<Multicast>, BuildError> {
    if !host.is_multicast() {
        return Ok(None);
    }
    if config.reliability == Some(Reliability::Reliable) {
        return Err(BuildError::Multicast { host, what: "reliable" });
    }
    if config.seal.is_some() {
        return Err(BuildError::Multicast { host, what: "seal" });
    }
    let hops = config.multicast.ttl;
    if hops == 0 {
        let (setting, range) = ("multicast_ttl", "1 to 255");
        return Err(BuildError::Setting { setting, value: hops.to_string(), range });
    }
    let interface = config.multicast.interface.as_deref().map(interface).transpose()?;
    Ok(Some(Multicast { interface, hops }))
}

/// The interface with a name or an address.
fn interface(text: &str) -> Result<MulticastInterface, BuildError> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(MulticastInterface::Address(address));
    }
    let is_name = !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && !text.contains('/')
        && !text.starts_with('.');
    let index = is_name
        .then(|| fs::read_to_string(format!("/sys/class/net/{text}/ifindex")).ok())
        .flatten()
        .and_then(|index| index.trim().parse().ok());
    let range = "the name or the IPv4 address of an interface of this machine";
    let wrong =
        || BuildError::Setting { setting: "multicast_interface", value: text.to_owned(), range };
    index.map(MulticastInterface::Index).ok_or_else(wrong)
}

/// What was asked for and is of a group alone, where the address is none.
pub(super) fn idle(config: &RoadConfig) -> impl Iterator<Item = String> + use<> {
    let named = config.multicast.named();
    named.map(|name| format!("{name} has no effect: the host is no multicast address"))
}

/// What took effect.
pub(super) fn notes(config: &RoadConfig, multicast: &Multicast, road: Transport) -> Vec<String> {
    let by = config.multicast.interface.as_deref().unwrap_or("the interface that the system takes");
    let mut notes = vec![format!(
        "a multicast group by {by}, across {} networks at most: {road} sends each datagram once, and what is \
         lost is counted and not sent again",
        multicast.hops
    )];
    if config.history > 0 {
        notes.push("history has no effect in a group: who is late hears what comes".to_owned());
    }
    if config.compression != Compression::None || config.dictionary.is_some() {
        let why = "who joins late does not know with what messages are packed";
        notes.push(format!("compression has no effect in a group: {why}"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_found_by_name_and_address() {
        let found = interface("127.0.0.1").unwrap();
        assert_eq!(found, MulticastInterface::Address(Ipv4Addr::LOCALHOST));
        assert_eq!(interface("lo").unwrap(), MulticastInterface::Index(1));
        for wrong in ["", "no-such-interface", "../lo", ".", "x/y", "a-name-that-is-too-long"] {
            let error = interface(wrong).unwrap_err().to_string();
            assert!(error.contains("set it to the name or the IPv4 address"), "{error}");
        }
    }
}
