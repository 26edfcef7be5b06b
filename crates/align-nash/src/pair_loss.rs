//! Which loss pairs are trained with, as a recipe says it.

use align_core::number::{Finite, NoiseRate, Positive};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::loss::{self, FDivergence};

/// A loss of preference pairs. Start from `PairLoss::default()`: DPO with β = 0.1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PairLoss {
    /// DPO, [`loss::dpo`].
    #[serde(alias = "sigmoid")]
    Dpo {
        /// β. 0.1 as in the paper and in TRL.
        #[serde(default = "tenth")]
        beta: Positive,
        /// ε of conservative DPO; none unless stated.
        #[serde(default = "no_noise")]
        label_smoothing: NoiseRate,
        /// Which divergence holds the policy to its reference.
        #[serde(default)]
        f_divergence: FDivergence,
    },
    /// Robust DPO, [`loss::robust_dpo`].
    Robust {
        /// β.
        #[serde(default = "tenth")]
        beta: Positive,
        /// The rate at which labels are believed to be flipped. 0.1 in the paper's experiments.
        #[serde(default = "tenth_flipped")]
        label_smoothing: NoiseRate,
    },
    /// IPO, [`loss::ipo`].
    Ipo {
        /// β, the paper's τ. 0.1 as in the paper.
        #[serde(default = "tenth")]
        beta: Positive,
        /// Divide log-ratios by lengths, as TRL does; the papers have sums.
        #[serde(default)]
        length_normalized: bool,
    },
    /// SLiC's hinge, [`loss::hinge`].
    Hinge {
        /// β; its inverse is the margin.
        #[serde(default = "tenth")]
        beta: Positive,
    },
    /// SimPO, [`loss::simpo`]. Needs no reference.
    Simpo {
        /// β. 2, the low end of the paper's settings.
        #[serde(default = "two")]
        beta: Positive,
        /// γ. 1, so that γ/β = 0.5, as in the paper.
        #[serde(default = "one")]
        gamma: Finite,
    },
    /// SPPO, [`loss::sppo`], from win rates; hard where only labels are known.
    #[serde(alias = "sppo_hard")]
    Sppo {
        /// β, the inverse step size. 1e-3 as in the authors' script.
        #[serde(default = "thousandth")]
        beta: Positive,
    },
}

fn tenth() -> Positive {
    Positive::literal(0.1)
}

fn tenth_flipped() -> NoiseRate {
    NoiseRate::literal(0.1)
}

fn no_noise() -> NoiseRate {
    NoiseRate::literal(0.0)
}

fn two() -> Positive {
    Positive::literal(2.0)
}

fn one() -> Finite {
    Finite::literal(1.0)
}

fn thousandth() -> Positive {
    Positive::literal(1e-3)
}

impl Default for PairLoss {
    fn default() -> Self {
        Self::Dpo { beta: tenth(), label_smoothing: no_noise(), f_divergence: FDivergence::default() }
    }
}

/// What a loss sees of pairs: everything `[2B]` but the label, first answers before second ones.
#[derive(Clone, Debug)]
pub struct PairView {
    /// log π of whole answers.
    pub log_probs: Tensor<1>,
    /// log of the anchor; constants.
    pub anchors: Tensor<1>,
    /// Tokens of each answer; constants.
    pub lengths: Tensor<1>,
    /// P(y ≻ its opponents); constants.
    pub win_rates: Tensor<1>,
    /// `[B]`: P(first ≻ second); constants.
    pub preference: Tensor<1>,
}

impl PairView {
    /// `x(y₁) − x(y₂)`, `[2B]` → `[B]`.
    fn difference(&self, of: Tensor<1>) -> Tensor<1> {
        let [first, second] = halves(of);
        first - second
    }
}

/// First answers and second ones, `[2B]` → `[B]` twice.
pub(crate) fn halves(both: Tensor<1>) -> [Tensor<1>; 2] {
    let pairs = both.dims()[0] / 2;
    [both.clone().narrow(0, 0, pairs), both.narrow(0, pairs, pairs)]
}

impl PairLoss {
    /// The loss of every pair.
    ///
    /// # Shapes
    /// → `[B]`.
    ///
    /// # Gradient
    /// Through `log_probs` only.
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn per_pair(&self, view: &PairView) -> Tensor<1> {
        let log_ratios = || view.log_probs.clone() - view.anchors.clone();
        match *self {
            Self::Dpo { beta, label_smoothing, f_divergence } => {
                let margin = view.difference(f_divergence.score(log_ratios()));
                loss::dpo(margin, &view.preference, beta.get(), label_smoothing.get())
            }
            Self::Robust { beta, label_smoothing } => {
                let margin = view.difference(log_ratios());
                loss::robust_dpo(margin, &view.preference, beta.get(), label_smoothing.get())
            }
            Self::Ipo { beta, length_normalized } => {
                let ratios =
                    if length_normalized { log_ratios() / view.lengths.clone() } else { log_ratios() };
                loss::ipo(view.difference(ratios), &view.preference, beta.get())
            }
            Self::Hinge { beta } => loss::hinge(view.difference(log_ratios()), &view.preference, beta.get()),
            Self::Simpo { beta, gamma } => {
                let margin = view.difference(view.log_probs.clone() / view.lengths.clone());
                loss::simpo(margin, &view.preference, beta.get(), gamma.get())
            }
            Self::Sppo { beta } => {
                let [first, second] = halves(loss::sppo(log_ratios(), &view.win_rates, beta.get()));
                first + second
            }
        }
    }

    /// What is compared between two answers, on the host: `log π(y)/a(y)`, or `log π(y)/|y|` for SimPO, which has no anchor.
    pub(crate) fn log_ratio(&self, log_prob: f64, anchor: f64, length: f64) -> f64 {
        if self.needs_reference() { log_prob - anchor } else { log_prob / length }
    }

    /// What multiplies log-ratios to make them implicit rewards, for the log.
    pub fn beta(&self) -> f64 {
        match self {
            Self::Dpo { beta, .. }
            | Self::Robust { beta, .. }
            | Self::Ipo { beta, .. }
            | Self::Hinge { beta }
            | Self::Simpo { beta, .. }
            | Self::Sppo { beta } => beta.get(),
        }
    }

    /// Whether the anchors enter: SimPO has none.
    pub fn needs_reference(&self) -> bool {
        !matches!(self, Self::Simpo { .. })
    }
}
