//! Positions in `config.json`: `rope_theta` with `rope_scaling`, or `rope_parameters`.

use serde_json::{Map, Value};

use super::hf::{invalid, positive};
use super::{ConfigError, Family, HfConfig, Positions, RotaryConfig, RotaryScaling};

impl HfConfig {
    pub(super) fn positions(
        &self,
        family: Family,
        head_dim: usize,
        context: usize,
    ) -> Result<Positions, ConfigError> {
        if family == Family::Gpt2 {
            return Ok(Positions::Learned);
        }
        let empty = Map::new();
        let object = |key: &'static str| match self.value(&[key]) {
            None => Ok(None),
            Some((key, value)) => {
                value.as_object().map(Some).ok_or_else(|| invalid(key, value, "an object".into()))
            }
        };
        // The older key wins where both are there, as in transformers.
        let new = object("rope_parameters")?;
        let old = object("rope_scaling")?;
        if family == Family::Gemma3Text {
            let nested = |kind: &str| new.and_then(|new| new.get(kind)).and_then(Value::as_object);
            let full = nested("full_attention");
            let merged = match (full, old) {
                (Some(full), Some(old)) => {
                    let mut merged = full.clone();
                    merged.extend(old.clone());
                    Some(merged)
                }
                (full, old) => full.or(old).cloned(),
            };
            let global = merged.as_ref().unwrap_or(&empty);
            let local = nested("sliding_attention").unwrap_or(&empty);
            return Ok(Positions::Rotary {
                global: self.rotary(global, &["rope_theta"], 1e6, 1.0, head_dim, context)?,
                local: Some(self.rotary(local, &["rope_local_base_freq"], 1e4, 1.0, head_dim, context)?),
            });
        }
        let parameters = old.or(new).unwrap_or(&empty);
        let (theta_keys, part): (&[&str], f64) = match family {
            Family::GptNeoX => (
                &["rotary_emb_base", "rope_theta"],
                self.number(&["rotary_pct", "partial_rotary_factor"])?.unwrap_or(0.25),
            ),
            _ => (&["rope_theta"], self.number(&["partial_rotary_factor"])?.unwrap_or(1.0)),
        };
        let mut global = self.rotary(parameters, theta_keys, 1e4, part, head_dim, context)?;
        if let (Some(old), Some(new)) = (old, new)
            && !old.contains_key("rope_theta")
            && let Some(theta) = new.get("rope_theta")
        {
            global.theta = positive("rope_parameters.rope_theta", theta)?;
        }
        if family != Family::GptNeoX && global.rotated != head_dim {
            return Err(ConfigError::Unsupported {
                key: "partial_rotary_factor".into(),
                found: format!("{} of {head_dim} dimensions", global.rotated),
                expected: "1 (only gpt_neox rotates a part)",
            });
        }
        Ok(Positions::Rotary { global, local: None })
    }

    fn rotary(
        &self,
        parameters: &Map<String, Value>,
        theta_keys: &[&str],
        default_theta: f64,
        default_part: f64,
        head_dim: usize,
        context: usize,
    ) -> Result<RotaryConfig, ConfigError> {
        let given = |key: &str| parameters.get(key).filter(|value| !value.is_null());
        let optional = |key: &str| given(key).map(|value| positive(key, value)).transpose();
        let required = |key: &str| {
            optional(key)?
                .ok_or_else(|| ConfigError::Missing { key: key.into(), expected: "a positive number" })
        };
        let theta = match optional("rope_theta")? {
            Some(theta) => theta,
            None => self.number(theta_keys)?.unwrap_or(default_theta),
        };
        let part = optional("partial_rotary_factor")?.unwrap_or(default_part);
        let rotated = (head_dim as f64 * part) as usize;
        if rotated == 0 || !rotated.is_multiple_of(2) || rotated > head_dim {
            return Err(ConfigError::Invalid {
                key: "partial_rotary_factor".into(),
                found: part.to_string(),
                expected: format!("a share of {head_dim} dimensions that leaves an even number"),
            });
        }
        let kind = given("rope_type").or_else(|| given("type"));
        let original = |fallback: usize| -> Result<usize, ConfigError> {
            Ok(optional("original_max_position_embeddings")?.map_or(fallback, |original| original as usize))
        };
        let scaling = match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => RotaryScaling::Default,
            Some("linear") => RotaryScaling::Linear { factor: required("factor")? },
            Some("dynamic") => RotaryScaling::Dynamic { factor: required("factor")?, max_positions: context },
            Some("llama3") => RotaryScaling::Llama3 {
                factor: required("factor")?,
                low: required("low_freq_factor")?,
                high: required("high_freq_factor")?,
                original: original(context)?,
            },
            Some("yarn") => {
                let original = original(context)?;
                let factor = optional("factor")?.unwrap_or(context as f64 / original as f64);
                let magnitude =
                    |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
                let attention_factor =
                    match (optional("attention_factor")?, optional("mscale")?, optional("mscale_all_dim")?) {
                        (Some(given), _, _) => given,
                        (None, Some(part), Some(all)) => magnitude(part) / magnitude(all),
                        (None, _, _) => magnitude(1.0),
                    };
                RotaryScaling::Yarn {
                    factor,
                    original,
                    attention_factor,
                    beta_fast: optional("beta_fast")?.unwrap_or(32.0),
                    beta_slow: optional("beta_slow")?.unwrap_or(1.0),
                    truncate: given("truncate").and_then(Value::as_bool).unwrap_or(true),
                }
            }
            _ => {
                return Err(ConfigError::Unsupported {
                    key: "rope_type".into(),
                    found: kind.map(Value::to_string).unwrap_or_default(),
                    expected: "default, linear, dynamic, llama3 or yarn",
                });
            }
        };
        Ok(RotaryConfig { theta, rotated, scaling })
    }
}
