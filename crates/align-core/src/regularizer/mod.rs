//! A divergence with its weight, its place and its granularity.

mod coefficient;
mod config;

use std::num::NonZeroUsize;

use burn::tensor::{Bool, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::divergence::{Divergence, LOG_RATIO_LIMIT, LossDivergence, fraction_beyond};
use crate::masked;
use crate::shape::assert_same_shape;

pub use coefficient::{AdaptiveTarget, Coefficient, ConstantReward, LEAST_DEVIATION};
pub use config::RegularizerConfig;

/// Whether a log-ratio is measured token by token or over the whole response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// The divergence of each token's distribution.
    #[default]
    Token,
    /// The divergence of whole responses, from the summed log-ratio.
    Sequence,
}

/// Where the divergence acts. A value may stand in the reward; only what has a meaningful gradient may stand in the
/// loss, so k1 in the loss cannot be written down.
#[derive(Debug)]
pub enum Site {
    /// Subtracted from the reward; the score function supplies the gradient.
    Reward(Box<dyn Divergence>),
    /// Added to the loss and differentiated.
    Loss(Box<dyn LossDivergence>),
    /// Added to the loss and differentiated, over the whole vocabulary at every token: no sampling error in either policy's
    /// next-token distribution, for a reference that is a model. A trainer computes it by [`exact`](crate::exact); the methods
    /// here, which see only log-ratios of the tokens drawn, give 0.
    Exact {
        /// What is measured at every token.
        divergence: Box<dyn Divergence>,
        /// Response positions at a time: memory, not results.
        columns: NonZeroUsize,
    },
}

/// β times a divergence between the policy and its reference, in the reward or in the loss.
#[derive(Debug)]
pub struct Regularizer {
    /// What is measured and where it acts.
    pub site: Site,
    /// β, fixed or adaptive.
    pub coefficient: Coefficient,
    /// Per token or per response.
    pub granularity: Granularity,
}

impl Regularizer {
    /// What is to be subtracted from the token rewards: β times the estimate, constants.
    ///
    /// At token granularity every token bears its own. At sequence granularity the estimate of the summed log-ratio stands
    /// at the last token that counts, where the score stands too.
    ///
    /// A divergence of whole responses ([`Divergence::whole_responses`]) looks at all rows together: give it the whole rollout.
    /// A row in which nothing counts is to it a response of log-ratio 0.
    ///
    /// # Shapes
    /// `log_ratio` = log π_old − log π_ref, `mask`: `[B, R]` → `[B, R]`; 0 where nothing counts, and everywhere if the
    /// regulariser acts in the loss.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn penalty(&self, log_ratio: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<2> {
        assert_same_shape("Regularizer::penalty", [log_ratio.dims(), mask.dims()]);
        let log_ratio = log_ratio.without_autodiff();
        match &self.site {
            Site::Loss(_) | Site::Exact { .. } => log_ratio.zeros_like(),
            Site::Reward(divergence) => self.weigh(log_ratio, mask, |d| divergence.estimate(d)),
        }
    }

    /// What is to be added to the loss: the mean of [`Regularizer::loss_terms`] over tokens that count, or over responses
    /// with at least one token at sequence granularity.
    ///
    /// # Shapes
    /// `log_ratio` = log π_θ − log π_ref, `mask`: `[B, R]` → `[1]`; 0 if the regulariser acts in the reward, NaN if it acts
    /// in the loss and nothing counts.
    ///
    /// # Gradient
    /// Through `log_ratio`, as the [`LossDivergence`] states.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn loss(&self, log_ratio: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<1> {
        let over = match (&self.site, self.granularity) {
            (Site::Reward(_) | Site::Exact { .. }, _) => return log_ratio.zeros_like().sum(),
            (Site::Loss(_), Granularity::Token) => mask.clone(),
            (Site::Loss(_), Granularity::Sequence) => last_counting(mask),
        };
        masked::mean(self.loss_terms(log_ratio, mask), &over)
    }

    /// The terms of [`Regularizer::loss`], for a trainer that normalises over several micro-batches itself. A divergence of
    /// whole responses has to be [fixed](Regularizer::fixed_to) to the whole batch first, or each micro-batch is measured alone.
    ///
    /// # Shapes
    /// `[B, R]`, `[B, R]` → `[B, R]`, placed as in [`Regularizer::penalty`]; 0 where nothing counts.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn loss_terms(&self, log_ratio: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<2> {
        assert_same_shape("Regularizer::loss", [log_ratio.dims(), mask.dims()]);
        match &self.site {
            Site::Reward(_) | Site::Exact { .. } => log_ratio.zeros_like(),
            Site::Loss(divergence) => self.weigh(log_ratio, mask, |d| divergence.surrogate(d)),
        }
    }

    /// The same regulariser with everything its loss takes from the whole batch fixed, so that a batch in parts gives what the
    /// whole one gives: for √χ², the χ̂² of all responses. None if every draw stands for itself.
    ///
    /// # Shapes
    /// `log_ratio` = log π − log π_ref of the whole batch, `mask`: `[B, R]`.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn fixed_to(&self, log_ratio: Tensor<2>, mask: &Tensor<2, Bool>) -> Option<Self> {
        assert_same_shape("Regularizer::fixed_to", [log_ratio.dims(), mask.dims()]);
        let Site::Loss(divergence) = &self.site else { return None };
        let fixed = divergence.fixed_to(whole(log_ratio.without_autodiff(), mask))?;
        Some(Self {
            site: Site::Loss(fixed),
            coefficient: self.coefficient.clone(),
            granularity: self.granularity,
        })
    }

    /// The share of log-ratios that overflowed, of tokens or of whole responses by the granularity: beyond what the divergence
    /// exponentiates, where it is clamped or continued by a line. 0 if nothing counts, and for [`Site::Exact`], which has none.
    ///
    /// # Shapes
    /// `log_ratio` = log π − log π_ref, `mask`: `[B, R]` → a number in [0, 1].
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn clamped_fraction(&self, log_ratio: &Tensor<2>, mask: &Tensor<2, Bool>) -> f64 {
        assert_same_shape("Regularizer::clamped_fraction", [log_ratio.dims(), mask.dims()]);
        let limit = match &self.site {
            Site::Reward(_) => LOG_RATIO_LIMIT,
            Site::Loss(divergence) => divergence.log_ratio_limit(),
            Site::Exact { .. } => return 0.0,
        };
        match self.granularity {
            Granularity::Token => fraction_beyond(log_ratio, mask, limit),
            Granularity::Sequence => {
                let answered = mask.clone().int().sum_dim(1).greater_elem(0);
                fraction_beyond(&whole(log_ratio.clone(), mask), &answered, limit)
            }
        }
    }

    /// Refuses a divergence at a granularity at which it means nothing.
    ///
    /// # Errors
    /// [`RegularizerError`] names the divergence and the granularity it needs.
    pub fn check(&self) -> Result<(), RegularizerError> {
        let (divergence, whole_responses) = match &self.site {
            Site::Reward(divergence) => (format!("{divergence:?}"), divergence.whole_responses()),
            Site::Loss(divergence) => (format!("{divergence:?}"), divergence.whole_responses()),
            Site::Exact { divergence, .. } if self.granularity == Granularity::Sequence => {
                return Err(RegularizerError::EveryToken { divergence: format!("{divergence:?}") });
            }
            Site::Exact { .. } => return Ok(()),
        };
        match self.granularity {
            Granularity::Token if whole_responses => Err(RegularizerError::WholeResponses { divergence }),
            _ => Ok(()),
        }
    }

    fn weigh(
        &self,
        log_ratio: Tensor<2>,
        mask: &Tensor<2, Bool>,
        measure: impl Fn(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let shape = log_ratio.dims();
        let hidden = mask.clone().bool_not();
        // Filled on the way in as well, so that a masked −∞ enters neither the value nor the gradient.
        let measured = match self.granularity {
            Granularity::Token => measure(log_ratio.mask_fill(hidden.clone(), 0.0)).mask_fill(hidden, 0.0),
            Granularity::Sequence => {
                measure(whole(log_ratio, mask)).expand(shape).mask_fill(last_counting(mask).bool_not(), 0.0)
            }
        };
        measured * self.coefficient.beta()
    }
}

/// The log-ratio of whole responses, `[B, R]` → `[B, 1]`.
fn whole(log_ratio: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<2> {
    log_ratio.mask_fill(mask.clone().bool_not(), 0.0).sum_dim(1)
}

/// A divergence and a granularity that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegularizerError {
    /// A function of a batch of whole responses, token by token.
    #[error("`granularity` is token, expected sequence: {divergence} is measured on whole responses")]
    WholeResponses {
        /// Which divergence.
        divergence: String,
    },
    /// Exact over the vocabulary, for whole responses.
    #[error(
        "`granularity` is sequence, expected token: {divergence} is exact over the vocabulary at every token, and whole \
         responses are too many to add up"
    )]
    EveryToken {
        /// Which divergence.
        divergence: String,
    },
}

/// True at the last position of each row that counts; nowhere in a row without one.
fn last_counting(mask: &Tensor<2, Bool>) -> Tensor<2, Bool> {
    let counts: Tensor<2, Int> = mask.clone().int();
    let [rows, width] = counts.dims();
    // Reached the row's total, and counts itself.
    let total = counts.clone().sum_dim(1).expand([rows, width]);
    counts.cumsum(1).equal(total).bool_and(mask.clone())
}
