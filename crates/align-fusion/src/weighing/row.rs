//! One row of scores, and whether it can be fused.

use crate::row_error::{Member, RowError};

/// One row: next-token scores (logits or log-probabilities, −∞ where masked) of the large base, the small base and the experts.
///
/// # Shapes
/// `[V]` each, over one vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The large base.
    pub base: &'a [f32],
    /// The small base.
    pub anchor: &'a [f32],
    /// The experts, each tuned from the small base.
    pub experts: &'a [&'a [f32]],
}

impl<'a> Row<'a> {
    /// Every member with its scores.
    fn members(&self) -> impl Iterator<Item = (Member, &'a [f32])> {
        let experts = self.experts.iter().enumerate().map(|(t, &scores)| (Member::Expert(t), scores));
        [(Member::Base, self.base), (Member::Anchor, self.anchor)].into_iter().chain(experts)
    }

    pub(super) fn assert_lengths(&self, out: usize) {
        for (member, scores) in self.members() {
            assert_eq!(scores.len(), out, "weigh: scores of {member} beside an output of another length");
        }
    }

    /// The tokens that the base does not mask, or none if that is all of them and every score is finite.
    pub(super) fn unmasked(&self) -> Result<Option<Vec<usize>>, RowError> {
        // An empty row has nothing to choose from either.
        if !self.base.is_empty() && self.members().all(|(_, scores)| all_finite(scores)) {
            return Ok(None);
        }
        for (member, scores) in self.members() {
            let wrong = |score: &f32| score.is_nan() || *score == f32::INFINITY;
            if let Some(token) = scores.iter().position(wrong) {
                return Err(RowError::NotFinite { member, token, found: scores[token] });
            }
        }
        for (member, scores) in self.members() {
            if scores.iter().all(|score| masked(*score)) {
                return Err(RowError::AllMasked { member });
            }
        }
        let kept: Vec<usize> = (0..self.base.len()).filter(|&token| !masked(self.base[token])).collect();
        if let Some(&token) = kept.iter().find(|&&token| masked(self.anchor[token])) {
            return Err(RowError::MaskedOnlyInAnchor { token });
        }
        for (expert, scores) in self.experts.iter().enumerate() {
            if let Some(&token) = kept.iter().find(|&&token| masked(scores[token])) {
                return Err(RowError::MaskedOnlyInExpert { expert, token, log_prob: self.log_prob(token) });
            }
        }
        Ok(Some(kept))
    }

    /// The base's log-probability of a token, for a message.
    fn log_prob(&self, token: usize) -> f64 {
        let peak = f64::from(self.base.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = self.base.iter().map(|&score| (f64::from(score) - peak).exp()).sum();
        f64::from(self.base[token]) - peak - sum.ln()
    }
}

fn masked(score: f32) -> bool {
    score == f32::NEG_INFINITY
}

fn all_finite(scores: &[f32]) -> bool {
    pulp::Arch::new().dispatch(AllFinite(scores))
}

struct AllFinite<'a>(&'a [f32]);

impl pulp::WithSimd for AllFinite<'_> {
    type Output = bool;

    /// Without a way out in the middle, so that it takes a register at a time.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> bool {
        self.0.iter().fold(true, |finite, score| finite & score.is_finite())
    }
}
