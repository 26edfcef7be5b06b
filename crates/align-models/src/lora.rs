//! Low-rank adapters.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A low-rank update beside a projection: `scale · (x·A)·B`.
#[derive(Module, Debug)]
pub struct Adapter {
    pub(crate) a: Param<Tensor<2>>,
    pub(crate) b: Param<Tensor<2>>,
    #[module(skip)]
    pub(crate) scale: f64,
}

impl Adapter {
    /// # Shapes
    /// `[N, in]` → `[N, out]`.
    pub(crate) fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        rows.matmul(self.a.val()).matmul(self.b.val()) * self.scale
    }
}
