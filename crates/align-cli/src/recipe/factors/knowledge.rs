//! Where knowledge comes from: experts, a file, other models.

use align_factors::Knowledge;
use align_factors::guide::PoolConfig;
use serde::{Deserialize, Serialize};
use toml::Value;

use super::super::source::nearest_of;
use super::{typed, written};

/// What is written down by factor.
const WRITTEN: [&str; 3] = ["groups", "geometric", "masses"];
/// What is found.
const DERIVED: [&str; 3] = ["uniform", "consensus", "teacher"];

/// A distribution over factors, or how it is found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub(crate) enum KnowledgeSource {
    /// A TOML file with the keys of [`Knowledge`], or `@stage/file`.
    File(String),
    /// Masses, groups or a ranking by the names of factors.
    Written(Knowledge),
    /// Found.
    Derived(Derived),
}

/// Knowledge that is not written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Derived {
    /// Every factor the same.
    Uniform {},
    /// What several models of the training rows agree on.
    Consensus(PoolConfig),
    /// What one of this recipe's models, not guided, says of the training rows.
    Teacher {
        /// Its name.
        model: String,
    },
}

impl TryFrom<Value> for KnowledgeSource {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        if let Value::String(path) = value {
            return Ok(Self::File(path));
        }
        let Some(kind) = value.get("kind").and_then(Value::as_str) else {
            return Err("expected a file, or a table with a `kind`".to_owned());
        };
        if WRITTEN.contains(&kind) {
            return Ok(Self::Written(typed(value)?));
        }
        if DERIVED.contains(&kind) {
            return Ok(Self::Derived(typed(value)?));
        }
        let known: Vec<String> = WRITTEN.iter().chain(&DERIVED).map(|kind| (*kind).to_owned()).collect();
        let hint = nearest_of(kind, &known).map(|kind| format!("did you mean `{kind}`?"));
        let hint = hint.unwrap_or_else(|| format!("kinds are {}", known.join(", ")));
        Err(format!("no kind of knowledge is called `{kind}`; {hint}"))
    }
}

impl From<KnowledgeSource> for Value {
    fn from(source: KnowledgeSource) -> Self {
        match source {
            KnowledgeSource::File(path) => path.into(),
            KnowledgeSource::Written(knowledge) => written(&knowledge),
            KnowledgeSource::Derived(derived) => written(&derived),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<KnowledgeSource, String> {
        let table: toml::Table = text.parse().unwrap();
        KnowledgeSource::try_from(table["q"].clone())
    }

    #[test]
    fn every_source_can_be_read_and_comes_back() {
        for text in [
            r#"q = "experts.toml""#,
            r#"q = { kind = "groups", groups = [{ mass = 0.7, factors = ["a"] }] }"#,
            r#"q = { kind = "geometric", ratio = 0.7, ranking = ["a", "b"] }"#,
            r#"q = { kind = "masses", masses = { a = 0.5, b = 0.5 } }"#,
            r#"q = { kind = "uniform" }"#,
            r#"q = { kind = "consensus" }"#,
            r#"q = { kind = "teacher", model = "ridge" }"#,
        ] {
            let source = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(KnowledgeSource::try_from(Value::from(source)).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_mistyped_is_named() {
        assert_eq!(
            read(r#"q = { kind = "consenus" }"#).unwrap_err(),
            "no kind of knowledge is called `consenus`; did you mean `consensus`?"
        );
        assert!(read(r#"q = { kind = "groups", group = [] }"#).unwrap_err().contains("`group"));
        assert!(read("q = 3").unwrap_err().contains("expected a file"));
    }
}
