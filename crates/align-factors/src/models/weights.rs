//! Initial weights, decided by a seed alone.

use align_core::Draws;
use align_core::draws::Purpose;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// Seeded weights of one network; every tensor takes the next list of draws.
pub(super) struct Init<'a> {
    draws: Draws,
    device: &'a Device,
    lists: u64,
}

impl<'a> Init<'a> {
    pub(super) fn new(seed: u64, device: &'a Device) -> Self {
        Self { draws: Draws::new(seed), device, lists: 0 }
    }

    /// Normal draws of a given standard deviation.
    pub(super) fn normal(&mut self, [rows, columns]: [usize; 2], deviation: f64) -> Param<Tensor<2>> {
        let list = self.lists;
        self.lists += 1;
        let draw = |index| (deviation * self.draws.normal(Purpose::Initialize, list, index)) as f32;
        let values: Vec<f32> = (0..(rows * columns) as u64).map(draw).collect();
        let data = TensorData::new(values, [rows, columns]);
        Param::from_tensor(Tensor::from_data(data, (self.device, DType::F32)))
    }

    /// One number, repeated.
    pub(super) fn constant(&self, value: f64, length: usize) -> Param<Tensor<1>> {
        Param::from_tensor(Tensor::full([length], value, (self.device, DType::F32)))
    }
}

/// The numbers of a tensor, row by row.
pub(super) fn on_host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.to_data().iter::<f64>().collect()
}

/// An affine map `x·W + b` of rows.
#[derive(Module, Debug)]
pub(super) struct Affine {
    pub(super) weight: Param<Tensor<2>>,
    pub(super) bias: Param<Tensor<1>>,
}

impl Affine {
    /// Normal weights of deviation `1/√inputs`, which keep the scale of standardised inputs (LeCun et al. 1998), and biases 0.
    pub(super) fn new(init: &mut Init<'_>, inputs: usize, outputs: usize) -> Self {
        let weight = init.normal([inputs, outputs], (inputs as f64).sqrt().recip());
        Self { weight, bias: init.constant(0.0, outputs) }
    }

    /// # Shapes
    /// `[N, inputs]` → `[N, outputs]`.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val()) + self.bias.val().unsqueeze()
    }

    /// `[inputs, outputs]`.
    pub(super) fn dims(&self) -> [usize; 2] {
        self.weight.val().dims()
    }
}
