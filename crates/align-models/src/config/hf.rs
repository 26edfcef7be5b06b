//! `config.json` as transformers writes it, in both generations.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Activation, BlockKind, ConfigError, Family, NormKind, SpecialTokens, TransformerConfig};

/// The object of a `config.json`, as it stands. Keys that mean nothing here are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HfConfig(pub Map<String, Value>);

/// More layers than any model has; a file that asks for more is damaged, and nothing is allocated for it.
const MOST_LAYERS: usize = 4096;
/// Larger than any dimension of a model.
const LARGEST: usize = 1 << 31;

impl HfConfig {
    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// If it is not a JSON object.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The value of the first of these keys that is there and not null.
    pub(super) fn value<'a>(&'a self, keys: &[&'a str]) -> Option<(&'a str, &'a Value)> {
        keys.iter()
            .find_map(|&key| self.0.get(key).filter(|value| !value.is_null()).map(|value| (key, value)))
    }

    fn size(&self, keys: &[&str]) -> Result<Option<usize>, ConfigError> {
        let Some((key, value)) = self.value(keys) else { return Ok(None) };
        match value.as_u64() {
            Some(size) if (1..=LARGEST as u64).contains(&size) => Ok(Some(size as usize)),
            _ => Err(invalid(key, value, format!("a whole number from 1 to {LARGEST}"))),
        }
    }

    fn required_size(&self, keys: &[&str]) -> Result<usize, ConfigError> {
        self.size(keys)?
            .ok_or_else(|| ConfigError::Missing { key: keys[0].into(), expected: "a whole number" })
    }

    pub(super) fn number(&self, keys: &[&str]) -> Result<Option<f64>, ConfigError> {
        self.value(keys).map(|(key, value)| positive(key, value)).transpose()
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.value(&[key]) {
            None => Ok(default),
            Some((_, value)) => value.as_bool().ok_or_else(|| invalid(key, value, "true or false".into())),
        }
    }

    fn text<'a>(&'a self, keys: &[&'a str]) -> Result<Option<&'a str>, ConfigError> {
        self.value(keys)
            .map(|(key, value)| value.as_str().ok_or_else(|| invalid(key, value, "a text".into())))
            .transpose()
    }

    /// The family, from `model_type`, or from `architectures` where that is missing.
    pub(crate) fn family(&self) -> Result<Family, ConfigError> {
        let known = || Family::ALL.map(Family::model_type).to_vec();
        let found = self.text(&["model_type"])?.unwrap_or("");
        Family::ALL
            .into_iter()
            .find(|family| family.model_type() == found)
            .ok_or_else(|| ConfigError::UnknownFamily { found: found.to_owned(), known: known() })
    }

    /// Refuses what would change the result and is not implemented.
    fn refuse_unsupported(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, expected| match self.value(&[key]) {
            Some((key, value)) if *value != Value::Bool(false) => {
                Err(ConfigError::Unsupported { key: key.into(), found: value.to_string(), expected })
            }
            _ => Ok(()),
        };
        refuse("quantization_config", "weights in f32, f16 or bf16")?;
        refuse("use_bidirectional_attention", "causal attention")?;
        refuse("scale_attn_by_inverse_layer_idx", "false")?;
        refuse("add_cross_attention", "a decoder alone")?;
        for key in ["num_experts", "num_local_experts", "n_routed_experts"] {
            refuse(key, "one feed-forward layer a block, without experts")?;
        }
        Ok(())
    }

    fn activation(&self, family: Family) -> Result<Activation, ConfigError> {
        let keys: &[&str] = match family {
            Family::Gpt2 => &["activation_function"],
            // Gemma 1 files carry both, and the second is the one that is meant.
            family if family.is_gemma() => &["hidden_activation", "hidden_act"],
            _ => &["hidden_act"],
        };
        let default = match family {
            Family::Gpt2 => "gelu_new",
            Family::GptNeoX => "gelu",
            family if family.is_gemma() => "gelu_pytorch_tanh",
            _ => "silu",
        };
        match self.text(keys)?.unwrap_or(default) {
            "silu" | "swish" => Ok(Activation::Silu),
            // The official files of Gemma 1 say `gelu` and mean the approximation.
            "gelu" if family == Family::Gemma => Ok(Activation::GeluTanh),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(ConfigError::Unsupported {
                key: keys[0].into(),
                found: format!("\"{other}\""),
                expected: "silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast or relu",
            }),
        }
    }

    /// Which layers see a window, and how wide it is.
    fn windows(&self, family: Family, layers: usize) -> Result<Vec<Option<usize>>, ConfigError> {
        let explicit_null = self.0.get("sliding_window").is_some_and(Value::is_null);
        let width = match self.size(&["sliding_window"])? {
            Some(width) => Some(width),
            None if explicit_null => None,
            // What the classes of transformers assume when the key is missing.
            None => Some(4096),
        };
        let pattern = |is_sliding: &dyn Fn(usize) -> bool| -> Result<Vec<Option<usize>>, ConfigError> {
            match self.value(&["layer_types"]) {
                Some((key, value)) => self.layer_types(key, value, layers, width),
                None => Ok((0..layers).map(|layer| width.filter(|_| is_sliding(layer))).collect()),
            }
        };
        match family {
            Family::Mistral => Ok(vec![width; layers]),
            Family::Qwen2 | Family::Qwen3 => {
                if !self.flag("use_sliding_window", false)? {
                    return Ok(vec![None; layers]);
                }
                let first = match self.value(&["max_window_layers"]) {
                    None => 28,
                    Some((key, value)) => {
                        value.as_u64().ok_or_else(|| invalid(key, value, "a whole number".into()))? as usize
                    }
                };
                pattern(&|layer| layer >= first)
            }
            Family::Gemma2 => pattern(&|layer| layer % 2 == 0),
            Family::Gemma3Text => {
                let every = self.size(&["sliding_window_pattern", "_sliding_window_pattern"])?.unwrap_or(6);
                pattern(&|layer| (layer + 1) % every != 0)
            }
            _ => Ok(vec![None; layers]),
        }
    }

    fn layer_types(
        &self,
        key: &str,
        value: &Value,
        layers: usize,
        width: Option<usize>,
    ) -> Result<Vec<Option<usize>>, ConfigError> {
        let types = value.as_array().filter(|types| types.len() == layers);
        let types =
            types.ok_or_else(|| invalid(key, value, format!("a list of {layers} kinds of attention")))?;
        let window = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Ok(width),
            Some("full_attention") => Ok(None),
            _ => Err(ConfigError::Unsupported {
                key: key.into(),
                found: kind.to_string(),
                expected: "full_attention or sliding_attention",
            }),
        };
        types.iter().map(window).collect()
    }

    fn tokens(&self) -> Result<SpecialTokens, ConfigError> {
        let id = |key: &str, value: &Value| {
            value
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| invalid(key, value, "a token id".into()))
        };
        let single = |key: &str| match self.value(&[key]) {
            // Some files mark an absent token with −1.
            Some((_, value)) if value.as_i64() == Some(-1) => Ok(None),
            Some((key, value)) => id(key, value).map(Some),
            None => Ok(None),
        };
        let eos = match self.value(&["eos_token_id"]) {
            Some((key, Value::Array(ids))) => {
                ids.iter().map(|value| id(key, value)).collect::<Result<_, _>>()?
            }
            _ => single("eos_token_id")?.into_iter().collect(),
        };
        Ok(SpecialTokens { bos: single("bos_token_id")?, eos, pad: single("pad_token_id")? })
    }
}

impl TryFrom<&HfConfig> for TransformerConfig {
    type Error = ConfigError;

    fn try_from(hf: &HfConfig) -> Result<Self, ConfigError> {
        let family = hf.family()?;
        hf.refuse_unsupported()?;
        let (is_gpt2, is_neox) = (family == Family::Gpt2, family == Family::GptNeoX);
        let hidden_size = hf.required_size(&["hidden_size", "n_embd"])?;
        let num_layers = hf.required_size(&["num_hidden_layers", "n_layer"])?;
        if num_layers > MOST_LAYERS {
            return Err(ConfigError::Invalid {
                key: "num_hidden_layers".into(),
                found: num_layers.to_string(),
                expected: format!("at most {MOST_LAYERS}"),
            });
        }
        let num_heads = hf.required_size(&["num_attention_heads", "n_head"])?;
        let default_groups = if family == Family::Mistral { 8 } else { num_heads };
        let explicit_null = hf.0.get("num_key_value_heads").is_some_and(Value::is_null);
        let num_key_value_heads = match hf.size(&["num_key_value_heads"])? {
            _ if is_gpt2 || is_neox => num_heads,
            Some(groups) => groups,
            None if explicit_null => num_heads,
            None => default_groups,
        };
        let divides = |key: &str, whole: usize, part: usize, of: &str| {
            if whole.is_multiple_of(part) {
                return Ok(());
            }
            Err(ConfigError::Invalid {
                key: key.into(),
                found: part.to_string(),
                expected: format!("a divisor of {of}, {whole}"),
            })
        };
        divides("num_key_value_heads", num_heads, num_key_value_heads, "num_attention_heads")?;
        let head_dim = match hf.size(&["head_dim"])? {
            Some(head_dim) if !is_gpt2 && !is_neox => head_dim,
            _ if matches!(family, Family::Qwen3) => 128,
            _ if family.is_gemma() => 256,
            _ => {
                divides("num_attention_heads", hidden_size, num_heads, "hidden_size")?;
                hidden_size / num_heads
            }
        };
        let context_length = hf.size(&["max_position_embeddings", "n_positions"])?;
        let context_length = context_length.unwrap_or(if is_gpt2 { 1024 } else { 2048 });
        let intermediate_size = match hf.size(&["intermediate_size", "n_inner"])? {
            Some(size) => size,
            None if is_gpt2 => 4 * hidden_size,
            None => hf.required_size(&["intermediate_size"])?,
        };
        let epsilon = hf.number(&["rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"])?;
        let attention_bias = hf.flag("attention_bias", is_gpt2 || is_neox)?;
        let scalar = hf.number(&["query_pre_attn_scalar"])?;
        let attention_scale = match family {
            Family::Gemma2 | Family::Gemma3Text => 1.0 / scalar.unwrap_or(256.0).sqrt(),
            Family::Gpt2 if !hf.flag("scale_attn_weights", true)? => 1.0,
            _ => 1.0 / (head_dim as f64).sqrt(),
        };
        let cap = |key: &str, default: f64| -> Result<Option<f64>, ConfigError> {
            match (family, hf.0.get(key)) {
                (Family::Gemma2, None) => Ok(Some(default)),
                (Family::Gemma2 | Family::Gemma3Text, _) => hf.number(&[key]),
                _ => Ok(None),
            }
        };
        Ok(Self {
            family,
            vocab_size: hf.required_size(&["vocab_size"])?,
            hidden_size,
            intermediate_size,
            num_layers,
            num_heads,
            num_key_value_heads,
            head_dim,
            context_length,
            norm: if is_gpt2 || is_neox {
                NormKind::Layer { epsilon: epsilon.unwrap_or(1e-5) }
            } else {
                let offset = if family.is_gemma() { 1.0 } else { 0.0 };
                NormKind::Rms { epsilon: epsilon.unwrap_or(1e-6), offset }
            },
            activation: hf.activation(family)?,
            gated: !is_gpt2 && !is_neox,
            qkv_bias: match family {
                Family::Qwen2 => true,
                Family::Mistral => false,
                _ => attention_bias,
            },
            output_bias: !matches!(family, Family::Qwen2 | Family::Mistral) && attention_bias,
            mlp_bias: match family {
                Family::Gpt2 | Family::GptNeoX => true,
                Family::Llama => hf.flag("mlp_bias", false)?,
                _ => false,
            },
            positions: hf.positions(family, head_dim, context_length)?,
            windows: hf.windows(family, num_layers)?,
            attention_scale,
            attention_softcap: cap("attn_logit_softcapping", 50.0)?,
            final_softcap: cap("final_logit_softcapping", 30.0)?,
            qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3Text),
            block: match family {
                Family::Gemma2 | Family::Gemma3Text => BlockKind::Sandwich,
                Family::GptNeoX if hf.flag("use_parallel_residual", true)? => BlockKind::Parallel,
                _ => BlockKind::Sequential,
            },
            embedding_scale: family.is_gemma().then(|| (hidden_size as f64).sqrt()),
            tied: hf.flag("tie_word_embeddings", is_gpt2 || family.is_gemma())?,
            initializer_range: hf.number(&["initializer_range"])?.unwrap_or(0.02),
            tokens: hf.tokens()?,
        })
    }
}

pub(super) fn positive(key: &str, value: &Value) -> Result<f64, ConfigError> {
    match value.as_f64() {
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(invalid(key, value, "a positive number".into())),
    }
}

pub(super) fn invalid(key: &str, value: &Value, expected: String) -> ConfigError {
    ConfigError::Invalid { key: key.into(), found: value.to_string(), expected }
}
