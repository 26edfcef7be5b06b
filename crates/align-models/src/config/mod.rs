//! What a transformer is made of.
//!
//! [`TransformerConfig`] describes one decoder with options; each supported family is a setting of them. Foreign
//! `config.json` files are read by the tolerant [`HfConfig`] and converted; what is not understood is refused by name.

mod error;
mod hf;
mod rotary;
mod save;

pub use error::ConfigError;
pub use hf::HfConfig;
pub(crate) use save::Architecture;

/// The family a model belongs to: which names its files use and under which class transformers loads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 1, 2 and 3.x.
    Llama,
    /// Mistral.
    Mistral,
    /// Gemma 1.
    Gemma,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, text only.
    Gemma3Text,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
    /// GPT-NeoX (Pythia).
    GptNeoX,
    /// GPT-2.
    Gpt2,
}

impl Family {
    /// All of them, in the order messages list them.
    pub const ALL: [Self; 9] = [
        Self::Llama,
        Self::Mistral,
        Self::Gemma,
        Self::Gemma2,
        Self::Gemma3Text,
        Self::Qwen2,
        Self::Qwen3,
        Self::GptNeoX,
        Self::Gpt2,
    ];

    /// The `model_type` of `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3Text => "gemma3_text",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::GptNeoX => "gpt_neox",
            Self::Gpt2 => "gpt2",
        }
    }

    /// Whether the family is one of Google's, which share norms around one and scaled embeddings.
    pub(crate) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3Text)
    }
}

/// One decoder, with everything in which the families differ.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformerConfig {
    /// Names of tensors and classes.
    pub family: Family,
    /// V.
    pub vocab_size: usize,
    /// E, the width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// How many blocks there are.
    pub num_layers: usize,
    /// H, query heads.
    pub num_heads: usize,
    /// G, key and value heads; divides H.
    pub num_key_value_heads: usize,
    /// D, the width of a head.
    pub head_dim: usize,
    /// The longest sequence the model was made for.
    pub context_length: usize,
    /// The normalisation, everywhere in the model.
    pub norm: NormKind,
    /// The nonlinearity of the feed-forward layers.
    pub activation: Activation,
    /// Whether the feed-forward layer is `down(act(gate x) · up x)` rather than `down(act(up x))`.
    pub gated: bool,
    /// Biases on queries, keys and values.
    pub qkv_bias: bool,
    /// Bias on attention's output.
    pub output_bias: bool,
    /// Biases in the feed-forward layers.
    pub mlp_bias: bool,
    /// How positions enter.
    pub positions: Positions,
    /// For each layer, how many keys back a query sees, itself included; `None` sees all.
    pub windows: Vec<Option<usize>>,
    /// Multiplies attention scores.
    pub attention_scale: f64,
    /// `c·tanh(score/c)` in attention.
    pub attention_softcap: Option<f64>,
    /// `c·tanh(logit/c)` at the end.
    pub final_softcap: Option<f64>,
    /// Normalises each query and key head before rotating.
    pub qk_norm: bool,
    /// How norms and residuals are arranged.
    pub block: BlockKind,
    /// Multiplies embeddings, √E for Gemma.
    pub embedding_scale: Option<f64>,
    /// Whether the head is the embedding matrix.
    pub tied: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Ids of special tokens that the file names.
    pub tokens: SpecialTokens,
}

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// `x / rms(x) · (offset + weight)`.
    Rms {
        /// ε under the root.
        epsilon: f64,
        /// 0, or 1 for Gemma.
        offset: f64,
    },
    /// Mean and variance, with a bias.
    Layer {
        /// ε under the root.
        epsilon: f64,
    },
}

/// Nonlinearity of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x·σ(x)`; files say `silu` or `swish`.
    Silu,
    /// GELU with the error function; files say `gelu`.
    Gelu,
    /// GELU's tanh approximation; files say `gelu_new`, `gelu_pytorch_tanh` or `gelu_fast`.
    GeluTanh,
    /// `max(x, 0)`; files say `relu`.
    Relu,
}

/// How a block arranges norms and residuals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// `x += attention(norm x); x += mlp(norm x)`.
    Sequential,
    /// `x += norm(attention(norm x)); x += norm(mlp(norm x))`: Gemma 2 and 3.
    Sandwich,
    /// `x += attention(norm₁ x) + mlp(norm₂ x)`: GPT-NeoX.
    Parallel,
}

/// How positions enter.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// A learned embedding for each position, added to the token's.
    Learned,
    /// Rotated queries and keys.
    Rotary {
        /// The angles of layers that see everything.
        global: RotaryConfig,
        /// The angles of layers with a window, where they differ (Gemma 3).
        local: Option<RotaryConfig>,
    },
}

/// Angles of a rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryConfig {
    /// The base θ.
    pub theta: f64,
    /// R, how many of a head's dimensions are rotated.
    pub rotated: usize,
    /// How the angles are stretched for longer contexts.
    pub scaling: RotaryScaling,
}

/// How angles are stretched for longer contexts. Names follow `rope_type`.
#[derive(Clone, Debug, PartialEq)]
pub enum RotaryScaling {
    /// Not at all.
    Default,
    /// All divided by `factor`.
    Linear {
        /// Ratio of new to old context.
        factor: f64,
    },
    /// θ grows with the sequence once it is longer than the context.
    Dynamic {
        /// Ratio of new to old context.
        factor: f64,
        /// The context in which nothing changes.
        max_positions: usize,
    },
    /// Low frequencies divided, high ones kept, a ramp between: Llama 3.1 and later.
    Llama3 {
        /// Ratio of new to old context.
        factor: f64,
        /// Wavelengths longer than `original / low` are divided by `factor`.
        low: f64,
        /// Wavelengths shorter than `original / high` are kept.
        high: f64,
        /// The context of pretraining.
        original: usize,
    },
    /// NTK by parts with attention scaled: YaRN.
    Yarn {
        /// Ratio of new to old context.
        factor: f64,
        /// The context of pretraining.
        original: usize,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Rotations above which a dimension is kept.
        beta_fast: f64,
        /// Rotations below which a dimension is divided.
        beta_slow: f64,
        /// Whether the ramp's ends are rounded to whole dimensions.
        truncate: bool,
    },
}

/// Special tokens as `config.json` names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Any of these ends one.
    pub eos: Vec<u32>,
    /// Fills rows. Never used to find where a row ends: masks say that.
    pub pad: Option<u32>,
}

impl TransformerConfig {
    /// A Llama of the given size: four times the width in the feed-forward layers' two thirds, tied embeddings, θ = 10 000,
    /// context 2048. Every field can be changed afterwards.
    ///
    /// # Panics
    /// If `num_heads` does not divide `hidden_size`.
    pub fn llama(vocab_size: usize, hidden_size: usize, num_layers: usize, num_heads: usize) -> Self {
        assert!(
            num_heads > 0 && hidden_size.is_multiple_of(num_heads),
            "{num_heads} heads do not divide a hidden size of {hidden_size}"
        );
        let head_dim = hidden_size / num_heads;
        Self {
            family: Family::Llama,
            vocab_size,
            hidden_size,
            // 8/3 E, rounded up to a multiple of 16: Touvron et al. 2023, section 2.2.
            intermediate_size: (8 * hidden_size).div_ceil(3).next_multiple_of(16),
            num_layers,
            num_heads,
            num_key_value_heads: num_heads,
            head_dim,
            context_length: 2048,
            norm: NormKind::Rms { epsilon: 1e-5, offset: 0.0 },
            activation: Activation::Silu,
            gated: true,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            positions: Positions::Rotary {
                global: RotaryConfig { theta: 10_000.0, rotated: head_dim, scaling: RotaryScaling::Default },
                local: None,
            },
            windows: vec![None; num_layers],
            attention_scale: 1.0 / (head_dim as f64).sqrt(),
            attention_softcap: None,
            final_softcap: None,
            qk_norm: false,
            block: BlockKind::Sequential,
            embedding_scale: None,
            tied: true,
            initializer_range: 0.02,
            tokens: SpecialTokens::default(),
        }
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// If it is not JSON, its family or an option is not supported, or a value is missing or out of range.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        Self::try_from(&HfConfig::from_json(text)?)
    }
}
