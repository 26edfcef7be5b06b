//! Attributions along orders: factors are switched from the baseline to the row one after another.

use align_core::draws::{Draws, Purpose};
use rand::seq::SliceRandom;

use crate::attribution::question::{Coalitions, Question, at_least_one};
use crate::attribution::{Attributions, Baseline, Method};
use crate::{Factors, FactorsError, Matrix, Scorer};

/// Shapley values by antithetic sampling of orders: along an order π, `φ_{π_t} = f(x on π_1..π_t) − f(x on π_1..π_{t−1})`;
/// the mean over `pairs` random orders and their reverses, and over the background.
///
/// Every sum is exact, whatever the orders. The values are exact for models whose factors interact in pairs at most, with one
/// pair of orders already, and unbiased otherwise. Their absolute values are biased upwards by what noise there is, so models
/// must be compared with equal `pairs`: orders depend on the seed, the number of the row and the number of factors alone, and
/// are the same for every model.
///
/// # Shapes
/// `[N, C]` rows in d factors give `[N, d]`. Costs 2·pairs·(d−1)+2 scores for each row and baseline row.
///
/// # Errors
/// [`FactorsError::InvalidCount`] if there are no rows, no background or no pairs, [`FactorsError::NonFinite`] if a score is
/// not finite.
///
/// # Panics
/// If rows, baseline and factors differ in width.
///
/// # Source
/// Castro, Gómez, Tejada 2009, <https://doi.org/10.1016/j.cor.2008.04.004>; reversed orders: Mitchell, Cooper, Frank, Holmes
/// 2022, section 3.1, <https://arxiv.org/abs/2104.12199>.
pub fn permutation<S: Scorer + ?Sized>(
    scorer: &S,
    rows: &Matrix,
    factors: &Factors,
    baseline: &Baseline,
    pairs: usize,
    seed: u64,
) -> Result<Attributions, FactorsError> {
    at_least_one("pairs of orders", pairs)?;
    let orders = |row| {
        let forward = drawn_orders(factors.len(), pairs, seed, row);
        forward.into_iter().flat_map(|order| {
            let reverse = order.iter().rev().copied().collect();
            [order, reverse]
        })
    };
    let orders = Orders { factors, of_row: (0..rows.len()).map(|row| orders(row).collect()).collect() };
    let question = Question::new(rows, factors, baseline)?;
    let scores = question.scores(scorer)?;
    let values = question.mean_over_background(scorer, &orders)?;
    Ok(question.answer(Method::Permutation { pairs, seed }, values, scores))
}

/// φ along given orders, the same for every row, averaged over them and the background.
///
/// # Shapes
/// `[N, C]` rows in d factors give `[N, d]`.
///
/// # Errors
/// [`FactorsError::InvalidCount`] if there are no rows, no background or no orders, [`FactorsError::NonFinite`] if a score is
/// not finite.
///
/// # Panics
/// If rows, baseline and factors differ in width, or an order does not hold every factor once.
///
/// # Examples
/// Whoever comes last gets the interaction, and reversing shares it:
/// ```
/// use align_factors::attribution::{Baseline, along_orders};
/// use align_factors::{Factors, Matrix, ScoreFn};
///
/// let model = ScoreFn(|x: &[f64]| x[0] * x[1]);
/// let (rows, factors) = (Matrix::from_rows(&[[3.0, 2.0]]), Factors::columns(["first", "second"])?);
/// let phi = |orders: &[Vec<usize>]| {
///     along_orders(&model, &rows, &factors, &Baseline::Row(vec![0.0; 2]), orders)
/// };
/// assert_eq!(phi(&[vec![0, 1]])?.row(0), [0.0, 6.0]);
/// assert_eq!(phi(&[vec![0, 1], vec![1, 0]])?.row(0), [3.0, 3.0]);
/// # Ok::<(), align_factors::FactorsError>(())
/// ```
pub fn along_orders<S: Scorer + ?Sized>(
    scorer: &S,
    rows: &Matrix,
    factors: &Factors,
    baseline: &Baseline,
    orders: &[Vec<usize>],
) -> Result<Matrix, FactorsError> {
    at_least_one("orders", orders.len())?;
    for order in orders {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..factors.len()), "along_orders: every factor once, found {order:?}");
    }
    let orders = Orders { factors, of_row: vec![orders.to_vec()] };
    Question::new(rows, factors, baseline)?.mean_over_background(scorer, &orders)
}

/// The orders that [`permutation`] draws for one row, without their reverses.
pub fn drawn_orders(factors: usize, pairs: usize, seed: u64, row: usize) -> Vec<Vec<usize>> {
    let mut generator = Draws::new(seed).generator(Purpose::Evaluate, row as u64);
    let mut order: Vec<usize> = (0..factors).collect();
    let mut next = || {
        order.shuffle(&mut generator);
        order.clone()
    };
    (0..pairs).map(|_| next()).collect()
}

/// Masked rows: x itself, b itself, and along every order what lies between them.
struct Orders<'a> {
    factors: &'a Factors,
    /// The orders of every row, or of all rows alike if there is one entry.
    of_row: Vec<Vec<Vec<usize>>>,
}

impl Orders<'_> {
    fn of_row(&self, row: usize) -> &[Vec<usize>] {
        &self.of_row[row % self.of_row.len()]
    }
}

impl Coalitions for Orders<'_> {
    fn count(&self) -> usize {
        2 + self.of_row[0].len() * (self.factors.len() - 1)
    }

    fn write(&self, row: usize, x: &[f64], b: &[f64], masked: &mut Vec<f64>) {
        masked.extend_from_slice(x);
        masked.extend_from_slice(b);
        let mut present = b.to_vec();
        for order in self.of_row(row) {
            present.copy_from_slice(b);
            for &factor in &order[..order.len() - 1] {
                self.factors.columns_of(factor).iter().for_each(|&column| present[column] = x[column]);
                masked.extend_from_slice(&present);
            }
        }
    }

    fn switched_on(&self, index: usize) -> usize {
        match index {
            0 => self.factors.len(),
            1 => 0,
            _ => 1 + (index - 2) % (self.factors.len() - 1),
        }
    }

    fn attribute(&self, row: usize, scores: &[f64], phi: &mut [f64]) {
        let orders = self.of_row(row);
        let share = 1.0 / orders.len() as f64;
        let between = self.factors.len() - 1;
        for (index, order) in orders.iter().enumerate() {
            let inner = &scores[2 + index * between..][..between];
            let mut before = scores[1];
            for (&factor, &after) in order.iter().zip(inner.iter().chain(&scores[..1])) {
                phi[factor] += share * (after - before);
                before = after;
            }
        }
    }
}
