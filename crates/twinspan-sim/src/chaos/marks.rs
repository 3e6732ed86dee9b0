//! Marks in the application: fault points that say yes, and what a sweep must reach.

use std::collections::BTreeMap;

use twinspan_core::chaos::{Judge, Site, SiteKind};
use twinspan_core::link::FaultKind;
use twinspan_core::time::Timestamp;

use crate::plan::{Place, site_key};
use crate::world::{HostId, State, World};

/// Broken `always!` that are kept to be told.
const BROKEN_MAX: usize = 64;

/// How often a mark was met in a run, and how often what it says held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkCount {
    /// The mark.
    pub site: &'static Site,
    /// How often it was met.
    pub met: u64,
    /// How often it held; of a fault point, how often it said yes.
    pub held: u64,
}

/// An `always!` that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The mark.
    pub site: &'static Site,
    /// When.
    pub at: Timestamp,
    /// The name of the host whose task it was.
    pub host: String,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { site, at, host } = self;
        write!(f, "\"{}\" did not hold on host \"{host}\" at {at} ", site.name)?;
        write!(f, "({}:{})", site.file, site.line)
    }
}

/// What a run's marks told. Sites are told apart by where they are in memory, which reaches nobody:
/// lists are sorted by what the sites say.
#[derive(Default)]
pub(crate) struct Marks {
    counts: BTreeMap<usize, MarkCount>,
    broken: Vec<Mark>,
    /// How often each host asked at each fault point or setting.
    asked: BTreeMap<(HostId, u64), u64>,
}

impl Marks {
    fn count(&mut self, site: &'static Site, held: bool) {
        let place = std::ptr::from_ref(site).addr();
        let count = self.counts.entry(place).or_insert(MarkCount { site, met: 0, held: 0 });
        count.met += 1;
        count.held += u64::from(held);
    }

    /// All marks that were met.
    pub(crate) fn counts(&self) -> Vec<MarkCount> {
        let mut counts: Vec<_> = self.counts.values().copied().collect();
        counts.sort_unstable();
        counts
    }

    pub(crate) fn broken(&self) -> &[Mark] {
        &self.broken
    }
}

impl State {
    /// Whether a fault strikes a site of the polled host; how often that asked is the number.
    fn strike_site(&mut self, kind: FaultKind, name: &str) -> Option<super::Strike> {
        if !self.chaos.can(kind) {
            return None;
        }
        let id = self.chaos.polled?;
        let ip = self.hosts.get(id)?.ip;
        let key = site_key(ip, name);
        let asked = self.chaos.marks.asked.entry((id, key)).or_default();
        let number = *asked;
        *asked += 1;
        self.strike((kind, key, number), || Place::Site(ip, name.to_owned()))
    }

    /// The value of a setting: the usual one, or one between `least` and `most`.
    pub(crate) fn knob(
        &mut self,
        (host, name): (HostId, &str),
        usual: u64,
        (least, most): (u64, u64),
    ) -> u64 {
        if !self.chaos.can(FaultKind::Knob) {
            return usual;
        }
        let Some(ip) = self.hosts.get(host).map(|host| host.ip) else { return usual };
        let coordinates = (FaultKind::Knob, site_key(ip, name), 0);
        let Some(strike) = self.chaos.decide(coordinates) else { return usual };
        let choices = most.saturating_sub(least);
        // The ends are where things break.
        let value = match strike.below(0, 4) {
            0 => least,
            1 => most.max(least),
            _ => least + strike.below(1, choices.saturating_add(1)),
        };
        if value != usual {
            self.note_strike(coordinates, Place::Site(ip, name.to_owned()));
            self.faults.observe(FaultKind::Knob);
        }
        value
    }
}

impl Judge for World {
    fn buggify(&self, site: &'static Site) -> bool {
        // Whoever asks from inside the simulation itself gets no fault.
        let Ok(mut state) = self.state.try_borrow_mut() else { return false };
        let is_rekey = site.name.starts_with("rekey");
        let kind = if is_rekey { FaultKind::Rekey } else { FaultKind::Buggify };
        let strikes = state.strike_site(kind, site.name).is_some();
        if strikes {
            state.faults.observe(kind);
        }
        state.chaos.marks.count(site, strikes);
        strikes
    }

    fn met(&self, site: &'static Site, holds: bool) {
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        let state = &mut *state;
        state.chaos.marks.count(site, holds);
        if site.kind == SiteKind::Always && !holds && state.chaos.marks.broken.len() < BROKEN_MAX {
            let host = state.chaos.polled.and_then(|id| state.hosts.get(id));
            let host = host.map_or("nobody", |host| host.name.as_str()).to_owned();
            state.chaos.marks.broken.push(Mark { site, at: self.now.get(), host });
        }
    }
}
