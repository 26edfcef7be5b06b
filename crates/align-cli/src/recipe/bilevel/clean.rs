//! Preference data that are cleaned by weights.
//!
//! ```toml
//! [[stage]]
//! name = "clean"
//! kind = "clean"
//! model = "@sft"
//! data = { path = "pairs.jsonl", held_out = 0.2 }
//! trusted = { path = "checked.jsonl" }
//! ```

use align_bilevel::alignment::CleanConfig;
use align_core::number::{Fraction, NoiseRate, Positive, UnitInterval};
use align_train::OptimizerConfig;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use crate::recipe::parts::{DataConfig, EncodeConfig, TrainingConfig};

/// Weights for labelled pairs, such that a reward model trained on the weighted pairs does well on trusted ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CleanStage {
    /// Where the reward model starts.
    pub(crate) model: String,
    /// Batches, the head's first weights and the order of the data; `cleaning.seed` is not used beside it.
    #[serde(default)]
    pub(crate) seed: u64,
    /// The pairs to clean: one file or several. What is held out measures every arm, with its labels as they stand.
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) data: Vec<DataConfig>,
    /// Pairs whose labels are right. None of them may be among the pairs to clean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trusted: Option<DataConfig>,
    /// Instead of `trusted`: this share of the prompts in `data` is trusted, with all its pairs, and not cleaned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trusted_share: Option<Fraction>,
    /// Make labels wrong on purpose, to see whether they are found; neither trusted nor held-out ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label_noise: Option<ExactNoise>,
    /// What has a weight.
    #[serde(default)]
    pub(crate) weights: WeighConfig,
    /// Pairs that weigh at least this much go into `kept.jsonl`.
    #[serde(default = "half")]
    pub(crate) threshold: UnitInterval,
    /// Instead of `threshold`: this share of the pairs goes into `kept.jsonl`, those that weigh most. A network's weights order the pairs
    /// and drift as a whole, so that a fixed threshold says little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keep_share: Option<Fraction>,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    /// σ and the steps of both levels.
    #[serde(default)]
    pub(crate) cleaning: CleanConfig,
    /// C of the lower level, which keeps its minimum within reach.
    #[serde(default = "ridge")]
    pub(crate) ridge: Positive,
    /// Where both copies of the model begin.
    #[serde(default)]
    pub(crate) start: StartFrom,
    /// Save after every so many steps of the weights; 0 only at the end and when interrupted.
    #[serde(default)]
    pub(crate) checkpoint_every: u64,
    /// What is trained for comparison, each as `training` and `optimizer` say. The cleaned arm is the stage's model.
    #[serde(default = "arms")]
    pub(crate) arms: Vec<Arm>,
    /// How every arm is trained.
    #[serde(default)]
    pub(crate) training: TrainingConfig,
    #[serde(default)]
    pub(crate) optimizer: OptimizerConfig,
}

/// A share of wrong labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExactNoise {
    /// Exactly this share of the pairs has its answers exchanged.
    pub(crate) share: NoiseRate,
    /// Decides which.
    #[serde(default)]
    pub(crate) seed: u64,
}

/// What has a weight.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum WeighConfig {
    /// Every pair.
    #[default]
    Pair,
    /// Every source: all its pairs weigh the same.
    Source {
        /// The column that names a pair's source; the entries of `data` if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        column: Option<String>,
    },
}

/// Where both copies of the model begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StartFrom {
    /// At the arm trained on all pairs alike: the first steps are then about what is wrong, not about what a preference is.
    #[default]
    All,
    /// At `model`.
    Model,
}

/// What a reward model is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Arm {
    /// All pairs alike.
    All,
    /// All pairs, each with its weight.
    Cleaned,
    /// The trusted pairs alone.
    Trusted,
    /// The pairs that a model of all pairs agrees with best, as many as the noise leaves or as are kept.
    Confident,
    /// The pairs that were not flipped; nobody knows these outside an experiment.
    Right,
}

impl Arm {
    /// Its word in recipes and results.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Cleaned => "cleaned",
            Self::Trusted => "trusted",
            Self::Confident => "confident",
            Self::Right => "right",
        }
    }
}

fn half() -> UnitInterval {
    UnitInterval::literal(0.5)
}

/// A tenth of AdamW's usual decay: the lower level is bounded, and weights of a trained model hardly shrink.
fn ridge() -> Positive {
    Positive::literal(1e-3)
}

/// Without a model of the trusted pairs alone nobody knows what the other pairs were good for.
fn arms() -> Vec<Arm> {
    vec![Arm::All, Arm::Trusted, Arm::Cleaned]
}

/// A table, or a list of tables; errors keep their path.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DataConfig>, D::Error> {
    struct Visitor;

    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Vec<DataConfig>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a table with `path`, or a list of such tables")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            DataConfig::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
            let all = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
            match all.is_empty() {
                true => Err(serde::de::Error::custom("expected at least one file of pairs, found none")),
                false => Ok(all),
            }
        }
    }

    deserializer.deserialize_any(Visitor)
}

impl CleanStage {
    /// Refuses keys that contradict each other; the error names one of them.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        match (&self.trusted, self.trusted_share) {
            (None, None) => {
                return Err(("trusted", "missing: give `trusted` pairs, or a `trusted_share`".to_owned()));
            }
            (Some(_), Some(_)) => {
                return Err((
                    "trusted_share",
                    "expected one of `trusted` and `trusted_share`, found both".to_owned(),
                ));
            }
            _ => {}
        }
        if self.arms.contains(&Arm::Right) && self.label_noise.is_none() {
            let message = "`right` is known only where `label_noise` says which labels are wrong".to_owned();
            return Err(("arms", message));
        }
        if matches!(&self.weights, WeighConfig::Source { column: None }) && self.data.len() < 2 {
            let message =
                "give the `column` that names a pair's source, or several entries of `data`".to_owned();
            return Err(("weights", message));
        }
        Ok(())
    }
}
