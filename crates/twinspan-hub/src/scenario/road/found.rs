//! How hubs of a topic find each other on simulated hosts, which stand for processes of one machine:
//! discovery's machines over the sockets of [`doors`](super::doors).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_provider::{TaskProvider, TimeProvider};
use twinspan_sim::{SimEnv, SimTask};
use twinspan_topic::Greeting;

use super::HubConfig;
use super::datagrams::DatagramRoad;
use super::doors::{Chatter, Doors, Owned, Visited, Word, take_place, visit};
use crate::discover::{Announcement, GUESTS_MAX, Heard, Host, Meetings, OfferedRoad, Roster};
use crate::report::Transport;
use crate::scenario::sleep;

/// How often the thread looks at its sockets: one that is woken may take as long.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a thread stands still that does: longer than others wait for its word.
const STILL: Duration = Duration::from_millis(1_700);
/// How long nobody is let in or visited where the system has no descriptors.
const REST: Duration = Duration::from_millis(100);
/// Connections that are taken in one turn.
const ACCEPTS_MAX: usize = 2;
/// The user whose hubs these are, and another one.
const USER: u32 = 1_000;
const STRANGER: u32 = 2_000;
/// How long liars lie, and how often.
const LIES_TIME: Duration = Duration::from_secs(4);
const LIE_INTERVAL: Duration = Duration::from_millis(60);
/// Connections that a liar keeps open.
const LIES_KEPT_MAX: usize = 6;

/// What a hub says on this machine.
fn announcement(greeting: Greeting, address: SocketAddr) -> Announcement {
    let host = Host { boot: [7; 16], space: 1 };
    let road = OfferedRoad { road: Transport::BatchUdp, address, fingerprint: None };
    Announcement { host, user: USER, greeting, roads: vec![road] }
}

/// Announces a hub, and goes to those that it finds.
pub(crate) fn announce(
    env: &SimEnv,
    doors: &Rc<RefCell<Doors>>,
    (topic, address): (usize, SocketAddr),
    config: &HubConfig,
    road: &Rc<DatagramRoad>,
) -> SimTask {
    let herald = Herald {
        env: env.clone(),
        doors: Rc::clone(doors),
        topic,
        ours: announcement(config.greeting.clone(), address),
        meetings: Meetings::new(Transport::BatchUdp, config.greeting.clone()),
        road: Rc::clone(road),
        chatters: BTreeMap::new(),
        rests_until: Timestamp::START,
    };
    env.spawn("herald", herald.live())
}

/// What a herald's thread has.
struct Herald {
    env: SimEnv,
    doors: Rc<RefCell<Doors>>,
    topic: usize,
    ours: Announcement,
    meetings: Meetings,
    road: Rc<DatagramRoad>,
    chatters: BTreeMap<u64, Chatter>,
    rests_until: Timestamp,
}

impl Herald {
    async fn live(mut self) {
        let Some(owned) = take_place(&self.doors, self.topic, USER) else { return };
        let mut roster = Roster::new(self.env.now(), self.ours.clone(), owned.place);
        // A hub that ends looks for nobody before it says goodbye.
        while !self.road.is_over() {
            self.turn(&owned, &mut roster);
            let is_still = twinspan_core::buggify!("a herald stands still");
            sleep(&self.env, if is_still { STILL } else { LOOK_INTERVAL }).await;
        }
    }

    fn turn(&mut self, owned: &Owned, roster: &mut Roster) {
        let now = self.env.now();
        self.hear(now, roster);
        if now >= self.rests_until {
            self.meet(now, owned, roster);
        }
        roster.handle_timeout(now);
        while let Some(key) = roster.poll_closed() {
            self.chatters.remove(&key);
        }
        while let Some(heard) = roster.poll_heard() {
            match heard {
                Heard::Came(who) => {
                    if let Some(callee) = self.meetings.came(&who) {
                        twinspan_core::reachable!("hubs found each other by announcements");
                        self.road.go_to(callee.address);
                    }
                }
                Heard::Gone(who) => {
                    if let Some(callee) = self.meetings.gone(&who) {
                        self.road.hang_up(callee.address);
                    }
                }
            }
        }
        let tally = roster.tally();
        twinspan_core::always!(roster.guests() <= GUESTS_MAX, "connections of heralds are bounded");
        twinspan_core::sometimes!(tally.again > 0, "a place was visited once more");
        twinspan_core::sometimes!(tally.malformed > 0, "a liar at a door was not heard");
        twinspan_core::sometimes!(tally.foreign > 0, "a hub of another user was not heard");
    }

    fn hear(&mut self, now: Timestamp, roster: &mut Roster) {
        let mut over = Vec::new();
        for (key, chatter) in &self.chatters {
            match chatter.receive() {
                Word::Said(word) => roster.handle_word(*key, &word),
                Word::Nothing => {}
                Word::Over => over.push(*key),
            }
        }
        for key in over {
            self.chatters.remove(&key);
            roster.handle_end(now, key);
        }
    }

    /// Lets in who waits, and goes to those whose time has come.
    fn meet(&mut self, now: Timestamp, owned: &Owned, roster: &mut Roster) {
        for _ in 0..ACCEPTS_MAX {
            if twinspan_core::buggify!("a herald has no descriptors") {
                self.rests_until = now.after(REST);
                return;
            }
            let Some(chatter) = owned.accept() else { break };
            self.keep(now, None, chatter, roster);
        }
        while let Some(place) = roster.poll_visit(now) {
            match visit(&self.doors, (self.topic, place), USER) {
                Visited::Met(chatter) => self.keep(now, Some(place), chatter, roster),
                Visited::Nobody => roster.handle_nobody(place),
                Visited::Busy => {
                    twinspan_core::reachable!("too many waited at a door");
                    roster.handle_busy(now, place);
                }
            }
        }
    }

    fn keep(&mut self, now: Timestamp, place: Option<u8>, chatter: Chatter, roster: &mut Roster) {
        let Some(key) = roster.handle_met(now, place, chatter.user()) else { return };
        if chatter.send(roster.word()) {
            self.chatters.insert(key, chatter);
        } else {
            roster.handle_end(now, key);
        }
    }
}

/// A process that lies at all doors of a topic for a while: it says nonsense, or nothing, or is of
/// another user, who has a door too.
pub(crate) fn lie(
    env: &SimEnv,
    doors: &Rc<RefCell<Doors>>,
    topic: usize,
    greeting: &Greeting,
) -> SimTask {
    let (task_env, doors, greeting) = (env.clone(), Rc::clone(doors), greeting.clone());
    env.spawn("liar", async move {
        let (env, until) = (task_env, Timestamp::START.after(LIES_TIME));
        // Its owner never lets anybody in.
        let _foreign = take_place(&doors, topic, STRANGER);
        let address = SocketAddr::new(env.ip(), 1);
        let mut elsewhere = announcement(greeting, address);
        elsewhere.host.space = 2;
        let mut wrong = Vec::new();
        elsewhere.write(&mut wrong);
        let words: [Option<&[u8]>; 4] = [Some(b"nonsense"), Some(&wrong), None, Some(&[0; 2_000])];
        let (mut kept, mut lies) = (Vec::new(), 0_usize);
        while env.now() < until {
            let user = if lies.is_multiple_of(5) { STRANGER } else { USER };
            // Few hosts take few places.
            let place = (lies / 4 % 6) as u8;
            if let Visited::Met(chatter) = visit(&doors, (topic, place), user) {
                if let Some(word) = words.get(lies % 4).copied().flatten() {
                    chatter.send(word);
                }
                kept.push(chatter);
            }
            if kept.len() > LIES_KEPT_MAX {
                kept.remove(0);
            }
            lies += 1;
            sleep(&env, LIE_INTERVAL).await;
        }
    })
}
