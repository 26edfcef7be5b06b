//! How the learning rate moves over a run.

use align_core::number::UnitInterval;
use serde::{Deserialize, Serialize};

/// A factor on the learning rate, as a pure function of the step.
///
/// The first `warmup` steps rise linearly and end at the full rate: `(step + 1) / warmup`. Transformers starts at
/// `0 / warmup` instead, which spends one step on nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The full rate after the warm-up.
    Constant {
        /// Steps of the warm-up.
        #[serde(default)]
        warmup: u64,
    },
    /// A straight line from the full rate to `floor`, reached right after the last step.
    Linear {
        /// Steps of the warm-up.
        #[serde(default)]
        warmup: u64,
        /// The fraction of the learning rate at the end.
        #[serde(default = "zero")]
        floor: UnitInterval,
    },
    /// Half a cosine from the full rate to `floor` (Loshchilov, Hutter 2017, <https://arxiv.org/abs/1608.03983>).
    Cosine {
        /// Steps of the warm-up.
        #[serde(default)]
        warmup: u64,
        /// The fraction of the learning rate at the end.
        #[serde(default = "zero")]
        floor: UnitInterval,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant { warmup: 0 }
    }
}

impl Schedule {
    /// The factor at `step` (from 0) of `total` steps, in [0, 1].
    ///
    /// After `total` steps the factor stays at the floor.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let (Self::Constant { warmup } | Self::Linear { warmup, .. } | Self::Cosine { warmup, .. }) = *self;
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let span = total.saturating_sub(warmup).max(1);
        let progress = ((step - warmup) as f64 / span as f64).min(1.0);
        match *self {
            Self::Constant { .. } => 1.0,
            Self::Linear { floor, .. } => floor.get() + (1.0 - floor.get()) * (1.0 - progress),
            Self::Cosine { floor, .. } => {
                floor.get() + (1.0 - floor.get()) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

fn zero() -> UnitInterval {
    UnitInterval::literal(0.0)
}
