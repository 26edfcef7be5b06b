//! A fusion: a large model steered at decoding time by small ones, as a file or a stage of a recipe describes it.

use std::fmt;

use align_fusion::Weighing;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::device::{DeviceChoice, DtypeChoice};

/// Which models are put together, and how the experts' shifts are weighed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FusionConfig {
    /// The large base. Its tokenizer and template are the fusion's.
    pub(crate) base: Member,
    /// The small base, from which experts are measured.
    #[serde(alias = "small_base")]
    pub(crate) anchor: Member,
    /// The small tuned models by name, in the order of their weights.
    pub(crate) experts: Experts,
    /// How the experts' shifts are weighed: dynamically unless said otherwise.
    #[serde(default)]
    pub(crate) weighing: Weighing,
    /// What members with another tokenizer than the base's mean.
    #[serde(default)]
    pub(crate) vocabulary: Vocabulary,
    /// The type of the weights in memory; of whoever opens the fusion if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dtype: Option<DtypeChoice>,
}

/// How the vocabularies of base and small models meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Vocabulary {
    /// All tokenizers are the same, token by token; others are refused.
    #[default]
    Same,
    /// Small models may have a tokenizer of their own, which is mapped into the base's by the tokens' text.
    SharedStrings,
}

/// A model of a fusion: a path or hub id alone, or a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Member {
    /// A model folder or hub id; an expert without one stands on the anchor's weights.
    pub(crate) model: Option<String>,
    /// Adapters in PEFT's form over the model.
    pub(crate) adapter: Option<String>,
    /// Text that this model alone reads before every prompt, such as examples of the task.
    pub(crate) prefix: Option<String>,
    /// Where it computes, if not where the others do.
    pub(crate) device: Option<DeviceChoice>,
}

/// A member's table.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Table {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceChoice>,
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { model, adapter, prefix, device } = self.clone();
        match (model, &adapter, &prefix, device) {
            (Some(model), None, None, None) => serializer.serialize_str(&model),
            (model, ..) => Table { model, adapter, prefix, device }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Member {
    /// Not through an untagged enum, whose errors name no key.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model, or a table with `model`, `adapter`, `prefix` and `device`")
            }

            fn visit_str<E: serde::de::Error>(self, model: &str) -> Result<Member, E> {
                Ok(Member { model: Some(model.to_owned()), ..Member::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
                let Table { model, adapter, prefix, device } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                if let Some("") = prefix.as_deref() {
                    return Err(A::Error::custom("`prefix` is empty, expected text or no such key"));
                }
                Ok(Member { model, adapter, prefix, device })
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// Experts by name, in the file's order.
#[derive(Clone, Debug)]
pub(crate) struct Experts(pub(crate) Vec<(String, Member)>);

impl Serialize for Experts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, member) in &self.0 {
            map.serialize_entry(name, member)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Experts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Experts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of experts by name, with at least one")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Experts, A::Error> {
                let mut experts = Vec::new();
                while let Some((name, member)) = map.next_entry::<String, Member>()? {
                    if member == Member::default() {
                        let message = format!(
                            "the expert `{name}` is the anchor itself: expected `model`, `adapter` or `prefix`"
                        );
                        return Err(A::Error::custom(message));
                    }
                    experts.push((name, member));
                }
                match experts.is_empty() {
                    true => Err(A::Error::custom("there is no expert, expected at least one")),
                    false => Ok(Experts(experts)),
                }
            }
        }
        deserializer.deserialize_map(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FusionConfig, String> {
        let value: toml::Value = toml::from_str(text).unwrap();
        serde_path_to_error::deserialize(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_member_is_a_path_or_a_table_and_experts_keep_their_order() {
        let text = "base = \"large\"\nsmall_base = { model = \"small\", prefix = \"Q: 1 + 1? A: 2\" }\n\
                    [experts]\nzebra = \"a\"\nape = { adapter = \"b\" }\n";
        let config = read(text).unwrap();
        assert_eq!(config.base.model.as_deref(), Some("large"));
        assert_eq!(config.anchor.prefix.as_deref(), Some("Q: 1 + 1? A: 2"));
        let names: Vec<&str> = config.experts.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["zebra", "ape"]);
        assert_eq!(config.vocabulary, Vocabulary::Same);
        let written = toml::to_string_pretty(&config).unwrap();
        let again = read(&written).unwrap();
        assert_eq!(again.experts.0, config.experts.0, "{written}");
        assert_eq!(toml::to_string_pretty(&again).unwrap(), written);
    }

    #[test]
    fn what_is_no_fusion_is_refused_with_its_key() {
        let small = "base = \"l\"\nanchor = \"s\"\n";
        for (rest, parts) in [
            ("experts = {}\n", &["experts", "at least one"][..]),
            ("experts = { a = {} }\n", &["experts", "the expert `a` is the anchor itself"]),
            ("experts = { a = { adaptor = \"x\" } }\n", &["experts.a", "unknown field `adaptor`"]),
            (
                "experts = { a = 3 }\n",
                &["experts.a", "invalid type: integer `3`", "expected a model, or a table"],
            ),
            ("experts = { a = { model = \"x\", prefix = \"\" } }\n", &["experts.a", "`prefix` is empty"]),
            (
                "experts = { a = { model = \"x\", device = \"gpu\" } }\n",
                &["experts.a", "unknown device `gpu`"],
            ),
            ("experts = { a = \"x\" }\ndtype = \"f8\"\n", &["dtype", "unknown type `f8`"]),
            ("experts = { a = \"x\" }\nvocabulary = \"any\"\n", &["vocabulary", "unknown variant `any`"]),
        ] {
            let message = read(&format!("{small}{rest}")).unwrap_err();
            for part in parts {
                assert!(message.contains(part), "expected `{part}` in: {message}");
            }
        }
    }
}
