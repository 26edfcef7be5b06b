//! From a row of scores to weights and fused log-probabilities.
//!
//! ```text
//! log P̃ = log P + Σ_t α_t (log Q_t − log Q) − A
//! ```
//!
//! [`Weighing::Static`] takes the same α at every token: proxy tuning with one expert and α = 1, task arithmetic on logits with
//! several. [`Weighing::Dynamic`] chooses them anew for each row by [`matching`](crate::matching).
//!
//! # Masks
//! A token that the large base masks (−∞) is dropped from every model before anything is normalised, and is −∞ in the result.
//! A token that only a small model masks has no finite shift and is refused by name.
//!
//! # Source
//! Liu et al. 2024, eq. 1, <https://arxiv.org/abs/2401.08565>; Fan et al. 2024, eq. 2, <https://arxiv.org/abs/2406.15480>.

mod choose;
mod config;
mod row;

use serde::{Deserialize, Deserializer, Serialize};

use crate::row_error::{RowError, WeighingError};
use crate::tilt::{Tilt, fuse};

pub use config::{Bounds, DynamicConfig, Experts, Targets};
pub use row::Row;

/// How the experts' shifts are weighed.
///
/// # Examples
/// The large base is surer than the small one, so the expert's shift must be stretched to move it as far:
/// ```
/// use align_fusion::{Row, Weighing};
///
/// let row = Row { base: &[1.5, 0.0], anchor: &[0.2, 0.0], experts: &[&[1.2, 0.0]] };
/// let mut fused = [0.0; 2];
/// let step = Weighing::default().weigh(row, &mut fused)?;
/// assert!((step.weights[0] - 1.530749).abs() < 1e-5);
/// assert!((fused[0].exp() + fused[1].exp() - 1.0).abs() < 1e-6);
/// # Ok::<(), align_fusion::RowError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Weighing {
    /// The same weights at every token.
    Static {
        /// α, one for each expert; a negative weight makes an anti-expert.
        #[serde(deserialize_with = "finite")]
        weights: Vec<f64>,
    },
    /// Weights that make the fused model move as far as the experts did, chosen at each token.
    Dynamic(DynamicConfig),
}

impl Default for Weighing {
    fn default() -> Self {
        Self::Dynamic(DynamicConfig::default())
    }
}

/// What was done at one token of one row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// α, one for each expert.
    pub weights: Vec<f64>,
    /// The expert whose shift alone was applied; none where several were.
    pub expert: Option<usize>,
    /// f = KL(P̃ ‖ P), in nats.
    pub forward: f64,
    /// g = KL(P ‖ P̃), in nats.
    pub reverse: f64,
    /// a = KL(Q_t ‖ Q), in nats; the mean over experts unless each is matched to its own.
    pub target_forward: f64,
    /// b = KL(Q ‖ Q_t), likewise.
    pub target_reverse: f64,
    /// L, of the configured objective; of both terms where weights are static.
    pub loss: f64,
    /// Whether the weight is an end of its range and the loss would go on falling beyond it.
    pub saturated: bool,
    /// Whether the experts moved so little that no weight was searched.
    pub skipped: bool,
}

impl Weighing {
    /// Whether this can weigh so many experts.
    ///
    /// # Errors
    /// If there are none, weights or bounds are not one for each, a range is empty, a grid too large, or the joint search is
    /// asked for what it cannot do.
    pub fn check(&self, experts: usize) -> Result<(), WeighingError> {
        if experts == 0 {
            return Err(WeighingError::NoExperts);
        }
        match self {
            Self::Static { weights } if weights.len() != experts => {
                Err(WeighingError::Weights { experts, weights: weights.len() })
            }
            Self::Static { weights } => match weights.iter().position(|weight| !weight.is_finite()) {
                Some(expert) => Err(WeighingError::NotFinite { expert, found: weights[expert] }),
                None => Ok(()),
            },
            Self::Dynamic(config) => config.check(experts),
        }
    }

    /// Chooses weights for the row and writes the fused, normalised log-probabilities.
    ///
    /// A function of its arguments alone: scoring a text later gives the weights it was sampled with.
    ///
    /// # Shapes
    /// `out`: `[V]`, as the row.
    ///
    /// # Errors
    /// If a score is NaN or +∞, a model masks everything, or a small model masks a token that the large base does not.
    ///
    /// # Panics
    /// If lengths differ, or [`check`](Self::check) refuses the number of experts.
    pub fn weigh(&self, row: Row<'_>, out: &mut [f32]) -> Result<Step, RowError> {
        if let Err(error) = self.check(row.experts.len()) {
            panic!("weigh: {error}");
        }
        row.assert_lengths(out.len());
        let Some(kept) = row.unmasked()? else {
            return Ok(self.weigh_unmasked(row, out));
        };
        let gather = |scores: &[f32]| -> Vec<f32> { kept.iter().map(|&token| scores[token]).collect() };
        let (base, anchor) = (gather(row.base), gather(row.anchor));
        let experts: Vec<Vec<f32>> = row.experts.iter().map(|expert| gather(expert)).collect();
        let experts: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
        let mut fused = vec![0.0; kept.len()];
        let step = self.weigh_unmasked(Row { base: &base, anchor: &anchor, experts: &experts }, &mut fused);
        out.fill(f32::NEG_INFINITY);
        for (&token, &log_prob) in kept.iter().zip(&fused) {
            out[token] = log_prob;
        }
        Ok(step)
    }

    fn weigh_unmasked(&self, row: Row<'_>, out: &mut [f32]) -> Step {
        let tilts = Tilt::all(row.base, row.anchor, row.experts);
        let (step, log_partition) = match self {
            Self::Static { weights } => choose::fixed(&tilts, weights),
            Self::Dynamic(config) => choose::matched(&tilts, config),
        };
        fuse(&tilts, &step.weights, log_partition, out);
        step
    }
}

fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let weights = Vec::<align_core::number::Finite>::deserialize(deserializer)?;
    Ok(weights.into_iter().map(f64::from).collect())
}
