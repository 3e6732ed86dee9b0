//! What the scenario knows, whoever crashed: who published what, who heard what, and what that breaks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use twinspan_core::random::mix;
use twinspan_topic::EndReason;

use super::road::Road;
use crate::ends::PairEnd;

/// Broken promises that are told one by one.
const BROKEN_TOLD_MAX: usize = 20;
/// Bytes of a message before its text.
pub(super) const MESSAGE_HEAD_BYTES: usize = 24;

/// One life of one hub: from its start to its end, with an id of its own.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) topic: usize,
    pub(super) host: usize,
    pub(super) published: u64,
    /// Kept beyond its end, to be asked what it saw.
    road: Rc<dyn Road>,
    /// By publisher, what was heard of it.
    heard: BTreeMap<u64, Heard>,
    /// By publisher that was there when this life began, how much it had published.
    before: BTreeMap<u64, u64>,
    /// By the number of the other side, the ends of links with it as this side saw them.
    ends: BTreeMap<u64, Vec<PairEnd>>,
    is_over: bool,
}

/// What one life heard of another.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// The number of the next message.
    next: u64,
    taken: u64,
    lost: u64,
}

/// What is promised of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    pub(super) is_reliable: bool,
    /// Nobody without the key can end a link.
    pub(super) is_sealed: bool,
    pub(super) is_group: bool,
    pub(super) history: u64,
    /// Messages that a publisher keeps behind the last that was acknowledged.
    pub(super) depth: u64,
    pub(super) bytes_max: u64,
}

/// A message that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came<'a> {
    pub(super) publisher: u64,
    pub(super) number: u64,
    pub(super) lost: u64,
    pub(super) body: &'a [u8],
}

/// What is known of all.
#[derive(Default)]
pub(super) struct Truth {
    promises: Vec<Promise>,
    lives: BTreeMap<u64, Life>,
    /// Who lives at a topic and host now.
    present: BTreeMap<(usize, usize), u64>,
    /// Messages that a host's user published on a topic, as far as he knows.
    progress: BTreeMap<(usize, usize), u64>,
    /// The same as it was some time before.
    old_progress: BTreeMap<(usize, usize), u64>,
    broken: Vec<String>,
    untold: u64,
    /// Messages taken.
    pub(super) taken: u64,
    /// Up to where each life has to be heard for all to be settled, from when that was asked first.
    targets: RefCell<BTreeMap<u64, u64>>,
}

/// Bytes of a message.
pub(super) fn length_of(publisher: u64, number: u64, bytes_max: u64) -> usize {
    let draw = mix(publisher ^ mix(number));
    let most = bytes_max.max(MESSAGE_HEAD_BYTES as u64) - MESSAGE_HEAD_BYTES as u64;
    // One in eight is as long as may be drawn; the others are short.
    let bound = if draw.is_multiple_of(8) { most } else { most.min(180) };
    MESSAGE_HEAD_BYTES + (draw >> 8).checked_rem(bound + 1).unwrap_or(0) as usize
}

/// Writes a message; its text can be packed, and is told by publisher and number.
pub(super) fn write_message(
    out: &mut Vec<u8>,
    (publisher, number): (u64, u64),
    wall: u64,
    bytes_max: u64,
) {
    out.clear();
    for word in [publisher, number, wall] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let length = length_of(publisher, number, bytes_max);
    let seed = mix(publisher ^ number);
    out.extend((out.len()..length).map(|at| (seed >> (at % 5 * 8)) as u8));
}

impl Truth {
    pub(super) fn new(promises: Vec<Promise>) -> Self {
        Self { promises, ..Self::default() }
    }

    pub(super) fn break_promise(&mut self, line: String) {
        if self.broken.len() < BROKEN_TOLD_MAX {
            self.broken.push(line);
        } else {
            self.untold += 1;
        }
    }

    pub(super) fn broken(&self) -> Vec<String> {
        let untold = (self.untold > 0).then(|| format!("and {} more", self.untold));
        self.broken.iter().cloned().chain(untold).collect()
    }

    /// A hub begins.
    pub(super) fn begin(&mut self, publisher: u64, topic: usize, host: usize, road: &Rc<dyn Road>) {
        if let Some(former) = self.present.insert((topic, host), publisher)
            && let Some(life) = self.lives.get_mut(&former)
        {
            life.is_over = true;
        }
        let others = self.lives.iter().filter(|(_, life)| life.topic == topic && !life.is_over);
        let before = others.map(|(id, life)| (*id, life.published)).collect();
        let road = Rc::clone(road);
        let (published, heard, is_over) = (0, BTreeMap::new(), false);
        let ends = BTreeMap::new();
        let life = Life { topic, host, published, road, heard, before, ends, is_over };
        if self.lives.insert(publisher, life).is_some() {
            self.break_promise(format!("the id {publisher:x} was drawn twice"));
        }
    }

    /// A hub ends in good order.
    pub(super) fn end(&mut self, publisher: u64) {
        if let Some(life) = self.lives.get_mut(&publisher) {
            life.is_over = true;
            self.present.retain(|_, id| *id != publisher);
        }
    }

    /// The number that a hub's next message gets.
    pub(super) fn next_of(&self, publisher: u64) -> u64 {
        self.lives.get(&publisher).map_or(0, |life| life.published)
    }

    /// A host lost what it knew of its progress, or a part of it.
    pub(super) fn forget(&mut self, host: usize, is_old: bool) {
        for ((topic, of), count) in &mut self.progress {
            if *of == host {
                let old = self.old_progress.get(&(*topic, *of)).copied().unwrap_or(0);
                *count = if is_old { old.min(*count) } else { 0 };
            }
        }
    }

    pub(super) fn progress(&self, topic: usize, host: usize) -> u64 {
        self.progress.get(&(topic, host)).copied().unwrap_or(0)
    }

    /// A hub published the message with this number.
    pub(super) fn on_published(&mut self, publisher: u64, number: u64) {
        let Some(life) = self.lives.get_mut(&publisher) else { return };
        let (topic, host, expected) = (life.topic, life.host, life.published);
        life.published = number + 1;
        let progress = self.progress.entry((topic, host)).or_default();
        *progress += 1;
        if progress.is_multiple_of(16) {
            self.old_progress.insert((topic, host), *progress);
        }
        if number != expected {
            self.break_promise(format!(
                "topic {topic} host {host}: message {expected} got number {number}"
            ));
        }
    }

    /// A hub took a message.
    pub(super) fn on_taken(&mut self, by: u64, came: Came<'_>) {
        self.taken += 1;
        if let Err(why) = self.judge(by, came) {
            let Came { publisher, number, lost, .. } = came;
            let whose = |id: &u64| match self.lives.get(id) {
                Some(Life { topic, host, .. }) => format!("{id:x} of host {host}, topic {topic}"),
                None => format!("{id:x}, whom nobody knows"),
            };
            let line = format!(
                "{} took message {number} of {} with {lost} lost: {why}",
                whose(&by),
                whose(&publisher)
            );
            self.break_promise(line);
        }
    }

    /// Asks a life what it saw of ends since it was asked last.
    fn ask_for_ends(&mut self, id: u64) {
        let Some(life) = self.lives.get_mut(&id) else { return };
        let (topic, host) = (life.topic, life.host);
        let ends = life.road.take_ends();
        for end in &ends {
            life.ends.entry(end.peer).or_default().push(*end);
        }
        let is_sealed = self.promises.get(topic).is_some_and(|promise| promise.is_sealed);
        for end in ends.iter().filter(|_| is_sealed) {
            // Who has no key can say neither goodbye in another's name nor nonsense.
            let lives_on = self.lives.get(&end.peer).is_some_and(|life| !life.is_over);
            let is_forged = match end.reason {
                Some(EndReason::Closed) => lives_on,
                Some(EndReason::Violation) => true,
                _ => false,
            };
            if is_forged {
                let line = format!(
                    "topic {topic}, which is sealed: host {host} believed {:?} of {:x}",
                    end.reason, end.peer
                );
                self.break_promise(line);
            }
        }
    }

    /// Whether both sides saw a link end between the message before a gap and the one behind it.
    fn check_gap(&self, by: u64, publisher: u64, (first, next): (u64, u64)) -> Result<(), String> {
        let ends = |of: u64, with: u64| {
            let life = self.lives.get(&of);
            life.and_then(|life| life.ends.get(&with)).map_or(&[][..], Vec::as_slice)
        };
        // What was missed begins with what was expected when the subscriber's side ended.
        let heard = ends(by, publisher);
        let is_seen = heard.iter().any(|end| end.expected == Some(first));
        // The publisher gave the subscriber up after it had published what came last, and before it
        // published, or gave anew, what came behind the gap.
        let topic = self.lives.get(&publisher).map_or(0, |life| life.topic);
        let kept = self.promises.get(topic).map_or(0, |it| it.history.max(it.depth));
        let range = first..=next.saturating_add(kept);
        let said = ends(publisher, by);
        let is_given_up =
            said.iter().any(|end| end.published.is_some_and(|at| range.contains(&at)));
        if is_seen && is_given_up {
            return Ok(());
        }
        let seen: Vec<_> = heard.iter().map(|end| end.expected).collect();
        let gave_up: Vec<_> = said.iter().map(|end| end.published).collect();
        Err(format!(
            "it is reliable, and the subscriber saw ends at {seen:?}, none at {first}, or the \
             publisher at {gave_up:?}, none in {range:?}"
        ))
    }

    fn judge(&mut self, by: u64, came: Came<'_>) -> Result<(), String> {
        let Came { publisher, number, lost, body } = came;
        self.ask_for_ends(publisher);
        self.ask_for_ends(by);
        let from = self.lives.get(&publisher).ok_or("nobody published it")?;
        let (topic, published) = (from.topic, from.published);
        let promise = *self.promises.get(topic).ok_or("there is no such topic")?;
        if number >= published {
            return Err(format!("{published} were published"));
        }
        check_body(body, publisher, number, promise.bytes_max)?;
        let ear = self.lives.get_mut(&by).ok_or("it is nobody")?;
        if ear.topic != topic {
            return Err(format!("it is of topic {topic}"));
        }
        let missed_before = ear.before.get(&publisher).copied().unwrap_or(0);
        let mut verdict = Ok(());
        let is_first = !ear.heard.contains_key(&publisher);
        let heard = ear.heard.entry(publisher).or_insert_with(|| Heard {
            next: number.saturating_sub(lost),
            taken: 0,
            lost: 0,
        });
        if is_first && lost > number {
            verdict = Err("so many were never before it".to_owned());
        }
        // What is on its way to a group comes to who joins it meanwhile.
        let is_early = is_first && heard.next + promise.history < missed_before;
        if is_early && !promise.is_group {
            verdict = Err(format!(
                "it begins at {}, {missed_before} had been published and {} are history",
                heard.next, promise.history
            ));
        }
        if number < heard.next {
            verdict = Err(format!("{} was to come next", heard.next));
        } else if number - heard.next != lost {
            verdict = Err(format!("{} were missed since {}", number - heard.next, heard.next));
        }
        heard.next = heard.next.max(number + 1);
        heard.taken += 1;
        heard.lost += lost;
        twinspan_core::sometimes!(is_first && number < missed_before, "a late one got history");
        let is_gap = lost > 0 && !promise.is_reliable;
        twinspan_core::sometimes!(is_gap, "a gap was counted exactly");
        twinspan_core::sometimes!(
            is_gap && promise.is_group,
            "a gap of a group was counted exactly"
        );
        if promise.is_reliable && lost > 0 && verdict.is_ok() {
            twinspan_core::reachable!("a reliable topic had an end that both sides named");
            verdict = self.check_gap(by, publisher, (number - lost, number));
        }
        verdict
    }

    /// Whether all have said what they wanted to, and everybody has heard what was said up to the first
    /// time this was asked, and one message more. `pairs`: topic, publishing host, receiving host.
    pub(super) fn is_settled(&self, pairs: &[(usize, usize, usize)], messages: u64) -> bool {
        pairs.iter().all(|pair| self.pair_is_settled(*pair, messages))
    }

    fn pair_is_settled(&self, (topic, from, to): (usize, usize, usize), messages: u64) -> bool {
        let find = |host| {
            let id = self.present.get(&(topic, host))?;
            Some((*id, self.lives.get(id)?))
        };
        let (Some((id, speaker)), Some((_, ear))) = (find(from), find(to)) else { return false };
        let mut targets = self.targets.borrow_mut();
        let target = *targets.entry(id).or_insert(speaker.published + 1);
        self.progress(topic, from) >= messages
            && speaker.published >= target
            && ear.heard.get(&id).is_some_and(|heard| heard.next >= target)
    }

    /// What keeps a run from being settled, in words.
    pub(super) fn unsettled(&self, pairs: &[(usize, usize, usize)], messages: u64) -> String {
        let open = pairs.iter().filter(|pair| !self.pair_is_settled(**pair, messages));
        let mut text = String::new();
        for (topic, from, to) in open.take(4) {
            let life = |host| self.present.get(&(*topic, host)).and_then(|id| self.lives.get(id));
            let id = self.present.get(&(*topic, *from));
            let next = id.and_then(|id| life(*to)?.heard.get(id)).map(|heard| heard.next);
            let published = life(*from).map(|life| life.published);
            text += &format!(
                "topic {topic}: of {published:?} messages of host {from}, {} in all, host {to} \
                 heard up to {next:?}; ",
                self.progress(*topic, *from)
            );
        }
        text
    }

    /// What a host's hubs are like, in words.
    pub(super) fn state(&self, host: usize) -> String {
        let here = self.present.iter().filter(|((_, of), _)| *of == host);
        let lives = here.filter_map(|((topic, _), id)| Some((topic, self.lives.get(id)?)));
        let text = lives.map(|(topic, life)| {
            let taken: u64 = life.heard.values().map(|heard| heard.taken).sum();
            let lost: u64 = life.heard.values().map(|heard| heard.lost).sum();
            let (published, ended) = (life.published, life.road.facts().ended);
            format!(
                "topic {topic}: {published} published, {taken} taken, {lost} lost, {ended} ends; "
            )
        });
        text.collect()
    }
}

/// Whether a message is as it was published.
fn check_body(body: &[u8], publisher: u64, number: u64, bytes_max: u64) -> Result<(), String> {
    let wall = body.get(16..).and_then(|rest| rest.first_chunk::<8>());
    let Some(wall) = wall else { return Err(format!("it has {} bytes", body.len())) };
    let mut expected = Vec::with_capacity(body.len());
    write_message(&mut expected, (publisher, number), u64::from_le_bytes(*wall), bytes_max);
    if expected == body { Ok(()) } else { Err("it is not as it was published".to_owned()) }
}
