//! One direction to steer in: the large base's distribution tilted along an expert's shift.
//!
//! ```text
//! v   = log Q_t − log Q                 the expert's shift (up to a constant)
//! P̃_α = P e^(αv) / e^A(α)               A(α) = log Σ P e^(αv)
//! f   = KL(P̃_α ‖ P) = αμ − A            μ  = E_P̃[v]
//! g   = KL(P ‖ P̃_α) = A − αμ₀           μ₀ = E_P[v]
//! ```
//!
//! P̃_α is a one-parameter exponential family, so one pass over the vocabulary with Σ P e^(αv) and Σ P e^(αv) v gives both
//! divergences, and two more sums their curvatures; neither KL is formed. [`Tilt::grid`] gets the sums at *all* weights of a grid
//! from one exponential a token: P e^(αv) at the next weight is the present one times e^(step·v).
//!
//! # Numbers
//! Scores are read in f32 and every sum is made in f64: at α = 2 with P = (1 − e⁻¹⁰⁰, e⁻¹⁰⁰) and v = (0, 60) the sum over
//! powers is e⁻¹⁰⁰ beside terms that were 1, which f32 cannot hold. Where even f64 would come near its end (αv beyond 600) the
//! weight is looked at alone, relative to its largest term.
//!
//! v is measured from its value at P's likeliest token, which stands outside the sums: then Σ P e^(αv) − 1 is a sum over all
//! *other* tokens, and f and g keep their digits when P is nearly certain and both are far below the rounding of 1.
//!
//! # Source
//! Fan et al. 2024, "On giant's shoulders", section 3.2, <https://arxiv.org/abs/2406.15480>; the exponential family is ours.

mod block;
mod exp;
mod fuse;
mod grid;
mod moments;
mod pair;
mod survey;

pub use moments::Moments;
use serde::Serialize;

pub(crate) use fuse::fuse;
pub(crate) use moments::Direction;
pub(crate) use pair::{Pair, PairMoments};

/// Beyond this αv the terms of a grid are so small that what f64 drops could matter.
const LARGEST_EXPONENT: f64 = 600.0;

/// Where a search for the largest exponent begins: lower ones are 0 beside P's likeliest token anyway.
const LOWEST_PEAK: f64 = -700.0;

/// The large base's distribution, with its likeliest token apart.
#[derive(Clone, Copy, Debug)]
struct Certainty {
    /// The likeliest token, of equal ones the first.
    top: usize,
    /// Its score.
    peak: f64,
    /// Σ e^(score − peak) over all others.
    rest: f64,
}

impl Certainty {
    /// log Σ e^(score − peak).
    fn log_norm(self) -> f64 {
        self.rest.ln_1p()
    }

    /// P of the likeliest token.
    fn top_mass(self) -> f64 {
        1.0 / (1.0 + self.rest)
    }

    /// `(A, Σ P e^(αv) / e^scale)` from `sum = Σ P e^(αv − scale)` over all but the likeliest token, whose v is 0.
    fn partition(self, sum: f64, scale: f64) -> (f64, f64) {
        let total = sum + self.top_mass() * (-scale).exp();
        let others = sum * scale.exp();
        let log_partition =
            if others <= 1.0 { (others - self.rest * self.top_mass()).ln_1p() } else { scale + total.ln() };
        (log_partition, total)
    }

    /// Takes the likeliest token out of a block of logarithms.
    #[inline(always)]
    fn exclude_top(self, tokens: &std::ops::Range<usize>, logs: &mut [f64]) {
        if tokens.contains(&self.top) {
            logs[self.top - tokens.start] = f64::NEG_INFINITY;
        }
    }
}

/// How far a distribution moved from another: KL both ways.
///
/// # Units
/// Nats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Movement {
    /// KL(moved ‖ base): f for the fused model, a for an expert.
    pub forward: f64,
    /// KL(base ‖ moved): g for the fused model, b for an expert.
    pub reverse: f64,
}

impl Movement {
    /// `f + g`: Jeffreys' divergence.
    pub fn sum(self) -> f64 {
        self.forward + self.reverse
    }

    /// The mean of movements, part by part.
    pub fn mean(movements: impl ExactSizeIterator<Item = Self>) -> Self {
        let count = movements.len() as f64;
        movements.fold(Self::default(), |mean, one| Self {
            forward: mean.forward + one.forward / count,
            reverse: mean.reverse + one.reverse / count,
        })
    }
}

/// P̃_α for every α: the large base tilted along one expert's shift.
///
/// # Examples
/// The shift doubles the odds of the second token; a base with the same certainty moves just as far at α = 1:
/// ```
/// use align_fusion::tilt::Tilt;
///
/// let (base, expert) = ([0.0, 0.0], [0.0, 2.0f32.ln()]);
/// let tilt = Tilt::new(&base, &base, &expert);
/// let moved = tilt.moments(1.0).movement();
/// assert!((moved.forward - tilt.target().forward).abs() < 1e-15);
/// assert!((moved.reverse - tilt.target().reverse).abs() < 1e-15);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tilt<'a> {
    base: &'a [f32],
    anchor: &'a [f32],
    expert: &'a [f32],
    certainty: Certainty,
    /// expert − anchor at P's likeliest token, which is taken off to give v.
    offset: f64,
    /// μ₀ = E_P[v].
    mean: f64,
    /// The largest v; at least 0.
    highest: f64,
    target: Movement,
}

impl<'a> Tilt<'a> {
    /// The tilt of `base` along `expert − anchor`.
    ///
    /// # Shapes
    /// `[V]` each: finite logits or log-probabilities, each up to a constant.
    ///
    /// # Panics
    /// If the lengths differ or are 0.
    pub fn new(base: &'a [f32], anchor: &'a [f32], expert: &'a [f32]) -> Self {
        Self::all(base, anchor, &[expert])[0]
    }

    /// One tilt for each expert; the exponentials of the two bases are taken once.
    ///
    /// # Panics
    /// If the lengths differ or are 0.
    pub fn all(base: &'a [f32], anchor: &'a [f32], experts: &[&'a [f32]]) -> Vec<Self> {
        assert!(!base.is_empty(), "Tilt: expected at least one token, found none");
        let lengths = experts.iter().map(|expert| expert.len()).chain([anchor.len()]);
        for length in lengths {
            assert_eq!(length, base.len(), "Tilt: expected as many scores as the large base's");
        }
        survey::survey(base, anchor, experts)
    }

    /// a = KL(Q_t ‖ Q) and b = KL(Q ‖ Q_t): how far the expert moved from the small base.
    pub fn target(&self) -> Movement {
        self.target
    }

    /// A, μ, s² and k₃ at one weight, in one pass with one exponential a token.
    pub fn moments(&self, alpha: f64) -> Moments {
        self.moments_about(alpha, 0.0)
    }

    /// A where g is known: `A = g + αμ₀`.
    pub(crate) fn log_partition(&self, alpha: f64, reverse: f64) -> f64 {
        reverse + alpha * self.mean
    }

    /// μ₀ = E_P[v].
    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    /// [`moments`](Self::moments), summed about a guess of μ so that nothing cancels when the variance is small beside it.
    pub(crate) fn moments_about(&self, alpha: f64, mean: f64) -> Moments {
        Direction { tilts: std::slice::from_ref(self), weights: &[1.0] }.moments(alpha, mean)
    }

    /// f and g at `lower`, `lower + step`, … (`count` weights), from two exponentials a token in all: one for P, one for
    /// e^(step·v).
    ///
    /// # Panics
    /// If `step` is negative.
    pub fn grid(&self, lower: f64, step: f64, count: usize) -> Vec<Movement> {
        assert!(step >= 0.0, "Tilt::grid: expected a step of at least 0, found {step}");
        let mut sums = vec![grid::GridSums::default(); count];
        grid::add(self, lower, step, &mut sums);
        let movement = |(k, sums): (usize, &grid::GridSums)| {
            let alpha = lower + step * k as f64;
            let scale = alpha * self.highest;
            if scale > LARGEST_EXPONENT {
                return self.moments(alpha).movement();
            }
            let (log_partition, total) = self.certainty.partition(sums.total, scale);
            Movement {
                forward: (alpha * sums.shifted / total - log_partition).max(0.0),
                reverse: (log_partition - alpha * self.mean).max(0.0),
            }
        };
        sums.iter().enumerate().map(movement).collect()
    }

    /// `log P` and v, in f64 as plain vectors, for code that prefers clarity to speed.
    pub(crate) fn columns(&self) -> (Vec<f64>, Vec<f64>) {
        let Certainty { peak, .. } = self.certainty;
        let log_norm = self.certainty.log_norm();
        let log_p = self.base.iter().map(|&score| f64::from(score) - peak - log_norm).collect();
        let shift = |(&expert, &anchor): (&f32, &f32)| f64::from(expert) - f64::from(anchor) - self.offset;
        (log_p, self.expert.iter().zip(self.anchor).map(shift).collect())
    }
}
