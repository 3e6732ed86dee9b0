//! Which road leads to a hub: a function of what was asked for and of what was found out.
//!
//! //= hub 14.3

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use twinspan_topic::Probed;

use crate::report::Transport;

/// Up to this round trip and loss a way is near, and datagrams of our own are the better road.
const NEAR_RTT_MAX: Duration = Duration::from_millis(10);
const NEAR_LOSS_MAX: f64 = 0.01;
/// Above one of these a way is far, and QUIC is.
const FAR_RTT_MIN: Duration = Duration::from_millis(50);
const FAR_LOSS_MIN: f64 = 0.05;

/// What kind of address leads to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressClass {
    /// This machine.
    Loopback,
    /// A private network of IPv4.
    Private,
    /// The same cable.
    LinkLocal,
    /// A private network of IPv6.
    UniqueLocal,
    /// Anywhere.
    Public,
}

impl AddressClass {
    /// The class of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_loopback() || ip.is_unspecified() => Self::Loopback,
            IpAddr::V4(ip) if ip.is_private() => Self::Private,
            IpAddr::V4(ip) if ip.is_link_local() => Self::LinkLocal,
            IpAddr::V6(ip) if is_link_local(ip) => Self::LinkLocal,
            IpAddr::V6(ip) if ip.is_unique_local() => Self::UniqueLocal,
            _ => Self::Public,
        }
    }

    /// Which road it suggests, as long as nothing was measured.
    pub(crate) const fn guess(self) -> Transport {
        match self {
            Self::Public => Transport::Quic,
            _ => Transport::BatchUdp,
        }
    }
}

const fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.is_unicast_link_local()
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::UniqueLocal => "a unique local address",
            Self::Public => "a public address",
        })
    }
}

/// Whether both ends are on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SameHost {
    /// The other end did not tell.
    Unknown,
    /// It has another boot identity.
    No,
    /// It has the same, and its memory opens.
    Opens,
    /// It has the same, and its memory does not open: why.
    Closed(String),
}

/// What was found out about the other end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    pub(crate) class: AddressClass,
    pub(crate) same_host: SameHost,
    /// What probes of each road said; `None` where it is not offered, or was not probed.
    pub(crate) udp: Option<Probed>,
    pub(crate) quic: Option<Probed>,
    pub(crate) tcp: Option<Probed>,
}

impl Facts {
    /// What probes of a road said.
    pub(crate) fn of(&self, road: Transport) -> Option<&Probed> {
        match road {
            Transport::BatchUdp | Transport::IoUring => self.udp.as_ref(),
            Transport::Quic => self.quic.as_ref(),
            Transport::Tcp => self.tcp.as_ref(),
            Transport::SharedMemory => None,
        }
    }

    fn answers(&self, road: Transport) -> bool {
        self.of(road).is_some_and(Probed::is_there)
    }
}

/// A road, those that follow it should it fail, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) road: Transport,
    /// The best first; `road` is the first of them.
    pub(crate) order: Vec<Transport>,
    pub(crate) reasons: Vec<String>,
}

/// No road that may be taken leads there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectError {
    /// The one that was asked for does not.
    #[error("{0} was asked for: {1}")]
    Asked(Transport, String),
    /// None answers.
    #[error("nobody answers there, on no road that may be taken")]
    Nobody,
}

/// Selects a road. Where memory opens it is taken, and the others follow in case it fails.
pub(crate) fn select(asked: Option<Transport>, facts: &Facts) -> Result<Selected, SelectError> {
    if let Some(road) = asked {
        return explicit(road, facts);
    }
    let mut reasons = Vec::new();
    match &facts.same_host {
        SameHost::Opens => {
            reasons.push("the same boot identity, and its memory opens".to_owned());
            let road = Transport::SharedMemory;
            let others = [Transport::BatchUdp, Transport::Quic, Transport::Tcp];
            let others = others.into_iter().filter(|road| facts.answers(*road));
            return Ok(Selected {
                road,
                order: [road].into_iter().chain(others).collect(),
                reasons,
            });
        }
        SameHost::Closed(why) => {
            reasons.push(format!("the same boot identity, but its memory does not open: {why}"));
        }
        SameHost::No => reasons.push("another boot identity".to_owned()),
        SameHost::Unknown => reasons.push("its boot identity is not known".to_owned()),
    }
    let mut order =
        [facts.class.guess(), Transport::BatchUdp, Transport::Quic, Transport::Tcp].to_vec();
    reasons.push(format!("{} suggests {}", facts.class, facts.class.guess()));
    if let Some((road, why)) = measured(facts) {
        reasons.push(why);
        order.insert(0, road);
    }
    // Each once, at its first place, and those alone that answer.
    let mut seen = Vec::new();
    order.retain(|road| {
        let is_new = !seen.contains(road);
        seen.push(*road);
        is_new && facts.answers(*road)
    });
    for road in [Transport::BatchUdp, Transport::Quic, Transport::Tcp] {
        if facts.of(road).is_some() && !facts.answers(road) {
            reasons.push(format!("{road} does not answer"));
        }
    }
    let road = *order.first().ok_or(SelectError::Nobody)?;
    Ok(Selected { road, order, reasons })
}

/// What the measurements say between UDP and QUIC; `None` where they leave it to the guess.
fn measured(facts: &Facts) -> Option<(Transport, String)> {
    let probed = facts.udp.filter(Probed::is_there).or(facts.quic.filter(Probed::is_there))?;
    let (rtt, loss) = (probed.rtt_median?, probed.loss());
    let told = format!("a round trip of {rtt:?} and {:.0} % loss were measured", loss * 100.0);
    if rtt <= NEAR_RTT_MAX && loss <= NEAR_LOSS_MAX {
        return Some((Transport::BatchUdp, format!("{told}: near")));
    }
    if rtt > FAR_RTT_MIN || loss > FAR_LOSS_MIN {
        return Some((Transport::Quic, format!("{told}: far")));
    }
    None
}

/// What was asked for wins, or fails loudly.
fn explicit(road: Transport, facts: &Facts) -> Result<Selected, SelectError> {
    let reasons = vec!["it was asked for".to_owned()];
    let failed = |why: &str| Err(SelectError::Asked(road, why.to_owned()));
    if road == Transport::SharedMemory {
        return match &facts.same_host {
            SameHost::Opens => Ok(Selected { road, order: vec![road], reasons }),
            SameHost::Closed(why) => {
                failed(&format!("the other end's memory does not open: {why}"))
            }
            SameHost::No => failed("the other end is on another machine"),
            SameHost::Unknown => failed("the other end does not tell which machine it is on"),
        };
    }
    match facts.of(road) {
        Some(probed) if probed.is_there() => Ok(Selected { road, order: vec![road], reasons }),
        Some(_) => failed("nobody answers there"),
        None => failed("the other end does not offer it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(rtt_ms: u64, lost: u32) -> Option<Probed> {
        let rtt = (lost < 16).then(|| Duration::from_millis(rtt_ms));
        Some(Probed { settled: 16, lost, rtt_min: rtt, rtt_median: rtt, offer: None })
    }

    const SILENT: u32 = 16;

    #[test]
    fn addresses_have_classes() {
        for (ip, class) in [
            ("127.0.0.1", AddressClass::Loopback),
            ("::1", AddressClass::Loopback),
            ("0.0.0.0", AddressClass::Loopback),
            ("10.1.2.3", AddressClass::Private),
            ("172.31.0.1", AddressClass::Private),
            ("172.32.0.1", AddressClass::Public),
            ("192.168.1.100", AddressClass::Private),
            ("::ffff:192.168.1.100", AddressClass::Private),
            ("169.254.0.9", AddressClass::LinkLocal),
            ("fe80::1", AddressClass::LinkLocal),
            ("fd00::1", AddressClass::UniqueLocal),
            ("203.0.113.9", AddressClass::Public),
            ("2001:db8::1", AddressClass::Public),
        ] {
            assert_eq!(AddressClass::of(ip.parse().unwrap()), class, "{ip}");
        }
    }

    #[test]
    fn the_road_is_a_function_of_facts_as_the_table_says() {
        use AddressClass::{Loopback, Private, Public, UniqueLocal};
        use Transport::{BatchUdp, Quic, SharedMemory, Tcp};
        let closed = SameHost::Closed("another user's".into());
        let (no, unknown) = (SameHost::No, SameHost::Unknown);
        // Class, same host, UDP, QUIC, TCP: order.
        type Row<'a> = (
            AddressClass,
            SameHost,
            Option<Probed>,
            Option<Probed>,
            Option<Probed>,
            &'a [Transport],
        );
        let rows: Vec<Row<'_>> = vec![
            (
                Loopback,
                SameHost::Opens,
                None,
                probed(9, 0),
                probed(0, 0),
                &[SharedMemory, Quic, Tcp],
            ),
            (Public, SameHost::Opens, None, None, None, &[SharedMemory]),
            (Loopback, closed, probed(0, 0), probed(0, 0), probed(0, 0), &[BatchUdp, Quic, Tcp]),
            // The guess decides between the bounds.
            (Private, no.clone(), probed(30, 0), probed(30, 0), None, &[BatchUdp, Quic]),
            (UniqueLocal, no.clone(), probed(30, 0), probed(30, 0), None, &[BatchUdp, Quic]),
            (Public, no.clone(), probed(30, 0), probed(30, 0), None, &[Quic, BatchUdp]),
            // What was measured decides outside of them.
            (Public, no.clone(), probed(5, 0), probed(5, 0), probed(5, 0), &[BatchUdp, Quic, Tcp]),
            (Private, no.clone(), probed(80, 0), probed(80, 0), None, &[Quic, BatchUdp]),
            (Private, no.clone(), probed(2, 2), probed(2, 2), None, &[Quic, BatchUdp]),
            // What does not answer, or is not offered, is not taken.
            (Private, no.clone(), probed(0, SILENT), probed(1, 0), None, &[Quic]),
            (Private, unknown.clone(), probed(0, SILENT), None, probed(1, 0), &[Tcp]),
            (Public, unknown, None, None, probed(90, 0), &[Tcp]),
            (Private, no, probed(80, 0), None, None, &[BatchUdp]),
        ];
        for (row, (class, same_host, udp, quic, tcp, order)) in rows.into_iter().enumerate() {
            let facts = Facts { class, same_host, udp, quic, tcp };
            let selected = select(None, &facts).unwrap();
            assert_eq!((selected.road, &selected.order[..]), (order[0], order), "row {row}");
            assert!(!selected.reasons.is_empty());
        }
    }

    #[test]
    fn nobody_there_is_told_as_such() {
        let (class, same_host) = (AddressClass::Private, SameHost::Unknown);
        let facts = Facts { class, same_host, udp: probed(0, SILENT), quic: None, tcp: None };
        assert_eq!(select(None, &facts), Err(SelectError::Nobody));
    }

    #[test]
    fn what_was_asked_for_wins_or_fails_loudly() {
        let facts = Facts {
            class: AddressClass::Loopback,
            same_host: SameHost::Opens,
            udp: probed(0, 0),
            quic: None,
            tcp: probed(0, SILENT),
        };
        let road = |asked| select(Some(asked), &facts).map(|selected| selected.road);
        assert_eq!(road(Transport::SharedMemory), Ok(Transport::SharedMemory));
        assert_eq!(road(Transport::BatchUdp), Ok(Transport::BatchUdp));
        let told = |asked| road(asked).unwrap_err().to_string();
        assert_eq!(told(Transport::Quic), "QUIC was asked for: the other end does not offer it");
        assert_eq!(told(Transport::Tcp), "TCP was asked for: nobody answers there");
        let elsewhere = Facts { same_host: SameHost::No, ..facts.clone() };
        let error = select(Some(Transport::SharedMemory), &elsewhere).unwrap_err().to_string();
        assert_eq!(error, "shared memory was asked for: the other end is on another machine");
    }
}
