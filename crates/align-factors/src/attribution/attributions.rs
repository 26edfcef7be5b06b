//! Attributions: what every factor adds to every score.

use std::fmt;

use crate::attribution::Method;
use crate::{FactorsError, Matrix};

/// Additive attributions of N rows: `f(x) = φ₀ + Σ_j φ_j(x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attributions {
    /// How they were computed.
    pub method: Method,
    /// φ, a row for every row that was explained, a column for every factor.
    pub values: Matrix,
    /// φ₀: the mean score of the baseline, or what a forest expects of a row it knows nothing of.
    pub base: f64,
    /// f(x) of every row.
    pub scores: Vec<f64>,
    /// What a reader of the attributions should know.
    pub warnings: Vec<AttributionWarning>,
}

impl Attributions {
    /// How far the sums are from what they should be: the largest `|Σ_j φ_j − (f(x) − φ₀)| / max(1, |f(x) − φ₀|)` of a row.
    pub fn residual(&self) -> f64 {
        let of_row = |(phi, score): (&[f64], &f64)| {
            let expected = score - self.base;
            (phi.iter().sum::<f64>() - expected).abs() / expected.abs().max(1.0)
        };
        // `f64::max` would drop a NaN.
        let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
        self.values.rows().zip(&self.scores).map(of_row).fold(0.0, larger)
    }

    /// Refuses attributions that do not add up ("local accuracy").
    ///
    /// # Errors
    /// [`FactorsError::AttributionMismatch`] if the [residual](Self::residual) is not within the tolerance of the precision.
    pub fn check(&self, precision: Precision) -> Result<(), FactorsError> {
        let difference = self.residual();
        // Written as "within", so that NaN fails.
        if difference <= precision.tolerance() {
            return Ok(());
        }
        Err(FactorsError::AttributionMismatch { difference })
    }
}

/// The numbers that scores are computed in, which decide how exactly attributions add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits.
    F32,
    /// 53 bits.
    F64,
}

impl Precision {
    /// How far sums of attributions may be off, relative to the larger of 1 and what they should be: sums of some thousand
    /// rounded terms stay far below, and a method applied to the wrong model does not.
    pub fn tolerance(self) -> f64 {
        match self {
            Self::F32 => 1e-3,
            Self::F64 => 1e-6,
        }
    }
}

/// Something that makes attributions say less than they seem to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributionWarning {
    /// A factor is at the baseline in every row, so that its importance is 0 whatever the model makes of it.
    NeverDiffers {
        /// Its name.
        factor: String,
    },
}

impl fmt::Display for AttributionWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverDiffers { factor } => write!(
                formatter,
                "factor `{factor}` equals the baseline in every row: its importance is 0 whatever the model makes of it"
            ),
        }
    }
}
