//! PPO's clipped surrogate and the statistics of its ratio.
//!
//! Departure from Schulman et al. 2017: the mean is over the tokens of a whole optimiser step, not over episodes, so
//! that accumulating over microbatches is the same objective (`tokens` is what the sum is divided by).

use align_core::divergence::{LOG_RATIO_LIMIT, clamp_log_ratio};
use align_core::masked;
use align_core::shape::assert_same_shape;
use burn::tensor::{Bool, Tensor};

/// The interval the ratio may move in before the surrogate stops pushing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipRange {
    /// ε below: the ratio is clipped at `1 − lower`.
    pub lower: f64,
    /// ε above: the ratio is clipped at `1 + upper`.
    pub upper: f64,
    /// Dual clip c: where Â < 0 the loss of a token is at most `−c·Â` (Ye et al. 2020, c = 3).
    pub dual: Option<f64>,
}

impl ClipRange {
    /// `[1 − ε, 1 + ε]`, no dual clip.
    pub fn symmetric(epsilon: f64) -> Self {
        Self { lower: epsilon, upper: epsilon, dual: None }
    }
}

/// PPO's clipped surrogate as a loss: `Σ max(−Â·ρ, −Â·clip(ρ, 1−ε, 1+ε)) / tokens`, `ρ = exp(clamp(log_ratio, ±20))`.
///
/// With [`ClipRange::dual`], tokens of negative advantage lose at most `−c·Â`.
///
/// # Shapes
/// `log_ratio`, `advantages`, `mask`: `[B, R]`. Returns `[1]`. `tokens` is the number of tokens that count in the whole
/// optimiser step; with one microbatch that is `mask`'s count and the result is a mean.
///
/// # Gradient
/// Through `log_ratio` only; advantages are constants. Zero where the clip binds. Beyond ±20 it is that of the identity,
/// so that a policy that went too far still feels the pull back.
///
/// # Panics
/// If the shapes disagree.
///
/// # Source
/// Schulman et al. 2017, eq. 7, <https://arxiv.org/abs/1707.06347>; dual clip: Ye et al. 2020, eq. 5,
/// <https://arxiv.org/abs/1912.09729>.
///
/// # Examples
/// ```
/// use align_ppo::surrogate::{ClipRange, clipped_surrogate};
/// use burn::tensor::{Bool, Device, Tensor};
/// let device = align_testkit::device();
/// // ρ = e, Â = 1, ε = 0.2: the loss is −min(e, 1.2).
/// let one = Tensor::<2>::ones([1, 1], &device);
/// let mask = Tensor::<2, Bool>::full([1, 1], true, &device);
/// let loss = clipped_surrogate(one.clone(), one, &mask, ClipRange::symmetric(0.2), 1.0);
/// assert!((loss.into_scalar::<f32>() + 1.2).abs() < 1e-6);
/// ```
pub fn clipped_surrogate(
    log_ratio: Tensor<2>,
    advantages: Tensor<2>,
    mask: &Tensor<2, Bool>,
    clip: ClipRange,
    tokens: f64,
) -> Tensor<1> {
    let branches = Branches::of(log_ratio, advantages, mask, clip);
    let pessimistic = branches.plain.max_pair(branches.clipped);
    let losses = match branches.dual_bound {
        Some(bound) => pessimistic.min_pair(bound),
        None => pessimistic,
    };
    masked::sum(losses, mask) / tokens
}

/// Both branches of the surrogate, per token.
struct Branches {
    ratio: Tensor<2>,
    plain: Tensor<2>,
    clipped: Tensor<2>,
    /// `−c·Â` where Â < 0, the largest f32 elsewhere.
    dual_bound: Option<Tensor<2>>,
}

impl Branches {
    fn of(log_ratio: Tensor<2>, advantages: Tensor<2>, mask: &Tensor<2, Bool>, clip: ClipRange) -> Self {
        assert_same_shape("clipped_surrogate", [log_ratio.dims(), advantages.dims(), mask.dims()]);
        let hidden = mask.clone().bool_not();
        // Padding gets ρ = 1 before anything is exponentiated: a masked ∞ never enters, nor does its gradient.
        let log_ratio = log_ratio.mask_fill(hidden.clone(), 0.0);
        let losses = advantages.without_autodiff().mask_fill(hidden, 0.0).neg();
        let ratio = clamp_log_ratio(log_ratio).exp();
        let clipped = ratio.clone().clamp(1.0 - clip.lower, 1.0 + clip.upper);
        let dual_bound = clip.dual.map(|c| {
            let positive = losses.clone().lower_equal_elem(0.0);
            (losses.clone() * c).mask_fill(positive, f32::MAX)
        });
        Self { plain: ratio.clone() * losses.clone(), clipped: clipped * losses, ratio, dual_bound }
    }
}

/// Sums over valid tokens from which every statistic of the ratio follows; sums of microbatches add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RatioSums {
    /// How many tokens count.
    pub tokens: f64,
    /// Σ (ρ − 1): kept around 1 so that f32 does not lose a small variance.
    pub excess: f64,
    /// Σ (ρ − 1)².
    pub excess_squared: f64,
    /// Σ (log π − log π_old)².
    pub log_ratio_squared: f64,
    /// Tokens on which the clipped branch is the larger loss.
    pub clipped: f64,
    /// Tokens whose log-ratio was clamped at ±20.
    pub clamped: f64,
}

impl RatioSums {
    /// Sums of one microbatch.
    ///
    /// # Shapes
    /// As [`clipped_surrogate`]; nothing is differentiated.
    pub fn of(
        log_ratio: &Tensor<2>,
        advantages: &Tensor<2>,
        mask: &Tensor<2, Bool>,
        clip: ClipRange,
    ) -> Self {
        let hidden = mask.clone().bool_not();
        let log_ratio = log_ratio.clone().without_autodiff().mask_fill(hidden, 0.0);
        let branches = Branches::of(log_ratio.clone(), advantages.clone(), mask, clip);
        let excess = branches.ratio - 1.0;
        let dtype = log_ratio.dtype();
        let count = |which: Tensor<2, Bool>| which.int().sum().float().cast(dtype);
        // One tensor, read once: a read waits for the device.
        let sums = Tensor::cat(
            vec![
                count(mask.clone()),
                excess.clone().sum(),
                excess.square().sum(),
                log_ratio.clone().square().sum(),
                count(branches.clipped.greater(branches.plain)),
                count(log_ratio.abs().greater_elem(LOG_RATIO_LIMIT)),
            ],
            0,
        );
        let sums: Vec<f64> = sums.into_data().iter::<f64>().collect();
        Self {
            tokens: sums[0],
            excess: sums[1],
            excess_squared: sums[2],
            log_ratio_squared: sums[3],
            clipped: sums[4],
            clamped: sums[5],
        }
    }

    /// Sums of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            excess: self.excess + other.excess,
            excess_squared: self.excess_squared + other.excess_squared,
            log_ratio_squared: self.log_ratio_squared + other.log_ratio_squared,
            clipped: self.clipped + other.clipped,
            clamped: self.clamped + other.clamped,
        }
    }

    /// Mean ratio; 1 if no token counts.
    pub fn ratio_mean(&self) -> f64 {
        1.0 + self.over_tokens(self.excess)
    }

    /// Sample variance of the ratio over tokens; 0 with fewer than two.
    pub fn ratio_variance(&self) -> f64 {
        if self.tokens < 2.0 {
            return 0.0;
        }
        let centred = self.excess_squared - self.excess * self.excess / self.tokens;
        centred.max(0.0) / (self.tokens - 1.0)
    }

    /// `½·mean((log π − log π_old)²)`, nats per token: Schulman's k2 estimate of how far the update went.
    pub fn approx_kl(&self) -> f64 {
        0.5 * self.over_tokens(self.log_ratio_squared)
    }

    /// Share of tokens on which the clip binds.
    pub fn clip_fraction(&self) -> f64 {
        self.over_tokens(self.clipped)
    }

    /// Share of tokens whose log-ratio was clamped.
    pub fn clamp_fraction(&self) -> f64 {
        self.over_tokens(self.clamped)
    }

    fn over_tokens(&self, sum: f64) -> f64 {
        if self.tokens > 0.0 { sum / self.tokens } else { 0.0 }
    }
}
