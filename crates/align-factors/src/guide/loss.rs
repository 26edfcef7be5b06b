//! The terms of a guided loss: importances, their divergence from knowledge, the task and the penalty on weights.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::{Divergence, ImportanceDistribution, Normalization};

/// What a network is trained for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskLoss {
    /// `mean (f(x) − y)²`: regression, and ordinal labels regressed as numbers. The default.
    #[default]
    Squared,
    /// `mean ln(1 + e^f) − y f` over labels 0 and 1: f is the logit.
    Logistic,
}

impl TaskLoss {
    /// The mean loss.
    ///
    /// # Shapes
    /// `scores` and `labels` `[N]`; returns `[1]`.
    pub fn mean(self, scores: Tensor<1>, labels: Tensor<1>) -> Tensor<1> {
        match self {
            Self::Squared => (scores - labels).square().mean(),
            // ln(1 + e^f) = −ln σ(−f), finite for every f.
            Self::Logistic => (activation::log_sigmoid(scores.clone().neg()).neg() - labels * scores).mean(),
        }
    }

    /// The mean loss of scores on the host.
    ///
    /// # Panics
    /// If there are not as many scores as labels.
    pub fn mean_on_host(self, scores: &[f64], labels: &[f64]) -> f64 {
        assert_eq!(scores.len(), labels.len(), "TaskLoss: one score for each label");
        let of_row = |(&score, &label): (&f64, &f64)| match self {
            Self::Squared => (score - label) * (score - label),
            Self::Logistic => score.max(0.0) + (-score.abs()).exp().ln_1p() - label * score,
        };
        scores.iter().zip(labels).map(of_row).sum::<f64>() / labels.len() as f64
    }
}

/// `I_j = mean over rows of √(φ_j² + s²)`: mean absolute attributions, with a gradient where one is 0.
///
/// # Shapes
/// `[N, d]` → `[d]`.
///
/// # Units
/// Those of the scores, as s is.
pub fn smoothed_importances(attributions: Tensor<2>, s: f64) -> Tensor<1> {
    let absolute = match s {
        // The root of a square has no gradient at 0; the absolute value has 0.
        0.0 => attributions.abs(),
        s => attributions.square().add_scalar(s * s).sqrt(),
    };
    absolute.mean_dim(0).squeeze_dim(0)
}

/// `ln p` of importances.
///
/// # Shapes
/// `[d]` → `[d]`.
pub fn log_shares(importances: Tensor<1>, normalization: Normalization) -> Tensor<1> {
    match normalization {
        Normalization::Ratio => importances.clone().log() - importances.sum().log(),
        Normalization::Softmax { tau } => activation::log_softmax(importances.div_scalar(tau.get()), 0),
    }
}

/// The divergence of a model's importance distribution from knowledge, as [`Divergence::value`], from `ln p`.
///
/// # Shapes
/// `log_p` `[d]`; returns `[1]`.
///
/// # Units
/// Nats.
///
/// # Gradient
/// Through `log_p`; knowledge is constant.
///
/// # Panics
/// If there are not as many masses as shares.
pub fn divergence_loss(log_p: Tensor<1>, q: &ImportanceDistribution, divergence: Divergence) -> Tensor<1> {
    assert_eq!(log_p.dims(), [q.len()], "divergence_loss: one mass for each factor");
    // Σ q ln q on the host, where 0 ln 0 is 0.
    let entropy = negative_entropy(q);
    let masses = constant(q, &log_p);
    match divergence {
        Divergence::Forward => (masses * log_p).sum().neg().add_scalar(entropy),
        Divergence::Reverse => (log_p.clone().exp() * (log_p - masses.log())).sum(),
        Divergence::JensenShannon => {
            let (p, q) = (log_p.clone().exp(), masses);
            let log_middle = (p.clone() + q.clone()).mul_scalar(0.5).log();
            let of_p = (p * (log_p - log_middle.clone())).sum();
            (of_p + (q * log_middle).sum().neg().add_scalar(entropy)).mul_scalar(0.5)
        }
    }
}

/// The generalised Jensen–Shannon divergence of one model's distribution, given as `ln p`, and those of others:
/// `1/M Σ_m KL(p^(m) ‖ mean)`.
///
/// # Shapes
/// `log_p` `[d]`; returns `[1]`.
///
/// # Units
/// Nats.
///
/// # Gradient
/// Through `log_p`, others are constant: `1/M ln(p_j / mean_j)` plus a constant, which is this model's part of the gradient of
/// the joint divergence.
///
/// # Panics
/// If there is no other model, or one has another number of factors.
///
/// # Source
/// Lin 1991, eq. 5.1, <https://doi.org/10.1109/18.61115>.
pub fn jensen_shannon_loss(log_p: Tensor<1>, others: &[ImportanceDistribution]) -> Tensor<1> {
    assert!(!others.is_empty(), "jensen_shannon_loss: at least one other model");
    let models = (others.len() + 1) as f64;
    let mut sum = vec![0.0; log_p.dims()[0]];
    for other in others {
        assert_eq!(other.len(), sum.len(), "jensen_shannon_loss: models over the same factors");
        sum.iter_mut().zip(other.iter()).for_each(|(sum, mass)| *sum += mass);
    }
    let entropies: f64 = others.iter().map(|other| negative_entropy(other)).sum();
    let (p, others) = (log_p.clone().exp(), constant(&sum, &log_p));
    let log_middle = (p.clone() + others.clone()).div_scalar(models).log();
    let of_p = (p * (log_p - log_middle.clone())).sum();
    (of_p - (others * log_middle).sum().sub_scalar(entropies)).div_scalar(models)
}

/// `½ Σ W²` over all matrices of a module: its gradient is the weights. Vectors are biases and gains, which do not overfit.
///
/// # Shapes
/// Returns `[1]`, or nothing if there is no matrix.
pub fn half_squared_norm<M: Module>(module: &M) -> Option<Tensor<1>> {
    struct Squares(Option<Tensor<1>>);
    impl ModuleVisitor for Squares {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if D < 2 {
                return;
            }
            let square = param.val().square().sum();
            self.0 = Some(match self.0.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
    let mut squares = Squares(None);
    module.visit(&mut squares);
    squares.0.map(|sum| sum.mul_scalar(0.5))
}

/// Σ q ln q.
fn negative_entropy(q: &[f64]) -> f64 {
    q.iter().filter(|mass| **mass > 0.0).map(|mass| mass * mass.ln()).sum()
}

/// Numbers beside a tensor, as constants.
fn constant(values: &[f64], beside: &Tensor<1>) -> Tensor<1> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::from_data(data, (&beside.device().without_autodiff(), beside.dtype()))
}
