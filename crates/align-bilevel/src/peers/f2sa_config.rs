//! Settings of F2SA: three power laws, and what ties them.

use std::num::NonZeroUsize;

use align_core::number::{Finite, NonNegative, Positive};
use serde::{Deserialize, Serialize};

use super::power::Power;
use super::sampling::Sampling;
use crate::BilevelError;

/// Settings of [`F2sa`](super::F2sa).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct F2saConfig {
    /// T: steps of y and of z before each step of x. 10, as in the public benchmark.
    pub inner_steps: NonZeroUsize,
    /// αₖ, of y and, times ξ, of x. Where `αₖ λₖ > γₖ` the theory's condition is kept by taking `γₖ/λₖ` instead.
    pub alpha: Power,
    /// γₖ, of z.
    pub gamma: Power,
    /// ξ: the step of x over that of y. Constant in the theory; growing as `(k + 1)^(1/7)` it gives the public benchmark's.
    pub xi: Power,
    /// λₖ, which is 1/σ elsewhere in this crate.
    pub multiplier: Multiplier,
    /// ηₖ of recursive momentum, which makes it F3SA: the weight of a fresh gradient, 1 at first.
    pub momentum: Option<Power>,
    /// Curvatures of the problem: where they are given, a multiplier that the theory finds too small is refused.
    pub constants: Option<LowerConstants>,
    /// Minibatches.
    pub sampling: Sampling,
}

/// How λ grows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Multiplier {
    /// As a power of the step, which is what the theory has.
    Power {
        /// λ₀ and its exponent.
        law: Power,
    },
    /// `λₖ₊₁ = λₖ + increment · (k + 1)^(−decay)`.
    ///
    /// With a decay of 1/7, as in the public benchmark, λ grows like k^(6/7) where the theory says k^(1/7).
    Additive {
        /// λ₀.
        first: Positive,
        /// δ.
        increment: NonNegative,
        /// 0 for equal increments.
        #[serde(default = "no_decay")]
        decay: NonNegative,
    },
}

const fn no_decay() -> NonNegative {
    NonNegative::literal(0.0)
}

impl Multiplier {
    /// λ₀.
    pub(super) fn first(&self) -> f64 {
        match self {
            Self::Power { law } => law.first.get(),
            Self::Additive { first, .. } => first.get(),
        }
    }

    /// λ after outer step `step`, at which it was `now`.
    pub(super) fn after(&self, step: u64, now: f64) -> f64 {
        match self {
            Self::Power { law } => law.at(step + 1),
            Self::Additive { increment, decay, .. } => {
                now + increment.get() * ((step + 1) as f64).powf(-decay.get())
            }
        }
    }
}

/// Which gradients have noise; schedules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// Those of both levels.
    Both,
    /// Those of f.
    UpperOnly,
    /// None.
    None,
}

/// Bounds on two curvatures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LowerConstants {
    /// The largest of f in y: the Lipschitz constant of `∇ᵧ f`.
    pub upper_smoothness: Positive,
    /// The least of g in y.
    pub lower_convexity: Positive,
}

impl LowerConstants {
    /// The least multiplier of the theory, `2 l/μ`: `λg + f` is then strongly convex with half the curvature of `λg`.
    pub fn least_multiplier(&self) -> f64 {
        2.0 * self.upper_smoothness.get() / self.lower_convexity.get()
    }
}

impl F2saConfig {
    /// F2SA with the schedules of its theory: α₀ = 0.01, γ₀ = 0.1, λ₀ = 10, ξ = 1, and the published exponents.
    ///
    /// | noise | α | γ | λ |
    /// | --- | --- | --- | --- |
    /// | of both levels | −5/7 | −4/7 | 1/7 |
    /// | of f | −3/5 | −2/5 | 1/5 |
    /// | none | −1/3 | 0 | 1/3 |
    ///
    /// The first values are ours: `α₀λ₀ = γ₀`.
    pub fn f2sa(noise: Noise) -> Self {
        let [alpha, gamma, lambda] = match noise {
            Noise::Both => [-5.0 / 7.0, -4.0 / 7.0, 1.0 / 7.0],
            Noise::UpperOnly => [-3.0 / 5.0, -2.0 / 5.0, 1.0 / 5.0],
            Noise::None => [-1.0 / 3.0, 0.0, 1.0 / 3.0],
        };
        Self {
            inner_steps: NonZeroUsize::new(10).expect("10 is not 0"),
            alpha: law(0.01, alpha),
            gamma: law(0.1, gamma),
            xi: law(1.0, 0.0),
            multiplier: Multiplier::Power { law: law(10.0, lambda) },
            momentum: None,
            constants: None,
            sampling: Sampling::default(),
        }
    }

    /// F3SA: the same with recursive momentum, and exponents for it.
    ///
    /// | noise | α | γ | λ | η |
    /// | --- | --- | --- | --- | --- |
    /// | of both levels | −3/5 | −2/5 | 1/5 | −4/5 |
    /// | of f | −1/2 | −1/4 | 1/4 | −1/2 |
    /// | none | −1/3 | 0 | 1/3 | 0 |
    ///
    /// Those of λ are published. We chose α and γ so that `αλ` decays like γ, and η like `γ²`; η begins at 1.
    pub fn f3sa(noise: Noise) -> Self {
        let [alpha, gamma, lambda, eta] = match noise {
            Noise::Both => [-3.0 / 5.0, -2.0 / 5.0, 1.0 / 5.0, -4.0 / 5.0],
            Noise::UpperOnly => [-1.0 / 2.0, -1.0 / 4.0, 1.0 / 4.0, -1.0 / 2.0],
            Noise::None => [-1.0 / 3.0, 0.0, 1.0 / 3.0, 0.0],
        };
        Self {
            alpha: law(0.01, alpha),
            gamma: law(0.1, gamma),
            multiplier: Multiplier::Power { law: law(10.0, lambda) },
            momentum: Some(law(1.0, eta)),
            ..Self::f2sa(noise)
        }
    }

    /// Refuses momentum weights that leave (0, 1], and a first multiplier below what the constants ask for.
    pub(super) fn check(&self) -> Result<(), BilevelError> {
        if let Some(law) = self.momentum
            && (law.first.get() > 1.0 || law.exponent.get() > 0.0)
        {
            let value = if law.first.get() > 1.0 { law.first.get() } else { law.at(1) };
            return Err(BilevelError::InvalidWeight { name: "eta", value });
        }
        let least = self.constants.map_or(0.0, |constants| constants.least_multiplier());
        match self.multiplier.first() >= least {
            true => Ok(()),
            false => Err(BilevelError::InvalidMultiplier { least, value: self.multiplier.first() }),
        }
    }
}

impl Default for F2saConfig {
    /// F2SA with noise in both levels: the slowest schedules, which suit every case.
    fn default() -> Self {
        Self::f2sa(Noise::Both)
    }
}

/// `first · (k + 1)^exponent`.
fn law(first: f64, exponent: f64) -> Power {
    Power::new(Positive::literal(first), Finite::literal(exponent))
}
