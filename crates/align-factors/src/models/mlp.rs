//! Layers of affine maps.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use serde::{Deserialize, Serialize};

use super::weights::{Affine, Init};
use crate::Network;

/// What bends the hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Smooth and bounded: the gradients of attributions do not jump.
    Tanh,
    /// `max(x, 0)`.
    Relu,
}

/// A multi-layer perceptron: affine maps with an [`Activation`] between them, and one number at the end.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Affine>,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// For rows of `columns` numbers, with hidden layers of the given widths and `center`, the mean label, as the last bias.
    ///
    /// Weights are normal with deviation `1/√inputs`. The center saves the hundreds of steps in which nothing but a constant
    /// would be learned.
    ///
    /// # Panics
    /// If there is no column or a width is 0.
    pub fn new(
        columns: usize,
        hidden: &[usize],
        activation: Activation,
        center: f64,
        seed: u64,
        device: &Device,
    ) -> Self {
        assert!(
            columns > 0 && !hidden.contains(&0),
            "Mlp: widths of at least 1, not {columns} and {hidden:?}"
        );
        let mut init = Init::new(seed, device);
        let inputs = std::iter::once(&columns).chain(hidden);
        let outputs = hidden.iter().chain(std::iter::once(&1));
        let mut layers: Vec<Affine> =
            inputs.zip(outputs).map(|(&inputs, &outputs)| Affine::new(&mut init, inputs, outputs)).collect();
        if let Some(last) = layers.last_mut() {
            last.bias = init.constant(center, 1);
        }
        Self { layers, activation }
    }

    /// The widths of the hidden layers.
    pub fn hidden(&self) -> Vec<usize> {
        self.layers.iter().skip(1).map(|layer| layer.dims()[0]).collect()
    }

    /// How many columns rows have.
    pub fn columns(&self) -> usize {
        self.layers[0].dims()[0]
    }

    /// What bends the hidden layers.
    pub fn activation(&self) -> Activation {
        self.activation
    }
}

impl Network for Mlp {
    fn forward(&self, rows: Tensor<2>) -> Tensor<1> {
        let (last, hidden) = self.layers.split_last().expect("there is an output layer");
        let bend = |x: Tensor<2>| match self.activation {
            Activation::Tanh => align_kernels::tanh(x),
            Activation::Relu => activation::relu(x),
        };
        let x = hidden.iter().fold(rows, |x, layer| bend(layer.forward(x)));
        last.forward(x).squeeze_dim(1)
    }
}
