//! The decoder without a head: tokens to hidden states.

use std::sync::Arc;

use align_core::{Completions, TokenBatch};
use align_kernels::{AttentionOptions, KeyValueCache};
use burn::module::{Module, Param};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::attention::{Attention, Context};
use crate::config::{BlockKind, NormKind, Positions, TransformerConfig};
use crate::mlp::{Mlp, Norm, Projection};
use crate::rope::Rotary;
use crate::weights::Weights;

/// One block: attention and feed-forward layer with their norms.
#[derive(Module, Debug)]
pub struct Layer {
    pub(crate) attention_norm: Norm,
    pub(crate) attention: Attention,
    pub(crate) attention_post_norm: Option<Norm>,
    pub(crate) mlp_norm: Norm,
    pub(crate) mlp: Mlp,
    pub(crate) mlp_post_norm: Option<Norm>,
    #[module(skip)]
    kind: BlockKind,
}

/// A decoder without a head. Language models, critics and reward models stand on one.
#[derive(Module, Debug)]
pub struct Backbone {
    pub(crate) embedding: Param<Tensor<2>>,
    pub(crate) position_embedding: Option<Param<Tensor<2>>>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Norm,
    #[module(skip)]
    config: Arc<TransformerConfig>,
    #[module(skip)]
    global: Option<Rotary>,
    #[module(skip)]
    local: Option<Rotary>,
}

/// Everything a forward pass knows about its tokens before the first layer.
pub(crate) struct Inputs {
    pub(crate) ids: Tensor<2, Int>,
    /// `None` if every position counts.
    pub(crate) mask: Option<Tensor<2, Bool>>,
    pub(crate) positions: Tensor<2, Int>,
    /// No position reaches it.
    pub(crate) length: usize,
}

impl Inputs {
    /// Positions count only tokens that count, so that padding on either side changes nothing.
    fn new(tokens: &TokenBatch, vocab_size: usize) -> Self {
        let [b, t] = tokens.ids.dims();
        let mask: Vec<bool> = tokens.mask.to_data().iter::<bool>().collect();
        assert_ids_below(tokens.ids.to_data().iter::<i64>(), vocab_size);
        let mut positions = Vec::with_capacity(b * t);
        let mut length = 1;
        for row in mask.chunks(t) {
            let mut seen = 0usize;
            for &counts in row {
                // As cumsum(mask) − mask, except that padding behind the last token stays inside the table.
                positions.push(if counts { seen } else { 0 } as i64);
                seen += usize::from(counts);
            }
            length = length.max(seen);
        }
        let ids = tokens.ids.clone().without_autodiff();
        Self {
            positions: Tensor::from_data(TensorData::new(positions, [b, t]), &ids.device()),
            ids,
            mask: mask.iter().any(|counts| !counts).then(|| tokens.mask.clone().without_autodiff()),
            length,
        }
    }
}

/// An index outside the vocabulary panics on one device and silently gives zeros on another.
pub(crate) fn assert_ids_below(ids: impl Iterator<Item = i64>, vocab_size: usize) {
    for id in ids {
        assert!(
            (0..vocab_size as i64).contains(&id),
            "token id {id} is outside the vocabulary of {vocab_size}"
        );
    }
}

impl Layer {
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        context: &Context<'_>,
        cache: Option<&mut KeyValueCache>,
    ) -> Tensor<3> {
        let after = |norm: &Option<Norm>, y| match norm {
            Some(norm) => norm.forward(y),
            None => y,
        };
        let mixed = self.attention.forward(self.attention_norm.forward(x.clone()), context, cache);
        let mixed = after(&self.attention_post_norm, mixed);
        if self.kind == BlockKind::Parallel {
            return x.clone() + mixed + self.mlp.forward(self.mlp_norm.forward(x));
        }
        let x = align_kernels::add(x, mixed);
        let fed = self.mlp.forward(self.mlp_norm.forward(x.clone()));
        align_kernels::add(x, after(&self.mlp_post_norm, fed))
    }
}

impl Backbone {
    /// Puts weights together, each under its path.
    pub(crate) fn assemble(config: TransformerConfig, weights: &mut Weights) -> Self {
        let norm = |weights: &mut Weights, path: String, kind: NormKind| {
            let weight = weights.vector(&format!("{path}.weight"));
            Norm::new(weight, weights.optional_vector(&format!("{path}.bias")), kind)
        };
        let projection = |weights: &mut Weights, path: String| {
            let weight = weights.matrix(&format!("{path}.weight"));
            Projection::new(weight, weights.optional_vector(&format!("{path}.bias")))
        };
        let layers = (0..config.num_layers)
            .map(|index| {
                let at = |part: &str| format!("layers.{index}.{part}");
                let sandwich = config.block == BlockKind::Sandwich;
                Layer {
                    attention_norm: norm(weights, at("attention_norm"), config.norm),
                    attention: Attention {
                        query: projection(weights, at("attention.query")),
                        key: projection(weights, at("attention.key")),
                        value: projection(weights, at("attention.value")),
                        output: projection(weights, at("attention.output")),
                        query_norm: config
                            .qk_norm
                            .then(|| norm(weights, at("attention.query_norm"), config.norm)),
                        key_norm: config
                            .qk_norm
                            .then(|| norm(weights, at("attention.key_norm"), config.norm)),
                        head_dim: config.head_dim,
                        options: AttentionOptions {
                            scale: config.attention_scale,
                            causal: true,
                            softcap: config.attention_softcap,
                            window: config.windows[index],
                        },
                    },
                    attention_post_norm: sandwich
                        .then(|| norm(weights, at("attention_post_norm"), config.norm)),
                    mlp_norm: norm(weights, at("mlp_norm"), config.norm),
                    mlp: Mlp {
                        gate: config.gated.then(|| projection(weights, at("mlp.gate"))),
                        up: projection(weights, at("mlp.up")),
                        down: projection(weights, at("mlp.down")),
                        activation: config.activation,
                    },
                    mlp_post_norm: sandwich.then(|| norm(weights, at("mlp_post_norm"), config.norm)),
                    kind: config.block,
                }
            })
            .collect();
        let (global, local) = match &config.positions {
            Positions::Learned => (None, None),
            Positions::Rotary { global, local } => {
                (Some(Rotary::new(global.clone())), local.clone().map(Rotary::new))
            }
        };
        Self {
            embedding: Param::from_tensor(weights.matrix("embedding")),
            position_embedding: matches!(config.positions, Positions::Learned)
                .then(|| Param::from_tensor(weights.matrix("position_embedding"))),
            layers,
            norm: norm(weights, "norm".into(), config.norm),
            config: Arc::new(config),
            global,
            local,
        }
    }

    /// What the model is made of.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.embedding.dtype()
    }

    /// Hidden states after the last norm.
    ///
    /// # Shapes
    /// `[B, T]` → `[B, T, E]`. What stands under a false mask is unspecified but finite.
    ///
    /// # Gradient
    /// Through the weights, if the model is training.
    ///
    /// # Panics
    /// If an id is outside the vocabulary, or a row is longer than learned positions reach.
    pub fn hidden(&self, tokens: &TokenBatch) -> Tensor<3> {
        let inputs = Inputs::new(tokens, self.config.vocab_size);
        self.forward(&inputs, None)
    }

    /// Hidden states from which each response token is predicted: column `t` has read the prompt and the tokens before `t`.
    ///
    /// # Shapes
    /// → `[B, R, E]`.
    pub(crate) fn hidden_before_responses(&self, completions: &Completions) -> Tensor<3> {
        let [_, p] = completions.prompt.ids.dims();
        let [b, r] = completions.response.ids.dims();
        let all = completions.joined();
        // Nothing is predicted from the last column.
        let tokens = TokenBatch {
            ids: all.ids.slice([0..b, 0..p + r - 1]),
            mask: all.mask.slice([0..b, 0..p + r - 1]),
        };
        self.hidden(&tokens).narrow(1, p - 1, r)
    }

    pub(crate) fn inputs(&self, tokens: &TokenBatch) -> Inputs {
        Inputs::new(tokens, self.config.vocab_size)
    }

    pub(crate) fn forward(&self, inputs: &Inputs, caches: Option<&mut [KeyValueCache]>) -> Tensor<3> {
        let context = self.context(inputs);
        let mut x = self.embed(inputs);
        match caches {
            None => {
                for layer in &self.layers {
                    x = layer.forward(x, &context, None);
                }
            }
            Some(caches) => {
                for (layer, cache) in self.layers.iter().zip(caches) {
                    x = layer.forward(x, &context, Some(cache));
                }
            }
        }
        self.norm.forward(x)
    }

    /// What all layers share.
    pub(crate) fn context<'a>(&self, inputs: &'a Inputs) -> Context<'a> {
        let rotation = |rotary: &Option<Rotary>| {
            rotary.as_ref().map(|rotary| rotary.rotation(&inputs.positions, inputs.length, self.dtype()))
        };
        Context { mask: inputs.mask.as_ref(), global: rotation(&self.global), local: rotation(&self.local) }
    }

    /// The first layer's input.
    pub(crate) fn embed(&self, inputs: &Inputs) -> Tensor<3> {
        let pick = |table: Tensor<2>, ids: &Tensor<2, Int>| {
            let ([b, t], [_, e]) = (ids.dims(), table.dims());
            table.select(0, ids.clone().reshape([b * t])).reshape([b, t, e])
        };
        let mut x = pick(self.embedding.val(), &inputs.ids);
        if let Some(scale) = self.config.embedding_scale {
            x = x * scale;
        }
        if let Some(table) = &self.position_embedding {
            let reach = self.config.context_length;
            assert!(
                inputs.length <= reach,
                "a row of {} tokens is longer than the model's {reach} learned positions",
                inputs.length
            );
            x = x + pick(table.val(), &inputs.positions);
        }
        x
    }
}
