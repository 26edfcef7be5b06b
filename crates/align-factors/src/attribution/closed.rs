//! Shapley values in closed form, of models whose score is a sum of terms of one column and of two.

use std::fmt;

use crate::attribution::question::Question;
use crate::attribution::{Attributions, Baseline, Method, Structure};
use crate::{Factors, FactorsError, Matrix, PairTerm, Scorer};

/// A score as a sum of terms: `f(x) = c + Σ_k s_k(x_k) + Σ w_kl x_k x_l`. Linear models, additive models (stumps, splines) and
/// factorisation machines are of this form.
///
/// # Examples
/// ```
/// use align_factors::attribution::{Baseline, Curve, Terms, closed};
/// use align_factors::{Factors, Matrix, PairTerm};
///
/// let terms = Terms {
///     constant: 1.0,
///     curves: vec![Curve::Flat, Curve::Flat, Curve::Line(2.0)],
///     pairs: vec![PairTerm { first: 0, second: 1, weight: 1.0 }],
/// };
/// let rows = Matrix::from_rows(&[[3.0, 2.0, -1.0]]);
/// let factors = Factors::columns(["age", "income", "health"])?;
/// let attributions = closed(&terms, &rows, &factors, &Baseline::Row(vec![1.0, 0.5, 0.0]))?;
/// assert_eq!(attributions.values.row(0), [2.5, 3.0, -2.0]);
/// # Ok::<(), align_factors::FactorsError>(())
/// ```
#[derive(Debug)]
pub struct Terms<'a> {
    /// c.
    pub constant: f64,
    /// s_k of every column.
    pub curves: Vec<Curve<'a>>,
    /// The products. A column paired with itself is its square.
    pub pairs: Vec<PairTerm>,
}

/// A term of one column.
pub enum Curve<'a> {
    /// Nothing.
    Flat,
    /// β x.
    Line(f64),
    /// Any function.
    Function(Box<dyn Fn(f64) -> f64 + Sync + 'a>),
}

impl Terms<'_> {
    /// A linear model `c + β·x`.
    pub fn linear(coefficients: &[f64], constant: f64) -> Self {
        let curves = coefficients.iter().map(|&slope| Curve::Line(slope)).collect();
        Self { constant, curves, pairs: Vec::new() }
    }

    fn score(&self, row: &[f64]) -> f64 {
        let curves = self.curves.iter().zip(row).map(|(curve, &x)| curve.at(x));
        let pairs = self.pairs.iter().map(|pair: &PairTerm| pair.weight * row[pair.first] * row[pair.second]);
        self.constant + curves.chain(pairs).sum::<f64>()
    }
}

impl Scorer for Terms<'_> {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        rows.rows().map(|row| self.score(row)).collect()
    }

    fn structure(&self) -> Structure<'_> {
        let curves = self.curves.iter().map(Curve::borrowed).collect();
        Structure::Terms(Terms { constant: self.constant, curves, pairs: self.pairs.clone() })
    }
}

impl Curve<'_> {
    /// s(x).
    pub fn at(&self, x: f64) -> f64 {
        match self {
            Self::Flat => 0.0,
            Self::Line(slope) => slope * x,
            Self::Function(function) => function(x),
        }
    }

    fn borrowed(&self) -> Curve<'_> {
        match self {
            Self::Flat => Curve::Flat,
            Self::Line(slope) => Curve::Line(*slope),
            Self::Function(function) => Curve::Function(Box::new(function)),
        }
    }
}

impl fmt::Debug for Curve<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flat => formatter.write_str("Flat"),
            Self::Line(slope) => formatter.debug_tuple("Line").field(slope).finish(),
            Self::Function(_) => formatter.write_str("Function(..)"),
        }
    }
}

/// Shapley values of a sum of terms, with E the mean over the background (over the one baseline row, if there is one):
///
/// | term | goes to |
/// | --- | --- |
/// | `s_k(x_k)` | the factor of k: `s_k(x_k) − E s_k(b_k)`; for a line `β (x_k − E b_k)` |
/// | `w x_k x_l`, k and l of two factors | that of k: `w E (x_k − b_k)(x_l + b_l)/2`; that of l likewise |
/// | `w x_k x_l`, k and l of one factor | it: `w (x_k x_l − E b_k b_l)` |
///
/// # Shapes
/// `[N, C]` rows in d factors give `[N, d]`. Costs as much as N scores.
///
/// # Errors
/// [`FactorsError::InvalidCount`] if there are no rows or no background, [`FactorsError::NonFinite`] if a score is not finite.
///
/// # Panics
/// If terms, rows, baseline and factors differ in width.
///
/// # Source
/// Linear and additive: Lundberg and Lee 2017, corollary 1, <https://arxiv.org/abs/1705.07874>. Pairs: the mean over both
/// orders, `w (x_k − b_k) b_l` before l is switched on and `w (x_k − b_k) x_l` after.
pub fn closed(
    terms: &Terms<'_>,
    rows: &Matrix,
    factors: &Factors,
    baseline: &Baseline,
) -> Result<Attributions, FactorsError> {
    assert_eq!(terms.curves.len(), factors.width(), "closed: curves and columns");
    let question = Question::new(rows, factors, baseline)?;
    let scores = question.scores(terms)?;
    let background = &*question.background;
    let mean = |of: &dyn Fn(&[f64]) -> f64| background.rows().map(of).sum::<f64>() / background.len() as f64;
    let means: Vec<f64> = (0..background.width()).map(|k| mean(&|b| b[k])).collect();
    let curves: Vec<f64> =
        terms.curves.iter().enumerate().map(|(k, curve)| mean(&|b| curve.at(b[k]))).collect();
    let products: Vec<f64> =
        terms.pairs.iter().map(|pair| mean(&|b| b[pair.first] * b[pair.second])).collect();

    let mut values = vec![0.0; rows.len() * factors.len()];
    for (x, phi) in rows.rows().zip(values.chunks_exact_mut(factors.len())) {
        for (k, curve) in terms.curves.iter().enumerate() {
            phi[factors.of_column(k)] += curve.at(x[k]) - curves[k];
        }
        for (&PairTerm { first: k, second: l, weight }, product) in terms.pairs.iter().zip(&products) {
            let (of_k, of_l) = (factors.of_column(k), factors.of_column(l));
            let change = x[k] * x[l] - product;
            if of_k == of_l {
                phi[of_k] += weight * change;
            } else {
                // E (x_k − b_k)(x_l + b_l) and its mirror image: half the change, and what they do not have in common.
                let apart = x[k] * means[l] - x[l] * means[k];
                phi[of_k] += weight * (change + apart) / 2.0;
                phi[of_l] += weight * (change - apart) / 2.0;
            }
        }
    }
    Ok(question.answer(Method::Closed {}, Matrix::new(values, factors.len()), scores))
}
