//! Attributions that training can differentiate.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::attribution::{Baseline, BaselineConfig};
use crate::{Factors, FactorsError, Matrix, Network};

/// How attributions are estimated while training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// Rows that are attributed at each step. Default 16.
    pub rows: usize,
    /// Pairs of an order and its reverse for each row. Default 1, which is exact for models of pairs.
    pub pairs: usize,
    /// What masked factors are set to. Default the mean of the training rows.
    pub baseline: BaselineConfig,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { rows: 16, pairs: 1, baseline: BaselineConfig::default() }
    }
}

impl ProbeConfig {
    /// Refuses counts of 0.
    ///
    /// # Errors
    /// [`FactorsError::InvalidCount`].
    pub fn check(&self) -> Result<(), FactorsError> {
        for (name, found) in [("attribution rows", self.rows), ("permutation pairs", self.pairs)] {
            if found == 0 {
                return Err(FactorsError::InvalidCount { name, least: 1, found });
            }
        }
        Ok(())
    }
}

/// Masked rows along random orders: what one forward pass needs for differentiable attributions.
///
/// Along an order π, factors are switched from b to x one after another, and the differences of consecutive scores are
/// attributions that sum to `f(x) − f(b)`. They are averaged over orders, each with its reverse, and over the background.
/// Since they are differences of ordinary scores, a loss of them needs first derivatives only; gradients or integrated
/// gradients in a loss would need the derivative of a gradient.
///
/// # Source
/// Ours, from permutation sampling (Castro, Gómez, Tejada 2009); which attributions arXiv 2402.12398 trains on is not confirmed.
#[derive(Clone, Debug)]
pub struct Probe {
    /// `[paths · (d + 1), C]`.
    inputs: Tensor<2>,
    /// Of every path and factor, the place in the order, `[paths, d]`.
    places: Tensor<2, Int>,
    rows: usize,
}

impl Probe {
    /// Rows attributed along the given orders, the same number for each row.
    ///
    /// # Panics
    /// If widths differ, there are no rows, a row has no orders or another number of them, or an order is no permutation of the
    /// factors.
    pub fn new(
        rows: &Matrix,
        orders: &[Vec<Vec<usize>>],
        factors: &Factors,
        baseline: &Baseline,
        (device, dtype): (&Device, DType),
    ) -> Self {
        let background = baseline.rows();
        assert!(!rows.is_empty() && rows.len() == orders.len(), "Probe: orders for each row");
        assert_eq!((rows.width(), background.width()), (factors.width(), factors.width()), "Probe: widths");
        let (d, per_row) = (factors.len(), orders[0].len());
        let paths = rows.len() * background.len() * per_row;
        assert!(paths > 0, "Probe: at least one order and one row of the background");
        let mut inputs = Vec::with_capacity(paths * (d + 1) * rows.width());
        let mut places = Vec::with_capacity(paths * d);
        for (x, orders) in rows.rows().zip(orders) {
            assert_eq!(orders.len(), per_row, "Probe: as many orders for every row");
            for b in background.rows() {
                for order in orders {
                    push_path(&mut inputs, x, b, order, factors);
                    push_places(&mut places, order, d);
                }
            }
        }
        let inputs = TensorData::new(inputs, [paths * (d + 1), rows.width()]);
        let places = TensorData::new(places, [paths, d]);
        Self {
            inputs: Tensor::from_data(inputs, (device, dtype)),
            places: Tensor::from_data(places, device),
            rows: rows.len(),
        }
    }

    /// φ of every row, from one forward pass.
    ///
    /// # Shapes
    /// Returns `[N, d]`.
    ///
    /// # Gradient
    /// Through the network's parameters.
    pub fn attributions<N: Network>(&self, network: &N) -> Tensor<2> {
        let [paths, d] = self.places.dims();
        let scores = network.forward(self.inputs.clone()).reshape([paths, d + 1]);
        let after = scores.clone().slice([0..paths, 1..d + 1]);
        let differences = after - scores.slice([0..paths, 0..d]);
        let of_paths = differences.gather(1, self.places.clone());
        of_paths.reshape([self.rows, paths / self.rows, d]).mean_dim(1).squeeze_dim(1)
    }
}

/// Random orders of d factors for each of `rows` rows: `pairs` orders and their reverses.
///
/// For models without interactions beyond pairs one pair is exact, whichever it is.
pub fn antithetic_orders(rows: usize, d: usize, pairs: usize, rng: &mut impl Rng) -> Vec<Vec<Vec<usize>>> {
    let pair = |rng: &mut _| {
        let mut order: Vec<usize> = (0..d).collect();
        order.shuffle(rng);
        let reverse: Vec<usize> = order.iter().rev().copied().collect();
        [order, reverse]
    };
    (0..rows).map(|_| (0..pairs).flat_map(|_| pair(rng)).collect()).collect()
}

/// b, then b with one more factor of x after another.
fn push_path(inputs: &mut Vec<f64>, x: &[f64], b: &[f64], order: &[usize], factors: &Factors) {
    inputs.extend_from_slice(b);
    for &factor in order {
        let before = inputs.len() - b.len();
        inputs.extend_from_within(before..);
        let row = inputs.len() - b.len();
        for &column in factors.columns_of(factor) {
            inputs[row + column] = x[column];
        }
    }
}

/// Of every factor, its place in an order.
fn push_places(places: &mut Vec<i32>, order: &[usize], d: usize) {
    const NOWHERE: i32 = -1;
    let start = places.len();
    places.resize(start + d, NOWHERE);
    for (place, &factor) in order.iter().enumerate() {
        places[start + factor] = place as i32;
    }
    assert!(
        order.len() == d && !places[start..].contains(&NOWHERE),
        "Probe: every factor once, not {order:?}"
    );
}
