//! A topic of a group: each datagram goes to all who joined a multicast address, once.
//!
//! //= hub 8.13

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA256, digest};
use twinspan_core::time::Timestamp;

use super::{DEPARTED_MAX, Event, GOODBYES, Node, Sent};
use crate::chunk::{Chunk, number_of};
use crate::config::LINKS_MAX;
use crate::greet::{Compressions, Greeting};
use crate::inbox::Inbox;
use crate::link::Incoming;
use crate::wire::{Grouped, GroupedBody};

/// Others of a group that are remembered.
const MEMBERS_MAX: usize = LINKS_MAX;
/// The least time between two greetings, whoever comes.
const GREETING_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Another hub of the group.
#[derive(Debug)]
struct Member {
    publisher: u64,
    address: SocketAddr,
    /// What it said of itself; `None` while only its messages came.
    greeting: Option<Greeting>,
    heard_at: Timestamp,
    incoming: Incoming,
}

/// What a node of a group has.
#[derive(Debug)]
pub(super) struct Group {
    address: SocketAddr,
    publisher: u64,
    /// What stands for topic and type in datagrams.
    tag: u64,
    members: Vec<Member>,
    /// Which of the chunks is next.
    pub(super) cursor: usize,
    /// When a greeting is due, and when the last left.
    greet_at: Timestamp,
    greeted_at: Timestamp,
    /// When the number of the last message is to be said once more.
    tail_at: Timestamp,
    goodbyes: usize,
}

/// What stands for topic and type: the first bytes of the hash of a greeting without what differs among
/// those of one topic.
fn tag(greeting: &Greeting) -> u64 {
    let common = Greeting {
        id: [0; 16],
        publishes: true,
        receives: true,
        message_bytes_max: 0,
        history: 0,
        compressions: Compressions::NONE,
        ..greeting.clone()
    };
    let mut bytes = Vec::new();
    common.write(&mut bytes);
    let hash = digest(&SHA256, &bytes);
    hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Group {
    pub(super) fn new(address: SocketAddr, greeting: &Greeting, now: Timestamp) -> Box<Self> {
        Box::new(Self {
            address,
            publisher: greeting.publisher(),
            tag: tag(greeting),
            members: Vec::new(),
            cursor: 0,
            greet_at: now,
            greeted_at: Timestamp::NEVER,
            tail_at: Timestamp::NEVER,
            goodbyes: 0,
        })
    }

    /// Others that receive.
    pub(super) fn subscribers(&self) -> usize {
        let greetings = self.members.iter().filter_map(|it| it.greeting.as_ref());
        greetings.filter(|greeting| greeting.receives).count()
    }

    /// Others that publish, those of whom messages alone came included.
    pub(super) fn publishers(&self) -> usize {
        let publishes = |it: &&Member| it.greeting.as_ref().is_none_or(|it| it.publishes);
        self.members.iter().filter(publishes).count()
    }

    pub(super) fn poll_timeout(&self, silence_max: Duration) -> Timestamp {
        let silent = self.members.iter().map(|it| it.heard_at.after(silence_max)).min();
        silent.unwrap_or(Timestamp::NEVER).min(self.greet_at).min(self.tail_at)
    }

    /// Says goodbye with the next datagrams, and nothing behind it.
    pub(super) fn close(&mut self) {
        self.goodbyes = GOODBYES;
        (self.greet_at, self.tail_at) = (Timestamp::NEVER, Timestamp::NEVER);
    }

    /// Forgets those who are silent; how many.
    pub(super) fn handle_timeout(
        &mut self,
        now: Timestamp,
        silence_max: Duration,
        departed: &mut VecDeque<(u64, u64)>,
    ) -> u64 {
        let mut count = 0;
        while let Some(at) =
            self.members.iter().position(|it| now >= it.heard_at.after(silence_max))
        {
            self.forget(at, departed);
            count += 1;
        }
        count
    }

    fn forget(&mut self, at: usize, departed: &mut VecDeque<(u64, u64)>) {
        let member = self.members.swap_remove(at);
        if let Some(next) = member.incoming.expected() {
            if departed.len() >= DEPARTED_MAX {
                departed.pop_front();
            }
            departed.push_back((member.publisher, next));
        }
    }

    /// The place of a member, a new one's too; `None` where there is no room.
    fn member(
        &mut self,
        now: Timestamp,
        (publisher, address): (u64, SocketAddr),
        message_bytes_max: usize,
    ) -> Option<(usize, bool)> {
        if let Some(at) = self.members.iter().position(|it| it.publisher == publisher) {
            return Some((at, false));
        }
        if self.members.len() >= MEMBERS_MAX {
            return None;
        }
        // Nothing is packed in a group: who joins it late does not know with what.
        let incoming = Incoming::new((publisher, false), message_bytes_max);
        let member = Member { publisher, address, greeting: None, heard_at: now, incoming };
        self.members.push(member);
        Some((self.members.len() - 1, true))
    }
}

impl Node {
    /// A datagram of a group came.
    pub(super) fn handle_grouped(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        grouped: &Grouped<'_>,
        inbox: &mut Inbox,
    ) {
        let Some(mut group) = self.group.take() else {
            self.stats.unknown += 1;
            return;
        };
        // What one sends to the group comes back.
        if grouped.publisher != group.publisher && !self.is_closed {
            self.take_grouped(now, from, grouped, &mut group, inbox);
        }
        self.group = Some(group);
    }

    fn take_grouped(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        grouped: &Grouped<'_>,
        group: &mut Group,
        inbox: &mut Inbox,
    ) {
        if grouped.tag != group.tag {
            // Another topic may share the group; another type of this one does not.
            if let GroupedBody::Greeting(theirs) = &grouped.body
                && theirs.topic == self.config.greeting.topic
                && let Err(why) = self.config.greeting.agrees_with(theirs)
            {
                self.stats.refused += 1;
                self.tell(Event::Declined { address: from, why: Some(why) });
            } else {
                self.stats.unknown += 1;
            }
            return;
        }
        let is_known = |it: &Member| it.publisher == grouped.publisher;
        if grouped.leaves && !group.members.iter().any(is_known) {
            // It is said more than once.
            return;
        }
        let max = self.config.greeting.message_bytes_max as usize;
        let Some((at, is_new)) = group.member(now, (grouped.publisher, from), max) else {
            self.stats.refused += 1;
            return;
        };
        if is_new {
            self.stats.joined += 1;
            self.tell(Event::Joined { address: from, publisher: grouped.publisher });
            // Who is new learns soon who is here.
            let earliest = if group.greeted_at == Timestamp::NEVER {
                now
            } else {
                group.greeted_at.after(GREETING_INTERVAL_MIN)
            };
            group.greet_at = group.greet_at.min(earliest.max(now));
        }
        let Some(member) = group.members.get_mut(at) else { return };
        member.heard_at = now;
        member.address = from;
        let receives = self.config.greeting.receives;
        let departed = &mut self.departed;
        let taken = match &grouped.body {
            _ if !receives => Ok(()),
            GroupedBody::Chunk(chunk) => member.incoming.join_at(chunk, departed, inbox),
            GroupedBody::Greeting(_) | GroupedBody::Nothing => {
                member.incoming.join_before(grouped.next, departed, inbox)
            }
        };
        if let GroupedBody::Greeting(greeting) = &grouped.body {
            member.greeting = Some(greeting.clone());
        }
        if taken.is_err() {
            self.stats.malformed += 1;
            self.stats.ended += 1;
            group.forget(at, &mut self.departed);
        } else if grouped.leaves {
            self.stats.left += 1;
            group.forget(at, &mut self.departed);
        }
    }

    /// Writes the next datagram for the group.
    pub(super) fn transmit_grouped(&mut self, now: Timestamp, out: &mut [u8]) -> Option<Sent> {
        let Self { group, chunks, stats, config, .. } = self;
        let group = group.as_deref_mut()?;
        let (next, publisher, tag) = (stats.published, group.publisher, group.tag);
        let says = |body, leaves| Grouped { publisher, tag, next, leaves, body };
        let grouped = if group.goodbyes > 0 {
            group.goodbyes -= 1;
            says(GroupedBody::Nothing, true)
        } else if let Some(chunk) = chunks.get(group.cursor) {
            group.cursor += 1;
            group.tail_at = now.after(config.tail_interval);
            says(GroupedBody::Chunk(chunk), false)
        } else if now >= group.greet_at {
            (group.greeted_at, group.greet_at) = (now, now.after(config.keepalive_interval));
            group.tail_at = Timestamp::NEVER;
            says(GroupedBody::Greeting(config.greeting.clone()), false)
        } else if now >= group.tail_at {
            group.tail_at = Timestamp::NEVER;
            says(GroupedBody::Nothing, false)
        } else {
            return None;
        };
        let bytes = grouped.write(out)?;
        Some(Sent { to: group.address, bytes })
    }
}

impl Incoming {
    /// A chunk of a publisher of whom nothing may be known: from its first whole message on.
    fn join_at(
        &mut self,
        chunk: &[u8],
        departed: &mut VecDeque<(u64, u64)>,
        inbox: &mut Inbox,
    ) -> Result<(), crate::wire::EndReason> {
        if self.expected().is_none() {
            let is_within =
                matches!(Chunk::parse(chunk), Ok(Chunk::Piece(piece)) if piece.index > 0);
            let start = number_of(chunk) + u64::from(is_within);
            self.begin(start, departed, inbox)?;
        }
        self.handle_chunk(chunk, inbox)
    }

    /// All below `next` was sent.
    fn join_before(
        &mut self,
        next: u64,
        departed: &mut VecDeque<(u64, u64)>,
        inbox: &mut Inbox,
    ) -> Result<(), crate::wire::EndReason> {
        if self.expected().is_none() {
            return self.begin(next, departed, inbox);
        }
        self.handle_next(next, inbox);
        Ok(())
    }
}
