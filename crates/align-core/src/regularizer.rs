//! A divergence with its weight, its place and its granularity.

use burn::tensor::{Bool, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::divergence::{Divergence, DivergenceConfig, LossDivergence, LossDivergenceConfig};
use crate::masked;
use crate::number::{NonNegative, Positive};
use crate::shape::assert_same_shape;

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
            Site::Loss(_) => log_ratio.zeros_like(),
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
            (Site::Reward(_), _) => return log_ratio.zeros_like().sum(),
            (Site::Loss(_), Granularity::Token) => mask.clone(),
            (Site::Loss(_), Granularity::Sequence) => last_counting(mask),
        };
        masked::mean(self.loss_terms(log_ratio, mask), &over)
    }

    /// The terms of [`Regularizer::loss`], for a trainer that normalises over several micro-batches itself.
    ///
    /// # Shapes
    /// `[B, R]`, `[B, R]` → `[B, R]`, placed as in [`Regularizer::penalty`]; 0 where nothing counts.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn loss_terms(&self, log_ratio: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<2> {
        assert_same_shape("Regularizer::loss", [log_ratio.dims(), mask.dims()]);
        match &self.site {
            Site::Reward(_) => log_ratio.zeros_like(),
            Site::Loss(divergence) => self.weigh(log_ratio, mask, |d| divergence.surrogate(d)),
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
        let log_ratio = log_ratio.mask_fill(hidden.clone(), 0.0);
        let measured = match self.granularity {
            Granularity::Token => measure(log_ratio).mask_fill(hidden, 0.0),
            Granularity::Sequence => {
                measure(log_ratio.sum_dim(1)).expand(shape).mask_fill(last_counting(mask).bool_not(), 0.0)
            }
        };
        measured * self.coefficient.beta()
    }
}

/// True at the last position of each row that counts; nowhere in a row without one.
fn last_counting(mask: &Tensor<2, Bool>) -> Tensor<2, Bool> {
    let counts: Tensor<2, Int> = mask.clone().int();
    let [rows, width] = counts.dims();
    // Reached the row's total, and counts itself.
    let total = counts.clone().sum_dim(1).expand([rows, width]);
    counts.cumsum(1).equal(total).bool_and(mask.clone())
}

/// β, the weight of a regulariser. Its state is part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Coefficient {
    /// The same throughout.
    Fixed {
        /// β.
        beta: NonNegative,
    },
    /// Steered towards a target divergence.
    Adaptive {
        /// The current β; in a recipe, the first.
        beta: Positive,
        /// The divergence aimed at, in nats per response.
        target: Positive,
        /// How many responses a correction takes.
        horizon: Positive,
    },
}

impl Default for Coefficient {
    /// Fixed at 0.05, TRL's `kl_coef`.
    fn default() -> Self {
        Self::Fixed { beta: NonNegative::literal(0.05) }
    }
}

impl Coefficient {
    /// The current β.
    pub fn beta(&self) -> f64 {
        match self {
            Self::Fixed { beta } => beta.get(),
            Self::Adaptive { beta, .. } => beta.get(),
        }
    }

    /// Moves an adaptive β after `responses` responses whose mean summed divergence was `observed`:
    /// `β ← β (1 + clip(observed/target − 1, −0.2, 0.2) · responses/horizon)`.
    ///
    /// # Panics
    /// If `observed` is not finite, or if β leaves the positive numbers because `responses` exceeds five horizons.
    ///
    /// # Source
    /// Ziegler et al. 2019, section 2.2, <https://arxiv.org/abs/1909.08593>.
    pub fn update(&mut self, observed: f64, responses: usize) {
        if let Self::Adaptive { beta, target, horizon } = self {
            assert!(observed.is_finite(), "expected a finite divergence, found {observed}");
            let error = (observed / target.get() - 1.0).clamp(-0.2, 0.2);
            let factor = 1.0 + error * responses as f64 / horizon.get();
            *beta = Positive::try_from(beta.get() * factor).expect("fewer responses than five horizons");
        }
    }

    /// Refuses an adaptive target that the run starts beyond: β would only ever rise.
    ///
    /// # Errors
    /// [`AdaptiveTarget`] if the target does not exceed `initial`, the divergence before the first update.
    pub fn check_start(&self, initial: f64) -> Result<(), AdaptiveTarget> {
        match self {
            Self::Adaptive { target, .. } if target.get() <= initial => {
                Err(AdaptiveTarget { target: target.get(), initial })
            }
            _ => Ok(()),
        }
    }
}

/// An adaptive coefficient aims at a divergence below the one the run starts with.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "expected an adaptive target above {initial} nats per response, the divergence before the first update, found {target}"
)]
pub struct AdaptiveTarget {
    /// The target, in nats per response.
    pub target: f64,
    /// The divergence between the initial policy and the reference.
    pub initial: f64,
}

/// A regulariser as recipes name it.
///
/// ```toml
/// [regularizer]
/// site = "reward"
/// divergence = { kind = "kl", estimator = "k1" }
/// coefficient = { kind = "fixed", beta = 0.05 }
/// granularity = "token"
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "site", rename_all = "snake_case", deny_unknown_fields)]
pub enum RegularizerConfig {
    /// Subtracted from the reward.
    Reward {
        /// Which divergence.
        #[serde(default)]
        divergence: DivergenceConfig,
        /// β.
        #[serde(default)]
        coefficient: Coefficient,
        /// Per token or per response.
        #[serde(default)]
        granularity: Granularity,
    },
    /// Added to the loss.
    Loss {
        /// Which divergence.
        #[serde(default)]
        divergence: LossDivergenceConfig,
        /// β.
        #[serde(default)]
        coefficient: Coefficient,
        /// Per token or per response.
        #[serde(default)]
        granularity: Granularity,
    },
}

impl Default for RegularizerConfig {
    /// 0.05 · k1 per token in the reward, as in TRL's PPO.
    fn default() -> Self {
        Self::Reward {
            divergence: DivergenceConfig::default(),
            coefficient: Coefficient::default(),
            granularity: Granularity::default(),
        }
    }
}

impl RegularizerConfig {
    /// The regulariser described.
    pub fn build(&self) -> Regularizer {
        match self {
            Self::Reward { divergence, coefficient, granularity } => Regularizer {
                site: Site::Reward(divergence.build()),
                coefficient: coefficient.clone(),
                granularity: *granularity,
            },
            Self::Loss { divergence, coefficient, granularity } => Regularizer {
                site: Site::Loss(divergence.build()),
                coefficient: coefficient.clone(),
                granularity: *granularity,
            },
        }
    }
}
