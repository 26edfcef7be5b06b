//! Numbers that change over a run: step sizes, the penalty, counts.

use serde::{Deserialize, Serialize};

use crate::BilevelError;

/// A number as a function of the outer step k, out of K in all.
///
/// # Examples
/// ```
/// use align_bilevel::Schedule;
///
/// // σ from 1 to 0.05 over the first 30 of 100 steps.
/// let sigma = Schedule::Geometric { first: 1.0, last: 0.05, share: 0.3 };
/// assert_eq!(sigma.at(0, 100), 1.0);
/// assert!((sigma.at(15, 100) - 0.05f64.sqrt()).abs() < 1e-12);
/// assert_eq!(sigma.at(30, 100), 0.05);
///
/// // η_k = ((k + 10)/10)^(−4/5).
/// let eta = Schedule::Power { first: 1.0, exponent: -0.8, offset: 10.0 };
/// assert!((eta.at(310, 1000) - 32f64.powf(-0.8)).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The same throughout.
    Constant {
        /// The number.
        value: f64,
    },
    /// `first · (last/first)^(k / (share · K))`, and `last` from the step `share · K` on.
    Geometric {
        /// At step 0.
        first: f64,
        /// In the end.
        last: f64,
        /// The part of the run that it takes, in (0, 1].
        share: f64,
    },
    /// `first · ((k + offset)/offset)^exponent`.
    Power {
        /// At step 0.
        first: f64,
        /// Negative to decay.
        exponent: f64,
        /// k₀: how many steps pass before the number begins to change much.
        offset: f64,
    },
}

impl Schedule {
    /// The same number throughout.
    pub const fn constant(value: f64) -> Self {
        Self::Constant { value }
    }

    /// The number at `step`, of `steps` in all.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        match *self {
            Self::Constant { value } => value,
            Self::Geometric { first, last, share } => {
                let passed = step as f64 / (share * steps as f64);
                // Written apart, so that what is constant is so to the last bit.
                if passed >= 1.0 { last } else { first * (last / first).powf(passed) }
            }
            Self::Power { first, exponent, offset } => {
                first * ((step as f64 + offset) / offset).powf(exponent)
            }
        }
    }

    /// Every number it may take over a run lies between these two.
    fn ends(&self, steps: u64) -> [f64; 2] {
        [self.at(0, steps), self.at(steps, steps)]
    }

    /// Whether its own shape makes sense, whatever it is the schedule of.
    fn check_shape(&self) -> Result<(), BilevelError> {
        match *self {
            Self::Constant { .. } => Ok(()),
            Self::Geometric { share, .. } => check_weight("the share of a geometric schedule", share),
            Self::Power { offset, .. } => check_step("the offset of a power schedule", offset),
        }
    }

    /// Refuses a step size that is not finite and above 0 at both ends.
    pub(crate) fn check_step(&self, name: &'static str, steps: u64) -> Result<(), BilevelError> {
        self.check_shape()?;
        self.ends(steps).into_iter().try_for_each(|value| check_step(name, value))
    }

    /// Refuses a weight outside (0, 1].
    pub(crate) fn check_weight(&self, name: &'static str, steps: u64) -> Result<(), BilevelError> {
        self.check_shape()?;
        self.ends(steps).into_iter().try_for_each(|value| check_weight(name, value))
    }

    /// Refuses a σ that is not finite and above the floor of [`check_sigma`](crate::check_sigma).
    pub(crate) fn check_sigma(&self, steps: u64, unit_roundoff: f64) -> Result<(), BilevelError> {
        self.check_shape()?;
        self.ends(steps).into_iter().try_for_each(|sigma| crate::check_sigma(sigma, unit_roundoff))
    }
}

/// A count that may grow over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Count {
    /// The same throughout.
    Constant {
        /// The count.
        value: usize,
    },
    /// `⌈value · ((k + offset)/offset)^exponent⌉`.
    Power {
        /// At step 0.
        value: usize,
        /// Positive to grow.
        exponent: f64,
        /// k₀, as in [`Schedule::Power`].
        offset: f64,
    },
    /// `⌈value/σₖ⌉`. Where f breaks ties among minimisers of g, the condition of `σ f + g` is of the order of 1/σ, and so
    /// are the inner steps that it needs.
    OverSigma {
        /// At σ = 1.
        value: usize,
    },
}

impl Count {
    /// The same count throughout.
    pub const fn constant(value: usize) -> Self {
        Self::Constant { value }
    }

    /// The count at outer step `step`, with the penalty there.
    pub fn at(&self, step: u64, sigma: f64) -> usize {
        match *self {
            Self::Constant { value } => value,
            Self::Power { value, exponent, offset } => {
                let power = Schedule::Power { first: value as f64, exponent, offset };
                power.at(step, 0).ceil() as usize
            }
            Self::OverSigma { value } => (value as f64 / sigma).ceil() as usize,
        }
    }

    /// Refuses a count that begins at 0, or at more than there is.
    pub(crate) fn check(&self, name: &'static str, most: usize) -> Result<(), BilevelError> {
        if let Self::Power { offset, .. } = *self {
            check_step("the offset of a power schedule", offset)?;
        }
        check_count(name, self.at(0, 1.0), most)?;
        // At step 1 too: a NaN in the exponent does not show at step 0, where the base is 1.
        check_count(name, self.at(1, 1.0).min(most), most)
    }
}

/// Refuses a weight outside (0, 1].
pub(crate) fn check_weight(name: &'static str, value: f64) -> Result<(), BilevelError> {
    match value > 0.0 && value <= 1.0 {
        true => Ok(()),
        false => Err(BilevelError::InvalidWeight { name, value }),
    }
}

/// Refuses a step size that is not finite and above 0.
pub(crate) fn check_step(name: &'static str, value: f64) -> Result<(), BilevelError> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(BilevelError::InvalidStep { name, value }),
    }
}

/// Refuses a count of none, or of more than there is.
pub(crate) fn check_count(name: &'static str, found: usize, most: usize) -> Result<(), BilevelError> {
    match (1..=most).contains(&found) {
        true => Ok(()),
        false => Err(BilevelError::InvalidCount { name, least: 1, most, found }),
    }
}
