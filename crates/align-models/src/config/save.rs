//! Writing `config.json` so that transformers from 4.40 to 5.x reads the same model from it.

use serde_json::{Map, Value, json};

use super::{Activation, BlockKind, Family, HfConfig, NormKind, Positions, RotaryConfig, RotaryScaling};
use crate::TransformerConfig;

/// What stands on top of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// A language-model head.
    CausalLm,
    /// A score head with one output.
    SequenceClassification,
}

impl Family {
    /// The class transformers loads the model with.
    pub(crate) fn class(self, architecture: Architecture) -> String {
        let name = match (self, architecture) {
            (Self::Llama, _) => "Llama",
            (Self::Mistral, _) => "Mistral",
            (Self::Gemma, _) => "Gemma",
            (Self::Gemma2, _) => "Gemma2",
            // The class for causal modelling is shared with the multimodal model, the one for scores is not.
            (Self::Gemma3Text, Architecture::CausalLm) => "Gemma3",
            (Self::Gemma3Text, Architecture::SequenceClassification) => "Gemma3Text",
            (Self::Qwen2, _) => "Qwen2",
            (Self::Qwen3, _) => "Qwen3",
            (Self::GptNeoX, _) => "GPTNeoX",
            (Self::Gpt2, Architecture::CausalLm) => return "GPT2LMHeadModel".into(),
            (Self::Gpt2, _) => "GPT2",
        };
        match architecture {
            Architecture::CausalLm => format!("{name}ForCausalLM"),
            Architecture::SequenceClassification => format!("{name}ForSequenceClassification"),
        }
    }
}

impl Activation {
    /// The name that the family's files use; the two approximations are one formula, rounded differently in transformers.
    fn name(self, family: Family) -> &'static str {
        match self {
            Self::GeluTanh if matches!(family, Family::Gpt2 | Family::GptNeoX) => "gelu_new",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_pytorch_tanh",
            Self::Relu => "relu",
        }
    }
}

impl TransformerConfig {
    /// The `config.json` of a language model with weights of the given type, in the keys of the model's family.
    pub fn to_hf(&self) -> HfConfig {
        HfConfig(self.to_map(Architecture::CausalLm, "float32"))
    }

    pub(crate) fn to_map(&self, architecture: Architecture, dtype: &str) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.into(), value);
        };
        put("architectures", json!([self.family.class(architecture)]));
        put("model_type", json!(self.family.model_type()));
        put("vocab_size", json!(self.vocab_size));
        put("initializer_range", json!(self.initializer_range));
        put("tie_word_embeddings", json!(self.tied));
        put("use_cache", json!(true));
        put("bos_token_id", json!(self.tokens.bos));
        put("pad_token_id", json!(self.tokens.pad));
        put(
            "eos_token_id",
            match &self.tokens.eos[..] {
                [] => Value::Null,
                [single] => json!(single),
                several => json!(several),
            },
        );
        // Before 5.0 the type is `torch_dtype`, since then `dtype`; each reads its own.
        put("dtype", json!(dtype));
        put("torch_dtype", json!(dtype));
        let epsilon = match self.norm {
            NormKind::Rms { epsilon, .. } | NormKind::Layer { epsilon } => epsilon,
        };
        if self.family == Family::Gpt2 {
            put("n_embd", json!(self.hidden_size));
            put("n_inner", json!(self.intermediate_size));
            put("n_layer", json!(self.num_layers));
            put("n_head", json!(self.num_heads));
            put("n_positions", json!(self.context_length));
            put("activation_function", json!(self.activation.name(self.family)));
            put("layer_norm_epsilon", json!(epsilon));
            put("scale_attn_weights", json!(self.attention_scale != 1.0));
            return map;
        }
        put("hidden_size", json!(self.hidden_size));
        put("intermediate_size", json!(self.intermediate_size));
        put("num_hidden_layers", json!(self.num_layers));
        put("num_attention_heads", json!(self.num_heads));
        put("max_position_embeddings", json!(self.context_length));
        put("hidden_act", json!(self.activation.name(self.family)));
        if self.family == Family::GptNeoX {
            put("layer_norm_eps", json!(epsilon));
            put("use_parallel_residual", json!(self.block == BlockKind::Parallel));
            put("attention_bias", json!(self.qkv_bias));
        } else {
            put("rms_norm_eps", json!(epsilon));
            put("num_key_value_heads", json!(self.num_key_value_heads));
            put("head_dim", json!(self.head_dim));
            if !matches!(self.family, Family::Mistral | Family::Qwen2) {
                put("attention_bias", json!(self.qkv_bias));
            }
        }
        match self.family {
            Family::Llama => put("mlp_bias", json!(self.mlp_bias)),
            Family::Gemma => put("hidden_activation", json!(self.activation.name(self.family))),
            Family::Gemma2 | Family::Gemma3Text => {
                put("hidden_activation", json!(self.activation.name(self.family)));
                put("query_pre_attn_scalar", json!(whole(self.attention_scale.powi(-2))));
                put("attn_logit_softcapping", json!(self.attention_softcap));
                put("final_logit_softcapping", json!(self.final_softcap));
            }
            _ => {}
        }
        for (key, value) in self.window_keys() {
            put(key, value);
        }
        for (key, value) in self.rotary_keys() {
            put(key, value);
        }
        map
    }

    fn window_keys(&self) -> Vec<(&'static str, Value)> {
        let width = self.windows.iter().flatten().next();
        let kinds = || -> Value { self.windows.iter().map(|window| kind(window.is_some())).collect() };
        match self.family {
            Family::Mistral => vec![("sliding_window", json!(width))],
            Family::Qwen2 | Family::Qwen3 => {
                let first = self.windows.iter().position(Option::is_some).unwrap_or(self.num_layers);
                vec![
                    ("use_sliding_window", json!(width.is_some())),
                    ("sliding_window", json!(width)),
                    ("max_window_layers", json!(first)),
                    ("layer_types", kinds()),
                ]
            }
            Family::Gemma2 | Family::Gemma3Text => {
                let mut keys = vec![("sliding_window", json!(width)), ("layer_types", kinds())];
                if self.family == Family::Gemma3Text {
                    // What versions before `layer_types` read.
                    let every = self.windows.iter().position(Option::is_none).map_or(6, |first| first + 1);
                    keys.push(("sliding_window_pattern", json!(every)));
                }
                keys
            }
            _ => Vec::new(),
        }
    }

    fn rotary_keys(&self) -> Vec<(&'static str, Value)> {
        let Positions::Rotary { global, local } = &self.positions else { return Vec::new() };
        let old = match global.scaling {
            RotaryScaling::Default => Value::Null,
            _ => Value::Object(scaling(global)),
        };
        let full = |rotary: &RotaryConfig| {
            let mut parameters = scaling(rotary);
            parameters.insert("rope_theta".into(), json!(rotary.theta));
            parameters
        };
        match self.family {
            Family::Gemma3Text => {
                let local = local.as_ref().unwrap_or(global);
                vec![
                    ("rope_parameters", json!({ kind(false): full(global), kind(true): full(local) })),
                    ("rope_theta", json!(global.theta)),
                    ("rope_local_base_freq", json!(local.theta)),
                    ("rope_scaling", old),
                ]
            }
            Family::GptNeoX => {
                let part = global.rotated as f64 / self.head_dim as f64;
                let mut parameters = full(global);
                parameters.insert("partial_rotary_factor".into(), json!(part));
                vec![
                    ("rope_parameters", Value::Object(parameters)),
                    ("rotary_emb_base", json!(whole(global.theta))),
                    ("rotary_pct", json!(part)),
                    ("rope_scaling", old),
                ]
            }
            _ => vec![
                ("rope_parameters", Value::Object(full(global))),
                ("rope_theta", json!(global.theta)),
                ("rope_scaling", old),
            ],
        }
    }
}

fn kind(is_sliding: bool) -> &'static str {
    if is_sliding { "sliding_attention" } else { "full_attention" }
}

/// Whole numbers without a point, where transformers declares an integer. 1e-9 undoes the rounding of `x⁻²`.
fn whole(number: f64) -> Value {
    let rounded = number.round();
    if (number - rounded).abs() < 1e-9 * number.abs() { json!(rounded as u64) } else { json!(number) }
}

/// The keys of one rotary embedding except θ.
fn scaling(rotary: &RotaryConfig) -> Map<String, Value> {
    let value = match rotary.scaling {
        RotaryScaling::Default => json!({ "rope_type": "default" }),
        RotaryScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RotaryScaling::Dynamic { factor, .. } => json!({ "rope_type": "dynamic", "factor": factor }),
        RotaryScaling::Llama3 { factor, low, high, original } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }),
        RotaryScaling::Yarn { factor, original, attention_factor, beta_fast, beta_slow, truncate } => json!({
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            "attention_factor": attention_factor,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "truncate": truncate,
        }),
    };
    match value {
        Value::Object(map) => map,
        _ => unreachable!("written as an object above"),
    }
}
