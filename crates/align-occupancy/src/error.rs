//! What can go wrong with occupancies, and with what is said about them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which distribution a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowOf {
    /// The start distribution; it has one row.
    Start,
    /// π(·|s), counted by state.
    Policy,
    /// p(·|s,a), counted by pair: `state · A + action`.
    Kernel,
    /// A vector of token or cell probabilities; it has one row.
    Probabilities,
}

impl fmt::Display for RowOf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Start => "start distribution",
            Self::Policy => "policy",
            Self::Kernel => "transition kernel",
            Self::Probabilities => "probabilities",
        })
    }
}

/// Which of the two rewards is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhichReward {
    /// The one that is optimised.
    Proxy,
    /// The one that is meant.
    Gold,
}

impl fmt::Display for WhichReward {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Proxy => "proxy reward",
            Self::Gold => "gold reward",
        })
    }
}

/// Why a world, a policy, an estimate or a bound was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OccupancyError {
    /// γ = 1 has no normalised occupancy.
    #[error("the discount must be in [0, 1), found {found}")]
    Discount {
        /// What was given.
        found: f64,
    },
    /// A row that is not a distribution because of its sum.
    #[error("row {row} of the {of} must sum to 1 within 1e-6, found a sum of {sum}")]
    RowSum {
        /// Whose row.
        of: RowOf,
        /// Which one.
        row: usize,
        /// What it sums to.
        sum: f64,
    },
    /// A row that is not a distribution because of one entry.
    #[error("entry {column} of row {row} of the {of} must be a probability, found {found}")]
    RowEntry {
        /// Whose row.
        of: RowOf,
        /// Which one.
        row: usize,
        /// Where in it.
        column: usize,
        /// What stands there.
        found: f64,
    },
    /// A row with another number of entries than its neighbours, or none.
    #[error("row {row} of the {of} must have {expected} entries, found {found}")]
    RowLength {
        /// Whose row.
        of: RowOf,
        /// Which one.
        row: usize,
        /// How many entries it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// An occupancy has a negative entry, or one that is no number.
    #[error("an occupancy must be finite and not negative, found {found} in cell {cell}")]
    InvalidOccupancyEntry {
        /// Which cell.
        cell: usize,
        /// What stands there.
        found: f64,
    },
    /// An occupancy that is no distribution.
    #[error("an occupancy must sum to 1 within 1e-6, found a sum of {sum}")]
    InvalidOccupancy {
        /// What it sums to.
        sum: f64,
    },
    /// χ² and KL are infinite, and no bound holds: the policy goes where the reference never does.
    #[error("the policy puts a mass of {mass} where the reference puts none; no bound holds there")]
    NotAbsolutelyContinuous {
        /// How much of the policy's occupancy lies outside.
        mass: f64,
    },
    /// A reward that is constant where the reference goes: a correlation with it is not defined.
    #[error(
        "the {which} is constant where the reference goes (standard deviation {deviation}); \
             a correlation with it is undefined"
    )]
    DegenerateReward {
        /// The proxy or the gold reward.
        which: WhichReward,
        /// Its standard deviation under the reference.
        deviation: f64,
    },
    /// The bounds divide by r, and λ* presumes r > 0.
    #[error(
        "the proxy must correlate positively with the gold reward where the reference goes, found r = {r}"
    )]
    NotACorrelatedProxy {
        /// The correlation.
        r: f64,
    },
    /// Not a correlation at all.
    #[error("a correlation must be in [-1, 1], found {r}")]
    Correlation {
        /// What was given.
        r: f64,
    },
    /// `D² ≤ χ²` is the Cauchy–Schwarz inequality; estimates that break it do not belong together.
    #[error("estimates contradict each other: the squared proxy gain {} must not exceed chi-squared {chi_squared}", gain * gain)]
    InconsistentEstimates {
        /// χ² of the policy from the reference.
        chi_squared: f64,
        /// D, the proxy gain in reference standard deviations.
        gain: f64,
    },
    /// Too little to estimate from.
    #[error("{what} needs at least {expected} samples, found {found}")]
    TooFewSamples {
        /// What was to be estimated.
        what: &'static str,
        /// How many samples it takes.
        expected: usize,
        /// How many there were.
        found: usize,
    },
    /// A number that would poison everything after it.
    #[error("entry {index} of the {what} is {found}, expected a finite number")]
    NotFinite {
        /// Of what.
        what: &'static str,
        /// Which entry.
        index: usize,
        /// What it was.
        found: f64,
    },
    /// A setting outside its range.
    #[error("`{name}` must be {range}, found {found}")]
    Setting {
        /// Which setting.
        name: &'static str,
        /// What would have been accepted, in words.
        range: &'static str,
        /// What was given.
        found: f64,
    },
    /// A board with a cell that is not on it.
    #[error("the {what} stands on cell {cell}, and the board has {cells} cells")]
    OffTheBoard {
        /// What stands there.
        what: &'static str,
        /// Where.
        cell: usize,
        /// How many cells there are.
        cells: usize,
    },
    /// An iteration that did not end where it should.
    #[error("{what} did not converge: after {iterations} iterations the residual is {residual}")]
    NotConverged {
        /// Which computation.
        what: &'static str,
        /// How long it ran.
        iterations: usize,
        /// How far it was from its end.
        residual: f64,
    },
}

/// Fails on the first entry that is no finite number.
pub(crate) fn all_finite(what: &'static str, numbers: &[f64]) -> Result<(), OccupancyError> {
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(index) => Err(OccupancyError::NotFinite { what, index, found: numbers[index] }),
        None => Ok(()),
    }
}

/// Fails unless the number is finite and above 0.
pub(crate) fn positive(name: &'static str, found: f64) -> Result<f64, OccupancyError> {
    if found > 0.0 && found.is_finite() {
        Ok(found)
    } else {
        Err(OccupancyError::Setting { name, range: "a finite number > 0", found })
    }
}

/// A checked row, divided by its sum: printed probabilities are accepted and become a distribution.
pub(crate) fn distribution(of: RowOf, row: usize, entries: &[f64]) -> Result<Vec<f64>, OccupancyError> {
    if entries.is_empty() {
        return Err(OccupancyError::RowLength { of, row, expected: 1, found: 0 });
    }
    if let Some(column) = entries.iter().position(|p| !p.is_finite() || *p < 0.0) {
        return Err(OccupancyError::RowEntry { of, row, column, found: entries[column] });
    }
    let sum: f64 = entries.iter().sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(OccupancyError::RowSum { of, row, sum });
    }
    Ok(entries.iter().map(|p| p / sum).collect())
}
