//! The server's say over how a player moves: which inputs count, and whether its claims are honest.
//!
//! **What moves a player.** Only inputs, applied in sequence by [`movement::step`]; a claimed
//! position is compared and never adopted. Each tick earns a player the right to one input (and
//! 1/64 more, which covers clocks that differ), up to [`INPUT_CREDIT_MAX`]; a player whose inputs
//! arrive in bursts catches up by [`CATCH_UP_PER_TICK_MAX`] a tick, and nobody walks further in a
//! minute than a minute's inputs carry. Without inputs a player stands where it is; its velocity
//! is kept for a quarter of a second, so that those who watch it may carry its motion on.
//!
//! **What is missing.** Inputs wait for the ones before them, six ticks at most, because every
//! bundle repeats several; then the gap is skipped and the player was never there as far as the
//! server is concerned. The client learns so from the next state.
//!
//! **What is a lie.** An honest client's claim differs from the server's position only by what the
//! server did and the client has not heard of: inputs skipped, the timed effect begun or ended.
//! Each such cause adds the metres that it can explain to an allowance, which stands for three to
//! six seconds; clients that hear nothing for a second make no claims. A claim beyond tolerance
//! and allowance scores 1 point, by more than 4 m 4 points; an input beyond what the window holds
//! scores 1 when its sequence runs ahead of time: what a network held back for seconds and brought
//! all at once is refused, not held against anybody. A point decays in 10 ticks. At 120 points the player is lying: a second of claims that
//! nothing explains is forgiven (a correction is surely under way by then), three are not.

use crate::TICK_HZ;
use crate::entity::{Flags, Velocity};
use crate::input::{ClaimedPosition, Input};
use crate::movement::{self, Body};

/// Inputs of one player that can wait to be applied.
pub const INPUT_WINDOW: u32 = 32;
/// Inputs that a player who sent none for a while may catch up with.
pub const INPUT_CREDIT_MAX: u32 = 30;
/// The most inputs of one player that are applied in one tick.
pub const CATCH_UP_PER_TICK_MAX: u32 = 4;

/// What one input costs, in the unit of credit.
const CREDIT_PER_INPUT: u32 = 64;
/// What one tick earns: 1.6 % more than an input.
const CREDIT_PER_TICK: u32 = 65;
/// Sequences that a player may be ahead of time when it is new: its first input may have been held
/// back for two seconds.
const SEQUENCES_AT_FIRST: u32 = 2 * TICK_HZ;
/// Sequences that silence earns at most: 20 seconds of it, in which a silent session ends.
const SEQUENCES_EARNED_MAX: u32 = 20 * TICK_HZ;
/// Sequences ahead of time that are held against a player: it is in time again at the latest two
/// seconds after it has stopped.
const SEQUENCES_OWED_MAX: u32 = 2 * TICK_HZ;
/// Ticks that inputs wait for a missing one before them.
const GAP_TICKS_MAX: u32 = 6;
/// Ticks without input after which a player's velocity becomes zero.
const COAST_TICKS: u32 = TICK_HZ / 4;
/// Ticks after the first input, or after the server moved the player, in which no claim scores.
const GRACE_TICKS: u32 = 2 * TICK_HZ;
/// Ticks of one half of the allowance's memory.
const ALLOWANCE_TICKS: u32 = 3 * TICK_HZ;
/// What one skipped input explains: a step at full speed under haste, rounded up.
const SKIP_ALLOWANCE_MM: u32 = 126;
/// Skipped inputs that are explained without silence before them: a burst of losses.
const SKIPS_WITHOUT_SILENCE_MAX: u32 = 30;
/// What the effect's begin or end explains: the speed it adds, for the second that a client may
/// not know of it.
const EFFECT_ALLOWANCE_MM: u32 = 2_500;
/// The allowance cannot grow beyond this: ten minutes of skipped inputs.
const ALLOWANCE_MM_MAX: u32 = 10 * 60 * TICK_HZ * SKIP_ALLOWANCE_MM;
/// A claim that is off by more than this beyond what is explained is gross.
const GROSS_MM: u32 = 4_000;

/// Scores are kept in tenths of a point; one decays each tick.
const POINT: u32 = 10;
/// What a gross claim scores.
const GROSS_POINTS: u32 = 4;
/// From this score on a player is lying.
const SCORE_LIMIT: u32 = 120 * POINT;
/// No score grows beyond this, so that it can decay.
const SCORE_MAX: u32 = 2 * SCORE_LIMIT;

/// What the last tick showed about a player.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Its claims were where the server put it.
    #[default]
    Honest,
    /// A claim was not where the server put it: normal under loss, the client will be corrected.
    Corrected,
    /// More claims than any honest client makes were false, or more inputs came than time allows.
    Lying,
}

/// Why an input was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The id names no player that is alive.
    #[error("no player has this id")]
    NoPlayer,
    /// The input was taken before or was skipped: the usual fate of repeated inputs.
    #[error("input is known already or too late")]
    Old,
    /// The window is full of inputs that time does not allow yet.
    #[error("more inputs than one per tick: {INPUT_WINDOW} already wait")]
    Flooded,
}

/// How a player's inputs have fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The sequence of the last input applied or skipped; 0 before the first.
    pub last_input: u32,
    /// Inputs applied.
    pub applied: u64,
    /// Inputs that never came, or too late, and were skipped.
    pub skipped: u64,
    /// Inputs refused because too many waited; one that is repeated counts again.
    pub flooded: u64,
    /// Applied inputs whose claim was beyond the tolerance.
    pub corrected: u64,
    /// Points against the player, in tenths; 1,200 make it a liar.
    pub score: u32,
}

/// One player's inputs and what is held against it.
#[derive(Clone, Debug)]
pub(crate) struct Controls {
    /// Inputs that wait, each at its sequence modulo the window.
    window: [Input; INPUT_WINDOW as usize],
    /// Bit `n`: the input `next + n` is in the window.
    present: u32,
    /// The sequence to be applied next; 0 before the first input.
    next: u32,
    credit: u32,
    /// Ticks that the window has waited for `next`.
    gap_ticks: u32,
    /// Ticks since an input was applied.
    silent_ticks: u32,
    grace_ticks: u32,
    /// What is explained, in millimetres: of this period and of the one before.
    allowance_mm: [u32; 2],
    /// Ticks into this period.
    allowance_ticks: u32,
    /// The largest sequence that came.
    newest: u32,
    /// What time allows `newest` to grow by, in the unit of credit.
    sequence_credit: i64,
    verdict: Verdict,
    standing: Standing,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            window: [Input::default(); INPUT_WINDOW as usize],
            present: 0,
            next: 0,
            credit: 0,
            gap_ticks: 0,
            silent_ticks: 0,
            grace_ticks: 0,
            allowance_mm: [0; 2],
            allowance_ticks: 0,
            newest: 0,
            sequence_credit: 0,
            verdict: Verdict::Honest,
            standing: Standing::default(),
        }
    }
}

/// What of the world a tick of movement needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) side: f64,
    pub(crate) claim_tolerance_mm: u32,
}

impl Controls {
    /// The player's client begins anew, and its inputs from 1; what is held against the player stays.
    pub(crate) fn restart(&mut self) {
        let standing = Standing { last_input: 0, ..self.standing };
        let Self { allowance_mm, allowance_ticks, .. } = *self;
        *self = Self { allowance_mm, allowance_ticks, standing, ..Self::default() };
    }

    /// Takes an input that has come; older ones of a bundle first.
    pub(crate) fn submit(&mut self, input: Input) -> Result<Verdict, SubmitError> {
        if input.sequence == 0 {
            return Err(SubmitError::Old);
        }
        if self.next == 0 {
            self.next = input.sequence;
            self.newest = input.sequence;
            self.sequence_credit = cost_of(SEQUENCES_AT_FIRST);
            self.grace_ticks = GRACE_TICKS;
        }
        let in_time = self.is_in_time(input.sequence);
        let mut offset = input.sequence.checked_sub(self.next).ok_or(SubmitError::Old)?;
        if offset >= INPUT_WINDOW && self.present & 1 == 0 {
            // What is missing cannot be waited for any longer.
            self.skip(if self.present == 0 { offset } else { self.present.trailing_zeros() });
            offset = input.sequence - self.next;
        }
        if offset >= INPUT_WINDOW {
            self.standing.flooded += 1;
            if !in_time {
                self.add_score(POINT);
            }
            return Err(SubmitError::Flooded);
        }
        if self.present >> offset & 1 != 0 {
            return Err(SubmitError::Old);
        }
        if let Some(place) = self.window.get_mut((input.sequence % INPUT_WINDOW) as usize) {
            *place = input;
            self.present |= 1 << offset;
        }
        Ok(self.verdict)
    }

    /// One tick: applies what waits, judges its claims, lets scores and allowances decay.
    pub(crate) fn tick(&mut self, body: &mut Body, flags: Flags, rules: Rules) {
        self.verdict = Verdict::Honest;
        self.decay();
        if self.next == 0 {
            return;
        }
        self.credit = (self.credit + CREDIT_PER_TICK).min(INPUT_CREDIT_MAX * CREDIT_PER_INPUT);
        let earned = self.sequence_credit + i64::from(CREDIT_PER_TICK);
        self.sequence_credit = earned.min(cost_of(SEQUENCES_EARNED_MAX));
        self.wait_for_gap();
        let mut applied = 0;
        while applied < CATCH_UP_PER_TICK_MAX
            && self.credit >= CREDIT_PER_INPUT
            && let Some(input) = self.take_next()
        {
            applied += 1;
            self.credit -= CREDIT_PER_INPUT;
            *body = movement::step(*body, &input, flags, rules.side);
            self.judge(body, input.claimed, rules.claim_tolerance_mm);
        }
        if applied > 0 {
            self.silent_ticks = 0;
        } else {
            self.silent_ticks = self.silent_ticks.saturating_add(1);
            if self.silent_ticks == COAST_TICKS {
                body.velocity = Velocity::ZERO;
            }
        }
        if self.standing.score >= SCORE_LIMIT {
            self.verdict = Verdict::Lying;
        }
    }

    /// The timed effect began or ended: the client will hear of it later.
    pub(crate) fn on_effect_changed(&mut self) {
        self.allow(EFFECT_ALLOWANCE_MM);
    }

    /// The server put the player elsewhere.
    pub(crate) const fn on_placed(&mut self) {
        self.grace_ticks = GRACE_TICKS;
    }

    pub(crate) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) const fn standing(&self) -> Standing {
        Standing { last_input: self.next.saturating_sub(1), ..self.standing }
    }

    /// Whether time allows this sequence, which it uses up; a sequence that came before is no news.
    fn is_in_time(&mut self, sequence: u32) -> bool {
        let ahead = sequence.saturating_sub(self.newest);
        self.newest += ahead;
        let left = self.sequence_credit - cost_of(ahead);
        self.sequence_credit = left.max(-cost_of(SEQUENCES_OWED_MAX));
        ahead == 0 || left >= 0
    }

    fn take_next(&mut self) -> Option<Input> {
        if self.present & 1 == 0 {
            return None;
        }
        let input = *self.window.get((self.next % INPUT_WINDOW) as usize)?;
        self.present >>= 1;
        // At the last sequence of all, after two years, a client has to join anew.
        self.next = self.next.saturating_add(1);
        self.standing.applied += 1;
        Some(input)
    }

    fn wait_for_gap(&mut self) {
        if self.present == 0 || self.present & 1 != 0 {
            self.gap_ticks = 0;
            return;
        }
        self.gap_ticks += 1;
        if self.gap_ticks > GAP_TICKS_MAX {
            self.skip(self.present.trailing_zeros());
        }
    }

    /// Gives up on `count` inputs.
    fn skip(&mut self, count: u32) {
        self.next = self.next.saturating_add(count);
        self.present = self.present.checked_shr(count).unwrap_or(0);
        self.gap_ticks = 0;
        self.standing.skipped += u64::from(count);
        // Sequences cannot honestly run ahead of time: without silence, skips explain little.
        let explained = count.min(self.silent_ticks.saturating_add(SKIPS_WITHOUT_SILENCE_MAX));
        self.allow(explained.saturating_mul(SKIP_ALLOWANCE_MM));
    }

    fn allow(&mut self, millimetres: u32) {
        let [now, _] = &mut self.allowance_mm;
        *now = now.saturating_add(millimetres).min(ALLOWANCE_MM_MAX);
    }

    fn judge(&mut self, body: &Body, claimed: ClaimedPosition, tolerance_mm: u32) {
        if claimed == ClaimedPosition::NONE {
            return;
        }
        let metres = libm::sqrt(body.position.ground_distance_squared(claimed.position()));
        // A claim at the far end of its range is 40,000 km off: it fits the cast, which saturates.
        let off_mm = (metres * 1_000.0) as u32;
        if off_mm <= tolerance_mm {
            return;
        }
        self.standing.corrected += 1;
        self.verdict = Verdict::Corrected;
        let [now, before] = self.allowance_mm;
        let unexplained_mm = off_mm.saturating_sub(tolerance_mm + now + before);
        if unexplained_mm > 0 && self.grace_ticks == 0 {
            let gross = unexplained_mm > GROSS_MM;
            self.add_score(if gross { GROSS_POINTS * POINT } else { POINT });
        }
    }

    fn add_score(&mut self, score: u32) {
        self.standing.score = (self.standing.score + score).min(SCORE_MAX);
    }

    fn decay(&mut self) {
        self.standing.score = self.standing.score.saturating_sub(1);
        self.grace_ticks = self.grace_ticks.saturating_sub(1);
        self.allowance_ticks += 1;
        if self.allowance_ticks >= ALLOWANCE_TICKS {
            self.allowance_ticks = 0;
            let [now, _] = self.allowance_mm;
            self.allowance_mm = [0, now];
        }
    }
}

/// What so many inputs cost.
fn cost_of(inputs: u32) -> i64 {
    i64::from(inputs) * i64::from(CREDIT_PER_INPUT)
}

#[cfg(test)]
mod tests;
