//! A weighted sum.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::weights::{Init, on_host};
use crate::Network;
use crate::attribution::Terms;

/// `f(x) = β·x + c`: linear regression, or the logit of logistic regression, as the loss decides.
#[derive(Module, Debug)]
pub struct Linear {
    /// β, `[C, 1]`.
    pub weights: Param<Tensor<2>>,
    /// c, `[1]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// For rows of `columns` numbers, with small normal weights and `center`, the mean label, as c. The convex losses do not care
    /// where they start; weights that are all 0 would have no importances.
    pub fn new(columns: usize, center: f64, seed: u64, device: &Device) -> Self {
        let mut init = Init::new(seed, device);
        Self { weights: init.normal([columns, 1], START), bias: init.constant(center, 1) }
    }
}

/// Deviation of the first weights of linear terms.
const START: f64 = 0.01;

impl Network for Linear {
    fn forward(&self, rows: Tensor<2>) -> Tensor<1> {
        rows.matmul(self.weights.val()).squeeze_dim(1) + self.bias.val()
    }

    fn terms(&self) -> Option<Terms<'_>> {
        Some(Terms::linear(&on_host(self.weights.val()), on_host(self.bias.val())[0]))
    }
}
