//! Models of answers, and their reasons: `survey`, `factors` and `consistency`.
//!
//! ```toml
//! [[stage]]
//! name = "fit"
//! kind = "factors"
//! data = { path = "survey.csv", schema = "schema.toml" }
//!
//! [[stage.model]]
//! name = "ridge"
//! kind = "ridge"
//!
//! [[stage.model]]
//! name = "perceptron"
//! kind = "mlp"
//!
//! [[stage.guide]]
//! name = "experts"
//! knowledge = { kind = "groups", groups = [{ mass = 0.7, factors = ["health", "equity"] }] }
//! lambda = [0.3, 1.0, 3.0]
//! ```

mod knowledge;
mod model;

use std::collections::{BTreeMap, BTreeSet};

use align_factors::attribution::{BandConfig, BaselineConfig, Method};
use align_factors::guide::{FitConfig, GuideConfig};
use align_factors::{EncoderConfig, Schema, Shares, SurveyConfig};
use serde::{Deserialize, Serialize};

pub(crate) use self::knowledge::{Derived, KnowledgeSource};
pub(crate) use self::model::{FactorModel, ModelKind};
use super::source::nearest_of;

/// A survey whose reasons are known, `align_factors::Survey`, written as files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SurveyStage {
    /// Decides who answers.
    pub(crate) seed: u64,
    /// People whose answers are fitted.
    pub(crate) train: usize,
    /// People whose answers settings are chosen on; no file if none.
    pub(crate) validation: usize,
    /// People whose answers nothing is chosen on.
    pub(crate) test: usize,
    /// What answers depend on.
    pub(crate) survey: SurveyConfig,
}

impl Default for SurveyStage {
    /// Few to fit, so that knowledge has something to add, and many to test, so that figures are sharp.
    fn default() -> Self {
        Self { seed: 0, train: 200, validation: 0, test: 3000, survey: SurveyConfig::default() }
    }
}

/// Models fitted to a table, guided and not, and why they say what they say.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FactorsStage {
    /// Decides the split, the weights networks start from, minibatches and probes.
    #[serde(default)]
    pub(crate) seed: u64,
    /// The answers.
    pub(crate) data: AnswersConfig,
    /// How answers become numbers.
    #[serde(default)]
    pub(crate) encoder: EncoderConfig,
    /// The models.
    pub(crate) model: Vec<FactorModel>,
    /// How networks are trained. Its `seed` is the stage's.
    #[serde(default)]
    pub(crate) training: FitConfig,
    /// How guided networks are guided.
    #[serde(default)]
    pub(crate) guidance: GuideConfig,
    /// What they are guided by: every network is trained without and with each of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) guide: Vec<GuideEntry>,
    /// Distributions that all models are compared with, and that none sees, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) references: BTreeMap<String, KnowledgeSource>,
    /// How models are explained.
    #[serde(default)]
    pub(crate) explain: ExplainConfig,
}

/// A file of answers, with what its columns are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswersConfig {
    /// A CSV or Parquet file, or `@stage/file`.
    pub(crate) path: String,
    /// What the columns are: a TOML file, or its keys. Inferred if not given; the label must be named.
    #[serde(default)]
    pub(crate) schema: SchemaSource,
    /// Answers to choose λ and stopping times on, instead of a share of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) validation: Option<String>,
    /// Answers that nothing is chosen on, instead of a share of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) test: Option<String>,
    /// How `path` is divided, unless the parts are files of their own.
    #[serde(default)]
    pub(crate) split: Shares,
    /// Whether the parts have labels in the same proportions.
    #[serde(default = "yes")]
    pub(crate) stratified: bool,
}

fn yes() -> bool {
    true
}

/// What the columns of a file are, or where that stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "toml::Value")]
pub(crate) enum SchemaSource {
    /// A TOML file.
    File(String),
    /// The keys of such a file.
    Table(Schema),
}

impl Default for SchemaSource {
    fn default() -> Self {
        Self::Table(Schema::default())
    }
}

impl TryFrom<toml::Value> for SchemaSource {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(path) => Ok(Self::File(path)),
            table => Ok(Self::Table(typed(table)?)),
        }
    }
}

impl From<SchemaSource> for toml::Value {
    fn from(schema: SchemaSource) -> Self {
        match schema {
            SchemaSource::File(path) => path.into(),
            SchemaSource::Table(schema) => written(&schema),
        }
    }
}

/// What a network is guided by.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuideEntry {
    /// What stands behind the network's name: `perceptron-experts`.
    pub(crate) name: String,
    /// q.
    pub(crate) knowledge: KnowledgeSource,
    /// λ instead of the guidance's, or several to choose from on validation rows, with 0 among them whether listed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lambda: Option<Lambdas>,
}

/// One weight, or several to choose from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a list of numbers to choose from")]
pub(crate) enum Lambdas {
    /// This one.
    One(f64),
    /// The best of these.
    Grid(Vec<f64>),
}

/// How models are explained and compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExplainConfig {
    /// The way of attributing.
    pub(crate) method: Method,
    /// What masked factors are set to, from training rows.
    pub(crate) baseline: BaselineConfig,
    /// At most so many test rows are explained. 300 give importances of a survey within a few percent.
    pub(crate) rows: usize,
    /// The bands of importances.
    pub(crate) bands: BandConfig,
    /// How many factors count as the first ones.
    pub(crate) top: usize,
}

impl Default for ExplainConfig {
    fn default() -> Self {
        Self {
            method: Method::default(),
            baseline: BaselineConfig::default(),
            rows: 300,
            bands: BandConfig::default(),
            top: 4,
        }
    }
}

/// Whether models that were fitted before have the same reasons.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsistencyStage {
    /// Folders of models, or of fits with all their models: `@fit/models/ridge`, `@fit`.
    pub(crate) models: Vec<String>,
    /// Rows to explain all of them on; without them importances are those of each model's own test rows, and no order is
    /// certified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
    /// At most so many rows, from the first on.
    #[serde(default = "three_hundred")]
    pub(crate) rows: usize,
    /// How many factors count as the first ones.
    #[serde(default = "four")]
    pub(crate) top: usize,
}

fn three_hundred() -> usize {
    300
}

fn four() -> usize {
    4
}

impl FactorsStage {
    /// What is wrong with the recipe as a whole: the key, and why.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, message: String| Err((key.to_owned(), message));
        if self.model.is_empty() {
            return wrong("model", "expected one [[model]] at least".to_owned());
        }
        if self.training.seed != 0 {
            return wrong("training.seed", "a stage has one seed: set `seed` beside `training`".to_owned());
        }
        if let Some((key, message)) = self.data.wrong() {
            return wrong(key, message.to_owned());
        }
        if self.explain.rows == 0 || self.explain.top == 0 {
            return wrong("explain", "`rows` and `top` must be at least 1".to_owned());
        }
        let mut folders = BTreeSet::new();
        for (index, folder) in self.folders().into_iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if folder.starts_with('.') || folder.is_empty() || !folder.chars().all(plain) {
                let message =
                    format!("names are folders: letters, digits, -, _ and points inside, found {folder:?}");
                return wrong(if index < self.model.len() { "model" } else { "guide" }, message);
            }
            if !folders.insert(folder.clone()) {
                return wrong("model", format!("two models would be called `{folder}`"));
            }
        }
        let networks = self.model.iter().any(|model| matches!(model.kind, ModelKind::Network(_)));
        if !self.guide.is_empty() && !networks {
            let message = "only networks are guided (linear, factorization_machine, mlp, ft_transformer), and there is \
                           none among the models";
            return wrong("guide", message.to_owned());
        }
        for (index, guide) in self.guide.iter().enumerate() {
            let key = format!("guide[{index}].lambda");
            let lambdas = match &guide.lambda {
                None => vec![self.guidance.lambda],
                Some(Lambdas::One(lambda)) => vec![*lambda],
                Some(Lambdas::Grid(lambdas)) if lambdas.is_empty() => {
                    return wrong(&key, "expected one weight at least".to_owned());
                }
                Some(Lambdas::Grid(lambdas)) => lambdas.clone(),
            };
            if let Some(lambda) = lambdas.iter().find(|lambda| !(**lambda >= 0.0 && lambda.is_finite())) {
                return wrong(&key, format!("lambda must be finite and >= 0, got {lambda}"));
            }
            if matches!(guide.lambda, Some(Lambdas::Grid(_))) && !self.data.has_validation() {
                let message = "a choice among weights needs validation rows: give `data.validation`, or a share in `data.split`";
                return wrong(&key, message.to_owned());
            }
            if let KnowledgeSource::Derived(Derived::Teacher { model }) = &guide.knowledge {
                let known: Vec<String> = self.model.iter().map(|model| model.name.clone()).collect();
                if !known.contains(model) {
                    let hint = nearest_of(model, &known).map(|name| format!("; did you mean `{name}`?"));
                    let hint = hint.unwrap_or_else(|| format!("; models are {}", known.join(", ")));
                    return wrong(
                        &format!("guide[{index}].knowledge.model"),
                        format!("no model is called `{model}`{hint}"),
                    );
                }
            }
        }
        for (name, source) in &self.references {
            if let KnowledgeSource::Derived(Derived::Teacher { .. } | Derived::Consensus(_)) = source {
                let message = "a reference is written down, not found from models: expected a file, or masses, groups, a \
                               ranking or `uniform`";
                return wrong(&format!("references.{name}"), message.to_owned());
            }
        }
        Ok(())
    }

    /// The folders of all models: as given, then with each guide.
    pub(crate) fn folders(&self) -> Vec<String> {
        let plain = self.model.iter().map(|model| model.name.clone());
        let guided = self.guide.iter().flat_map(|guide| {
            let networks = self.model.iter().filter(|model| matches!(model.kind, ModelKind::Network(_)));
            networks.map(|model| guided_name(&model.name, &guide.name))
        });
        plain.chain(guided).collect()
    }
}

/// What a guided network is called.
pub(crate) fn guided_name(model: &str, guide: &str) -> String {
    format!("{model}-{guide}")
}

impl AnswersConfig {
    /// What does not go together, and where it stands.
    fn wrong(&self) -> Option<(&'static str, &'static str)> {
        let divided = self.split != Shares::default() || !self.stratified;
        match (&self.validation, &self.test) {
            (Some(_), None) => Some((
                "data.validation",
                "where validation rows are a file of their own, `data.test` must be one too",
            )),
            (_, Some(_)) if divided => {
                Some(("data.split", "`data.test` is a file of its own: there is nothing to divide"))
            }
            _ => None,
        }
    }

    /// Whether there are rows to choose on.
    fn has_validation(&self) -> bool {
        let shares = written(&self.split);
        let share = shares.get("validation").and_then(toml::Value::as_float);
        self.validation.is_some() || (self.test.is_none() && share.is_some_and(|share| share > 0.0))
    }
}

/// A value of a recipe as its type; the error is what is wrong with it.
pub(super) fn typed<T: serde::de::DeserializeOwned>(value: toml::Value) -> Result<T, String> {
    value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

/// A part of a recipe as a value.
pub(super) fn written(part: &impl Serialize) -> toml::Value {
    toml::Value::try_from(part).expect("what was read from a recipe can be written into one")
}
