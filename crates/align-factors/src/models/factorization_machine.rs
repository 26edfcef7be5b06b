//! All pairs of columns, through a few latent numbers of each.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::weights::{Init, on_host};
use crate::attribution::Terms;
use crate::{Network, PairTerm};

/// `f(x) = c + β·x + Σ_{i<j} (v_i·v_j) x_i x_j`: every pair has a weight, and they cost C·K numbers, not C².
///
/// No interaction goes beyond pairs, so that one antithetic pair of orders gives its attributions exactly.
///
/// # Source
/// Rendle 2010, "Factorization machines", eq. 1; the pair terms as `½ Σ_k [(Σ_i v_ik x_i)² − Σ_i v_ik² x_i²]`, lemma 3.1.
#[derive(Module, Debug)]
pub struct FactorizationMachine {
    /// β, `[C, 1]`.
    pub weights: Param<Tensor<2>>,
    /// The latent vectors v, `[C, K]`.
    pub latent: Param<Tensor<2>>,
    /// c, `[1]`.
    pub bias: Param<Tensor<1>>,
}

impl FactorizationMachine {
    /// For rows of `columns` numbers, with `rank` latent numbers for each column and `center`, the mean label, as c.
    ///
    /// Linear weights start with deviation 0.01, latent numbers with 0.1: from 0 they would have no gradient.
    ///
    /// # Panics
    /// If the rank is 0.
    pub fn new(columns: usize, rank: usize, center: f64, seed: u64, device: &Device) -> Self {
        assert!(rank > 0, "FactorizationMachine: a rank of at least 1");
        let mut init = Init::new(seed, device);
        Self {
            weights: init.normal([columns, 1], 0.01),
            latent: init.normal([columns, rank], 0.1),
            bias: init.constant(center, 1),
        }
    }
}

impl Network for FactorizationMachine {
    fn forward(&self, rows: Tensor<2>) -> Tensor<1> {
        let latent = self.latent.val();
        let sums = rows.clone().matmul(latent.clone()).square();
        let squares = rows.clone().square().matmul(latent.square());
        let pairs = (sums - squares).sum_dim(1).mul_scalar(0.5);
        (rows.matmul(self.weights.val()) + pairs).squeeze_dim(1) + self.bias.val()
    }

    fn terms(&self) -> Option<Terms<'_>> {
        let [columns, rank] = self.latent.val().dims();
        let latent = on_host(self.latent.val());
        let dot = |i: usize, j: usize| {
            let vector = |column: usize| &latent[column * rank..(column + 1) * rank];
            vector(i).iter().zip(vector(j)).map(|(a, b)| a * b).sum::<f64>()
        };
        let pairs = (0..columns)
            .flat_map(|i| (i + 1..columns).map(move |j| (i, j)))
            .map(|(i, j)| PairTerm { first: i, second: j, weight: dot(i, j) })
            .collect();
        Some(Terms { pairs, ..Terms::linear(&on_host(self.weights.val()), on_host(self.bias.val())[0]) })
    }
}
