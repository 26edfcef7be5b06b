//! The kinds of stages.

use std::collections::BTreeMap;

use align_core::number::{NoiseRate, NonNegative};
use align_models::{LoraConfig, SamplingConfig};
use align_ppo::{Following, PpoConfig};
use align_reward::Aggregate;
use align_train::OptimizerConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::average::AverageConfig;
use super::bilevel::{
    BiasStage, CleanStage, CoefficientStage, DesignStage, LinearCleaningStage, SolversStage,
};
use super::claims::ClaimsStage;
use super::eval::{EvalStage, eval_microbatch};
use super::factors::{ConsistencyStage, FactorsStage, SurveyStage};
use super::fusion::FusionConfig;
use super::gaps::GapsStage;
use super::merge::MergeStage;
use super::parts::{DataConfig, EncodeConfig, TrainingConfig, stage_reference};
use super::preference::{DpoStage, SelfPlayStage};
use super::soup::SoupStage;
use super::source::{RecipeError, Source, join, nearest_of};
use super::superhf::SuperHfStage;
use super::worlds::{CyclicStage, PatternStage, SkillsStage, TrapsStage, WorldStage};

/// One step of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    /// What other stages call it, as `@name`; with `/seed-N` if it is repeated over seeds.
    pub(crate) name: String,
    /// What the names in braces stood for in its name, for the report.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub(crate) varied: toml::Table,
    /// What it does.
    #[serde(flatten)]
    pub(crate) kind: StageKind,
}

/// What a stage does.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum StageKind {
    /// Generates the synthetic world: tokenizer, texts, demonstrations, preferences, prompts.
    World(WorldStage),
    /// Generates the world of rare traps.
    Traps(TrapsStage),
    /// Generates the world of circular preferences.
    Cyclic(CyclicStage),
    /// Generates the world with a cheap trick.
    Pattern(PatternStage),
    /// Generates the world of skills.
    Skills(SkillsStage),
    /// Makes a model with fresh weights.
    Init(InitStage),
    /// Fine-tunes on demonstrations, or pretrains on text.
    Sft(SftStage),
    /// Trains a reward model.
    Reward(Box<RewardStage>),
    /// Averages checkpoints.
    Soup(Box<SoupStage>),
    /// Merges checkpoints by a configuration in mergekit's form.
    Merge(Box<MergeStage>),
    /// Puts a large model and small ones together, to be steered at decoding time.
    Fusion(Box<FusionConfig>),
    /// Aligns a policy.
    Ppo(Box<PpoStage>),
    /// Trains on preference pairs, or on rated answers, directly.
    Dpo(Box<DpoStage>),
    /// Self-play on a preference oracle, towards an equilibrium.
    Nash(Box<SelfPlayStage>),
    /// The same with the losses of online DPO and XPO.
    Online(Box<SelfPlayStage>),
    /// Filters answers by a reward and fine-tunes on the best.
    Superhf(Box<SuperHfStage>),
    /// Evaluates models on prompts and compares them.
    Eval(Box<EvalStage>),
    /// Says how much of the way from a base to a tuned model others go.
    Gaps(GapsStage),
    /// Draws many answers and keeps the best.
    Bon(Box<BonStage>),
    /// Draws pairs of answers and labels them by a judge.
    Pairs(PairsStage),
    /// Runs bilevel solvers side by side on a problem whose answer is known.
    Solvers(Box<SolversStage>),
    /// Measures the bias of the penalised hyper-gradient.
    Bias(BiasStage),
    /// Cleans preference pairs of worlds in which the best reward is linear.
    LinearCleaning(Box<LinearCleaningStage>),
    /// Cleans preference data for a reward model.
    Clean(Box<CleanStage>),
    /// Tunes a KL coefficient over a table of choices.
    Coefficient(Box<CoefficientStage>),
    /// Designs a reward over a table of choices.
    RewardDesign(Box<DesignStage>),
    /// Generates a survey whose reasons are known.
    Survey(SurveyStage),
    /// Fits models to answers, guided and not, and explains them.
    Factors(Box<FactorsStage>),
    /// Says whether models have the same reasons.
    Consistency(ConsistencyStage),
    /// Says of earlier stages' results whether they are what was expected.
    Claims(ClaimsStage),
}

/// The names of the kinds, for error messages.
const KINDS: [&str; 30] = [
    "world",
    "traps",
    "cyclic",
    "pattern",
    "skills",
    "init",
    "sft",
    "reward",
    "soup",
    "merge",
    "fusion",
    "ppo",
    "dpo",
    "nash",
    "online",
    "superhf",
    "eval",
    "gaps",
    "bon",
    "pairs",
    "solvers",
    "bias",
    "linear_cleaning",
    "clean",
    "coefficient",
    "reward_design",
    "survey",
    "factors",
    "consistency",
    "claims",
];

impl Stage {
    /// Reads a stage whose `kind` decides its form.
    pub(crate) fn from_value(source: &Source, mut value: Value, path: &str) -> Result<Self, RecipeError> {
        let missing = |field: &str| source.field_error(path, format!("missing field `{field}`"));
        let table =
            value.as_table_mut().ok_or_else(|| source.field_error(path, "expected a table".to_owned()))?;
        let name = match table.remove("name") {
            Some(Value::String(name)) => name,
            Some(other) => {
                return Err(source.field_error(
                    &format!("{path}.name"),
                    format!("expected a string, found {}", other.type_str()),
                ));
            }
            None => return Err(missing("name")),
        };
        if !is_folder_name(&name) {
            let message = format!(
                "a stage's name is its folder: letters, digits, -, _ and points inside, found {name:?}"
            );
            return Err(source.field_error(&format!("{path}.name"), message));
        }
        let varied = match table.remove("varied") {
            Some(Value::Table(varied)) => varied,
            _ => Table::new(),
        };
        let kind = match table.remove("kind") {
            Some(Value::String(kind)) => kind,
            _ => return Err(missing("kind")),
        };
        let kind = match kind.as_str() {
            "world" => StageKind::World(source.deserialize_value(value, path)?),
            "traps" => StageKind::Traps(source.deserialize_value(value, path)?),
            "cyclic" => StageKind::Cyclic(source.deserialize_value(value, path)?),
            "pattern" => StageKind::Pattern(source.deserialize_value(value, path)?),
            "skills" => StageKind::Skills(source.deserialize_value(value, path)?),
            "init" => StageKind::Init(source.deserialize_value(value, path)?),
            "sft" => StageKind::Sft(source.deserialize_value(value, path)?),
            "reward" => StageKind::Reward(Box::new(source.deserialize_value(value, path)?)),
            "soup" => {
                let soup: SoupStage = source.deserialize_value(value, path)?;
                let refused = |(key, message)| source.field_error(&join(path, key), message);
                soup.check().map_err(refused)?;
                StageKind::Soup(Box::new(soup))
            }
            "merge" => StageKind::Merge(Box::new(source.deserialize_value(value, path)?)),
            "fusion" => StageKind::Fusion(Box::new(source.deserialize_value(value, path)?)),
            "ppo" => StageKind::Ppo(Box::new(source.deserialize_value(value, path)?)),
            "dpo" => StageKind::Dpo(Box::new(source.deserialize_value(value, path)?)),
            "nash" => StageKind::Nash(Box::new(source.deserialize_value(value, path)?)),
            "online" => StageKind::Online(Box::new(source.deserialize_value(value, path)?)),
            "superhf" => StageKind::Superhf(Box::new(source.deserialize_value(value, path)?)),
            "eval" => {
                let eval: EvalStage = source.deserialize_value(value, path)?;
                eval.check().map_err(|message| source.field_error(path, message))?;
                StageKind::Eval(Box::new(eval))
            }
            "gaps" => StageKind::Gaps(source.deserialize_value(value, path)?),
            "bon" => StageKind::Bon(Box::new(source.deserialize_value(value, path)?)),
            "pairs" => StageKind::Pairs(source.deserialize_value(value, path)?),
            "solvers" => StageKind::Solvers(Box::new(source.deserialize_value(value, path)?)),
            "bias" => StageKind::Bias(source.deserialize_value(value, path)?),
            "linear_cleaning" => StageKind::LinearCleaning(Box::new(source.deserialize_value(value, path)?)),
            "clean" => {
                let clean: CleanStage = source.deserialize_value(value, path)?;
                let refused = |(key, message)| source.field_error(&join(path, key), message);
                clean.check().map_err(refused)?;
                StageKind::Clean(Box::new(clean))
            }
            "coefficient" => StageKind::Coefficient(Box::new(source.deserialize_value(value, path)?)),
            "reward_design" => StageKind::RewardDesign(Box::new(source.deserialize_value(value, path)?)),
            "survey" => StageKind::Survey(source.deserialize_value(value, path)?),
            "factors" => {
                let factors: FactorsStage = source.deserialize_value(value, path)?;
                let refused = |(key, message): (String, _)| source.field_error(&join(path, &key), message);
                factors.check().map_err(refused)?;
                StageKind::Factors(Box::new(factors))
            }
            "consistency" => StageKind::Consistency(source.deserialize_value(value, path)?),
            "claims" => StageKind::Claims(source.deserialize_value(value, path)?),
            other => {
                let known: Vec<String> = KINDS.iter().map(|&kind| kind.to_owned()).collect();
                let hint = match nearest_of(other, &known) {
                    Some(nearest) => format!("; did you mean `{nearest}`?"),
                    None => format!("; kinds are {}", known.join(", ")),
                };
                return Err(source.field_error(
                    &format!("{path}.kind"),
                    format!("no kind of stage is called `{other}`{hint}"),
                ));
            }
        };
        Ok(Self { name, varied, kind })
    }

    /// The name without `/seed-N`.
    pub(crate) fn family(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

/// Letters, digits, `-`, `_` and points inside, and at most `/seed-N` after that.
fn is_folder_name(name: &str) -> bool {
    let (name, seed) = name.split_once('/').unwrap_or((name, "seed-0"));
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && seed.strip_prefix("seed-").is_some_and(is_number)
}

impl StageKind {
    /// The word for it, as recipes and sub-commands have it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::World(_) => "world",
            Self::Traps(_) => "traps",
            Self::Cyclic(_) => "cyclic",
            Self::Pattern(_) => "pattern",
            Self::Skills(_) => "skills",
            Self::Init(_) => "init",
            Self::Sft(_) => "sft",
            Self::Reward(_) => "reward",
            Self::Soup(_) => "soup",
            Self::Merge(_) => "merge",
            Self::Fusion(_) => "fusion",
            Self::Ppo(_) => "ppo",
            Self::Dpo(_) => "dpo",
            Self::Nash(_) => "nash",
            Self::Online(_) => "online",
            Self::Superhf(_) => "superhf",
            Self::Eval(_) => "eval",
            Self::Gaps(_) => "gaps",
            Self::Bon(_) => "bon",
            Self::Pairs(_) => "pairs",
            Self::Solvers(_) => "solvers",
            Self::Bias(_) => "bias",
            Self::LinearCleaning(_) => "linear_cleaning",
            Self::Clean(_) => "clean",
            Self::Coefficient(_) => "coefficient",
            Self::RewardDesign(_) => "reward_design",
            Self::Survey(_) => "survey",
            Self::Factors(_) => "factors",
            Self::Consistency(_) => "consistency",
            Self::Claims(_) => "claims",
        }
    }

    /// Whether the stage's folder is that of one training, which makes it itself and keeps checkpoints in it.
    pub(crate) fn is_one_training(&self) -> bool {
        match self {
            Self::Sft(_) | Self::Dpo(_) | Self::Nash(_) | Self::Online(_) | Self::Superhf(_) => true,
            Self::Reward(reward) => reward.ensemble.is_none(),
            _ => false,
        }
    }

    /// Everything of the form `@stage` in it, without the `@`.
    pub(crate) fn references(&self) -> Vec<String> {
        let mut found = Vec::new();
        let value = Value::try_from(self).expect("a stage that was read can be written");
        collect_references(&value, &mut found);
        found
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.extend(stage_reference(text).map(str::to_owned)),
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, found)),
        Value::Table(table) => table.iter().for_each(|(_, value)| collect_references(value, found)),
        _ => {}
    }
}

/// A model with fresh weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InitStage {
    /// The folder whose tokenizer the model uses.
    pub(crate) tokenizer: String,
    /// Decides the weights.
    #[serde(default)]
    pub(crate) seed: u64,
    /// `config.json` in TOML: model_type, hidden_size, num_hidden_layers and so on. `vocab_size` is the tokenizer's.
    pub(crate) config: toml::Table,
}

/// Supervised fine-tuning.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SftStage {
    /// Where the model starts.
    pub(crate) model: String,
    /// The order of the data.
    #[serde(default)]
    pub(crate) seed: u64,
    /// The demonstrations.
    pub(crate) data: DataConfig,
    /// Stream the data, shuffled within windows of so many rows, instead of reading it into memory. Needs
    /// `training.max_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shuffle_window: Option<usize>,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    #[serde(default)]
    pub(crate) training: TrainingConfig,
    #[serde(default)]
    pub(crate) optimizer: OptimizerConfig,
    /// Compute every block again in the backward pass: a fraction of the memory for one more forward pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) recompute: bool,
    /// Train low-rank adapters instead of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lora: Option<LoraConfig>,
}

/// Reward modelling.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RewardStage {
    /// Where the backbone starts.
    pub(crate) model: String,
    /// The head's weights and the order of the data.
    #[serde(default)]
    pub(crate) seed: u64,
    /// The labelled pairs; give `held_out` for an accuracy that means something.
    pub(crate) data: DataConfig,
    /// Stream the pairs, shuffled within windows of so many rows, instead of reading them into memory. Needs
    /// `training.max_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shuffle_window: Option<usize>,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    #[serde(default)]
    pub(crate) training: TrainingConfig,
    #[serde(default)]
    pub(crate) optimizer: OptimizerConfig,
    /// Weight of `(r_chosen + r_rejected)²`, which keeps scores around 0. TRL suggests 0.01.
    #[serde(default = "no_weight")]
    pub(crate) center_rewards_coefficient: NonNegative,
    /// Weight of `½(r_chosen² + r_rejected²)`, which keeps scores small.
    #[serde(default = "no_weight")]
    pub(crate) reward_l2_coefficient: NonNegative,
    /// Shift and scale the trained model so that held-out completions score 0 on average with deviation 1.
    #[serde(default = "yes")]
    pub(crate) normalize: bool,
    /// Train low-rank adapters and the head instead of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lora: Option<LoraConfig>,
    /// Make labels wrong on purpose; the held-out side keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label_noise: Option<LabelNoiseConfig>,
    /// Learn which of two answers is better from both of them together, instead of a score for each: preferences that are no
    /// order can be learnt. The model serves as an oracle of kind "pairwise", and nowhere as a reward.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pairwise: bool,
    /// Train several models that differ by their seed, to be read as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ensemble: Option<EnsembleConfig>,
}

/// Wrong labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelNoiseConfig {
    /// The probability of each flip.
    pub(crate) rate: NoiseRate,
    /// Decides which; all members of an ensemble see the same.
    #[serde(default)]
    pub(crate) seed: u64,
}

/// Several reward models read as one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EnsembleConfig {
    /// How many. Their seeds count on from the stage's.
    pub(crate) members: usize,
    /// How their scores become one, unless whoever uses the ensemble says otherwise.
    pub(crate) aggregate: Aggregate,
    /// Keep the model of their mean weights too (WARM).
    pub(crate) weight_average: bool,
}

impl Default for EnsembleConfig {
    /// Five, as in the paper, read by their mean.
    fn default() -> Self {
        Self { members: 5, aggregate: Aggregate::default(), weight_average: false }
    }
}

fn no_weight() -> NonNegative {
    NonNegative::literal(0.0)
}

fn yes() -> bool {
    true
}

/// PPO. With a soup as `reference` this is SALSA.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PpoStage {
    /// Where the policy starts.
    pub(crate) policy: String,
    /// What the policy is held to.
    pub(crate) reference: String,
    /// Let the reference follow the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) following: Option<Following>,
    /// The reward model or ensemble.
    pub(crate) reward: String,
    /// How an ensemble's scores become one, instead of as its folder says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) aggregate: Option<Aggregate>,
    /// Where the critic starts; the reward model (of an ensemble the first) if not given. Its head starts afresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) critic: Option<String>,
    /// A judge that is logged and never trained on: a reward model, or a world's gold reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gold: Option<String>,
    /// Further models whose KL is logged, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) anchors: BTreeMap<String, String>,
    /// The prompts.
    pub(crate) prompts: DataConfig,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    /// One run per seed; `ppo.seed` is not used beside it.
    #[serde(default = "one_seed")]
    pub(crate) seeds: Vec<u64>,
    /// Save after every so many iterations; 0 only at the end and when interrupted.
    #[serde(default)]
    pub(crate) checkpoint_every: u64,
    /// Keep an average of the policy's weights too, written beside the model as `average`. A step is an iteration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) average: Option<AverageConfig>,
    /// Every number of PPO.
    #[serde(default)]
    pub(crate) ppo: PpoConfig,
    /// Train low-rank adapters of policy and critic instead of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lora: Option<LoraConfig>,
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

/// Best-of-n: from answers drawn here, or from a file of scores.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BonStage {
    /// A file of scores, a prompt a line: `members` (or `proxy`) and perhaps `gold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scores: Option<String>,
    /// Decides the draws.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Ways of judging to compare; the ensemble's own if none are given. The first picks the answers that are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) aggregates: Vec<Aggregate>,
    /// How answers are drawn and judged, instead of `scores`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sample: Option<BonSample>,
}

/// How answers are drawn and judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BonSample {
    /// What answers.
    pub(crate) model: String,
    /// N, how many answers each prompt gets.
    pub(crate) n: usize,
    /// The reward model or ensemble.
    pub(crate) reward: String,
    /// The reward that was meant; it never chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gold: Option<String>,
    /// The prompts.
    pub(crate) prompts: DataConfig,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    /// How answers are drawn; stop tokens are the model's own if none are given.
    #[serde(default)]
    pub(crate) sampling: SamplingConfig,
    /// Sequences that go through a model at once.
    #[serde(default = "eval_microbatch")]
    pub(crate) microbatch: usize,
}

/// Preference pairs from a model's own answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PairsStage {
    /// What answers.
    pub(crate) model: String,
    /// Which of two answers is better: a reward model, an ensemble, a server, a world's gold reward. The higher score wins.
    pub(crate) judge: String,
    /// How an ensemble's scores become one, instead of as its folder says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) aggregate: Option<Aggregate>,
    /// The prompts.
    pub(crate) prompts: DataConfig,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    /// How answers are drawn; stop tokens are the model's own if none are given.
    #[serde(default)]
    pub(crate) sampling: SamplingConfig,
    /// Decides the draws.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Pairs drawn for each prompt.
    #[serde(default = "one_pair")]
    pub(crate) pairs_per_prompt: usize,
    /// Sequences that go through a model at once.
    #[serde(default = "eval_microbatch")]
    pub(crate) microbatch: usize,
}

fn one_pair() -> usize {
    1
}
