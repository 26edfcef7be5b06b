//! Asking a preference oracle and trusting its answers: every one a probability, both orders in agreement.
//!
//! The theory of preference games rests on `P(a ≻ b) + P(b ≻ a) = 1`. A reward read as a preference has it by
//! construction; a language model asked which of two texts is better has a liking for the first or the second place, and
//! does not.

use burn::tensor::Tensor;

use crate::batch::Completions;
use crate::judge::Preference;

/// How far the two orders of a pair may be from adding up to 1 before an oracle is refused: far above the rounding of f32,
/// far below a liking for a place.
pub const ANTISYMMETRY_TOLERANCE: f64 = 1e-3;

/// What a sum of f32 may leave [0, 1] by: a mixture of criteria that all say 1 need not add up to 1 in the last digit.
const ROUNDING: f64 = 1e-6;

/// Why the answers of a preference oracle cannot be used. Rows are counted over the whole batch that was asked about.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OracleError {
    /// An answer that is no probability.
    #[error("the oracle's preference for row {row} is {found}, expected a number in [0, 1]")]
    NotAProbability {
        /// Which pair.
        row: usize,
        /// What the oracle answered.
        found: f64,
    },
    /// The oracle gave no answer and said why.
    #[error("the oracle's preference for row {row} is {found}: {reason}")]
    Failed {
        /// Which pair, the first without an answer.
        row: usize,
        /// What stood in the answer's place.
        found: f64,
        /// What the oracle said.
        reason: String,
    },
    /// It answered about other rows than it was asked about.
    #[error("the oracle gave {found} preferences for the pairs from row {row} on, expected {expected}")]
    Count {
        /// The first pair of the microbatch.
        row: usize,
        /// How many pairs it was asked about.
        expected: usize,
        /// How many answers came.
        found: usize,
    },
    /// The two orders of a pair contradict each other.
    #[error(
        "the oracle is not antisymmetric: the preferences for row {row} are {forward} and, exchanged, {backward}, which is {excess:+} off a sum of 1, expected at most {tolerance}; average both orders"
    )]
    NotAntisymmetric {
        /// The pair on which they are furthest apart.
        row: usize,
        /// P(first ≻ second).
        forward: f64,
        /// P(second ≻ first).
        backward: f64,
        /// `forward + backward − 1`.
        excess: f64,
        /// What was allowed.
        tolerance: f64,
    },
}

/// An oracle's answer as a probability; `None` if it is none. What lies outside [0, 1] by no more than 10⁻⁶ is the rounding of an
/// f32 sum and brought to the nearer end.
pub fn probability(answer: f64) -> Option<f64> {
    // NaN is within nothing.
    (-ROUNDING..=1.0 + ROUNDING).contains(&answer).then(|| answer.clamp(0.0, 1.0))
}

/// Asks about every pair, at most `microbatch` at a time, and lets nothing but a [`probability`] through.
///
/// # Shapes
/// B rows, `first` and `second` of the same prompts → B numbers, P(first ≻ second).
///
/// # Panics
/// If `first` and `second` have different numbers of rows, or `microbatch` is 0.
///
/// # Errors
/// The first row whose answer is no probability, with the oracle's reason if it has one; a wrong number of answers.
pub fn checked_preferences(
    oracle: &dyn Preference,
    first: &Completions,
    second: &Completions,
    microbatch: usize,
) -> Result<Vec<f64>, OracleError> {
    let size = first.batch_size();
    assert_eq!(size, second.batch_size(), "checked_preferences: as many second answers as first ones");
    assert!(microbatch > 0, "checked_preferences: a microbatch holds at least one pair");
    let rows: Vec<usize> = (0..size).collect();
    let mut preferences = Vec::with_capacity(size);
    for part in rows.chunks(microbatch) {
        let answer = match part.len() == size {
            true => oracle.prefer(first, second),
            false => oracle.prefer(&first.select(part), &second.select(part)),
        };
        let found: Vec<f64> = answer.into_data().iter::<f64>().collect();
        if found.len() != part.len() {
            return Err(OracleError::Count { row: part[0], expected: part.len(), found: found.len() });
        }
        for (&row, found) in part.iter().zip(found) {
            match probability(found) {
                Some(preference) => preferences.push(preference),
                None => {
                    return Err(match oracle.take_failure() {
                        Some(reason) => OracleError::Failed { row, found, reason },
                        None => OracleError::NotAProbability { row, found },
                    });
                }
            }
        }
    }
    Ok(preferences)
}

/// Asks about every pair in both orders and refuses an oracle whose answers do not add up to 1. A few pairs are enough.
///
/// # Panics
/// If `first` and `second` have different numbers of rows, or none.
///
/// # Errors
/// The row on which `|P(a ≻ b) + P(b ≻ a) − 1|` is largest, if that is above `tolerance`
/// ([`ANTISYMMETRY_TOLERANCE`] unless there is a reason for another); otherwise as [`checked_preferences`].
///
/// # Examples
/// ```
/// use align_core::oracle::ANTISYMMETRY_TOLERANCE;
/// use align_core::{Completions, OrderAveraged, PreferenceFn, check_antisymmetry};
/// use align_testkit::device;
/// use burn::Tensor;
///
/// // A judge that likes whatever it is shown first.
/// let judge = PreferenceFn(|first: &Completions, _: &Completions| Tensor::full([first.batch_size()], 0.7, &device()));
/// let answers = Completions::from_rows(&[vec![1]], &[vec![2]], &device());
/// let error = check_antisymmetry(&judge, &answers, &answers, ANTISYMMETRY_TOLERANCE).unwrap_err();
/// assert!(error.to_string().contains("not antisymmetric"));
/// check_antisymmetry(&OrderAveraged(judge), &answers, &answers, ANTISYMMETRY_TOLERANCE)?;
/// # Ok::<(), align_core::OracleError>(())
/// ```
pub fn check_antisymmetry(
    oracle: &dyn Preference,
    first: &Completions,
    second: &Completions,
    tolerance: f64,
) -> Result<(), OracleError> {
    let forward = checked_preferences(oracle, first, second, first.batch_size())?;
    let backward = checked_preferences(oracle, second, first, first.batch_size())?;
    let excess = |row: usize| forward[row] + backward[row] - 1.0;
    let row = (0..forward.len())
        .max_by(|&a, &b| excess(a).abs().total_cmp(&excess(b).abs()))
        .expect("a batch has a row");
    if excess(row).abs() <= tolerance {
        return Ok(());
    }
    let (forward, backward) = (forward[row], backward[row]);
    Err(OracleError::NotAntisymmetric { row, forward, backward, excess: excess(row), tolerance })
}

/// An oracle asked in both orders: `P(a ≻ b) = ½(p(a, b) + 1 − p(b, a))`. Removes any liking for the first or the second place;
/// what is left is antisymmetric, to the rounding of f32.
///
/// # Source
/// The pair model of RLHFlow is used so: Dong et al. 2024, <https://arxiv.org/abs/2405.07863>; Zheng et al. 2023, §3.4, on
/// position bias, <https://arxiv.org/abs/2306.05685>.
#[derive(Clone, Debug)]
pub struct OrderAveraged<P>(pub P);

impl<P: Preference> Preference for OrderAveraged<P> {
    /// Asks twice.
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let (forward, backward) = (self.0.prefer(first, second), self.0.prefer(second, first));
        (forward - backward + 1.0) / 2.0
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.0.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.0.take_failure()
    }
}
