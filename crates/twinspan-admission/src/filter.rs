//! The filter: a door for those who come and a judge over those who are in.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use twinspan_core::time::Timestamp;

use crate::bans::Bans;
use crate::gauge::Allowance;
use crate::judge::Judge;
use crate::rules::{Action, Prefix, Rules, SourceRule};
use crate::sources::{Counted, Sources, Spot};

/// What a rule met so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    /// The rule's name.
    pub rule: Arc<str>,
    /// What it, or this step of it, does.
    pub action: Action,
    /// How often it met something.
    pub hits: u64,
    /// How often it acted: `hits` less those of dry runs.
    pub acted: u64,
}

impl RuleCount {
    pub(crate) fn new(rule: &str, action: Action) -> Self {
        Self { rule: rule.into(), action, hits: 0, acted: 0 }
    }

    /// Counts; true when it acts.
    pub(crate) const fn hit(&mut self, dry: bool) -> bool {
        self.hits += 1;
        self.acted += !dry as u64;
        !dry
    }
}

/// Gives rows the counts that rows of the same name and action had.
pub(crate) fn keep_counts(rows: &mut [RuleCount], before: &[RuleCount]) {
    for row in rows {
        let same = |old: &&RuleCount| old.rule == row.rule && old.action == row.action;
        if let Some(old) = before.iter().find(same) {
            *row = old.clone();
        }
    }
}

/// A source rule, ready to be applied.
struct Gate {
    rule: SourceRule,
    allowance: Allowance,
}

/// Decides by address and by user who may come in.
///
/// Ask it only about addresses that proved to receive: else anybody could use up another's share
/// by putting its address on datagrams.
pub struct Door {
    dry_run: bool,
    trusted: Vec<Prefix>,
    banned_users: Vec<u64>,
    gates: Vec<Gate>,
    rows: Vec<RuleCount>,
    sources: Sources,
    bans: Bans,
    banned: RuleCount,
}

impl Door {
    fn new(rules: &Rules, networks: usize, key: [u8; 16]) -> Self {
        let mut door = Self {
            dry_run: false,
            trusted: Vec::new(),
            banned_users: Vec::new(),
            gates: Vec::new(),
            rows: Vec::new(),
            sources: Sources::new(networks, key),
            bans: Bans::new(),
            banned: RuleCount::new("banned-users", Action::Ban),
        };
        door.replace(rules);
        door
    }

    fn replace(&mut self, rules: &Rules) {
        self.dry_run = rules.dry_run;
        self.trusted.clone_from(&rules.trusted);
        self.banned_users.clone_from(&rules.banned_users);
        let gate = |rule: &SourceRule| Gate {
            allowance: Allowance::new(rule.per_second, rule.burst),
            rule: rule.clone(),
        };
        self.gates = rules.sources.iter().map(gate).collect();
        let row = |rule: &SourceRule| RuleCount::new(&rule.name, rule.action);
        let mut rows: Vec<_> = rules.sources.iter().map(row).collect();
        keep_counts(&mut rows, &self.rows);
        self.rows = rows;
    }

    fn is_trusted(&self, source: IpAddr) -> bool {
        self.trusted.iter().any(|prefix| prefix.contains(source))
    }

    /// Whether a handshake of this address may be paid for; counts it when it may.
    pub fn allow_handshake(&mut self, now: Timestamp, source: IpAddr) -> bool {
        if self.is_trusted(source) {
            return true;
        }
        let mut allowed = true;
        for (gate, row) in self.gates.iter().zip(&mut self.rows) {
            let Some(spot) = spot(&self.sources, gate, source) else { continue };
            if !self.sources.gauge(spot).has_room(now, gate.allowance) {
                let acts = row.hit(self.dry_run || gate.rule.dry_run);
                allowed &= !(acts && gate.rule.action >= Action::Throttle);
            }
        }
        if allowed {
            self.count(now, source, Counted::Handshakes);
        }
        allowed
    }

    /// A handshake of this address came to nothing through its own fault.
    pub fn on_failure(&mut self, now: Timestamp, source: IpAddr) {
        if !self.is_trusted(source) {
            self.count(now, source, Counted::Failures);
        }
    }

    fn count(&mut self, now: Timestamp, source: IpAddr, counted: Counted) {
        for gate in self.gates.iter().filter(|gate| gate.rule.counts == counted) {
            let Some(spot) = spot(&self.sources, gate, source) else { continue };
            let mut gauge = self.sources.gauge(spot);
            gauge.spend(now, gate.allowance);
            self.sources.keep(now, spot, gauge);
        }
    }

    /// Whether a user may have a session.
    pub fn allow_user(&mut self, now: Timestamp, user: u64) -> bool {
        if !self.is_banned(now, user) {
            return true;
        }
        !self.banned.hit(self.dry_run)
    }

    /// Whether a user is banned, by the rules or for what it did.
    pub fn is_banned(&self, now: Timestamp, user: u64) -> bool {
        self.banned_users.binary_search(&user).is_ok() || self.bans.until(now, user).is_some()
    }

    /// Bans a user for so long.
    pub fn ban(&mut self, now: Timestamp, user: u64, length: Duration) {
        self.bans.add(now, user, now.after(length));
    }

    /// Lets a user in again that was banned for what it did; false when none was.
    pub fn lift_ban(&mut self, user: u64) -> bool {
        self.bans.lift(user)
    }

    /// Networks that are remembered at most; the table never grows.
    pub const fn capacity(&self) -> usize {
        self.sources.capacity()
    }
}

fn spot(sources: &Sources, gate: &Gate, source: IpAddr) -> Option<Spot> {
    let value = gate.rule.network.of(source)?;
    Some(sources.spot(gate.rule.counts, gate.rule.network, value))
}

/// How a filter is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterConfig {
    /// The rules at the start.
    pub rules: Rules,
    /// Networks that are remembered, 64 to 16,777,216, rounded up to a power of two; 16 bytes each.
    pub networks_max: usize,
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self { rules: Rules::default(), networks_max: 32_768 }
    }
}

/// What a filter counted, to be copied out into reused memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FilterStats {
    /// Every rule, and every step of every score.
    pub rules: Vec<RuleCount>,
    /// Networks that gave way in a full table although something was owed.
    pub networks_evicted: u64,
    /// Bans that are remembered.
    pub bans: u64,
    /// Who is banned for what it did, and until when, by user; at most
    /// [`BANS_MAX`](crate::BANS_MAX), those that are over among them.
    pub banned: Vec<(u64, Timestamp)>,
    /// Bans that gave way in a full list before they were over.
    pub bans_forgotten: u64,
    /// How often rules were replaced.
    pub replacements: u64,
}

impl Clone for FilterStats {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Uses the room of both lists again: figures are copied for each look at them.
    fn clone_from(&mut self, source: &Self) {
        let Self { rules, networks_evicted, bans, banned, bans_forgotten, replacements } = source;
        self.rules.clone_from(rules);
        self.banned.clone_from(banned);
        self.networks_evicted = *networks_evicted;
        self.bans = *bans;
        self.bans_forgotten = *bans_forgotten;
        self.replacements = *replacements;
    }
}

impl FilterStats {
    /// Adds what another filter with the same rules counted. Where the two have other rules, because
    /// one has not taken the new ones yet, its counts by rule are left out.
    pub fn add(&mut self, other: &Self) {
        let Self { rules, networks_evicted, bans, banned, bans_forgotten, replacements } = other;
        // Filters tell each other of bans, and one may be on its way.
        for ban in banned {
            if let Err(at) = self.banned.binary_search_by_key(&ban.0, |known| known.0) {
                self.banned.insert(at, *ban);
            }
        }
        for (mine, theirs) in self.rules.iter_mut().zip(rules) {
            if (&mine.rule, mine.action) == (&theirs.rule, theirs.action) {
                mine.hits += theirs.hits;
                mine.acted += theirs.acted;
            }
        }
        self.networks_evicted += networks_evicted;
        self.bans = self.bans.max(*bans);
        self.bans_forgotten += bans_forgotten;
        self.replacements = self.replacements.max(*replacements);
    }
}

/// The admission filter, as a machine: time comes as an argument.
///
/// Its two halves are lent out apart, because who asks the one may be inside a call that came from
/// the other.
///
/// ```
/// use twinspan_admission::{Conduct, Filter, FilterConfig, Ruling};
/// use twinspan_core::time::Timestamp;
///
/// // Production draws the key from the operating system.
/// let mut filter = Filter::new(FilterConfig::default(), [7; 16]);
/// let (door, judge) = filter.split();
/// let source = "192.0.2.1".parse().expect("an address");
/// assert!(door.allow_handshake(Timestamp::START, source));
///
/// let mut conduct = Conduct::default();
/// let events = 3;
/// let rulings = (0..31).map(|_| judge.on_message(Timestamp::START, &mut conduct, events, 0, 9));
/// assert_eq!(rulings.filter(|ruling| *ruling == Ruling::Pass).count(), 30);
/// ```
pub struct Filter {
    door: Door,
    judge: Judge,
    replacements: u64,
}

impl Filter {
    /// A filter with its rules. `key` is secret: it decides which networks share a place.
    pub fn new(config: FilterConfig, key: [u8; 16]) -> Self {
        let FilterConfig { rules, networks_max } = config;
        Self {
            door: Door::new(&rules, networks_max, key),
            judge: Judge::new(&rules),
            replacements: 0,
        }
    }

    /// Both halves at once.
    pub const fn split(&mut self) -> (&mut Door, &mut Judge) {
        (&mut self.door, &mut self.judge)
    }

    /// The half for those who come.
    pub const fn door(&mut self) -> &mut Door {
        &mut self.door
    }

    /// Takes other rules. What was counted and what is owed or held against somebody stays, where
    /// the new rules have something of the same name or signal.
    pub fn replace_rules(&mut self, rules: &Rules) {
        self.door.replace(rules);
        self.judge.replace(rules);
        self.replacements += 1;
    }

    /// Copies the counts into `out`; allocates only after rules were replaced and for more bans.
    pub fn copy_stats(&self, out: &mut FilterStats) {
        let (door, judge) = (&self.door.rows, self.judge.rows());
        let banned = core::slice::from_ref(&self.door.banned);
        let rows = door.iter().chain(judge).chain(banned);
        out.rules.clear();
        out.rules.extend(rows.cloned());
        out.networks_evicted = self.door.sources.evicted();
        out.bans = self.door.bans.len() as u64;
        out.banned.clear();
        out.banned.extend_from_slice(self.door.bans.entries());
        out.bans_forgotten = self.door.bans.forgotten();
        out.replacements = self.replacements;
    }
}

#[cfg(test)]
mod tests;
