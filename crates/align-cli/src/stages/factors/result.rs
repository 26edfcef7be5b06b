//! What a fit says of its models.

use std::collections::BTreeMap;
use std::path::Path;

use align_factors::attribution::{Band, Method};
use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::super::figures::Figures;
use super::super::read_json;
use super::consistency::Consistency;

/// The result's file in the stage's folder.
pub(super) const RESULTS: &str = "factors.json";

/// All models of a fit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FactorsResult {
    /// The column that is predicted.
    pub(crate) label: String,
    /// Names of factors.
    pub(crate) factors: Vec<String>,
    /// How many rows there were.
    pub(crate) rows: PartSizes,
    /// What is to be known of the data.
    pub(crate) notes: Vec<String>,
    /// What networks were guided by.
    pub(crate) knowledge: Vec<KnowledgeResult>,
    /// What models were compared with, and none saw.
    pub(crate) references: Vec<KnowledgeResult>,
    /// As given, then with each guide.
    pub(crate) models: Vec<ModelResult>,
    /// Whether they have the same reasons.
    pub(crate) consistency: Consistency,
}

/// Rows by part.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct PartSizes {
    pub(crate) train: usize,
    pub(crate) validation: usize,
    pub(crate) test: usize,
    /// Test rows that were explained.
    pub(crate) explained: usize,
}

/// A distribution over factors, and where it is from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KnowledgeResult {
    /// The guide's or the reference's name.
    pub(crate) name: String,
    /// One for each factor, not smoothed.
    pub(crate) masses: Vec<f64>,
    /// The models of a pool that count, with their weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) members: Vec<(String, f64)>,
    /// Those whose validation loss is too high.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) excluded: Vec<String>,
}

/// One model: how it was fitted, how good it is, and why it says what it says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ModelResult {
    /// Its folder.
    pub(crate) name: String,
    /// What it is, in words.
    pub(crate) kind: String,
    /// What guided it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guide: Option<String>,
    /// How a network was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) training: Option<TrainingResult>,
    /// Figures on test rows; among all models also the distances to knowledge and references.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// How it was explained.
    pub(crate) method: Method,
    /// The largest relative distance of a sum of attributions from the score it should be.
    pub(crate) residual: f64,
    /// Mean absolute attributions, in units of the score.
    pub(crate) importances: Vec<Band>,
    /// Their shares.
    pub(crate) shares: Vec<Band>,
    /// What makes its attributions say less than they seem to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}

/// How a network was trained.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TrainingResult {
    /// The weight of guidance.
    pub(crate) lambda: f64,
    /// The step it was taken after.
    pub(crate) step: u64,
    /// Its mean loss of the task on validation rows.
    pub(crate) validation: Option<f64>,
    /// Guided steps whose divergence was left out.
    pub(crate) skipped: u64,
    /// Weights that were tried, with their losses on validation rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) candidates: Vec<(f64, Option<f64>)>,
}

impl ModelResult {
    /// The shares alone.
    pub(crate) fn distribution(&self) -> Vec<f64> {
        self.shares.iter().map(|share| share.value).collect()
    }
}

impl FactorsResult {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULTS))
    }

    /// What claims read off: every figure of every model, and the agreement of all and of every two.
    pub(super) fn figures(&self) -> Figures {
        let mut figures = self.consistency.figures();
        for model in &self.models {
            for (name, value) in &model.metrics {
                figures.add(&model.name, name, *value);
            }
        }
        figures
    }
}
