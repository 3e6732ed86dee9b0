//! The judge over those who are in: rates of messages, scores that decay, what follows from them.

use core::time::Duration;

use twinspan_core::time::Timestamp;

use crate::filter::{RuleCount, keep_counts};
use crate::gauge::{Allowance, Decay, Gauge, Score};
use crate::rules::{Action, MESSAGE_RULES_MAX, MessageRule, Rules, ScoreRule, Signal};

/// As how many messages one counts while a score throttles its sender.
pub const THROTTLE_FACTOR: u64 = 4;
/// Streams that messages come on.
const STREAMS: usize = 64;

/// What becomes of a message or of its sender, from mild to hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ruling {
    /// It passes.
    Pass,
    /// It is taken without effect on others, and the sender is not told.
    Shadow,
    /// It is dropped.
    Drop {
        /// For what.
        cause: Signal,
    },
    /// The session ends.
    Disconnect {
        /// For what.
        cause: Signal,
    },
    /// The session ends, and the user is let in no more for a time.
    Ban {
        /// For what.
        cause: Signal,
        /// For how long.
        length: Duration,
    },
}

impl Ruling {
    const fn of(action: Action, cause: Signal, length: Duration) -> Self {
        match action {
            Action::Observe => Self::Pass,
            Action::Throttle => Self::Drop { cause },
            Action::Shadow => Self::Shadow,
            Action::Disconnect => Self::Disconnect { cause },
            Action::Ban => Self::Ban { cause, length },
        }
    }
}

/// What is known of one connection: what it owes each rule, and what is held against it.
#[derive(Clone, Debug)]
pub struct Conduct {
    gauges: [Gauge; MESSAGE_RULES_MAX],
    /// Which rule each gauge is of: the place's generation.
    generations: [u8; MESSAGE_RULES_MAX],
    /// By signal; that of movement stays empty.
    scores: [Score; Signal::COUNT],
    /// Points of movement, as the world told them last.
    movement: u32,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            gauges: [Gauge::default(); MESSAGE_RULES_MAX],
            generations: [0; MESSAGE_RULES_MAX],
            scores: [Score::default(); Signal::COUNT],
            movement: 0,
        }
    }
}

// A connection's share of the filter is small beside the connection.
const _: () = assert!(size_of::<Conduct>() <= 192);

/// A message rule, ready to be applied.
struct Rate {
    rule: MessageRule,
    allowance: Allowance,
    throttled: Allowance,
    /// The place of its gauge in every [`Conduct`].
    place: usize,
}

/// A place for gauges and the rule that has it.
#[derive(Clone, Default)]
struct Place {
    rule: Option<String>,
    generation: u8,
}

/// A score rule, ready to be applied.
struct Scale {
    rule: ScoreRule,
    decay: Decay,
    /// The score ends here.
    most: u32,
    /// The row of its first step.
    row: usize,
}

/// Judges messages and signals of connections.
pub struct Judge {
    dry_run: bool,
    rates: Vec<Rate>,
    /// Bit `n` of a stream: rate `n` is about it.
    by_stream: [u16; STREAMS],
    places: [Place; MESSAGE_RULES_MAX],
    /// By signal.
    scales: [Option<Scale>; Signal::COUNT],
    /// Whether any step throttles or shadows: only then scores are looked at for every message.
    has_lasting_steps: bool,
    rows: Vec<RuleCount>,
}

impl Judge {
    pub(crate) fn new(rules: &Rules) -> Self {
        let mut judge = Self {
            dry_run: false,
            rates: Vec::new(),
            by_stream: [0; STREAMS],
            places: Default::default(),
            scales: Default::default(),
            has_lasting_steps: false,
            rows: Vec::new(),
        };
        judge.replace(rules);
        judge
    }

    pub(crate) fn replace(&mut self, rules: &Rules) {
        self.dry_run = rules.dry_run;
        let messages = rules.messages.get(..MESSAGE_RULES_MAX).unwrap_or(&rules.messages);
        self.assign_places(messages);
        self.by_stream = [0; STREAMS];
        self.rates.clear();
        let mut rows = Vec::new();
        for (index, rule) in messages.iter().enumerate() {
            let has_it = |place: &Place| place.rule.as_deref() == Some(rule.name.as_str());
            let place = self.places.iter().position(has_it).unwrap_or(index);
            let allowance = Allowance::new(rule.per_second, rule.burst);
            let throttled = allowance.dearer(THROTTLE_FACTOR);
            if let Some(mask) = self.by_stream.get_mut(usize::from(rule.stream)) {
                *mask |= 1 << index;
            }
            self.rates.push(Rate { rule: rule.clone(), allowance, throttled, place });
            rows.push(RuleCount::new(&rule.name, rule.action));
        }
        self.scales = Default::default();
        for rule in &rules.scores {
            let highest = rule.steps.iter().map(|step| step.above).max().unwrap_or(0);
            let scale = Scale {
                decay: Decay::new(rule.decay_per_second),
                most: highest.saturating_mul(2).saturating_add(1),
                row: rows.len(),
                rule: rule.clone(),
            };
            rows.extend(rule.steps.iter().map(|step| RuleCount::new(&rule.name, step.action)));
            if let Some(place) = self.scales.get_mut(rule.signal as usize) {
                *place = Some(scale);
            }
        }
        let steps = rules.scores.iter().flat_map(|rule| &rule.steps);
        self.has_lasting_steps = steps
            .map(|step| step.action)
            .any(|action| matches!(action, Action::Throttle | Action::Shadow));
        keep_counts(&mut rows, &self.rows);
        self.rows = rows;
    }

    /// Rules that were there keep their place; new ones take places that nobody has, in a new
    /// generation, so that no gauge of another rule is taken for theirs.
    fn assign_places(&mut self, rules: &[MessageRule]) {
        let is_kept = |place: &Place| {
            rules.iter().any(|rule| place.rule.as_deref() == Some(rule.name.as_str()))
        };
        for place in &mut self.places {
            if !is_kept(place) {
                place.rule = None;
            }
        }
        for rule in rules {
            let has_it = |place: &Place| place.rule.as_deref() == Some(rule.name.as_str());
            if self.places.iter().any(has_it) {
                continue;
            }
            // There are as many places as rules can be.
            if let Some(place) = self.places.iter_mut().find(|place| place.rule.is_none()) {
                place.rule = Some(rule.name.clone());
                place.generation = place.generation.wrapping_add(1);
            }
        }
    }

    pub(crate) fn rows(&self) -> &[RuleCount] {
        &self.rows
    }

    /// A message of `bytes` bytes came on a stream; `kind` is the application's number for what it
    /// is.
    pub fn on_message(
        &mut self,
        now: Timestamp,
        conduct: &mut Conduct,
        stream: u8,
        kind: u8,
        bytes: usize,
    ) -> Ruling {
        let standing = self.standing(now, conduct);
        let is_throttled = standing == Some(Action::Throttle);
        let is_shadowed = standing == Some(Action::Shadow);
        let mut ruling = if is_shadowed { Ruling::Shadow } else { Ruling::Pass };
        let mut mask = self.by_stream.get(usize::from(stream)).copied().unwrap_or(0);
        while mask != 0 {
            let index = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let verdict = self.apply(now, conduct, index, (kind, bytes), is_throttled);
            ruling = ruling.max(verdict);
        }
        ruling
    }

    fn apply(
        &mut self,
        now: Timestamp,
        conduct: &mut Conduct,
        index: usize,
        (kind, bytes): (u8, usize),
        is_throttled: bool,
    ) -> Ruling {
        let Some(rate) = self.rates.get(index) else { return Ruling::Pass };
        if rate.rule.kind.is_some_and(|wanted| wanted != kind) {
            return Ruling::Pass;
        }
        let dry = rate.rule.dry_run;
        let is_long = rate.rule.bytes_max.is_some_and(|most| bytes > most as usize);
        let allowance = if is_throttled { rate.throttled } else { rate.allowance };
        let generation = self.places.get(rate.place).map_or(0, |place| place.generation);
        let Some(gauge) = conduct.gauges.get_mut(rate.place) else { return Ruling::Pass };
        if let Some(known) = conduct.generations.get_mut(rate.place)
            && *known != generation
        {
            (*known, *gauge) = (generation, Gauge::default());
        }
        if gauge.take(now, allowance) && !is_long {
            return Ruling::Pass;
        }
        let (action, ban, points) = (rate.rule.action, rate.rule.ban, rate.rule.points);
        let acts = self.rows.get_mut(index).is_some_and(|row| row.hit(self.dry_run || dry));
        let (cause, points) =
            if is_long { (Signal::Malformed, 1) } else { (Signal::Flooding, points) };
        let own = if !acts {
            Ruling::Pass
        } else if is_long {
            // Too long is dropped whatever becomes of messages over the rate.
            Ruling::of(action.max(Action::Throttle), cause, ban).max(Ruling::Drop { cause })
        } else {
            Ruling::of(action, cause, ban)
        };
        if dry { own } else { own.max(self.on_signal(now, conduct, cause, points)) }
    }

    /// Something is held against a connection. Only what ends its session is told here; a step that
    /// throttles or shadows shows in the next rulings of [`on_message`](Self::on_message).
    pub fn on_signal(
        &mut self,
        now: Timestamp,
        conduct: &mut Conduct,
        signal: Signal,
        points: u32,
    ) -> Ruling {
        let Some(Some(scale)) = self.scales.get(signal as usize) else { return Ruling::Pass };
        let Some(score) = conduct.scores.get_mut(signal as usize) else { return Ruling::Pass };
        let before = *score;
        score.add(now, scale.decay, points, scale.most);
        let (after, decay) = (*score, scale.decay);
        self.climb(signal, |above| {
            (before.is_above(now, decay, above), after.is_above(now, decay, above))
        })
    }

    /// The world's own score of a connection's movement, in points.
    pub fn on_movement(&mut self, conduct: &mut Conduct, points: u32) -> Ruling {
        let before = core::mem::replace(&mut conduct.movement, points);
        self.climb(Signal::Movement, |above| (before > above, points > above))
    }

    /// Counts the steps that a score has just risen above, and rules by the highest that it is above.
    fn climb(&mut self, signal: Signal, is_above: impl Fn(u32) -> (bool, bool)) -> Ruling {
        let Some(Some(scale)) = self.scales.get(signal as usize) else { return Ruling::Pass };
        let dry = self.dry_run || scale.rule.dry_run;
        let mut ruling = Ruling::Pass;
        for (index, step) in scale.rule.steps.iter().enumerate() {
            let (before, after) = is_above(step.above);
            if after
                && !before
                && let Some(row) = self.rows.get_mut(scale.row + index)
            {
                row.hit(dry);
            }
            if after && !dry && step.action >= Action::Disconnect {
                ruling = ruling.max(Ruling::of(step.action, signal, step.ban));
            }
        }
        ruling
    }

    /// The hardest lasting step that a connection's scores are above.
    fn standing(&self, now: Timestamp, conduct: &Conduct) -> Option<Action> {
        if !self.has_lasting_steps || self.dry_run {
            return None;
        }
        let mut standing = None;
        let scales = self.scales.iter().flatten().filter(|scale| !scale.rule.dry_run);
        for scale in scales {
            let signal = scale.rule.signal;
            let score = conduct.scores.get(signal as usize).copied().unwrap_or_default();
            for step in &scale.rule.steps {
                let is_above = match signal {
                    Signal::Movement => conduct.movement > step.above,
                    _ => score.is_above(now, scale.decay, step.above),
                };
                let lasts = matches!(step.action, Action::Throttle | Action::Shadow);
                if is_above && lasts {
                    standing = standing.max(Some(step.action));
                }
            }
        }
        standing
    }

    /// Points that are held against a connection.
    pub fn points(&self, now: Timestamp, conduct: &Conduct, signal: Signal) -> f64 {
        if signal == Signal::Movement {
            return f64::from(conduct.movement);
        }
        let scale = self.scales.get(signal as usize).and_then(Option::as_ref);
        let score = conduct.scores.get(signal as usize);
        scale.zip(score).map_or(0.0, |(scale, score)| score.points(now, scale.decay))
    }
}

#[cfg(test)]
mod tests;
