//! Which HELLOs without a cookie are worth an answer, when more come than a server will answer.

use twinspan_core::random::{SecretSource, mix};
use twinspan_core::time::Timestamp;

/// Of the answers of a second, the part that goes to whoever asks: clients with tokens that do not
/// open shall hear so, as long as nobody floods.
const UNASKED_PART: u32 = 8;
/// Tokens that are opened for each answer that there is. An opening costs less than an answer, and
/// what it sorts out, hellos with made-up tokens, would else crowd out newcomers.
const LOOKS_PER_ANSWER: u32 = 3;
/// Answers a second that one token gets: a client repeats its HELLO four times a second at most.
const ANSWERS_PER_TOKEN: u32 = 8;
/// Allowances of tokens. Each token has two places and uses either: it is left without only where
/// both are used up by others.
const ALLOWANCES: usize = 4_096;
/// How long two tokens meet in the same place.
const MEETING_NS: u64 = 2_000_000_000;
/// Allowances are whole after so long: bursts of a sixteenth of a second's worth.
const BURST_NS: u64 = 1_000_000_000 / 16;
/// Those of tokens: a second's worth.
const TOKEN_BURST_NS: u64 = 1_000_000_000;

/// So many a second, by one word that says when the allowance is whole again (the generic cell rate
/// algorithm).
#[derive(Clone, Copy, Debug)]
struct Rate {
    interval_ns: u64,
    burst_ns: u64,
}

impl Rate {
    const fn new(per_second: u32, burst_ns: u64) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second as u64 };
        let interval_ns = 1_000_000_000 / per_second;
        // At least one at a time.
        let burst_ns = if burst_ns > interval_ns { burst_ns } else { interval_ns };
        Self { interval_ns, burst_ns }
    }

    /// When the allowance would be whole again after one more; `None` when there is none left.
    const fn after_one(self, whole_at: u64, now_ns: u64) -> Option<u64> {
        let from = if whole_at > now_ns { whole_at } else { now_ns };
        let next = from + self.interval_ns;
        if next - now_ns <= self.burst_ns { Some(next) } else { None }
    }

    /// Takes one, when there is one.
    const fn take(self, whole_at: &mut u64, now_ns: u64) -> bool {
        match self.after_one(*whole_at, now_ns) {
            Some(next) => {
                *whole_at = next;
                true
            }
            None => false,
        }
    }
}

/// What a HELLO without a cookie gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    /// An answer.
    Answer,
    /// An answer if its token opens.
    AnswerToToken,
    /// Nothing: it is dropped.
    Nothing,
}

/// The answers that HELLOs without a cookie get, in fixed memory.
///
/// Nothing here is kept by address, which anybody can make up. The one thing that a flood cannot
/// have many of is tokens that open: each has a small allowance of its own, so a few stolen ones
/// displace nobody, and made-up ones cost what it takes to open them, for as many as are looked at.
pub(crate) struct HelloBudget {
    unasked: Rate,
    unasked_whole_at: u64,
    /// Tokens that may be opened.
    looks: Rate,
    looks_whole_at: u64,
    answers: Rate,
    answers_whole_at: u64,
    token: Rate,
    tokens: Box<[u64]>,
    /// Keeps who does not know it from choosing tokens that meet. Drawn when it is first needed: most
    /// servers never see a flood.
    key: Option<u64>,
}

impl HelloBudget {
    /// A budget of so many answers a second.
    pub(crate) fn new(answers_per_second: u32) -> Self {
        let unasked = (answers_per_second / UNASKED_PART).max(1);
        let answers = answers_per_second.saturating_sub(unasked).max(1);
        let looks = answers.saturating_mul(LOOKS_PER_ANSWER);
        Self {
            unasked: Rate::new(unasked, BURST_NS),
            unasked_whole_at: 0,
            looks: Rate::new(looks, BURST_NS),
            looks_whole_at: 0,
            answers: Rate::new(answers, BURST_NS),
            answers_whole_at: 0,
            token: Rate::new(ANSWERS_PER_TOKEN, TOKEN_BURST_NS),
            tokens: vec![0; ALLOWANCES].into_boxed_slice(),
            key: None,
        }
    }

    /// What a HELLO with the token of this id gets, whether or not the token is a good one.
    pub(crate) fn worth(
        &mut self,
        now: Timestamp,
        token_id: &[u8; 16],
        secrets: &mut dyn SecretSource,
    ) -> Worth {
        let now_ns = now.as_nanos();
        if self.unasked.take(&mut self.unasked_whole_at, now_ns) {
            return Worth::Answer;
        }
        self.key.get_or_insert_with(|| {
            let mut key = [0; 8];
            secrets.fill(&mut key);
            u64::from_le_bytes(key)
        });
        let left = self.allowance(now_ns, token_id).is_some()
            && self.answers.after_one(self.answers_whole_at, now_ns).is_some();
        if left && self.looks.take(&mut self.looks_whole_at, now_ns) {
            return Worth::AnswerToToken;
        }
        Worth::Nothing
    }

    /// A token opened: takes its answer. Only what was really issued is counted by its id.
    pub(crate) fn take(&mut self, now: Timestamp, token_id: &[u8; 16]) {
        let now_ns = now.as_nanos();
        if let Some(place) = self.allowance(now_ns, token_id)
            && let Some(own) = self.tokens.get_mut(place)
        {
            self.token.take(own, now_ns);
        }
        self.answers.take(&mut self.answers_whole_at, now_ns);
    }

    /// Where a token has an answer left, if it has.
    fn allowance(&self, now_ns: u64, token_id: &[u8; 16]) -> Option<usize> {
        self.places(now_ns, token_id).into_iter().find(|place| {
            let whole_at = self.tokens.get(*place).copied().unwrap_or_default();
            self.token.after_one(whole_at, now_ns).is_some()
        })
    }

    /// Where a token's allowances are: other places every now and then, lest one that meets stolen
    /// tokens is shut out for good.
    fn places(&self, now_ns: u64, token_id: &[u8; 16]) -> [usize; 2] {
        let id = u128::from_le_bytes(*token_id);
        let key = mix(self.key.unwrap_or_default() ^ (now_ns / MEETING_NS));
        let hash = mix(mix(key ^ id as u64) ^ (id >> 64) as u64);
        [hash, hash >> 32].map(|half| (half % ALLOWANCES as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use twinspan_core::random::Stream;

    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_micros(micros))
    }

    /// Hellos of one second, evenly spread, and what they got: answers unasked, answers to tokens
    /// that opened, tokens that did not open.
    fn second(
        budget: &mut HelloBudget,
        hellos: u64,
        mut token: impl FnMut(u64) -> ([u8; 16], bool),
    ) -> (u32, u32, u32) {
        let mut secrets = Stream::new(1, "secrets", 0);
        let (mut unasked, mut answered, mut in_vain) = (0, 0, 0);
        for hello in 0..hellos {
            let now = at(1_000_000 + hello * 1_000_000 / hellos);
            let (id, opens) = token(hello);
            match budget.worth(now, &id, &mut secrets) {
                Worth::Answer => unasked += 1,
                Worth::AnswerToToken if opens => {
                    budget.take(now, &id);
                    answered += 1;
                }
                Worth::AnswerToToken => in_vain += 1,
                Worth::Nothing => {}
            }
        }
        (unasked, answered, in_vain)
    }

    fn id(number: u64) -> [u8; 16] {
        u128::from(mix(number)).to_le_bytes()
    }

    #[test]
    fn a_few_newcomers_are_answered_unasked() {
        assert_eq!(second(&mut HelloBudget::new(32_000), 4_000, |n| (id(n), false)), (4_000, 0, 0));
    }

    #[test]
    fn ten_thousand_newcomers_in_a_second_are_all_answered() {
        let (unasked, answered, _) =
            second(&mut HelloBudget::new(32_000), 10_000, |n| (id(n), true));
        assert_eq!(unasked + answered, 10_000);
    }

    #[test]
    fn a_flood_with_few_tokens_leaves_the_answers_to_others() {
        let (unasked, answered, _) =
            second(&mut HelloBudget::new(32_000), 200_000, |n| (id(n % 64), true));
        assert!(unasked <= 4_250, "{unasked}");
        assert!(answered <= 64 * 32, "{answered}");
    }

    #[test]
    fn a_flood_with_made_up_tokens_is_looked_at_so_often_and_no_more() {
        let (unasked, answered, in_vain) =
            second(&mut HelloBudget::new(32_000), 200_000, |n| (id(n), false));
        assert!(unasked <= 4_250 && answered == 0);
        assert!((80_000..=90_000).contains(&in_vain), "{in_vain}");
    }

    #[test]
    fn a_flood_with_many_tokens_gets_the_answers_there_are() {
        let (unasked, answered, _) =
            second(&mut HelloBudget::new(32_000), 200_000, |n| (id(n), true));
        assert!((30_000..=34_000).contains(&(unasked + answered)), "{unasked} {answered}");
    }

    #[test]
    fn the_smallest_budget_answers_still() {
        let (unasked, answered, _) = second(&mut HelloBudget::new(16), 1_000, |n| (id(n), true));
        assert!((14..=20).contains(&(unasked + answered)), "{unasked} {answered}");
    }

    #[test]
    fn tokens_do_not_meet_for_ever() {
        let budget = HelloBudget::new(16);
        let place = |second: u64| budget.places(second * 1_000_000_000, &id(7));
        assert_eq!(place(2), place(3));
        assert_ne!(place(3), place(4));
    }
}
