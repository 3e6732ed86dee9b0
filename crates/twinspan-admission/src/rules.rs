//! The rules of a filter and the file that they stand in.

use core::net::IpAddr;
use core::time::Duration;

use crate::settings::{Document, SettingsError, Table};
use crate::sources::{Counted, Network};

/// Most rules about sources: one for each network of each count.
pub const SOURCE_RULES_MAX: usize = 8;
/// Most rules about messages.
pub const MESSAGE_RULES_MAX: usize = 16;
/// Most steps of one score.
pub const STEPS_MAX: usize = 5;
/// Most users that a file can ban.
pub const BANNED_USERS_MAX: usize = 4_096;
/// Most networks that a file can trust.
pub const TRUSTED_MAX: usize = 64;
/// Longest name of a rule.
pub const NAME_BYTES_MAX: usize = 40;

/// What a rule does, from mild to hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Counts, and nothing else.
    Observe,
    /// Drops what is over. As a step of a score: while the score is above, each message counts as
    /// [`THROTTLE_FACTOR`](crate::THROTTLE_FACTOR).
    Throttle,
    /// Takes what comes, but without effect on others; the peer is not told.
    Shadow,
    /// Ends the session.
    Disconnect,
    /// Ends the session and lets the user in no more for a time.
    Ban,
}

impl Action {
    /// All of them, by the names that files use.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("observe", Self::Observe),
        ("throttle", Self::Throttle),
        ("shadow", Self::Shadow),
        ("disconnect", Self::Disconnect),
        ("ban", Self::Ban),
    ];

    /// Its name in files and figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Throttle => "throttle",
            Self::Shadow => "shadow",
            Self::Disconnect => "disconnect",
            Self::Ban => "ban",
        }
    }
}

/// What is held against a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// A message that cannot be decoded, is too long, or is on a channel that clients do not use.
    Malformed,
    /// A message over its rate.
    Flooding,
    /// Claims of position, scored by the world.
    Movement,
    /// An action that the world's rules refuse.
    Action,
}

impl Signal {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;

    /// All of them, by the names that files use.
    pub const NAMES: [(&'static str, Self); Self::COUNT] = [
        ("malformed", Self::Malformed),
        ("flooding", Self::Flooding),
        ("movement", Self::Movement),
        ("action", Self::Action),
    ];
}

/// How many handshakes or failures a network may have.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRule {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub counts: Counted,
    /// For which networks.
    pub network: Network,
    /// So many a second, 0.001 to 1,000,000.
    pub per_second: f64,
    /// So many at once, 1 to 1,000,000.
    pub burst: u64,
    /// [`Action::Observe`] or [`Action::Throttle`]: an address is shared by many, so it is never
    /// banned.
    pub action: Action,
    /// Whether it only counts.
    pub dry_run: bool,
}

/// How many messages of a kind a connection may send.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageRule {
    /// Its name.
    pub name: String,
    /// The stream that messages come on, 1 to 63.
    pub stream: u8,
    /// The kind of message, as the application numbers them; `None` for all together.
    pub kind: Option<u8>,
    /// Longer messages are malformed; `None` for no further limit.
    pub bytes_max: Option<u32>,
    /// So many a second, 0.001 to 1,000,000.
    pub per_second: f64,
    /// So many at once, 1 to 1,000,000.
    pub burst: u64,
    /// What each message over the rate adds to the flooding score, 0 to 1,000.
    pub points: u32,
    /// What becomes of a message over the rate.
    pub action: Action,
    /// How long a ban lasts.
    pub ban: Duration,
    /// Whether it only counts.
    pub dry_run: bool,
}

/// What becomes of a score above a number of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// More points than these, 0 to 1,000,000.
    pub above: u32,
    /// What to do.
    pub action: Action,
    /// How long a ban lasts.
    pub ban: Duration,
}

/// How a signal is scored.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRule {
    /// Its name.
    pub name: String,
    /// What it scores.
    pub signal: Signal,
    /// Points that decay in a second, 0.001 to 1,000,000. Without meaning for
    /// [`Signal::Movement`], which the world scores.
    pub decay_per_second: f64,
    /// From mild to hard, each above the one before.
    pub steps: Vec<Step>,
    /// Whether it only counts.
    pub dry_run: bool,
}

/// Networks by prefix, as `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Whether the address lies within; an IPv4 address in IPv6 form is an IPv4 address.
    pub const fn contains(self, address: IpAddr) -> bool {
        let bits = self.bits as u32;
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= bits
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= bits
            }
            _ => false,
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let wrong = "write an address and its length, as in 192.0.2.0/24 or 2001:db8::/32";
        let (address, bits) = text.split_once('/').ok_or(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.parse().map_err(|_| wrong)?;
        if bits > most { Err(wrong) } else { Ok(Self { address, bits }) }
    }
}

/// All rules of a filter. [`Rules::default`] is `rules/default.toml` of this crate.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Every rule is judged and counted, and none acts.
    pub dry_run: bool,
    /// Networks that source rules leave alone.
    pub trusted: Vec<Prefix>,
    /// Users that are let in no more, in order.
    pub banned_users: Vec<u64>,
    /// Rules about sources.
    pub sources: Vec<SourceRule>,
    /// Rules about messages.
    pub messages: Vec<MessageRule>,
    /// Rules about scores.
    pub scores: Vec<ScoreRule>,
}

/// The text of [`Rules::default`]: where a file of one's own begins.
pub const DEFAULT_RULES: &str = include_str!("../rules/default.toml");

impl Default for Rules {
    fn default() -> Self {
        // The text is part of the program, and a test reads it; without it nothing would be limited.
        #[expect(clippy::expect_used, reason = "the text is fixed, and a test reads it")]
        Self::parse(DEFAULT_RULES).expect("the default rules are legal")
    }
}

const RATES: core::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;
const BURSTS: core::ops::RangeInclusive<u64> = 1..=1_000_000;
const BAN_SECONDS: core::ops::RangeInclusive<u64> = 1..=31_536_000;
const BAN_SECONDS_DEFAULT: u64 = 3_600;

impl Rules {
    /// Rules that let everything pass.
    pub const fn none() -> Self {
        Self {
            dry_run: false,
            trusted: Vec::new(),
            banned_users: Vec::new(),
            sources: Vec::new(),
            messages: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// Reads rules.
    ///
    /// # Errors
    /// [`SettingsError`] names the line, what is wrong there and the nearest right word.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let document = Document::parse(text)?;
        let root = document.root();
        let known = ["dry_run", "trusted", "banned_users", "source", "message", "score"];
        root.allow(&known)?;
        let mut names = Vec::new();
        let mut rules = Self {
            dry_run: root.flag("dry_run")?.unwrap_or(false),
            trusted: trusted(&root)?,
            banned_users: root.wholes("banned_users", BANNED_USERS_MAX)?,
            ..Self::none()
        };
        rules.banned_users.sort_unstable();
        rules.banned_users.dedup();
        for table in root.tables("source", SOURCE_RULES_MAX)? {
            let rule = source(&table, &mut names)?;
            let same =
                |other: &SourceRule| (other.counts, other.network) == (rule.counts, rule.network);
            if let Some(other) = rules.sources.iter().find(|other| same(other)) {
                let what = format!("rule `{}` counts the same; keep one", other.name);
                return Err(table.error_at("network", what));
            }
            rules.sources.push(rule);
        }
        for table in root.tables("message", MESSAGE_RULES_MAX)? {
            rules.messages.push(message(&table, &mut names)?);
        }
        for table in root.tables("score", Signal::COUNT)? {
            let rule = score(&table, &mut names)?;
            if let Some(other) = rules.scores.iter().find(|other| other.signal == rule.signal) {
                let what = format!("rule `{}` scores the same signal; keep one", other.name);
                return Err(table.error_at("signal", what));
            }
            rules.scores.push(rule);
        }
        Ok(rules)
    }
}

fn trusted(root: &Table<'_, '_>) -> Result<Vec<Prefix>, SettingsError> {
    let read = |text: &str| {
        Prefix::parse(text).map_err(|wrong| {
            root.error_at("trusted", format!("\"{}\": {wrong}", text.escape_debug()))
        })
    };
    root.texts("trusted", TRUSTED_MAX)?.into_iter().map(read).collect()
}

/// The name of a rule, which no other rule has.
fn name(table: &Table<'_, '_>, names: &mut Vec<String>) -> Result<String, SettingsError> {
    let name = table.require("name", table.text("name")?)?.to_owned();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        let what = format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`");
        return Err(table.error_at("name", what));
    }
    if names.contains(&name) {
        let what = format!("another rule is called `{name}`; choose a name of its own");
        return Err(table.error_at("name", what));
    }
    names.push(name.clone());
    Ok(name)
}

fn rate(table: &Table<'_, '_>) -> Result<(f64, u64), SettingsError> {
    let per_second = table.require("per_second", table.number("per_second", RATES)?)?;
    let burst = table.require("burst", table.whole("burst", BURSTS)?)?;
    Ok((per_second, burst))
}

fn action(table: &Table<'_, '_>) -> Result<Action, SettingsError> {
    table.require("action", table.choice("action", &Action::NAMES)?)
}

fn ban(table: &Table<'_, '_>, action: Action) -> Result<Duration, SettingsError> {
    let seconds = table.whole("ban_s", BAN_SECONDS)?;
    if seconds.is_some() && action != Action::Ban {
        let what = format!("`ban_s` goes with action \"ban\", not \"{}\"", action.name());
        return Err(table.error_at("ban_s", what));
    }
    Ok(Duration::from_secs(seconds.unwrap_or(BAN_SECONDS_DEFAULT)))
}

fn source(table: &Table<'_, '_>, names: &mut Vec<String>) -> Result<SourceRule, SettingsError> {
    let known = ["name", "counts", "network", "per_second", "burst", "action", "dry_run"];
    table.allow(&known)?;
    let counted = [("handshakes", Counted::Handshakes), ("failures", Counted::Failures)];
    let (per_second, burst) = rate(table)?;
    let action = action(table)?;
    if action > Action::Throttle {
        let what = format!(
            "a source is observed or throttled, not \"{}\": many share an address",
            action.name()
        );
        return Err(table.error_at("action", what));
    }
    Ok(SourceRule {
        name: name(table, names)?,
        counts: table.require("counts", table.choice("counts", &counted)?)?,
        network: table.require("network", table.choice("network", &Network::NAMES)?)?,
        per_second,
        burst,
        action,
        dry_run: table.flag("dry_run")?.unwrap_or(false),
    })
}

/// Streams by name, and all of them by number.
const STREAMS: [(&str, u8); 4] = [("input", 1), ("state", 2), ("events", 3), ("bulk", 4)];

fn stream(table: &Table<'_, '_>) -> Result<u8, SettingsError> {
    // Words first: whatever is no text is read as a number, whose error says both.
    if let Ok(Some(_)) = table.text("stream") {
        return table.require("stream", table.choice("stream", &STREAMS)?);
    }
    let number = table.whole("stream", 1..=63).map_err(|error| SettingsError {
        what: format!("{}, or \"input\", \"state\", \"events\" or \"bulk\"", error.what),
        ..error
    })?;
    // The range fits.
    Ok(table.require("stream", number)? as u8)
}

fn message(table: &Table<'_, '_>, names: &mut Vec<String>) -> Result<MessageRule, SettingsError> {
    let known = [
        "name",
        "stream",
        "kind",
        "bytes_max",
        "per_second",
        "burst",
        "points",
        "action",
        "ban_s",
        "dry_run",
    ];
    table.allow(&known)?;
    let (per_second, burst) = rate(table)?;
    let action = action(table)?;
    // The ranges fit the types.
    Ok(MessageRule {
        name: name(table, names)?,
        stream: stream(table)?,
        kind: table.whole("kind", 0..=255)?.map(|kind| kind as u8),
        bytes_max: table.whole("bytes_max", 1..=65_536)?.map(|bytes| bytes as u32),
        per_second,
        burst,
        points: table.whole("points", 0..=1_000)?.unwrap_or(1) as u32,
        action,
        ban: ban(table, action)?,
        dry_run: table.flag("dry_run")?.unwrap_or(false),
    })
}

fn score(table: &Table<'_, '_>, names: &mut Vec<String>) -> Result<ScoreRule, SettingsError> {
    table.allow(&["name", "signal", "decay_per_second", "steps", "dry_run"])?;
    let signal = table.require("signal", table.choice("signal", &Signal::NAMES)?)?;
    let decay = table.number("decay_per_second", RATES)?;
    let decay_per_second = match (signal, decay) {
        (Signal::Movement, None) => 1.0,
        (Signal::Movement, Some(_)) => {
            let what = "the world scores movement by itself; leave `decay_per_second` out";
            return Err(table.error_at("decay_per_second", what));
        }
        (_, decay) => table.require("decay_per_second", decay)?,
    };
    let mut steps: Vec<Step> = Vec::new();
    for step in table.tables("steps", STEPS_MAX)? {
        step.allow(&["above", "action", "ban_s"])?;
        let action = action(&step)?;
        let above = step.require("above", step.whole("above", 0..=1_000_000)?)? as u32;
        let ban = ban(&step, action)?;
        if let Some(last) = steps.last()
            && (last.above >= above || last.action >= action)
        {
            let what = "each step is above more points than the one before, and does more";
            return Err(step.error(what));
        }
        steps.push(Step { above, action, ban });
    }
    Ok(ScoreRule {
        name: name(table, names)?,
        signal,
        decay_per_second,
        steps,
        dry_run: table.flag("dry_run")?.unwrap_or(false),
    })
}

#[cfg(test)]
mod tests;
