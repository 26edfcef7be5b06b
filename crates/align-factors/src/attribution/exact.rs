//! Shapley values by enumeration.

use crate::attribution::question::{Coalitions, Question};
use crate::attribution::{Attributions, Baseline, Method};
use crate::{Factors, FactorsError, Matrix, Scorer};

/// The most factors whose coalitions are enumerated: 2¹² = 4096 masked rows for each row and baseline row.
pub const MOST_ENUMERATED: usize = 12;

/// Shapley values of any model by enumeration of all coalitions:
/// `φ_j(x) = Σ_{S ∌ j} |S|! (d−|S|−1)! / d! · (v(S+j) − v(S))` with `v(S) = f(x on S, b elsewhere)`, averaged over the
/// background. Columns of one factor are masked together.
///
/// A factor that the model ignores gets exactly 0.
///
/// # Shapes
/// `[N, C]` rows in d factors give `[N, d]`. Costs 2ᵈ scores for each row and baseline row.
///
/// # Errors
/// [`FactorsError::TooManyFactors`] if d > 12, [`FactorsError::InvalidCount`] if there are no rows or no background,
/// [`FactorsError::NonFinite`] if a score is not finite.
///
/// # Panics
/// If rows, baseline and factors differ in width.
///
/// # Source
/// Shapley 1953; Lundberg and Lee 2017, eq. 8, <https://arxiv.org/abs/1705.07874>.
///
/// # Examples
/// An interaction is shared by halves:
/// ```
/// use align_factors::attribution::{Baseline, exact};
/// use align_factors::{Factors, Matrix, ScoreFn};
///
/// let model = ScoreFn(|x: &[f64]| 1.0 + x[0] * x[1] + 2.0 * x[2]);
/// let rows = Matrix::from_rows(&[[3.0, 2.0, -1.0]]);
/// let factors = Factors::columns(["age", "income", "health"])?;
/// let attributions = exact(&model, &rows, &factors, &Baseline::Row(vec![1.0, 0.5, 0.0]))?;
/// assert_eq!(attributions.values.row(0), [2.5, 3.0, -2.0]);
/// # Ok::<(), align_factors::FactorsError>(())
/// ```
pub fn exact<S: Scorer + ?Sized>(
    scorer: &S,
    rows: &Matrix,
    factors: &Factors,
    baseline: &Baseline,
) -> Result<Attributions, FactorsError> {
    let question = Question::new(rows, factors, baseline)?;
    let found = factors.len();
    if found > MOST_ENUMERATED {
        return Err(FactorsError::TooManyFactors { most: MOST_ENUMERATED, found });
    }
    let scores = question.scores(scorer)?;
    let values = question.mean_over_background(scorer, &Enumeration::new(factors))?;
    Ok(question.answer(Method::Exact {}, values, scores))
}

/// All subsets of the factors, as bits.
struct Enumeration<'a> {
    factors: &'a Factors,
    /// `|S|! (d−|S|−1)! / d!` for every size of S.
    weights: Vec<f64>,
}

impl<'a> Enumeration<'a> {
    fn new(factors: &'a Factors) -> Self {
        // w₀ = 1/d and w_s = w_{s−1} · s / (d − s).
        let d = factors.len();
        let weights = (1..d).scan(1.0 / d as f64, |weight, size| {
            *weight *= size as f64 / (d - size) as f64;
            Some(*weight)
        });
        Self { factors, weights: std::iter::once(1.0 / d as f64).chain(weights).collect() }
    }
}

impl Coalitions for Enumeration<'_> {
    fn count(&self) -> usize {
        1 << self.factors.len()
    }

    fn write(&self, _: usize, x: &[f64], b: &[f64], masked: &mut Vec<f64>) {
        for set in 0..self.count() {
            masked.extend((0..x.len()).map(|column| match set >> self.factors.of_column(column) & 1 {
                1 => x[column],
                _ => b[column],
            }));
        }
    }

    fn switched_on(&self, set: usize) -> usize {
        set.count_ones() as usize
    }

    fn attribute(&self, _: usize, scores: &[f64], phi: &mut [f64]) {
        for (factor, phi) in phi.iter_mut().enumerate() {
            let with = 1 << factor;
            let without = (0..scores.len()).filter(|set| set & with == 0);
            *phi += without
                .map(|set| self.weights[set.count_ones() as usize] * (scores[set | with] - scores[set]))
                .sum::<f64>();
        }
    }
}
