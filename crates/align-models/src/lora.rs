//! Low-rank adapters: small trained matrices beside frozen weights.
//!
//! Adapters live inside the projections, so a model with them is an ordinary model. Cloning shares the frozen weights:
//! policy, reference ([`Transformer::without_adapters`]) and critic stand on one base in memory.
//!
//! # Source
//! Hu et al. 2021, <https://arxiv.org/abs/2106.09685>; rank-stabilised scaling of Kalajdzievski 2023,
//! <https://arxiv.org/abs/2312.03732>.

use align_core::{Draws, draws::Purpose};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::backbone::{Backbone, Layer};
use crate::mlp::Projection;
use crate::transformer::Transformer;

/// Which projections get an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// Attention's queries.
    Query,
    /// Attention's keys.
    Key,
    /// Attention's values.
    Value,
    /// Attention's output.
    Output,
    /// The gate of the feed-forward layer.
    Gate,
    /// The first projection of the feed-forward layer.
    Up,
    /// The last projection of the feed-forward layer.
    Down,
}

impl LoraTarget {
    /// All of them, in the order of a layer.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The projection's path inside a layer.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Query => "attention.query",
            Self::Key => "attention.key",
            Self::Value => "attention.value",
            Self::Output => "attention.output",
            Self::Gate => "mlp.gate",
            Self::Up => "mlp.up",
            Self::Down => "mlp.down",
        }
    }
}

/// Size and place of adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// r, the rank of the update. 8 as in the paper's main results.
    pub rank: usize,
    /// α: the update is scaled by α/r, or α/√r if rank-stabilised. Twice the rank, as is common.
    pub alpha: f64,
    /// Share of the adapter's inputs that are zeroed in training. Off by default: in reinforcement learning it makes the first
    /// ratio differ from one. Masks need a key, see [`Transformer::with_dropout`].
    pub dropout: f64,
    /// Which projections are adapted. Queries and values, as in the paper.
    pub targets: Vec<LoraTarget>,
    /// Scales by α/√r.
    pub rank_stabilized: bool,
    /// Adapts only so many layers, counted from the last. Members of an ensemble then run the layers before once for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_layers: Option<usize>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            targets: vec![LoraTarget::Query, LoraTarget::Value],
            rank_stabilized: false,
            last_layers: None,
        }
    }
}

impl LoraConfig {
    fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}

/// A low-rank update beside a projection: `scale · (dropout(x)·A)·B`.
#[derive(Module, Debug)]
pub struct Adapter {
    /// `[in, r]`.
    pub(crate) a: Param<Tensor<2>>,
    /// `[r, out]`.
    pub(crate) b: Param<Tensor<2>>,
    #[module(skip)]
    pub(crate) scale: f64,
    #[module(skip)]
    pub(crate) dropout: f64,
    #[module(skip)]
    key: Option<DropoutKey>,
}

/// What a dropout mask is drawn for.
#[derive(Clone, Copy, Debug)]
struct DropoutKey {
    draws: Draws,
    step: u64,
    /// Whether the mask acts although nothing is recorded.
    unrecorded: bool,
}

impl Adapter {
    pub(crate) fn new(a: Tensor<2>, b: Tensor<2>, scale: f64, dropout: f64) -> Self {
        Self { a: Param::from_tensor(a), b: Param::from_tensor(b), scale, dropout, key: None }
    }

    /// # Shapes
    /// `[N, in]` → `[N, out]`.
    pub(crate) fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let a = self.a.val();
        let rows = match self.key {
            // A model taken out of training is not recorded, and keeps everything.
            Some(key) if self.dropout > 0.0 && (key.unrecorded || a.is_autodiff()) => {
                let mask = keep_mask(rows.dims(), self.dropout, key, &rows.device());
                rows * mask
            }
            _ => rows,
        };
        rows.matmul(a).matmul(self.b.val()) * self.scale
    }

    /// `scale · A·B`, `[in, out]`, as a constant.
    fn update(&self) -> Tensor<2> {
        self.a.val().without_autodiff().matmul(self.b.val().without_autodiff()) * self.scale
    }
}

/// 0 with the given probability, else `1/(1 − probability)`.
fn keep_mask(shape: [usize; 2], probability: f64, key: DropoutKey, device: &Device) -> Tensor<2> {
    let mut generator = key.draws.generator(Purpose::Dropout, key.step);
    let kept = (1.0 / (1.0 - probability)) as f32;
    let count = shape[0] * shape[1];
    let values: Vec<f32> =
        (0..count).map(|_| if generator.random::<f64>() < probability { 0.0 } else { kept }).collect();
    Tensor::from_data(TensorData::new(values, shape), &device.clone().without_autodiff())
}

impl Layer {
    pub(crate) fn projection(&self, target: LoraTarget) -> Option<&Projection> {
        Some(match target {
            LoraTarget::Query => &self.attention.query,
            LoraTarget::Key => &self.attention.key,
            LoraTarget::Value => &self.attention.value,
            LoraTarget::Output => &self.attention.output,
            LoraTarget::Gate => return self.mlp.gate.as_ref(),
            LoraTarget::Up => &self.mlp.up,
            LoraTarget::Down => &self.mlp.down,
        })
    }

    pub(crate) fn projection_mut(&mut self, target: LoraTarget) -> Option<&mut Projection> {
        Some(match target {
            LoraTarget::Query => &mut self.attention.query,
            LoraTarget::Key => &mut self.attention.key,
            LoraTarget::Value => &mut self.attention.value,
            LoraTarget::Output => &mut self.attention.output,
            LoraTarget::Gate => return self.mlp.gate.as_mut(),
            LoraTarget::Up => &mut self.mlp.up,
            LoraTarget::Down => &mut self.mlp.down,
        })
    }
}

impl Backbone {
    /// Every adapter with its layer and place.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = (usize, LoraTarget, &Adapter)> {
        self.layers.iter().enumerate().flat_map(|(index, layer)| {
            LoraTarget::ALL
                .into_iter()
                .filter_map(move |target| Some((index, target, layer.projection(target)?.adapter.as_ref()?)))
        })
    }

    /// Runs over every projection.
    fn each_projection(&mut self, mut visit: impl FnMut(usize, LoraTarget, &mut Projection)) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            for target in LoraTarget::ALL {
                if let Some(projection) = layer.projection_mut(target) {
                    visit(index, target, projection);
                }
            }
        }
    }

    /// Whether any projection has an adapter.
    pub fn has_adapters(&self) -> bool {
        self.adapters().next().is_some()
    }

    /// The frozen weights alone; storage is shared.
    pub fn without_adapters(&self) -> Self {
        let mut base = self.clone();
        base.each_projection(|_, _, projection| projection.adapter = None);
        base
    }

    /// Weights with the adapters folded in: `W + scale·A·B`.
    pub fn merged(&self) -> Self {
        let mut merged = self.clone();
        merged.each_projection(|_, _, projection| {
            if let Some(adapter) = projection.adapter.take() {
                let update = adapter.update();
                projection.weight = projection.weight.clone().map(|weight| {
                    let records = weight.is_autodiff();
                    let sum = weight.without_autodiff() + update;
                    if records { sum.autodiff() } else { sum }
                });
            }
        });
        merged.set_require_grad(true)
    }

    pub(crate) fn with_adapters(self, config: &LoraConfig, draws: &Draws) -> Self {
        assert!(config.rank > 0, "an adapter has rank 0, expected at least 1");
        assert!((0.0..1.0).contains(&config.dropout), "dropout is {}, expected 0 to below 1", config.dropout);
        let (device, dtype) = (self.device(), self.dtype());
        let first = self.layers.len().saturating_sub(config.last_layers.unwrap_or(usize::MAX));
        let mut adapted = self.no_grad();
        adapted.each_projection(|index, target, projection| {
            if !config.targets.contains(&target) || index < first {
                return;
            }
            let [from, to] = projection.weight.dims();
            // Uniform on ±1/√in, as PEFT draws A (Kaiming with a = √5); B is zero, so training starts from the base.
            let bound = 1.0 / (from as f64).sqrt();
            let mut generator = draws.generator(Purpose::Initialize, site(index, target));
            let a: Vec<f32> = (0..from * config.rank)
                .map(|_| ((2.0 * generator.random::<f64>() - 1.0) * bound) as f32)
                .collect();
            let a = Tensor::from_data(TensorData::new(a, [from, config.rank]), (&device, dtype));
            let b = Tensor::zeros([config.rank, to], (&device, dtype));
            projection.adapter = Some(Adapter::new(a, b, config.scale(), config.dropout));
        });
        adapted
    }

    pub(crate) fn with_dropout(mut self, draws: &Draws, step: u64) -> Self {
        self.each_projection(|index, target, projection| {
            if let Some(adapter) = &mut projection.adapter {
                adapter.key =
                    Some(DropoutKey { draws: draws.child(site(index, target)), step, unrecorded: false });
            }
        });
        self
    }

    /// The training model's pass without its record: as [`Module::valid`], and dropout acts.
    pub(crate) fn unrecorded(&self) -> Self {
        let mut plain = self.valid();
        plain.each_projection(|_, _, projection| {
            if let Some(key) = projection.adapter.as_mut().and_then(|adapter| adapter.key.as_mut()) {
                key.unrecorded = true;
            }
        });
        plain
    }
}

/// A number for a projection that no other has.
fn site(layer: usize, target: LoraTarget) -> u64 {
    (1 << 34) + 8 * layer as u64 + target as u64
}

impl Transformer {
    /// The model with fresh adapters, which alone are trained: all other weights stop requiring gradients.
    ///
    /// It computes what it computed before, until the first step.
    ///
    /// # Panics
    /// If the rank is 0 or dropout is not in [0, 1).
    pub fn with_adapters(self, config: &LoraConfig, draws: &Draws) -> Self {
        let Self { backbone, head } = self.no_grad();
        Self { backbone: backbone.with_adapters(config, draws), head }
    }

    /// The model without its adapters: the reference beside an adapted policy. Storage is shared.
    pub fn without_adapters(&self) -> Self {
        Self { backbone: self.backbone.without_adapters(), head: self.head.clone() }
    }

    /// Whether any projection has an adapter.
    pub fn has_adapters(&self) -> bool {
        self.backbone.has_adapters()
    }

    /// An ordinary model with the adapters folded into its weights, all of them trainable.
    pub fn merged(&self) -> Self {
        let head = self.head.clone().map(|head| head.set_require_grad(true));
        Self { backbone: self.backbone.merged(), head }
    }

    /// Names the masks of the adapters' dropout in the next forward passes: the same draws and step give the same masks.
    /// Without this, and in a model that is not training, nothing is dropped.
    pub fn with_dropout(self, draws: &Draws, step: u64) -> Self {
        Self { backbone: self.backbone.with_dropout(draws, step), head: self.head }
    }
}
