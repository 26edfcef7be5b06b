//! Numbers that grow or decay like a power of the step.

use align_core::number::{Finite, Positive};
use serde::{Deserialize, Serialize};

/// `first · ((k + offset)/offset)^exponent` at outer step k.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// At step 0.
    pub first: Positive,
    /// Negative to decay, 0 to stay.
    #[serde(default = "zero")]
    pub exponent: Finite,
    /// k₀: how many steps pass before it changes much. With 1, the default, it is `first · (k + 1)^exponent`.
    #[serde(default = "one")]
    pub offset: Positive,
}

const fn zero() -> Finite {
    Finite::literal(0.0)
}

const fn one() -> Positive {
    Positive::literal(1.0)
}

impl Power {
    /// The same number throughout.
    pub const fn constant(value: Positive) -> Self {
        Self { first: value, exponent: zero(), offset: one() }
    }

    /// `first · (k + 1)^exponent`.
    pub const fn new(first: Positive, exponent: Finite) -> Self {
        Self { first, exponent, offset: one() }
    }

    /// The number at an outer step.
    pub fn at(&self, step: u64) -> f64 {
        let offset = self.offset.get();
        self.first.get() * ((step as f64 + offset) / offset).powf(self.exponent.get())
    }
}
