//! The parameters a configuration asks for, and weights on their way into a model.

use std::collections::HashMap;

use align_core::{Draws, draws::Purpose};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::RngExt;

use crate::config::{BlockKind, Family, NormKind, Positions, TransformerConfig};

/// A parameter of a [`Backbone`](crate::Backbone): its path in the module and its shape there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) path: String,
    pub(crate) shape: Vec<usize>,
}

/// Every parameter of the backbone, in the order of the module.
pub(crate) fn parameters(config: &TransformerConfig) -> Vec<Parameter> {
    let mut all = Vec::new();
    let mut add = |path: String, shape: &[usize]| all.push(Parameter { path, shape: shape.to_vec() });
    let (e, f, d) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let (queries, keys) = (config.num_heads * d, config.num_key_value_heads * d);
    let has_norm_bias = matches!(config.norm, NormKind::Layer { .. });
    add("embedding".into(), &[config.vocab_size, e]);
    if config.positions == Positions::Learned {
        add("position_embedding".into(), &[config.context_length, e]);
    }
    for index in 0..config.num_layers {
        let at = |part: &str| format!("layers.{index}.{part}");
        let mut norms = vec![("attention_norm", e), ("mlp_norm", e)];
        if config.block == BlockKind::Sandwich {
            norms.extend([("attention_post_norm", e), ("mlp_post_norm", e)]);
        }
        if config.qk_norm {
            norms.extend([("attention.query_norm", d), ("attention.key_norm", d)]);
        }
        for (norm, width) in norms {
            add(at(&format!("{norm}.weight")), &[width]);
            if has_norm_bias {
                add(at(&format!("{norm}.bias")), &[width]);
            }
        }
        let mut projections = vec![
            ("attention.query", e, queries, config.qkv_bias),
            ("attention.key", e, keys, config.qkv_bias),
            ("attention.value", e, keys, config.qkv_bias),
            ("attention.output", queries, e, config.output_bias),
            ("mlp.up", e, f, config.mlp_bias),
            ("mlp.down", f, e, config.mlp_bias),
        ];
        if config.gated {
            projections.push(("mlp.gate", e, f, config.mlp_bias));
        }
        for (projection, from, to, has_bias) in projections {
            add(at(&format!("{projection}.weight")), &[from, to]);
            if has_bias {
                add(at(&format!("{projection}.bias")), &[to]);
            }
        }
    }
    add("norm.weight".into(), &[e]);
    if has_norm_bias {
        add("norm.bias".into(), &[e]);
    }
    all
}

/// Tensors by path, to be taken one by one.
#[derive(Default)]
pub(crate) struct Weights {
    matrices: HashMap<String, Tensor<2>>,
    vectors: HashMap<String, Tensor<1>>,
}

impl Weights {
    /// Adds numbers in row-major order.
    pub(crate) fn insert(&mut self, parameter: &Parameter, values: Vec<f32>, device: &Device, dtype: DType) {
        let data = TensorData::new(values, parameter.shape.clone());
        let path = parameter.path.clone();
        match parameter.shape.len() {
            1 => drop(self.vectors.insert(path, Tensor::from_data(data, (device, dtype)))),
            2 => drop(self.matrices.insert(path, Tensor::from_data(data, (device, dtype)))),
            rank => unreachable!("no parameter has rank {rank}"),
        }
    }

    /// # Panics
    /// If it is not there: [`parameters`] and [`Backbone::assemble`](crate::Backbone) disagree.
    pub(crate) fn matrix(&mut self, path: &str) -> Tensor<2> {
        self.matrices.remove(path).unwrap_or_else(|| panic!("no matrix `{path}` was prepared"))
    }

    /// # Panics
    /// As [`Weights::matrix`].
    pub(crate) fn vector(&mut self, path: &str) -> Tensor<1> {
        self.vectors.remove(path).unwrap_or_else(|| panic!("no vector `{path}` was prepared"))
    }

    pub(crate) fn optional_vector(&mut self, path: &str) -> Option<Tensor<1>> {
        self.vectors.remove(path)
    }

    /// Initial weights, as transformers draws them: normal with the configuration's standard deviation, norms at one,
    /// biases at zero; GPT-2 divides what writes to the residual stream by √(2·layers). Transformers also zeroes the
    /// padding token's embedding; we do not, since padding is never read.
    ///
    /// Every parameter has a generator of its own, so that a weight depends on its place alone.
    pub(crate) fn initial(config: &TransformerConfig, draws: &Draws, device: &Device) -> Self {
        let mut weights = Self::default();
        for (index, parameter) in parameters(config).iter().enumerate() {
            let count = parameter.shape.iter().product();
            let is_residual = parameter.path.ends_with("attention.output.weight")
                || parameter.path.ends_with("mlp.down.weight");
            let values = if parameter.path.ends_with("norm.weight") {
                let one = match config.norm {
                    NormKind::Rms { offset, .. } => 1.0 - offset,
                    NormKind::Layer { .. } => 1.0,
                };
                vec![one as f32; count]
            } else if parameter.path.ends_with(".bias") {
                vec![0.0; count]
            } else {
                let shrink = if is_residual && config.family == Family::Gpt2 {
                    (2.0 * config.num_layers as f64).sqrt()
                } else {
                    1.0
                };
                normal(draws, index as u64, count, config.initializer_range / shrink)
            };
            weights.insert(parameter, values, device, DType::F32);
        }
        weights
    }
}

/// Normal numbers by Box and Muller 1958.
pub(crate) fn normal(draws: &Draws, part: u64, count: usize, deviation: f64) -> Vec<f32> {
    let mut generator = draws.generator(Purpose::Initialize, part);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 − u is never zero.
        let radius = (-2.0 * (1.0 - generator.random::<f64>()).ln()).sqrt() * deviation;
        let angle = std::f64::consts::TAU * generator.random::<f64>();
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}
