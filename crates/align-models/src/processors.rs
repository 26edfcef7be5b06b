//! What happens to next-token scores before a token is drawn: the logits processors of transformers, one by one.
//!
//! A removed token has the score −∞. The order that transformers applies them in, and that
//! [`SamplingConfig`](crate::SamplingConfig) builds, is: [`RepetitionPenalty`], [`MinNewTokens`], [`Temperature`], [`TopK`],
//! [`TopP`], [`MinP`].
//!
//! # Source
//! `generation/logits_process.py` of transformers 5; the parity test names the versions.

use std::fmt::Debug;

use crate::softmax::Softmax;

/// What a row has seen so far.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The tokens given.
    pub prompt: &'a [u32],
    /// The tokens drawn so far.
    pub response: &'a [u32],
}

/// Changes the scores of one row.
pub trait Processor: Debug + Send + Sync {
    /// Rewrites the scores in place; −∞ removes a token.
    ///
    /// # Shapes
    /// `scores`: `[V]`, unnormalised log-probabilities.
    fn process(&self, history: History<'_>, scores: &mut [f32]);
}

/// Makes tokens that already occur in the prompt or the response less likely: `s/θ` if `s > 0`, else `s·θ`.
///
/// # Source
/// Keskar et al. 2019, "CTRL", §4.1, <https://arxiv.org/abs/1909.05858>, with the sign rule that transformers added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RepetitionPenalty(pub f64);

impl Processor for RepetitionPenalty {
    fn process(&self, history: History<'_>, scores: &mut [f32]) {
        let penalty = self.0 as f32;
        let mut seen: Vec<u32> = history.prompt.iter().chain(history.response).copied().collect();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
            }
        }
    }
}

/// Removes the stop tokens while the response is shorter than `count`.
#[derive(Clone, Debug, PartialEq)]
pub struct MinNewTokens {
    /// How many tokens a response has at least.
    pub count: usize,
    /// The tokens that would end it.
    pub stop_token_ids: Vec<u32>,
}

impl Processor for MinNewTokens {
    fn process(&self, history: History<'_>, scores: &mut [f32]) {
        if history.response.len() < self.count {
            for &id in &self.stop_token_ids {
                scores[id as usize] = f32::NEG_INFINITY;
            }
        }
    }
}

/// Divides the scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature(pub f64);

impl Processor for Temperature {
    fn process(&self, _: History<'_>, scores: &mut [f32]) {
        let temperature = self.0 as f32;
        scores.iter_mut().for_each(|score| *score /= temperature);
    }
}

/// Keeps the k best tokens, and whatever ties with the k-th.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopK(pub usize);

impl Processor for TopK {
    fn process(&self, _: History<'_>, scores: &mut [f32]) {
        if self.0 >= scores.len() {
            return;
        }
        let mut sorted = scores.to_vec();
        let (_, &mut threshold, _) = sorted.select_nth_unstable_by(self.0.max(1) - 1, |a, b| b.total_cmp(a));
        scores.iter_mut().filter(|score| **score < threshold).for_each(remove);
    }
}

/// Keeps the smallest set of best tokens whose mass reaches p: a token stays while the mass *before* it is below p.
///
/// Of equal tokens the one with the lower id comes first; transformers leaves that to an unstable sort.
///
/// # Source
/// Holtzman et al. 2020, §3.1, <https://arxiv.org/abs/1904.09751>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopP(pub f64);

impl Processor for TopP {
    fn process(&self, _: History<'_>, scores: &mut [f32]) {
        let softmax = Softmax::of(scores);
        let before = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
        let mut order: Vec<u32> =
            (0..scores.len() as u32).filter(|&id| scores[id as usize] > f32::NEG_INFINITY).collect();
        // The nucleus is small as a rule, so only a growing head of the list is sorted.
        let mut head = order.len().min(64);
        let kept = loop {
            if head < order.len() {
                order.select_nth_unstable_by(head - 1, before);
            }
            order[..head].sort_unstable_by(before);
            let mut mass = 0.0;
            let inside = order[..head]
                .iter()
                .take_while(|&&id| {
                    let inside = mass < self.0;
                    mass += softmax.probability(scores[id as usize]);
                    inside
                })
                .count();
            if inside < head || head == order.len() {
                break inside.max(1).min(order.len());
            }
            head = (8 * head).min(order.len());
        };
        for &id in &order[kept..] {
            scores[id as usize] = f32::NEG_INFINITY;
        }
    }
}

/// Keeps the tokens that are at least `min_p` times as likely as the likeliest.
///
/// # Source
/// Nguyen et al. 2024, <https://arxiv.org/abs/2407.01082>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MinP(pub f64);

impl Processor for MinP {
    fn process(&self, _: History<'_>, scores: &mut [f32]) {
        let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let threshold = f64::from(best) + self.0.ln();
        scores.iter_mut().filter(|score| f64::from(**score) < threshold).for_each(remove);
    }
}

fn remove(score: &mut f32) {
    *score = f32::NEG_INFINITY;
}
