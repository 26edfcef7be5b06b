//! Attention over the factors of a row.

use burn::module::{Module, Param};
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use super::weights::{Affine, Init};
use crate::{Factors, Network};

/// The sizes of an [`FtTransformer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FtConfig {
    /// E, numbers of a token. Default 16: a survey has tens of factors and hundreds or thousands of rows.
    pub width: usize,
    /// Heads of attention; they divide the width. Default 2.
    pub heads: usize,
    /// Blocks. Default 2.
    pub blocks: usize,
    /// Numbers between the two maps of a block's feed-forward part. Default 32.
    pub hidden: usize,
}

impl Default for FtConfig {
    fn default() -> Self {
        Self { width: 16, heads: 2, blocks: 2, hidden: 32 }
    }
}

/// A transformer whose tokens are factors: factor g is `b_g + Σ_{j in g} x_j W_j`, one more token is learned, and the score is
/// read from that one after the last block.
///
/// For a numeric column and for a one-hot group this is the paper's tokenizer, since one column of the group is 1 and the
/// others are 0. Blocks are pre-norm, without a norm before the first attention, and their feed-forward part is gated by
/// relu, all as in the paper. There is no dropout: noise in the scores would be noise in the attributions.
///
/// # Source
/// Gorishniy, Rubachev, Khrulkov, Babenko 2021, section 3.3, <https://arxiv.org/abs/2106.11959>.
#[derive(Module, Debug)]
pub struct FtTransformer {
    /// W, `[C, E]`.
    tokens: Param<Tensor<2>>,
    /// b, the learned token first, `[1 + F, E]`.
    biases: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: Norm,
    head: Affine,
    #[module(skip)]
    config: FtConfig,
    #[module(skip)]
    factors: Factors,
}

impl FtTransformer {
    /// For rows whose columns form these factors, with `center`, the mean label, as the bias of the score.
    ///
    /// # Panics
    /// If a size is 0 or the heads do not divide the width.
    pub fn new(factors: &Factors, config: FtConfig, center: f64, seed: u64, device: &Device) -> Self {
        let FtConfig { width, heads, blocks, hidden } = config;
        assert!(
            width > 0 && heads > 0 && blocks > 0 && hidden > 0 && width.is_multiple_of(heads),
            "FtTransformer: sizes of at least 1 and heads that divide the width, not {config:?}"
        );
        let mut init = Init::new(seed, device);
        let deviation = (width as f64).sqrt().recip();
        let tokens = init.normal([factors.width(), width], deviation);
        let biases = init.normal([1 + factors.len(), width], deviation);
        let blocks = (0..blocks).map(|index| Block::new(&mut init, &config, index > 0)).collect();
        let mut head = Affine::new(&mut init, width, 1);
        head.bias = init.constant(center, 1);
        let norm = Norm::new(&init, width);
        Self { tokens, biases, blocks, norm, head, config, factors: factors.clone() }
    }

    /// The sizes.
    pub fn config(&self) -> FtConfig {
        self.config
    }

    /// The factors that are its tokens.
    pub fn factors(&self) -> &Factors {
        &self.factors
    }

    /// # Shapes
    /// `[N, C]` → `[N, 1 + F, E]`.
    fn embed(&self, rows: Tensor<2>) -> Tensor<3> {
        let [n, columns] = rows.dims();
        let products = rows.unsqueeze_dim::<3>(2) * self.tokens.val().unsqueeze();
        let place: Vec<i32> = (0..columns).map(|column| self.factors.of_column(column) as i32 + 1).collect();
        let device = products.device().without_autodiff();
        let place: Tensor<1, Int> = Tensor::from_data(TensorData::new(place, [columns]), &device);
        let biases: Tensor<3> = self.biases.val().unsqueeze();
        let [_, tokens, width] = biases.dims();
        biases.expand([n, tokens, width]).select_assign(1, place, products, IndexingUpdateOp::Add)
    }
}

impl Network for FtTransformer {
    fn forward(&self, rows: Tensor<2>) -> Tensor<1> {
        let n = rows.dims()[0];
        let tokens = self.blocks.iter().fold(self.embed(rows), |tokens, block| block.forward(tokens));
        let first = tokens.slice([0..n, 0..1]).reshape([n, self.config.width]);
        self.head.forward(activation::relu(self.norm.forward(first))).squeeze_dim(1)
    }
}

/// Attention and a gated feed-forward map, each added to its input.
#[derive(Module, Debug)]
struct Block {
    /// None in the first block.
    attention_norm: Option<Norm>,
    query_key_value: Affine,
    output: Affine,
    norm: Norm,
    /// The gated half and its gate.
    up: Affine,
    down: Affine,
    #[module(skip)]
    heads: usize,
}

impl Block {
    fn new(init: &mut Init<'_>, config: &FtConfig, normalized: bool) -> Self {
        let &FtConfig { width, heads, hidden, .. } = config;
        Self {
            attention_norm: normalized.then(|| Norm::new(init, width)),
            query_key_value: Affine::new(init, width, 3 * width),
            output: Affine::new(init, width, width),
            norm: Norm::new(init, width),
            up: Affine::new(init, width, 2 * hidden),
            down: Affine::new(init, hidden, width),
            heads,
        }
    }

    /// # Shapes
    /// `[N, T, E]` → `[N, T, E]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [n, tokens, width] = x.dims();
        let x = x.reshape([n * tokens, width]);
        let normed = match &self.attention_norm {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        let x =
            x + self.output.forward(self.attend(self.query_key_value.forward(normed), [n, tokens, width]));
        let [gated, gate]: [Tensor<2>; 2] =
            self.up.forward(self.norm.forward(x.clone())).chunk(2, 1).try_into().expect("two halves");
        let x = x + self.down.forward(gated * activation::relu(gate));
        x.reshape([n, tokens, width])
    }

    /// Attention of every token to every token.
    ///
    /// # Shapes
    /// `[N·T, 3E]` → `[N·T, E]`.
    fn attend(&self, projected: Tensor<2>, [n, tokens, width]: [usize; 3]) -> Tensor<2> {
        let head = width / self.heads;
        let parts: [Tensor<2>; 3] = projected.chunk(3, 1).try_into().expect("queries, keys and values");
        let [query, key, value] =
            parts.map(|part| part.reshape([n, tokens, self.heads, head]).swap_dims(1, 2));
        let scores = query.matmul(key.swap_dims(2, 3)).mul_scalar((head as f64).sqrt().recip());
        let mixed = activation::softmax(scores, 3).matmul(value);
        mixed.swap_dims(1, 2).reshape([n * tokens, width])
    }
}

/// Layer normalisation.
#[derive(Module, Debug)]
struct Norm {
    gain: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl Norm {
    fn new(init: &Init<'_>, width: usize) -> Self {
        Self { gain: init.constant(1.0, width), bias: init.constant(0.0, width) }
    }

    /// # Shapes
    /// `[N, E]` → `[N, E]`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let centered = x.clone() - x.mean_dim(1);
        // 1e-5 as in PyTorch's LayerNorm.
        let deviation = centered.clone().square().mean_dim(1).add_scalar(1e-5).sqrt();
        centered / deviation * self.gain.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}
