//! Of two hubs of a topic that learn of each other, which one goes to the other.
//!
//! //= hub 15.3

use std::net::SocketAddr;

use twinspan_topic::{Disagreement, Greeting};

use super::announcement::{Announcement, OfferedRoad};
use crate::report::Transport;
use crate::road::Callee;

/// Whom a hub met by announcements, and whom of them it goes to.
#[derive(Debug)]
pub(crate) struct Meetings {
    road: Transport,
    greeting: Greeting,
    /// Hubs that are spoken with, counted when they came.
    pub(crate) hubs: u64,
    /// Hubs of the topic that have other roads alone.
    pub(crate) elsewhere: u64,
    /// The first that does not agree.
    pub(crate) disagreement: Option<(SocketAddr, Disagreement)>,
}

impl Meetings {
    /// Of a hub that says this of itself, on one road.
    pub(crate) const fn new(road: Transport, greeting: Greeting) -> Self {
        Self { road, greeting, hubs: 0, elsewhere: 0, disagreement: None }
    }

    /// How another hub is gone to; `None` where it comes to us, or has another road.
    fn callee(&self, who: &Announcement) -> Option<Callee> {
        let OfferedRoad { address, fingerprint, .. } = *who.offered(self.road)?;
        let is_ours = self.greeting.id > who.greeting.id;
        is_ours.then_some(Callee { id: Some(who.greeting.id), address, fingerprint })
    }

    /// A hub of the topic is there; how it is gone to, where that is this one's part.
    pub(crate) fn came(&mut self, who: &Announcement) -> Option<Callee> {
        let Some(offered) = who.offered(self.road) else {
            self.elsewhere = self.elsewhere.saturating_add(1);
            return None;
        };
        if let Err(why) = self.greeting.agrees_with(&who.greeting) {
            self.disagreement.get_or_insert((offered.address, why));
            return None;
        }
        self.hubs = self.hubs.saturating_add(1);
        self.callee(who)
    }

    /// It is gone; who is gone to no more.
    pub(crate) fn gone(&self, who: &Announcement) -> Option<Callee> {
        self.callee(who)
    }
}

impl std::fmt::Display for Meetings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} others of the topic were found on this machine", self.hubs)?;
        if self.elsewhere > 0 {
            write!(f, ", and {} on other roads, which it does not hear", self.elsewhere)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::announcement::example;
    use super::*;

    fn hub(id: u8) -> Announcement {
        let mut hub = example();
        hub.greeting.id = [id; 16];
        hub
    }

    #[test]
    fn who_has_the_greater_id_goes_to_the_other() {
        let mut meetings = Meetings::new(Transport::Tcp, hub(5).greeting);
        let address = hub(4).offered(Transport::Tcp).unwrap().address;
        let callee = Callee { id: Some([4; 16]), address, fingerprint: None };
        assert_eq!(meetings.came(&hub(4)), Some(callee));
        assert_eq!(meetings.came(&hub(6)), None, "it comes by itself");
        assert_eq!((meetings.gone(&hub(4)), meetings.gone(&hub(6))), (Some(callee), None));
        assert_eq!(meetings.to_string(), "2 others of the topic were found on this machine");
    }

    #[test]
    fn who_is_elsewhere_or_disagrees_is_told_of_and_not_gone_to() {
        let mut meetings = Meetings::new(Transport::Quic, hub(5).greeting);
        let mut other = hub(4);
        other.roads.retain(|road| road.road != Transport::Quic);
        assert_eq!(meetings.came(&other), None);
        let mut typed = hub(3);
        typed.greeting.identity.version += 1;
        assert_eq!(meetings.came(&typed), None);
        assert!(matches!(meetings.disagreement, Some((_, Disagreement::Type(_)))));
        let text = "0 others of the topic were found on this machine, and 1 on other roads, which it \
                    does not hear";
        assert_eq!(meetings.to_string(), text);
    }
}
